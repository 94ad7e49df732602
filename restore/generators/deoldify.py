"""The published DeOldify U-Nets, and the whole filter around them.

Source: Antic, DeOldify (MIT), read as facts: key names, shapes and outputs of the published checkpoints.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from restore.color import lab_from_rgb
from restore.errors import ConfigError
from restore.generators.blocks import PixelShuffle, SpectralConv2d, WeightNormConv2d, conv_relu_norm, spectral_shuffle
from restore.generators.resnet import BasicBlock, Block, Bottleneck, encoder

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
"""Of ImageNet's R'G'B'; input and output are normalised with them."""

_SKIPS = (2, 4, 5, 6)
"""Children of the encoder after which the size changes."""


class UNetBlock(nn.Module):
    """Up-sample, join with what the encoder had at that size, convolve."""

    shuf: PixelShuffle
    bn: nn.BatchNorm2d

    def _join(self, x: Tensor, skip: Tensor) -> Tensor:
        return torch.cat((_resized(self.shuf(x), skip), F.relu(self.bn(skip))), dim=1)  # shuf ends above zero


class WideBlock(UNetBlock):
    """One convolution, to half of `channels`."""

    def __init__(self, channels_in: int, skip: int, channels: int, attention: bool) -> None:
        super().__init__()
        self.shuf = spectral_shuffle(channels_in, channels // 2)
        self.bn = nn.BatchNorm2d(skip)
        self.conv = conv_relu_norm(channels // 2 + skip, channels // 2, attention)
        self.channels = channels // 2

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        return self.conv(self._join(x, skip))  # type: ignore[no-any-return]


class DeepBlock(UNetBlock):
    """Two convolutions, to `factor` times the joined channels."""

    def __init__(self, channels_in: int, skip: int, factor: float, attention: bool, last: bool) -> None:
        super().__init__()
        joined = channels_in // 2 + skip
        self.channels = int((joined // 2 if last else joined) * factor)
        self.shuf = spectral_shuffle(channels_in, channels_in // 2)
        self.bn = nn.BatchNorm2d(skip)
        self.conv1 = conv_relu_norm(joined, self.channels)
        self.conv2 = conv_relu_norm(self.channels, self.channels, attention)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        return self.conv2(self.conv1(self._join(x, skip)))  # type: ignore[no-any-return]


Up = Callable[[int, int, int], WideBlock | DeepBlock]


class ResidualBlock(nn.Module):
    """Two `spectral 3x3 convolution with bias, ReLU`, added to their input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        pairs = [(SpectralConv2d(channels, channels, bias=True), nn.ReLU(inplace=True)) for _ in range(2)]
        self.layers = nn.Sequential(*(nn.Sequential(*pair) for pair in pairs))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)  # type: ignore[no-any-return]


