"""``python -m training``: everything that makes and judges weights."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Annotated

import typer

from training.data.film import DataSet
from training.recipe import Precision

cli = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__)

Data = Annotated[
    Path | None, typer.Option("--data", help="Folder that holds the films; FRACTURE_DATA where not given.")
]


Init = Annotated[
    Path | None, typer.Option(help="Initial layers: safetensors with the architecture's names, or a folder of them")
]
Weights = Annotated[Path, typer.Option(help="Folder of models")]


def _refuse(error: Exception) -> typer.Exit:
    typer.echo(str(error), err=True)
    return typer.Exit(1)


def data_folder(given: Path | None) -> Path:
    """The films' folder, from the option, else FRACTURE_DATA, else ``data``."""
    return given or Path(os.environ.get("FRACTURE_DATA") or "data")


@cli.callback()
def main() -> None:
    """Trains and judges the demo's networks. For study, not for diagnosis."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")


@cli.command()
def fit(
    recipe: Annotated[Path, typer.Argument(help="YAML file, such as training/recipes/resnet18.yaml")],
    data: Data = None,
    init: Init = None,
    run: Annotated[Path | None, typer.Option(help="Folder to write; runs/<name> where not given")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the run's last checkpoint")] = False,
    precision: Annotated[Precision, typer.Option(help="auto takes what trains faster here")] = "auto",
    fold: Annotated[int | None, typer.Option(help="Validate on this fold instead of the recipe's")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed instead of the recipe's")] = None,
    progress: Annotated[bool, typer.Option(help="Draw a progress bar")] = True,
) -> None:
    """Train a recipe on the bone-break films."""
    from pydantic import ValidationError

    from training import fit as fitting
    from training.recipe import load_recipe

    changes = {name: value for name, value in (("fold", fold), ("seed", seed)) if value is not None}
    try:
        chosen = load_recipe(recipe, **changes)
        last = fitting.fit(
            chosen,
            data_folder(data),
            run or Path("runs") / chosen.name,
            init=init,
            resume=resume,
            precision=precision,
            progress=progress,
        )
    except (FileNotFoundError, ValidationError, ValueError) as error:
        raise _refuse(error) from None
    typer.echo(f"trained weights: {last}")


@cli.command(name="cross-validate")
def cross_validate(
    recipe: Annotated[Path, typer.Argument(help="YAML file, such as training/recipes/resnet18.yaml")],
    data: Data = None,
    init: Init = None,
    run: Annotated[Path | None, typer.Option(help="Folder of the folds; runs/folds/<name> where not given")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed instead of the recipe's")] = None,
    whole: Annotated[bool, typer.Option("--whole", help="Deal the test films out too: a final figure")] = False,
    precision: Annotated[Precision, typer.Option(help="auto takes what trains faster here")] = "auto",
) -> None:
    """Train and judge a recipe fold by fold; finished folds are not repeated."""
    from pydantic import ValidationError

    from training import cross_validate as validating
    from training.recipe import load_recipe

    try:
        changes = {} if seed is None else {"seed": seed}
        chosen = load_recipe(recipe, whole=whole, **changes)
        where = run or Path("runs/whole" if whole else "runs/folds") / chosen.name
        found = validating.cross_validate(chosen, data_folder(data), where, init=init, precision=precision)
    except (FileNotFoundError, ValidationError, ValueError) as error:
        raise _refuse(error) from None
    summary = validating.summarise(found)
    _print_figures(summary["types"], "out-of-fold")
    typer.echo(f"mirrored too: {summary['mirrored_too']}; places: {summary.get('places', 'not learnt')}")


@cli.command()
def ablate(
    plan: Annotated[Path, typer.Argument(help="YAML file with a base recipe and switches")],
    names: Annotated[list[str] | None, typer.Argument(help="Switches to run; all where none is named")] = None,
    data: Data = None,
    init: Init = None,
    runs: Annotated[Path, typer.Option(help="Folder of the runs")] = Path("runs/ablation"),
    precision: Annotated[Precision, typer.Option(help="auto takes what trains faster here")] = "auto",
) -> None:
    """Measure what each switch of a plan gives alone, by cross-validation; finished ones are not repeated."""
    from pydantic import ValidationError

    from training import ablate as switching

    try:
        chosen = switching.load_ablation(plan)
        rows = switching.ablate(chosen, data_folder(data), runs, init, names=tuple(names or ()), precision=precision)
    except (FileNotFoundError, KeyError, ValidationError, ValueError) as error:
        raise _refuse(error) from None
    for name, row in rows.items():
        typer.echo(f"{name}: {row['accuracy']['value']:.1%}, against the base {row['difference']['value']:+.1%}")


@cli.command()
def export(
    run: Annotated[Path, typer.Argument(help="Folder a training run wrote, such as runs/resnet18")],
    folds: Annotated[Path, typer.Option(help="Folder its recipe's cross-validation wrote")],
    data: Data = None,
    weights: Weights = Path("weights"),
) -> None:
    """Make a run's weights a model of the demo, calibrated on its recipe's out-of-fold predictions."""
    from training import export as exporting

    try:
        card = exporting.export(run, folds, data_folder(data), weights)
    except (FileNotFoundError, ValueError) as error:
        raise _refuse(error) from None
    _print_figures(card.metrics["cross_validation"], "out-of-fold")


@cli.command()
def evaluate(
    model: Annotated[str, typer.Argument(help="Name of a folder under weights/")],
    data: Data = None,
    weights: Weights = Path("weights"),
) -> None:
    """Judge a model on the official test films: the final figure, never a choice."""
    from app.errors import WeightsError
    from training import evaluate as evaluating

    try:
        card = evaluating.evaluate(model, data_folder(data), weights)
    except (FileNotFoundError, ValueError, WeightsError) as error:
        raise _refuse(error) from None
    _print_figures(card.metrics["test"], "test")


@cli.command()
def download(
    name: Annotated[str, typer.Argument(help="bone-break, fracatlas or multi-region")],
    data: Data = None,
) -> None:
    """Fetch a data set from its publisher (needs internet)."""
    from training import download as downloading

    try:
        typer.echo(downloading.download(name, data_folder(data)))
    except (RuntimeError, ValueError, FileNotFoundError) as error:
        raise _refuse(error) from None


@cli.command()
def examples(
    data: Data = None,
    out: Annotated[Path, typer.Option(help="Folder to fill")] = Path("examples"),
    count: Annotated[int, typer.Option(help="Films wanted", min=1)] = 6,
) -> None:
    """Fill examples/ with FracAtlas films (CC BY 4.0), which the demo then offers to try."""
    from training.examples import collect

    try:
        copies = collect(data_folder(data), out, count)
    except FileNotFoundError as error:
        raise _refuse(error) from None
    typer.echo(f"{len(copies)} films in {out}")


def _print_figures(figures: dict, part: str) -> None:
    for key in ("accuracy", "top3"):
        share = figures[key]
        typer.echo(
            f"{part} {key}: {share['value']:.1%} (95 % interval {share['low']:.1%} to {share['high']:.1%}, "
            f"{share['n']} films)"
        )
    for key in ("balanced_accuracy", "macro_precision", "macro_recall", "macro_f1", "macro_auroc"):
        typer.echo(f"{part} {key}: {figures[key]:.3f}")
    typer.echo(f"{part} expected calibration error: {figures['expected_calibration_error']['value']:.3f}")


@cli.command()
def split(
    name: Annotated[str, typer.Argument(help="bone-break, fracatlas or multi-region")],
    data: Data = None,
    out: Annotated[Path, typer.Option(help="Folder to write")] = Path("training/splits"),
) -> None:
    """Group a data set's near-duplicates and deal them out; writes the CSV that everything trains by."""
    from training.data import splits
    from training.data.film import readable
    from training.data.grouping import find_groups

    dataset, decoded = readable(_load(name, data))
    groups = find_groups(dataset, decoded).groups
    typer.echo(splits.write(dataset, groups, splits.part_films(dataset, groups), out))


