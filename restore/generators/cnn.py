"""A plain convolutional network that regresses ab: what the other generators are compared with.

Source: Wallner 2017, "Colorizing B&W Photos with Neural Networks", the network before its fusion layer.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from restore.color import lightness
from restore.generators.pix2pix import AB_SCALE

# channels in multiples of `filters`, stride
_DOWN = ((1, 1), (1, 2), (2, 1), (2, 2), (4, 1), (4, 2), (8, 1), (4, 1), (2, 1))
_UP = (1.0, 0.5)
"""Channels, in multiples of `filters`, after each doubling of the size."""


class Cnn(nn.Module):
    """Grey to ab at half the size: 64-64-128-128-256-256-512-256-128, doubled to 64, doubled to 32, 2."""

    def __init__(self, filters: int = 64) -> None:
        """Build the network with random weights (He et al. 2015).

        Args:
            filters: Channels of the first layer; 64 as published.
        """
        super().__init__()
        layers: list[nn.Module] = []
        last = 1
        for factor, stride in _DOWN:
            layers += [nn.Conv2d(last, factor * filters, 3, stride, 1), nn.ReLU(inplace=True)]
            last = factor * filters
        for share in _UP:
            outputs = max(2, int(share * filters))
            layers += [nn.Upsample(scale_factor=2), nn.Conv2d(last, outputs, 3, padding=1), nn.ReLU(inplace=True)]
            last = outputs
        self.body = nn.Sequential(*layers, nn.Conv2d(last, 2, 3, padding=1))
        for module in self.body:
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Return the size at which the network was trained, whatever the frame's."""
        return 256, 256

    def forward(self, x: Tensor) -> Tensor:
        """Return ab, shape (B, 2, H / 2, W / 2), float32, of L* / 50 - 1, shape (B, 1, H, W), multiples of 8."""
        return AB_SCALE * torch.tanh(self.body(x).float())

    def colorize(self, gray: Tensor) -> Tensor:
        """Return CIE ab, shape (B, 2, h / 2, w / 2), float32, of grey R'G'B' in 0..1, shape (B, 1, h, w)."""
        return self(lightness(gray) / 50 - 1)  # type: ignore[no-any-return]
