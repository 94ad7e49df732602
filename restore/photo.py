"""Restore stills: films of one frame, without the file work of a film."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from restore import stills
from restore.errors import MediaError
from restore.part import workers
from restore.source.probe import fingerprint
from restore.stage import Stage, stream


@dataclass(frozen=True)
class PhotoReport:
    """What became of a still."""

    source: str
    output: Path
    toned: str
    """``gray``, ``toned`` (sepia and the like: treated as gray) or ``color`` (only its luma was used)."""
    resumed: bool = False
    """An earlier run had done it."""


def restore_photo(path: Path, output: Path, stages: Sequence[Stage]) -> PhotoReport:
    """Restore a still into a file that appears whole or not at all.

    Raises:
        RestoreError: It cannot be read, coloured or written; the message names it.
    """
    still = stills.read(path)
    stills.check_output(output, still)
    with workers(1) as pool:
        (clip,) = stream(stages, [still.clip], pool)
    stills.write(output, still, clip)
    return PhotoReport(str(path), output, still.toned)


class Ledger:
    """The list of finished stills in an output folder, so that a run that was interrupted continues.

    One JSON line a still, appended when its output is whole. A still counts as done if its source and the settings
    are the same and its output is still there.
    """

    NAME = ".restore-stills.jsonl"

    def __init__(self, folder: Path, key: str) -> None:
        self._file, self._key = folder / self.NAME, key
        self._done: dict[str, dict[str, str]] = {}
        if self._file.is_file():
            for line in self._file.read_text().splitlines():
                try:
                    entry = json.loads(line)
                    self._done[entry["output"]] = entry
                except (ValueError, KeyError, TypeError):
                    continue  # the last line of a run that was killed while writing it

    def find(self, path: Path, output: Path) -> PhotoReport | None:
        """Return the report of a still that an earlier run finished."""
        entry = self._done.get(str(output.relative_to(self._file.parent)))
        if entry is None or not output.is_file():
            return None
        if (entry.get("key"), entry.get("fingerprint")) != (self._key, fingerprint(path)):
            return None
        return PhotoReport(str(path), output, entry["toned"], resumed=True)

    def add(self, path: Path, report: PhotoReport) -> None:
        """Note a finished still."""
        name = str(report.output.relative_to(self._file.parent))
        entry = {"output": name, "key": self._key, "fingerprint": fingerprint(path), "toned": report.toned}
        try:
            with self._file.open("a") as file:
                file.write(json.dumps(entry) + "\n")
        except OSError as error:
            raise MediaError(f"cannot note the finished still ({error.strerror})", str(self._file)) from error
