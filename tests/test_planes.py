from __future__ import annotations

import av
import numpy as np
import pytest
from av.video.format import VideoFormat
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from restore.source.planes import is_supported, planes
from restore.source.tags import color_of

Codes = NDArray[np.uint16]


def write(frame: VideoFrame, number: int, codes: Codes, dtype: str) -> None:
    """Put codes into a plane, and noise into the padding of its rows."""
    plane = frame.planes[number]
    line = np.ascontiguousarray(codes.astype(dtype)).view(np.uint8).reshape(plane.height, -1)
    rows = np.full((plane.height, plane.line_size), 0xA5, np.uint8)
    rows[:, : line.shape[1]] = line
    plane.update(rows.tobytes())


def noise(height: int, width: int, bits: int, seed: int = 0) -> Codes:
    return np.random.default_rng(seed).integers(0, 2**bits, (height, width)).astype(np.uint16)


def planar(pix_fmt: str, width: int = 51, height: int = 37) -> tuple[VideoFrame, list[Codes]]:
    """Make a planar frame of noise over all codes."""
    frame, layout = VideoFrame(width, height, pix_fmt), VideoFormat(pix_fmt)
    bits, kind = layout.components[0].bits, ">u2" if layout.is_big_endian else "<u2"
    parts = [noise(plane.height, plane.width, bits, n) for n, plane in enumerate(frame.planes)]
    for number, part in enumerate(parts):
        write(frame, number, part, "u1" if bits == 8 else kind)
    return frame, parts


PLANAR = [
    "gray", "gray9le", "gray10le", "gray10be", "gray12le", "gray14le", "gray16le", "gray16be",
    "yuv420p", "yuv422p", "yuv444p", "yuvj420p", "yuvj422p", "yuva420p", "yuva444p10le",
    "yuv420p9le", "yuv420p10le", "yuv420p10be", "yuv422p12le", "yuv444p14be", "yuv420p16le",
]  # fmt: skip


@pytest.mark.parametrize("pix_fmt", PLANAR)
@pytest.mark.parametrize("size", [(51, 37), (1, 1), (96, 64)])
def test_planar_codes_come_out_as_they_are(pix_fmt: str, size: tuple[int, int]) -> None:
    frame, parts = planar(pix_fmt, *size)
    luma, chroma = planes(frame, color_of(frame, "x", None, "film"))
    assert np.array_equal(luma, parts[0])
    assert luma.dtype == (np.uint8 if frame.format.components[0].bits == 8 else np.uint16)
    assert not luma.flags.writeable
    if pix_fmt.startswith("gray"):
        assert chroma is None
    else:
        assert chroma is not None
        assert np.array_equal(chroma, np.stack(parts[1:3]))


@pytest.mark.parametrize(("pix_fmt", "shape"), [("yuv411p", (37, 26)), ("yuv410p", (19, 26)), ("yuv440p", (37, 51))])
def test_sparse_chroma_is_repeated_on_the_next_denser_grid(pix_fmt: str, shape: tuple[int, int]) -> None:
    frame, parts = planar(pix_fmt)
    luma, chroma = planes(frame, color_of(frame, "x", None, "film"))
    assert np.array_equal(luma, parts[0])
    assert chroma is not None
    assert chroma.shape == (2, *shape)
    assert set(np.unique(chroma[0])) <= set(np.unique(parts[1]))


@pytest.mark.parametrize(
    ("pix_fmt", "bits", "dtype"),
    [("nv12", 8, "u1"), ("nv21", 8, "u1"), ("nv16", 8, "u1"), ("nv24", 8, "u1"), ("p010le", 10, "<u2"),
     ("p010be", 10, ">u2"), ("p012le", 12, "<u2"), ("p016le", 16, "<u2"), ("p210le", 10, "<u2"), ("p410le", 10, "<u2")],
)  # fmt: skip
def test_semi_planar_codes_come_out_as_they_are(pix_fmt: str, bits: int, dtype: str) -> None:
    frame = VideoFrame(51, 37, pix_fmt)
    pair = frame.planes[1]
    luma, cb, cr = noise(37, 51, bits), noise(pair.height, pair.width, bits, 1), noise(pair.height, pair.width, bits, 2)
    shift = 0 if bits == 8 else 16 - bits
    write(frame, 0, luma * np.uint16(2**shift), dtype)
    both = (cr, cb) if pix_fmt == "nv21" else (cb, cr)
    write(frame, 1, (np.stack(both, -1) * np.uint16(2**shift)).reshape(pair.height, -1), dtype)
    got, chroma = planes(frame, color_of(frame, "x", None, "film"))
    assert np.array_equal(got, luma)
    assert chroma is not None
    assert np.array_equal(chroma, np.stack([cb, cr]))


@pytest.mark.parametrize(("pix_fmt", "order"), [("yuyv422", "yuyv"), ("uyvy422", "uyvy"), ("yvyu422", "yvyu")])
def test_packed_4_2_2_luma_comes_out_as_it_is(pix_fmt: str, order: str) -> None:
    frame, luma = VideoFrame(52, 37, pix_fmt), noise(37, 52, 8)
    packed = noise(37, 104, 8, 1)
    packed[:, order.index("y") :: 2] = luma
    write(frame, 0, packed, "u1")
    assert np.array_equal(planes(frame, color_of(frame, "x", None, "film"))[0], luma)


