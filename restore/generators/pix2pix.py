"""The generator of pix2pix: a U-Net of strided convolutions, whose bottom is a single pixel at 256.

Source: Isola et al. 2017, "Image-to-Image Translation with Conditional Adversarial Networks", appendix 6.1.1. One thing
differs: theirs drops features when it is used too, as noise; here the same picture always gets the same colours.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from restore.color import lightness

AB_SCALE = 110.0
"""The output, in -1..1, times this is ab; sRGB reaches -108..98."""

_WIDTHS = (1, 2, 4, 8)
"""Channels of the encoder's levels in multiples of `filters`; the deeper ones have as many as the last."""
_DROPPED = 3
"""Steps of the decoder, from the bottom, with dropout."""


class Pix2Pix(nn.Module):
    """Grey to ab at the same size."""

    def __init__(self, filters: int = 64, levels: int = 8) -> None:
        """Build the network with the published start.

        Args:
            filters: Channels of the first level; 64 as published.
            levels: How often the size is halved; 8 as published. Sizes are padded to multiples of 2 to this power.
        """
        super().__init__()
        widths = [filters * _WIDTHS[min(level, len(_WIDTHS) - 1)] for level in range(levels)]
        self.stride = 2**levels
        self.down = nn.ModuleList(
            _halved(widths[level - 1] if level else 1, widths[level], norm=0 < level < levels - 1)
            for level in range(levels)
        )
        self.up = nn.ModuleList(
            _doubled(widths[level] * (1 if level == levels - 1 else 2), widths[level - 1], levels - level <= _DROPPED)
            for level in range(levels - 1, 0, -1)
        )
        self.head = nn.ConvTranspose2d(2 * filters, 2, 4, 2, 1)
        start_narrow(self)

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Return the size at which the network was trained, whatever the frame's."""
        return 256, 256

    def forward(self, x: Tensor) -> Tensor:
        """Return ab, shape (B, 2, H, W), float32, of L* / 50 - 1, shape (B, 1, H, W); any size, padded inside."""
        height, width = x.shape[-2:]
        x = F.pad(x, (0, -width % self.stride, 0, -height % self.stride), mode="replicate")
        skips = []
        for halve in self.down:
            x = halve(x)
            skips.append(x)
        x = skips.pop()
        for double in self.up:
            x = torch.cat((double(x), skips.pop()), 1)
        return AB_SCALE * torch.tanh(self.head(x).float())[..., :height, :width]

    def colorize(self, gray: Tensor) -> Tensor:
        """Return CIE ab, shape (B, 2, h, w), float32, of grey R'G'B' in 0..1, shape (B, 1, h, w)."""
        return self(lightness(gray) / 50 - 1)  # type: ignore[no-any-return]


def start_narrow(network: nn.Module) -> None:
    """Draw weights from N(0, 0.02), and the gains of norms from N(1, 0.02); biases are 0."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.BatchNorm2d):
            nn.init.normal_(module.weight, float(isinstance(module, nn.BatchNorm2d)), 0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def _halved(inputs: int, outputs: int, norm: bool) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Conv2d(inputs, outputs, 4, 2, 1, bias=not norm)]
    return nn.Sequential(*layers, *([nn.BatchNorm2d(outputs)] if norm else []), nn.LeakyReLU(0.2))


def _doubled(inputs: int, outputs: int, dropped: bool) -> nn.Sequential:
    layers = [nn.ConvTranspose2d(inputs, outputs, 4, 2, 1, bias=False), nn.BatchNorm2d(outputs)]
    return nn.Sequential(*layers, *([nn.Dropout(0.5)] if dropped else []), nn.ReLU())
