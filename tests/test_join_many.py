"""A join of many parts costs what their bytes cost: one opening and one reading of each, whatever their number."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import numpy as np
from media import frame_hashes, make_film
from parts import decoding_never_falls_behind, film_times, make_parts, packets

from restore.output.join import PartFile, join
from restore.output.profiles import load_profile
from restore.source.probe import probe


class Gate:
    """Stands where parts would be fetched, and counts."""

    def __init__(self) -> None:
        self.opened = self.open = self.most = 0

    @contextmanager
    def __call__(self, path: Path) -> Iterator[Path]:
        self.opened, self.open = self.opened + 1, self.open + 1
        self.most = max(self.most, self.open)
        yield path
        self.open -= 1


def bytes_read(work: Callable[[], None]) -> int:
    """Return how many bytes this process reads for some work."""

    def total() -> int:
        return int(Path(f"/proc/{os.getpid()}/io").read_text().split()[1])

    before = total()
    work()
    return total() - before


def make_reel(folder: Path, parts: int) -> tuple[Path, list[PartFile]]:
    """Make a film of a variable frame rate with sound, and parts of two frames of it."""
    pts = np.cumsum(np.random.default_rng(0).integers(300, 900, 2 * parts)).tolist()
    film = make_film(
        folder / f"film-{parts}.mp4",
        frames=len(pts),
        width=32,
        height=32,
        pts=pts,
        time_base=Fraction(1, 15000),
        start=417,
        audio="aac",
    )
    (folder / str(parts)).mkdir()
    return film, make_parts(probe(film), folder / str(parts), load_profile("access"), 2)


def test_a_join_of_many_parts_is_linear_and_keeps_its_promises(tmp_path: Path) -> None:
    costs = []
    for count in (60, 240):
        film, parts = make_reel(tmp_path, count)
        gate, output = Gate(), tmp_path / f"out-{count}.mp4"
        cost = bytes_read(lambda: join(probe(film), parts, output, load_profile("access"), local=gate))  # noqa: B023
        costs.append(cost)
        assert (gate.opened, gate.most) == (count + 1, 1)  # the first is opened for the header too
        assert film_times(output) == film_times(film)
        assert decoding_never_falls_behind(output)
        assert packets(output)[1].hashes == packets(film)[1].hashes
        assert packets(output)[1].times == packets(film)[1].times
        assert frame_hashes(output) == [one for part in parts for one in frame_hashes(part.path)]
    assert costs[1] < 5 * costs[0], costs
