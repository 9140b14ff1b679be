"""Commands of the studies, beside those of ``training.cli``, which make and judge a model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from training import write_json
from training.commands import (
    DATA,
    WEIGHTS,
    Data,
    Init,
    Model,
    Precise,
    RecipeFile,
    Weights,
    Whole,
    auroc,
    check_known,
    check_layers,
    check_model,
    check_sets,
    check_source_sets,
    check_to_train,
    command,
    interval,
    print_figures,
)
from training.data import SETS
from training.data.all_sets import SOURCES
from training.recipe import load_ablation, load_recipe, load_replications


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
    print_figures(found["cross_validation"]["types"], "out-of-fold")
    for seed, figures in found["test"].items():
        typer.echo(f"test accuracy, seed {seed}: {figures['accuracy']['value']:.1%}")


@command("label-noise")
def label_noise(
    recipes: Annotated[list[Path], typer.Argument(help="YAML files of linear probes, asked together")],
    data: Data = DATA,
    init: Init = None,
    runs: Annotated[Path, typer.Option(help="Folder of the cross-validations, by recipe")] = Path("runs/folds"),
    network: Annotated[Path | None, typer.Option(help="YAML file of a network that learns by them as well")] = None,
) -> None:
    """Measure out of fold whether softer labels, or fewer of them, teach types better."""
    chosen = [load_recipe(path) for path in recipes]
    check_to_train(chosen[0], data, init)
    from training.studies.label_noise import label_noise as measure

    found = measure(chosen, data, runs, init, network=load_recipe(network) if network else None)
    for by, rows in found.items():
        for name, row in rows.items():
            gained = interval(row["difference"])
            typer.echo(f"{by}, {name}: {interval(row['types']['accuracy'])}, against labels as given {gained}")


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
