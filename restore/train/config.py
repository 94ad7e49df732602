"""Settings of a training run, as read from its YAML file: every value of every recipe."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter

from restore import settings_file
from restore.errors import ConfigError
from restore.generators import GENERATORS
from restore.train.augment import Augmentation
from restore.train.degrade import Degradation

_PATHS = ("data", "validation", "output")
"""Settings that say where things lie on a machine: no part of what was trained."""

_FREE = (*_PATHS, "name", "threads", "readers", "device", "validate_every", "checkpoint_every", "board")
"""Settings that may change when a run resumes."""


@dataclass(frozen=True, slots=True)
class Content:
    """Weights of the terms that compare the generator's colours with the truth; a term of weight 0 is not computed."""

    distribution: float = 0.0
    """Rebalanced cross-entropy over colour bins (Zhang et al. 2016)."""
    mean: float = 0.0
    """Smooth L1 between the mean colour of the distribution and the truth."""
    squared: float = 0.0
    """Mean squared error of ab, in units of 100."""
    absolute: float = 0.0
    """L1 of ab, in units of 100."""
    feature: float = 0.0
    """Feature loss of R'G'B', which has an L1 of R'G'B' in it."""
    rebalance: float = 0.5
    """0 weights colours by their rarity, 1 weights all alike (Zhang et al. 2016, lambda)."""
    sigma: float = 5.0
    """Width in ab units over which a true colour spreads to its nearest bins."""


@dataclass(frozen=True, slots=True)
class Row:
    """One cycle of training at one size: the learning rate rises, then falls."""

    pixels: int
    """Side of the square crops, a multiple of 32."""
    batch: int
    """Pictures a step, over all processes together."""
    steps: int = 0
    """The row ends after this many steps ..."""
    epochs: float = 0.0
    """... or this many passes over the pictures, if not 0 ..."""
    minutes: float = 0.0
    """... or after this much time in training, if not 0; the learning rate follows whichever is nearer its end."""
    rate: float = 1e-3
    """Peak learning rate, of the decoder."""
    encoder_rate: float = 0.1
    """Rate of the encoder's early layers as a share of `rate`; its late layers learn at the geometric mean."""
    frozen: bool = False
    """The encoder does not learn, its batch norms excepted."""
    warmup: float = 0.05
    """Share of the row in which the rate rises, as a line."""
    floor: float = 0.0
    """Where the rate ends, as a share of `rate`; it falls as a cosine."""
    momentum: tuple[float, float] | None = None
    """AdamW's first beta at the ends of the cycle and where the rate is highest; 0.9 throughout if None."""
    content: Content | None = None
    """Loss of this row of phase 1, if not that of the run."""


@dataclass(frozen=True, slots=True)
class Critic:
    """The critic, and how it is trained before the GAN."""

    kind: Literal["nogan", "patch"] = "nogan"
    """The published critic of NoGAN, or the 70-pixel patch critic of pix2pix."""
    filters: int = 256
    """Channels of its first layer."""
    pictures: int = 0
    """Pictures that the generator renders for each training of the critic; 0 does not train it before the GAN."""
    first: tuple[Row, ...] = ()
    """Rows of the first cycle; `rows` follow them."""
    rows: tuple[Row, ...] = ()
    """Rows of every cycle."""


@dataclass(frozen=True, slots=True)
class Gan:
    """The short GAN."""

    steps: int = 0
    """Steps of either network; 0 leaves the GAN out."""
    minutes: float = 0.0
    """Ends it sooner, if not 0."""
    pixels: int = 192
    batch: int = 5
    rate: float = 2e-5
    """Learning rate of the generator, constant."""
    critic_rate: float = 5.0
    """The critic's, as a multiple (two time scales)."""
    betas: tuple[float, float] = (0.0, 0.9)
    """Of Adam."""
    threshold: float = 0.65
    """The critic learns until its loss is under this, then the generator does one step; 0 takes turns."""
    critic_weight: float = 1.0
    """Weight of the critic's verdict in the generator's loss."""
    content: Content = field(default_factory=lambda: Content(feature=1.5))
    frozen: bool = True
    """The encoder does not learn, its batch norms excepted."""
    average: float = 0.0
    """Decay a generator step of the averaged weights, which the snapshots are of; 0 takes the weights as they are."""
    snapshot_every: int = 100
    """Steps between snapshots."""


