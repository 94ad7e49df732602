"""Every bad input of the design, through the public `run`: a message a person can act on, and nothing lost."""

from __future__ import annotations

import os
import pickle
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from media import frame_hashes, make_film
from PIL import Image
from safetensors.torch import save_file

from restore.batch import run
from restore.errors import ConfigError, MediaError, RestoreError, WeightsError
from restore.film import FilmReport


@pytest.fixture
def options(tiny_weights: Path) -> dict[str, Any]:
    return {"weights": str(tiny_weights), "device": "cpu", "precision": "fp32"}


def _text(path: Path) -> None:
    path.write_text("Dear reader, this is not a film." * 100)


def _empty(path: Path) -> None:
    path.touch()


def _audio(path: Path) -> None:
    import av

    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("aac", rate=48000, layout="stereo")
        frame = av.AudioFrame.from_ndarray(np.zeros((2, 1024), np.float32), "fltp", "stereo")
        frame.sample_rate = 48000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def _no_frames(path: Path) -> None:
    """Write a film whose video stream has no packets."""
    import av

    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=25, width=64, height=48, pix_fmt="yuv420p")
        container.mux(stream.encode(None))


def _truncated(path: Path) -> None:
    make_film(path, frames=40, options=None)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 2 // 3])


FILMS: dict[str, tuple[str, Callable[[Path], None], str]] = {
    "not a media file": ("in.mp4", _text, "in.mp4"),
    "empty": ("in.mp4", _empty, "empty"),
    "audio only": ("in.mp4", _audio, "only sound"),
    "no frames": ("in.mp4", _no_frames, "in.mp4"),
    "truncated": ("in.mkv", _truncated, "in.mkv"),
    "missing": ("nowhere.mp4", lambda path: None, "nowhere.mp4.*(not exist|no such|missing|not found)"),
    "a folder without stills": ("folder", lambda path: path.mkdir(), "holds no stills"),
}


@pytest.mark.parametrize("kind", FILMS)
def test_a_bad_film_is_refused_by_name(kind: str, tmp_path: Path, options: dict[str, Any]) -> None:
    name, make, message = FILMS[kind]
    make(tmp_path / name)
    before = (tmp_path / name).read_bytes() if (tmp_path / name).is_file() else b""
    with pytest.raises(MediaError, match=f"(?i){message}") as caught:
        run(tmp_path / name, tmp_path / "out.mkv", **options)
    assert name in str(caught.value)
    assert not (tmp_path / "out.mkv").exists()
    if before:
        assert (tmp_path / name).read_bytes() == before


