"""Making a training set: what is dropped, what is written, and what a stopped run leaves."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import resource
import struct
import tarfile
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from filelock import FileLock
from numpy.typing import NDArray
from PIL import Image, ImageCms

from restore.cli.data import data as data_commands
from restore.errors import ConfigError, MediaError, RestoreError
from restore.photographs import find
from restore.train import prepare as module
from restore.train.assembly import Assembly
from restore.train.nearby import Nearby, perceptual_hash
from restore.train.prepare import Preparation, Report, prepare
from restore.train.screen import Criteria, Examined, Form, examine, trim

Rgb = NDArray[np.uint8]

SMALL = Preparation(criteria=Criteria(smallest_side=64), form=Form(short_side=96))


def photo(seed: int, height: int = 120, width: int = 150) -> Rgb:
    """Patches of colour with texture, which pass as a photograph."""
    rng = np.random.default_rng(seed)
    patches = cv2.resize(
        rng.integers(0, 256, (5, 6, 3), dtype=np.uint8), (width, height), interpolation=cv2.INTER_CUBIC
    )
    texture = rng.integers(-8, 9, (height, width, 1))
    return np.clip(patches.astype(int) * 0.8 + 25 + texture, 0, 255).astype(np.uint8)


def encoded(rgb: NDArray[np.unsignedinteger[Any]], kind: str = "JPEG", **settings: object) -> bytes:
    file = io.BytesIO()
    quality = {} if kind == "PNG" else {"quality": 95}
    Image.fromarray(rgb).save(file, kind, **{**quality, **settings})
    return file.getvalue()


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


def toned(gain: tuple[float, float, float]) -> Rgb:
    grey = cv2.cvtColor(photo(1), cv2.COLOR_RGB2GRAY).astype(np.float32) / 255
    return np.asarray(np.rint(np.stack([grey**g for g in gain], -1) * 255), np.uint8)


# Screening


def look(content: bytes) -> Examined:
    return examine(content, SMALL.criteria, SMALL.form)


def test_a_photograph_is_kept_and_made_smaller() -> None:
    found = look(encoded(photo(0, 240, 300)))
    assert (found.reason, found.width, found.height) == ("", 120, 96)
    image = Image.open(io.BytesIO(found.jpeg))
    assert (image.size, image.mode, image.info.get("icc_profile")) == ((120, 96), "RGB", None)
    expected = cv2.resize(photo(0, 240, 300), (120, 96), interpolation=cv2.INTER_AREA)
    assert np.abs(np.asarray(image, int) - expected).mean() < 6


def test_a_small_photograph_is_not_enlarged() -> None:
    assert (look(encoded(photo(0, 70, 80))).width, look(encoded(photo(0, 70, 80))).height) == (80, 70)


_DARK, _BRIGHT = photo(1) // 40, 255 - photo(1) // 50
_FLAT = np.full((120, 150, 3), (200, 40, 40), np.uint8)
_FLAT[:60, :75] = (30, 60, 220)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "broken"),
        (b"\xff\xd8 not a jpeg", "broken"),
        (encoded(photo(1))[:2500], "broken"),
        (encoded(photo(1), "PNG")[:9000], "broken"),
        (encoded(photo(1, 63, 200)), "tiny"),
        (encoded(photo(1, 70, 200)), "elongated"),
        (encoded(np.asarray(Image.fromarray(photo(1)).convert("L"))), "grey"),
        (encoded(photo(1)[..., 0].astype(np.uint16) * 257, "PNG"), "grey"),
        (encoded(toned((1, 1, 1))), "tinted"),
        (encoded(toned((0.8, 1, 1.4)), quality=70), "tinted"),
        (encoded(toned((1.4, 1, 0.8))), "tinted"),
        (encoded(_DARK), "dark"),
        (encoded(_BRIGHT), "bright"),
        (encoded(_FLAT, "PNG"), "flat"),
        (encoded(np.dstack((photo(1), photo(1)[..., :1] // 128 * 255)), "PNG"), "transparent"),
    ],
)  # fmt: skip
def test_what_is_no_colour_photograph_is_dropped_and_why(content: bytes, reason: str) -> None:
    found = look(content)
    assert found.reason == reason
    assert found.measured
    assert not found.jpeg


def test_a_spot_of_colour_is_grey_and_few_colours_are_flat() -> None:
    spot = toned((1, 1, 1))
    spot[40:60, 40:80] = photo(1)[40:60, 40:80]
    assert look(encoded(spot)).reason == "grey"
    assert look(encoded((photo(1) // 128 * 127 + 40).astype(np.uint8), "PNG")).reason == "flat"


def test_a_threshold_is_a_setting() -> None:
    content = encoded(toned((0.8, 1, 1.4)))
    loose = dataclasses.replace(SMALL.criteria, spread=0.0, one_hue=1.0, colorfulness=0.0, colored=0.0, colors=0)
    assert examine(content, loose, SMALL.form).reason == ""


def test_a_picture_on_its_side_is_turned() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    lying = look(encoded(np.ascontiguousarray(np.rot90(photo(2))), exif=exif))
    assert (lying.width, lying.height) == (120, 96)
    assert bin(lying.hash ^ look(encoded(photo(2))).hash).count("1") <= 4
    assert not Image.open(io.BytesIO(lying.jpeg)).getexif()


def test_colours_are_converted_to_srgb() -> None:
    source = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    swapped = _with_swapped_primaries(source)
    plain, strange = look(encoded(photo(3))), look(encoded(photo(3), icc_profile=swapped))
    a, b = (np.asarray(Image.open(io.BytesIO(found.jpeg)), int) for found in (plain, strange))
    assert np.abs(a - b[..., [2, 1, 0]]).mean() < 4 < np.abs(a - b).mean()
    damaged = look(encoded(photo(3), icc_profile=swapped[:200]))
    assert damaged.jpeg == plain.jpeg


def _with_swapped_primaries(icc: bytes) -> bytes:
    """Exchange the names of the red and the blue colorant in the tag table."""
    (count,) = struct.unpack(">I", icc[128:132])
    end = 132 + 12 * count
    table = icc[132:end].replace(b"rXYZ", b"?XYZ").replace(b"bXYZ", b"rXYZ").replace(b"?XYZ", b"bXYZ")
    return icc[:132] + table + icc[end:]


def test_ink_becomes_rgb() -> None:
    file = io.BytesIO()
    Image.fromarray(photo(4)).convert("CMYK").save(file, "JPEG", quality=95)
    assert look(file.getvalue()).reason == ""


@pytest.mark.parametrize("ink", [0, 255])
def test_plain_borders_are_cut(ink: int) -> None:
    framed = np.full((160, 210, 3), ink, np.uint8)
    framed[20:140, 30:180] = np.clip(photo(5), 30, 225)
    found = trim(framed)
    assert abs(found.shape[0] - 120) <= 2
    assert abs(found.shape[1] - 150) <= 2
    assert trim(photo(5)).shape == photo(5).shape
    assert trim(np.full((100, 100, 3), ink, np.uint8)).shape == (100, 100, 3)


# Near duplicates


def test_pictures_that_look_alike_have_near_hashes_and_others_have_not() -> None:
    def bits(a: Rgb, b: Rgb) -> int:
        return (perceptual_hash(a[..., 1]) ^ perceptual_hash(b[..., 1])).bit_count()

    one = photo(6, 240, 300)
    half = np.asarray(cv2.resize(one, (151, 119), interpolation=cv2.INTER_AREA), np.uint8)
    coarse = np.asarray(Image.open(io.BytesIO(encoded(one, quality=30))), np.uint8)
    assert bits(one, half) <= 4
    assert bits(one, coarse) <= 4
    assert bits(one, (one * 0.9).astype(np.uint8)) <= 4
    assert min(bits(one, photo(seed)) for seed in range(7, 40)) > 14


@pytest.mark.parametrize("distance", [0, 3, 6, 10, 11])
def test_the_index_finds_what_a_search_of_all_would(distance: int) -> None:
    rng = np.random.default_rng(distance)
    values = [int(value) for value in rng.integers(0, 1 << 63, 9000, dtype=np.uint64)]
    index = Nearby(distance)
    for value in values:
        index.add(value)
    assert len(index) == 9000
    for number in (0, 4000, 8999):
        for flips in (0, distance, distance + 1):
            chosen = rng.choice(64, flips, replace=False)
            wanted = values[number] ^ sum(1 << int(bit) for bit in chosen)
            numbers, bits = index.find(wanted)
            distances = [(value ^ wanted).bit_count() for value in values]
            assert numbers.tolist() == [n for n, d in enumerate(distances) if d <= distance]
            assert bits.tolist() == [distances[n] for n in numbers]
            assert (number in numbers) == (flips <= distance)


def test_a_distance_too_large_for_the_index_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="distance must be between 0 and 11, not 12"):
        Nearby(12)


# The set


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Twelve photographs, four of them in a tar file, and others."""
    folder = write(tmp_path / "source", range(8))
    with tarfile.open(folder / "more.tar", "w") as tar:
        for seed in range(8, 12):
            info = tarfile.TarInfo(f"p{seed:03d}.jpg")
            info.size = len(encoded(photo(seed)))
            tar.addfile(info, io.BytesIO(encoded(photo(seed))))
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
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, hard))  # the kernel's own error in the middle of a shard
    try:
        with pytest.raises(MediaError, match=r"train-00000\.tar: cannot be written: no space left .* run again"):
            prepare([source], tmp_path / "set", SMALL)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
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
