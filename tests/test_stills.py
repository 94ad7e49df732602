"""Reading and writing stills: luma, colour, orientation, tone, errors. See also `test_stills_formats`, `_metadata`."""

from __future__ import annotations

import errno
import logging
import os
import struct
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import tifffile
from conftest import small_disk
from numpy.typing import NDArray
from PIL import Image

from restore import stills
from restore.clip import Clip, Matrix, Plane
from restore.color import LUMA_COEFFICIENTS
from restore.errors import ConfigError, MediaError
from restore.stills.still import clip_of, luma_from_rgb, rgb_from_clip, upright

HEIGHT, WIDTH = 37, 53
KR, KB = LUMA_COEFFICIENTS[Matrix.SMPTE170M]


def gray(depth: int = 8, height: int = HEIGHT, width: int = WIDTH) -> Plane:
    """Return a plane with a dark upper left corner, so that every orientation differs."""
    rng = np.random.default_rng(3)
    unit = np.linspace(0, 1, height * width).reshape(height, width) * 0.8 + rng.random((height, width)) * 0.2
    return np.asarray(np.rint(unit * (2**depth - 1)), np.uint8 if depth == 8 else np.uint16)


def painted(clip: Clip, seed: int = 0) -> Clip:
    """Give a still random chroma of which every R'G'B' is inside the cube, half a code from its faces."""
    rng = np.random.default_rng(seed)
    top = 2**clip.color.depth - 1
    y = clip.luma[0] / top
    cb, cr = rng.uniform(-0.5, 0.5, (2, *y.shape))
    red, blue = 2 * (1 - KR) * cr, 2 * (1 - KB) * cb
    offsets = np.stack((red, -(KR * red + KB * blue) / (1 - KR - KB), blue))
    room = np.where(offsets > 0, 1 - y, y) - 2.5 / top
    share = np.clip((room / np.abs(offsets)).min(0), 0, 1) * rng.random(y.shape)
    codes = np.rint(np.stack((cb, cr)) * share * top) + 2 ** (clip.color.depth - 1)
    return clip.with_planes(chroma=codes.astype(clip.luma.dtype)[None])


def luma_of(rgb: NDArray[np.generic]) -> NDArray[np.int64]:
    """Return rounded Y' of R'G'B', by arithmetic of its own."""
    return np.asarray(np.rint(rgb.astype(np.float64) @ np.array([0.299, 0.587, 0.114])), np.int64)


def same(one: Plane | None, other: Plane | None) -> bool:
    return one is other if one is None or other is None else np.array_equal(one, other)


def repaint(source: Path, output: Path) -> stills.Still:
    """Read, colour and write a still; return it as read back."""
    still = stills.read(source)
    stills.write(output, still, painted(still.clip))
    back = stills.read(output)
    assert same(back.alpha, still.alpha)
    return back


def test_a_still_is_one_full_range_frame_of_luma(tmp_path: Path) -> None:
    Image.fromarray(gray()).save(tmp_path / "a.png")
    still = stills.read(tmp_path / "a.png")
    color = still.clip.color
    assert still.clip.luma.shape == (1, HEIGHT, WIDTH)
    assert (still.clip.chroma, still.alpha, still.format, still.toned) == (None, None, "png", "gray")
    assert (color.matrix, color.transfer, color.full_range, color.depth) == (Matrix.SMPTE170M, 13, True, 8)
    assert np.array_equal(still.clip.luma[0], gray())


@pytest.mark.parametrize("depth", [8, 16])
def test_luma_of_equal_channels_is_their_value_and_of_others_is_rounded(depth: int) -> None:
    dtype: type[np.uint8] | type[np.uint16] = np.uint8 if depth == 8 else np.uint16
    values: Plane = np.arange(2**depth, dtype=dtype).reshape(-1, 256 if depth == 16 else 16)
    assert np.array_equal(luma_from_rgb(np.dstack([values] * 3)), values)
    rgb: Plane = np.random.default_rng(0).integers(0, 2**depth, (300, 70, 3), dtype)
    exact = rgb.astype(np.float64) @ np.array([0.299, 0.587, 0.114])
    assert np.abs(luma_from_rgb(rgb) - exact).max() <= 0.5 + 1e-9


