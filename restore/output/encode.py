"""Encoders that write clips: part files in Matroska, or numbered frames."""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import shutil
import uuid
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Self

import av
import numpy as np
from av.codec.context import CodecContext
from av.filter import Graph
from av.video.codeccontext import VideoCodecContext
from av.video.format import VideoFormat
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from restore.clip import Clip, Plane
from restore.color import chroma_scale, luma_scale
from restore.errors import ConfigError
from restore.output.disk import sync, writing
from restore.output.frames import FrameWriter, check_clip, fill
from restore.output.profiles import (
    Profile,
    encoder_for,
    index_clock,
    output_color,
    subsampling_for,
)
from restore.source.probe import Source

logger = logging.getLogger(__name__)

_FIELD_MODES = {0: "prog", 1: "tff", 2: "bff"}
"""Field flags of a clip, as the `setparams` filter names them."""
_FIELD_ORDERS = {"progressive": "progressive", "tff": "tt", "bff": "bb"}
"""Field orders of a source, as libavcodec names them."""
_BITEXACT = 0x400
"""AVFMT_FLAG_BITEXACT of libavformat."""


@dataclass(frozen=True, slots=True)
class EncodeResult:
    """What was written."""

    frames: int
    bytes: int
    sha256: str


class Encoder:
    """Encodes clips into a Matroska file whose clock counts frames.

    Code values are written as they are, or scaled to the profile's depth and range. Colour tags are always
    written, the assumed ones too. The same clips give the same bytes on every machine.
    """

    def __init__(self, path: Path, profile: Profile, source: Source) -> None:
        """Open the file and the encoder.

        Args:
            path: Of the part file; replaced if it is there.
            profile: Codec and settings.
            source: Gives size, rate, shape of pixels, colour and field order.

        Raises:
            MediaError: The file cannot be written.
        """
        self.frames = 0
        """Written so far."""
        self._path, self._profile, self._source = path, profile, source
        self._color, self._subsampling = output_color(profile, source), subsampling_for(profile, source)
        self._graphs: dict[str, Graph] = {}
        with writing(path):
            self._container = av.open(f"file:{path}", "w", format="matroska")
            self._container.flags |= _BITEXACT  # neither dates nor random numbers
            stream = self._container.add_stream(encoder_for(profile, source), rate=index_clock(source))
            assert isinstance(stream, VideoStream)
            _configure(stream.codec_context, profile, source)
            self._stream = stream

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            with writing(self._path):
                self._container.mux(self._stream.encode(None))
                self._container.close()
        else:
            self._abandon()

    def _abandon(self) -> None:
        """Close the file after an error, which must not be hidden by what closing brings."""
        try:
            self._container.close()
        except (av.FFmpegError, OSError) as error:
            logger.debug("%s: closed after an error: %s", self._path, error)

    def write(self, clip: Clip) -> None:
        """Encode the frames of a clip.

        Raises:
            ValueError: The clip is not painted, or not the source's size.
            MediaError: The file cannot be written.
        """
        check_clip(clip, self._source, self._subsampling)
        planes, context = self._planes(clip), self._stream.codec_context
        for index in range(len(clip)):
            frame = VideoFrame(context.width, context.height, context.pix_fmt or "")
            for plane, codes in zip(frame.planes, planes, strict=True):
                fill(plane, codes[index])
            frame.pts = self.frames
            frame = self._tagged(frame, clip.flags[index] if clip.flags else None)
            frame.time_base = context.time_base
            with writing(self._path):
                self._container.mux(self._stream.encode(frame))
            self.frames += 1

    def _planes(self, clip: Clip) -> tuple[Plane, Plane, Plane]:
        assert clip.chroma is not None
        old, new = clip.color, self._color
        luma = _rescaled(clip.luma, luma_scale(old), luma_scale(new), new.depth)
        chroma = _rescaled(clip.chroma, chroma_scale(old), chroma_scale(new), new.depth)
        return luma, chroma[:, 0], chroma[:, 1]

    def _tagged(self, frame: VideoFrame, flag: int | None) -> VideoFrame:
        """Set what PyAV has no attributes for: field flags, chroma location and the shape of pixels."""
        order = self._source.field_order
        interlaced = order in ("tff", "bff")
        mode = _FIELD_MODES[flag] if flag is not None else order if interlaced else "prog"
        if mode == "prog" and interlaced and self._profile.codec == "libx264":
            mode = order  # H.264 is coded as fields as a whole; a frame without a flag would swap them
        if mode not in self._graphs:
            self._graphs[mode] = self._tagger(mode)
        self._graphs[mode].vpush(frame)
        tagged = self._graphs[mode].vpull()
        assert isinstance(tagged, VideoFrame)
        return tagged

    def _tagger(self, mode: str) -> Graph:
        color, context = self._color, self._stream.codec_context
        settings = {
            "field_mode": mode,
            "range": "pc" if color.full_range else "tv",
            "colorspace": int(color.matrix),
            "color_primaries": int(color.primaries),
            "color_trc": color.transfer,
            "chroma_location": "unspecified" if self._subsampling == "444" else color.siting,
        }
        graph = Graph()
        layout = VideoFormat(context.pix_fmt or "", context.width, context.height)
        buffer = graph.add_buffer(
            width=context.width, height=context.height, format=layout, time_base=context.time_base
        )
        tags = graph.add("setparams", ":".join(f"{key}={value}" for key, value in settings.items()))
        ratio = self._source.sample_aspect_ratio or 0  # of each frame: FFV1 keeps it there, Matroska's muxer does not
        shape = graph.add("setsar", f"sar={ratio}:max={2**31 - 1}")
        graph.link_nodes(buffer, tags, shape, graph.add("buffersink")).configure()
        return graph


