"""``python -m app``: serve the demo, or explain X-rays from the command line.

Only what ``--help`` needs is imported up here: torch and Gradio take seconds, and people read help in between.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
import sys
import time
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from app.commands import Version, cli, fail
from app.errors import ChoiceError, ImageError, Progress, RejectedError, WeightsError
from app.explain import DEFAULT, METHODS
from app.result_folders import STDIN, ResultFolders, printable

if TYPE_CHECKING:
    from app.batch import Row
    from app.model.classifier import Classifier
    from app.model.engines import Choice
    from app.pipeline import OpenedImage, Result

LOOPBACK = "127.0.0.1"


Model = Annotated[
    str | None,
    typer.Option(help="Name of a model, the best one where not given; FRACTURE_WEIGHTS names another folder of models"),
]

Anyway = Annotated[bool, typer.Option("--anyway", help="Explain pictures unlike any X-ray as well")]


ENGINE = "What computes predictions. auto: the fastest here, of those installed, that changes next to nothing"


@contextmanager
def _told(engine: Choice) -> Generator[None]:
    """Says what is wrong with models or the engine, instead of a traceback."""
    try:
        yield
    except WeightsError as error:
        raise fail(str(error)) from None
    except ModuleNotFoundError as error:
        how = f"python -m pip install '.[{engine}]'"
        raise fail(f"--engine {engine} needs {error.name}. In the clone: {how}.") from None


def _load(model: str | None, engine: Choice = "torch") -> Classifier:
    from app.pipeline import load_classifier

    with _told(engine):
        return load_classifier(model, engine=engine)


def _check_port(host: str, port: int) -> None:
    """Asks for the port as Gradio will, which is on this machine too, since Gradio does not tell why it got none."""
    try:
        for address in (host.strip("[]"), LOOPBACK):
            family, kind, _, _, place = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM)[0]
            with socket.socket(family, kind) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(place)
    except OSError as error:
        reason = error.strerror or "unknown reason"
        raise fail(f"Nothing can be served on {host}:{port} ({reason}). Try another --port or --host.") from None


def _check_temp_folder() -> None:
    from app.ui.page import own_folder

    try:
        with TemporaryFile(dir=own_folder()):
            pass
    except OSError as error:
        raise fail(
            f"There is no folder for uploads: {error.filename or 'the temporary folder'} cannot be written to "
            f"({error.strerror}). Name another one in GRADIO_TEMP_DIR."
        ) from None


@cli.command()
def serve(
    host: Annotated[str, typer.Option(help="Address to listen on")] = LOOPBACK,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on")] = 7860,
    model: Model = None,
    mcp: Annotated[bool, typer.Option("--mcp", help="Serve agents too, by the Model Context Protocol")] = False,
    engine: Annotated[Literal["auto", "torch", "onnx", "openvino"], typer.Option(help=ENGINE)] = "auto",
    version: Version = False,
) -> None:
    """Serves the demo; so does naming no command."""
    if mcp and find_spec("mcp") is None:
        raise fail("--mcp needs a package that is not installed. In the clone: python -m pip install '.[mcp]'.")
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    _check_port(host, port)
    if ":" in host:
        host = f"[{host.strip('[]')}]"  # or else Gradio takes an IPv6 address for one with a port
    # Gradio asks its own address whether it is up, and would ask a proxy for it.
    # The page asks nothing of other servers.
    os.environ["no_proxy"] = "*"
    _check_temp_folder()
    from app.model.classifier import Classifier
    from app.model.weights import together
    from app.ui.page import launch

    with _told(engine):
        classifiers = Classifier.load_all([model] if model else together(), engine=engine)
    try:
        launch(classifiers, host=host, port=port, mcp=mcp)
    except OSError as error:
        raise fail(f"The page on {host}:{port} could not be served: {error.strerror or error}") from None


@cli.command()
def explain(
    images: Annotated[
        list[str], typer.Argument(help="PNG, JPEG, WebP, TIFF or DICOM files, or pipes; - is the standard input")
    ],
    out: Annotated[Path, typer.Option(help="Folder to write, one folder an image inside it")],
    model: Model = None,
    target: Annotated[str | None, typer.Option(help="Type to explain instead of the predicted one")] = None,
    method: Annotated[str, typer.Option(help=f"How to explain: {', '.join(METHODS)}")] = DEFAULT,
    against: Annotated[str | None, typer.Option(help="Type to tell it from, for finercam")] = None,
    frame: Annotated[int, typer.Option(min=1, help="Which picture of a DICOM file that holds several, from 1")] = 1,
    anyway: Anyway = False,
    bundle: Annotated[bool, typer.Option("--bundle", help="Write the map as numbers, a report and DICOM too")] = False,
    keep_patient_tags: Annotated[
        bool, typer.Option("--keep-patient-tags", help="Say in the bundle's DICOM picture who the patient is")
    ] = False,
    version: Version = False,
) -> None:
    """Writes overlay.png, heatmap.png and explanation.json for each image; goes on after a bad one and exits 1.

    --bundle adds map16.png, map.npy, report.pdf, and secondary-capture.dcm where the image is DICOM.

    Each image has a folder of its own, named after it, with a number where the name is taken. The same image, by name
    and bytes, overwrites its own results; results of another image, and whatever else lies there, are left alone.
    """
    if method not in METHODS:
        raise fail(f"There is no method '{method}'. Known: {', '.join(METHODS)}.")
    if images.count(STDIN) > 1:
        raise fail("The standard input can be read once only; name - once.")
    if keep_patient_tags and not bundle:
        raise fail("--keep-patient-tags is for the DICOM picture that --bundle writes.")
    folders = _folders(out)
    classifier = _load(model)
    for kind in (target, against):
        if kind is not None and kind not in classifier.classes:
            raise fail(f"'{kind}' is not a type this model knows. Known: {', '.join(classifier.classes)}.")
    wanted = {"model": classifier, "method": method, "target": target, "against": against, "anyway": anyway}
    more = {"keep_patient_tags": keep_patient_tags} if bundle else None
    failed = [path for path in images if not _explain_one(path, frame, wanted, folders, more)]
    if failed:
        raise typer.Exit(1)


@cli.command()
def batch(
    inputs: Annotated[list[str], typer.Argument(help="Files, folders and zip files with X-rays")],
    out: Annotated[str, typer.Option(help="Folder to write, one folder an image inside it, and the table")],
    model: Model = None,
    method: Annotated[str, typer.Option(help=f"How to explain: {', '.join(METHODS)}")] = DEFAULT,
    anyway: Anyway = False,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Images in work at a time; one a processor where not given")
    ] = None,
    engine: Annotated[
        Literal["auto", "torch", "onnx", "openvino", "ray"],
        typer.Option(help=f"{ENGINE}; ray: many machines, from one folder or store to another"),
    ] = "auto",
    address: Annotated[str | None, typer.Option(help="Of a Ray cluster; this machine where not given")] = None,
    table: Annotated[Literal["csv", "parquet"], typer.Option(help="Kind of the table; Ray writes parquet")] = "csv",
    version: Version = False,
) -> None:
    """Explains many X-rays: a folder for each, and a table of all; exits 1 if one failed.

    Broken off and called again, it goes on where it stopped: what was done of the same bytes with the same settings is
    not done again. Ray gives each X-ray a folder under its own path.
    """
    if method not in METHODS:
        raise fail(f"There is no method '{method}'. Known: {', '.join(METHODS)}.")
    if engine == "ray":
        if len(inputs) > 1:
            raise fail("Ray takes one folder or store; name one.")
        wanted = {"model": model, "method": method, "anyway": anyway, "address": address, "workers": workers}
        _tell_states(_on_ray(inputs[0], out, **wanted))
        return
    if address:
        raise fail("--address is of a Ray cluster, so it needs --engine ray.")
    if table == "parquet" and find_spec("pyarrow") is None:
        raise fail("--table parquet needs pyarrow. In the clone: python -m pip install '.[ray]'.")
    place = Path(out)
    folders = _folders(place)
    import torch

    from app.batch import explain_batch, gather
    from app.model.engines import processors

    workers = workers or processors()
    # Images side by side keep processors busier than threads inside of one.
    torch.set_num_threads(max(1, processors() // workers))
    classifier = _load(model, engine)
    rows = []
    with gather(inputs, leave_out=place) as items:
        began = time.monotonic()
        how: dict[str, Any] = {"method": method, "anyway": anyway, "folders": folders, "workers": workers}
        for outcome in explain_batch(items, model=classifier, **how):
            rows.append(row := outcome.row)
            told = row.top_three if row.state == "explained" else f"{row.state}. {row.notes}"
            pace = _pace(len(rows), len(items), time.monotonic() - began)
            typer.echo(f"{len(rows)}/{len(items)} {row.name}: {told} ({pace})", err=True)
    _write_table(place / f"results.{table}", rows)
    _tell_states(Counter(row.state for row in rows))


def _write_table(file: Path, rows: list[Row]) -> None:
    if file.suffix == ".csv":
        from app.batch import as_csv as written
    else:
        from app.parquet import as_parquet as written
    unfinished = file.with_name(f".{file.name}")
    try:
        unfinished.write_bytes(written(rows))
        unfinished.replace(file)
    except OSError as error:
        raise fail(f"{file.name} cannot be written ({error.strerror or 'unknown reason'}).") from None


def _tell_states(states: Counter[str]) -> None:
    count = states.total()
    counts = ", ".join(f"{states[state]} {state}" for state in ("explained", "rejected", "failed"))
    typer.echo(f"{count} image{'s' * (count != 1)}: {counts}")
    if states["failed"]:
        raise typer.Exit(1)


def _on_ray(source: str, out: str, **wanted: Any) -> Counter[str]:
    try:
        from app.cluster import explain_store
    except ModuleNotFoundError as error:
        raise fail(f"--engine ray needs {error.name}. In the clone: python -m pip install '.[ray]'.") from None
    began = told = time.monotonic()

    def tell(done: int, count: int) -> None:
        nonlocal told
        if done == count or time.monotonic() - told > 1.0:
            told = time.monotonic()
            typer.echo(f"{done}/{count} ({_pace(done, count, told - began)})", err=True)

    try:
        return explain_store(source, out, tell=tell, **wanted)
    except FileNotFoundError:
        raise fail(f"{printable(source)}: there is no such folder.") from None
    except WeightsError as error:
        raise fail(str(error)) from None
    except ConnectionError as error:
        asked = "If the cluster asks for a token, set RAY_AUTH_MODE=token."
        raise fail(f"{printable(str(error).partition(chr(10))[0])}. {asked}") from None
    except (ValueError, ImportError) as error:  # of an address that fsspec or Ray does not know
        raise fail(printable(str(error).partition("\n")[0])) from None
    except OSError as error:
        raise fail(f"{printable(out)}: cannot write there ({error.strerror or 'unknown reason'}).") from None


def _pace(done: int, count: int, seconds: float) -> str:
    rate = done / max(seconds, 1e-6)
    left = round((count - done) / rate)
    return f"{rate:.1f} a second, {left // 3600}:{left // 60 % 60:02d}:{left % 60:02d} left"


def _folders(out: Path) -> ResultFolders:
    try:
        return ResultFolders(out, reserved=["results.csv", "results.parquet"])
    except FileExistsError:
        raise fail(f"{printable(str(out))}: cannot write there (it is a file, not a folder).") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "that cannot be a folder's name"
        raise fail(f"{printable(str(out))}: cannot write there ({reason}).") from None


def _explain_one(
    path: str, frame: int, wanted: dict[str, Any], folders: ResultFolders, more: dict[str, bool] | None
) -> bool:
    """Whether one image is explained into its folder: a line goes to the output, what else is to say to the errors.

    With ``more``, arguments of ``bundle``, everything to take home is written too.
    """
    from app.pipeline import open_image

    def warn(sentence: str) -> None:
        typer.echo(f"{printable(path)}: {sentence}", err=True)

    try:
        if path != STDIN:
            opened = open_image(path, frame=frame)
        elif sys.stdin is None:
            raise ImageError("The standard input is closed.")
        else:
            opened = open_image(sys.stdin.buffer, name=STDIN, frame=frame)
        for note in opened.radiograph.notes:
            warn(note)
        result = _with_progress(opened, wanted)
        result.save(folders.claim(result.source), None if more is None else _bundle(result, opened, more))
    except RejectedError as error:
        warn(f"{error} --anyway explains it nevertheless.")
        return False
    except (ImageError, ChoiceError) as error:
        warn(str(error))
        return False
    except OSError as error:
        warn(f"cannot write the results ({error.strerror or 'unknown reason'}).")
        return False
    try:
        typer.echo(f"{printable(path)}: {_line(result)}")
    except OSError as error:
        if error.errno == errno.EPIPE:  # whoever read has had enough, which typer ends quietly
            raise
        raise fail(f"The standard output cannot be written to ({error.strerror or 'unknown reason'}).") from None
    if result.ood.words:
        warn(result.ood.words)
    return True


def _with_progress(opened: OpenedImage, wanted: dict[str, Any]) -> Result:
    from app.pipeline import explain_image

    if wanted["method"] == DEFAULT:
        return explain_image(opened, **wanted)
    # To standard error, so that what is piped onwards is the verdicts alone.
    with typer.progressbar(length=100, label=METHODS[wanted["method"]].title, file=sys.stderr) as bar:
        progress = Progress(tell=lambda share: bar.update(max(0, round(100 * share) - bar.pos)))
        return explain_image(opened, progress=progress, **wanted)


def _bundle(result: Result, opened: OpenedImage, more: dict[str, bool]) -> dict[str, bytes]:
    from app.bundle import bundle

    return bundle(result, opened.dicom, **more)


def _line(result: Result) -> str:
    """The verdict in a line."""
    from app.model.classifier import IN_WORDS

    explanation, prediction = result.explanation, result.explanation.prediction
    seen = f"{result.card.subject.retell(IN_WORDS[result.finding]).lower()}; " if result.finding else ""
    top = ", ".join(f"{name} {prediction.probability(name):.0%}" for name in prediction.ranking[:3])
    target = result.target
    shown = f"map of {target}" if explanation.has_evidence(target) else f"no positive evidence for {target}"
    return f"{seen}{top}; {shown}"
