"""Leases: one process at a time works on something, on one machine, over a shared folder or over an object store.

A lease is a folder of numbered notes, and the holder is who wrote the highest one. A note is created only if there is
none by its number, which is all that a store must promise: of several that want the same lease, one creates the next
note. All write first and look afterwards, so that of two who get in each other's way at least one sees the other.
Clocks of machines may differ: before a lease is taken from another machine, its note is watched for a while.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

from restore.errors import MediaError, RestoreError
from restore.storage import Place

log = logging.getLogger(__name__)

_BEATS = 4
"""How often a lease is renewed before it would be dead."""


@dataclass(frozen=True, slots=True)
class Holder:
    """Who has a lease, as its note says."""

    token: str
    """Of this one holding."""
    owner: str
    """What works there, for people."""
    host: str
    machine: str
    """What tells whether a process number means the same process here as there."""
    pid: int
    born: str
    """When the process was started, in the words of its system; process numbers are used again."""
    since: str
    """UTC."""
    seconds: float
    """Without a renewal for so long, the lease is dead."""
    renewed: float
    """Seconds since 1970, by the holder's clock."""

    def __str__(self) -> str:
        return f"{self.owner} on {self.host}, process {self.pid}, since {self.since}"


class LeaseHeld(MediaError):  # noqa: N818 - what is the case, not what went wrong
    """Somebody else has the lease.

    Attributes:
        holder: Who has it.
    """

    exit_code = 75
    """EX_TEMPFAIL of BSD's sysexits.h: the same command may succeed later."""

    def __init__(self, message: str, path: str, holder: Holder) -> None:
        super().__init__(message, path)
        self.args = (message, path, holder)  # what a pickle is made from
        self.holder = holder


class LeaseLost(RestoreError):  # noqa: N818
    """The lease was not renewed in time, and somebody else took it; what was begun must not be finished."""

    exit_code = LeaseHeld.exit_code


