"""Photographs for training: cropped and made into samples."""

from __future__ import annotations

import dataclasses
import logging
import math
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from photographs import encoded, patches, picture

from restore.color import lab_from_rgb
from restore.errors import ConfigError, MediaError
from restore.photographs import Opened, find
from restore.train import augment, data
from restore.train.augment import PLAIN, Augmentation
from restore.train.degrade import Degradation

STILL = Augmentation(crop_area=1.0, crop_aspect=1.0, flip=0.0, share=0.0)
"""The largest square, and nothing else."""


def photos(folder: Path, seed: int = 0, augmentation: Augmentation | None = None) -> data.Photos:
    return data.Photos(find(folder), Degradation(), augmentation or Augmentation(), seed)


# Cropping


def test_a_large_jpeg_is_decoded_small_and_shows_the_same(tmp_path: Path) -> None:
    large = patches(2, 603, 801)
    (tmp_path / "large.jpg").write_bytes(encoded(large, subsampling=0))
    opened = Opened.of(find(tmp_path)[0])
    assert opened is not None
    half = opened.pixels(2)
    assert half is not None
    assert half.shape == (302, 401, 3)
    view = augment.draw(801, 603, Augmentation(share=1.0, brightness=0.0, contrast=1.0), np.random.default_rng(3))
    one, two = augment.crop(large, view, 64), augment.crop(half, view, 64, reduced=2)
    assert np.abs(one - two).mean() < 0.01


@pytest.mark.parametrize(("scale", "expected"), [(100, 1), (255, 1), (256, 2), (600, 4), (5000, 8)])
def test_a_jpeg_is_never_decoded_coarser_than_the_crop(scale: float, expected: int) -> None:
    assert augment.reduction(augment.View(np.eye(3), scale, 0.0, 1.0), 128) == expected


def gradient(height: int, width: int) -> NDArray[np.uint8]:
    """Red tells how far right, green how far down."""
    y, x = np.mgrid[:height, :width]
    red, green = (x + 0.5) / width, (y + 0.5) / height
    return np.asarray(np.rint(np.stack((red, green, 0 * red), -1) * 255), np.uint8)


def test_the_whole_square_is_the_picture_resized() -> None:
    square = patches(4, 128, 128)
    for pixels in (32, 64, 128):
        found = augment.crop(square, augment.draw(128, 128, STILL, np.random.default_rng(0)), pixels)
        expected = cv2.resize(square, (pixels, pixels), interpolation=cv2.INTER_AREA) / 255
        assert np.abs(found - expected).mean() < 0.004


def test_fine_detail_averages_out_and_makes_no_false_patterns() -> None:
    stripes = np.zeros((300, 300, 3), np.uint8)
    stripes[:, ::2] = 255
    for seed in range(10):
        view = augment.draw(300, 300, dataclasses.replace(STILL, rotation=10.0, share=1.0), np.random.default_rng(seed))
        assert augment.crop(stripes, view, 64).std() < 0.09


@pytest.mark.parametrize(("width", "height"), [(300, 100), (100, 300), (97, 97)])
def test_a_crop_lies_in_the_picture_and_is_stretched_no_more_than_allowed(width: int, height: int) -> None:
    settings = Augmentation(crop_area=0.3, crop_aspect=1.5, share=0.0)
    corners = np.array([[-1, -1, 1], [1, 1, 1]]).T
    for seed in range(200):
        view = augment.draw(width, height, settings, np.random.default_rng(seed))
        x, y, _ = view.matrix @ corners
        assert min(*x, *y) > -1e-6
        assert max(x) < width + 1e-6
        assert max(y) < height + 1e-6
        wide, high = abs(x[1] - x[0]), abs(y[1] - y[0])
        assert 1 / 1.5 - 1e-6 < wide / high < 1.5 + 1e-6
        if width == height:
            assert wide * high > 0.3 * width * height / 1.5


def test_half_of_the_crops_are_mirrored() -> None:
    settings = dataclasses.replace(STILL, flip=0.5)
    views = [augment.draw(64, 64, settings, np.random.default_rng(seed)) for seed in range(200)]
    mirrored = [augment.crop(gradient(64, 64), view, 32)[0, 0, 0] > 0.5 for view in views[:20]]
    assert mirrored == [view.matrix[0, 0] < 0 for view in views[:20]]
    assert 70 < sum(view.matrix[0, 0] < 0 for view in views) < 130


