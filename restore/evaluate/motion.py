"""Measures of a film as it runs: how steady the colours of its frames are, shot by shot."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from restore.clip import Plane
from restore.metrics import Field, WarpError, jensen_shannon
from restore.photographs import Picture

DILATIONS = (1, 2, 4)
"""Distances in frames at which colour distributions are compared."""

Histograms = tuple[NDArray[np.float64], ...]
"""Share of the pixels with each code value, of R', G' and B'."""


@dataclass(frozen=True, slots=True)
class Motion:
    """How steady a film's colours are; lower is steadier, and grey is steadiest, so read it beside the colourfulness.

    None where no shot is long enough.
    """

    cdc: float | None
    """Color distribution consistency index in nats: the mean of `cdc_1`, `cdc_2` and `cdc_4` (Liu et al. 2021)."""
    cdc_1: float | None
    """Mean Jensen-Shannon divergence of the R', G' and B' histograms of neighbouring frames."""
    cdc_2: float | None
    """The same of frames two apart."""
    cdc_4: float | None
    """The same of frames four apart."""
    warp_error: float | None
    """Change of ab along the motion, see `restore.metrics.WarpError`."""
    flicker: float | None
    """Mean change of a frame's mean chroma from one frame to the next, in units of Lab."""
    chroma: float
    """Mean chroma over all frames."""

    def measures(self) -> dict[str, float | None]:
        """Return the numbers by name."""
        return asdict(self)


class Meter:
    """Measures several colourings of one film, frame by frame."""

    def __init__(self, depth: int) -> None:
        """Prepare for a film with luma of `depth` bits."""
        self._warp = WarpError(depth)
        self._lines: dict[str, _Line] = {}

    def cut(self) -> None:
        """Note that the next frame starts a new shot; frames of two shots are not compared."""
        self._warp.cut()
        for line in self._lines.values():
            line.cut()

    def add(self, luma: Plane, found: Mapping[str, tuple[Picture, Field]]) -> dict[str, float | None]:
        """Take the next frame.

        Args:
            luma: Shape (H, W), code values.
            found: For each method the picture (256, 256, 3), and a* and b* (2, s, t).

        Returns:
            The change of each method's mean chroma since the last frame of the shot; None for a first one.
        """
        self._warp.add(luma, [ab for _, ab in found.values()])
        return {
            method: self._lines.setdefault(method, _Line()).add(picture, ab) for method, (picture, ab) in found.items()
        }

    def motions(self) -> dict[str, Motion]:
        """Return what each method measures."""
        return {
            method: line.motion(error if line.changes else None)
            for (method, line), error in zip(self._lines.items(), self._warp.values, strict=True)
        }


class _Line:
    """One colouring of the film."""

    def __init__(self) -> None:
        self.chromas: list[float] = []
        self.changes: list[float] = []
        self._first = True
        self._held: deque[Histograms] = deque(maxlen=max(DILATIONS))
        self._divergences: dict[int, list[float]] = {dilation: [] for dilation in DILATIONS}

    def cut(self) -> None:
        self._first = True
        self._held.clear()

    def add(self, picture: Picture, ab: Field) -> float | None:
        found = histograms(picture)
        for dilation in DILATIONS:
            if len(self._held) >= dilation:
                pairs = zip(self._held[-dilation], found, strict=True)
                self._divergences[dilation].append(float(np.mean([jensen_shannon(*pair) for pair in pairs])))
        self._held.append(found)
        self.chromas.append(float(np.hypot(ab[0], ab[1]).mean(dtype=np.float64)))
        if self._first:
            self._first = False
            return None
        self.changes.append(abs(self.chromas[-1] - self.chromas[-2]))
        return self.changes[-1]

    def motion(self, warp_error: float | None) -> Motion:
        one, two, four = (float(np.mean(found)) if found else None for found in self._divergences.values())
        whole = None if one is None or two is None or four is None else (one + two + four) / 3
        flicker = float(np.mean(self.changes)) if self.changes else None
        return Motion(whole, one, two, four, warp_error, flicker, float(np.mean(self.chromas)))


def histograms(picture: Picture) -> Histograms:
    """Return the share of the pixels with each of the 256 code values of R', G' and B', picture (H, W, 3)."""
    pixels = picture.shape[0] * picture.shape[1]
    return tuple(np.bincount(picture[..., channel].ravel(), minlength=256) / pixels for channel in range(3))
