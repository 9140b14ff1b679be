from __future__ import annotations

import hashlib
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import jsonschema
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from app.cli import cli
from app.document import Document
from app.errors import Cancelled, ChoiceError, ImageError, Progress, RejectedError, WeightsError
from app.explain import methods
from app.explain.overlay import levels, palette
from app.imaging.examples import draw
from app.imaging.letterbox import letterbox
from app.imaging.radiograph import MAX_BYTES, Radiograph
from app.model.classifier import Classifier
from app.model.ood import Detector, DetectorCard, backbone
from app.model.reliability import how_sure
from app.model.weights import PredictionSets, PresencePoints
from app.pipeline import OpenedImage, Result, explain_image, heatmap_png, load_classifier, open_image
from app.result_folders import Source
from tests.app.imaging.test_dicom import made, written

SCHEMA = Path(__file__).parents[2] / "docs" / "explanation.schema.json"


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def valid(document: dict[str, Any]) -> None:
    """Fails unless a producer's answer is laid out as the committed schema says."""
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator(schema).validate(document)


@pytest.fixture
def drawing(tmp_path: Path) -> Path:
    path = tmp_path / "arm.png"
    cv2.imwrite(str(path), draw("oblique", height=240, width=120))
    return path


@pytest.fixture(scope="module")
def strict(classifier: Classifier) -> Classifier:
    """A model for which no image at all is in distribution."""
    card = DetectorCard(file="detector.safetensors", sha256="0" * 64, size=96, warning=-1.0, rejection=-1.0)
    return Classifier(classifier.network, classifier.card, Detector(backbone(), torch.zeros(512), 0.0, card))


def test_the_committed_schema_is_that_of_the_models() -> None:
    """``docs/json.md`` says how it is written anew."""
    assert SCHEMA.read_text(encoding="utf-8") == json.dumps(Document.model_json_schema(), indent=1) + "\n"


