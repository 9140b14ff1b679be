"""Commands that make and judge models."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from training.commands.options import Data, Init, Weights, data_folder
from training.recipe import Precision

__all__ = ["cli"]

cli = typer.Typer()


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
    teacher: Annotated[Path | None, typer.Option(help="Run to learn from, for recipes that do")] = None,
    progress: Annotated[bool, typer.Option(help="Draw a progress bar")] = True,
) -> None:
    """Train a recipe on the bone-break films."""
    from training.fitting import fit as fitting
    from training.recipe import load_recipe

    changes = {name: value for name, value in (("fold", fold), ("seed", seed)) if value is not None}
    chosen = load_recipe(recipe, **changes)
    last = fitting.fit(
        chosen,
        data_folder(data),
        run or Path("runs") / chosen.name,
        init=init,
        resume=resume,
        precision=precision,
        progress=progress,
        teacher=teacher,
    )
    typer.echo(f"trained weights: {last}")


@cli.command(name="cross-validate")
def cross_validate(
    recipe: Annotated[Path, typer.Argument(help="YAML file, such as training/recipes/resnet18.yaml")],
    data: Data = None,
    init: Init = None,
    run: Annotated[Path | None, typer.Option(help="Folder of the folds; runs/folds/<name> where not given")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed instead of the recipe's")] = None,
    fold: Annotated[
        list[int] | None, typer.Option("--fold", help="Only this fold; may be given more than once")
    ] = None,
    whole: Annotated[bool, typer.Option("--whole", help="Deal the test films out too: a final figure")] = False,
    precision: Annotated[Precision, typer.Option(help="auto takes what trains faster here")] = "auto",
) -> None:
    """Train and judge a recipe fold by fold; finished folds are not repeated, figures go to training/results."""
    from training.fitting import cross_validation as validating
    from training.recipe import load_recipe

    changes = {} if seed is None else {"seed": seed}
    chosen = load_recipe(recipe, whole=whole, **changes)
    where = run or Path("runs/whole" if whole else "runs/folds") / chosen.name
    validating.cross_validate(chosen, data_folder(data), where, folds=fold or None, init=init, precision=precision)
    summary = validating.record(validating.read_folds(where, chosen, partial=True), chosen, where)
    _print_figures(summary["types"], "out-of-fold")
    typer.echo(f"all views averaged: {summary['views_averaged']}; places: {summary.get('places', 'not learnt')}")


@cli.command()
def seeds(
    recipe: Annotated[Path, typer.Argument(help="YAML file, such as training/recipes/resnet18.yaml")],
    data: Data = None,
    init: Init = None,
    count: Annotated[int, typer.Option(help="Seeds 0 to count - 1", min=1)] = 3,
    runs: Annotated[Path | None, typer.Option(help="Folder of the runs; runs/seeds/<name> where not given")] = None,
    precision: Annotated[Precision, typer.Option(help="auto takes what trains faster here")] = "auto",
) -> None:
    """Train a recipe on all training films with several seeds and judge each on the test films: the final figure."""
    from training.fitting import seeds as seeding
    from training.recipe import load_recipe

    chosen = load_recipe(recipe)
    where = runs or Path("runs/seeds") / chosen.name
    found = seeding.seeds(chosen, range(count), data_folder(data), where, init=init, precision=precision)
    spread = "" if found["spread"] is None else f", standard deviation {found['spread']:.1%}"
    typer.echo(f"test accuracy of {count} seeds: mean {found['mean']:.1%}{spread}")


@cli.command()
def ensemble(
    recipes: Annotated[list[Path], typer.Argument(help="YAML files of recipes that were cross-validated")],
    folds: Annotated[
        Path | None, typer.Option(help="Folder of the cross-validations, by recipe; runs/folds, or runs/whole")
    ] = None,
    runs: Annotated[Path, typer.Option(help="Folder of the seeds' runs, by recipe")] = Path("runs/seeds"),
    whole: Annotated[bool, typer.Option("--whole", help="The cross-validations over all films")] = False,
) -> None:
    """Judge several models asked together, out of fold and, where their seeds were run, on the test films."""
    from training.recipe import load_recipe
    from training.studies import ensembles as together

    where = folds or Path("runs/whole" if whole else "runs/folds")
    found = together.ensemble([load_recipe(path, whole=whole) for path in recipes], where, runs)
    _print_figures(found["cross_validation"]["types"], "out-of-fold")
    for seed, figures in found["test"].items():
        typer.echo(f"test accuracy, seed {seed}: {figures['accuracy']['value']:.1%}")


@cli.command()
def export(
    run: Annotated[Path, typer.Argument(help="Folder a training run wrote, such as runs/resnet18")],
    folds: Annotated[Path, typer.Option(help="Folder its recipe's cross-validation wrote")],
    data: Data = None,
    weights: Weights = Path("weights"),
) -> None:
    """Make a run's weights a model of the demo, calibrated on its recipe's out-of-fold predictions."""
    from training.release import export as exporting

    card = exporting.export(run, folds, data_folder(data), weights)
    _print_figures(card.metrics["cross_validation"], "out-of-fold")


@cli.command()
def evaluate(
    model: Annotated[str, typer.Argument(help="Name of a folder under weights/")],
    data: Data = None,
    weights: Weights = Path("weights"),
) -> None:
    """Judge a model on the official test films: the final figure, never a choice."""
    from training.evaluation import classification as evaluating

    card = evaluating.evaluate(model, data_folder(data), weights)
    _print_figures(card.metrics["test"], "test")


@cli.command()
def localise(
    model: Annotated[str, typer.Argument(help="Name of a folder under weights/")],
    data: Data = None,
    weights: Weights = Path("weights"),
) -> None:
    """Judge where a model looks, by the fracture boxes of FracAtlas' validation films, against trivial maps."""
    from training.evaluation import localisation as localising

    found = localising.localise(model, data_folder(data), weights)
    for name, row in found["maps"].items():
        inside, near, energy = (row[key] for key in ("inside", "near", "energy"))
        typer.echo(
            f"{name}: peak in a box {inside['value']:.1%} ({inside['low']:.1%} to {inside['high']:.1%}), "
            f"near one {near['value']:.1%}, energy in boxes {energy['value']:.1%} ({inside['n']} films)"
        )


