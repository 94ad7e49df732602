"""The measures of whole sets and of films, against independent formulas and cases worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm  # type: ignore[import-untyped]
from scipy.stats import entropy  # type: ignore[import-untyped]

from restore.evaluate.frechet import Moments, distance
from restore.evaluate.motion import DILATIONS, Meter, histograms
from restore.evaluate.tally import ChromaTally, ColorTally
from restore.metrics import Field
from restore.photographs import Picture


def moments(rows: np.ndarray[tuple[int, int], np.dtype[np.float64]], batch: int = 7) -> Moments:
    found = Moments()
    for part in torch.split(torch.from_numpy(rows), batch):
        found.add(part)
    return found


@pytest.mark.parametrize("pictures", [5, 40, 300])
def test_the_frechet_distance_is_that_by_scipys_matrix_root(pictures: int) -> None:
    """Also where the covariances are singular, as they are with fewer pictures than features."""
    rng = np.random.default_rng(pictures)
    mix = rng.normal(size=(12, 12))
    one, two = rng.normal(size=(pictures, 12)) @ mix, 0.7 * rng.normal(size=(pictures, 12)) @ mix.T + 0.5
    covariances = np.cov(one.T), np.cov(two.T)
    root = np.real(sqrtm(covariances[0] @ covariances[1]))
    expected = ((one.mean(0) - two.mean(0)) ** 2).sum() + np.trace(covariances[0] + covariances[1] - 2 * root)
    assert distance(moments(one), moments(two)) == pytest.approx(expected, rel=1e-4)


def test_the_frechet_distance_of_scaled_features_is_worked_out_by_hand() -> None:
    """Of independent features with deviations s and t and means m and n: the sum of (m - n)^2 + (s - t)^2."""
    corners = np.array([[1, 1], [1, -1], [-1, 1], [-1, -1]]) * np.sqrt(3 / 4)  # deviation 1 as a sample
    one, two = corners * np.array([2.0, 3.0]) + np.array([5.0, 0]), corners * np.array([1.0, 7.0]) + np.array([2.0, 1])
    assert distance(moments(one), moments(two)) == pytest.approx(3**2 + 1**2 + (2 - 1) ** 2 + (3 - 7) ** 2)


def test_the_frechet_distance_of_a_set_to_itself_is_0_and_needs_two_pictures() -> None:
    rows = np.random.default_rng(0).normal(size=(20, 6))
    assert distance(moments(rows), moments(rows)) == pytest.approx(0, abs=1e-6)
    assert distance(moments(rows), moments(rows[:1])) is None


def test_the_auc_is_the_area_under_the_share_of_pixels_within_each_threshold() -> None:
    rng = np.random.default_rng(3)
    error = rng.gamma(2, 20, (40, 50)).astype(np.float32)
    tally = ColorTally()
    tally.add(np.zeros((2, 40, 50), np.float32), error)
    thresholds = np.linspace(0, 150, 15001)
    shares = np.searchsorted(np.sort(error.ravel()), thresholds, side="right") / error.size
    assert tally.auc == pytest.approx(100 * np.trapezoid(shares, thresholds) / 150, abs=0.01)


def test_rebalancing_gives_each_colour_its_say_however_rare_it_is() -> None:
    """Nine pixels in ten are grey and right, one is red and wrong by 75; smoothing does not reach across."""
    truth = np.zeros((2, 1, 10), np.float32)
    truth[0, 0, 9] = 80
    error = np.zeros((1, 10), np.float32)
    error[0, 9] = 75
    tally = ColorTally()
    for _ in range(3):
        tally.add(truth, error)
    assert tally.auc == pytest.approx(95)
    assert tally.rebalanced == pytest.approx(75)


def test_a_rare_colour_beside_a_common_one_shares_its_prior() -> None:
    """The prior is smoothed with sigma 5 over colours 10 apart: a neighbour counts exp(-2) as much."""
    truth = np.zeros((2, 1, 10), np.float32)
    truth[0, 0, 9] = 10
    error = np.zeros((1, 10), np.float32)
    error[0, 9] = 75
    tally = ColorTally()
    tally.add(truth, error)
    near, far = np.exp(-2), np.exp(-8)  # of the neighbour, and of the one after it, which the kernel also reaches
    kernel = np.array([far, near, 1, near, far]) / (1 + 2 * near + 2 * far)
    common, rare = 1 / (9 * kernel[2] + kernel[1]), 1 / (kernel[2] + 9 * kernel[1])
    expected = 100 * (9 * common + 0.5 * rare) / (9 * common + rare)
    assert tally.rebalanced == pytest.approx(expected)


def test_outliers_are_the_pixels_with_more_chroma_than_one_in_a_thousand_of_the_truth() -> None:
    truth, found = ChromaTally(), ChromaTally()
    ab = np.zeros((2, 10, 1000), np.float32)
    ab[0] = 20
    ab[0, 0, :10] = 50  # one in a thousand
    truth.add(ab)
    assert truth.bound == pytest.approx(20.25)
    assert truth.beyond(truth.bound) == pytest.approx(0.1)
    ab[1, 1, :200] = 90
    found.add(ab)
    assert found.beyond(truth.bound) == pytest.approx(2.1)


def film(seed: int, frames: int) -> list[tuple[Picture, Field]]:
    rng = np.random.default_rng(seed)
    pictures = [np.clip(rng.normal(40 * rng.random(3) + 90, 30, (24, 30, 3)), 0, 255) for _ in range(frames)]
    return [(one.astype(np.uint8), rng.normal(0, 9, (2, 12, 15)).astype(np.float32)) for one in pictures]


def cdc_of(frames: list[tuple[Picture, Field]], apart: int) -> list[float]:
    """The divergence of every pair of frames so far apart, by SciPy's entropy of np.histogram."""
    found = []
    for (one, _), (two, _) in zip(frames, frames[apart:], strict=False):
        for channel in range(3):
            p, q = (np.histogram(x[..., channel], 256, (0, 256))[0] / (24 * 30) for x in (one, two))
            found.append(entropy(p, (p + q) / 2) / 2 + entropy(q, (p + q) / 2) / 2)
    return found


