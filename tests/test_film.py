"""One film, end to end, with a colorizer that is quick and exact: the promises about frames, parts and restarts."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, ClassVar

import av
import cv2
import numpy as np
import pytest
from media import frame_hashes, make_film

from restore.clip import Clip
from restore.colorize.paint import Paint
from restore.colorize.smooth import Smooth
from restore.errors import MediaError, StageError
from restore.film import Film, FilmReport, restore_film
from restore.output.profiles import load_profile, subsampling_for
from restore.source.probe import probe
from restore.stage import Stage, Writes
from restore.storage import place


@dataclass(frozen=True)
class Tint:
    """Colours by brightness; stands in for the generator."""

    name: ClassVar[str] = "tint"
    writes: ClassVar[Writes] = "ab"
    radius: ClassVar[int] = 0
    seconds: float = 0.0

    def __call__(self, clip: Clip) -> Clip:
        time.sleep(self.seconds)
        scale = 2.0 ** (clip.color.depth - 8)
        small = [cv2.resize(frame, (24, 16), interpolation=cv2.INTER_AREA) / scale - 128 for frame in clip.luma]
        ab = np.stack([np.stack([plane * 0.3, plane * -0.2]) for plane in small])
        return clip.with_planes(ab=ab.astype(np.float32))


def film_of(path: Path, output: Path, profile: str = "archive", seconds: float = 0.0, **settings: Any) -> Film:
    source = probe(path)
    chosen = load_profile(profile, output)
    stages: tuple[Stage, ...] = (Tint(seconds), Smooth(), Paint(subsampling_for(chosen, source)))
    return Film(source, place(output), stages, chosen, {}, f"key-{profile}", **settings)


def planes(path: Path) -> list[str]:
    """Return a hash of all planes of every frame."""
    with av.open(str(path)) as container:
        return [hashlib.sha256(frame.to_ndarray().tobytes()).hexdigest() for frame in container.decode(video=0)]


def times(path: Path) -> list[Fraction]:
    with av.open(str(path)) as container:
        return [(frame.pts or 0) * (frame.time_base or Fraction(0)) for frame in container.decode(video=0)]


SOURCES: dict[str, dict[str, Any]] = {
    "h264 4:2:0": {"codec": "libx264", "suffix": ".mp4", "audio": "aac"},
    "h264 10 bit": {"codec": "libx264", "pix_fmt": "yuv420p10le", "suffix": ".mkv"},
    "full-range gray": {"codec": "ffv1", "pix_fmt": "gray", "suffix": ".mkv", "audio": "pcm_s16le"},
    "mjpeg 4:2:2": {"codec": "mjpeg", "pix_fmt": "yuvj422p", "suffix": ".avi"},
    "12 bit": {"codec": "ffv1", "pix_fmt": "yuv420p12le", "suffix": ".mkv"},
    "16-bit gray": {"codec": "ffv1", "pix_fmt": "gray16le", "suffix": ".mkv"},
    "odd size": {"codec": "ffv1", "pix_fmt": "yuv420p", "width": 77, "height": 45, "suffix": ".mkv"},
}


@pytest.mark.parametrize("kind", SOURCES)
def test_the_archive_keeps_luma_bit_for_bit_and_every_time_stamp(kind: str, tmp_path: Path) -> None:
    settings = dict(SOURCES[kind])
    path = make_film(tmp_path / f"in{settings.pop('suffix')}", frames=9, **settings)
    output = tmp_path / "out.mkv"
    report = restore_film(film_of(path, output, part_frames=4))
    assert report.frames == 9
    assert report.mean_chroma > 1
    assert frame_hashes(output) == frame_hashes(path)
    found, wanted = times(output), times(path)
    assert [abs(a - b) <= Fraction(1, 1000) for a, b in zip(found, wanted, strict=True)] == [True] * 9
    assert not (tmp_path / "out.mkv.restore").exists()


def test_ten_bit_h264_stays_ten_bit_in_the_access_copy(tmp_path: Path) -> None:
    path = make_film(tmp_path / "in.mp4", frames=5, pix_fmt="yuv420p10le")
    restore_film(film_of(path, tmp_path / "out.mp4", "access"))
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert container.streams.video[0].pix_fmt == "yuv420p10le"
    assert times(tmp_path / "out.mp4") == times(path)


@pytest.fixture(scope="module")
def reel(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A film of three shots with B-frames, and the planes of its undisturbed result."""
    folder = tmp_path_factory.mktemp("reel")
    path = make_film(folder / "in.mp4", frames=60, shots=(17, 40), gop=25, audio="aac", start=7)
    restore_film(film_of(path, folder / "out.mkv"))
    return path, planes(folder / "out.mkv")


