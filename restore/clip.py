"""The unit that flows through a restoration: consecutive frames of one shot, as planes of code values."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import IntEnum
from fractions import Fraction
from itertools import pairwise
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from restore.allocator import paged

Plane = NDArray[np.unsignedinteger[Any]]
"""Code values: uint8 at 8 bits, uint16 above."""
Subsampling = Literal["420", "422", "444"]
Siting = Literal["left", "center", "topleft", "top"]


class Matrix(IntEnum):
    """Luma coefficients, by their code in ITU-T H.273, table 4."""

    BT709 = 1
    FCC = 4
    BT470BG = 5
    """BT.601 for 625 lines; the same coefficients as SMPTE170M."""
    SMPTE170M = 6
    """BT.601 for 525 lines."""
    SMPTE240M = 7
    BT2020 = 9


class Primaries(IntEnum):
    """Chromaticities of the primaries, by their code in ITU-T H.273, table 2."""

    BT709 = 1
    BT470M = 4
    BT470BG = 5
    SMPTE170M = 6
    SMPTE240M = 7
    BT2020 = 9


@dataclass(frozen=True, slots=True)
class Color:
    """What the code values of a clip's planes mean. Nothing is left unsaid: what was not tagged is in `assumed`."""

    matrix: Matrix
    primaries: Primaries
    transfer: int
    """Transfer characteristics, by code in ITU-T H.273, table 3; carried, and written out again."""
    full_range: bool
    """True where Y' runs over 0..2^depth-1 (JPEG, gray), False for BT.601/709 limited range (16..235 at 8 bits)."""
    depth: int
    """Bits of a code value, 8 to 16; planes are uint8 for 8 and uint16 above."""
    siting: Siting = "left"
    """Where a 4:2:0 or 4:2:2 chroma sample lies; `left` is the MPEG-2 default, `center` JPEG's."""
    assumed: tuple[str, ...] = ()
    """Names of the fields above that the source did not tag."""


@dataclass(frozen=True, slots=True, eq=False)
class Clip:
    """Consecutive frames of one shot, as planes of code values.

    A still is a clip with T = 1. The arrays are read-only: a stage returns a new clip and shares
    the planes that it does not write, so an untouched plane is the same object, not an equal one.
    """

    luma: Plane
    """Y', shape (T, H, W)."""
    chroma: Plane | None
    """Cb and Cr, shape (T, 2, H / v, W / h), rounded up; None for a monochrome source."""
    ab: NDArray[np.float32] | None
    """CIE a* and b* (D65) at the generator's size, shape (T, 2, s, t), over the whole frame; None until coloured."""
    pts: NDArray[np.int64]
    """Presentation times, shape (T,), in units of `time_base`."""
    time_base: Fraction
    """Seconds per unit of `pts`."""
    color: Color
    first: int = 0
    """Source index of the first frame."""
    shot: tuple[int, int] = (0, 2**62)
    """First source frame of the shot this clip is from, and the first frame after it."""
    flags: tuple[int, ...] = field(default=())
    """Fields of each frame: 0 progressive, 1 top field first, 2 bottom field first; () where all are progressive."""

    def __post_init__(self) -> None:
        if self.luma.ndim != 3:
            raise ValueError(f"luma must have shape (T, H, W), got {self.luma.shape}")
        if self.luma.dtype != (np.uint8 if self.color.depth == 8 else np.uint16):
            raise ValueError(f"luma of depth {self.color.depth} cannot be {self.luma.dtype}")
        frames = len(self.luma)
        for name in ("chroma", "ab"):
            plane = getattr(self, name)
            if plane is not None and (plane.ndim != 4 or plane.shape[:2] != (frames, 2)):
                raise ValueError(f"{name} must have shape ({frames}, 2, h, w), got {plane.shape}")
        if self.pts.shape != (frames,):
            raise ValueError(f"pts must have shape ({frames},), got {self.pts.shape}")
        if self.flags and len(self.flags) != frames:
            raise ValueError(f"flags must have {frames} entries, got {len(self.flags)}")
        for plane in (self.luma, self.chroma, self.ab, self.pts):
            if plane is not None:
                plane.setflags(write=False)

    def __len__(self) -> int:
        return len(self.luma)

    def __getitem__(self, frames: slice) -> Clip:
        """Return the frames of a slice with step 1, as views."""
        start, stop, step = frames.indices(len(self))
        if step != 1:
            raise ValueError(f"a clip is consecutive frames; step must be 1, got {step}")
        cut = slice(start, stop)
        return replace(
            self,
            luma=self.luma[cut],
            chroma=None if self.chroma is None else self.chroma[cut],
            ab=None if self.ab is None else self.ab[cut],
            pts=self.pts[cut],
            first=self.first + start,
            flags=self.flags[cut],
        )

    def __repr__(self) -> str:
        return (
            f"Clip(frames={self.first}..{self.first + len(self) - 1}, luma={self.luma.shape}, depth={self.color.depth})"
        )

    @property
    def span(self) -> tuple[int, int]:
        """First and last source frame."""
        return self.first, self.first + len(self) - 1

    def with_planes(self, **planes: Any) -> Clip:
        """Return the same frames with some planes replaced."""
        return replace(self, **planes)


def concatenate(clips: list[Clip]) -> Clip:
    """Join clips that follow one another into one.

    Raises:
        ValueError: The list is empty, or the clips are not consecutive.
    """
    if len(clips) == 1:
        return clips[0]
    for before, after in pairwise(clips):
        if after.first != before.first + len(before):
            raise ValueError(f"{after} does not follow {before}")
    head = clips[0]
    return replace(
        head,
        luma=_joined([clip.luma for clip in clips]),
        chroma=None if head.chroma is None else _joined([clip.chroma for clip in clips if clip.chroma is not None]),
        ab=None if head.ab is None else np.concatenate([clip.ab for clip in clips]),
        pts=np.concatenate([clip.pts for clip in clips]),
        flags=sum((clip.flags for clip in clips), ()),
    )


def _joined(planes: list[Plane]) -> Plane:
    frames = sum(map(len, planes))
    return np.concatenate(planes, out=paged((frames, *planes[0].shape[1:]), planes[0].dtype))


def subsampling_of(clip: Clip) -> Subsampling | None:
    """Return the chroma subsampling of a clip's planes, None for a monochrome clip."""
    if clip.chroma is None:
        return None
    (height, width), (h, w) = clip.luma.shape[1:], clip.chroma.shape[2:]
    if w == width:
        return "444"
    return "422" if h == height else "420"


def chroma_shape(height: int, width: int, subsampling: Subsampling) -> tuple[int, int]:
    """Return the height and width of a chroma plane; odd luma sizes round up."""
    return (
        (height + 1) // 2 if subsampling == "420" else height,
        width if subsampling == "444" else (width + 1) // 2,
    )
