"""Which files are stills: formats by suffix and by how a file begins, and the stills of a folder."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from restore.errors import ConfigError, MediaError
from restore.stills.still import Format

_log = logging.getLogger(__name__)

SUFFIXES: dict[str, Format] = {
    ".tif": "tiff",
    ".tiff": "tiff",
    ".png": "png",
    ".jpg": "jpeg",
    ".jpeg": "jpeg",
    ".jpe": "jpeg",
    ".jfif": "jpeg",
    ".webp": "webp",
    ".dpx": "dpx",
}
_MAGIC: tuple[tuple[bytes, Format], ...] = (
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"\xff\xd8\xff", "jpeg"),
    (b"SDPX", "dpx"),
    (b"XPDS", "dpx"),
    (b"II*\0", "tiff"),
    (b"MM\0*", "tiff"),
    (b"II+\0", "tiff"),
    (b"MM\0+", "tiff"),
)
_OTHERS: tuple[tuple[int, bytes, str], ...] = (
    (0, b"GIF8", "a GIF"),
    (0, b"BM", "a BMP"),
    (0, b"8BPS", "a Photoshop document"),
    (0, b"\0\0\0\x0cjP", "a JPEG 2000"),
    (0, b"\xffO\xffQ", "a JPEG 2000"),
    (0, b"\xff\x0a", "a JPEG XL"),
    (4, b"JXL ", "a JPEG XL"),
    (4, b"ftyphei", "a HEIF"),
    (4, b"ftypmif1", "a HEIF"),
    (4, b"ftypavif", "an AVIF"),
    (0, b"v/1\x01", "an OpenEXR"),
    (0, b"#?RADIANCE", "a Radiance HDR"),
    (0, b"%PDF", "a PDF"),
)
_OTHER_SUFFIXES = frozenset(
    {".gif", ".bmp", ".psd", ".psb", ".jp2", ".j2k", ".jxl", ".heic", ".heif", ".avif", ".exr", ".hdr", ".tga"}
) | {".dng", ".nef", ".cr2", ".cr3", ".arw", ".raf", ".orf", ".rw2"}
"""Pictures that are no stills of ours; a folder that holds some is told about."""
_KNOWN = "TIFF, PNG, JPEG, WebP or DPX"


def is_still(path: str | os.PathLike[str]) -> bool:
    """Tell whether a file is a still, by its suffix, or without a known one by how it begins.

    A damaged file with a still's suffix is one, so that it is tried and named. TIFF's beginning alone is not
    enough for a foreign suffix, because cameras' raw files begin so.
    """
    path = Path(path)
    if not path.is_file():
        return False
    suffix = path.suffix.lower()
    if suffix in SUFFIXES:
        return True
    try:
        with path.open("rb") as file:
            kind = _format_of(file.read(16))
    except OSError:
        return False
    return kind is not None and (kind != "tiff" or not suffix)


def find_stills(folder: str | os.PathLike[str]) -> list[Path]:
    """Return the stills in a folder and the folders below it, sorted; hidden files and folders are left out."""
    folder = Path(folder)
    files = [path for path in sorted(folder.rglob("*")) if not _hidden(path.relative_to(folder))]
    others = [path.name for path in files if path.suffix.lower() in _OTHER_SUFFIXES]
    if others:
        _log.warning("%s: left out %d pictures that are not %s, e.g. %s", folder, len(others), _KNOWN, others[0])
    return [path for path in files if path.suffix.lower() not in _OTHER_SUFFIXES and is_still(path)]


def format_to_write(path: Path) -> Format:
    """Return the format that a suffix names, or raise `ConfigError` naming the known ones."""
    form = SUFFIXES.get(path.suffix.lower())
    if form is None:
        known = " ".join(SUFFIXES)
        raise ConfigError(f"{path}: {path.suffix or 'no suffix'} is not a still's suffix; known: {known}")
    return form


def format_of_file(path: Path) -> Format:
    """Return the format by content, or raise `MediaError` naming what the file is."""
    try:
        with path.open("rb") as file:
            head = file.read(16)
    except OSError as error:
        raise MediaError(f"cannot be read: {error.strerror}", str(path)) from error
    if not head:
        raise MediaError("is empty", str(path))
    form = _format_of(head)
    if form is None:
        kind = next((name for start, magic, name in _OTHERS if head[start:].startswith(magic)), None)
        if kind is None:
            raise MediaError(f"is not a picture; expected {_KNOWN}", str(path))
        raise MediaError(f"is {kind} file; convert it to {_KNOWN} first", str(path))
    return form


def _format_of(head: bytes) -> Format | None:
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "webp"
    return next((form for magic, form in _MAGIC if head.startswith(magic)), None)


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)
