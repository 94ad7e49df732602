"""Make a training set: screen pictures, drop what is no colour photograph or is there twice, write tar shards.

Pictures are examined in worker processes, in an order that only their names decide; the results are merged in that
order, so what is written does not depend on the number of workers. The set grows in a work folder beside the output
and is renamed into place when it is whole. A run that was stopped goes on at its last checkpoint.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import multiprocessing
import signal
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from filelock import FileLock, Timeout

from restore import __version__
from restore.errors import ConfigError, MediaError, RestoreError
from restore.output.disk import sync, writing
from restore.photographs import Photo, find, fingerprint
from restore.train.assembly import PICTURES, PROGRESS, SPLITS, Assembly
from restore.train.screen import Criteria, Examined, Form, examine

log = logging.getLogger(__name__)

REPORT = "report.json"
_LOCK = ".lock"

_CHECKPOINT = 2000
"""Pictures between checkpoints."""
_CHUNK = 8
"""Pictures a worker examines at a time."""
_AHEAD = 4
"""Chunks a worker may be ahead of the merge: bounds the memory."""

Advance = Callable[[int, int, int], None]
"""Called with the number of pictures looked at, of all, and of those kept."""


@dataclass(frozen=True, slots=True)
class Preparation:
    """What decides a training set, beside its pictures."""

    criteria: Criteria = field(default_factory=Criteria)
    """Which pictures are dropped."""
    form: Form = field(default_factory=Form)
    """Size and quality."""
    shard_mb: int = 32
    """Megabytes from which on a shard is ended."""
    validation_share: float = 0.0
    """Share of the pictures held out, chosen by the hash of their bytes."""
    margin: int = 10
    """Bits of the perceptual hash in which training and validation pictures differ at least, and one more."""

    def __post_init__(self) -> None:
        """Check what types cannot say."""
        for name, value, low, high in (
            ("short_side", self.form.short_side, 32, 4096),
            ("quality", self.form.quality, 1, 95),
            ("shard_mb", self.shard_mb, 1, 4096),
            ("validation_share", self.validation_share, 0, 0.5),
            ("margin", self.margin, self.criteria.duplicate, 11),
        ):
            if not low <= value <= high:
                raise ConfigError(f"{name} must be between {low} and {high}, not {value}")


@dataclass(frozen=True, slots=True)
class Report:
    """What became of the pictures."""

    output: Path
    """The finished set."""
    kept: dict[str, int]
    """Pictures by split."""
    dropped: dict[str, int]
    """Pictures by reason, most frequent first."""

    @property
    def read(self) -> int:
        """Number of pictures looked at."""
        return sum(self.kept.values()) + sum(self.dropped.values())


def prepare(
    sources: Sequence[Path],
    output: Path,
    settings: Preparation | None = None,
    *,
    workers: int = 1,
    progress: Advance | None = None,
) -> Report:
    """Make a training set of the pictures in folders and tar files.

    Args:
        sources: Folders, searched with their sub-folders and the tar files in them, and tar files.
        output: Folder that appears when the set is whole: shards by split, `pictures.csv`, `report.json`.
        settings: Thresholds, form and split.
        workers: Processes; the result does not depend on them.
        progress: Called after every picture.

    Raises:
        MediaError: A source has no pictures or has gone, the output is in the way, or the disk is full.
        ConfigError: The work folder holds a set of other pictures or settings.
        RestoreError: No picture was kept, or another process is at it.
    """
    settings = settings or Preparation()
    _check(sources, output)
    photos = _shuffled(find(*sources))
    key = _key(photos, settings)
    if (finished := _finished(output, key)) is not None:
        return finished
    work = output.with_name(f"{output.name}.restore")
    with _locked(work):
        report = _assemble(photos, work, settings, key, workers, progress)
        with writing(output):
            work.rename(output)
            sync(output.parent)
            for name in (PROGRESS, _LOCK):
                (output / name).unlink()
    return dataclasses.replace(report, output=output)


@contextmanager
def _locked(work: Path) -> Iterator[None]:
    with writing(work):
        work.mkdir(parents=True, exist_ok=True)
        lock = FileLock(work / _LOCK, timeout=0)
        try:
            lock.acquire()
        except Timeout as error:
            raise RestoreError(f"another process works in {work}; wait until it has finished") from error
    with lock:
        yield


def _assemble(
    photos: list[Photo], work: Path, settings: Preparation, key: str, workers: int, progress: Advance | None
) -> Report:
    assembly = Assembly(
        work, key, shard_bytes=settings.shard_mb << 20, share=settings.validation_share,
        duplicate=settings.criteria.duplicate, margin=settings.margin,
    )  # fmt: skip
    with closing(assembly):
        if assembly.done:
            log.info("%s: going on after %d of %d pictures", work, assembly.done, len(photos))
        for photo, examined in _examined(photos[assembly.done :], settings, workers):
            assembly.add(photo, examined)
            if assembly.done % _CHECKPOINT == 0:
                assembly.checkpoint()
            if progress:
                progress(assembly.done, len(photos), assembly.verdicts["kept"])
        assembly.end()
        report = _report(assembly)
        assembly.write(REPORT, _described(report, settings, key))
    return report


def _check(sources: Sequence[Path], output: Path) -> None:
    if not sources:
        raise ConfigError("name at least one folder or tar file of pictures")
    for source in sources:
        if output.resolve().is_relative_to(source.resolve()):
            raise MediaError(f"would lie in its own source {source}; choose a folder outside", str(output))


def _finished(output: Path, key: str) -> Report | None:
    """Return the report of an earlier run of the same pictures and settings."""
    if not output.exists() or (output.is_dir() and not any(output.iterdir())):
        return None
    if not (output / REPORT).is_file():
        raise MediaError("already exists and is no training set; choose another name", str(output))
    found = json.loads((output / REPORT).read_text(encoding="utf-8"))
    if found["key"] != key:
        raise MediaError(
            "is a training set of other pictures or settings; delete it to make it anew, or choose another name",
            str(output),
        )
    return Report(output, found["kept"], found["dropped"])


def _shuffled(photos: list[Photo]) -> list[Photo]:
    """Order by the hash of the name: pictures of one folder lie far apart, and any shard is a fair sample."""
    digests = (hashlib.blake2b(photo.name.encode("utf-8", "surrogateescape"), digest_size=8) for photo in photos)
    keys = np.fromiter((int.from_bytes(digest.digest(), "big") for digest in digests), np.uint64, len(photos))
    return [photos[index] for index in keys.argsort(kind="stable")]


def _key(photos: list[Photo], settings: Preparation) -> str:
    """Return a hash of all that decides the set."""
    described = json.dumps(dataclasses.asdict(settings), sort_keys=True) + fingerprint(photos)
    return hashlib.sha256(described.encode()).hexdigest()


def _report(assembly: Assembly) -> Report:
    dropped = {reason: count for reason, count in assembly.verdicts.most_common() if reason != "kept"}
    report = Report(assembly.work, {split: assembly.splits[split] for split in SPLITS}, dropped)
    if not any(report.kept.values()):
        reasons = ", ".join(f"{count} {reason}" for reason, count in dropped.items())
        raise RestoreError(f"none of {report.read} pictures was kept ({reasons}); see {assembly.work / PICTURES}")
    return report


def _described(report: Report, settings: Preparation, key: str) -> dict[str, Any]:
    """Return what the report file says."""
    splits = {split: find(report.output / split) for split, count in report.kept.items() if count}
    return {
        "version": __version__, "key": key, "settings": dataclasses.asdict(settings),
        "read": report.read, "kept": report.kept, "dropped": report.dropped,
        "fingerprint": {split: fingerprint(photos) for split, photos in splits.items()},
        "shards": {split: len({photo.path for photo in photos}) for split, photos in splits.items()},
    }  # fmt: skip


def _examined(photos: list[Photo], settings: Preparation, workers: int) -> Iterator[tuple[Photo, Examined]]:
    """Examine pictures, `workers` at a time, and give them in order."""
    look = partial(_look, criteria=settings.criteria, form=settings.form)
    if workers <= 1:
        yield from ((photo, look([photo])[0]) for photo in photos)
        return
    chunks = iter([photos[first : first + _CHUNK] for first in range(0, len(photos), _CHUNK)])
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_start)
    waiting: deque[tuple[list[Photo], Future[list[Examined]]]] = deque()
    try:
        waiting.extend((chunk, pool.submit(look, chunk)) for chunk in islice(chunks, _AHEAD * workers))
        while waiting:
            chunk, future = waiting.popleft()
            yield from zip(chunk, future.result(), strict=True)
            waiting.extend((chunk, pool.submit(look, chunk)) for chunk in islice(chunks, 1))
    except BrokenProcessPool as error:
        raise RestoreError("a worker process died, perhaps for want of memory; run again with fewer workers") from error
    finally:
        pool.shutdown(cancel_futures=True)


def _start() -> None:
    """Prepare a worker: the parent handles Ctrl-C, and one thread a process is enough."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(1)


def _look(photos: list[Photo], criteria: Criteria, form: Form) -> list[Examined]:
    return [examine(content, criteria, form) if (content := _read(photo)) else _UNREADABLE for photo in photos]


_UNREADABLE = Examined("broken", "cannot be read or is empty")


def _read(photo: Photo) -> bytes:
    """Return the bytes of a picture, none if it cannot be read.

    Raises:
        MediaError: The whole source has gone.
    """
    try:
        return photo.read()
    except OSError as error:
        if not photo.path.exists():
            raise MediaError("has gone; run again when it is back, to go on", str(photo.path)) from error
        return b""
