"""Making a training set: what is written, what a stopped run leaves, and how the set is split."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import tarfile
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from conftest import small_disk
from filelock import FileLock
from photographs import encoded, photo, toned, write_tar
from PIL import Image

from restore.cli.data import data as data_commands
from restore.errors import ConfigError, MediaError, RestoreError
from restore.photographs import find
from restore.train import prepare as module
from restore.train.assembly import Assembly
from restore.train.prepare import Preparation, Report, prepare
from restore.train.screen import Criteria, Examined, Form

SMALL = Preparation(criteria=Criteria(smallest_side=64), form=Form(short_side=96))


def write(folder: Path, names: range) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for seed in names:
        (folder / f"p{seed:03d}.jpg").write_bytes(encoded(photo(seed)))
    return folder


def rows(output: Path) -> list[dict[str, str]]:
    with (output / "pictures.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Twelve photographs, four of them in a tar file, and others."""
    folder = write(tmp_path / "source", range(8))
    write_tar(folder / "more.tar", {f"p{seed:03d}.jpg": encoded(photo(seed)) for seed in range(8, 12)})
    (folder / "deeper").mkdir()
    (folder / "deeper" / "again.jpg").write_bytes(encoded(photo(3), quality=40))
    (folder / "deeper" / "sepia.jpg").write_bytes(encoded(toned((0.8, 1, 1.4))))
    (folder / "broken.jpg").write_bytes(b"no")
    (folder / "empty.jpg").write_bytes(b"")
    return folder


def test_a_set_holds_every_photograph_once_and_says_what_became_of_the_others(source: Path, tmp_path: Path) -> None:
    output = tmp_path / "made" / "set"
    report = prepare([source], output, SMALL)
    assert report == Report(output, {"train": 12, "validation": 0}, {"broken": 2, "duplicate": 1, "tinted": 1})
    assert report.read == 16
    found = find(output / "train")
    assert len(found) == 12
    listed = rows(output)
    assert [row["picture"] for row in listed if row["verdict"] == "tinted"] == ["deeper/sepia.jpg"]
    assert {row["picture"] for row in listed if row["verdict"] == "duplicate"} < {"p003.jpg", "deeper/again.jpg"}
    assert [row["member"] for row in listed if row["verdict"] == "kept"] == [photo.name for photo in found]
    for photograph in found:
        assert min(Image.open(io.BytesIO(photograph.read())).size) == 96
    written = json.loads((output / "report.json").read_text())
    assert (written["read"], written["kept"], written["dropped"]) == (16, report.kept, report.dropped)
    assert written["settings"]["criteria"]["smallest_side"] == 64
    assert sorted(path.name for path in output.iterdir()) == ["pictures.csv", "report.json", "train"]
    assert sorted(path.name for path in output.parent.iterdir()) == ["set"]


