"""How a generator starts: from weights that were trained before, from ImageNet, or from nothing."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from restore import generators
from restore.errors import ConfigError, WeightsError
from restore.generators import Generator, efficientnet
from restore.generators.compact import GREY_MEAN, GREY_STD, Compact
from restore.generators.deoldify import DeOldify
from restore.generators.eccv16 import Eccv16
from restore.photographs import Photo
from restore.train.adapters import bins_of
from restore.train.config import TrainConfig
from restore.train.losses import histogram, nearest_share, palette
from restore.train.quantise import grid, smoothed
from restore.weights import read_state

_CHILDREN = {"conv1": "0", "bn1": "1", "layer1": "4", "layer2": "5", "layer3": "6", "layer4": "7"}
"""Of a ResNet, by torchvision's names, their place in the encoder."""


def started(config: TrainConfig, photos: list[Photo]) -> tuple[Generator, Tensor]:
    """Build a run's generator.

    Returns:
        The generator, and how common each of its bins is among the photographs, shape (K,); empty without bins.

    Raises:
        WeightsError: The weights to start from are missing or of another network.
        ConfigError: A setting of the generator is unknown, its encoder takes no such weights, or a package with
            ImageNet weights is missing.
    """
    network = generators.build(config.generator, **config.settings)
    if _is_file(config) and not isinstance(network, DeOldify):
        raise ConfigError(
            f"encoder_weights: only DeOldify's generators take a file, and the generator is {config.generator}; "
            f"expected imagenet or random, found {config.encoder_weights!r}"
        )
    counts = histogram(photos, config.seed) if bins_of(network) is not None else None
    if config.start:
        name, module = generators.read(config.start)
        if name != config.generator:
            raise ConfigError(f"start: {config.start} holds weights of {name}, and the generator is {config.generator}")
        network.load_state_dict(module.state_dict())
    elif isinstance(network, Compact):
        if config.encoder_weights == "imagenet":
            published = efficientnet.imagenet(network.encoder.variant)
            network.encoder.load_imagenet(published, GREY_MEAN, GREY_STD)
        assert counts is not None
        network.bins.copy_(palette(counts, len(network.bins), config.seed))
    elif isinstance(network, DeOldify) and _is_file(config):
        read_encoder(network.layers[0], Path(config.encoder_weights))
    elif isinstance(network, Eccv16):
        network.model_out.load_state_dict({"weight": (grid() / 110).T[:, :, None, None]})
    if isinstance(network, Compact):
        network.temperature = config.temperature
    bins = bins_of(network)
    prior = torch.empty(0) if bins is None or counts is None else nearest_share(counts, bins)
    if isinstance(network, Eccv16) and bins is not None:
        prior = smoothed(prior, bins)
    if isinstance(network, Compact) and not config.start:
        with torch.no_grad():  # start from the colours' own frequencies, as a detector does
            network.head.bias.copy_((prior + 1e-4).log())  # type: ignore[union-attr]
    return network, prior


def _is_file(config: TrainConfig) -> bool:
    return config.encoder_weights not in ("imagenet", "random")


def read_encoder(encoder: nn.Module, path: Path) -> None:
    """Read torchvision's weights of a ResNet into an encoder.

    Raises:
        WeightsError: The file cannot be read or is of another network.
    """
    split = ((key.partition("."), value) for key, value in read_state(path).items())
    state = {f"{_CHILDREN[child]}.{rest}": value for (child, _, rest), value in split if child in _CHILDREN}
    counts = {key: value for key, value in encoder.state_dict().items() if key.endswith("num_batches_tracked")}
    try:
        encoder.load_state_dict(counts | state)  # older files have no counts
    except RuntimeError as error:
        raise WeightsError(f"encoder_weights: {path} does not fit the generator's ResNet: {error}") from error
