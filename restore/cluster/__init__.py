"""Spread parts over processes and machines with Dask; the only package that imports `distributed`."""

from restore.cluster.dask_map import dask_map, local_workers

__all__ = ["dask_map", "local_workers"]
