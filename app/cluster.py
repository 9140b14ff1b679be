"""``app.batch`` on many machines: from one store to another through Ray Data, a model on every worker.

Stores are whatever fsspec opens: folders, S3, and others by their packages. Each image has a folder in the store of
results, under its own path, so that nobody has to give out names. A worker that dies is replaced, and what it had in
hand is done again; a result that is whole is never made again, neither then nor by the next call.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import PurePosixPath
from typing import Any

import fsspec
import pyarrow
import pyarrow.parquet
import ray
import ray.data
import torch

from app.batch import Outcome, explained, named, row_of, same, tried
from app.errors import ImageError
from app.imaging.archive import hidden, is_picture
from app.imaging.radiograph import MAX_BYTES
from app.model.weights import known, load_card
from app.parquet import SCHEMA
from app.pipeline import Result, load_classifier
from app.result_folders import SUMMARY, whole

__all__ = ["TABLE", "explain_store"]

TABLE = "results.parquet"
ROWS = 1000
"""Written to the table at a time."""
BLOCKS = 8
"""Pieces of work for every worker: little is done again where one dies, and none waits long for the slowest."""


class _Store:
    """A folder of any file system that fsspec knows."""

    def __init__(self, address: str) -> None:
        self.files, root = fsspec.core.url_to_fs(address)
        self.root = root.rstrip("/")

    def at(self, name: str) -> str:
        return f"{self.root}/{name}"

    def start(self, name: str) -> bytes:
        try:
            return self.files.cat_file(self.at(name), start=0, end=4096)
        except OSError:
            return b""

    def pictures(self, without: str) -> list[str]:
        """Paths in the folder, by name; nothing hidden, and nothing of the results where these lie inside."""
        if not self.files.isdir(self.root):
            raise FileNotFoundError(self.root)
        found = (path.removeprefix(self.root).lstrip("/") for path in self.files.find(self.root))
        inside = f"{without.removeprefix(self.root).lstrip('/')}/" if without.startswith(f"{self.root}/") else None
        return sorted(
            name
            for name in found
            if not any(map(hidden, PurePosixPath(name).parts))
            and not (inside and name.startswith(inside))
            and is_picture(name, partial(self.start, name))
        )

    def read(self, name: str) -> bytes:
        try:
            with self.files.open(self.at(name), "rb") as file:
                data = file.read(MAX_BYTES + 1)
        except OSError:
            raise ImageError("It cannot be opened; perhaps it may not be read.") from None
        if len(data) > MAX_BYTES:
            raise ImageError(f"The file is larger than {MAX_BYTES // 2**20} MB, which is more than can be read.")
        return data

    def finished(self, name: str, sha256: str, accept: Callable[[dict[str, Any]], bool]) -> dict[str, Any] | None:
        """The summary of an image that is explained already, with nothing of it missing or changed; None where not."""

        def read(part: str) -> bytes:
            return self.files.cat_file(self.at(f"{name}/{part}"))

        try:
            summary = json.loads(read(SUMMARY))
            its = summary["source"]["sha256"] == sha256
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return summary if its and accept(summary) and whole(summary, read) else None

    def save(self, name: str, result: Result) -> None:
        """Writes a result, its summary last: where that lies, everything does."""
        self.files.makedirs(self.at(name), exist_ok=True)
        if self.files.exists(self.at(f"{name}/{SUMMARY}")):
            self.files.rm_file(self.at(f"{name}/{SUMMARY}"))
        for part, data in result.files().items():
            self.files.pipe_file(self.at(f"{name}/{part}"), data)


class _Worker:
    """Loads the model once, then explains one image after the other."""

    def __init__(self, source: str, out: str, model: str | None, wanted: dict[str, Any]) -> None:
        torch.set_num_threads(1)
        self.source, self.out = _Store(source), _Store(out)
        self.wanted = {**wanted, "model": load_classifier(model)}

    def __call__(self, given: dict[str, str]) -> dict[str, Any]:
        told = named(given["name"])
        return tried(told, partial(self._outcome, given["name"], told)).row._asdict()

    def _outcome(self, name: str, told: str) -> Outcome:
        data = self.source.read(name)
        done = self.out.finished(name, hashlib.sha256(data).hexdigest(), partial(same, self.wanted))
        if done:
            return Outcome(row_of(told, done, told))
        row, result = explained(told, data, told.rpartition("/")[2], self.wanted)
        assert result is not None
        self.out.save(name, result)
        return Outcome(row._replace(folder=told), result)


def explain_store(
    source: str,
    out: str,
    *,
    model: str | None = None,
    method: str,
    anyway: bool = False,
    address: str | None = None,
    workers: int | None = None,
    tell: Callable[[int, int], None] = lambda done, count: None,
) -> Counter[str]:
    """Explains every picture under an address, and writes ``results.parquet`` beside their folders.

    Args:
        source: address of a folder, such as "s3://bucket/x-rays" or a path that all machines share.
        out: the same, of the folder to write.
        model, method, anyway: as for ``app.batch``; the backbone is computed in float32 on every machine.
        address: of a Ray cluster; where absent this machine is one.
        workers: how many, each with a processor and a model; one a processor of the cluster where absent.
        tell: receives how many are done, and how many there are.

    Returns:
        Images by what became of them.

    Raises:
        WeightsError: there is no such model.
        FileNotFoundError: there is no such folder.
        OSError: the table cannot be written.
    """
    load_card(model or known()[0])
    results = _Store(out)
    names = _Store(source).pictures(results.root)
    if not names:
        return _written([], results, 0, tell)
    for name in ("ray", "ray.data"):
        logging.getLogger(name).setLevel(logging.WARNING)
    how: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.WARNING}
    ray.init(address=address, include_dashboard=False if address is None else None, **how)
    try:
        workers = workers or max(1, int(ray.cluster_resources().get("CPU", 1)))
        ray.data.DataContext.get_current().enable_progress_bars = False
        given = [{"name": name} for name in names]
        rows = ray.data.from_items(given, override_num_blocks=min(len(names), workers * BLOCKS)).map(
            _Worker,  # ty: ignore[invalid-argument-type] - Ray makes one of it on every worker
            fn_constructor_args=(source, out, model, {"method": method, "anyway": anyway, "progress": None}),
            compute=ray.data.ActorPoolStrategy(size=min(workers, len(names))),
            num_cpus=1,
        )
        return _written(rows.iter_rows(), results, len(names), tell)
    finally:
        ray.shutdown()


def _written(
    rows: Iterable[dict[str, Any]], results: _Store, count: int, tell: Callable[[int, int], None]
) -> Counter[str]:
    """Writes rows as they come, and counts them; the table has its name once it is whole."""
    states: Counter[str] = Counter()
    some: list[dict[str, Any]] = []
    results.files.makedirs(results.root, exist_ok=True)
    unfinished = results.at(f".{TABLE}")
    with results.files.open(unfinished, "wb") as file, pyarrow.parquet.ParquetWriter(file, SCHEMA) as table:
        for row in rows:
            states[row["state"]] += 1
            some.append(row)
            tell(states.total(), count)
            if len(some) == ROWS:
                table.write_table(pyarrow.Table.from_pylist(some, SCHEMA))
                some = []
        table.write_table(pyarrow.Table.from_pylist(some, SCHEMA))
    results.files.mv(unfinished, results.at(TABLE))
    return states
