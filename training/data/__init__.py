"""Data sets, near-duplicates, splits and the film cache."""
