"""English sentences that keep what they were made of, so that the page can tell them in other languages."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

__all__ = ["Sentence"]


class Sentence(str):
    """An English sentence; ``template`` has the names of ``values`` in braces.

    A value is a sentence again, or a figure or a name, which stays as it is in every language.
    """

    template: str
    values: dict[str, str]

    def __new__(cls, template: str, **values: str) -> Sentence:
        made = super().__new__(cls, template.format(**values) if values else template)
        made.template, made.values = template, values
        return made

    @classmethod
    def listed(cls, separated: str, parts: Sequence[str]) -> str:
        """At least one value after another; ``separated`` puts "one" before "other"."""
        return reduce(lambda one, other: cls(separated, one=one, other=other), parts)
