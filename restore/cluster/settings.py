"""Where parts are worked on, as read from the YAML file of an executor."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal, get_args

import dask.config
import torch

from restore import settings_file
from restore.errors import ConfigError
from restore.shipped import data_folder

_LOOPBACK = "127.0.0.1:0"
_WALLTIME = re.compile(r"(?:(\d+)-)?(\d+)(?::(\d{1,2}))?(?::(\d{1,2}))?")


@dataclass(frozen=True, kw_only=True)
class Tls:
    """Files that prove who may talk to the scheduler, in PEM format; all machines see them under the same path."""

    ca: Path
    cert: Path
    key: Path

    def __post_init__(self) -> None:
        for file in (self.ca, self.cert, self.key):
            if not file.is_file():
                raise ConfigError(f"{file} is not a file; give ca, cert and key in PEM format")


@dataclass(frozen=True, kw_only=True)
class Local:
    """Processes of this machine, one a device."""

    kind: ClassVar[str] = "local"

    workers: int = 0
    """Processes; 0 for one a device."""
    threads: int = 0
    """Frames that each works on at a time; 0 shares the cores evenly."""
    devices: str = "auto"
    """``auto`` for all GPUs, or the CPU where there is none; ``cpu``; or numbers of GPUs, as in ``0,1``."""
    dashboard: str = _LOOPBACK
    """Where the dashboard listens; port 0 is any free one, nothing is no dashboard."""

    def __post_init__(self) -> None:
        _at_least(self, 0, "workers", "threads")
        if not re.fullmatch(r"auto|cpu|\d+(,\d+)*", self.devices):
            raise ConfigError(f"devices: expected auto, cpu or numbers of GPUs as in 0,1, found {self.devices!r}")

    @property
    def gpus(self) -> tuple[str, ...]:
        """The numbers of the GPUs that are used, none for the CPU."""
        if self.devices == "auto":
            return tuple(str(number) for number in range(torch.cuda.device_count()))
        return () if self.devices == "cpu" else tuple(self.devices.split(","))

    @property
    def most(self) -> int:
        """Workers there can be at a time."""
        return self.workers or max(1, len(self.gpus))

    @property
    def cores(self) -> int:
        """Frames that each worker works on at a time."""
        return self.threads or max(1, (os.cpu_count() or 1) // self.most)

    @property
    def device(self) -> str:
        """What a worker computes on: it sees its own GPU only."""
        return "cuda" if self.gpus else "cpu"


@dataclass(frozen=True, kw_only=True)
class _Adaptive:
    """Workers that a cluster starts while there is work for them, each alone in a job or pod of its own."""

    cores: int = 4
    """CPUs of a worker, which is also the number of frames that it works on at a time."""
    gpus: Literal[0, 1] = 1
    """Of a worker: one worker a GPU, or none."""
    minimum: int = 0
    """Workers that are kept even without work."""
    maximum: int = 8
    """Workers at most."""

    def __post_init__(self) -> None:
        _at_least(self, 1, "cores", "maximum")
        _at_least(self, 0, "minimum")
        if self.minimum > self.maximum:
            raise ConfigError(f"minimum ({self.minimum}) must not be above maximum ({self.maximum})")

    @property
    def most(self) -> int:
        """Workers there can be at a time."""
        return self.maximum

    @property
    def device(self) -> str:
        """What a worker computes on: it is shown its own GPU only."""
        return "cuda" if self.gpus else "cpu"


@dataclass(frozen=True, kw_only=True)
class Slurm(_Adaptive):
    """Jobs of a SLURM cluster, one a worker, as many as there is work for."""

    kind: ClassVar[str] = "slurm"

    partition: str = ""
    """Nothing is the cluster's default."""
    account: str = ""
    walltime: str = "04:00:00"
    """Longest life of a job, as SLURM writes it; a worker stops a little earlier, and another takes its place."""
    memory: str = "16GiB"
    """Of a job."""
    gpu_type: str = ""
    """As the cluster names it, e.g. ``a100``; nothing is any."""
    gpu_option: Literal["gres", "gpus-per-task"] = "gres"
    """How the cluster wants to be asked for a GPU."""
    directives: tuple[str, ...] = ()
    """Other options of sbatch, e.g. ``--constraint=ib``."""
    environment: tuple[str, ...] = ()
    """Lines of shell that make `restore` available on a node, e.g. ``source /path/venv/bin/activate``."""
    python: str = ""
    """Interpreter on the nodes; nothing is the path of the one that submits, on a shared file system."""
    interface: str | None = None
    """Network interface over which nodes talk, e.g. ``ib0``; nothing is the one that leads outside."""
    logs: str = ""
    """Folder for what the jobs print; nothing is SLURM's default."""
    dashboard: str = _LOOPBACK
    """Where the scheduler's dashboard listens; port 0 is any free one."""
    tls: Tls | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not _WALLTIME.fullmatch(self.walltime) or self.seconds < 120:
            raise ConfigError(f"walltime: expected two minutes or more, as in 04:00:00, found {self.walltime!r}")

    @property
    def seconds(self) -> int:
        """The walltime in seconds. Source: sbatch(1), option ``--time``."""
        days, first, second, third = _WALLTIME.fullmatch(self.walltime).groups()  # type: ignore[union-attr]
        if days is not None:
            parts = (int(days) * 24 + int(first), int(second or 0), int(third or 0))
        elif third is not None:
            parts = (int(first), int(second), int(third))
        else:
            parts = (0, int(first), int(second or 0))
        return parts[0] * 3600 + parts[1] * 60 + parts[2]


