"""Where the shots of a film begin: one streaming pass over the luma, in memory that does not grow.

Old film flickers, flashes, weaves and is scratched, and that must not look like a cut. So two frames are compared as
small thumbnails, block by block, by the best normalised cross-correlation within a few pixels: a change of brightness
or contrast does not count, nor does motion, and a scratch spoils few blocks. A cut is a difference that is large,
stands out of the frames around it (a fast pan does not: it is large everywhere; a cut at the very end of one is missed,
too), and stays: the picture of before a flash comes back after it.

Gradual changes: A fade through black or white starts a shot where the picture returns. A dissolve starts none: there
is no right frame for it, both pictures are there for its whole length, a boundary would make the colours jump in the
middle of it, and what works across frames weighs them by their likeness anyway.

This is our own, as the detectors of scenedetect compare brightness and colour histograms of whole frames (which flicker
changes) and want to read the file themselves, while here the decoder of the one pass hands the frames in.
"""

from __future__ import annotations

from collections import deque
from itertools import product

import cv2
import numpy as np
from numpy.typing import NDArray

from restore.clip import Color, Plane

Thumbnail = NDArray[np.float32]

WIDTH = 64
"""Of a thumbnail, in pixels; one then stands for 10 to 30 pixels of the film, and grain is averaged away."""
BLOCK = 12
"""Side of the blocks compared, in thumbnail pixels."""
REACH = 6
"""Motion between two frames that still matches, in thumbnail pixels: a tenth of the width of the picture."""
NOISE = 4.0
"""Standard deviation, in 8-bit codes, of a block whose content counts half: less is grain and compression."""
THRESHOLD = 0.18
"""Difference of a cut. Over 1500 frames of real film without a cut the largest is 0.14 and one in twenty is over 0.06;
of 300 pairs of unrelated photographs the smallest is 0.25 (0.19 at a third of the contrast)."""
PROMINENCE = 2.5
"""A cut is this many times the median difference of the frames around it."""
AROUND = 8
"""Frames on each side that make up that median; also how late a cut is found."""
FLASH = 3
"""Longest flash, in frames, after which the picture of before is looked for."""
DARK, LIT = 2.0, 6.0
"""Mean standard deviation of the blocks, in 8-bit codes: below the one is no picture, above the other there is one."""


class ShotDetector:
    """Finds the first frames of shots, from frames pushed in order.

    Args:
        min_frames: Of two changes closer than this many frames the stronger is the cut.
    """

    def __init__(self, min_frames: int = 6) -> None:
        if min_frames < 1:
            raise ValueError(f"min_frames must be at least 1, got {min_frames}")
        self._min_frames = min_frames
        self._count = 0
        self._thumbnails: deque[Thumbnail] = deque(maxlen=2 * AROUND + 1)
        self._scores: deque[float] = deque(maxlen=2 * AROUND + 1)
        """Difference of every thumbnail held to the one before it."""
        self._strengths: dict[int, float] = {}
        """The cuts found, with their differences."""
        self._lit: Thumbnail | None = None
        """The last frame that showed a picture."""
        self._rise: int | None = None
        """Where the picture began to return after a fade, until it has."""
        self._dark = False

    def push(self, luma: Plane, color: Color) -> None:
        """Take the next frame.

        Args:
            luma: Y' of one frame, shape (H, W); the same shape for every frame.
            color: What its code values mean; only the depth is used.
        """
        thumbnail = thumbnail_of(luma, color.depth)
        self._scores.append(difference(self._thumbnails[-1], thumbnail) if self._thumbnails else 0.0)
        self._thumbnails.append(thumbnail)
        self._count += 1
        self._follow_fade(thumbnail)
        if len(self._scores) > AROUND:
            self._judge(len(self._scores) - 1 - AROUND)

    def finish(self) -> tuple[int, ...]:
        """Return the first frame of every shot but the first, in order, once all frames are pushed."""
        for position in range(max(0, len(self._scores) - AROUND), len(self._scores)):
            self._judge(position)
        return tuple(sorted(self._strengths))

    def _judge(self, position: int) -> None:
        """Decide whether the frame at a position of the window starts a shot."""
        score = self._scores[position]
        if score < THRESHOLD:
            return
        window = list(self._scores)[max(0, position - AROUND) : position + AROUND + 1]
        if score >= PROMINENCE * float(np.median(window)) and not self._is_flash(position):
            self._add(self._count - len(self._scores) + position, score)

    def _is_flash(self, position: int) -> bool:
        """Say whether the picture of just before comes back just after."""
        held = list(self._thumbnails)
        before, after = held[max(0, position - 1 - FLASH) : position], held[position : position + 1 + FLASH]
        return any(difference(earlier, later) < THRESHOLD for earlier in before for later in after)

    def _follow_fade(self, thumbnail: Thumbnail) -> None:
        """Start a shot where a picture returns after frames without one, if it is another picture."""
        texture = float(_deviations(thumbnail).mean())
        if texture < DARK:
            self._dark, self._rise = self._lit is not None, None
        elif self._dark and self._rise is None:
            self._rise = self._count - 1
        if texture < LIT:
            return
        if self._dark and self._rise is not None and self._lit is not None:
            strength = difference(self._lit, thumbnail)
            if strength >= THRESHOLD:
                self._add(self._rise, strength)
        self._lit, self._dark, self._rise = thumbnail, False, None

    def _add(self, frame: int, strength: float) -> None:
        close = [cut for cut in self._strengths if abs(cut - frame) < self._min_frames]
        if all(self._strengths[cut] < strength for cut in close):
            for cut in close:
                del self._strengths[cut]
            self._strengths[frame] = strength