def test_the_cdc_is_the_mean_divergence_over_channels_frames_and_dilations() -> None:
    frames, meter = film(1, 9), Meter(8)
    for frame in frames:
        meter.add(np.zeros((24, 30), np.uint8), {"it": frame})
    motion = meter.motions()["it"]
    each = [float(np.mean(cdc_of(frames, apart))) for apart in DILATIONS]
    assert [motion.cdc_1, motion.cdc_2, motion.cdc_4] == pytest.approx(each)
    assert motion.cdc == pytest.approx(np.mean(each))


def test_frames_of_two_shots_are_not_compared() -> None:
    first, second, meter = film(1, 6), film(2, 5), Meter(8)
    for shot in (first, second):
        meter.cut()
        for frame in shot:
            meter.add(np.zeros((24, 30), np.uint8), {"it": frame})
    motion = meter.motions()["it"]
    assert motion.cdc_4 == pytest.approx(np.mean(cdc_of(first, 4) + cdc_of(second, 4)))
    chroma = [[np.hypot(*ab).mean() for _, ab in shot] for shot in (first, second)]
    assert motion.flicker == pytest.approx(np.concatenate([np.abs(np.diff(line)) for line in chroma]).mean(), rel=1e-5)
    assert motion.chroma == pytest.approx(np.mean(chroma[0] + chroma[1]), rel=1e-5)


def test_of_shots_too_short_to_compare_nothing_is_said() -> None:
    meter = Meter(8)
    for frame in film(1, 3):
        meter.cut()
        meter.add(np.zeros((24, 30), np.uint8), {"it": frame})
    motion = meter.motions()["it"]
    assert (motion.cdc, motion.cdc_1, motion.flicker, motion.warp_error) == (None, None, None, None)
    assert motion.chroma > 0


def test_histograms_are_shares_of_pixels() -> None:
    picture = np.zeros((2, 2, 3), np.uint8)
    picture[0, 0] = 255, 7, 7
    red, green, _ = histograms(picture)
    assert (red[0], red[255], green[7]) == (0.75, 0.25, 0.25)
    assert [part.sum() for part in histograms(picture)] == [1, 1, 1]