@pytest.mark.parametrize("name", ["in.mkv", "in.mp4"])
def test_a_truncated_film_is_not_silently_shortened_and_what_is_there_can_be_had(
    name: str, tmp_path: Path, options: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    film, output = tmp_path / name, tmp_path / "out.mkv"
    front = {"movflags": "faststart"} if name.endswith("4") else {}
    make_film(film, frames=80, width=64, height=48, audio="aac", start=9, muxer=front)
    whole = frame_hashes(film)
    film.write_bytes(film.read_bytes()[: film.stat().st_size * 2 // 3])
    with pytest.raises(MediaError, match=r"decoding stopped at frame \d+ .*; get a whole copy, or .* --end ") as caught:
        run(film, output, profile="archive", **options)
    assert list(tmp_path.iterdir()) == [film]
    end = float(str(caught.value).rpartition(" ")[2])
    (report,) = run(film, output, profile="archive", end=end, **options)
    assert isinstance(report, FilmReport)
    assert report.frames == round(end * 25) > 10
    assert frame_hashes(output) == whole[: report.frames]
    assert "truncated after this passage" in caplog.text


@pytest.mark.parametrize("size", [(1, 1), (16, 90), (33, 17)])
def test_a_film_of_any_size_is_coloured(size: tuple[int, int], tmp_path: Path, options: dict[str, Any]) -> None:
    film = make_film(tmp_path / "in.mkv", frames=3, width=size[0], height=size[1], codec="ffv1")
    (report,) = run(film, tmp_path / "out.mkv", profile="archive", **options)
    assert report.output.is_file()


def test_a_container_that_cannot_hold_the_sound_is_named_first(tmp_path: Path, options: dict[str, Any]) -> None:
    film = make_film(tmp_path / "in.mkv", frames=3, audio="flac", subtitles=True)
    with pytest.raises((ConfigError, MediaError), match=r"\.mkv") as caught:
        run(film, tmp_path / "out.mp4", **options)
    assert "srt" in str(caught.value)
    assert not (tmp_path / "out.mp4.restore").exists()


def test_a_name_that_no_profile_writes_is_refused(tmp_path: Path, options: dict[str, Any]) -> None:
    film = make_film(tmp_path / "in.mp4", frames=3)
    with pytest.raises(ConfigError, match=r"\.avi.*\.mp4"):
        run(film, tmp_path / "out.avi", **options)


def test_an_unwritable_folder_is_named(tmp_path: Path, options: dict[str, Any]) -> None:
    film = make_film(tmp_path / "in.mp4", frames=3)
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(MediaError, match="cannot make the work folder"):
        run(film, tmp_path / "file" / "out.mp4", **options)


def test_a_colour_film_is_accepted(tmp_path: Path, options: dict[str, Any]) -> None:
    film = make_film(tmp_path / "in.mp4", frames=3, colored=True)
    assert run(film, tmp_path / "out.mp4", **options)


_LIMITED = """
import resource, sys
from restore.batch import run
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[4]), int(sys.argv[4])))
import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
from restore.errors import RestoreError
try:
    run(sys.argv[1], sys.argv[2], profile="archive", weights=sys.argv[3], device="cpu", precision="fp32")
except RestoreError as error:
    print(error)
    sys.exit(1)
"""


def test_a_full_disk_stops_the_run_and_keeps_what_is_done(
    tmp_path: Path, tiny_weights: Path, options: dict[str, Any]
) -> None:
    """A limit on file sizes stands in for the disk: a write fails in the middle of a part."""
    film, output = make_film(tmp_path / "in.mkv", frames=30, codec="ffv1"), tmp_path / "out.mkv"
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY
    words = [sys.executable, "-c", _LIMITED, str(film), str(output), str(tiny_weights), "60000"]
    failed = subprocess.run(words, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert failed.returncode == 1, failed.stderr
    assert "no space left" in failed.stdout
    assert not output.exists()
    assert run(film, output, profile="archive", **options)[0].output.is_file()


class _Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("pwned",)


def test_bad_weights_are_refused_and_run_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    film = make_film(tmp_path / "in.mp4", frames=3)
    (tmp_path / "evil.pth").write_bytes(pickle.dumps({"model": _Evil()}))
    torch.save({"some.key": torch.zeros(3)}, tmp_path / "wrong.pth")
    save_file({"encoder._conv_stem.weight": torch.zeros(32, 1, 3, 3)}, tmp_path / "partial.safetensors")
    for name in ("evil.pth", "wrong.pth", "partial.safetensors", "none.pth"):
        with pytest.raises(WeightsError, match=name):
            run(film, tmp_path / "out.mp4", weights=str(tmp_path / name), device="cpu")
    assert not (tmp_path / "pwned").exists()
    assert not (tmp_path / "out.mp4").exists()


def _cmyk(path: Path) -> None:
    Image.new("CMYK", (40, 30), (10, 20, 30, 40)).save(path)


def _palette(path: Path) -> None:
    Image.new("L", (40, 30), 120).convert("P").save(path)


def _bilevel(path: Path) -> None:
    Image.new("1", (40, 30), 1).save(path)


def _sixteen(path: Path) -> None:
    cv2.imwrite(str(path), np.full((30, 40), 30000, np.uint16))


@pytest.mark.parametrize(
    ("name", "make"),
    [("a.jpg", _cmyk), ("a.png", _palette), ("b.png", _bilevel), ("b.tif", _bilevel), ("c.tif", _sixteen)],
)
def test_unusual_stills_are_coloured(
    name: str, make: Callable[[Path], None], tmp_path: Path, options: dict[str, Any]
) -> None:
    make(tmp_path / name)
    (report,) = run(tmp_path / name, tmp_path / "out" / name, **options)
    assert report.output.is_file()


@pytest.mark.parametrize("name", ["float.tif", "empty.png", "cut.jpg", "text.png"])
def test_bad_stills_are_refused_by_name(name: str, tmp_path: Path, options: dict[str, Any]) -> None:
    path = tmp_path / name
    if name == "float.tif":
        cv2.imwrite(str(path), np.full((30, 40), 0.5, np.float32))
    elif name == "cut.jpg":
        Image.effect_noise((64, 64), 80).save(path)
        path.write_bytes(path.read_bytes()[:700])
    else:
        path.write_text("" if name == "empty.png" else "no picture")
    with pytest.raises(RestoreError, match=name):
        run(path, tmp_path / "out" / name, **options)
    assert not (tmp_path / "out" / name).exists()
