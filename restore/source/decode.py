"""Frames out of a source: straight from its start, or exactly the frames of a span."""

from __future__ import annotations

import contextlib
import logging
import os
import zlib
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice

import av
import av.filter
import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

from restore.allocator import paged
from restore.clip import Clip, Plane
from restore.errors import MediaError
from restore.source.clock import Clock
from restore.source.planes import planes
from restore.source.probe import RAW_FORMATS, Source, open_media

logger = logging.getLogger(__name__)

MAX_THREADS = 8
"""Decoding threads at most; every one holds a frame."""


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One decoded frame."""

    luma: Plane
    """Y', shape (H, W), read-only; it may be a view of the decoder's memory with padded rows."""
    chroma: Plane | None
    """Cb and Cr, shape (2, h, w); None for a monochrome source, or if only luma was asked for."""
    pts: int
    duration: int
    """As the container says, in units of the time base; with B-frames, MP4 says it of another frame."""
    key: bool
    """Decoding can start here."""
    field: int
    """0 progressive, 1 interlaced top field first, 2 interlaced bottom field first."""


@dataclass(frozen=True, slots=True, eq=False)
class Index:
    """Every frame of a source, as one straight decode found them; what spans are checked against."""

    pts: NDArray[np.int64]
    """Presentation times, shape (N,), strictly rising."""
    duration: NDArray[np.int64]
    """Time to the next frame, shape (N,), in units of the time base; of the last frame, what the container says."""
    key: NDArray[np.int64]
    """Numbers of the key frames, rising."""
    checksum: NDArray[np.uint32]
    """CRC-32 of each luma plane, shape (N,)."""
    field: NDArray[np.uint8]
    """Field flag of each frame, shape (N,), as in `Frame`."""

    def __len__(self) -> int:
        return len(self.pts)


class IndexBuilder:
    """Makes an index while the frames of a straight decode go by."""

    def __init__(self) -> None:
        self._rows: list[tuple[int, int, bool, int, int]] = []

    def add(self, frame: Frame) -> None:
        self._rows.append((frame.pts, frame.duration, frame.key, checksum(frame.luma), frame.field))

    def build(self) -> Index:
        pts, duration, key, crc, field = (np.array(column) for column in zip(*self._rows, strict=True))
        return Index(
            pts=pts.astype(np.int64),
            duration=np.append(np.diff(pts), duration[-1:]).astype(np.int64),
            key=np.flatnonzero(key).astype(np.int64),
            checksum=crc.astype(np.uint32),
            field=field.astype(np.uint8),
        )


def checksum(luma: Plane) -> int:
    """Return the CRC-32 of the code values of a plane, whatever the padding of its rows."""
    return zlib.crc32(np.ascontiguousarray(luma).data)


def read(
    source: Source, *, threads: int = 0, start_pts: int | None = None, luma_only: bool = False
) -> Generator[Frame, None, None]:
    """Decode a source in the order in which its frames are shown.

    Args:
        source: From `probe`.
        threads: Decoding threads; 0 for as many as there are processors, at most `MAX_THREADS`.
        start_pts: Start at a key frame near this time instead of at the first frame. Containers seek as well
            as they can, so the first frame may be an earlier or a later one.
        luma_only: Leave out the chroma.

    Raises:
        MediaError: The source is truncated or damaged, or its time stamps do not rise. All frames before
            the damage have been delivered.
    """
    with open_media(source) as container:
        stream = container.streams[source.stream]
        assert isinstance(stream, VideoStream)
        stream.thread_type = "AUTO"
        stream.thread_count = threads or min(MAX_THREADS, os.cpu_count() or 1)
        if start_pts is not None:
            _seek(container, stream, start_pts, source)
        if any(part.is_alpha for part in stream.format.components) and start_pts is None:
            logger.info("%s has an alpha plane (%s), which is left out", source.path, source.pix_fmt)
        yield from _Reader(source, start_pts is not None, luma_only).frames(container, stream)


def clips(
    source: Source,
    index: Index,
    first: int,
    last: int,
    *,
    shot: tuple[int, int],
    chunk: int = 16,
    threads: int = 0,
    luma_only: bool = True,
) -> Iterator[Clip]:
    """Decode exactly the frames `first` to `last - 1`, in clips of at most `chunk` frames.

    Every frame is checked, by its time and the checksum of its luma, to be the one that a straight decode
    gave; where a container seeks badly, decoding starts from an earlier key frame, and at last from the start.

    Raises:
        MediaError: As `read`; or the file is not the one that was indexed.
        ValueError: The span is empty or outside the film.
    """
    if not 0 <= first < last <= len(index):
        raise ValueError(f"frames {first} to {last} of {len(index)} are no span")
    with contextlib.closing(_exact(source, index, first, last, threads, luma_only)) as frames:
        for start in range(first, last, chunk):
            yield _clip(frames, source, index, (start, min(start + chunk, last)), shot)


def _clip(frames: Iterator[Frame], source: Source, index: Index, span: tuple[int, int], shot: tuple[int, int]) -> Clip:
    length = span[1] - span[0]
    luma: Plane | None = None
    chroma: Plane | None = None
    flags = []
    for place, frame in enumerate(islice(frames, length)):
        if luma is None:
            luma = paged((length, *frame.luma.shape), frame.luma.dtype)
            if frame.chroma is not None:
                chroma = paged((length, *frame.chroma.shape), frame.chroma.dtype)
        luma[place] = frame.luma
        if chroma is not None and frame.chroma is not None:
            chroma[place] = frame.chroma
        flags.append(frame.field)
    assert luma is not None
    pts = index.pts[slice(*span)].copy()
    return Clip(luma, chroma, None, pts, source.time_base, source.color, span[0], shot, tuple(flags))


def _exact(
    source: Source, index: Index, first: int, last: int, threads: int, luma_only: bool
) -> Generator[Frame, None, None]:
    number = first
    for start in _starts(source, index, first):
        try:
            with contextlib.closing(read(source, threads=threads, start_pts=start, luma_only=luma_only)) as frames:
                for frame in frames:
                    if frame.pts < index.pts[number]:
                        continue
                    if not _is_indexed(frame, source, index, number, start):
                        break
                    yield frame
                    number += 1
                    if number == last:
                        return
        except MediaError:
            if start is None:
                raise
        if start is not None:
            logger.info("%s: seeking for frame %d failed; decoding from further back", source.path, number)
    time = source.seconds(int(index.pts[number]))
    message = f"frame {number} ({time:.3f} s) is not where it was when the film was scanned; has the file changed?"
    raise MediaError(message, source.path)


def _is_indexed(frame: Frame, source: Source, index: Index, number: int, start: int | None) -> bool:
    if frame.pts != index.pts[number]:
        return False
    if checksum(frame.luma) == index.checksum[number]:
        return True
    if start is None:  # a straight decode is right by definition; another decoder may round differently
        logger.warning("%s: frame %d decodes differently here than where it was scanned", source.path, number)
    return start is None


def _starts(source: Source, index: Index, first: int) -> Iterator[int | None]:
    """Give times to seek to, from near to far, and at last None, for the start of the film."""
    early = round(1 / source.time_base) if source.format.startswith("mpeg") else 0
    """MPEG streams are searched by decoding times, which come before those that frames are shown at."""
    begin = source.start_pts or 0
    place = int(np.searchsorted(index.key, first, side="right")) - 1
    keys = index.pts[index.key[:0] if source.format in RAW_FORMATS else index.key]
    for back in (0, 1, 3):
        if len(keys) > place >= back and keys[place - back] > begin:
            yield int(keys[place - back]) - early
    yield None


def _seek(container: InputContainer, stream: VideoStream, pts: int, source: Source) -> None:
    try:
        container.seek(pts, stream=stream)
    except av.FFmpegError as error:
        raise MediaError(f"cannot seek to {source.seconds(pts):.3f} s: {error.strerror}", source.path) from error


class _Reader:
    """The state of one decode: what has come out so far, and what was wrong with it."""

    def __init__(self, source: Source, sought: bool, luma_only: bool) -> None:
        self.source, self.sought, self.luma_only = source, sought, luma_only
        self.count = 0
        self.damaged: list[int] = []
        self.last: int | None = None
        self.clock = Clock(source, sought)
        self.field = _FieldFlag()

    def frames(self, container: InputContainer, stream: VideoStream) -> Iterator[Frame]:
        try:
            for packet in container.demux(stream):
                yield from self._decode(packet)
        except av.FFmpegError as error:
            raise self._stopped(str(error.strerror)) from error
        finally:
            if self.damaged and not self.sought:
                first, total = self.damaged[0], len(self.damaged)
                message = "%s: %d of %d frames are damaged and were patched up by the decoder, frame %d first"
                logger.warning(message, self.source.path, total, self.count, first)
        if self.source.missing_bytes:
            raise self._stopped(f"the file is truncated, {self.source.missing_bytes} bytes are missing")

    def _decode(self, packet: av.Packet[VideoStream]) -> Iterator[Frame]:
        self.clock.packet(packet)
        try:
            pictures = packet.decode()
        except av.error.InvalidDataError:
            if self.count:
                raise
            return  # a recording may begin in the middle of a group of pictures
        for picture in pictures:
            frame = self._frame(picture)
            if frame is not None:
                yield frame

    def _frame(self, picture: VideoFrame) -> Frame | None:
        pts = self.clock(picture)
        if pts is None or (self.sought and self.count == 0 and not picture.key_frame):
            return None
        self._check(picture, pts)
        if picture.is_corrupt:
            self.damaged.append(self.count)
        luma, chroma = planes(picture, self.source.color, self.luma_only)
        duration = self.clock.duration(picture)
        self.count += 1
        self.last = pts
        return Frame(luma, chroma, pts, duration, picture.key_frame, self.field(picture))

    def _check(self, picture: VideoFrame, pts: int) -> None:
        source = self.source
        now, begun = (picture.width, picture.height, picture.format.name), (source.width, source.height, source.pix_fmt)
        if now != begun:
            was, is_now = ("{}x{} {}".format(*shape) for shape in (begun, now))
            message = f"frame {self.count} is {is_now}, but the film began as {was}; cut it in two there first"
            raise MediaError(message, source.path)
        if self.last is not None and pts <= self.last:
            times = f"at {source.seconds(pts):.3f} s, not after the one before it at {source.seconds(self.last):.3f} s"
            message = f"frame {self.count} is shown {times}; mend its time stamps first, by remuxing it"
            raise MediaError(message, source.path)

    def _stopped(self, why: str) -> MediaError:
        source, last = self.source, self.last or 0
        message = f"decoding stopped at frame {self.count} ({source.seconds(last):.2f} s): {why}; get a whole copy"
        sound = (last - (source.start_pts or 0)) * source.time_base - 1  # of the last second, frames may be missing
        if sound > 0:
            message += f", or restore what is whole with --end {float(sound):.2f}"
        return MediaError(message, source.path)


class _FieldFlag:
    """Tells which field of an interlaced frame comes first, which PyAV does not expose."""

    def __init__(self) -> None:
        self.graph: av.filter.Graph | None = None

    def __call__(self, picture: VideoFrame) -> int:
        if not picture.interlaced_frame:
            return 0
        if self.graph is None:
            self.graph = self._select(picture)
        self.graph.vpush(picture)
        try:
            self.graph.vpull()
        except av.BlockingIOError:
            return 2
        return 1

    @staticmethod
    def _select(picture: VideoFrame) -> av.filter.Graph:
        graph = av.filter.Graph()
        unit = picture.time_base or Fraction(1, 1000)
        source = graph.add_buffer(width=picture.width, height=picture.height, format=picture.format, time_base=unit)
        chosen = graph.add("select", "eq(interlace_type,TOPFIRST)")
        graph.link_nodes(source, chosen, graph.add("buffersink")).configure()
        return graph
