"""How the commands log: lines for people, or JSON lines for machines."""

from __future__ import annotations

import logging


def set_up(*, verbose: bool, as_json: bool) -> None:
    """Log to stderr: warnings, or with `verbose` also what is done."""
    level = logging.INFO if verbose else logging.WARNING
    handler = logging.StreamHandler()
    handler.setLevel(level)  # a job logs more into its file, through the same root
    if as_json:
        from restore.job.jsonlog import JsonLines

        handler.setFormatter(JsonLines())
    else:
        handler.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
    logging.basicConfig(level=level, handlers=[handler])
    logging.captureWarnings(as_json)
