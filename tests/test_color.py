"""Colour arithmetic against colour-science, an independent implementation."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from conftest import color
from numpy.typing import NDArray

from restore.clip import Matrix, Primaries
from restore.color import (
    LUMA_COEFFICIENTS,
    chroma_scale,
    gamut_share,
    lab_from_rgb,
    lightness,
    linear_from_srgb,
    luma_scale,
    rgb_from_lab,
    rgb_from_ycbcr,
    srgb_from_linear,
    unit_luma,
    xyz_matrix,
    ycbcr_from_rgb,
)

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import colour

SPACES = {
    Primaries.BT709: "ITU-R BT.709",
    Primaries.BT470BG: "ITU-R BT.470 - 625",
    Primaries.SMPTE170M: "SMPTE C",
    Primaries.BT2020: "ITU-R BT.2020",
}


def _gamut(steps: int = 33) -> NDArray[np.float64]:
    """A grid over the whole R'G'B' cube, shape (3, steps, steps * steps)."""
    axis = np.linspace(0, 1, steps)
    return np.stack(np.meshgrid(axis, axis, axis, indexing="ij")).reshape(3, steps, -1)


def _reference_lab(rgb: NDArray[np.float64], primaries: Primaries) -> NDArray[np.float64]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        space = colour.RGB_COLOURSPACES[SPACES[primaries]]
        linear = colour.models.eotf_sRGB(np.moveaxis(rgb, 0, -1))
        matrix = colour.models.normalised_primary_matrix(space.primaries, space.whitepoint)
        xyz = colour.algebra.vecmul(matrix, linear)
        lab: NDArray[np.float64] = np.asarray(colour.XYZ_to_Lab(xyz, space.whitepoint), np.float64)
        return np.moveaxis(lab, -1, 0)


@pytest.mark.parametrize("primaries", list(SPACES))
def test_lab_agrees_with_colour_science_over_the_gamut(primaries: Primaries) -> None:
    rgb = _gamut()
    lab = lab_from_rgb(torch.from_numpy(rgb.astype(np.float32)), primaries).numpy()
    assert np.abs(lab - _reference_lab(rgb, primaries)).max() < 1e-3


@pytest.mark.parametrize("primaries", list(Primaries))
def test_lab_and_back_is_the_same_colour(primaries: Primaries) -> None:
    rgb = torch.from_numpy(_gamut(17).astype(np.float32))
    assert (rgb_from_lab(lab_from_rgb(rgb, primaries), primaries) - rgb).abs().max() < 1e-4


@pytest.mark.parametrize(
    ("matrix", "name"),
    [
        (Matrix.BT709, "ITU-R BT.709"),
        (Matrix.SMPTE170M, "ITU-R BT.601"),
        (Matrix.BT470BG, "ITU-R BT.601"),
        (Matrix.SMPTE240M, "SMPTE-240M"),
        (Matrix.BT2020, "ITU-R BT.2020"),
    ],
)
def test_ycbcr_agrees_with_colour_science(matrix: Matrix, name: str) -> None:
    rgb = _gamut(9)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        reference = colour.RGB_to_YCbCr(
            np.moveaxis(rgb, 0, -1), K=colour.WEIGHTS_YCBCR[name], in_legal=False, out_legal=False
        )
    ours = ycbcr_from_rgb(torch.from_numpy(rgb.astype(np.float32)), matrix)
    assert np.abs(ours.numpy() - np.moveaxis(reference, -1, 0)).max() < 1e-3
    assert (rgb_from_ycbcr(ours, matrix).numpy() - rgb).max() < 1e-5


def test_the_curves_agree_with_colour_science_and_undo_each_other() -> None:
    coded = np.linspace(0, 1, 4001)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        reference = colour.models.eotf_sRGB(coded)
    linear = linear_from_srgb(torch.from_numpy(coded.astype(np.float32)))
    assert np.abs(linear.numpy() - reference).max() < 1e-6
    assert (srgb_from_linear(linear) - torch.from_numpy(coded)).abs().max() < 1e-6


def test_the_lightness_of_grey_is_that_of_lab() -> None:
    grey = torch.linspace(0, 1, 256)
    lab = lab_from_rgb(grey.expand(3, 1, 256))
    assert (lightness(grey) - lab[0, 0]).abs().max() < 1e-4
    assert lab[1:].abs().max() < 1e-4


def test_white_is_white_in_all_primaries() -> None:
    for primaries in Primaries:
        assert (xyz_matrix(primaries).sum(1) - 1).abs().max() < 1e-6


@pytest.mark.parametrize(
    ("depth", "full_range", "luma", "chroma"),
    [
        (8, False, (16, 219), (128, 224)),
        (10, False, (64, 876), (512, 896)),
        (8, True, (0, 255), (128, 255)),
        (16, True, (0, 65535), (32768, 65535)),
    ],
)
def test_scales_are_those_of_h273(depth: int, full_range: bool, luma: tuple[int, int], chroma: tuple[int, int]) -> None:
    what = color(depth, full_range)
    assert luma_scale(what) == luma
    assert chroma_scale(what) == chroma
    codes = torch.tensor([luma[0], luma[0] + luma[1]])
    assert unit_luma(codes, what).tolist() == [0.0, 1.0]


@pytest.mark.parametrize("matrix", list(LUMA_COEFFICIENTS))
def test_a_scaled_chroma_is_in_gamut_and_no_smaller_than_it_must_be(matrix: Matrix) -> None:
    rng = np.random.default_rng(0)
    y = torch.from_numpy(rng.uniform(0, 1, 5000).astype(np.float32))
    cb, cr = torch.from_numpy(rng.uniform(-0.5, 0.5, (2, 5000)).astype(np.float32))
    share = gamut_share(cb, cr, y, y, matrix)

    def excess(scale: torch.Tensor) -> torch.Tensor:
        rgb = rgb_from_ycbcr(torch.stack((y, cb * scale, cr * scale))[..., None], matrix)
        return torch.maximum(rgb - 1, -rgb).amax((0, 2))

    assert excess(share).max() < 1e-5
    assert (excess(share * 1.01)[share < 1] > 0).all()
    assert (share[excess(torch.ones(()).expand(5000)) <= 0] > 1 - 1e-5).all()
