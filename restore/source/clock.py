"""Presentation times of decoded frames, also where a container gives none or wrong ones."""

from __future__ import annotations

import heapq
from fractions import Fraction

from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from restore.source.probe import Source


class Clock:
    """Tells the time of each frame of one decode, in the order in which they are shown.

    A time that the container leaves out follows from the last known one. Two containers need more:

    * AVI gives every packet a place and no time, so frames take the places in rising order.
    * MPEG programme streams give a time to the first frame of a packet only, and libav guesses the rest,
      wrongly around open groups of pictures. A time is trusted if it is where counting expects it, or if it has
      stayed somewhere else for a second: then frames were lost there.
    """

    def __init__(self, source: Source, sought: bool) -> None:
        """Start a clock; `sought` for a decode that does not begin at the first frame."""
        self._format = source.format
        self._step = 1 / (source.average_rate * source.time_base)
        self._patience = round(source.average_rate)
        self._doubts = 0
        self._places: list[int] = []
        self._known: int | None = None if sought else (source.start_pts or 0)
        self._elapsed = Fraction(0)

    def packet(self, packet: Packet[VideoStream]) -> None:
        """Note a packet that goes into the decoder."""
        if self._format == "avi" and packet.pts is not None:
            heapq.heappush(self._places, packet.pts)

    def __call__(self, picture: VideoFrame) -> int | None:
        """Return the time of the next frame; None before the first known one after a seek."""
        pts = heapq.heappop(self._places) if self._places else picture.pts
        if pts is not None and self._trusts(pts):
            self._known, self._elapsed = pts, Fraction(0)
        if self._known is None:
            return None
        time = self._known + round(self._elapsed)
        self._elapsed += picture.duration or self._step
        return time

    def duration(self, picture: VideoFrame) -> int:
        """Return how long a frame is shown, in units of the time base."""
        return picture.duration or max(1, round(self._step))

    def _trusts(self, pts: int) -> bool:
        if self._format != "mpeg" or self._known is None or self._elapsed == 0:
            return True
        late = pts - self._known - self._elapsed
        self._doubts = self._doubts + 1 if abs(late) > self._step / 2 else 0
        if self._doubts <= self._patience or late < 0:
            return self._doubts == 0
        self._doubts = 0
        return True
