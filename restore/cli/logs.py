"""How the commands log: lines for people, or JSON lines for machines."""

from __future__ import annotations

import logging

_CLUSTER = "restore.cluster"


def set_up(*, verbose: bool, as_json: bool) -> None:
    """Log to stderr: warnings and where the dashboard of workers is, or with `verbose` also what is done."""
    level = logging.INFO if verbose else logging.WARNING
    handler = logging.StreamHandler()
    # a job logs more into its file, through the same root
    handler.addFilter(lambda record: record.levelno >= level or record.name.startswith(_CLUSTER))
    logging.getLogger(_CLUSTER).setLevel(logging.INFO)
    if as_json:
        from restore.job.jsonlog import JsonLines

        handler.setFormatter(JsonLines())
    else:
        handler.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
    logging.basicConfig(level=level, handlers=[handler])
    logging.captureWarnings(as_json)
