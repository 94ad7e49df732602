"""Films and stills in an object store: the same results as in folders, and the same promises when something breaks."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from conftest import small_disk
from media import make_film
from s3server import SECRET
from test_film import film_of, planes, times
from test_run import photo

from restore.batch import run
from restore.errors import ConfigError, MediaError
from restore.film import Film, restore_film
from restore.inspection import inspect
from restore.lease import LeaseHeld, LeaseLost
from restore.naming import output_for
from restore.part import finished, finished_parts
from restore.plan import Part
from restore.setup import Options, film_for
from restore.source.probe import probe
from restore.storage import Place, place

FRAMES = 24


@pytest.fixture(scope="module")
def reel(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A film with sound, and the planes of its result in a folder."""
    folder = tmp_path_factory.mktemp("reel")
    path = make_film(folder / "in.mp4", frames=FRAMES, shots=(9,), gop=8, audio="aac", start=7)
    restore_film(film_of(path, folder / "out.mkv"))
    return path, planes(folder / "out.mkv")


@pytest.fixture
def cloud(reel: tuple[Path, list[str]], bucket: str, tmp_path: Path) -> Film:
    """The same film from a bucket to a bucket."""
    (place(bucket) / "in/reel.mp4").put(reel[0])
    return cloud_film(bucket, reel[0], tmp_path)


def cloud_film(bucket: str, local: Path, folder: Path, **settings: Any) -> Film:
    film = film_of(local, folder / "out.mkv", part_frames=6, **settings)
    source = replace(film.source, path=f"{bucket}/in/reel.mp4")
    return replace(film, source=source, output=place(bucket) / "out/reel.mkv", scratch=folder / "scratch")


def fetched(where: Place, folder: Path) -> Path:
    where.fetch(folder / "fetched.mkv")
    return folder / "fetched.mkv"


def interrupt(film: Film, after: int) -> None:
    """Run a film, and fail when some parts are done."""

    def execute(work: Any, parts: Any) -> Iterator[Any]:
        for number, part in enumerate(parts):
            if number == after:
                raise MediaError("no space left", "disk")
            yield work(part)

    with pytest.raises(MediaError, match="no space left"):
        restore_film(film, execute=execute)


def test_a_film_goes_from_a_bucket_to_a_bucket_as_from_a_folder_to_a_folder(
    reel: tuple[Path, list[str]], cloud: Film, tmp_path: Path
) -> None:
    report = restore_film(cloud)
    assert (report.frames, report.parts, str(report.output)) == (FRAMES, 4, str(cloud.output))
    output = fetched(cloud.output, tmp_path)
    assert planes(output) == reel[1]
    assert [round(time * 1000) for time in times(output)] == [round(time * 1000) for time in times(reel[0])]
    assert probe(output).streams[1].codec == "aac"
    assert sorted(cloud.output.parent.listing()) == ["reel.mkv", "reel.mkv.json"]
    written = json.loads((cloud.output.parent / "reel.mkv.json").read_bytes())
    assert (written["source"], written["output"]) == (cloud.source.path, str(cloud.output))
    assert [path for path in (tmp_path / "scratch").rglob("*") if path.is_file()] == []


def test_the_source_is_fetched_once_a_machine_and_parts_once_each(
    cloud: Film, s3_server: tuple[str, Any], tmp_path: Path
) -> None:
    begun = len(s3_server[1].requests)
    restore_film(cloud)
    asked = s3_server[1].requests[begun:]
    assert sum(request == ("GET", path_of(cloud.source.path)) for request in asked) == 1
    parts = [path for method, path in asked if method == "GET" and path.endswith(".mkv")]
    assert len(parts) == 4 + 1  # the first gives the header too
    assert sum(method == "PUT" and path.endswith("out/reel.mkv") for method, path in asked) == 1


def path_of(url: str) -> str:
    return url.removeprefix("s3:/")


def test_workers_in_other_processes_do_the_parts(reel: tuple[Path, list[str]], cloud: Film, tmp_path: Path) -> None:
    from restore.cluster import local_workers

    assert len(pickle.dumps(cloud.job)) < 20_000
    assert SECRET.encode() not in pickle.dumps(cloud.job)
    with local_workers(2) as execute:
        restore_film(cloud, execute=execute)
    assert planes(fetched(cloud.output, tmp_path)) == reel[1]


def test_an_interrupted_film_continues(reel: tuple[Path, list[str]], cloud: Film, tmp_path: Path) -> None:
    interrupt(cloud, after=3)
    listing = (cloud.folder / "parts").listing()
    assert not cloud.output.exists()
    report = restore_film(cloud)
    assert (report.resumed_parts, report.parts) == (3, 4)
    assert len(listing) == 6
    assert planes(fetched(cloud.output, tmp_path)) == reel[1]