def test_rotation_turns_about_the_middle_by_at_most_its_angle() -> None:
    settings = dataclasses.replace(STILL, share=1.0, rotation=10.0, warp=0.0, zoom=1.0, brightness=0.0, contrast=1.0)
    angles = []
    for seed in range(100):
        matrix = augment.draw(100, 100, settings, np.random.default_rng(seed)).matrix
        assert matrix @ [0, 0, 1] == pytest.approx([50, 50, 1])
        angles.append(math.degrees(math.atan2(matrix[1, 0], matrix[0, 0])))
    assert 9 < max(angles) <= 10
    assert -10 <= min(angles) < -9


def test_zoom_shows_a_part_of_the_crop() -> None:
    settings = dataclasses.replace(STILL, share=1.0, rotation=0.0, warp=0.0, zoom=1.2, brightness=0.0, contrast=1.0)
    corners = np.array([[-1, -1, 1], [1, 1, 1]]).T
    for seed in range(50):
        view = augment.draw(100, 100, settings, np.random.default_rng(seed))
        points = (view.matrix @ corners)[:2]
        assert points.min() > -1e-6
        assert points.max() < 100 + 1e-6
        assert 100 / 1.2 - 1e-6 <= points[0, 1] - points[0, 0] <= 100
        assert view.scale == pytest.approx(points[0, 1] - points[0, 0])


def test_warp_changes_opposite_edges_apart_and_keeps_straight_lines_straight() -> None:
    settings = dataclasses.replace(STILL, share=1.0, rotation=0.0, zoom=1.0, brightness=0.0, contrast=1.0)
    matrix = augment.draw(100, 100, settings, np.random.default_rng(1)).matrix
    corners = matrix @ np.array([[-1, -1, 1], [1, -1, 1], [1, 1, 1], [-1, 1, 1]]).T
    x, y = corners[:2] / corners[2]
    edges = np.array([x[1] - x[0], y[2] - y[1], x[2] - x[3], y[3] - y[0]])
    assert len(np.unique(edges.round(3))) == 4
    assert (np.abs(edges / 100 - 1) <= 0.25 + 1e-6).all()
    assert (x[0] + x[1], x[2] + x[3]) == pytest.approx((100, 100), abs=1e-3)


def test_light_changes_within_its_strength_and_keeps_order() -> None:
    settings = dataclasses.replace(STILL, share=1.0, rotation=0.0, warp=0.0, zoom=1.0)
    ramp = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 256, 0).repeat(3, 2)
    middles = []
    for seed in range(60):
        found = augment.crop(ramp, augment.draw(256, 256, settings, np.random.default_rng(seed)), 256)[128, :, 0]
        assert (np.diff(found) >= 0).all()
        assert found.min() >= 0
        assert found.max() <= 1
        middles.append(found[127:129].mean())
    assert 0.24 < min(middles) < 0.3
    assert 0.7 < max(middles) < 0.76


def test_a_share_of_zero_changes_neither_light_nor_shape() -> None:
    assert PLAIN.share == 0
    view = augment.draw(100, 100, STILL, np.random.default_rng(5))
    assert (view.shift, view.slope, view.scale) == (0.0, 1.0, 100.0)
    assert np.allclose(view.matrix, [[50, 0, 50], [0, 50, 50], [0, 0, 1]])


@pytest.mark.parametrize(("name", "value"), [("share", 1.5), ("crop_aspect", 0.5), ("brightness", 0.5), ("warp", -1)])
def test_a_strength_out_of_range_is_refused(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"{name} must be between"):
        dataclasses.replace(Augmentation(), **{name: value})


# Samples


def test_broken_pictures_are_skipped_and_counted(photographs: Path, caplog: pytest.LogCaptureFixture) -> None:
    (photographs / "broken.jpg").write_bytes(b"\xff\xd8 not a jpeg")
    (photographs / "empty.png").write_bytes(b"")
    (photographs / "cut.jpg").write_bytes(picture(3)[:1500])
    (photographs / "tiny.jpg").write_bytes(picture(3, 31, 90))
    (photographs / "deep.png").write_bytes(cv2.imencode(".png", np.zeros((40, 40), np.uint16))[1].tobytes())
    stream = photos(photographs)
    with caplog.at_level(logging.WARNING):
        stream.batch(0, 22, 32)
    assert {Path(name).name for name in stream.broken} == {"broken.jpg", "empty.png", "cut.jpg", "tiny.jpg", "deep.png"}
    assert caplog.text.count("is skipped") == 5
    assert "(5 so far)" in caplog.text


