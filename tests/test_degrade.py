"""Faults of old film."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from restore.train import degrade
from restore.train.degrade import Degradation, Plane


def ramp(height: int = 48, width: int = 64) -> Plane:
    return np.tile(np.linspace(0, 1, width, dtype=np.float32), (height, 1))


def photo(seed: int = 0) -> Plane:
    return np.random.default_rng(seed).random((48, 64, 3), dtype=np.float32)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize("seed", range(30))
def test_aged_grey_stays_in_range_and_size(seed: int) -> None:
    grey = degrade.age(photo(seed), Degradation(share=1.0), rng(seed))
    assert grey.shape == (48, 64)
    assert grey.dtype == np.float32
    assert np.isfinite(grey).all()
    assert grey.min() >= 0
    assert grey.max() <= 1


def test_the_same_chance_gives_the_same_picture() -> None:
    one, two = (degrade.age(photo(), Degradation(), rng(7)) for _ in range(2))
    assert np.array_equal(one, two)


def test_a_share_of_zero_leaves_the_luma_untouched() -> None:
    expected = photo() @ np.array((0.299, 0.587, 0.114), np.float32)
    for seed in range(20):
        assert np.abs(degrade.age(photo(), Degradation(share=0, orthochromatic=1), rng(seed)) - expected).max() < 1e-6


OFF = Degradation(
    share=1.0, orthochromatic=0.0, blur=0.0, vignette=0.0, flicker=0.0, gamma=1.0, contrast=1.0, grain=0.0, fading=0.0,
    scratches=0, dust=0, softness=0.0, compression=0.0, noise=0.0,
)  # fmt: skip


def test_without_any_fault_the_grey_is_a_luma_between_the_two_standards() -> None:
    rgb = photo()
    bounds = np.stack([rgb @ np.array(w, np.float32) for w in ((0.299, 0.587, 0.114), (0.2126, 0.7152, 0.0722))])
    for seed in range(20):
        grey = degrade.age(rgb, OFF, rng(seed))
        assert (grey >= bounds.min(0) - 2e-3).all()  # the tone curve keeps a thousandth off black and white
        assert (grey <= bounds.max(0) + 2e-3).all()


@pytest.mark.parametrize("fault", [field.name for field in dataclasses.fields(Degradation) if field.name != "share"])
def test_every_fault_alone_changes_the_grey(fault: str) -> None:
    alone = dataclasses.replace(OFF, **{fault: getattr(Degradation(), fault)})
    changes = [np.abs(degrade.age(photo(), alone, rng(s)) - degrade.age(photo(), OFF, rng(s))).max() for s in range(40)]
    assert max(changes) > 0.02


def test_ageing_does_not_write_into_the_photograph() -> None:
    rgb = photo()
    for seed in range(20):
        degrade.age(rgb, Degradation(share=1.0), rng(seed))
    assert np.array_equal(rgb, photo())


def test_an_orthochromatic_film_shows_red_dark_and_blue_light() -> None:
    red, blue = np.zeros((2, 4, 4, 3), np.float32)
    red[..., 0], blue[..., 2] = 1, 1
    assert degrade.expose(red, True, rng()).max() < 0.1
    assert degrade.expose(blue, True, rng()).min() > 0.4
    assert degrade.expose(red, False, rng()).min() > degrade.expose(blue, False, rng()).max()


def test_blur_takes_contrast_from_fine_detail_only() -> None:
    board = (np.indices((32, 32)).sum(0) % 2).astype(np.float32)
    assert degrade.blur(board, 1.0).std() < 0.1
    assert degrade.blur(board, 1.0).mean() == pytest.approx(0.5, abs=0.01)
    assert np.array_equal(degrade.blur(board, 0.1), board)


def test_tone_moves_middle_grey_and_keeps_black_and_white() -> None:
    darker, lighter = degrade.tone(ramp(), 1.5), degrade.tone(ramp(), 1 / 1.5)
    assert darker[0, 32] < ramp()[0, 32] < lighter[0, 32]
    assert darker[0, [0, -1]] == pytest.approx([0, 1], abs=1e-4)


def test_vignette_darkens_the_corners_by_its_loss_and_not_the_middle() -> None:
    grey = degrade.vignette(np.ones((49, 65), np.float32), 0.4)
    assert grey[0, 0] == pytest.approx(0.6, abs=1e-5)
    assert grey[24, 32] == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize("size", [0.0, 1.0])
def test_grain_has_its_deviation_at_any_size_and_no_bias(size: float) -> None:
    grey = np.full((200, 200), 0.5, np.float32)
    noise = degrade.grain(grey, 0.05, size, rng()) - grey
    assert noise.std() == pytest.approx(0.05, rel=0.05)
    assert abs(noise.mean()) < 0.002


def test_coarse_grain_has_neighbours_alike() -> None:
    grey = np.full((100, 100), 0.5, np.float32)
    fine, coarse = (degrade.grain(grey, 0.05, size, rng()) - grey for size in (0.0, 1.0))
    alike = [np.corrcoef(n[:, :-1].ravel(), n[:, 1:].ravel())[0, 1] for n in (fine, coarse)]
    assert alike[0] < 0.1 < 0.5 < alike[1]


def test_flicker_changes_light_slowly_and_no_more_than_its_strength_twice() -> None:
    for seed in range(20):
        gain = degrade.flicker(np.full((48, 64), 0.4, np.float32), 0.25, rng(seed)) / 0.4
        assert gain.max() <= 1.25**1.5 + 1e-5
        assert gain.min() >= 1.25**-2 - 1e-5
        assert max(np.abs(np.diff(gain, axis=0)).max(), np.abs(np.diff(gain, axis=1)).max()) < 0.05
    assert np.array_equal(degrade.flicker(ramp(), 0.0, rng()), ramp())


def test_contrast_keeps_its_tone_and_takes_black_and_white_apart() -> None:
    hard, soft = degrade.contrast(ramp(), 1.8, 0.4), degrade.contrast(ramp(), 0.7, 0.4)
    assert np.interp(0.4, ramp()[0], hard[0]) == pytest.approx(0.4, abs=0.01)
    assert hard.std() > ramp().std() > soft.std()
    assert (np.diff(hard[0]) >= 0).all()
    assert np.abs(degrade.contrast(ramp(), 1.0, 0.4) - ramp()).max() < 2e-3


def test_a_scratch_runs_down_the_picture_and_leaves_most_of_it() -> None:
    grey = np.full((64, 64), 0.5, np.float32)
    struck = [degrade.damage(grey, 1, 0, rng(seed)) != grey for seed in range(20)]
    assert 0 < np.mean(struck) < 0.06
    assert max(hit.any(1).sum() for hit in struck) > 40
    assert max(hit.any(0).sum() for hit in struck) < 16


def test_dust_is_small_and_bright_or_dark_and_not_always_opaque() -> None:
    grey = np.full((64, 64), 0.5, np.float32)
    changes = [degrade.damage(grey, 0, 8, rng(seed)) - grey for seed in range(20)]
    assert all(0 < (change != 0).mean() < 0.15 for change in changes)
    peaks = np.array([(change.min(), change.max()) for change in changes])
    assert peaks[:, 0].min() < -0.3
    assert peaks[:, 1].max() > 0.3
    assert np.abs(peaks).std() > 0.05
    assert np.array_equal(grey, np.full((64, 64), 0.5, np.float32))


def test_compression_makes_blocks_that_begin_anywhere() -> None:
    grey = photo()[..., 0]
    fine, coarse = (degrade.compress(grey, loss, rng()) for loss in (0.0, 1.0))
    assert np.abs(fine - grey).mean() < 0.03 < 0.1 < np.abs(coarse - grey).mean()
    assert fine.shape == grey.shape
    smooth = degrade.blur(grey, 3.0)
    edges = [
        np.abs(np.diff(degrade.compress(smooth, 1.0, rng(seed)), axis=1)).mean(0)[:56].reshape(-1, 8).mean(0).argmax()
        for seed in range(12)
    ]
    assert len(set(edges)) > 3


def test_noise_changes_at_most_its_share_of_pixels_by_at_most_thirty_code_values() -> None:
    grey = np.full((100, 100), 0.5, np.float32)
    change = degrade.noisify(grey, 0.4, rng()) - grey
    assert 0.3 < (change != 0).mean() < 0.35  # drawn with replacement: 1 - exp(-0.4)
    assert 29 / 255 < np.abs(change).max() <= 30 / 255 + 1e-6
    assert np.array_equal(degrade.noisify(grey, 0.0, rng()), grey)


def test_fading_lifts_black_and_lowers_white() -> None:
    faded = degrade.fade(ramp(), 0.1, 0.2)
    assert (faded.min(), faded.max()) == pytest.approx((0.1, 0.8), abs=1e-6)
