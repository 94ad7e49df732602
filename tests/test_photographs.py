"""Photographs in folders and tar files: which are found, and how they are decoded."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from photographs import encoded, patches, picture, tar_of, write_tar
from PIL import Image

from restore.errors import MediaError
from restore.photographs import Opened, decode, find, fingerprint


def test_a_tar_a_folder_and_files_give_the_same_pictures(photographs: Path, tmp_path: Path) -> None:
    loose = tmp_path / "loose" / "deeper"
    loose.mkdir(parents=True)
    for i in range(5):
        (loose / f"p{i}.jpg").write_bytes(picture(i))
    ways = [find(loose.parent), find(photographs / "a.tar"), find(*(loose / f"p{i}.jpg" for i in range(5)))]
    assert [[photo.read() for photo in found] for found in ways] == [[picture(i) for i in range(5)]] * 3
    assert [photo.name for photo in ways[0]] == [f"deeper/p{i}.jpg" for i in range(5)]
    assert [photo.name for photo in ways[1]] == [photo.name for photo in ways[2]] == [f"p{i}.jpg" for i in range(5)]
    assert len(find(photographs)) == 6
    assert len(find(photographs, photographs / "q.jpg")) == 7


def test_tar_files_in_a_tar_file_are_read_as_imagenet_comes(tmp_path: Path) -> None:
    inner = [tar_of({f"n{k}_{i}.JPEG": picture(3 * k + i) for i in range(3)}) for k in range(2)]
    write_tar(tmp_path / "all.tar", {"n0.tar": inner[0], "n1.tar": inner[1], "last.png": b"x"})
    found = find(tmp_path)
    assert [photo.name for photo in found] == [
        *(f"n{k}.tar/n{k}_{i}.JPEG" for k in range(2) for i in range(3)), "last.png",
    ]  # fmt: skip
    assert [photo.read() for photo in found[:6]] == [picture(i) for i in range(6)]
    assert str(found[0]).endswith("all.tar: n0.tar/n0_0.JPEG")


def test_hidden_files_are_not_pictures(photographs: Path) -> None:
    (photographs / "._q.jpg").write_bytes(b"left by macOS")
    write_tar(photographs / "b.tar", {"x/._p.jpg": b"left by macOS"})
    assert len(find(photographs)) == 6


def test_a_link_that_runs_in_a_circle_does_no_harm(photographs: Path) -> None:
    (photographs / "round").symlink_to(photographs, target_is_directory=True)
    (photographs / "lost.jpg").symlink_to(photographs / "none.jpg")
    assert len(find(photographs)) == 6


def test_a_missing_source_is_named(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match=r"nowhere: does not exist; name a folder or a tar file of photographs"):
        find(tmp_path / "nowhere")


def test_a_source_without_pictures_is_an_error(photographs: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(MediaError, match=r"empty: holds no pictures \(.jpg, .*\) and no tar files"):
        find(photographs, tmp_path / "empty")


@pytest.mark.parametrize("content", [b"nonsense" * 200, tar_of({"p.jpg": b"x" * 3000}, "w:gz")])
def test_a_damaged_or_compressed_tar_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "bad.tar").write_bytes(content)
    with pytest.raises(MediaError, match=r"bad\.tar: cannot be read as an uncompressed tar"):
        find(tmp_path)


def test_the_fingerprint_tells_other_pictures_apart(photographs: Path) -> None:
    before = fingerprint(find(photographs))
    assert before == fingerprint(find(photographs))
    (photographs / "q.jpg").rename(photographs / "r.jpg")
    assert fingerprint(find(photographs)) != before


def test_a_picture_on_its_side_is_turned(tmp_path: Path) -> None:
    upright = patches(1)
    (tmp_path / "side.jpg").write_bytes(encoded(np.ascontiguousarray(np.rot90(upright)), orientation=6, subsampling=0))
    (photo,) = find(tmp_path)
    turned = decode(photo)
    assert turned is not None
    assert np.abs(turned.astype(int) - upright).mean() < 2
    opened = Opened.of(photo)
    assert opened is not None
    assert (opened.width, opened.height) == (90, 70)


@pytest.mark.parametrize("kind", ["palette", "alpha", "cmyk", "grey"])
def test_other_kinds_of_pictures_become_rgb(tmp_path: Path, kind: str) -> None:
    rgb = Image.fromarray(patches(1))
    if kind == "palette":
        rgb.quantize(200).save(tmp_path / "p.png", transparency=bytes([255] * 100))
    elif kind == "alpha":
        rgb.convert("RGBA").save(tmp_path / "p.png")
    else:
        rgb.convert("CMYK" if kind == "cmyk" else "L").save(tmp_path / "p.jpg", quality=95)
    found = decode(find(tmp_path)[0])
    assert found is not None
    expected = np.asarray(rgb.convert("L").convert("RGB") if kind == "grey" else rgb, int)
    assert np.abs(found - expected).mean() < 12


@pytest.mark.parametrize(("suffix", "channels"), [(".png", 1), (".tif", 1), (".png", 3)])
def test_of_sixteen_bits_the_upper_eight_are_taken(tmp_path: Path, suffix: str, channels: int) -> None:
    codes = np.arange(40 * 50, dtype=np.uint16).reshape(40, 50, 1) * 32
    assert cv2.imwrite(str(tmp_path / f"deep{suffix}"), codes.repeat(channels, 2))
    found = decode(find(tmp_path)[0])
    assert found is not None
    assert np.array_equal(found, (codes >> 8).repeat(3, 2))


def test_a_picture_that_is_broken_or_whose_range_is_not_known_is_none(tmp_path: Path) -> None:
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff no jpeg")
    (tmp_path / "cut.jpg").write_bytes(picture(1)[:1500])
    (tmp_path / "cut.png").write_bytes(cv2.imencode(".png", patches(1))[1].tobytes()[:3000])
    tifffile.imwrite(tmp_path / "float.tif", patches(1)[..., 0].astype(np.float32))
    (tmp_path / "gone.jpg").write_bytes(picture(1))
    found = find(tmp_path)
    (tmp_path / "gone.jpg").unlink()
    assert [decode(photo) for photo in found] == [None] * 6