@dataclass(frozen=True, kw_only=True)
class Kubernetes(_Adaptive):
    """Pods of a Kubernetes cluster in which the Dask operator runs, one a worker, as many as there is work for."""

    kind: ClassVar[str] = "kubernetes"

    image: str
    """With `restore` and its extras ``cluster`` and ``cloud``; the same for the scheduler and the workers."""
    namespace: str | None = None
    """Nothing is the current one."""
    memory: str = "16Gi"
    """Of a worker."""
    gpu_resource: str = "nvidia.com/gpu"
    """As the cluster's device plug-in names it."""
    environment: dict[str, str] = field(default_factory=dict)
    """Variables of a worker. What is secret belongs into `secrets`."""
    secrets: tuple[str, ...] = ()
    """Names of Kubernetes secrets whose keys become variables of a worker, e.g. ``AWS_ACCESS_KEY_ID``."""
    volumes: dict[str, str] = field(default_factory=dict)
    """Name of a PersistentVolumeClaim: where it is mounted, the same path as for the client."""
    node_selector: dict[str, str] = field(default_factory=dict)
    tolerations: tuple[str, ...] = ("nvidia.com/gpu",)
    """Keys of taints that workers tolerate."""
    idle_minutes: int = 15
    """The cluster deletes itself after so long without work, should the client have died."""
    start_minutes: int = 10
    """How long to wait for the scheduler's pod."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _at_least(self, 1, "idle_minutes", "start_minutes")


@dataclass(frozen=True, kw_only=True)
class Dask:
    """A scheduler that runs already; whoever started it has started its workers."""

    kind: ClassVar[str] = "dask"

    address: str
    """As in ``tcp://host:8786`` or ``tls://host:8786``."""
    gpus: Literal[0, 1] = 0
    """1 if its workers were started with ``--resources GPU=1``."""
    cores: int = 0
    """Frames that each worker works on at a time; 0 is one a core of its machine."""
    most: int = 64
    """Workers to keep busy, if there are so many."""
    timeout_seconds: int = 30
    """How long to try to reach it."""
    tls: Tls | None = None
    """None leaves it to Dask's own configuration (``distributed.comm.tls``)."""

    def __post_init__(self) -> None:
        _at_least(self, 1, "most", "timeout_seconds")
        _at_least(self, 0, "cores")
        if not re.fullmatch(r"(tcp|tls|ucx|ws|wss)://\S+:\d+", self.address):
            raise ConfigError(f"address: expected one as in tcp://host:8786, found {self.address!r}")
        if self.address.startswith("tls://") and self.tls is None and not _tls_of_dask():
            raise ConfigError(
                f"{self.address} needs certificates; give --dask-tls-ca, --dask-tls-cert and --dask-tls-key, "
                "tls with ca, cert and key in an executor's file, or set distributed.comm.tls in Dask's configuration"
            )

    @property
    def device(self) -> str | None:
        """What a worker computes on; None if nothing is known of it."""
        return "cuda" if self.gpus else None


def _tls_of_dask() -> bool:
    """Whether Dask's own configuration, from its files or the environment, has what a client needs for ``tls://``."""
    return all(dask.config.get(f"distributed.comm.tls.{name}", None) for name in ("ca-file", "client.cert"))


Executor = Local | Slurm | Kubernetes | Dask
KINDS: dict[str, type[Executor]] = {cls.kind: cls for cls in get_args(Executor)}


def resources(settings: Executor) -> dict[str, float]:
    """Return what a worker declares and a part needs, so that two parts never share a GPU."""
    return {"GPU": 1} if settings.gpus else {}


def load_executor(name: str | Path) -> Executor:
    """Read an executor that ships with the program, by name, or one of the user's, by path.

    Args:
        name: Of the executor, the path of a YAML file, or the address of a scheduler.

    Raises:
        ConfigError: There is none of this name, a key is unknown, or a value is wrong.
    """
    if "://" in str(name):
        return Dask(address=str(name))
    file = settings_file.find(name, data_folder("configs") / "executors", "executor")
    values = settings_file.read(file)
    kind = values.pop("kind", None)
    if str(kind) not in KINDS:
        raise ConfigError(f"{file}: kind: expected one of {', '.join(KINDS)}, found {kind!r}")
    return settings_file.build(KINDS[kind], values, file)


def _at_least(settings: object, least: int, *names: str) -> None:
    for name in names:
        if getattr(settings, name) < least:
            raise ConfigError(f"{name} must be at least {least}, got {getattr(settings, name)}")
