"""What training needs to know of each generator: its bins, its colours as a picture, its layer groups, its start."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from restore.color import lab_from_rgb, lightness, rgb_from_lab
from restore.generators import Generator
from restore.generators.compact import GREY_MEAN, GREY_STD, Compact
from restore.generators.deoldify import MEAN, STD, DeOldify
from restore.generators.eccv16 import Eccv16


@dataclass(frozen=True, slots=True)
class Rendered:
    """What a generator makes of a batch."""

    logits: Tensor | None
    """Over colour bins, shape (B, K, s, t); None if the generator has no bins."""
    ab: Tensor
    """CIE a* and b*, shape (B, 2, s, t)."""
    rgb: Tensor
    """R'G'B' with the true lightness, shape (B, 3, H, W); not clamped."""


class Painting(nn.Module):
    """A generator that paints: one call gives all that losses and critics look at."""

    def __init__(self, generator: Generator) -> None:
        super().__init__()
        self.generator = generator

    def forward(self, grey: Tensor, clean: Tensor) -> tuple[Tensor | None, Tensor, Tensor]:
        """Colour a batch; the fields of `Rendered`, in a form that torch's data parallel can carry.

        Args:
            grey: The network's input, shape (B, 1, H, W), sRGB-coded, [0, 1]; perhaps aged.
            clean: L* of the pictures as they are, shape (B, 1, H, W).
        """
        generator = self.generator
        if isinstance(generator, DeOldify):
            return None, *_deoldify(generator, grey)
        logits = None
        if isinstance(generator, Compact):
            logits = generator((grey - GREY_MEAN) / GREY_STD)
            ab = generator.decode(logits)
        elif isinstance(generator, Eccv16):
            logits = generator.logits(lightness(grey))
            ab = 110 * generator.model_out(torch.softmax(logits.float(), 1))
        else:
            ab = generator.colorize(grey).float()
        return logits, ab, paint(clean, ab)


def _deoldify(generator: DeOldify, grey: Tensor) -> tuple[Tensor, Tensor]:
    """Return ab and R'G'B' of a generator that makes the whole picture, its lightness too."""
    mean, std = (torch.tensor(values, device=grey.device).view(3, 1, 1) for values in (MEAN, STD))
    rgb = generator((grey - mean) / std).float() * std + mean
    return lab_from_rgb(rgb.clamp(0, 1))[:, 1:], rgb


def paint(clean: Tensor, ab: Tensor) -> Tensor:
    """Join L*, shape (B, 1, H, W), with ab of any size; shape (B, 3, H, W), outside [0, 1] out of gamut."""
    with torch.autocast(clean.device.type, enabled=False):
        wide = F.interpolate(ab.float(), clean.shape[-2:], mode="bilinear", align_corners=False)
        return rgb_from_lab(torch.cat((clean, wide), 1))


def bins_of(generator: nn.Module) -> Tensor | None:
    """Return the colours that a generator chooses among, shape (K, 2), or None."""
    if isinstance(generator, Compact):
        return generator.bins
    if isinstance(generator, Eccv16):
        return 110 * generator.model_out.weight.detach()[:, :, 0, 0].T
    return None


_EARLY = {"compact": ("encoder.",), "deoldify_wide": ("layers.0.",), "deoldify_deep": ("layers.0.",)}
_LATE = {
    "compact": tuple(f"encoder._blocks.{number}." for number in range(5, 99)),
    "deoldify_wide": ("layers.0.6.", "layers.0.7."),
    "deoldify_deep": ("layers.0.6.", "layers.0.7."),
}


def layer(generator: str, parameter: str) -> int:
    """Return 0 for the encoder's early layers, 1 for its late ones, 2 for everything after it."""
    if parameter.startswith(_LATE.get(generator, ("\0",))):
        return 1
    return 0 if parameter.startswith(_EARLY.get(generator, ("\0",))) else 2


def freeze(generator: nn.Module, name: str, frozen: bool) -> None:
    """Stop or start the learning of an encoder; its batch norms learn on, as in the published recipe."""
    norms = {id(p) for m in generator.modules() if isinstance(m, nn.BatchNorm2d) for p in m.parameters()}
    for key, parameter in generator.named_parameters():
        if key.startswith("model_out."):  # the centres of the bins
            parameter.requires_grad_(False)
        elif layer(name, key) < 2 and id(parameter) not in norms:
            parameter.requires_grad_(not frozen)


def groups(generator: nn.Module, name: str, encoder_rate: float, weight_decay: float) -> list[dict[str, Any]]:
    """Split what learns by learning rate and by weight decay, for an optimiser; `scale` is the share of the rate."""
    scales = (encoder_rate, encoder_rate**0.5, 1.0)
    found = []
    for number, scale in enumerate(scales):
        for decays in (True, False):
            chosen = list(_chosen(generator, name, number, decays))
            if chosen:
                found.append({"params": chosen, "scale": scale, "weight_decay": weight_decay if decays else 0.0})
    return found


def _chosen(generator: nn.Module, name: str, number: int, decays: bool) -> Iterator[nn.Parameter]:
    for key, parameter in generator.named_parameters():
        if parameter.requires_grad and layer(name, key) == number and (parameter.ndim == 4) == decays:
            yield parameter
