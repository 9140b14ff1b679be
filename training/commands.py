"""Commands about data sets, and what all commands share: options, checks of what is asked, and how errors are told.

Only what checks the input is imported up here: torch and lightning take seconds, and a slip of the pen needs neither.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from app.errors import WeightsError
from training import write_json
from training.data import SETS
from training.data.all_sets import LATER, SOURCES, build, write_table
from training.recipe import Precision, Recipe

cli = typer.Typer(no_args_is_help=True, add_completion=False)

Data = Annotated[Path, typer.Option("--data", envvar="FRACTURE_DATA", help="Folder that holds the data sets")]
Init = Annotated[
    Path | None, typer.Option(help="Initial layers: safetensors with the architecture's names, or a folder of them")
]
Weights = Annotated[Path, typer.Option(help="Folder of models")]
Model = Annotated[str, typer.Argument(help="Name of a folder under weights/")]
SetName = Annotated[str, typer.Argument(help=f"One of {', '.join(SETS)}")]
RecipeFile = Annotated[Path, typer.Argument(help="YAML file, such as training/recipes/resnet18.yaml")]
Precise = Annotated[Precision, typer.Option(help="auto takes what trains faster here")]
Runs = Annotated[Path | None, typer.Option(help="Folder to write; where not given, one under runs/")]
Seed = Annotated[int | None, typer.Option(help="Seed instead of the recipe's")]
Whole = Annotated[bool, typer.Option("--whole", help="Deal the official test images out too: a final figure")]

DATA, WEIGHTS = Path("data"), Path("weights")


def command(name: str | None = None) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Makes a function a command whose foreseen errors are one sentence and exit code 1."""

    def register(function: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(function)
        def answered(*args: Any, **options: Any) -> None:
            try:
                function(*args, **options)
            except (ConnectionError, FileNotFoundError, ValueError, WeightsError) as error:
                typer.echo(str(error), err=True)
                raise typer.Exit(1) from None

        return cli.command(name)(answered)

    return register


def check_known(kind: str, names: Iterable[str] | None, known: Iterable[str]) -> None:
    if unknown := [name for name in names or () if name not in known]:
        raise ValueError(f"There is no {kind} '{unknown[0]}'; known are {', '.join(known)}.")


def check_sets(data: Path, *names: str) -> None:
    check_known("data set", names, SETS)
    for name in names:
        SETS[name].find(data)


def check_source_sets(data: Path, *names: str) -> None:
    for name in names:
        if name in LATER:
            LATER[name](data)
        else:
            check_sets(data, name)


def check_layers(init: Path | None) -> None:
    if init and not init.exists():
        raise FileNotFoundError(f"There are no initial layers at {init}.")


def check_model(name: str, weights: Path) -> None:
    if not (weights / name / "card.json").is_file():
        known = ", ".join(sorted(card.parent.name for card in weights.glob("*/card.json"))) or "none"
        raise WeightsError(f"There is no model called '{name}' in {weights}. Available: {known}.")


def check_run(folder: Path) -> None:
    if not (folder / "recipe.json").is_file():
        raise FileNotFoundError(f"{folder} holds no run; `python -m training fit` or `cross-validate` writes one.")


def check_to_train(recipe: Recipe, data: Path, init: Path | None) -> None:
    check_typed(recipe, data)
    if recipe.many:
        check_known("source", recipe.many.draws, SOURCES)
        check_source_sets(data, *recipe.many.draws)
    elif recipe.places:
        check_sets(data, "fracatlas")
    check_layers(init)


def check_typed(recipe: Recipe, data: Path) -> None:
    """Whether the images with types are there: the recipe's own, or bone-break's."""
    if recipe.own is None:
        check_sets(data, "bone-break")
    elif not recipe.own.root.exists():
        raise FileNotFoundError(f"There are no images at {recipe.own.root}, where the recipe says they are.")


def interval(share: dict[str, float]) -> str:
    return f"{share['value']:.1%} (95 % CI {share['low']:.1%} to {share['high']:.1%}, n = {share['n']})"


def auroc(area: dict[str, float]) -> str:
    return f"AUROC {area['value']:.3f} (95 % CI {area['low']:.3f} to {area['high']:.3f}, n = {area['n']})"


@cli.callback()
def main() -> None:
    """Trains and judges the demo's networks. For study, not for diagnosis."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")


@command()
def download(name: SetName, data: Data = DATA) -> None:
    """Fetch a data set from its publisher (needs internet)."""
    from training.data import download as downloading

    typer.echo(downloading.download(name, data))


@command()
def examples(
    data: Data = DATA,
    out: Annotated[Path, typer.Option(help="Folder to fill")] = Path("examples"),
    count: Annotated[int, typer.Option(help="Images wanted", min=1)] = 6,
) -> None:
    """Fill examples/ with FracAtlas images (CC BY 4.0), which the demo then offers to try."""
    from training.data.download import collect

    typer.echo(f"{len(collect(data, out, count))} images in {out}")


@command()
def split(
    name: SetName,
    data: Data = DATA,
    out: Annotated[Path, typer.Option(help="Folder to write")] = Path("training/splits"),
) -> None:
    """Group a data set's near-duplicates and deal them out; writes the CSV that everything trains by."""
    check_sets(data, name)
    from training.data import splits
    from training.data.duplicates import find_groups
    from training.data.image import readable

    dataset, decoded = readable(SETS[name].load(data))
    groups = find_groups(dataset, decoded).cases
    typer.echo(splits.write(dataset, groups, splits.part_images(dataset, groups), out))


@command()
def audit(
    name: SetName,
    out: Annotated[Path, typer.Option(help="Folder for the counts")] = Path("training/data/audits"),
    data: Data = DATA,
    init: Annotated[Path | None, typer.Option(help="Pretrained ResNet-18 layers for the label check")] = None,
) -> None:
    """Count what is duplicated, leaked, contradictory or marked in a data set; no image is written."""
    check_sets(data, name)
    check_layers(init)
    from training.studies import audit as auditing

    near = auditing.audit(SETS[name].load(data), out, init)["near_duplicates"]
    typer.echo(f"{out / name}.json: {near['different_images']} different images")


@command()
def groups(data: Data = DATA) -> None:
    """Group the images of all sets and deal the groups out; writes the table that many sources go by."""
    for name in ("films.csv", "near-duplicates.csv"):
        if not (data / name).is_file():
            raise FileNotFoundError(f"There is no {data / name}, which says what images show one radiograph.")

    typer.echo(write_table(build(data)))


@command("audit-sets")
def audit_sets(
    names: Annotated[list[str] | None, typer.Argument(help="Sets; all without an audit of their own if none")] = None,
    data: Data = DATA,
    out: Annotated[Path, typer.Option(help="Folder of the summaries")] = Path("training/data/audits"),
) -> None:
    """Count files, radiographs, contradictions and images of other sets; writes one JSON a set."""
    check_known("data set", names, LATER)
    check_source_sets(data, *(names or LATER))
    from training.studies.sources import set_audit

    for name in names or LATER:
        found = set_audit(name, data)
        write_json(out / f"set-{name}.json", found, ascii_only=False)
        typer.echo(f"{name}: {found['files']} files, {found['radiographs']} radiographs")


@command()
def agreement(
    data: Data = DATA,
    out: Annotated[Path, typer.Option(help="JSON to write")] = Path("training/results/agreement.json"),
) -> None:
    """How far two sets agree on the radiographs that stand in both: Cohen's kappa, by pair of sets."""
    check_source_sets(data, "hbfmid")
    from training.studies.sources import agreement as judge

    found = judge(data)
    write_json(out, found, ascii_only=False)
    for kind in ("presence", "types"):
        for row in found[kind]:
            told = "not defined" if row["kappa"] is None else f"{row['kappa']['value']:.2f}"
            typer.echo(f"{kind}, {' and '.join(row['sets'])}: n = {row['n']}, agree {row['agree']}, kappa {told}")


def print_figures(figures: dict[str, Any], part: str) -> None:
    error = figures["expected_calibration_error"]["value"]
    typer.echo(f"{part} accuracy: {interval(figures['accuracy'])}; top-3: {interval(figures['top3'])}")
    if found := figures["kappa"]:
        typer.echo(f"  kappa: {found['value']:.2f} (95 % CI {found['low']:.2f} to {found['high']:.2f})")
    for key in ("balanced_accuracy", "macro_precision", "macro_recall", "macro_f1", "macro_auroc"):
        typer.echo(f"{part} {key}: {figures[key]:.3f}")
    typer.echo(f"{part} expected calibration error: {error:.3f}")
