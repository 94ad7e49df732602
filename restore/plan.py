"""Cut a reel into parts: pure functions from shots and limits to units of work."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

Span = tuple[int, int]
"""A frame and the first frame after a run of frames."""


@dataclass(frozen=True, slots=True)
class Part:
    """A unit of work: the frames of some short shots, or a piece of a long one."""

    number: int
    first: int
    stop: int
    """The first frame after the part."""
    shots: tuple[Span, ...]
    """The shots it touches, whole, as far as the reel reaches."""

    def __len__(self) -> int:
        return self.stop - self.first

    def __str__(self) -> str:
        return f"frames {self.first}-{self.stop - 1}"

    def reach(self, radius: int) -> Span:
        """Return the frames to decode so that every frame of the part has its context, inside its shot."""
        return max(self.shots[0][0], self.first - radius), min(self.shots[-1][1], self.stop + radius)


def shots_of(frames: Span, cuts: Sequence[int]) -> tuple[Span, ...]:
    """Return the shots of a run of frames; `cuts` are first frames of shots, in order, and may lie outside."""
    first, stop = frames
    borders = [first, *(cut for cut in cuts if first < cut < stop), stop]
    return tuple(pairwise(borders))


def parts_of(shots: Sequence[Span], part_frames: int, wanted: Span | None = None) -> tuple[Part, ...]:
    """Cut shots into parts of about `part_frames` frames.

    Shots that follow one another share a part for as long as they fit; a shot longer than one and a half parts is cut
    into equal pieces. Every wanted frame is in exactly one part, and the result depends on nothing but the arguments.

    Args:
        shots: Consecutive runs of frames.
        part_frames: Frames of a part, at least 1.
        wanted: The frames to restore; all, if None. Frames of a shot around them serve as context.

    Raises:
        ValueError: `part_frames` is less than 1.
    """
    if part_frames < 1:
        raise ValueError(f"part_frames must be at least 1, got {part_frames}")
    if not shots:
        return ()
    low, high = wanted or (shots[0][0], shots[-1][1])
    spans: list[tuple[Span, tuple[Span, ...]]] = []
    held: list[Span] = []
    for shot in shots:
        first, stop = max(shot[0], low), min(shot[1], high)
        if first >= stop:
            continue
        if held and stop - max(held[0][0], low) > part_frames:
            spans.append(_joined(held, low))
            held = []
        if stop - first <= part_frames * 3 // 2:
            held.append((shot[0], stop) if stop < shot[1] else shot)
            if stop < shot[1]:  # the passage ends inside this shot
                spans.append(((max(held[0][0], low), stop), (*held[:-1], shot)))
                held = []
            continue
        pieces = math.ceil((stop - first) / part_frames)
        borders = [first + (stop - first) * piece // pieces for piece in range(pieces + 1)]
        spans.extend((border, (shot,)) for border in pairwise(borders))
    if held:
        spans.append(_joined(held, low))
    return tuple(Part(number, *span, touched) for number, (span, touched) in enumerate(spans))


def _joined(held: list[Span], low: int) -> tuple[Span, tuple[Span, ...]]:
    return (max(held[0][0], low), held[-1][1]), tuple(held)
