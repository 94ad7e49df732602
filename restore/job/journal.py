"""What a job writes about itself: a log of JSON lines, and a report, below its output root."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from restore.errors import RestoreError
from restore.job.jsonlog import JsonLines, is_told
from restore.job.report import RunReport
from restore.scratch import arriving
from restore.storage import Place

log = logging.getLogger(__name__)

FOLDER = ".restore-job"
"""Below the output root; holds the lease, the last report, and `runs/` with reports and logs."""
_EVERY_SECONDS = 10
"""Between two reports of a run that goes on."""
_UNENCODABLE = "backslashreplace"
"""Names of files are any bytes; what is not UTF-8 becomes an escape, which JSON reads as the same name again."""


class Journal:
    """Writes the report and the log of one run."""

    def __init__(self, root: Place, report: RunReport, keep: int) -> None:
        self.folder = root / FOLDER
        self._report, self._keep = report, keep
        self._name = report.started.strftime("%Y%m%dT%H%M%S.%fZ")
        self._written, self._last = time.monotonic() - _EVERY_SECONDS, -1

    @contextmanager
    def open(self, scratch: Path | None) -> Iterator[None]:
        """Log into the run's file, and write the report at the end, however the run ends.

        Args:
            scratch: Where the log is until it is put into an object store.
        """
        try:
            with arriving(self._run(".jsonl"), scratch) as path, _logging_into(path):
                try:
                    yield
                finally:
                    self._report.finished = datetime.now(UTC)
                    self.write()
        finally:
            self._forget_old()

    def write_sometimes(self) -> None:
        """Write the report if it changed and the last time is a while ago."""
        now = time.monotonic()
        if now - self._written >= _EVERY_SECONDS and (progress := self._report.progress) != self._last:
            self._written, self._last = now, progress
            self.write()

    def write(self) -> None:
        """Write the report as it is now; a store that is out of reach does not stop the work."""
        try:
            for suffix, text in ((".json", self._report.json()), (".html", self._report.html())):
                data = text.encode(errors=_UNENCODABLE)
                self._run(suffix).write_bytes(data)
                (self.folder / f"report{suffix}").write_bytes(data)
        except RestoreError as error:
            log.warning("the report cannot be written now: %s", error)

    def _run(self, suffix: str) -> Place:
        return self.folder / "runs" / f"{self._name}{suffix}"

    def _forget_old(self) -> None:
        """Remove the reports and logs of the oldest runs."""
        try:
            names = sorted((self.folder / "runs").listing())
            runs = sorted({name.rpartition(".")[0] for name in names})
            for name in names:
                if name.rpartition(".")[0] in runs[: -self._keep]:
                    (self.folder / "runs" / name).remove()
        except RestoreError as error:
            log.warning("old reports cannot be removed now: %s", error)


@contextmanager
def _logging_into(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(path, encoding="utf-8", errors=_UNENCODABLE)
    handler.setFormatter(JsonLines())
    handler.addFilter(is_told)
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(min(level, logging.INFO))
    try:
        yield
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
        handler.close()
