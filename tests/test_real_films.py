"""What can only be checked on real films; skipped where FRACTURE_DATA is unset."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from app.cli import cli
from app.imaging.examples import held_out_images
from app.imaging.radiograph import read
from app.model.classifier import Classifier
from tests.conftest import SHIPPED
from training.evaluation.classification import evaluate


@pytest.mark.slow
@pytest.mark.parametrize("name", SHIPPED)
def test_the_cards_figures_come_out_again(name: str, real_films: Path, tmp_path: Path) -> None:
    """From the committed weights and the films alone, to the last film."""
    import shutil

    # All of them, since one model may check the pictures of another.
    shutil.copytree(Path("weights"), tmp_path, dirs_exist_ok=True)
    card = Classifier.load(name).card
    again = evaluate(name, real_films, tmp_path)
    for part in ("accuracy", "top3", "confusion", "per_class"):
        assert again.metrics["test"][part] == card.metrics["test"][part], part
    assert card.metrics["test"]["accuracy"]["low"] > card.metrics["test"]["chance_accuracy"]


def test_ten_test_films_are_explained_on_the_film(real_films: Path, tmp_path: Path) -> None:
    classifier = Classifier.load(SHIPPED[0])
    films = [path for path, _ in held_out_images(classifier.card.classes, real_films)][::14]
    assert len(films) == 10
    result = CliRunner().invoke(cli, ["explain", *map(str, films), "--out", str(tmp_path)])
    assert result.exit_code == 0, result.output
    assert len(result.stdout.splitlines()) == 10
    painted = 0
    for path in films:
        film = read(path)
        heat = cv2.imread(str(tmp_path / path.stem / "heatmap.png"), cv2.IMREAD_UNCHANGED)
        assert heat.shape[:2] == (film.height, film.width)
        painted += bool(heat[:, :, 3].max() > 25)
    assert painted >= 8


@pytest.mark.slow
def test_threads_and_batches_agree_on_the_shipped_model(real_films: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    classifier = Classifier.load(SHIPPED[0])
    films = [read(path) for path, _ in held_out_images(classifier.card.classes, real_films)[:50]]
    serial = [classifier.explain([film])[0] for film in films]
    for one, batched in zip(serial, classifier.explain(films), strict=True):
        assert np.abs(one.maps - batched.maps).max() < 1e-3
        assert one.prediction.best == batched.prediction.best
    with ThreadPoolExecutor(8) as pool:
        for parallel in pool.map(lambda _: [classifier.explain([film])[0] for film in films], range(8)):
            for one, other in zip(serial, parallel, strict=True):
                assert np.array_equal(one.maps, other.maps)
