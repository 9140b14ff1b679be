"""A run becomes ``weights/<name>/``: weights, card and its page."""
