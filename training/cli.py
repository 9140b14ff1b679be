"""``python -m training``: everything that makes and judges weights."""

from __future__ import annotations

import logging

import typer

from training.commands import data, models

cli = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__)


@cli.callback()
def main() -> None:
    """Trains and judges the demo's networks. For study, not for diagnosis."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")


cli.add_typer(models.cli)
cli.add_typer(data.cli)
