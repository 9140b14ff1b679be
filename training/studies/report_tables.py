"""The report's tables, each from one kind of file that a command wrote, as Markdown."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

from app.explain.faithfulness import (
    COLUMNS,
    depends_on_model,
    depends_on_type,
    lost_to_random,
    measured,
    measured_rows,
    unmeasured,
)
from app.explain.methods import DEFAULT, METHODS
from app.model.ood import real_films_kept
from app.model.weights import ModelCard
from training.evaluation.localisation import ASKED, best_baseline
from training.studies.tables import MISSING, folds_judged, grid, percent, read, with_interval

__all__ = [
    "ablation_table",
    "beliefs_table",
    "costs",
    "crossed_table",
    "data_table",
    "ensembles_table",
    "gainers",
    "methods_table",
    "models_table",
    "tuning_table",
    "zoo_table",
]

SETS = ("bone-break", "fracatlas", "multi-region")


def beliefs_table(card: ModelCard, root: Path) -> str:
    """What a reader wants to know besides accuracy, each beside the command that measures it."""
    folder = root / "weights" / card.name
    rows: list[list[str]] = []
    if localised := read(folder / "localisation.json"):
        maps = localised["maps"]
        baseline = best_baseline(maps)
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


def _looked_at(found: dict[str, Any]) -> str:
    return (
        "; ".join(f"{share} by {measure}" for measure, share in found.get("looked_at", {}).items()) or "not looked at"
    )


def data_table(root: Path) -> str:
    """The audits of the sets beside each other."""
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
        ["of near-duplicates looked at by eye, one film", *(_looked_at(each) for each in near)],
        [
            "films of one case without being near-duplicates, by their names",
            *(f"{audit['same_case']['films_in_them']:,}" for audit in found),
        ],
    ]
    return grid(["", *(audit["set"] for audit in found)], rows)


def methods_table(card: ModelCard, root: Path) -> str:
    """What becomes of every method's map on trial, the default one in words and all in a table."""
    found = measured(card.name, root / "weights")
    if found is None:
        return f"Not measured yet: `python -m training faithfulness {card.name}`."
    default, others = found["methods"][DEFAULT], {k: v for k, v in found["methods"].items() if k != DEFAULT}
    lost = lost_to_random(default)
    words = "beats random maps by all three measures" if not lost else f"does not beat random maps by {', '.join(lost)}"
    rivals = sum(not lost_to_random(row) for row in others.values())
    blind = [METHODS[name].title for name, row in found["methods"].items() if depends_on_model(row) is False]
    names = [METHODS[name].title for name, row in found["methods"].items() if depends_on_type(row) is False]
    return "\n".join(
        [
            f"On {default['margins']['deletion']['n']} fractured FracAtlas validation films the map shown by default "
            f"**{words}**; so do {rivals} of the {len(others)} other methods measured, on fewer films. Staying when "
            f"all weights are randomised: {', '.join(blind) or 'none'}; when the head alone is: "
            f"{', '.join(names) or 'none'}.",
            "",
            f"<details><summary>Methods (<code>python -m training faithfulness {card.name}</code>): margins over "
            "random maps (the same one moved elsewhere), in units of probability; above 0 is better</summary>",
            "",
            grid(COLUMNS, measured_rows(found)),
            "",
            unmeasured(found),
            "</details>",
        ]
    )


def models_table(cards: list[ModelCard], root: Path) -> str:
    """Shipped models against each other."""
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
                f"{with_interval(folds['accuracy'])}, {folds_judged(folds['folds'], card.recipe['folds'])}, "
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


def zoo_table(folder: Path) -> str:
    """Cross-validations in a folder, those of all folds first, each with what the reference names on the same films."""
    found = sorted(
        (json.loads(path.read_text(encoding="utf-8")) for path in folder.glob("*.json")),
        key=lambda its: (-len(its["folds"]), -its["types"]["accuracy"]["value"]),
    )
    rows = [
        [
            f"{its['title']} (`{its['recipe']}`)",
            _started(its),
            f"{folds_judged(its['folds'], its.get('of', 5))}, {its['types']['films']:,} films",
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


def ablation_table(found: dict[str, Any]) -> str:
    """What each switch gave."""

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


def gainers(found: dict[str, Any]) -> str:
    """The switches whose difference from the base has an interval above zero."""
    return ", ".join(row["says"] for row in found["rows"].values() if row["difference"]["low"] > 0.0)


def ensembles_table(rows: dict[str, Any]) -> str:
    """Models asked together."""

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


def crossed_table(found: dict[str, Any]) -> str:
    """Fractured or not, trained on one source and judged on another."""
    areas = found["auroc"]

    def cell(its: dict[str, float]) -> str:
        return f"{its['value']:.3f} ({its['low']:.3f} to {its['high']:.3f})"

    rows = [[trained, *(cell(row[judged]) for judged in areas)] for trained, row in areas.items()]
    return grid(["trained on", *(f"judged on {judged}" for judged in areas)], rows)


def tuning_table(found: dict[str, Any]) -> str:
    """A search's best trial beside the recipe's own."""
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


def costs(folder: Path) -> list[str]:
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
