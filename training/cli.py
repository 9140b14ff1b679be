"""``python -m training``: everything that makes and judges weights.

Only what checks the input is imported up here: torch and lightning take seconds, and a slip of the pen needs neither.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from app.explain import METHODS
from training.commands import (
    DATA,
    WEIGHTS,
    Data,
    Init,
    Model,
    Precise,
    RecipeFile,
    Runs,
    Seed,
    Weights,
    Whole,
    auroc,
    check_known,
    check_model,
    check_run,
    check_sets,
    check_source_sets,
    check_to_train,
    check_typed,
    cli,
    command,
    interval,
    print_figures,
)
from training.recipe import load_recipe, recipe_of
from training.studies import commands as studies  # makes them known to ``cli``

__all__ = ["cli", "studies"]

Minutes = Annotated[float | None, typer.Option(min=1, help="End, with the schedule, after so much training")]


@command()
def init(
    images: Annotated[Path, typer.Argument(help="Folder of class folders, or CSV file with path and label")],
    name: Annotated[str | None, typer.Option(help="Of the model; the folder's where not given")] = None,
    out: Annotated[Path | None, typer.Option(help="Recipe to write; NAME.yaml where not given")] = None,
    title: Annotated[str | None, typer.Option(help="Of the page, as in 'Skin lesions'")] = None,
    image: Annotated[str, typer.Option(help="What the page calls one, as in 'photo' or 'X-ray'")] = "image",
    finding: Annotated[str, typer.Option(help="What the classes are types of, as in 'tumour'")] = "",
) -> None:
    """Look at images of your own, say what was found, and write a recipe for them."""
    from training.data import look

    found = look.look(images)
    for line in found.lines():
        typer.echo(line)
    path = look.write_recipe(found, name=name, out=out, title=title, image=image, finding=finding)
    run = load_recipe(path).name
    typer.echo(f"\n{path} is written. Look through it, then:")
    typer.echo(f"  python -m training fit {path}\n  python -m training export runs/{run}")
    typer.echo(f"  python -m app serve --model {run}")


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
    minutes: Minutes = None,
) -> None:
    """Train a recipe, on the public images or on its own."""
    chosen = load_recipe(recipe, fold=fold, seed=seed)
    check_to_train(chosen, data, init)
    if teacher:
        check_run(teacher)
    from training.fitting import fit as fitting

    where = run or Path("runs") / chosen.name
    how: dict[str, Any] = {"init": init, "resume": resume, "precision": precision, "teacher": teacher}
    last = fitting.fit(chosen, data, where, minutes=minutes, progress=progress, **how)
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
    minutes: Minutes = None,
) -> None:
    """Train and judge a recipe fold by fold; finished folds are not repeated, figures go to training/results."""
    chosen = load_recipe(recipe, whole=whole, seed=seed)
    for number in fold or ():
        load_recipe(recipe, fold=number)
    check_to_train(chosen, data, init)
    from training.fitting import cross_validation as validating

    where = run or Path("runs/whole" if whole else "runs/folds") / chosen.name
    how: dict[str, Any] = {"init": init, "precision": precision, "minutes": minutes}
    validating.cross_validate(chosen, data, where, folds=fold or None, **how)
    summary = validating.record(validating.read_folds(where, chosen, partial=True), chosen, where)
    print_figures(summary["types"], "out-of-fold")
    typer.echo(f"out-of-fold accuracy, all views averaged: {interval(summary['views_averaged'])}")


@command()
def seeds(
    recipe: RecipeFile,
    data: Data = DATA,
    init: Init = None,
    count: Annotated[int, typer.Option(help="Seeds 0 to count - 1", min=1)] = 3,
    runs: Runs = None,
    precision: Precise = "auto",
    minutes: Minutes = None,
) -> None:
    """Train a recipe on all training images with several seeds and judge each on the test images: the final figure."""
    chosen = load_recipe(recipe)
    check_to_train(chosen, data, init)
    from training.fitting import cross_validation as validating

    where = runs or Path("runs/seeds") / chosen.name
    how: dict[str, Any] = {"init": init, "precision": precision, "minutes": minutes}
    found = validating.seeds(chosen, range(count), data, where, **how)
    spread = "" if found["spread"] is None else f", standard deviation {found['spread']:.1%}"
    typer.echo(f"test accuracy of {count} seeds: mean {found['mean']:.1%}{spread}")


@command()
def export(
    run: Annotated[Path, typer.Argument(help="Folder a training run wrote, such as runs/resnet18")],
    folds: Annotated[
        Path | None, typer.Option(help="Folder its recipe's cross-validation wrote, if there is one")
    ] = None,
    data: Data = DATA,
    weights: Weights = WEIGHTS,
) -> None:
    """Make a run's weights a model of the demo, calibrated on its recipe's out-of-fold predictions.

    Without a cross-validation, bone-break-more calibrates it, or, of own images, the run's validation images.
    """
    check_run(run)
    recipe = recipe_of(run)
    check_typed(recipe, data)
    if recipe.own:
        from training.release.own import export_own

        card = export_own(run, weights, folds)
        print_figures(card.metrics["cross_validation"], "out-of-fold" if folds else "held-out")
        typer.echo(f"{weights / card.name} is ready: python -m app serve --model {card.name}")
        return
    if folds is None:
        check_source_sets(data, "bone-break-more")
    from training.release import export as exporting

    card = exporting.export(run, folds, data, weights)
    print_figures(card.metrics["cross_validation"], "out-of-fold")


@command()
def evaluate(model: Model, data: Data = DATA, weights: Weights = WEIGHTS) -> None:
    """Judge a model on the official test images: the final figure, never a choice."""
    check_model(model, weights)
    from app.model.weights import load_card

    if load_card(model, weights).subject.ours:
        check_sets(data, "bone-break")
    from training.evaluation import classification

    print_figures(classification.evaluate(model, data, weights).metrics["test"], "test")


@command()
def localise(model: Model, data: Data = DATA, weights: Weights = WEIGHTS) -> None:
    """Judge where a model looks, by the fracture boxes of FracAtlas' validation images, against trivial baselines."""
    check_model(model, weights)
    check_sets(data, "fracatlas")
    from training.evaluation import heatmaps

    for name, row in heatmaps.localise(model, data, weights)["maps"].items():
        near, energy = row["near"]["value"], row["energy"]["value"]
        inside = interval(row["inside"])
        typer.echo(f"{name}: pointing game {inside}, near a box {near:.1%}, energy in boxes {energy:.1%}")


