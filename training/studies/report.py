"""All figures on one page: ``python -m training report``.

Reads what the other commands committed (cards, cross-validations, seeds, ablation, localisation, audits, peers) and
writes ``docs/report.md``, every model's card for people, and the marked tables of the README. Figures come from what
those commands measured; here they are only set beside each other and beside chance.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from app.model.weights import load_card, ranked
from training.evaluation.classification import plot_reliability
from training.recipe import load_replications
from training.release.model_card import PLOTS, figures, looks, model_card, on_trial, trust
from training.studies.replications import load_rows, markdown
from training.studies.report_tables import (
    ablation_table,
    beliefs_table,
    costs,
    crossed_table,
    data_table,
    ensembles_table,
    gainers,
    methods_table,
    models_table,
    tuning_table,
    zoo_table,
)
from training.studies.tables import read

__all__ = ["fill", "page_text", "report", "tables"]

ROOT = Path(__file__).resolve().parents[2]
RELIABILITY = "reliability-{}.png"
"""Beside the report, one for every cross-validation over all films."""


def tables(root: Path = ROOT) -> dict[str, str]:
    """The tables of the README by the name in their marker, as Markdown."""
    shipped = load_card(ranked(root / "weights")[0], root / "weights")
    return {
        "figures": figures(shipped),
        "beliefs": beliefs_table(shipped, root),
        "methods": methods_table(shipped, root),
        "data": data_table(root),
        "peers": markdown(load_rows(load_replications())),
    }


def fill(text: str, contents: dict[str, str]) -> str:
    """A text with what stands between ``<!-- report: NAME -->`` and ``<!-- end -->`` replaced.

    Raises:
        KeyError: a marker names a table there is none of.
    """

    def replaced(found: re.Match[str]) -> str:
        return f"<!-- report: {found[1]} -->\n{contents[found[1]]}\n<!-- end -->"

    return re.sub(r"<!-- report: (\w+) -->\n.*?<!-- end -->", replaced, text, flags=re.S)


def _recipe_file(root: Path, name: str) -> str:
    """A recipe's path in the repository, wherever under the recipes it lies."""
    return next((root / "training" / "recipes").rglob(f"{name}.yaml")).relative_to(root).as_posix()


def _whole(root: Path) -> list[tuple[str, dict[str, Any]]]:
    """Cross-validations over all films, by recipe."""
    paths = sorted((root / "training" / "results" / "whole").glob("*.json"))
    return [(path.stem, json.loads(path.read_text(encoding="utf-8"))) for path in paths]


