"""Restore one film: scan, plan, work on its parts wherever they are worked on, join."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Protocol

from restore import reel as reels
from restore.config import dump_pipeline
from restore.errors import ConfigError, MediaError, StageError
from restore.lease import Lease, LeaseHeld, lease
from restore.naming import folder_of, joining
from restore.output.encode import check_profile
from restore.output.join import Local, PartFile, join
from restore.output.profiles import Profile
from restore.output.streams import check_container
from restore.part import Job, PartRecord, finished_parts, process, write_json
from restore.plan import Part, parts_of, shots_of
from restore.reel import Reel
from restore.scratch import fetched_ahead, local_source, work_folder
from restore.source.probe import Source
from restore.stage import Stage
from restore.storage import Place

log = logging.getLogger(__name__)

PART_SECONDS = 15
"""Length of a part of a long shot, or of the short shots that share one."""

_LEASE = "lease"
"""The folder in the work folder that says who works on the film."""


class Map(Protocol):
    """How parts are worked on: anything shaped like the builtin `map`; results may come in any order."""

    def __call__(self, work: Callable[[Part], PartRecord], parts: Iterable[Part], /) -> Iterator[PartRecord]: ...


Progress = Callable[[str, int, int | None], None]
"""Called with a phase (``scan``, ``restore``, ``join``), what is done of it, and its total if that is known; also with
``parts`` when one is done."""


@dataclass(frozen=True)
class Film:
    """A film to be restored, with everything that decides its output."""

    source: Source
    """Its path may be the URL of a file in an object store."""
    output: Place
    stages: tuple[Stage, ...]
    profile: Profile
    versions: dict[str, str]
    """What else decides the pixels: hashes of weights, versions of libraries, the type of device."""
    key: str
    """Hash of stages, profile, versions and the source's fingerprint."""
    start_seconds: Fraction | None = None
    end_seconds: Fraction | None = None
    part_frames: int | None = None
    """Frames of a part; `PART_SECONDS` if None."""
    chunk: int = 16
    threads: int = 0
    scratch: Path | None = None
    """Where each machine keeps what it fetches from an object store; its folder for temporary files if None."""

    @property
    def folder(self) -> Place:
        """The work folder, beside the output."""
        return folder_of(self.output)

    @property
    def job(self) -> Job:
        """What its parts have in common."""
        return Job(
            self.source, self.stages, self.profile, self.folder, self.key, self.chunk, self.threads, self.scratch
        )


@dataclass(frozen=True)
class FilmReport:
    """What became of a film."""

    output: Place
    frames: int
    parts: int
    resumed_parts: int
    """Parts that an earlier run had finished."""
    seconds: float
    mean_chroma: float
    """Mean of sqrt(a*^2 + b*^2) before painting."""


def restore_film(
    film: Film, *, execute: Map | None = None, fresh: bool = False, progress: Progress | None = None
) -> FilmReport:
    """Restore a film into its output, which appears whole or not at all.

    A run that was interrupted continues where it was: what is finished and undamaged is not done again.

    Args:
        film: What to do.
        execute: How parts are worked on; the builtin `map` if None.
        fresh: Forget what an earlier run has done.
        progress: Told how far the work is.

    Raises:
        RestoreError: Something a user can set right. The work folder stays, so the next run continues.
    """
    began = time.monotonic()
    with local_source(film.source, film.scratch, keep=False) as source:
        _check(film, source)
        with _held(film) as held:
            if fresh:
                _clear(film.folder)
            _sweep(film.job.parts)
            reel = _scan(film, source, progress)
            for line in remarks(source, reel):
                log.warning("%s: %s", film.source.path, line)
            parts = _plan(film, reel)
            done = finished_parts(parts, job=film.job)
            if resumed := len(done):
                log.info("%s: %d of %d parts are done", film.output, resumed, len(parts))
            missing = [part for part in parts if part.number not in done]
            for record in _execute(missing, parts, film.job, execute, progress):
                held.check()
                done[record.number] = record
            if lost := [part for part in parts if part.number not in done]:
                raise StageError("no worker finished this part", "part", (lost[0].first, lost[0].stop - 1))
            note = joining(film.output)
            note.write_bytes(b"")
            _join(film, source, reel, parts, held, progress)
            report = _report(film, list(done.values()), resumed, time.monotonic() - began)
            note.remove()
            _clear(film.folder)
    return report


def remarks(source: Source, reel: Reel) -> Iterator[str]:
    """Say what a user should know about a source before it is restored."""
    if reels.has_colour(source, reel.index):
        yield "it has colour or a tint of its own; only its luma is used"
    if reel.fields.order in ("tff", "bff"):
        yield "it is interlaced; it is coloured frame by frame, and its field flags are kept"
    if reel.fields.telecine:
        yield "it is telecined; it is coloured as it is, repeated fields included"


def _execute(
    missing: list[Part], parts: Sequence[Part], job: Job, execute: Map | None, progress: Progress | None
) -> Iterator[PartRecord]:
    """Work on parts, and tell the progress: by frames here, by parts where others do the work."""
    total = sum(len(part) for part in parts)
    done = total - sum(len(part) for part in missing)
    before = len(parts) - len(missing)
    if progress:
        progress("restore", done, total)
    if execute is not None:
        for number, record in enumerate(execute(partial(process, job=job), missing), before + 1):
            done += record.frames
            if progress:
                progress("parts", number, len(parts))
                progress("restore", done, total)
            yield record
        return

    def count(frames: int) -> None:
        nonlocal done
        done += frames
        if progress:
            progress("restore", done, total)

    for number, record in enumerate(map(partial(process, job=job, progress=count), missing), before + 1):
        if progress:
            progress("parts", number, len(parts))
        yield record


