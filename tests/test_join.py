"""Joining parts: nothing half-written, parts that do not fit, numbered frames."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from conftest import small_disk
from media import make_film
from parts import ACCESS, film_times, make_parts

from restore.errors import MediaError
from restore.output.join import PartFile, _copied, join
from restore.output.profiles import load_profile
from restore.source.probe import probe


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_film(tmp_path_factory.mktemp("film") / "film.mkv", frames=12, width=48, height=32)


def test_a_damaged_part_is_said_and_no_output_is_left(film: Path, tmp_path: Path) -> None:
    source, output = probe(film), tmp_path / "out.mp4"
    parts = make_parts(source, tmp_path, ACCESS, 6)
    data = parts[1].path.read_bytes()
    for damaged, message in (
        (data[: len(data) // 2], "should hold 6 frames"),
        (b"", "cannot be read"),
        (b"x" * 99, "cannot be"),
    ):
        parts[1].path.write_bytes(damaged)
        with pytest.raises(MediaError, match=rf"part-0001\.mkv: .*{message}.*delete it and run again"):
            join(source, parts, output, ACCESS)
        assert not list(tmp_path.glob("*out.mp4*"))
    make_film(tmp_path / "sound.mkv", frames=2, audio="flac")
    with av.open(str(tmp_path / "sound.mkv")) as sound, av.open(str(parts[1].path), "w") as deaf:
        copy = deaf.add_stream_from_template(sound.streams.audio[0], opaque=True)
        for packet in sound.demux(audio=0):
            if packet.size:
                packet.stream = copy
                deaf.mux(packet)
    with pytest.raises(MediaError, match="holds no film"):
        join(source, parts, output, ACCESS)


def test_parts_with_more_or_other_frames_than_recorded_are_refused(film: Path, tmp_path: Path) -> None:
    source = probe(film)
    first, second = make_parts(source, tmp_path, ACCESS, 6)
    for wrong in (second.pts[:4], np.append(second.pts, second.pts[-1] + 40)):
        bad = PartFile(second.path, wrong, np.full(len(wrong), 40))
        with pytest.raises(MediaError, match=f"should hold {len(wrong)} frames"):
            join(source, [first, bad], tmp_path / "out.mkv", ACCESS)


def test_parts_of_other_settings_are_refused(film: Path, tmp_path: Path) -> None:
    source = probe(film)
    (tmp_path / "other").mkdir()
    first = make_parts(source, tmp_path, ACCESS, 6)[0]
    second = make_parts(source, tmp_path / "other", replace(ACCESS, options={"preset": "slow"}), 6)[1]
    with pytest.raises(MediaError, match="other settings than the first one"):
        join(source, [first, second], tmp_path / "out.mkv", ACCESS)


def test_an_existing_output_is_replaced_only_by_a_whole_one(film: Path, tmp_path: Path) -> None:
    source, output = probe(film), tmp_path / "out.mp4"
    parts = make_parts(source, tmp_path, ACCESS, 6)
    output.write_text("old")
    with small_disk(2000), pytest.raises(MediaError, match=r"out\.mp4: cannot be written: no space left"):
        join(source, parts, output, ACCESS)
    assert output.read_text() == "old"
    assert not (tmp_path / ".out.mp4.tmp").exists()
    join(source, parts, output, ACCESS)
    assert len(film_times(output)) == 12


def test_a_missing_output_folder_is_said(film: Path, tmp_path: Path) -> None:
    source = probe(film)
    with pytest.raises(MediaError, match=r"none/out\.mp4: cannot be written: No such file"):
        join(source, make_parts(source, tmp_path, ACCESS, 12), tmp_path / "none" / "out.mp4", ACCESS)


def test_sound_that_cannot_be_read_is_said(film: Path) -> None:
    class Broken:
        streams = ()

        def demux(self, streams: object) -> None:
            raise av.error.InvalidDataError(1, "Invalid data")

    class Stream:
        index = 0

    Broken.streams = (Stream(),)  # type: ignore[assignment]
    with pytest.raises(MediaError, match=r"film\.mkv: its sound and other streams cannot be read"):
        list(_copied(Broken(), probe(film), {0: Stream()}, None))  # type: ignore[arg-type,dict-item]


@pytest.mark.parametrize("name", ["out/scan_%06d.png", "out"])
def test_numbered_frames_are_gathered_from_one(film: Path, tmp_path: Path, name: str) -> None:
    source, profile = probe(film), load_profile("sequence", Path(name))
    told: list[tuple[int, int]] = []
    parts = make_parts(source, tmp_path, profile, 5)
    for _ in range(2):  # the second time into a folder that is there
        join(source, parts, tmp_path / name, profile, progress=lambda *done: told.append(done))
        names = sorted(file.name for file in (tmp_path / "out").iterdir())
        assert names == [f"scan_{n:06d}.png" if "%" in name else f"{n:08d}.dpx" for n in range(1, 13)]
        assert not (tmp_path / ".out.tmp").exists()
    assert told == [(12, 12)] * 2
    assert all(len(list(part.path.iterdir())) == len(part.pts) for part in parts)


@pytest.mark.parametrize("name", ["f_%03d.png", "there/f_%03d.png", "new"])
def test_frames_that_a_killed_run_gathered_do_not_come_into_another_one(
    film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    source, profile, here = probe(film), load_profile("sequence", Path("f_%03d.png")), tmp_path / "here"
    (here / "there").mkdir(parents=True)
    monkeypatch.chdir(here)
    parts = make_parts(source, tmp_path, profile, 5)

    def kill(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("pathlib.Path.replace", kill)
        with pytest.raises(KeyboardInterrupt):
            join(source, parts, Path(name), profile)
    join(source, parts[:1], Path(name), profile)
    assert len(list(here.rglob("*.png"))) == 5
    assert not list(here.rglob("*.tmp"))


def test_frames_of_a_sequence_keep_their_numbers_and_luma(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    make_film(tmp_path / "in" / "a_%04d.png", frames=7, codec="png", pix_fmt="gray", container_format="image2")
    for file in sorted((tmp_path / "in").iterdir(), reverse=True):
        file.rename(file.with_name(f"a_{int(file.stem[2:]) + 41:04d}.png"))
    source = probe(tmp_path / "in", rate=Fraction(18))
    profile = load_profile("sequence", tmp_path / "out/b_%05d.tif")
    join(source, make_parts(source, tmp_path, profile, 3), tmp_path / "out/b_%05d.tif", profile)
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == [f"b_{n:05d}.tif" for n in range(42, 49)]


def test_a_sequence_becomes_a_film(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    make_film(tmp_path / "in" / "a_%04d.png", frames=7, codec="png", pix_fmt="gray", container_format="image2")
    source = probe(tmp_path / "in", rate=Fraction(18))
    join(source, make_parts(source, tmp_path, ACCESS, 3), tmp_path / "out.mp4", ACCESS)
    assert film_times(tmp_path / "out.mp4") == [Fraction(n, 18) for n in range(7)]


def test_a_part_that_lacks_frames_is_said(film: Path, tmp_path: Path) -> None:
    source, profile = probe(film), load_profile("sequence")
    parts = make_parts(source, tmp_path, profile, 6)
    next(parts[1].path.iterdir()).unlink()
    with pytest.raises(MediaError, match="should hold 6 frames, found 5"):
        join(source, parts, tmp_path / "out", profile)
    assert not (tmp_path / "out").exists()


def test_frames_are_copied_where_files_cannot_have_two_names(
    film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr("os.link", refuse)
    source, profile = probe(film), load_profile("sequence")
    join(source, make_parts(source, tmp_path, profile, 12), tmp_path / "out", profile)
    assert len(list((tmp_path / "out").iterdir())) == 12
