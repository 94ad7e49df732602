"""Start the workers that an executor describes, and end them again."""

from __future__ import annotations

import importlib
import logging
import math
import os
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import dask.config
from distributed import Client, Nanny, Scheduler, Security, SpecCluster

from restore.cluster.interrupts import held_back
from restore.cluster.settings import Dask, Executor, Kubernetes, Local, Slurm, Tls, load_executor, resources
from restore.errors import ClusterError, ConfigError

log = logging.getLogger(__name__)

_UNKNOWN_TASK = "60s"
"""A guess at how long a part takes before one is finished: Dask's half a second would ask for too few workers."""
_PRELOAD = "restore.part"
"""Where this cannot be imported there is no worker, rather than one that dies of each part it is given."""
_WORKER_MEMORY = {"TARGET": "False", "SPILL": "False", "PAUSE": "False"}
"""A part bounds its own memory and leaves nothing with Dask to spill; a paused worker would wait for ever."""


@contextmanager
def executor(chosen: str | Path | Executor) -> Iterator[Client]:
    """Give a client of the workers that an executor describes; what was started ends with the context.

    Args:
        chosen: Settings, the name of a shipped executor, a YAML file, or the address of a scheduler.

    Raises:
        ConfigError: The settings are wrong, or need a package that is not installed.
        ClusterError: The workers cannot be had; the message says why.
    """
    settings = load_executor(chosen) if isinstance(chosen, str | Path) else chosen
    with dask.config.set({"distributed.scheduler.unknown-task-duration": _UNKNOWN_TASK}), _ended_whole() as stack:
        client = _client(settings, stack)
        if client.dashboard_link:
            log.info("dashboard: %s", client.dashboard_link)
        yield client


@contextmanager
def _ended_whole() -> Iterator[ExitStack]:
    """Give a stack for what is started. All of it is ended, however often Ctrl-C is pressed meanwhile."""
    stack = ExitStack()
    try:
        yield stack
    finally:
        with held_back():
            stack.close()


def _client(settings: Executor, stack: ExitStack) -> Client:
    if isinstance(settings, Dask):
        return _connect(settings, stack)
    if isinstance(settings, Local):
        with held_back():
            cluster = _local(settings, stack)
    else:
        cluster = _slurm(settings, stack) if isinstance(settings, Slurm) else _kubernetes(settings, stack)
        cluster.adapt(minimum=settings.minimum, maximum=settings.maximum)
    client: Client = stack.enter_context(Client(cluster))
    return client


def _connect(settings: Dask, stack: ExitStack) -> Client:
    try:
        client: Client = Client(settings.address, security=_security(settings.tls), timeout=settings.timeout_seconds)
    except (OSError, TimeoutError) as error:
        raise ClusterError(f"{settings.address}: no Dask scheduler answers there ({error})") from error
    stack.enter_context(client)
    return client


def _security(tls: Tls | None) -> Security | None:
    if tls is None:
        return None
    files = {"tls_ca_file": str(tls.ca)}
    for role in ("client", "scheduler", "worker"):
        files |= {f"tls_{role}_cert": str(tls.cert), f"tls_{role}_key": str(tls.key)}
    return Security(require_encryption=True, **files)


def _local(settings: Local, stack: ExitStack) -> Any:
    scheduler = {"host": "127.0.0.1", "port": 0, **_dashboard(settings.dashboard)}
    workers = {number: {"cls": Nanny, "options": _local_worker(settings, number)} for number in range(settings.most)}
    start = {"cls": Scheduler, "options": scheduler}
    # Nannies restart their workers; the cluster would close one for good that is away at the wrong moment.
    stack.enter_context(dask.config.set({"distributed.deploy.lost-worker-timeout": "365 days"}))
    try:
        cluster = SpecCluster(workers, start, silence_logs=logging.ERROR)
    except (OSError, RuntimeError) as error:
        raise ClusterError(f"the workers on this machine cannot be started: {_first_cause(error)}") from error
    return stack.enter_context(cluster)


def _first_cause(error: BaseException) -> BaseException:
    return _first_cause(error.__cause__) if error.__cause__ else error


def _local_worker(settings: Local, number: int) -> dict[str, Any]:
    """Describe a worker; the GPUs are dealt in turn, and a process sees only its own."""
    gpus = settings.gpus
    return {
        "nthreads": 1,
        "host": "127.0.0.1",
        "memory_limit": 0,  # parts bound their own memory; Dask's limit would kill a worker that is merely large
        "resources": resources(settings),
        "preload": [_PRELOAD],
        "silence_logs": logging.CRITICAL,  # errors of parts come to the client, which tells them in one line
        "env": {"CUDA_VISIBLE_DEVICES": _named(gpus[number % len(gpus)])} if gpus else {},
    }


def _named(gpu: str) -> str:
    """Return the driver's name of a GPU: where this process sees only some, its numbers are places among those."""
    seen = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")]
    return seen[int(gpu)] if int(gpu) < len(seen) and seen[int(gpu)] else gpu


def _dashboard(address: str) -> dict[str, Any]:
    # Without an address, Dask would serve its metrics to everybody on port 8787, and warn if somebody else has it.
    return {"dashboard": bool(address), "dashboard_address": address or "127.0.0.1:0"}


