"""From options to workers that were looked at, and a map over them."""

from __future__ import annotations

import logging
import queue
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

from distributed import Client, Future

from restore.cluster.dask_map import address_of, dask_map
from restore.cluster.executors import executor
from restore.cluster.limits import Limits
from restore.cluster.settings import Dask, Executor, Local, Tls, load_executor, resources
from restore.cluster.task import Work, check_versions, look
from restore.colorize.neural import devices_of
from restore.errors import ClusterError
from restore.film import Map
from restore.machine import Machine, this_machine
from restore.part import PartRecord
from restore.plan import Part
from restore.setup import Options, devices_for

log = logging.getLogger(__name__)

CONNECT_SECONDS = 15
"""How long a scheduler that should be there may take to answer."""

SURVEY_SECONDS = 30
"""How long to wait for workers to say what they are like; those that are busy are looked at before their first part."""


@dataclass(frozen=True)
class Crew:
    """Workers: a map for `restore_film`, and the options for films that they work on."""

    execute: Map
    options: Options
    """As given, with what the workers decide: the type of their devices, their precision and threads."""

    def __call__(self, work: Work, parts: Iterable[Part], /) -> Iterator[PartRecord]:
        return self.execute(work, parts)


@contextmanager
def connect(options: Options) -> Iterator[Crew | None]:
    """Find or start the workers that options ask for; what was started ends with the context.

    Args:
        options: Its `workers`, `executor` or `dask` say who works on parts.

    Yields:
        The crew, or None where this process does the work itself.

    Raises:
        ConfigError: An option or an executor file is wrong.
        ClusterError: The scheduler does not answer, has no workers, or its workers run other versions.
        RestoreError: The workers cannot be had.
    """
    if not options.elsewhere:
        yield None
        return
    settings = _settings(options)
    own = isinstance(settings, Local)
    queued = not isinstance(settings, Local | Dask)
    with executor(settings) as client:
        limits = Limits(
            part_seconds=options.part_timeout, patience_seconds=options.dask_timeout, wait_for_workers=queued
        )
        with _awaited(client, resources(settings)) if queued else nullcontext():
            machine = this_machine() if own else _survey(client, limits)
        if settings.device:
            precisions = {settings.device: machine.precisions.get(settings.device, "fp32")}
            machine = replace(machine, precisions=precisions)
        execute = dask_map(client, machine=machine, limits=limits, resources=resources(settings))
        yield Crew(execute, replace(options, machine=machine, threads=options.threads or settings.cores))


def _settings(options: Options) -> Executor:
    if options.dask is not None:
        files = (options.dask_tls_ca, options.dask_tls_cert, options.dask_tls_key)
        ca, cert, key = (Path(file) if file else None for file in files)
        tls = Tls(ca=ca, cert=cert, key=key) if ca and cert and key else None
        return Dask(address=options.dask, tls=tls, timeout_seconds=CONNECT_SECONDS)
    if options.executor is not None:
        return load_executor(options.executor)
    return Local(workers=options.workers, threads=options.threads, devices=_gpus(options), dashboard=options.dashboard)


def _gpus(options: Options) -> str:
    """Return the devices of local workers as an executor names them: ``auto``, ``cpu`` or numbers of GPUs."""
    wanted = devices_for(options)
    if wanted == "auto":
        return "auto"
    names = devices_of(wanted)
    return ",".join(name.partition(":")[2] or "0" for name in names) if names[0].startswith("cuda") else "cpu"


@contextmanager
def _awaited(client: Client, needs: dict[str, float]) -> Iterator[None]:
    """Have work that waits for a worker: a queue gives none before."""
    work = client.submit(look, key=f"look-{uuid.uuid4().hex}", resources=needs or None)
    yield
    work.release()


def _survey(client: Client, limits: Limits) -> Machine:
    """Ask all workers what they are like, and return what they have in common.

    Raises:
        ClusterError: There are none, or one runs other versions.
    """
    try:
        client.wait_for_workers(1, timeout=None if limits.wait_for_workers else limits.patience_seconds)
    except TimeoutError as error:
        address = address_of(client)
        raise ClusterError(
            f"the Dask scheduler at {address} has no worker; start some with `dask worker {address}`"
        ) from error
    here = this_machine()
    found = _answers(client)
    for worker, machine in found.items():
        try:
            check_versions(here, machine)
        except ClusterError as error:
            raise ClusterError(f"worker {worker}: {error}") from error
    return replace(here, precisions=_in_common([machine.precisions for machine in found.values()]))


def _in_common(kinds: Sequence[dict[str, str]]) -> dict[str, str]:
    """Return the types of devices that all workers have; their precision is fp32 where ``auto`` differs."""
    common = {
        device: precision if all(kind[device] == precision for kind in kinds) else "fp32"
        for device, precision in kinds[0].items()
        if all(device in kind for kind in kinds)
    }
    if len(common) < max(map(len, kinds)):
        log.warning("only some workers have a GPU; without --device, all compute on %s", next(iter(common)))
    return common


def _answers(client: Client) -> dict[str, Machine]:
    """Ask each worker; wait for the first answer as long as it takes, for the others a while."""
    asked = {
        client.submit(look, key=f"look-{worker}-{uuid.uuid4().hex}", workers=[worker], priority=100): worker
        for worker in client.nthreads()
    }
    arrived: queue.SimpleQueue[Future[Machine]] = queue.SimpleQueue()
    for future in asked:
        future.add_done_callback(arrived.put)
    found: dict[str, Machine] = {}
    began = time.monotonic()
    while len(found) < len(asked):
        try:
            future = arrived.get(timeout=1)
            found[asked[future]] = _answer(future, asked[future])
        except queue.Empty:
            if found and time.monotonic() - began > SURVEY_SECONDS:
                log.info("%d workers are busy; they are looked at before their first part", len(asked) - len(found))
                break
            if not found and not client.nthreads().keys() & set(asked.values()):
                raise ClusterError(f"the workers of {address_of(client)} died; run again") from None
    return found


def _answer(future: Future[Machine], worker: str) -> Machine:
    try:
        machine: Machine = future.result()
    except Exception as error:  # whatever unpickling brings, there or on the scheduler
        raise ClusterError(
            f"worker {worker} cannot run restore ({type(error).__name__}: {error}); "
            "install the same version there, and where the scheduler runs, as here"
        ) from error
    return machine
