"""Join part files into the output: a stream copy with the source's exact times and its other streams."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.container import InputContainer, OutputContainer
from av.packet import Packet
from av.stream import Discard, Disposition, Stream
from av.video.stream import VideoStream
from numpy.typing import NDArray

from restore.errors import MediaError
from restore.output.disk import sync, writing
from restore.output.matroska import set_pixel_shape
from restore.output.profiles import Profile, index_clock
from restore.output.streams import (
    FORMATS,
    carry,
    check_container,
    describe,
    film_metadata,
    is_matroska,
    muxer_options,
    overlaps,
    starts,
)
from restore.source.probe import Source, open_media

logger = logging.getLogger(__name__)

Progress = Callable[[int, int], None]
"""Called with the frames that are joined, and all."""
Local = Callable[[Path], AbstractContextManager[Path]]
"""Gives a part's file while it is read."""
_SUBTITLE_SECONDS = 30
"""How long before a passage reading starts, for a subtitle that is still shown when it begins."""


@dataclass(frozen=True, slots=True, eq=False)
class PartFile:
    """An encoded part, and when each of its frames is shown."""

    path: Path
    pts: NDArray[np.int64]
    """Presentation times of its frames in the source, shape (N,), strictly rising, in units of the time base."""
    durations: NDArray[np.int64]
    """Shape (N,), in units of the time base."""


