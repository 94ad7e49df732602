"""Executors: what their files may say, what is asked of SLURM and Kubernetes, and that workers really come."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml
from dask_jobqueue.slurm import SLURMCluster
from dask_programs import free_port, processes, running_scheduler, worker_arguments
from distributed import Security
from media import frame_hashes, make_film

from restore.batch import run
from restore.cluster import executors
from restore.cluster.executors import executor, slurm_options
from restore.cluster.settings import KINDS, Dask, Kubernetes, Local, Slurm, Tls, load_executor, resources
from restore.errors import ClusterError, ConfigError
from restore.shipped import data_folder

SHIPPED = ("kubernetes", "local", "slurm")


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


# What the files say


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_executor_is_read_by_name(name: str) -> None:
    assert load_executor(name).kind == name


def test_no_shipped_executor_goes_untested() -> None:
    assert tuple(sorted(file.stem for file in (data_folder("configs") / "executors").iterdir())) == SHIPPED


@pytest.mark.parametrize("name", ["local", "slurm"])
def test_a_shipped_executor_says_the_defaults(name: str) -> None:
    settings = load_executor(name)
    same = {field.name: getattr(KINDS[name](), field.name) for field in fields(settings)}  # type: ignore[call-arg]
    said = yaml.safe_load((data_folder("configs") / "executors" / f"{name}.yaml").read_text())
    assert {key: getattr(settings, key) for key in said if key not in ("kind", "logs")} == {
        key: same[key] for key in said if key not in ("kind", "logs")
    }


def test_an_address_is_an_executor_too() -> None:
    assert load_executor("tcp://10.0.0.1:8786") == Dask(address="tcp://10.0.0.1:8786")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("kind: slurm\npartitoin: gpu\n", r"unknown setting 'partitoin' \(did you mean partition\? known: .*walltime"),
        (
            "kind: dask\naddress: tcp://a:1\ntls: {ca: a, crt: b, key: c}\n",
            r"tls: unknown setting 'crt' \(did you mean cert",
        ),
        ("kind: pbs\n", "kind: expected one of local, slurm, kubernetes, dask, found 'pbs'"),
        ("workers: 2\n", "kind: expected one of"),
        ("kind: local\nworkers: many\n", r"workers: input should be a valid integer \(found 'many'\)"),
        ("kind: kubernetes\n", "image must be given"),
        ("kind: slurm\ngpus: 2\n", "gpus: input should be 0 or 1"),
        ("- local\n", "expected settings as `name: value`"),
        ("kind: [\n", "expected the node content"),
        ("kind: local\nworkers: -1\n", "workers must be at least 0"),
        ("kind: local\ndevices: cuda\n", "devices: expected auto, cpu or numbers"),
        ("kind: slurm\nminimum: 9\n", r"minimum \(9\) must not be above maximum \(8\)"),
        ("kind: slurm\nwalltime: soon\n", "walltime: expected two minutes or more"),
        ("kind: slurm\nwalltime: '00:01:00'\n", "walltime: expected two minutes or more"),
        ("kind: dask\naddress: host\n", "address: expected one as in tcp://host:8786"),
        ("kind: dask\naddress: tls://host:1\n", "needs certificates"),
        ("kind: dask\naddress: tls://host:1\ntls: {ca: a, cert: b, key: c}\n", "tls: a is not a file"),
    ],
)
def test_what_is_wrong_in_a_file_is_said(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=f"x.yaml.*{message}"):
        load_executor(write(tmp_path / "x.yaml", text))


def test_an_unknown_name_and_a_missing_file_are_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no executor 'lokal' \(.*known: kubernetes, local, slurm"):
        load_executor("lokal")
    with pytest.raises(ConfigError, match=r"none\.yaml: cannot be read: No such file"):
        load_executor(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("walltime", "seconds"),
    [("90", 5400), ("90:30", 5430), ("04:00:00", 14400), ("1-02", 93600), ("1-02:03:04", 93784)],
)
def test_a_walltime_is_read_as_slurm_reads_it(walltime: str, seconds: int) -> None:
    assert Slurm(walltime=walltime).seconds == seconds


def test_the_gpus_of_a_machine_decide_the_number_of_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 3)
    monkeypatch.setattr("os.cpu_count", lambda: 12)
    assert (Local().most, Local().cores, Local().device, resources(Local())) == (3, 4, "cuda", {"GPU": 1})
    assert (Local(devices="cpu").most, Local(devices="cpu").device, resources(Local(devices="cpu"))) == (1, "cpu", {})
    assert Local(devices="0,2").gpus == ("0", "2")
    assert (Local(workers=6).most, Local(threads=5).cores) == (6, 5)


# SLURM


def job_script(settings: Slurm) -> str:
    with SLURMCluster(**slurm_options(settings)) as cluster:
        script: str = cluster.job_script()
    return script


def test_a_slurm_job_asks_for_one_gpu_and_starts_one_worker() -> None:
    settings = Slurm(
        partition="gpu", account="film", walltime="08:00:00", cores=6, memory="24GiB", gpu_type="a100", interface="lo"
    )
    script = job_script(settings)
    asked = dict(re.findall(r"^#SBATCH (-\w|--[\w-]+)[ =](.*)$", script, re.MULTILINE))
    wanted = {"-p": "gpu", "-A": "film", "-t": "08:00:00", "-n": "1", "--cpus-per-task": "6", "--mem": "24G"}
    assert wanted.items() <= asked.items()
    assert asked["--gres"] == "gpu:a100:1"
    command = next(line for line in script.splitlines() if "dask_worker" in line)
    worker = worker_arguments(shlex.split(command)[3:])
    assert worker["resources"] == "GPU=1"
    assert (worker["nthreads"], worker["n_workers"], worker["dashboard"]) == (1, None, False)
    assert worker["dashboard_address"] == "127.0.0.1:0"
    assert int(worker["lifetime"][:-1]) + int(worker["lifetime_stagger"][:-1]) < settings.seconds


def test_a_slurm_job_holds_the_lines_of_its_site(tmp_path: Path) -> None:
    settings = Slurm(
        gpu_option="gpus-per-task",
        directives=("--constraint=ib",),
        environment=("source /shared/venv/bin/activate",),
        interface="lo",
        logs=str(tmp_path / "logs"),
    )
    script = job_script(settings)
    assert "#SBATCH --gpus-per-task=1\n#SBATCH --constraint=ib\n" in script
    assert script.index("source /shared/venv/bin/activate") < script.index("dask_worker")
    assert f"#SBATCH -o {tmp_path}/logs/restore-worker-%J.out" in script


def test_a_slurm_job_without_gpu_declares_none() -> None:
    script = job_script(Slurm(gpus=0, interface="lo"))
    assert "gpu" not in script.lower()
    assert "--resources" not in script


def test_a_slurm_job_is_a_script_that_bash_can_read() -> None:
    script = job_script(Slurm(interface="lo"))
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)


def test_workers_of_slurm_get_the_certificates(certificates: Tls) -> None:
    worker = worker_arguments(shlex.split(job_script(Slurm(tls=certificates, interface="lo")).splitlines()[-1])[3:])
    assert worker["tls_cert"] == str(certificates.cert)
    assert worker["scheduler"].startswith("tls://")


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Programs named as SLURM's that start a job at once, as a process of its own, and end it."""
    programs, jobs = tmp_path / "bin", tmp_path / "jobs"
    programs.mkdir()
    jobs.mkdir()
    texts = {
        "sbatch": f'[ "$1" = --test-only ] && exec cat > {jobs}/tried\n'
        f'cp "$1" {jobs}/$$.sh; chmod +x {jobs}/$$.sh\n'
        f"SLURM_JOB_ID=$$ setsid {jobs}/$$.sh > {jobs}/$$.out 2>&1 < /dev/null &\n"
        f"echo $! > {jobs}/$$.pid; echo Submitted batch job $$\n",
        "scancel": f"kill -- -$(cat {jobs}/$1.pid)\n",
    }
    for name, text in texts.items():
        write(programs / name, f"#!/bin/bash\n{text}").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    yield jobs
    for file in jobs.glob("*.pid"):
        subprocess.run(["bash", "-c", f"kill -9 -- -{file.read_text()}"], check=False, capture_output=True)


