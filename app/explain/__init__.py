"""A prediction to a map, and whether to believe it."""
