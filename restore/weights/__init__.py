"""Weights: the registry of what is known, downloads, checkpoints, and the files on this machine."""

from __future__ import annotations

from restore.weights.checkpoint import read_state
from restore.weights.download import sha256_of
from restore.weights.registry import Entry, default_name, entries, user_folder
from restore.weights.store import Verification, WeightsFile, fetch, find, import_file, installed, verify

__all__ = [
    "Entry",
    "Verification",
    "WeightsFile",
    "default_name",
    "entries",
    "fetch",
    "find",
    "import_file",
    "installed",
    "read_state",
    "sha256_of",
    "user_folder",
    "verify",
]
