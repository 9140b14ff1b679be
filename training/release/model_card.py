"""A model's card for people, ``weights/<model>/README.md``, made from what the commands measured.

Sections follow the model cards of the Hugging Face hub (Mitchell et al., 2019, "Model cards for model reporting") and
the items of CLAIM, the checklist for artificial intelligence in medical imaging (Mongan et al., 2020; Tejani et al.,
2024).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from app.explain.faithfulness import COLUMNS, measured, measured_rows, unmeasured
from app.model.ood import real_films_kept
from app.model.weights import ModelCard
from training.evaluation.localisation import ASKED
from training.studies.tables import MISSING, folds_judged, grid, percent, read, with_interval

__all__ = ["PLOTS", "figures", "looks", "model_card", "on_trial", "trust"]

PLOTS = (
    ("curves.png", "Training curves"),
    ("confusion.png", "Confusion matrix"),
    ("reliability.png", "Reliability"),
    ("per_class.png", "Precision and recall by type"),
    ("faithfulness.png", "Faithfulness of every method"),
)
SOURCE = "bone-break"
ENOUGH = 10
"""Fractured films under which a region is not called the worst."""
SELDOM = 0.05
"""Share of tampered films of one kind up to which it is no failure that they are judged."""
RARELY = 0.2
"""Recall under which a type counts as one the model fails at."""


def figures(card: ModelCard) -> str:
    """How often the labelled type was named, on test films and out of fold."""
    test = card.metrics["test"]
    plain = [
        ("balanced accuracy", percent(test["balanced_accuracy"])),
        (
            "macro precision / recall / F1",
            " / ".join(f"{100 * test[f'macro_{key}']:.1f}" for key in ("precision", "recall", "f1")) + " %",
        ),
        ("macro one-vs-rest AUROC", f"{test['macro_auroc']:.2f}"),
        ("expected calibration error", f"{test['expected_calibration_error']['value']:.2f}"),
    ]
    folds = card.metrics["cross_validation"]
    rows = [
        ["names the labelled type", with_interval(test["accuracy"]), with_interval(folds["accuracy"])],
        ["labelled type among the first three", with_interval(test["top3"]), with_interval(folds["top3"])],
        ["always naming the commonest type", percent(test["chance_accuracy"]), percent(folds["chance_accuracy"])],
    ]
    rows += [[name, value, ""] for name, value in plain]
    left_out = card.data["parts"]["leaked"]["films"]
    rows.append(
        [
            "training films left out for a near-duplicate or a film of the same case in the test",
            str(left_out),
            str(left_out),
        ]
    )
    head = [card.title, f"{test['films']} test films", f"{folds['films']} training films, out of fold"]
    return grid(head, rows)


def _localisation(found: dict[str, Any]) -> str:
    rows = [
        [name, *(with_interval(row[key]) for key in ("inside", "near", "energy"))]
        for name, row in found["maps"].items()
    ]
    return grid(["map", "peak in a box", "peak in or near a box", "energy in boxes"], rows)


def _breakdown(found: dict[str, Any]) -> str:
    row = found["maps"][ASKED]
    rows = [
        [value, str(its["inside"]["n"]), with_interval(its["inside"]), with_interval(its["near"])]
        for kind in ("by_region", "by_size")
        for value, its in row[kind].items()
    ]
    return grid(["region or size of the boxes", "films", "peak in a box", "peak in or near a box"], rows)


def looks(card: ModelCard, root: Path) -> list[str]:
    """Where the model looks, against boxes: by map, region and size; empty where nobody measured it."""
    found = read(root / "weights" / card.name / "localisation.json")
    if not found:
        return []
    return [
        f"Where it looks, on {found['films']} fractured FracAtlas validation films "
        f"(`python -m training localise {card.name}`; methods that take seconds a film stand in the next table, on "
        "fewer films)"
        + ("; these films also chose the pyramid, its size and its loss" if "pyramid" in card.architecture else "")
        + ":",
        _localisation(found),
        _breakdown(found),
    ]


def on_trial(card: ModelCard, root: Path) -> list[str]:
    """Every method's faithfulness; empty where nobody measured it."""
    tried = measured(card.name, root / "weights")
    if not tried:
        return []
    return [
        f"Methods on trial, on up to {tried['films']} of these films "
        f"(`python -m training faithfulness {card.name}`). Deletion, insertion and ROAD are margins over "
        "random maps (the same one moved elsewhere), in units of probability; stability is the mean rank correlation "
        "under small changes of the film, randomised the one under randomised weights, seconds the median on "
        f"{tried['threads']} of the processor's threads:",
        grid(COLUMNS, measured_rows(tried)),
        unmeasured(tried),
    ]


