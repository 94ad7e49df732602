from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from conftest import color
from numpy.typing import NDArray

from restore.clip import Plane
from restore.shots import ShotDetector, difference, thumbnail_of

Picture = NDArray[np.float64]
HEIGHT, WIDTH = 90, 121


def scene(seed: int, width: int = WIDTH) -> Picture:
    """Make a still picture of blobs of several sizes, in 0..1."""
    rng = np.random.default_rng(seed)
    coarse, fine = (
        cv2.resize(rng.normal(size=(n, n * width // HEIGHT)), (width, HEIGHT), interpolation=cv2.INTER_CUBIC)
        for n in (4, 9)
    )
    return np.asarray(np.clip(0.5 + 0.2 * coarse + 0.1 * fine, 0, 1), np.float64)


def film(picture: Picture, t: int, depth: int = 8) -> Plane:
    """Turn a picture into limited-range code values with grain."""
    noise = np.random.default_rng(1000 + t).normal(0, 0.02, (HEIGHT, WIDTH))
    codes = np.rint((16 + 219 * np.clip(picture + noise, 0, 1)) * 2 ** (depth - 8))
    plane: Plane = codes.astype(np.uint8) if depth == 8 else codes.astype(np.uint16)
    return plane


def cuts(pictures: Iterable[Picture], depth: int = 8, min_frames: int = 6) -> tuple[int, ...]:
    detector = ShotDetector(min_frames)
    for t, picture in enumerate(pictures):
        detector.push(film(picture, t, depth), color(depth))
    return detector.finish()


def cuts_of(path: Path) -> tuple[int, ...]:
    detector = ShotDetector()
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            luma = frame.to_ndarray()[: frame.height]
            if luma.dtype == np.uint8:
                detector.push(luma.astype(np.uint8), color())
            else:
                detector.push(luma.astype(np.uint16), color(10))
    return detector.finish()


A, B, C = scene(1), scene(2), scene(3)


@pytest.mark.parametrize("depth", [8, 10, 16])
def test_cuts_are_found_at_the_first_frame_of_the_new_shot(depth: int) -> None:
    assert cuts([A] * 11 + [B] * 7 + [C] * 20, depth) == (11, 18)


@pytest.mark.parametrize("frame", [1, 3, 8, 27, 28, 29])
def test_cuts_near_the_ends_are_found(frame: int) -> None:
    assert cuts([A] * frame + [B] * (30 - frame)) == (frame,)


@pytest.mark.parametrize("frames", [0, 1, 2, 9, 40])
def test_one_scene_of_any_length_has_no_cut(frames: int) -> None:
    assert cuts([A] * frames) == ()


def test_flicker_of_brightness_and_contrast_is_no_cut() -> None:
    rng = np.random.default_rng(5)
    assert cuts([A * gain + offset for gain, offset in rng.uniform((0.4, 0), (1, 0.3), (40, 2))]) == ()


@pytest.mark.parametrize("length", [1, 2, 3])
@pytest.mark.parametrize("brightness", [0.0, 1.0, 3.0])
def test_a_flash_or_a_drop_out_is_no_cut(length: int, brightness: float) -> None:
    assert cuts([A] * 15 + [A * 0.02 + brightness] * length + [A] * 15) == ()


def test_a_flash_does_not_hide_the_cut_after_it() -> None:
    assert cuts([A] * 15 + [np.ones_like(A)] * 2 + [A] * 8 + [B] * 15) == (25,)


def test_scratches_and_dust_are_no_cut() -> None:
    rng = np.random.default_rng(6)

    def damaged() -> Picture:
        picture = A.copy()
        for x in rng.integers(2, WIDTH - 2, 3):
            picture[:, x - 1 : x + 2] = 1.0
        for y, x in rng.integers(0, 80, (6, 2)):
            picture[y : y + 8, x : x + 8] = 0.0
        return picture

    assert cuts([damaged() for _ in range(30)]) == ()


def test_gate_weave_and_a_pan_are_no_cut() -> None:
    wide = scene(7, 4 * WIDTH)
    pan = [wide[:, 6 * t : 6 * t + WIDTH] for t in range(50)]
    weave = [np.roll(A, tuple(shift), (0, 1)) for shift in np.random.default_rng(8).integers(-4, 5, (40, 2))]
    assert cuts(pan) == ()
    assert cuts(weave) == ()


def test_a_pan_too_fast_to_follow_is_no_cut() -> None:
    wide = scene(7, 12 * WIDTH)
    pan = [wide[:, 48 * t : 48 * t + WIDTH] for t in range(27)]
    assert difference(*(thumbnail_of(film(pan[t], t), 8) for t in (0, 1))) > 0.18
    assert cuts(pan) == ()
    assert cuts([*pan[:13], *[pan[12]] * 12, *[B] * 20]) == (25,)


def test_a_dissolve_is_no_cut() -> None:
    mix = [A * (1 - t / 15) + B * t / 15 for t in range(1, 15)]
    assert cuts([A] * 20 + mix + [B] * 20) == ()


@pytest.mark.parametrize("through", [0.0, 1.0])
def test_a_fade_through_black_or_white_starts_a_shot_where_the_picture_returns(through: float) -> None:
    def faded(picture: Picture) -> list[Picture]:
        return [through + (picture - through) * t / 12 for t in range(1, 12)]

    fade = [*faded(A)[::-1], *[np.full_like(A, through)] * 9]
    (found,) = cuts([*[A] * 20, *fade, *faded(B), *[B] * 20])
    assert found in (40, 41)
    assert cuts([*[A] * 20, *fade, *faded(A), *[A] * 20]) == ()


def test_of_two_changes_too_close_the_stronger_is_the_cut() -> None:
    pictures = [A] * 15 + [0.25 * A + 0.75 * B] * 4 + [C] * 15
    assert cuts(pictures, min_frames=4) == (15, 19)
    assert cuts(pictures, min_frames=5) == (19,)


def test_memory_does_not_grow_with_the_film() -> None:
    detector = ShotDetector()
    for _ in range(200):
        detector.push(film(A, 0), color())
    assert len(detector._thumbnails) == len(detector._scores) == 17
    assert detector._thumbnails[0].shape == (48, 64)


@pytest.mark.parametrize("shape", [(1, 1), (3, 2), (1, 200), (200, 1), (13, 64)])
def test_frames_of_any_size_are_taken(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    detector = ShotDetector()
    for _ in range(20):
        detector.push(rng.integers(0, 256, shape).astype(np.uint8), color())
    assert isinstance(detector.finish(), tuple)


def test_thumbnails_are_on_the_scale_of_eight_bits_and_keep_the_aspect() -> None:
    luma = np.full((90, 160), 400, np.uint16)
    thumbnail = thumbnail_of(luma, 10)
    assert thumbnail.shape == (36, 64)
    assert np.allclose(thumbnail, 100)


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="min_frames must be at least 1, got 0"):
        ShotDetector(0)
    with pytest.raises(ValueError, match=r"luma must have shape \(H, W\), got \(2, 4, 4\)"):
        ShotDetector().push(np.zeros((2, 4, 4), np.uint8), color())


@pytest.mark.needs_shared
@pytest.mark.parametrize(
    ("clip", "expected"),
    [
        ("c01_color_dog_motion.mp4", ()),
        ("c02_color_person_gesture.mp4", ()),
        ("c03_color_cuts_dissolve.mp4", (50, 85, 135)),
        ("c04_color_nasa_audio_cuts.mp4", (240,)),  # 150-160 is a dissolve
        ("c05_color_vfr.mp4", ()),
        ("c06_color_pal_interlaced.mpg", ()),
        ("c07_color_10bit_2audio_subs.mkv", ()),
        ("b01_bw_silent_nosferatu_1922.mp4", (51, 183)),  # 46-50 are black, after an iris
        ("b02_bw_scratched_home_movie.mp4", ()),
        ("b03_bw_fullrange_gray_pcm_audio.mkv", (8, 113, 177)),
    ],
)
def test_the_cuts_of_real_clips_are_found_and_no_others(shared: Path, clip: str, expected: tuple[int, ...]) -> None:
    assert cuts_of(shared / "data" / "clips" / clip) == expected
