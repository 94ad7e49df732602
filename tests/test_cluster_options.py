"""What options mean for workers: devices, machines, and what the command line offers and shows."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path

import pytest
from media import make_film

from restore.cli.bars import Bars
from restore.cli.films import run
from restore.cluster import connect, crew, executors
from restore.cluster.settings import Dask, Local
from restore.cluster.task import check_versions
from restore.errors import ClusterError, ConfigError
from restore.machine import Machine, this_machine
from restore.setup import Options, film_for


def test_every_option_is_on_the_command_line_under_the_same_name() -> None:
    offered = {option.name for option in run.params}
    assert {field.name for field in fields(Options)} - offered == {"machine"}


@pytest.mark.parametrize(
    ("device", "devices"), [(None, "auto"), ("cpu", "cpu"), ("cuda", "0"), ("cuda:1, cuda:3", "1,3")]
)
def test_local_workers_get_the_devices_that_are_asked_for(
    device: str | None, devices: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crew, "devices_of", lambda names: [name.strip() for name in names.split(",")])
    found = crew._settings(Options(workers=2, device=device, threads=3, dashboard=""))
    assert found == Local(workers=2, threads=3, devices=devices, dashboard="")


@pytest.mark.parametrize(
    ("seen", "names"), [("", ["0", "1"]), ("2,3", ["2", "3"]), ("GPU-abc, GPU-def", ["GPU-abc", "GPU-def"])]
)
def test_a_gpu_is_one_of_those_that_this_process_sees(
    seen: str, names: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", seen)
    settings = Local(workers=3, devices="0,1")
    found = [executors._local_worker(settings, number)["env"]["CUDA_VISIBLE_DEVICES"] for number in range(3)]
    assert found == [names[0], names[1], names[0]]


def test_an_address_is_a_scheduler_that_runs() -> None:
    found = crew._settings(Options(dask="tcp://10.0.0.7:8786"))
    assert isinstance(found, Dask)
    assert (found.address, found.tls) == ("tcp://10.0.0.7:8786", None)


def test_an_unknown_executor_is_named() -> None:
    with pytest.raises(ConfigError, match="no executor 'cloud9'"), connect(Options(executor="cloud9")):
        pass


def test_auto_means_what_all_workers_have(caplog: pytest.LogCaptureFixture) -> None:
    gpu, old, cpu = {"cuda": "bf16", "cpu": "bf16"}, {"cuda": "fp16", "cpu": "bf16"}, {"cpu": "bf16"}
    assert crew._in_common([gpu, gpu]) == gpu
    assert crew._in_common([gpu, old]) == {"cuda": "fp32", "cpu": "bf16"}
    assert caplog.text == ""
    assert crew._in_common([gpu, cpu]) == cpu
    assert "only some workers have a GPU" in caplog.text


def test_machines_with_other_versions_are_told_apart() -> None:
    here = this_machine()
    check_versions(here, here)
    there = replace(here, versions={**here.versions, "torch": "1.0"})
    with pytest.raises(ClusterError, match=rf"torch is 1\.0, not {here.versions['torch'][:3]}"):
        check_versions(here, there)


def test_a_film_for_workers_is_that_of_one_process_but_for_who_does_it(tmp_path: Path, tiny_weights: Path) -> None:
    """So that a run can begin in one process and continue on a cluster, and the other way round."""
    path = make_film(tmp_path / "in.mp4", frames=3)
    alone = Options(weights=str(tiny_weights), device="cpu")
    film = film_for(path, tmp_path / "out.mkv", alone)
    for other in (replace(alone, workers=2), replace(alone, dask="tcp://10.0.0.7:8786", machine=this_machine())):
        assert film_for(path, tmp_path / "out.mkv", other).key == film.key


def test_workers_on_a_gpu_need_none_here(tmp_path: Path, tiny_weights: Path) -> None:
    path = make_film(tmp_path / "in.mp4", frames=3)
    there = Machine(this_machine().versions, {"cuda": "fp16", "cpu": "bf16"})
    options = Options(weights=str(tiny_weights), dask="tcp://10.0.0.7:8786", machine=there)
    film = film_for(path, tmp_path / "out.mkv", options)
    assert (film.versions["device"], film.versions["precision"]) == ("cuda", "fp16")
    assert film.stages[0].device == "cuda"  # type: ignore[attr-defined]


def test_the_bar_shows_parts_where_others_do_the_work(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    bars = Bars()
    bars("parts", 0, 5)  # before there is a bar
    bars("restore", 0, 60)
    bars("parts", 2, 5)
    bars("restore", 24, 60)
    bars.close()
    assert "parts 2/5" in capsys.readouterr().err


def test_an_error_of_a_worker_is_one_line_without_a_traceback(tmp_path: Path, tiny_weights: Path) -> None:
    film = make_film(tmp_path / "in.mp4", frames=24)
    words = ["run", film, "-o", tmp_path / "out.mkv", "--workers", 2, "--weights", tiny_weights, "--profile", "archive"]
    command = shlex.join(map(str, [sys.executable, "-m", "restore", *words]))
    done = subprocess.run(["bash", "-c", f"ulimit -f 12; {command}"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    told = [line for line in done.stderr.splitlines() if not line.startswith("INFO: dashboard: ")]
    assert len(told) == 1
    assert re.fullmatch(r"restore: .*/parts/.*: cannot be written: no space left .*", told[0])


def test_the_addresses_of_dashboard_and_metrics_are_told_and_what_dask_fails_to_cancel_is_not() -> None:
    program = """if True:
        import logging
        from restore.cli.logs import set_up
        set_up(verbose=False, as_json=False)
        logging.getLogger("restore.cluster.executors").info("dashboard: here")
        logging.getLogger("restore.job.figures").info("metrics are there")
        logging.getLogger("restore.film").info("hidden")
        logging.getLogger("distributed.nanny").warning("hidden too")
        failure = "Exception in callback functools.partial(<function sync.<locals>.cancel at 0x7fdbac28e200>)"
        logging.getLogger("tornado.application").error(failure)
    """
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert said.stderr == "INFO: dashboard: here\nINFO: metrics are there\n"
