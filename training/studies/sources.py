"""What many sources are worth: counts, how far their labels agree, and what a model loses on one it never saw.

``python -m training audit-sets`` counts files, radiographs, marks, contradictions and images of other sets. Which files
show one radiograph comes from the table of groups over all sets, so nothing is searched for anew.

``python -m training agreement`` writes Cohen's kappa: agreement beyond what two labellers with these habits would reach
by chance; 1 is all of it, 0 none. Sets are compared
radiograph by radiograph; types are compared where both schemes know the type. ``python -m training labellers MODEL``
does the same between a model and each set's labels.

``python -m training leave-out RECIPE`` judges every source by the fold of a cross-validation that did without it, on
all of its images that share no group with one learnt from. The drop to the figures with the source is what style, not
anatomy, is worth (Zech et al., 2018, "Variable generalization performance of a deep learning model to detect pneumonia
in chest radiographs").
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from itertools import combinations, permutations
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import pyplot as plt

from app.model.classifier import Classifier
from app.model.weights import load_card, write_card
from training import read_json, write_json
from training.data import all_sets
from training.data.all_sets import BELIEVED, LATER, MARKED, TABLE, Row, read_table
from training.data.bone_break import CLASSES
from training.data.image import CACHE
from training.data.lessons import learnt_sets, lessons, never_seen
from training.evaluation.metrics import bootstrap, kappa, kappa_of_shares, resampled
from training.evaluation.presence import ask, explain_files, points_over, summary
from training.fitting.cross_validation import read_folds
from training.recipe import Recipe, fold_without, recipe_of
from training.release.export import draft_card


def _elsewhere(its: Sequence[Row], rows: Sequence[Row]) -> dict[str, int]:
    """How many radiographs of a set share a group with an image of another set, by that set and its part there."""
    others: dict[int, set[str]] = defaultdict(set)
    for row in rows:
        if row.set != its[0].set:
            words = row.set if row.set not in ("bone-break", "fracatlas") else f"{row.set}, {row.part}"
            others[row.group].add(words)
    images = {row.image: row.group for row in its}
    counts = Counter(words for group in images.values() for words in others[group])
    alone = sum(not others[group] for group in images.values())
    return {"in no other set": alone, **dict(sorted(counts.items()))}


def set_audit(name: str, data: Path, table: Path = TABLE) -> dict[str, Any]:
    """Counts over one set, ready for JSON.

    Args:
        name: one of ``LATER``.
        data: folder that holds it.
        table: of groups over all sets.

    Raises:
        FileNotFoundError: the set or the table is not there.
        KeyError: there is no such set.
    """
    loaded = LATER[name](data)
    films = {film.name: film for film in loaded.images}
    rows = read_table(table)
    its = [row for row in rows if row.set == name]
    labels: dict[str, set[str]] = defaultdict(set)
    for row in its:
        labels[row.image].add(row.label)
    split = {image: found for image, found in labels.items() if len(found) > 1}
    boxes = [width * height for film in loaded.images for _, _, width, height in film.boxes]
    kept = [row for row in its if row.kept]
    return {
        "set": name,
        "title": loaded.title,
        "files": len(loaded.images),
        "files_not_in_the_table": len(films.keys() - {row.film for row in its}),
        "radiographs": len(labels),
        "largest_number_of_copies": max(Counter(row.image for row in its).values()),
        "radiographs_by_label": dict(sorted(Counter(row.label for row in kept).items())),
        "contradictions": {
            "what": "radiographs whose copies carry different labels; in marked sets a copy without its mark",
            "radiographs": len(split),
            "decided": "fractured, by the copy that is marked",
        },
        "against_other_sets": sum(row.contested for row in kept),
        "boxes": {
            "count": len(boxes),
            "median_share_of_the_image": float(np.median(boxes)) if boxes else None,
        },
        "radiographs_by_part": dict(sorted(Counter(row.part for row in kept).items())),
        "radiographs_also_in": _elsewhere(its, rows),
        "problems": [{"image": problem.image, "what": problem.what} for problem in loaded.problems],
    }


TYPES = {
    **{title: name for name, title in CLASSES.items()},
    **{name: name for name in CLASSES},
    "Comminuted": "comminuted",
    "Greenstick": "greenstick",
    "Oblique": "oblique",
    "Oblique Displaced": "oblique",
    "Spiral": "spiral",
}
"""A set's word for a type to bone-break's; transverse, linear and segmental have no counterpart there."""


def compare(said: dict[str, dict[str, str]]) -> list[dict[str, Any]]:
    """Every pair of sets on the radiographs that stand in both.

    Args:
        said: label by radiograph, by set.

    Returns:
        Per pair that shares a radiograph: "sets", "n", how many "agree", "kappa", and what they say where they differ.
    """
    found = []
    for one, other in combinations(sorted(said), 2):
        shared = sorted(said[one].keys() & said[other].keys(), key=int)
        if not shared:
            continue
        first, second = (np.array([said[each][image] for image in shared]) for each in (one, other))
        differ = [
            {"image": int(image), one: said[one][image], other: said[other][image]}
            for image in shared
            if said[one][image] != said[other][image]
        ]
        agree = len(shared) - len(differ)
        row = {"sets": [one, other], "n": len(shared), "agree": agree, "kappa": kappa(first, second), "differ": differ}
        found.append(row)
    return found


def _presence(rows: Sequence[Row], *, as_marked: bool = False) -> dict[str, dict[str, str]]:
    """Fractured or not, by set and radiograph; sets of types are all fractured and say nothing by that.

    Without any mark only a believed set says that a bone is whole; as marked, every set does.
    """
    labels: dict[tuple[str, str], set[str]] = defaultdict(set)
    for row in rows:
        if row.image and row.set in (*BELIEVED, *MARKED):
            labels[row.set, row.image].add(row.label)
    said: dict[str, dict[str, str]] = defaultdict(dict)
    for (source, image), found in labels.items():
        # Where copies differ, one lost its mark: fractured.
        if "fractured" in found or source in BELIEVED or as_marked:
            said[source][image] = "fractured" if "fractured" in found else "not fractured"
    return said


def _one_type(found: dict[tuple[str, str], set[str]]) -> dict[str, dict[str, str]]:
    said: dict[str, dict[str, str]] = defaultdict(dict)
    for (source, image), types in found.items():
        if len(types) == 1:
            said[source][image] = next(iter(types))
    return said


def types_by_set(rows: Sequence[Row], data: Path) -> tuple[dict[str, dict[str, str]], dict[str, dict[str, str]]]:
    """Types as bone-break knows them, and any type at all, by set and radiograph that carries one type in the set."""
    kinds = all_sets.kinds("hbfmid", data)
    every: dict[tuple[str, str], set[str]] = defaultdict(set)
    for row in rows:
        if not row.image or row.set not in ("bone-break", "bone-break-more", "hbfmid"):
            continue
        words = kinds.get(row.film, set()) - {"Healthy"} if row.set == "hbfmid" else {row.label}
        for word in words:
            every[row.set, row.image].add(TYPES.get(word, word.lower()))
    return _one_type({key: types for key, types in every.items() if types <= set(CLASSES)}), _one_type(every)


def _within(rows: Sequence[Row]) -> dict[str, Any]:
    """Near-duplicates and images of one case of bone-break, which carry its own labels more than once.

    Kappa is over pairs of images of one group, in both orders, since neither comes first. Every group weighs alike,
    however many images it has.
    """
    copies: dict[int, list[str]] = defaultdict(list)
    for row in rows:
        if row.set == "bone-break":
            copies[row.group].append(TYPES.get(row.label, row.label))
    several = [labels for labels in copies.values() if len(labels) > 1]
    kinds = list(CLASSES)
    tables = np.zeros((len(several), len(kinds), len(kinds)))
    for table, labels in zip(tables, several, strict=True):
        pairs = list(permutations(labels, 2))
        for one, other in pairs:
            table[kinds.index(one), kinds.index(other)] += 1.0 / len(pairs)
    return {
        "what": "pairs of images of one near-duplicate or case group of bone-break, each group weighing alike",
        "groups": len(several),
        "agree": sum(len(set(labels)) == 1 for labels in several),
        "kappa": resampled(lambda chosen: kappa_of_shares(tables[chosen].mean(axis=0)), len(several)),
    }


def agreement(data: Path, table: Path = TABLE) -> dict[str, Any]:
    """Agreement between sets on presence and on types, and of bone-break with itself.

    Args:
        data: folder that holds hbfmid, whose marks carry types.
        table: of groups over all sets.

    Raises:
        FileNotFoundError: the set or the table is not there.
    """
    rows = read_table(table)
    known, every = types_by_set(rows, data)
    return {
        "presence": compare(_presence(rows)),
        "presence_as_marked": compare(_presence(rows, as_marked=True)),
        "types": compare(known),
        "types_of_any_scheme": compare(every),
        "bone-break_with_itself": _within(rows),
        "readers": [
            {
                "what": "nine AO types of distal radius fractures, five surgeons, 160 patients",
                "kappa": [0.47],
                "source": "Medicine 2020;99(2):e18508",
            },
            {
                "what": "AO type, group, subgroup, 621 patients",
                "kappa": [0.60, 0.41, 0.33],
                "source": "PMC2820616",
            },
        ],
    }


def labellers(name: str, data: Path, weights: Path, table: Path = TABLE) -> list[dict[str, Any]]:
    """How far a model agrees with who labelled other sets, on images that share no group with one it learnt types from.

    Args:
        name: folder under ``weights``, of a model that names bone-break's types.
        data: folder that holds bone-break-more and hbfmid.
        weights: folder of models.
        table: of groups over all sets.

    Returns:
        Per set that has such images: "labeller", "accuracy" and "kappa", both with intervals over groups, and of how
        many images the group taught the model presence or place.

    Raises:
        FileNotFoundError: a set is not there.
        WeightsError: no such model.
    """
    rows = read_table(table)
    learnt = {row.group for row in rows if row.set == "bone-break" and row.part == "train"}
    said, _ = types_by_set(rows, data)
    classifier = Classifier.load(name, weights)
    taught = learnt_sets(classifier.card)
    places = {row.group for row in rows if row.set in taught and row.part == "train"}
    found = []
    for source in ("bone-break-more", "hbfmid"):
        films = {film.name: film.path for film in LATER[source](data).images}
        its = [row for row in rows if row.set == source and row.kept and row.group not in learnt]
        its = [row for row in its if row.image in said[source] and row.film in films]
        if not its:
            continue
        labels = np.array([said[source][row.image] for row in its])
        explained = explain_files(classifier, [films[row.film] for row in its])
        named = np.array([each.prediction.best for each in explained])
        groups = np.array([row.group for row in its])
        agreed = {"accuracy": bootstrap(named == labels, groups), "kappa": kappa(named, labels, groups)}
        found.append({"labeller": source, **agreed, "taught_places": int(np.isin(groups, list(places)).sum())})
    return found


RESULTS = Path(__file__).resolve().parents[1] / "results" / "left_out"


def keep_left_out(name: str, weights: Path, results: Path = RESULTS) -> None:
    """Writes what was found of left-out sources into a model's card, so that its page can say it.

    Raises:
        WeightsError: no such model.
    """
    found = {path.stem: read_json(path) for path in sorted(results.glob("*.json"))}
    left_out = {source: its["figures"] for source, its in found.items() if its["recipe"] == name}
    card = load_card(name, weights)
    write_card(card.model_copy(update={"metrics": {**card.metrics, "left_out": left_out}}), weights / name)


def leave_out(
    recipe: Recipe, source: str, data: Path, folds: Path, *, results: Path = RESULTS, cache: Path = CACHE
) -> dict[str, Any]:
    """Judges a source by the fold of a cross-validation that did without it; writes ``<results>/<source>.json``.

    Args:
        recipe: with ``many``.
        source: one of its sources.
        data: folder with the sets.
        folds: folder that ``cross_validate`` wrote, for the same recipe.
        results: folder of the figures.
        cache: where decoded images are kept.

    Returns:
        The figures of the left-out source, at points chosen over the validation images of the others.

    Raises:
        FileNotFoundError: a set is not there, or the fold is not finished.
        ValueError: no fold does without the source, or the folds are another recipe's.
    """
    fold = fold_without(recipe, source)
    read_folds(folds, recipe, only=(fold,), partial=True)
    run = folds / f"fold{fold}"
    chosen = recipe_of(run)
    assert chosen.many is not None
    draft_card(run, data, run / "model" / chosen.name, cache)
    classifier = Classifier.load(chosen.name, run / "model")
    others = tuple(chosen.many.draws)
    asked = lessons(data, "validation", others, without=source)
    points = points_over(asked, ask(classifier, asked))
    # Of the other sources nothing was learnt that shares a group with one of these.
    judged = never_seen(data, source, ("bone-break",))
    found = {
        "left_out": source,
        "taught": list(others),
        "recipe": recipe.name,
        "training": read_json(run / "effort.json"),
        "points": points.model_dump(),
        "figures": summary(judged, ask(classifier, judged), points)[source],
    }
    write_json(results / f"{source}.json", found)
    return found


def plot_left_out(left_out: dict[str, Any], within: dict[str, Any], target: Path) -> None:
    """Each source left out of training beside the same source when it taught: AUROC, and the pointing game.

    Args:
        left_out: by source what ``leave_out`` found.
        within: by source what ``by_source`` found of the shipped model.
        target: picture to write.
    """
    figure, panels = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained", sharey=True)
    names = list(left_out)
    for axes, title, path in zip(panels, ("AUROC", "pointing game"), (("auroc",), ("page", "inside")), strict=True):
        of = {"left out": {name: its["figures"] for name, its in left_out.items()}, "it taught": within}
        for (label, rows), shift, colour in zip(of.items(), (-0.12, 0.12), ("tab:red", "tab:blue"), strict=True):
            for place, name in enumerate(names):
                row = rows.get(name, {})
                for key in path:
                    row = row.get(key, {})
                if row:
                    reach = [[row["value"] - row["low"]], [row["high"] - row["value"]]]
                    axes.errorbar(row["value"], place + shift, xerr=reach, fmt="o", color=colour, label=label)
        axes.set_xlabel(title)
        axes.set_xlim(0.0, 1.0)
        axes.set_yticks(range(len(names)), names)
        axes.set_ylim(-0.5, len(names) - 0.5)
    handles, labels = panels[1].get_legend_handles_labels()
    first = dict(zip(labels, handles, strict=True))
    panels[1].legend(first.values(), first, frameon=False)
    panels[0].axvline(0.5, color="grey", linewidth=0.8)
    panels[0].invert_yaxis()
    figure.savefig(target, dpi=110)
    plt.close(figure)
