"""``python -m training``: everything that makes and judges weights.

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
from app.explain import METHODS
from training.data import SETS
from training.recipe import Precision, Recipe, load_ablation, load_recipe, load_replications

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


@cli.callback()
def main() -> None:
    """Trains and judges the demo's networks. For study, not for diagnosis."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")


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


def _known(kind: str, names: Iterable[str] | None, known: Iterable[str]) -> None:
    if unknown := [name for name in names or () if name not in known]:
        raise ValueError(f"There is no {kind} '{unknown[0]}'; known are {', '.join(known)}.")


def _sets(data: Path, *names: str) -> None:
    _known("data set", names, SETS)
    for name in names:
        SETS[name].find(data)


def _layers(init: Path | None) -> None:
    if init and not init.exists():
        raise FileNotFoundError(f"There are no initial layers at {init}.")


def _model(name: str, weights: Path) -> None:
    if not (weights / name / "card.json").is_file():
        known = ", ".join(sorted(card.parent.name for card in weights.glob("*/card.json"))) or "none"
        raise WeightsError(f"There is no model called '{name}' in {weights}. Available: {known}.")


def _run(folder: Path) -> None:
    if not (folder / "recipe.json").is_file():
        raise FileNotFoundError(f"{folder} holds no run; `python -m training fit` or `cross-validate` writes one.")


def _to_train(recipe: Recipe, data: Path, init: Path | None) -> None:
    _sets(data, "bone-break", *(["fracatlas"] if recipe.places else []))
    _layers(init)


@command()
def fit(
    recipe: RecipeFile,
    data: Data = DATA,
    init: Init = None,
    run: Runs = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the run's last checkpoint")] = False,
    precision: Precise = "auto",
    fold: Annotated[int | None, typer.Option(help="Validate on this fold instead of the recipe's")] = None,
    seed: Seed = None,
    teacher: Annotated[Path | None, typer.Option(help="Run of the teacher, for recipes with one")] = None,
    progress: Annotated[bool, typer.Option(help="Draw a progress bar")] = True,
) -> None:
    """Train a recipe on the bone-break images."""
    chosen = load_recipe(recipe, fold=fold, seed=seed)
    _to_train(chosen, data, init)
    if teacher:
        _run(teacher)
    from training.fitting import fit as fitting

    where = run or Path("runs") / chosen.name
    last = fitting.fit(
        chosen, data, where, init=init, resume=resume, precision=precision, progress=progress, teacher=teacher
    )
    typer.echo(f"trained weights: {last}")


@command("cross-validate")
def cross_validate(
    recipe: RecipeFile,
    data: Data = DATA,
    init: Init = None,
    run: Runs = None,
    seed: Seed = None,
    fold: Annotated[list[int] | None, typer.Option("--fold", help="Only this fold; may be repeated")] = None,
    whole: Whole = False,
    precision: Precise = "auto",
) -> None:
    """Train and judge a recipe fold by fold; finished folds are not repeated, figures go to training/results."""
    chosen = load_recipe(recipe, whole=whole, seed=seed)
    for number in fold or ():
        load_recipe(recipe, fold=number)
    _to_train(chosen, data, init)
    from training.fitting import cross_validation as validating

    where = run or Path("runs/whole" if whole else "runs/folds") / chosen.name
    validating.cross_validate(chosen, data, where, folds=fold or None, init=init, precision=precision)
    summary = validating.record(validating.read_folds(where, chosen, partial=True), chosen, where)
    _print_figures(summary["types"], "out-of-fold")
    typer.echo(f"all views averaged: {summary['views_averaged']}; fracture map: {summary.get('places', 'not learnt')}")


@command()
def seeds(
    recipe: RecipeFile,
    data: Data = DATA,
    init: Init = None,
    count: Annotated[int, typer.Option(help="Seeds 0 to count - 1", min=1)] = 3,
    runs: Runs = None,
    precision: Precise = "auto",
) -> None:
    """Train a recipe on all training images with several seeds and judge each on the test images: the final figure."""
    chosen = load_recipe(recipe)
    _to_train(chosen, data, init)
    from training.fitting import cross_validation as validating

    where = runs or Path("runs/seeds") / chosen.name
    found = validating.seeds(chosen, range(count), data, where, init=init, precision=precision)
    spread = "" if found["spread"] is None else f", standard deviation {found['spread']:.1%}"
    typer.echo(f"test accuracy of {count} seeds: mean {found['mean']:.1%}{spread}")


