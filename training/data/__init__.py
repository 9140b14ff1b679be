"""Data sets, near-duplicates, splits and the film cache."""

from training.data import bone_break, fracatlas, multi_region

__all__ = ["SETS"]

SETS = {"bone-break": bone_break.load, "fracatlas": fracatlas.load, "multi-region": multi_region.load}
"""Loader of every data set, from the folder that holds it."""
