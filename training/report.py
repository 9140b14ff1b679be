"""All figures on one page: ``python -m training report``.

Reads what the other commands committed (cards, cross-validations, seeds, ablation, localisation, audits, peers) and
writes ``docs/report.md``, the same as ``docs/report.html``, every model's card for people, and the marked tables of the
README. Figures come from what those commands measured; here they are only set beside each other and beside chance.
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
from app.methods import DEFAULT, METHODS
from app.typical import real_films_kept
from app.weights import ModelCard, load_card, ranked
from training.bars import bars, recipe_file
from training.bars import markdown as bars_table
from training.bars import write as write_bars
from training.data.hand_check import FOLDER
from training.evaluate import plot_reliability
from training.localise import ASKED, BASELINES
from training.model_card import PLOTS, figures, looks, model_card, on_trial, trust
from training.peers.recipe import load_all
from training.peers.table import load_rows, markdown
from training.tables import MISSING, grid, percent, read, with_interval

__all__ = ["fill", "page_text", "report", "tables"]

ROOT = Path(__file__).resolve().parent.parent
RELIABILITY = "reliability-{}.png"
"""Beside the report, one for every cross-validation over all films."""
SETS = ("bone-break", "fracatlas", "multi-region")


def _beliefs(card: ModelCard, root: Path) -> str:
    """What a reader wants to know besides accuracy, each beside the command that measures it."""
    folder = root / "weights" / card.name
    rows: list[list[str]] = []
    if localised := read(folder / "localisation.json"):
        maps = localised["maps"]
        baseline = max(BASELINES, key=lambda name: maps[name]["inside"]["value"])
        rows.append(
            [
                "the map of the type it names peaks in a fracture box, "
                f"{localised['films']} FracAtlas validation films",
                with_interval(maps[ASKED]["inside"]),
                f"{baseline}: {percent(maps[baseline]['inside']['value'])}",
                "localise",
            ]
        )
    if broken := read(folder / "presence.json"):
        area, point = broken["test"]["auroc"], broken["test"]["sensitive"]
        rows.append(
            [
                f"AUROC of fractured or not, {area['n']:,} FracAtlas test films",
                f"{area['value']:.2f} ({area['low']:.2f} to {area['high']:.2f})",
                "chance: 0.50",
                "presence",
            ]
        )
        if far := broken["elsewhere"].get("multi-region"):
            rows.append(
                [
                    f"the same on {far['films']} films of a third source",
                    f"{far['auroc']['value']:.2f} ({far['auroc']['low']:.2f} to {far['auroc']['high']:.2f})",
                    "chance: 0.50",
                    "presence",
                ]
            )
        rows.append(
            [
                "fractures found at the sensitive point; whole bones left alone",
                f"{with_interval(point['sensitivity'])}; {with_interval(point['specificity'])}",
                "chosen on validation films",
                "presence",
            ]
        )
    if card.sets and (sets := card.metrics["cross_validation"].get("sets")):
        its = sets[card.sets.score]
        rows.append(
            [
                f"{card.sets.level:.0%} sets hold the label, {its['coverage']['n']} films out of fold (brackets: "
                "middle 95 % of 200 halvings)",
                with_interval(its["coverage"]),
                f"{its['size']['value']:.1f} of {len(card.classes)} types in a set",
                "export",
            ]
        )
    if refused := read(folder / "refusal.json"):
        real = real_films_kept(refused)
        worst = min(real, key=lambda name: real[name]["value"])
        rows.append(
            [
                f"{refused['others_refused']['n']} pictures that are no radiographs: refused",
                with_interval(refused["others_refused"]),
                f"real films refused: at most {percent(1.0 - real[worst]['value'])} ({worst})",
                "refusal",
            ]
        )
    return grid(["", card.title, "beside it", "`python -m training ...`"], rows)


def _precision(name: str) -> str:
    found = precision(name, FOLDER)
    if not found:
        return "not looked at"
    return "; ".join(f"{right} of {count} by {measure}" for measure, (right, count) in found.items())


def _data(root: Path) -> str:
    audits = [read(root / "training" / "data" / "audits" / f"{name}.json") for name in SETS]
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
    return grid(["", *(audit["set"] for audit in found)], rows)


def _methods(card: ModelCard, root: Path) -> str:
    """What becomes of every method's map on trial, the default one in words and all in a table."""
    found = verified.load(card.name, root / "weights")
    if found is None:
        return f"Not measured yet: `python -m training faithfulness {card.name}`."
    default, others = found["methods"][DEFAULT], {k: v for k, v in found["methods"].items() if k != DEFAULT}
    lost = verified.lost_to_random(default)
    words = "beats random maps by all three measures" if not lost else f"does not beat random maps by {', '.join(lost)}"
    rivals = sum(not verified.lost_to_random(row) for row in others.values())
    blind = [METHODS[name].title for name, row in found["methods"].items() if verified.depends_on_model(row) is False]
    names = [METHODS[name].title for name, row in found["methods"].items() if verified.depends_on_type(row) is False]
    return "\n".join(
        [
            f"On {default['margins']['deletion']['n']} fractured FracAtlas validation films the map shown by default "
            f"**{words}**; so do {rivals} of the {len(others)} other methods, on fewer films. Staying when all weights "
            f"are shuffled: {', '.join(blind) or 'none'}; when the head alone is: {', '.join(names) or 'none'}.",
            "",
            f"<details><summary>All methods (<code>python -m training faithfulness {card.name}</code>): margins over "
            "random maps (the same one moved elsewhere), in units of probability; above 0 is better</summary>",
            "",
            grid(verified.HEAD, verified.rows(found)),
            "",
            "</details>",
        ]
    )