def _configure(context: VideoCodecContext, profile: Profile, source: Source) -> None:
    color, subsampling, clock = output_color(profile, source), subsampling_for(profile, source), index_clock(source)
    context.width, context.height = source.width, source.height
    context.pix_fmt = f"yuv{subsampling}p" + (f"{color.depth}le" if color.depth > 8 else "")
    context.time_base, context.framerate, context.thread_count = 1 / clock, clock, profile.threads
    context.colorspace, context.color_primaries = int(color.matrix), int(color.primaries)
    context.color_trc, context.color_range = color.transfer, 2 if color.full_range else 1
    if source.sample_aspect_ratio:
        context.sample_aspect_ratio = source.sample_aspect_ratio
    options = dict(profile.options)
    if subsampling != "444":
        options["chroma_sample_location"] = color.siting
    if source.field_order in _FIELD_ORDERS:
        options["field_order"] = _FIELD_ORDERS[source.field_order]
    if source.field_order in ("tff", "bff"):
        options["flags"] = "+ildct+ilme"
        if profile.codec == "libx264":
            options["x264-params"] = f"{options.get('x264-params', '')}:{source.field_order}=1".lstrip(":")
    if "slices" in options and profile.codec == "ffv1":
        options["slices"] = str(_slices(source.width, source.height, context.pix_fmt, int(options["slices"])))
    context.options = options


@cache
def _slices(width: int, height: int, pix_fmt: str, wanted: int) -> int:
    """Return how many slices FFV1 takes for a size: `wanted`, or fewer for a small or odd one."""
    for slices in (wanted, 9, 4):
        trial = CodecContext.create("ffv1", "w")
        assert isinstance(trial, VideoCodecContext)
        trial.width, trial.height, trial.pix_fmt, trial.time_base = width, height, pix_fmt, Fraction(1, 25)
        trial.options = {"level": "3", "slices": str(slices)}
        try:
            trial.open()
        except av.FFmpegError:
            continue
        return slices
    return 1


