"""The list of a Space's files, what is refused, and an upload to a Hub that is not there."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import huggingface_hub
import pytest
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, RepoUrl
from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled, RepositoryNotFoundError
from typer.testing import CliRunner, Result

from app import deploy
from app.cli import cli
from app.errors import DeployError
from app.model.classifier import Classifier
from app.model.weights import available, write_card

ROOT = Path(__file__).parents[2]
FRONT = {
    "sdk": "gradio",
    "sdk_version": "6.31.0",
    "python_version": '"3.12"',
    "app_file": "space.py",
    "license": "mit",
    "short_description": "A demo",
}


def readme(**changes: str | None) -> str:
    lines = "".join(f"{key}: {value}\n" for key, value in {**FRONT, **changes}.items() if value is not None)
    return f"---\n{lines}---\n\n# A demo\n"


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A small clone with everything a Space needs, and much that it does not."""
    root = tmp_path / "clone"
    texts = {
        "README.md": readme(),
        "LICENSE": "MIT",
        "requirements.txt": "gradio==6.31.0\ntorch==2.11.0\n",
        "space.py": "",
        "app/__init__.py": "",
        "app/ui/style.css": "",
        "app/__pycache__/cli.pyc": "",
        "weights/one/card.json": "{}",
        "weights/one/model.safetensors": "0123456789",
        "docs/results.md": "",
        "docs/take_picture.py": "",
        "training/cli.py": "",
        "tests/test_a.py": "",
        "notebooks/a.ipynb": "",
        "runs/a.ckpt": "",
        ".gitignore": "__pycache__/\n/runs/\n",
    }
    for name, text in texts.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    subprocess.run(["git", "init", "-q", str(root)], check=True)
    return root


@pytest.fixture
def xrays(tmp_path: Path) -> Path:
    folder = tmp_path / "xrays"
    folder.mkdir()
    (folder / "hand.png").write_bytes(b"png")
    (folder / "sources.csv").write_text("file,label,source\nhand.png,hand,Somebody CC BY 4.0\n")
    return folder


def test_a_space_holds_what_the_demo_runs_and_nothing_else() -> None:
    files = deploy.space_files(ROOT)
    deploy.check(files)
    assert {name.split("/")[0] for name in files} == {
        *("README.md", "LICENSE", "requirements.txt", "space.py", "app", "weights", "docs")
    }
    assert {f"weights/{name}/model.safetensors" for name in available()} <= files.keys()
    assert not any(name.startswith("docs/") and name.endswith(".py") for name in files)


def test_a_space_is_made_of_what_git_knows_or_would_take(clone: Path, xrays: Path) -> None:
    shipped = {"README.md", "LICENSE", "requirements.txt", "space.py", "app/__init__.py", "app/ui/style.css"}
    shipped |= {"weights/one/card.json", "weights/one/model.safetensors", "docs/results.md"}
    assert deploy.space_files(clone).keys() == shipped
    shown = deploy.space_files(clone, xrays)
    assert shown.keys() == shipped | {"examples/hand.png", "examples/sources.csv"}
    *rows, total = deploy.listing(shown)
    assert len(rows) == len(shown)
    assert "           10  weights/one/model.safetensors" in rows
    assert total.endswith(f"{sum(path.stat().st_size for path in shown.values())}  bytes in {len(shown)} files")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"sdk": "docker"}, "sdk: 'docker'"),
        ({"sdk": None}, "sdk: None"),
        ({"sdk_version": "6.30.0"}, "must be '6.31.0'"),
        ({"python_version": "3.9"}, "python_version: 3.9. It must be '3.10' or '3.11' or '3.12'"),
        ({"app_file": "gone.py"}, "'gone.py', which is no file"),
        ({"app_file": "training/cli.py"}, "no file of the Space"),
        ({"license": None}, "no license"),
        ({"short_description": "a" * 61}, "more than 60 letters"),
        ({"sdk": "[gradio"}, "not YAML"),
    ],
)
def test_front_matter_that_starts_no_space_is_refused(clone: Path, changes: dict[str, Any], words: str) -> None:
    (clone / "README.md").write_text(readme(**changes))
    with pytest.raises(DeployError) as error:
        deploy.check(deploy.space_files(clone))
    assert words in str(error.value)