@pytest.mark.parametrize(("name", "depth"), [("a.tif", 8), ("a.tif", 16), ("a.png", 8), ("a.png", 16), ("a.webp", 8)])
def test_written_rgb_has_exactly_the_luma_of_the_source(tmp_path: Path, name: str, depth: int) -> None:
    source, luma = tmp_path / "source.tif", gray(depth, 301, 203)
    tifffile.imwrite(source, luma, photometric="minisblack")
    still = stills.read(source)
    stills.write(tmp_path / name, still, painted(still.clip))
    back = stills.read(tmp_path / name)
    assert back.clip.color.depth == depth
    assert np.array_equal(back.clip.luma, still.clip.luma)
    if name == "a.tif":
        rgb = tifffile.imread(tmp_path / name)
        assert np.array_equal(luma_of(rgb), luma)
        assert (rgb.max(2) - rgb.min(2)).mean() > 2 ** (depth - 4)


@pytest.mark.parametrize("depth", [8, 16])
def test_written_colours_are_those_of_the_chroma(depth: int) -> None:
    clip = painted(clip_of(gray(depth), depth))
    rgb = rgb_from_clip(clip, depth).astype(np.float64)
    assert clip.chroma is not None
    for channel, plane, k in ((2, 0, KB), (0, 1, KR)):
        wanted = clip.chroma[0, plane].astype(np.float64) - 2 ** (depth - 1)
        assert np.abs((rgb[..., channel] - clip.luma[0]) / (2 * (1 - k)) - wanted).max() <= 0.5


def test_a_colour_out_of_gamut_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    Image.fromarray(gray()).save(tmp_path / "a.png")
    still = stills.read(tmp_path / "a.png")
    chroma = np.full((1, 2, HEIGHT, WIDTH), 255, np.uint8)
    stills.write(tmp_path / "b.png", still, still.clip.with_planes(chroma=chroma))
    assert "painted out of gamut" in caplog.text


def test_a_still_without_chroma_is_written_gray(tmp_path: Path) -> None:
    Image.fromarray(gray()).save(tmp_path / "a.png")
    still = stills.read(tmp_path / "a.png")
    for name in ("b.png", "b.tif"):
        stills.write(tmp_path / name, still, still.clip)
        with Image.open(tmp_path / name) as image:
            assert image.mode == "L"
            assert np.array_equal(np.asarray(image), gray())


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_turned_as_pillow_turns_it(orientation: int) -> None:
    from PIL import ImageOps

    image = Image.fromarray(gray())
    image.getexif()[274] = orientation
    assert np.array_equal(upright(gray(), orientation), np.asarray(ImageOps.exif_transpose(image)))


def test_tones_are_told_from_colours(tmp_path: Path) -> None:
    unit = gray(8, 160, 200) / 255
    rng = np.random.default_rng(1)
    pictures = {
        "gray": np.dstack([unit] * 3),
        "toned": np.dstack((unit**0.7, unit**0.9, unit**1.3)) + rng.normal(0, 0.03, (160, 200, 3)),
        "color": np.dstack((unit, unit[::-1], unit[:, ::-1])),
    }
    for tone, picture in pictures.items():
        for depth in (8, 16):
            codes = np.rint(np.clip(picture, 0, 1) * (2**depth - 1)).astype(f"u{depth // 8}")
            tifffile.imwrite(tmp_path / "a.tif", codes, photometric="rgb")
            assert stills.read(tmp_path / "a.tif").toned == tone


def test_a_scan_beyond_pillows_limit_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", 100)
    for suffix in ("jpg", "webp", "png", "tif"):
        Image.fromarray(gray()).save(tmp_path / f"a.{suffix}")
        assert stills.read(tmp_path / f"a.{suffix}").clip.luma.shape == (1, HEIGHT, WIDTH)
    assert PIL.Image.MAX_IMAGE_PIXELS == 100


