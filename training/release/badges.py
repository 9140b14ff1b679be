"""Badges that open the notebooks in Google Colab, from wherever this repository is published.

A clone does not know its address before it is published, so a command writes badges rather than anybody by hand.
"""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

ADDRESS = re.compile(r"(?:github\.com[/:])?([\w-]+/[\w.-]+?)(?:\.git)?/?")
COLAB = "https://colab.research.google.com"
TAG = "colab"
"""Of the cell that installs the package; nobody else's notebook runs it."""


def published(folder: Path = Path()) -> str:
    """The address of the clone's ``origin``; raises ValueError where it has none."""
    try:
        told = subprocess.run(["git", "-C", folder, "remote", "get-url", "origin"], capture_output=True, text=True)
    except FileNotFoundError:
        raise ValueError("There is no git to ask for the repository. Name it: OWNER/REPOSITORY.") from None
    if told.returncode:
        raise ValueError("This clone has no remote called origin. Name the repository: OWNER/REPOSITORY.")
    return told.stdout.strip()


def _with_badge(notebook: dict[str, Any], name: str, repository: str) -> dict[str, Any]:
    first, *others = (cell for cell in notebook["cells"] if TAG not in cell["metadata"].get("tags", []))
    link = f"{COLAB}/github/{repository}/blob/main/notebooks/{name}"
    text = [line for line in "".join(first["source"]).split("\n") if not line.startswith("[![Run in Colab]")]
    told = "\n".join([*text, *([""] if text[-1] else []), f"[![Run in Colab]({COLAB}/assets/colab-badge.svg)]({link})"])
    install = (
        "import sys\n\n"
        'if "google.colab" in sys.modules:\n'
        f'    %pip install --quiet "fracture-explained[training] @ git+https://github.com/{repository}"'
    )
    cell = {
        "cell_type": "code",
        "execution_count": None,
        "id": f"{name[0]}-colab",
        "metadata": {"tags": [TAG]},
        "outputs": [],
        "source": install.splitlines(keepends=True),
    }
    return {**notebook, "cells": [{**first, "source": told.splitlines(keepends=True)}, cell, *others]}


def write_badges(address: str, folder: Path) -> list[Path]:
    """Puts a badge, and a cell that installs the package in Colab alone, into every notebook, anew if need be.

    Args:
        address: OWNER/REPOSITORY on GitHub, which alone Colab opens, or an address that ends so.
        folder: of the notebooks.

    Raises:
        ValueError: the address is no repository on GitHub.
    """
    found = ADDRESS.fullmatch(re.sub(r"^(?:https?://|ssh://)?(?:[^@/]*@)?", "", address))
    if not found:
        raise ValueError(f"Colab opens repositories on GitHub, and '{address}' is none. Name one: OWNER/REPOSITORY.")
    paths = sorted(folder.glob("*.ipynb"))
    for path in paths:
        notebook = _with_badge(json.loads(path.read_text(encoding="utf-8")), path.name, found[1])
        path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return paths