def trust(card: ModelCard, root: Path) -> list[str]:
    """What is known of the model's other answers: broken at all, which types remain, and what it refuses."""
    parts = []
    if sets := card.metrics["cross_validation"].get("sets"):
        parts += [
            "Which types remain: sets that are to hold the label in 90 % of films, calibrated on half of the "
            "out-of-fold films and judged on the other half, 200 times, with one temperature, of all of them; in "
            "brackets the middle 95 % of the repeats (`python -m training export`).",
            grid(
                ["sets", "hold the label", "types in a set"],
                [
                    [
                        f"{name}{', shipped' if card.sets and card.sets.score == name else ''}",
                        with_interval(its["coverage"]),
                        f"{its['size']['value']:.1f} ({its['size']['low']:.1f} to {its['size']['high']:.1f})",
                    ]
                    for name, its in sets.items()
                ]
                + [
                    [
                        f"{card.sets.score}, shipped, on {its['coverage']['n']} test films",
                        with_interval(its["coverage"]),
                        f"{its['size']:.1f}",
                    ]
                    for its in [card.metrics.get("test", {}).get("sets")]
                    if its and card.sets
                ],
            ),
        ]
    if broken := read(root / "weights" / card.name / "presence.json"):
        rows = [
            [
                words,
                str(its["films"]),
                f"{its['auroc']['value']:.2f}" if its.get("auroc") else "-",
                *(
                    with_interval(its[point][rate]) if its[point].get(rate) else "no such films"
                    for point in ("sensitive", "specific")
                    for rate in ("sensitivity", "specificity")
                ),
            ]
            for words, its in (
                ("FracAtlas, validation (chose the points)", broken["validation"]),
                ("FracAtlas, test", broken["test"]),
                *((f"FracAtlas, test, {region}", its) for region, its in broken["test"]["by_region"].items()),
                *((f"another source: {name}", its) for name, its in broken["elsewhere"].items()),
            )
        ]
        areas = [
            f"{part} {its['auroc']['value']:.3f} ({its['auroc']['low']:.3f} to {its['auroc']['high']:.3f})"
            for part, its in (
                ("validation", broken["validation"]),
                ("test", broken["test"]),
                *broken["elsewhere"].items(),
            )
            if "auroc" in its
        ]
        head = ["films", "number", "AUROC"] + [
            f"{point} point, {rate}" for point in ("sensitive", "specific") for rate in ("sensitivity", "specificity")
        ]
        parts += [
            f"Whether a bone is broken at all (`python -m training presence {card.name}`): AUROC {'; '.join(areas)}.",
            grid(head, rows),
        ]
    if refused := read(root / "weights" / card.name / "refusal.json"):
        rows = [[f"{name}: kept", with_interval(its)] for name, its in real_films_kept(refused).items()]
        by = f" --by {card.checked_by}" if card.checked_by else ""
        whose = (
            f" in the features of {card.checked_by}, chosen since they refuse more of the same pictures than its own,"
            if by
            else ""
        )
        others = refused["others_refused"]
        rows.append([f"{others['n']} pictures that are no radiographs: refused", with_interval(others)])
        rows += [[f"{name}: refused", with_interval(its)] for name, its in refused["tampered_refused"].items()]
        areas = "; ".join(f"{name} {value:.3f}" for name, value in refused["auroc"].items())
        parts += [
            f"What it refuses to judge (`python -m training refusal {card.name}{by}`), by the distance{whose} to the "
            f"{refused['neighbours']} nearest of {refused['known_films']} known films. AUROC against the pictures that "
            f"are no radiographs: {areas}; by energy instead of distance: {refused['auroc_of_energy']:.3f}.",
            grid(["", "share"], rows),
        ]
    return parts


