"""Remove what dead runs and vanished sources have left; results and sources are never touched."""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Collection, Iterator

from restore.errors import RestoreError
from restore.job.find import Item
from restore.job.record import read_record, record_place
from restore.lease import LeaseHeld, lease
from restore.storage import Place, place

log = logging.getLogger(__name__)

_TEMPORARY = re.compile(r"\..+(\.tmp|\.\d+\.partial\.\w+)")
"""Names of files that are being written."""
_DAY_SECONDS = 86_400
_OWN = frozenset({"parts", "lease", "plan.json", "scan.json", "reel.npz", "joining"})
"""What is in a work folder."""


def clean(root: Place, items: Collection[Item]) -> None:
    """Remove work folders and claims of sources that are gone, dead leases, and temporary files a day old.

    Args:
        root: Of the results of a job, whose lease is held.
        items: Its sources.
    """
    expected = {str(root / item.output) for item in items}
    # claims last: of some work folders only they say the source
    for path in sorted(_leftovers(root), key=lambda path: path.suffix == ".json"):
        output = path.parent / path.name.removesuffix(path.suffix)
        try:
            if path.suffix == ".lease":
                _free(path)
            elif path.suffix == ".restore" and str(output) not in expected:
                _clean_work(path, output)
            elif path.suffix == ".json" and str(output) not in expected:
                _clean_claim(path, output)
            elif _TEMPORARY.fullmatch(path.name):
                _remove(path)
        except RestoreError as error:
            log.warning("%s: it cannot be removed now", error)


def _leftovers(folder: Place) -> Iterator[Place]:
    """Find what may be left over; folders that are symbolic links are not entered."""
    for name, stat in folder.listing().items():
        path = folder / name
        if stat is not None:
            if name.endswith(".json") or (_TEMPORARY.fullmatch(name) and _is_old(path)):
                yield path
        elif name.endswith((".restore", ".lease")):
            yield path
        elif not name.startswith(".") and not (path.is_local and path.path.is_symlink()):
            yield from _leftovers(path)


def _is_old(file: Place) -> bool:
    """Tell whether nobody writes a temporary file any more; a store has none."""
    try:
        return file.is_local and time.time() - file.path.stat().st_mtime > _DAY_SECONDS
    except FileNotFoundError:
        return False


def _clean_work(folder: Place, output: Place) -> None:
    """Remove a work folder whose source is gone, unless somebody works in it, perhaps by a clock that goes wrong."""
    source = _source_of(folder / "plan.json") or _source_of(record_place(output))
    if source is None or _exists(source) or not set(folder.listing()) <= _OWN:
        return
    try:
        with lease(folder / "lease"):
            pass
    except LeaseHeld:
        return
    _remove(folder)


def _source_of(file: Place) -> str | None:
    """Return the source that a plan or a record names."""
    try:
        return str(json.loads(file.read_if_there() or b"")["source"])
    except (ValueError, TypeError, KeyError):
        return None


def _clean_claim(file: Place, output: Place) -> None:
    """Remove the record of a result that never was, of a source that is gone."""
    record = read_record(output)
    if record is not None and set(record) == {"source"} and not output.exists() and not _exists(record["source"]):
        _remove(file)


def _exists(source: str) -> bool:
    return place(source).exists()


def _free(folder: Place) -> None:
    """Free a lease whose holder is dead."""
    if not all(name.endswith(".json") for name in folder.listing()):
        return
    try:
        with lease(folder):
            log.info("%s: freed, its holder is dead", folder)
    except LeaseHeld:
        return


def _remove(path: Place) -> None:
    log.info("%s: removed, nothing needs it any more", path)
    path.remove_tree()
