"""``python -m app``: serve the demo, or explain X-rays from the command line.

Only what ``--help`` needs is imported up here: torch and Gradio take seconds, and people read help in between.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
import sys
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from app import __version__
from app.errors import ChoiceError, DeployError, ImageError, Progress, RejectedError, WeightsError
from app.explain import DEFAULT, METHODS
from app.result_folders import STDIN, ResultFolders, printable

if TYPE_CHECKING:
    from app.model.classifier import Classifier
    from app.pipeline import OpenedImage, Result

LOOPBACK = "127.0.0.1"
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet, per channel: what most published networks were trained with."""


class _ServeUnlessNamed(TyperGroup):
    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        own = {name for param in self.get_params(ctx) for name in param.opts}
        if not args or (args[0].startswith("-") and args[0] not in own):
            args = ["serve", *args]
        return super().parse_args(ctx, args)


cli = typer.Typer(cls=_ServeUnlessNamed, add_completion=False, pretty_exceptions_show_locals=False)

Model = Annotated[
    str | None,
    typer.Option(help="Name of a model, the best one where not given; FRACTURE_WEIGHTS names another folder of models"),
]

Anyway = Annotated[bool, typer.Option("--anyway", help="Explain pictures unlike any X-ray as well")]


def _fail(sentence: str) -> typer.Exit:
    typer.echo(sentence, err=True)
    return typer.Exit(1)


def _load(model: str | None) -> Classifier:
    from app.pipeline import load_classifier

    try:
        return load_classifier(model)
    except WeightsError as error:
        raise _fail(str(error)) from None


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"fracture-explained {__version__}")
        raise typer.Exit


Version = Annotated[
    bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
]


@cli.callback()
def main(version: Version = False) -> None:
    """Ten fracture types from an X-ray, and where the model looks. For study, not for diagnosis.

    Serves the demo where no command is named.
    """


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
        raise _fail(f"Nothing can be served on {host}:{port} ({reason}). Try another --port or --host.") from None


def _check_temp_folder() -> None:
    from app.ui.page import own_folder

    try:
        with TemporaryFile(dir=own_folder()):
            pass
    except OSError as error:
        raise _fail(
            f"There is no folder for uploads: {error.filename or 'the temporary folder'} cannot be written to "
            f"({error.strerror}). Name another one in GRADIO_TEMP_DIR."
        ) from None


@cli.command()
def serve(
    host: Annotated[str, typer.Option(help="Address to listen on")] = LOOPBACK,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on")] = 7860,
    model: Model = None,
    mcp: Annotated[bool, typer.Option("--mcp", help="Serve agents too, by the Model Context Protocol")] = False,
    version: Version = False,
) -> None:
    """Serves the demo; so does naming no command."""
    if mcp and find_spec("mcp") is None:
        raise _fail("--mcp needs a package that is not installed. In the clone: python -m pip install '.[mcp]'.")
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

    try:
        launch(Classifier.load_all([model] if model else together()), host=host, port=port, mcp=mcp)
    except WeightsError as error:
        raise _fail(str(error)) from None
    except OSError as error:
        raise _fail(f"The page on {host}:{port} could not be served: {error.strerror or error}") from None


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
        raise _fail(f"There is no method '{method}'. Known: {', '.join(METHODS)}.")
    if images.count(STDIN) > 1:
        raise _fail("The standard input can be read once only; name - once.")
    if keep_patient_tags and not bundle:
        raise _fail("--keep-patient-tags is for the DICOM picture that --bundle writes.")
    folders = _folders(out)
    classifier = _load(model)
    for kind in (target, against):
        if kind is not None and kind not in classifier.classes:
            raise _fail(f"'{kind}' is not a type this model knows. Known: {', '.join(classifier.classes)}.")
    wanted = {"model": classifier, "method": method, "target": target, "against": against, "anyway": anyway}
    more = {"keep_patient_tags": keep_patient_tags} if bundle else None
    failed = [path for path in images if not _explain_one(path, frame, wanted, folders, more)]
    if failed:
        raise typer.Exit(1)


@cli.command()
def batch(
    inputs: Annotated[list[str], typer.Argument(help="Files, folders and zip files with X-rays")],
    out: Annotated[Path, typer.Option(help="Folder to write, one folder an image inside it, and results.csv")],
    model: Model = None,
    method: Annotated[str, typer.Option(help=f"How to explain: {', '.join(METHODS)}")] = DEFAULT,
    anyway: Anyway = False,
    version: Version = False,
) -> None:
    """Explains many X-rays: a folder for each, and a table of all, results.csv; exits 1 if one failed.

    Broken off and called again, it goes on where it stopped: what was done of the same bytes with the same settings is
    not done again.
    """
    if method not in METHODS:
        raise _fail(f"There is no method '{method}'. Known: {', '.join(METHODS)}.")
    folders = _folders(out)
    classifier = _load(model)
    from app.batch import RESULTS, as_csv, explain_batch, gather

    rows = []
    with gather(inputs, leave_out=out) as items:
        for outcome in explain_batch(items, model=classifier, method=method, anyway=anyway, folders=folders):
            rows.append(row := outcome.row)
            told = row.top_three if row.state == "explained" else f"{row.state}. {row.notes}"
            typer.echo(f"{len(rows)}/{len(items)} {row.name}: {told}", err=True)
    unfinished = out / f".{RESULTS}"
    try:
        unfinished.write_bytes(as_csv(rows))
        unfinished.replace(out / RESULTS)
    except OSError as error:
        raise _fail(f"{RESULTS} cannot be written ({error.strerror or 'unknown reason'}).") from None
    states = [row.state for row in rows]
    counts = ", ".join(f"{states.count(state)} {state}" for state in ("explained", "rejected", "failed"))
    typer.echo(f"{len(rows)} image{'s' * (len(rows) != 1)}: {counts}")
    if "failed" in states:
        raise typer.Exit(1)