def _rescaled(plane: Plane, old: tuple[float, float], new: tuple[float, float], depth: int) -> Plane:
    """Move code values from one (origin, span) to another, rounding once; a shift where that is all it is."""
    if old == new:
        return plane
    bits = round(np.log2(new[1] / old[1]))
    if bits > 0 and new == (old[0] * 2**bits, old[1] * 2**bits):
        shifted: Plane = plane.astype(np.uint16) << bits
        return shifted
    scaled = (plane.astype(np.float64) - old[0]) * (new[1] / old[1]) + new[0]
    codes: Plane = np.clip(np.rint(scaled), 0, 2**depth - 1).astype(np.uint8 if depth == 8 else np.uint16)
    return codes


def check_profile(profile: Profile, source: Source) -> None:
    """Open the encoder once, before work starts, and tell the user what the profile cannot keep as it is.

    Raises:
        ConfigError: The encoder is unknown here, or refuses its settings or the source's size.
    """
    if not profile.is_sequence:
        try:
            context = CodecContext.create(encoder_for(profile, source), "w")
            assert isinstance(context, VideoCodecContext)
            _configure(context, profile, source)
            context.open()
        except (ValueError, av.FFmpegError) as error:
            size = f"{source.width}x{source.height}"
            reason = error.strerror if isinstance(error, av.FFmpegError) else error
            raise ConfigError(
                f"{source.path}: the {profile.name} profile ({profile.codec}) cannot encode {size}: {reason}; "
                "choose another with --profile"
            ) from error
    old, new = source.color, output_color(profile, source)
    if new.depth < old.depth:
        logger.warning(
            "%s: the %s profile rounds luma from %d to %d bits", source.path, profile.name, old.depth, new.depth
        )
    if old.full_range and not new.full_range:
        logger.warning("%s: the %s profile holds limited range only; luma is scaled to it", source.path, profile.name)
    if subsampling_for(profile, source) == "444" and profile.subsampling == "420":
        size = f"{source.width}x{source.height}"
        logger.warning(
            "%s: %s does not fit 4:2:0; written as 4:4:4, which few hardware players show", source.path, size
        )


def encode_part(path: Path, clips: Iterable[Clip], profile: Profile, source: Source) -> EncodeResult:
    """Encode the clips of a part. Its file, or its folder of frames, appears whole or not at all.

    Several processes may do so at a time (one that was thought dead, and the one in its place): each writes under a
    name of its own, and the last one's file stays.

    Raises:
        ValueError: There are no frames, or they are not painted.
        MediaError: It cannot be written.
    """
    temporary = path.with_name(f".{path.stem}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        result = (_encode_frames if profile.is_sequence else _encode_file)(temporary, clips, profile, source)
        with writing(path):
            _put_in_place(temporary, path)
            sync(path.parent)
    except BaseException:
        _remove(temporary)
        raise
    return result


def _put_in_place(temporary: Path, path: Path) -> None:
    """Rename a file or a folder; a folder that is there is moved away first, as it cannot be replaced."""
    while True:
        try:
            temporary.replace(path)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.EISDIR, errno.ENOTDIR):
                raise
        else:
            return
        old = temporary.with_suffix(".old")
        with suppress(FileNotFoundError):  # another process was quicker
            path.replace(old)
        _remove(old)


def _encode_file(path: Path, clips: Iterable[Clip], profile: Profile, source: Source) -> EncodeResult:
    with Encoder(path, profile, source) as encoder:
        for clip in clips:
            encoder.write(clip)
        if not encoder.frames:
            raise ValueError(f"a part has at least one frame, got none for {path}")
    with writing(path), path.open("rb") as file:
        os.fsync(file.fileno())
        return EncodeResult(encoder.frames, path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest())


def _encode_frames(folder: Path, clips: Iterable[Clip], profile: Profile, source: Source) -> EncodeResult:
    with FrameWriter(folder, profile.part_suffix, output_color(profile, source).depth, source) as writer:
        for clip in clips:
            writer.write(clip)
    if not writer.frames:
        raise ValueError(f"a part has at least one frame, got none for {folder}")
    return EncodeResult(writer.frames, writer.bytes, writer.sha256.hexdigest())


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