def _by_type(card: ModelCard) -> str:
    test = {row["name"]: row for row in card.metrics["test"]["per_class"]} if "test" in card.metrics else {}

    def cells(row: dict[str, Any] | None) -> list[str]:
        if row is None:
            return [MISSING] * 4
        area = "-" if row["auroc"] is None else f"{row['auroc']:.2f}"
        return [str(row["films"]), percent(row["precision"]), percent(row["recall"]), area]

    rows = [
        [row["name"], *cells(row), *cells(test.get(row["name"]))]
        for row in card.metrics["cross_validation"]["per_class"]
    ]
    measures = ("films", "precision", "recall", "AUROC")
    head = ["type", *(f"{name}, out of fold" for name in measures), *(f"{name}, test" for name in measures)]
    return grid(head, rows)


def _calibration(card: ModelCard) -> str:
    bins = card.metrics["cross_validation"]["expected_calibration_error"]["bins"]
    width = 1.0 / len(bins)
    rows = [
        [
            f"{100 * at * width:.0f} to {100 * (at + 1) * width:.0f} %",
            str(its["films"]),
            percent(its["confidence"]),
            percent(its["accuracy"]),
        ]
        for at, its in enumerate(bins)
        if its["films"]
    ]
    return grid(["stated probability", "films out of fold", "mean stated", "right"], rows)


def _failures(card: ModelCard, root: Path) -> list[str]:
    """Where the model fails, picked by rule from what was measured."""
    folds = card.metrics["cross_validation"]
    names = [kind.name for kind in card.classes]
    missed = [row for row in folds["per_class"] if row["recall"] < RARELY]
    found = [
        f"Types it names in fewer than {RARELY:.0%} of their films, out of fold: "
        + (", ".join(f"{row['name']} ({percent(row['recall'])})" for row in missed) or "none")
        + "."
    ]
    mistakes = sorted(
        (
            (count / max(1, sum(row)), names[truth], names[named])
            for truth, row in enumerate(folds["confusion"])
            for named, count in enumerate(row)
            if named != truth
        ),
        reverse=True,
    )
    found.append(
        "Commonest mistakes, out of fold: "
        + "; ".join(f"{percent(share)} of {truth} called {named}" for share, truth, named in mistakes[:5])
        + "."
    )
    if maps := read(root / "weights" / card.name / "localisation.json"):
        sizes = maps["maps"][ASKED]["by_size"]
        worst = min(sizes, key=lambda size: sizes[size]["inside"]["value"])
        found.append(
            f"The map's peak misses the fracture most often where it is small: with boxes of {worst} it lies inside in "
            f"{with_interval(sizes[worst]['inside'])}."
        )
    if broken := read(root / "weights" / card.name / "presence.json"):
        regions = {
            region: its["sensitive"]["sensitivity"]
            for region, its in broken["test"]["by_region"].items()
            if its["sensitive"]["sensitivity"] is not None and its["sensitive"]["sensitivity"]["n"] >= ENOUGH
        }
        if regions:
            worst = min(regions, key=lambda region: regions[region]["value"])
            found.append(
                f"Fractures overlooked at the sensitive point: of regions with at least {ENOUGH} fractured films, most "
                f"in films of the {worst}, where it finds {percent(regions[worst]['value'])} of {regions[worst]['n']}."
            )
    if refused := read(root / "weights" / card.name / "refusal.json"):
        passed = {name: 1.0 - its["value"] for name, its in refused["tampered_refused"].items()}
        told = [f"{percent(share)} of those {name}" for name, share in passed.items() if share > SELDOM]
        if told:
            found.append(f"Tampered films it judges nevertheless: {', '.join(told)}.")
    return found


