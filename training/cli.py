"""``python -m training``: everything that makes and judges weights."""

from __future__ import annotations

import logging
from typing import Any

import typer
from typer.core import TyperGroup

from app.errors import WeightsError
from training.commands import data, models


class _Answering(TyperGroup):
    """Commands that cannot do what is asked say why in a sentence, whichever they are."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except (FileNotFoundError, ValueError, WeightsError) as error:
            typer.echo(str(error), err=True)
            raise typer.Exit(1) from None


cli = typer.Typer(cls=_Answering, no_args_is_help=True, add_completion=False, help=__doc__)


@cli.callback()
def main() -> None:
    """Trains and judges the demo's networks. For study, not for diagnosis."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")


cli.add_typer(models.cli)
cli.add_typer(data.cli)
