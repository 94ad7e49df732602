"""The source's other streams: which container can hold them, and how they are carried over unchanged."""

from __future__ import annotations

import io
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.container import InputContainer, OutputContainer
from av.packet import Packet
from av.stream import AttachmentStream, Discard, Disposition, Stream

from restore.errors import ConfigError
from restore.output.profiles import Profile
from restore.source.probe import Chapter, Source, open_media
from restore.storage import Place

logger = logging.getLogger(__name__)

FORMATS = {".mkv": "matroska", ".mov": "mov", ".mp4": "mp4", ".m4v": "mp4"}
"""Names of libavformat's muxers by suffix."""
_COVER = int(Disposition.attached_pic)
_PICTURES = {"mjpeg": ("jpg", "image/jpeg"), "png": ("png", "image/png")}
_CONTAINER_KEYS = frozenset({"major_brand", "minor_version", "compatible_brands", "encoder", "duration"})
"""Metadata that describe the file they were read from, not the film; the muxer writes its own."""
_STATISTICS = ("_statistics", "bps", "number_of_frames", "number_of_bytes")
"""Tags of mkvmerge that are wrong once a stream is encoded anew or cut."""
_MP4_KEYS = frozenset(
    {"title", "artist", "album_artist", "composer", "album", "date", "comment", "genre", "copyright", "grouping"}
    | {"lyrics", "description", "synopsis", "show", "episode_id", "network", "keywords", "track", "disc"}
    | {"compilation", "media_type", "creation_time"}
)
"""Metadata that MP4 holds in the form that players show. Source: libavformat, movenc.c."""


@dataclass(frozen=True, slots=True, eq=False)
class Carried:
    """What of a source, beside its film, goes into an output."""

    streams: dict[int, Stream]
    """Output streams by the index of the input stream whose packets they take."""
    left_out: tuple[str, ...] = field(default=())
    """What the container cannot hold, and a film can do without, as a person would name it."""


def is_matroska(suffix: str) -> bool:
    """Whether a suffix names a container that counts milliseconds and holds attachments."""
    return FORMATS[suffix] == "matroska"


def others(container: InputContainer, source: Source) -> list[Stream]:
    """Return the streams that are to be carried: all but the film, and but those that muxers make anew.

    These are the tracks that hold chapters, and those that hold a time code, which is in the film's metadata too.
    """
    return [
        stream
        for stream in container.streams
        if stream.index != source.stream
        and stream.discard != Discard.all
        and not (stream.type == "data" and "timecode" in stream.metadata)
    ]


def codec_of(stream: Stream) -> str:
    """Return the name of a stream's codec."""
    return stream.codec_context.name if stream.codec_context is not None else "unknown"


def check_container(source: Source, output: Path | Place, profile: Profile) -> None:
    """Make sure, before work starts, that the output's container can hold what the source has.

    Raises:
        ConfigError: The profile does not write such a file, or the container cannot hold a stream of the source.
        MediaError: The source is missing or unreadable by now.
    """
    suffix = output.suffix.lower()
    if profile.is_sequence:
        if any(stream.type in ("audio", "subtitle") for stream in source.streams):
            logger.warning("%s: numbered frames hold no sound and no subtitles; these stay in the source", source.path)
        return
    if suffix not in profile.suffixes or suffix not in FORMATS:
        raise ConfigError(f"{output}: the {profile.name} profile writes {', '.join(profile.suffixes)}")
    if source.kind == "sequence":
        return
    with open_media(source) as container:
        streams = others(container, source)
        refused = [stream for stream in streams if _needed(stream) and not _holds(suffix, stream)]
        if refused:
            raise ConfigError(_refusal(source, output, refused, streams, profile))


def _needed(stream: Stream) -> bool:
    """Whether a film is not the same without this stream; cover art and data of cameras are not needed."""
    return stream.type in ("audio", "subtitle", "attachment") or (
        stream.type == "video" and not int(stream.disposition) & _COVER
    )


def _refusal(
    source: Source, output: Path | Place, refused: list[Stream], streams: list[Stream], profile: Profile
) -> str:
    what = ", ".join(f"{stream.type} stream {stream.index} ({codec_of(stream)})" for stream in refused)
    able = [s for s in FORMATS if all(_holds(s, stream) for stream in streams if _needed(stream))]
    same = [suffix for suffix in able if suffix in profile.suffixes]
    if same:
        advice = f"write to {' or '.join(same)}"
    elif able:
        advice = f"write to {' or '.join(able)} with another profile"
    else:
        advice = "no container that is written here can; convert these streams first"
    return f"{output}: {output.suffix} cannot hold {what} of {source.path}; {advice}"


def _holds(suffix: str, stream: Stream) -> bool:
    """Try a header with this stream alone, into memory."""
    codec = codec_of(stream)
    if stream.type == "attachment":
        return is_matroska(suffix)
    if int(stream.disposition) & _COVER:
        return suffix != ".mov" and codec in _PICTURES
    if FORMATS[suffix] == "mp4" and codec.startswith("pcm_"):
        return False  # ISO/IEC 23003-5 allows it, and few players read it
    try:
        with av.open(io.BytesIO(), "w", format=FORMATS[suffix]) as trial:
            copy = trial.add_stream_from_template(stream, opaque=True)
            copy.time_base = stream.time_base
            trial.start_encoding()
    except (ValueError, av.FFmpegError):
        return False
    return True


