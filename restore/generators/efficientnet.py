"""EfficientNet-Lite0 as an encoder of grey pictures.

Module names are those of the published ImageNet weights, which therefore load key for key. The differences
from a classifier: one input channel (the sum of the RGB stem, as a grey picture has three equal channels),
and no head.

Source: Tan and Le 2019, "EfficientNet", table 1; the Lite variant drops squeeze-and-excitation, uses ReLU6 and
keeps the stem and the head at their unscaled widths.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor, nn

from restore.errors import WeightsError

# kernel, stride, expansion, channels in, channels out, repeats
_STAGES = (
    (3, 1, 1, 32, 16, 1),
    (3, 2, 6, 16, 24, 2),
    (5, 2, 6, 24, 40, 2),
    (3, 2, 6, 40, 80, 3),
    (5, 1, 6, 80, 112, 3),
    (5, 2, 6, 112, 192, 4),
    (3, 1, 6, 192, 320, 1),
)
_TAPS = (0, 2, 4, 10, 15)
"""The last block at strides 2, 4, 8, 16 and 32."""

CHANNELS = (16, 24, 40, 112, 320)
"""Channels of the five feature maps, from stride 2 to stride 32."""


def pad_same(x: Tensor, kernel: int, stride: int) -> Tensor:
    """Pad as TensorFlow's SAME does, which the ImageNet weights were trained with: the odd pixel right and below."""
    height, width = (max((-(-n // stride) - 1) * stride + kernel - n, 0) for n in x.shape[-2:])
    return F.pad(x, (width // 2, width - width // 2, height // 2, height - height // 2))


class InvertedResidual(nn.Module):
    """Expand by a 1x1, filter each channel, project back; adds its input where shapes agree.

    Source: Sandler et al. 2018, "MobileNetV2", figure 3.
    """

    def __init__(self, kernel: int, stride: int, expansion: int, inputs: int, outputs: int) -> None:
        super().__init__()
        self.kernel, self.stride, self.expands = kernel, stride, expansion > 1
        self.residual = stride == 1 and inputs == outputs
        width = inputs * expansion
        if self.expands:
            self._expand_conv = nn.Conv2d(inputs, width, 1, bias=False)
            self._bn0 = _norm(width)
        padding = kernel // 2 if stride == 1 else 0
        self._depthwise_conv = nn.Conv2d(width, width, kernel, stride, padding, groups=width, bias=False)
        self._bn1 = _norm(width)
        self._project_conv = nn.Conv2d(width, outputs, 1, bias=False)
        self._bn2 = _norm(outputs)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = F.relu6(self._bn0(self._expand_conv(x)), inplace=True) if self.expands else x
        if self.stride > 1:
            y = pad_same(y, self.kernel, self.stride)
        y = F.relu6(self._bn1(self._depthwise_conv(y)), inplace=True)
        y = self._bn2(self._project_conv(y))
        return x + y if self.residual else y


class EfficientNetLite0(nn.Module):
    """Features of a grey picture at strides 2, 4, 8, 16 and 32."""

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem = nn.Conv2d(1, 32, 3, 2, bias=False)
        self._bn0 = _norm(32)
        self._blocks = nn.ModuleList(
            InvertedResidual(kernel, stride if i == 0 else 1, expansion, inputs if i == 0 else outputs, outputs)
            for kernel, stride, expansion, inputs, outputs, repeats in _STAGES
            for i in range(repeats)
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return five maps of `CHANNELS` channels for x of shape (B, 1, H, W), normalised grey."""
        x = F.relu6(self._bn0(self._conv_stem(pad_same(x, 3, 2))), inplace=True)
        features = []
        for index, block in enumerate(self._blocks):
            x = block(x)
            if index in _TAPS:
                features.append(x)
        return features

    def load_imagenet(self, state: Mapping[str, Tensor]) -> None:
        """Take the published RGB weights; the classifier's head is left out.

        Raises:
            WeightsError: `state` lacks a key of the encoder, or a shape differs.
        """
        kept = {key: value for key, value in state.items() if not key.startswith(("_conv_head", "_bn1", "_fc"))}
        stem = kept.get("_conv_stem.weight")
        if stem is not None and stem.ndim == 4:
            kept["_conv_stem.weight"] = stem.sum(1, keepdim=True)
        try:
            self.load_state_dict(kept)
        except RuntimeError as error:
            raise WeightsError(f"these are not ImageNet weights of EfficientNet-Lite0: {error}") from error


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)
