"""Interlacing: what the flags of a film say, and what its picture shows."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice

import av
import av.filter
import numpy as np
from av.video.format import VideoFormat
from av.video.frame import VideoFrame

from restore.source.decode import Frame, read
from restore.source.probe import Source
from restore.source.tags import FieldOrder

_SMALLEST = 16
"""Lines and columns under which `idet` has nothing to compare."""
_SOME = 0.05
"""Share of judged frames from which a film is interlaced; fewer are taken for errors of judgement."""
_NAMES: dict[FieldOrder, str] = {
    "progressive": "progressive",
    "tff": "interlaced, top field first",
    "bff": "interlaced, bottom field first",
    "unknown": "unknown",
}


@dataclass(frozen=True, slots=True)
class FieldReport:
    """What was found in the frames that were looked at."""

    flagged: FieldOrder
    """What most flags of the frames say; `unknown` where some are interlaced and some are not."""
    shown: FieldOrder
    """What the picture shows; `unknown` if it stands still, or if both field orders occur."""
    looked_at: int
    judged: int
    """Frames of which the picture allowed a judgement; a frame at rest allows none."""
    share_interlaced: float
    """Of the judged frames."""
    telecine: bool
    """Fields are repeated as in 3:2 pulldown: film frames can be recovered by inverse telecine."""

    @property
    def order(self) -> FieldOrder:
        """The field order to work with: what the picture shows, or the flags where it shows nothing."""
        return self.flagged if self.shown == "unknown" else self.shown

    @property
    def agrees(self) -> bool:
        """Whether nothing in the picture contradicts the flags."""
        return self.shown in ("unknown", self.flagged)

    def __str__(self) -> str:
        share = f"{round(100 * self.share_interlaced)} % of {self.judged} judged frames are interlaced"
        if self.telecine:
            return f"telecined (3:2 pulldown): {share} and fields are repeated"
        if self.judged == 0:
            return f"flagged {_NAMES[self.flagged]}; the picture does not show whether it is"
        if not self.agrees:
            return f"flagged {_NAMES[self.flagged]}, but the picture is {_NAMES[self.shown]}: {share}"
        return f"{_NAMES[self.order]}: {share}"


class FieldMeter:
    """Looks at short runs of the frames that go by, so that its cost per frame stays small.

    The judgement is that of libavfilter's `idet`, which compares the lines of a frame with those of its
    neighbours in time.
    """

    def __init__(self, depth: int, *, run: int = 12, every: int = 120) -> None:
        """Set up for frames of `depth` bits; the first `run` of each `every` frames are looked at."""
        self.depth, self.run, self.every = depth, run, every
        self._seen = 0
        self._looked_at = 0
        self._flags = np.zeros(3, np.int64)
        self._total: dict[str, float] = {}
        self._graph: av.filter.Graph | None = None
        self._counts: dict[str, float] = {}

    def add(self, frame: Frame) -> None:
        """Take the next frame; frames must come in the order in which they are shown."""
        place = self._seen % self.every
        self._seen += 1
        self._flags[frame.field] += 1
        if place >= self.run or min(frame.luma.shape) < _SMALLEST:
            return
        if place == 0:
            self.cut()
        if self._graph is None:
            self._graph = _idet(frame.luma.shape[1], frame.luma.shape[0])
        self._looked_at += 1
        luma = (frame.luma >> (self.depth - 8)).astype(np.uint8)
        self._graph.vpush(VideoFrame.from_ndarray(luma, format="gray"))
        self._pull()

    def cut(self) -> None:
        """End a run: the next frame does not follow the last one."""
        if self._graph is not None:
            self._graph.vpush(None)
            self._pull()
        for name, count in self._counts.items():
            self._total[name] = self._total.get(name, 0) + count
        self._graph, self._counts = None, {}

    def report(self) -> FieldReport:
        """Return what was found so far."""
        self.cut()
        tff, bff, progressive = (self._total.get(f"multiple.{name}", 0) for name in ("tff", "bff", "progressive"))
        judged = tff + bff + progressive
        share = (tff + bff) / judged if judged else 0.0
        repeated = self._total.get("repeated.top", 0) + self._total.get("repeated.bottom", 0)
        return FieldReport(
            flagged=self._flagged(),
            shown=_shown(tff, bff, progressive),
            looked_at=self._looked_at,
            judged=round(judged),
            share_interlaced=share,
            telecine=repeated >= 0.25 * max(1, self._looked_at) and share > _SOME,
        )

    def _flagged(self) -> FieldOrder:
        orders: tuple[FieldOrder, ...] = ("progressive", "tff", "bff")
        most = int(self._flags.argmax())
        return orders[most] if self._flags[most] >= 0.9 * max(1, self._seen) else "unknown"

    def _pull(self) -> None:
        assert self._graph is not None
        with contextlib.suppress(av.BlockingIOError, av.EOFError):
            while True:
                told = self._graph.vpull().metadata
                self._counts = {key[len("lavfi.idet.") :]: _number(value) for key, value in told.items()}


def sample(source: Source, *, runs: int = 6, run: int = 12) -> FieldReport:
    """Look at short runs of frames spread over a film, without decoding all of it.

    Raises:
        MediaError: The source cannot be decoded.
    """
    meter = FieldMeter(source.color.depth, run=run, every=run)
    length = source.duration_seconds or Fraction(0)
    for number in range(runs if length * source.average_rate > 2 * runs * run else 1):
        pts = round(length * number / runs / source.time_base) + (source.start_pts or 0) if number else None
        with contextlib.closing(read(source, start_pts=pts, luma_only=True)) as frames:
            for frame in islice(frames, run):
                meter.add(frame)
        meter.cut()
    return meter.report()


def _shown(tff: float, bff: float, progressive: float) -> FieldOrder:
    interlaced = tff + bff
    if interlaced + progressive == 0:
        return "unknown"
    if interlaced < _SOME * (interlaced + progressive):
        return "progressive"
    if max(tff, bff) < 0.8 * interlaced:
        return "unknown"
    return "tff" if tff > bff else "bff"


def _number(value: str) -> float:
    with contextlib.suppress(ValueError):
        return float(value)
    return 0.0


def _idet(width: int, height: int) -> av.filter.Graph:
    graph = av.filter.Graph()
    source = graph.add_buffer(width=width, height=height, format=VideoFormat("gray"), time_base=Fraction(1, 1000))
    # flags are ignored: a frame flagged progressive can still show two fields
    judge = graph.add("idet", "analyze_interlaced_flag=0")
    graph.link_nodes(source, judge, graph.add("buffersink")).configure()
    return graph
