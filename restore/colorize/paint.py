"""Turn ab into chroma planes for the luma that is there, inside the gamut."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from restore import color
from restore.allocator import paged
from restore.clip import Clip, Color, Plane, Siting, Subsampling, chroma_shape
from restore.stage import Writes

_OFFSETS: dict[Siting, tuple[float, float]] = {
    "left": (0.0, 0.5),
    "center": (0.5, 0.5),
    "topleft": (0.0, 0.0),
    "top": (0.5, 0.0),
}
"""Distance in luma samples, right and down, from the first luma sample to the first 4:2:0 chroma sample.

Source: ITU-T H.273, figures 2 to 5 (chroma_sample_loc_type 0 to 3). In 4:2:2 the vertical distance is 0.
"""

_BAND = 32
"""Chroma rows worked on at a time, so that intermediate planes stay in a core's cache."""


@dataclass(frozen=True)
class Paint:
    """Write chroma from ab, for the luma that is kept.

    Each chroma sample takes L* from the luma at its place, and is scaled toward neutral until every pixel that it
    colours lies inside the R'G'B' cube, also after rounding and between samples.
    """

    name: ClassVar[str] = "paint"
    writes: ClassVar[Writes] = "chroma"

    subsampling: Subsampling = "420"
    """Chroma grid to fill; the profile of the output sets it."""
    saturation: float = 1.0
    """Factor on ab, 0 to 2; 1 is what the generator says."""

    def __post_init__(self) -> None:
        if self.subsampling not in ("420", "422", "444"):
            raise ValueError(f"subsampling must be 420, 422 or 444, got {self.subsampling!r}")
        if not 0 <= self.saturation <= 2:
            raise ValueError(f"saturation must be between 0 and 2, got {self.saturation}")

    @property
    def radius(self) -> int:
        return 0

    def __call__(self, clip: Clip) -> Clip:
        if clip.ab is None:
            raise ValueError("nothing to paint: no colorizer has run before paint")
        height, width = clip.luma.shape[1:]
        grid = _Grid.of(height, width, self.subsampling, clip.color.siting)
        chroma = paged((len(clip), 2, *grid.shape), clip.luma.dtype)
        for frame, luma, ab in zip(chroma, clip.luma, clip.ab, strict=True):
            self._frame(luma, ab, clip.color, grid, frame)
        return clip.with_planes(chroma=chroma)

    def _frame(self, luma: Plane, ab: NDArray[np.float32], what: Color, grid: _Grid, chroma: Plane) -> None:
        """Fill Cb and Cr of one frame, shape (2, h, w), with code values."""
        luma_planes = [torch.from_numpy(plane) for plane in grid.luma(luma)]
        ab_planes = [torch.from_numpy(grid.resample(channel)) for channel in ab]
        for top in range(0, grid.shape[0], _BAND):
            rows = slice(top, top + _BAND)
            chroma[:, rows] = self._band([p[rows] for p in luma_planes], [p[rows] for p in ab_planes], what).numpy()

    def _band(self, luma_planes: list[Tensor], ab_planes: list[Tensor], what: Color) -> Tensor:
        mean, low, high = (color.unit_luma(plane, what).clamp_(0, 1) for plane in luma_planes)
        a, b = (plane * self.saturation for plane in ab_planes)
        rgb = color.rgb_from_lab(torch.stack((color.lightness(mean), a, b)), what.primaries)
        _, cb, cr = color.ycbcr_from_rgb(rgb, what.matrix)
        neutral, span = color.chroma_scale(what)
        # Rounding moves Cb and Cr by half a code, hence R', G' and B' by at most 0.5 * 2 * (1 - Kb) codes.
        share = color.gamut_share(cb, cr, low, high, what.matrix, margin=1.0 / span)
        return torch.stack((cb, cr)).mul_(share).mul_(span).add_(neutral).round_()


@dataclass(frozen=True)
class _Grid:
    """Where the chroma samples of a frame lie."""

    height: int
    width: int
    step: tuple[int, int]
    """Luma samples per chroma sample, across and down."""
    offset: tuple[float, float]
    shape: tuple[int, int]

    @classmethod
    def of(cls, height: int, width: int, subsampling: Subsampling, siting: Siting) -> _Grid:
        across, down = (1 if subsampling == "444" else 2), (2 if subsampling == "420" else 1)
        right, below = _OFFSETS[siting]
        offset = (right if across == 2 else 0.0, below if down == 2 else 0.0)
        return cls(height, width, (across, down), offset, chroma_shape(height, width, subsampling))

    def luma(self, luma: Plane) -> tuple[NDArray[Any], ...]:
        """Return the mean of the luma at each sample, and the least and greatest over the pixels it colours.

        A pixel is coloured by a sample if linear interpolation of chroma gives the sample a weight there.
        """
        if self.step == (1, 1):
            plane = luma.astype(np.float32)
            return plane, plane, plane
        across, down = (_taps(step, at) for step, at in zip(self.step, self.offset, strict=True))
        kernel = np.ones((len(down[1]), len(across[1])), np.uint8)
        anchor = (-across[2], -down[2])
        low, high = (
            operation(luma, kernel, anchor=anchor, borderType=cv2.BORDER_REPLICATE)
            for operation in (cv2.erode, cv2.dilate)
        )
        mean = cv2.sepFilter2D(
            luma, cv2.CV_32F, across[0], down[0], anchor=(-across[3], -down[3]), borderType=cv2.BORDER_REPLICATE
        )
        pick = slice(None, None, self.step[1]), slice(None, None, self.step[0])
        return np.ascontiguousarray(mean[pick]), low[pick].copy(), high[pick].copy()

    def resample(self, plane: NDArray[np.float32]) -> NDArray[np.float32]:
        """Interpolate a plane that covers the whole frame, shape (s, t), at the chroma samples."""
        (rows, columns), (across, down), (right, below) = plane.shape, self.step, self.offset
        x, y = columns / self.width, rows / self.height
        if across * x > 1 or down * y > 1:  # finer than the chroma grid: take the mean around a sample, not a point
            sigma = max(across * x / 2, 0.1), max(down * y / 2, 0.1)
            plane = cv2.GaussianBlur(plane, (0, 0), sigma[0], sigmaY=sigma[1])  # type: ignore[assignment]
        where = np.array([[across * x, 0, (right + 0.5) * x - 0.5], [0, down * y, (below + 0.5) * y - 0.5]])
        how = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        h, w = self.shape
        return cv2.warpAffine(plane, where, (w, h), flags=how, borderMode=cv2.BORDER_REPLICATE)  # type: ignore[return-value]


def _taps(step: int, offset: float) -> tuple[NDArray[np.float32], range, int, int]:
    """Return, along one axis: the averaging kernel, the support, and the first luma sample of each, from the pixel."""
    if step == 1:
        return np.ones(1, np.float32), range(1), 0, 0
    if offset == 0.0:
        return np.array([0.25, 0.5, 0.25], np.float32), range(-1, 2), -1, -1
    return np.array([0.5, 0.5], np.float32), range(-1, 3), -1, 0