def tables(root: Path = ROOT) -> dict[str, str]:
    """The tables of the README by the name in their marker, as Markdown."""
    shipped = load_card(ranked(root / "weights")[0], root / "weights")
    return {
        "figures": figures(shipped),
        "bars": bars_table(bars(root)),
        "beliefs": _beliefs(shipped, root),
        "methods": _methods(shipped, root),
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
        seeds = read(root / "training" / "results" / "seeds" / f"{card.name}.json")
        localised = read(root / "weights" / card.name / "localisation.json")
        places = folds.get("places")
        rows.append(
            [
                card.title,
                f"{training['parameters'] / 1e6:.1f} M",
                f"{training['epochs']} epochs, {training['minutes']} min, {training['device']}",
                f"{with_interval(folds['accuracy'])}, {_folds(folds['folds'], card.recipe['folds'])}, "
                f"{folds['films']} films",
                with_interval(test["accuracy"]) if test else MISSING,
                f"{percent(seeds['mean'])} ± {100 * seeds['spread']:.1f} ({len(seeds['seeds'])})"
                if seeds and seeds["spread"] is not None
                else "one seed"
                if seeds
                else MISSING,
                f"{card.calibration['error_before']:.3f} / {card.calibration['error_after']:.3f}",
                f"{sum(places['presence_auroc']) / len(places['presence_auroc']):.2f}" if places else "not taught",
                with_interval(localised["maps"][ASKED]["inside"]) if localised else MISSING,
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
        "presence AUROC, mean of folds",
        "peak in a box",
    ]
    return grid(head, rows)


def _folds(judged: list[int], of: int = 5) -> str:
    if len(judged) == of:
        return f"all {of} folds"
    return f"fold{'s' * (len(judged) > 1)} {', '.join(map(str, judged))} alone"


def _started(its: dict[str, Any]) -> str:
    taught = f", taught by `{its['teacher']}`" if its.get("teacher") else ""
    started = its.get("started")
    return (started if started in (None, "random") else "ImageNet layers") + taught if started else "not kept"


def _against(its: dict[str, Any]) -> str:
    share = its.get("against_reference")
    if share is None:
        return "-"
    low, value, high = (100 * share[key] for key in ("low", "value", "high"))
    return f"{value:+.1f} points ({low:+.1f} to {high:+.1f}); it names {percent(share['reference'])} there"


def _zoo(folder: Path) -> str:
    found = sorted(
        (json.loads(path.read_text(encoding="utf-8")) for path in folder.glob("*.json")),
        key=lambda its: (-len(its["folds"]), -its["types"]["accuracy"]["value"]),
    )
    rows = [
        [
            f"{its['title']} (`{its['recipe']}`)",
            _started(its),
            f"{_folds(its['folds'], its.get('of', 5))}, {its['types']['films']:,} films",
            with_interval(its["types"]["accuracy"]),
            _against(its),
            with_interval(its["views_averaged"]),
            with_interval(its["types"]["top3"]),
            f"{its['calibration_error_before']:.3f} / {its['calibration_error_crossed']:.3f}",
            f"{statistics.mean(its['places']['presence_auroc']):.2f}" if "places" in its else "not taught",
            with_interval(its["places"]["fracture_peak_in_box"]) if "places" in its else "not taught",
            with_interval(its["places"]["type_peak_in_box"]) if "places" in its else "not taught",
            f"{its['epochs']}, {its['minutes']:.0f} min" if its["epochs"] else "none",
        ]
        for its in found
    ]
    head = [
        "recipe",
        "started from",
        "judged",
        "accuracy",
        "against `resnet18` on the same films",
        "all views averaged",
        "top-3",
        "calibration error before / after",
        "presence AUROC",
        "fracture map's peak in a box",
        "predicted type's peak in a box",
        "epochs, all folds' time",
    ]
    return grid(head, rows)


def _ablation(found: dict[str, Any]) -> str:
    def optional(row: dict[str, Any], key: str, digits: int = 2) -> str:
        return f"{row[key]:.{digits}f}" if key in row else "-"

    def against(share: dict[str, float]) -> str:
        return with_interval(share) + ("" if "groups" in share else ", film by film")

    rows = [
        [
            row["says"],
            with_interval(row["accuracy"]),
            "" if name == "base" else against(row["difference"]),
            percent(row["top3"]),
            f"{row['macro_auroc']:.3f}",
            optional(row, "presence_auroc"),
            percent(row["type_peak_in_box"]) if "type_peak_in_box" in row else "-",
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
    ]
    return grid(head, rows)


def _gainers(found: dict[str, Any]) -> str:
    """The switches whose difference from the base has an interval above zero."""
    return ", ".join(row["says"] for row in found["rows"].values() if row["difference"]["low"] > 0.0)


def _ensembles(rows: dict[str, Any]) -> str:
    def tested(row: dict[str, Any]) -> str:
        values = [seed["accuracy"]["value"] for seed in row["test"].values()]
        if not values:
            return MISSING
        if len(values) == 1:
            return with_interval(next(iter(row["test"].values()))["accuracy"]) + ", one seed"
        return f"{percent(sum(values) / len(values))} ± {100 * statistics.stdev(values):.1f} ({len(values)} seeds)"

    cells = [
        [
            name,
            f"{len(row['folds'])}, {row['cross_validation']['types']['films']} films",
            with_interval(row["cross_validation"]["types"]["accuracy"]),
            " / ".join(percent(value) for value in row["alone"].values()),
            with_interval(row["cross_validation"]["types"]["top3"]),
            f"{row['cross_validation']['calibration_error_crossed']:.3f}",
            tested(row),
        ]
        for name, row in rows.items()
    ]
    return grid(
        [
            "members",
            "folds judged",
            "out-of-fold accuracy",
            "each alone",
            "top-3",
            "calibration error",
            "test accuracy",
        ],
        cells,
    )


def _crossed(found: dict[str, Any]) -> str:
    areas = found["auroc"]

    def cell(its: dict[str, float]) -> str:
        return f"{its['value']:.3f} ({its['low']:.3f} to {its['high']:.3f})"

    rows = [[trained, *(cell(row[judged]) for judged in areas)] for trained, row in areas.items()]
    return grid(["trained on", *(f"judged on {judged}" for judged in areas)], rows)


def _whole(root: Path) -> list[tuple[str, dict[str, Any]]]:
    """Cross-validations over all films, by recipe."""
    paths = sorted((root / "training" / "results" / "whole").glob("*.json"))
    return [(path.stem, json.loads(path.read_text(encoding="utf-8"))) for path in paths]


def _tuning(found: dict[str, Any]) -> str:
    best = found["best"]
    # Another process may still be at the recipe's own trial.
    base = found["base"] or {"loss": None, "accuracy": None}
    names = [key for key in best if key not in ("number", "state", "epochs", "loss", "accuracy")]
    rows = [
        [name.replace("_", " "), *(f"{trial[name]:.4g}" if name in trial else MISSING for trial in (base, best))]
        for name in names
    ]
    told = (MISSING if trial["loss"] is None else f"{trial['loss']:.4f}" for trial in (base, best))
    rows.append(["validation loss", *told])
    told = (MISSING if trial["accuracy"] is None else percent(trial["accuracy"]) for trial in (base, best))
    rows.append(["accuracy on the fold", *told])
    return grid(["", "recipe", f"best trial (number {best['number']})"], rows)


def _costs(folder: Path) -> list[str]:
    """What benchmarks kept: cost of heatmaps, users at once, hostile files; empty where none has run."""
    parts: list[str] = []
    for name, words in (
        ("explain", "Prediction and all ten maps (`make bench-explain`)"),
        ("cam", "A heatmap, ours beside pytorch-grad-cam on the whole network (`make bench-cam`)"),
    ):
        if kept := read(folder / f"{name}.json"):
            rows = [
                [title, call, f"{ratio:.2f} x"] for title, its in kept["figures"].items() for call, ratio in its.items()
            ]
            parts += [
                f"{words}: time relative to the first line of each group, measured by turns in one run on "
                f"{kept['machine']}.",
                grid(["network", "", "cost"], rows),
            ]
    if kept := read(folder / "users.json"):
        its = kept["figures"]
        parts.append(
            f"{its['users']} users at once, {its['maps']} maps by every method (`make bench-users`, "
            f"{kept['machine']}): {its['time_relative_to_one_by_one']:.2f} x the time of one by one; resident memory "
            f"{its['mib_with_the_model_loaded']:,} MiB with the model loaded, {its['mib_after_one_user']:,} after one "
            f"user, {its['mib_after_all_at_once']:,} after all at once; maps differ by at most "
            f"{its['largest_difference_as_share_of_peak']:.0e} of their peak."
        )
    if kept := read(folder / "fuzz.json"):
        its = kept["figures"]
        told = ", ".join(f"{count:,} were {kind}" for kind, count in its["outcomes"].items())
        parts += [
            f"Of {its['damaged_files']:,} damaged pictures and DICOM files (`make fuzz`, {kept['machine']}), {told}; "
            f"the reader held {its['damaged_files_mib']:,} MiB at most. Files of {its['megapixels']} megapixels, the "
            f"most that is read, against a bound of {its['bound_mib']:,.0f} MiB:",
            grid(
                ["file", "peak memory of the reader"], [[n, f"{m:,} MiB"] for n, m in its["largest_files_mib"].items()]
            ),
        ]
    return ["## Cost, and hostile files", *parts] if parts else []


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
        _models(cards, root),
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
    parts += ["## What was asked, and what was reached", contents["bars"]]
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
            _zoo(results / "folds"),
        ]
    if any((results / "whole").glob("*.json")):
        parts += [
            "## Cross-validation over all films",
            "Folds over all 1,129 films, test films included, near-duplicates and films of one case kept together "
            "(`python -m training cross-validate RECIPE --whole`). To compare with figures published on other splits "
            "of the same films; nothing was chosen by them.",
            _zoo(results / "whole"),
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
            _crossed(crossed),
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
            f"by chance; above it lie: {_gainers(ablation) or 'none'}. Leaving out contested labels was then trained "
            "in full over all five folds (table of architectures); the moving average is at a disadvantage in so few "
            "steps.",
            _ablation(ablation),
        ]
    for path in sorted((root / "training" / "results" / "tuning").glob("*.json")):
        found = json.loads(path.read_text(encoding="utf-8"))
        stopped = sum(trial["state"] == "pruned" for trial in found["trials"])
        parts += [
            f"## Tuning of {path.stem}",
            f"{len(found['trials'])} trials on fold {found['fold']}, {stopped} of them stopped early for a "
            "validation loss above the median at the same epoch; best is the lowest after the "
            f"last (`python -m training tune {recipe_file(root, path.stem)} --trials "
            f"{len(found['trials'])} --fold {found['fold']}`). The best of many on one fold looks better than it is, "
            "and later figures on that fold would be flattered; no shipped model uses these values.",
            _tuning(found),
        ]
    parts += _costs(root / "benchmarks" / "results")
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
    page = page_text(root)
    folder = root / "docs"
    folder.mkdir(exist_ok=True)
    (folder / "report.md").write_text(page, encoding="utf-8")
    body = MarkdownIt("commonmark").enable("table").render(page)
    (folder / "report.html").write_text(
        "<!doctype html><html lang='en'><meta charset='utf-8'><meta name='viewport' content='width=device-width'>"
        f"<title>Report</title><style>{STYLE}</style><body>{body}</body></html>\n",
        encoding="utf-8",
    )
    for name in ranked(root / "weights"):
        card = load_card(name, root / "weights")
        (root / "weights" / name / "README.md").write_text(model_card(card, root), encoding="utf-8")
    for name, found in _whole(root):
        if "reliability" in found:
            plot_reliability(found["reliability"], folder / RELIABILITY.format(name))
    write_bars(bars(root), root / "weights")
    readme = root / "README.md"
    readme.write_text(fill(readme.read_text(encoding="utf-8"), tables(root)), encoding="utf-8")
    return folder / "report.md", folder / "report.html"