def test_a_readme_without_front_matter_and_a_gradio_without_pin_are_refused(clone: Path) -> None:
    (clone / "README.md").write_text("# A demo\n")
    with pytest.raises(DeployError, match="sdk: None"):
        deploy.check(deploy.space_files(clone))
    (clone / "requirements.txt").write_text("gradio>=6\n")
    with pytest.raises(DeployError, match="pins no version"):
        deploy.check(deploy.space_files(clone))


def gone(folder: Path) -> None:
    (folder / "hand.png").unlink()


def table(text: str) -> Callable[[Path], Any]:
    return lambda folder: (folder / "sources.csv").write_text(text, encoding="utf-16" if "utf-16" in text else "utf-8")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda folder: (folder / "mine.png").touch(), "mine.png has no row"),
        (lambda folder: (folder / "more").mkdir(), "not a file"),
        (lambda folder: (folder / "sources.csv").unlink(), "cannot be read"),
        (gone, "names hand.png"),
        (table("file,label,source\nhand.png,hand, \n"), "lacks its label or its source"),
        (table("file,label\nhand.png,hand\n"), "lacks its label or its source"),
        (table("file,label,source\nutf-16"), "not a table in UTF-8"),
        (table(""), "has no row"),
    ],
)
def test_examples_of_unknown_origin_are_refused(
    clone: Path, xrays: Path, spoil: Callable[[Path], Any], words: str
) -> None:
    spoil(xrays)
    with pytest.raises(DeployError) as error:
        deploy.space_files(clone, xrays)
    assert words in str(error.value)


def test_what_is_no_whole_clone_is_refused(clone: Path, tmp_path: Path) -> None:
    with pytest.raises(DeployError, match="no clone"):
        deploy.space_files(tmp_path / "nowhere")
    (clone / "weights/one/model.safetensors").unlink()
    (clone / "space.py").unlink()
    with pytest.raises(DeployError, match=r"needs space\.py, weights/NAME/model\.safetensors"):
        deploy.space_files(clone)


class Hub:
    """Stands for the Hub, and keeps what it is sent."""

    def __init__(self, *, fails: Exception | None = None) -> None:
        self.fails, self.sent = fails, {}

    def create_repo(self, name: str, **kwargs: Any) -> RepoUrl:
        if self.fails:
            raise self.fails
        self.made = {"name": name, **kwargs}
        return RepoUrl(f"https://hub.test/spaces/{name}", endpoint="https://hub.test")

    def list_repo_files(self, name: str, **kwargs: Any) -> list[str]:
        return [".gitattributes", "README.md", "examples/old.png"]

    def create_commit(self, name: str, operations: list[Any], **kwargs: Any) -> None:
        self.commits = [*getattr(self, "commits", []), (name, operations, kwargs)]


def test_one_commit_turns_the_space_into_these_files(clone: Path, xrays: Path) -> None:
    hub, files = Hub(), deploy.space_files(clone, xrays)
    assert deploy.send("me/demo", files, hub) == "https://hub.test/spaces/me/demo"  # ty: ignore[invalid-argument-type]
    assert hub.made == {"name": "me/demo", "repo_type": "space", "space_sdk": "gradio", "exist_ok": True}
    ((name, operations, kwargs),) = hub.commits
    assert name == "me/demo"
    assert kwargs["repo_type"] == "space"
    added = {each.path_in_repo: each.path_or_fileobj for each in operations if isinstance(each, CommitOperationAdd)}
    assert {name: str(path) for name, path in files.items()} == {name: str(path) for name, path in added.items()}
    deleted = [each.path_in_repo for each in operations if isinstance(each, CommitOperationDelete)]
    assert deleted == ["examples/old.png"]