def _load(name: str, data: Path | None) -> DataSet:
    from training.data import SETS

    if name not in SETS:
        raise _refuse(ValueError(f"There is no data set '{name}'; known are {', '.join(SETS)}."))
    try:
        return SETS[name](data_folder(data))
    except FileNotFoundError as error:
        raise _refuse(error) from None


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

    from training import audit as auditing
    from training.audit_page import write_page

    found = auditing.audit(_load(name, data), init)
    summary.mkdir(parents=True, exist_ok=True)
    target = summary / f"{name}.json"
    target.write_text(json.dumps(found.summary, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    typer.echo(f"{write_page(found, out)} and {target}")


@cli.command()
def peers(
    names: Annotated[list[str] | None, typer.Argument(help="Recipes to run; all where none is named")] = None,
    data: Data = None,
    init: Annotated[Path | None, typer.Option(help="Folder with initial layers, for recipes that use them")] = None,
    table_only: Annotated[
        bool, typer.Option("--table", help="Print the table of what was run, and run nothing")
    ] = False,
) -> None:
    """Re-run the accuracies others publish, on their own split and without its leak."""
    import numpy as np

    from training.data import splits
    from training.data.cache import squares
    from training.peers import protocol
    from training.peers.recipe import load_all
    from training.peers.run import run
    from training.peers.table import load_rows, markdown, save

    recipes = load_all()
    unknown = set(names or []) - recipes.keys()
    if unknown:
        raise _refuse(ValueError(f"Unknown: {', '.join(sorted(unknown))}. Known are {', '.join(recipes)}."))
    for name in () if table_only else names or recipes:
        recipe = recipes[name]
        dataset = _load(recipe.data, data)
        known = splits.committed(dataset)
        if known is None:
            raise _refuse(ValueError(f"These are not the films of training/splits/{recipe.data}.csv."))
        pixels = squares([film.path for film in dataset.films], recipe.size)
        labels = np.array([film.label for film in dataset.films])
        start = (
            next(iter(sorted(init.glob(f"{recipe.initial}*.safetensors"))), None) if init and recipe.initial else None
        )
        precision = "32-true" if recipe.network == "mobilenet-v2" else "bf16-mixed"
        rows = load_rows(recipes)
        for kind, sides in (
            ("published", protocol.published(dataset, recipe.protocol, recipe.judged)),
            ("leak_free", protocol.leak_free(dataset, recipe.protocol, known[0], recipe.judged)),
        ):
            rows[name][kind] = run(recipe, pixels, labels, sides, start, precision)
            typer.echo(f"{name}, {kind}: {rows[name][kind]}", err=True)
        save(rows)
    typer.echo(markdown(load_rows(recipes)))
