from __future__ import annotations

import itertools
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import pytest
from media import make_film

from restore.source.clock import Clock
from restore.source.decode import read
from restore.source.probe import Source, probe


@dataclass
class Told:
    """What a decoded frame, or a packet, says of its time."""

    pts: int | None
    duration: int = 0


def clock(form: str, sought: bool = False, start: int | None = None, rate: Fraction = Fraction(25)) -> Clock:
    @dataclass
    class Film:
        format: str
        average_rate: Fraction = rate
        time_base: Fraction = Fraction(1, 1000)
        start_pts: int | None = start

    return Clock(cast(Source, Film(form)), sought)


def told(clock: Clock, frames: list[Told]) -> list[int | None]:
    return [clock(cast(Any, frame)) for frame in frames]


def test_times_of_the_container_are_kept_as_they_are() -> None:
    times = [7, 9, 10, 200]
    assert told(clock("mov"), [Told(time) for time in times]) == times


def test_missing_times_follow_from_the_last_known_one_at_the_average_rate() -> None:
    film = clock("h264", rate=Fraction(24000, 1001))
    frames = [Told(None), Told(None), Told(None), Told(None), Told(1000), Told(None)]
    assert told(film, frames) == [0, 42, 83, 125, 1000, 1042]


def test_missing_times_follow_the_durations_where_there_are_any() -> None:
    frames = [Told(None, 40), Told(None, 60), Told(None, 40), Told(None, 60)]
    assert told(clock("h264", start=10), frames) == [10, 50, 110, 150]


def test_after_a_seek_nothing_is_known_before_the_first_time() -> None:
    assert told(clock("h264", sought=True), [Told(None), Told(80), Told(None)]) == [None, 80, 120]


def test_frames_of_an_avi_take_the_places_of_its_packets_in_rising_order() -> None:
    film = clock("avi")
    for pts in (1, 4, 2, 7, 5):
        film.packet(cast(Any, Told(pts)))
    assert told(film, [Told(pts) for pts in (3, 1, 4, 2, 5)]) == [1, 2, 4, 5, 7]


def test_a_programme_stream_is_not_led_astray_by_guessed_times() -> None:
    frames = [Told(time, 40) for time in (0, 40, 40, 80, 160, 200)]
    assert told(clock("mpeg"), frames) == [0, 40, 80, 120, 160, 200]


def test_a_programme_stream_follows_small_corrections() -> None:
    frames = [Told(time, 40) for time in (0, 41, 82, 123)]
    assert told(clock("mpeg"), frames) == [0, 41, 82, 123]


@pytest.mark.parametrize("lost", [2, 500])
def test_frames_that_a_programme_stream_lost_leave_a_gap_after_a_second(lost: int) -> None:
    times = [40 * (n if n < 10 else n + lost) for n in range(80)]
    got = told(clock("mpeg"), [Told(time, 40) for time in times])
    assert got[:10] == times[:10]
    assert got[-30:] == times[-30:]
    assert all(a < b for a, b in itertools.pairwise(got))  # type: ignore[operator]


def test_a_duration_is_the_frames_own_or_that_of_the_rate() -> None:
    film = clock("mov", rate=Fraction(5000))
    assert film.duration(cast(Any, Told(0, 7))) == 7
    assert film.duration(cast(Any, Told(0))) == 1
    assert clock("mov").duration(cast(Any, Told(0))) == 40


@pytest.mark.parametrize(
    ("name", "codec", "first", "step"),
    [
        ("a.avi", "libx264", 1, 1),
        ("b.avi", "mpeg4", 1, 1),
        ("c.mpg", "mpeg2video", 48600, 3600),
        ("d.h264", "libx264", 0, 48000),
        ("e.m2v", "mpeg2video", 48000, 48000),
    ],
)
def test_a_film_whose_container_knows_no_times_runs_evenly(
    tmp_path: Path, name: str, codec: str, first: int, step: int
) -> None:
    source = probe(make_film(tmp_path / name, frames=40, codec=codec, gop=10, open_gop=True))
    assert [frame.pts for frame in read(source)] == [first + n * step for n in range(40)]
