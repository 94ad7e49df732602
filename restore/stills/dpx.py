"""DPX through libav, at 8, 10, 12 and 16 bits. Source: SMPTE ST 268-1."""

from __future__ import annotations

import struct
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from restore.errors import MediaError
from restore.stills.still import Metadata, Picture

_HEADER, _GENERIC = 2048, 1664
"""Bytes of the whole header, and of its part before the film and television headers, which libav does not write."""
_CARRIED = (slice(36, 660), slice(768, 770), slice(801, 803), slice(820, 852), slice(1408, _GENERIC))
"""File name, times, creator, project, copyright; orientation; transfer and colorimetry; description; source image."""
_DATA_OFFSET, _FILE_SIZE, _INDUSTRY_SIZE, _ELEMENT_OFFSET = 4, 16, 28, 808
"""Where these four 32-bit fields lie."""
_LAYOUTS = {
    "gray": 8,
    "gray10le": 10,
    "gray12le": 12,
    "gray16le": 16,
    "gray16be": 16,
    "rgb24": 8,
    "rgba": 8,
    "gbrp10le": 10,
    "gbrp12le": 12,
    "rgb48le": 16,
    "rgb48be": 16,
    "rgba64le": 16,
    "rgba64be": 16,
}
"""Bits of a sample in the pixel formats of libav's DPX decoder that are read."""
_OUTPUT = {(8, False): "rgb24", (8, True): "rgba", (10, False): "gbrp10", (12, False): "gbrp12"} | {
    (16, False): "rgb48",
    (16, True): "rgba64",
}


def size_of(path: Path) -> tuple[int, int]:
    """Return width and height from the header."""
    with path.open("rb") as file:
        head = file.read(780)
    width, height = struct.unpack((">" if head[:4] == b"SDPX" else "<") + "II", head[772:780])
    return width, height


def read(path: Path) -> Picture:
    """Read a gray or RGB(A) DPX; its code values are taken as full-range R'G'B', whatever its transfer.

    Raises:
        MediaError: Its samples are not gray or RGB, or some are missing.
    """
    data = path.read_bytes()
    codec: Any = av.CodecContext.create("dpx", "r")
    frames = codec.decode(av.Packet(data)) + codec.decode(None)
    if not frames:
        raise MediaError("is truncated: part of the picture is missing", str(path))
    name = frames[0].format.name
    if name == "abgr":
        frames, name = [frames[0].reformat(format="rgba", threads=1)], "rgba"
    if name not in _LAYOUTS:
        raise MediaError(f"has {name} samples; expected gray or RGB, 8, 10, 12 or 16 bits", str(path))
    samples = frames[0].to_ndarray()
    alpha = None
    if samples.ndim == 3 and samples.shape[2] == 4:
        samples, alpha = np.ascontiguousarray(samples[..., :3]), np.ascontiguousarray(samples[..., 3])
    depth = _LAYOUTS[name]
    native = np.dtype(np.uint8 if depth == 8 else np.uint16)
    alpha = None if alpha is None else alpha.astype(native)
    return Picture(samples.astype(native), depth, alpha, metadata=Metadata(header=data[:_HEADER]))


def write(path: Path, picture: Picture) -> None:
    """Write an RGB(A) DPX in the byte order of the source's header."""
    header = picture.metadata.header
    little = header is not None and header[:4] == b"XPDS"
    name = _OUTPUT[picture.depth, picture.alpha is not None]
    if picture.depth > 8:
        name += "le" if little else "be"
    samples: Any = picture.pixels if picture.pixels.ndim == 3 else np.dstack([picture.pixels] * 3)
    if picture.alpha is not None:
        samples = np.dstack((samples, picture.alpha))
    codec: Any = av.CodecContext.create("dpx", "w")
    codec.height, codec.width = samples.shape[:2]
    codec.pix_fmt, codec.time_base = name, Fraction(1, 25)
    packets = codec.encode(_frame(samples, name)) + codec.encode(None)
    data = bytearray(bytes(packets[0]))
    path.write_bytes(data if header is None or header[:4] != data[:4] else _with_header(data, header))


def _with_header(data: bytearray, header: bytes) -> bytearray:
    """Put what the source's header tells about the film into a file that libav made."""
    for part in _CARRIED:
        data[part] = header[part]
    word = ">I" if header[:4] == b"SDPX" else "<I"
    (start,) = struct.unpack_from(word, data, _DATA_OFFSET)
    if start != _GENERIC or struct.unpack_from(word, header, _DATA_OFFSET)[0] < _HEADER:
        return data
    data[_GENERIC:_GENERIC] = header[_GENERIC:_HEADER]
    for field, value in (
        (_DATA_OFFSET, _HEADER),
        (_FILE_SIZE, len(data)),
        (_INDUSTRY_SIZE, _HEADER - _GENERIC),
        (_ELEMENT_OFFSET, _HEADER),
    ):
        struct.pack_into(word, data, field, value)
    return data


def _frame(samples: Any, name: str) -> av.VideoFrame:
    """Return samples, shape (H, W, C), as a frame; `VideoFrame.from_ndarray` lacks some of these formats."""
    frame = av.VideoFrame(samples.shape[1], samples.shape[0], name)
    channels = (
        [samples[..., [1, 2, 0][n] : [1, 2, 0][n] + 1] for n in range(3)] if name.startswith("gbr") else [samples]
    )
    order = ">" if name.endswith("be") else "<"
    for plane, values in zip(frame.planes, channels, strict=True):
        rows = np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)  # type: ignore[call-overload]
        flat = values.astype(values.dtype.newbyteorder(order)).reshape(len(samples), -1).view(np.uint8)
        rows[:, : flat.shape[1]] = flat
    return frame
