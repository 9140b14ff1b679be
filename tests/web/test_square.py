"""What JavaScript makes of pixels and maps is what OpenCV makes of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import pytest

from app.imaging.letterbox import Placement, letterbox
from app.imaging.radiograph import Radiograph

LETTERBOX = """
import {{ letterbox }} from "./square.js";
const {{ grey, colours, height, width, window, size, colour }} = given;
const kind = {kind};
const picture = {{ grey: kind.from(grey), colours: colours && Uint8Array.from(colours), height, width, window }};
const {{ square, place }} = letterbox(picture, size, colour);
const answer = {{ square: [...square], place }};
"""
SHAPES = [
    (512, 384),
    (768, 576),
    (192, 192),
    (700, 501),
    (1000, 333),
    (97, 160),
    (96, 96),
    (60, 41),
    (192, 150),
    (33, 400),
]


def boxed(in_node: Callable[..., Any], film: Radiograph, size: int, colour: bool) -> tuple[np.ndarray, dict[str, int]]:
    kind = "Uint8Array" if film.pixels.dtype == np.uint8 else "Uint16Array"
    colours = None if film.colours is None else film.colours.ravel().tolist()
    found = in_node(
        LETTERBOX.format(kind=kind),
        grey=film.pixels.ravel().tolist(),
        colours=colours,
        height=film.height,
        width=film.width,
        window=film.window,
        size=size,
        colour=colour,
    )
    return np.array(found["square"], np.float32).reshape(-1, size, size), found["place"]


@pytest.mark.parametrize(("height", "width"), SHAPES)
def test_the_letterbox_is_opencvs(in_node: Callable[..., Any], height: int, width: int) -> None:
    pixels = np.random.default_rng(height).integers(0, 256, (height, width)).astype(np.uint8)
    film = Radiograph(pixels, (0, 255))
    square, place = boxed(in_node, film, 96, colour=False)
    ours, placement = letterbox(film, 96)
    assert place == {key: getattr(placement, key) for key in ("size", "top", "left", "height", "width")}
    assert (square[0] == ours).all()


def test_the_letterbox_of_sixteen_bits_is_windowed(in_node: Callable[..., Any]) -> None:
    pixels = np.random.default_rng(1).integers(900, 3000, (300, 200)).astype(np.uint16)
    film = Radiograph(pixels, (1000.0, 2500.5))
    square, _ = boxed(in_node, film, 96, colour=False)
    assert square[0] == pytest.approx(letterbox(film, 96)[0], abs=1.1 / 1500.5)


@pytest.mark.parametrize("colours", [True, False])
def test_networks_that_see_colours_get_them(in_node: Callable[..., Any], colours: bool) -> None:
    picture = np.random.default_rng(2).integers(0, 256, (120, 170, 3)).astype(np.uint8)
    film = Radiograph(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), (0, 255), colours=picture if colours else None)
    square, _ = boxed(in_node, film, 96, colour=True)
    ours = letterbox(film, 96, colour=True)[0].transpose(2, 0, 1)
    assert (square == ours).all()


@pytest.mark.parametrize(("height", "width"), [(300, 200), (90, 250), (50, 50)])
def test_a_map_lies_on_the_image_as_opencv_lays_it(in_node: Callable[..., Any], height: int, width: int) -> None:
    found = np.random.default_rng(3).normal(0.0, 10.0, (12, 12)).astype(np.float32)
    lines = """
    import { fit, imageShare, ontoImage } from "./square.js";
    const place = fit(given.height, given.width, 96);
    const laid = ontoImage(Float32Array.from(given.map), 12, 12, place, given.height, given.width);
    const answer = { laid: [...laid], shows: [...imageShare(12, 12, place)] };
    """
    told = in_node(lines, map=found.ravel().tolist(), height=height, width=width)
    placement = Placement.fit(height, width, 96)
    assert np.reshape(told["laid"], (height, width)) == pytest.approx(placement.onto_image(found), abs=1e-4)
    assert np.reshape(told["shows"], (12, 12)) == pytest.approx(1.0 - placement.padding(12, 12), abs=1e-6)
