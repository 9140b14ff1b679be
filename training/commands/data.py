"""Commands about the data sets, and about what others measured on them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from training.commands.options import Data, Init, data_folder
from training.data.image import DataSet

__all__ = ["cli"]

cli = typer.Typer()


@cli.command()
def download(
    name: Annotated[str, typer.Argument(help="bone-break, fracatlas or multi-region")],
    data: Data = None,
) -> None:
    """Fetch a data set from its publisher (needs internet)."""
    from training.data import download as downloading

    try:
        typer.echo(downloading.download(name, data_folder(data)))
    except RuntimeError as error:
        raise ValueError(str(error)) from None


@cli.command()
def examples(
    data: Data = None,
    out: Annotated[Path, typer.Option(help="Folder to fill")] = Path("examples"),
    count: Annotated[int, typer.Option(help="Films wanted", min=1)] = 6,
) -> None:
    """Fill examples/ with FracAtlas films (CC BY 4.0), which the demo then offers to try."""
    from training.data.examples import collect

    copies = collect(data_folder(data), out, count)
    typer.echo(f"{len(copies)} films in {out}")


@cli.command()
def split(
    name: Annotated[str, typer.Argument(help="bone-break, fracatlas or multi-region")],
    data: Data = None,
    out: Annotated[Path, typer.Option(help="Folder to write")] = Path("training/splits"),
) -> None:
    """Group a data set's near-duplicates and deal them out; writes the CSV that everything trains by."""
    from training.data import splits
    from training.data.grouping import find_groups
    from training.data.image import readable

    dataset, decoded = readable(_load(name, data))
    groups = find_groups(dataset, decoded).families
    typer.echo(splits.write(dataset, groups, splits.part_images(dataset, groups), out))


@cli.command()
def audit(
    name: Annotated[str, typer.Argument(help="bone-break, fracatlas or multi-region")],
    out: Annotated[Path, typer.Option(help="Folder for the page with thumbnails; never commit it")],
    data: Data = None,
    init: Annotated[Path | None, typer.Option(help="Pretrained ResNet-18 layers for the label check")] = None,
    summary: Annotated[Path, typer.Option(help="Folder for the summary without films")] = Path("training/data/audits"),
) -> None:
    """Count what is duplicated, leaked, contradictory or marked in a data set."""
    import json

    from training.studies import audit as auditing
    from training.studies.audit_page import write_page

    found = auditing.audit(_load(name, data), init)
    found.summary["near_duplicates"]["looked_at"] = auditing.looked_at(name, summary)
    summary.mkdir(parents=True, exist_ok=True)
    target = summary / f"{name}.json"
    target.write_text(json.dumps(found.summary, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    typer.echo(f"{write_page(found, out)} and {target}")


@cli.command()
def peers(
    names: Annotated[list[str] | None, typer.Argument(help="Recipes to run; all where none is named")] = None,
    data: Data = None,
    init: Annotated[Path | None, typer.Option(help="Folder with initial layers, for recipes that use them")] = None,
    only: Annotated[
        str | None, typer.Option(help="published or leak_free: re-run this side and keep the other; both if not given")
    ] = None,
    table_only: Annotated[
        bool, typer.Option("--table", help="Print the table of what was run, and run nothing")
    ] = False,
) -> None:
    """Re-run the accuracies others publish, on their own split and without its leak."""
    import numpy as np

    from training.data import splits
    from training.data.cache import squares
    from training.studies.peers import protocol
    from training.studies.peers.recipe import load_all
    from training.studies.peers.run import run
    from training.studies.peers.table import load_rows, markdown, save

    recipes = load_all()
    unknown = set(names or []) - recipes.keys()
    if unknown:
        raise ValueError(f"Unknown: {', '.join(sorted(unknown))}. Known are {', '.join(recipes)}.")
    for name in () if table_only else names or recipes:
        recipe = recipes[name]
        dataset = _load(recipe.data, data)
        known = splits.committed(dataset)
        if known is None:
            raise ValueError(f"These are not the films of training/splits/{recipe.data}.csv.")
        pixels = squares([film.path for film in dataset.films], recipe.size)
        labels = np.array([film.label for film in dataset.films])
        start = (
            next(iter(sorted(init.glob(f"{recipe.initial}*.safetensors"))), None) if init and recipe.initial else None
        )
        precision = "32-true" if recipe.network == "mobilenet-v2" else "bf16-mixed"
        for kind, sides in (
            ("published", protocol.published(dataset, recipe.protocol, known[0], recipe.judged)),
            ("leak_free", protocol.leak_free(dataset, recipe.protocol, known[0], recipe.judged)),
        ):
            if only not in (None, kind):
                continue
            found = run(recipe, pixels, labels, known[0], sides, start, precision)
            found["sides_sha256"] = sides.digest(dataset)
            typer.echo(f"{name}, {kind}: {found}", err=True)
            # Read again, since another run may have written meanwhile.
            rows = load_rows(recipes)
            rows[name][kind] = found
            save(rows)
    typer.echo(markdown(load_rows(recipes)))


@cli.command("cross-source")
def cross_source(data: Data = None, init: Init = None) -> None:
    """Learn fractured or not from one source and judge on another: the drop that a single source hides."""
    from training.studies.cross_source import cross_source as judge

    layers = next(iter(sorted(init.glob("resnet18*.safetensors"))), None) if init and init.is_dir() else init
    found = judge(data_folder(data), layers, precision="bf16-mixed")
    for source, row in found["auroc"].items():
        for judging, its in row.items():
            typer.echo(f"{source} -> {judging}: {its['value']:.3f} ({its['low']:.3f} to {its['high']:.3f})")


def _load(name: str, data: Path | None) -> DataSet:
    from training.data import SETS

    if name not in SETS:
        raise ValueError(f"There is no data set '{name}'; known are {', '.join(SETS)}.")
    return SETS[name](data_folder(data))
