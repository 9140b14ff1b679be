"""What a model's images show: the one place on which the words of page, report and command line depend.

Their sentences are written for this project's own models, about fractures on X-rays. ``Subject.retell`` puts them for a
model of anything else, whose card names its images.
"""

from __future__ import annotations

import re

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["OURS", "Subject"]

RETOLD = (
    (", the blue one where the model sees a fracture of any type, dashed for a suspicion", ""),
    ("It shows what the model used, not where the fracture is", "It shows what the model used"),
    ("shows what the model used, not where the fracture is", "shows what the model used, right or wrong"),
    (", and says whether a fracture is seen at all", ""),
    (", and says whether a fracture is seen on it at all", ""),
    ("Paint over a letter, the fracture or anything else", "Paint over any part"),
    ("a fracture like those", "an image like those"),
    (" for a fracture type", " for a type"),
    ("; patches cut across bones", ""),
    ("type of bone fracture", "type"),
    ("types of fracture", "types"),
    ("fracture type", "type"),
)
"""Words for models whose types are of no common finding."""

IMAGE = re.compile(r"(?P<article>\b[Aa]n? )?\b(?:X-ray|[Rr]adiograph)(?P<many>s?)\b")
LETTERS_WITH_VOWELS = "AEFHILMNORSX"
"""Whose names begin with a vowel, in abbreviations read letter by letter."""


def _article(word: str) -> str:
    abbreviation = len(word) > 1 and not word[1].islower()
    return "an" if word[0].upper() in (LETTERS_WITH_VOWELS if abbreviation else "AEIOU") else "a"


class Subject(BaseModel):
    """What a model's images show; by default what this project's own models do.

    Attributes:
        title: of the page, as in "Fractures, explained".
        image: what one of the images is called, as in "X-ray".
        finding: what the types are types of and an image may show, as in "fracture"; empty where they share no name.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    title: str = Field("Fractures", min_length=1)
    image: str = Field("X-ray", min_length=1)
    finding: str = "fracture"

    @property
    def ours(self) -> bool:
        """Whether it is what this project's own data, examples and figures are about."""
        return self == OURS

    def retell(self, sentence: str) -> str:
        """A sentence about fractures on X-rays, or HTML of such sentences, in this subject's words.

        Never to be given a name that people chose: it would be retold too.
        """
        if self.ours:
            return sentence
        if not self.finding:
            for our, theirs in RETOLD:
                sentence = sentence.replace(our, theirs)
        told = IMAGE.sub(lambda found: self._image(found, sentence), sentence)
        finding = self.finding or "finding"
        told = re.sub(r"\b([Aa]) (?:bone )?fracture\b", lambda a: f"{_cased(_article(finding), a[1])} {finding}", told)
        return re.sub(r"\b(?:bone )?([Ff])racture", lambda found: _cased(finding, found[1]), told)

    def _image(self, found: re.Match[str], sentence: str) -> str:
        word = self.image + "s" * bool(found["many"])
        if found["article"]:
            return f"{_cased(_article(word), found['article'])} {word}"
        starts = re.search(r"(^|[.?!>] ?|\n)$", sentence[: found.start()])
        return word[0].upper() + word[1:] if starts else word


def _cased(word: str, like: str) -> str:
    return word[0].upper() + word[1:] if like[0].isupper() else word


OURS = Subject()
"""What this project's own models are about."""
