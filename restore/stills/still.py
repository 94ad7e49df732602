"""What a still is: one frame as a clip, and everything beside the picture that its file holds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from restore.clip import Clip, Color, Matrix, Plane, Primaries
from restore.color import LUMA_COEFFICIENTS, chroma_scale

Format = Literal["tiff", "png", "jpeg", "webp", "dpx"]
AlphaKind = Literal["unassociated", "associated", "unspecified"]
"""What an extra channel means: coverage, coverage already multiplied into the colours, or not said (TIFF only)."""
Toned = Literal["gray", "toned", "color"]
"""No colour at all, one tone for each luma (sepia, cyanotype, toned or yellowed prints), or colours of things."""

_SRGB_TRANSFER = 13
"""IEC 61966-2-1 in ITU-T H.273, table 3."""
_ROWS = 256
"""Rows worked on at a time, so that a large scan needs little more memory than its planes."""


@dataclass(frozen=True, slots=True)
class Resolution:
    """Samples per unit of length on the original."""

    x: Fraction
    y: Fraction
    unit: Literal["inch", "cm", "none"]
    """`none`: x and y give only the shape of a pixel."""

    def per_cm(self) -> tuple[Fraction, Fraction]:
        """Return samples per centimetre (for unit `none`: x and y themselves)."""
        scale = Fraction(100, 254) if self.unit == "inch" else Fraction(1)
        return self.x * scale, self.y * scale


@dataclass(frozen=True, slots=True)
class Metadata:
    """What a file says about its picture, as bytes that are carried and not interpreted."""

    icc: bytes | None = None
    """ICC profile of the source's code values."""
    exif: bytes | None = None
    """EXIF from its TIFF header on, without the ``Exif`` prefix that some formats put before it."""
    xmp: bytes | None = None
    iptc: bytes | None = None
    """IPTC-IIM records."""
    resolution: Resolution | None = None
    comment: bytes | None = None
    """JPEG comment."""
    chunks: tuple[tuple[bytes, bytes], ...] = ()
    """PNG text and colour chunks: type and contents."""
    header: bytes | None = None
    """The 2048 bytes of a DPX header."""


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """Samples and metadata as a file holds them: what a codec of this package reads and writes."""

    pixels: Plane
    """Shape (H, W) for gray, (H, W, 3) for RGB, (H, W, 4) for CMYK with 0 for no ink."""
    depth: int
    """Bits of a sample: 8, 10, 12 or 16; uint8 for 8 and uint16 above."""
    alpha: Plane | None = None
    """Shape (H, W), at the same depth."""
    alpha_kind: AlphaKind = "unassociated"
    metadata: Metadata = field(default_factory=Metadata)
    orientation: int = 1
    """How the rows lie, by the EXIF code 1-8; always 1 for a picture to be written."""
    compression: str | None = None
    """TIFF compression by its name in the TIFF library, kept when the output is TIFF too."""


@dataclass(frozen=True, slots=True, eq=False)
class Still:
    """A photograph: a clip of one upright monochrome frame, and all that goes back into its file."""

    source: Path
    format: Format
    clip: Clip
    """Luma only, T = 1, full range, BT.601 coefficients, sRGB-coded."""
    alpha: Plane | None
    """Shape (H, W), upright, at the clip's depth."""
    alpha_kind: AlphaKind
    toned: Toned
    metadata: Metadata
    """As in the file, but for the orientation, which is reset to 1, and EXIF's thumbnail, which is left out."""
    compression: str | None


def upright(plane: Plane, orientation: int) -> Plane:
    """Turn a plane as its orientation says.

    Args:
        plane: Shape (H, W).
        orientation: 1 to 8. Source: TIFF 6.0, tag 274, and EXIF 2.32, 4.6.4.
    """
    if orientation >= 5:
        plane = plane.T
    if orientation in (2, 3, 6, 7):
        plane = plane[:, ::-1]
    if orientation in (3, 4, 7, 8):
        plane = plane[::-1]
    return np.ascontiguousarray(plane)


def clip_of(luma: Plane, depth: int) -> Clip:
    """Return an upright luma plane, shape (H, W), as a clip of one frame."""
    color = Color(Matrix.SMPTE170M, Primaries.BT709, _SRGB_TRANSFER, full_range=True, depth=depth, siting="center")
    return Clip(luma[None], None, None, np.zeros(1, np.int64), Fraction(1, 25), color)


