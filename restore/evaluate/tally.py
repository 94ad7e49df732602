"""Counts over the pixels of many pictures, from which whole-set measures follow in one pass."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

Plane = NDArray[np.float32]

LIMIT = 150.0
"""Largest threshold of the AuC, in units of ab."""
_BIN = 10.0
"""Width of a colour, in units of ab; the grid of the published prior."""
_BINS = 25
"""Along each axis, the middle one around grey; enough for all of sRGB."""
_SIGMA = 5.0
"""Of the Gaussian that smooths the prior, in units of ab."""
_STEP, _STEPS = 0.25, 800
"""Resolution of the counts of chroma, and their number: to 200, past all of sRGB."""
_RARE = 0.001
"""Share of the truth's pixels that are beyond the chroma of an outlier."""


class ColorTally:
    """What the AuC, rebalanced too, are made of: how near the pixels of every true colour are coloured to it."""

    def __init__(self) -> None:
        self._count = np.zeros(_BINS * _BINS)
        self._near = np.zeros(_BINS * _BINS)

    def add(self, truth: Plane, distance: Plane) -> None:
        """Take the true ab, shape (2, H, W), and the distance to it in the ab plane, shape (H, W)."""
        cells = np.clip(np.rint(truth / _BIN).astype(np.int64) + _BINS // 2, 0, _BINS - 1)
        cell = (cells[0] * _BINS + cells[1]).ravel()
        self._count += np.bincount(cell, minlength=_BINS * _BINS)
        self._near += np.bincount(cell, nearness(distance).ravel(), _BINS * _BINS)

    @property
    def auc(self) -> float:
        """Percent: area under the share of pixels nearer than a threshold, thresholds 0 to 150.

        Source: Zhang, Isola and Efros 2016, "Colorful Image Colorization", 3.1, raw accuracy.
        """
        return float(100 * self._near.sum() / self._count.sum())

    @property
    def rebalanced(self) -> float:
        """The same with each pixel weighted by the inverse of its true colour's prior.

        The prior is that of the truths in this very tally, in colours 10 units wide, smoothed.

        Source: the same, 3.1, with the weights of equation 4 for lambda = 0 and the prior's Gaussian of sigma 5.
        """
        square = self._count.reshape(_BINS, _BINS)
        prior = cv2.GaussianBlur(square, (5, 5), _SIGMA / _BIN, borderType=cv2.BORDER_CONSTANT).ravel()
        weight = np.divide(1, prior, out=np.zeros_like(prior), where=self._count > 0)
        return float(100 * (weight * self._near).sum() / (weight * self._count).sum())


def nearness(distance: Plane) -> Plane:
    """Return the part of the thresholds 0 to 150 that a distance lies within, 0 to 1."""
    return np.asarray(1 - np.minimum(distance, LIMIT) / LIMIT, np.float32)


class ChromaTally:
    """How many pixels have which chroma."""

    def __init__(self) -> None:
        self._count = np.zeros(_STEPS, np.int64)

    def add(self, ab: Plane) -> None:
        """Take the pixels of a picture, shape (2, H, W)."""
        place = (np.hypot(ab[0], ab[1]) / _STEP).astype(np.int64)
        self._count += np.bincount(np.minimum(place, _STEPS - 1).ravel(), minlength=_STEPS)

    @property
    def bound(self) -> float:
        """The chroma that at most one in a thousand pixels exceeds: the 99.9th percentile, to a quarter of a unit."""
        beyond = self._count[::-1].cumsum()[::-1]  # pixels in this step and above
        return _STEP * int(np.argmax(np.append(beyond, 0) <= _RARE * self._count.sum()))

    def beyond(self, bound: float) -> float:
        """Return the percentage of pixels whose chroma exceeds `bound`."""
        return float(100 * self._count[round(bound / _STEP) :].sum() / self._count.sum())