def test_the_result_does_not_depend_on_the_workers(source: Path, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    prepare([source], one, SMALL)
    prepare([source], two, SMALL, workers=2)
    assert contents(one) == contents(two)


def test_shards_are_ended_at_their_size_and_read_by_tar(source: Path, tmp_path: Path, shard_bytes: int) -> None:
    prepare([source], tmp_path / "set", SMALL)
    shards = sorted((tmp_path / "set" / "train").iterdir())
    assert [path.name for path in shards] == [f"train-{n:05d}.tar" for n in range(len(shards))]
    assert len(shards) > 2
    names = []
    for path in shards:
        assert path.stat().st_size < shard_bytes + 30_000
        with tarfile.open(path, "r:") as tar:
            members = tar.getmembers()
        names += [member.name for member in members]
        assert {(member.mtime, member.uid, member.mode) for member in members} == {(0, 0, 0o644)}
    kept = [row for row in rows(tmp_path / "set") if row["verdict"] == "kept"]
    assert names == [row["member"] for row in kept]
    assert {row["shard"] for row in kept} == {f"train/{path.name}" for path in shards}


@pytest.fixture
def shard_bytes(monkeypatch: pytest.MonkeyPatch) -> int:
    """Shards of 20 kB and a checkpoint every three pictures."""

    def small(*arguments: Any, **settings: Any) -> Assembly:
        return Assembly(*arguments, **settings | {"shard_bytes": 20_000})

    monkeypatch.setattr(module, "Assembly", small)
    monkeypatch.setattr(module, "_CHECKPOINT", 3)
    return 20_000


HALF = dataclasses.replace(SMALL, validation_share=0.5)


@pytest.mark.usefixtures("shard_bytes")
@pytest.mark.parametrize("stop", [1, 4, 9, 16])
def test_a_run_that_was_killed_goes_on_to_the_same_set(source: Path, tmp_path: Path, stop: int) -> None:
    prepare([source], tmp_path / "whole", HALF)
    seen: list[int] = []

    def kill(done: int, total: int, kept: int) -> None:
        if done == stop:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare([source], tmp_path / "cut", HALF, progress=kill)
    assert not (tmp_path / "cut").exists()
    prepare([source], tmp_path / "cut", HALF, progress=lambda done, total, kept: seen.append(done))
    assert seen == list(range(stop // 3 * 3 + 1, 17))
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")


def test_a_finished_set_is_not_made_again(source: Path, tmp_path: Path) -> None:
    first = prepare([source], tmp_path / "set", SMALL)
    calls: list[int] = []
    assert prepare([source], tmp_path / "set", SMALL, progress=lambda *now: calls.append(now[0])) == first
    assert not calls
    with pytest.raises(MediaError, match=r"set: is a training set of other pictures or settings; delete it"):
        prepare([source], tmp_path / "set", HALF)


def test_what_is_in_the_way_is_left_alone(source: Path, tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "mine.txt").write_text("mine")
    with pytest.raises(MediaError, match="already exists and is no training set"):
        prepare([source], tmp_path / "set", SMALL)
    with pytest.raises(MediaError, match="would lie in its own source"):
        prepare([source], source / "set", SMALL)
    assert contents(tmp_path / "set") == {"mine.txt": b"mine"}


@pytest.mark.usefixtures("shard_bytes")
def test_a_set_begun_with_other_settings_is_refused(source: Path, tmp_path: Path) -> None:
    def kill(done: int, total: int, kept: int) -> None:
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare([source], tmp_path / "set", SMALL, progress=kill)
    with pytest.raises(ConfigError, match=r"set\.restore holds a set that was begun with other pictures or settings"):
        prepare([source], tmp_path / "set", HALF)
    (source / "new.jpg").write_bytes(encoded(photo(99)))
    with pytest.raises(ConfigError, match="begun with other pictures"):
        prepare([source], tmp_path / "set", SMALL)


def test_two_processes_do_not_make_the_same_set(source: Path, tmp_path: Path) -> None:
    (tmp_path / "set.restore").mkdir()
    with FileLock(tmp_path / "set.restore" / ".lock"), pytest.raises(RestoreError, match="another process works in"):
        prepare([source], tmp_path / "set", SMALL)


def test_a_full_disk_is_a_clear_error_and_the_run_can_go_on(source: Path, tmp_path: Path) -> None:
    full = r"train-00000\.tar: cannot be written: no space left .* run again"
    with small_disk(40_000), pytest.raises(MediaError, match=full):
        prepare([source], tmp_path / "set", SMALL)
    assert not (tmp_path / "set").exists()
    assert prepare([source], tmp_path / "set", SMALL).kept["train"] == 12


def test_a_set_without_pictures_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    with pytest.raises(MediaError, match="holds no pictures"):
        prepare([tmp_path / "source"], tmp_path / "set")
    (tmp_path / "source" / "a.jpg").write_bytes(b"no")
    with pytest.raises(RestoreError, match=r"none of 1 pictures was kept \(1 broken\); see .*pictures\.csv"):
        prepare([tmp_path / "source"], tmp_path / "set")
    with pytest.raises(ConfigError, match="name at least one folder"):
        prepare([], tmp_path / "set")


def test_a_source_that_has_gone_stops_the_run(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = find(source)
    monkeypatch.setattr(module, "find", lambda *paths: found if paths == (source,) else find(*paths))
    (source / "p001.jpg").unlink()
    assert prepare([source], tmp_path / "set", SMALL).dropped["broken"] == 3
    source.rename(tmp_path / "away")
    with pytest.raises(MediaError, match="has gone; run again when it is back"):
        prepare([source], tmp_path / "other", SMALL)


def test_a_worker_that_dies_is_said_so(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Dead(ThreadPoolExecutor):
        def __init__(self, workers: int, **_: object) -> None:
            super().__init__(workers)

        def submit(self, *_: object) -> Future[Any]:  # type: ignore[override]
            future: Future[Any] = Future()
            future.set_exception(BrokenProcessPool("a process in the process pool was terminated abruptly"))
            return future

    monkeypatch.setattr(module, "ProcessPoolExecutor", Dead)
    with pytest.raises(RestoreError, match=r"a worker process died.* run again with fewer workers"):
        prepare([source], tmp_path / "set", SMALL, workers=2)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("quality", {"form": Form(quality=100)}), ("short_side", {"form": Form(short_side=8)}),
        ("shard_mb", {"shard_mb": 0}), ("validation_share", {"validation_share": 0.9}), ("margin", {"margin": 3}),
    ],
)  # fmt: skip
def test_a_setting_out_of_range_is_refused(name: str, settings: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=f"{name} must be between"):
        Preparation(**settings)  # type: ignore[arg-type]


# The split


def test_pictures_that_look_alike_are_on_one_side(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hashes are made: families of pictures 8 bits from a head, too far to be duplicates, too near to be apart."""
    rng, hashes = np.random.default_rng(0), list[int]()
    for _ in range(20):
        head = int(rng.integers(0, 1 << 63))
        hashes += [head, head ^ 0xFF, head ^ 0xFF00, head ^ 0xFF0000]
    source = tmp_path / "source"
    source.mkdir()
    for number in range(len(hashes)):
        (source / f"{number:03d}.jpg").write_bytes(str(number).encode())

    def made(content: bytes, criteria: Criteria, form: Form) -> Examined:
        return Examined(hash=hashes[int(content)], jpeg=content, width=1, height=1)

    monkeypatch.setattr(module, "examine", made)
    report = prepare([source], tmp_path / "set", HALF)
    sides: dict[str, list[int]] = {"train": [], "validation": []}
    for row in rows(tmp_path / "set"):
        if row["verdict"] == "kept":
            sides[row["shard"].partition("/")[0]].append(int(row["hash"], 16))
    between = [(a ^ b).bit_count() for a in sides["train"] for b in sides["validation"]]
    assert min(between) > HALF.margin
    assert min(report.kept.values()) > 15
    assert sum(report.kept.values()) + report.dropped.get("both sides", 0) == 80
    assert report.dropped.get("both sides", 0) > 0
    assert report.kept == {side: len(found) for side, found in sides.items()}
    assert len(find(tmp_path / "set" / "validation")) == report.kept["validation"]


def test_the_split_holds_out_its_share(tmp_path: Path) -> None:
    source = write(tmp_path / "source", range(60))
    kept = prepare([source], tmp_path / "set", dataclasses.replace(SMALL, validation_share=0.25)).kept
    assert sum(kept.values()) == 60
    assert 6 <= kept["validation"] <= 26


# The command


def test_the_command_says_what_became_of_the_pictures(source: Path, tmp_path: Path) -> None:
    output = tmp_path / "set"
    arguments = ["prepare", str(source), "-o", str(output), "--workers", "1", "--short-side", "64"]
    found = CliRunner().invoke(data_commands, arguments)
    assert found.exit_code == 1  # all are smaller than the least side of a real set
    assert isinstance(found.exception, RestoreError)
    for seed in range(3):
        (source / f"large{seed}.jpg").write_bytes(encoded(photo(50 + seed, 140, 150)))
    arguments[3] = str(tmp_path / "other")
    found = CliRunner().invoke(data_commands, arguments, catch_exceptions=False)
    assert found.exit_code == 0
    assert "        3  train\n" in found.output
    assert "dropped: tiny" in found.output
    assert "pictures.csv" in found.output
