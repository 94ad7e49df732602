"""The 2016 classification network: L* to a distribution over 313 bins of ab, and from it to ab.

Source: Zhang, Isola and Efros, Colorful Image Colorization, ECCV 2016; compatible with its published state dict.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from restore.color import lightness

BINS = 313
"""In-gamut bins of ab, 10 units wide."""


def _block(channels: list[int], stride: int = 1, dilation: int = 1) -> list[nn.Module]:
    """Return 3x3 convolutions, each followed by ReLU; the last one has the stride."""
    layers: list[nn.Module] = []
    for i in range(1, len(channels)):
        step = stride if i == len(channels) - 1 else 1
        layers.append(nn.Conv2d(channels[i - 1], channels[i], 3, step, dilation, dilation))
        layers.append(nn.ReLU(inplace=True))
    return layers


def _normed(channels: list[int], stride: int = 1, dilation: int = 1) -> nn.Sequential:
    return nn.Sequential(*_block(channels, stride, dilation), nn.BatchNorm2d(channels[-1]))


class Readout(nn.Module):
    """The mean colour of a distribution over bins, in fp32 whatever the precision of the network."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(2, BINS, 1, 1))

    def forward(self, share: Tensor) -> Tensor:
        return F.conv2d(share, self.weight)


class Eccv16(nn.Module):
    """Eight blocks of convolutions, 1/8 size inside, 1/4 size at the distribution, whole size at the end."""

    def __init__(self, width: int = 64, temperature: float = 1.0) -> None:
        """Build the network.

        Args:
            width: Channels of the first block; 64 as published.
            temperature: Of the annealed mean, towards 0 vivid and patchy: 0.38 in the paper, 1 (the plain mean) in the
                published program.

        Raises:
            ValueError: The temperature is not above 0.
        """
        super().__init__()
        if temperature <= 0:
            raise ValueError(f"temperature must be above 0, got {temperature}")
        self.temperature = temperature
        a, b, c, d = width, 2 * width, 4 * width, 8 * width
        self.model1 = _normed([1, a, a], stride=2)
        self.model2 = _normed([a, b, b], stride=2)
        self.model3 = _normed([b, c, c, c], stride=2)
        self.model4 = _normed([c, d, d, d])
        self.model5 = _normed([d, d, d, d], dilation=2)
        self.model6 = _normed([d, d, d, d], dilation=2)
        self.model7 = _normed([d, d, d, d])
        up = [nn.ConvTranspose2d(d, c, 4, 2, 1), nn.ReLU(inplace=True)]
        self.model8 = nn.Sequential(*up, *_block([c, c, c]), nn.Conv2d(c, BINS, 1))
        self.model_out = Readout()

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Return the size at which the network was trained, whatever the frame's."""
        return 256, 256

    def logits(self, lightness: Tensor) -> Tensor:
        """Return the logits of the bins, shape (B, 313, h / 4, w / 4), of L* in 0..100, shape (B, 1, h, w)."""
        x = (lightness - 50) / 100
        for block in (self.model1, self.model2, self.model3, self.model4, self.model5, self.model6, self.model7):
            x = block(x)
        return self.model8(x)  # type: ignore[no-any-return]

    def forward(self, lightness: Tensor) -> Tensor:
        """Return ab, shape (B, 2, h, w), of L* in 0..100, shape (B, 1, h, w)."""
        share = torch.softmax(self.logits(lightness).float() / self.temperature, dim=1)
        ab = F.interpolate(110 * self.model_out(share), scale_factor=4, mode="bilinear", align_corners=False)
        return ab[..., : lightness.shape[-2], : lightness.shape[-1]]

    def colorize(self, gray: Tensor) -> Tensor:
        """Return CIE ab, shape (B, 2, h, w), of grey R'G'B' in 0..1, shape (B, 1, h, w)."""
        return self(lightness(gray))  # type: ignore[no-any-return]
