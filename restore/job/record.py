"""The record beside a result: what it was made from, and how. It decides whether a source is finished, not dates."""

from __future__ import annotations

import json
import logging
from typing import Any

from restore.errors import MediaError
from restore.job.find import Item
from restore.naming import check_output
from restore.source.probe import fingerprint
from restore.storage import Place

log = logging.getLogger(__name__)


def record_place(output: Place) -> Place:
    """Return where the record of a result lies."""
    return output.parent / f"{output.name}.json"


def read_record(output: Place) -> dict[str, Any] | None:
    """Return the record of a result, None if there is none that can be read."""
    data = record_place(output).read_if_there()
    if data is None:
        return None
    try:
        content = json.loads(data)
    except ValueError:
        log.warning("%s: is no record of a result, and does not count", record_place(output))
        return None
    return content if isinstance(content, dict) else None


def source_version(item: Item) -> str:
    """Return what names the content of a source: its fingerprint, or of an object the tag that its store gives it."""
    return fingerprint(item.source.path) if item.source.is_local else item.stat.version


def finished(output: Place, version: str, settings: str) -> dict[str, Any] | None:
    """Return the record of a result that is there, whole, and what would be made again; None if it is not.

    Args:
        output: The result.
        version: Names the content of the source.
        settings: Hash of everything that was chosen about the result.
    """
    record = read_record(output)
    if record is None or (record.get("version"), record.get("settings")) != (version, settings):
        return None
    stat = output.stat()
    return record if stat is not None and stat.size == record.get("bytes") else None


def claim(item: Item, version: str, output: Place, overwrite: bool) -> None:
    """Note that a result is about to be made of a source, so that a run after one that died may replace it.

    Raises:
        MediaError: The output is the source, or a file that is no result of this source and may not be replaced.
    """
    check_output(item.source, output, overwrite=True)
    record = read_record(output)
    if record is not None and (record.get("source") == item.name or record.get("version") == version):
        return
    if output.exists() and not overwrite:
        message = f"exists already, and is no result of {item.name}; move it away, or set overwrite: true"
        raise MediaError(message, str(output))
    write_record(output, {"source": item.name})


def disclaim(output: Place) -> None:
    """Forget a claim of which nothing came."""
    if not output.exists():
        record_place(output).remove()


def write_record(output: Place, record: dict[str, Any]) -> None:
    """Write the record of a result, whole or not at all."""
    record_place(output).write_bytes((json.dumps(record, indent=1, default=str) + "\n").encode())
