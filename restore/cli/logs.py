"""How the commands log: lines for people, or JSON lines for machines."""

from __future__ import annotations

import logging


def set_up(*, verbose: bool, as_json: bool) -> None:
    """Log to stderr: warnings, or with `verbose` also what is done."""
    handler = logging.StreamHandler()
    if as_json:
        from restore.job.jsonlog import JsonLines  # imported late: it brings torch

        handler.setFormatter(JsonLines())
    else:
        handler.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
    logging.basicConfig(level=logging.INFO if verbose else logging.WARNING, handlers=[handler])
    logging.captureWarnings(as_json)
