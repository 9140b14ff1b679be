from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import httpx
import numpy as np
import pytest
from gradio.context import LocalContext
from gradio_client import Client, handle_file
from PIL import Image

from app.deploy import space_files
from app.explain import METHODS
from app.explain.sanity import CHANGES
from app.explain.shortcuts import KINDS, nowhere
from app.imaging.dicom import CT_WINDOWS
from app.imaging.examples import draw, examples
from app.imaging.radiograph import Radiograph
from app.imaging.series import OWN_WINDOW
from app.model.classifier import (
    IN_WORDS,
    LIKENESS_WARNINGS,
    REJECTED,
    WORDS,
    Classifier,
    confidence,
    how_sure,
    where_judged,
)
from app.model.subject import OURS
from app.model.weights import PresencePoints, available, load_card
from app.ui import batch, compare, text, trial
from app.ui.languages import ENGLISH, LANGUAGES, STATIC, english, in_every, label, marked, said, say, speaking, spoken
from app.ui.page import build
from tests.serving import PATIENCE, launch

CODES = sorted(LANGUAGES)
SPEAKERS = {"say": 1, "said": 1, "marked": 1, "label": 1, "line": 1, "type_choice": 3, "_part": 3, "Sentence": 1}
"""What puts words into a language, and how many of its arguments may be sentences."""