def _front(card: ModelCard) -> str:
    """The metadata that the hub reads."""
    metadata: dict[str, Any] = {
        "license": "mit",
        "library_name": "pytorch",
        "pipeline_tag": "image-classification",
        "tags": ["x-ray", "fracture", "class-activation-map", "not-a-medical-device"],
    }
    if test := card.metrics.get("test"):
        metadata["model-index"] = [
            {
                "name": card.name,
                "results": [
                    {
                        "task": {"type": "image-classification", "name": "Type of fracture"},
                        "dataset": {"type": "bone-break", "name": str(card.data["title"]), "split": "test"},
                        "metrics": [
                            {"type": "accuracy", "value": round(test["accuracy"]["value"], 4)},
                            {"type": "f1", "value": round(test["macro_f1"], 4), "name": "macro F1"},
                        ],
                    }
                ],
            }
        ]
    return "---\n" + yaml.safe_dump(metadata, sort_keys=False, allow_unicode=True, width=110) + "---"


def _audit(root: Path) -> str:
    found = read(root / "training" / "data" / "audits" / f"{SOURCE}.json")
    if not found:
        return "The set has not been audited."
    crossing = found["near_duplicates"]["across_parts"].get("test films with a near-duplicate in train", 0)
    return (
        f"Of its {found['films']:,} films at least {found['near_duplicates']['different_films']:,} are different ones, "
        f"up to {crossing} of {found['by_part']['test']} test films have a near-duplicate among the training films, up "
        f"to {len(found['near_duplicates']['contradictory_groups'])} groups of one film carry different labels, and "
        f"{found['marks']['films_with_letters_or_arrows']} show letters or arrows at least (`python -m training audit "
        f"{SOURCE}`)."
    )


def _data(card: ModelCard, root: Path) -> list[str]:
    parts, places = card.data["parts"], card.data.get("places")
    lines = [
        f"**Types:** {card.data['title']}; {parts['train']['films']} training and {parts['test']['films']} test films, "
        f"dealt out in {card.data['groups']} groups of near-duplicates and films of one case. "
        f"{parts['leaked']['films']} training films were left out because a near-duplicate of theirs or a film of the "
        "same case is a test film. SHA-256 over each part's films is in `card.json`. " + _audit(root),
        "**Reference standard:** the uploader's folder names, one label a film, no reading by a panel; what readers "
        "would agree on is unknown. No film was excluded for its quality; nothing is known of age, sex or place.",
    ]
    if places:
        lines.append(
            f"**Places, and fractured at all:** FracAtlas, {places['films']:,} training films, {places['fractured']} "
            "of them fractured, boxes by its authors. Presence is learnt within FracAtlas only: a model told that one "
            "source is fractured and another is not learns the source."
        )
    lines.append(
        f"**What the network sees:** the film in grey, letterboxed to {card.size} px"
        + (", contrast equalised" if card.equalise else "")
        + ". DICOM pixels go through their own look-up tables and windows first; nothing personal is read."
    )
    return lines


def _claim(card: ModelCard, root: Path) -> str:
    folder = root / "weights" / card.name
    measured = {name: (folder / f"{name}.json").is_file() for name in ("presence", "localisation", "faithfulness")}
    validated = ["pointing game against boxes"] if measured["localisation"] else []
    validated += ["deletion, insertion, ROAD, shuffled weights"] if measured["faithfulness"] else []
    rows = [
        ["Study design", "retrospective, public films", "Data"],
        ["Eligibility, de-identification", "as published by the sets' authors; near-duplicates left out", "Data"],
        ["Reference standard", "uploader's labels; no reader agreement", "Data"],
        [
            "Partitions, independence",
            "grouped by near-duplicate and case; test films judged once a training, earlier weights among them",
            "Data",
        ],
        ["Sample size", "what is public; intervals say what it allows", "How good"],
        ["Model and initial weights", "see the first table", "Model"],
        [
            "Training, choice of model",
            "recipe in `card.json`; choices by cross-validation, those about maps by FracAtlas validation films",
            "Training",
        ],
        ["Metrics and uncertainty", "95 % bootstrap, films of one case drawn together", "How good"],
        ["Calibration", "temperature on out-of-fold predictions", "Calibration"],
        ["Explainability, validated", "; ".join(validated) or MISSING, "Where it looks"],
        [
            "Test on data of another source",
            "presence only, see its table" if measured["presence"] else MISSING,
            "What else",
        ],
        ["Failure analysis", "by rule from what was measured", "Where it fails"],
        ["Comparison with readers", "none", ""],
        ["Clinical trial, registration, approval", "none; not a medical device", ""],
    ]
    return grid(["item", "here", "section"], rows)


