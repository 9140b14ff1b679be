"""``python -m training``: everything that makes and judges weights.

Only what checks the input is imported up here: torch and lightning take seconds, and a slip of the pen needs neither.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from app.explain import METHODS
from training import write_json
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
    check_layers,
    check_model,
    check_run,
    check_sets,
    check_source_sets,
    check_to_train,
    check_typed,
    cli,
    command,
    interval,
)
from training.data import SETS
from training.data.all_sets import SOURCES
from training.recipe import load_ablation, load_recipe, load_replications, recipe_of

__all__ = ["cli"]

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
    _print_figures(summary["types"], "out-of-fold")
    typer.echo(f"out-of-fold accuracy, all views averaged: {interval(summary['views_averaged'])}")


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
    check_to_train(chosen, data, init)
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
        _print_figures(card.metrics["cross_validation"], "out-of-fold" if folds else "held-out")
        typer.echo(f"{weights / card.name} is ready: python -m app serve --model {card.name}")
        return
    if folds is None:
        check_source_sets(data, "bone-break-more")
    from training.release import export as exporting

    card = exporting.export(run, folds, data, weights)
    _print_figures(card.metrics["cross_validation"], "out-of-fold")


@command()
def evaluate(model: Model, data: Data = DATA, weights: Weights = WEIGHTS) -> None:
    """Judge a model on the official test images: the final figure, never a choice."""
    check_model(model, weights)
    from app.model.weights import load_card

    if load_card(model, weights).subject.ours:
        check_sets(data, "bone-break")
    from training.evaluation import classification

    _print_figures(classification.evaluate(model, data, weights).metrics["test"], "test")


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
def ablate(
    plan: Annotated[Path, typer.Argument(help="YAML file with a base recipe and switches")],
    names: Annotated[list[str] | None, typer.Argument(help="Switches to run; all where none is named")] = None,
    data: Data = DATA,
    init: Init = None,
    runs: Annotated[Path, typer.Option(help="Folder of the runs")] = Path("runs/ablation"),
    precision: Precise = "auto",
) -> None:
    """Measure what each switch of a plan gives alone, by cross-validation or on a source that taught nothing."""
    chosen = load_ablation(plan)
    check_known("switch", names, chosen.switches)
    check_to_train(chosen.base, data, init)
    from training.studies import comparisons

    how: dict[str, Any] = {"names": tuple(names or ()), "precision": precision}
    if chosen.left_out:
        for name, row in comparisons.ablate_unseen(chosen, data, runs / plan.stem, init, **how).items():
            gained = f"against the base {row['auroc_gained']['value']:+.3f}"
            typer.echo(f"{name}: {auroc(row['auroc'])}, {gained}; peak in box {interval(row['inside'])}")
        return
    for name, row in comparisons.ablate(chosen, data, runs / plan.stem, init, **how).items():
        typer.echo(f"{name}: {row['accuracy']['value']:.1%}, against the base {row['difference']['value']:+.1%}")


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
    check_known("replication", names, recipes)
    check_known("side", [only] if only else [], ("published", "leak_free"))
    chosen = names or list(recipes)
    check_sets(data, *sorted({recipes[name].data for name in chosen}))
    check_layers(init)
    from training.studies import replications as replicating

    for name in chosen:
        for kind, found in replicating.replicate(name, data, init, only=only):
            typer.echo(f"{name}, {kind}: accuracy {interval(found['accuracy'])}")


@command("cross-source")
def cross_source(data: Data = DATA, init: Init = None) -> None:
    """Learn fractured or not from one source and judge on another: the drop that a single source hides."""
    check_sets(data, *SETS)
    check_layers(init)
    from training.studies import replications as replicating

    for source, row in replicating.cross_source(data, init, precision="bf16-mixed")["auroc"].items():
        for judging, its in row.items():
            typer.echo(f"{source} -> {judging}: {auroc(its)}")


def _print_figures(figures: dict, part: str) -> None:
    error = figures["expected_calibration_error"]["value"]
    typer.echo(f"{part} accuracy: {interval(figures['accuracy'])}; top-3: {interval(figures['top3'])}")
    for key in ("balanced_accuracy", "macro_precision", "macro_recall", "macro_f1", "macro_auroc"):
        typer.echo(f"{part} {key}: {figures[key]:.3f}")
    typer.echo(f"{part} expected calibration error: {error:.3f}")


@command("by-source")
def by_source(
    model: Model,
    data: Data = DATA,
    weights: Weights = WEIGHTS,
    part: Annotated[
        str, typer.Option(help="validation; test for the final figure; unseen: all of sources it did not learn from")
    ] = "validation",
    out: Annotated[Path, typer.Option(help="Folder of the figures")] = Path("training/results/sources"),
) -> None:
    """Judge presence and place on the held-out images of every source."""
    check_known("part", [part], ("validation", "test", "unseen"))
    check_model(model, weights)
    check_source_sets(data, *SOURCES)
    from training.evaluation import presence as judging

    found = judging.by_source(model, data, weights, part)
    write_json(out / f"{model}-{part}.json", found)
    for source, row in found["sources"].items():
        if "auroc" in row:
            typer.echo(f"{source}: {auroc(row['auroc'])}")
        for name in ("page", "fracture map"):
            if name in row:
                inside, energy = row[name]["inside"], row[name]["energy"]
                typer.echo(f"{source}, {name}: pointing game {interval(inside)}, energy in boxes {energy['value']:.1%}")


@command()
def labellers(
    model: Model,
    data: Data = DATA,
    weights: Weights = WEIGHTS,
    out: Annotated[Path, typer.Option(help="Folder of the figures")] = Path("training/results/labellers"),
) -> None:
    """How far a model's types agree with the labels of sets that it did not learn types from."""
    check_model(model, weights)
    check_source_sets(data, "bone-break-more", "hbfmid")
    from training.studies.sources import labellers as judge

    found = judge(model, data, weights)
    write_json(out / f"{model}.json", found)
    for row in found:
        kappa = "not defined" if row["kappa"] is None else f"{row['kappa']['value']:.2f}"
        typer.echo(f"{row['labeller']}: top-1 accuracy {interval(row['accuracy'])}, kappa {kappa}")


@command("leave-out")
def leave_out(
    recipe: RecipeFile,
    sources: Annotated[list[str] | None, typer.Argument(help="Sources to judge; all where none is named")] = None,
    data: Data = DATA,
    folds: Annotated[Path | None, typer.Option(help="Folder of the cross-validation; runs/folds/<recipe>")] = None,
    weights: Weights = WEIGHTS,
) -> None:
    """Judge each source by the fold that did without it: what a hospital that the model never saw may expect."""
    chosen = load_recipe(recipe)
    check_to_train(chosen, data, None)
    known = tuple(chosen.many.draws) if chosen.many else ()
    check_known("source", sources, known)
    from training.studies import sources as studying

    for source in sources or known:
        found = studying.leave_out(chosen, source, data, folds or Path("runs/folds") / chosen.name)["figures"]
        if "auroc" in found:
            typer.echo(f"{source}, left out: {auroc(found['auroc'])}")
        if "page" in found:
            typer.echo(f"{source}, left out: pointing game {interval(found['page']['inside'])}")
    if (weights / chosen.name / "card.json").is_file():
        studying.keep_left_out(chosen.name, weights)
