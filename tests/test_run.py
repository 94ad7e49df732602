"""The public `run`: what it takes, what it names its outputs, and what becomes of several sources."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from media import frame_hashes, make_film

import restore
from restore.batch import BatchError, run
from restore.errors import ConfigError, MediaError, WeightsError
from restore.film import FilmReport
from restore.photo import PhotoReport


@pytest.fixture
def options(tiny_weights: Path) -> dict[str, Any]:
    return {"weights": str(tiny_weights), "device": "cpu", "precision": "fp32"}


def photo(path: Path, seed: int = 0, dtype: type = np.uint8) -> Path:
    """Write a smooth grey photograph."""
    y, x = np.mgrid[:48, :64] / 9.0
    unit = 0.5 + 0.4 * np.sin(x + seed) * np.cos(y)
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.rint(unit * np.iinfo(dtype).max).astype(dtype))
    return path


def test_a_film_keeps_its_sound_and_gets_colour(tmp_path: Path, options: dict[str, Any]) -> None:
    film = make_film(tmp_path / "in.mp4", frames=12, audio="aac")
    (report,) = restore.run(film, tmp_path / "out.mp4", **options)
    assert isinstance(report, FilmReport)
    assert report.frames == 12
    with av.open(str(film)) as before, av.open(str(tmp_path / "out.mp4")) as after:
        assert [bytes(p) for p in after.demux(audio=0)] == [bytes(p) for p in before.demux(audio=0)]
    with av.open(str(tmp_path / "out.mp4")) as container:
        planes = next(container.decode(video=0)).to_ndarray()
    assert np.abs(planes[64:].astype(int) - 128).max() > 3
    assert (tmp_path / "out.mp4.json").is_file()


def test_the_same_input_gives_the_same_frames(tmp_path: Path, options: dict[str, Any]) -> None:
    film = make_film(tmp_path / "in.mp4", frames=10)
    for name in ("one.mp4", "two.mp4"):
        run(film, tmp_path / name, **options)
    assert frame_hashes(tmp_path / "one.mp4", "all") == frame_hashes(tmp_path / "two.mp4", "all")


@pytest.mark.parametrize(("name", "dtype"), [("old.png", np.uint8), ("old.tif", np.uint16), ("old.jpg", np.uint8)])
def test_a_still_keeps_format_and_depth(tmp_path: Path, options: dict[str, Any], name: str, dtype: type) -> None:
    source, output = photo(tmp_path / "in" / name, dtype=dtype), tmp_path / name
    (report,) = run(source, output, **options)
    assert isinstance(report, PhotoReport)
    before = cv2.imread(str(source), cv2.IMREAD_UNCHANGED)
    after = cv2.imread(str(output), cv2.IMREAD_UNCHANGED)
    assert before is not None
    assert after is not None
    assert after.dtype == dtype
    assert after.shape == (48, 64, 3)
    assert np.ptp(after.astype(int), axis=2).max() > 3
    if name != "old.jpg":
        luma = np.rint(after.astype(np.float64) @ np.array([0.114, 0.587, 0.299]))
        assert np.array_equal(luma, before if before.ndim == 2 else before[..., 0])


def test_a_folder_of_stills_is_mirrored_and_a_broken_one_named(tmp_path: Path, options: dict[str, Any]) -> None:
    folder, output = tmp_path / "in", tmp_path / "out"
    photo(folder / "a.png")
    photo(folder / "deep" / "er" / "b.tif", 1, np.uint16)
    photo(folder / "c.jpg", 2)
    (folder / "c.jpg").write_bytes((folder / "c.jpg").read_bytes()[:300])
    (folder / "notes.txt").write_text("not a picture")
    with pytest.raises(BatchError, match=r"1 of 3 sources failed(.|\n)*c\.jpg"):
        run(folder, output, **options)
    found = sorted(str(path.relative_to(output)) for path in output.rglob("*.*") if not path.name.startswith("."))
    assert found == ["a.png", "deep/er/b.tif"]


def test_an_interrupted_folder_continues(tmp_path: Path, options: dict[str, Any]) -> None:
    folder, output = tmp_path / "in", tmp_path / "out"
    for number in range(3):
        photo(folder / f"{number}.png", number)
    run(folder, output, **options)
    before = {path.name: path.stat().st_mtime_ns for path in output.glob("*.png")}
    (output / "1.png").unlink()
    photo(folder / "2.png", 7)
    with pytest.raises(BatchError, match=r"2\.png: exists already; use --overwrite"):
        run(folder, output, **options)
    reports = run(folder, output, overwrite=True, **options)
    assert [report.resumed for report in reports if isinstance(report, PhotoReport)] == [True, True, False]
    after = {path.name: path.stat().st_mtime_ns for path in output.glob("*.png")}
    assert after["0.png"] == before["0.png"]
    assert after["2.png"] != before["2.png"]


def test_other_settings_do_not_count_as_done(tmp_path: Path, options: dict[str, Any]) -> None:
    photo(tmp_path / "in" / "a.png")
    run(tmp_path / "in", tmp_path / "out", **options)
    with pytest.raises(MediaError, match="exists already"):
        run(tmp_path / "in", tmp_path / "out", settings=["paint.saturation=0.5"], **options)


def test_several_sources_go_to_a_folder(tmp_path: Path, options: dict[str, Any]) -> None:
    sources = [make_film(tmp_path / "one.mp4", frames=3), photo(tmp_path / "two.png")]
    run(sources, tmp_path / "out", **options)
    assert sorted(path.name for path in (tmp_path / "out").glob("*.[mp][pn][4g]")) == ["one.mp4", "two.png"]


@pytest.mark.parametrize(
    ("names", "profile"),
    [
        (("a/reel.mp4", "b/reel.mp4"), "access"),
        (("a/reel.avi", "b/reel.mp4"), "access"),
        (("a/reel.mp4", "b/reel.mkv"), "sequence"),
        (("a/old.png", "b/old.png"), "access"),
        (("a/album", "b/album"), "access"),
    ],
)
def test_sources_that_would_have_one_output_are_refused_before_work(
    tmp_path: Path, options: dict[str, Any], names: tuple[str, str], profile: str
) -> None:
    sources = [tmp_path / name for name in names]
    for source in sources:
        source.parent.mkdir()
        if source.suffix == ".png":
            photo(source)
        elif not source.suffix:
            photo(source / "old.png")
        else:
            source.touch()
    with pytest.raises(ConfigError, match=r"a/(reel|old|album).* and .*b/\1.* would both become .*out/\1.*one by one"):
        run(sources, tmp_path / "out", profile=profile, overwrite=True, **options)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("suffix", [".dpx", ".tif", ".png"])
def test_a_numbered_sequence_goes_in_and_out(tmp_path: Path, options: dict[str, Any], suffix: str) -> None:
    film = make_film(tmp_path / "in.mkv", frames=7, codec="ffv1", pix_fmt="gray")
    run(film, tmp_path / "scan" / f"f_%06d{suffix}", **options)
    names = sorted(path.name for path in (tmp_path / "scan").iterdir() if path.suffix == suffix)
    assert names == [f"f_{number:06d}{suffix}" for number in range(1, 8)]
    (report,) = run(tmp_path / "scan" / f"f_%06d{suffix}", tmp_path / "again.mkv", rate=Fraction(18), **options)
    assert isinstance(report, FilmReport)
    with av.open(str(tmp_path / "again.mkv")) as container:
        assert container.streams.video[0].average_rate == 18
        assert len(list(container.decode(video=0))) == 7


def test_an_existing_sequence_is_kept_unless_told(tmp_path: Path, options: dict[str, Any]) -> None:
    film = make_film(tmp_path / "in.mkv", frames=2, codec="ffv1", pix_fmt="gray")
    for output in (tmp_path / "out" / "f_%04d.png", tmp_path / "folder"):
        chosen = {**options, "profile": "sequence"}
        run(film, output, **chosen)
        with pytest.raises(MediaError, match="holds frames already; use --overwrite"):
            run(film, output, **chosen)
        run(film, output, overwrite=True, **chosen)
    with pytest.raises(ConfigError, match="has no suffix; name a file such as"):
        run(film, tmp_path / "nothing", **options)


def test_a_folder_with_a_rate_is_a_sequence(tmp_path: Path, options: dict[str, Any]) -> None:
    for number in range(4):
        photo(tmp_path / "scan" / f"s{number + 10:04d}.png", number)
    run(tmp_path / "scan", tmp_path / "out.mkv", rate=Fraction(24), profile="archive", **options)
    hashes = frame_hashes(tmp_path / "out.mkv")
    assert len(set(hashes)) == 4


def test_a_sequence_without_a_rate_is_refused(tmp_path: Path, options: dict[str, Any]) -> None:
    photo(tmp_path / "s_0001.png")
    with pytest.raises(MediaError, match="--rate"):
        run(tmp_path / "s_%04d.png", tmp_path / "out.mkv", **options)


def test_a_passage_is_cut_out(tmp_path: Path, options: dict[str, Any]) -> None:
    film = make_film(tmp_path / "in.mp4", frames=50)
    (report,) = run(film, tmp_path / "out.mp4", start=0.5, end="0:01", **options)
    assert isinstance(report, FilmReport)
    assert report.frames in (12, 13)


def test_an_existing_output_is_kept_unless_told(tmp_path: Path, options: dict[str, Any]) -> None:
    film = make_film(tmp_path / "in.mp4", frames=3)
    (tmp_path / "out.mp4").write_text("precious")
    with pytest.raises(MediaError, match="exists already; use --overwrite"):
        run(film, tmp_path / "out.mp4", **options)
    assert (tmp_path / "out.mp4").read_text() == "precious"
    run(film, tmp_path / "out.mp4", overwrite=True, **options)
    assert (tmp_path / "out.mp4").stat().st_size > 100


class Killed(BaseException):
    """Ends a run where it stands, as SIGKILL does."""


@pytest.mark.parametrize("name", ["out.mkv", "there/f_%04d.png", "new"])
def test_a_run_killed_while_its_output_was_put_in_place_is_finished_by_the_same_command(
    tmp_path: Path, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    film, output = make_film(tmp_path / "in.mkv", frames=6, codec="ffv1", pix_fmt="gray"), tmp_path / name
    chosen = {**options, "profile": "archive" if name == "out.mkv" else "sequence", "part_frames": 2}
    (tmp_path / "there").mkdir()

    def kill(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr("restore.output.join.sync", kill)  # the new names are there
        with pytest.raises(Killed):
            run(film, output, **chosen)
    (report,) = run(film, output, **chosen)
    assert isinstance(report, FilmReport)
    assert report.resumed_parts == report.parts == 3
    assert (output.parent / f"{output.name}.json").is_file()
    assert not (output.parent / f"{output.name}.restore").exists()
    with pytest.raises(MediaError, match="use --overwrite"):
        run(film, output, **chosen)


def test_the_source_is_never_the_output(tmp_path: Path, options: dict[str, Any]) -> None:
    film, still = make_film(tmp_path / "in.mp4", frames=3), photo(tmp_path / "in.png")
    for source in (film, still):
        before = source.read_bytes()
        with pytest.raises(MediaError, match="would overwrite the source"):
            run(source, source, overwrite=True, **options)
        with pytest.raises(BatchError, match=r"2 of 2 sources failed(.|\n)*would overwrite the source"):
            run([still, film], tmp_path, overwrite=True, **options)
        assert source.read_bytes() == before


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        ({"settings": ["smooth.radios=2"]}, ConfigError, "radios.*radius"),
        ({"settings": ["sharpen.by=2"]}, ConfigError, "sharpen.*known|unknown stage"),
        ({"settings": ["smooth.radius=many"]}, ConfigError, "smooth.radius"),
        ({"settings": ["paint.saturation=9"]}, ConfigError, "saturation must be between"),
        ({"profile": "dvd"}, ConfigError, r"no profile 'dvd' \(known: access, archive"),
        ({"pipeline": "magic"}, ConfigError, "no pipeline"),
        ({"weights": "deoldify-vidoe"}, WeightsError, "deoldify-video"),
        ({"device": "cuda:77"}, ConfigError, "not on this machine"),
        ({"workers": 0}, ConfigError, "workers must be at least 1"),
        ({"start": Fraction(3), "end": Fraction(2)}, ConfigError, "end must come after start"),
        ({"start": "soon"}, ConfigError, "start cannot be 'soon'"),
        ({"start": Fraction(900)}, MediaError, "no frame"),
        ({"render_factor": 20}, ConfigError, "render.factor"),
    ],
)
def test_wrong_options_are_named_before_work_starts(
    tmp_path: Path, options: dict[str, Any], wrong: dict[str, Any], error: type[Exception], message: str
) -> None:
    film = make_film(tmp_path / "in.mp4", frames=3)
    with pytest.raises(error, match=message):
        run(film, tmp_path / "out.mp4", **{**options, **wrong})
    assert not (tmp_path / "out.mp4").exists()


def test_an_unknown_option_is_a_programmers_error(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="sharpness"):
        run(tmp_path / "in.mp4", tmp_path / "out.mp4", sharpness=3)
