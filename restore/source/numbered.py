"""Numbered sequences: a film as one file a frame, as scanners deliver it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from restore.errors import MediaError

FRAME_SUFFIXES = frozenset({".bmp", ".dpx", ".jp2", ".jpeg", ".jpg", ".pgm", ".png", ".tga", ".tif", ".tiff", ".webp"})
"""Files that a folder of numbered frames may hold."""


@dataclass(frozen=True, slots=True)
class Numbered:
    """The files of a numbered sequence, without gaps."""

    pattern: str
    """Path with the number as `%06d` or `%d`."""
    first: int
    files: tuple[Path, ...]


def numbered(path: Path) -> Numbered | None:
    """Find the files of a folder of numbered frames or of a pattern; None if `path` is neither.

    Raises:
        MediaError: There are none, there is more than one sequence, or a number is missing.
    """
    if path.is_dir():
        folder, start, digits, end = _only_sequence(path)
    elif not path.exists() and (match := re.fullmatch(r"(.*)%(?:0(\d+))?d(.*)", path.name)):
        folder, start, digits, end = path.parent, match[1], int(match[2] or 0), match[3]
    else:
        return None
    name = re.compile(re.escape(start) + r"(\d+)" + re.escape(end))
    found = (name.fullmatch(file.name) for file in folder.iterdir()) if folder.is_dir() else ()
    numbers = sorted(int(match[1]) for match in found if match and match[1] == f"{int(match[1]):0{digits}d}")
    if not numbers:
        raise MediaError("no file has a name of this pattern", str(path))
    place = f"%0{digits}d" if digits else "%d"
    for number, expected in zip(numbers, range(numbers[0], numbers[-1] + 1), strict=False):
        if number != expected:
            gone = f"{start}{expected:0{digits}d}{end}"
            message = f"frame {expected} is missing ({gone}) between {numbers[0]} and {numbers[-1]}; a film has no gaps"
            raise MediaError(message, str(path))
    files = tuple(folder / f"{start}{number:0{digits}d}{end}" for number in numbers)
    return Numbered(str(folder / f"{start}{place}{end}"), numbers[0], files)


def _only_sequence(folder: Path) -> tuple[Path, str, int, str]:
    """Return the folder, and what stands before the number, its digits, and what stands after it."""
    images = [file for file in folder.iterdir() if file.suffix.lower() in FRAME_SUFFIXES]
    if not images:
        raise MediaError("the folder holds no images", str(folder))
    matches = [match for file in images if (match := re.fullmatch(r"(.*?)(\d+)(\.\w+)", file.name))]
    names = sorted({(match[1], match[3]) for match in matches})
    if len(names) != 1:
        examples = ", ".join(f"{start}%d{end}" for start, end in names[:3]) or "none"
        message = (
            f"the folder must hold one numbered sequence, as in scan_000001.dpx; found {examples}; name one of them"
        )
        raise MediaError(message, str(folder))
    padded = [len(match[2]) for match in matches if match[2].startswith("0")]
    return folder, names[0][0], min(padded, default=0), names[0][1]


def escaped(pattern: str) -> str:
    """Double every `%` that is not the number's, as libav's image2 expects."""
    before, number, after = re.split(r"(%(?:0\d+)?d)(?!.*%(?:0\d+)?d)", pattern, maxsplit=1)
    return before.replace("%", "%%") + number + after.replace("%", "%%")
