"""A line in plain words on each fracture type; a model's card says which of them it knows."""

from __future__ import annotations

__all__ = ["GLOSSARY"]

GLOSSARY: dict[str, str] = {
    "avulsion": "A tendon or ligament has torn off the piece of bone it holds on to.",
    "comminuted": "The bone is broken into three or more pieces.",
    "fracture-dislocation": "A bone is broken and the joint beside it has come out of place.",
    "greenstick": "A child's soft bone is bent and cracked on one side only, like a green twig.",
    "hairline": "A thin crack without displacement, often from repeated strain; easy to miss.",
    "impacted": "One end of the broken bone has been driven into the other.",
    "longitudinal": "The break runs along the length of the bone.",
    "oblique": "The break crosses the shaft at a slant.",
    "pathological": "The bone broke under little force because disease had weakened it.",
    "spiral": "The break winds around the shaft, the mark of a twisting force.",
}