class DeOldify(nn.Module):
    """A U-Net on a ResNet encoder: ImageNet-normalised R'G'B' in, the same out, in -3..3.

    The children of `layers` have the numbers of the published network; those without keys are placeholders.
    """

    def __init__(self, block: Block, depths: Sequence[int], width: int, up: Up, render_factor: int) -> None:
        """Build the network.

        Args:
            block: What the encoder is made of.
            depths: Blocks in each layer of the encoder.
            width: Channels of the encoder's stem.
            up: Makes a block of the decoder from its channels in, those of the skip, and its number, 0 to 3.
            render_factor: Sixteenths of the side of the square at which frames are coloured.

        Raises:
            ConfigError: The render factor is not positive.
        """
        super().__init__()
        if render_factor < 1:
            raise ConfigError(f"the render factor must be 1 or more (10 to 45 are usual), got {render_factor}")
        self.render_factor = render_factor
        body, (*skips, top) = encoder(block, depths, width)
        middle = nn.Sequential(conv_relu_norm(top, 2 * top), conv_relu_norm(2 * top, top))
        blocks: list[WideBlock | DeepBlock] = []
        for index, skip in enumerate(reversed(skips)):
            blocks.append(up(blocks[-1].channels if blocks else top, skip, index))
        channels = blocks[-1].channels
        whole = PixelShuffle(nn.Sequential(WeightNormConv2d(channels, 4 * channels)))
        tail = [
            nn.Identity(),
            ResidualBlock(channels + 3),
            nn.Sequential(SpectralConv2d(channels + 3, 3, 1, bias=True)),
        ]
        self.layers = nn.ModuleList([body, nn.BatchNorm2d(top), nn.ReLU(), middle, *blocks, whole, *tail])

    def forward(self, x: Tensor) -> Tensor:
        """Return the coloured picture, shape (B, 3, h, w), normalised, of a grey one of the same kind."""
        x = x.to(memory_format=torch.channels_last)
        y, skips = x, []
        for i, child in enumerate(self.layers[0].children()):
            y = child(y)
            if i in _SKIPS:
                skips.append(y)
        for layer in self.layers[1:4]:
            y = layer(y)
        for layer in self.layers[4:8]:
            y = layer(y, skips.pop())
        y = torch.cat((_resized(self.layers[8](y), x), x.to(y.dtype)), dim=1)
        y = self.layers[11](self.layers[10](y))
        return torch.sigmoid(y.float()) * 6 - 3

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Return the square that the render factor stands for, whatever the frame's size and aspect."""
        return self.render_factor * 16, self.render_factor * 16

    def colorize(self, gray: Tensor) -> Tensor:
        """Return CIE ab, shape (B, 2, h, w), of grey R'G'B' in 0..1, shape (B, 1, h, w).

        The chroma of the result (U and V of BT.601) is joined with the luma that came in, as the original filter does.
        """
        mean, std = (torch.tensor(values, device=gray.device).view(3, 1, 1) for values in (MEAN, STD))
        rgb = (self((gray - mean) / std) * std + mean).clamp(0, 1)
        luma = 0.299 * rgb[:, 0:1] + 0.587 * rgb[:, 1:2] + 0.114 * rgb[:, 2:3]
        # Another Y' under the same U and V adds one amount to R', G' and B'.
        return lab_from_rgb((rgb + (gray - luma)).clamp(0, 1))[:, 1:]


class DeOldifyWide(DeOldify):
    """The network published as video and stable."""

    def __init__(
        self, depths: Sequence[int] = (3, 4, 23, 3), width: int = 64, nf: float = 2.0, render_factor: int = 21
    ) -> None:
        """Build the network; the decoder has 512 times `nf` channels, half of them after its convolutions."""
        wide = int(512 * nf)

        def up(channels: int, skip: int, index: int) -> WideBlock:
            return WideBlock(channels, skip, wide // 2 if index == 3 else wide, index == 1)

        super().__init__(Bottleneck, depths, width, up, render_factor)


class DeOldifyDeep(DeOldify):
    """The network published as artistic."""

    def __init__(
        self, depths: Sequence[int] = (3, 4, 6, 3), width: int = 64, nf: float = 1.5, render_factor: int = 21
    ) -> None:
        """Build the network; each block of the decoder has `nf` times the channels that it joins."""

        def up(channels: int, skip: int, index: int) -> DeepBlock:
            return DeepBlock(channels, skip, nf, index == 1, index == 3)

        super().__init__(BasicBlock, depths, width, up, render_factor)


def _resized(x: Tensor, like: Tensor) -> Tensor:
    return x if x.shape[-2:] == like.shape[-2:] else F.interpolate(x, like.shape[-2:], mode="nearest")


def colorize_image(module: nn.Module, rgb: NDArray[np.uint8], render_factor: int) -> NDArray[np.uint8]:
    """Colour a picture as the original program does, 8-bit rounding included.

    Args:
        module: A DeOldify generator in eval mode.
        rgb: Shape (H, W, 3); colour is ignored, except for its luma.
        render_factor: Sixteenths of the side of the square at which it is coloured.

    Returns:
        Shape (H, W, 3), uint8.
    """
    side = render_factor * 16
    square = Image.fromarray(rgb).resize((side, side), Image.Resampling.BILINEAR).convert("LA").convert("RGB")
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    x = torch.from_numpy(np.array(square)).permute(2, 0, 1).float() / 255
    with torch.inference_mode():
        y = module(((x - mean) / std)[None])[0].float() * std + mean
    codes = (y.clamp(0, 1) * 255).to(torch.uint8).permute(1, 2, 0).numpy()
    raw = Image.fromarray(codes).resize(rgb.shape[1::-1], Image.Resampling.BILINEAR)
    yuv = cv2.cvtColor(np.asarray(raw), cv2.COLOR_RGB2YUV)
    yuv[..., 0] = cv2.cvtColor(rgb, cv2.COLOR_RGB2YUV)[..., 0]
    return np.asarray(cv2.cvtColor(yuv, cv2.COLOR_YUV2RGB), dtype=np.uint8)
