"""What stills keep beside their picture: EXIF, XMP, IPTC, ICC profiles, resolution, text."""

from __future__ import annotations

import io
import struct
import zlib
from fractions import Fraction
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageCms
from PIL.TiffImagePlugin import IFDRational
from test_stills import gray, luma_of, repaint

from restore import stills
from restore.stills import exif, profile
from restore.stills.still import Metadata, Picture, luma_from_rgb

XMP = b'<x:xmpmeta><rdf:Description tiff:Orientation="6" dc:creator="Lawrence"/></x:xmpmeta>'
IPTC = b"\x1c\x02\x50\x00\x08Lawrence\x1c\x02\x69\x00\x05Yarns"
RGB = np.random.default_rng(5).integers(0, 256, (37, 53, 3), np.uint8)


def exif_block(orientation: int = 6) -> bytes:
    """Return an EXIF block with camera, exposure, maker note, position and size of a picture on its side."""
    block = Image.Exif()
    block[ExifTags.Base.Make] = "Ernst Leitz"
    block[ExifTags.Base.Orientation] = orientation
    block[ExifTags.Base.XResolution] = IFDRational(600, 1)
    block[ExifTags.Base.YResolution] = IFDRational(600, 1)
    block[ExifTags.Base.ResolutionUnit] = 2
    inner = block.get_ifd(ExifTags.IFD.Exif)
    inner[ExifTags.Base.ExposureTime] = IFDRational(1, 25)
    inner[ExifTags.Base.MakerNote] = bytes(range(64))
    inner[ExifTags.Base.ExifImageWidth], inner[ExifTags.Base.ExifImageHeight] = 53, 37
    block.get_ifd(ExifTags.IFD.GPSInfo)[1] = "N"
    return block.tobytes().removeprefix(b"Exif\0\0")


def tags_of_block() -> exif.Directory:
    directory = exif.directory_of(exif_block())
    assert directory is not None
    return directory[1]


def with_thumbnail(block: bytes, thumbnail: bytes) -> bytes:
    """Link a second directory with a thumbnail behind the first."""
    layout, offset = exif.layout_of(io.BytesIO(block))
    _, link = exif.read_directory(io.BytesIO(block), layout, offset)
    start = len(block) + len(block) % 2
    second = exif.pack_directory({513: exif.Tag(4, layout.pack("I", start + 18))}, layout, start)
    return (
        block[:link] + layout.pack("I", start) + block[link + 4 :].ljust(start - link - 4, b"\0") + second + thumbnail
    )


def gray_profile(**curve: Any) -> bytes:
    return bytes(imagecodecs.cms_profile("gray", **curve))


def cmyk_profile() -> bytes:
    """Return a CMYK printer profile with a table of the 16 solid colours, bluish as no ideal ink is."""
    corners = [(c, m, y, k) for c in (0, 1) for m in (0, 1) for y in (0, 1) for k in (0, 1)]
    table = bytes(
        value
        for c, m, y, k in corners
        for value in (
            round(255 * (1 - k) * (1 - 0.3 * c - 0.4 * m - 0.2 * y)),
            128 + (m - c) * 60 * (1 - k),
            98 + y * 60 * (1 - k),
        )
    )
    ramp = bytes(range(256))
    unity = struct.pack(">9i", 65536, 0, 0, 0, 65536, 0, 0, 0, 65536)
    lut = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + unity + ramp * 4 + table + ramp * 3
    desc = b"desc" + bytes(4) + struct.pack(">I", 5) + b"Test\0" + bytes(78)
    white = b"XYZ " + bytes(4) + struct.pack(">3i", 63190, 65536, 54061)
    header = profile.srgb()[:8] + b"\x02\x40\0\0prtrCMYKLab " + profile.srgb()[24:128]
    return profile._profile(header, {b"desc": desc, b"wtpt": white, b"A2B0": lut})


def lab(picture: NDArray[np.uint8], mode: str, icc: bytes) -> NDArray[np.int64]:
    """Return 8-bit Lab of samples under a profile, by Little CMS through Pillow."""
    source = ImageCms.ImageCmsProfile(io.BytesIO(icc))
    transform = ImageCms.buildTransform(source, ImageCms.createProfile("LAB"), mode, "LAB")
    converted = ImageCms.applyTransform(Image.fromarray(picture), transform)
    assert converted is not None
    return np.asarray(converted, np.int64)


