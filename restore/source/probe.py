"""What a film or a numbered sequence is, found without decoding more than its first frame."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Literal, cast

import av
import av.stream
from av.audio.codeccontext import AudioCodecContext
from av.container import InputContainer
from av.sidedata.sidedata import SideData, SideDataContainer
from av.stream import Stream
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from restore.clip import Color, Subsampling
from restore.errors import MediaError
from restore.source.numbered import escaped, numbered
from restore.source.planes import is_supported
from restore.source.tags import FieldOrder, color_of, format_subsampling, told_by_showinfo

logger = logging.getLogger(__name__)


RAW_FORMATS = frozenset({"h264", "hevc", "m4v", "mjpeg", "mpegvideo", "vc1"})
"""Demuxers of streams without a container: no times, no seeking, and a frame rate that may be wrong."""

_FIELD_ORDERS: dict[int, FieldOrder] = {1: "progressive", 2: "tff", 3: "bff", 4: "bff", 5: "tff"}
"""Source: libavcodec, enum AVFieldOrder; 4 and 5 are coded in one order and shown in the other."""
_BLOCK = 1 << 20


@dataclass(frozen=True, slots=True)
class StreamInfo:
    """One stream of a file, as `inspect` shows it and the joiner copies it."""

    index: int
    type: str
    """video, audio, subtitle, data or attachment."""
    codec: str
    time_base: Fraction | None
    language: str | None
    disposition: int
    """Flags of libavformat, AV_DISPOSITION_*."""
    metadata: dict[str, str]
    channels: int | None = None
    sample_rate: int | None = None


@dataclass(frozen=True, slots=True)
class Chapter:
    """A named span of the film, in seconds."""

    start: Fraction
    end: Fraction
    metadata: dict[str, str]


@dataclass(frozen=True, slots=True)
class Source:
    """A film that can be restored; everything that is known before it is decoded. Pickles."""

    path: str
    """As the user named it; for a sequence its pattern, as in `scan_%06d.dpx`."""
    kind: Literal["film", "sequence"]
    format: str
    """Name of libav's demuxer."""
    options: tuple[tuple[str, str], ...]
    """Options of the demuxer, to open it again in the same way."""
    stream: int
    """Index of the video stream that is restored."""
    codec: str
    pix_fmt: str
    width: int
    height: int
    time_base: Fraction
    """Seconds per unit of a presentation time."""
    average_rate: Fraction
    """Frames per second."""
    start_pts: int | None
    duration_seconds: Fraction | None
    """As the container says; not measured."""
    frames: int | None
    """Expected number of frames; an estimate."""
    sample_aspect_ratio: Fraction | None
    rotation: int
    """Degrees that a player turns the picture counter-clockwise; planes stay as they are coded."""
    display_matrix: tuple[int, ...] | None
    """The nine numbers that `rotation` comes from, which may also mirror; None if the file has none."""
    subsampling: Subsampling | None
    """Smallest subsampling that holds the source's chroma; None for a monochrome source."""
    monochrome: bool
    rgb: bool
    color: Color
    field_order: FieldOrder
    """As the stream says; `fields` looks at the picture."""
    streams: tuple[StreamInfo, ...]
    chapters: tuple[Chapter, ...]
    metadata: dict[str, str]
    missing_bytes: int
    """Bytes that the container announces but the file does not have: it is truncated."""
    fingerprint: str

    @property
    def attachments(self) -> tuple[StreamInfo, ...]:
        """Fonts, pictures and other files inside the container."""
        return tuple(stream for stream in self.streams if stream.type == "attachment")

    def seconds(self, pts: int) -> float:
        """Return the time of a pts, for messages."""
        return float(pts * self.time_base)


def probe(path: str | Path, *, rate: Fraction | None = None) -> Source:
    """Open a film or a numbered sequence and say what it is.

    Args:
        path: A film, a folder of numbered frames, or a pattern as in `scan_%06d.dpx`.
        rate: Frames per second of a sequence, which has none of its own, or of a raw stream.

    Raises:
        MediaError: It is missing, unreadable, not a film, or needs what this program does not do.
    """
    sequence = numbered(Path(path))
    if sequence is None:
        _check_file(Path(path))
        options: tuple[tuple[str, str], ...] = ()
        if rate is not None:
            with _open(str(path), "film", ()) as container:
                if container.format.name not in RAW_FORMATS:
                    raise MediaError("a frame rate is for numbered sequences; this film has its own times", str(path))
            options = (("framerate", str(rate)),)
        with _open(str(path), "film", options) as container:
            return _describe(container, str(path), "film", options)
    if rate is None:
        raise MediaError("a numbered sequence has no frame rate of its own; give it, as in --rate 24", str(path))
    options = (("framerate", str(rate)), ("pattern_type", "sequence"), ("start_number", str(sequence.first)))
    with _open(sequence.pattern, "sequence", options) as container:
        return _describe(container, sequence.pattern, "sequence", options, len(sequence.files))


