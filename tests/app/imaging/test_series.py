from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from pydicom.uid import generate_uid

from app.errors import ImageError
from app.imaging import series as slices
from app.imaging.dicom import CT_WINDOWS
from app.imaging.examples import draw as phantom
from app.imaging.series import OWN_WINDOW, Slices, gather
from tests.app.imaging.test_dicom import RAMP, made, written


@pytest.fixture
def series(tmp_path: Path) -> list[Path]:
    """Five slices of a CT, named against their order in the body."""
    paths = []
    for number in range(5):
        marked = RAMP.copy()
        marked[:8, :8] = -900 + 300 * number
        dataset = made(
            marked,
            Modality="CT",
            WindowCenter=0,
            WindowWidth=2000,
            ImagePositionPatient=[0, 0, 3.0 * number],
            ImageOrientationPatient=[1, 0, 0, 0, 1, 0],
        )
        path = tmp_path / f"{9 - number}.dcm"
        path.write_bytes(written(dataset))
        paths.append(path)
    return sorted(paths)


def test_a_series_lies_as_in_the_body_and_opens_in_its_middle(series: list[Path]) -> None:
    found = gather(series)
    assert [Path(path).stem for path, _ in found.places] == ["9", "8", "7", "6", "5"]
    assert found.shown == 2
    assert found.windows == tuple(CT_WINDOWS)
    corners = [float(found.choose(i, OWN_WINDOW).radiograph().brightness()[:8, :8].mean()) for i in range(5)]
    assert corners == sorted(corners)
    assert corners[0] < corners[4] - 0.4
    bone = found.choose(0, "Bone").radiograph().brightness()
    assert not np.allclose(bone, found.choose(0, OWN_WINDOW).radiograph().brightness(), atol=0.05)
    assert found.choose(99, "Vessels") == Slices(found.places, found.windows, 4, OWN_WINDOW)


def test_frames_of_one_file_are_looked_through(tmp_path: Path) -> None:
    path = tmp_path / "frames"
    path.write_bytes(written(made(np.stack([RAMP, RAMP[::-1], RAMP.T]))))
    found = gather([path])
    assert [frame for _, frame in found.places] == [0, 1, 2]
    assert found.shown == 0
    assert found.choose(1, OWN_WINDOW).radiograph().brightness()[0].mean() > 0.9


def test_a_picture_is_a_slice_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "film.png"
    cv2.imwrite(str(path), phantom("jagged", seed=1, height=200, width=150))
    found = gather([path])
    assert found == Slices(((str(path), 0),))
    assert found.radiograph().width == 150


def test_what_is_no_series_is_refused(series: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture, other = tmp_path / "film.png", tmp_path / "other.dcm"
    cv2.imwrite(str(picture), phantom("jagged", seed=1, height=200, width=150))
    other.write_bytes(written(made(RAMP, Modality="MR")))
    stranger = tmp_path / "stranger.dcm"
    stranger.write_bytes(written(made(RAMP, Modality="CT", SeriesInstanceUID=generate_uid())))
    many = tmp_path / "many.dcm"
    many.write_bytes(written(made(RAMP, NumberOfFrames=2**31 - 1)))
    # What a file claims and does not hold is not counted.
    assert len(gather([many]).places) == 1
    many.write_bytes(written(made(np.stack([RAMP] * 3))))
    for paths, words in (
        ([], "No file"),
        ([*series, picture], "only if all"),
        ([*series, other], "not slices of one series"),
        ([series[0], stranger], "not slices of one series"),
        ([tmp_path / "gone.dcm"], "no such file"),
    ):
        with pytest.raises(ImageError, match=words):
            gather(paths)
    monkeypatch.setattr(slices, "MOST_PICTURES", 2)
    with pytest.raises(ImageError, match="3 pictures; at most 2"):
        gather([many])
    monkeypatch.setattr(slices, "MOST_FILES", 3)
    with pytest.raises(ImageError, match="at most 3"):
        gather(series)