@cli.command()
def presence(
    model: Annotated[str, typer.Argument(help="Name of a folder under weights/")],
    data: Data = None,
    weights: Weights = Path("weights"),
) -> None:
    """Choose when a film counts as fractured, on FracAtlas' validation films, and judge that on its test films."""
    from training.evaluation import presence as judging

    found = judging.presence(model, data_folder(data), weights)
    for part in ("validation", "test"):
        its = found[part]
        typer.echo(
            f"{part} AUROC {its['auroc']['value']:.3f} ({its['auroc']['low']:.3f} to {its['auroc']['high']:.3f})"
        )
        for point in ("sensitive", "specific"):
            rates = its[point]
            typer.echo(
                f"  {point} point: sensitivity {rates['sensitivity']['value']:.1%}, specificity "
                f"{rates['specificity']['value']:.1%}, {its['films']} films"
            )
    for name, its in found["elsewhere"].items():
        if "auroc" in its:
            typer.echo(f"{name} AUROC {its['auroc']['value']:.3f} on {its['films']} films")
        for point in ("sensitive", "specific"):
            typer.echo(f"{name}, {point} point: sensitivity {its[point]['sensitivity']['value']:.1%}")


@cli.command()
def refusal(
    model: Annotated[str, typer.Argument(help="Name of a folder under weights/")],
    data: Data = None,
    weights: Weights = Path("weights"),
    by: Annotated[str | None, typer.Option(help="Measured model whose features tell films better")] = None,
) -> None:
    """Choose from which distance on a picture is no film the model knows, and judge that on pictures that are none."""
    from training.evaluation import ood as judging

    found = judging.checked_by(model, by, weights) if by else judging.refusal(model, data_folder(data), weights)
    for source, share in found["real_films_kept"].items():
        typer.echo(f"kept of {source}: {share['value']:.1%}, AUROC {found['auroc'][source]:.3f}")
    typer.echo(f"refused of what is no radiograph: {found['others_refused']['value']:.1%}")
    for kind, share in found["tampered_refused"].items():
        typer.echo(f"refused, {kind}: {share['value']:.1%}")


