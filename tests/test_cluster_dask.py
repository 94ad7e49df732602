"""A Dask scheduler and workers that run on their own: the same output, and no fault of theirs or ours is lost on it."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import dask.config
import pytest
from distributed import Security
from media import frame_hashes
from mishaps import TESTS, Mishap, end, film_of, generous_limit, records, reel, scheduler, started, wait_for, workers

import restore
from restore.cluster import connect, crew
from restore.errors import ClusterError, ConfigError, MediaError, RestoreError
from restore.film import FilmReport, restore_film
from restore.machine import this_machine
from restore.setup import Options

mapping = sys.modules["restore.cluster.dask_map"]
"""The module, whose name in its package is that of its function."""


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A scheduler with two workers."""
    folder = tmp_path_factory.mktemp("dask")
    with scheduler(folder) as (_, address), workers(address, 2, folder):
        yield address


def finish(source: Path, output: Path, options: Options) -> FilmReport:
    with connect(options) as workers:
        assert workers is not None
        report = restore_film(film_of(source, output, workers.options), execute=workers)
    return report


def client_of(address: str, options: Options, source: Path, output: Path) -> Any:
    """Start the same film in another process, slow enough to be disturbed."""
    notes = output.parent / "notes"
    return started(TESTS / "mishaps.py", address, options.weights, source, output, notes, log=output.parent / "log")


def test_the_output_is_that_of_one_process(
    restored: tuple[Path, list[str]],
    archiving: Options,
    address: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)  # the workers have another folder
    given: dict[str, Any] = {"weights": os.path.relpath(str(archiving.weights)), "device": "cpu", "precision": "fp32"}
    (report,) = restore.run(
        os.path.relpath(restored[0]), "out.mkv", dask=address, part_frames=12, profile="archive", **given
    )
    assert isinstance(report, FilmReport)
    assert report.parts == 5
    assert frame_hashes(tmp_path / "out.mkv", "all") == restored[1]


def test_a_killed_client_continues_and_does_again_only_what_is_damaged(
    restored: tuple[Path, list[str]], archiving: Options, address: str, tmp_path: Path
) -> None:
    output = tmp_path / "out.mkv"
    with client_of(address, archiving, restored[0], output) as process:
        wait_for(lambda: len(records(output)) >= 3 or process.poll() is not None)
        end(process)
    parts = sorted(output.with_name("out.mkv.restore").glob("parts/*.mkv"))
    assert len(parts) in (3, 4, 5)
    assert not output.exists()
    before = records(output)
    parts[0].write_bytes(parts[0].read_bytes()[:-50])
    parts[1].unlink()
    report = finish(restored[0], output, replace(archiving, dask=address))
    assert len(before) - 2 <= report.resumed_parts < 5
    assert frame_hashes(output, "all") == restored[1]
    assert not output.with_name("out.mkv.restore").exists()


def test_a_source_that_changed_between_runs_is_done_anew(
    restored: tuple[Path, list[str]], archiving: Options, address: str, tmp_path: Path
) -> None:
    source, output = tmp_path / "in.mp4", tmp_path / "out.mkv"
    reel(source, seed=5)
    with client_of(address, archiving, source, output) as process:
        wait_for(lambda: len(records(output)) >= 1 or process.poll() is not None)
        end(process)
    source.write_bytes(restored[0].read_bytes())
    assert finish(source, output, replace(archiving, dask=address)).resumed_parts == 0
    assert frame_hashes(output, "all") == restored[1]


def test_two_clients_do_not_work_on_one_output(
    restored: tuple[Path, list[str]], archiving: Options, address: str, tmp_path: Path
) -> None:
    output = tmp_path / "out.mkv"
    with client_of(address, archiving, restored[0], output) as process:
        wait_for(lambda: len(records(output)) >= 1 or process.poll() is not None)
        with pytest.raises(MediaError, match="another run is working on this output"):
            finish(restored[0], output, replace(archiving, dask=address))
        assert process.wait(120) == 0
    assert frame_hashes(output, "all") == restored[1]