@command()
def presence(model: Model, data: Data = DATA, weights: Weights = WEIGHTS) -> None:
    """Choose from where on an image counts as fractured, on FracAtlas' validation images, and judge that on others."""
    check_model(model, weights)
    check_sets(data, "fracatlas", "bone-break")
    from training.evaluation import presence as judging

    found = judging.presence(model, data, weights)
    for name, its in ({part: found[part] for part in ("validation", "test")} | found["elsewhere"]).items():
        if area := its.get("auroc"):
            typer.echo(f"{name}: {auroc(area)}")
        for point in ("sensitive", "specific"):
            rates = ", ".join(f"{rate} {share['value']:.1%}" for rate, share in its[point].items() if share)
            typer.echo(f"{name}, {point} point: {rates}")


@command()
def ood(data: Data = DATA, init: Init = None, weights: Weights = WEIGHTS) -> None:
    """Train and evaluate the detector of what is no radiograph, which all models share."""
    check_sets(data, "fracatlas", "bone-break")
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
    check_known("method", methods, METHODS)
    check_model(model, weights)
    check_sets(data, "fracatlas")
    from training.evaluation import heatmaps

    found = heatmaps.faithfulness(model, data, weights, images=images, methods=tuple(methods or ()), runs=runs)
    for name, row in found["methods"].items():
        shares = row["margins"].items()
        margins = ", ".join(f"{k} {m['value']:+.3f} ({m['low']:+.3f} to {m['high']:+.3f})" for k, m in shares)
        typer.echo(f"{name}: better than random by {margins}; {row['seconds']:.2f} s an image")


@command()
def precision(model: Model, data: Data = DATA, weights: Weights = WEIGHTS) -> None:
    """Judge what bfloat16 changes: types on the test images, maps on FracAtlas' fractured validation images."""
    check_model(model, weights)
    check_sets(data, "fracatlas", "bone-break")
    from training.evaluation.precision import compare

    found = compare(model, data, weights)
    moved, alike = found["changes"], found["correlations"]
    typer.echo(f"a probability changes by {moved['median']:.4f} in the median image, by {moved['most']:.4f} at most")
    typer.echo(f"maps correlate by {alike['median']:.5f} in the median image, by {alike['least']:.5f} at least")
    for figure in ("accuracy", "pointing"):
        typer.echo(f"{figure}: " + ", ".join(f"{key} {interval(its)}" for key, its in found[figure].items()))
    errors = found["calibration_error"].items()
    typer.echo("expected calibration error: " + ", ".join(f"{key} {error:.3f}" for key, error in errors))


@command()
def report() -> None:
    """Write from what was measured: the pages of docs/, the models' cards, the README's table, the page's data.json."""
    from training.studies.report import report as write

    for path in write():
        typer.echo(path)


@command()
def badges(
    repository: Annotated[str | None, typer.Argument(help="OWNER/REPOSITORY on GitHub; origin where not given")] = None,
    notebooks: Annotated[Path, typer.Option(help="Folder of the notebooks")] = Path("notebooks"),
) -> None:
    """Give the notebooks a badge that runs them in Google Colab, installed from the repository."""
    from training.release.badges import published, write_badges

    for path in write_badges(repository or published(), notebooks):
        typer.echo(path)
