"""Findings in words until their last importer names ``app.model.classifier``."""

from app.model.classifier import IN_WORDS, UNLIKE, FractureFinding, how_sure, possible_types, presence

__all__ = ["IN_WORDS", "UNLIKE", "FractureFinding", "how_sure", "possible_types", "presence"]