@pytest.mark.parametrize(
    ("packed", "like"),
    [("y210le", "yuv422p10le"), ("y212le", "yuv422p12le"), ("y216le", "yuv422p16le"), ("xv30le", "yuv444p10le"),
     ("v30xle", "yuv444p10le"), ("xv36le", "yuv444p12le"), ("xv48le", "yuv444p16le"), ("ayuv64le", "yuv444p16le"),
     ("vuyx", "yuv444p"), ("vuya", "yuv444p"), ("ayuv", "yuv444p"), ("uyva", "yuv444p"), ("vyu444", "yuv444p")],
)  # fmt: skip
def test_a_packed_format_gives_back_the_codes_that_went_in(packed: str, like: str) -> None:
    frame, parts = planar(like, 52, 37)
    luma, chroma = planes(frame.reformat(format=packed), color_of(frame, "x", None, "film"))
    assert np.array_equal(luma, parts[0])
    if chroma is not None:
        assert np.array_equal(chroma, np.stack(parts[1:3]))


@pytest.mark.parametrize(("pix_fmt", "bits", "dtype"), [("ya8", 8, "u1"), ("ya16le", 16, "<u2"), ("ya16be", 16, ">u2")])
def test_alpha_beside_grey_is_left_out(pix_fmt: str, bits: int, dtype: str) -> None:
    frame, both = VideoFrame(51, 37, pix_fmt), noise(37, 102, bits)
    write(frame, 0, both, dtype)
    luma, chroma = planes(frame, color_of(frame, "x", None, "film"))
    assert chroma is None
    assert np.array_equal(luma, both[:, ::2])


def neutral(pix_fmt: str) -> tuple[VideoFrame, Codes]:
    """Make an R'G'B' frame that holds every grey of its depth."""
    frame, layout = VideoFrame(256, 256, pix_fmt), VideoFormat(pix_fmt)
    bits = layout.components[0].bits
    greys = (np.arange(65536) % 2**bits).reshape(256, 256).astype(np.uint16)
    dtype = "u1" if bits == 8 else (">u2" if layout.is_big_endian else "<u2")
    if layout.is_planar:
        for number in range(len(frame.planes)):
            write(frame, number, greys, dtype)
    else:
        write(frame, 0, np.repeat(greys, layout.padded_bits_per_pixel // (8 * np.dtype(dtype).itemsize), 1), dtype)
    return frame, greys


RGB = [
    "rgb24", "bgr24", "rgba", "bgra", "argb", "rgb0", "0bgr", "gbrp", "gbrap", "gbrp9le", "gbrp10le", "gbrp10be",
    "gbrp12le", "gbrp14le", "gbrp16le", "gbrap16be", "rgb48le", "rgb48be", "bgr48le", "rgba64le", "rgba64be",
]  # fmt: skip


@pytest.mark.parametrize("pix_fmt", RGB)
def test_every_grey_of_an_rgb_film_keeps_its_code(pix_fmt: str) -> None:
    frame, greys = neutral(pix_fmt)
    color = color_of(frame, "x", None, "film")
    luma, chroma = planes(frame, color)
    assert np.array_equal(luma, greys)
    assert chroma is not None
    assert np.all(chroma == 2 ** (color.depth - 1))


def test_rgb_becomes_the_luma_and_chroma_of_its_matrix() -> None:
    frame = VideoFrame(2, 1, "rgb24")
    frame.colorspace = 1
    write(frame, 0, np.array([[255, 0, 0, 0, 0, 255]], np.uint16), "u1")
    luma, chroma = planes(frame, color_of(frame, "x", None, "film"))
    assert luma.tolist() == [[54, 18]]  # 255 Kr and 255 Kb of BT.709
    assert chroma is not None
    assert chroma[:, 0].tolist() == [[99, 255], [255, 116]]


def test_a_palette_of_greys_keeps_its_codes() -> None:
    frame, index = VideoFrame(16, 16, "pal8"), noise(16, 16, 8)
    palette = np.random.default_rng(3).permutation(256).astype(np.uint8)
    write(frame, 0, index, "u1")
    frame.planes[1].update(np.stack([palette, palette, palette, np.full(256, 255, np.uint8)], -1).tobytes())
    luma, _ = planes(frame, color_of(frame, "x", None, "film"))
    assert np.array_equal(luma, palette[index])


@pytest.mark.parametrize(("pix_fmt", "white"), [("monob", 1), ("monow", 0)])
def test_one_bit_becomes_black_and_white(pix_fmt: str, white: int) -> None:
    frame = VideoFrame(16, 8, pix_fmt)
    bits = noise(8, 16, 1)
    write(frame, 0, np.packbits(bits.astype(np.uint8), axis=1).astype(np.uint16), "u1")
    luma, chroma = planes(frame, color_of(frame, "x", None, "film"))
    assert chroma is None
    assert np.array_equal(luma, np.where(bits == white, 255, 0))


def test_chroma_is_left_out_on_request() -> None:
    for pix_fmt in ("yuv420p", "nv12", "gbrp", "yuyv422"):
        frame = VideoFrame(16, 16, pix_fmt)
        assert planes(frame, color_of(frame, "x", None, "film"), luma_only=True)[1] is None


def test_every_format_of_integers_that_a_decoder_gives_is_supported_or_refused() -> None:
    known = ["yuv420p", "nv12", "gray", "ya8", "monob", "pal8", "rgb565le", "gbrap12le", "xv36le"]
    assert all(is_supported(VideoFormat(name)) for name in known)
    assert not is_supported(VideoFormat("y210be"))
    assert av.VideoFormat("y210be").components[0].plane == 0
