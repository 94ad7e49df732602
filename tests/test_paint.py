from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from conftest import color, make_clip

from restore.clip import Clip, Color, Matrix, Plane, Siting, Subsampling, chroma_shape
from restore.color import chroma_scale, rgb_from_ycbcr, unit_luma
from restore.colorize.paint import Paint


def _rgb(clip: Clip, frame: int, at: str) -> torch.Tensor:
    """Decode a frame to R'G'B' with chroma copied (`nearest`) or interpolated at its true place (`linear`)."""
    assert clip.chroma is not None
    height, width = clip.luma.shape[1:]
    h, w = clip.chroma.shape[2:]
    neutral, span = chroma_scale(clip.color)
    chroma = (torch.from_numpy(clip.chroma[frame].astype(np.float32)) - neutral) / span
    step_y, step_x = 1 if h == height else 2, 1 if w == width else 2
    right = {"left": 0.0, "center": 0.5, "topleft": 0.0, "top": 0.5}[clip.color.siting] if step_x == 2 else 0.0
    below = {"left": 0.5, "center": 0.5, "topleft": 0.0, "top": 0.0}[clip.color.siting] if step_y == 2 else 0.0
    y = ((torch.arange(height) - below) / step_y).clamp(0, h - 1)
    x = ((torch.arange(width) - right) / step_x).clamp(0, w - 1)
    if at == "nearest":
        full = chroma[:, (torch.arange(height) // step_y)][:, :, torch.arange(width) // step_x]
    else:
        y0, x0 = y.floor().long(), x.floor().long()
        y1, x1 = (y0 + 1).clamp(max=h - 1), (x0 + 1).clamp(max=w - 1)
        fy, fx = (y - y0)[:, None], (x - x0)[None]
        top = chroma[:, y0][:, :, x0] * (1 - fx) + chroma[:, y0][:, :, x1] * fx
        low = chroma[:, y1][:, :, x0] * (1 - fx) + chroma[:, y1][:, :, x1] * fx
        full = top * (1 - fy) + low * fy
    luma = unit_luma(torch.from_numpy(clip.luma[frame].astype(np.float32)), clip.color).clamp(0, 1)
    return rgb_from_ycbcr(torch.stack((luma, full[0], full[1])), clip.color.matrix)


@pytest.mark.parametrize("subsampling", ["420", "422", "444"])
@pytest.mark.parametrize("siting", ["left", "center", "topleft", "top"])
@pytest.mark.parametrize(("depth", "full_range"), [(8, False), (8, True), (10, False), (16, True)])
def test_no_pixel_leaves_the_gamut(subsampling: Subsampling, siting: Siting, depth: int, full_range: bool) -> None:
    rng = np.random.default_rng(depth)
    what = replace(color(depth, full_range), siting=siting)
    luma: Plane = rng.integers(0, 2**depth, (1, 33, 47)).astype(np.uint8 if depth == 8 else np.uint16)
    luma[0, 5:20, 5:30] = int(luma[0, 5, 5])
    ab = rng.normal(0, 60, (1, 2, 8, 12)).astype(np.float32)
    clip = Clip(luma, None, ab, np.zeros(1, np.int64), Fraction(1, 25), what)
    out = Paint(subsampling)(clip)
    assert out.luma is clip.luma
    for at in ("nearest", "linear"):
        rgb = _rgb(out, 0, at)
        assert rgb.min() >= -1e-6
        assert rgb.max() <= 1 + 1e-6


def test_colour_is_painted_where_the_gamut_allows() -> None:
    """A mid-grey frame takes the colour asked for, to within the rounding of 8-bit chroma."""
    luma = np.full((1, 32, 32), 126, np.uint8)
    ab = np.empty((1, 2, 4, 4), np.float32)
    ab[:, 0], ab[:, 1] = 18.0, -12.0
    out = Paint("444")(Clip(luma, None, ab, np.zeros(1, np.int64), Fraction(1, 25), color()))
    sk = pytest.importorskip("skimage.color")
    rgb = _rgb(out, 0, "nearest").permute(1, 2, 0).numpy()
    lab = sk.rgb2lab(rgb)
    # Y' is kept, not L*, so a and b move a little with the lightness of the painted colour.
    assert abs(lab[..., 1].mean() - 18) < 2.0
    assert abs(lab[..., 2].mean() + 12) < 2.0


@pytest.mark.parametrize("siting", ["left", "center", "topleft", "top"])
@pytest.mark.parametrize("subsampling", ["420", "422", "444"])
def test_a_sharp_colour_edge_does_not_shift(subsampling: Subsampling, siting: Siting) -> None:
    """The position of a colour edge, measured on chroma at its true place, is the edge of ab to a tenth of a pixel."""
    height, width = 64, 96
    luma = np.full((1, height, width), 126 * 256, np.uint16)
    for axis, size in ((3, width), (2, height)):
        ab = np.zeros((1, 2, height, width), np.float32)
        ab[:, 0] = 10.0  # small, so that the way from Lab to R'G'B' is nearly a straight line
        edge = size // 2
        ab[(slice(None), slice(None), slice(edge, None)) if axis == 2 else (..., slice(edge, None))] *= -1
        clip = Clip(luma, None, ab, np.zeros(1, np.int64), Fraction(1, 25), replace(color(16), siting=siting))
        out = Paint(subsampling)(clip)
        assert out.chroma is not None
        rgb = _rgb(out, 0, "linear")
        profile = (rgb[0] - rgb[1]).mean(0 if axis == 3 else 1).numpy()
        share = (profile - profile[-4]) / (profile[4] - profile[-4])
        assert share.sum() == pytest.approx(edge, abs=0.1)


def test_a_black_and_a_white_pixel_stay_neutral() -> None:
    luma = np.full((1, 8, 8), 16, np.uint8)
    luma[:, 4:] = 235
    ab = np.full((1, 2, 4, 4), 50, np.float32)
    out = Paint("444")(Clip(luma, None, ab, np.zeros(1, np.int64), Fraction(1, 25), color()))
    assert out.chroma is not None
    assert np.all(out.chroma == 128)


def test_saturation_zero_is_grey() -> None:
    out = Paint("420", saturation=0.0)(make_clip())
    assert out.chroma is not None
    assert np.all(out.chroma == 128)


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (3, 2), (37, 51)])
@pytest.mark.parametrize("subsampling", ["420", "422", "444"])
def test_odd_sizes_get_rounded_up_chroma(size: tuple[int, int], subsampling: Subsampling) -> None:
    out = Paint(subsampling)(make_clip(2, *size))
    assert out.chroma is not None
    assert out.chroma.shape == (2, 2, *chroma_shape(*size, subsampling))


@pytest.mark.parametrize("matrix", list(Matrix))
def test_every_matrix_paints_the_same_colour(matrix: Matrix) -> None:
    """The colour asked for does not depend on the matrix; only its coding does."""
    luma = np.full((1, 8, 8), 126, np.uint8)
    ab = np.full((1, 2, 2, 2), 15, np.float32)
    what = Color(matrix, color().primaries, 1, False, 8)
    out = Paint("444")(Clip(luma, None, ab, np.zeros(1, np.int64), Fraction(1, 25), what))
    rgb = _rgb(out, 0, "nearest")[:, 0, 0]
    assert rgb[0] > rgb[1] > rgb[2]


def test_painting_without_a_colorizer_is_a_programmers_error() -> None:
    with pytest.raises(ValueError, match="no colorizer has run"):
        Paint()(make_clip(ab=False))


def test_settings_are_checked() -> None:
    with pytest.raises(ValueError, match="subsampling must be"):
        Paint("411")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="saturation must be"):
        Paint(saturation=3)
