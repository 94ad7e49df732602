"""Settings of a scheduled job, as read from its YAML file."""

from __future__ import annotations

import dataclasses
import json
import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from restore import settings_file, weights
from restore.colorize.neural import Neural
from restore.config import settings_hash
from restore.errors import ConfigError
from restore.generators import Precision
from restore.output.profiles import Profile, load_profile
from restore.setup import Options, stages_for


@dataclass(frozen=True, slots=True, kw_only=True)
class JobConfig:
    """Everything that decides a job: what goes in, how it is restored, where it goes, and how much at once."""

    inputs: tuple[str, ...]
    """Globs (``scans/**/*.mov``), files, folders or prefixes, on this machine or with a scheme (``s3://...``).

    What is there under a name counts as it is, even if the name has a wildcard in it, as in ``Reels [1922]``.
    """
    output: str
    """Root of the results: a folder or a prefix. What is below an input's fixed part is mirrored below it."""
    include: tuple[str, ...] = ()
    """Patterns of names below the input's fixed part, of which one must match; films and stills by suffix if empty."""
    exclude: tuple[str, ...] = ()
    """Patterns of which none may match."""
    pipeline: str | None = None
    profile: str = "access"
    weights: str | None = None
    device: str | None = None
    precision: Precision | None = None
    batch: int | None = None
    render_factor: int | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    """``stage.field: value``, as in ``smooth.radius: 2``."""
    overwrite: bool = False
    """Replace files that are no results of this job's sources."""
    executor: int | str = 1
    """Worker processes a film (a number), the address of a Dask scheduler, or an executor: a name or a YAML file."""
    films: int = 1
    """Sources worked on at once, each in a process of its own."""
    retries: int = 2
    """How often a source is tried again after an error that may pass; a damaged source is not."""
    backoff_seconds: float = 30.0
    """Wait before the first retry; doubled for each further one."""
    minutes: float | None = None
    """Time limit of the job; the next run continues."""
    film_minutes: float | None = None
    """Time limit of one source, without waiting; a longer one has failed, and the next run continues it."""
    settle_seconds: float = 10.0
    """Watching: a file is complete if it has not changed for this long and can be opened."""
    scratch: Path | None = None
    """Folder for copies of what lies in object stores; that of the system for temporary files if None."""
    reports: int = 30
    """Reports and logs of earlier runs that are kept."""

    def __post_init__(self) -> None:
        """Check what types cannot say."""
        if not self.inputs or not self.output:
            raise ConfigError("inputs and output must not be empty")
        for name in ("executor", "films", "reports"):
            if isinstance(value := getattr(self, name), int) and value < 1:
                raise ConfigError(f"{name} must be at least 1, found {value}")
        for name in ("retries", "backoff_seconds", "settle_seconds"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} must not be negative, found {getattr(self, name)}")
        for name in ("minutes", "film_minutes"):
            if (value := getattr(self, name)) is not None and value <= 0:
                raise ConfigError(f"{name} must be positive, found {value}")

    def options(self) -> Options:
        """Return what a run takes."""
        names = ("pipeline", "profile", "weights", "device", "precision", "batch", "render_factor")
        chosen: dict[str, Any] = {name: getattr(self, name) for name in names}
        if isinstance(self.executor, int):
            chosen["workers"] = self.executor
            chosen["threads"] = max(1, (os.cpu_count() or 1) // (self.executor * self.films))
        else:
            chosen["dask" if "://" in self.executor else "executor"] = self.executor
        settings = tuple(f"{name}={json.dumps(value)}" for name, value in self.settings.items())
        return Options(settings=settings, scratch=self.scratch, overwrite=True, **chosen)

    def loaded_profile(self) -> Profile:
        """Read the profile of the films.

        Raises:
            ConfigError: It is unknown, or writes numbered frames.
        """
        profile = load_profile(self.profile)
        if profile.is_sequence:
            raise ConfigError("profile: a job writes files, not numbered frames; use `restore run` for a sequence")
        return profile

    def key(self, *, still: bool) -> str:
        """Return the hash of everything that was chosen about a result: stages, settings, weights and profile.

        Versions of libraries and the device do not count: an upgrade does not restore an archive again.

        Raises:
            RestoreError: The pipeline, the profile, the weights or a setting is wrong.
        """
        stages = stages_for("still" if still else "film", self.options())
        neural = [stage for stage in stages if isinstance(stage, Neural)]
        hashes = [weights.sha256_of(weights.find(stage.weights).path) for stage in neural]
        chosen = [replace(stage, device="") if isinstance(stage, Neural) else stage for stage in stages]
        return settings_hash(chosen, None if still else dataclasses.asdict(self.loaded_profile()), hashes)


def load(path: Path) -> JobConfig:
    """Read a job's configuration; relative paths in it are relative to its folder, wherever the job is started.

    Raises:
        ConfigError: The file cannot be read, a key is unknown or missing, or a value has the wrong type.
    """
    values = settings_file.read(path)
    if isinstance(values.get("inputs"), str):
        values["inputs"] = [values["inputs"]]
    return _anchored(settings_file.build(JobConfig, values, path), path.absolute().parent)


def _anchored(config: JobConfig, folder: Path) -> JobConfig:
    """Make paths absolute; names of shipped files, registered weights and addresses stay."""

    def path(text: str) -> str:
        return text if "://" in text else str(folder / Path(text).expanduser())

    def file(text: str | None) -> str | None:
        return path(text) if text and (text.endswith((".yaml", ".yml")) or Path(path(text)).is_file()) else text

    executor = config.executor
    return replace(
        config,
        inputs=tuple(path(text) for text in config.inputs),
        output=path(config.output),
        pipeline=file(config.pipeline),
        profile=file(config.profile) or config.profile,
        weights=file(config.weights),
        executor=(file(executor) or executor) if isinstance(executor, str) else executor,
        scratch=Path(path(str(config.scratch))) if config.scratch else None,
    )
