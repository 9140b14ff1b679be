"""Many images at once: files, folders and zip files to a row each, whatever is wrong with any of them.

Every worker takes an image from its bytes to its pictures, so that one is decoded or drawn while another is with the
network. A forward of one: 4 or 16 at once took as long an image, and need more memory.
"""

from __future__ import annotations

import csv
import hashlib
import io
import logging
import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

from app.document import SCHEMA
from app.errors import Cancelled, ChoiceError, ImageError, Progress, RejectedError
from app.explain import DEFAULT
from app.imaging.archive import hidden, is_picture, is_zip, opened
from app.imaging.radiograph import load
from app.model.classifier import Classifier
from app.model.weights import percent
from app.pipeline import Result, explain_image, open_image
from app.result_folders import ResultFolders, Source, printable

__all__ = [
    "RESULTS",
    "Item",
    "Outcome",
    "Row",
    "as_csv",
    "explain_batch",
    "explained",
    "gather",
    "named",
    "row_of",
    "same",
    "tried",
]

log = logging.getLogger(__name__)
T = TypeVar("T")

RESULTS = "results.csv"
OURS = "Something went wrong on our side."
FORMULA = "=+-@\uff1d\uff0b\uff0d\uff20"
"""What makes a spreadsheet compute a cell, or may, in full width."""


class Item(NamedTuple):
    """An image to explain.

    Attributes:
        name: for people: of the file, with its path inside the folder or zip file it was found in.
        read: its bytes; raises ImageError.
    """

    name: str
    read: Callable[[], bytes]


class Row(NamedTuple):
    """What became of one image, as a row of the table; what is not known is empty."""

    name: str
    state: Literal["explained", "rejected", "failed"]
    notes: str = ""
    type: str = ""
    probability: float | None = None
    confidence: str = ""
    fracture: str = ""
    ood: str = ""
    top_three: str = ""
    folder: str = ""


class Outcome(NamedTuple):
    """A row, and the result behind it: None where there is none, or an earlier run wrote it."""

    row: Row
    result: Result | None = None


@contextmanager
def gather(
    paths: Sequence[str | Path], names: Sequence[str] | None = None, leave_out: Path | None = None
) -> Generator[list[Item]]:
    """The images in files, folders and zip files, in order, to be read inside the context.

    Inside folders and zip files only pictures are taken: by ending, or files without one that start as DICOM does.
    What cannot be read is an item too, and says so when it is read.

    Args:
        paths: where to look.
        names: what to call each; its own name where absent.
        leave_out: a folder not to look into, such as that of the results.
    """
    shown = names or [Path(path).name for path in paths]
    with ExitStack() as stack:
        yield [
            item for path, name in zip(paths, shown, strict=True) for item in _at(Path(path), name, stack, leave_out)
        ]


def _at(path: Path, name: str, stack: ExitStack, leave_out: Path | None) -> Iterator[Item]:
    if path.is_dir():
        yield from _inside(path, stack, leave_out)
    elif is_zip(path):
        try:
            for member in stack.enter_context(opened(path)):
                yield Item(f"{name}/{member.name}", member.read)
        except ImageError as error:
            yield Item(name, partial(_raise, str(error)))
    else:
        yield Item(name, partial(load, path))


def _inside(folder: Path, stack: ExitStack, leave_out: Path | None) -> Iterator[Item]:
    """What a folder holds, by name; links to folders are not followed, for they may lead in a circle."""
    without = leave_out.resolve() if leave_out else None
    for place, folders, files in os.walk(folder):
        here = Path(place)
        folders[:] = sorted(each for each in folders if not hidden(each) and (here / each).resolve() != without)
        for each in sorted(files):
            path = here / each
            if hidden(each) or not (path.suffix.lower() == ".zip" or is_picture(each, partial(_start, path))):
                continue
            yield from _at(path, str(path.relative_to(folder)), stack, leave_out)


def _start(path: Path) -> bytes:
    try:
        if not path.is_file():
            return b""
        with path.open("rb") as file:
            return file.read(4096)
    except OSError:
        return b""


def _raise(sentence: str) -> bytes:
    raise ImageError(sentence)


def explain_batch(
    items: Iterable[Item],
    *,
    model: Classifier,
    method: str = DEFAULT,
    anyway: bool = False,
    folders: ResultFolders | None = None,
    progress: Progress | None = None,
    workers: int = 1,
) -> Iterator[Outcome]:
    """Explains images; whatever is wrong with one is its own row.

    Args:
        items: of ``gather``.
        model: the model.
        method, anyway: as for ``explain_image``.
        folders: where to write each result; one that an earlier run has written of the same bytes with the same
            settings is not made again.
        progress: may stop the work.
        workers: images in work at a time.

    Yields:
        An outcome an item, in order; the folders are given out in that order too, however many workers there are.

    Raises:
        Cancelled: ``progress`` stopped the work.
    """
    wanted = {"model": model, "method": method, "anyway": anyway, "progress": progress}
    pool = ThreadPoolExecutor(workers)
    try:
        explained = _ahead((_begun(item, wanted, folders, pool) for item in items), workers)
        yield from (pending() for pending in _ahead((_kept(each(), folders, pool) for each in explained), workers))
    finally:
        pool.shutdown(cancel_futures=True)


