"""EXIF and TIFF tags: reading image file directories, turning orientation off, and moving tags between files.

Source: TIFF 6.0, section 2; BigTIFF's wider fields; EXIF 2.32, 4.6.
"""

from __future__ import annotations

import io
import logging
import re
import struct
from dataclasses import dataclass
from fractions import Fraction
from typing import BinaryIO, Literal

from restore.stills.still import Resolution

_log = logging.getLogger(__name__)

_WIDTH = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
"""Bytes of one value, by field type."""
SHORT, LONG, UNDEFINED, BYTE = 3, 4, 7, 1
ORIENTATION, X_RESOLUTION, Y_RESOLUTION, RESOLUTION_UNIT = 274, 282, 283, 296
_EXIF, _GPS, _INTEROPERABILITY = 34665, 34853, 40965
_POINTERS = frozenset({_EXIF, _GPS, _INTEROPERABILITY})
_SIDES = {256: 0, 257: 1, 40962: 0, 40963: 1}
"""Tags that repeat the picture's width (0) or height (1)."""
DESCRIPTIVE = frozenset({269, 270, 271, 272, 285, 297, 305, 306, 315, 316, 18246, 33432, *range(40091, 40096)}) | {
    _EXIF,
    _GPS,
}
"""Tags of a TIFF directory that tell about the photograph and not about how its samples are stored."""
_UNITS: dict[int, Literal["inch", "cm", "none"]] = {1: "none", 2: "inch", 3: "cm"}


@dataclass(frozen=True, slots=True)
class Layout:
    """Byte order and field widths of a TIFF structure."""

    order: Literal["<", ">"]
    big: bool = False
    """BigTIFF."""

    def pack(self, code: str, *values: int) -> bytes:
        return struct.pack(self.order + code, *values)

    def unpack(self, code: str, data: bytes) -> tuple[int, ...]:
        return struct.unpack(self.order + code, data)

    @property
    def word(self) -> str:
        """Code of an offset or a count."""
        return "Q" if self.big else "I"

    @property
    def size(self) -> int:
        """Bytes of an offset or a count."""
        return 8 if self.big else 4


@dataclass(frozen=True, slots=True)
class Tag:
    """One field: its type and its values as bytes in the file's byte order."""

    kind: int
    data: bytes
    at: int = 0
    """Where the bytes lie in the file."""


Directory = dict[int, "Tag | Directory"]


def layout_of(stream: BinaryIO) -> tuple[Layout, int]:
    """Return the layout of a TIFF structure and the offset of its first directory.

    Raises:
        ValueError: It does not begin with a TIFF header.
    """
    stream.seek(0)
    head = stream.read(16)
    if head[:2] not in (b"II", b"MM"):
        raise ValueError(f"no TIFF header, found {head[:4]!r}")
    layout = Layout("<" if head[:2] == b"II" else ">")
    if layout.unpack("H", head[2:4])[0] == 43:
        layout = Layout(layout.order, big=True)
        return layout, layout.unpack("Q", head[8:16])[0]
    return layout, layout.unpack("I", head[4:8])[0]


def read_directory(stream: BinaryIO, layout: Layout, offset: int) -> tuple[Directory, int]:
    """Read a directory with the EXIF, GPS and interoperability directories in it.

    Returns:
        The directory, and where the offset of the next directory is written.

    A field that cannot be read is left out, and that is logged.

    Raises:
        struct.error: The table of fields is cut off.
    """
    stream.seek(offset)
    (count,) = layout.unpack("Q" if layout.big else "H", stream.read(8 if layout.big else 2))
    start, width = stream.tell(), 4 + 2 * layout.size
    table = stream.read(count * width)
    found: Directory = {}
    for index in range(count):
        entry = table[index * width : (index + 1) * width]
        tag, kind, number = layout.unpack(f"HH{layout.word}", entry[: 4 + layout.size])
        try:
            field = _read_field(stream, layout, entry, start + index * width + 4 + layout.size)
            if tag in _POINTERS:
                target = layout.unpack({4: "I", 8: "Q"}[len(field.data)], field.data)[0]
                found[tag] = read_directory(stream, layout, target)[0]
            else:
                found[tag] = field
        except (struct.error, ValueError, KeyError, OverflowError, RecursionError) as error:
            _log.warning("tag %d (type %d, %d values) cannot be read and is left out: %s", tag, kind, number, error)
    return found, start + count * width


def _read_field(stream: BinaryIO, layout: Layout, entry: bytes, at: int) -> Tag:
    """Return a field from its entry, whose last part lies at `at` and holds the values or points to them."""
    _, kind, number = layout.unpack(f"HH{layout.word}", entry[: 4 + layout.size])
    if kind not in _WIDTH:
        raise ValueError("unknown type")
    length = number * _WIDTH[kind]
    if length > layout.size:
        (at,) = layout.unpack(layout.word, entry[-layout.size :])
    stream.seek(at)
    data = stream.read(length)
    if len(data) != length:
        raise ValueError("it reaches past the end")
    return Tag(kind, data, at)


def pack_directory(directory: Directory, layout: Layout, offset: int) -> bytes:
    """Write a directory, its values and its sub-directories as bytes that will lie at an even `offset`."""
    at = offset + (8 if layout.big else 2) + len(directory) * (4 + 2 * layout.size) + layout.size
    table, values = layout.pack("Q" if layout.big else "H", len(directory)), b""
    for tag, field in sorted(directory.items()):
        if isinstance(field, dict):
            kind, data = (16 if layout.big else LONG), layout.pack(layout.word, at + len(values))
            values += pack_directory(field, layout, at + len(values))
        else:
            kind, data = field.kind, field.data
        number = len(data) // _WIDTH[kind]
        if len(data) > layout.size:
            data, far = layout.pack(layout.word, at + len(values)), data
            values += far + b"\0" * (len(far) % 2)
        table += layout.pack(f"HH{layout.word}", tag, kind, number) + data.ljust(layout.size, b"\0")
    return table + bytes(layout.size) + values