@dataclass(frozen=True, slots=True)
class Choice:
    """How the snapshot at the inflection point is found."""

    pictures: int = 200
    """Validation photographs that each snapshot is scored on."""
    auc_loss: float = 0.5
    """Percentage points of AuC that a snapshot may lose against the one before the GAN."""
    outliers: float = 0.5
    """Percent of pixels that may have more chroma than all but 0.1 % of the photographs' pixels."""
    patience: int = 4
    """Snapshots in a row that must be worse than the best for it to be the inflection point."""
    blend: float = 1.0
    """How far to go from the weights before the GAN, 0, to those of the snapshot, 1 (Wang et al. 2018, ESRGAN, 3.4)."""
    colorfulness: float = 0.0
    """For `compact`: share of the photographs' colourfulness that snapshots are brought to, by a factor on the bins."""


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """Everything that decides a run."""

    data: Path
    """Folder of colour photographs, or of tar files of them."""
    validation: Path
    """The same, disjoint."""
    output: Path
    """Folder for checkpoints, metrics, sheets and the final weights."""
    name: str = "generator"
    """Name of the exported weights file."""
    recipe: str = ""
    """A word for the record, as in ``NoGAN``."""
    generator: str = "compact"
    """Which network; see `restore.generators.GENERATORS`."""
    settings: dict[str, Any] = field(default_factory=dict)
    """What it is built with."""
    start: str = ""
    """Weights to start from, a name or a file; nothing starts from ImageNet or from random weights."""
    encoder_weights: str = "imagenet"
    """For `compact`: `imagenet`, the packaged weights of its encoder, or `random`. For DeOldify's: a file of
    torchvision's ImageNet weights, as published; without one its encoder starts from random weights."""
    pretrain: tuple[Row, ...] = ()
    """Phase 1: the generator alone."""
    content: Content = field(default_factory=lambda: Content(distribution=1.0, mean=0.1))
    """Loss of phase 1."""
    weight_decay: float = 0.02
    """Decoupled, of convolutions only."""
    clip: float = 1.0
    """Largest norm of the gradient in phase 1; 0 does not clip."""
    average: float = 0.998
    """Decay a step of the averaged weights of phase 1, which are what is validated and what comes after starts from."""
    temperature: float = 0.7
    """For `compact`: of the annealed mean, for validation and use; 1 is calm, towards 0 vivid and patchy."""
    calm: float = 0.4
    """For `compact`: share of the rebalancing that validation and use take back: 0 vivid, 1 as grey as photographs."""
    critic: Critic = field(default_factory=Critic)
    """Phase 2."""
    gan: Gan = field(default_factory=Gan)
    """Phase 3."""
    cycles: int = 1
    """How often phases 2 and 3 are done."""
    choice: Choice = field(default_factory=Choice)
    """Which snapshot of phase 3 is kept."""
    feature_network: Literal["efficientnet", "vgg16_bn"] = "efficientnet"
    """Of the feature loss; `vgg16_bn`, as published, needs `feature_weights`."""
    feature_weights: Path | None = None
    """State dict of VGG16-bn under torchvision's names."""
    augmentation: Augmentation = field(default_factory=Augmentation)
    degradation: Degradation = field(default_factory=Degradation)
    """How the grey input is aged."""
    device: str = "auto"
    """`cpu`, `cuda`, `cuda:N`; `auto` takes a GPU if there is one. Several GPUs: one process each, by torchrun."""
    precision: Literal["bf16", "fp32"] = "bf16"
    """`bf16` is autocast."""
    threads: int = 2
    """CPU threads of the network."""
    readers: int = 1
    """Threads that read pictures."""
    seed: int = 0
    """Of the weights, the order of the pictures and their augmentation."""
    validation_pictures: int = 120
    """How many photographs are coloured at each validation."""
    validate_every: float = 6.0
    """Minutes in training between validations."""
    checkpoint_every: float = 3.0
    """Minutes in training between checkpoints."""
    board: bool = True
    """Write TensorBoard files."""

    def __post_init__(self) -> None:
        """Check what types cannot say."""
        if self.generator not in GENERATORS:
            raise ConfigError(f"generator: unknown {settings_file.unknown(self.generator, GENERATORS)}")
        if not self.pretrain and not self.gan.steps:
            raise ConfigError("nothing to train: give rows of `pretrain`, or steps of `gan`")
        phases = {"pretrain": self.pretrain, "critic.first": self.critic.first, "critic.rows": self.critic.rows}
        for name, row in ((f"{phase}[{at}]", row) for phase, rows in phases.items() for at, row in enumerate(rows)):
            if row.pixels % 32 or row.pixels <= 0 or row.batch < 2:
                raise ConfigError(f"{name}: pixels must be a multiple of 32 and batch at least 2, not {row}")
            if not (row.steps or row.epochs or row.minutes):
                raise ConfigError(f"{name}: give steps, epochs or minutes in {row}")
        if self.critic.rows and not self.critic.pictures:
            raise ConfigError("critic.pictures: its rows need renders to learn from; say how many")

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as plain values, paths as text: what the YAML file says."""
        return TypeAdapter(TrainConfig).dump_python(self, mode="json")  # type: ignore[no-any-return]

    @property
    def kept(self) -> dict[str, Any]:
        """The settings that must not change when a run resumes: all but places and rhythm."""
        return {key: value for key, value in self.to_dict().items() if key not in _FREE}

    @property
    def record(self) -> dict[str, Any]:
        """The settings for the record of the weights: all but the places on this machine."""
        named: dict[str, Any] = {key: Path(getattr(self, key)).name for key in ("start", "encoder_weights")}
        named["feature_weights"] = self.feature_weights and self.feature_weights.name
        return {key: value for key, value in (self.to_dict() | named).items() if key not in _PATHS}


def load(path: Path) -> TrainConfig:
    """Read a training configuration; relative paths in it are relative to the working directory.

    Raises:
        ConfigError: The file cannot be read, a key is unknown or missing, or a value has the wrong type.
    """
    return settings_file.build(TrainConfig, settings_file.read(path), path)
