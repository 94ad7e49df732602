"""Which pictures are dropped from a training set and why, how the others are made equal, and which look alike."""

from __future__ import annotations

import dataclasses
import io
import struct

import cv2
import numpy as np
import pytest
from photographs import encoded, photo, toned
from PIL import Image, ImageCms

from restore.photographs import Picture
from restore.train.nearby import Nearby, perceptual_hash
from restore.train.screen import Criteria, Examined, Form, examine, trim

CRITERIA, FORM = Criteria(smallest_side=64), Form(short_side=96)


def look(content: bytes) -> Examined:
    return examine(content, CRITERIA, FORM)


def test_a_photograph_is_kept_and_made_smaller() -> None:
    found = look(encoded(photo(0, 240, 300)))
    assert (found.reason, found.width, found.height) == ("", 120, 96)
    image = Image.open(io.BytesIO(found.jpeg))
    assert (image.size, image.mode, image.info.get("icc_profile")) == ((120, 96), "RGB", None)
    expected = cv2.resize(photo(0, 240, 300), (120, 96), interpolation=cv2.INTER_AREA)
    assert np.abs(np.asarray(image, int) - expected).mean() < 6


def test_a_small_photograph_is_not_enlarged() -> None:
    assert (look(encoded(photo(0, 70, 80))).width, look(encoded(photo(0, 70, 80))).height) == (80, 70)


_DARK, _BRIGHT = photo(1) // 40, 255 - photo(1) // 50
_FLAT = np.full((120, 150, 3), (200, 40, 40), np.uint8)
_FLAT[:60, :75] = (30, 60, 220)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "broken"),
        (b"\xff\xd8 not a jpeg", "broken"),
        (encoded(photo(1))[:2500], "broken"),
        (encoded(photo(1), "PNG")[:9000], "broken"),
        (encoded(photo(1, 63, 200)), "tiny"),
        (encoded(photo(1, 70, 200)), "elongated"),
        (encoded(np.asarray(Image.fromarray(photo(1)).convert("L"))), "grey"),
        (encoded(photo(1)[..., 0].astype(np.uint16) * 257, "PNG"), "grey"),
        (encoded(toned((1, 1, 1))), "tinted"),
        (encoded(toned((0.8, 1, 1.4)), quality=70), "tinted"),
        (encoded(toned((1.4, 1, 0.8))), "tinted"),
        (encoded(_DARK), "dark"),
        (encoded(_BRIGHT), "bright"),
        (encoded(_FLAT, "PNG"), "flat"),
        (encoded(np.dstack((photo(1), photo(1)[..., :1] // 128 * 255)), "PNG"), "transparent"),
    ],
)  # fmt: skip
def test_what_is_no_colour_photograph_is_dropped_and_why(content: bytes, reason: str) -> None:
    found = look(content)
    assert found.reason == reason
    assert found.measured
    assert not found.jpeg


def test_a_spot_of_colour_is_grey_and_few_colours_are_flat() -> None:
    spot = toned((1, 1, 1))
    spot[40:60, 40:80] = photo(1)[40:60, 40:80]
    assert look(encoded(spot)).reason == "grey"
    assert look(encoded((photo(1) // 128 * 127 + 40).astype(np.uint8), "PNG")).reason == "flat"


def test_a_threshold_is_a_setting() -> None:
    content = encoded(toned((0.8, 1, 1.4)))
    loose = dataclasses.replace(CRITERIA, spread=0.0, one_hue=1.0, colorfulness=0.0, colored=0.0, colors=0)
    assert examine(content, loose, FORM).reason == ""


def test_a_picture_on_its_side_is_turned() -> None:
    lying = look(encoded(np.ascontiguousarray(np.rot90(photo(2))), orientation=6))
    assert (lying.width, lying.height) == (120, 96)
    assert bin(lying.hash ^ look(encoded(photo(2))).hash).count("1") <= 4
    assert not Image.open(io.BytesIO(lying.jpeg)).getexif()


def test_colours_are_converted_to_srgb() -> None:
    source = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    swapped = _with_swapped_primaries(source)
    plain, strange = look(encoded(photo(3))), look(encoded(photo(3), icc_profile=swapped))
    a, b = (np.asarray(Image.open(io.BytesIO(found.jpeg)), int) for found in (plain, strange))
    assert np.abs(a - b[..., [2, 1, 0]]).mean() < 4 < np.abs(a - b).mean()
    damaged = look(encoded(photo(3), icc_profile=swapped[:200]))
    assert damaged.jpeg == plain.jpeg


def _with_swapped_primaries(icc: bytes) -> bytes:
    """Exchange the names of the red and the blue colorant in the tag table."""
    (count,) = struct.unpack(">I", icc[128:132])
    end = 132 + 12 * count
    table = icc[132:end].replace(b"rXYZ", b"?XYZ").replace(b"bXYZ", b"rXYZ").replace(b"?XYZ", b"bXYZ")
    return icc[:132] + table + icc[end:]


def test_ink_becomes_rgb() -> None:
    file = io.BytesIO()
    Image.fromarray(photo(4)).convert("CMYK").save(file, "JPEG", quality=95)
    assert look(file.getvalue()).reason == ""


@pytest.mark.parametrize("ink", [0, 255])
def test_plain_borders_are_cut(ink: int) -> None:
    framed = np.full((160, 210, 3), ink, np.uint8)
    framed[20:140, 30:180] = np.clip(photo(5), 30, 225)
    found = trim(framed)
    assert abs(found.shape[0] - 120) <= 2
    assert abs(found.shape[1] - 150) <= 2
    assert trim(photo(5)).shape == photo(5).shape
    assert trim(np.full((100, 100, 3), ink, np.uint8)).shape == (100, 100, 3)


def test_pictures_that_look_alike_have_near_hashes_and_others_have_not() -> None:
    def bits(a: Picture, b: Picture) -> int:
        return (perceptual_hash(a[..., 1]) ^ perceptual_hash(b[..., 1])).bit_count()

    one = photo(6, 240, 300)
    half = np.asarray(cv2.resize(one, (151, 119), interpolation=cv2.INTER_AREA), np.uint8)
    coarse = np.asarray(Image.open(io.BytesIO(encoded(one, quality=30))), np.uint8)
    assert bits(one, half) <= 4
    assert bits(one, coarse) <= 4
    assert bits(one, (one * 0.9).astype(np.uint8)) <= 4
    assert min(bits(one, photo(seed)) for seed in range(7, 40)) > 14


@pytest.mark.parametrize("distance", [0, 3, 6, 10, 11])
def test_the_index_finds_what_a_search_of_all_would(distance: int) -> None:
    rng = np.random.default_rng(distance)
    values = [int(value) for value in rng.integers(0, 1 << 63, 9000, dtype=np.uint64)]
    index = Nearby(distance)
    for value in values:
        index.add(value)
    assert len(index) == 9000
    for number in (0, 4000, 8999):
        for flips in (0, distance, distance + 1):
            chosen = rng.choice(64, flips, replace=False)
            wanted = values[number] ^ sum(1 << int(bit) for bit in chosen)
            numbers, bits = index.find(wanted)
            distances = [(value ^ wanted).bit_count() for value in values]
            assert numbers.tolist() == [n for n, d in enumerate(distances) if d <= distance]
            assert bits.tolist() == [distances[n] for n in numbers]
            assert (number in numbers) == (flips <= distance)


def test_a_distance_too_large_for_the_index_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="distance must be between 0 and 11, not 12"):
        Nearby(12)