def exif_of_tiff(stream: BinaryIO) -> bytes | None:
    """Return what a TIFF file tells about its photograph as an EXIF block; None if it tells nothing."""
    layout, offset = layout_of(stream)
    directory, _ = read_directory(stream, layout, offset)
    told = {tag: field for tag, field in directory.items() if tag in DESCRIPTIVE}
    if not told:
        return None
    small = Layout(layout.order)
    head = (b"II" if layout.order == "<" else b"MM") + small.pack("HI", 42, 8)
    return head + pack_directory(told, small, 8)


def directory_of(exif: bytes | None) -> tuple[Layout, Directory] | None:
    """Return the first directory of an EXIF block; None if there is none that can be read."""
    if exif is None:
        return None
    stream = io.BytesIO(exif)
    try:
        layout, offset = layout_of(stream)
        return layout, read_directory(stream, layout, offset)[0]
    except (struct.error, ValueError):
        return None


def orientation_of(exif: bytes | None) -> int:
    """Return the orientation, 1 to 8, that an EXIF block gives; 1 if it gives none or cannot be read."""
    directory = directory_of(exif)
    if directory is None:
        return 1
    layout, tags = directory
    value = _number(layout, tags.get(ORIENTATION))
    return value if value is not None and 1 <= value <= 8 else 1


def resolution_of(exif: bytes | None) -> Resolution | None:
    """Return the resolution that an EXIF block gives."""
    directory = directory_of(exif)
    if directory is None:
        return None
    layout, tags = directory
    sides = [tags.get(tag) for tag in (X_RESOLUTION, Y_RESOLUTION)]
    ratios = [layout.unpack("II", tag.data) for tag in sides if isinstance(tag, Tag) and len(tag.data) == 8]
    unit = _UNITS.get(_number(layout, tags.get(RESOLUTION_UNIT)) or 2, "none")
    if len(ratios) != 2 or any(0 in ratio for ratio in ratios):
        return None
    return Resolution(Fraction(*ratios[0]), Fraction(*ratios[1]), unit)


def reset(exif: bytes, width: int, height: int) -> bytes:
    """Make an EXIF block fit its upright picture, changing no other byte.

    The orientation becomes 1, repeated picture sizes become the true ones, and the thumbnail is left out: it
    would lie on its side, and it shows the picture without its colours. Offsets stay as they are, because maker
    notes depend on them.

    Args:
        exif: From its TIFF header on; returned as it is if it cannot be read.
        width: Of the upright picture.
        height: Of the upright picture.
    """
    directory = directory_of(exif)
    if directory is None:
        _log.warning("the EXIF block is damaged and is carried as it is")
        return exif
    layout, tags = directory
    block, sides = bytearray(exif), (width, height)
    inner = tags.get(_EXIF)
    for tag, field in [*tags.items(), *(inner.items() if isinstance(inner, dict) else ())]:
        value = 1 if tag == ORIENTATION else sides[_SIDES[tag]] if tag in _SIDES else None
        if value is not None and isinstance(field, Tag) and len(field.data) == _WIDTH[field.kind]:
            code = {SHORT: "H", LONG: "I"}.get(field.kind)
            if code is not None and value < 256 ** len(field.data):
                block[field.at : field.at + len(field.data)] = layout.pack(code, value)
    return _without_thumbnail(block, layout, tags)


def _without_thumbnail(block: bytearray, layout: Layout, tags: Directory) -> bytes:
    stream = io.BytesIO(block)
    _, link = read_directory(stream, layout, layout_of(stream)[1])
    (following,) = layout.unpack("I", bytes(block[link : link + 4]).ljust(4, b"\0"))
    block[link : link + 4] = bytes(4)
    if following and following >= max(_end(tags), link + 4):
        del block[following:]
    return bytes(block)


def _end(directory: Directory) -> int:
    """Return where the last value of a directory ends; a sub-directory's own table lies before its values."""
    ends = [_end(field) if isinstance(field, dict) else field.at + len(field.data) for field in directory.values()]
    return max(ends, default=0)


def xmp_reset(xmp: bytes) -> bytes:
    """Set the orientation that an XMP packet repeats to 1; its length stays the same."""
    return re.sub(rb"(tiff:Orientation(?:\s*=\s*[\"']|>\s*))[2-8]", rb"\g<1>1", xmp)


def append_tags(stream: BinaryIO, extra: Directory) -> None:
    """Add tags to the first directory of a TIFF file, by a new directory at the end of the file.

    Args:
        stream: Open for reading and writing.
        extra: Tags in the file's byte order.
    """
    layout, offset = layout_of(stream)
    directory, _ = read_directory(stream, layout, offset)
    end = stream.seek(0, io.SEEK_END)
    stream.write(b"\0" * (end % 2))
    end += end % 2
    stream.write(pack_directory({**directory, **extra}, layout, end))
    stream.seek(8 if layout.big else 4)
    stream.write(layout.pack(layout.word, end))


def _number(layout: Layout, field: Tag | Directory | None) -> int | None:
    if not isinstance(field, Tag) or field.kind not in (SHORT, LONG) or not field.data:
        return None
    return layout.unpack("H" if field.kind == SHORT else "I", field.data[: _WIDTH[field.kind]])[0]
