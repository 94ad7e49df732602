"""Colour arithmetic: code values, Y'CbCr, R'G'B', CIE Lab, and chroma that stays inside the gamut.

All functions work on float32 torch tensors whose channel dimension is the third from the end. R'G'B' is
coded with the sRGB curve (IEC 61966-2-1), which is how Lab of SDR pictures is computed everywhere; the
primaries are those of the clip. L* of a grey pixel comes from its Y' alone.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from restore.clip import Color, Matrix, Primaries

LUMA_COEFFICIENTS: dict[Matrix, tuple[float, float]] = {
    Matrix.BT709: (0.2126, 0.0722),
    Matrix.FCC: (0.30, 0.11),
    Matrix.BT470BG: (0.299, 0.114),
    Matrix.SMPTE170M: (0.299, 0.114),
    Matrix.SMPTE240M: (0.212, 0.087),
    Matrix.BT2020: (0.2627, 0.0593),
}
"""Kr and Kb. Source: ITU-T H.273, table 4."""

_D65 = (0.3127, 0.3290)
_C = (0.310, 0.316)
_CHROMATICITIES: dict[Primaries, tuple[tuple[float, float], ...]] = {
    Primaries.BT709: ((0.640, 0.330), (0.300, 0.600), (0.150, 0.060), _D65),
    Primaries.BT470M: ((0.670, 0.330), (0.210, 0.710), (0.140, 0.080), _C),
    Primaries.BT470BG: ((0.640, 0.330), (0.290, 0.600), (0.150, 0.060), _D65),
    Primaries.SMPTE170M: ((0.630, 0.340), (0.310, 0.595), (0.155, 0.070), _D65),
    Primaries.SMPTE240M: ((0.630, 0.340), (0.310, 0.595), (0.155, 0.070), _D65),
    Primaries.BT2020: ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046), _D65),
}
"""x and y of red, green, blue and white. Source: ITU-T H.273, table 2."""

_DELTA = 6 / 29
_EPSILON = _DELTA**3
_KAPPA = (29 / 3) ** 3


def luma_scale(color: Color) -> tuple[float, float]:
    """Return the code value of black and the number of code values from black to white.

    Source: ITU-T H.273, 8.3, equations for limited (20-26) and full range (27-33).
    """
    if color.full_range:
        return 0.0, float(2**color.depth - 1)
    return 16.0 * 2 ** (color.depth - 8), 219.0 * 2 ** (color.depth - 8)


def chroma_scale(color: Color) -> tuple[float, float]:
    """Return the code value of neutral and the number of code values from -0.5 to 0.5."""
    neutral = float(2 ** (color.depth - 1))
    return neutral, float(2**color.depth - 1) if color.full_range else 224.0 * 2 ** (color.depth - 8)


def unit_luma(codes: Tensor, color: Color) -> Tensor:
    """Convert code values of Y' to float32, black at 0 and white at 1; foot- and headroom lie outside."""
    black, span = luma_scale(color)
    return (codes.to(torch.float32) - black) / span


def rgb_from_ycbcr(ycbcr: Tensor, matrix: Matrix) -> Tensor:
    """Convert full-range Y'CbCr to R'G'B'.

    Args:
        ycbcr: Shape (..., 3, H, W); Y' in [0, 1], Cb and Cr in [-0.5, 0.5].
        matrix: Names the luma coefficients, Kr and Kb.

    Returns:
        Shape (..., 3, H, W); outside [0, 1] where the colour is out of gamut.

    Source: ITU-R BT.709-6, item 3.3 (the inverse of 3.2), for any Kr and Kb.
    """
    kr, kb = LUMA_COEFFICIENTS[matrix]
    y, cb, cr = ycbcr.unbind(-3)
    red, blue = y + 2 * (1 - kr) * cr, y + 2 * (1 - kb) * cb
    green = y - (2 * kr * (1 - kr) * cr + 2 * kb * (1 - kb) * cb) / (1 - kr - kb)
    return torch.stack((red, green, blue), -3)


def ycbcr_from_rgb(rgb: Tensor, matrix: Matrix) -> Tensor:
    """Convert R'G'B' in [0, 1] to Y' in [0, 1] and Cb, Cr in [-0.5, 0.5]; shapes (..., 3, H, W).

    Source: ITU-R BT.709-6, items 3.2 and 3.3, for any Kr and Kb.
    """
    kr, kb = LUMA_COEFFICIENTS[matrix]
    red, green, blue = rgb.unbind(-3)
    y = kr * red + (1 - kr - kb) * green + kb * blue
    return torch.stack((y, (blue - y) / (2 * (1 - kb)), (red - y) / (2 * (1 - kr))), -3)


# Piecewise curves are written as curve(max(x, knee)) + slope * (min(x, knee) - knee): the same numbers as a
# `torch.where` of both branches, at a third of its time on a CPU.


def linear_from_srgb(coded: Tensor) -> Tensor:
    """Undo the sRGB curve; negative values continue the straight part. Source: IEC 61966-2-1, 5.2."""
    knee = 0.04045
    power = coded.clamp_min(knee).add_(0.055).div_(1.055).pow_(2.4)
    return power.add_(coded.clamp_max(knee).sub_(knee), alpha=1 / 12.92)


