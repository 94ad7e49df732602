"""Restore old film: give black-and-white films and photographs colour, without harming the original.

`run` restores, `inspect` says what a source is and what `run` would do with it. Errors that a user can set right are
`RestoreError`.
"""

__version__ = "0.1.0"

import restore.allocator

restore.allocator.settle()  # before the imports of torch

from restore.errors import ConfigError, MediaError, RestoreError, StageError, WeightsError
from restore.inspection import Inspection, inspect
from restore.run import BatchError, run
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
