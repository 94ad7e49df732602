"""Sets of photographs to judge by: folders, tar files and single files, read one picture at a time."""

from __future__ import annotations

import csv
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import cv2
import numpy as np
from numpy.typing import NDArray

from restore.errors import ConfigError, MediaError

Picture = NDArray[np.uint8]
"""R'G'B' code values, shape (H, W, 3)."""
SIDE = 256
"""Side at which photographs and frames are judged; aspect ignored, as in the published comparisons."""
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff")
CLASSES = 1000
"""Of ImageNet."""


@dataclass(frozen=True, slots=True)
class Photo:
    """Where one photograph lies."""

    path: Path
    """The file, or the tar file that it is in."""
    name: str
    """Its path inside the folder or the tar file that the user named."""
    offset: int = 0
    length: int = -1
    """Bytes of the picture from `offset` on; -1 for all."""

    @property
    def folder(self) -> str:
        """The name of the folder that it is in, "" if that is not known."""
        return PurePosixPath(self.name).parent.name or ("" if self.offset else self.path.parent.name)

    def read(self) -> Picture | None:
        """Return it upright as R'G'B' at the size of judging, shape (256, 256, 3), or None if it is broken."""
        with self.path.open("rb") as file:
            file.seek(self.offset)
            data = np.frombuffer(file.read(self.length), np.uint8)
        try:
            picture = cv2.imdecode(data, cv2.IMREAD_COLOR_RGB) if data.size else None
        except cv2.error:  # a header that claims an absurd size
            picture = None
        return None if picture is None else square(np.asarray(picture, np.uint8))


def square(picture: Picture) -> Picture:
    """Resize (H, W, 3) to the size of judging, whatever its aspect."""
    how = cv2.INTER_AREA if min(picture.shape[:2]) >= SIDE else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(picture, (SIDE, SIDE), interpolation=how), np.uint8)


def is_photos(source: Path) -> bool:
    """Say whether a source is photographs (a folder, a tar file, a picture) and not a film."""
    return source.is_dir() or source.suffix.lower() in (".tar", *SUFFIXES)


def find(sources: Sequence[Path]) -> list[Photo]:
    """List the photographs in folders and in tar files, those in each source in order of name.

    Raises:
        MediaError: A source does not exist or holds no pictures, or a tar file is damaged.
    """
    photos: list[Photo] = []
    for source in sources:
        if not source.exists():
            raise MediaError("does not exist; name a folder, a tar file, a picture or a film", str(source))
        found = list(_in_folder(source)) if source.is_dir() else list(_in_file(source, source.name))
        if not found:
            raise MediaError(f"holds no pictures ({', '.join(SUFFIXES)}) and no tar files of them", str(source))
        photos += found
    return photos


def _in_folder(folder: Path) -> Iterator[Photo]:
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.suffix.lower() in (".tar", *SUFFIXES):
            yield from _in_file(path, path.relative_to(folder).as_posix())


def _in_file(path: Path, name: str) -> Iterator[Photo]:
    if path.suffix.lower() != ".tar":
        yield Photo(path, name)
        return
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                if member.isfile() and PurePosixPath(member.name).suffix.lower() in SUFFIXES:
                    yield Photo(path, member.name, member.offset_data, member.size)
    except (tarfile.TarError, OSError) as error:
        raise MediaError(f"cannot be read as an uncompressed tar file: {error}", str(path)) from error


def pick(photos: Sequence[Photo], limit: int | None) -> list[Photo]:
    """Return at most `limit` photographs, spread evenly over all; the same ones every time."""
    if limit is None or limit >= len(photos):
        return list(photos)
    return [photos[place * len(photos) // limit] for place in range(limit)]


def labels(photos: Sequence[Photo], table: Path | None = None) -> dict[str, int]:
    """Return the ImageNet class of photographs by name; those without one are left out.

    Args:
        photos: Their folders may be named by the index of a class, 0 to 999.
        table: A CSV file of lines ``name,class``, which then counts instead of the folders.

    Raises:
        ConfigError: The table cannot be read, has a class that is none, or names none of the photographs.
    """
    if table is None:
        named = {photo.name: photo.folder for photo in photos}
        return {name: int(folder) for name, folder in named.items() if folder.isdecimal() and int(folder) < CLASSES}
    known = _read(table)
    found = {photo.name: _lookup(known, photo.name) for photo in photos}
    labelled = {name: label for name, label in found.items() if label is not None}
    if not labelled:
        first = next(iter(known), "nothing")
        raise ConfigError(f"{table}: names none of the photographs; its first is {first}, theirs {photos[0].name}")
    return labelled


def _lookup(known: Mapping[str, int], name: str) -> int | None:
    return known.get(name, known.get(PurePosixPath(name).name))


def _read(table: Path) -> dict[str, int]:
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            rows = [row for row in csv.reader(file) if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"{table}: cannot be read as CSV: {error}") from error
    if rows and [cell.strip() for cell in rows[0]] == ["name", "class"]:
        rows = rows[1:]
    known = {}
    for number, row in enumerate(rows, 1):
        if len(row) != 2 or not row[1].strip().isdecimal() or int(row[1]) >= CLASSES:
            raise ConfigError(f"{table}: row {number}: expected a name and an ImageNet class 0 to 999, found {row}")
        known[row[0].strip()] = int(row[1])
    return known