def _check(film: Film, source: Source) -> None:
    """Refuse what cannot be written, before work starts."""
    if film.profile.is_sequence and not film.output.is_local:
        message = "numbered frames are written to a folder, not to an object store; name a folder or a film"
        raise ConfigError(f"{film.output}: {message}")
    check_container(source, film.output, film.profile)
    check_profile(film.profile, source)


@contextmanager
def _held(film: Film) -> Iterator[Lease]:
    """Hold the work folder, so that two runs never write the same output."""
    with ExitStack() as stack:
        stack.callback(film.folder.remove_empty)  # after the lease is released
        try:
            held = stack.enter_context(lease(film.folder / _LEASE))
        except LeaseHeld as error:
            message = f"another run is working on this output ({error.holder}); wait for it or stop it"
            raise LeaseHeld(message, str(film.output), error.holder) from error
        except MediaError as error:
            raise MediaError(f"cannot make the work folder: {error.message}", str(film.folder)) from error
        yield held


def _clear(folder: Place) -> None:
    """Remove what is in a work folder, but for the lease."""
    for child in folder.children():
        if child.name != _LEASE:
            child.remove_tree()


def _sweep(parts: Place) -> None:
    """Remove what workers were writing when they died."""
    for child in parts.children() if parts.is_local else ():
        if child.name.startswith("."):
            with suppress(MediaError):  # a dead run's worker may still write there; it goes with the work folder
                child.remove_tree()


def _scan(film: Film, source: Source, progress: Progress | None) -> Reel:
    """Return what one pass over the film finds, from an earlier run if it looked at the same film."""
    notes = {
        "fingerprint": film.source.fingerprint,
        "start": str(film.start_seconds),
        "end": str(film.end_seconds),
    }
    file = film.folder / "scan.json"
    try:
        if json.loads(file.read_if_there() or b"null") == notes:
            return reels.load(film.folder)
    except (ValueError, MediaError):
        log.debug("%s: no earlier scan to use", film.output)
    seen = 0

    def count(frames: int) -> None:
        nonlocal seen
        seen += frames
        if progress:
            progress("scan", seen, film.source.frames)

    reel = reels.scan(
        source,
        start_seconds=film.start_seconds,
        end_seconds=film.end_seconds,
        threads=film.threads,
        progress=count,
    )
    reels.save(reel, film.folder)
    write_json(file, notes)
    return reel


def _plan(film: Film, reel: Reel) -> tuple[Part, ...]:
    """Cut the reel into parts and write the plan down."""
    wanted = reel.between(film.source, film.start_seconds, film.end_seconds)
    size = film.part_frames or max(1, round(PART_SECONDS * film.source.average_rate))
    parts = parts_of(shots_of((0, len(reel)), reel.cuts), size, wanted)
    plan = {
        "source": film.source.path,
        "fingerprint": film.source.fingerprint,
        "key": film.key,
        "pipeline": dump_pipeline(film.stages),
        "profile": film.profile.name,
        "frames": wanted,
        "cuts": reel.cuts,
        "fields": asdict(reel.fields),
        "parts": [(part.first, part.stop) for part in parts],
    }
    write_json(film.folder / "plan.json", plan)
    return parts


def _join(
    film: Film, source: Source, reel: Reel, parts: tuple[Part, ...], held: Lease, progress: Progress | None
) -> None:
    """Join the parts into the output, by way of this machine where the output is in an object store."""
    count = partial(progress, "join") if progress else None
    passage = {}
    if film.start_seconds is not None or film.end_seconds is not None:
        passage = {"start": film.start_seconds, "end": film.end_seconds}
    pts, durations, places = reel.index.pts, reel.index.duration, [film.job.file(part) for part in parts]

    def joined(folder: Path, output: Path, local: Local) -> None:
        spans = [slice(part.first, part.stop) for part in parts]
        named = zip(places, spans, strict=True)
        files = [PartFile(folder / file.name, pts[span], durations[span]) for file, span in named]
        join(source, files, output, film.profile, progress=count, local=local, **passage)

    held.check()
    if film.output.is_local:
        joined(film.job.parts.path, film.output.path, nullcontext)
        return
    with work_folder(film.scratch) as folder:
        with fetched_ahead(places, folder) as local:
            joined(folder, folder / film.output.name, local)
        held.check()
        film.output.put(folder / film.output.name)


def _report(film: Film, records: list[PartRecord], resumed: int, seconds: float) -> FilmReport:
    """Say what became of a film, and write beside the output how it was made, so that it can be made again."""
    frames = sum(record.frames for record in records)
    mean_chroma = sum(record.mean_chroma * record.frames for record in records) / frames
    report = FilmReport(film.output, frames, len(records), resumed, round(seconds, 2), round(mean_chroma, 2))
    content = {
        "source": film.source.path,
        "fingerprint": film.source.fingerprint,
        "pipeline": dump_pipeline(film.stages),
        "profile": film.profile.name,
        "versions": film.versions,
        "assumed": film.source.color.assumed,
        **asdict(report),
        "output": str(film.output),
    }
    try:
        write_json(film.output.parent / f"{film.output.name}.json", content)
    except MediaError as error:
        raise MediaError(f"the film is done, but not its report: {error.message}", error.path) from error
    return report
