"""What a worker does with a part: see that it can, say that it begins, do it."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import av
from distributed import get_worker

from restore import weights
from restore.colorize.neural import Neural, devices_of
from restore.errors import ClusterError, RestoreError
from restore.machine import Machine, this_machine
from restore.part import Job, PartRecord, finished
from restore.plan import Part
from restore.scratch import local_source
from restore.source.numbered import numbered
from restore.source.probe import fingerprint
from restore.storage import Place

TOPIC = "restore-parts"
"""Where workers say which part they begin; one for all runs, as schedulers keep topics for ever."""

VISIBLE_SECONDS = 5
"""How long a shared folder may take to show a file to another machine."""

Work = Callable[[Part], PartRecord]

_checked: deque[str] = deque(maxlen=256)
"""The runs that this process has been found fit for."""
_checking = threading.Lock()


@dataclass(frozen=True)
class Order:
    """What all tasks of a run have in common, beside the work itself."""

    run: str
    """A name that no other run has."""
    machine: Machine
    """What the machine of the worker must be like."""
    digests: tuple[tuple[str, str], ...] = ()
    """Names of weights, and their SHA-256."""

    @property
    def token(self) -> str:
        """Name of the file in the work folder that every worker must see."""
        return f"{self.run}.token"


def job_of(work: Work) -> Job | None:
    """Return the job of `partial(process, job=job)`; other work has none, and nothing that could be checked."""
    job = work.keywords.get("job") if isinstance(work, partial) else None
    return job if isinstance(job, Job) else None


def order_for(work: Work, run: str, machine: Machine) -> Order:
    """Write down what workers must have, as it is here."""
    job = job_of(work)
    stages = [stage for stage in job.stages if isinstance(stage, Neural)] if job else []
    digests = {stage.weights: weights.sha256_of(weights.find(stage.weights).path) for stage in stages}
    return Order(run, machine, tuple(digests.items()))


def write_token(job: Job, order: Order) -> None:
    """Put a file into the work folder that every worker must see."""
    (job.folder / order.token).write_bytes(order.run.encode())


def remove_token(job: Job, order: Order) -> None:
    """Remove the file again."""
    (job.folder / order.token).remove()


def work_on(part: Part, work: Work, order: Order) -> PartRecord:
    """Do a part, unless another worker has done it: a result can be lost on its way, and a part given out twice.

    Raises:
        ClusterError: This worker cannot do what the client would; the message names the worker.
        RestoreError: As the work raises it.
    """
    try:
        return _worked_on(part, work, order)
    except RestoreError as error:
        _forget_libav(error)
        raise


def _forget_libav(error: BaseException) -> None:
    """Take errors of libav out of what led to an error: one that names a file cannot be unpickled.

    Dask would raise a bare `Exception` in place of the whole.
    """
    for name in ("__cause__", "__context__"):
        if isinstance(before := getattr(error, name), av.FFmpegError):
            setattr(error, name, None)
        elif before is not None:
            _forget_libav(before)


def _worked_on(part: Part, work: Work, order: Order) -> PartRecord:
    worker, job = get_worker(), job_of(work)
    worker.log_event(TOPIC, {"run": order.run, "part": part.number, "worker": worker.address})
    if job:
        _check_once(order, job, f"worker {worker.address}")
    if job and (record := finished(part, job=job)):
        return record
    if job and not job.threads:
        threads = max(1, len(os.sched_getaffinity(0)) // worker.state.nthreads)
        work = partial(work.func, **{**work.keywords, "job": replace(job, threads=threads)})  # type: ignore[attr-defined]
    return work(part)


def _check_once(order: Order, job: Job, name: str) -> None:
    with _checking:
        if order.run in _checked:
            return
        try:
            _check_machine(order.machine, job)
            _check_folder(job.folder, order)
            _check_source(job)
            _check_weights(order)
        except RestoreError as error:
            raise ClusterError(f"{name}: {error}") from error
        _checked.append(order.run)


def _check_machine(wanted: Machine, job: Job) -> None:
    found = this_machine()
    check_versions(wanted, found)
    for stage in job.stages:
        if isinstance(stage, Neural):
            devices_of(stage.device)
            here, there = found.precisions.get(stage.device), wanted.precisions.get(stage.device)
            if stage.precision == "auto" and here != there:
                raise ClusterError(
                    f"computes in {here} on {stage.device} where the others do in {there}; "
                    "choose one with --precision, as results would differ"
                )


def check_versions(wanted: Machine, found: Machine) -> None:
    """Refuse a machine with other versions, as its pixels would differ.

    Raises:
        ClusterError: With the versions that differ.
    """
    names = sorted(wanted.versions.keys() | found.versions.keys())
    pairs = [(name, found.versions.get(name), wanted.versions.get(name)) for name in names]
    if wrong := [f"{name} is {here}, not {there}" for name, here, there in pairs if here != there]:
        raise ClusterError(f"{', '.join(wrong)}; install the same versions there as here, as results would differ")


def _check_folder(folder: Place, order: Order) -> None:
    deadline = time.monotonic() + VISIBLE_SECONDS
    while (folder / order.token).read_if_there() != order.run.encode():
        if time.monotonic() > deadline:
            raise ClusterError(
                f"does not see the work folder {folder} (there is no {order.token}); "
                "put the output into a folder that all machines share under the same path"
            )
        time.sleep(0.2)


def _check_source(job: Job) -> None:
    remedy = "put the source into a folder that all machines share under the same path"
    try:
        with local_source(job.source, job.scratch, keep=True) as source:
            sequence = job.source.kind == "sequence"  # of which a look at all frames would take long
            seen = numbered(Path(source.path)) if sequence else fingerprint(source.path) == job.source.fingerprint
    except RestoreError as error:
        raise ClusterError(f"does not see the source ({error}); {remedy}") from error
    if not seen:
        raise ClusterError(f"sees another source under the name {job.source.path}; {remedy}")


def _check_weights(order: Order) -> None:
    for name, digest in order.digests:
        found = weights.sha256_of(weights.find(name).path)
        if found != digest:
            raise ClusterError(f"has other weights under the name {name} (SHA-256 {found[:12]}, not {digest[:12]})")


def look() -> Machine:
    """Say what this worker is like."""
    return this_machine()