def thumbnail_of(luma: Plane, depth: int) -> Thumbnail:
    """Reduce a luma plane of shape (H, W) to at most `WIDTH` columns, on the scale of 8-bit codes.

    Raises:
        ValueError: `luma` is not one plane.
    """
    if luma.ndim != 2:
        raise ValueError(f"luma must have shape (H, W), got {luma.shape}")
    height, width = luma.shape
    columns = min(WIDTH, width)
    size = columns, max(1, round(height * columns / width))
    small = cv2.resize(np.asarray(luma), size, interpolation=cv2.INTER_AREA)
    return np.asarray(small, np.float32) * np.float32(2.0 ** (8 - depth))


def difference(before: Thumbnail, after: Thumbnail) -> float:
    """Return how far a thumbnail is from showing the same scene as another: 0 the same, towards 1 unrelated.

    One minus the best normalised cross-correlation of every block, averaged with the contrast of the block as weight
    (Lewis, "Fast Normalized Cross-Correlation", 1995).
    """
    height, width = after.shape
    side = min(BLOCK, height, width)
    framed = cv2.copyMakeBorder(before, REACH, REACH, REACH, REACH, cv2.BORDER_REPLICATE)
    contrast, here = _deviations(before), _deviations(after)
    weights = np.maximum(contrast, here)
    unlike = np.ones_like(weights)
    blocks = list(product(_starts(height, side), _starts(width, side)))
    for i, (y, x) in enumerate(blocks):
        if here[i] > 0.5:  # of a flat block no correlation is defined
            around = framed[y : y + side + 2 * REACH, x : x + side + 2 * REACH]
            match = cv2.matchTemplate(around, after[y : y + side, x : x + side], cv2.TM_CCOEFF_NORMED)
            unlike[i] = 1 - min(max(float(match.max()), 0.0), 1.0)
    return float((weights * unlike).sum() / (weights + NOISE).sum())


def _starts(length: int, side: int) -> list[int]:
    """Return where blocks begin that cover a length evenly."""
    return [round(start) for start in np.linspace(0, length - side, max(1, round(length / side)))]


def _deviations(thumbnail: Thumbnail) -> NDArray[np.float64]:
    """Return the standard deviation of every block, in 8-bit codes."""
    height, width = thumbnail.shape
    side = min(BLOCK, height, width)
    total, squares = (np.asarray(table, np.float64) for table in cv2.integral2(thumbnail))
    y = np.array(_starts(height, side))[:, None]
    x = np.array(_starts(width, side))[None, :]

    def mean(table: NDArray[np.float64]) -> NDArray[np.float64]:
        sums = table[y + side, x + side] - table[y, x + side] - table[y + side, x] + table[y, x]
        return np.asarray(sums / (side * side), np.float64)

    return np.sqrt(np.maximum(mean(squares) - mean(total) ** 2, 0)).ravel()
