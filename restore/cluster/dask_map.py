"""A map over the workers of a Dask cluster."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice

import dask.config
from distributed import Client, Future, KilledWorker, LocalCluster, as_completed

from restore.errors import StageError
from restore.film import Map
from restore.part import PartRecord
from restore.plan import Part

log = logging.getLogger(__name__)

WINDOW = 3
"""Parts submitted per worker at a time: enough to keep it busy, few enough to keep the client small."""


@contextmanager
def local_workers(count: int) -> Iterator[Map]:
    """Start worker processes on this machine and give a map over them; they end with the context.

    Args:
        count: Number of processes, each of which works on one part at a time.
    """
    settings = {"distributed.logging.distributed": "error"}
    with (
        dask.config.set(settings),
        # Parts bound their own memory; Dask's limit would kill a worker that is merely large.
        LocalCluster(
            n_workers=count, threads_per_worker=1, processes=True, memory_limit=0, dashboard_address=None
        ) as cluster,
        Client(cluster) as client,
    ):
        yield dask_map(client, window=WINDOW * count)


def dask_map(client: Client, window: int) -> Map:
    """Return a map over a Dask cluster that has at most `window` parts submitted at any time.

    Results come as they are finished. The error of a part is raised here as it was raised there. A part whose worker
    dies is done again elsewhere; if that happens several times, a `StageError` names it.
    """

    def execute(work: Callable[[Part], PartRecord], parts: Iterable[Part], /) -> Iterator[PartRecord]:
        waiting, run = iter(parts), uuid.uuid4().hex[:8]

        def submit(part: Part) -> Future[PartRecord]:
            return client.submit(work, part, key=f"frames-{part.first}-{part.stop - 1}-{run}", pure=False)

        futures = {submit(part): part for part in islice(waiting, window)}
        running = as_completed(futures)
        try:
            for future in running:
                part = futures.pop(future)
                try:
                    yield future.result()
                except KilledWorker as error:
                    message = "its worker died several times, perhaps for want of memory; use fewer --workers"
                    raise StageError(message, "part", (part.first, part.stop - 1)) from error
                if (following := next(waiting, None)) is not None:
                    futures[submit(following)] = following
                    running.update([list(futures)[-1]])
        finally:
            client.cancel(list(futures))

    return execute
