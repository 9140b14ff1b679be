"""English sentences that keep what they were made of, so that the page can tell them in other languages."""

from __future__ import annotations

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
    def listed(cls, separated: str, parts: list[Sentence]) -> Sentence:
        """At least one sentence after another; ``separated`` puts "one" before "other"."""
        told, *others = parts
        for other in others:
            told = cls(separated, one=told, other=other)
        return told
