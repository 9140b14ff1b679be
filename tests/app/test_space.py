from __future__ import annotations

import runpy
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType

import pytest

from app.model.weights import ranked
from app.ui import page


@pytest.mark.parametrize("there", [True, False])
def test_a_space_starts_with_every_model_and_what_zerogpu_wants(monkeypatch: pytest.MonkeyPatch, there: bool) -> None:
    launched, borrowed = [], []
    monkeypatch.setattr(page, "launch", launched.append)
    spaces = ModuleType("spaces")
    spaces.__spec__ = ModuleSpec("spaces", None)
    spaces.GPU = borrowed.append  # ty: ignore[unresolved-attribute]
    if there:
        monkeypatch.setitem(sys.modules, "spaces", spaces)
    runpy.run_path("space.py")
    assert [classifier.card.name for classifier in launched[0]] == ranked()
    assert bool(borrowed) == there