def slurm_options(settings: Slurm) -> dict[str, Any]:
    """Return what a `dask_jobqueue.SLURMCluster` is made of."""
    exports = [f"export DASK_DISTRIBUTED__WORKER__MEMORY__{name}={value}" for name, value in _WORKER_MEMORY.items()]
    margin = min(300, settings.seconds // 10)
    worker = ["--no-dashboard", "--dashboard-address", "127.0.0.1:0", "--preload", _PRELOAD]
    worker += ["--lifetime", f"{settings.seconds - 2 * margin}s", "--lifetime-stagger", f"{margin}s"]
    worker += [f"--resources {name}={math.trunc(count)}" for name, count in resources(settings).items()]
    return {
        "queue": settings.partition or None,
        "account": settings.account or None,
        "walltime": settings.walltime,
        "cores": 1,  # threads of the worker: it takes one part at a time
        "processes": 1,
        "job_cpu": settings.cores,
        "memory": settings.memory,
        "job_name": "restore-worker",
        "job_extra_directives": [*_gpu_directives(settings), *settings.directives],
        "job_script_prologue": [*settings.environment, *exports],
        "worker_extra_args": worker,
        "python": settings.python or None,
        "interface": settings.interface,
        "log_directory": settings.logs or None,
        "scheduler_options": _dashboard(settings.dashboard),
        "security": _security(settings.tls),
    }


def _gpu_directives(settings: Slurm) -> list[str]:
    if not settings.gpus:
        return []
    kind = f"{settings.gpu_type}:" if settings.gpu_type else ""
    return [f"--gres=gpu:{kind}1" if settings.gpu_option == "gres" else f"--gpus-per-task={kind}1"]


def _slurm(settings: Slurm, stack: ExitStack) -> Any:
    jobqueue = _optional("dask_jobqueue", "dask-jobqueue")
    if shutil.which("sbatch") is None:
        raise ClusterError("the program sbatch is not on this machine; start where jobs can be submitted to SLURM")
    try:
        cluster = stack.enter_context(jobqueue.SLURMCluster(**slurm_options(settings)))
    except (OSError, ValueError, RuntimeError) as error:
        raise ClusterError(f"the scheduler for SLURM's workers cannot be started: {error}") from error
    _try_job(cluster.job_script())
    return cluster


def _try_job(script: str) -> None:
    """Have SLURM check a job before any is submitted: a job that is refused later would be waited for in vain."""
    found = subprocess.run(["sbatch", "--test-only"], input=script, capture_output=True, text=True, check=False)
    if found.returncode:
        raise ClusterError(f"SLURM refuses such a job: {found.stderr.strip()}")


def kubernetes_spec(settings: Kubernetes, name: str) -> dict[str, Any]:
    """Return the DaskCluster resource that the Dask operator turns into pods.

    Args:
        settings: What the pods look like.
        name: Of the cluster, at most 53 letters, digits and hyphens.
    """
    operator = _optional("dask_kubernetes.operator", "dask-kubernetes")
    memory = {f"DASK_DISTRIBUTED__WORKER__MEMORY__{key}": value for key, value in _WORKER_MEMORY.items()}
    command = ["dask", "worker", "--nthreads", "1", "--memory-limit", "0", "--preload", _PRELOAD]
    command += [f"--resources={key}={math.trunc(count)}" for key, count in resources(settings).items()]
    spec: dict[str, Any] = operator.make_cluster_spec(
        name=name,
        image=settings.image,
        n_workers=settings.minimum,
        env={**settings.environment, **memory},
        worker_command=command,
        idle_timeout=settings.idle_minutes * 60,
    )
    _complete_worker(spec["spec"]["worker"]["spec"], settings)
    scheduler = spec["spec"]["scheduler"]["spec"]["containers"][0]
    scheduler["args"] = ["dask", "scheduler", "--host", "0.0.0.0"]  # its template names a program that is no more
    scheduler["env"] = [{"name": "DASK_DISTRIBUTED__SCHEDULER__UNKNOWN_TASK_DURATION", "value": _UNKNOWN_TASK}]
    scheduler["resources"] = {"requests": {"cpu": "500m", "memory": "1Gi"}, "limits": {"memory": "2Gi"}}
    return spec


def _complete_worker(pod: dict[str, Any], settings: Kubernetes) -> None:
    """Add to a worker's pod what the operator's template does not know."""
    container = pod["containers"][0]
    needs = {"cpu": str(settings.cores), "memory": settings.memory}
    gpus = {settings.gpu_resource: "1"} if settings.gpus else {}
    container["resources"] = {"requests": {**needs, **gpus}, "limits": {"memory": settings.memory, **gpus}}
    container["envFrom"] = [{"secretRef": {"name": secret}} for secret in settings.secrets]
    container["volumeMounts"] = [{"name": claim, "mountPath": path} for claim, path in settings.volumes.items()]
    pod["volumes"] = [{"name": claim, "persistentVolumeClaim": {"claimName": claim}} for claim in settings.volumes]
    pod["nodeSelector"] = dict(settings.node_selector)
    pod["tolerations"] = [{"key": key, "operator": "Exists", "effect": "NoSchedule"} for key in settings.tolerations]


def _kubernetes(settings: Kubernetes, stack: ExitStack) -> Any:
    operator = _optional("dask_kubernetes.operator", "dask-kubernetes")
    spec = kubernetes_spec(settings, f"restore-{uuid.uuid4().hex[:10]}")
    try:
        versions = list(_optional("kr8s", "dask-kubernetes").api().api_versions())
        if not any(version.startswith("kubernetes.dask.org/") for version in versions):
            raise RuntimeError("the Dask operator is not installed there, see kubernetes.dask.org")
        cluster = operator.KubeCluster(
            custom_cluster_spec=spec,
            namespace=settings.namespace,
            resource_timeout=settings.start_minutes * 60,
            quiet=True,
        )
    except Exception as error:  # of four libraries, with no common base
        reason = str(error) or type(error).__name__
        raise ClusterError(f"no Dask cluster can be started on Kubernetes: {reason}") from error
    return stack.enter_context(cluster)


def _optional(module: str, package: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ConfigError(f"this executor needs {package}; install restore[cluster]") from error