def model_card(card: ModelCard, root: Path) -> str:
    """The card in Markdown, with the hub's metadata in front.

    Args:
        card: of a model that was exported; what was not measured is said to be missing.
        root: of the repository, for what was measured beside the card.
    """
    training, initial = card.training, card.initial
    seeds = read(root / "training" / "results" / "seeds" / f"{card.name}.json")
    spread = (
        f" Over {len(seeds['seeds'])} trainings that differ by chance alone the test accuracy is "
        f"{percent(seeds['mean'])} with a standard deviation of {100 * seeds['spread']:.1f}."
        if seeds and seeds["spread"] is not None
        else " It was trained once on all training films; how much chance alone moves the test figure is unknown."
    )
    folds = card.metrics["cross_validation"]
    teacher = (card.recipe.get("distil") or {}).get("teacher")
    folder = root / "weights" / card.name
    parts = [
        _front(card),
        f"# {card.title}: {len(card.classes)} types of bone fracture, explained",
        f"**{card.intended_use}** Every figure here is written by `python -m training report` from what other commands "
        "measured.",
        "## Model",
        grid(
            ["", ""],
            [
                ["architecture", f"{card.architecture}, {training['parameters'] / 1e6:.1f} M parameters"],
                ["maps", f"one place every {card.stride} px of a square of {card.size} px, {card.head} head"],
                ["answers", ", ".join(kind.name for kind in card.classes)],
                ["weights", f"`{card.weights.file}`, float16, SHA-256 {card.weights.sha256[:16]}..."],
                [
                    "first layers",
                    "none were to be had; all of it random at the start"
                    if initial["source"] == "random"
                    else f"{initial['source']}, {initial['licence']}; random at the start: "
                    f"{', '.join(initial['fresh']) or 'none'} and the head",
                ],
                ["taught by", f"{teacher}, beside the labels" if teacher else "labels alone"],
                ["made", f"{card.date}, seed {card.seed}"],
                ["licence", "MIT (code and weights); films are not included"],
            ],
        ),
        "## What it is for",
        "For students, teachers, radiologists and engineers who want to see how such a model decides and whether to "
        "believe it. Not for patients, not for triage, not for any decision about a person. It was not compared with "
        "readers, and knows nothing of a person's history.",
        f"```sh\n.venv/bin/python -m app explain film.png --model {card.name} --out explanations\n```",
        "## Data",
        *_data(card, root),
        "## Training",
        f"{training['epochs']} epochs in {training['minutes']} minutes ({training['device']}, "
        f"{training['precision']}). The weights after the last epoch are kept. The recipe is in `card.json` and in "
        f"`training/recipes/{card.name}.yaml`.",
        "## How good is it?",
        *([figures(card)] if "test" in card.metrics else ["Not judged on test films."]),
        f"Out of fold: each of {folds['films']} training films ({folds_judged(folds['folds'], card.recipe['folds'])}) "
        f"judged by a network that saw "
        f"neither it, nor a near-duplicate, nor a film of the same case.{spread}",
        _by_type(card),
        "## Calibration",
        f"Temperature {card.temperature:.2f}, fitted on {card.calibration['films']} out-of-fold predictions; expected "
        f"calibration error {card.calibration['error_before']:.3f} before, {card.calibration['error_after']:.3f} after "
        "(judged with temperatures fitted on the other half of the films).",
        _calibration(card),
        "## What else it answers",
        *(trust(card, root) or ["Neither presence nor refusal was measured for this model."]),
        "## Where it looks",
        *(looks(card, root) or ["Not measured."]),
        *on_trial(card, root),
        "## Where it fails",
        "\n".join(f"- {sentence}" for sentence in (*_failures(card, root), *card.limits)),
        "## The checklist for AI in medical imaging (CLAIM)",
        _claim(card, root),
    ]
    plots = [f"![{words} of {card.title}]({file})" for file, words in PLOTS if (folder / file).is_file()]
    return "\n\n".join([*parts, *plots]) + "\n"
