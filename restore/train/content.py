"""The content loss: how far a generator's colours are from the true ones, whatever kind of generator it is."""

from __future__ import annotations

from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from restore.errors import ConfigError
from restore.generators import Generator
from restore.train.adapters import Rendered, bins_of
from restore.train.config import Content, TrainConfig
from restore.train.data import Batch
from restore.train.features import FeatureLoss
from restore.train.losses import DistributionLoss


class ContentLoss:
    """The weighted sum of the terms that a `Content` asks for."""

    def __init__(self, content: Content, config: TrainConfig, generator: Generator, prior: Tensor) -> None:
        """Prepare the terms.

        Args:
            content: Their weights.
            config: Names the network of the feature loss.
            generator: Its bins are those of the distribution.
            prior: How common each bin is, shape (K,).

        Raises:
            ConfigError: A distribution is asked for of a generator without bins, or no term at all.
        """
        bins = bins_of(generator)
        if bins is None and (content.distribution or content.mean):
            raise ConfigError(f"content: the generator {config.generator} has no distribution; use another term")
        terms = (content.distribution, content.mean, content.squared, content.absolute, content.feature)
        if not any(terms):
            raise ConfigError("content: every term has weight 0; give one a weight")
        self.content, self.config = content, config
        self.bins, self.prior = bins, prior
        self.device = next(generator.parameters()).device

    @cached_property
    def distribution(self) -> DistributionLoss:
        """The losses of a distribution over bins."""
        assert self.bins is not None
        return DistributionLoss(self.bins, self.prior, self.content.sigma, self.content.rebalance)

    @cached_property
    def feature(self) -> FeatureLoss:
        """The feature loss of R'G'B'."""
        return FeatureLoss(self.config.feature_network, self.config.feature_weights).to(self.device)

    def __call__(self, found: Rendered, truth: Batch) -> Tensor:
        """Return the loss of what a generator made of a batch, a scalar."""
        weights, total = self.content, torch.zeros((), device=found.ab.device)
        if found.logits is not None and (weights.distribution or weights.mean):
            entropy, mean = self.distribution(found.logits, _like(truth.ab, found.logits))
            total = total + weights.distribution * entropy + weights.mean * mean
        if weights.squared or weights.absolute:
            off = (found.ab - _like(truth.ab, found.ab)) / 100
            total = total + weights.squared * off.square().mean() + weights.absolute * off.abs().mean()
        if weights.feature:
            total = total + weights.feature * self.feature(found.rgb, truth.rgb)
        return total


def _like(ab: Tensor, other: Tensor) -> Tensor:
    """Bring true colours to the size of those found."""
    if ab.shape[-2:] == other.shape[-2:]:
        return ab
    return F.interpolate(ab, other.shape[-2:], mode="area")
