"""From options to what will be done: stages, profile, output names, and the key that names the result."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from pathlib import Path

from restore import weights
from restore.clip import Subsampling
from restore.colorize.neural import Neural, devices_of
from restore.colorize.paint import Paint
from restore.config import load_pipeline, settings_hash
from restore.errors import ConfigError
from restore.film import Film
from restore.generators import Precision
from restore.machine import Machine, this_machine
from restore.naming import Location
from restore.output.profiles import choose_profile, load_profile, subsampling_for
from restore.scratch import local_copy
from restore.source.probe import Source, probe
from restore.stage import Stage
from restore.stages import STAGES
from restore.storage import Place, place
from restore.units import parse_rate, parse_time


@dataclass(frozen=True, kw_only=True)
class Options:
    """How to restore; the same names as the options of the command line."""

    pipeline: str | Path | None = None
    """A pipeline file or the name of a shipped one; ``film`` or ``still`` if None."""
    profile: str | None = None
    """``access``, ``archive``, ``edit``, ``sequence`` or a profile file; by the output's name if None."""
    settings: Sequence[str] = ()
    """``stage.field=value``, as in ``smooth.radius=2``; these win over all others."""
    weights: str | None = None
    """A name in the registry or a file."""
    device: str | None = None
    """``cpu``, ``cuda``, ``cuda:0,cuda:1`` or ``auto``."""
    precision: Precision | None = None
    batch: int | None = None
    """Frames per pass of the generator."""
    render_factor: int | None = None
    """DeOldify generators: side of their square input divided by 16."""
    start: Fraction | None = None
    """Seconds from the first frame; with `end`, a passage to try."""
    end: Fraction | None = None
    """Seconds from the first frame."""
    rate: Fraction | None = None
    """Frames per second of a numbered sequence."""
    workers: int = 1
    """Processes on this machine that work on parts, one a device in turn."""
    threads: int = 0
    """Windows of frames that each process works on at a time; 0 shares the cores."""
    executor: str | Path | None = None
    """Who works on parts instead: ``local``, ``slurm``, ``kubernetes`` or an executor file."""
    dask: str | None = None
    """Address of a running Dask scheduler whose workers work on parts, as in ``tcp://host:8786``."""
    dask_tls_ca: str | Path | None = None
    """Certificate of the authority that a ``tls://`` scheduler trusts; with `dask_tls_cert` and `dask_tls_key`. Without
    the three, Dask's own configuration decides."""
    dask_tls_cert: str | Path | None = None
    dask_tls_key: str | Path | None = None
    dask_timeout: float = 60
    """Seconds to wait for a scheduler that is lost, or for a worker of a scheduler that has none."""
    dashboard: str = "127.0.0.1:0"
    """Where the dashboard of workers on this machine listens; port 0 is any free one, nothing is no dashboard."""
    part_timeout: float | None = None
    """Seconds after which a worker counts as hung and its part is done again; by what parts take if None."""
    machine: Machine | None = None
    """What the machines of the workers are like; this one if None. Set by `restore.cluster.connect`, not by users."""
    scratch: str | Path | None = None
    """Folder for what is fetched from an object store, on every machine; for temporary files if None."""
    overwrite: bool = False
    """Replace an output that exists."""
    fresh: bool = False
    """Do not continue an interrupted run, start over."""
    part_frames: int | None = None
    """Frames of a part; about 15 seconds if None."""
    chunk: int = 16
    """Frames that flow through the stages together; the output does not depend on it."""

    def __post_init__(self) -> None:
        for name in ("workers", "chunk", "part_frames"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name.replace('_', '-')} must be at least 1, got {value}")
        self._check_workers()
        for name, read in (("start", parse_time), ("end", parse_time), ("rate", parse_rate)):
            try:
                if getattr(self, name) is not None:
                    object.__setattr__(self, name, read(getattr(self, name)))
            except ValueError as error:
                raise ConfigError(f"{name} cannot be {getattr(self, name)!r}") from error
        if self.start is not None and self.start < 0:
            raise ConfigError(f"start must not be negative, got {float(self.start)} seconds")
        if self.end is not None and self.end <= (self.start or 0):
            raise ConfigError(f"end must come after start, got {float(self.end)} seconds")
        if self.rate is not None and self.rate <= 0:
            raise ConfigError(f"rate must be positive, got {float(self.rate)}")

    def _check_workers(self) -> None:
        if (self.workers > 1) + (self.dask is not None) + (self.executor is not None) > 1:
            raise ConfigError("workers, dask and executor say who works on parts; choose one of them")
        files = (self.dask_tls_ca, self.dask_tls_cert, self.dask_tls_key)
        if any(files) and not (all(files) and self.dask):
            raise ConfigError("give dask-tls-ca, dask-tls-cert and dask-tls-key together, and with dask")
        if self.threads < 0:
            raise ConfigError(f"threads must not be negative, got {self.threads}")
        for name, value in (("dask-timeout", self.dask_timeout), ("part-timeout", self.part_timeout)):
            if value is not None and value <= 0:
                raise ConfigError(f"{name} must be positive, got {value} seconds")

    @property
    def scratch_folder(self) -> Path | None:
        """The `scratch` folder as a path."""
        return None if self.scratch is None else Path(self.scratch)

    @property
    def elsewhere(self) -> bool:
        """Whether other processes work on parts: each of them sees one device, and calls it by its type."""
        return self.workers > 1 or self.dask is not None or self.executor is not None

    @property
    def overrides(self) -> list[str]:
        """Settings of stages, as ``stage.field=value``, the last word last."""
        own = {name: getattr(self, name) for name in ("weights", "device", "precision", "batch", "render_factor")}
        return [
            *(f"neural.{name}={json.dumps(value)}" for name, value in own.items() if value is not None),
            *self.settings,
        ]


