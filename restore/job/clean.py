"""Remove what dead runs and vanished sources have left; results and sources are never touched."""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import time
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from restore.job.attempt import fetched_name, scratch_folder
from restore.job.config import JobConfig
from restore.job.find import Item
from restore.lease import LeaseHeld, holder_of, lease
from restore.storage import Place, place

log = logging.getLogger(__name__)

_TEMPORARY = re.compile(r"\..+(\.[0-9a-f]{8}\.tmp|\.\d+\.partial\.\w+|\.tmp)")
"""Names of files that are being written."""
_DAY_SECONDS = 86_400
_OWN = frozenset({"parts", "lock", "lease", "plan.json", "scan.json", "reel.npz"})
"""What is in a work folder."""


def clean(config: JobConfig, root: Place, items: Collection[Item]) -> None:
    """Remove work folders and fetched copies of sources that are gone, dead leases, and old temporary files.

    Args:
        config: Of the job, whose lease is held.
        root: Of its results.
        items: Its sources.
    """
    expected = {item.output for item in items}
    scratch = scratch_folder(config)
    results = root.path if root.is_local else scratch / "results"
    for path in list(_leftovers(results)):
        if path.suffix == ".restore":
            _clean_work(path, expected, results)
        elif path.suffix == ".lease":
            _free(place(path))
        else:
            _remove(path)
    wanted = {fetched_name(item) for item in items}
    for folder in (scratch / "sources").iterdir() if (scratch / "sources").is_dir() else ():
        if folder.name not in wanted:
            _remove(folder)


def _leftovers(results: Path) -> Iterator[Path]:
    for here, folders, files in os.walk(results):
        folder = Path(here)
        own = [name for name in folders if name.endswith((".restore", ".lease"))]
        yield from (folder / name for name in own)
        folders[:] = [name for name in folders if name not in own]
        yield from (folder / name for name in files if _TEMPORARY.fullmatch(name) and _is_old(folder / name))


def _is_old(path: Path) -> bool:
    """Tell whether nobody writes a temporary file any more."""
    with suppress(FileNotFoundError):
        return time.time() - path.stat().st_mtime > _DAY_SECONDS
    return False


def _clean_work(folder: Path, expected: Collection[str], results: Path) -> None:
    """Remove a work folder whose source is gone, unless somebody works in it."""
    output = folder.relative_to(results).as_posix().removesuffix(".restore")
    if output in expected or not {entry.name for entry in folder.iterdir()} <= _OWN:
        return
    source = _plan(folder).get("source")
    if isinstance(source, str) and Path(source).exists():
        return
    if holder_of(place(folder) / "lease") is None:
        _remove(folder)


def _plan(folder: Path) -> dict[str, Any]:
    try:
        content = json.loads((folder / "plan.json").read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _free(folder: Place) -> None:
    """Free a lease whose holder is dead."""
    if not all(name.endswith(".json") for name in folder.listing()):
        return
    try:
        with lease(folder):
            log.info("%s: freed, its holder is dead", folder)
    except LeaseHeld:
        return


def _remove(path: Path) -> None:
    log.info("%s: removed, nothing needs it any more", path)
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
