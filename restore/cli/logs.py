"""How the commands log: lines for people, or JSON lines for machines."""

from __future__ import annotations

import logging

_TOLD = ("restore.cluster", "restore.job.figures")
"""Whose information is told in any case: where the dashboard is, and where the metrics are."""
_DASK = "distributed"
_CANCEL = "<function sync.<locals>.cancel at"
"""In what Dask logs when Ctrl-C meets a call that has not begun: it fails to cancel what is not there yet."""


def set_up(*, verbose: bool, as_json: bool) -> None:
    """Log to stderr: warnings and where workers and metrics can be looked at, or with `verbose` also what is done.

    Of Dask only errors are told without `verbose`: its warnings are of what we look after ourselves.
    """
    level = logging.INFO if verbose else logging.WARNING
    handler = logging.StreamHandler()

    def is_told(record: logging.LogRecord) -> bool:
        """Choose what is told here; a job logs more into its file, through the same root."""
        if _CANCEL in record.getMessage():
            return False
        if record.name.startswith(_DASK) and not verbose:
            return record.levelno >= logging.ERROR
        return record.levelno >= level or record.name.startswith(_TOLD)

    handler.addFilter(is_told)
    for name in _TOLD:
        logging.getLogger(name).setLevel(logging.INFO)
    if as_json:
        from restore.job.jsonlog import JsonLines

        handler.setFormatter(JsonLines())
    else:
        handler.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
    logging.basicConfig(level=level, handlers=[handler])
    logging.captureWarnings(as_json)