def stages_for(kind: str, options: Options, subsampling: Subsampling = "444") -> tuple[Stage, ...]:
    """Read the pipeline for a ``film`` or a ``still``, and apply the options to it.

    Args:
        kind: Names the shipped pipeline, where the options name none.
        options: They win over the file; their `settings` win over all.
        subsampling: The chroma grid that the output has.

    Raises:
        ConfigError: The pipeline, a setting or a device is wrong, or the pipeline does not end with chroma.
        WeightsError: The weights are unknown or not on this machine.
    """
    stages = load_pipeline(options.pipeline or kind, options.overrides, STAGES)
    if not stages or stages[-1].writes != "chroma":
        raise ConfigError("the pipeline must end with a stage that writes chroma (paint)")
    return tuple(_settled(stage, subsampling, options) for stage in stages)


def _settled(stage: Stage, subsampling: Subsampling, options: Options) -> Stage:
    """Settle what a setting leaves to the machine or the output, so that all workers do the same."""
    if isinstance(stage, Paint):
        return replace(stage, subsampling=subsampling)
    if isinstance(stage, Neural):
        given, found = Path(stage.weights), weights.find(stage.weights).path
        own = str(found.absolute()) if found == given else stage.weights  # workers have folders of their own
        machine = options.machine or this_machine()
        device = _type_of(stage.device, machine) if options.elsewhere else ",".join(devices_of(stage.device))
        return replace(stage, weights=own, device=device)
    return stage


def _type_of(devices: str, machine: Machine) -> str:
    """Return the type of device that all workers have, so that they give the same pixels."""
    types = {machine.device if name.strip() == "auto" else name.strip().split(":")[0] for name in devices.split(",")}
    if len(types) > 1:
        raise ConfigError(f"device {devices!r}: workers need devices of one type, as results differ between types")
    (kind,) = types
    if kind not in machine.precisions:
        raise ConfigError(f"device {devices!r}: the workers compute on {' and '.join(machine.precisions)} only")
    return kind


def devices_for(options: Options) -> str:
    """Return the devices that the film pipeline asks for, as written, ``auto`` if nothing is."""
    stages = load_pipeline(options.pipeline or "film", options.overrides, STAGES)
    return next((stage.device for stage in stages if isinstance(stage, Neural)), "auto")


def film_for(path: Location, output: Location, options: Options) -> Film:
    """Put together everything that decides the output of a film or a numbered sequence.

    Args:
        path: A file, a folder or a pattern of numbered frames, or the URL of a file.
        output: Where it goes, a path or a URL.
        options: How it is restored.
    """
    source, target = _probed(place(path), options), place(output)
    profile = load_profile(options.profile or choose_profile(target), target)
    stages = stages_for("film", options, subsampling_for(profile, source))
    found = versions(stages, options.machine)
    key = settings_hash(
        [_unplaced(stage) for stage in stages],
        asdict(profile),
        found,
        source.fingerprint,
        str(options.start),
        str(options.end),
    )
    return Film(
        source=source,
        output=target,
        stages=stages,
        profile=profile,
        versions=found,
        key=key,
        start_seconds=options.start,
        end_seconds=options.end,
        part_frames=options.part_frames,
        chunk=options.chunk,
        threads=options.threads
        or (0 if options.dask or options.executor else max(1, (os.cpu_count() or 1) // options.workers)),
        scratch=options.scratch_folder,
    )


def _probed(path: Place, options: Options) -> Source:
    """Probe a source; of what lies in an object store, a copy, which stays for those who decode it."""
    if path.is_local:
        return probe(path.path, rate=options.rate)
    if "%" in path.name or path.is_folder():
        raise ConfigError(f"{path}: numbered frames are read from a folder; copy them to one first")
    with local_copy(path, options.scratch_folder, keep=True) as local:
        return replace(probe(local, rate=options.rate), path=str(path))


def _unplaced(stage: Stage) -> Stage:
    """Return a stage without what decides where it computes, but not what."""
    return replace(stage, device="") if isinstance(stage, Neural) else stage


def versions(stages: Sequence[Stage], machine: Machine | None = None) -> dict[str, str]:
    """Return what decides the pixels beside the settings: versions, device, its precision, and hashes of weights.

    Args:
        stages: Settled, as by `stages_for`.
        machine: The machine that works on parts; this one if None.
    """
    machine = machine or this_machine()
    found = dict(machine.versions)
    for stage in stages:
        if isinstance(stage, Neural):
            found[f"weights {stage.weights}"] = weights.sha256_of(weights.find(stage.weights).path)
            found["device"] = stage.device.split(",")[0].split(":")[0]
            found["precision"] = machine.precisions[found["device"]] if stage.precision == "auto" else stage.precision
    return found
