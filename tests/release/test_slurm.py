"""Films through a real SLURM. Opt-in: `pytest -m release tests/release/test_slurm.py`.

On Debian one machine is enough: install `slurmctld`, `slurmd`, `slurm-client` and `munge`, then, as root, write
/etc/slurm/slurm.conf:

    ClusterName=one
    SlurmctldHost=localhost
    SlurmctldAddr=127.0.0.1
    SlurmUser=root
    StateSaveLocation=/var/lib/slurm/ctld
    SlurmdSpoolDir=/var/lib/slurm/d
    SlurmctldLogFile=/var/log/slurm/slurmctld.log
    SlurmdLogFile=/var/log/slurm/slurmd.log
    ProctrackType=proctrack/pgid
    TaskPlugin=task/none
    SelectType=select/cons_tres
    SelectTypeParameters=CR_CPU
    ReturnToService=2
    NodeName=localhost NodeAddr=127.0.0.1 CPUs=2 RealMemory=8000 State=UNKNOWN
    PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP

and start it (where systemd runs, `systemctl start munge slurmctld slurmd` does the same):

    mkdir -p /var/lib/slurm/ctld /var/lib/slurm/d /var/log/slurm
    install -d -o munge -m 755 /run/munge && runuser -u munge -- munged
    slurmctld && slurmd -N localhost && sinfo
"""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from media import frame_hashes, make_film

from restore.batch import run
from restore.cluster.executors import executor
from restore.cluster.settings import Slurm
from restore.errors import ClusterError
from restore.shipped import data_folder


def slurm(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout.strip()


def runs() -> bool:
    if shutil.which("sinfo") is None:
        return False
    found = subprocess.run(["sinfo", "-h", "-o", "%a"], capture_output=True, text=True, check=False, timeout=30)
    return "up" in found.stdout


pytestmark = [
    pytest.mark.release,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not runs(), reason="SLURM does not run here; the docstring says how to start it"),
]


def wait_until(condition: Callable[[], object], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} seconds"
        time.sleep(0.5)


@pytest.fixture
def ours(tmp_path: Path) -> Path:
    path = tmp_path / "ours.yaml"
    values = {"kind": "slurm", "gpus": 0, "cores": 1, "memory": "2GiB", "walltime": "00:30:00", "interface": "lo"}
    path.write_text(json.dumps({**values, "maximum": 2, "logs": str(tmp_path)}))
    return path


@pytest.fixture
def options(tiny_weights: Path) -> dict[str, Any]:
    return {"weights": str(tiny_weights), "device": "cpu", "precision": "fp32", "part_frames": 12}


def test_a_film_through_slurm_is_the_film_of_one_process(tmp_path: Path, ours: Path, options: dict[str, Any]) -> None:
    film = make_film(tmp_path / "in.mp4", frames=36)
    (alone,) = run(film, tmp_path / "alone.mp4", **options)
    (spread,) = run(film, tmp_path / "spread.mp4", executor=str(ours), **options)
    assert (alone.parts, spread.parts) == (3, 3)  # type: ignore[union-attr]
    assert frame_hashes(tmp_path / "spread.mp4", "all") == frame_hashes(tmp_path / "alone.mp4", "all")
    wait_until(lambda: not slurm("squeue", "-h", "-n", "restore-worker"), 60)


def test_a_job_that_ends_before_the_work_is_done_is_replaced(ours: Path) -> None:
    with executor(ours) as client:
        future = client.submit(time.sleep, 5, pure=False)
        wait_until(lambda: client.nthreads(), 120)
        (first,) = slurm("squeue", "-h", "-n", "restore-worker", "-o", "%i").split()
        slurm("scancel", first)
        assert future.result(timeout=180) is None
        (second,) = slurm("squeue", "-h", "-n", "restore-worker", "-o", "%i").split()
    assert first != second


def test_a_partition_that_is_not_there_is_said_before_any_work() -> None:
    with (
        pytest.raises(ClusterError, match=r"(?s)SLURM refuses such a job: .*[Pp]artition"),
        executor(Slurm(partition="nowhere", gpus=0, interface="lo")),
    ):
        pass


@pytest.fixture
def nightly(tmp_path: Path, tiny_weights: Path) -> Path:
    """A job of one film, long enough to be stopped in."""
    (tmp_path / "in").mkdir()
    make_film(tmp_path / "in" / "film.mp4", frames=600)
    path = tmp_path / "nightly.yaml"
    values = {"inputs": [f"{tmp_path}/in"], "output": f"{tmp_path}/out", "weights": str(tiny_weights), "device": "cpu"}
    path.write_text(json.dumps(values))
    return path


def submit(nightly: Path) -> str:
    script = data_folder("configs") / "cluster" / "restore.sbatch"
    options = ["--parsable", "--mem=2G", "--cpus-per-task=1", f"--output={nightly.parent}/log"]
    return slurm("sbatch", *options, str(script), str(nightly))


def state(job: str) -> dict[str, str]:
    words = slurm("scontrol", "show", "job", job).split()
    return dict(word.split("=", 1) for word in words if "=" in word)


def test_the_batch_script_restores_what_its_job_names(nightly: Path) -> None:
    job = submit(nightly)
    wait_until(lambda: state(job)["JobState"] in ("COMPLETED", "FAILED"), 300)
    assert state(job)["ExitCode"] == "0:0", (nightly.parent / "log").read_text()
    assert (nightly.parent / "out" / "film.mp4").is_file()


def test_the_batch_script_stops_before_its_time_is_up_and_continues_later(nightly: Path) -> None:
    job = submit(nightly)
    wait_until(lambda: (nightly.parent / "out" / "film.mp4.restore").exists(), 120)
    slurm("scancel", "--signal=USR1", "--batch", job)
    wait_until(lambda: state(job)["Restarts"] == "1", 120)
    assert not (nightly.parent / "out" / "film.mp4").exists()
    wait_until(lambda: state(job)["JobState"] in ("COMPLETED", "FAILED"), 500)
    assert state(job)["ExitCode"] == "0:0", (nightly.parent / "log").read_text()
    assert (nightly.parent / "out" / "film.mp4").is_file()