@command()
def ensemble(
    recipes: Annotated[list[Path], typer.Argument(help="YAML files of recipes that were cross-validated")],
    folds: Annotated[
        Path | None, typer.Option(help="Folder of the cross-validations, by recipe; runs/folds, or runs/whole")
    ] = None,
    runs: Annotated[Path, typer.Option(help="Folder of the seeds' runs, by recipe")] = Path("runs/seeds"),
    whole: Whole = False,
) -> None:
    """Judge an ensemble of models, out of fold and, where their seeds were run, on the test images."""
    chosen = [load_recipe(path, whole=whole) for path in recipes]
    from training.studies import comparisons

    found = comparisons.ensemble(chosen, folds or Path("runs/whole" if whole else "runs/folds"), runs)
    _print_figures(found["cross_validation"]["types"], "out-of-fold")
    for seed, figures in found["test"].items():
        typer.echo(f"test accuracy, seed {seed}: {figures['accuracy']['value']:.1%}")


@command()
def export(
    run: Annotated[Path, typer.Argument(help="Folder a training run wrote, such as runs/resnet18")],
    folds: Annotated[Path, typer.Option(help="Folder its recipe's cross-validation wrote")],
    data: Data = DATA,
    weights: Weights = WEIGHTS,
) -> None:
    """Make a run's weights a model of the demo, calibrated on its recipe's out-of-fold predictions."""
    _run(run)
    _sets(data, "bone-break")
    from training.release import export as exporting

    card = exporting.export(run, folds, data, weights)
    _print_figures(card.metrics["cross_validation"], "out-of-fold")


@command()
def evaluate(model: Model, data: Data = DATA, weights: Weights = WEIGHTS) -> None:
    """Judge a model on the official test images: the final figure, never a choice."""
    _model(model, weights)
    _sets(data, "bone-break")
    from training.evaluation import classification

    _print_figures(classification.evaluate(model, data, weights).metrics["test"], "test")


@command()
def localise(model: Model, data: Data = DATA, weights: Weights = WEIGHTS) -> None:
    """Judge where a model looks, by the fracture boxes of FracAtlas' validation images, against trivial baselines."""
    _model(model, weights)
    _sets(data, "fracatlas")
    from training.evaluation import heatmaps

    for name, row in heatmaps.localise(model, data, weights)["maps"].items():
        near, energy = row["near"]["value"], row["energy"]["value"]
        inside = _interval(row["inside"])
        typer.echo(f"{name}: pointing game {inside}, near a box {near:.1%}, energy in boxes {energy:.1%}")


@command()
def presence(model: Model, data: Data = DATA, weights: Weights = WEIGHTS) -> None:
    """Choose from where on an image counts as fractured, on FracAtlas' validation images, and judge that on others."""
    _model(model, weights)
    _sets(data, "fracatlas", "bone-break")
    from training.evaluation import presence as judging

    found = judging.presence(model, data, weights)
    for name, its in ({part: found[part] for part in ("validation", "test")} | found["elsewhere"]).items():
        if area := its.get("auroc"):
            typer.echo(
                f"{name} AUROC {area['value']:.3f} ({area['low']:.3f} to {area['high']:.3f}, n = {its['films']})"
            )
        for point in ("sensitive", "specific"):
            rates = ", ".join(f"{rate} {share['value']:.1%}" for rate, share in its[point].items() if share)
            typer.echo(f"{name}, {point} point: {rates}")


@command()
def ood(data: Data = DATA, init: Init = None, weights: Weights = WEIGHTS) -> None:
    """Train and evaluate the detector of what is no radiograph, which all models share."""
    _sets(data, "fracatlas", "bone-break")
    from training.evaluation.ood import measure

    found = measure(data, weights, init).metrics
    for source, its in (*found["radiographs"].items(), *found["source_left_out"].items()):
        typer.echo(
            f"{source} (n = {its['kept']['n']}; {its['how']}): rejected {1.0 - its['kept']['value']:.1%}, "
            f"warned or rejected {1.0 - its['without_warning']['value']:.1%}"
        )
    for kind, share in (*found["others"].items(), *found["tampered"].items()):
        typer.echo(f"{kind} (n = {share['n']}): {share['value']:.1%}")


