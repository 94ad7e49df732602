"""Jobs whose parts others work on: the processes of an executor, or a scheduler that runs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from dask_programs import free_port
from distributed import Client
from jobs import log_of, make_slow_film, report_of, start, wait_until, write_config
from media import frame_hashes
from mishaps import scheduler, workers

from restore.batch import run
from restore.cluster.task import TOPIC
from restore.job import Exit, run_job


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, tiny_weights: Path) -> list[str]:
    """The planes of a film of two parts that one process has restored."""
    folder = tmp_path_factory.mktemp("alone")
    film = make_slow_film(folder / "reel.mp4", parts=2)
    run(film, folder / "out.mp4", weights=str(tiny_weights), device="cpu", precision="fp32")
    return frame_hashes(folder / "out.mp4", "all")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the same film, to be restored by a job."""
    make_slow_film(tmp_path / "in" / "reel.mp4", parts=2)
    return tmp_path


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    with scheduler(tmp_path) as (_, address), workers(address, 1, tmp_path):
        yield address


@pytest.mark.parametrize("executor", ["local", "ours.yaml"])
def test_workers_of_an_executor_make_what_one_process_makes(
    folder: Path, tiny_weights: Path, alone: list[str], executor: str
) -> None:
    (folder / "ours.yaml").write_text("kind: local\nworkers: 2\nthreads: 1\n")
    report = run_job(write_config(folder, tiny_weights, executor=executor))
    assert (report.exit_code, report.counts) == (Exit.DONE, {"done": 1})
    assert any(line["message"].startswith("dashboard: http://127.0.0.1:") for line in log_of(folder / "out"))
    assert frame_hashes(folder / "out" / "reel.mp4", "all") == alone


def test_workers_of_a_scheduler_that_runs_make_what_one_process_makes(
    folder: Path, tiny_weights: Path, alone: list[str], address: str
) -> None:
    report = run_job(write_config(folder, tiny_weights, executor=address))
    assert (report.exit_code, report.counts) == (Exit.DONE, {"done": 1})
    with Client(address) as client:
        begun = [note["part"] for _, note in client.get_events(TOPIC)]
    assert sorted(begun) == [0, 1]
    assert frame_hashes(folder / "out" / "reel.mp4", "all") == alone


def test_a_job_that_is_stopped_lets_its_workers_go_in_peace(tmp_path: Path, tiny_weights: Path) -> None:
    make_slow_film(tmp_path / "in" / "reel.mp4", parts=12)
    with start(write_config(tmp_path, tiny_weights, executor=2)) as process:
        try:
            wait_until(lambda: list(tmp_path.glob("out/reel.mp4.restore/parts/*.json")))
            process.terminate()
            told = process.communicate(timeout=120)[1]
        finally:
            process.kill()
    assert process.returncode == Exit.INTERRUPTED
    assert report_of(tmp_path / "out")["counts"] == {"interrupted": 1}
    assert "leaked" not in told, "the process with the workers was killed before it had ended them"


def test_a_scheduler_that_is_not_there_fails_the_film_and_is_named(folder: Path, tiny_weights: Path) -> None:
    nowhere = f"tcp://127.0.0.1:{free_port()}"
    (folder / "ours.yaml").write_text(f"kind: dask\naddress: {nowhere}\ntimeout_seconds: 1\n")
    report = run_job(write_config(folder, tiny_weights, executor="ours.yaml", retries=1))
    assert report.exit_code == Exit.FAILED
    (entry,) = report.entries.values()
    assert f"{nowhere}: no Dask scheduler answers there" in str(entry.error)
    assert entry.attempts == 2