class Lease:
    """A lease that this process holds, renewed by a thread of its own."""

    def __init__(self, folder: Place, number: int, holder: Holder) -> None:
        self.folder, self.holder = folder, holder
        self._number, self._renewed = number, time.monotonic()
        self._lost = False
        self._stop, self._one = threading.Event(), threading.Lock()
        self._thread = threading.Thread(target=self._beat, name="lease", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Make sure that the lease is still held; costs nothing while renewals succeed.

        Raises:
            LeaseLost: It is not.
            MediaError: The store cannot be reached, and it was not renewed in time.
        """
        if not self._lost and time.monotonic() - self._renewed > self.holder.seconds:
            self._renew()
        if self._lost:
            raise LeaseLost(f"{self.folder}: the lease was not renewed in time and was taken over; run again")

    def release(self) -> None:
        """Let others have it, and leave nothing behind."""
        self._stop.set()
        self._thread.join()
        try:
            if not self._lost:
                _note(self.folder, self._number).remove()
            self.folder.remove_empty()
        except MediaError as error:
            log.warning("%s; the lease ends by itself in %g seconds", error, self.holder.seconds)

    def _beat(self) -> None:
        while not self._stop.wait(self.holder.seconds / _BEATS):
            try:
                self._renew()
            except MediaError as error:
                log.warning("%s; the lease could not be renewed and will be tried again", error)
            if self._lost:
                return

    def _renew(self) -> None:
        with self._one:
            began = time.monotonic()
            found = _read(self.folder, self._number)
            if found is not None and found.token == self.holder.token:
                _note(self.folder, self._number).write_bytes(_bytes(replace(self.holder, renewed=time.time())))
                if max(_numbers(self.folder)) == self._number:
                    self._renewed = began
                    return
                _note(self.folder, self._number).remove()
            self._lost = True


@contextmanager
def lease(folder: Place, *, seconds: float = 60, owner: str = "restore") -> Iterator[Lease]:
    """Hold a lease for as long as the context lasts.

    A lease whose process on this machine has died is free at once. One of another machine is free when it was not
    renewed for its time; that is then watched for half as long, so taking it over takes a while.

    Args:
        folder: Where its notes are kept; for nothing else.
        seconds: How long it lives without being renewed.
        owner: What works here, for the person who is told that it is held.

    Raises:
        LeaseHeld: Somebody else has it.
        MediaError: The folder cannot be read or written.
    """
    held = Lease(folder, *_acquire(folder, _me(seconds, owner)))
    try:
        yield held
    finally:
        held.release()


def holder_of(folder: Place) -> Holder | None:
    """Return who has a lease, None if nobody does or its holder seems dead; a look, which promises nothing."""
    _, holder = _newest(folder)
    if holder is None or _has_died(holder) or not _is_recent(holder):
        return None
    return holder


def _acquire(folder: Place, me: Holder) -> tuple[int, Holder]:
    while True:
        number, before = _newest(folder)
        if number:
            _make_sure_it_is_dead(folder, number, before)
        number += 1
        if not _take(folder, number, me):
            continue  # another one was quicker
        numbers = _numbers(folder)
        if max(numbers) == number and _read(folder, number - 1) == before:
            for old in numbers - {number, 0}:
                _note(folder, old).remove()
            return number, me
        _note(folder, number).remove()  # the one before was not dead but slow, or others have come and gone


def _take(folder: Place, number: int, me: Holder) -> bool:
    """Create the next note, and know it for one's own even where the store's answer was lost."""
    if _note(folder, number).create(_bytes(me)):
        return True
    found = _read(folder, number)
    return found is not None and found.token == me.token


def _make_sure_it_is_dead(folder: Place, number: int, holder: Holder | None) -> None:
    """Raise `LeaseHeld` if the holder of a lease lives, or may live.

    A note that cannot be read is one that is just being written, or the remains of an accident.
    """
    if holder is not None and _has_died(holder):
        return
    if holder is not None and _is_recent(holder):
        raise _held(folder, holder)
    seconds = holder.seconds if holder is not None else 2.0
    until = time.monotonic() + seconds / 2
    while time.monotonic() < until:
        time.sleep(min(1.0, seconds / 10))
        if (now := _read(folder, number)) != holder:
            if now is not None:
                raise _held(folder, now)
            return


def _held(folder: Place, holder: Holder) -> LeaseHeld:
    return LeaseHeld(f"another run is working here ({holder}); wait for it or stop it", str(folder), holder)


def _is_recent(holder: Holder) -> bool:
    return abs(time.time() - holder.renewed) <= holder.seconds


def _has_died(holder: Holder) -> bool:
    """Whether a holder was a process of this machine that has ended."""
    return holder.machine == _machine() and _born(holder.pid) != holder.born


def _me(seconds: float, owner: str) -> Holder:
    return Holder(
        token=uuid.uuid4().hex,
        owner=owner,
        host=socket.gethostname(),
        machine=_machine(),
        pid=os.getpid(),
        born=_born(os.getpid()),
        since=datetime.now(UTC).isoformat(" ", "seconds").removesuffix("+00:00") + " UTC",
        seconds=seconds,
        renewed=time.time(),
    )


@cache
def _machine() -> str:
    """Name the space in which a process number names one process: a boot of a machine, or a container on it."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:  # not Linux
        return socket.gethostname()


def _born(pid: int) -> str:
    """Return when a process was started, "" if there is none or only its remains."""
    try:
        state, *rest = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return "" if state in "ZX" else rest[18]  # field 22 of proc_pid_stat(5), clock ticks since the boot
    except OSError:
        if Path("/proc/self").exists():
            return ""
    try:
        os.kill(pid, 0)
    except OSError:
        return ""
    return "alive"


def _note(folder: Place, number: int) -> Place:
    return folder / f"{number:08d}.json"


def _numbers(folder: Place) -> set[int]:
    names = (name.removesuffix(".json") for name in folder.listing())
    return {int(name) for name in names if name.isdecimal()} | {0}


def _newest(folder: Place) -> tuple[int, Holder | None]:
    number = max(_numbers(folder))
    return number, _read(folder, number)


def _read(folder: Place, number: int) -> Holder | None:
    """Return a note, None if there is none or it is not one."""
    try:
        return Holder(**json.loads(_note(folder, number).read_if_there() or b"null"))
    except (ValueError, TypeError):
        return None


def _bytes(holder: Holder) -> bytes:
    return json.dumps(asdict(holder)).encode()