def test_a_restarted_scheduler_is_found_again(
    restored: tuple[Path, list[str]], archiving: Options, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    output, done = tmp_path / "out.mkv", []
    with scheduler(tmp_path) as (first, address), workers(address, 1, tmp_path):
        slow = Mishap("hang", str(tmp_path / "notes"), times=0, seconds=0.2)

        def run() -> None:
            with connect(replace(archiving, dask=address)) as workers:
                assert workers is not None
                done.append(restore_film(film_of(restored[0], output, workers.options, slow), execute=workers))

        thread = threading.Thread(target=run)
        thread.start()
        wait_for(lambda: len(records(output)) >= 1)
        end(first)
        kept = records(output)
        with scheduler(tmp_path, int(address.rpartition(":")[2])), workers(address, 1, tmp_path):
            wait_for(lambda: len(records(output)) > len(kept) or done)
            again = records(output)
            assert not again or kept.items() <= again.items(), "a finished part was done again"
            thread.join(120)
    assert [report.parts for report in done] == [5]
    assert "lost the Dask scheduler" in caplog.text
    assert frame_hashes(output, "all") == restored[1]


def test_a_scheduler_that_stays_lost_is_said_and_finished_parts_are_kept(
    restored: tuple[Path, list[str]], archiving: Options, tmp_path: Path
) -> None:
    output = tmp_path / "out.mkv"
    with scheduler(tmp_path) as (process, address), workers(address, 1, tmp_path):
        slow = Mishap("hang", str(tmp_path / "notes"), times=0, seconds=0.2)
        with connect(replace(archiving, dask=address, dask_timeout=1)) as workers_there:
            assert workers_there is not None
            one = film_of(restored[0], output, workers_there.options, slow)

            def strike() -> None:
                wait_for(lambda: records(output))
                end(process)

            stop = threading.Thread(target=strike)
            stop.start()
            with pytest.raises(ClusterError, match=f"lost the Dask scheduler at {address}.*finished parts are kept"):
                restore_film(one, execute=workers_there)
            stop.join()
    assert restore_film(film_of(restored[0], output, archiving)).resumed_parts >= 1
    assert frame_hashes(output, "all") == restored[1]


def test_a_hung_worker_without_a_nanny_is_left(
    restored: tuple[Path, list[str]], archiving: Options, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with scheduler(tmp_path) as (_, address), workers(address, 2, tmp_path, "--no-nanny"):
        with connect(replace(archiving, dask=address)) as crew:
            assert crew is not None
            limit = generous_limit(restored[0], tmp_path, crew.options, crew)
        with connect(replace(archiving, dask=address, part_timeout=limit)) as crew:
            assert crew is not None
            hung = Mishap("hang", str(tmp_path / "notes"))
            restore_film(film_of(restored[0], tmp_path / "out.mkv", crew.options, hung), execute=crew)
    assert f"frames 0-16: not done within {limit:.0f} s" in caplog.text
    assert frame_hashes(tmp_path / "out.mkv", "all") == restored[1]


def test_a_dead_scheduler_is_named(archiving: Options, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crew, "CONNECT_SECONDS", 1)
    with scheduler(tmp_path) as (process, address):
        end(process)
    with pytest.raises(RestoreError, match=address), connect(replace(archiving, dask=address)):
        pass


def test_a_scheduler_without_workers_is_named(archiving: Options, tmp_path: Path) -> None:
    with (
        scheduler(tmp_path) as (_, address),
        pytest.raises(ClusterError, match=f"{address} has no worker; start some with `dask worker {address}`"),
        connect(replace(archiving, dask=address, dask_timeout=1)),
    ):
        pass


def test_workers_with_other_versions_are_refused(
    archiving: Options, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = this_machine()
    newer = replace(here, versions={**here.versions, "torch": "9.9"})
    monkeypatch.setattr(crew, "this_machine", lambda: newer)
    with (
        pytest.raises(ClusterError, match=r"worker tcp://127.0.0.1:\d+: torch is .*, not 9.9; install the same"),
        connect(replace(archiving, dask=address)),
    ):
        pass


@pytest.mark.parametrize(
    ("lacking", "message"),
    [
        ("folder", "does not see the work folder .* put the output into a folder that all machines share"),
        ("weights", r"no file and are no weights '.*tiny\.safetensors'"),
        ("source", "does not see the source .* put the source into a folder that all machines share"),
        ("version", "opencv is .*, not 0; install the same versions"),
        ("precision", r"computes in \w+ on cpu where the others do in none.* choose one with --precision"),
    ],
)
def test_a_worker_that_lacks_something_is_named(
    restored: tuple[Path, list[str]],
    archiving: Options,
    address: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    lacking: str,
    message: str,
) -> None:
    source, own = tmp_path / "in.mp4", tmp_path / "tiny.safetensors"
    source.write_bytes(restored[0].read_bytes())
    own.write_bytes(Path(str(archiving.weights)).read_bytes())
    order_for, write_token = mapping.order_for, mapping.write_token

    def order(work: Any, run: str, machine: Any) -> Any:
        made = order_for(work, run, machine)
        if lacking in ("weights", "source"):
            (own if lacking == "weights" else source).unlink()
        if lacking == "version":
            return replace(made, machine=replace(machine, versions={**machine.versions, "opencv": "0"}))
        return replace(made, machine=replace(machine, precisions={"cpu": "none"})) if lacking == "precision" else made

    monkeypatch.setattr(mapping, "order_for", order)
    monkeypatch.setattr(mapping, "write_token", lambda *a: None if lacking == "folder" else write_token(*a))
    given: dict[str, Any] = {"weights": str(own), "precision": "auto" if lacking == "precision" else "fp32"}
    with connect(replace(archiving, dask=address, **given)) as workers:
        assert workers is not None
        with pytest.raises(ClusterError, match=rf"worker tcp://127.0.0.1:\d+: .*({message})"):
            restore_film(film_of(source, tmp_path / "out.mkv", workers.options), execute=workers)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Files in PEM format that prove who may talk to the scheduler."""
    folder, made = tmp_path_factory.mktemp("tls"), Security.temporary()
    files = {"ca": made.tls_ca_file, "cert": made.tls_client_cert, "key": made.tls_client_key}
    for name, text in files.items():
        (folder / f"{name}.pem").write_text(text)
    return {name: folder / f"{name}.pem" for name in files}


def test_a_scheduler_with_tls_takes_those_with_certificates_only(
    archiving: Options, certificates: dict[str, Path], tmp_path: Path
) -> None:
    words = ["--tls-ca-file", certificates["ca"], "--tls-cert", certificates["cert"], "--tls-key", certificates["key"]]
    with scheduler(tmp_path, 0, "--protocol", "tls", *words) as (_, address):
        assert address.startswith("tls://")
        with workers(address, 1, tmp_path, *words):
            given: dict[str, Any] = {f"dask_tls_{name}": file for name, file in certificates.items()}
            with connect(replace(archiving, dask=address, **given)) as workers_there:  # they have answered
                assert workers_there is not None
            names = {"ca-file": "ca", "client.cert": "cert", "client.key": "key"}
            own = {f"distributed.comm.tls.{name}": str(certificates[file]) for name, file in names.items()}
            with dask.config.set(own), connect(replace(archiving, dask=address)) as workers_there:
                assert workers_there is not None
        with pytest.raises(ConfigError, match="needs certificates"), connect(replace(archiving, dask=address)):
            pass
