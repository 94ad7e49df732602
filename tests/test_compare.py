from __future__ import annotations

import shutil
from pathlib import Path

import av
import ffmpeg
import numpy as np
import pytest
from media import make_film

from restore.compare import compare, graph
from restore.errors import ConfigError, MediaError

needs_ffmpeg = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs the ffmpeg program")


def test_the_graph_stacks_grey_before_and_colour_after() -> None:
    words = graph(ffmpeg, "in.mp4", "out.mp4", "both.mp4").compile()
    told = " ".join(words)
    assert told.index("in.mp4") < told.index("out.mp4")
    assert "format=gray" in told
    assert "hstack=shortest=1" in told
    assert words[-1] == "both.mp4"


@needs_ffmpeg
def test_a_comparison_is_twice_as_wide_and_grey_on_the_left(tmp_path: Path) -> None:
    film = make_film(tmp_path / "in.mp4", frames=5, colored=True, audio="aac")
    output = compare(film, film, tmp_path / "both.mp4")
    with av.open(str(output)) as container:
        assert len(container.streams.audio) == 1
        planes = next(container.decode(video=0)).to_ndarray(format="rgb24").astype(int)
    left, right = planes[:, :90], planes[:, 102:]
    assert planes.shape == (64, 192, 3)
    assert np.ptp(left, axis=2).mean() < 3 < np.ptp(right, axis=2).mean()


@needs_ffmpeg
def test_what_ffmpeg_refuses_is_told(tmp_path: Path) -> None:
    film, other = make_film(tmp_path / "a.mp4", frames=3), make_film(tmp_path / "b.mp4", frames=3, height=48)
    with pytest.raises(MediaError, match="ffmpeg cannot write it"):
        compare(film, other, tmp_path / "both.mp4")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.mp4", "b.mp4"]


def test_missing_films_existing_outputs_and_a_missing_program_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    film = make_film(tmp_path / "in.mp4", frames=2)
    with pytest.raises(MediaError, match="is not a file"):
        compare(film, tmp_path / "no.mp4", tmp_path / "both.mp4")
    with pytest.raises(MediaError, match="exists already"):
        compare(film, film, film)
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(ConfigError, match="install it with your system's packages"):
        compare(film, film, tmp_path / "both.mp4")
