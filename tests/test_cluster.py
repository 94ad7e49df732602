"""Workers on this machine: the same output for any number of them, whatever befalls them."""

from __future__ import annotations

import ast
import resource
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]
import pytest
from distributed import Client
from media import frame_hashes
from mishaps import FRAMES, Mishap, failing, film_of, generous_limit, hanging, numbered_parts, trivial, wait_for

import restore
from restore.cluster import Limits, connect, dask_map, local_workers
from restore.cluster.dask_map import SLOTS, WINDOW
from restore.cluster.executors import executor
from restore.cluster.settings import Local
from restore.errors import ConfigError, MediaError, StageError
from restore.film import restore_film
from restore.plan import Part
from restore.setup import Options


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with executor(Local(workers=2)) as client:
        yield client


@pytest.mark.parametrize("count", [1, 2, 4])
def test_the_output_does_not_depend_on_how_many_processes_there_are(
    restored: tuple[Path, list[str]], archiving: Options, count: int, tmp_path: Path
) -> None:
    with local_workers(count) as execute:
        restore_film(film_of(restored[0], tmp_path / "out.mkv", archiving), execute=execute)
    assert frame_hashes(tmp_path / "out.mkv", "all") == restored[1]


def test_a_worker_killed_twice_in_the_same_part_is_survived(
    restored: tuple[Path, list[str]], archiving: Options, client: Client, tmp_path: Path
) -> None:
    mishap = Mishap("die", str(tmp_path / "notes"), times=2)
    restore_film(film_of(restored[0], tmp_path / "out.mkv", archiving, mishap), execute=dask_map(client))
    assert len(list((tmp_path / "notes").iterdir())) >= 3
    assert frame_hashes(tmp_path / "out.mkv", "all") == restored[1]
    assert not (tmp_path / "out.mkv.restore").exists()


