"""The samples that each still format is read from, and how they are written. Metadata: `test_stills_metadata`."""

from __future__ import annotations

import struct
import zlib
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image
from test_stills import gray, painted, repaint, same

from restore import stills
from restore.clip import Plane
from restore.errors import MediaError
from restore.stills import exif
from restore.stills.still import Metadata, Picture, clip_of, luma_from_rgb

RGB = np.random.default_rng(5).integers(0, 256, (37, 53, 3), np.uint8)


@pytest.mark.parametrize("compression", [None, "lzw", "adobe_deflate", "packbits", "zstd"])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("depth", [8, 16])
def test_tiff_keeps_byte_order_compression_and_depth(tmp_path: Path, compression: str, order: Any, depth: int) -> None:
    tifffile.imwrite(
        tmp_path / "a.tif", gray(depth), photometric="minisblack", compression=compression, byteorder=order
    )
    with (tmp_path / "a.tif").open("r+b") as file:
        exif.append_tags(file, {271: exif.Tag(2, b"Ernst Leitz\0")})
    back = repaint(tmp_path / "a.tif", tmp_path / "b.tif")
    assert np.array_equal(back.clip.luma[0], gray(depth))
    with tifffile.TiffFile(tmp_path / "b.tif") as one, tifffile.TiffFile(tmp_path / "a.tif") as other:
        assert one.byteorder == other.byteorder == order
        page: Any = one.pages[0]
        assert page.compression == other.pages[0].compression
        assert page.tags[271].value == "Ernst Leitz"
        assert page.bitspersample == depth


def test_awkward_tiff_samples_are_read(tmp_path: Path) -> None:
    path, eight = tmp_path / "a.tif", gray()

    def luma() -> Plane:
        return np.asarray(stills.read(path).clip.luma[0])

    tifffile.imwrite(path, 255 - eight, photometric="miniswhite")
    assert np.array_equal(luma(), eight)
    tifffile.imwrite(path, np.stack([eight] * 3), photometric="rgb", planarconfig="separate")
    assert np.array_equal(luma(), eight)
    tifffile.imwrite(path, gray(16) >> 4, photometric="minisblack", bitspersample=12)
    assert np.array_equal(np.rint(luma() * (4095 / 65535)), gray(16) >> 4)
    for compression in ("raw", "group4"):
        bilevel = Image.fromarray(eight).convert("1", dither=Image.Dither.NONE)
        bilevel.save(path, compression=compression)
        assert np.array_equal(luma(), np.where(eight > 127, 255, 0))
    for colormap in (np.arange(256) * 257, np.arange(256)):
        table = np.stack([colormap] * 3).astype(np.uint16)
        tifffile.imwrite(path, 255 - eight, photometric="palette", colormap=table)
        assert np.array_equal(luma(), 255 - eight)
    Image.fromarray(np.dstack([eight] * 3)).convert("YCbCr").save(path, compression="jpeg", quality=95)
    assert np.abs(luma().astype(int) - eight).mean() < 3


