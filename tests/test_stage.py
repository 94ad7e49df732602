from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pytest
from conftest import make_clip

from restore.clip import Clip, concatenate
from restore.errors import StageError
from restore.plan import parts_of, shots_of
from restore.stage import Stage, Writes, apply, stream, windows


@dataclass(frozen=True)
class Mean:
    """Averages ab over the frames around; integer-free, but a sum of the same numbers in the same order."""

    name: ClassVar[str] = "mean"
    writes: ClassVar[Writes] = "ab"
    radius: int = 2

    def __call__(self, clip: Clip) -> Clip:
        assert clip.ab is not None
        reach = range(-self.radius, self.radius + 1)
        out = [
            np.mean([clip.ab[t + d] for d in reach if 0 <= t + d < len(clip)], axis=0, dtype=np.float32)
            for t in range(len(clip))
        ]
        return clip.with_planes(ab=np.stack(out))


@dataclass(frozen=True)
class Bad:
    name: ClassVar[str] = "bad"
    writes: ClassVar[Writes] = "chroma"
    how: str = "luma"
    radius: int = 0

    def __call__(self, clip: Clip) -> Clip:
        if self.how == "short":
            return clip[1:]
        if self.how == "raise":
            raise ZeroDivisionError("division by zero")
        return clip.with_planes(luma=clip.luma.copy())


def _chunks(clip: Clip, size: int, cuts: tuple[int, ...] = ()) -> Iterator[Clip]:
    for first, stop in shots_of((clip.first, clip.first + len(clip)), cuts):
        for start in range(first, stop, size):
            piece = clip[start - clip.first : min(start + size, stop) - clip.first]
            yield replace(piece, shot=(first, stop))


def _run(stages: list[Stage], clip: Clip, size: int, cuts: tuple[int, ...] = ()) -> Clip:
    with ThreadPoolExecutor(2) as pool:
        out = list(stream(stages, _chunks(clip, size, cuts), pool))
    return concatenate([replace(piece, shot=clip.shot) for piece in out])


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 64])
@pytest.mark.parametrize("cuts", [(), (1,), (7, 8, 20)])
def test_output_does_not_depend_on_the_size_of_chunks(size: int, cuts: tuple[int, ...]) -> None:
    clip = make_clip(frames=29, height=8, width=8)
    stages: list[Stage] = [Mean(2), Mean(1)]
    whole, cut = _run(stages, clip, 100, cuts), _run(stages, clip, size, cuts)
    assert np.array_equal(whole.ab, cut.ab)  # type: ignore[arg-type]
    assert np.array_equal(cut.pts, clip.pts)


@pytest.mark.parametrize("part_frames", [1, 4, 9])
def test_a_part_cut_inside_a_shot_sees_its_whole_context(part_frames: int) -> None:
    clip, cuts = make_clip(frames=29, height=8, width=8), (11,)
    stages: list[Stage] = [Mean(2), Mean(3)]
    whole = _run(stages, clip, 5, cuts)
    for part in parts_of(shots_of((0, 29), cuts), part_frames):
        first, stop = part.reach(5)
        out = _run(stages, clip[first:stop], 4, cuts)[part.first - first : part.stop - first]
        assert np.array_equal(out.ab, whole.ab[part.first : part.stop])  # type: ignore[index,arg-type]


def test_a_cut_ends_the_context() -> None:
    clip = make_clip(frames=12, height=8, width=8)
    joined = _run([Mean(2)], clip, 4, (6,))
    alone = _run([Mean(2)], clip[:6], 4)
    assert np.array_equal(joined[:6].ab, alone.ab)  # type: ignore[arg-type]
    assert not np.array_equal(joined[:6].ab, _run([Mean(2)], clip, 4)[:6].ab)  # type: ignore[arg-type]


@pytest.mark.parametrize("radius", [0, 1, 3, 10])
@pytest.mark.parametrize("size", [1, 4, 50])
def test_windows_keep_every_frame_once_and_hold_bounded_context(radius: int, size: int) -> None:
    clip = make_clip(frames=23, height=4, width=4, ab=False)
    kept = []
    for window, keep in windows(_chunks(clip, size, (9,)), radius):
        assert len(window) <= 2 * radius + size + radius
        kept += list(range(window.first + keep.start, window.first + keep.stop))
    assert kept == list(range(23))


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("luma", "declares writes='chroma' but replaced luma"),
        ("short", "returned 3 frames for 4"),
        ("raise", "division"),
    ],
)
def test_a_stage_that_breaks_its_word_is_named(how: str, message: str) -> None:
    with pytest.raises(StageError, match=rf"bad on frames 0-3: .*{message}"):
        apply(Bad(how), make_clip(4), slice(0, 4))


def test_a_failing_stage_ends_the_stream_with_its_error() -> None:
    with pytest.raises(StageError, match="bad on frames"):
        _run([Mean(1), Bad("raise")], make_clip(20, 8, 8), 4)
