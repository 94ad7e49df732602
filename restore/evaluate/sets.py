"""Photographs as they are judged: their size, how many of them, and what is in them."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

import cv2
import numpy as np

from restore.errors import ConfigError
from restore.photographs import SUFFIXES, Photo, Picture, decode

SIDE = 256
"""Side at which photographs and frames are judged; aspect ignored, as in the published comparisons."""
CLASSES = 1000
"""Of ImageNet."""


def read(photo: Photo) -> Picture | None:
    """Return a photograph upright at the size of judging, shape (256, 256, 3), or None if it is broken."""
    picture = decode(photo)
    return None if picture is None else square(picture)


def square(picture: Picture) -> Picture:
    """Resize (H, W, 3) to the size of judging, whatever its aspect."""
    how = cv2.INTER_AREA if min(picture.shape[:2]) >= SIDE else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(picture, (SIDE, SIDE), interpolation=how), np.uint8)


def is_photos(source: Path) -> bool:
    """Say whether a source is photographs (a folder, a tar file, a picture) and not a film."""
    return source.is_dir() or source.suffix.lower() in (".tar", *SUFFIXES)


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
        named = {photo.name: _folder(photo) for photo in photos}
        return {name: int(folder) for name, folder in named.items() if folder.isdecimal() and int(folder) < CLASSES}
    known = _read(table)
    found = {photo.name: _lookup(known, photo.name) for photo in photos}
    labelled = {name: label for name, label in found.items() if label is not None}
    if not labelled:
        first = next(iter(known), "nothing")
        raise ConfigError(f"{table}: names none of the photographs; its first is {first}, theirs {photos[0].name}")
    return labelled


def _folder(photo: Photo) -> str:
    """Return the name of the folder that a photograph is in, "" if that is not known."""
    return PurePosixPath(photo.name).parent.name or ("" if photo.offset is not None else photo.path.name)


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
