"""Numbered frames out: DPX, TIFF and PNG, one file a frame."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from av.codec.context import CodecContext
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from av.video.plane import VideoPlane
from numpy.typing import NDArray

from restore.clip import Clip, Color, Matrix, Subsampling, chroma_shape
from restore.color import chroma_scale, rgb_from_ycbcr, unit_luma
from restore.output.disk import writing
from restore.source.probe import Source


@dataclass(frozen=True, slots=True)
class _FrameFormat:
    """How numbered frames of one suffix are encoded."""

    codec: str
    formats: dict[int, str]
    """Pixel format by depth."""
    options: dict[str, str] = field(default_factory=dict)


_TIFF = _FrameFormat("tiff", {16: "rgb48le"}, {"compression_algo": "deflate"})
_FRAME_FORMATS = {
    ".dpx": _FrameFormat("dpx", {10: "gbrp10le", 16: "rgb48le"}),
    ".tif": _TIFF,
    ".tiff": _TIFF,
    ".png": _FrameFormat("png", {16: "rgb48be"}, {"compression_level": "3", "pred": "up"}),
}
_DPX_COLORIMETRY = {Matrix.BT709: 6, Matrix.BT470BG: 7, Matrix.SMPTE170M: 8}
"""Transfer and colorimetric codes; 4 is unspecified video. Source: SMPTE ST 268, table 5."""
_DPX_TRANSFER = 801
"""Offset of the first element's transfer code, the colorimetric code follows. Source: SMPTE ST 268, table 2."""


def fill(plane: VideoPlane, codes: NDArray[Any]) -> None:
    """Copy code values, shape (H, W), into a plane of a frame, whose rows are padded."""
    rows: NDArray[Any] = np.frombuffer(memoryview(plane), codes.dtype)
    rows = rows[: plane.height * plane.line_size // codes.itemsize].reshape(plane.height, -1)
    rows[:, : codes.shape[1]] = codes


def check_clip(clip: Clip, source: Source, subsampling: Subsampling) -> None:
    """Refuse a clip that is not painted, or not the source's size.

    Raises:
        ValueError: It is.
    """
    height, width = clip.luma.shape[1:]
    if (height, width) != (source.height, source.width):
        raise ValueError(f"frames must be {source.width}x{source.height}, got {width}x{height}")
    if clip.chroma is None or clip.chroma.shape[2:] != chroma_shape(height, width, subsampling):
        raise ValueError(f"chroma must be painted at {':'.join(subsampling)} before it is encoded, got {clip}")


class FrameWriter:
    """Writes clips as numbered frames into a folder, whose suffix names their format.

    R'G'B' is full range and comes from the kept Y' and the painted chroma by the source's matrix, so that its luma
    is the source's; foot- and headroom beyond black and white cannot be held. Names are the source's frame indices.
    """

    def __init__(self, folder: Path, suffix: str, depth: int, source: Source) -> None:
        """Make the folder.

        Args:
            folder: Where the frames go; it must not exist.
            suffix: Of the frames, with the dot.
            depth: Bits of a code value; the format's next greater one is used.
            source: Gives size, rate and shape of pixels.

        Raises:
            MediaError: The folder cannot be made.
        """
        self.frames, self.bytes, self.sha256 = 0, 0, hashlib.sha256()
        self._folder, self._suffix, self._source = folder, suffix, source
        self._format = _FRAME_FORMATS[suffix]
        self._depth = next(bits for bits in self._format.formats if bits >= depth)
        with writing(folder):
            folder.mkdir(parents=True)
        self._context: VideoCodecContext | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._context = None

    def write(self, clip: Clip) -> None:
        """Encode the frames of a clip, each to its own file.

        Raises:
            ValueError: The clip has no chroma, or not at full size.
            MediaError: A file cannot be written.
        """
        check_clip(clip, self._source, "444")
        for index, number in enumerate(range(clip.first, clip.first + len(clip))):
            data = self._encode(_rgb(clip[index : index + 1], self._depth), clip.color)
            file = self._folder / f"{number:08d}{self._suffix}"
            with writing(file), file.open("wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            self.frames, self.bytes = self.frames + 1, self.bytes + len(data)
            self.sha256.update(data)

    def _encode(self, rgb: NDArray[np.uint16], color: Color) -> bytes:
        context = self._context = self._context or self._open(color)
        frame = VideoFrame(context.width, context.height, context.pix_fmt or "")
        if frame.format.is_planar:
            for plane, codes in zip(frame.planes, rgb[[1, 2, 0]], strict=True):  # libav's order is G, B, R
                fill(plane, codes)
        else:
            order = ">u2" if frame.format.is_big_endian else "<u2"
            fill(frame.planes[0], np.ascontiguousarray(rgb.transpose(1, 2, 0).astype(order)).reshape(rgb.shape[1], -1))
        frame.colorspace, frame.color_range = 0, 2
        frame.color_primaries, frame.color_trc = int(color.primaries), color.transfer
        data = bytearray(b"".join(bytes(packet) for packet in context.encode(frame)))
        if self._format.codec == "dpx":
            data[_DPX_TRANSFER : _DPX_TRANSFER + 2] = bytes([_DPX_COLORIMETRY.get(color.matrix, 4)] * 2)
        return bytes(data)

    def _open(self, color: Color) -> VideoCodecContext:
        context = CodecContext.create(self._format.codec, "w")
        assert isinstance(context, VideoCodecContext)
        context.width, context.height = self._source.width, self._source.height
        context.pix_fmt, context.time_base = self._format.formats[self._depth], 1 / self._source.average_rate
        context.thread_count, context.options = 1, self._format.options
        if self._source.sample_aspect_ratio:
            context.sample_aspect_ratio = self._source.sample_aspect_ratio
        return context


def _rgb(clip: Clip, depth: int) -> NDArray[np.uint16]:
    """Return full-range R'G'B' codes of a clip's first frame, shape (3, H, W)."""
    neutral, span = chroma_scale(clip.color)
    assert clip.chroma is not None
    luma = unit_luma(torch.from_numpy(clip.luma[0].astype(np.int32)), clip.color)
    chroma = (torch.from_numpy(clip.chroma[0].astype(np.float32)) - neutral) / span
    unit = rgb_from_ycbcr(torch.stack((luma, *chroma)), clip.color.matrix).clamp_(0, 1)
    codes: NDArray[np.uint16] = (unit * (2**depth - 1)).round_().numpy().astype(np.uint16)
    return codes
