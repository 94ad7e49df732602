"""Photographs in folders and tar files: found, and decoded, without a copy on disk."""

from __future__ import annotations

import hashlib
import io
import os
import struct
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from restore.errors import MediaError

Picture = NDArray[np.uint8]
"""R'G'B' code values, shape (H, W, 3)."""

BROKEN = (
    OSError, SyntaxError, ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, EOFError,
    struct.error, zlib.error, Image.DecompressionBombError,
)  # fmt: skip
"""What Pillow raises at damaged pictures."""

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff")

_ORIENTATION = 0x0112


@dataclass(frozen=True, slots=True)
class Photo:
    """Where the bytes of one picture lie."""

    path: Path
    """A tar file, or the folder that was searched or that the picture is in."""
    offset: int | None
    """Of the bytes in the tar file; None for a picture in a file of its own."""
    length: int
    """In bytes."""
    name: str
    """In the tar file, or below the folder."""

    def __str__(self) -> str:
        return f"{self.path}: {self.name}" if self.offset is not None else str(self.path / self.name)

    def read(self) -> bytes:
        """Return the encoded picture.

        Raises:
            OSError: The file is gone or cannot be read.
        """
        if self.offset is None:
            return (self.path / self.name).read_bytes()
        with self.path.open("rb") as file:
            file.seek(self.offset)
            return file.read(self.length)


def find(*sources: Path) -> list[Photo]:
    """List the pictures in each source, in order of name.

    Args:
        sources: Folders, searched with their sub-folders and the tar files in them; tar files; and pictures. Tar files
            in a tar file are read too: ImageNet is published so.

    Raises:
        MediaError: A source does not exist or holds no pictures, or a tar file is damaged or compressed.
    """
    photos: list[Photo] = []
    for source in sources:
        if not source.exists():
            raise MediaError("does not exist; name a folder or a tar file of photographs, or a photograph", str(source))
        found = list(_files(source)) if source.is_dir() else _pictures(source, source.parent)
        if not found:
            raise MediaError(f"holds no pictures ({', '.join(SUFFIXES)}) and no tar files of them", str(source))
        photos += found
    return photos


def _files(folder: Path) -> Iterator[Photo]:
    """Give the pictures below a folder; links to folders are not followed, for they may run in circles."""
    for entry in _entries(folder):
        if Path(entry.name).suffix.lower() in (".tar", *SUFFIXES) and entry.is_file():
            yield from _pictures(Path(entry.path), folder)


def _pictures(path: Path, folder: Path) -> list[Photo]:
    """List the picture that a file is, or those in a tar file."""
    if path.suffix.lower() not in SUFFIXES:
        return _members(path)
    return [Photo(folder, None, path.stat().st_size, path.relative_to(folder).as_posix())]


def _entries(folder: str | Path) -> Iterator[os.DirEntry[str]]:
    with os.scandir(folder) as found:
        entries = sorted(found, key=lambda entry: entry.name)
    for entry in entries:
        if entry.name.startswith("."):
            continue  # macOS leaves ._x.jpg beside x.jpg
        if entry.is_dir(follow_symlinks=False):
            yield from _entries(entry.path)
        else:
            yield entry


def _members(path: Path) -> list[Photo]:
    try:
        with path.open("rb") as file:
            return list(_walk(path, file, ""))
    except (tarfile.TarError, OSError) as error:
        raise MediaError(f"cannot be read as an uncompressed tar file: {error}", str(path)) from error


def _walk(path: Path, file: BinaryIO, prefix: str) -> Iterator[Photo]:
    """Give the pictures of the tar file that begins where `file` stands."""
    with tarfile.open(fileobj=file, mode="r:") as tar:
        while (member := tar.next()) is not None:
            tar.members = []  # type: ignore[attr-defined]  # else it keeps a kilobyte about each
            after = file.tell()
            suffix, name = Path(member.name).suffix.lower(), prefix + member.name
            if member.isfile() and suffix in SUFFIXES and not Path(name).name.startswith("."):
                yield Photo(path, member.offset_data, member.size, name)
            elif member.isfile() and suffix == ".tar":
                file.seek(member.offset_data)
                yield from _walk(path, file, f"{name}/")
                file.seek(after)


def fingerprint(photos: list[Photo]) -> str:
    """Return a SHA-256 of the names and lengths of the pictures."""
    lines = "\n".join(f"{photo.name} {photo.length}" for photo in photos)
    return hashlib.sha256(lines.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Opened:
    """A picture of which only the header has been read."""

    image: Image.Image
    width: int
    """Of the upright picture."""
    height: int
    """Of the upright picture."""

    @classmethod
    def of(cls, photo: Photo) -> Opened | None:
        """Read the header; None if the picture is broken or of 32 bits a sample, whose range is not known."""
        try:
            image = Image.open(io.BytesIO(photo.read()))
            lying = image.getexif().get(_ORIENTATION, 1) >= 5
        except BROKEN:
            return None
        if image.mode in ("I", "F"):
            return None
        return cls(image, *(image.size[::-1] if lying else image.size))

    def pixels(self, reduced: int = 1) -> Picture | None:
        """Decode and return R'G'B', upright, shape (H, W, 3), or None if the picture is broken.

        Args:
            reduced: Shrink a JPEG by 1, 2, 4 or 8 while it is decoded, which is faster; others keep their size.
        """
        width, height = self.image.size
        try:
            self.image.draft("RGB", (width // reduced, height // reduced))
            whole = ImageOps.exif_transpose(self.image)
            if whole.mode.startswith("I;16"):
                whole = Image.fromarray((np.asarray(whole) >> 8).astype(np.uint8))
            rgb = whole.convert("RGBA" if whole.mode == "P" else "RGB").convert("RGB")
        except BROKEN:
            return None
        return np.asarray(rgb, np.uint8)


def decode(photo: Photo) -> Picture | None:
    """Return R'G'B', upright, shape (H, W, 3), or None if the picture is broken."""
    opened = Opened.of(photo)
    return opened.pixels() if opened is not None else None