def page_text(root: Path) -> str:
    cards = [load_card(name, root / "weights") for name in ranked(root / "weights")]
    contents = tables(root)
    parts = [
        "# Report: what was measured, and how",
        "**For study, not for diagnosis. Not a medical device.**",
        "Every figure is read from files that the commands named here wrote. Intervals are 95 % bootstrap intervals "
        "over films, near-duplicates and films of one case drawn together (but film by film for FracAtlas films in the "
        "tables of architectures and of sources, and where a table says so); they say nothing of the spread between "
        "trainings, for which there is the column of seeds.",
        "## Models",
        models_table(cards, root),
        "`python -m training cross-validate`, `fit`, `export`, `evaluate`, `seeds`, `localise`. But for the one named"
        " below, choices were made on out-of-fold predictions of training films alone; the weights after the last "
        "epoch are kept, no epoch was picked; the test films were judged once per final model and seed, and once "
        "more, in folds, in the cross-validation over all films, which chose nothing. Earlier "
        "weights, replaced whenever more copies were found between training and test, had been judged on the same "
        "test films; none of those figures chose anything. The recipe of ResNet-18 was chosen on folds drawn before "
        "films of one case were kept together. "
        "The feature pyramid, its size and its loss over places were chosen by how often the map peaks in a box on "
        "the FracAtlas validation films that also judge that here, so those shares are somewhat flattered. "
        "Calibration error after "
        "scaling is judged with temperatures fitted on the other half of the films.",
    ]
    results = root / "training" / "results"
    if any((results / "folds").glob("*.json")):
        parts += [
            "## Every architecture, out of fold",
            "Training films alone, five folds, near-duplicates and films of one case kept together (`python -m "
            "training cross-validate RECIPE`, a file under `training/recipes` named as in brackets, `--fold N` where "
            "some folds only were judged). Folds are not equally hard, so compare rows of fewer folds only with what "
            "`resnet18` names on the same films, where that column has it. Recipes that end in -short are those of the "
            "same name at a size and for a time that a processor without a GPU allows; they show that the recipe runs, "
            "not what the architecture can do. Times are of one processor thread on a machine with other work. "
            "Views are ten (as it is, turned by 12 degrees to "
            "either side, smaller, larger, each also mirrored), of frozen features two, the film and its mirror image; "
            "the stage, the size and the decay of those were picked among a dozen by these folds.",
            zoo_table(results / "folds"),
        ]
    if any((results / "whole").glob("*.json")):
        parts += [
            "## Cross-validation over all films",
            "Folds over all 1,129 films, test films included, near-duplicates and films of one case kept together "
            "(`python -m training cross-validate RECIPE --whole`). To compare with figures published on other splits "
            "of the same films; nothing was chosen by them.",
            zoo_table(results / "whole"),
            *(
                f"![Reliability of {found['title']}]({RELIABILITY.format(name)})"
                for name, found in _whole(root)
                if "reliability" in found
            ),
        ]
    together = read(root / "training" / "results" / "ensembles.json")
    if together:
        parts += [
            "## Models asked together",
            "Mean of the members' probabilities of every view of the film (`python -m training ensemble RECIPE "
            "RECIPE`, with `--whole` over all films). Each member has its own temperature, fitted on the same "
            "out-of-fold films (alone they are asked without one); that of their mean is judged on the other half. "
            "Rows of different folds do not compare with each other, but with their members alone beside them.",
            ensembles_table(together),
        ]
    parts += [
        "## What others publish",
        "Networks as others described them, with our optimiser and augmentation, on their own split and on one that "
        "keeps near-duplicates and films of one case together. Short runs, each made once (the two custom CNNs differ "
        "by chance alone), so compare the columns with each other (`python -m training peers`). Where copies or "
        "views of one case are among the films that judge, the number of cases is told and each case is drawn whole "
        "for the interval; rows without that number were judged film by film.",
        contents["peers"],
        "\n".join(f"- {recipe.title}: {recipe.claim}" for recipe in load_replications().values()),
    ]
    for card in cards:
        parts += [f"## {card.title}", f"[Model card](../weights/{card.name}/README.md)"]
        parts += [figures(card) if "test" in card.metrics else "Not judged on test films."]
        parts += [
            f"![{words} of {card.title}](../weights/{card.name}/{file})"
            for file, words in PLOTS
            if (root / "weights" / card.name / file).is_file()
        ]
        parts += [*looks(card, root), *trust(card, root), *on_trial(card, root)]
    if crossed := read(results / "cross_source.json"):
        films = crossed["films"]
        parts += [
            "## Fractured or not, across sources",
            "A ResNet-18 on films of "
            f"{crossed['recipe']['size']} px learns from one source and is judged on both, by area under the curve "
            "(`python -m training cross-source`): FracAtlas "
            f"({films['fracatlas']['train']:,} films train, {films['fracatlas']['judge']} test films judge) and "
            f"{films['multi-region']['films']} films of multi-region that nobody turned, one a group, none with a "
            f"near-duplicate in another set ({films['multi-region']['fractured']} of them fractured; in "
            f"{films['multi-region']['folds']} folds). One training each; how the shipped models fare on the second "
            "source stands with each model above. Half is chance: what tells broken from whole bones in one of these "
            "collections does not in the other, and part of it may be how either was gathered.",
            crossed_table(crossed),
        ]
    ablation = read(root / "training" / "results" / "ablation.json")
    if ablation:
        folds = ", ".join(str(fold) for fold in ablation["folds"])
        parts += [
            "## What was tried",
            f"One switch at a time against the base, on folds {folds} of the training films "
            "(`python -m training ablate training/recipes/ablation/resnet18.yaml`). Differences are paired by film; "
            'where they say "film by film", near-duplicates and films of one case were not drawn together, so their '
            "intervals are too narrow. Each was trained once, and chance between trainings moves the accuracy as well"
            + (": see the row of another seed" if "another-seed" in ablation["rows"] else "")
            + ". An interval that holds zero decides nothing, and of "
            f"{len(ablation['rows']) - 1} switches {0.05 * (len(ablation['rows']) - 1):.1f} are expected to clear it "
            f"by chance; above it lie: {gainers(ablation) or 'none'}. Leaving out contested labels was then trained "
            "in full over all five folds (table of architectures). Mixup, CutMix and the moving average (which is at a "
            "disadvantage in so few steps) gained nothing, and recipes have them no more.",
            ablation_table(ablation),
        ]
    for path in sorted((root / "training" / "results" / "tuning").glob("*.json")):
        found = json.loads(path.read_text(encoding="utf-8"))
        stopped = sum(trial["state"] == "pruned" for trial in found["trials"])
        parts += [
            f"## Tuning of {path.stem}",
            f"{len(found['trials'])} trials on fold {found['fold']}, {stopped} of them stopped early for a "
            "validation loss above the median at the same epoch; best is the lowest after the "
            f"last (`python -m training tune {_recipe_file(root, path.stem)} --trials "
            f"{len(found['trials'])} --fold {found['fold']}`). The best of many on one fold looks better than it is, "
            "and later figures on that fold would be flattered; no shipped model uses these values.",
            tuning_table(found),
        ]
    parts += costs(root / "benchmarks" / "results")
    parts += ["## The data", "Counted by `python -m training audit NAME`.", contents["data"]]
    return "\n\n".join(parts) + "\n"


def report(root: Path = ROOT) -> Path:
    """Writes the page and fills the README's tables.

    Args:
        root: of the repository.

    Returns:
        The page.
    """
    folder = root / "docs"
    folder.mkdir(exist_ok=True)
    (folder / "report.md").write_text(page_text(root), encoding="utf-8")
    for name in ranked(root / "weights"):
        card = load_card(name, root / "weights")
        (root / "weights" / name / "README.md").write_text(model_card(card, root), encoding="utf-8")
    for name, found in _whole(root):
        if "reliability" in found:
            plot_reliability(found["reliability"], folder / RELIABILITY.format(name))
    readme = root / "README.md"
    readme.write_text(fill(readme.read_text(encoding="utf-8"), tables(root)), encoding="utf-8")
    return folder / "report.md"
