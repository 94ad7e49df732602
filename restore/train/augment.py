"""Turn a photograph into a square training crop, differently each time.

Every change of geometry is part of one perspective matrix, so a picture is resampled once only; light follows from a
table of code values.

Source: the transforms of fastai v1 with the strengths that DeOldify sets (rotation, symmetric warp, zoom, light);
the change of aspect is ours.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from restore.errors import ConfigError

Plane = NDArray[np.float32]
Matrix = NDArray[np.float64]

_SQUARE = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]], np.float32)


@dataclass(frozen=True, slots=True)
class Augmentation:
    """How much a crop may differ from its photograph; the defaults are the published strengths."""

    crop_area: float = 0.35
    """Smallest share of a photograph that a crop covers; 1 is the largest square that fits, as published."""
    crop_aspect: float = 1.33
    """Largest change of the aspect ratio: hides that some photographs come squashed; 1 is none, as published."""
    flip: float = 0.5
    """Share mirrored left to right."""
    share: float = 0.75
    """How often each of the following is applied, one by one; 0 switches all of them off."""
    rotation: float = 10.0
    """Largest angle, degrees."""
    warp: float = 0.25
    """Largest change of an edge's length, as a share of it: a camera that looks up, down or aside."""
    zoom: float = 1.2
    """Largest enlargement after the crop."""
    brightness: float = 0.25
    """Largest shift of a middle grey of 0.5, below 0.5; changes the colours to be learned too."""
    contrast: float = 2.0
    """Largest factor of contrast, or its inverse, about the middle; changes the colours to be learned too."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        shares = {"crop_area": self.crop_area, "flip": self.flip, "share": self.share}
        ranges = {name: (value, 0.0, 1.0) for name, value in shares.items()} | {
            "rotation": (self.rotation, 0.0, 45.0),
            "warp": (self.warp, 0.0, 0.5),
            "brightness": (self.brightness, 0.0, 0.49),
            **{name: (getattr(self, name), 1.0, 4.0) for name in ("crop_aspect", "zoom", "contrast")},
        }
        for name, (value, low, high) in ranges.items():
            if not low <= value <= high:
                raise ConfigError(f"{name} must be between {low:g} and {high:g}, not {value:g}")


PLAIN = Augmentation(share=0.0)
"""Crop, aspect and mirror only: one sampling, light and colours as in the photograph."""


@dataclass(frozen=True, slots=True)
class View:
    """Where in a photograph a crop lies, and how its light is changed."""

    matrix: Matrix
    """From the crop, [-1, 1] right and down, to the photograph, pixels from its top left corner; shape (3, 3)."""
    scale: float
    """Photograph pixels across the crop, about."""
    shift: float
    """Added to the logit of every code value."""
    slope: float
    """Multiplies the logit of every code value."""


def draw(width: int, height: int, settings: Augmentation, rng: np.random.Generator) -> View:
    """Choose a crop of a photograph of `width` x `height` pixels."""
    side = math.sqrt(height * width * rng.uniform(settings.crop_area, 1))
    stretch = math.exp(rng.uniform(-1, 1) * math.log(settings.crop_aspect) / 2)
    wide, high = side * stretch, side / stretch
    fit = min(1.0, width / wide, height / high)
    wide, high = wide * fit, high * fit
    x, y = rng.random() * (width - wide), rng.random() * (height - high)
    place = np.array([[wide / 2, 0, x + wide / 2], [0, high / 2, y + high / 2], [0, 0, 1]])
    mirror = np.diag([-1.0 if rng.random() < settings.flip else 1.0, 1.0, 1.0])

    # Every number is drawn whether it is used or not: what follows does not depend on what is switched on.
    used = rng.random(5) < settings.share
    angle, *warp = rng.uniform(-1, 1, 5)
    zoom, corner = rng.uniform(1, settings.zoom), rng.uniform(-1, 1, 2)
    shift, slope = rng.uniform(0.5 - settings.brightness, 0.5 + settings.brightness), rng.uniform(-1, 1)
    zoom = float(zoom) if used[2] else 1.0
    matrix = place @ _warped(settings.warp * np.array(warp) * used[1])
    matrix = matrix @ _rotated(settings.rotation * angle * used[0]) @ _zoomed(zoom, corner) @ mirror
    return View(
        matrix,
        math.sqrt(wide * high) / zoom,
        math.log(shift / (1 - shift)) if used[3] else 0.0,
        settings.contrast**slope if used[4] else 1.0,
    )


def crop(picture: NDArray[np.uint8], view: View, pixels: int, reduced: int = 1) -> Plane:
    """Cut a view out of a photograph; what lies outside is its mirror image.

    Args:
        picture: Shape (H, W, 3), sRGB-coded.
        view: Where the crop lies.
        pixels: Side of the crop.
        reduced: The picture's pixels are this many of the photograph's.

    Returns:
        Shape (pixels, pixels, 3), [0, 1].
    """
    fine = max(1, math.ceil(view.scale / reduced / pixels - 0.25))  # samples across a pixel: none of the picture missed
    side = fine * pixels
    grid = np.array([[2 / side, 0, 1 / side - 1], [0, 2 / side, 1 / side - 1], [0, 0, 1]])
    sample = np.array([[1 / reduced, 0, -0.5], [0, 1 / reduced, -0.5], [0, 0, 1]])
    method = cv2.INTER_CUBIC if fine == 1 else cv2.INTER_LINEAR
    square = cv2.warpPerspective(
        picture, sample @ view.matrix @ grid, (side, side),
        flags=method | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REFLECT_101,
    )  # fmt: skip
    if fine > 1:
        square = cv2.resize(square, (pixels, pixels), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.LUT(square, _light(view)), np.float32)


def reduction(view: View, pixels: int) -> int:
    """Return by how much a JPEG may be shrunk while it is decoded: 1, 2, 4 or 8, a pixel of the crop never finer."""
    return max(r for r in (1, 2, 4, 8) if r == 1 or view.scale / r >= pixels)


def _light(view: View) -> Plane:
    """Return what becomes of each code value, shape (256,)."""
    code = np.arange(256, dtype=np.float32) / np.float32(255)
    if (view.shift, view.slope) == (0.0, 1.0):
        return code
    inside = np.clip(code, 1e-4, 1 - 1e-4)
    return np.asarray(1 / (1 + np.exp(-view.slope * np.log(inside / (1 - inside)) - view.shift)), np.float32)


def _rotated(degrees: float) -> Matrix:
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])


def _zoomed(factor: float, corner: NDArray[np.float64]) -> Matrix:
    """Enlarge by `factor`; the part that stays visible lies anywhere between the corners."""
    x, y = (1 - 1 / factor) * corner
    return np.array([[1 / factor, 0, x], [0, 1 / factor, y], [0, 0, 1]])


def _warped(change: NDArray[np.float64]) -> Matrix:
    """Lengthen or shorten the top, right, bottom and left edge about its middle by a share of it."""
    top, right, bottom, left = 1 + change
    corners = [[-top, -left], [top, -right], [bottom, right], [-bottom, left]]
    return np.asarray(cv2.getPerspectiveTransform(_SQUARE, np.array(corners, np.float32)), np.float64)
