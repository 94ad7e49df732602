"""Frames of a film, with the colours that the pipeline gives to its luma, shot by shot."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from restore import reel as reels
from restore.clip import Clip, Color, Plane, Primaries
from restore.color import chroma_scale, lab_from_rgb, rgb_from_lab, rgb_from_ycbcr, unit_luma
from restore.errors import MediaError
from restore.evaluate.sets import SIDE
from restore.film import Progress
from restore.photographs import Picture
from restore.plan import shots_of
from restore.reel import Reel
from restore.setup import Options, stages_for
from restore.source.decode import clips
from restore.source.probe import Source, probe
from restore.stage import stream
from restore.stills.still import Toned, tone_of
from restore.threads import workers

_LOOKS = 9
"""Frames that decide whether a film is in colour."""


@dataclass(frozen=True, slots=True)
class Passage:
    """What of a film is judged."""

    source: Source
    reel: Reel
    frames: int
    """The first so many."""
    tone: Toned
    """Most frames of it are so; a film is judged against its own colours only if they are of things."""

    def seconds(self, frame: int) -> float:
        """Return when a frame is shown, from the first."""
        pts = self.reel.index.pts
        return float(int(pts[frame] - pts[0]) * self.source.time_base)


def open_film(path: Path, limit: int | None = None, progress: Progress | None = None) -> Passage:
    """Find the shots of a film, and whether it is in colour.

    Raises:
        MediaError: It is not a film, or cannot be decoded.
    """
    if not path.is_file():
        raise MediaError("does not exist; name a folder, a tar file, a picture or a film", str(path))
    source, seen = probe(path), 0

    def count(frames: int) -> None:
        nonlocal seen
        seen += frames
        if progress:
            progress("scan", seen, source.frames)

    end = None if limit is None else Fraction(limit) / source.average_rate
    reel = reels.scan(source, end_seconds=end, progress=count)
    frames = min(len(reel), limit or len(reel))
    return Passage(source, reel, frames, _tone(source, reel, frames))


def _tone(source: Source, reel: Reel, frames: int) -> Toned:
    if source.monochrome:
        return "gray"
    places = sorted({round(place) for place in np.linspace(0, frames - 1, _LOOKS)})
    tones: Counter[Toned] = Counter()
    for place in places:
        (clip,) = clips(source, reel.index, place, place + 1, shot=(place, place + 1), luma_only=False)
        tones[tone_of(pictures_of(clip)[0], 8)] += 1
    return tones.most_common(1)[0][0]


def colored(passage: Passage, options: Sequence[Options]) -> Iterator[list[Clip]]:
    """Colour the luma of a film in several ways.

    Args:
        passage: What to colour.
        options: Of each way; the stages of its pipeline that make ab are run, in windows that end at cuts.

    Yields:
        The same frames in each way, with the ab of it, and with the luma and chroma of the source.
    """
    ways = [[stage for stage in stages_for("film", way) if stage.writes == "ab"] for way in options]
    with workers(0) as pool:
        flows = [stream(stages, _source(passage), pool) for stages in ways]
        yield from _together(flows)


def _source(passage: Passage) -> Iterator[Clip]:
    index = passage.reel.index
    for shot in shots_of((0, passage.frames), passage.reel.cuts):
        yield from clips(passage.source, index, *shot, shot=shot, luma_only=False)


def _together(flows: Sequence[Iterator[Clip]]) -> Iterator[list[Clip]]:
    """Give the same frames of every flow, however each cuts its clips."""
    held: list[Clip | None] = [None] * len(flows)
    while True:
        for place, flow in enumerate(flows):
            held[place] = held[place] or next(flow, None)
        ready = [clip for clip in held if clip is not None]
        if not ready:
            return
        length = min(len(clip) for clip in ready)
        yield [clip[:length] for clip in ready]
        held = [clip[length:] if len(clip) > length else None for clip in ready]


def pictures_of(clip: Clip) -> NDArray[np.uint8]:
    """Return the frames of a clip in their own colours as they are judged: sRGB, shape (T, 256, 256, 3).

    Chroma is taken to cover the frame, wherever its samples lie: the difference is less than a pixel of the result.
    """
    return np.stack([_picture(clip, place) for place in range(len(clip))])


def gray_of(clip: Clip) -> NDArray[np.uint8]:
    """Return the luma of the frames as they are judged, shape (T, 256, 256, 3)."""
    return pictures_of(clip.with_planes(chroma=None))


def ab_of(clip: Clip) -> Tensor:
    """Return a* and b* of a coloured clip, shape (T, 2, s, t)."""
    assert clip.ab is not None
    return torch.from_numpy(clip.ab.copy())


def _picture(clip: Clip, place: int) -> Picture:
    luma = unit_luma(torch.from_numpy(_fitted(clip.luma[place])), clip.color)
    neutral, span = chroma_scale(clip.color)
    cb, cr = torch.zeros_like(luma), torch.zeros_like(luma)
    if clip.chroma is not None:
        cb, cr = ((torch.from_numpy(_fitted(plane)) - neutral) / span for plane in clip.chroma[place])
    rgb = _srgb(torch.stack((luma, cb, cr)), clip.color)
    return np.asarray(rgb.clamp_(0, 1).mul_(255).round_().permute(1, 2, 0).to(torch.uint8).numpy())


def _srgb(ycbcr: Tensor, what: Color) -> Tensor:
    rgb = rgb_from_ycbcr(ycbcr, what.matrix).clamp_(0, 1)
    if what.primaries == Primaries.BT709:
        return rgb
    return rgb_from_lab(lab_from_rgb(rgb, what.primaries))


def _fitted(plane: Plane) -> NDArray[np.float32]:
    how = cv2.INTER_AREA if min(plane.shape) >= SIDE else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(plane.astype(np.float32), (SIDE, SIDE), interpolation=how), np.float32)


def timecode(seconds: float) -> str:
    """Return a time as minutes and seconds, ``M:SS.s``."""
    minutes, rest = divmod(math.floor(seconds * 10) / 10, 60)
    return f"{int(minutes)}:{rest:04.1f}"