@pytest.mark.parametrize("source_suffix", ["jpg", "png", "webp", "tif"])
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
def test_exif_xmp_icc_survive_and_orientation_is_applied_once(tmp_path: Path, source_suffix: str, suffix: str) -> None:
    source, output = tmp_path / f"a.{source_suffix}", tmp_path / f"b.{suffix}"
    icc = profile.srgb()
    if source_suffix == "tif":
        tifffile.imwrite(source, RGB, photometric="rgb", iccprofile=icc, byteorder=">")
        with source.open("r+b") as file:
            exif.append_tags(file, {**tags_of_block(), 700: exif.Tag(exif.BYTE, XMP)})
    elif source_suffix == "png":
        metadata = Metadata(icc=icc, exif=exif_block(), xmp=XMP)
        stills.png.write(source, Picture(RGB, 8, metadata=metadata))
        with Image.open(source) as image:  # the chunks are valid to another reader
            assert (image.info["icc_profile"], image.info["xmp"]) == (icc, XMP)
            assert image.info["exif"] == b"Exif\0\0" + exif_block()
    else:
        Image.fromarray(RGB).save(source, exif=b"Exif\0\0" + exif_block(), xmp=XMP, icc_profile=icc, lossless=True)
    back = repaint(source, output)
    assert back.clip.luma.shape == (1, 53, 37)
    if source_suffix != "jpg" and suffix != "jpg":
        assert np.array_equal(back.clip.luma[0], np.rot90(luma_from_rgb(RGB), -1))
    assert back.metadata.icc == icc
    assert back.metadata.xmp == XMP.replace(b'"6"', b'"1"')
    with Image.open(output) as image:
        tags = image.getexif()
        inner = tags.get_ifd(ExifTags.IFD.Exif)
        assert tags[ExifTags.Base.Make] == "Ernst Leitz"
        assert tags.get(ExifTags.Base.Orientation, 1) == 1
        assert inner[ExifTags.Base.ExposureTime] == Fraction(1, 25)
        assert inner[ExifTags.Base.MakerNote] == bytes(range(64))
        assert (inner[ExifTags.Base.ExifImageWidth], inner[ExifTags.Base.ExifImageHeight]) == (37, 53)
        assert tags.get_ifd(ExifTags.IFD.GPSInfo)[1] == "N"


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif"])
@pytest.mark.parametrize("dpi", [(300, 300), (600, 1200)])
def test_resolution_survives(tmp_path: Path, suffix: str, dpi: tuple[int, int]) -> None:
    Image.fromarray(gray()).save(tmp_path / f"a.{suffix}", dpi=dpi)
    back = repaint(tmp_path / f"a.{suffix}", tmp_path / f"b.{suffix}")
    with Image.open(tmp_path / f"b.{suffix}") as image:
        assert image.info["dpi"] == pytest.approx(dpi, rel=1e-4)  # PNG rounds to samples per metre
    for other in ("jpg", "png", "tif"):
        stills.write(tmp_path / f"c.{other}", back, back.clip)
        with Image.open(tmp_path / f"c.{other}") as image:
            assert image.info["dpi"] == pytest.approx(dpi, rel=1e-3)


def test_resolution_turns_with_the_picture_and_keeps_its_unit(tmp_path: Path) -> None:
    extra = [(274, 3, 1, 8, True)]
    settings: dict[str, Any] = {"resolution": ((400, 1), (200, 1)), "resolutionunit": 3, "extratags": extra}
    tifffile.imwrite(tmp_path / "a.tif", gray(), photometric="minisblack", **settings)
    for name in ("b.tif", "b.jpg", "b.png"):
        assert repaint(tmp_path / "a.tif", tmp_path / name).metadata.resolution == stills.Resolution(
            Fraction(200), Fraction(400), "cm"
        )
    settings["resolutionunit"] = 1
    tifffile.imwrite(tmp_path / "a.tif", gray(), photometric="minisblack", **settings)
    for name in ("b.tif", "b.jpg", "b.png"):
        back = repaint(tmp_path / "a.tif", tmp_path / name).metadata.resolution
        assert back == stills.Resolution(Fraction(200), Fraction(400), "none")


def test_a_thumbnail_without_the_new_colours_is_left_out(tmp_path: Path) -> None:
    block = with_thumbnail(exif_block(), b"THUMBNAIL" * 9)
    Image.fromarray(RGB).save(tmp_path / "a.jpg", exif=b"Exif\0\0" + block)
    kept = repaint(tmp_path / "a.jpg", tmp_path / "b.jpg").metadata.exif
    assert kept is not None
    assert b"THUMBNAIL" not in kept
    assert len(kept) == len(exif_block()) + len(exif_block()) % 2
    assert b"THUMBNAIL" not in (tmp_path / "b.jpg").read_bytes()
    with Image.open(tmp_path / "b.jpg") as image:
        assert not image.getexif().get_ifd(ExifTags.IFD.IFD1)