def refused(status: int, kind: type[HfHubHTTPError] = HfHubHTTPError) -> HfHubHTTPError:
    response = SimpleNamespace(status_code=status, headers={}, request=None)
    return kind("no", response=response, server_message="Payment required")  # ty: ignore[invalid-argument-type]


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (refused(401), r"does not let this token write to me/demo \(401\)"),
        (refused(403), r"\(403\)"),
        (refused(402), "Payment required"),
        (refused(404, RepositoryNotFoundError), "no Space me/demo"),
        (OfflineModeIsEnabled("offline"), "could not be reached"),
        (ConnectionResetError(), "broke off: ConnectionResetError"),
    ],
)
def test_what_the_hub_refuses_is_a_sentence(clone: Path, error: Exception, words: str) -> None:
    with pytest.raises(DeployError, match=words):
        deploy.send("me/demo", deploy.space_files(clone), Hub(fails=error))  # ty: ignore[invalid-argument-type]


@pytest.mark.parametrize("name", ["me/demo/x", "me/-demo", "m e/demo"])
def test_a_name_that_cannot_be_is_a_sentence(clone: Path, name: str) -> None:
    """Which the real client says before it asks anybody."""
    with pytest.raises(DeployError, match="cannot be the name"):
        deploy.send(name, deploy.space_files(clone), HfApi(endpoint="http://127.0.0.1:9", token="none"))


def run(*words: str) -> Result:
    return CliRunner().invoke(cli, ["deploy", *words])


def test_a_space_of_one_model_holds_nothing_of_the_others(clone: Path, tmp_path: Path, flowers: Classifier) -> None:
    for name, architecture in (("flowers", "resnet18"), ("roses", "timm:resnet26"), ("lilies", "onnx")):
        place = clone / "weights" / name
        place.mkdir()
        write_card(flowers.card.model_copy(update={"name": name, "architecture": architecture}), place)
        (place / "model.safetensors").write_bytes(b"0")
    (clone / "weights" / "ood").mkdir()
    (clone / "weights" / "ood" / "detector.json").write_text("{}")
    (tmp_path / "made").mkdir()
    files = deploy.model_files(deploy.space_files(clone), "flowers", tmp_path / "made")
    deploy.check(files)
    assert {name for name in files if name.startswith(("weights/", "docs/"))} == {
        "weights/flowers/card.json",
        "weights/flowers/model.safetensors",
    }
    told = files["README.md"].read_text(encoding="utf-8")
    assert "title: Flowers, explained" in told
    assert "timm" not in files["requirements.txt"].read_text()
    files = deploy.model_files(deploy.space_files(clone), "roses", tmp_path / "made")
    deploy.check(files)
    assert "timm==" in files["requirements.txt"].read_text()
    (tmp_path / "made").joinpath("requirements.txt").unlink()
    files = deploy.model_files(deploy.space_files(clone), "lilies", tmp_path / "made")
    assert "\nonnx2torch==" in files["requirements.txt"].read_text()
    named = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert all(f'"{package}"' in named for packages in deploy.MORE.values() for package in packages)
    with pytest.raises(DeployError, match="no model 'weights/tulips'"):
        deploy.model_files(deploy.space_files(clone), "tulips", tmp_path / "made")


def test_a_dry_run_lists_every_file_and_asks_for_nothing(monkeypatch: pytest.MonkeyPatch, xrays: Path) -> None:
    def ask(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(httpx.Client, "send", ask)
    monkeypatch.setattr(huggingface_hub, "get_token", ask)
    answer = run("me/demo", "--dry-run", "--examples", str(xrays))
    assert answer.exit_code == 0, answer.output
    *rows, total = answer.output.splitlines()
    assert [row.split()[1] for row in rows] == list(deploy.space_files(ROOT, xrays))
    assert int(total.split()[0].replace(",", "")) == sum(int(row.split()[0].replace(",", "")) for row in rows)


def test_without_a_token_or_with_a_bad_folder_there_is_a_sentence(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    answer = run("me/demo")
    assert answer.exit_code == 1
    assert answer.output.startswith("There is no token for the Hub.")
    answer = run("me/demo", "--dry-run", "--examples", str(tmp_path))
    assert answer.exit_code == 1
    assert "sources.csv cannot be read (No such file or directory)" in answer.output


def test_with_a_token_the_files_are_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    hub = Hub()
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: "hf_test")
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: hub)
    answer = run("me/demo")
    assert answer.output == "https://hub.test/spaces/me/demo\n"
    assert len(hub.commits) == 1
