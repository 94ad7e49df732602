"""A map over the workers of a Dask cluster, whatever befalls them."""

from __future__ import annotations

import logging
import queue
import time
import uuid
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from distributed import CancelledError, Client, Future, KilledWorker

from restore.cluster.executors import executor
from restore.cluster.limits import Limits
from restore.cluster.settings import Local
from restore.cluster.task import TOPIC, Work, job_of, order_for, remove_token, work_on, write_token
from restore.errors import ClusterError, StageError
from restore.film import Map
from restore.machine import Machine, this_machine
from restore.part import PartRecord
from restore.plan import Part

log = logging.getLogger(__name__)

WINDOW = 3
"""Parts submitted for each that can be worked on: enough to keep workers busy, few enough to keep everything small."""

SLOTS = 4
"""Parts that could be worked on, as long as fewer workers are there: what waits is what makes clusters grow."""

TICK_SECONDS = 1.0
"""How often to look after the workers."""

RESTART_SECONDS = 60
"""For a worker to end and begin anew: a nanny that is cut short in it leaves the worker dead for good."""

ATTEMPTS = 3
"""How often a part is begun whose worker dies or hangs, before it is given up."""


@contextmanager
def local_workers(count: int) -> Iterator[Map]:
    """Start worker processes on this machine and give a map over them; they end with the context.

    Args:
        count: Number of processes, each of which works on one part at a time.
    """
    with executor(Local(workers=count, dashboard="")) as client:
        yield dask_map(client)


def dask_map(
    client: Client,
    *,
    machine: Machine | None = None,
    limits: Limits | None = None,
    resources: dict[str, float] | None = None,
) -> Map:
    """Return a map over the workers of a Dask cluster. It has a bounded number of parts submitted at any time.

    Results come as they are finished. The error of a part is raised here as it was raised there. A part is done again
    elsewhere if its worker dies or hangs, and a lost scheduler is waited for. Late results of parts that were done
    again are ignored.

    Args:
        client: Connected to the cluster.
        machine: What the workers must be like; this machine if None.
        limits: How long to wait for what.
        resources: What a part needs of what workers declare, as in ``{"GPU": 1}``.
    """

    def execute(work: Work, parts: Iterable[Part], /) -> Iterator[PartRecord]:
        run = _Run(client, work, iter(parts), machine or this_machine(), limits or Limits(), resources or {})
        with run.watched():
            yield from run.records()

    return execute


def address_of(client: Client) -> str:
    """Return the address of the scheduler that a client is connected to."""
    assert client.scheduler is not None
    return str(client.scheduler.address)


@dataclass
class _Task:
    """A part that was given out."""

    part: Part
    future: Future[PartRecord]
    begun: int = 0
    """How often a worker has begun it."""
    hangs: int = 0
    deaths: int = 0
    """How often Dask gave it up, as several workers died of it."""
    worker: str | None = None
    """The one that works on it, if that is known."""
    since: float = 0.0
    """When that worker began, or when the part was given out, by our clock."""


