"""What CONTRIBUTING promises of the tree: no import circles, walls between rooms, files and functions of a size."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

FILES = sorted([*Path("app").rglob("*.py"), *Path("training").rglob("*.py")])
LINES, FUNCTION_LINES, PAGE_FUNCTION_LINES = 450, 80, 60


def module(path: Path) -> str:
    return ".".join(path.with_suffix("").parts).removesuffix(".__init__")


MODULES = {module(path): path for path in FILES}


def imported(path: Path, *, later: bool) -> set[str]:
    """The project's modules that a file imports; those inside functions only where ``later``."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found: set[str] = set()
    for node in ast.walk(tree) if later else tree.body:
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            # A name that is a module of its own is not the package's.
            found |= {full if (full := f"{node.module}.{name.name}") in MODULES else node.module for name in node.names}
    return found & MODULES.keys()


def test_no_module_imports_itself_by_way_of_others() -> None:
    arrows = {name: imported(path, later=False) - {name} for name, path in MODULES.items()}
    while free := {name for name, needs in arrows.items() if not needs & arrows.keys()}:
        arrows = {name: needs for name, needs in arrows.items() if name not in free}
    assert not arrows, f"in circles: {', '.join(sorted(arrows))}"


@pytest.mark.parametrize("path", sorted(Path("app").rglob("*.py")), ids=str)
def test_the_app_needs_nothing_of_training_and_only_the_page_gradio(path: Path) -> None:
    assert not any(name.split(".")[0] == "training" for name in imported(path, later=True))
    if path.parts[1] != "ui":
        names = [
            name.name if isinstance(node, ast.Import) else node.module or ""
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.Import | ast.ImportFrom)
            for name in node.names
        ]
        assert "gradio" not in {name.split(".")[0] for name in names}


@pytest.mark.parametrize("path", FILES, ids=str)
def test_files_and_functions_are_of_a_size_to_read(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= LINES
    most = PAGE_FUNCTION_LINES if path.parts[:2] == ("app", "ui") else FUNCTION_LINES
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert (node.end_lineno or 0) - node.lineno < most, node.name
