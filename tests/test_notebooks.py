"""The notebooks as they are committed: run to their end, on drawings. `make test-all` runs them anew."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))


def test_there_are_five_and_each_names_its_number() -> None:
    assert [path.name[0] for path in NOTEBOOKS] == ["1", "2", "3", "4", "5"]
    for path in NOTEBOOKS:
        first = json.loads(path.read_text(encoding="utf-8"))["cells"][0]
        assert "".join(first["source"]).startswith(f"# {path.name[0]} · ")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_ran_to_its_end_on_drawings(path: Path) -> None:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, 1 + len(code)))
    assert not any(output["output_type"] == "error" for cell in code for output in cell["outputs"])
    source = "".join("".join(cell["source"]) for cell in code)
    if "FRACTURE_DATA" in source:
        assert any("FRACTURE_DATA is not set" in json.dumps(cell["outputs"]) for cell in code), "it saw real X-rays"
    elsewhere = re.findall(r"/(?:home|root|work|Users)/[^\s\"]*", json.dumps(cells))
    assert not elsewhere, "it names a folder of whoever ran it"
    assert path.stat().st_size < 400_000
