"""The tab that asks whether the public data is sound: three figures, a table, a paragraph, and the rest on demand."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

import gradio as gr

from app.model.weights import percent, shipped, with_interval
from app.ui.about import page, prose
from app.ui.figures import SIDE, Share, figure, key, label, shares
from app.ui.text import table

__all__ = ["DataTab", "agreement", "balance", "leaks", "sets", "soundness"]

LEAKS = "## Why do others publish more?"
"""The part of ``results.md`` that belongs to the data."""
ABOUT = {"type": "Type", "presence": "Fractured or not"}
"""What labels are about, by their key in ``data.json``."""
STEP = 20.0


def balance(types: Sequence[dict[str, Any]]) -> str:
    """X-rays of each type: those that train, those that test, and those left out since a test X-ray is related."""
    parts = [("train", "training"), ("left_out", "left out"), ("test", "test")]
    sums = [sum(kind[part] for part, _ in parts) for kind in types]
    left, right = 132.0, SIDE - 30
    unit = (right - left) / max(sums)
    drawn, told = list(key(parts)), []
    for number, (kind, total) in enumerate(zip(types, sums, strict=True)):
        x, y = left, 24 + number * STEP
        name = kind["name"].capitalize()
        drawn += [label(left - 6, y + 12, name, anchor="end"), label(SIDE, y + 12, str(total), anchor="end")]
        told.append(f"{name} " + ", ".join(f"{kind[part]} {words}" for part, words in parts))
        for part, _ in parts:
            width = kind[part] * unit
            drawn.append(f"<rect class='{part}' x='{x + 1:.1f}' y='{y + 1:.0f}' width='{width - 2:.1f}' height='14'/>")
            x += width
    out = sum(kind["left_out"] for kind in types)
    of = sum(kind["train"] for kind in types) + out
    finding = (
        f"{min(sums)} to {max(sums)} X-rays a type. {out} of {of} training X-rays are left out, "
        "too close to a test X-ray."
    )
    return figure("Enough of each type?", finding, told, drawn, 26 + len(types) * STEP)


def leaks(found: Sequence[dict[str, Any]]) -> str:
    """How many images that judge have a near-duplicate in training, on the publishers' splits and on ours."""
    left, right = 76.0, SIDE - 74
    drawn, told, y = [], [], 0.0
    for its in found:
        drawn.append(label(0, y + 12, its["title"], kind="strong"))
        for side, words in (("published", "published"), ("ours", "ours")):
            y += STEP
            count, of = its[side]["related"], its[side]["images"]
            drawn += [
                label(0, y + 12, words),
                f"<path class='track' d='M{left} {y + 8:.0f}H{right}'/>",
                f"<rect class='{side}' x='{left}' y='{y + 1:.0f}' width='{max(2.0, count / of * (right - left)):.1f}' "
                "height='14'/>",
                label(SIDE, y + 12, f"{count} of {of}", anchor="end"),
            ]
            told.append(f"{its['title']}, {words}: {count} of {of} {its[side]['part']} images")
        y += 1.6 * STEP
    worst = max(its["published"]["related"] / its["published"]["images"] for its in found)
    ours = sum(its["ours"]["related"] for its in found)
    finding = (
        f"On published splits, up to {percent(worst)} of test X-rays have a near-duplicate in training. "
        f"On ours, {ours or 'none'}."
    )
    return figure("Are test X-rays new?", finding, told, drawn, y - 0.6 * STEP)


def agreement(labels: Sequence[dict[str, Any]]) -> str:
    """How often an X-ray that carries two labels carries the same one twice."""
    rows = [
        Share(ABOUT[its["about"]], its["sets"] if its["sets"][1:] else [f"twice in {its['sets'][0]}"], its["same"])
        for its in labels
    ]
    least = min((its for its in labels if its["sets"][1:]), key=lambda its: its["same"]["value"])
    finding = f"Two sets that share X-rays give the same {least['about']} in {with_interval(least['same'])}."
    return shares("Do the labels agree?", finding, rows)


def sets(found: Sequence[dict[str, Any]]) -> str:
    """The audited sets beside each other, as HTML."""
    rows = {"Images": "images", "Different, at least": "different", "With letters or arrows": "marked"}
    cells = [[words, *(f"{its[name]:,}" for its in found)] for words, name in rows.items()]
    links = [f"{its['links']['confirmed']} of {its['links']['looked_at']}" for its in found]
    cells.append(["Near-duplicates confirmed by eye", *links])
    return table(["Set", *(its["title"] for its in found)], cells)


def verdict(leak: dict[str, Any]) -> str:
    """The answer in a paragraph."""
    return (
        "Not as published: related X-rays on both sides of a random split lift one network from "
        f"{with_interval(leak['leak_free'])} right to {with_interval(leak['published'])}. Our split mends that, not "
        "the labels: they are one uploader's, and every X-ray with a type is fractured."
    )


def soundness(facts: dict[str, Any]) -> Iterable[str]:
    """The tab's content as HTML, from ``data.json``."""
    yield f"<article class='about wide snug'><h2>Is this data sound?</h2><p>{verdict(facts['leak'])}</p>"
    yield f"<div class='figures'>{balance(facts['types'])}{leaks(facts['sets'])}{agreement(facts['labels'])}</div>"
    yield f"{sets(facts['sets'])}</article>"


class DataTab:
    """Lays itself out inside the current Blocks."""

    def __init__(self) -> None:
        path = shipped("weights") / "data.json"
        gr.HTML("".join(soundness(json.loads(path.read_text(encoding="utf-8")))))
        found = page("results").partition(LEAKS)[2].partition("\n## ")[0]
        with gr.Accordion("Everything about the data", open=False):
            prose(f"{page('data')}\n\n{LEAKS}{found}")
