"""What a stage is, and how frames flow through stages in windows."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from typing import ClassVar, Literal, Protocol

from restore.clip import Clip, concatenate
from restore.errors import RestoreError, StageError

Writes = Literal["luma", "ab", "chroma"]


class Stage(Protocol):
    """One step of a restoration: a pure function from a clip to a clip of the same length.

    An implementation is a frozen dataclass. Its fields are its settings, so the same class is the
    YAML schema, the CLI options, the cache key and what Dask pickles.
    """

    name: ClassVar[str]
    """As written in a pipeline file, e.g. ``dust``."""
    writes: ClassVar[Writes]
    """The planes it may change; `apply` holds it to that."""

    @property
    def radius(self) -> int:
        """Frames it reads on each side of an output frame."""

    def __call__(self, clip: Clip) -> Clip: ...


class Tasks(Protocol):
    """Where stages run: the one method of `concurrent.futures.Executor` that is used."""

    def submit(self, fn: Callable[..., Clip], /, *args: object) -> Future[Clip]: ...


def windows(clips: Iterable[Clip], radius: int) -> Iterator[tuple[Clip, slice]]:
    """Give every clip its neighbours in time, as far as its shot and the stream reach.

    Args:
        clips: Consecutive clips; a new `shot` starts a new context.
        radius: Frames of context wanted on each side.

    Yields:
        A clip with context, and the slice of it that is to be kept. Every frame is kept exactly once.
    """
    if radius == 0:
        for clip in clips:
            yield clip, slice(0, len(clip))
        return
    held: Clip | None = None
    """The frames not yet kept, after up to `radius` frames of past."""
    past = 0
    for clip in clips:
        if held is not None and clip.shot != held.shot:
            if len(held) > past:
                yield held, slice(past, len(held))
            held, past = None, 0
        held = clip if held is None else concatenate([held, clip])
        ready = len(held) - radius
        if ready > past:
            yield held, slice(past, ready)
            drop = max(0, ready - radius)
            held, past = held[drop:], ready - drop
    if held is not None and len(held) > past:
        yield held, slice(past, len(held))


def apply(stage: Stage, window: Clip, keep: slice) -> Clip:
    """Run a stage on a window and return the kept frames, holding the stage to what it declares.

    Raises:
        StageError: The stage failed, changed the number of frames, or replaced a plane that it does not write.
    """
    try:
        out = stage(window)
    except RestoreError:
        raise
    except Exception as error:
        raise StageError(f"{type(error).__name__}: {error}", stage.name, window.span) from error
    if len(out) != len(window):
        raise StageError(f"returned {len(out)} frames for {len(window)}", stage.name, window.span)
    for plane in ("luma", "ab", "chroma", "pts"):
        if plane != stage.writes and getattr(out, plane) is not getattr(window, plane):
            raise StageError(f"declares writes={stage.writes!r} but replaced {plane}", stage.name, window.span)
    return out[keep]


def stream(stages: Iterable[Stage], clips: Iterable[Clip], tasks: Tasks, ahead: int = 2) -> Iterator[Clip]:
    """Run clips through stages in order, several windows at a time.

    Each stage runs once per frame. Results come in order; at most `ahead` windows of a stage are under way
    or waiting, so memory is bounded whatever the length of the stream.
    """
    flow = iter(clips)
    for stage in stages:
        flow = _run(stage, flow, tasks, ahead)
    return flow


def _run(stage: Stage, clips: Iterable[Clip], tasks: Tasks, ahead: int) -> Iterator[Clip]:
    pending: deque[Future[Clip]] = deque()
    try:
        for window, keep in windows(clips, stage.radius):
            pending.append(tasks.submit(apply, stage, window, keep))
            if len(pending) > ahead:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        for future in pending:
            future.cancel()
