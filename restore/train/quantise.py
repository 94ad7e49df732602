"""The colours of the 2016 classification network: 313 points of a grid in the ab plane.

Source: Zhang, Isola and Efros 2016, "Colorful Image Colorization", 2.2 and 2.3. Soft encoding and rebalancing over any
set of bins are in `restore.train.losses`; the annealed mean is in the generators.
"""

from __future__ import annotations

from functools import cache

import cv2
import numpy as np
import torch
from torch import Tensor

from restore.color import lab_from_rgb

STEP = 10
"""Distance between neighbours in the grid, ab units."""


@cache
def grid() -> Tensor:
    """Return the in-gamut points of the grid, shape (313, 2), ab, in the published order: by a, then by b.

    They are the corners of all squares of the grid that the convex hull of the sRGB gamut touches, which gives the
    published list; it reaches up to a square beyond the gamut, so that every colour lies among four points.
    """
    corners = np.array([(a, b) for a in (-STEP, STEP) for b in (-STEP, STEP)], np.float32)
    reach = cv2.convexHull((_gamut()[:, None] + corners).reshape(-1, 2))
    axis = np.arange(-128 // STEP * STEP, 128, STEP, dtype=np.float32)
    points = [(a, b) for a in axis for b in axis if cv2.pointPolygonTest(reach, (float(a), float(b)), False) >= 0]
    return torch.tensor(points)


def _gamut(side: int = 65) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    """Return ab, shape (N, 2), of the faces of the R'G'B' cube: no other colours lie farther out."""
    axis = torch.linspace(0, 1, side)
    one, two = torch.meshgrid(axis, axis, indexing="ij")
    faces = [torch.stack((one, two, torch.full_like(one, end))).roll(place, 0) for end in (0, 1) for place in range(3)]
    ab = lab_from_rgb(torch.stack(faces))[:, 1:]
    return ab.permute(0, 2, 3, 1).reshape(-1, 2).numpy().astype(np.float32)


def smoothed(prior: Tensor, bins: Tensor, sigma: float = 5.0) -> Tensor:
    """Spread how common each bin is over its neighbours.

    Args:
        prior: Shares of all pixels, shape (K,), sum 1.
        bins: Colours, shape (K, 2), ab.
        sigma: Width of the Gaussian, ab units.

    Returns:
        Shape (K,), sum 1.
    """
    spread = torch.softmax(-torch.cdist(bins, bins).square() / (2 * sigma**2), 1)
    return prior @ spread
