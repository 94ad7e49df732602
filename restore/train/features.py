"""Feature loss: two pictures are alike if a classifier of photographs sees the same in them.

Beside the difference of the pixels it compares feature maps of a frozen ImageNet classifier.

Source: Johnson, Alahi and Fei-Fei 2016, "Perceptual Losses for Real-Time Style Transfer"; the layers, the weights and
the L1 distance are those of the published NoGAN training.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from restore.errors import ConfigError, WeightsError
from restore.generators.efficientnet import classifier
from restore.generators.fold import fold
from restore.weights import read_state

Network = Literal["vgg16_bn", "efficientnet"]

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

LAYERS = {"vgg16_bn": (22, 32, 42), "efficientnet": (1, 2, 3, 4)}
"""Indices in VGG's `features` of the last ReLU before the third, fourth and fifth pooling; stages of the other, at
strides 4, 8, 16 and 32: the last knows best what is natural."""

TERMS = {"vgg16_bn": (20.0, 70.0, 10.0), "efficientnet": (0.09, 0.09, 0.11, 0.2)}
"""Weights of the feature maps. VGG's are the published ones. With the other's, each map counts as much as the pixels:
on 96 photographs at 128 pixels the terms are 0.27, 0.25, 0.26, 0.27 and 0.27 for grey instead of colour."""

_VGG16 = (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512)
"""Channels of the 3x3 convolutions; 0 is a pooling."""


class Vgg16(nn.Module):
    """The convolutions of VGG16 with batch norm, named as torchvision names them.

    Source: Simonyan and Zisserman 2015, "Very Deep Convolutional Networks", configuration D.
    """

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = 3
        for channels in _VGG16:
            if channels:
                norm = nn.BatchNorm2d(channels)
                layers += [nn.Conv2d(inputs, channels, 3, padding=1), norm, nn.ReLU(inplace=True)]
                inputs = channels
            else:
                layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the feature maps at `LAYERS` of R'G'B' normalised by ImageNet's mean and deviation."""
        maps = []
        for index, layer in enumerate(self.features):
            x = layer(x)
            if index in LAYERS["vgg16_bn"]:
                maps.append(x)
        return maps


class _Stages(nn.Module):
    """The feature maps of EfficientNet-Lite0 at `LAYERS`."""

    def __init__(self) -> None:
        super().__init__()
        self.classifier = fold(classifier())

    def forward(self, rgb: Tensor) -> list[Tensor]:
        first, *_, last = LAYERS["efficientnet"]
        return self.classifier.stages(rgb, last + 1)[first:]


class FeatureLoss(nn.Module):
    """L1 of the pixels, in deviations of ImageNet, plus weighted L1 of feature maps.

    The network is frozen and its norms are folded, so it is the same in training and in eval mode. VGG runs in fp32 as
    published; EfficientNet follows autocast.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, network: Network = "efficientnet", weights: Path | None = None, terms: Sequence[float] | None = None
    ) -> None:
        """Read the network.

        Args:
            network: ``vgg16_bn``, as published, whose weights are the user's to bring, or ``efficientnet``.
            weights: File of torchvision's state dict of ``vgg16_bn``; None for ``efficientnet``.
            terms: Weights of the feature maps, `TERMS` if None.

        Raises:
            ConfigError: Unknown network, no file for VGG, a file for EfficientNet, not a term for each map, or the
                package of the ImageNet weights is not installed.
            WeightsError: The file cannot be read or is not of VGG16 with batch norm.
        """
        super().__init__()
        if network not in LAYERS:
            raise ConfigError(f"feature loss: unknown network {network!r}; known: {', '.join(LAYERS)}")
        self.terms = tuple(TERMS[network] if terms is None else terms)
        if len(self.terms) != len(LAYERS[network]):
            raise ConfigError(f"feature loss: expected {len(LAYERS[network])} weights of feature maps, found {terms}")
        self.published = network == "vgg16_bn"
        self.features = _vgg(weights) if self.published else _efficientnet(weights)
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN)[:, None, None])
        self.register_buffer("std", torch.tensor(IMAGENET_STD)[:, None, None])

    def forward(self, found: Tensor, true: Tensor) -> Tensor:
        """Return the loss, a scalar, of R'G'B' `found` against `true`, both (N, 3, H, W), 0..1, 16 pixels or more."""
        return torch.stack(self.parts(found, true)).sum()

    def parts(self, found: Tensor, true: Tensor) -> list[Tensor]:
        """Return the weighted terms of the loss: of the pixels, then of the feature maps."""
        with torch.no_grad():
            wanted = self._maps(true)
        pixels = ((found.float() - true.float()) / self.std).abs().mean()
        pairs = zip(self.terms, self._maps(found), wanted, strict=True)
        return [pixels, *(term * F.l1_loss(ours.float(), theirs.float()) for term, ours, theirs in pairs)]

    def _maps(self, rgb: Tensor) -> list[Tensor]:
        rgb = rgb.contiguous(memory_format=torch.channels_last)
        if not self.published:
            return self.features(rgb)  # type: ignore[no-any-return]
        with torch.autocast(rgb.device.type, enabled=False):
            return self.features((rgb.float() - self.mean) / self.std)  # type: ignore[no-any-return]


def _efficientnet(weights: Path | None) -> nn.Module:
    if weights is not None:
        raise ConfigError(f"feature loss: efficientnet takes no file of weights, found {weights}; leave it out")
    return _Stages()


def _vgg(weights: Path | None) -> nn.Module:
    if weights is None:
        raise ConfigError(
            "feature loss: vgg16_bn needs torchvision's ImageNet weights, a file like vgg16_bn-6c64b313.pth; "
            "give the file, or choose the network efficientnet, whose weights come in a package"
        )
    network = Vgg16()
    state = read_state(weights)
    try:
        network.load_state_dict({key: value for key, value in state.items() if key.startswith("features.")})
    except RuntimeError as error:
        raise WeightsError(f"{weights} does not hold the weights of vgg16_bn: {error}") from error
    return fold(network)
