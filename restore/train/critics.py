"""Critics: networks that tell photographs from coloured pictures, place by place.

Both take R'G'B' in 0..1 and give a map of logits, positive for a photograph; each logit judges the patch that it sees.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from restore.generators.blocks import SelfAttention
from restore.generators.deoldify import MEAN, STD
from restore.generators.pix2pix import start_narrow


class NoGanCritic(nn.Module):
    """The critic of the published NoGAN training.

    Every convolution has spectral norm, which makes a power iteration at each forward in training mode.

    Sources: Antic, DeOldify (2019), read as facts; Miyato et al. 2018, "Spectral Normalization"; Zhang et al. 2019,
    "Self-Attention GAN".
    """

    mean: Tensor
    std: Tensor

    def __init__(self, filters: int = 256, blocks: int = 3, dropout: float = 0.15) -> None:
        """Build the network with random weights.

        Args:
            filters: Channels of the first layer, 8 or more; they double in each block.
            blocks: Each halves the size; the first ends with self-attention.
            dropout: Share of feature maps dropped in each block in training, and half of it after the first layer.
        """
        super().__init__()
        layers: list[nn.Module] = [*_judging(3, filters, 4, 2), nn.Dropout2d(dropout / 2)]
        for block in range(blocks):
            layers += [*_judging(filters, filters, 3, 1), nn.Dropout2d(dropout), *_judging(filters, 2 * filters, 4, 2)]
            filters *= 2
            if block == 0:
                layers.append(SelfAttention(filters))
        layers += [*_judging(filters, filters, 3, 1), _spectral(nn.Conv2d(filters, 1, 4, bias=False))]
        self.layers = nn.Sequential(*layers)
        self.register_buffer("mean", torch.tensor(MEAN)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(STD)[:, None, None], persistent=False)

    def forward(self, rgb: Tensor) -> Tensor:
        """Return logits, shape (N, 1, h, w), of R'G'B', shape (N, 3, H, W), 0..1.

        H and W are 64 or more; with three blocks h is H / 16 - 3: 9 at 192 pixels, as published.
        """
        return self.layers((rgb - self.mean) / self.std)  # type: ignore[no-any-return]


class PatchCritic(nn.Module):
    """The critic of pix2pix: each logit sees 70 pixels of the grey picture and of its colours.

    Source: Isola et al. 2017, "Image-to-Image Translation with Conditional Adversarial Networks", appendix 6.1.2.
    """

    def __init__(self, filters: int = 64) -> None:
        """Build the network with the published start, N(0, 0.02).

        Args:
            filters: Channels of the first layer.
        """
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(4, filters, 4, 2, 1), nn.LeakyReLU(0.2, inplace=True)]
        for stride in (2, 2, 1):
            layers += [nn.Conv2d(filters, 2 * filters, 4, stride, 1, bias=False), nn.BatchNorm2d(2 * filters)]
            layers.append(nn.LeakyReLU(0.2, inplace=True))
            filters *= 2
        self.layers = nn.Sequential(*layers, nn.Conv2d(filters, 1, 4, 1, 1))
        start_narrow(self)

    def forward(self, grey: Tensor, rgb: Tensor) -> Tensor:
        """Return logits, shape (N, 1, h, w), h = H / 8 - 2.

        Args:
            grey: What the generator saw, shape (N, 1, H, W), 0..1.
            rgb: R'G'B', shape (N, 3, H, W), 0..1.
        """
        return self.layers(torch.cat((grey, rgb), 1) * 2 - 1)  # type: ignore[no-any-return]


def critic_loss(real: Tensor, fake: Tensor) -> Tensor:
    """Return the critic's loss, a scalar: the mean cross-entropy of photographs and of renders, for their logits."""
    return (_against(real, 1.0) + _against(fake, 0.0)) / 2


def generator_loss(fake: Tensor) -> Tensor:
    """Return how little the critic takes renders for photographs, a scalar, for the renders' logits."""
    return _against(fake, 1.0)


def _against(logits: Tensor, label: float) -> Tensor:
    logits = logits.float()
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, label))


def _judging(inputs: int, outputs: int, kernel: int, stride: int) -> list[nn.Module]:
    """Return a convolution with spectral norm, and its leaky ReLU."""
    conv = nn.Conv2d(inputs, outputs, kernel, stride, 1)
    return [_spectral(conv), nn.LeakyReLU(0.2, inplace=True)]


def _spectral(conv: nn.Conv2d) -> nn.Module:
    nn.init.kaiming_normal_(conv.weight)
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
    return spectral_norm(conv)