def test_a_header_that_claims_absurd_sizes_is_refused_before_decoding(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(gray()).save(path)
    data = bytearray(path.read_bytes())
    for side, match in ((2**31 - 1, "is damaged: its header says 2147483647x2147483647"), (0, "has no pixels: .* 0x0")):
        data[16:24] = struct.pack(">II", side, side)
        path.write_bytes(data)
        with pytest.raises(MediaError, match=match):
            stills.read(path)


def test_missing_empty_and_foreign_files_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.png"
    with pytest.raises(MediaError, match=r"a\.png: cannot be read: No such file"):
        stills.read(path)
    with pytest.raises(MediaError, match="cannot be read: Is a directory"):
        stills.read(tmp_path)
    for content, match in ((b"", "is empty"), (b"hello", "is not a picture; expected TIFF"), (b"GIF89a", "is a GIF")):
        path.write_bytes(content)
        with pytest.raises(MediaError, match=match):
            stills.read(path)

    def denied(*args: object, **kwargs: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "open", denied)
    with pytest.raises(MediaError, match="cannot be read: Permission denied"):
        stills.read(path)


@pytest.mark.parametrize(
    "name", ["a.tif", "lzw.tif", "plain.tif", "a.png", "a.jpg", "progressive.jpg", "a.webp", "a.dpx"]
)
@pytest.mark.parametrize("share", [0.02, 0.5, 0.95])
def test_a_truncated_still_is_refused(tmp_path: Path, name: str, share: float) -> None:
    path, rng = tmp_path / name, np.random.default_rng(0)
    picture = rng.integers(0, 255, (90, 120, 3)).astype(np.uint8)
    if path.suffix == ".tif":
        compression = {"a": "adobe_deflate", "lzw": "lzw", "plain": None}[path.stem]
        tifffile.imwrite(path, picture, photometric="rgb", compression=compression, rowsperstrip=10)
    elif path.suffix == ".dpx":
        Image.fromarray(picture).save(tmp_path / "source.png")
        still = stills.read(tmp_path / "source.png")
        stills.write(path, still, still.clip)
    else:
        Image.fromarray(picture).save(path, progressive=path.stem == "progressive")
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(MediaError, match="truncated"):
        stills.read(path)


def test_outputs_that_cannot_hold_the_still_are_refused_before_work(tmp_path: Path) -> None:
    Image.fromarray(np.dstack([gray()] * 4)).save(tmp_path / "a.png")
    still = stills.read(tmp_path / "a.png")
    with pytest.raises(ConfigError, match=r"b\.jpg: \.jpg cannot hold the alpha of .*a\.png; write TIFF, PNG or WebP"):
        stills.check_output(tmp_path / "b.jpg", still)
    with pytest.raises(ConfigError, match=r"\.gif is not a still's suffix; known: \.tif"):
        stills.check_output(tmp_path / "b.gif", still)
    with pytest.raises(ConfigError, match="no suffix is not"):
        stills.check_output(tmp_path / "b", still)
    with pytest.raises(ConfigError, match="the output is the source"):
        stills.check_output(tmp_path / "." / "a.png", still)
    wide = replace(still, clip=clip_of(np.zeros((1, 20_000), np.uint8), 8), alpha=None)
    with pytest.raises(ConfigError, match=r"\.webp holds at most 16383 samples a side, .* has 20000x1"):
        stills.check_output(tmp_path / "b.webp", wide)
    ten = replace(still, clip=clip_of(gray(10), 10))
    with pytest.raises(ConfigError, match="DPX of 10 bits cannot hold alpha"):
        stills.check_output(tmp_path / "b.dpx", ten)
    with pytest.raises(ConfigError, match=r"cannot hold the associated alpha of .*; write TIFF$"):
        stills.check_output(tmp_path / "b.png", replace(still, alpha_kind="associated"))


def test_a_clip_that_is_no_still_is_a_programmers_error(tmp_path: Path) -> None:
    Image.fromarray(np.dstack([gray()] * 4)).save(tmp_path / "a.png")
    still = stills.read(tmp_path / "a.png")
    half = np.zeros((1, 2, (HEIGHT + 1) // 2, (WIDTH + 1) // 2), np.uint8)
    with pytest.raises(ValueError, match="one full-range frame with 4:4:4 chroma"):
        stills.write(tmp_path / "b.png", still, still.clip.with_planes(chroma=half))
    with pytest.raises(ValueError, match="alpha has shape"):
        stills.write(tmp_path / "b.png", still, still.clip.with_planes(luma=still.clip.luma[:, 1:]))


def test_an_output_appears_whole_in_a_folder_that_is_made(tmp_path: Path) -> None:
    Image.fromarray(gray()).save(tmp_path / "a.png")
    before = (tmp_path / "a.png").read_bytes()
    still = stills.read(tmp_path / "a.png")
    for _ in range(2):
        stills.write(tmp_path / "new" / "deep" / "b.tif", still, painted(still.clip))
    assert [path.name for path in (tmp_path / "new" / "deep").iterdir()] == ["b.tif"]
    assert (tmp_path / "a.png").read_bytes() == before


@pytest.mark.parametrize("suffix", ["tif", "png", "jpg", "webp", "dpx"])
def test_a_full_disk_leaves_nothing_but_the_older_output(tmp_path: Path, suffix: str) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (300, 300)).astype(np.uint8)).save(tmp_path / "a.png")
    still, output = stills.read(tmp_path / "a.png"), tmp_path / "out" / f"b.{suffix}"
    output.parent.mkdir()
    output.write_bytes(b"older")
    with small_disk(4096), pytest.raises(MediaError, match=r"cannot be written: File too large; free some space"):
        stills.write(output, still, painted(still.clip))
    assert [path.name for path in output.parent.iterdir()] == [output.name]
    assert output.read_bytes() == b"older"


def test_a_place_that_may_not_be_written_to_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(gray()).save(tmp_path / "a.png")
    still = stills.read(tmp_path / "a.png")
    with pytest.raises(MediaError, match=r"b\.png: cannot be written: (Not a directory|File exists)"):
        stills.write(tmp_path / "a.png" / "b.png", still, still.clip)

    def denied(descriptor: int) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "fsync", denied)
    with pytest.raises(MediaError, match=r"cannot be written: Permission denied$"):
        stills.write(tmp_path / "b.png", still, still.clip)
    assert not list(tmp_path.glob("*b*"))


