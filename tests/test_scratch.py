"""Copies of what lies in object stores: one a machine, shared, and gone when nobody needs it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from media import make_film

from restore import scratch
from restore.errors import MediaError
from restore.scratch import arriving, fetched_ahead, local_copy, local_source, work_folder
from restore.source.decode import read
from restore.source.probe import probe
from restore.storage import Place, place


@pytest.fixture
def film(bucket: str) -> Place:
    file = place(bucket) / "films/reel.mkv"
    file.write_bytes(b"a film")
    return file


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def age(folder: Path) -> None:
    """Make all entries old."""
    for lock in folder.rglob("lock"):
        os.utime(lock, (0, 0))


def test_a_local_file_is_not_copied(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x")
    with local_copy(place(tmp_path / "a"), tmp_path / "scratch", keep=False) as path:
        assert path == tmp_path / "a"
    with arriving(place(tmp_path / "b"), tmp_path / "scratch") as path:
        assert path == tmp_path / "b"
    assert not (tmp_path / "scratch").exists()


def test_a_copy_is_kept_for_the_next_who_needs_it_and_gone_at_the_end(
    film: Place, tmp_path: Path, s3_server: Any
) -> None:
    begun = len(s3_server[1].requests)
    for _ in range(3):
        with local_copy(film, tmp_path, keep=True) as path:
            assert path.read_bytes() == b"a film"
            assert path.name == "reel.mkv"
    assert sum(method == "GET" for method, _ in s3_server[1].requests[begun:]) == 1
    assert files(tmp_path) == ["lock", "reel.mkv"]
    with local_copy(film, tmp_path, keep=False):
        pass
    assert files(tmp_path) == []


def test_a_copy_that_another_still_uses_is_left_to_it(film: Place, tmp_path: Path) -> None:
    with local_copy(film, tmp_path, keep=True) as path:
        with local_copy(film, tmp_path, keep=False):
            pass
        age(tmp_path)
        scratch._sweep(path.parents[1])
        assert path.is_file()
    age(tmp_path)
    scratch._sweep(path.parents[1])
    assert files(tmp_path) == []


def test_another_version_is_another_copy(film: Place, tmp_path: Path) -> None:
    with local_copy(film, tmp_path, keep=True) as before:
        film.write_bytes(b"another")
        with local_copy(film, tmp_path, keep=True) as after:
            assert (before.read_bytes(), after.read_bytes()) == (b"a film", b"another")


def test_of_several_that_need_a_copy_one_fetches(film: Place, tmp_path: Path, s3_server: Any) -> None:
    begun, seen = len(s3_server[1].requests), []

    def use() -> None:
        with local_copy(film, tmp_path, keep=True) as path:
            seen.append(path.read_bytes())

    threads = [threading.Thread(target=use) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [b"a film"] * 6
    assert sum(method == "GET" for method, _ in s3_server[1].requests[begun:]) == 1


def test_what_was_not_used_for_a_while_is_removed(film: Place, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(scratch, "IDLE_SECONDS", 0.1)
    with local_copy(film, tmp_path, keep=True):
        pass
    while files(tmp_path):
        time.sleep(0.05)


def test_what_a_killed_process_left_is_removed_by_the_next(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, __file__, str(tmp_path)], stdout=subprocess.PIPE)
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"working\n"
        age(tmp_path)
        with work_folder(tmp_path):
            assert "half" in files(tmp_path), "it is in use"
        process.send_signal(signal.SIGKILL)
    age(tmp_path)
    with work_folder(tmp_path) as folder:
        assert files(tmp_path) == ["lock"]
        (folder / "own").write_bytes(b"x")
    assert files(tmp_path) == []


def test_a_work_folder_is_gone_after_an_error_and_nothing_is_put(film: Place, tmp_path: Path) -> None:

    def break_off() -> None:
        with arriving(film, tmp_path) as path:
            path.write_bytes(b"half")
            raise MediaError("broken", "a")

    with pytest.raises(MediaError, match="broken"):
        break_off()
    assert film.read_bytes() == b"a film"
    with arriving(film, tmp_path) as path:
        path.write_bytes(b"whole")
    assert film.read_bytes() == b"whole"
    assert files(tmp_path) == []


def test_the_folder_of_another_user_is_refused(film: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with local_copy(film, tmp_path, keep=False) as path:
        assert path.parents[1].stat().st_mode & 0o777 == 0o700
    path.parents[1].rename(tmp_path / "restore-12345")
    monkeypatch.setattr("os.getuid", lambda: 12345)
    with (
        pytest.raises(MediaError, match="belongs to another user; choose another folder with --scratch"),
        work_folder(tmp_path),
    ):
        pass


def test_a_damaged_source_is_named_by_its_url(bucket: str, tmp_path: Path) -> None:
    whole = make_film(tmp_path / "in.mkv", frames=30, codec="ffv1")
    (tmp_path / "cut.mkv").write_bytes(whole.read_bytes()[:-20000])
    file = place(bucket) / "cut.mkv"
    file.put(tmp_path / "cut.mkv")
    source = replace(probe(tmp_path / "cut.mkv"), path=str(file))

    def decode() -> None:
        with local_source(source, tmp_path / "scratch", keep=False) as local:
            assert local.path != source.path
            list(read(local, luma_only=True))

    with pytest.raises(MediaError, match="the file is truncated") as caught:
        decode()
    assert caught.value.path == str(file)


def test_an_error_about_another_file_keeps_its_name(film: Place, tmp_path: Path) -> None:
    with pytest.raises(MediaError, match="full") as caught, local_copy(film, tmp_path, keep=False):
        raise MediaError("full", "elsewhere")
    assert caught.value.path == "elsewhere"


def test_files_are_fetched_a_few_at_a_time(bucket: str, tmp_path: Path) -> None:
    names = [f"{number:03d}" for number in range(20)]
    stored = [place(bucket) / name for name in names]
    for file in stored:
        file.write_bytes(file.name.encode())
    most = 0
    with fetched_ahead(stored, tmp_path) as local:
        with local(tmp_path / "000") as path:  # looked at before the others
            assert path.read_bytes() == b"000"
        for name in names:
            with local(tmp_path / name) as path:
                assert path.read_bytes() == name.encode()
                most = max(most, len(files(tmp_path)))
    assert most <= 5
    assert files(tmp_path) == []


def test_a_file_that_is_gone_when_it_is_needed_is_named(bucket: str, tmp_path: Path) -> None:
    gone = place(bucket) / "gone"

    def read_it() -> None:
        with fetched_ahead([gone], tmp_path) as local, local(tmp_path / "gone"):
            pass

    with pytest.raises(MediaError, match="there is no such file") as caught:
        read_it()
    assert caught.value.path == str(gone)


def main() -> None:
    with work_folder(Path(sys.argv[1])) as folder:
        (folder / "half").write_bytes(b"x")
        sys.stdout.write("working\n")
        sys.stdout.flush()
        time.sleep(120)


if __name__ == "__main__":
    main()
