from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from media import Picture, make_film

from restore.clip import Plane
from restore.source.decode import Frame, read
from restore.source.fields import FieldMeter, FieldReport, sample
from restore.source.probe import probe


def pictures(frames: int, grain: float = 0.01) -> list[Plane]:
    picture = Picture(96, 64, (), 0, grain)
    return [np.rint(16 + 219 * picture.luma(float(number))).astype(np.uint8) for number in range(frames)]


def measure(lumas: Iterable[Plane], field: int = 0, depth: int = 8, **setup: int) -> FieldReport:
    meter = FieldMeter(depth, **setup)
    for number, luma in enumerate(lumas):
        meter.add(Frame(luma, None, number, 1, False, field))
    return meter.report()


def weave(top: Plane, bottom: Plane) -> Plane:
    woven = top.copy()
    woven[1::2] = bottom[1::2]
    return woven


def woven(frames: int, order: str) -> list[Plane]:
    halves = pictures(2 * frames)
    pairs = [(halves[2 * n], halves[2 * n + 1]) for n in range(frames)]
    return [weave(early, late) if order == "tff" else weave(late, early) for early, late in pairs]


@pytest.mark.parametrize(("order", "field"), [("tff", 1), ("bff", 2)])
@pytest.mark.parametrize("depth", [8, 10, 16])
def test_interlaced_pictures_are_recognised_with_their_order(order: str, field: int, depth: int) -> None:
    lumas = woven(14, order)
    deep = [luma.astype(np.uint16) * np.uint16(2 ** (depth - 8)) for luma in lumas] if depth > 8 else lumas
    report = measure(deep, field, depth)
    assert (report.order, report.flagged, report.agrees, report.telecine) == (order, order, True, False)
    assert report.share_interlaced == 1
    assert str(report) == f"interlaced, {'top' if order == 'tff' else 'bottom'} field first: " + (
        f"100 % of {report.judged} judged frames are interlaced"
    )


def test_progressive_pictures_are_recognised() -> None:
    report = measure(pictures(14))
    assert (report.order, report.flagged, report.share_interlaced) == ("progressive", "progressive", 0)


def test_a_progressive_film_with_interlaced_flags_is_reported_as_what_it_is() -> None:
    report = measure(pictures(14), field=1)
    assert (report.flagged, report.shown, report.order, report.agrees) == ("tff", "progressive", "progressive", False)
    assert "flagged interlaced, top field first, but the picture is progressive" in str(report)


def test_an_interlaced_film_with_progressive_flags_is_reported_as_what_it_is() -> None:
    report = measure(woven(14, "bff"))
    assert (report.flagged, report.shown, report.agrees) == ("progressive", "bff", False)


def test_a_still_picture_leaves_the_word_to_the_flags() -> None:
    flat = [np.full((64, 96), 90, np.uint8)] * 14
    report = measure(flat, field=2)
    assert (report.shown, report.order, report.judged, report.agrees) == ("unknown", "bff", 0, True)
    assert "does not show" in str(report)


def test_flags_that_change_are_called_unknown() -> None:
    meter = FieldMeter(8)
    for number, luma in enumerate(pictures(12)):
        meter.add(Frame(luma, None, number, 1, False, number % 2))
    assert meter.report().flagged == "unknown"


def test_both_orders_in_one_film_are_called_unknown() -> None:
    lumas = woven(12, "tff") + woven(12, "bff")
    assert measure(lumas, run=12, every=12).shown == "unknown"


def test_telecine_is_suspected_from_repeated_fields() -> None:
    film = pictures(48)
    groups = [film[first : first + 4] for first in range(0, 48, 4)]
    pairs = [pair for a, b, c, d in groups for pair in ((a, a), (a, b), (b, c), (c, c), (d, d))]
    report = measure([weave(top, bottom) for top, bottom in pairs], field=1, run=30, every=30)
    assert report.telecine
    assert "3:2 pulldown" in str(report)


def test_only_short_runs_are_looked_at() -> None:
    assert measure(pictures(50), run=4, every=20).looked_at == 12


def test_frames_too_small_for_fields_are_passed_over() -> None:
    report = measure([np.zeros((1, 1), np.uint8)] * 3)
    assert (report.looked_at, report.order) == (0, "progressive")


def test_nothing_seen_is_nothing_known() -> None:
    report = FieldMeter(8).report()
    assert (report.flagged, report.shown, report.judged) == ("unknown", "unknown", 0)


def test_a_film_is_sampled_in_runs_spread_over_it(tmp_path: Path) -> None:
    path = make_film(tmp_path / "film.mpg", codec="mpeg2video", frames=200, interlaced="tff", gop=10)
    report = sample(probe(path), runs=3, run=8)
    assert (report.order, report.looked_at) == ("tff", 24)


def test_a_short_film_is_sampled_once(tmp_path: Path) -> None:
    assert sample(probe(make_film(tmp_path / "film.mp4", frames=10)), run=8).looked_at == 8


@pytest.mark.needs_shared
@pytest.mark.parametrize(
    ("name", "order"),
    [
        ("c06_color_pal_interlaced.mpg", "tff"),
        ("b02_bw_scratched_home_movie.mp4", "progressive"),
        ("c01_color_dog_motion.mp4", "progressive"),
    ],
)
def test_real_films_are_recognised(shared: Path, name: str, order: str) -> None:
    source = probe(shared / "data" / "clips" / name)
    report = sample(source, runs=2)
    assert (report.order, report.flagged, report.agrees) == (order, order, True)


@pytest.mark.needs_shared
def test_the_flags_of_every_frame_of_a_tape_are_read(shared: Path) -> None:
    source = probe(shared / "data" / "clips" / "c06_color_pal_interlaced.mpg")
    assert {frame.field for frame in read(source, luma_only=True)} == {1}
