"""Restore one part of a film: decode, stages, encode, and a record that says what is in the file."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from restore import reel as reels
from restore.clip import Clip
from restore.output.disk import writing
from restore.output.encode import encode_part
from restore.output.profiles import Profile
from restore.plan import Part, shots_of
from restore.reel import Reel
from restore.scratch import arriving, local_source
from restore.source.decode import clips
from restore.source.probe import Source
from restore.stage import Stage, stream
from restore.storage import Place, Stat
from restore.threads import ahead, workers

Progress = Callable[[int], None]

_REQUESTS = 16
"""Records asked for at a time, of an object store."""


@dataclass(frozen=True)
class Job:
    """What all parts of a film have in common. Pickles, and stays small whatever the film's length."""

    source: Source
    stages: tuple[Stage, ...]
    profile: Profile
    folder: Place
    """The work folder, with `reel.npz` and `parts/`; within reach of all machines that work on the film."""
    key: str
    """Hash of everything that decides the pixels of a part, apart from the part itself."""
    chunk: int = 16
    """Frames that flow through the stages together; the output does not depend on it."""
    threads: int = 0
    """Windows worked on at a time; 0 for one a core."""
    scratch: Path | None = None
    """Where each machine keeps what it fetches from an object store; its folder for temporary files if None."""

    @property
    def radius(self) -> int:
        """Frames of context that the stages read on each side, together."""
        return sum(stage.radius for stage in self.stages)

    @property
    def parts(self) -> Place:
        """The folder of parts and their records."""
        return self.folder / "parts"

    def file(self, part: Part) -> Place:
        """Return where a part's frames go."""
        return self.parts / f"{part.number:06d}{self.profile.part_suffix}"

    def record_file(self, part: Part) -> Place:
        """Return where a part's record goes."""
        return self.parts / f"{part.number:06d}.json"


@dataclass(frozen=True)
class PartRecord:
    """What a finished part file holds."""

    number: int
    first: int
    stop: int
    key: str
    bytes: int
    sha256: str
    mean_chroma: float
    """Mean of sqrt(a*^2 + b*^2) over the part."""
    seconds: float
    """Wall time it took."""
    stored: str = ""
    """The object store's version of the file; empty in a file system."""

    @property
    def frames(self) -> int:
        return self.stop - self.first


def process(part: Part, *, job: Job, progress: Progress | None = None) -> PartRecord:
    """Decode, restore and encode one part. Pure: the same arguments give the same decoded frames.

    The part file and its record appear whole, the record last.

    Raises:
        RestoreError: Something a user can set right; the message names the file or the frames.
    """
    began = time.monotonic()
    chroma = _Mean()
    if job.folder.is_local:
        with writing(job.parts.path):
            job.parts.path.mkdir(parents=True, exist_ok=True)
    with (
        local_source(job.source, job.scratch, keep=True) as source,
        arriving(job.file(part), job.scratch) as file,
        workers(job.threads) as threads,
        ahead(_chunks(part, job, source), 2) as source_clips,
    ):
        restored = stream(job.stages, source_clips, threads, ahead=max(2, threads.size))
        kept = _trimmed(restored, part, chroma, progress)
        result = encode_part(file, kept, job.profile, source)
    record = PartRecord(
        number=part.number,
        first=part.first,
        stop=part.stop,
        key=job.key,
        bytes=result.bytes,
        sha256=result.sha256,
        mean_chroma=round(chroma.value, 3),
        seconds=round(time.monotonic() - began, 3),
        stored="" if job.folder.is_local else job.file(part).version(),
    )
    write_json(job.record_file(part), asdict(record))
    return record


def finished_parts(parts: Iterable[Part], *, job: Job) -> dict[int, PartRecord]:
    """Return the records of the parts that are done and undamaged, by number.

    Asks an object store for one list of a thousand names, and for the small records of what is in it.
    """
    there = job.parts.listing()
    begun = (part for part in parts if {job.record_file(part).name, job.file(part).name} <= there.keys())
    with ThreadPoolExecutor(1 if job.folder.is_local else _REQUESTS) as pool:
        records = pool.map(lambda part: _finished(part, job, there[job.file(part).name]), begun)
        return {record.number: record for record in records if record}


def finished(part: Part, *, job: Job) -> PartRecord | None:
    """Return the record of a part that is done and undamaged, None if it must be done."""
    return _finished(part, job, None if job.folder.is_local else job.file(part).stat())


def _finished(part: Part, job: Job, stat: Stat | None) -> PartRecord | None:
    """Look at a part's record and its file: at all of it where it is near, else at what its store says of it."""
    try:
        record = PartRecord(**json.loads(job.record_file(part).read_if_there() or b"null"))
    except (ValueError, TypeError):
        return None
    if (record.first, record.stop, record.key) != (part.first, part.stop, job.key):
        return None
    if not job.folder.is_local:
        return record if stat == Stat(record.bytes, record.stored) else None
    try:
        file = job.file(part).path
        if sum(one.stat().st_size for one in _files(file)) != record.bytes:
            return None
        return record if sha256_of(file) == record.sha256 else None
    except OSError:
        return None


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, or of the files of a folder in order."""
    digest = hashlib.sha256()
    for file in _files(path):
        with file.open("rb") as data:
            while block := data.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def write_json(file: Place, content: dict[str, Any]) -> None:
    """Write a JSON file whole or not at all."""
    file.write_bytes((json.dumps(content, indent=1, default=str) + "\n").encode())


def _files(path: Path) -> list[Path]:
    return sorted(path.iterdir()) if path.is_dir() else [path]


def _chunks(part: Part, job: Job, source: Source) -> Iterator[Clip]:
    """Decode a part with its context, in clips that never reach over a cut."""
    first, stop = part.reach(job.radius)
    index = _reel(job.folder, reels.file_in(job.folder).version()).index
    spans = shots_of((first, stop), [shot[0] for shot in part.shots])
    whole = dict(zip([max(first, shot[0]) for shot in part.shots], part.shots, strict=True))
    for clip in clips(source, index, first, stop, shot=part.shots[0], chunk=job.chunk, threads=job.threads):
        for start, end in spans:
            low, high = max(clip.first, start), min(clip.first + len(clip), end)
            if low < high:
                yield replace(clip[low - clip.first : high - clip.first], shot=whole[start])


@lru_cache(maxsize=2)
def _reel(folder: Place, version: str) -> Reel:
    """Load a reel once per process; `version` makes an overwritten file a new one."""
    return reels.load(folder)


def _trimmed(restored: Iterator[Clip], part: Part, chroma: _Mean, progress: Progress | None) -> Iterator[Clip]:
    """Drop the context frames, and note what passes."""
    for clip in restored:
        kept = clip[max(0, part.first - clip.first) : max(0, part.stop - clip.first)]
        if not len(kept):
            continue
        if kept.ab is not None:
            chroma.add(float(np.hypot(kept.ab[:, 0], kept.ab[:, 1]).mean()), len(kept))
        yield kept
        if progress:
            progress(len(kept))


class _Mean:
    """A running mean."""

    def __init__(self) -> None:
        self.total, self.weight = 0.0, 0

    def add(self, value: float, weight: int) -> None:
        self.total, self.weight = self.total + value * weight, self.weight + weight

    @property
    def value(self) -> float:
        return self.total / max(1, self.weight)
