"""``python -m app deploy``: what a Hugging Face Space needs of this clone, checked, listed, and sent in one commit."""

from __future__ import annotations

import csv
import re
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.errors import DeployError

if TYPE_CHECKING:
    from huggingface_hub import HfApi

    from app.model.weights import ModelCard

__all__ = ["check", "listing", "model_files", "send", "space_files"]

SHIPPED = ("README.md", "LICENSE", "requirements.txt", "space.py", "app", "weights", "docs/*.md", "docs/*.png")
"""What a Space is made of, as git's path patterns; the page reads its texts from ``docs``."""
NEEDED = ("README.md", "requirements.txt", "space.py", "app/__init__.py")
EXAMPLES, SOURCES = "examples", "sources.csv"
COLUMNS = ("file", "label", "source")
PYTHONS = ("3.10", "3.11", "3.12")
MORE = {"timm": ("timm==1.0.31",), "onnx": ("onnx>=1.19,<2", "onnx2torch==1.5.15")}
"""What models from elsewhere need, as in the extras of these names in ``pyproject.toml``."""
LONGEST = 60
"""Letters of ``short_description`` that the Hub takes."""
KEPT = ".gitattributes"
"""The Hub's own file: it says which files are large."""


def space_files(root: Path, examples: Path | None = None) -> dict[str, Path]:
    """The files of a Space: nothing for training or tests, and nothing that git ignores.

    Args:
        root: a clone of the project.
        examples: a folder of X-rays to try with its ``sources.csv``; without one the page draws some.

    Returns:
        Paths in the Space, with slashes, and the files to copy there; sorted.

    Raises:
        DeployError: no clone, a file is missing, or an example of unknown origin.
    """
    command = ["git", "-C", str(root), "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *SHIPPED]
    try:
        listed = subprocess.run(command, capture_output=True, check=True).stdout.decode("utf-8", "surrogateescape")
    except (OSError, subprocess.CalledProcessError):
        raise DeployError(f"{root} is no clone that git can list. Deploy from a clone of the project.") from None
    files = {name: root / name for name in listed.split("\0") if name and (root / name).is_file()}
    missing = [name for name in NEEDED if name not in files]
    if not any(re.fullmatch(r"weights/[^/]+/model\.safetensors", name) for name in files):
        missing.append("weights/NAME/model.safetensors")
    if missing:
        raise DeployError(f"A Space needs {', '.join(missing)}, which is not here.")
    if examples is not None:
        files |= {f"{EXAMPLES}/{path.name}": path for path in _examples(examples)}
    return dict(sorted(files.items()))


def model_files(files: dict[str, Path], name: str, folder: Path) -> dict[str, Path]:
    """The files of a Space that serves one model and nothing of the others, with that model's card as its README.

    Args:
        files: of ``space_files``.
        name: of the model under ``weights/``.
        folder: an empty one, for what is made here; it has to last until the files are sent.

    Raises:
        DeployError: there is no such model.
        WeightsError: its card cannot be used.
    """
    from app.model.subject import OURS
    from app.model.weights import load_card

    place = f"weights/{name}/"
    if f"{place}card.json" not in files:
        raise DeployError(f"There is no model 'weights/{name}' among the files of the Space.")
    card = load_card(name, files[f"{place}card.json"].parents[1])
    wanted = (place, *(["weights/ood/"] if card.subject.image == OURS.image else []))
    kept = {path: file for path, file in files.items() if not path.startswith(("weights/", "docs/"))}
    kept |= {path: file for path, file in files.items() if path.startswith(wanted)}
    made = {"README.md": _front(files["README.md"].read_text(encoding="utf-8"), card)}
    if more := MORE.get(card.architecture.partition(":")[0]):
        pins = files["requirements.txt"].read_text(encoding="utf-8")
        made["requirements.txt"] = "\n".join([pins.rstrip(), *more, ""])
    for path, text in made.items():
        (folder / path).write_text(text, encoding="utf-8")
        kept[path] = folder / path
    return dict(sorted(kept.items()))


def _front(readme: str, card: ModelCard) -> str:
    """What a Space starts from, with the model's own name, and a line on what it is."""
    from yaml import safe_dump, safe_load

    front = safe_load(readme.split("---\n", 2)[1])
    title = f"{card.subject.title}, explained"
    licence = str(card.data.get("licence", "unknown"))
    front |= {"title": title, "emoji": "\U0001f50d", "short_description": f"{title}: where a model looks"[:LONGEST]}
    told = f"# {title}\n\n{card.intended_use}\n\nLicence of the images or weights it is made of: {licence}.\n"
    return f"---\n{safe_dump(front, sort_keys=False, allow_unicode=True)}---\n\n{told}"


def _examples(folder: Path) -> list[Path]:
    """The X-rays of a folder and the table that says whose they are."""
    table = folder / SOURCES
    try:
        with table.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or "it is not a table in UTF-8"
        raise DeployError(
            f"{table} cannot be read ({reason}). It tells each example's file, label and source with its licence."
        ) from None
    told = {row.get("file"): row for row in rows}
    found = sorted(path for path in folder.iterdir() if path != table and not path.name.startswith("."))
    for path in found:
        if not path.is_file():
            raise DeployError(f"{path} is not a file. Examples lie in one folder, without others inside.")
        row = told.get(path.name)
        if row is None:
            raise DeployError(f"{path.name} has no row in {table}. Say where it is from, and under which licence.")
        if not all((row.get(column) or "").strip() for column in COLUMNS):
            raise DeployError(f"{path.name} lacks its label or its source in {table}. Name its licence, too.")
    gone = sorted(str(name) for name in told.keys() - {path.name for path in found})
    if gone or not found:
        raise DeployError(f"{table} names {', '.join(gone) or 'no file'}, and {folder} does not hold it.")
    return [*found, table]


def check(files: dict[str, Path]) -> None:
    """Checks that the README's front matter is one a Space starts from.

    Raises:
        DeployError: it is not; the message says which entry.
    """
    from huggingface_hub import metadata_load
    from yaml import YAMLError

    try:
        front: dict[str, Any] = metadata_load(files["README.md"]) or {}
    except (ValueError, YAMLError):
        raise DeployError("The front matter of README.md is not YAML between two lines of '---'.") from None
    text = files["requirements.txt"].read_text(encoding="utf-8")
    pin = re.search(r"^gradio==(\S+)", text, re.M)
    if pin is None:
        raise DeployError("requirements.txt pins no version of gradio, which a Space would then choose itself.")
    for entry, wanted in (("sdk", ["gradio"]), ("sdk_version", [pin[1]]), ("python_version", PYTHONS)):
        if str(front.get(entry)) not in wanted:
            choice = " or ".join(f"'{each}'" for each in wanted)
            raise DeployError(f"README.md says {entry}: {front.get(entry)!r}. It must be {choice}.")
    if front.get("app_file") not in files:
        raise DeployError(f"README.md says app_file: {front.get('app_file')!r}, which is no file of the Space.")
    if not isinstance(front.get("license"), str):
        raise DeployError("README.md names no license.")
    if len(str(front.get("short_description") or "")) > LONGEST:
        raise DeployError(f"The short_description in README.md has more than {LONGEST} letters.")


def listing(files: dict[str, Path]) -> Iterable[str]:
    """Every file with its size in bytes, and their sum, in lines."""
    sizes = {name: path.stat().st_size for name, path in files.items()}
    for name, size in sizes.items():
        yield f"{size:>13,}  {name}"
    yield f"{sum(sizes.values()):>13,}  bytes in {len(sizes)} files"


def send(space: str, files: dict[str, Path], api: HfApi) -> str:
    """Makes the Space where there is none, and lets one commit turn it into these files.

    What else lay there is deleted in the same commit, and stays in the Space's history.

    Args:
        space: as ``USER/SPACE``.
        files: of ``space_files``.
        api: with a token that may write.

    Returns:
        Where the Space is.

    Raises:
        DeployError: the Hub refused, or could not be reached.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, HTTPError, RepositoryNotFoundError

    try:
        place = api.create_repo(space, repo_type="space", space_sdk="gradio", exist_ok=True)
        # With the user's name, which may be left out.
        space = place.repo_id
        old = set(api.list_repo_files(space, repo_type="space")) - files.keys() - {KEPT}
        changes = [
            *(CommitOperationDelete(path_in_repo=name) for name in sorted(old)),
            *(CommitOperationAdd(path_in_repo=name, path_or_fileobj=path) for name, path in files.items()),
        ]
        api.create_commit(space, changes, repo_type="space", commit_message="Deploy the demo")
    except HFValidationError:
        raise DeployError(f"'{space}' cannot be the name of a Space. Write USER/SPACE.") from None
    except RepositoryNotFoundError:
        raise DeployError(f"There is no Space {space} that this token may see.") from None
    except HfHubHTTPError as error:
        status = error.response.status_code
        if status in (401, 403):
            raise DeployError(f"The Hub does not let this token write to {space} ({status}).") from None
        raise DeployError(f"The Hub refused the files for {space} ({status}): {error.server_message}") from None
    except (HTTPError, OSError) as error:
        raise DeployError(f"The Hub could not be reached, or the upload broke off: {type(error).__name__}.") from None
    return str(place)