def test_every_producer_keeps_to_the_schema(
    drawing: Path, tmp_path: Path, classifier: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.cli._load", lambda *_: classifier)
    for method in ("gradcam", "finercam", "layercam"):
        result = explain_image(drawing, model=classifier, method=method)
        valid(result.as_json())
        called = CliRunner().invoke(cli, ["explain", str(drawing), "--out", str(tmp_path / method), "--method", method])
        assert called.exit_code == 0, called.output
        written_down = json.loads((tmp_path / method / "arm" / "explanation.json").read_text())
        assert written_down == result.as_json(written_down["files"])
    with pytest.raises(jsonschema.ValidationError):
        valid({**written_down, "schema": 1})
    with pytest.raises(jsonschema.ValidationError):
        valid({**written_down, "more": 1})


def test_numbers_are_the_classifiers(film: Radiograph, classifier: Classifier) -> None:
    result = explain_image(film, model=classifier)
    explanation = classifier.explain([film])[0]
    prediction = explanation.prediction
    assert [kind["name"] for kind in result.as_json()["prediction"]["types"]] == list(prediction.ranking)
    for kind in result.as_json()["prediction"]["types"]:
        name = kind["name"]
        assert kind["probability"] == prediction.probability(name)
        assert kind["logit"] == float(prediction.logits[prediction.classes.index(name)])
        assert kind["peak_evidence"] == explanation.peak(name)
        assert kind["evidence_outside_image"] == explanation.padding_share(name)
    assert np.array_equal(result.heat, explanation.heat(prediction.best))
    assert result.as_json()["map"]["full_colour"] == explanation.full_colour


def test_every_kind_of_source_gives_the_same_numbers(drawing: Path, classifier: Classifier) -> None:
    data = drawing.read_bytes()
    sha256 = hashlib.sha256(data).hexdigest()
    with drawing.open("rb") as stream:
        found = [explain_image(each, model=classifier) for each in (drawing, str(drawing), stream, data)]
    found.append(explain_image(io.BytesIO(data), model=classifier))
    found.append(explain_image(open_image(drawing).radiograph, model=classifier))
    assert [result.source.name for result in found] == ["arm.png"] * 3 + [None] * 3
    assert [result.source.sha256 for result in found] == [sha256] * 5 + [None]
    assert len({json.dumps(result.as_json()["prediction"]) for result in found}) == 1


@pytest.mark.parametrize("method", ["gradcam", "layercam"])
def test_the_square_is_prepared_once(
    film: Radiograph, strict: Classifier, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    prepared = []

    def counted(*args: Any) -> Any:
        prepared.append(args)
        return letterbox(*args)

    monkeypatch.setattr("app.model.classifier.letterbox", counted)
    result = explain_image(film, model=strict, method=method, anyway=True)
    assert result.heat.shape == film.pixels.shape
    assert len(prepared) == 1


def test_another_method_is_drawn_for_the_type_that_is_asked_for(film: Radiograph, classifier: Classifier) -> None:
    result = explain_image(film, model=classifier, method="finercam", target="spiral", against="hairline")
    drawn = methods.draw(methods.map_request(classifier, film, "spiral", "hairline"), "finercam")
    assert np.array_equal(result.heat, methods.heat(drawn, result.explanation.placement))
    told = result.as_json()["map"]
    assert {name: told[name] for name in ("target", "against", "method", "full_colour")} == {
        "target": "spiral",
        "against": "hairline",
        "method": "finercam",
        "full_colour": None,
    }
    assert np.array_equal(result.raw, drawn)
    assert told["scale"] == pytest.approx(float(drawn.max()))


def test_an_image_out_of_distribution_needs_insisting(film: Radiograph, strict: Classifier) -> None:
    with pytest.raises(RejectedError):
        explain_image(film, model=strict)
    told = explain_image(film, model=strict, anyway=True).as_json()["ood"]
    assert told["state"] == "out-of-distribution"
    assert "do not believe" in told["words"]


def test_what_a_model_was_not_taught_is_null(film: Radiograph, classifier: Classifier) -> None:
    result = explain_image(film, model=classifier)
    untaught = result.as_json()
    assert untaught["ood"] == {"state": None, "words": None}
    assert untaught["fracture"] == {"finding": None, "words": None}
    assert untaught["prediction"]["possible_types"] is untaught["prediction"]["level"] is None
    assert untaught["prediction"]["confidence"] == how_sure(untaught["prediction"]["probability"])
    sets = PredictionSets(score="LAC", level=0.9, limit=1.0)
    card = classifier.card.model_copy(update={"sets": sets, "presence": PresencePoints(sensitive=0.0, specific=2.0)})
    seen = replace(result.explanation, fracture=np.zeros((1, 1), np.float32))
    taught = replace(result, card=card, explanation=seen).as_json()
    valid(taught)
    assert taught["fracture"] == {"finding": "suspicious", "words": "Possible fracture"}
    assert taught["prediction"]["possible_types"] == list(seen.prediction.ranking)
    assert taught["prediction"]["level"] == 0.9


def test_frames_and_windows_are_chosen(classifier: Classifier) -> None:
    scan = written(made(np.stack([draw("oblique", seed=1), draw("spiral", seed=2)])))
    first, second = (explain_image(scan, model=classifier, frame=frame) for frame in (None, 2))
    assert (first.source.frame, second.source.frame) == (1, 2)
    assert not np.array_equal(first.explanation.radiograph.pixels, second.explanation.radiograph.pixels)
    with pytest.raises(ChoiceError, match="no window 'bone'"):
        open_image(scan, window="bone")
    with pytest.raises(ChoiceError, match="from 1"):
        open_image(scan, frame=0)
    with pytest.raises(ImageError, match="no number 3"):
        open_image(scan, frame=3)
    with pytest.raises(ChoiceError, match="decoded already"):
        open_image(first.explanation.radiograph, frame=1)


def test_bad_input_is_a_sentence(drawing: Path, film: Radiograph, classifier: Classifier) -> None:
    with pytest.raises(ChoiceError, match="no method 'guess'"):
        explain_image(drawing, model=classifier, method="guess")
    with pytest.raises(ChoiceError, match="'sprain' is not a type"):
        explain_image(drawing, model=classifier, target="sprain")
    with pytest.raises(ChoiceError, match="told from itself"):
        explain_image(film, model=classifier, method="finercam", target="spiral", against="spiral")
    with pytest.raises(ChoiceError, match="no window 'bone'"):
        explain_image(drawing, model=classifier, window="bone")
    with pytest.raises(WeightsError, match="oracle"):
        load_classifier("oracle")
    with pytest.raises(ImageError, match="empty"):
        explain_image(b"", model=classifier)
    with pytest.raises(ImageError, match="More than 50 MB"):
        open_image(io.BytesIO(bytes(MAX_BYTES + 1)))
    with pytest.raises(ImageError, match="no such file"):
        open_image(drawing.with_name("none.png"))


def test_slow_methods_can_be_stopped(film: Radiograph, classifier: Classifier) -> None:
    progress = Progress()
    progress.stop()
    with pytest.raises(Cancelled):
        explain_image(film, model=classifier, method="occlusion", progress=progress)


def test_a_result_is_saved(film: Radiograph, classifier: Classifier, tmp_path: Path) -> None:
    result: Result = explain_image(OpenedImage(film, Source("arm.png")), model=classifier, method="layercam")
    (tmp_path / "report.pdf").write_bytes(b"of an earlier result")
    result.save(tmp_path, {"map.npy": b"more"})
    files = json.loads((tmp_path / "explanation.json").read_text())["files"]
    assert files == {path.name: sha256(path) for path in tmp_path.iterdir() if path.name != "explanation.json"}
    assert files.keys() == {"overlay.png", "heatmap.png", "map.npy"}
    assert json.loads((tmp_path / "explanation.json").read_text()) == result.as_json(files)
    assert cv2.imread(str(tmp_path / "overlay.png")).shape == (*film.pixels.shape, 3)
    assert cv2.imread(str(tmp_path / "heatmap.png"), cv2.IMREAD_UNCHANGED).shape == (*film.pixels.shape, 4)


def test_no_summary_lies_beside_parts_of_another_run(
    film: Radiograph, classifier: Classifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many of its files a run has written before it is broken off."""
    result = explain_image(film, model=classifier)
    write, left = Path.write_bytes, [0]

    def full(path: Path, data: bytes) -> int:
        if not left[0]:
            raise OSError("disk full")
        left[0] -= 1
        return write(path, data)

    monkeypatch.setattr(Path, "write_bytes", full)
    for count in range(4):
        left[0] = 9
        result.save(tmp_path, {"map.npy": b"more"})
        left[0] = count
        with pytest.raises(OSError, match="disk full"):
            result.save(tmp_path, {"map.npy": b"more"})
        assert not (tmp_path / "explanation.json").exists()
        assert len(list(tmp_path.iterdir())) == count


def test_the_heatmap_file_has_its_palette() -> None:
    heat = np.random.default_rng(0).random((40, 30)).astype(np.float32)
    heat[:10] = 0.0
    decoded = cv2.imdecode(np.frombuffer(heatmap_png(heat), np.uint8), cv2.IMREAD_UNCHANGED)
    assert np.array_equal(cv2.cvtColor(decoded, cv2.COLOR_BGRA2RGBA), palette()[levels(heat)])
    assert np.array_equal(decoded[..., 3], np.round(heat * 255.0).astype(np.uint8))