def test_stills_are_found_by_suffix_or_content_without_hidden_files(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    jpeg, tiff = b"\xff\xd8\xff\xe0" + bytes(20), b"II*\0" + bytes(20)
    for name, content in {
        "b/two.TIF": tiff,
        "a.jpg": b"",
        "scan": jpeg,
        "scan2": tiff,
        "x.bak": jpeg,
        "camera.nef": tiff,
        "unknown.raw": tiff,
        "notes.txt": b"hello",
        ".hidden.png": jpeg,
        ".cache/c.png": jpeg,
        "z.gif": b"GIF89a",
        "film.mkv": b"\x1aE\xdf\xa3",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    (tmp_path / "folder.png").mkdir()
    found = [path.relative_to(tmp_path).as_posix() for path in stills.find_stills(tmp_path)]
    assert found == ["a.jpg", "b/two.TIF", "scan", "scan2", "x.bak"]
    assert "left out 2 pictures" in caplog.text
    assert not stills.is_still(tmp_path / "folder.png")
    assert not stills.is_still(tmp_path / "missing.png")


def test_a_file_that_cannot_be_opened_is_no_still(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "scan").write_bytes(b"\xff\xd8\xff\xe0")

    def denied(*args: object, **kwargs: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "open", denied)
    assert not stills.is_still(tmp_path / "scan")


@pytest.mark.needs_shared
def test_real_photographs_keep_size_depth_alpha_and_luma(
    shared: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    found = stills.find_stills(shared / "data" / "stills")
    assert len(found) == 22
    for path in found:
        still = stills.read(path)
        assert still.toned != "color", path.name
        assert still.clip.color.depth == (16 if "16bit" in path.name else 8)
        assert (still.alpha is not None) == ("alpha" in path.name)
        if "orientation6" in path.name:
            assert still.clip.luma.shape == (1, 701, 960)
        if any(word in path.name for word in ("16bit", "alpha", "cmyk", "orientation")):
            stills.write(tmp_path / "out.tif", still, painted(still.clip))
            back = stills.read(tmp_path / "out.tif")
            assert np.array_equal(back.clip.luma, still.clip.luma), path.name
            assert same(back.alpha, still.alpha)
    assert [record.getMessage().partition(": ")[2] for record in caplog.records] == [
        "CMYK is converted to sRGB, through no ICC profile"
    ]


def test_resolution_is_told_per_centimetre() -> None:
    assert stills.Resolution(Fraction(254), Fraction(127), "inch").per_cm() == (Fraction(100), Fraction(50))
    assert stills.Resolution(Fraction(100), Fraction(50), "cm").per_cm() == (Fraction(100), Fraction(50))