def open_media(source: Source) -> InputContainer:
    """Open a source as `probe` did.

    Raises:
        MediaError: It is missing or unreadable by now.
    """
    return _open(source.path, source.kind, source.options)


def fingerprint(path: str | Path) -> str:
    """Return a hash of the content: size, and SHA-256 over the head, the middle and the tail.

    Of a sequence, the name, the size and three small blocks of every frame. Times of the files do not count.

    Raises:
        MediaError: It is missing or unreadable.
    """
    sequence = numbered(Path(path))
    files, block = ((Path(path),), _BLOCK) if sequence is None else (sequence.files, 4096)
    total = hashlib.sha256()
    try:
        for file in files:
            size = file.stat().st_size
            total.update(f"{file.name if sequence else ''}:{size}:".encode())
            with file.open("rb") as stream:
                for start in sorted({0, max(0, (size - block) // 2), max(0, size - block)}):
                    stream.seek(start)
                    total.update(stream.read(block))
    except OSError as error:
        raise MediaError(f"cannot be read: {error.strerror}", str(path)) from error
    return total.hexdigest()


def _check_file(path: Path) -> None:
    try:
        size = path.stat().st_size
        with path.open("rb"):
            pass
    except FileNotFoundError as error:
        raise MediaError("there is no such file", str(path)) from error
    except OSError as error:
        raise MediaError(f"cannot be opened: {error.strerror}", str(path)) from error
    if size == 0:
        raise MediaError("the file is empty", str(path))


def _open(path: str, kind: str, options: tuple[tuple[str, str], ...]) -> InputContainer:
    name, form = (escaped(path), "image2") if kind == "sequence" else (f"file:{path}", None)
    try:
        return av.open(name, "r", format=form, options=dict(options), metadata_errors="replace")
    except av.error.InvalidDataError as error:
        raise MediaError("is not a film, or is damaged: no known container was found in it", path) from error
    except av.error.EOFError as error:
        raise MediaError("has no frames: the file ends before the first one", path) from error
    except (av.FFmpegError, OSError) as error:
        raise MediaError(f"cannot be opened: {error.strerror}", path) from error


def _film_stream(container: InputContainer, path: str) -> VideoStream:
    """Choose the stream that is the film: not cover art, and the default one of several."""
    covers = int(av.stream.Disposition.attached_pic | av.stream.Disposition.timed_thumbnails)
    streams = [stream for stream in container.streams.video if not int(stream.disposition) & covers]
    if not streams:
        what = (
            "only cover art" if container.streams.video else "only sound" if container.streams.audio else "no picture"
        )
        raise MediaError(f"holds {what}; a film with a video stream was expected", path)
    if len(streams) > 1:
        logger.info("%s has %d video streams; the default one is restored", path, len(streams))
    chosen = next((s for s in streams if int(s.disposition) & int(av.stream.Disposition.default)), streams[0])
    if chosen.codec_context is None:
        raise MediaError("no decoder is known for its video codec", path)
    return chosen


def _first_frame(container: InputContainer, stream: VideoStream, path: str) -> VideoFrame:
    size, packets, reason = (stream.codec_context.width, stream.codec_context.height), 0, "nothing came out"
    try:
        for packet in container.demux(stream):
            packets += packet.size > 0
            try:
                for frame in packet.decode():
                    return frame
            except av.FFmpegError as error:  # a recording may begin in the middle of a group of pictures
                reason = error.strerror or reason
            if packets > 300:
                break
    except av.FFmpegError as error:
        reason = error.strerror or reason
    if packets == 0:
        raise MediaError("has no frames: its video stream is empty", path)
    if 0 in size:
        raise MediaError(f"its picture size is {size[0]}x{size[1]}", path)
    raise MediaError(f"its first frame cannot be decoded ({stream.codec_context.name}): {reason}", path)


def _describe(
    container: InputContainer,
    path: str,
    kind: Literal["film", "sequence"],
    options: tuple[tuple[str, str], ...],
    frames: int = 0,
) -> Source:
    stream = _film_stream(container, path)
    frame = _first_frame(container, stream, path)
    codec, layout = stream.codec_context.name, frame.format
    siting, field = told_by_showinfo(frame)
    color = color_of(frame, codec, siting, path)
    if not is_supported(layout):
        raise MediaError(f"pixel format {layout.name} is not supported; convert it to planar Y'CbCr first", path)
    time_base, rate = stream.time_base, stream.average_rate or stream.guessed_rate or stream.base_rate
    if not time_base or not rate:
        raise MediaError("has no time base or frame rate; remux it first", path)
    duration = stream.duration * time_base if stream.duration else None
    if duration is None and container.duration:
        duration = Fraction(container.duration, 1_000_000)
    estimate = frames or stream.frames or (round(duration * rate) if duration else 0)
    return Source(
        path=path,
        kind=kind,
        format=container.format.name,
        options=options,
        stream=stream.index,
        codec=codec,
        pix_fmt=layout.name,
        width=frame.width,
        height=frame.height,
        time_base=time_base,
        average_rate=rate,
        start_pts=stream.start_time,
        duration_seconds=duration,
        frames=estimate or None,
        sample_aspect_ratio=stream.sample_aspect_ratio or None,
        rotation=frame.rotation,
        display_matrix=_display_matrix(frame),
        subsampling=format_subsampling(layout.name),
        monochrome=format_subsampling(layout.name) is None,
        rgb=layout.is_rgb or layout.has_palette,
        color=color,
        field_order=_FIELD_ORDERS.get(stream.codec_context.field_order, field),
        streams=tuple(_stream_info(other) for other in container.streams),
        chapters=_chapters(container),
        metadata=dict(container.metadata),
        missing_bytes=_missing_bytes(Path(path), container.format.name) if kind == "film" else 0,
        fingerprint=fingerprint(path),
    )


def _display_matrix(frame: VideoFrame) -> tuple[int, ...] | None:
    try:
        matrix = cast(SideDataContainer, frame.side_data).get("DISPLAYMATRIX")
    except ValueError:  # PyAV 18 knows no EXIF side data, which pictures carry and films with a matrix do not
        return None
    return None if matrix is None else tuple(memoryview(cast(SideData, matrix)).cast("B").cast("i"))


def _stream_info(stream: Stream) -> StreamInfo:
    context = stream.codec_context
    sound = context if isinstance(context, AudioCodecContext) else None
    return StreamInfo(
        index=stream.index,
        type=stream.type,
        codec=context.name if context else "unknown",
        time_base=stream.time_base,
        language=stream.metadata.get("language"),
        disposition=int(stream.disposition),
        metadata=dict(stream.metadata),
        channels=sound.layout.nb_channels if sound else None,
        sample_rate=sound.sample_rate if sound else None,
    )


def _chapters(container: InputContainer) -> tuple[Chapter, ...]:
    units = [(chapter, chapter["time_base"] or Fraction(1)) for chapter in container.chapters()]
    return tuple(Chapter(c["start"] * unit, c["end"] * unit, dict(c["metadata"])) for c, unit in units)


def _missing_bytes(path: Path, form: str) -> int:
    """Return how many bytes the outermost structure of the file announces beyond its end.

    Source: ISO/IEC 14496-12, 4.2 (boxes); RFC 8794, 4-6 (EBML); Microsoft RIFF.
    """
    size, end = path.stat().st_size, 0
    with path.open("rb") as file:
        if "mp4" in form:
            while end < size and len(head := file.read(16)) >= 8:
                length = int.from_bytes(head[8:16] if head[:4] == b"\0\0\0\1" else head[:4])
                if length < 8:  # 0 is "to the end of the file"
                    break
                end += length
                file.seek(end)
        elif "matroska" in form:
            for _ in range(2):  # the EBML header, then the segment
                head = file.read(12)
                digits = 9 - head[4].bit_length() if len(head) == 12 else 9
                if digits > 8:
                    break
                value = int.from_bytes(head[4 : 4 + digits]) & (1 << 7 * digits) - 1
                end = 0 if value == (1 << 7 * digits) - 1 else file.tell() - 12 + 4 + digits + value
                file.seek(end)
        elif form == "avi":
            head = file.read(8)
            end = 8 + int.from_bytes(head[4:8], "little")
    return max(0, end - size)
