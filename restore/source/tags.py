"""What the code values of a decoded frame mean: colour tags, depth, subsampling, field order."""

from __future__ import annotations

import logging
import re
from fractions import Fraction
from typing import Literal, TypeVar

import av.filter
import av.logging
from av.video.format import VideoFormat
from av.video.frame import VideoFrame

from restore.clip import Color, Matrix, Primaries, Siting, Subsampling
from restore.errors import MediaError

logger = logging.getLogger(__name__)

E = TypeVar("E", Matrix, Primaries)
FieldOrder = Literal["progressive", "tff", "bff", "unknown"]

_SITINGS: dict[str, Siting] = {"left": "left", "center": "center", "topleft": "topleft", "top": "top"}
_CENTERED = frozenset({"mjpeg", "mpeg1video"})
"""Codecs whose chroma lies between the luma samples. Source: JFIF 1.02, ISO/IEC 11172-2, 2.4.1."""
_UNTAGGED = (0, 2)
"""Reserved (or R'G'B', for a matrix) and unspecified, in every table of ITU-T H.273."""
_TRANSFERS: dict[Matrix, int] = {Matrix.BT709: 1, Matrix.SMPTE240M: 7, Matrix.BT2020: 14}
"""Transfer that belongs to a matrix; all others have that of BT.601, 6."""
_HDR_TRANSFERS = {16: "PQ (SMPTE ST 2084)", 18: "HLG (ARIB STD-B67)"}
_UNUSUAL_TRANSFERS = {8: "linear light", 9: "logarithmic", 10: "logarithmic"}
_REFUSED = {
    "bayer": "raw sensor data",
    "xyz": "X'Y'Z' of digital cinema",
    "f16": "floating point",
    "f32": "floating point",
}


def told_by_showinfo(frame: VideoFrame) -> tuple[Siting | None, FieldOrder]:
    """Return the chroma location and field flag of a frame, which PyAV does not expose and `showinfo` logs."""
    graph = av.filter.Graph()
    unit = Fraction(1, 1000)
    source = graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=unit)
    graph.link_nodes(source, graph.add("showinfo", "checksum=0"), graph.add("buffersink")).configure()
    level = av.logging.get_level()
    av.logging.set_level(av.logging.INFO)
    try:
        with av.logging.Capture(local=True) as lines:
            graph.vpush(frame)
            graph.vpull()
    finally:
        av.logging.set_level(level)
    told = re.search(r" cl:(\w+) .* i:([PTB]) ", "\n".join(line[2] for line in lines))
    if told is None:
        return None, "unknown"
    return _SITINGS.get(told[1]), {"T": "tff", "B": "bff"}.get(told[2], "unknown")  # type: ignore[return-value]


def format_subsampling(pix_fmt: str) -> Subsampling | None:
    """Return the smallest subsampling that holds the chroma of a pixel format; None for a grey one."""
    layout = VideoFormat(pix_fmt, 8, 8)
    if layout.is_rgb or layout.has_palette:
        return "444"
    parts = [part for part in layout.components if not part.is_alpha]
    if len(parts) < 3:
        return None
    width, height = parts[1].width, parts[1].height
    if width == 8:
        return "444"
    return "422" if height == 8 else "420"


def color_of(frame: VideoFrame, codec: str, siting: Siting | None, path: str) -> Color:
    """Read the colour tags, and complete them as players do; names of what was completed go into `assumed`."""
    layout, assumed = frame.format, []
    if frame.color_trc in _HDR_TRANSFERS:
        name = _HDR_TRANSFERS[frame.color_trc]
        raise MediaError(f"is an HDR film, {name}; convert it to SDR (BT.709) first", path)
    if frame.color_trc in _UNUSUAL_TRANSFERS:
        name = _UNUSUAL_TRANSFERS[frame.color_trc]
        logger.warning("%s is tagged as %s; its tones are read as if they were coded for video", path, name)
    matrix, primaries = _named(Matrix, frame.colorspace, path), _named(Primaries, frame.color_primaries, path)
    transfer = int(frame.color_trc)
    if matrix is None:
        assumed.append("matrix")
        lines_625 = frame.height > 486 or 240 < frame.height <= 288
        matrix = Matrix.BT709 if frame.height > 576 else Matrix.BT470BG if lines_625 else Matrix.SMPTE170M
    if primaries is None:
        assumed.append("primaries")
        primaries = Primaries(matrix)
    if transfer in _UNTAGGED:
        assumed.append("transfer")
        transfer = _TRANSFERS.get(matrix, 6)
    if frame.color_range in (1, 2):
        full_range = frame.color_range == 2
    else:
        assumed.append("full_range")
        luma_only = format_subsampling(layout.name) is None
        full_range = layout.is_rgb or layout.has_palette or luma_only or layout.name.startswith("yuvj")
    if siting is None:
        assumed.append("siting")
        siting = "center" if codec in _CENTERED else "left"
    return Color(matrix, primaries, transfer, full_range, _depth(layout, path), siting, tuple(assumed))


def _named(table: type[E], code: int, path: str) -> E | None:
    if code in _UNTAGGED:
        return None
    try:
        return table(code)
    except ValueError as error:
        message = f"has {table.__name__.lower()} code {code} (ITU-T H.273); convert it to BT.709 first"
        raise MediaError(message, path) from error


def _depth(layout: VideoFormat, path: str) -> int:
    for part, what in _REFUSED.items():
        if part in layout.name:
            raise MediaError(
                f"its pixels are {what} ({layout.name}); convert it to integers of 8 to 16 bits first", path
            )
    bits = max(part.bits for part in layout.components if not part.is_alpha)
    if bits > 16:
        raise MediaError(f"its pixels have {bits} bits ({layout.name}); convert it to at most 16 first", path)
    return max(8, bits)
