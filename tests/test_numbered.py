from __future__ import annotations

from pathlib import Path

import pytest

from restore.errors import MediaError
from restore.source.numbered import escaped, numbered


def touch(folder: Path, *names: str) -> Path:
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).write_bytes(b"x")
    return folder


def test_a_folder_gives_its_pattern_first_number_and_files_in_order(tmp_path: Path) -> None:
    found = numbered(touch(tmp_path / "reel", "scan_000101.dpx", "scan_000100.dpx", "scan_000099.dpx", "notes.txt"))
    assert found is not None
    assert (found.pattern, found.first) == (str(tmp_path / "reel" / "scan_%06d.dpx"), 99)
    assert [file.name for file in found.files] == ["scan_000099.dpx", "scan_000100.dpx", "scan_000101.dpx"]


def test_numbers_without_leading_zeros_follow_one_another_as_numbers(tmp_path: Path) -> None:
    found = numbered(touch(tmp_path / "reel", "10.tif", "9.tif", "8.tif", "11.tif"))
    assert found is not None
    assert (Path(found.pattern).name, found.first) == ("%d.tif", 8)
    assert [file.name for file in found.files] == ["8.tif", "9.tif", "10.tif", "11.tif"]


def test_a_pattern_takes_only_its_own_files(tmp_path: Path) -> None:
    touch(tmp_path, "a_001.png", "a_002.png", "b_001.png", "a_0003.png")
    found = numbered(tmp_path / "a_%03d.png")
    assert found is not None
    assert [file.name for file in found.files] == ["a_001.png", "a_002.png"]


def test_a_film_is_no_sequence(tmp_path: Path) -> None:
    touch(tmp_path, "100%d.mp4", "film.mp4")
    assert numbered(tmp_path / "film.mp4") is None
    assert numbered(tmp_path / "100%d.mp4") is None


def test_a_gap_is_reported_with_the_first_missing_number(tmp_path: Path) -> None:
    folder = touch(tmp_path / "reel", "s_0003.dpx", "s_0004.dpx", "s_0006.dpx", "s_0009.dpx")
    with pytest.raises(MediaError, match=r"frame 5 is missing \(s_0005.dpx\) between 3 and 9"):
        numbered(folder)


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match="holds no images"):
        numbered(touch(tmp_path / "reel", "notes.txt"))


def test_a_folder_with_two_sequences_asks_which(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match=r"one numbered sequence.* found a_%d.png, b_%d.png; name one"):
        numbered(touch(tmp_path / "reel", "a_1.png", "b_1.png"))


def test_a_folder_of_stills_without_numbers_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match="found none"):
        numbered(touch(tmp_path / "reel", "aunt.png", "uncle.png"))


def test_a_pattern_without_files_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match="no file has a name of this pattern"):
        numbered(tmp_path / "nowhere" / "s_%04d.png")


def test_only_the_percent_sign_of_the_number_stays_single() -> None:
    assert escaped("/50%/a%%/s%d_%04d_100%.png") == "/50%%/a%%%%/s%%d_%04d_100%%.png"