def test_what_is_finished_is_found_without_downloading_it(
    cloud: Film, s3_server: tuple[str, Any], tmp_path: Path
) -> None:
    interrupt(cloud, after=3)
    parts = [Part(number, 6 * number, 6 * number + 6, ((0, 9),)) for number in range(2000)]
    begun = len(s3_server[1].requests)
    done = finished_parts(parts, job=cloud.job)
    asked = s3_server[1].requests[begun:]
    assert [path for _, path in asked if path.endswith(".mkv")] == []
    assert len(asked) == 1 + 3
    assert len(done) <= 3


@pytest.mark.parametrize("damage", ["truncate", "flip", "delete", "record", "lose the record"])
def test_a_damaged_part_is_done_again(reel: tuple[Path, list[str]], cloud: Film, damage: str, tmp_path: Path) -> None:
    interrupt(cloud, after=3)
    part, record = cloud.folder / "parts/000001.mkv", cloud.folder / "parts/000001.json"
    data = bytearray(part.read_bytes())
    if damage == "truncate":
        part.write_bytes(bytes(data[:-100]))
    elif damage == "flip":
        data[len(data) // 2] ^= 255
        part.write_bytes(bytes(data))
    elif damage == "delete":
        part.remove()
    elif damage == "record":
        record.write_bytes(record.read_bytes()[:20])
    else:
        record.remove()
    assert restore_film(cloud).resumed_parts == 2
    assert planes(fetched(cloud.output, tmp_path)) == reel[1]


def test_one_part_is_asked_for_by_itself(cloud: Film) -> None:
    seen: list[Part] = []

    def execute(work: Any, parts: Any) -> Iterator[Any]:
        for part in parts:
            assert finished(part, job=cloud.job) is None
            record = work(part)
            assert finished(part, job=cloud.job) == record
            seen.append(part)
            yield record

    restore_film(cloud, execute=execute)
    assert len(seen) == 4


def test_a_killed_run_continues_at_once_and_another_one_is_refused(
    reel: tuple[Path, list[str]], cloud: Film, bucket: str, tmp_path: Path
) -> None:
    process = subprocess.Popen(
        [sys.executable, __file__, bucket, str(reel[0]), str(tmp_path)], cwd=Path(__file__).parent
    )
    try:
        while len((cloud.folder / "parts").listing()) < 4:
            assert process.poll() is None
            time.sleep(0.05)
        with pytest.raises(LeaseHeld, match="another run is working on this output") as caught:
            restore_film(cloud)
        assert caught.value.path == str(cloud.output)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert restore_film(cloud).resumed_parts >= 2
    assert planes(fetched(cloud.output, tmp_path)) == reel[1]
    assert sorted(cloud.output.parent.listing()) == ["reel.mkv", "reel.mkv.json"]


def test_a_source_that_changed_is_done_anew(
    reel: tuple[Path, list[str]], bucket: str, tmp_path: Path, tiny_weights: Path
) -> None:
    source, output = place(bucket) / "reel.mp4", place(bucket) / "out.mkv"
    options = Options(weights=str(tiny_weights), device="cpu", precision="fp32", scratch=tmp_path / "scratch")
    source.put(reel[0])
    before = film_for(source, output, options)
    source.put(make_film(tmp_path / "other.mp4", frames=12))
    after = film_for(str(source), str(output), options)
    assert before.source.path == after.source.path == str(source)
    assert before.key != after.key
    assert after.source.frames == 12


def test_a_run_that_lost_its_lease_does_not_write_the_output(cloud: Film, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("restore.lease._BEATS", 200)

    def execute(work: Any, parts: Any) -> Iterator[Any]:
        for part in parts:
            yield work(part)
        (cloud.folder / "lease/00000099.json").write_bytes(b"{}")
        while len((cloud.folder / "lease").listing()) > 1:
            time.sleep(0.05)

    with pytest.raises(LeaseLost, match="was taken over"):
        restore_film(cloud, execute=execute)
    assert not cloud.output.exists()


def test_a_source_that_is_not_there_is_named_as_the_user_named_it(bucket: str, tmp_path: Path) -> None:
    with pytest.raises(MediaError, match="there is no such file") as caught:
        run(f"{bucket}/none.mp4", tmp_path / "out.mp4")
    assert caught.value.path == f"{bucket}/none.mp4"
    (place(bucket) / "broken.mp4").write_bytes(b"not a film")
    with pytest.raises(MediaError, match="is not a film") as caught:
        run(f"{bucket}/broken.mp4", tmp_path / "out.mp4", scratch=tmp_path)
    assert caught.value.path == f"{bucket}/broken.mp4"


@pytest.mark.parametrize(
    ("source", "output", "message"),
    [
        ("{bucket}/scan_%06d.dpx", "{folder}/out.mp4", "numbered frames are read from a folder"),
        ("{folder}/in.mp4", "{bucket}/out_%06d.dpx", "numbered frames are written to a folder"),
        ("{folder}/in.mp4", "{bucket}/out", "has no suffix"),
    ],
)
def test_numbered_frames_stay_in_folders(
    reel: tuple[Path, list[str]], source: str, output: str, message: str, bucket: str, tiny_weights: Path
) -> None:
    names = {"bucket": bucket, "folder": reel[0].parent}
    with pytest.raises(ConfigError, match=message):
        run(source.format(**names), output.format(**names), weights=str(tiny_weights))


def test_a_film_in_a_bucket_is_inspected(
    reel: tuple[Path, list[str]], bucket: str, tmp_path: Path, tiny_weights: Path
) -> None:
    (place(bucket) / "reel.mp4").put(reel[0])
    options: dict[str, Any] = {"weights": str(tiny_weights), "scratch": tmp_path / "scratch", "estimate": False}
    here, there = inspect(reel[0], **options).facts, inspect(f"{bucket}/reel.mp4", **options).facts
    assert there["file"].startswith(f"{bucket}/reel.mp4 (")
    assert {**here, "file": ""} == {**there, "file": ""}
    with pytest.raises(MediaError, match="there is no such file"):
        inspect(f"{bucket}/none.mp4", **options)


def test_a_full_disk_leaves_the_parts_that_are_done(reel: tuple[Path, list[str]], cloud: Film, tmp_path: Path) -> None:
    def execute(work: Any, parts: Any) -> Iterator[Any]:
        for number, part in enumerate(parts):
            with small_disk(1000) if number == 2 else nullcontext():
                record = work(part)
            yield record

    with pytest.raises(MediaError, match="no space left"):
        restore_film(cloud, execute=execute)
    assert not cloud.output.exists()
    assert restore_film(cloud).resumed_parts == 2
    assert planes(fetched(cloud.output, tmp_path)) == reel[1]


def test_frames_do_not_go_to_a_bucket(reel: tuple[Path, list[str]], bucket: str, tmp_path: Path) -> None:
    film = film_of(reel[0], tmp_path / "out", "sequence")
    with pytest.raises(ConfigError, match="numbered frames are written to a folder"):
        restore_film(replace(film, output=place(bucket) / "out"))


def test_outputs_in_a_bucket_are_named_and_spared(bucket: str) -> None:
    name = partial(output_for, profile=None, several=False, still=False)
    assert name("a/reel.avi", f"{bucket}/out/", overwrite=False) == place(bucket) / "out/reel.mp4"
    (place(bucket) / "out/reel.mp4").write_bytes(b"x")
    assert name("a/other.mkv", f"{bucket}/out", overwrite=False) == place(bucket) / "out/other.mkv"
    with pytest.raises(MediaError, match="exists already"):
        name("a/reel.avi", f"{bucket}/out/", overwrite=False)
    with pytest.raises(MediaError, match="would overwrite the source"):
        name(f"{bucket}/out/reel.mp4", f"{bucket}/out/reel.mp4", overwrite=True)
    with pytest.raises(ConfigError, match="must be a folder"):
        output_for("a.mp4", f"{bucket}/out/reel.mp4", profile=None, overwrite=True, several=True, still=False)


def test_stills_go_from_a_bucket_to_a_bucket(bucket: str, tmp_path: Path, tiny_weights: Path) -> None:
    options: dict[str, Any] = {"weights": str(tiny_weights), "device": "cpu", "precision": "fp32"}
    for number, name in enumerate(("a.png", "deep/b.tif")):
        photo(tmp_path / "in" / name, number)
        (place(bucket) / "in" / name).put(tmp_path / "in" / name)
    (place(bucket) / "in/.hidden.png").write_bytes(b"x")
    (place(bucket) / "in/notes.txt").write_bytes(b"x")
    run(tmp_path / "in", tmp_path / "out", **options)
    reports = run(f"{bucket}/in", f"{bucket}/out", scratch=tmp_path / "scratch", **options)
    assert [report.resumed for report in reports] == [False, False]  # type: ignore[union-attr]
    for name in ("a.png", "deep/b.tif"):
        assert (place(bucket) / "out" / name).read_bytes() == (tmp_path / "out" / name).read_bytes()
    photo(tmp_path / "in" / "a.png", 5)
    (place(bucket) / "in/a.png").put(tmp_path / "in" / "a.png")
    (place(bucket) / "out/a.png").remove()
    reports = run(f"{bucket}/in", f"{bucket}/out", scratch=tmp_path / "scratch", **options)
    assert [report.resumed for report in reports] == [False, True]  # type: ignore[union-attr]
    with pytest.raises(MediaError, match="must be another folder, outside of it"):
        run(f"{bucket}/in", f"{bucket}/in/out", **options)
    (report,) = run(f"{bucket}/in/a.png", f"{bucket}/single/", scratch=tmp_path / "scratch", **options)
    assert (place(bucket) / "single/a.png").read_bytes() == (place(bucket) / "out/a.png").read_bytes()
    assert str(report.output) == f"{bucket}/single/a.png"


def main() -> None:
    bucket, local, folder = sys.argv[1:]
    restore_film(cloud_film(bucket, Path(local), Path(folder), seconds=0.3, chunk=4))


if __name__ == "__main__":
    main()
