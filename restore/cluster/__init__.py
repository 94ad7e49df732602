"""Spread parts over processes and machines with Dask; the only package that imports `distributed`."""

from restore.cluster.crew import Crew, connect
from restore.cluster.dask_map import dask_map, local_workers
from restore.cluster.limits import Limits

__all__ = ["Crew", "Limits", "connect", "dask_map", "local_workers"]