@dataclass
class _Run:
    """One film's parts on their way through a cluster."""

    client: Client
    work: Work
    waiting: Iterator[Part]
    machine: Machine
    limits: Limits
    resources: dict[str, float]
    run: str = field(default_factory=lambda: uuid.uuid4().hex[:8])
    tasks: dict[Any, _Task] = field(default_factory=dict)
    """What is given out, by Dask's key."""
    arrived: queue.SimpleQueue[Future[PartRecord] | dict[str, Any]] = field(default_factory=queue.SimpleQueue)
    """Futures that are done, and notes of workers that begin."""
    frame_seconds: deque[float] = field(default_factory=lambda: deque(maxlen=101))
    workers: dict[str, int] = field(default_factory=dict)
    """Addresses and threads."""
    looked: float = 0.0
    """When we last looked after the workers."""
    alone_since: float | None = None
    """Since when there is no worker."""
    submissions: int = 0

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Prepare what workers look for and listen to them; in the end take back what is given out."""
        job, given = job_of(self.work), self.client
        self.order, self.address = order_for(self.work, self.run, self.machine), address_of(given)
        self.name = Path(job.source.path).name if job else "part"
        if job:
            write_token(job, self.order)
        self.client.subscribe_topic(TOPIC, self._heard)
        try:
            yield
        finally:
            self._end()
            if self.client is not given:
                self.client.close()
            if job:
                remove_token(job, self.order)

    def records(self) -> Iterator[PartRecord]:
        """Give the results as they arrive."""
        self._look()
        self._submit()
        while self.tasks:
            try:
                news = self.arrived.get(timeout=TICK_SECONDS)
            except queue.Empty:
                news = None
            if isinstance(news, dict):
                self._note(news)
            elif news is not None and (record := self._result(news)):
                yield record
                self._submit()
            if time.monotonic() - self.looked > TICK_SECONDS:
                self._look()

    def _submit(self) -> None:
        """Give out parts until the window is full."""
        window = WINDOW * max(SLOTS, sum(self.workers.values()))
        while len(self.tasks) < window and (part := next(self.waiting, None)) is not None:
            self._give(_Task(part, self._future(part)))

    def _future(self, part: Part, workers: list[str] | None = None) -> Future[PartRecord]:
        self.submissions += 1
        key = (f"{self.name}-{self.run}", str(part), self.submissions)  # named in the dashboard; never used twice
        return self.client.submit(
            work_on,
            part,
            self.work,
            self.order,
            key=key,
            pure=False,
            resources=self.resources or None,
            workers=workers,
            allow_other_workers=workers is not None,
        )

    def _give(self, task: _Task) -> None:
        task.since = time.monotonic()
        self.tasks[task.future.key] = task
        task.future.add_done_callback(self.arrived.put)

    def _give_again(self, tasks: list[_Task], workers: list[str] | None = None) -> None:
        for task in tasks:
            self.tasks.pop(task.future.key, None)
            task.future, task.worker = self._future(task.part, workers), None
            self._give(task)

    def _heard(self, event: tuple[float, dict[str, Any]]) -> None:
        """Take a worker's note, in the thread of Dask's loop."""
        if event[1].get("run") == self.run:
            self.arrived.put(event[1])

    def _note(self, note: dict[str, Any]) -> None:
        for task in self.tasks.values():
            if task.part.number == note["part"]:
                task.worker, task.since, task.begun = note["worker"], time.monotonic(), task.begun + 1

    def _result(self, future: Future[PartRecord]) -> PartRecord | None:
        """Take a future that is done; None if it is a late one, or its part must be done again."""
        task = self.tasks.get(future.key)
        if task is None or task.future is not future:
            return None
        try:
            record: PartRecord = future.result()
        except KilledWorker as error:
            task.deaths += 1
            if max(task.begun, task.deaths) >= ATTEMPTS:
                raise self._failure(
                    task, "its worker died several times, perhaps for want of memory; use fewer --workers"
                ) from error
            self._give_again([task])
            return None
        except (CancelledError, TimeoutError, OSError):
            if future.status == "error":
                raise  # by the part itself
            if future.status == "cancelled":
                self._recover()
            else:  # the result was lost with the worker that had it
                self._give_again([task])
            return None
        del self.tasks[future.key]
        self.frame_seconds.append(record.seconds / max(1, record.frames))
        return record

    def _failure(self, task: _Task, message: str) -> StageError:
        return StageError(message, "part", (task.part.first, task.part.stop - 1))

    def _look(self) -> None:
        """Look after the workers: how many there are, and whether one hangs."""
        if self.client.status != "running":
            self._recover()
        try:
            self.workers = self.client.nthreads()
        except (OSError, TimeoutError):
            log.debug("the scheduler does not answer", exc_info=True)
        else:
            self._check_workers()
            self._check_hangs()
        self.looked = time.monotonic()

    def _check_workers(self) -> None:
        if self.workers:
            self.alone_since = None
            return
        now = time.monotonic()
        if self.alone_since is None:
            self.alone_since = now
            log.warning("no worker is connected to %s; waiting for one", self.address)
        if not self.limits.wait_for_workers and now - self.alone_since > self.limits.patience_seconds:
            raise ClusterError(
                f"the Dask scheduler at {self.address} has had no worker for {self.limits.patience_seconds:.0f} s; "
                "start some with `dask worker`, then run again: finished parts are kept"
            )

    def _check_hangs(self) -> None:
        now, stuck = time.monotonic(), []
        for task in [task for task in self.tasks.values() if not task.future.done()]:
            limit = self.limits.of(len(task.part), self.frame_seconds, task.hangs)
            if task.worker is None:
                stuck += [task] if now - task.since > max(self.limits.begin_seconds, 2 * limit) else []
            elif task.worker not in self.workers:
                task.worker, task.since = None, now  # it died; Dask gives the part to another
            elif now - task.since > limit:
                self._replace(task, task.worker, limit)
        if stuck:
            self._take_from_others(stuck)

    def _replace(self, task: _Task, worker: str, limit: float) -> None:
        """End a worker that hangs. Dask gives its parts to others."""
        task.hangs += 1
        log.warning("%s: not done within %.0f s by %s; it is done again elsewhere", task.part, limit, worker)
        for other in self.tasks.values():
            if other.worker == worker:
                other.worker, other.since = None, time.monotonic()
        if task.hangs >= ATTEMPTS:
            self.client.cancel([task.future])  # or the next worker would hang
        try:
            self.client.restart_workers([worker], timeout=RESTART_SECONDS, raise_for_error=False)
        except ValueError:  # it has no nanny that could restart it
            self.client.retire_workers([worker], close_workers=True)
        except (OSError, TimeoutError, KeyError):
            log.debug("%s cannot be restarted", worker, exc_info=True)
        if task.hangs >= ATTEMPTS:
            raise self._failure(
                task, f"not done within {limit:.0f} s, on {task.hangs} workers; see --part-timeout and --part-frames"
            )

    def _take_from_others(self, stuck: list[_Task]) -> None:
        """Take parts from workers that are busy with something else: another's work, or what a dead client left."""
        ours = {task.worker for task in self.tasks.values() if task.worker}
        where = {key: worker for worker, keys in self.client.processing().items() for key in keys if worker not in ours}
        busy = set(where.values())
        others = [worker for worker in self.workers if worker not in busy]
        taken = [task for task in stuck if task.future.key in where]
        if others and taken:
            log.warning("%s does not begin with parts that it has; they are given to others", ", ".join(sorted(busy)))
            self.client.cancel([task.future for task in taken])
            self._give_again(taken, others)

    def _recover(self) -> None:
        """Wait for a scheduler that is lost, and give out again what it had."""
        log.warning("lost the Dask scheduler at %s; waiting for it", self.address)
        deadline = time.monotonic() + self.limits.patience_seconds
        while self.client.status != "running":
            left = deadline - time.monotonic()
            if left <= 0:
                raise ClusterError(
                    f"lost the Dask scheduler at {self.address}, and it did not come back within "
                    f"{self.limits.patience_seconds:.0f} s; run again when it is there: finished parts are kept"
                )
            if self.client.status == "closed":
                with suppress(OSError, TimeoutError):
                    self.client = Client(self.address, security=self.client.security, timeout=left)
            time.sleep(0.1)
        self.client.subscribe_topic(TOPIC, self._heard)
        self._give_again(list(self.tasks.values()))

    def _end(self) -> None:
        """Take back what is given out; what workers have begun they finish, and nobody waits for it."""
        if self.client.status == "running":
            self.client.unsubscribe_topic(TOPIC)
            self.client.cancel([task.future for task in self.tasks.values()])
        self.tasks.clear()
