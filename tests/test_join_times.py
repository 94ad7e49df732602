"""Joining parts: the times of the source, exactly, and its luma and sound."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from media import frame_hashes, make_film
from parts import (
    ACCESS,
    decoding_never_falls_behind,
    film_end,
    film_times,
    make_parts,
    packets,
    same_to_the_millisecond,
)

from restore.output.join import _decoding_times, join
from restore.output.profiles import Profile, load_profile
from restore.source.probe import probe

VFR = [
    0, 1000, 2000, 4000, 7000, 8000, 9000, 12000, 13000, 14001, 15000, 16000, 18000, 19000, 20000, 21000, 30000, 31000,
]  # fmt: skip
WAYS = [
    ("access", ".mp4"),
    ("access", ".mov"),
    ("access", ".m4v"),
    ("access", ".mkv"),
    ("edit", ".mov"),
    ("archive", ".mkv"),
]


def check_times(film: Path, output: Path) -> None:
    """Hold an output to the times of its source: exactly, in Matroska to the millisecond."""
    expected, times = film_times(film), film_times(output)
    if output.suffix == ".mkv":
        assert same_to_the_millisecond(times, expected)
        assert abs(film_end(output) - film_end(film)) <= Fraction(1, 1000)
    else:
        assert times == expected
        assert decoding_never_falls_behind(output)


@pytest.mark.parametrize(("name", "suffix"), WAYS)
@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv420p10le"])
def test_a_vfr_film_with_an_offset_start_keeps_every_time(tmp_path: Path, name: str, suffix: str, pix_fmt: str) -> None:
    film = make_film(
        tmp_path / "film.mp4",
        frames=18,
        pix_fmt=pix_fmt,
        pts=VFR,
        time_base=Fraction(1, 30000),
        start=4321,
        audio="aac",
    )
    source, output, profile = probe(film), tmp_path / f"out{suffix}", load_profile(name)
    join(source, make_parts(source, tmp_path, profile, 5), output, profile)
    check_times(film, output)
    assert len(frame_hashes(output)) == 18
    assert packets(output)[1].hashes == packets(film)[1].hashes


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.parametrize("seed", range(6))
def test_pauses_anywhere_in_a_variable_rate_keep_every_time(tmp_path: Path, suffix: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    steps = rng.choice([100, 200, 201, 3000, 45000], 16, p=[0.4, 0.2, 0.2, 0.1, 0.1])
    if seed == 0:
        steps[:2] = 90000  # the start decides how far decoding is ahead
    pts = [0, *np.cumsum(steps).tolist()]
    film = make_film(
        tmp_path / "film.mkv", frames=17, width=32, height=32, pts=[p // 3 for p in pts], time_base=Fraction(1, 1000)
    )
    source, output = probe(film), tmp_path / f"out{suffix}"
    join(source, make_parts(source, tmp_path, ACCESS, int(rng.integers(1, 9))), output, ACCESS)
    check_times(film, output)


@pytest.mark.parametrize(
    "settings",
    [
        {"suffix": ".mkv", "open_gop": True, "codec": "libx265", "pix_fmt": "yuv420p10le"},
        {"suffix": ".mpg", "open_gop": True, "codec": "mpeg2video", "container_format": "vob"},
        {"suffix": ".avi", "codec": "mpeg4", "rate": Fraction(30000, 1001)},
        {"suffix": ".ts", "codec": "libx264", "open_gop": True, "audio": "aac"},
        {"suffix": ".mov", "rate": Fraction(24000, 1001), "time_base": Fraction(1, 24000), "start": 2402400},
    ],
    ids=lambda settings: settings["suffix"],
)
def test_films_of_all_containers_keep_their_times(tmp_path: Path, settings: dict[str, object]) -> None:
    chosen = dict(settings)
    film = make_film(tmp_path / f"film{chosen.pop('suffix')}", frames=30, **chosen)  # type: ignore[arg-type]
    source, output = probe(film), tmp_path / "out.mp4"
    parts = make_parts(source, tmp_path, ACCESS, 7)
    join(source, parts, output, ACCESS)
    shown = [int(pts) * source.time_base for part in parts for pts in part.pts]
    assert film_times(output) == shown
    assert decoding_never_falls_behind(output)


def with_b_frames() -> Profile:
    return replace(ACCESS, options={"preset": "veryfast", "crf": "20", "x264-params": "bframes=3:b-adapt=0"})


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv420p10le"])
def test_a_profile_with_b_frames_keeps_every_time(tmp_path: Path, suffix: str, pix_fmt: str) -> None:
    film = make_film(
        tmp_path / "film.mp4", frames=18, pix_fmt=pix_fmt, pts=VFR, time_base=Fraction(1, 30000), start=4321
    )
    source, output, profile = probe(film), tmp_path / f"out{suffix}", with_b_frames()
    join(source, make_parts(source, tmp_path, profile, 7), output, profile)
    assert same_to_the_millisecond(film_times(output), film_times(film))
    assert suffix == ".mkv" or film_times(output) == film_times(film)
    shown = packets(output)[0].times
    assert shown != sorted(shown)
    assert len(frame_hashes(output)) == 18


@pytest.mark.parametrize("name", ["access", "edit"])
def test_mp4_and_mov_keep_the_duration_of_every_frame(tmp_path: Path, name: str) -> None:
    film = make_film(tmp_path / "film.mp4", frames=18, pts=VFR, time_base=Fraction(1, 30000), start=4321)
    source, output, profile = probe(film), tmp_path / "out.mov", load_profile(name)
    parts = make_parts(source, tmp_path, profile, 7)
    join(source, parts, output, profile)
    expected = [int(one) * source.time_base for part in parts for one in part.durations]
    assert packets(output)[0].durations == expected


def test_decoding_times_rise_and_stay_before_the_frames() -> None:
    pts = np.array(VFR, np.int64)
    assert np.array_equal(_decoding_times(pts, 0), pts)
    for depth in (1, 2, 3, 40):
        dts = _decoding_times(pts, depth)
        assert np.all(np.diff(dts) > 0)
        assert np.all(dts <= pts - np.minimum(depth, 1))
    assert list(_decoding_times(pts[:1], 2)) == [0]
    with pytest.raises(ValueError, match="must rise"):
        _decoding_times(np.array([0, 5, 5]), 2)


@pytest.mark.parametrize(
    ("codec", "pix_fmt", "full_range", "size"),
    [
        ("libx264", "yuv420p", False, (96, 64)),
        ("libx264", "yuv420p10le", False, (96, 64)),
        ("ffv1", "yuv422p12le", False, (51, 37)),
        ("libx264", "gray", True, (64, 48)),
        ("mjpeg", "yuvj422p", True, (64, 48)),
        ("ffv1", "gray16le", True, (51, 37)),
    ],
)
def test_archive_luma_is_the_source_luma_bit_for_bit(
    tmp_path: Path, codec: str, pix_fmt: str, full_range: bool, size: tuple[int, int]
) -> None:
    film = make_film(
        tmp_path / "film.mkv",
        frames=9,
        codec=codec,
        pix_fmt=pix_fmt,
        full_range=full_range,
        width=size[0],
        height=size[1],
    )
    source, output, profile = probe(film), tmp_path / "out.mkv", load_profile("archive")
    join(source, make_parts(source, tmp_path, profile, 4), output, profile)
    assert frame_hashes(output) == frame_hashes(film)
    assert probe(output).color.full_range == source.color.full_range


def test_two_hundred_parts_are_joined_and_told(tmp_path: Path) -> None:
    film = make_film(tmp_path / "film.mp4", frames=200, width=32, height=32, bframes=0, audio="aac")
    source, told = probe(film), list[tuple[int, int]]()
    parts = make_parts(source, tmp_path, ACCESS, 1)
    join(source, parts, tmp_path / "out.mp4", ACCESS, progress=lambda done, total: told.append((done, total)))
    assert len(parts) == 200
    assert told == [(64, 200), (128, 200), (192, 200), (200, 200)]
    check_times(film, tmp_path / "out.mp4")
    assert len(frame_hashes(tmp_path / "out.mp4")) == 200


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_of_a_passage_only_the_overlapping_sound_is_taken(tmp_path: Path, suffix: str) -> None:
    chapters = [(0, 1, "a"), (1, 3, "b"), (3, 4, "c")]
    film = make_film(
        tmp_path / f"film{suffix}", frames=100, width=32, height=32, audio="aac", subtitles=True, chapters=chapters
    )
    source, output = probe(film), tmp_path / f"out{suffix}"
    join(
        source,
        make_parts(source, tmp_path, ACCESS, 20, 30, 60),
        output,
        ACCESS,
        start=Fraction(6, 5),
        end=Fraction(12, 5),
    )
    assert same_to_the_millisecond(film_times(output), [Fraction(n, 25) for n in range(30, 60)])
    whole, taken = packets(film)[1], packets(output)[1]
    first = whole.hashes.index(taken.hashes[0])
    span = slice(first, first + len(taken.hashes))
    assert taken.hashes == whole.hashes[span]
    assert same_to_the_millisecond(taken.times, whole.times[span])
    assert abs(taken.times[0] - Fraction(6, 5)) < Fraction(1, 20)
    assert abs(taken.times[-1] - Fraction(12, 5)) < Fraction(1, 20)
    made = probe(output).chapters
    assert [chapter.metadata["title"] for chapter in made] == (["b"] if suffix == ".mkv" else ["", "b"])
    assert same_to_the_millisecond([made[-1].start, made[-1].end], [Fraction(6, 5), Fraction(12, 5)])


@pytest.mark.needs_shared
@pytest.mark.parametrize(
    ("clip", "name", "suffix"),
    [
        ("c05_color_vfr.mp4", "access", ".mp4"),
        ("c05_color_vfr.mp4", "archive", ".mkv"),
        ("c06_color_pal_interlaced.mpg", "access", ".mp4"),
        ("c07_color_10bit_2audio_subs.mkv", "access", ".mkv"),
        ("b03_bw_fullrange_gray_pcm_audio.mkv", "access", ".mov"),
    ],
)
def test_real_films_keep_times_and_sound(shared: Path, tmp_path: Path, clip: str, name: str, suffix: str) -> None:
    film, output, profile = shared / "data" / "clips" / clip, tmp_path / f"out{suffix}", load_profile(name)
    source = probe(film)
    join(source, make_parts(source, tmp_path, profile, 50), output, profile)
    check_times(film, output)
    before, after = packets(film), packets(output)
    for index in before.keys() - {source.stream}:
        assert after[index].hashes == before[index].hashes
        assert same_to_the_millisecond(after[index].times, before[index].times)
    made = probe(output)
    assert made.sample_aspect_ratio == source.sample_aspect_ratio
    assert (made.color.matrix, made.color.full_range) == (source.color.matrix, source.color.full_range)
    assert made.field_order == source.field_order
    assert made.color.assumed == ()
