from __future__ import annotations

import numpy as np
import pytest

from restore.plan import Part, parts_of, shots_of


def test_cuts_become_shots_that_cover_the_reel() -> None:
    assert shots_of((0, 100), (10, 40)) == ((0, 10), (10, 40), (40, 100))
    assert shots_of((0, 5), ()) == ((0, 5),)
    assert shots_of((20, 60), (10, 20, 40, 60, 80)) == ((20, 40), (40, 60))


def test_short_shots_share_a_part_and_long_ones_are_cut_evenly() -> None:
    parts = parts_of(((0, 40), (40, 90), (90, 100), (100, 500)), 100)
    assert [(part.first, part.stop) for part in parts] == [(0, 100), (100, 200), (200, 300), (300, 400), (400, 500)]
    assert parts[0].shots == ((0, 40), (40, 90), (90, 100))
    assert parts[2].shots == ((100, 500),)


@pytest.mark.parametrize("seed", range(40))
def test_every_wanted_frame_is_in_exactly_one_part(seed: int) -> None:
    rng = np.random.default_rng(seed)
    frames = int(rng.integers(1, 900))
    cuts = sorted({int(cut) for cut in rng.integers(1, max(2, frames), rng.integers(0, 30))})
    low, high = sorted(int(n) for n in rng.integers(0, frames + 1, 2))
    wanted = (low, high) if seed % 2 and low < high else None
    size = int(rng.integers(1, 200))
    shots = shots_of((0, frames), cuts)
    parts = parts_of(shots, size, wanted)
    covered = [frame for part in parts for frame in range(part.first, part.stop)]
    assert covered == list(range(*(wanted or (0, frames))))
    assert [part.number for part in parts] == list(range(len(parts)))
    for part in parts:
        assert len(part) <= max(1, size * 3 // 2)
        assert all(shot in shots for shot in part.shots)
        assert part.shots[0][0] <= part.first < part.shots[0][1]
        assert part.shots[-1][0] < part.stop <= part.shots[-1][1]


def test_the_reach_stays_inside_the_shots() -> None:
    part = Part(0, 10, 20, ((9, 15), (15, 40)))
    assert part.reach(3) == (9, 23)
    assert part.reach(0) == (10, 20)
    assert part.reach(100) == (9, 40)


def test_an_empty_reel_has_no_parts() -> None:
    assert parts_of((), 10) == ()


def test_a_part_has_at_least_one_frame() -> None:
    with pytest.raises(ValueError, match="part_frames must be at least 1"):
        parts_of(((0, 5),), 0)
