"""The ways things go wrong for a user; their messages are shown as they are, so they are sentences."""


class ImageError(ValueError):
    """This file cannot be read as a radiograph; the message says why in words a layman understands."""


class RejectedError(ImageError):
    """A picture is like none of the films a model knows; people may insist on a verdict all the same."""


class WeightsError(RuntimeError):
    """A model cannot be used; the message says which one, why, and what to do."""


class Cancelled(Exception):
    """Slow work that was stopped, or ran out of time; the message is for people."""


class NoHeat(ValueError):
    """A map is the same everywhere, so there is nothing to judge; the message is a sentence for people."""
