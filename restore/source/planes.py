"""Planes of code values out of decoded frames, whatever their pixel format; luma codes are never changed."""

from __future__ import annotations

import numpy as np
from av.video.format import VideoFormat
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from restore.clip import Color, Plane, chroma_shape
from restore.color import LUMA_COEFFICIENTS, chroma_scale, luma_scale
from restore.source.tags import format_subsampling

_UNPACKED = {
    "ayuv": "yuv444p",
    "ayuv64be": "yuv444p16le",
    "ayuv64le": "yuv444p16le",
    "monob": "gray",
    "monow": "gray",
    "uyva": "yuv444p",
    "uyvy422": "yuv422p",
    "uyyvyy411": "yuv411p",
    "v30xbe": "yuv444p10le",
    "v30xle": "yuv444p10le",
    "vuya": "yuv444p",
    "vuyx": "yuv444p",
    "vyu444": "yuv444p",
    "xv30be": "yuv444p10le",
    "xv30le": "yuv444p10le",
    "xv36be": "yuv444p12le",
    "xv36le": "yuv444p12le",
    "xv48be": "yuv444p16le",
    "xv48le": "yuv444p16le",
    "y210le": "yuv422p10le",
    "y212le": "yuv422p12le",
    "y216le": "yuv422p16le",
    "yuyv422": "yuv422p",
    "yvyu422": "yuv422p",
}
"""Packed formats, and the planar one of the same depth and subsampling that swscale unpacks them to."""
_WITH_ALPHA = ("ya8", "ya16be", "ya16le")
"""Grey and alpha in turn."""
_HIGH_BITS = ("p010", "p012", "p210", "p212", "p410", "p412")
"""Semi-planar formats that keep their bits at the high end of 16."""


def planes(frame: VideoFrame, color: Color, luma_only: bool = False) -> tuple[Plane, Plane | None]:
    """Return the luma and the chroma of a frame as code values.

    Args:
        frame: Decoded; it must not be written to while the planes are in use.
        color: Of the source; R'G'B' becomes Y'CbCr by its matrix, so that R' = G' = B' keeps its code.
        luma_only: Leave out the chroma.

    Returns:
        Luma, shape (H, W), read-only, a view of the frame where its layout allows; and chroma, shape
        (2, h, w), or None for a monochrome frame. Alpha is left out.
    """
    layout = frame.format
    if layout.is_rgb or layout.has_palette:
        return _from_rgb(frame, color, luma_only)
    if layout.name in _WITH_ALPHA:
        luma = _plane(frame, 0, interleaved=2)[:, ::2]
        luma.flags.writeable = False
        return luma, None
    if layout.name in _UNPACKED:
        # One thread: where rows are not padded, libswscale's vectors write past their ends, into another thread's row.
        frame = frame.reformat(format=_UNPACKED[layout.name], threads=1)
    luma = _plane(frame, 0)
    luma.flags.writeable = False
    return luma, None if luma_only else _chroma(frame)


def is_supported(layout: VideoFormat) -> bool:
    """Say whether `planes` knows the layout of a pixel format."""
    alone = sum(part.plane == 0 for part in layout.components) == 1
    return layout.is_rgb or layout.has_palette or layout.name in (*_UNPACKED, *_WITH_ALPHA) or alone


def _plane(frame: VideoFrame, number: int, interleaved: int = 1) -> Plane:
    """Return a plane; a view where samples are little-endian and at the low end of their bits."""
    plane, layout = frame.planes[number], frame.format
    bits = max(part.bits for part in layout.components)
    rows = np.frombuffer(memoryview(plane), np.uint8).reshape(plane.height, plane.line_size)
    width = plane.width * interleaved
    if bits <= 8:
        return rows[:, :width]
    wide: NDArray[np.uint16] = rows[:, : 2 * width].view(">u2" if layout.is_big_endian else "<u2")
    if layout.is_big_endian:
        wide = wide.astype(np.uint16)
    high = layout.name.startswith(_HIGH_BITS) or "msb" in layout.name
    return np.right_shift(wide, np.uint16(16 - bits)) if high else wide


def _chroma(frame: VideoFrame) -> Plane | None:
    layout, subsampling = frame.format, format_subsampling(frame.format.name)
    if subsampling is None:
        return None
    if layout.components[1].plane == layout.components[2].plane:
        both = _plane(frame, 1, interleaved=2)
        pair = [both[:, 0::2], both[:, 1::2]]
        chroma = np.stack(pair[::-1] if layout.name in ("nv21", "nv42") else pair)
    else:
        chroma = np.stack([_plane(frame, 1), _plane(frame, 2)])
    height, width = chroma_shape(frame.height, frame.width, subsampling)
    for axis, size in ((1, height), (2, width)):  # 4:1:1, 4:1:0 and 4:4:0 are held by the next denser grid
        if (times := -(-size // chroma.shape[axis])) > 1:
            chroma = np.repeat(chroma, times, axis)
    return chroma[:, :height, :width]


def _from_rgb(frame: VideoFrame, color: Color, luma_only: bool) -> tuple[Plane, Plane | None]:
    """Convert R'G'B' to Y'CbCr of the same range. Source: ITU-R BT.709-6, items 3.2 to 3.4."""
    planar = "gbrp" if color.depth == 8 else f"gbrp{color.depth}le"
    if not frame.format.name.startswith("gbr"):
        frame = frame.reformat(format=planar, threads=1)
    kr, kb = LUMA_COEFFICIENTS[color.matrix]
    green, blue, red = (_plane(frame, number).astype(np.float32) for number in range(3))
    real = kr * red + (1 - kr - kb) * green + kb * blue
    dtype, top = (np.uint8 if color.depth == 8 else np.uint16), 2**color.depth - 1
    luma = np.rint(real).astype(dtype)
    luma.flags.writeable = False
    if luma_only:
        return luma, None
    (neutral, span), (_, luma_span) = chroma_scale(color), luma_scale(color)
    pair = [(part - real) / (2 * (1 - k)) * (span / luma_span) + neutral for part, k in ((blue, kb), (red, kr))]
    return luma, np.rint(np.stack(pair)).clip(0, top).astype(dtype)
