"""Say what a source is, what `run` would do with it, and about how long that would take."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from av.video.reformatter import ColorTrc

from restore import reel as reels
from restore import stills
from restore.clip import Color
from restore.errors import ConfigError
from restore.film import PART_SECONDS, Film, Progress, remarks
from restore.naming import Location
from restore.part import process
from restore.plan import Part, parts_of, shots_of
from restore.reel import Reel
from restore.scratch import local_copy
from restore.setup import Options, film_for, stages_for
from restore.source.probe import Source
from restore.storage import place
from restore.units import counted

TRIAL_FRAMES = 32
"""Frames that are restored to say how long all of them would take."""


@dataclass(frozen=True)
class Inspection:
    """What was found; `facts` are in the order in which they are shown."""

    facts: dict[str, Any]

    def json(self) -> str:
        """Return the facts for programs."""
        return json.dumps(self.facts, indent=1, default=str)

    def text(self) -> str:
        """Return the facts for people, a line each."""
        lines = []
        for name, value in self.facts.items():
            values = value if isinstance(value, list) else [value]
            lines += [f"{name if not number else '':14}{one}" for number, one in enumerate(values)]
        return "\n".join(lines)


def inspect(source: Location, *, estimate: bool = True, progress: Progress | None = None, **options: Any) -> Inspection:
    """Look at a film, a numbered sequence or a still, without writing anything beside it.

    Args:
        source: As in `run`.
        estimate: Restore a few frames to say how long all of them would take.
        progress: Told how far the pass over the film is.
        **options: The fields of `restore.setup.Options`.

    Raises:
        RestoreError: It cannot be read, or an option is wrong.
    """
    chosen, where = Options(**options), place(source)
    if chosen.rate is None and where.is_folder():
        raise ConfigError(f"{where} is a folder; give a file, or a numbered sequence together with --rate")
    with local_copy(where, chosen.scratch_folder, keep=False) as path:
        facts = _facts(path, chosen, estimate, progress)
    return Inspection({**facts, "file": facts["file"].replace(str(path), str(where))})


def _facts(path: Path, chosen: Options, estimate: bool, progress: Progress | None) -> dict[str, Any]:
    if path.is_file() and stills.is_still(path):
        return dict(_facts_of_still(path, chosen))
    name = "frames" if chosen.profile == "sequence" else "out.mkv"
    with tempfile.TemporaryDirectory(prefix="restore-") as folder:
        film = film_for(path, Path(folder) / name, replace(chosen, profile=chosen.profile or "access"))
        began = time.monotonic()
        count = _Count(film.source.frames, progress)
        reel = reels.scan(film.source, start_seconds=chosen.start, end_seconds=chosen.end, progress=count)
        scan_seconds = time.monotonic() - began
        facts = dict(_facts_of_film(film, reel))
        if estimate:
            facts["time"] = _estimate(film, reel, scan_seconds)
    return facts


class _Count:
    """Adds up new frames for a progress that wants totals."""

    def __init__(self, total: int | None, progress: Progress | None) -> None:
        self.seen, self.total, self.progress = 0, total, progress

    def __call__(self, frames: int) -> None:
        self.seen += frames
        if self.progress:
            self.progress("scan", self.seen, self.total)


def _facts_of_film(film: Film, reel: Reel) -> Iterator[tuple[str, Any]]:
    source, frames = film.source, len(reel)
    seconds = float((reel.index.pts[-1] - reel.index.pts[0] + reel.index.duration[-1]) * source.time_base)
    yield "file", f"{source.path} ({source.format})"
    shape = f", pixels {source.sample_aspect_ratio}" if source.sample_aspect_ratio not in (None, Fraction(1)) else ""
    turned = f", turned by {source.rotation} degrees" if source.rotation else ""
    yield "video", f"{source.codec}, {source.width}x{source.height}{shape}{turned}, {source.pix_fmt}"
    yield "frames", f"{frames} in {seconds:.2f} s, {_rhythm(reel, source)}, time base {source.time_base}"
    yield "colour", _colour(source.color)
    yield "fields", str(reel.fields)
    if notes := list(remarks(source, reel)):
        yield "mind", notes
    for stream in source.streams:
        if stream.index != source.stream:
            language = f", {stream.language}" if stream.language else ""
            yield f"stream {stream.index}", f"{stream.type}, {stream.codec}{language}"
    if source.chapters:
        yield "chapters", str(len(source.chapters))
    shots = shots_of((0, frames), reel.cuts)
    starts = ", ".join(str(cut) for cut in reel.cuts[:20])
    yield (
        "shots",
        f"{len(shots)}" + (f", cuts at frames {starts}{' ...' if len(reel.cuts) > 20 else ''}" if starts else ""),
    )
    size = film.part_frames or max(1, round(PART_SECONDS * source.average_rate))
    wanted = reel.between(source, film.start_seconds, film.end_seconds)
    parts = len(parts_of(shots, size, wanted))
    yield (
        "run would",
        [
            f"colour {counted(wanted[1] - wanted[0], 'frame')} in {counted(parts, 'part')}",
            *(f"{stage.name}: {_settings(stage)}" for stage in film.stages),
            f"write {film.profile.name}: {film.profile.description}",
        ],
    )


def _facts_of_still(path: Path, options: Options) -> Iterator[tuple[str, Any]]:
    still = stills.read(path)
    _, height, width = still.clip.luma.shape
    tones = {"gray": "black and white", "toned": "a toned print: treated as black and white"}
    yield "file", str(path)
    yield "still", f"{width}x{height}, {still.clip.color.depth} bits{', alpha' if still.alpha is not None else ''}"
    yield "colour", tones.get(still.toned, "has colour, of which only the luma is used")
    yield "run would", [f"{stage.name}: {_settings(stage)}" for stage in stages_for("still", options)]


def _settings(stage: Any) -> str:
    return ", ".join(f"{name}={value}" for name, value in asdict(stage).items())


def _rhythm(reel: Reel, source: Source) -> str:
    steps = np.unique(np.diff(reel.index.pts))
    if len(steps) > 1 and (steps[-1] - steps[0]) * source.time_base > Fraction(2, 1000):
        return f"variable frame rate, on average {float(source.average_rate):.3f} frames a second"
    return f"constant frame rate, {float(source.average_rate):.3f} frames a second"


def _colour(what: Color) -> str:
    def told(name: str, value: str) -> str:
        return f"{value}{' (assumed)' if name in what.assumed else ''}"

    return ", ".join(
        [
            f"{what.depth} bits",
            told("full_range", "full range" if what.full_range else "limited range"),
            told("matrix", f"matrix {what.matrix.name}"),
            told("primaries", f"primaries {what.primaries.name}"),
            told("transfer", f"transfer {_transfer(what.transfer)}"),
            told("siting", f"chroma {what.siting}"),
        ]
    )


def _transfer(code: int) -> str:
    known = {int(one): one.name for one in ColorTrc}
    return known.get(code, str(code))


def _estimate(film: Film, reel: Reel, scan_seconds: float) -> str:
    """Restore a few frames twice, so that the second time shows the speed without what happens once."""
    first, stop = reel.between(film.source, film.start_seconds, film.end_seconds)
    shots = shots_of((0, len(reel)), reel.cuts)
    middle = parts_of(shots, TRIAL_FRAMES, (first, stop))
    trial = Part(0, *(middle[len(middle) // 2].first, middle[len(middle) // 2].stop), middle[len(middle) // 2].shots)
    reels.save(reel, film.folder)
    process(trial, job=film.job)
    rate = len(trial) / process(trial, job=film.job).seconds
    seconds = scan_seconds + (stop - first) / rate
    shown = (
        f"{seconds:.0f} s"
        if seconds < 120
        else f"{seconds / 60:.0f} min"
        if seconds < 7200
        else f"{seconds / 3600:.1f} h"
    )
    return f"about {shown} with one process here ({rate:.1f} frames a second)"
