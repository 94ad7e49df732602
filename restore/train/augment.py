"""Turn a photograph into a square training crop, differently each time.

Every change of geometry is one perspective matrix, so a picture is resampled once only; changes of light follow it.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Plane = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Augmentation:
    """How much a crop may differ from its photograph."""

    crop_area: float = 0.35
    """Smallest share of a photograph that a crop covers."""
    crop_aspect: float = 1.33
    """Largest change of the aspect ratio: hides that some photographs come squashed."""
    flip: float = 0.5
    """Share mirrored left to right."""


def augment(picture: NDArray[np.uint8], pixels: int, settings: Augmentation, rng: np.random.Generator) -> Plane:
    """Return a square crop of a photograph.

    Args:
        picture: Shape (H, W, 3), sRGB-coded.
        pixels: Side of the crop.
        settings: How much it may change.
        rng: All chance comes from here.

    Returns:
        Shape (pixels, pixels, 3), [0, 1].
    """
    height, width = picture.shape[:2]
    side = np.sqrt(height * width * rng.uniform(settings.crop_area, 1))
    stretch = np.exp(rng.uniform(-1, 1) * np.log(settings.crop_aspect) / 2)
    high, wide = min(height, round(side / stretch)), min(width, round(side * stretch))
    top, left = rng.integers(height - high + 1), rng.integers(width - wide + 1)
    cut = picture[top : top + high, left : left + wide]
    method = cv2.INTER_AREA if min(high, wide) > pixels else cv2.INTER_LINEAR
    square = np.asarray(cv2.resize(cut, (pixels, pixels), interpolation=method), np.float32) / np.float32(255)
    return np.ascontiguousarray(square[:, ::-1] if rng.random() < settings.flip else square)
