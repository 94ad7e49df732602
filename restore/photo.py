"""Restore stills: films of one frame, without the file work of a film."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from restore import stills
from restore.errors import MediaError
from restore.naming import Location
from restore.scratch import arriving, local_copy
from restore.source.probe import fingerprint
from restore.stage import Stage, stream
from restore.storage import Place, place
from restore.threads import workers


@dataclass(frozen=True)
class PhotoReport:
    """What became of a still."""

    source: str
    output: Place
    toned: str
    """``gray``, ``toned`` (sepia and the like: treated as gray) or ``color`` (only its luma was used)."""
    resumed: bool = False
    """An earlier run had done it."""


def restore_photo(
    path: Location, output: Location, stages: Sequence[Stage], *, scratch: Path | None = None
) -> PhotoReport:
    """Restore a still into a file that appears whole or not at all.

    Args:
        path: The still, a path or a URL.
        output: Where it goes, a path or a URL.
        stages: What is done to it.
        scratch: Where copies of what lies in an object store go; the folder for temporary files if None.

    Raises:
        RestoreError: It cannot be read, coloured or written; the message names it.
    """
    target = place(output)
    with local_copy(place(path), scratch, keep=False) as local, arriving(target, scratch) as file:
        still = stills.read(local)
        stills.check_output(file, still)
        with workers(1) as pool:
            (clip,) = stream(stages, [still.clip], pool)
        stills.write(file, still, clip)
    return PhotoReport(str(path), target, still.toned)


class Ledger:
    """The list of finished stills in an output folder, so that a run that was interrupted continues.

    One JSON line a still, appended when its output is whole; in an object store, where nothing is appended, one small
    object a still. A still counts as done if its source and the settings are the same and its output is still there.
    """

    NAME = ".restore-stills"

    def __init__(self, folder: Place, key: str) -> None:
        self._folder, self._key = folder, key
        self._done: dict[str, dict[str, str]] = {}
        if folder.is_local:
            for line in (self._lines.read_if_there() or b"").splitlines():
                if entry := _parsed(line):
                    self._done[entry["output"]] = entry

    @property
    def _lines(self) -> Place:
        return self._folder / f"{self.NAME}.jsonl"

    def _object(self, name: str) -> Place:
        return self._folder / self.NAME / f"{hashlib.sha256(name.encode()).hexdigest()[:24]}.json"

    def find(self, path: Place, name: str) -> PhotoReport | None:
        """Return the report of a still that an earlier run finished.

        Args:
            path: The still.
            name: Of its output inside the folder.
        """
        entry = self._done.get(name) if self._folder.is_local else _parsed(self._object(name).read_if_there() or b"")
        if entry is None or (entry.get("key"), entry.get("fingerprint")) != (self._key, _state(path)):
            return None
        output = self._folder / name
        return PhotoReport(str(path), output, entry["toned"], resumed=True) if output.stat() else None

    def add(self, path: Place, name: str, report: PhotoReport) -> None:
        """Note a finished still."""
        entry = {"output": name, "key": self._key, "fingerprint": _state(path), "toned": report.toned}
        line = json.dumps(entry) + "\n"
        if not self._folder.is_local:
            self._object(name).write_bytes(line.encode())
            return
        try:
            with self._lines.path.open("a") as file:
                file.write(line)
        except OSError as error:
            raise MediaError(f"cannot note the finished still ({error.strerror})", str(self._lines)) from error


def _parsed(line: bytes) -> dict[str, Any] | None:
    """Read a line; None if a run was killed while writing it."""
    try:
        entry: dict[str, Any] = json.loads(line)
        return entry if {"output", "toned"} <= entry.keys() else None
    except (ValueError, AttributeError):
        return None


def _state(path: Place) -> str:
    """Return what changes when a still does: a hash of its content, or the object store's version."""
    return fingerprint(path.path) if path.is_local else path.version()