def test_a_slurm_worker_comes_when_there_is_work_and_goes_with_the_context(stand_in: Path) -> None:
    settings = Slurm(gpus=1, cores=1, memory="1GiB", interface="lo", maximum=1)
    with executor(settings) as client:
        assert client.scheduler_info()["workers"] == {}
        names = ["SLURM_JOB_ID", "DASK_DISTRIBUTED__WORKER__MEMORY__PAUSE"]
        found = client.gather(client.map(os.getenv, names, resources=resources(settings)))
        (worker,) = client.scheduler_info()["workers"].values()
    assert found == [next(stand_in.glob("*.sh")).stem, "False"]
    assert (worker["nthreads"], worker["resources"]) == (1, {"GPU": 1})
    assert "#SBATCH --gres=gpu:1" in (stand_in / "tried").read_text()
    (process,) = stand_in.glob("*.pid")
    wait_for_end(int(process.read_text()))


def test_a_film_through_jobs_is_the_film_of_one_process(stand_in: Path, tmp_path: Path, tiny_weights: Path) -> None:
    film = make_film(tmp_path / "in.mp4", width=64, height=48, frames=12)
    file = write(tmp_path / "ours.yaml", "kind: slurm\ngpus: 0\ncores: 1\nmemory: 2GiB\ninterface: lo\nmaximum: 1\n")
    options: dict[str, Any] = {"weights": str(tiny_weights), "device": "cpu", "precision": "fp32", "part_frames": 6}
    run(film, tmp_path / "alone.mp4", **options)
    run(film, tmp_path / "spread.mp4", executor=file, **options)
    assert frame_hashes(tmp_path / "spread.mp4", "all") == frame_hashes(tmp_path / "alone.mp4", "all")
    assert list(stand_in.glob("*.pid"))


