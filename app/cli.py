"""``python -m app``: serve the demo, or explain films from the command line."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from PIL import Image

from app import methods
from app.classifier import Classifier, Explanation
from app.errors import FilmError, UnlikeError, WeightsError
from app.methods import DEFAULT, METHODS, ask, draw
from app.overlay import heatmap, overlay, panel
from app.radiograph import read
from app.trust import IN_WORDS, UNLIKE, answers, presence
from app.watch import Watch
from app.weights import ModelCard, ranked

cli = typer.Typer(add_completion=False)

DISCLAIMER = "For study, not for diagnosis. Not a medical device."
Model = Annotated[str | None, typer.Option(help="Name of a folder under weights/; the best one where not given")]


def _known() -> list[str]:
    names = ranked()
    if not names:
        raise WeightsError("There is no model under weights/; train one with `python -m training fit`.")
    return names


def _load(model: str | None) -> Classifier:
    try:
        return Classifier.load(model or _known()[0])
    except WeightsError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from None


@cli.callback(invoke_without_command=True)
def serve(
    context: typer.Context,
    host: Annotated[str, typer.Option(help="Address to listen on")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on")] = 7860,
    model: Model = None,
) -> None:
    """Serves the demo, unless a command is named. For study, not for diagnosis."""
    if context.invoked_subcommand is not None:
        return
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    from app.ui.page import launch

    try:
        names = [model] if model else _known()
        launch(Classifier.load_all(names), host=host, port=port)
    except WeightsError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from None
    except OSError:
        typer.echo(f"Nothing can be served on {host}:{port}; it may be in use. Try another --port.", err=True)
        raise typer.Exit(1) from None


@cli.command()
def explain(
    films: Annotated[list[Path], typer.Argument(help="PNG, JPEG, WebP, TIFF or DICOM files")],
    out: Annotated[Path, typer.Option(help="Folder to write, one folder a film inside it")],
    model: Model = None,
    target: Annotated[str | None, typer.Option(help="Type to explain instead of the predicted one")] = None,
    method: Annotated[str, typer.Option(help=f"How to explain: {', '.join(METHODS)}")] = DEFAULT,
    against: Annotated[str | None, typer.Option(help="Type to tell it from, for finercam")] = None,
    anyway: Annotated[bool, typer.Option("--anyway", help="Explain pictures unlike any film as well")] = False,
) -> None:
    """Writes explanation.json, overlay.png and heatmap.png for each film; goes on after a bad one and exits 1."""
    classifier = _load(model)
    for kind in (target, against):
        if kind is not None and kind not in classifier.classes:
            typer.echo(f"'{kind}' is not a type this model knows. Known: {', '.join(classifier.classes)}.", err=True)
            raise typer.Exit(1)
    if method not in METHODS:
        typer.echo(f"There is no method '{method}'. Known: {', '.join(METHODS)}.", err=True)
        raise typer.Exit(1)
    failed = False
    taken: dict[str, int] = {}
    for path in films:
        try:
            film = read(path)
            unlike = classifier.check(film, anyway=anyway)
            explanation = classifier.explain([film])[0]
        except UnlikeError as error:
            typer.echo(f"{path}: {error} --anyway explains it nevertheless.", err=True)
            failed = True
            continue
        except FilmError as error:
            typer.echo(f"{path}: {error}", err=True)
            failed = True
            continue
        # A stem such as ".." would lead out of the folder.
        stem = path.stem.lstrip(".") or "film"
        taken[stem] = taken.get(stem, 0) + 1
        repeat = f"-{taken[stem]}" if taken[stem] > 1 else ""
        chosen = target or explanation.prediction.best
        try:
            heat = (
                explanation.heat(chosen)
                if method == DEFAULT
                else _heat(classifier, explanation, chosen, method, against)
            )
            told = answers(classifier.card, explanation, unlike=unlike)
            _write(told, explanation, chosen, method, heat, out / f"{stem}{repeat}")
        except ValueError as error:
            typer.echo(f"{path}: {error}", err=True)
            failed = True
            continue
        except OSError as error:
            typer.echo(f"{path}: cannot write under {out} ({error.strerror or 'unknown reason'}).", err=True)
            failed = True
            continue
        typer.echo(f"{path}: {_line(classifier.card, explanation, chosen)}")
        warnings = [UNLIKE] if unlike else []
        for sentence in (*warnings, *explanation.film.notes):
            typer.echo(f"{path}: {sentence}", err=True)
    if failed:
        raise typer.Exit(1)


def _line(card: ModelCard, explanation: Explanation, chosen: str) -> str:
    prediction = explanation.prediction
    seen = presence(explanation, card.presence)
    first = "" if seen is None else f"{IN_WORDS[seen].lower()}; "
    top = ", ".join(f"{name} {prediction.probability(name):.0%}" for name in prediction.ranking[:3])
    shown = f"map of {chosen}" if explanation.has_evidence(chosen) else f"no positive evidence for {chosen}"
    return f"{first}{top}; {shown}"


def _heat(
    classifier: Classifier, explanation: Explanation, chosen: str, method: str, against: str | None
) -> np.ndarray:
    # To standard error, so that what is piped onwards is the verdicts alone.
    with typer.progressbar(length=100, label=METHODS[method].title, file=sys.stderr) as bar:
        watch = Watch(tell=lambda share: bar.update(max(0, round(100 * share) - bar.pos)))
        question = ask(classifier, explanation.film, chosen, against, watch)
        return methods.heat(draw(question, method), explanation.placement)


def _write(
    told: dict[str, Any], explanation: Explanation, chosen: str, method: str, heat: np.ndarray, folder: Path
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    prediction = explanation.prediction
    summary = {
        "notice": DISCLAIMER,
        "model": explanation.model,
        "predicted": prediction.best,
        **told,
        "explained": chosen,
        "method": method,
        "film": {
            "height": explanation.film.height,
            "width": explanation.film.width,
        },
        "full_colour": explanation.full_colour,
        "types": [
            {
                "name": name,
                "probability": prediction.probability(name),
                "logit": float(prediction.logits[prediction.classes.index(name)]),
                "peak_evidence": explanation.peak(name),
                "has_evidence": explanation.has_evidence(name),
                "evidence_outside_film": explanation.padding_share(name),
            }
            for name in prediction.ranking
        ],
    }
    (folder / "explanation.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    painted = panel(explanation, chosen) if method == DEFAULT else overlay(explanation.film.display(), heat)
    Image.fromarray(painted).save(folder / "overlay.png")
    Image.fromarray(heatmap(heat)).save(folder / "heatmap.png")