def srgb_from_linear(linear: Tensor) -> Tensor:
    """Apply the sRGB curve; negative values continue the straight part. Source: IEC 61966-2-1, 5.2."""
    knee = 0.0031308
    power = linear.clamp_min(knee).pow_(1 / 2.4).mul_(1.055).sub_(0.055)
    return power.add_(linear.clamp_max(knee).sub_(knee), alpha=12.92)


@cache
def xyz_matrix(primaries: Primaries) -> Tensor:
    """Return the 3x3 matrix from linear RGB to XYZ relative to the white of `primaries` (white gives 1, 1, 1).

    Source: SMPTE RP 177-1993, 3.3, with each row divided by the white's tristimulus value.
    """
    xy = torch.tensor(_CHROMATICITIES[primaries], dtype=torch.float64)
    xyz = torch.stack((xy[:, 0] / xy[:, 1], torch.ones(4, dtype=torch.float64), (1 - xy.sum(1)) / xy[:, 1]))
    gains = torch.linalg.solve(xyz[:, :3], xyz[:, 3])
    matrix: Tensor = xyz[:, :3] * gains / xyz[:, 3:]
    return matrix.to(torch.float32)


def _mix(matrix: Tensor, planes: Tensor) -> Tensor:
    """Multiply the channel vectors of (..., 3, H, W) by a 3x3 matrix, without calling a BLAS for so small a thing."""
    m = matrix.tolist()
    one, two, three = planes.unbind(-3)
    return torch.stack([row[0] * one + row[1] * two + row[2] * three for row in m], -3)


def _cube_root(ratio: Tensor) -> Tensor:
    root = ratio.clamp_min(_EPSILON).pow_(1 / 3)
    return root.add_(ratio.clamp_max(_EPSILON).sub_(_EPSILON), alpha=_KAPPA / 116)


def lab_from_rgb(rgb: Tensor, primaries: Primaries = Primaries.BT709) -> Tensor:
    """Convert sRGB-coded R'G'B' to CIE Lab.

    Args:
        rgb: Shape (..., 3, H, W), [0, 1].
        primaries: Those of `rgb`; its white is Lab's white.

    Returns:
        Shape (..., 3, H, W): L* in 0..100, a* and b*.

    Source: ISO/CIE 11664-4:2019, equations 1-7.
    """
    x, y, z = _cube_root(_mix(xyz_matrix(primaries), linear_from_srgb(rgb))).unbind(-3)
    return torch.stack((116 * y - 16, 500 * (x - y), 200 * (y - z)), -3)


def rgb_from_lab(lab: Tensor, primaries: Primaries = Primaries.BT709) -> Tensor:
    """Convert CIE Lab to sRGB-coded R'G'B', the inverse of `lab_from_rgb`; outside [0, 1] out of gamut."""
    lightness, a, b = lab.unbind(-3)
    y = (lightness + 16) / 116
    f = torch.stack((y + a / 500, y, y - b / 200), -3)
    cube = f.clamp_min(_DELTA).pow_(3)
    xyz = cube.add_(f.clamp_max(_DELTA).sub_(_DELTA), alpha=116 / _KAPPA)
    return srgb_from_linear(_mix(torch.linalg.inv(xyz_matrix(primaries)), xyz))


def lightness(luma: Tensor) -> Tensor:
    """Return L*, 0..100, of grey pixels from their Y' in [0, 1]."""
    return 116 * _cube_root(linear_from_srgb(luma)) - 16


def gamut_share(cb: Tensor, cr: Tensor, low: Tensor, high: Tensor, matrix: Matrix, margin: float = 0.0) -> Tensor:
    """Return how much of a chroma every luma between `low` and `high` can carry inside the R'G'B' cube.

    Scaling (Cb, Cr) by the result keeps R', G' and B' in [margin, 1 - margin] for any Y' in [low, high]; where Y'
    itself is nearer to black or white than the margin, the result is 0. The set of chroma that a luma can carry is
    convex and holds neutral, so this also holds between neighbouring samples when chroma is interpolated linearly.

    Args:
        cb: Shape (...), in [-0.5, 0.5].
        cr: Shape (...), in [-0.5, 0.5].
        low: Shape (...), least Y' that uses this sample, in [0, 1].
        high: Shape (...), greatest Y' that uses this sample, in [0, 1].
        matrix: Names Kr and Kb.
        margin: Kept free at both ends, for the rounding that follows.

    Returns:
        Shape (...), in [0, 1].
    """
    kr, kb = LUMA_COEFFICIENTS[matrix]
    red, blue = 2 * (1 - kr) * cr, 2 * (1 - kb) * cb
    green = -(kr * red + kb * blue) / (1 - kr - kb)
    up = torch.maximum(torch.maximum(red, green), blue).clamp_min(1e-9)
    down = torch.minimum(torch.minimum(red, green), blue).clamp_max(-1e-9)
    above = (1 - margin - high).clamp_min(0) / up
    below = (low - margin).clamp_min(0) / -down
    return torch.minimum(above, below).clamp_max(1)
