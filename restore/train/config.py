"""Settings of a training run, as read from its YAML file."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError

from restore.errors import ConfigError
from restore.train.degrade import Degradation
from restore.yaml12 import Loader


@dataclass(frozen=True, slots=True)
class Sizes:
    """Side of the square crops from a share of the run on: small and fast first, as in progressive NoGAN training."""

    start: float
    """Share of the run, [0, 1), at which this row begins."""
    pixels: int
    """Side of the crop in pixels, a multiple of 32."""
    batch: int
    """Pictures a step."""


@dataclass(frozen=True, slots=True)
class Loss:
    """Weights of the terms of the loss, see `restore.train.losses`."""

    rebalance: float = 0.5
    """0 weights colours by their rarity, 1 weights all alike (Zhang et al. 2016, lambda)."""
    regression: float = 0.1
    """Weight of the smooth L1 between the mean colour and the truth, beside the cross-entropy."""
    sigma: float = 5.0
    """Width in ab units over which a true colour spreads to its nearest bins."""


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """Everything that decides a run of phase 1 (generator pre-training)."""

    data: Path
    """Folder of colour photographs, or of tar files of them."""
    validation: Path
    """The same, disjoint."""
    output: Path
    """Folder for checkpoints, metrics, sheets and the final weights."""
    name: str = "compact"
    """Name of the exported weights file."""
    steps: int = 6000
    """The run ends after this many steps ..."""
    minutes: float = 0.0
    """... or after this much time in training, if not 0; learning rate and sizes follow whichever is nearer its end."""
    sizes: tuple[Sizes, ...] = (Sizes(0.0, 128, 32),)
    """Rows in order of `start`; the first starts at 0."""
    learning_rate: float = 1e-3
    """Peak, of the decoder."""
    encoder_rate: float = 0.2
    """Learning rate of the pre-trained encoder, as a share of the decoder's."""
    frozen_steps: int = 200
    """Steps at the start in which the encoder does not learn."""
    warmup: float = 0.05
    """Share of the run in which the learning rate rises; it then falls as a cosine."""
    weight_decay: float = 0.02
    """Decoupled, of convolutions only."""
    clip: float = 1.0
    """Largest norm of the gradient."""
    average: float = 0.999
    """Decay a step of the averaged weights, which are what is validated and exported."""
    dropout: float = 0.1
    """Share of the deepest feature maps dropped."""
    bins: int = 96
    """Colours in the palette."""
    temperature: float = 0.7
    """Of the annealed mean, for validation and export; 1 is calm, towards 0 vivid and patchy."""
    calm: float = 0.4
    """Share of the rebalancing that validation and export take back: 0 is vivid, 1 as grey as the photographs."""
    loss: Loss = field(default_factory=Loss)
    """Terms of the loss."""
    degradation: Degradation = field(default_factory=Degradation)
    """How the grey input is aged."""
    crop_area: float = 0.35
    """Smallest share of a photograph that a crop covers."""
    crop_aspect: float = 1.33
    """Largest change of the aspect ratio."""
    encoder_weights: str = "imagenet"
    """`imagenet` starts from the packaged weights, `random` from nothing."""
    precision: str = "bf16"
    """`bf16` (autocast) or `fp32`."""
    threads: int = 2
    """CPU threads of the network; reading pictures uses one more."""
    seed: int = 0
    """Of the weights, the order of the pictures and their augmentation."""
    validation_pictures: int = 120
    """How many photographs are coloured at each validation."""
    validate_every: float = 6.0
    """Minutes in training between validations."""
    checkpoint_every: float = 3.0
    """Minutes in training between checkpoints."""

    def __post_init__(self) -> None:
        """Check what types cannot say."""
        starts = [row.start for row in self.sizes]
        if not starts or starts[0] != 0 or starts != sorted(starts):
            raise ConfigError("sizes: rows must be in order of start, and the first must start at 0")
        for row in self.sizes:
            if row.pixels % 32 or row.pixels <= 0 or row.batch < 2:
                raise ConfigError(f"sizes: pixels must be a multiple of 32 and batch at least 2, not {row}")
        if self.steps < 1 or self.minutes < 0:
            raise ConfigError("steps must be at least 1 and minutes not negative")
        for name, known in (("encoder_weights", ("imagenet", "random")), ("precision", ("bf16", "fp32"))):
            if getattr(self, name) not in known:
                raise ConfigError(f"{name}: expected one of {', '.join(known)}, found {getattr(self, name)!r}")

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as plain values, paths as text: what the YAML file says."""
        return TypeAdapter(TrainConfig).dump_python(self, mode="json")  # type: ignore[no-any-return]

    @property
    def kept(self) -> dict[str, Any]:
        """The settings that must not change when a run resumes: all but its length, its folder and its rhythm."""
        free = (
            "output", "name", "steps", "minutes", "threads", "temperature", "calm", "validate_every",
            "checkpoint_every", "data", "validation", "validation_pictures",
        )  # fmt: skip
        return {key: value for key, value in self.to_dict().items() if key not in free}


def load(path: Path) -> TrainConfig:
    """Read a training configuration; relative paths in it are relative to the working directory.

    Raises:
        ConfigError: The file is missing or not YAML, a key is unknown, or a value has the wrong type.
    """
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), Loader)
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: cannot be read as YAML: {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: expected settings as 'name: value' lines, found {type(values).__name__}")
    _check_keys(values, TrainConfig, str(path))
    try:
        return TypeAdapter(TrainConfig).validate_python(values)
    except ValidationError as error:
        lines = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise ConfigError(f"{path}: {lines}") from error


def _check_keys(values: dict[str, Any], cls: type, where: str) -> None:
    known = {f.name for f in dataclasses.fields(cls)}
    if unknown := sorted(set(values) - known):
        raise ConfigError(f"{where}: unknown setting {', '.join(unknown)}; known are {', '.join(sorted(known))}")
    for name, nested in (("loss", Loss), ("degradation", Degradation)):
        if cls is TrainConfig and isinstance(values.get(name), dict):
            _check_keys(values[name], nested, f"{where}: {name}")