@pytest.mark.parametrize("chunk", [1, 7, 64])
@pytest.mark.parametrize("part_frames", [100, 40, 12])
def test_the_result_does_not_depend_on_parts_or_chunks(
    reel: tuple[Path, list[str]], part_frames: int, chunk: int, tmp_path: Path
) -> None:
    path, expected = reel
    report = restore_film(film_of(path, tmp_path / "out.mkv", part_frames=part_frames, chunk=chunk))
    assert report.parts == {100: 1, 40: 2, 12: 5}[part_frames]
    assert planes(tmp_path / "out.mkv") == expected


@pytest.mark.parametrize("threads", [1, 3])
def test_the_result_does_not_depend_on_threads(reel: tuple[Path, list[str]], threads: int, tmp_path: Path) -> None:
    path, expected = reel
    restore_film(film_of(path, tmp_path / "out.mkv", part_frames=30, threads=threads))
    assert planes(tmp_path / "out.mkv") == expected


def test_the_result_does_not_depend_on_processes(reel: tuple[Path, list[str]], tmp_path: Path) -> None:
    from restore.cluster import local_workers

    path, expected = reel
    with local_workers(3) as execute:
        restore_film(film_of(path, tmp_path / "out.mkv", part_frames=12), execute=execute)
    assert planes(tmp_path / "out.mkv") == expected


@dataclass(frozen=True)
class Deadly:
    """Kills its process, the first time or every time."""

    name: ClassVar[str] = "deadly"
    writes: ClassVar[Writes] = "ab"
    radius: ClassVar[int] = 0
    once: str = ""

    def __call__(self, clip: Clip) -> Clip:
        if clip.first == 0 and not (self.once and Path(self.once).exists()):
            if self.once:
                Path(self.once).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return clip.with_planes(ab=clip.ab)


@pytest.mark.parametrize("once", [True, False])
def test_a_part_whose_worker_dies_is_done_again_or_named(
    reel: tuple[Path, list[str]], once: bool, tmp_path: Path
) -> None:
    from restore.cluster import local_workers

    film = film_of(reel[0], tmp_path / "out.mkv", part_frames=30)
    tint, *rest = film.stages
    film = replace(film, stages=(tint, Deadly(str(tmp_path / "died") if once else ""), *rest))
    with local_workers(2) as execute:
        if once:
            restore_film(film, execute=execute)
            assert planes(film.output.path) == reel[1]
        else:
            with pytest.raises(StageError, match="frames 0-16: its worker died several times"):
                restore_film(film, execute=execute)
            assert not film.output.exists()


def test_a_passage_has_the_frames_of_the_whole(reel: tuple[Path, list[str]], tmp_path: Path) -> None:
    path, expected = reel
    film = film_of(path, tmp_path / "out.mkv", part_frames=9, start_seconds=Fraction(1), end_seconds=Fraction(2))
    assert restore_film(film).frames == 25
    assert planes(tmp_path / "out.mkv") == expected[25:50]


def test_finished_parts_are_not_done_again(reel: tuple[Path, list[str]], tmp_path: Path) -> None:
    path, expected = reel
    film = film_of(path, tmp_path / "out.mkv", part_frames=12)
    _interrupt(film, after=3)
    parts = sorted((film.folder.path / "parts").glob("*.mkv"))
    before = {part.name: part.stat().st_mtime_ns for part in parts}
    assert len(before) == 3
    report = restore_film(film)
    assert (report.resumed_parts, report.parts) == (3, 5)
    assert planes(film.output.path) == expected


