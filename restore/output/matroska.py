"""The shape of pixels in a Matroska header, which the muxer takes from a place that PyAV does not reach.

Source: RFC 9559 (Matroska), RFC 8794 (EBML).
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from restore.errors import MediaError

_SEGMENT, _SEEK_HEAD, _SEEK, _INFO = b"\x18\x53\x80\x67", b"\x11\x4d\x9b\x74", b"\x4d\xbb", b"\x15\x49\xa9\x66"
_SEEK_ID, _SEEK_POSITION, _VOID, _CRC = b"\x53\xab", b"\x53\xac", b"\xec", b"\xbf"
_TRACKS, _TRACK, _TRACK_NUMBER, _VIDEO = b"\x16\x54\xae\x6b", b"\xae", b"\xd7", b"\xe0"
_DISPLAY_WIDTH, _DISPLAY_HEIGHT, _DISPLAY_UNIT = b"\x54\xb0", b"\x54\xba", b"\x54\xb2"
_ASPECT_RATIO = 3
"""Display unit: width and height are a ratio, not pixels. Source: RFC 9559, 5.1.4.1.28.14."""
_HEAD = 1 << 22
"""Bytes of a file in which the header must end."""


@dataclass(frozen=True, slots=True)
class _Element:
    """An EBML element with a known size."""

    name: bytes
    start: int
    """Where its name begins."""
    body: int
    end: int


def set_pixel_shape(path: Path, track: int, size: tuple[int, int], ratio: Fraction) -> None:
    """Write the display size of a video track into a finished file.

    The header grows into the padding that the muxer leaves before it, so that nothing behind it moves.

    Args:
        path: A file that libavformat's muxer has written.
        track: Number of the track, from 1.
        size: Width and height of the coded picture.
        ratio: Width of a pixel divided by its height.

    Raises:
        MediaError: The header is not laid out as the muxer does it.
    """
    with path.open("r+b") as file:
        data = file.read(_HEAD)
        try:
            start, changed = _changed(data, track, _display(size, ratio))
        except (ValueError, IndexError, StopIteration) as error:
            raise MediaError(
                f"the shape of its pixels cannot be written into its header ({error})", str(path)
            ) from error
        file.seek(start)
        file.write(changed)


def _display(size: tuple[int, int], ratio: Fraction) -> bytes:
    """Return the elements of a display size: in pixels if it is whole, else as a ratio."""
    width, height = size[0] * ratio, Fraction(size[1])
    unit = b""
    if width.denominator != 1:
        common = math.gcd(size[0] * ratio.numerator, size[1] * ratio.denominator)
        width, height = Fraction(size[0] * ratio.numerator, common), Fraction(size[1] * ratio.denominator, common)
        unit = _element(_DISPLAY_UNIT, bytes([_ASPECT_RATIO]))
    return _element(_DISPLAY_WIDTH, _integer(int(width))) + _element(_DISPLAY_HEIGHT, _integer(int(height))) + unit


def _changed(data: bytes, track: int, display: bytes) -> tuple[int, bytes]:
    """Return a new stretch of the header, as long as the old one, and where it begins."""
    segment = next(element for element in _elements(data, 0, len(data)) if element.name == _SEGMENT)
    found = {}
    for element in _elements(data, segment.body, len(data)):
        found[element.name] = element
        if element.name == _TRACKS:
            break
    seek, void, info, tracks = (found[name] for name in (_SEEK_HEAD, _VOID, _INFO, _TRACKS))
    if not (seek.end == void.start and void.end == info.start and info.end == tracks.start):
        raise ValueError("an unknown layout")
    grown = _element(_TRACKS, _with_crc(_tracks(data, tracks, track, display)))
    more = len(grown) - (tracks.end - tracks.start)
    moved = {_INFO: info.start - segment.body - more, _TRACKS: tracks.start - segment.body - more}
    index = _element(_SEEK_HEAD, _with_crc(_index(data, seek, moved)), seek.body - seek.start - len(_SEEK_HEAD))
    padding = void.end - void.start - more - (len(index) - (seek.end - seek.start))
    if padding < 9:
        raise ValueError("too little padding")
    filler = _element(_VOID, bytes(padding - 9), 8)
    return seek.start, index + filler + data[info.start : info.end] + grown


def _index(data: bytes, seek: _Element, moved: dict[bytes, int]) -> bytes:
    """Return the body of a seek head with some positions changed, in as many bytes as they had."""
    entries = []
    for entry in _elements(data, seek.body, seek.end):
        if entry.name == _CRC:
            continue
        parts = {part.name: data[part.body : part.end] for part in _elements(data, entry.body, entry.end)}
        if (position := moved.get(parts[_SEEK_ID])) is not None:
            parts[_SEEK_POSITION] = position.to_bytes(len(parts[_SEEK_POSITION]))
        entries.append(_element(_SEEK, b"".join(_element(name, body) for name, body in parts.items())))
    return b"".join(entries)


def _tracks(data: bytes, tracks: _Element, track: int, display: bytes) -> bytes:
    """Return the body of the tracks, where one track has another display size."""
    body = b""
    for entry in _elements(data, tracks.body, tracks.end):
        if entry.name == _CRC:
            continue
        parts = list(_elements(data, entry.body, entry.end))
        numbers = [data[part.body : part.end] for part in parts if part.name == _TRACK_NUMBER]
        if entry.name != _TRACK or int.from_bytes(numbers[0]) != track:
            body += data[entry.start : entry.end]
            continue
        video = next(part for part in parts if part.name == _VIDEO)
        kept = [
            data[part.start : part.end]
            for part in _elements(data, video.body, video.end)
            if part.name not in (_DISPLAY_WIDTH, _DISPLAY_HEIGHT, _DISPLAY_UNIT)
        ]
        changed = _element(_VIDEO, b"".join(kept) + display)
        body += _element(_TRACK, data[entry.body : video.start] + changed + data[video.end : entry.end])
    return body


def _elements(data: bytes, position: int, end: int) -> Iterator[_Element]:
    while position < end:
        name = data[position : position + _length(data[position])]
        first = data[position + len(name)]
        width = _length(first)
        size = int.from_bytes(data[position + len(name) : position + len(name) + width]) & ((1 << 7 * width) - 1)
        body = position + len(name) + width
        yield _Element(name, position, body, body + size)
        position = body + size


def _length(first: int) -> int:
    """Return how many bytes a variable-size integer has, from its first one. Source: RFC 8794, 4."""
    return 9 - first.bit_length()


def _element(name: bytes, body: bytes, width: int = 0) -> bytes:
    width = width or next(bytes_ for bytes_ in range(1, 9) if len(body) < (1 << 7 * bytes_) - 1)
    return name + ((1 << 7 * width) | len(body)).to_bytes(width) + body


def _integer(value: int) -> bytes:
    return value.to_bytes(max(1, (value.bit_length() + 7) // 8))


def _with_crc(body: bytes) -> bytes:
    """Put the checksum before the body of an element. Source: RFC 8794, 11.3.1."""
    return _element(_CRC, zlib.crc32(body).to_bytes(4, "little")) + body
