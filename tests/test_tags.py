from __future__ import annotations

import logging

import av
import pytest
from av.video.frame import VideoFrame

from restore.clip import Color, Matrix, Primaries
from restore.errors import MediaError
from restore.source.tags import color_of, format_subsampling, told_by_showinfo


def frame(height: int = 64, pix_fmt: str = "yuv420p", **tags: int) -> VideoFrame:
    made = VideoFrame(32, height, pix_fmt)
    for name, value in tags.items():
        setattr(made, name, value)
    return made


@pytest.mark.parametrize(
    ("height", "matrix", "primaries", "transfer"),
    [
        (480, Matrix.SMPTE170M, Primaries.SMPTE170M, 6),
        (576, Matrix.BT470BG, Primaries.BT470BG, 6),
        (288, Matrix.BT470BG, Primaries.BT470BG, 6),
        (720, Matrix.BT709, Primaries.BT709, 1),
    ],
)
def test_an_untagged_film_is_read_by_its_height(
    height: int, matrix: Matrix, primaries: Primaries, transfer: int
) -> None:
    color = color_of(frame(height), "h264", None, "film")
    expected = ("matrix", "primaries", "transfer", "full_range", "siting")
    assert color == Color(matrix, primaries, transfer, False, 8, "left", expected)


def test_a_tag_is_kept_and_not_called_assumed() -> None:
    color = color_of(
        frame(480, colorspace=9, color_primaries=9, color_trc=14, color_range=2), "h264", "topleft", "film"
    )
    assert color == Color(Matrix.BT2020, Primaries.BT2020, 14, True, 8, "topleft", ())


def test_primaries_follow_a_tagged_matrix() -> None:
    color = color_of(frame(480, colorspace=1), "h264", "left", "film")
    assert (color.matrix, color.primaries, color.transfer) == (Matrix.BT709, Primaries.BT709, 1)
    assert "matrix" not in color.assumed


@pytest.mark.parametrize(
    ("pix_fmt", "full_range", "depth"),
    [
        ("yuv420p", False, 8),
        ("yuvj420p", True, 8),
        ("yuv422p10le", False, 10),
        ("yuv420p12le", False, 12),
        ("gray", True, 8),
        ("gray16be", True, 16),
        ("gbrp12le", True, 12),
        ("rgb48be", True, 16),
        ("pal8", True, 8),
        ("monob", True, 8),
    ],
)
def test_range_and_depth_of_an_untagged_film_follow_its_pixel_format(
    pix_fmt: str, full_range: bool, depth: int
) -> None:
    color = color_of(frame(pix_fmt=pix_fmt), "ffv1", None, "film")
    assert (color.full_range, color.depth) == (full_range, depth)


@pytest.mark.parametrize(("codec", "siting"), [("mjpeg", "center"), ("mpeg1video", "center"), ("mpeg2video", "left")])
def test_chroma_lies_where_the_codec_puts_it_unless_tagged(codec: str, siting: str) -> None:
    assert color_of(frame(), codec, None, "film").siting == siting


@pytest.mark.parametrize(("code", "name"), [(16, "PQ"), (18, "HLG")])
def test_an_hdr_film_is_refused_with_what_to_do(code: int, name: str) -> None:
    with pytest.raises(MediaError, match=f"film: is an HDR film, {name}.*convert it to SDR"):
        color_of(frame(color_trc=code), "hevc", None, "film")


def test_logarithmic_tones_are_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        color_of(frame(color_trc=9), "dpx", None, "film")
    assert "tagged as logarithmic" in caplog.text


def test_a_matrix_that_cannot_be_painted_is_refused() -> None:
    with pytest.raises(MediaError, match=r"matrix code 8 .*convert it to BT\.709"):
        color_of(frame(colorspace=8), "h264", None, "film")


@pytest.mark.parametrize("pix_fmt", ["grayf32le", "gbrpf32le", "bayer_rggb8", "xyz12le"])
def test_pixels_that_are_no_integer_codes_are_refused(pix_fmt: str) -> None:
    with pytest.raises(MediaError, match="convert it to integers of 8 to 16 bits"):
        color_of(frame(pix_fmt=pix_fmt), "exr", None, "film")


def test_more_than_16_bits_are_refused() -> None:
    with pytest.raises(MediaError, match="have 32 bits"):
        color_of(frame(pix_fmt="gray32le"), "png", None, "film")


@pytest.mark.parametrize(
    ("pix_fmt", "expected"),
    [
        ("yuv420p", "420"),
        ("nv12", "420"),
        ("yuv410p", "420"),
        ("yuv422p10le", "422"),
        ("yuyv422", "422"),
        ("yuv411p", "422"),
        ("yuv444p", "444"),
        ("yuv440p", "444"),
        ("nv24", "444"),
        ("gbrp", "444"),
        ("pal8", "444"),
        ("gray", None),
        ("ya8", None),
        ("monow", None),
    ],
)
def test_the_subsampling_of_a_format_loses_no_chroma(pix_fmt: str, expected: str | None) -> None:
    assert format_subsampling(pix_fmt) == expected


def test_asking_for_the_siting_leaves_the_log_level_alone() -> None:
    before = av.logging.get_level()
    assert told_by_showinfo(frame()) == (None, "unknown")
    assert av.logging.get_level() == before
