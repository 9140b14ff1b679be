"""What the page without a server says is what the served page says."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

from app.errors import ImageError
from app.imaging import radiograph
from app.model.classifier import Classifier
from app.model.reliability import confidence, how_sure
from app.ui import text
from app.web_card import SOURCES, web_card

TOLD = json.loads((SOURCES / "words.json").read_text(encoding="utf-8"))


def words_in(value: object) -> str:
    return json.dumps(value).lower()


def test_a_shipped_model_brings_its_figures(shipped: Classifier) -> None:
    told = web_card(shipped)
    card = shipped.card
    assert told["presence"] == card.presence.model_dump() if card.presence else None
    assert (told["size"], told["typical_evidence"]) == (card.size, card.typical_evidence)
    assert told["wrong"]["none"].startswith("Misses ")
    assert set(told["errors"]) == {"none", "suspicious", "definite"}
    bins = card.metrics["cross_validation"]["expected_calibration_error"]["bins"]
    assert len(told["records"]) == len(bins)
    for place, sentence in enumerate(told["records"]):
        assert sentence == text.record_at(card, (place + 0.5) / len(bins))
    assert told["classes"][0]["tested"] == list(text.test_figures(card, card.classes[0].name))


@pytest.mark.parametrize(("key", "words"), [("confidence", confidence), ("sure", how_sure)])
def test_every_probability_is_put_in_the_same_words(classifier: Classifier, key: str, words: object) -> None:
    steps = web_card(classifier)[key]
    assert callable(words)
    for share in np.linspace(0.0, 1.0, 1001):
        assert next(told for least, told in steps if share >= least) == words(float(share))


def test_a_model_of_anything_else_is_not_spoken_of_in_our_words(flowers: Classifier) -> None:
    told = web_card(flowers)
    assert told["heading"] == "Flowers, explained"
    assert (told["presence"], told["ood"], told["sets"], told["errors"]) == (None, None, None, {})
    del told["drawing"]
    # Keys of sentences are never shown.
    sentences = words_in([*told.pop("words").values()]) + words_in(told)
    assert not re.search(r"fracture|x-ray|bone", sentences)


def test_every_sentence_that_the_page_asks_for_is_there(shipped: Classifier) -> None:
    known = web_card(shipped)["words"]
    code = "".join(path.read_text(encoding="utf-8") for path in SOURCES.glob("*.js"))
    asked = set(re.findall(r'\bsay\("(\w+)"', code)) | set(re.findall(r"\bcard\.words\.(\w+)", code))
    assert asked <= set(known)
    assert [key for key in TOLD if f'"{key}"' not in code] == [], "nobody asks for these"


@pytest.mark.parametrize(
    ("key", "values", "size"),
    [
        ("too_small", {"width": 20, "height": 90, "least": radiograph.MIN_SIDE}, (20, 90)),
        ("too_long", {"width": 4000, "height": 40}, (4000, 40)),
        ("too_many", {"most": radiograph.MAX_PIXELS // 1_000_000}, (9000, 9000)),
    ],
)
def test_refusals_are_the_servers(key: str, values: dict[str, int], size: tuple[int, int]) -> None:
    with pytest.raises(ImageError) as refused:
        radiograph._check_size(*size)
    assert TOLD[key].format(**values) == str(refused.value)
