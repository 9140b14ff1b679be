"""Nothing of an upload reaches a log, and a request that goes wrong is answered with a sentence.

What Gradio would have to mend for this file to go, seen in 6.31.0:

- ``Blocks.validate_inputs`` and ``Blocks._format_processing_error`` put the arguments of a request into the message of
  an error, and ``Queue.process_events`` and ``routes.predict`` print that error with ``traceback.print_exc``: paths,
  file names and whole pictures in base64. ``processing_utils._check_allowed`` does so with the path.
- ``utils.error_payload`` answers such a request with ``{"error": null}``.
- ``events.api`` knows the defaults of a function, and tells them in its description, but does not fill them in where
  positional arguments are left out.
- ``routes`` look up ``fn_index``, ``component_id`` and names of endpoints without asking whether there is such a thing;
  what follows from that is a traceback.
- ``route_utils.upload_fn`` keeps the name of an uploaded file on disk, and ``GradioMultiPartParser`` leaves what was
  broken off in the system's folder for temporary files when ``upload_dir`` is not given.
- ``mcp.convert_strings_to_filedata`` leaves data URLs in lists as they are.
- ``mcp.DEFAULT_TEMP_DIR`` is read before anybody could name a folder, and nothing in it is ever deleted.
"""

from __future__ import annotations

import inspect
import logging
import sys
import tempfile
import threading
import traceback
import warnings
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, get_origin

import gradio as gr
from fastapi.exceptions import RequestValidationError
from gradio import mcp, processing_utils, queueing, route_utils, routes
from gradio.block_function import BlockFunction
from gradio.components.api_component import Api
from gradio.exceptions import InvalidPathError
from gradio.state_holder import SessionState
from starlette.requests import Request
from starlette.responses import JSONResponse

from app.model.subject import OURS
from app.ui.uploads import FOREIGN

__all__ = ["HANDLERS", "Page", "nameless", "silence"]

log = logging.getLogger(__name__)