def carry(container: InputContainer, source: Source, target: OutputContainer, suffix: str, cut: bool) -> Carried:
    """Add the source's other streams to an output whose header is not yet written.

    Args:
        container: The source, opened; cover art and attachments are read from it.
        source: What `container` is.
        target: Gets the streams, with language, disposition and metadata.
        suffix: Of the output.
        cut: Only a passage is taken, so statistics of whole streams no longer hold.
    """
    streams: dict[int, Stream] = {}
    left_out = []
    for stream in others(container, source):
        if not _holds(suffix, stream):
            left_out.append(f"{stream.type} stream {stream.index} ({codec_of(stream)})")
        elif isinstance(stream, AttachmentStream):
            _attach(target, stream, stream.data)
        elif int(stream.disposition) & _COVER and is_matroska(suffix):
            _attach(target, stream, _cover(source, stream.index))
        else:
            copy = target.add_stream_from_template(stream, opaque=True)
            copy.time_base, copy.disposition = stream.time_base, stream.disposition
            copy.metadata.update(_kept(stream.metadata, encoder=True, statistics=not cut))
            streams[stream.index] = copy
    return Carried(streams, tuple(left_out))


def _attach(target: OutputContainer, stream: Stream, data: bytes) -> None:
    ending, kind = _PICTURES.get(codec_of(stream), ("bin", "application/octet-stream"))
    name, mimetype = stream.metadata.get("filename", f"cover.{ending}"), stream.metadata.get("mimetype", kind)
    copy = target.add_attachment(name, mimetype, data)
    copy.metadata.update(stream.metadata | {"filename": name, "mimetype": mimetype})


def _cover(source: Source, index: int) -> bytes:
    """Read the one packet of an attached picture, which demuxers give first."""
    with open_media(source) as container:
        return next(bytes(packet) for packet in container.demux(container.streams[index]) if packet.size)


def film_metadata(source: Source) -> dict[str, str]:
    """Return what the source says of its film stream, without what encoding has made wrong."""
    return _kept(next(stream.metadata for stream in source.streams if stream.index == source.stream))


def _kept(metadata: dict[str, str], *, encoder: bool = False, statistics: bool = False) -> dict[str, str]:
    dropped = _CONTAINER_KEYS - {"encoder"} if encoder else _CONTAINER_KEYS
    return {
        key: value
        for key, value in metadata.items()
        if key.lower() not in dropped and (statistics or not key.lower().startswith(_STATISTICS))
    }


def describe(target: OutputContainer, source: Source, suffix: str, span: tuple[Fraction, Fraction] | None) -> None:
    """Give an output the source's metadata, and its chapters as far as they lie in a span of seconds."""
    target.metadata.update(_kept(source.metadata))
    chapters = [
        chapter if span is None else replace(chapter, start=max(span[0], chapter.start), end=min(span[1], chapter.end))
        for chapter in source.chapters
        if span is None or (chapter.start < span[1] and chapter.end > span[0])
    ]
    if not is_matroska(suffix):
        chapters = _without_gaps(chapters)
    target.set_chapters(
        [
            {
                "id": number,
                "start": round(chapter.start * 10**9),
                "end": round(chapter.end * 10**9),
                "time_base": Fraction(1, 10**9),
                "metadata": dict(chapter.metadata),
            }
            for number, chapter in enumerate(chapters, 1)
        ]
    )


def _without_gaps(chapters: Sequence[Chapter]) -> list[Chapter]:
    """Fill the gaps with chapters without a title.

    Chapters of MP4 and MOV follow one another from the start of the film; where one is missing, libav moves the
    chapter after the gap, or ends the one before it too late.
    """
    filled: list[Chapter] = []
    end = Fraction(0)
    for chapter in chapters:
        if chapter.start > end:
            filled.append(Chapter(end, chapter.start, {"title": ""}))
        filled.append(chapter)
        end = chapter.end
    return filled


def muxer_options(source: Source, suffix: str) -> dict[str, str]:
    """Return the muxer's options with which time stamps, colour and metadata survive.

    MP4 and MOV write the film in units of its track's timescale, and where each stream starts in units of the
    movie's: the source's time base divides the first, all streams' time bases the second.
    """
    if is_matroska(suffix):
        return {"avoid_negative_ts": "disabled"}  # a block may start before zero; moving all others would be wrong
    units = [stream.time_base.denominator for stream in source.streams if stream.time_base]
    movie = source.time_base.denominator
    for unit in units:
        if math.lcm(movie, unit) < 2**31:
            movie = math.lcm(movie, unit)
    options = {"video_track_timescale": str(source.time_base.denominator), "movie_timescale": str(movie)}
    covers = any(stream.disposition & _COVER for stream in source.streams)
    if not covers and {key.lower() for key in _kept(source.metadata)} - _MP4_KEYS:
        options["movflags"] = "+use_metadata_tags"  # any key, in the form that fewer players show; no cover art
    return options


def starts(packet: Packet[Any]) -> Fraction | None:
    """Return the decoding time of a packet in seconds, None if it has no time."""
    stamp = packet.dts if packet.dts is not None else packet.pts
    return None if stamp is None else stamp * packet.time_base


def overlaps(packet: Packet[Any], span: tuple[Fraction, Fraction]) -> bool:
    """Whether a packet is heard or seen within a span of seconds."""
    stamp = packet.pts if packet.pts is not None else packet.dts
    if stamp is None:
        return True
    start = stamp * packet.time_base
    return start < span[1] and start + (packet.duration or 1) * packet.time_base > span[0]
