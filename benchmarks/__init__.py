"""Costs as ratios, both sides measured in turn in one run: a machine's own speed cancels out."""
