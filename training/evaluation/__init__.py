"""How weights are judged, each figure with its interval."""