def test_only_orientation_and_sizes_of_an_exif_block_change() -> None:
    before, after = exif_block(8), exif.reset(exif_block(8), 37, 53)
    changed = [at for at, (one, other) in enumerate(zip(before, after, strict=True)) if one != other]
    assert len(changed) == 3
    assert exif.orientation_of(after) == 1


def test_a_damaged_exif_block_is_carried_as_it_is(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for block in (b"MM\0*\0\0\0\x08\0\xff", b"garbage", exif_block()[:60]):
        Image.fromarray(RGB).save(tmp_path / "a.png", exif=b"Exif\0\0" + block)
        assert repaint(tmp_path / "a.png", tmp_path / "b.png").metadata.exif == block
        assert repaint(tmp_path / "a.png", tmp_path / "b.tif").metadata.exif is None
    assert "the EXIF block is damaged" in caplog.text
    assert "cannot be put into TIFF" in caplog.text
    with pytest.raises(ValueError, match="no TIFF header"):
        exif.layout_of(io.BytesIO(b"garbage"))


def test_only_the_damaged_tags_of_a_tiff_are_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tifffile.imwrite(tmp_path / "a.tif", gray(), photometric="minisblack", byteorder="<", metadata=None)
    with (tmp_path / "a.tif").open("r+b") as file:
        exif.append_tags(file, {tag: exif.Tag(2, b"Ernst Leitz\0") for tag in (271, 272, 305, 315)})
    data = bytearray((tmp_path / "a.tif").read_bytes())
    entries = {tag: data.rindex(struct.pack("<HHI", tag, 2, 12)) for tag in (272, 305)}
    data[entries[272] + 2] = 99
    data[entries[305] + 7] = 127
    (tmp_path / "a.tif").write_bytes(data)
    metadata = stills.read(tmp_path / "a.tif").metadata
    told = exif.directory_of(metadata.exif)
    assert told is not None
    assert set(told[1]) == {271, 315}
    assert "tag 272 (type 99, 12 values) cannot be read and is left out: unknown type" in caplog.text
    assert "tag 305 (type 2, 2130706444 values) cannot be read and is left out: it reaches past the end" in caplog.text


def test_iptc_survives_in_tiff_and_jpeg_and_its_loss_elsewhere_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with (tmp_path / "a.tif").open("w+b") as file:
        tifffile.imwrite(file, gray(), photometric="minisblack")
        exif.append_tags(file, {33723: exif.Tag(exif.UNDEFINED, IPTC)})
    assert stills.read(tmp_path / "a.tif").metadata.iptc == IPTC
    assert repaint(tmp_path / "a.tif", tmp_path / "b.jpg").metadata.iptc == IPTC
    assert repaint(tmp_path / "b.jpg", tmp_path / "c.tif").metadata.iptc == IPTC
    with Image.open(tmp_path / "b.jpg") as image:
        assert image.info["photoshop"] == {0x0404: IPTC}
    assert not caplog.records
    repaint(tmp_path / "a.tif", tmp_path / "b.webp")
    assert ".webp cannot hold these of the source: iptc" in caplog.text


def test_big_tiff_is_read_with_its_tags(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", gray(16), photometric="minisblack", bigtiff=True, byteorder=">")
    with (tmp_path / "a.tif").open("r+b") as file:
        exif.append_tags(file, {**tags_of_block(), exif.ORIENTATION: exif.Tag(exif.SHORT, b"\0\1")})
    with tifffile.TiffFile(tmp_path / "a.tif") as tiff:
        assert tiff.is_bigtiff
        page: Any = tiff.pages[0]
        assert page.tags[34665].value["ExposureTime"] == (1, 25)
    still = stills.read(tmp_path / "a.tif")
    assert np.array_equal(still.clip.luma[0], gray(16))
    assert still.metadata.exif is not None
    assert bytes(range(64)) in still.metadata.exif


def test_a_gray_profile_becomes_an_rgb_profile_under_which_grays_look_the_same(tmp_path: Path) -> None:
    curve = (np.linspace(0, 1, 256) ** 1.75 * 65535).astype(np.uint16)
    ramp = np.arange(256, dtype=np.uint8)[None]
    for icc in (gray_profile(gamma=2.6), gray_profile(transferfunction=curve)):
        Image.fromarray(ramp).save(tmp_path / "a.tif", icc_profile=icc)
        still = stills.read(tmp_path / "a.tif")
        assert still.metadata.icc == icc
        stills.write(tmp_path / "gray.png", still, still.clip)
        assert stills.read(tmp_path / "gray.png").metadata.icc == icc
        made = repaint(tmp_path / "a.tif", tmp_path / "b.png").metadata.icc
        assert made is not None
        assert np.abs(lab(ramp, "L", icc) - lab(np.dstack([ramp] * 3), "RGB", made)).max() <= 1
        assert np.abs(lab(ramp, "L", icc) - lab(np.dstack([ramp] * 3), "RGB", profile.srgb())).max() > 5


def test_a_gray_profile_without_a_curve_to_xyz_becomes_srgb_and_that_is_told(caplog: pytest.LogCaptureFixture) -> None:
    icc = gray_profile(gamma=2.2)
    assert profile.rgb_from_gray(icc[:20] + b"Lab " + icc[24:]) == profile.srgb()
    assert "sRGB takes its place" in caplog.text


def test_a_profile_that_is_not_for_the_samples_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    Image.fromarray(RGB).save(tmp_path / "a.tif", icc_profile=gray_profile(gamma=2.2))
    assert stills.read(tmp_path / "a.tif").metadata.icc is None
    assert "its ICC profile is for GRAY" in caplog.text


def test_cmyk_is_converted_through_its_profile(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    inks, icc = np.random.default_rng(2).integers(0, 256, (37, 53, 4), np.uint8), cmyk_profile()
    target = ImageCms.createProfile("sRGB")
    image = Image.fromarray(inks, "CMYK")
    wanted = ImageCms.profileToProfile(image, ImageCms.ImageCmsProfile(io.BytesIO(icc)), target, outputMode="RGB")
    assert wanted is not None
    for depth in (8, 16):
        scale = 1 if depth == 8 else 257
        tifffile.imwrite(
            tmp_path / "a.tif", inks * np.array(scale, f"u{depth // 8}"), photometric="separated", iccprofile=icc
        )
        still = stills.read(tmp_path / "a.tif")
        assert still.clip.color.depth == depth
        assert np.abs(still.clip.luma[0] / scale - luma_of(np.asarray(wanted))).max() <= 2
        assert repaint(tmp_path / "a.tif", tmp_path / "b.tif").metadata.icc == profile.srgb()
    assert "CMYK is converted to sRGB, through its ICC profile" in caplog.text


def test_png_text_and_colour_chunks_survive(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    chunks = (
        (b"gAMA", struct.pack(">I", 50000)),
        (b"tEXt", b"Title\0Market"),
        (b"zTXt", b"Note\0\0" + zlib.compress(b"x")),
    )
    stills.png.write(tmp_path / "a.png", Picture(gray(), 8, metadata=Metadata(chunks=chunks)))
    assert repaint(tmp_path / "a.png", tmp_path / "b.png").metadata.chunks == chunks
    with Image.open(tmp_path / "b.png") as image:
        assert image.text == {"Title": "Market", "Note": "x"}  # type: ignore[attr-defined]
    damaged = (tmp_path / "a.png").read_bytes().replace(b"Market", b"Maaket")
    (tmp_path / "a.png").write_bytes(damaged)
    assert stills.read(tmp_path / "a.png").metadata.chunks == (chunks[0], chunks[2])
    assert "the PNG chunk tEXt is damaged" in caplog.text


@pytest.mark.parametrize("packed", [False, True])
def test_older_forms_of_png_metadata_are_read(tmp_path: Path, packed: bool) -> None:
    text = b"\nexif\n%8d\n" % (len(exif_block()) + 6) + (b"Exif\0\0" + exif_block()).hex().encode() + b"\n"
    keyword = b"Raw profile type exif\0"
    legacy = (b"zTXt", keyword + b"\0" + zlib.compress(text)) if packed else (b"tEXt", keyword + text)
    xmp = b"XML:com.adobe.xmp\0" + (b"\1\0\0\0" + zlib.compress(XMP) if packed else b"\0\0\0\0" + XMP)
    stills.png.write(tmp_path / "a.png", Picture(gray(), 8, metadata=Metadata(chunks=(legacy, (b"iTXt", xmp)))))
    still = stills.read(tmp_path / "a.png")
    assert still.clip.luma.shape == (1, 53, 37)
    assert still.metadata.exif == exif.reset(exif_block(), 37, 53)
    assert still.metadata.xmp == XMP.replace(b'"6"', b'"1"')
