"""One streaming pass over a film: the time of every frame, where shots begin, and how its fields lie."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields
from fractions import Fraction
from zipfile import BadZipFile

import numpy as np

from restore.color import chroma_scale
from restore.errors import MediaError
from restore.plan import Span
from restore.shots import ShotDetector
from restore.source.decode import Frame, Index, IndexBuilder, clips, read
from restore.source.fields import FieldMeter, FieldReport
from restore.source.probe import Source
from restore.storage import Place

log = logging.getLogger(__name__)

CONTEXT_SECONDS = 5
"""Film decoded on each side of a passage, so that its frames get the context that they have in the whole film."""

NEUTRAL = 0.01
"""Mean distance of chroma from neutral, as a share of its range, up to which a frame counts as black and white."""


@dataclass(frozen=True, slots=True, eq=False)
class Reel:
    """What one pass over a film, or over a passage of it, found."""

    index: Index
    cuts: tuple[int, ...]
    """First frames of shots, without the very first."""
    fields: FieldReport

    def __len__(self) -> int:
        return len(self.index.pts)

    def between(self, source: Source, start_seconds: Fraction | None, end_seconds: Fraction | None) -> Span:
        """Return the frames shown from `start_seconds` until before `end_seconds`, counted from the first frame.

        Raises:
            MediaError: No frame lies between them.
        """
        origin = source.start_pts if source.start_pts is not None else int(self.index.pts[0])
        first, stop = (
            edge if at is None else int(np.searchsorted(self.index.pts, float(origin + at / source.time_base) - 1e-6))
            for at, edge in ((start_seconds, 0), (end_seconds, len(self)))
        )
        if first >= stop:
            raise MediaError("no frame lies between --start and --end", source.path)
        return first, stop


def scan(
    source: Source,
    *,
    start_seconds: Fraction | None = None,
    end_seconds: Fraction | None = None,
    threads: int = 0,
    progress: Callable[[int], None] | None = None,
) -> Reel:
    """Decode a film once, luma only, and note what planning needs.

    Memory holds a few small pictures and 24 bytes a frame. Of a passage, only it and some seconds around are decoded.

    Args:
        source: The film.
        start_seconds: Start of the passage, from the first frame.
        end_seconds: End of the passage.
        threads: Decoder threads; 0 lets libav choose.
        progress: Called with the number of new frames, now and then.

    Raises:
        MediaError: The film, or the passage, cannot be decoded to its end, or has no frames.
    """
    index, shots, interlacing = IndexBuilder(), ShotDetector(), FieldMeter(source.color.depth)
    count = 0
    for frame in _frames(source, start_seconds, end_seconds, threads):
        index.add(frame)
        shots.push(frame.luma, source.color)
        interlacing.add(frame)
        count += 1
        if progress and count % 16 == 0:
            progress(16)
    if not count:
        raise MediaError("no frame could be decoded from its video stream", source.path)
    if progress:
        progress(count % 16)
    return Reel(index.build(), shots.finish(), interlacing.report())


def _frames(
    source: Source, start_seconds: Fraction | None, end_seconds: Fraction | None, threads: int
) -> Iterator[Frame]:
    """Decode a film, or a passage and some seconds around it; damage after the passage does not matter."""
    origin, seconds = source.start_pts or 0, Fraction(0)
    start_pts = None
    if start_seconds is not None and start_seconds > CONTEXT_SECONDS:
        start_pts = origin + int((start_seconds - CONTEXT_SECONDS) / source.time_base)
    try:
        for frame in read(source, threads=threads, start_pts=start_pts, luma_only=True):
            seconds = (frame.pts - origin) * source.time_base
            if end_seconds is not None and seconds > end_seconds + CONTEXT_SECONDS:
                return
            yield frame
    except MediaError:
        if end_seconds is None or seconds < end_seconds:
            raise
        log.warning("%s: it is damaged or truncated after this passage", source.path)


def has_colour(source: Source, index: Index) -> bool:
    """Look at three frames, and say whether the source has colour, or a tint, of its own.

    Raises:
        MediaError: The source cannot be decoded.
    """
    if source.monochrome:
        return False
    for number in sorted({0, len(index) // 2, len(index) - 1}):
        (clip,) = clips(source, index, number, number + 1, shot=(number, number + 1), luma_only=False)
        if clip.chroma is not None:
            neutral, span = chroma_scale(clip.color)
            if np.abs(clip.chroma.astype(np.float32) - neutral).mean() > NEUTRAL * span:
                return True
    return False


def file_in(folder: Place) -> Place:
    """Return the file that a reel is saved to."""
    return folder / "reel.npz"


def save(reel: Reel, folder: Place) -> None:
    """Write a reel to `reel.npz` in a folder, whole or not at all."""
    notes = json.dumps({"cuts": reel.cuts, "fields": asdict(reel.fields)})
    arrays = {column.name: getattr(reel.index, column.name) for column in fields(Index)}
    file = io.BytesIO()  # 30 bytes a frame
    np.savez(file, notes=np.array(notes), **arrays)
    file_in(folder).write_bytes(file.getvalue())


def load(folder: Place) -> Reel:
    """Read the reel that `save` wrote.

    Raises:
        MediaError: The file is missing or damaged.
    """
    file = file_in(folder)
    try:
        with np.load(io.BytesIO(file.read_bytes()), allow_pickle=False) as arrays:
            notes = json.loads(str(arrays["notes"]))
            index = Index(**{column.name: arrays[column.name] for column in fields(Index)})
        return Reel(index, tuple(notes["cuts"]), FieldReport(**notes["fields"]))
    except (OSError, ValueError, KeyError, TypeError, EOFError, BadZipFile) as error:
        raise MediaError(f"cannot read what the scan found ({error}); start over with --fresh", str(file)) from error