def test_a_lossy_tiff_is_written_without_loss(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", gray(), photometric="minisblack", compression="jpeg")
    repaint(tmp_path / "a.tif", tmp_path / "b.tif")
    with tifffile.TiffFile(tmp_path / "b.tif") as tiff:
        assert tiff.pages[0].compression == tifffile.COMPRESSION.ADOBE_DEFLATE


@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize("kind", ["unassociated", "associated", "unspecified"])
@pytest.mark.parametrize("channels", [1, 3])
def test_tiff_keeps_alpha_and_what_it_means(tmp_path: Path, depth: int, kind: str, channels: int) -> None:
    samples = np.dstack([gray(depth)] * channels + [gray(depth)[::-1]])
    photometric = "rgb" if channels == 3 else "minisblack"
    tifffile.imwrite(
        tmp_path / "a.tif",
        samples,
        photometric=photometric,
        planarconfig="contig",
        extrasamples=[kind[:5] + "alpha"] if kind != "unspecified" else ["unspecified"],
    )
    back = repaint(tmp_path / "a.tif", tmp_path / "b.tif")
    assert back.alpha_kind == kind
    assert same(back.alpha, gray(depth)[::-1])
    assert np.array_equal(back.clip.luma[0], gray(depth))


def test_several_pictures_in_one_tiff_are_refused_and_reduced_copies_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as writer:
        writer.write(gray()[::4, ::4], photometric="minisblack", subfiletype=1)
        writer.write(gray(), photometric="minisblack")
    assert np.array_equal(stills.read(path).clip.luma[0], gray())
    assert "reduced copies or masks beside the picture are not carried over" in caplog.text
    tifffile.imwrite(path, np.stack([gray()] * 3), photometric="minisblack")
    with pytest.raises(MediaError, match="holds 3 pictures, expected one: split it"):
        stills.read(path)


@pytest.mark.parametrize(
    ("samples", "settings", "match"),
    [
        (gray().astype(np.float32), {}, "32-bit floating-point samples.*scale them to 16-bit integers"),
        (gray().astype(np.uint32), {}, "32-bit integer samples"),
        (gray().astype(np.int16), {}, "16-bit signed integer samples"),
        (gray(), {"photometric": "cfa"}, "raw file: develop it"),
        (RGB, {"photometric": "cielab"}, "has CIELAB samples; convert it to gray or RGB"),
        (RGB, {"photometric": "ycbcr"}, "has YCBCR samples"),
        (np.dstack([RGB] * 2), {"photometric": "rgb", "extrasamples": [0] * 3}, "has 6 channels; expected RGB"),
        (gray(), {"extratags": [(50706, 1, 4, b"\1\4\0\0", True)]}, "raw file: develop it"),
    ],
)
def test_tiff_samples_that_are_no_photograph_are_refused(
    tmp_path: Path, samples: NDArray[Any], settings: dict[str, Any], match: str
) -> None:
    tifffile.imwrite(tmp_path / "a.tif", samples, **settings)
    with pytest.raises(MediaError, match=match):
        stills.read(tmp_path / "a.tif")


def test_cmyk_jpeg_is_read_as_its_adobe_marker_says(tmp_path: Path) -> None:
    inks = np.zeros((32, 48, 4), np.uint8)
    inks[:, 24:, 3] = 255
    Image.fromarray(inks, "CMYK").save(tmp_path / "a.jpg", quality=100)
    data = (tmp_path / "a.jpg").read_bytes()
    at = data.index(b"\xff\xeeE"[:2])
    for content, left, right in ((data, 255, 0), (data[:at] + data[at + 16 :], 0, 255)):
        (tmp_path / "a.jpg").write_bytes(content)
        luma = stills.read(tmp_path / "a.jpg").clip.luma[0]
        assert abs(int(luma[5, 5]) - left) < 6
        assert abs(int(luma[5, 40]) - right) < 6 or right == 255


@pytest.mark.parametrize("progressive", [False, True])
def test_jpeg_is_read_gray_and_written_with_full_chroma(tmp_path: Path, progressive: bool) -> None:
    Image.fromarray(gray()).save(tmp_path / "a.jpg", quality=100, progressive=progressive, comment=b"Plate 12")
    back = repaint(tmp_path / "a.jpg", tmp_path / "b.jpg")
    assert back.metadata.comment == b"Plate 12"
    with Image.open(tmp_path / "b.jpg") as image:
        assert {layer[1:3] for layer in image.layer} == {(1, 1)}  # type: ignore[attr-defined]
        assert image.mode == "RGB"


def test_what_jpeg_cannot_hold_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    stills.png.write(tmp_path / "a.png", Picture(gray(16), 16, metadata=Metadata(xmp=b"x" * 70_000)))
    back = repaint(tmp_path / "a.png", tmp_path / "b.jpg")
    assert back.clip.color.depth == 8
    assert ".jpg holds 8 bits, the source has 16" in caplog.text
    assert "JPEG cannot hold 70000 bytes of XMP" in caplog.text


@pytest.mark.parametrize(("bits", "mode"), [(1, "1"), (2, "L"), (4, "L"), (8, "P")])
def test_png_of_few_bits_and_palettes_become_eight_bits(tmp_path: Path, bits: int, mode: str) -> None:
    codes = (gray() >> (8 - bits)).astype(np.uint8)
    if mode == "P":
        image = Image.fromarray(codes)
        image.putpalette([255 - n // 3 for n in range(768)])
        image.save(tmp_path / "a.png", transparency=bytes(range(256)))
        still = stills.read(tmp_path / "a.png")
        assert np.array_equal(still.clip.luma[0], 255 - codes)
        assert same(still.alpha, codes)
        return
    rows = np.packbits(np.unpackbits(codes[..., None], axis=-1)[..., 8 - bits :].reshape(len(codes), -1), axis=1)
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", codes.shape[1], codes.shape[0], bits, 0, 0, 0, 0)),
        (b"IDAT", zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))),
        (b"IEND", b""),
    ]
    (tmp_path / "a.png").write_bytes(stills.png.SIGNATURE + b"".join(stills.png._chunk(*chunk) for chunk in chunks))
    assert np.array_equal(stills.read(tmp_path / "a.png").clip.luma[0], codes * (255 // (2**bits - 1)))


@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize("suffix", ["png", "tif", "webp", "dpx"])
def test_alpha_of_a_gray_png_survives_with_the_luma_under_it(tmp_path: Path, depth: int, suffix: str) -> None:
    alpha = gray(depth)[::-1].copy()
    alpha[:, :20] = 0
    stills.png.write(tmp_path / "a.png", Picture(gray(depth), depth, alpha))
    still = stills.read(tmp_path / "a.png")
    stills.write(tmp_path / f"b.{suffix}", still, painted(still.clip))
    back = stills.read(tmp_path / f"b.{suffix}")
    assert back.alpha is not None
    if depth == 16 and suffix == "webp":
        assert np.array_equal(back.alpha, np.rint(alpha / 257))
        assert np.abs(back.clip.luma - still.clip.luma / 257).max() <= 1.5
    else:
        assert np.array_equal(back.alpha, alpha)
        assert np.array_equal(back.clip.luma, still.clip.luma)


@pytest.mark.parametrize("suffix", ["png", "webp"])
def test_animations_are_refused(tmp_path: Path, suffix: str) -> None:
    frames = [Image.fromarray(gray()), Image.fromarray(gray()[::-1])]
    frames[0].save(tmp_path / f"a.{suffix}", save_all=True, append_images=frames[1:])
    with pytest.raises(MediaError, match="is an animated"):
        stills.read(tmp_path / f"a.{suffix}")


@pytest.mark.parametrize("depth", [8, 10, 12, 16])
@pytest.mark.parametrize("order", [b"SDPX", b"XPDS"])
def test_dpx_keeps_depth_byte_order_header_and_luma(tmp_path: Path, depth: int, order: bytes) -> None:
    header = bytearray(order + struct.pack(">I" if order == b"SDPX" else "<I", 2048) + bytes(2040))
    header[160:167], header[801:803], header[1664:1668] = b"Kinomat", b"\1\1", b"film"
    samples = np.dstack([gray(depth)] * 3)
    stills.dpx.write(tmp_path / "a.dpx", Picture(samples, depth, metadata=Metadata(header=bytes(header))))
    source = stills.read(tmp_path / "a.dpx")
    assert source.clip.color.depth == depth
    assert np.array_equal(source.clip.luma[0], gray(depth))
    back = repaint(tmp_path / "a.dpx", tmp_path / "b.dpx")
    assert back.clip.color.depth == depth
    assert np.array_equal(back.clip.luma, source.clip.luma)
    written = (tmp_path / "b.dpx").read_bytes()
    if depth > 8:
        assert written[:4] == order
    if written[:4] == order:
        offsets = [struct.unpack_from(">I" if order == b"SDPX" else "<I", written, at)[0] for at in (4, 16, 28, 808)]
        assert offsets == [2048, len(written), 384, 2048]
        assert (written[160:167], written[801:803], written[1664:1668]) == (b"Kinomat", b"\1\1", b"film")
    wide = repaint(tmp_path / "a.dpx", tmp_path / "b.tif")
    assert np.array_equal(np.rint(wide.clip.luma * ((2**depth - 1) / (2**wide.clip.color.depth - 1))), source.clip.luma)


def test_dpx_of_other_samples_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stills.dpx.write(tmp_path / "a.dpx", Picture(gray(), 8))
    monkeypatch.setattr(stills.dpx, "_LAYOUTS", {})
    with pytest.raises(MediaError, match="has rgb24 samples; expected gray or RGB"):
        stills.read(tmp_path / "a.dpx")


def test_dpx_in_abgr_order_is_read(tmp_path: Path) -> None:
    codec: Any = av.CodecContext.create("dpx", "w")
    codec.width, codec.height, codec.pix_fmt, codec.time_base = 64, 48, "abgr", Fraction(1, 25)
    samples = np.random.default_rng(0).integers(0, 256, (48, 64, 4), np.uint8)
    packet = codec.encode(av.VideoFrame.from_ndarray(samples[..., ::-1].copy(), "abgr"))[0]
    (tmp_path / "a.dpx").write_bytes(bytes(packet))
    still = stills.read(tmp_path / "a.dpx")
    assert np.array_equal(still.clip.luma[0], luma_from_rgb(samples[..., :3]))
    assert same(still.alpha, samples[..., 3])


def test_a_gray_clip_of_ten_bits_is_written_to_dpx(tmp_path: Path) -> None:
    Image.fromarray(gray()).save(tmp_path / "a.png")
    still = stills.read(tmp_path / "a.png")
    stills.write(tmp_path / "b.dpx", still, clip_of(gray(10), 10))
    back = stills.read(tmp_path / "b.dpx")
    assert back.clip.color.depth == 10
    assert np.array_equal(back.clip.luma[0], gray(10))