@pytest.mark.parametrize("damage", ["truncate", "flip", "delete", "record", "key"])
def test_a_damaged_part_is_done_again(reel: tuple[Path, list[str]], damage: str, tmp_path: Path) -> None:
    path, expected = reel
    film = film_of(path, tmp_path / "out.mkv", part_frames=12)
    _interrupt(film, after=3)
    part, record = film.folder.path / "parts" / "000001.mkv", film.folder.path / "parts" / "000001.json"
    data = bytearray(part.read_bytes())
    if damage == "truncate":
        part.write_bytes(data[:-100])
    elif damage == "flip":
        data[len(data) // 2] ^= 255
        part.write_bytes(data)
    elif damage == "delete":
        part.unlink()
    elif damage == "record":
        record.write_text(record.read_text()[:20])
    else:
        record.write_text(json.dumps({**json.loads(record.read_text()), "key": "other"}))
    assert restore_film(film).resumed_parts == 2
    assert planes(film.output.path) == expected


def test_what_dead_workers_were_writing_is_removed_when_a_run_continues(
    reel: tuple[Path, list[str]], tmp_path: Path
) -> None:
    film = film_of(reel[0], tmp_path / "out.mkv", part_frames=12)
    _interrupt(film, after=2)
    parts = film.job.parts.path
    (parts / ".000002.0a1b2c3d.tmp").write_bytes(b"half a part")
    (parts / ".000003.0a1b2c3d.tmp").mkdir()
    (parts / ".000003.0a1b2c3d.tmp" / "00000001.dpx").write_bytes(b"a frame of a part")
    seen: list[str] = []

    def execute(work: Any, missing: Sequence[Any]) -> Any:
        seen.extend(path.name for path in parts.iterdir())
        yield from map(work, missing)

    assert restore_film(film, execute=execute).resumed_parts == 2  # type: ignore[arg-type]
    assert sorted(seen) == ["000000.json", "000000.mkv", "000001.json", "000001.mkv"]


def test_fresh_starts_over(reel: tuple[Path, list[str]], tmp_path: Path) -> None:
    film = film_of(reel[0], tmp_path / "out.mkv", part_frames=12)
    _interrupt(film, after=2)
    assert restore_film(film, fresh=True).resumed_parts == 0


def test_other_settings_do_not_use_old_parts(reel: tuple[Path, list[str]], tmp_path: Path) -> None:
    film = film_of(reel[0], tmp_path / "out.mkv", part_frames=12)
    _interrupt(film, after=2)
    assert restore_film(replace(film, key="another")).resumed_parts == 0


def test_a_killed_run_finishes_and_equals_an_undisturbed_one(reel: tuple[Path, list[str]], tmp_path: Path) -> None:
    """SIGKILL at several moments of the same film: in the scan, early and late in the parts."""
    path, expected = reel
    output = tmp_path / "out.mkv"
    kept: dict[str, int] = {}
    for parts in (0, 1, 2, 4):
        process = _start(path, output)
        deadline = time.monotonic() + 60
        records = output.with_name("out.mkv.restore") / "parts"
        while len(list(records.glob("*.json"))) < parts and process.poll() is None:
            assert time.monotonic() < deadline, "the run makes no progress"
            time.sleep(0.02)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert not output.exists()
        for name, changed in kept.items():
            assert (records / name).stat().st_mtime_ns == changed, "a finished part was done again"
        kept = {record.name: record.stat().st_mtime_ns for record in records.glob("*.json")}
    report = restore_film(film_of(path, output, part_frames=12))
    assert report.resumed_parts >= 4
    assert planes(output) == expected


@pytest.mark.parametrize(("colored", "interlaced"), [(True, None), (False, "tff"), (False, None)])
def test_the_user_is_told_of_colour_and_of_fields(
    colored: bool, interlaced: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = make_film(
        tmp_path / "in.mkv", frames=16, codec="mpeg2video", colored=colored, interlaced=interlaced, width=128, height=96
    )
    restore_film(film_of(path, tmp_path / "out.mkv"))
    assert ("only its luma is used" in caplog.text) == colored
    assert ("it is interlaced" in caplog.text) == (interlaced is not None)
    assert (probe(tmp_path / "out.mkv").field_order == "tff") == (interlaced is not None)


def test_two_runs_do_not_work_on_one_output(reel: tuple[Path, list[str]], tmp_path: Path) -> None:
    path, output = reel[0], tmp_path / "out.mkv"
    process = _start(path, output)
    try:
        while not (tmp_path / "out.mkv.restore" / "scan.json").exists():
            assert process.poll() is None
            time.sleep(0.02)
        with pytest.raises(MediaError, match="another run is working on this output"):
            restore_film(film_of(path, output))
    finally:
        process.kill()
        process.wait()


def test_progress_counts_every_frame_once(reel: tuple[Path, list[str]], tmp_path: Path) -> None:
    seen: dict[str, list[tuple[int, int | None]]] = {}

    def progress(phase: str, done: int, total: int | None) -> None:
        seen.setdefault(phase, []).append((done, total))

    restore_film(film_of(reel[0], tmp_path / "out.mkv", part_frames=12), progress=progress)
    assert seen["scan"][-1][0] == 60
    assert seen["restore"][-1] == (60, 60)
    assert [done for done, _ in seen["restore"]] == sorted(done for done, _ in seen["restore"])


def _interrupt(film: Film, after: int) -> None:
    """Run a film and fail when some parts are done, as a full disk or a lost worker would."""

    def execute(work: Any, parts: Sequence[Any]) -> Any:
        for number, part in enumerate(parts):
            if number == after:
                raise MediaError("no space left", "disk")
            yield work(part)

    with pytest.raises(MediaError, match="no space left"):
        restore_film(film, execute=execute)  # type: ignore[arg-type]
    assert not film.output.exists()


def _start(path: Path, output: Path) -> subprocess.Popen[bytes]:
    """Start the same film in another process, slow enough to be killed in between."""
    return subprocess.Popen([sys.executable, __file__, str(path), str(output)], cwd=Path(__file__).parent)


def main() -> FilmReport:
    return restore_film(film_of(Path(sys.argv[1]), Path(sys.argv[2]), seconds=0.15, part_frames=12, chunk=4))


if __name__ == "__main__":
    main()
