"""Steady the colours in time: average a* and b* along the motion of the picture."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import cv2
import numpy as np
from numpy.typing import NDArray

from restore.clip import Clip, Plane
from restore.stage import Writes

Field = NDArray[np.float32]
Size = tuple[int, int]

FLOW_SIDE = 256
"""Longer side of the luma, in pixels, between which motion is found; a grid of ab is seldom finer."""
LEAST_SIDE = 32
"""Shorter side at least; a still smaller picture has no scales to search."""
CONTRAST_FLOOR = 5.0
"""Contrast of a frame, in 8-bit codes, below which its detail counts as grain rather than as picture."""


@dataclass(frozen=True)
class Smooth:
    """Average the ab of each frame with that of the frames around it, moved to where things are in this one.

    A neighbour counts less the farther it is in time, where the way there and back does not end where it began (what is
    hidden in one of the frames), and where the luma or the colour at the two ends differs. Luma is compared less its
    local mean and in units of the contrast of its frame, so that a film that flickers is smoothed as well.

    Sources: Kroeger et al., "Fast Optical Flow using Dense Inverse Search", ECCV 2016 (the flow); Sundaram, Brox,
    Keutzer, "Dense Point Trajectories by GPU-Accelerated Large Displacement Optical Flow", ECCV 2010 (there and back);
    Tomasi and Manduchi, "Bilateral Filtering for Gray and Color Images", ICCV 1998 (the weight of a difference).
    """

    name: ClassVar[str] = "smooth"
    writes: ClassVar[Writes] = "ab"

    radius: int = 4
    """Frames averaged on each side; 0 leaves the colours alone."""
    likeness: float = 0.5
    """Difference in luma, as a share of the frame's contrast, at which a neighbour's weight has fallen to 0.61."""
    consistency: float = 1.0
    """Distance between start and end of the way there and back, in pixels of ab, at which it has fallen to 0.61."""
    agreement: float = 15.0
    """Difference in colour, in units of Lab, at which it has fallen to 0.61: much more than generators flicker, and
    less than what a wrong motion would drag along, as skin onto a dress."""
    resaturation: float = 2.0
    """Where the colours of neighbours differ, their mean is greyer than they are; their chroma is given back up to this
    factor. 1 gives nothing back. Colours that contradict one another stay greyer."""

    def __post_init__(self) -> None:
        if self.radius < 0:
            raise ValueError(f"radius must be at least 0, got {self.radius}")
        if self.likeness <= 0:
            raise ValueError(f"likeness must be more than 0, got {self.likeness}")
        if self.consistency <= 0:
            raise ValueError(f"consistency must be more than 0, got {self.consistency}")
        if self.agreement <= 0:
            raise ValueError(f"agreement must be more than 0, got {self.agreement}")
        if self.resaturation < 1:
            raise ValueError(f"resaturation must be at least 1, got {self.resaturation}")

    def __call__(self, clip: Clip) -> Clip:
        if clip.ab is None:
            raise ValueError("smooth needs ab: put a stage that colours before it")
        if self.radius == 0 or len(clip) == 1:
            return clip
        size = clip.ab.shape[2], clip.ab.shape[3]
        gray = [_gray(frame, clip.color.depth) for frame in clip.luma]
        sheets = [_sheet(*planes, size) for planes in zip(clip.ab, gray, strict=True)]
        steps = self._steps(gray, size)
        return clip.with_planes(ab=np.stack([self._frame(t, sheets, steps) for t in range(len(clip))]))

    def _steps(self, gray: list[NDArray[np.uint8]], size: Size) -> dict[int, list[Field]]:
        """Find the motion from every frame to the next (key 1) and to the one before (key -1).

        Returns:
            At the index of the frame it starts from, shape (s, t, 3): offsets x and y in pixels of ab, and how far
            they are to be trusted, 0 to 1.
        """
        search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)  # per call: threads cannot share one
        search.setFinestScale(1)  # half of the flow's size, which is about that of ab
        nowhere = np.zeros((*size, 3), np.float32)
        ahead, back = [], [nowhere]
        for here, there in pairwise(gray):
            forward, backward = _flow(search, here, there, size), _flow(search, there, here, size)
            ahead.append(self._trusted(forward, backward))
            back.append(self._trusted(backward, forward))
        return {1: [*ahead, nowhere], -1: back}

    def _trusted(self, forward: Field, backward: Field) -> Field:
        """Join to a flow, as a third channel, whether the flow back leads to where it came from."""
        height, width = forward.shape[:2]
        x, y = _places(forward)
        gap = forward + _fetch(backward, x, y)
        lengths = _squares(forward)
        trust = np.exp(_squares(gap) / (-2 * (self.consistency**2 + 0.02 * lengths)))
        trust *= (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
        return np.dstack([forward, trust])

    def _frame(self, t: int, sheets: list[Field], steps: dict[int, list[Field]]) -> Field:
        """Return the ab of one frame, shape (2, s, t)."""
        own = sheets[t]
        total = own[..., :3].copy()
        """Sums of a*, b* and chroma, by weight."""
        weights = np.ones(own.shape[:2], np.float32)
        scales = np.array([self.agreement, self.agreement, np.inf, self.likeness], np.float32)
        for direction in (-1, 1):
            for distance, (trust, sheet) in enumerate(self._neighbours(t, direction, sheets, steps), 1):
                # of all kernels this long, a parabola leaves the least change from frame to frame
                nearness = np.float32(1 - (distance / (self.radius + 1)) ** 2)
                unlike = (sheet - own) / scales
                weight = nearness * trust * np.exp(_squares(unlike) / np.float32(-2))
                total += weight[..., None] * sheet[..., :3]
                weights += weight
        mean, chroma = total[..., :2], total[..., 2]
        lost = chroma / np.maximum(np.sqrt(_squares(mean)), np.float32(1e-6))
        gain = np.clip(lost, 1, np.float32(self.resaturation)) / weights
        return np.ascontiguousarray((mean * gain[..., None]).transpose(2, 0, 1))

    def _neighbours(
        self, t: int, direction: int, sheets: list[Field], steps: dict[int, list[Field]]
    ) -> Iterator[tuple[Field, Field]]:
        """Follow the motion away from a frame, and yield the trust in it and the sheet that it leads to."""
        step = steps[direction][t]
        trust = step[..., 2]
        x, y = _places(step)
        last = min(len(sheets) - 1, t + self.radius) if direction > 0 else max(0, t - self.radius)
        for i in range(t + direction, last + direction, direction):
            yield trust, _fetch(sheets[i], x, y)
            if i != last:
                step = _fetch(steps[direction][i], x, y)
                x, y, trust = x + step[..., 0], y + step[..., 1], trust * step[..., 2]


def _gray(luma: Plane, depth: int) -> NDArray[np.uint8]:
    """Resize a luma plane for the flow, to eight bits."""
    height, width = luma.shape
    scale = FLOW_SIDE / max(height, width)
    target = max(LEAST_SIDE, round(width * scale)), max(LEAST_SIDE, round(height * scale))
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    small = np.asarray(cv2.resize(luma, target, interpolation=how), np.uint16)
    return np.asarray(small >> (depth - 8), np.uint8)


def _sheet(ab: Field, gray: NDArray[np.uint8], size: Size) -> Field:
    """Lay a*, b*, chroma and the detail of the luma in units of its contrast over one another, shape (s, t, 4)."""
    height, width = size
    small = np.asarray(cv2.resize(gray, (width, height), interpolation=cv2.INTER_AREA), np.float32)
    around = max(3, width // 4) | 1
    detail = small - cv2.blur(small, (around, around), borderType=cv2.BORDER_REPLICATE)
    contrast = max(float(np.sqrt(np.mean(detail * detail, dtype=np.float64))), CONTRAST_FLOOR)
    return np.dstack([ab[0], ab[1], np.hypot(ab[0], ab[1]), detail / np.float32(contrast)])


def _flow(search: cv2.DISOpticalFlow, here: NDArray[np.uint8], there: NDArray[np.uint8], size: Size) -> Field:
    """Return where the pixels of a frame are in another: offsets x and y in pixels of ab, shape (s, t, 2)."""
    height, width = size
    flow = search.calc(here, there, np.zeros((*here.shape, 2), np.float32))
    scale = np.array([width / here.shape[1], height / here.shape[0]], np.float32)
    return np.asarray(cv2.resize(flow, (width, height), interpolation=cv2.INTER_AREA), np.float32) * scale


def _places(flow: Field) -> tuple[Field, Field]:
    """Return where a flow leads, as coordinates x and y, each of shape (s, t)."""
    y, x = np.indices(flow.shape[:2], np.float32)
    return x + flow[..., 0], y + flow[..., 1]


def _fetch(picture: Field, x: Field, y: Field) -> Field:
    """Return what a picture, shape (s, t, channels), has at coordinates."""
    fetched = cv2.remap(picture, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(fetched, np.float32)


def _squares(vectors: Field) -> Field:
    """Return the squared lengths of vectors along the last axis."""
    return np.asarray(np.einsum("...i,...i", vectors, vectors), np.float32)
