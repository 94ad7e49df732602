"""One attempt at one source: fetch it, restore it, put the result and its record where they belong."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Protocol

from restore import stills
from restore.config import dump_pipeline
from restore.errors import ClusterError, MediaError, RestoreError, StageError
from restore.film import Map, Progress, restore_film
from restore.job.config import JobConfig
from restore.job.find import Item
from restore.job.look import look
from restore.job.record import disclaim, read_record, record_place, source_version, write_record
from restore.lease import LeaseHeld, LeaseLost
from restore.photo import restore_photo
from restore.setup import Options, film_for, stages_for
from restore.source.probe import probe
from restore.storage import Place, place
from restore.weights.registry import user_folder

log = logging.getLogger(__name__)


class Workers(Protocol):
    """Gives what works on the parts of a film, and the options for it, when the first film needs it."""

    def __call__(self) -> tuple[Map | None, Options]: ...


@dataclass(frozen=True, slots=True)
class Task:
    """A source to restore."""

    item: Item
    output: Place
    settings: str
    """Hash of everything that was chosen about the result."""
    arriving: bool = False
    """It may not have arrived whole yet."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a source."""

    state: Literal["done", "failed", "incomplete", "elsewhere"]
    frames: int = 0
    parts: int = 0
    resumed_parts: int = 0
    mean_chroma: float | None = None
    colourfulness: float | None = None
    jpeg: bytes | None = field(default=None, repr=False)
    error: str | None = None
    may_pass: bool = False
    """Whether it is worth while to try again soon."""


class ChangedError(MediaError):
    """A source was written while it was read."""


def attempt(task: Task, config: JobConfig, workers: Workers, progress: Progress) -> Outcome:
    """Restore a source, and say what came of it, whatever goes wrong."""
    try:
        if task.arriving and not complete(task.item):
            return Outcome("incomplete")
        return _restored(task, config, workers, progress)
    except LeaseHeld as error:
        return Outcome("elsewhere", error=str(error))
    except Exception as error:
        if not isinstance(error, RestoreError | OSError):
            log.exception("%s: a fault of the program", task.item.name)
        return Outcome("failed", error=str(error) or type(error).__name__, may_pass=may_pass(error))
    finally:
        _tidy(task.output)


def may_pass(error: Exception) -> bool:
    """Tell whether an error may be gone when tried again: of a store, a network or a worker, not of a source."""
    if isinstance(error, MediaError):
        return "://" in error.path or isinstance(error, ChangedError)
    if isinstance(error, StageError):
        return error.stage == "part"
    return isinstance(error, ClusterError | LeaseLost | ConnectionError | TimeoutError)


def complete(item: Item) -> bool:
    """Tell whether a file has arrived whole, as far as it says; an object is there whole or not at all."""
    if not item.source.is_local:
        return True
    try:
        if item.kind == "film":
            return probe(item.source.path).missing_bytes == 0
        stills.read(item.source.path)
    except MediaError:
        return False
    return True


def scratch_folder(config: JobConfig) -> Path:
    """Return the folder of what is fetched from, or will be put into, an object store."""
    name = hashlib.sha256(config.output.encode()).hexdigest()[:12]
    return config.scratch or user_folder().parent / "jobs" / name


def fetched_name(item: Item) -> str:
    """Name the folder of a fetched source, which is another if its content is another."""
    return hashlib.sha256(f"{item.name}\n{item.stat.version}".encode()).hexdigest()[:16]


def _restored(task: Task, config: JobConfig, workers: Workers, progress: Progress) -> Outcome:
    item, output = task.item, task.output
    local = output.path if output.is_local else scratch_folder(config) / "results" / item.output
    local.parent.mkdir(parents=True, exist_ok=True)
    with _fetched(item, config) as source:
        if item.kind == "film":
            outcome, record = _film(source, local, workers, progress)
        else:
            outcome, record = _still(source, local, config)
        if item.source.stat() != item.stat:
            raise ChangedError("it was changed while it was read; it is done again", item.name)
        if seen := look(source, local, still=item.kind == "still"):
            outcome = replace(outcome, colourfulness=seen.colourfulness, jpeg=seen.jpeg)
    record |= {
        "source": item.name,
        "version": source_version(item),
        "settings": task.settings,
        "bytes": local.stat().st_size,
        "frames": outcome.frames,
        "colourfulness": outcome.colourfulness,
    }
    if not output.is_local:
        output.put(local)
        local.unlink()
        record_place(place(local)).remove()
        record["output"] = str(output)
    write_record(output, record)
    return outcome


@contextmanager
def _fetched(item: Item, config: JobConfig) -> Iterator[Path]:
    """Give a source as a local file; what was fetched is removed at the end, but kept for the next run on an error."""
    if item.source.is_local:
        yield item.source.path
        return
    folder = scratch_folder(config) / "sources" / fetched_name(item)
    folder.mkdir(parents=True, exist_ok=True)
    local = folder / item.source.name
    if not (local.is_file() and local.stat().st_size == item.stat.size):
        log.info("%s: fetching %d MB", item.name, item.stat.size // 10**6)
        item.source.fetch(local)
    yield local
    shutil.rmtree(folder)


def _film(source: Path, local: Path, workers: Workers, progress: Progress) -> tuple[Outcome, dict[str, Any]]:
    execute, options = workers()
    film = film_for(source, local, options)
    changed = _other_film(film.folder, film.source.fingerprint)
    report = restore_film(film, execute=execute, fresh=changed, progress=progress)
    outcome = Outcome("done", report.frames, report.parts, report.resumed_parts, report.mean_chroma)
    return outcome, read_record(place(local)) or {}


def _other_film(folder: Place, fingerprint: str) -> bool:
    """Tell whether a work folder is of what the source was before it changed."""
    try:
        return bool(json.loads((folder / "plan.json").read_bytes())["fingerprint"] != fingerprint)
    except (MediaError, ValueError, KeyError, TypeError):
        return False


def _still(source: Path, local: Path, config: JobConfig) -> tuple[Outcome, dict[str, Any]]:
    stages = stages_for("still", config.options())
    report = restore_photo(source, local, stages)
    if report.toned == "color":
        log.warning("%s: it has colour of its own; only its luma is used", source)
    return Outcome("done", frames=1), {"pipeline": dump_pipeline(stages), "toned": report.toned}


def _tidy(output: Place) -> None:
    try:
        disclaim(output)
    except RestoreError as error:
        log.warning("%s", error)
