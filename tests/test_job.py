"""Jobs with real films and real processes."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from dask_programs import free_port
from jobs import figures_of, log_of, make_slow_film, report_of, start, states, wait_until, write_config, write_photo
from media import frame_hashes, make_film

from restore.batch import run
from restore.errors import ConfigError, MediaError
from restore.job import Exit, run_job
from restore.job.process import Slot
from restore.job.record import read_record
from restore.lease import holder_of, lease
from restore.storage import place


@pytest.fixture(scope="module")
def batch(tmp_path_factory: pytest.TempPathFactory, tiny_weights: Path) -> Path:
    """A job that was run once: two films, a still, and a film that is damaged."""
    folder = tmp_path_factory.mktemp("batch")
    (folder / "in" / "1922").mkdir(parents=True)
    make_film(folder / "in" / "1922" / "reel.mov", frames=8, audio="aac", colored=True)
    make_film(folder / "in" / "b.avi", frames=6, codec="mpeg4")
    whole = make_film(folder / "damaged.mp4", frames=6).read_bytes()
    (folder / "in" / "damaged.mp4").write_bytes(whole[: len(whole) // 3])
    write_photo(folder / "in" / "photo.png")
    report = run_job(write_config(folder, tiny_weights))
    assert report.exit_code == Exit.FAILED
    return folder


@pytest.fixture
def again(batch: Path, tmp_path: Path, tiny_weights: Path) -> Path:
    """A copy of what the job has left, for another run."""
    shutil.copytree(batch, tmp_path, dirs_exist_ok=True)
    return write_config(tmp_path, tiny_weights)


@pytest.fixture
def no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    def begin(self: Slot, task: object) -> None:
        raise AssertionError(f"should not be restored: {task}")

    monkeypatch.setattr(Slot, "begin", begin)


@pytest.fixture
def processes() -> Iterator[list[subprocess.Popen[str]]]:
    """Processes that are ended, whatever the test does."""
    started: list[subprocess.Popen[str]] = []
    yield started
    for process in started:
        process.kill()
        process.communicate()


def test_one_damaged_film_does_not_stop_the_others_and_is_named(batch: Path) -> None:
    assert states(batch / "out") == {"reel.mov": "done", "b.avi": "done", "photo.png": "done", "damaged.mp4": "failed"}
    found = sorted(str(path.relative_to(batch / "out")) for path in (batch / "out").rglob("[!.]*.*"))
    assert [name for name in found if not name.startswith(".restore-job/")] == [
        "1922/reel.mov", "1922/reel.mov.json", "b.mp4", "b.mp4.json", "photo.png", "photo.png.json",
    ]  # fmt: skip
    (failed,) = (film for film in report_of(batch / "out")["films"] if film["state"] == "failed")
    assert failed["source"] == str(batch / "in" / "damaged.mp4")
    assert "damaged.mp4: is not a film, or is damaged" in failed["error"]
    assert failed["attempts"] == 1


def test_the_report_tells_frames_speed_colour_and_warnings(batch: Path) -> None:
    report = report_of(batch / "out")
    films = {Path(film["source"]).name: film for film in report["films"]}
    reel = films["reel.mov"]
    assert (reel["frames"], reel["total_frames"], reel["parts"], reel["kind"]) == (8, 8, 1, "film")
    assert reel["frames_per_second"] > 0
    assert reel["mean_chroma"] > 1
    assert reel["colourfulness"] > 1
    assert films["photo.png"]["colourfulness"] > 1
    assert any("it has colour or a tint of its own" in line for line in reel["warnings"])
    assert films["b.avi"]["warnings"] == []
    assert report["exit_code"] == 3
    page = (batch / "out" / ".restore-job" / "report.html").read_text()
    assert page.count('src="data:image/jpeg;base64,') == 3
    assert "is not a film, or is damaged" in page


def test_the_log_is_json_lines_with_the_film(batch: Path) -> None:
    lines = log_of(batch / "out")
    done = [line for line in lines if line["message"].endswith("done, 8 frames")]
    assert [(line["film"], line["frames"], line["level"]) for line in done] == [
        (str(batch / "in" / "1922" / "reel.mov"), 8, "info")
    ]
    assert any(line["logger"] == "restore.generators" for line in lines)  # of another process
    assert all(line["time"].endswith("Z") for line in lines)


def test_the_record_says_what_a_result_was_made_from(batch: Path) -> None:
    record = read_record(place(batch / "out" / "b.mp4"))
    assert record
    assert record["source"] == str(batch / "in" / "b.avi")
    assert record["bytes"] == (batch / "out" / "b.mp4").stat().st_size
    assert record["frames"] == 6
    assert "neural" in record["pipeline"]


def test_a_job_makes_what_a_run_makes(batch: Path, tmp_path: Path, tiny_weights: Path) -> None:
    run(batch / "in" / "b.avi", tmp_path / "b.mp4", weights=str(tiny_weights), device="cpu", precision="fp32")
    assert frame_hashes(tmp_path / "b.mp4", "all") == frame_hashes(batch / "out" / "b.mp4", "all")


@pytest.mark.usefixtures("no_process")
def test_what_is_finished_is_not_done_again_even_if_it_was_touched_or_moved(again: Path) -> None:
    (again.parent / "in" / "damaged.mp4").unlink()
    for path in (again.parent / "in").rglob("*.*"):
        os.utime(path, (1, 1))
    report = run_job(again)
    assert report.exit_code == Exit.DONE
    assert report.counts == {"skipped": 3}
    assert {entry.frames for entry in report.entries.values()} == {8, 6, 1}


@pytest.mark.usefixtures("no_process")
def test_nothing_to_do_is_no_failure(tmp_path: Path, tiny_weights: Path) -> None:
    (tmp_path / "in").mkdir()
    report = run_job(write_config(tmp_path, tiny_weights))
    assert report.exit_code == 0
    assert list(report.lines()) == [f"{tmp_path / 'out'}: nothing to do"]
    assert states(tmp_path / "out") == {}


def test_changed_sources_and_lost_results_are_done_again_and_no_others(again: Path) -> None:
    folder = again.parent
    (folder / "in" / "damaged.mp4").unlink()
    assert run_job(again).counts == {"skipped": 3}  # a copy elsewhere, which is the source from now on
    before = frame_hashes(folder / "out" / "b.mp4", "all")
    make_film(folder / "in" / "b.avi", frames=7, codec="mpeg4", seed=1)
    (folder / "out" / "photo.png").unlink()
    assert run_job(again).exit_code == Exit.DONE
    assert states(folder / "out") == {"reel.mov": "skipped", "b.avi": "done", "photo.png": "done"}
    after = frame_hashes(folder / "out" / "b.mp4", "all")
    assert len(after) == 7
    assert after[:6] != before


def test_other_settings_are_another_result(again: Path, tiny_weights: Path) -> None:
    for name in ("1922/reel.mov", "b.avi", "damaged.mp4"):
        (again.parent / "in" / name).unlink()
    before = (again.parent / "out" / "photo.png").read_bytes()
    report = run_job(write_config(again.parent, tiny_weights, settings={"paint.saturation": 0.5}))
    assert report.counts == {"done": 1}
    assert (again.parent / "out" / "photo.png").read_bytes() != before


@pytest.mark.usefixtures("no_process")
def test_files_of_somebody_else_are_not_replaced(tmp_path: Path, tiny_weights: Path) -> None:
    write_photo(tmp_path / "in" / "a.png")
    write_photo(tmp_path / "out" / "a.png", seed=3)
    before = (tmp_path / "out" / "a.png").read_bytes()
    report = run_job(write_config(tmp_path, tiny_weights))
    assert report.exit_code == Exit.FAILED
    assert "exists already, and is no result of" in next(report.lines())
    assert (tmp_path / "out" / "a.png").read_bytes() == before


@pytest.mark.usefixtures("no_process")
def test_a_link_out_of_the_output_root_fails_its_film_only(again: Path, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    shutil.rmtree(again.parent / "out" / "1922")
    (again.parent / "out" / "1922").symlink_to(tmp_path / "outside")
    (again.parent / "in" / "damaged.mp4").unlink()
    report = run_job(again)
    assert report.counts == {"skipped": 2, "failed": 1}
    assert "a symbolic link leads out of the output root" in next(report.lines())
    assert list((tmp_path / "outside").iterdir()) == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"weights": "nobody-knows"}, "nobody-knows"),
        ({"profile": "best"}, "best"),
        ({"settings": {"smooth.radios": 1}}, "unknown setting 'radios'"),
        ({"inputs": "not-mounted"}, "not-mounted is neither a file nor a folder"),
        ({"executor": "slurmm"}, r"no executor 'slurmm' \(did you mean slurm"),
        ({"executor": "tls://host:8786"}, "tls://host:8786 needs certificates"),
    ],
)
def test_a_wrong_configuration_is_told_before_any_work(
    tmp_path: Path, tiny_weights: Path, settings: dict[str, Any], message: str
) -> None:
    (tmp_path / "in").mkdir()
    config = write_config(tmp_path, tiny_weights)
    config = write_config(tmp_path, settings.pop("weights", tiny_weights), **settings)
    with pytest.raises(ConfigError, match=message):
        run_job(config)


def test_a_wrong_configuration_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    config = write_config(tmp_path, "tiny", filmes=2)
    done = subprocess.run(
        [sys.executable, "-m", "restore", "job", str(config)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert (
        done.stderr
        == f"restore: {config}: unknown setting 'filmes' (did you mean films? known: "
        + (done.stderr.partition("known: ")[2])
    )
    assert done.stderr.count("\n") == 1


@pytest.mark.usefixtures("no_process")
def test_the_command_exits_with_3_if_a_source_failed_and_75_if_another_holds_the_lease(
    tmp_path: Path, tiny_weights: Path, call: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    write_photo(tmp_path / "in" / "a.png")
    write_photo(tmp_path / "out" / "a.png", seed=3)
    config = write_config(tmp_path, tiny_weights)
    assert call("job", config) == 3
    assert "exists already" in capsys.readouterr().out
    with lease(place(tmp_path / "out" / ".restore-job" / "lease")):
        assert call("job", config) == 75
    assert "another run is working here" in capsys.readouterr().out


def test_an_output_root_that_cannot_be_written_is_told(tmp_path: Path, tiny_weights: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(MediaError, match="file"):
        run_job(write_config(tmp_path, tiny_weights, output="file/out"))


@pytest.mark.usefixtures("no_process")
def test_old_reports_are_forgotten(tmp_path: Path, tiny_weights: Path) -> None:
    (tmp_path / "in").mkdir()
    for _ in range(3):
        run_job(write_config(tmp_path, tiny_weights, reports=2))
    names = sorted(path.suffix for path in (tmp_path / "out" / ".restore-job" / "runs").iterdir())
    assert names == [".html", ".html", ".json", ".json", ".jsonl", ".jsonl"]


def test_a_killed_job_is_continued_and_its_leases_are_freed(
    tmp_path: Path, tiny_weights: Path, processes: list[subprocess.Popen[str]]
) -> None:
    make_slow_film(tmp_path / "in" / "reel.mp4")
    config, work = write_config(tmp_path, tiny_weights), tmp_path / "out" / "reel.mp4.restore" / "parts"
    processes.append(start(config))
    wait_until(lambda: len(list(work.glob("*.json"))) >= 2)
    held = run_job(config)
    assert held.exit_code == Exit.HELD
    assert "another run is working here" in str(held.note)
    os.kill(processes[0].pid, signal.SIGKILL)
    processes[0].wait()
    assert (tmp_path / "out" / "reel.mp4.lease").is_dir()
    kept = {path.name: path.stat().st_mtime_ns for path in work.glob("*.mkv")}
    wait_until(lambda: holder_of(place(work.parent / "lease")) is None)  # its child ends by itself
    processes.append(start(config))
    wait_until(lambda: len(list(work.glob("*.json"))) > len(kept) or processes[1].poll() is not None)
    assert {name: (work / name).stat().st_mtime_ns for name in kept if (work / name).exists()}.items() <= kept.items()
    os.kill(processes[1].pid, signal.SIGTERM)
    assert processes[1].wait(60) == 130
    assert states(tmp_path / "out") == {"reel.mp4": "interrupted"}
    assert report_of(tmp_path / "out")["note"] == "stopped by SIGTERM"
    assert not (tmp_path / "out" / "reel.mp4.lease").exists()
    assert not (tmp_path / "out" / ".restore-job" / "lease").exists()
    report = run_job(config)
    assert (report.exit_code, report.counts) == (0, {"done": 1})
    assert len(set(frame_hashes(tmp_path / "out" / "reel.mp4"))) == 90
    assert not work.parent.exists()


def test_the_time_limit_of_a_job_leaves_the_rest_to_the_next_run(tmp_path: Path, tiny_weights: Path) -> None:
    make_slow_film(tmp_path / "in" / "reel.mp4", parts=2)
    report = run_job(write_config(tmp_path, tiny_weights, minutes=0.001))
    assert report.exit_code == Exit.INTERRUPTED
    assert "stopped by its time limit (minutes: 0.001); the next run continues" in list(report.lines())[-1]


def test_watching_takes_up_what_arrives_when_it_is_complete(
    tmp_path: Path, tiny_weights: Path, processes: list[subprocess.Popen[str]]
) -> None:
    whole = make_film(tmp_path / "reel.mp4", frames=6).read_bytes()
    (tmp_path / "in").mkdir()
    config = write_config(tmp_path, tiny_weights, settle_seconds=0.3)
    port = free_port()
    processes.append(start(config, "--watch=0.2", f"--metrics-port={port}"))
    root = tmp_path / "out"
    wait_until(lambda: (root / ".restore-job" / "runs").is_dir())
    (tmp_path / "in" / "copied.mp4").write_bytes(whole[:-700])  # a copy that pauses
    (tmp_path / "in" / "named.mp4.part").write_bytes(whole)
    wait_until(lambda: any("begun" in line["message"] for line in log_of(root)))
    assert not (root / "copied.mp4").exists()
    (tmp_path / "in" / "copied.mp4").write_bytes(whole)
    wait_until((root / "copied.mp4").exists)
    (tmp_path / "in" / "named.mp4.part").rename(tmp_path / "in" / "named.mp4")
    wait_until((root / "named.mp4.json").exists)
    wait_until(lambda: sum("done, 6 frames" in line["message"] for line in log_of(root)) == 2)
    figures = dict(line.split() for line in figures_of(port) if line.startswith("restore_"))
    assert figures['restore_films_total{result="done"}'] == "2.0"
    assert float(figures["restore_frames_total"]) in (12, 18)  # what changed while it was read is done again
    os.kill(processes[0].pid, signal.SIGTERM)
    assert processes[0].wait(60) == 0
    assert states(root) == {"copied.mp4": "done", "named.mp4": "done"}
