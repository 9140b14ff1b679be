"""From radiograph to the model's square without distortion, and back.

The letterbox keeps the image's proportions and fills the rest of the square with black. ``Placement`` keeps the
geometry, so that heat is drawn on the image at its own size and never in the padding.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch

from app.imaging.radiograph import Radiograph

__all__ = ["Placement", "letterbox", "normalise"]


@dataclass(frozen=True)
class Placement:
    """Where an image lies inside the model's square.

    Attributes:
        size: side of the square, in model pixels.
        image_height, image_width: the image's own size, in its own pixels.
        top, left, height, width: the part of the square that shows the image, in model pixels.
    """

    size: int
    image_height: int
    image_width: int
    top: int
    left: int
    height: int
    width: int

    @classmethod
    def fit(cls, image_height: int, image_width: int, size: int) -> Placement:
        """The largest undistorted, centred placement of an image in a square of ``size`` pixels."""
        scale = size / max(image_height, image_width)
        height = max(1, round(image_height * scale))
        width = max(1, round(image_width * scale))
        return cls(size, image_height, image_width, (size - height) // 2, (size - width) // 2, height, width)

    def crop(self, square: np.ndarray) -> np.ndarray:
        """The part of a square (size, size) that shows the image: (height, width), a view."""
        return square[self.top : self.top + self.height, self.left : self.left + self.width]

    def onto_image(self, class_map: np.ndarray) -> np.ndarray:
        """A map of the whole square, float (h, w), laid on the image; what lies in the padding is cut off.

        Returns:
            float32, (image_height, image_width), bicubic, so that a maximum between two cells is drawn between them,
            not at either; it may exceed the map's range a little.
        """
        square = cv2.resize(class_map.astype(np.float32), (self.size, self.size), interpolation=cv2.INTER_CUBIC)
        return cv2.resize(self.crop(square), (self.image_width, self.image_height), interpolation=cv2.INTER_LINEAR)

    def padding(self, height: int, width: int) -> np.ndarray:
        """Share of each cell of a map (height, width) that lies in the padding: float32, 0 to 1."""
        square = np.ones((self.size, self.size), np.float32)
        self.crop(square)[:] = 0.0
        return cv2.resize(square, (width, height), interpolation=cv2.INTER_AREA)


def _equalised(brightness: np.ndarray) -> np.ndarray:
    """Contrast-limited adaptive histogram equalisation (Zuiderveld, 1994): float32 in 0..1, in and out."""
    levels = np.round(brightness * 255.0).astype(np.uint8)
    return cv2.createCLAHE(clipLimit=2.0, tileGridSize=(8, 8)).apply(levels).astype(np.float32) / 255.0


def letterbox(
    film: Radiograph, size: int, equalise: bool = False, colour: bool = False
) -> tuple[np.ndarray, Placement]:
    """A radiograph of any size in a black square.

    Args:
        film: the radiograph.
        size: side of the square in pixels.
        equalise: spread each region's contrast, for networks that were trained so; of a picture in grey.
        colour: keep colours, for networks that see them; a picture without any then has three channels alike.

    Returns:
        float32 (size, size), in colour (size, size, 3), in 0..1, and the Placement that leads back.
    """
    placement = Placement.fit(film.height, film.width, size)
    shrinks = placement.height < film.height or placement.width < film.width
    how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    inside = placement.width, placement.height
    if colour and film.colours is not None:
        square = np.zeros((size, size, 3), np.float32)
        placement.crop(square)[:] = cv2.resize(film.colours, inside, interpolation=how) / np.float32(255.0)
        return square, placement
    square = np.zeros((size, size), np.float32)
    brightness = film.brightness(cv2.resize(film.pixels, inside, interpolation=how))
    placement.crop(square)[:] = _equalised(brightness) if equalise else brightness
    return (np.repeat(square[:, :, None], 3, axis=2) if colour else square), placement


def normalise(brightness: torch.Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> torch.Tensor:
    """Grey brightness, or colours, to the three normalised channels that the networks take.

    Args:
        brightness: float (N, 1, H, W), or (N, 3, H, W) of colours, in 0..1.
        mean, std: per channel, in units of brightness, from the model's card.

    Returns:
        float (N, 3, H, W).
    """
    centre = brightness.new_tensor(mean).view(1, -1, 1, 1)
    spread = brightness.new_tensor(std).view(1, -1, 1, 1)
    return (brightness - centre) / spread
