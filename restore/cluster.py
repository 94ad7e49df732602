"""Spread parts over processes with Dask; the only module that imports `distributed`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice

import dask.config
from distributed import Client, Future, LocalCluster, as_completed

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
        LocalCluster(n_workers=count, threads_per_worker=1, processes=True, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        yield dask_map(client, window=WINDOW * count)


def dask_map(client: Client, window: int) -> Map:
    """Return a map over a Dask cluster that has at most `window` parts submitted at any time.

    Results come as they are finished. The error of a part is raised here as it was raised there.
    """

    def execute(work: Callable[[Part], PartRecord], parts: Iterable[Part], /) -> Iterator[PartRecord]:
        waiting = iter(parts)
        futures = [_submit(client, work, part) for part in islice(waiting, window)]
        running = as_completed(futures)
        try:
            for future in running:
                yield future.result()
                futures.remove(future)
                if (part := next(waiting, None)) is not None:
                    futures.append(_submit(client, work, part))
                    running.add(futures[-1])
        finally:
            client.cancel(futures)

    return execute


def _submit(client: Client, work: Callable[[Part], PartRecord], part: Part) -> Future[PartRecord]:
    return client.submit(work, part, key=f"restore-{part.number:06d}-{part.first}", pure=False)
