"""All figures on one page: ``python -m training report``.

Reads what the other commands committed (cards, cross-validations, seeds, ablation, localisation, audits, peers) and
writes ``docs/report.md``, the same as ``docs/report.html``, the plots beside them, and the marked tables of the README.
Nothing is computed here, so nothing can be claimed that no command measured.
"""

from __future__ import annotations

import json
import re
import statistics
from pathlib import Path
from typing import Any

from markdown_it import MarkdownIt

from app import verified
from app.hand_check import precision
from app.weights import ModelCard, load_card, ranked
from training.data.hand_check import FOLDER
from training.localise import BASELINES
from training.peers.recipe import load_all
from training.peers.table import load_rows, markdown

__all__ = ["fill", "report", "tables"]

ROOT = Path(__file__).resolve().parent.parent
SETS = ("bone-break", "fracatlas", "multi-region")
MISSING = "not run"


def _read(path: Path) -> dict[str, Any] | None:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _with_interval(share: dict[str, float] | None) -> str:
    if share is None:
        return MISSING
    return f"{_percent(share['value'])} ({100 * share['low']:.1f} to {100 * share['high']:.1f})"


def _grid(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(row) + " |" for row in lines)


def _figures(card: ModelCard) -> str:
    test = card.metrics["test"]
    plain = [
        ("balanced accuracy", _percent(test["balanced_accuracy"])),
        (
            "macro precision / recall / F1",
            " / ".join(f"{100 * test[f'macro_{key}']:.1f}" for key in ("precision", "recall", "f1")) + " %",
        ),
        ("macro one-vs-rest AUROC", f"{test['macro_auroc']:.2f}"),
        ("expected calibration error", f"{test['expected_calibration_error']['value']:.2f}"),
    ]
    folds = card.metrics["cross_validation"]
    rows = [
        ["names the labelled type", _with_interval(test["accuracy"]), _with_interval(folds["accuracy"])],
        ["labelled type among the first three", _with_interval(test["top3"]), _with_interval(folds["top3"])],
        ["always naming the commonest type", _percent(test["chance_accuracy"]), _percent(folds["chance_accuracy"])],
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
    return _grid(head, rows)


def _beliefs(card: ModelCard, root: Path) -> str:
    """What a reader wants to know besides accuracy, each beside the command that measures it."""
    folder = root / "weights" / card.name
    rows: list[list[str]] = []
    if looks := _read(folder / "localisation.json"):
        maps = looks["maps"]
        baseline = max(BASELINES, key=lambda name: maps[name]["inside"]["value"])
        rows.append(
            [
                f"the map of the type it names peaks in a fracture box, {looks['films']} FracAtlas films",
                _with_interval(maps["evidence for the predicted type"]["inside"]),
                f"{baseline}: {_percent(maps[baseline]['inside']['value'])}",
                "localise",
            ]
        )
    if broken := _read(folder / "presence.json"):
        area, point = broken["test"]["auroc"], broken["test"]["sensitive"]
        rows.append(
            [
                f"AUROC of fractured or not, {area['n']:,} FracAtlas test films",
                f"{area['value']:.2f} ({area['low']:.2f} to {area['high']:.2f})",
                "chance: 0.50",
                "presence",
            ]
        )
        rows.append(
            [
                "fractures found at the sensitive point; whole bones left alone",
                f"{_with_interval(point['sensitivity'])}; {_with_interval(point['specificity'])}",
                "chosen on validation films",
                "presence",
            ]
        )
    if card.sets and (sets := card.metrics["cross_validation"].get("sets")):
        its = sets[card.sets.score]
        rows.append(
            [
                f"{card.sets.level:.0%} sets hold the label, {its['coverage']['n']} films out of fold",
                _with_interval(its["coverage"]),
                f"{its['size']['value']:.1f} of {len(card.classes)} types in a set",
                "export",
            ]
        )
    if refused := _read(folder / "refusal.json"):
        kept = min(refused["real_films_kept"].values(), key=lambda its: its["value"])
        rows.append(
            [
                f"{refused['others_refused']['n']} pictures that are no radiographs: refused",
                _with_interval(refused["others_refused"]),
                f"real films refused: at most {_percent(1.0 - kept['value'])}",
                "refusal",
            ]
        )
    return _grid(["", card.title, "beside it", "`python -m training ...`"], rows)


def _precision(name: str) -> str:
    found = precision(name, FOLDER)
    if not found:
        return "not looked at"
    return "; ".join(f"{right} of {count} by {measure}" for measure, (right, count) in found.items())


def _data(root: Path) -> str:
    audits = [_read(root / "training" / "data" / "audits" / f"{name}.json") for name in SETS]
    found = [audit for audit in audits if audit]
    near = [audit["near_duplicates"] for audit in found]

    def crossing(audit: dict[str, Any]) -> str:
        tied = audit["near_duplicates"]["across_parts"]
        part = "test" if "test" in audit["by_part"] else "validation"
        count = tied.get(f"{part} films with a near-duplicate in train", 0)
        return f"{count:,} of {audit['by_part'][part]:,}" + ("" if part == "test" else " (the authors' validation)")

    rows = [
        ["films", *(f"{audit['films']:,}" for audit in found)],
        [
            "files that are byte for byte another one",
            *(f"{audit['exact_copies']['files_that_are_copies']:,}" for audit in found),
        ],
        ["different films, near-duplicates counted once, at least", *(f"{each['different_films']:,}" for each in near)],
        ["test films with a near-duplicate in training, up to", *(crossing(audit) for audit in found)],
        [
            "groups of one film under different labels, up to",
            *(str(len(each["contradictory_groups"])) for each in near),
        ],
        ["of near-duplicates looked at by eye, one film", *(_precision(audit["set"]) for audit in found)],
        [
            "films of one case without being near-duplicates, by their names",
            *(f"{audit['same_case']['films_in_them']:,}" for audit in found),
        ],
    ]
    return _grid(["", *(audit["set"] for audit in found)], rows)


def tables(root: Path = ROOT) -> dict[str, str]:
    """The tables of the README by the name in their marker, as Markdown."""
    return {
        "figures": _figures(load_card(ranked(root / "weights")[0], root / "weights")),
        "beliefs": _beliefs(load_card(ranked(root / "weights")[0], root / "weights"), root),
        "data": _data(root),
        "peers": markdown(load_rows(load_all())),
    }


def fill(text: str, contents: dict[str, str]) -> str:
    """A text with what stands between ``<!-- report: NAME -->`` and ``<!-- end -->`` replaced.

    Raises:
        KeyError: a marker names a table there is none of.
    """

    def replaced(found: re.Match[str]) -> str:
        return f"<!-- report: {found[1]} -->\n{contents[found[1]]}\n<!-- end -->"

    return re.sub(r"<!-- report: (\w+) -->\n.*?<!-- end -->", replaced, text, flags=re.S)


def _models(cards: list[ModelCard], root: Path) -> str:
    rows = []
    for card in cards:
        folds, test, training = card.metrics["cross_validation"], card.metrics.get("test"), card.training
        seeds = _read(root / "training" / "results" / "seeds" / f"{card.name}.json")
        looks = _read(root / "weights" / card.name / "localisation.json")
        places = folds.get("places")
        rows.append(
            [
                card.title,
                f"{training['parameters'] / 1e6:.1f} M",
                f"{training['epochs']} epochs, {training['minutes']} min, {training['device']}",
                _with_interval(folds["accuracy"]),
                _with_interval(test["accuracy"]) if test else MISSING,
                f"{_percent(seeds['mean'])} ± {100 * seeds['spread']:.1f} ({len(seeds['seeds'])})"
                if seeds and seeds["spread"] is not None
                else "one seed"
                if seeds
                else MISSING,
                f"{card.calibration['error_before']:.3f} / {card.calibration['error_after']:.3f}",
                f"{sum(places['presence_auroc']) / len(places['presence_auroc']):.2f}" if places else "not taught",
                _with_interval(looks["maps"]["evidence for the predicted type"]["inside"]) if looks else MISSING,
            ]
        )
    head = [
        "model",
        "parameters",
        "trained",
        "out-of-fold accuracy",
        "test accuracy",
        "mean over seeds ± standard deviation (seeds)",
        "calibration error before / after",
        "presence AUROC",
        "peak in a box",
    ]
    return _grid(head, rows)


def _zoo(folder: Path) -> str:
    found = sorted(
        (json.loads(path.read_text(encoding="utf-8")) for path in folder.glob("*.json")),
        key=lambda its: -its["types"]["accuracy"]["value"],
    )
    rows = [
        [
            its["title"],
            f"{len(its['folds'])}, {its['types']['films']} films",
            _with_interval(its["types"]["accuracy"]),
            _with_interval(its["mirrored_too"]),
            _with_interval(its["types"]["top3"]),
            f"{its['calibration_error_before']:.3f} / {its['calibration_error_crossed']:.3f}",
            f"{statistics.mean(its['places']['presence_auroc']):.2f}" if "places" in its else "not taught",
            _with_interval(its["places"]["fracture_peak_in_box"]) if "places" in its else "not taught",
            _with_interval(its["places"]["type_peak_in_box"]) if "places" in its else "not taught",
            f"{its['epochs']}, {its['minutes']:.0f} min",
        ]
        for its in found
    ]
    head = [
        "recipe",
        "folds judged",
        "accuracy",
        "mirrored film averaged in",
        "top-3",
        "calibration error before / after",
        "presence AUROC",
        "fracture map's peak in a box",
        "predicted type's peak in a box",
        "epochs, all folds' time",
    ]
    return _grid(head, rows)


def _ablation(found: dict[str, Any]) -> str:
    def optional(row: dict[str, Any], key: str, digits: int = 2) -> str:
        return f"{row[key]:.{digits}f}" if key in row else "-"

    rows = [
        [
            row["says"],
            _with_interval(row["accuracy"]),
            "" if name == "base" else _with_interval(row["difference"]),
            _percent(row["top3"]),
            f"{row['macro_auroc']:.3f}",
            optional(row, "presence_auroc"),
            _percent(row["type_peak_in_box"]) if "type_peak_in_box" in row else "-",
            f"{row['minutes']:.0f}",
        ]
        for name, row in found["rows"].items()
    ]
    head = [
        "switch",
        "accuracy",
        "against the base",
        "top-3",
        "macro AUROC",
        "presence AUROC",
        "peak in a box",
        "minutes",
    ]
    return _grid(head, rows)


def _ensembles(rows: dict[str, Any]) -> str:
    def tested(row: dict[str, Any]) -> str:
        values = [seed["accuracy"]["value"] for seed in row["test"].values()]
        if not values:
            return MISSING
        if len(values) == 1:
            return _with_interval(next(iter(row["test"].values()))["accuracy"]) + ", one seed"
        return f"{_percent(sum(values) / len(values))} ± {100 * statistics.stdev(values):.1f} ({len(values)} seeds)"

    cells = [
        [
            name,
            _with_interval(row["cross_validation"]["types"]["accuracy"]),
            _with_interval(row["cross_validation"]["types"]["top3"]),
            f"{row['cross_validation']['calibration_error_crossed']:.3f}",
            tested(row),
        ]
        for name, row in rows.items()
    ]
    return _grid(["members", "out-of-fold accuracy", "top-3", "calibration error", "test accuracy"], cells)


def _tuning(found: dict[str, Any]) -> str:
    first = found["trials"][0]
    names = [key for key in found["best"] if key != "loss"]
    rows = [[name, f"{first[name]:.4g}", f"{found['best'][name]:.4g}"] for name in names]
    rows.append(["validation loss", f"{first['loss']:.4f}", f"{found['best']['loss']:.4f}"])
    return _grid(["", "recipe", "best trial"], rows)


def _localisation(found: dict[str, Any]) -> str:
    rows = [
        [name, *(_with_interval(row[key]) for key in ("inside", "near", "energy"))]
        for name, row in found["maps"].items()
    ]
    return _grid(["map", "peak in a box", "peak in or near a box", "energy in boxes"], rows)


def _breakdown(found: dict[str, Any]) -> str:
    row = found["maps"]["evidence for the predicted type"]
    rows = [
        [value, str(its["inside"]["n"]), _with_interval(its["inside"]), _with_interval(its["near"])]
        for kind in ("by_region", "by_size")
        for value, its in row[kind].items()
    ]
    return _grid(["region or size of the boxes", "films", "peak in a box", "peak in or near a box"], rows)


def _trust(card: ModelCard, root: Path) -> list[str]:
    """What is known of the model's other answers: broken at all, which types remain, and what it refuses."""
    parts = []
    if sets := card.metrics["cross_validation"].get("sets"):
        parts += [
            "Which types remain: sets that are to hold the label in 90 % of films, calibrated on half of the "
            "out-of-fold films and judged on the other half, 200 times; in brackets the middle 95 % of the repeats "
            "(`python -m training export`).",
            _grid(
                ["sets", "hold the label", "types in a set"],
                [
                    [
                        f"{name}{', shipped' if card.sets and card.sets.score == name else ''}",
                        _with_interval(its["coverage"]),
                        f"{its['size']['value']:.1f} ({its['size']['low']:.1f} to {its['size']['high']:.1f})",
                    ]
                    for name, its in sets.items()
                ],
            ),
        ]
    if broken := _read(root / "weights" / card.name / "presence.json"):
        rows = [
            [
                words,
                str(its["films"]),
                *(
                    _with_interval(its[point][rate])
                    for point in ("sensitive", "specific")
                    for rate in ("sensitivity", "specificity")
                ),
            ]
            for words, its in (
                ("FracAtlas, validation (chose the points)", broken["validation"]),
                ("FracAtlas, test", broken["test"]),
                *((f"FracAtlas, test, {region}", its) for region, its in broken["test"]["by_region"].items()),
            )
        ]
        far = broken["elsewhere"]
        rows.append(
            [
                "bone-break, test (all fractured)",
                str(far["sensitive"]["sensitivity"]["n"]),
                _with_interval(far["sensitive"]["sensitivity"]),
                "",
                _with_interval(far["specific"]["sensitivity"]),
                "",
            ]
        )
        areas = [
            f"{part} {broken[part]['auroc']['value']:.3f} ({broken[part]['auroc']['low']:.3f} to "
            f"{broken[part]['auroc']['high']:.3f})"
            for part in ("validation", "test")
        ]
        head = ["films", "number"] + [
            f"{point} point, {rate}" for point in ("sensitive", "specific") for rate in ("sensitivity", "specificity")
        ]
        parts += [
            f"Whether a bone is broken at all (`python -m training presence {card.name}`): AUROC {'; '.join(areas)}.",
            _grid(head, rows),
        ]
    if refused := _read(root / "weights" / card.name / "refusal.json"):
        rows = [[f"{name}: kept", _with_interval(its)] for name, its in refused["real_films_kept"].items()]
        others = refused["others_refused"]
        rows.append([f"{others['n']} pictures that are no radiographs: refused", _with_interval(others)])
        rows += [[f"{name}: refused", _with_interval(its)] for name, its in refused["tampered_refused"].items()]
        areas = "; ".join(f"{name} {value:.3f}" for name, value in refused["auroc"].items())
        parts += [
            f"What it refuses to judge (`python -m training refusal {card.name}`), by the distance to the "
            f"{refused['neighbours']} nearest of {refused['known_films']} known films. AUROC against the pictures that "
            f"are no radiographs: {areas}; by energy instead of distance: {refused['auroc_of_energy']:.3f}.",
            _grid(["", "share"], rows),
        ]
    return parts


def _page(root: Path) -> str:
    cards = [load_card(name, root / "weights") for name in ranked(root / "weights")]
    contents = tables(root)
    parts = [
        "# Report: what was measured, and how",
        "**For study, not for diagnosis. Not a medical device.**",
        "Every figure is read from files that the commands named here wrote. Intervals are 95 % bootstrap intervals "
        "over films, near-duplicates and films of one case drawn together; they say nothing of the spread between "
        "trainings, for which there is the column of seeds.",
        "## Models",
        _models(cards, root),
        "`python -m training cross-validate`, `fit`, `export`, `evaluate`, `seeds`, `localise`. Choices were made on "
        "out-of-fold predictions of training films alone; the weights after the last epoch are kept, no epoch was "
        "picked; the test films were judged once per final model and seed. Earlier weights, replaced whenever more "
        "copies were found between training and test, had been judged on the same test films; none of those figures "
        "chose anything. The recipe of ResNet-18 was chosen on folds drawn before films of one case were kept "
        "together, when a fifth of the films had another view of their case in training. The feature pyramid, its size "
        "and its loss over places were chosen by how often the map peaks in a box on the FracAtlas validation films "
        "that also judge that here, so those shares are somewhat flattered. Calibration error after "
        "scaling is judged with temperatures fitted on the other half of the films.",
    ]
    results = root / "training" / "results"
    if any((results / "folds").glob("*.json")):
        parts += [
            "## Every architecture, out of fold",
            "Training films alone, five folds, near-duplicates and films of one case kept together (`python -m "
            "training cross-validate RECIPE`). A recipe of which some folds only were trained is judged on fewer "
            "films, and compares with the others within its interval only.",
            _zoo(results / "folds"),
        ]
    if any((results / "whole").glob("*.json")):
        parts += [
            "## Cross-validation over all films",
            "Folds over all 1,129 films, test films included, near-duplicates and films of one case kept together "
            "(`python -m training cross-validate RECIPE --whole`). To compare with figures published on random splits "
            "of the same films.",
            _zoo(results / "whole"),
        ]
    together = _read(root / "training" / "results" / "ensembles.json")
    if together:
        parts += [
            "## Models asked together",
            "Mean of the members' probabilities, of the film and its mirror image (`python -m training ensemble RECIPE "
            "RECIPE`).",
            _ensembles(together),
        ]
    parts += [
        "## What others publish",
        "Networks as others described them, with our optimiser and augmentation, on their own split and on one that "
        "keeps near-duplicates and films of one case together. Short runs, each made once (the two custom CNNs differ "
        "by chance alone), so compare the columns with each other (`python -m training peers`). Where copies or "
        "views of one case are among the films that judge, the number of cases is told and each case is drawn whole "
        "for the interval; rows without that number were judged film by film.",
        contents["peers"],
        "\n".join(f"- {recipe.title}: {recipe.claim}" for recipe in load_all().values()),
    ]
    for card in cards:
        looks = _read(root / "weights" / card.name / "localisation.json")
        parts += [f"## {card.title}", _figures(card)]
        parts += [
            f"![{words} of {card.title}](../weights/{card.name}/{file})"
            for file, words in (
                ("curves.png", "Training curves"),
                ("confusion.png", "Confusion matrix"),
                ("reliability.png", "Reliability"),
                ("per_class.png", "Precision and recall by type"),
            )
            if (root / "weights" / card.name / file).is_file()
        ]
        if looks:
            parts += [
                f"Where it looks, on {looks['films']} fractured FracAtlas validation films "
                f"(`python -m training localise {card.name}`):",
                _localisation(looks),
                _breakdown(looks),
            ]
        parts += _trust(card, root)
        if tried := verified.load(card.name, root / "weights"):
            parts += [
                f"Every method on trial, on {tried['films']} of these films "
                f"(`python -m training faithfulness {card.name}`). Deletion, insertion and ROAD are margins over "
                "random maps as smooth, in units of probability; stability is the mean rank correlation under small "
                "changes of the film, shuffled the one once all weights mean nothing:",
                _grid(verified.HEAD, verified.rows(tried)),
            ]
    ablation = _read(root / "training" / "results" / "ablation.json")
    if ablation:
        folds = ", ".join(str(fold) for fold in ablation["folds"])
        parts += [
            "## What was tried",
            f"One switch at a time against the base, on folds {folds} of the training films "
            "(`python -m training ablate training/recipes/ablation/resnet18.yaml`). Differences are paired by film; "
            "an interval that holds zero decides nothing.",
            _ablation(ablation),
        ]
    for path in sorted((root / "training" / "results" / "tuning").glob("*.json")):
        found = json.loads(path.read_text(encoding="utf-8"))
        stopped = sum(trial["state"] == "pruned" for trial in found["trials"])
        parts += [
            f"## Tuning of {path.stem}",
            f"{len(found['trials'])} trials on fold {found['fold']}, {stopped} of them stopped early "
            f"(`python -m training tune training/recipes/{path.stem}.yaml`). The best of many on one fold looks better "
            "than it is.",
            _tuning(found),
        ]
    parts += ["## The data", "Counted by `python -m training audit NAME`.", contents["data"]]
    return "\n\n".join(parts) + "\n"


STYLE = "body{font:16px/1.5 system-ui;max-width:72rem;margin:2rem auto;padding:0 1rem;color:#1c2b2d}" + (
    "table{border-collapse:collapse;display:block;overflow-x:auto;font-size:.9rem}"
    "td,th{border-bottom:1px solid #d5dddd;padding:.3rem .6rem;text-align:left}img{max-width:32rem;width:100%}"
)


def report(root: Path = ROOT) -> tuple[Path, Path]:
    """Writes the page and fills the README's tables.

    Args:
        root: of the repository.

    Returns:
        The page as Markdown and as HTML.
    """
    page = _page(root)
    folder = root / "docs"
    folder.mkdir(exist_ok=True)
    (folder / "report.md").write_text(page, encoding="utf-8")
    body = MarkdownIt("commonmark").enable("table").render(page)
    (folder / "report.html").write_text(
        "<!doctype html><html lang='en'><meta charset='utf-8'><meta name='viewport' content='width=device-width'>"
        f"<title>Report</title><style>{STYLE}</style><body>{body}</body></html>\n",
        encoding="utf-8",
    )
    readme = root / "README.md"
    readme.write_text(fill(readme.read_text(encoding="utf-8"), tables(root)), encoding="utf-8")
    return folder / "report.md", folder / "report.html"
