"""How long to wait for parts, workers and schedulers."""

from __future__ import annotations

import statistics
from collections import deque
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How long to wait for what."""

    part_seconds: float | None = None
    """For a part. None measures: ten times what a frame takes (the median of the parts so far) but two minutes at
    least, and two hours until three parts are done; twice as much for each new attempt."""
    begin_seconds: float = 60
    """For a worker to begin with a part that it has, at least; twice the limit of a part if that is more."""
    patience_seconds: float = 60
    """For a scheduler that is lost, or for a worker where there is none."""
    wait_for_workers: bool = False
    """Wait for workers for ever, as where they come from a queue."""

    def of(self, frames: int, frame_seconds: deque[float], hangs: int) -> float:
        """Return the time limit for a part that has hung so often, after what frames took in other parts."""
        if self.part_seconds is not None:
            return self.part_seconds
        if len(frame_seconds) < 3:
            return 7200.0 * (1 << hangs)
        return max(120.0, 10 * statistics.median(frame_seconds) * frames) * (1 << hangs)