OUR_OWN = ("app", "training")
ENDINGS = frozenset({".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".gif", ".bmp", ".dcm", ".dicom"})
"""What may be left of a file's name; after other dots may stand a number or a name."""

LONGEST = 100
"""Letters of a text in a request, which may be repeated in the answer."""

INFO = "What can be asked, and how, is told at /gradio_api/info."
NOT_UNDERSTOOD = f"This request could not be understood. {INFO}"
NOT_ANSWERED = f"This request could not be answered, and nothing of what it holds was logged. {INFO}"
NOT_THERE = f"What this request asks for does not exist. {INFO}"
NO_FILE = (
    "Please upload the file to /gradio_api/upload first, and name it here as {{'path': ...}} with the path that was "
    "answered: '{name}' is none."
)


def brief(error: BaseException | None) -> str:
    """The kind of an error and the line of code that raised it; not its message, which may quote an upload."""
    if error is None:
        return "nothing is known of it"
    frames = traceback.extract_tb(error.__traceback__)
    place = f" in {Path(frames[-1].filename).name}, line {frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}{place}"


def silence() -> None:
    """Makes the whole process tell the kind of an error only, whoever logs, warns or prints it.

    Messages of our own loggers stay, since they never quote what was uploaded; of other libraries' messages only the
    level, the logger and the line of code are left. Calling it again changes nothing.
    """
    # A logger that fails prints message and arguments.
    logging.raiseExceptions = False
    # Asks about a server's own start, and about every address that a request names.
    logging.getLogger("httpx").setLevel(logging.WARNING)
    logging.setLogRecordFactory(_record)
    vars(warnings)["showwarning"] = _warned
    vars(traceback)["print_exc"] = _printed
    # Both print errors and paths by themselves as well.
    vars(queueing)["print"] = vars(routes)["print"] = vars(mcp)["print"] = _left_out
    sys.unraisablehook = lambda args: _uncaught(args.exc_type, args.exc_value, args.exc_traceback)
    threading.excepthook = lambda args: _uncaught(args.exc_type, args.exc_value, args.exc_traceback)


def _record(
    name: str,
    level: int,
    path: str,
    line: int,
    message: object,
    args: Any,
    exc_info: Any,
    func: str | None = None,
    sinfo: str | None = None,
    **kwargs: Any,
) -> logging.LogRecord:
    if name.partition(".")[0] not in OUR_OWN:
        error = exc_info[1] if isinstance(exc_info, tuple) else None
        what = brief(error) if error else f"a message from {Path(path).name}, line {line}"
        message, args = f"{name}: {what}", ()
    return logging.LogRecord(name, level, path, line, message, args, None, func, None, **kwargs)


def _warned(message: Warning | str, category: type[Warning], filename: str, lineno: int, *_: Any, **__: Any) -> None:
    _tell(f"{category.__name__} in {Path(filename).name}, line {lineno}")


def _left_out(*_: Any, **__: Any) -> None:
    """Stands where ``print`` would."""


def _printed(*_: Any, **__: Any) -> None:
    _tell(brief(sys.exc_info()[1]))


def _uncaught(kind: type[BaseException], error: BaseException | None, place: TracebackType | None) -> None:
    if not issubclass(kind, (KeyboardInterrupt, SystemExit)):
        _tell(brief(error) if error is not None else kind.__name__)


def _tell(what: str) -> None:
    print(f"{what} (its message may quote an upload, and is left out)", file=sys.stderr)  # noqa: T201


class _Nameless(route_utils.GradioUploadFile):
    """An upload of whose name only the ending is kept: the rest of it may name a patient."""

    def __init__(self, *args: Any, filename: str | None = None, **kwargs: Any) -> None:
        ending = Path(filename or "").suffix.lower()
        super().__init__(*args, filename=f"upload{ending if ending in ENDINGS else ''}", **kwargs)


def nameless(folder: Path) -> None:
    """Makes Gradio forget the names of uploads, and keep what it writes of them in one folder."""

    def temporary(*, dir: str | Path | None = None, **kwargs: Any) -> Any:
        return tempfile.NamedTemporaryFile(dir=dir or folder, **kwargs)

    vars(route_utils).update(GradioUploadFile=_Nameless, NamedTemporaryFile=temporary)
    vars(mcp)["DEFAULT_TEMP_DIR"] = str(folder)


class Page(gr.Blocks):
    """Blocks that fill in what a request leaves out, and answer what goes wrong with a sentence; about ``subject``."""

    subject = OURS

    async def preprocess_data(
        self, block_fn: BlockFunction, inputs: list[Any], state: SessionState | None, explicit_call: bool = False
    ) -> Any:
        try:
            if block_fn.inputs and all(isinstance(block, Api) for block in block_fn.inputs):
                inputs = filled(block_fn.fn, inputs)
            return await super().preprocess_data(block_fn, inputs, state, explicit_call)
        except gr.Error:
            raise
        except InvalidPathError:
            raise gr.Error(FOREIGN, print_exception=False) from None
        except Exception as error:  # noqa: BLE001 - Gradio would print it
            log.warning("a request could not be understood: %s", brief(error))
            raise gr.Error(NOT_UNDERSTOOD, print_exception=False) from None

    async def process_api(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        try:
            return await super().process_api(*args, **kwargs)
        except gr.Error as error:
            error.print_exception = False
            raise
        except Exception as error:  # noqa: BLE001 - Gradio would print it
            log.error("a request could not be answered: %s", brief(error))
            raise gr.Error(NOT_ANSWERED, print_exception=False) from None


def filled(function: Any, given: Sequence[Any]) -> list[Any]:
    """The arguments of an endpoint, with its defaults where they are left out or null.

    Args:
        function: the endpoint; every parameter but a file, or files, is text or a truth value, and has a default.
        given: positional arguments of a request, as decoded from JSON.

    Raises:
        gr.Error: one is missing, or of the wrong type; the message says which.
    """
    arguments: list[Any] = []
    for place, parameter in enumerate(inspect.signature(function, eval_str=True).parameters.values()):
        value, default = given[place] if place < len(given) else None, parameter.default
        name = parameter.name
        if default is parameter.empty:
            several = get_origin(parameter.annotation) is list
            files = [_in_file(each) for each in value] if several and isinstance(value, list) else [value]
            value = files if several else value
            if not all(map(_is_file, files)):
                raise gr.Error(NO_FILE.format(name=name), print_exception=False)
        elif value is None:
            value = default
        elif type(value) is not type(default):
            kind = "true or false" if isinstance(default, bool) else "text"
            raise gr.Error(f"'{name}' must be {kind}. {INFO}", print_exception=False)
        elif isinstance(value, str) and len(value) > LONGEST:
            raise gr.Error(f"'{name}' must be a name of at most {LONGEST} letters. {INFO}", print_exception=False)
        arguments.append(value)
    return arguments


def _in_file(value: Any) -> Any:
    """What an agent sends in a list as a data URL, as the file that Gradio makes of one that stands alone."""
    if isinstance(value, str) and value.startswith("data:"):
        return {"path": processing_utils.save_base64_to_cache(value, mcp.DEFAULT_TEMP_DIR), "meta": META}
    return value


def _is_file(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("path"), str)


META = {"_type": "gradio.FileData"}
"""What makes Gradio look where a file of a request lies."""


async def _answer(request: Request, error: Exception, *, status: int, sentence: str) -> JSONResponse:
    return JSONResponse({"error": sentence, "detail": sentence}, status)


HANDLERS = {
    RequestValidationError: partial(_answer, status=422, sentence=NOT_UNDERSTOOD),
    KeyError: partial(_answer, status=404, sentence=NOT_THERE),
    route_utils.FnIndexInferError: partial(_answer, status=404, sentence=NOT_THERE),
    Exception: partial(_answer, status=500, sentence=NOT_ANSWERED),
}
"""What requests are answered that fail before anything is computed, for FastAPI."""
