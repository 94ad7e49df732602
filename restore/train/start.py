"""How a generator starts: from weights that were trained before, from ImageNet, or from nothing."""

from __future__ import annotations

import torch
from torch import Tensor

from restore import generators
from restore.errors import ConfigError
from restore.generators import Generator, efficientnet
from restore.generators.compact import GREY_MEAN, GREY_STD, Compact
from restore.generators.eccv16 import Eccv16
from restore.photographs import Photo
from restore.train.adapters import bins_of
from restore.train.config import TrainConfig
from restore.train.losses import histogram, nearest_share, palette
from restore.train.quantise import grid, smoothed


def started(config: TrainConfig, photos: list[Photo]) -> tuple[Generator, Tensor]:
    """Build a run's generator.

    Returns:
        The generator, and how common each of its bins is among the photographs, shape (K,); empty without bins.

    Raises:
        WeightsError: The weights to start from are missing or of another generator.
        ConfigError: A setting of the generator is unknown, or a package with ImageNet weights is missing.
    """
    network = generators.build(config.generator, **config.settings)
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
