"""Who competes: the generators, the baselines, and what is wanted to know of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from restore import weights
from restore.colorize.neural import devices_of
from restore.errors import ConfigError
from restore.evaluate import photos
from restore.evaluate.judge import TRUTH
from restore.evaluate.report import GREY, MEAN
from restore.film import Progress
from restore.generators import Precision
from restore.setup import Options, stages_for, versions

MEAN_AB = (1.30, 7.58)
"""Mean a* and b* of the photographs that the shipped generator was trained with, each picture counting alike."""


@dataclass(frozen=True, slots=True)
class Contest:
    """Everything that is the same for all sources."""

    ways: dict[str, Options]
    """How each generator colours, by its name."""
    mean: tuple[float, float]
    """a* and b* of the baseline "mean chroma"."""
    mean_of: str
    """What they are the mean of."""
    labels: Path | None
    limit: int | None
    features: bool
    sheets: int
    progress: Progress | None

    @property
    def methods(self) -> tuple[str, ...]:
        """The baselines, then the generators."""
        return GREY, MEAN, *self.ways

    @property
    def device(self) -> torch.device:
        """Where pictures are coloured and judged: the first device of the first generator."""
        return torch.device(devices_of(next(iter(self.ways.values())).device or "auto")[0])

    def baselines(self, frames: int) -> dict[str, Tensor]:
        """Return a* and b* of the baselines, shape (B, 2, 2, 2): the same everywhere."""
        mean = torch.tensor(self.mean).reshape(1, 2, 1, 1).expand(frames, 2, 2, 2)
        return {GREY: torch.zeros_like(mean), MEAN: mean}

    def about(self) -> dict[str, str]:
        """Return what decides the numbers beside the pictures."""
        return {name: value for way in self.ways.values() for name, value in versions(stages_for("film", way)).items()}


def contest(
    names: Sequence[str | Path],
    *,
    device: str | None = None,
    precision: Precision | None = None,
    mean_of: Path | None = None,
    labels: Path | None = None,
    limit: int | None = None,
    features: bool = True,
    sheets: int = 48,
    progress: Progress | None = None,
) -> Contest:
    """Check what is wanted, before any work is done.

    Raises:
        ConfigError: A number is out of range, a device is not there, or two generators have the same name.
        WeightsError: Weights are unknown or not on this machine.
        MediaError: There are no photographs in `mean_of`.
    """
    if (limit is not None and limit < 1) or sheets < 0:
        raise ConfigError(f"limit must be at least 1 and sheets not negative, got {limit} and {sheets}")
    ways: dict[str, Options] = {}
    for name in names:
        title = str(name) if str(name) in weights.entries() else Path(name).stem
        if title in (*ways, GREY, MEAN, TRUTH):
            raise ConfigError(f"two generators cannot both be called {title}; rename the file of one")
        ways[title] = Options(weights=str(name), device=device, precision=precision)
        stages_for("film", ways[title])
    mean, source = MEAN_AB, "the photographs that the shipped generator was trained with"
    if mean_of is not None:
        mean, source = photos.mean_ab(mean_of), str(mean_of)
    return Contest(ways, mean, source, labels, limit, features, sheets, progress)