def test_a_picture_that_has_gone_is_skipped(photographs: Path) -> None:
    stream = photos(photographs)
    (photographs / "q.jpg").unlink()
    assert stream.batch(0, 6, 32).grey.shape == (6, 1, 32, 32)
    assert stream.broken == {str(photographs / "q.jpg")}


def test_only_broken_pictures_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8 not a jpeg")
    with pytest.raises(MediaError, match="cannot be decoded"):
        photos(tmp_path).batch(0, 1, 32)


def test_a_sample_depends_on_seed_and_number_alone(photographs: Path) -> None:
    one, two = photos(photographs), photos(photographs)
    two.batch(3, 4, 32)
    a, b = one.batch(10, 2, 64), two.batch(10, 2, 64)
    assert all(torch.equal(getattr(a, name), getattr(b, name)) for name in ("grey", "rgb", "ab"))
    assert not torch.equal(a.grey, photos(photographs, seed=1).batch(10, 2, 64).grey)


def test_a_broken_picture_changes_no_other_sample(photographs: Path) -> None:
    (photographs / "broken.jpg").write_bytes(b"")
    fresh, used = photos(photographs), photos(photographs)
    used.batch(0, 20, 32)
    assert torch.equal(fresh.batch(20, 7, 32).grey, used.batch(20, 7, 32).grey)


def test_every_picture_is_seen_once_an_epoch(photographs: Path) -> None:
    stream = photos(photographs)
    orders = [[stream._index(epoch * 6 + i) for i in range(6)] for epoch in range(4)]
    assert all(sorted(order) == list(range(6)) for order in orders)
    assert len({tuple(order) for order in orders}) > 1


def test_a_batch_holds_the_grey_the_clean_picture_and_its_ab_at_half_size(tmp_path: Path) -> None:
    rgb = np.full((80, 80, 3), (40, 160, 90), np.uint8)
    cv2.imwrite(str(tmp_path / "flat.png"), rgb[..., ::-1])
    batch = data.Photos(find(tmp_path), Degradation(share=0.0), PLAIN, 0).batch(0, 2, 64)
    assert (batch.grey.shape, batch.rgb.shape, batch.ab.shape) == ((2, 1, 64, 64), (2, 3, 64, 64), (2, 2, 32, 32))
    assert all(getattr(batch, name).dtype == torch.float32 for name in ("grey", "rgb", "ab"))
    assert torch.allclose(batch.rgb, torch.tensor([40.0, 160.0, 90.0])[:, None, None] / 255, atol=1e-6)
    assert torch.allclose(batch.grey, torch.tensor((0.299 * 40 + 0.587 * 160 + 0.114 * 90) / 255), atol=1e-5)
    expected = data.lab(rgb[:1, :1].astype(np.float32) / np.float32(255))[0, 0, 1:]
    assert torch.allclose(batch.ab, torch.from_numpy(expected)[:, None, None], atol=1e-2)


def test_only_the_input_is_aged(photographs: Path) -> None:
    found = find(photographs)
    clean, aged = (data.Photos(found, Degradation(share=s), PLAIN, 0).batch(0, 6, 64) for s in (0.0, 1.0))
    assert torch.equal(clean.rgb, aged.rgb)
    assert torch.equal(clean.ab, aged.ab)
    assert not torch.equal(clean.grey, aged.grey)


def test_colours_of_the_reader_are_those_of_the_pipeline() -> None:
    rgb = np.random.default_rng(0).random((32, 32, 3), dtype=np.float32)
    expected = lab_from_rgb(torch.from_numpy(rgb).permute(2, 0, 1)).permute(1, 2, 0).numpy()
    assert np.abs(data.lab(rgb) - expected).max() < 0.7  # OpenCV approximates the curves by tables


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may read everything")
def test_a_picture_that_may_not_be_read_is_skipped(photographs: Path) -> None:
    (photographs / "q.jpg").chmod(0)
    stream = photos(photographs)
    stream.batch(0, 6, 32)
    assert stream.broken == {str(photographs / "q.jpg")}
