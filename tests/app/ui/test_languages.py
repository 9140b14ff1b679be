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
from app.explain.checks import Checks, quick_checks
from app.explain.faithfulness import Curves, Faithfulness
from app.explain.methods import map_request
from app.explain.sanity import CHANGES, HEAD, REST, Randomised, Stable
from app.explain.shortcuts import KINDS, Shortcuts, nowhere
from app.imaging.dicom import CT_WINDOWS
from app.imaging.examples import draw, examples
from app.imaging.radiograph import Radiograph
from app.imaging.series import OWN_WINDOW
from app.model.classifier import (
    IN_WORDS,
    LIKENESS_WARNINGS,
    REJECTED,
    Classifier,
)
from app.model.reliability import WORDS, confidence, how_sure, where_judged
from app.model.subject import OURS, Subject
from app.model.weights import PredictionSets, PresencePoints, load_card
from app.sentence import Sentence
from app.ui import batch, compare, text, trial
from app.ui.languages import ENGLISH, LANGUAGES, STATIC, about, in_every, label, marked, said, say, speaking, spoken
from app.ui.page import build
from tests.conftest import SHIPPED
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
    cards = [load_card(name) for name in SHIPPED]
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
        HEAD,
        REST,
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
        assert sentence in {*shared, "{one}, {other}", "{one}; {other}", "{change} {value}"}, sentence
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
        assert "lang=" not in marked(text.OURS)
        assert say("Misses {share} of fractures", share="1 %") == "لا يرى 1 % من الكسور"
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


def left_in_english(told: str, code: str) -> set[str]:
    """Words of HTML that the page says in English and in this language never."""
    pairs = LANGUAGES[code].sentences.items()
    seen, theirs, own = (
        {word.lower() for each in texts for word in re.findall(r"[A-Za-z]{3,}", each)}
        for texts in ([re.sub("<[^>]+>", " ", told)], [each for each, _ in pairs], [each for _, each in pairs])
    )
    return seen & theirs - own


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("odds", [-3.0, 0.5, 4.0])
def test_the_verdict_is_in_one_language(classifier: Classifier, film: Radiograph, code: str, odds: float) -> None:
    """What is seen before anything is opened, and what is behind it."""
    card = classifier.card.model_copy(update={"presence": PresencePoints(sensitive=0.0, specific=2.0)})
    explained = replace(classifier.explain([film])[0], fracture=np.full((1, 1), odds, np.float32))
    best = explained.prediction.best
    with speaking(code):
        told = text.verdict(card, explained, best, "unusual")
        for outlines in (["none"], ["hottest", "definite"]):
            told += text.legend(card, explained, best, "gradcam", "inferno", 0.6, outlines)
        told += text.bars(card, explained)[1]
        told += text.describe(card, explained, best, "gradcam", []) + text.point(card, {best: 0.5})
        told += text.rejection(REJECTED) + text.line(text.OURS)
        choices = [words for words, _ in text.bars(card, explained)[0]]
    assert "lang=" not in told
    seen = re.sub(r"<style>.*?</style>", " ", told) + " ".join(choices)
    assert not left_in_english(seen, code)
    assert next(kind.title for kind in card.classes if kind.name == best).lower() not in seen.lower()


FLAT = np.zeros((2, 2), np.float32)
AREAS = [(0.1, 0.4), (0.1, 0.2), (0.5, 0.1)]
"""Under a map's deletion curve, and its ROAD, where random maps have 0.30 to 0.33."""
DEPENDENCE = [((0.5,), (0.1,)), ((), (0.1,)), ((0.5,), (0.5,)), ((0.99,), (0.1,)), ((0.5,), ())]
"""Correlations with the maps of a randomised head, and of a network randomised all over."""


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("uncertain", [False, True])
def test_how_reliable_a_verdict_is_is_told_whole(
    classifier: Classifier, film: Radiograph, code: str, uncertain: bool
) -> None:
    share = {"value": 0.9, "low": 0.8, "high": 0.95, "n": 40}
    point = {"specificity": share, "sensitivity": share}
    points = {"sensitive": point, "specific": point}
    confusion = [[3] * len(classifier.classes)] * len(classifier.classes)
    bins = [{"images": 0 if uncertain else 8, "accuracy": None if uncertain else 0.25}]
    metrics = {
        "test": {"accuracy": share, "confusion": confusion},
        "cross_validation": {"expected_calibration_error": {"bins": bins}, "held_out": uncertain},
        "presence": {
            **points,
            "by_region": {"hand": points, "leg": points},
            "elsewhere": {"other": {**points, "auroc": share}},
        },
    }
    changes = {
        "metrics": metrics if not uncertain else {**metrics, "test": {}},
        "sets": PredictionSets(score="APS", level=0.9, limit=0.0 if uncertain else 0.5),
    }
    explained = replace(classifier.explain([film])[0], fracture=np.full((1, 1), 4.0, np.float32))
    for points_of in (PresencePoints(sensitive=0.0, specific=2.0), PresencePoints(sensitive=5.0, specific=6.0), None):
        card = classifier.card.model_copy(update={**changes, "presence": points_of})
        assert "It always names one of" in text.verdict(card, explained)
        with speaking(code):
            told = text.verdict(card, explained)
        assert "lang=" not in told
        assert not left_in_english(told, code)


