"""Two processes learn what one does, and go on after they were killed."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import save_file
from torch.utils.data import BatchSampler
from torchvision import models

from tests.training.toys import TINY
from training.fitting.fit import curve
from training.machines import Process, Share, process

EPOCHS, LONG = 3, 40


@pytest.fixture(scope="module")
def given(drawn_set: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A folder to work in, and what all calls have in common: nothing random is changed, and the head alone learns."""
    folder = tmp_path_factory.mktemp("machines")
    torch.manual_seed(0)
    save_file(models.resnet18(weights=None).state_dict(), folder / "resnet18.safetensors")
    still = dict.fromkeys(("rotation", "zoom", "shift", "shear", "brightness", "contrast"), 0.0) | {"flip": False}
    quiet = {"augment": still, "dropout": 0.0, "class_weighted": False, "tune": [], "batch_size": 8}
    recipe = {**TINY.model_dump(mode="json"), **quiet, "head_epochs": EPOCHS, "tune_epochs": 0}
    (folder / "tiny.yaml").write_text(yaml.safe_dump(recipe))
    (folder / "long.yaml").write_text(yaml.safe_dump({**recipe, "head_epochs": LONG}))
    words = ["--data", drawn_set, "--init", folder / "resnet18.safetensors", "--precision", "32-true", "--no-progress"]
    return folder, list(map(str, words))


def started(given: tuple[Path, list[str]], recipe: str, run: str, processes: int, *more: str) -> subprocess.Popen[str]:
    folder, words = given
    launcher = [sys.executable, "-m"]
    if processes > 1:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        launcher += ["torch.distributed.run", f"--nproc-per-node={processes}", f"--master-port={port}", "-m", "--"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    call = [*launcher, "training", "fit", recipe, *words, "--run", run, *more]
    return subprocess.Popen(call, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True)


def children(parent: int) -> list[int]:
    """Processes that a process started; torchrun gives each a session of its own."""
    pairs = [line.split() for line in subprocess.check_output(["ps", "-eo", "pid,ppid"], text=True).splitlines()[1:]]
    return [int(number) for number, its in pairs if int(its) == parent]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("ps") is None, reason="finds what torchrun started by ps")
def test_two_processes_have_the_losses_of_one_and_go_on_when_killed(given: tuple[Path, list[str]]) -> None:
    folder = given[0]
    losses = {}
    for processes in (1, 2):
        run = started(given, "tiny.yaml", f"by-{processes}", processes)
        errors = run.communicate()[1]
        assert run.returncode == 0, errors
        losses[processes] = [row["training_loss"] for row in curve(folder / f"by-{processes}")]
    assert len(losses[1]) == EPOCHS
    assert losses[1][-1] < losses[1][0]
    assert losses[2] == pytest.approx(losses[1], rel=1e-3)

    killed = started(given, "long.yaml", "killed", 2)
    while not (folder / "killed" / "last.ckpt").is_file():
        assert killed.poll() is None, killed.communicate()[1]
        time.sleep(0.02)
    for number in (killed.pid, *children(killed.pid)):
        os.kill(number, signal.SIGKILL)
    killed.communicate()
    assert not (folder / "killed" / "effort.json").exists()
    again = started(given, "long.yaml", "killed", 2, "--resume")
    errors = again.communicate()[1]
    assert again.returncode == 0, errors
    assert json.loads((folder / "killed" / "effort.json").read_text())["epochs"] == LONG
    assert [row["epoch"] for row in curve(folder / "killed")] == list(range(LONG))


@pytest.mark.parametrize("count", [1, 2, 3])
def test_shares_are_the_batches_and_nothing_twice(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    batches = BatchSampler(range(20), 6, drop_last=False)
    shares = []
    for rank in range(count):
        monkeypatch.setenv("WORLD_SIZE", str(count))
        monkeypatch.setenv("RANK", str(rank))
        shares.append(Share(batches))
        assert len(shares[-1]) == len(batches)
    for whole, *parts in zip(batches, *shares, strict=True):
        assert sorted(itertools.chain(*parts)) == whole
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_without_torchrun_there_is_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert process() == Process(0, 1, 1)
