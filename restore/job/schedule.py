"""Which source is worked on when: slots, retries, limits and arrivals. One thread; the work is done by processes."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection, wait
from typing import Any

from restore.errors import MediaError, RestoreError
from restore.job.attempt import Outcome, Task, may_pass
from restore.job.config import JobConfig
from restore.job.figures import Figures
from restore.job.find import Item, output_place
from restore.job.process import Advance, Message, Slot
from restore.job.record import claim, finished, source_version, write_record
from restore.job.report import Entry, RunReport, State
from restore.lease import Lease, LeaseHeld, lease
from restore.storage import Place

log = logging.getLogger(__name__)

_PATIENCE = 10
"""How often a file that seems to be incomplete is looked at before it is restored nevertheless."""
_REMEMBERED = 5000
"""Finished sources in the report of a job that watches."""
_AT_ONCE = 50
"""Sources that are taken up before messages are looked at."""


@dataclass(frozen=True)
class Keys:
    """Hashes of everything that was chosen about the results."""

    film: str
    still: str


@dataclass
class _Waiting:
    item: Item
    ready: float = 0.0
    """Not before this time, on the monotonic clock."""
    looks: int = 0
    """How often it was not complete."""


@dataclass
class _Active:
    waiting: _Waiting
    entry: Entry
    lease: Lease
    held: ExitStack
    """Gives the lease back."""
    began: float = field(default_factory=time.monotonic)
    first: tuple[int, float] | None = None
    """Frames that were done when the restoration went on in this run, and when that was."""


class Schedule:
    """The sources of a job, and the slots that work on them."""

    def __init__(
        self, config: JobConfig, root: Place, keys: Keys, report: RunReport, figures: Figures, arriving: bool = False
    ) -> None:
        self._config, self._root, self._keys = config, root, keys
        self._report, self._figures, self._arriving = report, figures, arriving
        self._slots = [Slot(config) for _ in range(config.films)]
        self._waiting: list[_Waiting] = []
        self._active: dict[Slot, _Active] = {}
        self._conflicts: dict[str, str] = {}

    @property
    def idle(self) -> bool:
        """Whether nothing is left to do."""
        return not self._waiting and not self._active

    @property
    def working(self) -> bool:
        """Whether a source is being restored."""
        return bool(self._active)

    def offer(self, items: Iterable[Item], conflicts: Mapping[str, str]) -> None:
        """Take up sources, if they are not waiting or being restored.

        Args:
            items: Sources.
            conflicts: Why some of them cannot be restored.
        """
        self._conflicts = dict(conflicts)
        if self._arriving:
            self._report.forget_finished(_REMEMBERED)
        busy = {one.item.name for one in self._waiting} | {a.waiting.item.name for a in self._active.values()}
        for item in items:
            if item.name not in busy:
                self._report.entries[item.name] = Entry(item.name, str(self._root / item.output), item.kind)
                self._waiting.append(_Waiting(item))

    def step(self, timeout: float) -> None:
        """Begin what can begin, and wait for messages, but not longer than `timeout` seconds."""
        for _ in range(_AT_ONCE):
            if not self._begin_next():
                break
        else:
            timeout = 0.0
        self._figures.queue, self._figures.running = len(self._waiting), len(self._active)
        slots = {slot.pipe: slot for slot in self._active if slot.pipe is not None}
        if not slots:
            time.sleep(timeout)
        for pipe in wait(list(slots), timeout) if slots else ():
            assert isinstance(pipe, Connection)
            self._handle(slots[pipe], slots[pipe].receive())
        self._watch_over()

    def stop(self, reason: str) -> None:
        """End the work at once; finished parts stay, leases are given back."""
        for slot in self._active:
            slot.ask_to_end()
        for slot, active in list(self._active.items()):
            slot.end()
            self._leave(slot, "interrupted")
            log.info("%s: interrupted, %s", active.entry.source, reason, extra=_facts(active.entry))
        self.close()

    def close(self) -> None:
        """Let the processes end."""
        for slot in self._slots:
            slot.close()

    def _begin_next(self) -> bool:
        """Take up the next source that is due; False if there is none, or no slot."""
        slot = next((slot for slot in self._slots if slot not in self._active), None)
        now = time.monotonic()
        due = next((one for one in self._waiting if one.ready <= now), None)
        if slot is None or due is None:
            return False
        self._waiting.remove(due)
        entry = self._report.entries[due.item.name]
        with ExitStack() as stack:
            try:
                self._begin(slot, due, entry, stack)
            except LeaseHeld as error:
                entry.state, entry.error = "elsewhere", str(error)
                log.info("%s: %s", entry.source, error, extra=_facts(entry))
            except RestoreError as error:
                entry.attempts += 1
                self._failed(due, entry, str(error), may_pass(error))
        return True

    def _begin(self, slot: Slot, due: _Waiting, entry: Entry, stack: ExitStack) -> None:
        item, config = due.item, self._config
        if (stat := item.source.stat()) is None:
            raise MediaError("is gone", item.name)
        due.item = item = replace(item, stat=stat)
        settings = getattr(self._keys, item.kind)
        output, version = output_place(self._root, item.output), source_version(item)
        record = finished(output, version, settings)
        if self._skip(entry, record):
            if record and record["source"] != item.name:  # it was moved, and may change there
                write_record(output, record | {"source": item.name})
            return
        if why := self._conflicts.get(item.name):
            raise MediaError(why, item.name)
        held = stack.enter_context(lease(output.parent / f"{output.name}.lease", owner="restore job"))
        if self._skip(entry, finished(output, version, settings)):  # by another, just before the lease was free
            return
        claim(item, version, output, config.overwrite)
        arriving = self._arriving and due.looks < _PATIENCE
        slot.begin(Task(item, output, settings, arriving))
        entry.state, entry.phase, entry.error = "running", None, None
        entry.attempts += 1
        self._active[slot] = _Active(due, entry, held, stack.pop_all())
        log.info("%s: begun", entry.source, extra=_facts(entry))

    def _skip(self, entry: Entry, record: dict[str, Any] | None) -> bool:
        if record is None:
            return False
        entry.state = "skipped"
        entry.frames = entry.total_frames = int(record.get("frames") or 0)
        entry.mean_chroma, entry.colourfulness = record.get("mean_chroma"), record.get("colourfulness")
        self._figures.films["skipped"] += 1
        log.debug("%s: finished by an earlier run", entry.source, extra=_facts(entry))
        return True

    def _handle(self, slot: Slot, message: Message) -> None:
        active = self._active[slot]
        if isinstance(message, Advance):
            self._advance(active, message)
        elif isinstance(message, Outcome):
            self._settle(slot, active, message)
        else:
            self._retell(active.entry, message)

    def _advance(self, active: _Active, news: Advance) -> None:
        entry = active.entry
        self._figures.gpu_bytes |= news.gpu_bytes
        if news.phase == "parts":
            self._figures.parts += news.done - entry.parts if entry.parts else 1
            entry.parts = news.done
            return
        entry.phase = news.phase
        if news.phase != "restore":
            return
        if active.first is None:
            active.first, entry.frames = (news.done, time.monotonic()), news.done
        self._figures.add_frames(news.done - entry.frames)
        entry.frames, entry.total_frames = news.done, news.total
        entry.frames_per_second = _rate(active)

    def _retell(self, entry: Entry, record: logging.LogRecord) -> None:
        """Log here what a process has logged, and keep its warnings."""
        vars(record).update(_facts(entry))
        if record.levelno >= logging.WARNING and (text := record.getMessage()) not in entry.warnings:
            entry.warnings.append(text)
        logging.getLogger(record.name).handle(record)

    def _settle(self, slot: Slot, active: _Active, outcome: Outcome) -> None:
        entry, due = active.entry, active.waiting
        if outcome.state == "incomplete":
            entry.attempts -= 1
            self._leave(slot, "waiting")
            self._waiting.append(_Waiting(due.item, time.monotonic() + self._config.settle_seconds, due.looks + 1))
        elif outcome.state == "elsewhere":
            self._leave(slot, "elsewhere", outcome.error)
            log.info("%s: %s", entry.source, outcome.error, extra=_facts(entry))
        elif outcome.state == "failed":
            self._leave(slot, "failed")
            self._failed(due, entry, outcome.error or "failed", outcome.may_pass)
        else:
            self._done(active, outcome)
            self._leave(slot, "done")

    def _done(self, active: _Active, outcome: Outcome) -> None:
        entry = active.entry
        if entry.kind == "still":
            self._figures.add_frames(1)
        entry.frames = entry.total_frames = outcome.frames
        self._figures.parts += max(0, outcome.parts - max(outcome.resumed_parts, entry.parts))
        entry.parts, entry.mean_chroma = outcome.parts, outcome.mean_chroma
        entry.colourfulness, entry.frames_per_second = outcome.colourfulness, _rate(active)
        self._figures.films["done"] += 1
        if outcome.jpeg:
            self._report.add_picture(entry.source, outcome.jpeg)
        log.info("%s: done, %d frames", entry.source, entry.frames, extra=_facts(entry))

    def _failed(self, due: _Waiting, entry: Entry, error: str, passing: bool) -> None:
        """Fail for good, or try again after a while."""
        entry.state, entry.error = "failed", error
        if passing and entry.attempts <= self._config.retries:
            pause = self._config.backoff_seconds * 2 ** (entry.attempts - 1)
            entry.state = "waiting"
            self._waiting.append(_Waiting(due.item, time.monotonic() + pause, due.looks))
            self._figures.retries += 1
            log.warning("%s; try %d follows in %g s", error, entry.attempts + 1, pause, extra=_facts(entry))
        else:
            self._figures.failures += 1
            log.error("%s", error if entry.source in error else f"{entry.source}: {error}", extra=_facts(entry))

    def _watch_over(self) -> None:
        """End what takes too long, and what somebody else has taken over."""
        minutes = self._config.film_minutes
        for slot, active in list(self._active.items()):
            try:
                active.lease.check()
            except RestoreError as error:
                slot.end()
                self._leave(slot, "elsewhere", str(error))
                continue
            if minutes and time.monotonic() - active.began > 60 * minutes:
                slot.end()
                self._leave(slot, "failed")
                message = (
                    f"took longer than film_minutes ({minutes:g}); finished parts are kept, the next run continues"
                )
                self._failed(active.waiting, active.entry, message, passing=False)

    def _leave(self, slot: Slot, state: State, error: str | None = None) -> None:
        active = self._active.pop(slot)
        entry = active.entry
        entry.state, entry.phase, entry.error = state, None, error
        entry.seconds = round(entry.seconds + time.monotonic() - active.began, 2)
        active.held.close()


def _rate(active: _Active) -> float | None:
    """Return frames a second since the restoration went on in this run."""
    if active.first is None:
        return None
    frames, since = active.first
    return round((active.entry.frames - frames) / max(time.monotonic() - since, 1e-3), 2)


def _facts(entry: Entry) -> dict[str, Any]:
    return {"film": entry.source, "frames": entry.frames or None}
