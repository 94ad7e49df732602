from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.spatial.distance import jensenshannon  # type: ignore[import-untyped]
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from restore.metrics import (
    WarpError,
    colorfulness,
    farneback,
    jensen_shannon,
    mean_chroma,
    occluded,
    psnr,
    ssim,
    warp,
    warp_error,
)


def texture(height: int, width: int, seed: int = 0) -> NDArray[np.float32]:
    """Make smooth random blobs with values of about -2 to 2."""
    noise = np.random.default_rng(seed).normal(size=(height // 8, width // 8)).astype(np.float32)
    return np.asarray(cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC), np.float32)


def moving(frames: int = 4, step: int = 3, depth: int = 8) -> tuple[NDArray[np.float32], NDArray[np.uint16]]:
    """Make ab and luma of a textured picture that moves to the left by whole pixels."""
    luma, a, b = (texture(144, 320, seed) for seed in (1, 2, 3))
    spans = [slice(step * t, step * t + 256) for t in range(frames)]
    codes = [np.clip(128 + 40 * luma[:, span], 0, 255) * 2 ** (depth - 8) for span in spans]
    ab = [np.stack([10 * a[:, span], 10 * b[:, span]]) for span in spans]
    return np.stack(ab).astype(np.float32), np.rint(np.stack(codes)).astype(np.uint16)


@pytest.mark.parametrize("depth", [8, 10, 16])
def test_colour_that_moves_with_the_picture_has_no_warp_error(depth: int) -> None:
    ab, luma = moving(depth=depth)
    still = np.stack([ab[0]] * len(ab))
    assert warp_error(ab, luma, depth) < 0.5
    assert warp_error(still, luma, depth) > 2


def test_a_colour_that_steps_has_the_step_as_warp_error() -> None:
    ab, luma = np.zeros((3, 2, 40, 60), np.float32), np.stack([texture(72, 128)] * 3)
    ab[1:] += np.array([[[3]], [[4]]])
    assert warp_error(ab, np.clip(128 + 40 * luma, 0, 255).astype(np.uint8)) == pytest.approx(2.5, abs=1e-4)


def test_warp_error_needs_two_frames_of_each() -> None:
    ab, luma = moving(3)
    with pytest.raises(ValueError, match="same number of frames, at least 2, got 1 and 1"):
        warp_error(ab[:1], luma[:1])
    with pytest.raises(ValueError, match="same number of frames, at least 2, got 3 and 2"):
        warp_error(ab, luma[:2])


def test_flow_leads_to_where_things_are() -> None:
    _, luma = moving(2, step=5)
    here, there = luma.astype(np.uint8)
    flow = farneback(here, there)
    inner = flow[20:-20, 20:-20]
    assert np.abs(inner - np.array([-5, 0])).mean() < 0.2
    fetched = warp(there[..., None].astype(np.float32), flow).reshape(here.shape)
    assert np.abs(fetched - here)[20:-20, 20:-20].mean() < 1


def test_what_a_flow_back_does_not_lead_back_to_is_occluded() -> None:
    forward = np.zeros((40, 60, 2), np.float32)
    forward[..., 0] = 4
    assert not occluded(forward, -forward)[:, :56].any()
    assert occluded(forward, -forward)[:, 56:].all()  # leaves the frame
    assert occluded(forward, forward).all()


def test_edges_of_motion_are_occluded() -> None:
    forward = np.zeros((40, 60, 2), np.float32)
    forward[:, 30:, 0] = 3
    backward = np.zeros_like(forward)
    backward[:, 33:, 0] = -3
    mask = occluded(forward, backward)
    assert mask[:, 29:31].all()
    assert not mask[:, :29].any()
    assert not mask[:, 34:57].any()


def test_mean_chroma_is_the_mean_distance_from_grey() -> None:
    ab = np.zeros((1, 2, 1, 4), np.float32)
    ab[0, :, 0, 0] = 3, 4
    ab[0, :, 0, 1] = -5, 12
    assert mean_chroma(ab) == pytest.approx((5 + 13) / 4)


@pytest.mark.parametrize(
    ("pixels", "expected"),
    [
        ([(9, 9, 9), (200, 200, 200)], 0.0),
        ([(255, 0, 0)], 0.3 * np.hypot(255, 127.5)),
        ([(100, 0, 0), (0, 100, 0)], 100 + 0.3 * 50),  # rg is 100 and -100, yb 50 and 50
        ([(0, 0, 80), (0, 0, 0)], 40 + 0.3 * 40),  # yb is -80 and 0
    ],
)
def test_colourfulness_is_as_worked_out_by_hand(pixels: list[tuple[int, int, int]], expected: float) -> None:
    assert colorfulness(np.array([pixels], np.uint8)) == pytest.approx(expected)


def pictures(seed: int, noise: float) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Make a colourful picture of odd size, and a noisy one of it."""
    rng = np.random.default_rng(seed)
    smooth = np.stack([texture(56, 64, seed + channel)[:51, :61] for channel in range(3)], -1)
    one = np.clip(128 + 40 * smooth, 0, 255).astype(np.uint8)
    return one, np.clip(one + rng.normal(0, noise, one.shape), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("noise", [2.0, 20.0, 90.0])
def test_psnr_and_ssim_are_those_of_scikit_image(noise: float) -> None:
    one, two = pictures(1, noise)
    assert psnr(one, two) == pytest.approx(peak_signal_noise_ratio(one, two))  # type: ignore[no-untyped-call]
    window = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    expected = structural_similarity(one, two, data_range=255, channel_axis=2, **window)  # type: ignore[no-untyped-call]
    assert ssim(one, two) == pytest.approx(expected, abs=1e-4)  # float32 here


def test_a_picture_is_like_itself() -> None:
    one, _ = pictures(2, 0)
    assert psnr(one, one) == pytest.approx(100)
    assert ssim(one, one) == pytest.approx(1)


@pytest.mark.parametrize("shape", [(10, 30, 3), (30, 31, 3)])
def test_ssim_refuses_pictures_that_it_is_not_defined_for(shape: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="SSIM needs two pictures of one size, at least 11x11"):
        ssim(np.zeros((*shape[:2], 3), np.uint8), np.zeros((shape[0], 30, 3), np.uint8))


def test_the_jensen_shannon_divergence_is_that_of_scipy_and_at_most_log_2() -> None:
    rng = np.random.default_rng(0)
    one, two = rng.random((2, 256)) * (rng.random((2, 256)) > 0.3)
    one, two = one / one.sum(), two / two.sum()
    assert jensen_shannon(one, two) == pytest.approx(jensenshannon(one, two) ** 2)
    assert jensen_shannon(one, one) == 0
    assert jensen_shannon(np.array([1.0, 0]), np.array([0, 1.0])) == pytest.approx(np.log(2))


def test_several_colourings_are_measured_at_once_and_never_across_a_cut() -> None:
    ab, luma = moving(4)
    error = WarpError()
    for place in range(4):
        if place == 2:
            error.cut()
        error.add(luma[place], [ab[place], ab[0]])
    one, still = error.values
    first, second = (warp_error(ab[span], luma[span]) for span in (slice(0, 2), slice(2, 4)))
    assert min(first, second) <= one <= max(first, second)
    assert still > 2 > one
