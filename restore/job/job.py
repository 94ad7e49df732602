"""A scheduled job: find, skip what is finished, restore the rest, report, and say by the exit code how it went."""

from __future__ import annotations

import logging
import math
import signal
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import IntEnum
from pathlib import Path
from types import FrameType

from restore.errors import ConfigError, RestoreError
from restore.job.clean import clean
from restore.job.config import JobConfig, load
from restore.job.figures import Figures, published
from restore.job.find import Item, find
from restore.job.journal import FOLDER, Journal
from restore.job.report import RunReport
from restore.job.schedule import Keys, Schedule
from restore.lease import Lease, LeaseHeld, lease
from restore.storage import Place, Stat, place

log = logging.getLogger(__name__)

_STEP_SECONDS = 0.25
"""How long a signal may wait."""
_REPORT_SECONDS = 15
"""Between two reports of a run that goes on."""


class Exit(IntEnum):
    """Exit codes of a job."""

    DONE = 0
    """All is done, or there was nothing to do."""
    ERROR = 1
    """The job could not be done at all, as where a store cannot be reached."""
    BAD_CONFIG = 2
    FAILED = 3
    """Some sources failed; the others are done."""
    HELD = LeaseHeld.exit_code
    """Another process holds the lease of the job, or of a source."""
    INTERRUPTED = 130
    """Stopped by a signal or by its time limit; the next run continues."""


def run_job(
    path: Path,
    *,
    watch_seconds: float | None = None,
    metrics_port: int | None = None,
    metrics_address: str = "127.0.0.1",
) -> RunReport:
    """Run a job once, or until it is stopped.

    Args:
        path: Its configuration.
        watch_seconds: Look for sources that arrive, so often, until SIGTERM or SIGINT.
        metrics_port: Serve figures for Prometheus.
        metrics_address: Interface for that.

    Returns:
        What became of the sources; its exit code is one of `Exit`.

    Raises:
        ConfigError: The configuration, or something it names, is wrong.
        RestoreError: The output root cannot be reached or written.
    """
    config = load(path)
    root = place(config.output)
    keys = _keys(config)
    report, figures = RunReport(config.output, datetime.now(UTC), str(path)), Figures()
    journal = Journal(root, report, config.reports)
    with _signals() as stop, published(figures, metrics_port, metrics_address):
        try:
            with lease(root / FOLDER / "lease", owner="restore job") as held, journal.open(config.scratch):
                schedule = Schedule(config, root, keys, report, figures, arriving=watch_seconds is not None)
                _Run(config, root, schedule, report, journal, held, stop).run(watch_seconds)
                if report.exit_code == Exit.DONE:
                    figures.succeeded = time.time()
        except LeaseHeld as error:
            report.exit_code, report.note = Exit.HELD, str(error)
            log.warning("%s", error)
    return report


def _keys(config: JobConfig) -> Keys:
    """Hash what was chosen, which also looks whether pipeline, profile, weights and settings are right."""
    try:
        if isinstance(config.executor, str):
            from restore.cluster.settings import load_executor  # imported late: `distributed` takes a second to import

            load_executor(config.executor)
        return Keys(film=config.key(still=False), still=config.key(still=True))
    except RestoreError as error:
        raise ConfigError(str(error)) from error


class Stop:
    """Whether the run is to stop, and why."""

    reason: str | None = None

    def by_signal(self, number: int, frame: FrameType | None) -> None:
        """Note a signal."""
        self.reason = f"stopped by {signal.Signals(number).name}"


@dataclass
class _Run:
    """One run under the lease of the job."""

    config: JobConfig
    root: Place
    schedule: Schedule
    report: RunReport
    journal: Journal
    held: Lease
    stop: Stop

    def run(self, watch_seconds: float | None) -> None:
        """Do what there is to do, or watch until stopped; note the exit code in the report."""
        try:
            items, conflicts = find(self.config)
            clean(self.root, items)
            if watch_seconds is None:
                self._until(items, conflicts)
            else:
                self._watch(watch_seconds)
        except RestoreError as error:
            self.report.note = str(error)
            self.report.exit_code = Exit.BAD_CONFIG if isinstance(error, ConfigError) else Exit.ERROR
            log.error("%s", error)
            raise
        finally:
            busy = not self.schedule.idle
            self.schedule.stop(self.stop.reason or "an error")
        self.report.note = self.stop.reason
        self.report.exit_code = self._exit_code(busy)

    def _until(self, items: Sequence[Item], conflicts: Mapping[str, str]) -> None:
        self.schedule.offer(items, conflicts)
        while not (self.schedule.idle or self._stopped()):
            self._step()

    def _watch(self, seconds: float) -> None:
        arrivals, looked = Arrivals(self.config.settle_seconds), -math.inf
        while not self._stopped():
            if time.monotonic() - looked >= seconds:
                looked = time.monotonic()
                try:
                    items, conflicts = find(self.config)
                    self.schedule.offer(arrivals.settled(items, looked), conflicts)
                except RestoreError as error:  # a store or a shared folder may come back
                    log.warning("%s", error)
            self._step()

    def _step(self) -> None:
        self.schedule.step(_STEP_SECONDS)
        self.journal.write_sometimes()

    def _stopped(self) -> bool:
        minutes = self.config.minutes
        if self.stop.reason is None and minutes and self.report.age_seconds > 60 * minutes:
            self.stop.reason = f"stopped by its time limit (minutes: {minutes:g}); the next run continues"
        try:
            self.held.check()
        except RestoreError as error:
            self.stop.reason = str(error)
        return self.stop.reason is not None

    def _exit_code(self, busy: bool) -> Exit:
        counts = self.report.counts
        if busy:
            return Exit.INTERRUPTED
        if counts.get("failed"):
            return Exit.FAILED
        return Exit.HELD if counts.get("elsewhere") else Exit.DONE


class Arrivals:
    """Tells when files that arrive have stopped changing; each content of a file is told once."""

    def __init__(self, settle_seconds: float) -> None:
        self._settle = settle_seconds
        self._seen: dict[str, tuple[Stat, float, bool]] = {}
        """What it was like, since when, and whether it was told."""

    def settled(self, items: Iterable[Item], now: float) -> list[Item]:
        """Return the sources that have not changed for a while.

        Args:
            items: All that are there now.
            now: Seconds, on any clock that does not go back.
        """
        seen, found = {}, []
        for item in items:
            stat, since, told = self._seen.get(item.name, (item.stat, now, False))
            if stat != item.stat:
                stat, since, told = item.stat, now, False
            if not told and now - since >= self._settle:
                found.append(item)
                told = True
            seen[item.name] = stat, since, told
        self._seen = seen
        return found


@contextmanager
def _signals() -> Iterator[Stop]:
    """Let SIGTERM and SIGINT stop the run softly, if this is the main thread."""
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.signal(number, stop.by_signal) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
