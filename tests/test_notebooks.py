"""The notebooks as they are committed: run to their end, on drawings. `make test-all` runs them anew."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import nbformat
import pytest

from training.release.badges import TAG, published, write_badges

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))


def test_there_are_five_and_each_names_its_number() -> None:
    assert [path.name[0] for path in NOTEBOOKS] == ["1", "2", "3", "4", "5"]
    for path in NOTEBOOKS:
        first = json.loads(path.read_text(encoding="utf-8"))["cells"][0]
        assert "".join(first["source"]).startswith(f"# {path.name[0]} · ")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_ran_to_its_end_on_drawings(path: Path) -> None:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code" and TAG not in cell["metadata"].get("tags", [])]
    assert [cell["execution_count"] for cell in code] == list(range(1, 1 + len(code)))
    assert not any(output["output_type"] == "error" for cell in code for output in cell["outputs"])
    source = "".join("".join(cell["source"]) for cell in code)
    if "FRACTURE_DATA" in source:
        assert any("FRACTURE_DATA is not set" in json.dumps(cell["outputs"]) for cell in code), "it saw real X-rays"
    elsewhere = re.findall(r"/(?:home|root|work|Users)/[^\s\"]*", json.dumps(cells))
    assert not elsewhere, "it names a folder of whoever ran it"
    assert path.stat().st_size < 400_000


def test_badges_open_the_published_notebooks_and_can_be_written_anew(tmp_path: Path) -> None:
    path = Path(shutil.copy(NOTEBOOKS[4], tmp_path))
    before = json.loads(path.read_text(encoding="utf-8"))["cells"]
    write_badges("someone/old", tmp_path)
    for address in ("git@github.com:jane/x-rays.git", "https://github.com/jane/x-rays", "jane/x-rays"):
        write_badges(address, tmp_path)
        first, install, *others = json.loads(path.read_text(encoding="utf-8"))["cells"]
        told = "".join(first["source"])
        assert told.startswith("".join(before[0]["source"]).rstrip())
        assert told.count("[![Run in Colab]") == 1
        assert f"/github/jane/x-rays/blob/main/notebooks/{path.name})" in told
        assert "git+https://github.com/jane/x-rays" in "".join(install["source"])
        assert others == before[1:]
    nbformat.validate(nbformat.read(path, as_version=4))


@pytest.mark.parametrize("address", ["https://gitlab.com/jane/x-rays", "x-rays", "https://github.com/jane", ""])
def test_what_colab_cannot_open_gets_a_sentence(address: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Colab opens repositories on GitHub"):
        write_badges(address, tmp_path)


def test_a_clone_without_an_origin_is_told_to_name_the_repository(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "--quiet", tmp_path], check=True)
    with pytest.raises(ValueError, match="no remote called origin"):
        published(tmp_path)
    subprocess.run(["git", "-C", tmp_path, "remote", "add", "origin", "git@github.com:jane/x-rays.git"], check=True)
    assert published(tmp_path) == "git@github.com:jane/x-rays.git"
