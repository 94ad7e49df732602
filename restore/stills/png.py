"""PNG: samples by libpng, chunks as they are. Source: W3C PNG (Third Edition), 5.3 and 11.3."""

from __future__ import annotations

import logging
import struct
import zlib
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np

from restore.errors import MediaError
from restore.stills.exif import orientation_of
from restore.stills.still import Metadata, Picture, Resolution

_log = logging.getLogger(__name__)

SIGNATURE = b"\x89PNG\r\n\x1a\n"
COLOR_CHUNKS = frozenset({b"gAMA", b"cHRM", b"sRGB", b"cICP"})
_TEXT_CHUNKS = frozenset({b"tEXt", b"zTXt", b"iTXt"})
_XMP = b"XML:com.adobe.xmp"
_LEGACY_EXIF = (b"Raw profile type exif", b"Raw profile type APP1")
"""Keywords under which ImageMagick wrote EXIF in hexadecimal before PNG had a chunk for it."""


def size_of(path: Path) -> tuple[int, int]:
    """Return width and height from the header."""
    with path.open("rb") as file:
        head = file.read(24)
    width, height = struct.unpack(">II", head[16:24])
    return width, height


def read(path: Path) -> Picture:
    """Read a PNG of any colour type; 1, 2 and 4 bits become 8, a palette RGB, and tRNS alpha.

    Raises:
        MediaError: It is animated.
    """
    data = path.read_bytes()
    chunks = list(_chunks(data))
    if any(name == b"acTL" and struct.unpack(">I", body[:4])[0] > 1 for name, body in chunks):
        raise MediaError("is an animated PNG, not a still; give its frames as separate files", str(path))
    samples = imagecodecs.png_decode(data)
    alpha = None
    if samples.ndim == 3 and samples.shape[2] in (2, 4):
        samples, alpha = samples[..., :-1], np.ascontiguousarray(samples[..., -1])
    pixels = np.ascontiguousarray(samples[..., 0] if samples.shape[2:] == (1,) else samples)
    metadata = _metadata(chunks)
    return Picture(pixels, 8 * samples.itemsize, alpha, metadata=metadata, orientation=orientation_of(metadata.exif))


def write(path: Path, picture: Picture) -> None:
    """Write a PNG; the chunks come right after the header."""
    samples: Any = picture.pixels
    if picture.alpha is not None:
        samples = np.dstack((samples, picture.alpha))
    data = imagecodecs.png_encode(samples, level=6)
    head = len(SIGNATURE) + 25
    with path.open("wb") as file:
        file.write(data[:head])
        for name, body in _chunks_of(picture.metadata):
            file.write(_chunk(name, body))
        file.write(memoryview(data)[head:])


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield type and contents of every chunk but the samples'."""
    at = len(SIGNATURE)
    while at + 12 <= len(data):
        length, name = struct.unpack(">I4s", data[at : at + 8])
        body = data[at + 8 : at + 8 + length] if name != b"IDAT" else b""
        if name != b"IDAT":
            if data[at + 8 + length : at + 12 + length] == struct.pack(">I", zlib.crc32(name + body)):
                yield name, body
            else:
                _log.warning("the PNG chunk %s is damaged and is left out", name.decode("latin-1"))
        at += 12 + length


def _metadata(chunks: list[tuple[bytes, bytes]]) -> Metadata:
    found, kept = Metadata(), []
    for name, body in chunks:
        keyword = body.partition(b"\0")[0]
        if name == b"iCCP":
            found = replace(found, icc=zlib.decompress(body[len(keyword) + 2 :]))
        elif name == b"eXIf":
            found = replace(found, exif=body)
        elif name == b"pHYs":
            found = replace(found, resolution=_resolution(body))
        elif name == b"iTXt" and keyword == _XMP:
            found = replace(found, xmp=_international(body))
        elif name in (b"zTXt", b"tEXt") and keyword in _LEGACY_EXIF and found.exif is None:
            found = replace(found, exif=_legacy_exif(name, body))
        elif name in _TEXT_CHUNKS or name in COLOR_CHUNKS:
            kept.append((name, body))
    return replace(found, chunks=tuple(kept))


def _international(body: bytes) -> bytes:
    """Return the text of an iTXt chunk: keyword, compression flag and method, language, translated keyword, text."""
    _, rest = body.split(b"\0", 1)
    _, _, text = rest[2:].split(b"\0", 2)
    return zlib.decompress(text) if rest[0] else text


def _legacy_exif(name: bytes, body: bytes) -> bytes:
    """Return EXIF from a text of name, length and hexadecimal lines."""
    text = body.split(b"\0", 1)[1]
    if name == b"zTXt":
        text = zlib.decompress(text[1:])
    return bytes.fromhex(b"".join(text.split()[2:]).decode("ascii")).removeprefix(b"Exif\0\0")


def _resolution(body: bytes) -> Resolution | None:
    x, y, metres = struct.unpack(">IIB", body)
    if not x or not y:
        return None
    return (
        Resolution(Fraction(x, 100), Fraction(y, 100), "cm") if metres else Resolution(Fraction(x), Fraction(y), "none")
    )


def _chunks_of(metadata: Metadata) -> Iterator[tuple[bytes, bytes]]:
    yield from (chunk for chunk in metadata.chunks if chunk[0] in COLOR_CHUNKS)
    if metadata.icc is not None:
        yield b"iCCP", b"ICC profile\0\0" + zlib.compress(metadata.icc, 9)
    if metadata.resolution is not None:
        scale = 1 if metadata.resolution.unit == "none" else 100
        x, y = (round(side * scale) for side in metadata.resolution.per_cm())
        yield b"pHYs", struct.pack(">IIB", x, y, scale == 100)
    if metadata.exif is not None:
        yield b"eXIf", metadata.exif
    if metadata.xmp is not None:
        yield b"iTXt", _XMP + b"\0\0\0\0\0" + metadata.xmp
    yield from (chunk for chunk in metadata.chunks if chunk[0] not in COLOR_CHUNKS)


def _chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