def _ahead(work: Iterator[T], count: int) -> Iterator[T]:
    """The same, begun so many ahead of whoever takes it."""
    begun = deque(islice(work, count))
    while begun:
        begun.extend(islice(work, 1))
        yield begun.popleft()


def _begun(
    item: Item, wanted: dict[str, Any], folders: ResultFolders | None, pool: ThreadPoolExecutor
) -> Callable[[], Outcome]:
    """An image in work, or the outcome that is known without: what is read and asked for in order is done here."""
    name = named(item.name)

    def found() -> Callable[[], Outcome]:
        data = item.read()
        source = Source(name.rpartition("/")[2], hashlib.sha256(data).hexdigest(), 1)
        if folders and (done := folders.finished(source, partial(same, wanted))):
            known = Outcome(row_of(name, done[1], done[0].name))
            return lambda: known
        return pool.submit(tried, name, lambda: explained(name, data, source.name, wanted)).result

    begun = tried(name, found)
    return (lambda: begun) if isinstance(begun, Outcome) else begun


def named(path: str) -> str:
    """What a row calls an image: its path as one line of text, whatever bytes the file system gave."""
    return printable(os.fsencode(path).decode("utf-8", "replace"))


def explained(name: str, data: bytes, called: str | None, wanted: dict[str, Any]) -> Outcome:
    """What ``explain_image`` says of an image's bytes; raises as that does.

    Args:
        name: of the row.
        data: the bytes.
        called: what the result calls the file.
        wanted: arguments of ``explain_image``.
    """
    result = explain_image(open_image(data, name=called), **wanted)
    return Outcome(row_of(name, result.as_json(), ""), result)


def _kept(outcome: Outcome, folders: ResultFolders | None, pool: ThreadPoolExecutor) -> Callable[[], Outcome]:
    """An outcome whose result is being written, where there are folders and a result."""
    row, result = outcome
    if result is None or folders is None:
        return lambda: outcome

    def saved(folder: Path) -> Outcome:
        result.save(folder)
        return Outcome(row._replace(folder=folder.name), result)

    claimed = tried(row.name, lambda: folders.claim(result.source))
    if isinstance(claimed, Outcome):
        return lambda: claimed
    return pool.submit(tried, row.name, partial(saved, claimed)).result


def tried(name: str, work: Callable[[], Any]) -> Any:
    """What work on an image gives, or the row that says why it gives nothing."""
    try:
        return work()
    except Cancelled:
        raise
    except RejectedError as error:
        return Outcome(Row(name, "rejected", str(error), ood="out-of-distribution"))
    except (ImageError, ChoiceError) as error:
        return Outcome(Row(name, "failed", str(error)))
    except OSError as error:
        return Outcome(Row(name, "failed", f"cannot write the results ({error.strerror or 'unknown reason'})."))
    except Exception as error:  # noqa: BLE001 - one image never loses the others
        log.error("an image of a batch could not be explained: %s", type(error).__name__)
        return Outcome(Row(name, "failed", OURS))


def same(wanted: dict[str, Any], summary: dict[str, Any]) -> bool:
    """Whether a summary is of a run with these settings: the predicted type, explained by the same weights.

    Where the engine was left to be chosen, any will do, since one that is as fast may be chosen the next time.
    """
    try:
        target, insisted = summary["prediction"]["type"], summary["ood"]["state"] == "out-of-distribution"
        made = (summary["schema"], summary["model"]["sha256"], summary["map"]["method"], summary["map"]["target"])
        computed = (summary["model"]["engine"], summary["model"]["precision"])
    except (KeyError, TypeError):
        return False
    model = wanted["model"]
    same = made == (SCHEMA, model.card.weights.sha256, wanted["method"], target)
    same = same and (model.engine == "auto" or computed == (model.engine, "float32"))
    return same and (wanted["anyway"] or not insisted)


def row_of(name: str, told: dict[str, Any], folder: str) -> Row:
    """The row of a result, from its JSON."""
    predicted = told["prediction"]
    return Row(
        name=name,
        state="explained",
        notes=" ".join([*told["source"]["notes"], *([told["ood"]["words"]] if told["ood"]["words"] else [])]),
        type=predicted["type"],
        probability=predicted["probability"],
        confidence=predicted["confidence"],
        fracture=told["fracture"]["finding"] or "",
        ood=told["ood"]["state"] or "",
        top_three="; ".join(f"{each['name']} {percent(each['probability'])}" for each in predicted["types"][:3]),
        folder=folder,
    )


def as_csv(rows: Iterable[Row]) -> bytes:
    """Rows as a table that spreadsheets open: UTF-8 with its mark; no cell is taken for a formula (CWE-1236)."""
    table = io.StringIO(newline="")
    writer = csv.writer(table)
    writer.writerow(Row._fields)
    for row in rows:
        writer.writerow([_harmless(_cell(value)) for value in row])
    return table.getvalue().encode("utf-8-sig", "replace")


def _cell(value: str | float | None) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else f"{value:.4f}"


def _harmless(cell: str) -> str:
    return f"'{cell}" if cell.lstrip()[:1] and cell.lstrip()[0] in FORMULA else cell
