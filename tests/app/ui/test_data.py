"""The tab about the data shows what the audits, splits and studies say, few words, and nothing typed in."""

from __future__ import annotations

import json
import re
from pathlib import Path
from xml.etree import ElementTree

import gradio as gr
import pytest

from app.model.weights import shipped, with_interval
from app.ui.data import DataTab, agreement, balance, leaks, sets, soundness, verdict

FACTS = json.loads((shipped("weights") / "data.json").read_text(encoding="utf-8"))


def words(figure: str) -> list[str]:
    return [part.text or "" for part in ElementTree.fromstring(figure).iter("text")]


def test_three_figures_a_table_a_paragraph_and_the_rest_closed() -> None:
    with gr.Blocks() as tab:
        DataTab()
    blocks = list(tab.blocks.values())
    shown = ElementTree.fromstring("".join(block.value for block in blocks if isinstance(block, gr.HTML)))
    assert shown.findtext("h2") == "Is this data sound?"
    assert [len(list(shown.iter(kind))) for kind in ("figure", "table", "p")] == [3, 1, 1]
    for svg in shown.iter("svg"):
        assert re.search(r"\d.*\d", svg.get("aria-label") or "")
    told = [*shown.iter("p"), *shown.iter("figcaption")]
    assert len(" ".join("".join(each.itertext()) for each in told).split()) <= 130
    assert [block.open for block in blocks if isinstance(block, gr.Accordion)] == [False]
    rest = "".join(str(block.value) for block in blocks if isinstance(block, gr.Markdown))
    assert "](.." not in rest
    audits = [json.loads(path.read_text()) for path in Path("training/data/audits").glob("[!s]*.json")]
    assert len(audits) == 3
    for audit in audits:
        assert f"{audit['near_duplicates']['different_images']:,}" in rest
        assert f"{audit['near_duplicates']['different_images']:,}" in sets(FACTS["sets"])
    runs = json.loads(Path("training/recipes/replications/results.json").read_text()).values()
    assert all(run["title"] in rest for run in runs)


def test_bars_are_as_long_as_the_counts_are_large() -> None:
    figure = balance(FACTS["types"])
    for part in ("train", "left_out", "test"):
        bars = [
            float(bar.get("width") or 0) + 2
            for bar in list(ElementTree.fromstring(figure).iter("rect"))[3:]
            if bar.get("class") == part
        ]
        unit = sum(bars) / sum(kind[part] for kind in FACTS["types"])
        assert bars == pytest.approx([kind[part] * unit for kind in FACTS["types"]], abs=0.11)
    sums = [str(sum(kind[part] for part in ("train", "left_out", "test"))) for kind in FACTS["types"]]
    assert [text for text in words(figure) if text.isdigit()] == sums


def test_a_leak_of_our_own_would_be_said() -> None:
    found = FACTS["sets"]
    assert "On ours, none." in leaks(found)
    spoilt = [{**found[0], "ours": {"part": "test", "images": 140, "related": 7}}]
    assert "On ours, 7." in leaks(spoilt)
    assert "7 of 140" in words(leaks(spoilt))
    published = [f"{its['published']['related']} of {its['published']['images']}" for its in found]
    assert [text for text in words(leaks(found)) if re.fullmatch(r"[1-9]\d* of \d+", text)] == published


def test_the_least_agreement_between_sets_is_the_finding() -> None:
    figure = agreement(FACTS["labels"])
    least = min((its["same"] for its in FACTS["labels"] if its["sets"][1:]), key=lambda same: same["value"])
    caption = "".join(next(ElementTree.fromstring(figure).iter("figcaption")).itertext())
    assert with_interval(least) in caption
    label = next(ElementTree.fromstring(figure).iter("svg")).get("aria-label") or ""
    assert all(with_interval(its["same"]) in label for its in FACTS["labels"])


def test_the_paragraph_quotes_the_leak_with_intervals() -> None:
    told = verdict(FACTS["leak"])
    assert all(with_interval(share) in told for share in FACTS["leak"].values())
    assert told in "".join(soundness(FACTS))
