"""One attempt at one source: fetch it, restore it, put the result and its record where they belong."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

import av

from restore import stills
from restore.config import dump_pipeline
from restore.errors import ClusterError, MediaError, RestoreError, StageError
from restore.film import Map, Progress, restore_film
from restore.job.config import JobConfig
from restore.job.find import Item
from restore.job.look import look
from restore.job.record import disclaim, read_record, source_version, write_record
from restore.lease import LeaseHeld, LeaseLost
from restore.photo import restore_photo
from restore.setup import Options, film_for, stages_for
from restore.source.probe import probe
from restore.storage import Place

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
        return isinstance(error, ChangedError) or _of_store(error)
    if isinstance(error, StageError):
        return error.stage == "part"
    return isinstance(error, ClusterError | LeaseLost | ConnectionError | TimeoutError)


def _of_store(error: MediaError) -> bool:
    """Tell whether a store has failed: the client of one has raised something, and not the reader of a file."""
    reasons = MediaError | av.FFmpegError | FileNotFoundError | PermissionError | None
    return "://" in error.path and not isinstance(error.__cause__, reasons)


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


def _restored(task: Task, config: JobConfig, workers: Workers, progress: Progress) -> Outcome:
    item, output = task.item, task.output
    outcome, record = _film(task, workers, progress) if item.kind == "film" else _still(task, config)
    if item.source.stat() != item.stat:
        raise ChangedError("it was changed while it was read; it is done again", item.name)
    if seen := look(item.source, output, still=item.kind == "still"):
        outcome = replace(outcome, colourfulness=seen.colourfulness, jpeg=seen.jpeg)
    record |= {
        "source": item.name,
        "version": source_version(item),
        "settings": task.settings,
        "bytes": output.size(),
        "frames": outcome.frames,
        "colourfulness": outcome.colourfulness,
    }
    write_record(output, record)
    return outcome


def _film(task: Task, workers: Workers, progress: Progress) -> tuple[Outcome, dict[str, Any]]:
    execute, options = workers()
    film = film_for(task.item.source, task.output, options)
    changed = _other_film(film.folder, film.source.fingerprint)
    report = restore_film(film, execute=execute, fresh=changed, progress=progress)
    outcome = Outcome("done", report.frames, report.parts, report.resumed_parts, report.mean_chroma)
    return outcome, read_record(task.output) or {}


def _other_film(folder: Place, fingerprint: str) -> bool:
    """Tell whether a work folder is of what the source was before it changed."""
    try:
        return bool(json.loads((folder / "plan.json").read_if_there() or b"")["fingerprint"] != fingerprint)
    except (ValueError, KeyError, TypeError):
        return False


def _still(task: Task, config: JobConfig) -> tuple[Outcome, dict[str, Any]]:
    stages = stages_for("still", config.options())
    report = restore_photo(task.item.source, task.output, stages, scratch=config.scratch)
    if report.toned == "color":
        log.warning("%s: it has colour of its own; only its luma is used", task.item.name)
    return Outcome("done", frames=1), {"pipeline": dump_pipeline(stages), "toned": report.toned}


def _tidy(output: Place) -> None:
    try:
        disclaim(output)
    except RestoreError as error:
        log.warning("%s", error)