def constants(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def spread(arguments: list[ast.expr]) -> Iterator[ast.expr]:
    """Arguments, and both of those that are one or the other."""
    for argument in arguments:
        if isinstance(argument, ast.IfExp):
            yield from spread([argument.body, argument.orelse])
        else:
            yield argument


def spelled_out() -> set[str]:
    """Sentences that the page's code hands to a speaker as they stand, or by the name of a constant."""
    found = set()
    for path in (each for part in ("ui", "explain", "model") for each in Path("app", part).glob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        named = {
            target.id: node.value.value
            for node in tree.body
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
            for target in node.targets
            if isinstance(target, ast.Name) and isinstance(node.value.value, str)
        }
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call):
                continue
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            for argument in spread(node.args[: SPEAKERS.get(name, 0)]):
                if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
                    found.add(argument.value)
                elif isinstance(argument, ast.Name) and argument.id in named:
                    found.add(named[argument.id])
                elif isinstance(argument, ast.Attribute) and isinstance(getattr(text, argument.attr, None), str):
                    found.add(getattr(text, argument.attr))
    return found


def made_up() -> set[str]:
    """Sentences that are put together of parts, or that other rooms make and the page shows first."""
    cards = [load_card(name) for name in available()]
    kinds = {kind.title for card in cards for kind in card.classes}
    sure = {confidence(probability) for probability in (0.9, 0.5, 0.1)}
    places = {f"{row} {column}" for row in ("upper", "middle", "lower") for column in ("left", "right")}
    return {
        *kinds,
        *(kind.removesuffix(" fracture") for kind in kinds),
        *(card.title for card in cards),
        *(words.capitalize() for words in sure),
        *(words.removesuffix(" confidence") for words in sure),
        *IN_WORDS.values(),
        *LIKENESS_WARNINGS.values(),
        REJECTED,
        *places,
        "upper",
        "centre",
        "lower",
        OWN_WINDOW,
        *CT_WINDOWS,
        *(example.label for example in examples()),
        *(example.source for example in examples()),
        *compare.COSTS.values(),
        *(title for title in (how.title for how in METHODS.values()) if " " in title),
        "Occlusion",
        *text.GLOSSARY.values(),
        *trial.QUESTIONS,
        *trial.QUESTIONS.values(),
        *KINDS.values(),
        *(words for _, words in WORDS),
        how_sure(0.0),
        *(where_judged(card) for card in cards),
        "On held-out images",
        *(part for card in cards for part in card.metrics["presence"]["by_region"] if "+" not in part),
        *(nowhere(subject) for subject in (OURS, OURS.model_copy(update={"finding": ""}))),
        *(change.title for change in CHANGES),
        *(says for how in METHODS.values() for says in (how.says, how.says_of_gradients) if says),
        *batch.ORDERS,
        *batch.COUNTED.values(),
        "Rejected",
        "Failed",
        "X-ray",
        "Type",
        "Confidence",
        "Fracture",
        "evidence for",
        "evidence against",
        "constant",
        "The model finds no positive evidence for {type} here.",
    }


@pytest.mark.parametrize("code", CODES)
def test_whatever_the_page_says_is_told_in_every_language(code: str) -> None:
    needed = {sentence for sentence in spelled_out() | made_up() if re.search("[A-Za-z]{2}", sentence)}
    assert len(needed) > 150
    missing = sorted(needed - LANGUAGES[code].sentences.keys())
    assert not missing, missing


def test_every_language_tells_the_same_sentences() -> None:
    first, *others = (list(LANGUAGES[code].sentences) for code in CODES)
    assert len(CODES) >= 2
    for other in others:
        assert other == first


@pytest.mark.parametrize("code", CODES)
def test_nothing_is_translated_that_nobody_says(code: str) -> None:
    """A sentence stands in the code, or is made by parts that do."""
    whole = {each for path in Path("app").rglob("*.py") for each in constants(path)} | made_up()
    # What f-strings leave between their braces.
    pieces = {each for each in whole if len(each) > 20}
    for sentence in LANGUAGES[code].sentences:
        assert sentence in whole or any(piece in sentence for piece in pieces), sentence


@pytest.mark.parametrize("code", CODES)
def test_translations_are_whole(code: str) -> None:
    for sentence, told in LANGUAGES[code].sentences.items():
        assert told.strip() or sentence == told, sentence
        assert sorted(re.findall(r"\{[^}]*\}", told)) == sorted(re.findall(r"\{[^}]*\}", sentence)), sentence
        assert told[:1].isspace() == sentence[:1].isspace(), sentence
        # One ends as the other does, or a list that is joined by code falls apart.
        assert (told.strip()[-1] in ".؟?:…") == (sentence.strip()[-1] in ".?:…"), sentence


@pytest.mark.parametrize("code", CODES)
def test_nothing_is_left_in_english(code: str) -> None:
    shared = {"Longitudinal", "{count} logits", "ResNet-18, 192 px", ", "}
    same = {sentence for sentence, told in LANGUAGES[code].sentences.items() if told == sentence}
    for sentence in same:
        # Names, units and words that both languages share.
        assert sentence in {*shared, "{one}, {other}", "{one}; {other}"}, sentence
    if LANGUAGES[code].direction == "rtl":
        for sentence, told in LANGUAGES[code].sentences.items():
            latin = set(re.findall(r"[A-Za-z]{2,}", re.sub(r"\{[^}]*\}", "", told)))
            assert latin <= set(re.findall(r"[A-Za-z]{2,}", sentence)), sentence
            assert re.search(r"[\u0600-\u06ff]", told), sentence


def asked(header: str | None) -> SimpleNamespace:
    return SimpleNamespace(headers={} if header is None else {"accept-language": header})


@pytest.mark.parametrize(
    ("header", "code"),
    [
        ("es-MX,es;q=0.9,en;q=0.8", "es"),
        ("ar", "ar"),
        ("AR-eg;q=1, en", "ar"),
        ("en-GB,es;q=0.9", ENGLISH),
        ("fr-FR,es;q=0.9", ENGLISH),
        ("", ENGLISH),
        ("*", ENGLISH),
        (None, ENGLISH),
    ],
)
def test_the_first_language_a_browser_names_is_spoken(header: str | None, code: str) -> None:
    token = LocalContext.request.set(asked(header))
    try:
        assert spoken() == code
    finally:
        LocalContext.request.reset(token)
    assert spoken() == ENGLISH


def test_what_is_not_known_stays_english_and_says_so() -> None:
    assert marked("Nobody said <this>.") == "Nobody said &lt;this&gt;."
    with speaking("ar"):
        assert marked("Nobody said <this>.") == "<span lang='en' dir='ltr'>Nobody said &lt;this&gt;.</span>"
        assert english("<p>This.</p>") == "<div lang='en' dir='ltr'><p>This.</p></div>"
        assert "lang=" not in marked(text.OURS)
        assert say("Right type in {share} of test X-rays", share="1 %") == "النوع صحيح في 1 % من صور الاختبار"
        assert said("{what}, {done} of {count}", what="<b>", done="1", count="2").startswith("<b>، 1")


def test_the_browser_is_told_every_language_of_what_is_laid_out_once(classifier: Classifier) -> None:
    page, _ = build([classifier])
    keys = STATIC.translations[ENGLISH]
    assert all(STATIC.translations[code].keys() == keys.keys() for code in CODES)
    told = str(page.config)
    for sentence in ("Explain", "Hide heat", "Explain all", "Compare methods"):
        assert label(sentence) in told
        assert STATIC.translations["es"][sentence] == LANGUAGES["es"].sentences[sentence]
    # The browser takes a marker to end at the first brace.
    assert not any("}" in key for key in keys)
    assert label("Up to {most} X-rays, or a zip", most=7).endswith('"Up to 7 X-rays, or a zip"}')
    assert in_every(lambda: "") == "", "a marker of nothing would be shown as it is"


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("odds", [-3.0, 0.5, 4.0])
def test_the_verdict_is_in_one_language(classifier: Classifier, film: Radiograph, code: str, odds: float) -> None:
    """What is seen before anything is opened, and what is behind it."""
    card = classifier.card.model_copy(update={"presence": PresencePoints(sensitive=0.0, specific=2.0)})
    explained = replace(classifier.explain([film])[0], fracture=np.full((1, 1), odds, np.float32))
    best = explained.prediction.best
    with speaking(code):
        told = text.verdict(card, explained, best, "unusual")
        told += text.bars(card, explained)[1] + text.legend(explained, "gradcam", "inferno", 0.6)
        told += text.describe(card, explained, best, "gradcam", []) + text.point(card, {best: 0.5})
        told += text.rejection(REJECTED) + text.line(text.OURS)
        choices = [words for words, _ in text.bars(card, explained)[0]]
    assert "lang=" not in told
    seen = re.sub(r"<style>.*?</style>|<[^>]+>", " ", told) + " ".join(choices)
    words = {word.lower() for word in re.findall(r"[A-Za-z]{3,}", seen)}
    english_words = {word.lower() for each in LANGUAGES[code].sentences for word in re.findall(r"[A-Za-z]{3,}", each)}
    own = {word.lower() for each in LANGUAGES[code].sentences.values() for word in re.findall(r"[A-Za-z]{3,}", each)}
    assert not words & (english_words - own), words & (english_words - own)
    assert next(kind.title for kind in card.classes if kind.name == best).lower() not in seen.lower()


def test_digits_keep_their_order_in_text_from_right_to_left(classifier: Classifier, film: Radiograph) -> None:
    explained = classifier.explain([film])[0]
    english_choices, _ = text.bars(classifier.card, explained)
    with speaking("ar"):
        choices, style = text.bars(classifier.card, explained)
    assert [name for _, name in choices] == [name for _, name in english_choices]
    assert all(re.search("\u2066\\d+ %\u2069$", words) for words, _ in choices)
    assert style == text.bars(classifier.card, explained)[1]


def test_programs_get_english(classifier: Classifier, tmp_path: Path) -> None:
    path = tmp_path / "arm.png"
    Image.fromarray(draw("oblique", seed=2)).save(path)
    page, address = launch([classifier])
    try:
        answers = [
            Client(address, verbose=False, headers=headers, httpx_kwargs={"timeout": PATIENCE}).predict(
                handle_file(str(path)), api_name="/classify"
            )
            for headers in ({}, {"Accept-Language": "es-ES"})
        ]
        assert answers[0] == answers[1]
        manifest = httpx.get(f"{address}manifest.json", timeout=PATIENCE).json()
        assert manifest["name"] == "Fracture types, explained"
    finally:
        page.close()


def test_a_space_gets_every_language() -> None:
    shipped = space_files(Path())
    assert CODES
    assert all(f"app/ui/languages/{code}.json" in shipped for code in CODES)