def _folders(out: Path) -> ResultFolders:
    try:
        return ResultFolders(out, reserved=["results.csv"])
    except FileExistsError:
        raise _fail(f"{printable(str(out))}: cannot write there (it is a file, not a folder).") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "that cannot be a folder's name"
        raise _fail(f"{printable(str(out))}: cannot write there ({reason}).") from None


@cli.command()
def deploy(
    space: Annotated[str, typer.Argument(metavar="USER/SPACE", help="Space to make or to replace")],
    examples: Annotated[
        Path | None,
        typer.Option(help="Folder of X-rays to try; its sources.csv tells file, label and source of each"),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Send this model alone, such as one of your own, and nothing about fractures")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List the files with their sizes and send none")] = False,
    version: Version = False,
) -> None:
    """Sends this clone to a Hugging Face Space: the demo and its weights, nothing of training.

    One commit makes the Space these files; what else lay there is deleted, and stays in its history.
    """
    from huggingface_hub import HfApi, get_token

    from app.deploy import check, listing, model_files, send, space_files

    made = TemporaryDirectory()
    try:
        files = space_files(Path(__file__).parents[1], examples)
        if model:
            files = model_files(files, model, Path(made.name))
        check(files)
        if dry_run:
            for row in listing(files):
                typer.echo(printable(row))
            return
        if not get_token():
            raise DeployError("There is no token for the Hub. Run `hf auth login`, or set HF_TOKEN.")
        typer.echo(send(space, files, HfApi()))
    except (DeployError, WeightsError) as error:
        raise _fail(printable(str(error))) from None
    finally:
        made.cleanup()


@cli.command("import-model")
def import_model(
    file: Annotated[Path, typer.Argument(help="A state_dict: safetensors, or what torch.save wrote")],
    name: Annotated[str, typer.Option(help="Of the model: small letters, digits and hyphens")],
    architecture: Annotated[str, typer.Option(help="torchvision:NAME or timm:NAME, such as torchvision:resnet50")],
    classes: Annotated[Path, typer.Option(help="Text file with the classes in the network's order, one a line")],
    title: Annotated[str, typer.Option(help="Of the page, as in 'Skin lesions'")],
    size: Annotated[int, typer.Option(min=32, max=1024, help="Side of the square it sees, in pixels")] = 224,
    mean: Annotated[tuple[float, float, float], typer.Option(help="Per channel, of brightness in 0..1")] = MEAN,
    std: Annotated[tuple[float, float, float], typer.Option(help="The same")] = STD,
    grey: Annotated[bool, typer.Option("--grey", help="It sees shades of grey only")] = False,
    image: Annotated[str, typer.Option(help="What the page calls one image, as in 'photo' or 'X-ray'")] = "image",
    finding: Annotated[str, typer.Option(help="What the classes are types of, as in 'tumour'")] = "",
    licence: Annotated[str, typer.Option(help="Of the weights, for the card")] = "unknown",
    weights: Annotated[Path | None, typer.Option(help="Folder of models; the demo's own where not given")] = None,
    version: Version = False,
) -> None:
    """Makes a classifier of torchvision or timm, trained elsewhere, a model of the demo."""
    from app.model.importing import import_model as make
    from app.model.importing import read_classes
    from app.model.subject import Subject
    from app.model.weights import DEFAULT_FOLDER

    folder = weights or DEFAULT_FOLDER
    subject = Subject(title=title, image=image, finding=finding)
    how: dict[str, Any] = {
        "size": size,
        "mean": mean,
        "std": std,
        "colour": not grey,
        "subject": subject,
        "licence": licence,
    }
    try:
        card = make(file, name, architecture, read_classes(classes), folder, **how)
    except WeightsError as error:
        raise _fail(printable(str(error))) from None
    except OSError as error:
        raise _fail(f"{folder / name} cannot be written ({error.strerror or 'unknown reason'}).") from None
    kind = "exact" if card.maps == "exact" else "Grad-CAM's, since its head is not linear on averaged features"
    typer.echo(f"{folder / name} is ready; its maps are {kind}. Serve it: python -m app serve --model {name}")


@cli.command()
def export(
    model: Annotated[str, typer.Argument(help="Name of a model")],
    onnx: Annotated[Path, typer.Option(help="File to write")],
    weights: Annotated[Path | None, typer.Option(help="Folder of models; the demo's own where not given")] = None,
    version: Version = False,
) -> None:
    """Writes a model as one ONNX file, for programs that have neither torch nor this package."""
    from app.model.weights import DEFAULT_FOLDER

    try:
        from app.model.onnx import TOLERANCE, export_onnx

        found = export_onnx(model, weights or DEFAULT_FOLDER, onnx)
    except ModuleNotFoundError as error:
        raise _fail(f"That needs {error.name}. In the clone: python -m pip install '.[onnx]'.") from None
    except WeightsError as error:
        raise _fail(printable(str(error))) from None
    except OSError as error:
        raise _fail(f"{printable(str(onnx))} cannot be written ({error.strerror or 'unknown reason'}).") from None
    typer.echo(f"{printable(str(onnx))} is written; ONNX Runtime is {found:.0e} from torch, {TOLERANCE:g} allowed.")


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
        raise _fail(f"The standard output cannot be written to ({error.strerror or 'unknown reason'}).") from None
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
