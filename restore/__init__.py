"""Restore old film: give black-and-white films and photographs colour, without harming the original.

`run` restores, `inspect` says what a source is and what `run` would do with it. Errors that a user can set right are
`RestoreError`.
"""

__version__ = "0.1.0"

from importlib import import_module
from typing import TYPE_CHECKING

import restore.allocator

restore.allocator.settle()  # before the imports of torch

from restore.errors import ConfigError, MediaError, RestoreError, StageError, WeightsError

if TYPE_CHECKING:
    from restore.batch import BatchError, run
    from restore.inspection import Inspection, inspect
    from restore.setup import Options

__all__ = [
    "BatchError",
    "ConfigError",
    "Inspection",
    "MediaError",
    "Options",
    "RestoreError",
    "StageError",
    "WeightsError",
    "inspect",
    "run",
]

_LATER = {
    "BatchError": "batch",
    "Inspection": "inspection",
    "Options": "setup",
    "inspect": "inspection",
    "run": "batch",
}
"""The module of each name that brings torch with it: imported when it is asked for, so that help need not wait."""


if not TYPE_CHECKING:  # which would take every name for one of ours

    def __getattr__(name: str) -> object:
        if name not in _LATER:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"restore.{_LATER[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
