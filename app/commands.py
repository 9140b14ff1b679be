"""Commands that make, write and send models, and what all commands share: options, and how errors are told.

Only what ``--help`` needs is imported up here: torch and Gradio take seconds, and people read help in between.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from app import __version__
from app.errors import DeployError, WeightsError
from app.imaging.imagenet import MEAN, STD
from app.result_folders import printable

FIRST = ("serve", "explain", "batch")
"""Commands that most people come for."""


class _ServeUnlessNamed(TyperGroup):
    def list_commands(self, ctx: Any) -> list[str]:
        return sorted(super().list_commands(ctx), key=lambda name: FIRST.index(name) if name in FIRST else len(FIRST))

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        own = {name for param in self.get_params(ctx) for name in param.opts}
        if not args or (args[0].startswith("-") and args[0] not in own):
            args = ["serve", *args]
        return super().parse_args(ctx, args)


cli = typer.Typer(cls=_ServeUnlessNamed, add_completion=False, pretty_exceptions_show_locals=False)


def fail(sentence: str) -> typer.Exit:
    typer.echo(sentence, err=True)
    return typer.Exit(1)


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
        raise fail(printable(str(error))) from None
    finally:
        made.cleanup()


@cli.command("import-model")
def import_model(
    file: Annotated[Path, typer.Argument(help="A state_dict, as safetensors or by torch.save, or an ONNX file")],
    name: Annotated[str, typer.Option(help="Of the model: small letters, digits and hyphens")],
    architecture: Annotated[
        str, typer.Option(help="torchvision:NAME or timm:NAME, such as torchvision:resnet50, or onnx")
    ],
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
    """Makes a classifier that was trained elsewhere a model of the demo: of torchvision, timm or an ONNX file."""
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
        raise fail(printable(str(error))) from None
    except OSError as error:
        raise fail(f"{folder / name} cannot be written ({error.strerror or 'unknown reason'}).") from None
    kind = "exact" if card.maps == "exact" else "Grad-CAM's, since its head is not linear on averaged features"
    typer.echo(f"{folder / name} is ready; its maps are {kind}. Serve it: python -m app serve --model {name}")


@cli.command()
def export(
    model: Annotated[str, typer.Argument(help="Name of a model")],
    onnx: Annotated[Path | None, typer.Option(help="ONNX file to write")] = None,
    web: Annotated[
        Path | None, typer.Option(help="Folder to write: the page with the model in it, for any server; needs npm")
    ] = None,
    weights: Annotated[Path | None, typer.Option(help="Folder of models; the demo's own where not given")] = None,
    version: Version = False,
) -> None:
    """Writes a model as one ONNX file, or as a page that computes in the visitor's browser.

    Either is for programs and servers that have neither torch nor this package.
    """
    from app.model.weights import DEFAULT_FOLDER

    if onnx is None and web is None:
        raise fail("Name what to write: --onnx FILE, or --web FOLDER.")
    folder = weights or DEFAULT_FOLDER
    try:
        if onnx is not None:
            _write(onnx, lambda: _export_onnx(model, folder, onnx))
        if web is not None:
            _write(web, lambda: _export_web(model, folder, web))
    except ModuleNotFoundError as error:
        raise fail(f"That needs {error.name}. In the clone: python -m pip install '.[onnx]'.") from None
    except (WeightsError, DeployError) as error:
        raise fail(printable(str(error))) from None


def _write(place: Path, work: Callable[[], str]) -> None:
    try:
        typer.echo(work())
    except OSError as error:
        raise fail(f"{printable(str(place))} cannot be written ({error.strerror or 'unknown reason'}).") from None


def _export_onnx(model: str, weights: Path, file: Path) -> str:
    from app.model.to_onnx import TOLERANCE, export_onnx

    found = export_onnx(model, weights, file)
    return f"{printable(str(file))} is written; ONNX Runtime is {found:.0e} from torch, {TOLERANCE:g} allowed."


def _export_web(model: str, weights: Path, folder: Path) -> str:
    from app.web_export import export_web

    size = export_web(model, weights, folder)
    place = printable(str(folder))
    return f"{place} is written, {size / 2**20:.0f} MB. Look at it: python -m http.server --directory {place}"