def wait_for_end(process: int) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            os.killpg(process, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    raise AssertionError(f"process {process} is still there")


def test_a_job_that_slurm_refuses_is_an_error_before_any_work(stand_in: Path) -> None:
    write(stand_in.parent / "bin" / "sbatch", "#!/bin/bash\necho 'invalid partition specified: gpuu' >&2; exit 1\n")
    with (
        pytest.raises(ClusterError, match="SLURM refuses such a job: invalid partition specified: gpuu"),
        executor(Slurm(partition="gpuu", interface="lo")),
    ):
        pass


def test_slurm_without_its_programs_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ClusterError, match="sbatch is not on this machine"), executor(Slurm()):
        pass


def test_an_interface_that_is_not_there_is_an_error(stand_in: Path) -> None:
    with pytest.raises(ClusterError, match=r"scheduler for SLURM's workers cannot be started: .*ib7"):
        executor(Slurm(interface="ib7")).__enter__()


@pytest.mark.parametrize(
    ("module", "settings", "package"),
    [
        ("dask_jobqueue", Slurm(), "dask-jobqueue"),
        ("dask_kubernetes.operator", Kubernetes(image="restore"), "dask-kubernetes"),
    ],
)
def test_a_missing_package_is_named_with_its_extra(
    monkeypatch: pytest.MonkeyPatch, module: str, settings: Slurm | Kubernetes, package: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConfigError, match=rf"needs {package}; install restore\[cluster\]"), executor(settings):
        pass


# This machine, and a scheduler that runs


def test_each_local_process_sees_its_own_gpu_and_the_dashboard_is_not_public() -> None:
    with executor(Local(workers=2, devices="0,1")) as client:
        found = client.run(os.getenv, "CUDA_VISIBLE_DEVICES")
        assert sorted(found.values()) == ["0", "1"]
        workers = client.scheduler_info()["workers"].values()
        assert [(one["nthreads"], one["resources"]) for one in workers] == [(1, {"GPU": 1})] * 2
        assert all(address.startswith("tcp://127.0.0.1:") for address in found)
        assert client.dashboard_link.startswith("http://127.0.0.1:")


def test_local_workers_that_cannot_import_what_they_need_are_an_error_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executors, "_PRELOAD", "restore.nothing")
    message = "workers on this machine cannot be started: No module named 'restore.nothing'"
    with pytest.raises(ClusterError, match=message), executor(Local(workers=2, devices="cpu")):
        pass


@pytest.fixture
def scheduler(tmp_path: Path) -> Iterator[str]:
    with running_scheduler(tmp_path) as address:
        yield address


def test_a_scheduler_that_runs_is_used_and_left_alone(tmp_path: Path, scheduler: str) -> None:
    file = write(tmp_path / "ours.yaml", f"kind: dask\naddress: tcp://{scheduler}\ngpus: 1\n")
    for _ in range(2):
        with executor(file) as client:
            assert client.submit(sum, [1, 2], resources={"GPU": 1}).result(timeout=60) == 3


def test_a_scheduler_that_does_not_answer_is_an_error() -> None:
    settings = Dask(address=f"tcp://127.0.0.1:{free_port()}", timeout_seconds=1)
    with pytest.raises(ClusterError, match=rf"{settings.address}: no Dask scheduler answers"), executor(settings):
        pass


@pytest.fixture
def certificates(tmp_path: Path) -> Tls:
    """Write a certificate that signs itself."""
    made = Security.temporary()
    files = {"ca": made.tls_ca_file, "cert": made.tls_client_cert, "key": made.tls_client_key}
    return Tls(**{name: write(tmp_path / f"{name}.pem", text) for name, text in files.items()})


def test_a_scheduler_with_tls_is_reached_with_its_certificates_only(certificates: Tls, tmp_path: Path) -> None:
    port = free_port()
    tls = [
        "--tls-ca-file",
        str(certificates.ca),
        "--tls-cert",
        str(certificates.cert),
        "--tls-key",
        str(certificates.key),
    ]
    options = ["--port", str(port), "--host", "tls://127.0.0.1", "--no-dashboard", *tls]
    with processes(["dask_scheduler", *options], folder=tmp_path):
        with executor(Dask(address=f"tls://127.0.0.1:{port}", tls=certificates)) as client:
            assert client.scheduler_info()["address"] == f"tls://127.0.0.1:{port}"
        plain = Dask(address=f"tcp://127.0.0.1:{port}", timeout_seconds=1)
        with pytest.raises(ClusterError, match="no Dask scheduler answers"), executor(plain):
            pass