def luma_from_rgb(rgb: Plane) -> Plane:
    """Return Y' of R'G'B', exactly rounded: equal R', G' and B' give just that value.

    Args:
        rgb: Shape (H, W, 3), uint8 or uint16, full range.

    Source: ITU-R BT.601-7, 2.5.1, in integers.
    """
    luma = np.empty(rgb.shape[:2], rgb.dtype)
    for rows in _blocks(len(rgb)):
        red, green, blue = (rgb[rows, :, channel].astype(np.uint32) for channel in range(3))
        luma[rows] = (299 * red + 587 * green + 114 * blue + 500) // 1000
    return luma


def rgb_from_clip(clip: Clip, depth: int) -> Plane:
    """Return a painted still as R'G'B', rounded once.

    Args:
        clip: One frame, full range, with 4:4:4 chroma; without chroma the result is R' = G' = B' = Y'.
        depth: Bits of the result.

    Returns:
        Shape (H, W, 3); out-of-gamut colours are clipped.

    Source: ITU-T H.273, 8.3, full range, for the clip's matrix.
    """
    kr, kb = LUMA_COEFFICIENTS[clip.color.matrix]
    neutral, _ = chroma_scale(clip.color)
    luma, top = clip.luma[0], 2**depth - 1
    rgb = np.empty((*luma.shape, 3), np.uint8 if depth == 8 else np.uint16)
    for rows in _blocks(len(luma)):
        y = luma[rows].astype(np.float64)  # float32 could turn a luma by one code at 16 bits
        cb, cr = (0.0, 0.0) if clip.chroma is None else clip.chroma[0, :, rows].astype(np.float64) - neutral
        green = y - (2 * kr * (1 - kr) * cr + 2 * kb * (1 - kb) * cb) / (1 - kr - kb)
        block = np.stack((y + 2 * (1 - kr) * cr, green, y + 2 * (1 - kb) * cb), axis=-1)
        rgb[rows] = np.clip(np.rint(block * (top / (2**clip.color.depth - 1))), 0, top)
    return rgb


def rescaled(plane: Plane, depth: int, to: int) -> Plane:
    """Return code values of one depth at another; widening is undone exactly by narrowing."""
    if depth == to:
        return plane
    out = np.empty(plane.shape, np.uint8 if to == 8 else np.uint16)
    for rows in _blocks(len(plane)):
        out[rows] = np.rint(plane[rows] * ((2**to - 1) / (2**depth - 1)))
    return out


def tone_of(rgb: Plane, depth: int) -> Toned:
    """Tell a toned print from a colour photograph.

    The picture is averaged down to about 64 samples a side, which removes grain and JPEG's chroma noise. It is
    gray if hardly any chroma is left, and toned if its chroma follows from its luma, or nearly so and has one hue. The
    bounds part the old prints of the development data (at most 0.026 beside the curve) from its colour photographs
    (0.030 at the second percentile).

    Args:
        rgb: Shape (H, W, 3), full range.
        depth: Bits of a sample.
    """
    small = _averaged(rgb, 64).reshape(-1, 3) / (2**depth - 1)
    y = small @ np.array([0.299, 0.587, 0.114])
    chroma = np.stack(((small[:, 2] - y) / 1.772, (small[:, 0] - y) / 1.402), axis=1)
    strength = np.hypot(*chroma.T)
    if np.percentile(strength, 99) < 0.012:
        return "gray"
    bins = np.minimum((y * 16).astype(int), 15)
    count = np.maximum(np.bincount(bins, minlength=16), 1)
    curve = np.stack([np.bincount(bins, chroma[:, c], minlength=16) / count for c in range(2)], axis=1)
    rest = np.hypot(*(chroma - curve[bins]).T)
    one_hue = np.hypot(*chroma.sum(0)) / strength.sum()
    rest_of_most = np.percentile(rest, 95)
    return "toned" if rest_of_most < 0.03 or (rest_of_most < 0.06 and one_hue > 0.99) else "color"


def _averaged(rgb: Plane, side: int) -> NDArray[np.float64]:
    """Return block means of an (H, W, 3) picture, about `side` samples a side; a rest at the edges is left out."""
    height, width = rgb.shape[:2]
    v, h = max(1, height // side), max(1, width // side)
    means = [
        rgb[top : top + v, : width // h * h].reshape(v, -1, h, 3).mean((0, 2)) for top in range(0, height - v + 1, v)
    ]
    return np.stack(means)


def _blocks(height: int) -> Iterator[slice]:
    for top in range(0, height, _ROWS):
        yield slice(top, top + _ROWS)