def join(
    source: Source,
    parts: Sequence[PartFile],
    output: Path,
    profile: Profile,
    *,
    start: Fraction | None = None,
    end: Fraction | None = None,
    progress: Progress | None = None,
    local: Local = nullcontext,
) -> None:
    """Join parts, in order, with everything else that the source holds. Nothing is encoded a second time.

    The output appears whole or not at all. Frames get the source's exact times, in Matroska to the millisecond.

    Args:
        source: What the parts were made from.
        parts: In the order of the film.
        output: File, or folder or pattern of numbered frames.
        profile: That the parts were encoded with.
        start: Seconds from the first frame, where only a passage was made: of the sound and the subtitles, what
            overlaps it is taken. Times stay as in the source.
        end: Seconds from the first frame.
        progress: Told how far the work is.
        local: Gives the path of a part while it is read, for parts that are not here yet.

    Raises:
        MediaError: The output cannot be written, or a part or the source is damaged.
        ConfigError: The output's container cannot hold a stream of the source.
    """
    if profile.is_sequence:
        _join_frames(source, parts, output, profile, progress)
        return
    check_container(source, output, profile)
    temporary = output.with_name(f".{output.name}.tmp")
    try:
        with writing(output), open_media(source) as container:
            span = _span(source, parts, start, end)
            with av.open(
                f"file:{temporary}",
                "w",
                format=FORMATS[output.suffix.lower()],
                container_options=muxer_options(source, output.suffix.lower()),
            ) as target:
                shaped = _fill(target, container, _Film(source, parts, output, progress, local), span)
            if not shaped and source.sample_aspect_ratio and is_matroska(output.suffix.lower()):
                set_pixel_shape(temporary, 1, (source.width, source.height), source.sample_aspect_ratio)
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            temporary.replace(output)
            sync(output.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _span(
    source: Source, parts: Sequence[PartFile], start: Fraction | None, end: Fraction | None
) -> tuple[Fraction, Fraction] | None:
    """Return when the passage that was made is shown, in seconds; None for a whole film."""
    if start is None and end is None:
        return None
    first, last = int(parts[0].pts[0]), int(parts[-1].pts[-1] + parts[-1].durations[-1])
    return first * source.time_base, last * source.time_base


@dataclass(frozen=True, slots=True, eq=False)
class _Film:
    """The frames of all parts, as packets with the source's times."""

    source: Source
    parts: Sequence[PartFile]
    output: Path
    progress: Progress | None
    local: Local

    def packets(self, stream: VideoStream) -> Iterator[Packet[VideoStream]]:
        """Read the parts, one at a time, and restamp their packets for a stream of the output."""
        pts = np.concatenate([part.pts for part in self.parts])
        dts, done = _decoding_times(pts, stream.codec_context.reorder_depth), 0
        for part in self.parts:
            for packet in self._part_packets(part, stream, dts[done:]):
                yield packet
                done += 1
                if self.progress and (done % 64 == 0 or done == len(pts)):
                    self.progress(done, len(pts))

    def _part_packets(
        self, part: PartFile, stream: VideoStream, dts: NDArray[np.int64]
    ) -> Iterator[Packet[VideoStream]]:
        """Yield a part's packets in decoding order.

        The clock of a part counts frames, so the rank of a packet among all pts of the part is its pts in ticks.
        """
        clock, seen = index_clock(self.source), np.zeros(len(part.pts), bool)
        with self.local(part.path) as path, _open_part(path) as container:
            film = container.streams.video[0]
            self._check_same(part, film, stream)
            for place, packet in enumerate(_read(container, film, part.path)):
                rank = round((packet.pts or 0) * packet.time_base * clock)
                if not 0 <= rank < len(seen) or seen[rank]:
                    raise _miscounted(part, "another one")
                seen[rank] = True
                packet.pts, packet.dts, packet.duration = (
                    int(part.pts[rank]),
                    int(dts[place]),
                    int(part.durations[rank]),
                )
                packet.time_base, packet.stream = self.source.time_base, stream
                yield packet
        if not seen.all():
            raise _miscounted(part, str(seen.sum()))

    def _check_same(self, part: PartFile, film: VideoStream, stream: VideoStream) -> None:
        one, other = film.codec_context, stream.codec_context
        if (one.name, one.extradata or b"") != (other.name, other.extradata or b""):
            message = "the part was encoded with other settings than the first one; start over with --fresh"
            raise MediaError(message, str(part.path))


def _miscounted(part: PartFile, found: str) -> MediaError:
    message = f"the part should hold {len(part.pts)} frames, found {found}; delete it and run again"
    return MediaError(message, str(part.path))


def _decoding_times(pts: NDArray[np.int64], depth: int) -> NDArray[np.int64]:
    """Return when packets are decoded: `depth` frames before their turn to be shown, as encoders do it.

    A packet is at most `depth` places behind its turn, and parts do not reach into one another, so no frame is shown
    before it is decoded. (One constant delay must be as long as the longest pause in a variable frame rate; libav's
    MP4 demuxer then shifts the whole film.)

    Args:
        pts: When all frames are shown, shape (N,), strictly rising.
        depth: Most places that a packet is behind its turn.

    Returns:
        Shape (N,), strictly rising, in decoding order.
    """
    if np.any(np.diff(pts) <= 0):
        raise ValueError("presentation times must rise from frame to frame")
    depth = min(depth, len(pts) - 1)
    return np.concatenate((pts[0] - (pts[depth] - pts[:depth]), pts[: len(pts) - depth]))


def _open_part(path: Path) -> InputContainer:
    try:
        container = av.open(f"file:{path}", "r", format="matroska")
    except (av.FFmpegError, OSError) as error:
        raise MediaError(f"the part cannot be read ({error.strerror}); delete it and run again", str(path)) from error
    if not container.streams.video:
        container.close()
        raise MediaError("the part holds no film; delete it and run again", str(path))
    return container


def _read(container: InputContainer, stream: Stream, path: Path) -> Iterator[Packet[Any]]:
    try:
        for packet in container.demux(stream):
            if packet.size:
                yield packet
    except av.FFmpegError as error:
        raise MediaError(f"the part cannot be read ({error.strerror}); delete it and run again", str(path)) from error


def _fill(
    target: OutputContainer, container: InputContainer, film: _Film, span: tuple[Fraction, Fraction] | None
) -> bool:
    """Write the header, then all packets in the order in which they are decoded.

    Returns:
        Whether the film itself says what shape its pixels have, as H.264 does.
    """
    source = film.source
    with film.local(film.parts[0].path) as path, _open_part(path) as first:
        stream = target.add_stream_from_template(first.streams.video[0], opaque=True)
        stream.time_base, stream.codec_context.framerate = source.time_base, source.average_rate
        shaped = first.streams.video[0].sample_aspect_ratio == source.sample_aspect_ratio
        if source.sample_aspect_ratio:
            stream.codec_context.sample_aspect_ratio = source.sample_aspect_ratio
        stream.disposition = Disposition(next(s.disposition for s in source.streams if s.index == source.stream))
        stream.metadata.update(film_metadata(source))
        if source.display_matrix:
            stream.set_display_matrix(source.display_matrix)
        carried = carry(container, source, target, film.output.suffix.lower(), span is not None)
        describe(target, source, film.output.suffix.lower(), span)
        target.start_encoding()
    for what in carried.left_out:
        logger.warning("%s: %s is left out; %s cannot hold it", film.output, what, film.output.suffix)
    for packet in _merged(film.packets(stream), _copied(container, source, carried.streams, span)):
        target.mux_one(packet)
    return shaped


def _copied(
    container: InputContainer, source: Source, streams: dict[int, Stream], span: tuple[Fraction, Fraction] | None
) -> Iterator[Packet[Any]]:
    """Read the packets of the streams that are carried over, in the order of the file."""
    for stream in container.streams:
        if stream.index not in streams:
            stream.discard = Discard.all
    if not streams:
        return
    if span is not None:
        container.seek(max(0, int((span[0] - _SUBTITLE_SECONDS) * 1_000_000)))
    try:
        for packet in container.demux([container.streams[index] for index in streams]):
            if packet.dts is None and packet.pts is None and not packet.size:
                continue
            if span is None or overlaps(packet, span):
                packet.stream = streams[packet.stream_index]
                yield packet
    except av.FFmpegError as error:
        raise MediaError(f"its sound and other streams cannot be read ({error.strerror})", source.path) from error


def _merged(film: Iterator[Packet[Any]], copied: Iterator[Packet[Any]]) -> Iterator[Packet[Any]]:
    """Merge two streams of packets by time, so that the muxer has little to hold back."""
    waiting = next(copied, None)
    for packet in film:
        now = starts(packet)
        while waiting is not None and ((then := starts(waiting)) is None or now is None or then <= now):
            yield waiting
            waiting = next(copied, None)
        yield packet
    while waiting is not None:
        yield waiting
        waiting = next(copied, None)


def _join_frames(
    source: Source, parts: Sequence[PartFile], output: Path, profile: Profile, progress: Progress | None
) -> None:
    """Move the frames of all parts into a folder, numbered as the source's are, else from 1."""
    folder, name = (output.parent, output.name) if "%" in output.name else (output, f"%08d{profile.part_suffix}")
    origin = int(dict(source.options).get("start_number", 1))
    gathered = folder / f".{name}.tmp" if folder.exists() else folder.with_name(f".{folder.name}.tmp")
    done, total = 0, sum(len(part.pts) for part in parts)
    with writing(output):
        shutil.rmtree(gathered, ignore_errors=True)  # a run that was killed may have left other frames
        gathered.mkdir(parents=True)
        for part in parts:
            frames = sorted(part.path.glob(f"*{profile.part_suffix}"))
            for frame in frames:
                target = gathered / (name % (int(frame.stem) + origin))
                _link(frame, target)
                done += 1
                if progress and (done % 64 == 0 or done == total):
                    progress(done, total)
            if len(frames) != len(part.pts):
                raise _miscounted(part, str(len(frames)))
        if folder.exists():
            for frame in gathered.iterdir():
                frame.replace(folder / frame.name)
            shutil.rmtree(gathered)  # what is left was there already: two names of one file
        else:
            gathered.replace(folder)
        sync(folder.parent)
    shutil.rmtree(gathered, ignore_errors=True)


def _link(frame: Path, target: Path) -> None:
    """Give a file a second name, so that its part stays whole if the run stops here; copy it where that cannot be."""
    target.unlink(missing_ok=True)
    try:
        os.link(frame, target)
    except OSError:
        shutil.copyfile(frame, target)
