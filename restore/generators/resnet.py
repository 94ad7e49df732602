"""ResNet encoders with the child names of torchvision, so that published checkpoints load key for key.

Source: He et al., Deep Residual Learning for Image Recognition, 2016; the stride of a bottleneck is in its 3x3.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn


def _conv(channels_in: int, channels_out: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(channels_in, channels_out, kernel, stride, kernel // 2, bias=False)


def _shortcut(channels_in: int, channels_out: int, stride: int) -> nn.Sequential | None:
    if stride == 1 and channels_in == channels_out:
        return None
    return nn.Sequential(_conv(channels_in, channels_out, 1, stride), nn.BatchNorm2d(channels_out))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions around a shortcut (ResNet-18 and -34)."""

    expansion = 1

    def __init__(self, channels_in: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = _conv(channels_in, width, 3, stride)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu1 = nn.ReLU(inplace=True)
        self.conv2 = _conv(width, width, 3)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = _shortcut(channels_in, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.relu1(self.bn1(self.conv1(x)))
        x = self.bn2(self.conv2(x))
        x += shortcut
        return F.relu(x, inplace=True)


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 convolutions around a shortcut (ResNet-50 and deeper)."""

    expansion = 4

    def __init__(self, channels_in: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = _conv(channels_in, width, 1)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu1 = nn.ReLU(inplace=True)
        self.conv2 = _conv(width, width, 3, stride)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu2 = nn.ReLU(inplace=True)
        self.conv3 = _conv(width, 4 * width, 1)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.downsample = _shortcut(channels_in, 4 * width, stride)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.relu1(self.bn1(self.conv1(x)))
        x = self.relu2(self.bn2(self.conv2(x)))
        x = self.bn3(self.conv3(x))
        x += shortcut
        return F.relu(x, inplace=True)


Block = type[BasicBlock] | type[Bottleneck]


def encoder(block: Block, depths: Sequence[int], width: int) -> tuple[nn.Sequential, list[int]]:
    """Return an encoder of children 0 conv1, 1 bn1, 2 relu, 3 maxpool, 4-7 layer1-4, and its channels.

    Args:
        block: What its layers are made of.
        depths: Number of blocks in each of the four layers.
        width: Channels of the stem; each layer has twice the width of the one before.

    Returns:
        The encoder, and the channels after children 2, 4, 5, 6 and 7: those at 1/2, 1/4, 1/8, 1/16 and 1/32 size.
    """
    stem = [nn.Conv2d(3, width, 7, 2, 3, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
    children: list[nn.Module] = [*stem, nn.MaxPool2d(3, 2, 1)]
    channels = [width]
    for i, depth in enumerate(depths):
        inner = width * 2**i
        layer: list[nn.Module] = [block(channels[-1], inner, 1 if i == 0 else 2)]
        layer += [block(inner * block.expansion, inner, 1) for _ in range(depth - 1)]
        children.append(nn.Sequential(*layer))
        channels.append(inner * block.expansion)
    return nn.Sequential(*children), channels