@cli.command()
def faithfulness(
    model: Annotated[str, typer.Argument(help="Name of a folder under weights/")],
    methods: Annotated[list[str] | None, typer.Argument(help="Methods to judge; all where none is named")] = None,
    data: Data = None,
    weights: Weights = Path("weights"),
    films: Annotated[int, typer.Option(min=2, help="Fractured validation films to judge on")] = 120,
    runs: Annotated[Path, typer.Option(help="Folder where each film's figures are kept")] = Path("runs/faithfulness"),
) -> None:
    """Put every method on trial before a model: deletion, insertion, ROAD, boxes, stability, scrambled weights."""
    from training.evaluation import faithfulness as judging

    found = judging.faithfulness(
        model, data_folder(data), weights, films=films, methods=tuple(methods or ()), runs=runs
    )
    for name, row in found["methods"].items():
        margins = ", ".join(
            f"{key} {its['value']:+.3f} ({its['low']:+.3f} to {its['high']:+.3f})"
            for key, its in row["margins"].items()
        )
        typer.echo(f"{name}: better than random by {margins}; {row['seconds']:.2f} s a film")


@cli.command()
def gallery(
    model: Annotated[str, typer.Argument(help="Name of a folder under weights/")],
    fold: Annotated[Path, typer.Argument(help="A fold of its cross-validation, such as runs/folds/resnet18/fold0")],
    out: Annotated[Path, typer.Option(help="Folder for the page")] = Path("build/gallery"),
    data: Data = None,
    weights: Weights = Path("weights"),
) -> None:
    """Show where a model looks, by the type it names and when it is wrong: a page with films, for your own disk."""
    from training.studies import gallery as showing

    page = showing.gallery(model, fold, data_folder(data), weights, out)
    typer.echo(f"{page} holds films; keep it to yourself")


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
    from training.studies import ablation as switching

    chosen = switching.load_ablation(plan)
    rows = switching.ablate(chosen, data_folder(data), runs, init, names=tuple(names or ()), precision=precision)
    for name, row in rows.items():
        typer.echo(f"{name}: {row['accuracy']['value']:.1%}, against the base {row['difference']['value']:+.1%}")


@cli.command()
def tune(
    recipe: Annotated[Path, typer.Argument(help="YAML file, such as training/recipes/resnet18.yaml")],
    trials: Annotated[int, typer.Option(help="Trials wanted in all, those of earlier calls included", min=1)] = 20,
    data: Data = None,
    init: Init = None,
    runs: Annotated[Path | None, typer.Option(help="Folder of the study; runs/tune/<name> where not given")] = None,
    fold: Annotated[int, typer.Option(help="Fold of the training films that judges")] = 0,
    precision: Annotated[Precision, typer.Option(help="auto takes what trains faster here")] = "auto",
) -> None:
    """Search for learning rates, decay and strength of augmentation; a stopped search goes on where it was."""
    from training.recipe import load_recipe
    from training.studies import tuning as tuning

    chosen = load_recipe(recipe)
    where = runs or Path("runs/tune") / chosen.name
    found = tuning.tune(chosen, data_folder(data), where, trials=trials, fold=fold, init=init, precision=precision)
    typer.echo(f"best of {len(found['trials'])} trials: {found['best']}")


@cli.command()
def report() -> None:
    """Write the pages of docs/ from what was measured, the models' cards and the table of the README."""
    from training.studies.report import report as write

    for path in write():
        typer.echo(path)


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
