"""Find the sources of a job, and say where the result of each goes."""

from __future__ import annotations

import logging
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Literal

from fsspec.utils import glob_translate

from restore.errors import ConfigError, MediaError
from restore.job.config import JobConfig
from restore.stills.kinds import SUFFIXES as STILLS
from restore.storage import Place, Stat, place

log = logging.getLogger(__name__)

Kind = Literal["film", "still"]

FILMS = frozenset(
    {".3gp", ".asf", ".avi", ".divx", ".dv", ".f4v", ".flv", ".gxf", ".h264", ".h265", ".m1v", ".m2t", ".m2ts", ".m2v"}
    | {".m4v", ".mjpeg", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".mxf", ".nut", ".ogm", ".ogv", ".qt", ".rm"}
    | {".rmvb", ".ts", ".vob", ".webm", ".wmv", ".y4m"}
)
"""Suffixes that are taken for films where a job names no patterns of its own."""
_TEMPORARY = frozenset({".crdownload", ".download", ".filepart", ".inprogress", ".part", ".partial", ".temp", ".tmp"})
_WILD = set("*?[")


@dataclass(frozen=True, slots=True)
class Item:
    """A source of a job."""

    source: Place
    output: str
    """Name of its result below the output root."""
    kind: Kind
    stat: Stat
    """What the store said of it when it was found."""

    @property
    def name(self) -> str:
        """The source as it is told to people."""
        return str(self.source)


def find(config: JobConfig) -> tuple[list[Item], dict[str, str]]:
    """Look for all sources.

    Hidden files, temporary names, work folders, leases and the output root are left out; folders that are symbolic
    links are not entered.

    Returns:
        The sources, sorted by name; and why some of them cannot be restored, by name: their results would be one file.

    Raises:
        ConfigError: An input is not there, or the output root is an input.
        MediaError: A store cannot be reached.
    """
    suffixes = config.loaded_profile().suffixes
    items: dict[str, Item] = {}
    for text in config.inputs:
        for base, name, stat in _files(text, place(config.output)):
            if _wanted(name, config):
                item = Item(base / name, *_output(name, suffixes), stat)
                items.setdefault(item.name, item)
    found = sorted(items.values(), key=lambda item: item.name)
    return found, dict(_collisions(found))


def output_place(root: Place, name: str) -> Place:
    """Return where a result goes, which is never outside the root.

    Raises:
        RestoreError: It would be, by its name or through a symbolic link.
    """
    output = root / name
    if root.is_local:
        base = root.path.resolve()
        for path in (output.path, Path(f"{output}.json"), Path(f"{output}.restore"), Path(f"{output}.lease")):
            if not path.resolve().is_relative_to(base):
                raise MediaError(f"a symbolic link leads out of the output root {root}; remove it", str(path))
    return output


def _files(text: str, root: Place) -> Iterator[tuple[Place, str, Stat]]:
    """Find the files of an input: the fixed part of its name, the name below that, and what is known of the file."""
    fixed, pattern = _split(text)
    base = place(fixed)
    if not pattern and (stat := base.stat()):
        yield base.parent, base.name, stat
        return
    if base.is_local and not base.path.is_dir():
        raise ConfigError(f"inputs: {fixed} is neither a file nor a folder; create or mount it, or correct the name")
    if _resolved(base) == _resolved(root):
        raise ConfigError(f"inputs: {text} is the output root; results would be taken for sources")
    depth = None if not pattern or "**" in pattern else len(PurePosixPath(pattern).parts)
    walk = _walk_local(base.path, root, depth) if base.is_local else _walk_store(base, root, depth)
    for name, stat in walk:
        if not pattern or _matches(pattern, name):
            yield base, name, stat


def _split(text: str) -> tuple[str, str]:
    """Split an input into the part without wildcards and the pattern below it.

    A file or folder of this machine that is called so counts as it is, as in ``Reels [1922]``.
    """
    scheme, mark, rest = text.rpartition("://")
    parts = rest.split("/")
    wild = next((number for number in range(len(parts)) if _is_wild(parts[: number + 1], scheme)), len(parts))
    if ".." in parts[wild:]:
        raise ConfigError(f"inputs: {text} has .. after a wildcard")
    return scheme + mark + ("/".join(parts[:wild]) or "/"), "/".join(parts[wild:])


def _is_wild(parts: Sequence[str], scheme: str) -> bool:
    return bool(set(parts[-1]) & _WILD) and (bool(scheme) or not os.path.lexists("/".join(parts)))


def _resolved(where: Place) -> Place:
    return Place(str(where.path.resolve())) if where.is_local else where


def _walk_local(base: Path, root: Place, depth: int | None) -> Iterator[tuple[str, Stat]]:
    results = root.path.resolve() if root.is_local else None
    for here, folders, files in os.walk(base, onerror=_unreadable):
        folder = Path(here)
        deepest = len(folder.relative_to(base).parts) + 1 == depth
        entered = () if deepest else sorted(folders)
        folders[:] = [name for name in entered if _open(name) and (folder / name).resolve() != results]
        for name in sorted(files):
            # what vanishes meanwhile, and links that lead nowhere, are no sources
            if _visible(name) and (stat := Place(str(folder / name)).stat()):
                yield (folder / name).relative_to(base).as_posix(), stat


def _unreadable(error: OSError) -> None:
    log.warning("%s: the folder cannot be read (%s); what is in it is left out", error.filename, error.strerror)


def _walk_store(base: Place, root: Place, depth: int | None, above: str = "") -> Iterator[tuple[str, Stat]]:
    for name, stat in base.listing().items():
        if stat is not None:
            if _visible(name):
                yield above + name, stat
        elif _open(name) and base / name != root and depth != 1:
            yield from _walk_store(base / name, root, depth and depth - 1, f"{above}{name}/")


def _visible(name: str) -> bool:
    return not name.startswith((".", "~$")) and not name.endswith("~") and PurePosixPath(name).suffix not in _TEMPORARY


def _open(name: str) -> bool:
    return not name.startswith(".") and not name.endswith((".restore", ".lease"))


def _wanted(name: str, config: JobConfig) -> bool:
    if _any(config.exclude, name):
        return False
    if config.include:
        return _any(config.include, name)
    return PurePosixPath(name).suffix.lower() in FILMS | STILLS.keys()


def _any(patterns: Sequence[str], name: str) -> bool:
    """Tell whether one of the patterns matches; one without a slash is for the last part of the name."""
    return any(_matches(pattern, name if "/" in pattern else PurePosixPath(name).name) for pattern in patterns)


def _matches(pattern: str, name: str) -> bool:
    return _compiled(pattern).match(name) is not None


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(glob_translate(pattern))


def _output(name: str, suffixes: Sequence[str]) -> tuple[str, Kind]:
    """Name the result: a still keeps its format, a film its container if the profile writes it."""
    path = PurePosixPath(name)
    if path.suffix.lower() in STILLS:
        return name, "still"
    return name if path.suffix.lower() in suffixes else str(path.with_suffix(suffixes[0])), "film"


def _collisions(items: Iterable[Item]) -> Iterator[tuple[str, str]]:
    groups: defaultdict[str, list[Item]] = defaultdict(list)
    for item in items:
        groups[item.output].append(item)
    for output, group in groups.items():
        for item in group if len(group) > 1 else ():
            others = ", ".join(other.name for other in group if other is not item)
            yield item.name, f"its result would be {output}, as that of {others}; rename or exclude one of them"