@command()
def faithfulness(
    model: Model,
    methods: Annotated[list[str] | None, typer.Argument(help="Methods to judge; all where none is named")] = None,
    data: Data = DATA,
    weights: Weights = WEIGHTS,
    images: Annotated[int, typer.Option(min=2, help="Fractured validation images to judge on")] = 120,
    runs: Annotated[Path, typer.Option(help="Folder where each image's figures are kept")] = Path("runs/faithfulness"),
) -> None:
    """Judge every method on a model: deletion, insertion, ROAD, boxes, stability, weight randomisation."""
    _known("method", methods, METHODS)
    _model(model, weights)
    _sets(data, "fracatlas")
    from training.evaluation import heatmaps

    found = heatmaps.faithfulness(model, data, weights, images=images, methods=tuple(methods or ()), runs=runs)
    for name, row in found["methods"].items():
        shares = row["margins"].items()
        margins = ", ".join(f"{k} {m['value']:+.3f} ({m['low']:+.3f} to {m['high']:+.3f})" for k, m in shares)
        typer.echo(f"{name}: better than random by {margins}; {row['seconds']:.2f} s an image")


@command()
def ablate(
    plan: Annotated[Path, typer.Argument(help="YAML file with a base recipe and switches")],
    names: Annotated[list[str] | None, typer.Argument(help="Switches to run; all where none is named")] = None,
    data: Data = DATA,
    init: Init = None,
    runs: Annotated[Path, typer.Option(help="Folder of the runs")] = Path("runs/ablation"),
    precision: Precise = "auto",
) -> None:
    """Measure what each switch of a plan gives alone, by cross-validation; finished ones are not repeated."""
    chosen = load_ablation(plan)
    _known("switch", names, chosen.switches)
    _to_train(chosen.base, data, init)
    from training.studies import comparisons

    rows = comparisons.ablate(chosen, data, runs, init, names=tuple(names or ()), precision=precision)
    for name, row in rows.items():
        typer.echo(f"{name}: {row['accuracy']['value']:.1%}, against the base {row['difference']['value']:+.1%}")


@command()
def report() -> None:
    """Write the pages of docs/ from what was measured, the models' cards and the table of the README."""
    from training.studies.report import report as write

    for path in write():
        typer.echo(path)


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
    _sets(data, name)
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
    _sets(data, name)
    _layers(init)
    from training.studies import audit as auditing

    near = auditing.audit(SETS[name].load(data), out, init)["near_duplicates"]
    typer.echo(f"{out / name}.json: {near['different_films']} different images")


@command()
def replications(
    names: Annotated[list[str] | None, typer.Argument(help="Recipes to run; all where none is named")] = None,
    data: Data = DATA,
    init: Annotated[Path | None, typer.Option(help="Folder with initial layers, for recipes that use them")] = None,
    only: Annotated[
        str | None, typer.Option(help="published or leak_free: re-run this side and keep the other; both if not given")
    ] = None,
) -> None:
    """Replicate published accuracies, on their own split and without its leak; `report` writes the table."""
    recipes = load_replications()
    _known("replication", names, recipes)
    _known("side", [only] if only else [], ("published", "leak_free"))
    chosen = names or list(recipes)
    _sets(data, *sorted({recipes[name].data for name in chosen}))
    _layers(init)
    from training.studies import replications as replicating

    for name in chosen:
        for kind, found in replicating.replicate(name, data, init, only=only):
            typer.echo(f"{name}, {kind}: accuracy {_interval(found['accuracy'])}")


@command("cross-source")
def cross_source(data: Data = DATA, init: Init = None) -> None:
    """Learn fractured or not from one source and judge on another: the drop that a single source hides."""
    _sets(data, *SETS)
    _layers(init)
    from training.studies import replications as replicating

    for source, row in replicating.cross_source(data, init, precision="bf16-mixed")["auroc"].items():
        for judging, its in row.items():
            typer.echo(f"{source} -> {judging}: {its['value']:.3f} ({its['low']:.3f} to {its['high']:.3f})")


def _interval(share: dict[str, float]) -> str:
    return f"{share['value']:.1%} (95 % CI {share['low']:.1%} to {share['high']:.1%}, n = {share['n']})"


def _print_figures(figures: dict, part: str) -> None:
    error = figures["expected_calibration_error"]["value"]
    typer.echo(f"{part} accuracy: {_interval(figures['accuracy'])}; top-3: {_interval(figures['top3'])}")
    for key in ("balanced_accuracy", "macro_precision", "macro_recall", "macro_f1", "macro_auroc"):
        typer.echo(f"{part} {key}: {figures[key]:.3f}")
    typer.echo(f"{part} expected calibration error: {error:.3f}")