@pytest.mark.parametrize("code", CODES)
def test_the_checks_of_a_heatmap_are_in_one_language(classifier: Classifier, film: Radiograph, code: str) -> None:
    checked = quick_checks(map_request(classifier, film), classifier.explain([film])[0])
    random = tuple(Curves(np.full(11, area), np.full(11, area), area) for area in (0.30, 0.31, 0.32, 0.33))
    curves = [Faithfulness(Curves(np.full(11, low), np.full(11, 0.5), road), random) for low, road in AREAS]
    randomised = [(Randomised(HEAD, FLAT, head), Randomised(REST, FLAT, last)) for head, last in DEPENDENCE]
    steady = [tuple(Stable(each.title, FLAT, value) for each in CHANGES) for value in (0.9, 0.1)]
    steady.append((*steady[0][:4], *steady[1][4:]))
    shares = Shortcuts(dict.fromkeys(KINDS, 0.1))
    told = []
    with speaking(code):
        told.append(text.belief(checked))
        for number, each in enumerate(randomised):
            told.append(trial.findings(Checks(FLAT, curves[number % 3], each, steady[number % 3], shares)))
        told.append(trial._intro() + compare._intro())
    for each in told:
        assert "lang=" not in each
        assert not left_in_english(each, code)


@pytest.mark.parametrize("code", CODES)
def test_what_methods_show_is_in_one_language(classifier: Classifier, code: str) -> None:
    lost = {key: {"low": -0.1} for key in ("deletion", "insertion", "ROAD")}
    figures = {"methods": {name: {"margins": lost} for name in METHODS}}
    for maps in ("exact", "gradient"):
        with speaking(code):
            told = compare.method_notes(
                list(METHODS), {"One": figures, "Two": None}, classifier.card.model_copy(update={"maps": maps})
            )
        assert told.count("class='flag'") == len(METHODS)
        assert "lang=" not in told
        # Some are named in words that sentences have too.
        assert not left_in_english(re.sub("<strong>.*?</strong>", "", told), code)


def test_a_sentence_is_given_what_it_names() -> None:
    """No more and no less than stands in its braces."""
    checked = 0
    for path in Path("app").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or getattr(node.func, "id", "") != "Sentence":
                continue
            (template,) = node.args
            if isinstance(template, ast.Constant):
                names = re.findall(r"\{(\w+)\}", str(template.value))
                assert sorted(names) == sorted(str(each.arg) for each in node.keywords), template.value
                checked += 1
    assert checked > 40


def test_a_sentence_that_is_known_in_part_is_told_in_english() -> None:
    known = Sentence("{share} of its heat lies {where}.", share="3 %", where=Sentence("outside the X-ray"))
    unknown = Sentence("{share} of its heat lies {where}.", share="3 %", where=Sentence("anywhere"))
    assert known == "3 % of its heat lies outside the X-ray."
    with speaking("es"):
        assert marked(known) == "El 3 % de su calor está fuera de la radiografía."
        assert marked(unknown) == "<span lang='en' dir='ltr'>3 % of its heat lies anywhere.</span>"
    with speaking("ar"):
        assert "\u20683 %\u2069" in say(known)


def test_what_is_retold_of_other_images_stays_english(classifier: Classifier, film: Radiograph) -> None:
    flowers = Subject(title="Flowers", image="photo", finding="")
    card = classifier.card.model_copy(update={"subject": flowers})
    explained = classifier.explain([film])[0]
    best = explained.prediction.best
    with about(flowers), speaking("es"):
        told = text.describe(card, explained, best, "shap", []) + trial._intro()
        told += text.verdict(card, explained)
        seen = re.findall("<span lang='en' dir='ltr'>(.*?)</span>", told)
    assert any("what the model used, right or wrong" in each for each in seen)
    assert any("shows the photo, not what was learnt" in each for each in seen)
    assert "Each patch&#x27;s fair share of the score. Estimated from random draws." in seen
    assert "fractura" not in told
    assert "radiografía" not in told


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
