"""Data sets, near-duplicates, splits and the image cache."""

from training.data import bone_break, fracatlas, multi_region

SETS = {"bone-break": bone_break, "fracatlas": fracatlas, "multi-region": multi_region}
"""Module of every data set: ``find`` and ``load`` take the folder that holds it."""