def test_a_part_whose_worker_hangs_is_done_elsewhere(
    restored: tuple[Path, list[str]],
    archiving: Options,
    client: Client,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    limit = generous_limit(restored[0], tmp_path, archiving, dask_map(client))
    mishap = Mishap("hang", str(tmp_path / "notes"))
    execute = dask_map(client, limits=Limits(part_seconds=limit))
    restore_film(film_of(restored[0], tmp_path / "out.mkv", archiving, mishap), execute=execute)
    assert f"frames 0-16: not done within {limit:.0f} s" in caplog.text
    assert frame_hashes(tmp_path / "out.mkv", "all") == restored[1]


def no_file_grows_beyond(limit: int) -> None:
    """Stand in for a full disk: in this process, a write fails in the middle of a file."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


def test_a_full_disk_stops_the_workers_and_keeps_what_is_done(
    restored: tuple[Path, list[str]], archiving: Options, client: Client, tmp_path: Path
) -> None:
    film, done = film_of(restored[0], tmp_path / "out.mkv", archiving), 0

    def progress(phase: str, now: int, total: int | None) -> None:
        nonlocal done
        if phase == "parts" and now == 1:
            done = now
            client.run(no_file_grows_beyond, 1000)

    client.wait_for_workers(2, timeout=60)
    try:
        with pytest.raises(MediaError, match=r"parts/.*no space left"):
            restore_film(film, execute=dask_map(client), progress=progress)
    finally:
        client.run(no_file_grows_beyond, resource.RLIM_INFINITY)
    assert done
    assert not (tmp_path / "out.mkv").exists()
    assert 1 <= restore_film(film, execute=dask_map(client)).resumed_parts < 5
    assert frame_hashes(tmp_path / "out.mkv", "all") == restored[1]


def test_tasks_are_named_by_file_and_frames(
    restored: tuple[Path, list[str]], archiving: Options, client: Client, tmp_path: Path, monkeypatch: Any
) -> None:
    names, submit = [], client.submit

    def named(*words: Any, key: tuple[str, str, int], **more: Any) -> Any:
        names.append(key)
        return submit(*words, key=key, **more)

    monkeypatch.setattr(client, "submit", named)
    restore_film(film_of(restored[0], tmp_path / "out.mkv", archiving), execute=dask_map(client))
    assert {name.rpartition("-")[0] for name, _, _ in names} == {"in.mp4"}
    spans = [tuple(map(int, frames.removeprefix("frames ").split("-"))) for _, frames, _ in names]
    assert sorted(frame for first, last in spans for frame in range(first, last + 1)) == list(range(FRAMES))


def test_a_part_that_always_hangs_is_named(client: Client) -> None:
    execute = dask_map(client, limits=Limits(part_seconds=0.5))
    with pytest.raises(StageError, match=r"frames 0-9: not done within 0 s, on 3 workers; see --part-timeout"):
        list(execute(hanging, numbered_parts(1)))


def test_the_error_of_a_part_is_raised_as_it_is(client: Client) -> None:
    with pytest.raises(FileNotFoundError, match="gone"):
        list(dask_map(client)(failing, numbered_parts(3)))


def test_few_parts_are_given_out_at_a_time_however_many_there_are(client: Client) -> None:
    taken = 0

    def parts() -> Iterator[Part]:
        nonlocal taken
        for part in numbered_parts(100):
            taken += 1
            yield part

    done = []
    for record in dask_map(client)(trivial, parts()):
        done.append(record.number)
        assert taken - len(done) < WINDOW * SLOTS
    assert sorted(done) == list(range(100))


def test_parts_do_not_wait_for_a_worker_that_is_busy_with_something_else(
    client: Client,
) -> None:
    client.wait_for_workers(2, timeout=60)
    list(dask_map(client)(trivial, numbered_parts(4)))
    busy = next(iter(client.nthreads()))
    left = client.submit(time.sleep, 600, workers=[busy])  # as a dead client may leave
    wait_for(lambda: left.key in client.processing()[busy])
    execute = dask_map(client, limits=Limits(part_seconds=1, begin_seconds=2))
    done = [record.number for record in execute(trivial, numbered_parts(30))]
    client.restart_workers([busy])
    assert sorted(done) == list(range(30))


def test_time_limits_come_from_what_parts_take() -> None:
    limits, quick, slow = Limits(), deque([0.01] * 3), deque([2.0, 2.0, 100.0])
    assert limits.of(100, deque([1.0] * 2), 0) == 7200
    assert limits.of(100, quick, 0) == 120
    assert limits.of(100, slow, 0) == 2000
    assert limits.of(100, slow, 2) == 8000
    assert Limits(part_seconds=5).of(100, slow, 2) == 5


def test_workers_listen_on_loopback_only_and_end_with_the_run(
    archiving: Options, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "restore.cluster")
    us = psutil.Process()
    before = set(us.children(recursive=True))
    with connect(Options(workers=2, weights=archiving.weights, device="cpu")) as crew:
        assert crew is not None
        assert crew.options.threads >= 1
        processes = [us, *us.children(recursive=True)]
        places = {c.laddr.ip for p in processes for c in p.net_connections("tcp") if c.status == psutil.CONN_LISTEN}
    assert places == {"127.0.0.1"}
    assert "dashboard: http://127.0.0.1:" in caplog.text
    assert len(set(processes) - before) >= 3
    left = [child for child in set(us.children(recursive=True)) - before if "spawn_main" in child.cmdline()[-2]]
    assert left == []


def test_without_workers_there_is_no_crew(archiving: Options) -> None:
    with connect(archiving) as crew:
        assert crew is None


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"workers": 2, "dask": "tcp://127.0.0.1:1"}, "choose one of them"),
        ({"dask": "tcp://127.0.0.1:1", "executor": "local"}, "choose one of them"),
        ({"dask_tls_ca": "ca.pem"}, "dask-tls-ca, dask-tls-cert and dask-tls-key together"),
        ({"threads": -1}, "threads must not be negative"),
        ({"part_timeout": 0}, "part-timeout must be positive"),
        ({"dask_timeout": -1}, "dask-timeout must be positive"),
    ],
)
def test_options_that_contradict_are_refused(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Options(**wrong)  # type: ignore[arg-type]


def test_workers_need_devices_of_one_type(tmp_path: Path, restored: tuple[Path, list[str]], archiving: Options) -> None:
    for device, message in (("cpu,cuda:0", "devices of one type"), ("cuda", "compute on cpu only")):
        with pytest.raises(ConfigError, match=message):
            film_of(restored[0], tmp_path / "out.mkv", Options(weights=archiving.weights, device=device, workers=2))


def test_nothing_is_unpickled_from_files() -> None:
    """Sources, weights, plans and records are data; only Dask's own messages between processes are pickled."""
    for path in Path(restore.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            called = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
            assert not called.startswith(("pickle.", "cloudpickle.", "dill.", "joblib.", "shelve.", "marshal.")), path
            if isinstance(node, ast.Call) and called in ("np.load", "torch.load"):
                words = {word.arg: ast.unparse(word.value) for word in node.keywords}
                safe = {"np.load": words.get("allow_pickle", "False"), "torch.load": words.get("weights_only")}
                assert safe[called] == {"np.load": "False", "torch.load": "True"}[called], path
