"""The fixed protocol for photographs: 256 x 256, aspect ignored, grey by BT.601, the truth's L*, 8-bit sRGB out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from restore.color import lab_from_rgb
from restore.errors import MediaError
from restore.evaluate import sets
from restore.evaluate.judge import Judge, Scores, fitted
from restore.generators import Generator, Loaded
from restore.photographs import Picture, find

BATCH = 4
"""Pictures worked on at a time."""


def truths(folder: Path, count: int | None = None) -> Tensor:
    """Return the readable pictures of a folder as they are judged, shape (N, 3, 256, 256), uint8.

    Args:
        folder: Holds photographs, or tar files of them.
        count: At most so many, spread evenly over all; the same ones every time.

    Raises:
        MediaError: There are none, or none can be decoded.
    """
    pictures = [picture for photo in sets.pick(find(folder), count) if (picture := sets.read(photo)) is not None]
    if not pictures:
        raise MediaError("none of its pictures can be decoded", str(folder))
    return tensor(pictures)


def tensor(pictures: Sequence[Picture]) -> Tensor:
    """Return pictures (H, W, 3) as one tensor (N, 3, H, W)."""
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).contiguous()


def grey_of(rgb: Tensor) -> Tensor:
    """Return the BT.601 luma, 0..1, shape (B, 1, H, W), of R'G'B' (B, 3, H, W), uint8."""
    red, green, blue = (rgb.float() / 255).unbind(1)
    return (0.299 * red + 0.587 * green + 0.114 * blue)[:, None]


@torch.inference_mode()
def colorize(network: Generator | Loaded, rgb: Tensor, *, batch: int = BATCH, autocast: bool = False) -> Tensor:
    """Colour the grey of photographs.

    Args:
        network: A generator in any mode and precision, which is put into eval mode for it, or a loaded one.
        rgb: Shape (N, 3, H, W), uint8.
        batch: Pictures a pass.
        autocast: Run a network in bf16 where it is safe.

    Returns:
        a* and b*, shape (N, 2, H, W), float32, on the device of `rgb`.
    """
    if isinstance(network, Loaded):
        return _in_batches(network, network.size, network.device, rgb, batch)
    where, training = next(network.parameters()).device, network.training
    network.eval()
    try:
        with torch.autocast(where.type, torch.bfloat16, enabled=autocast):
            return _in_batches(network.colorize, network.size, where, rgb, batch)
    finally:
        network.train(training)


def _in_batches(
    color: Callable[[Tensor], Tensor],
    size: Callable[[int, int], tuple[int, int]],
    device: torch.device,
    rgb: Tensor,
    batch: int,
) -> Tensor:
    parts = []
    for part in torch.split(rgb, batch):
        grey = fitted(grey_of(part.to(device)), size(*rgb.shape[-2:]))
        ab = color(grey.contiguous(memory_format=torch.channels_last))
        parts.append(fitted(ab.float(), rgb.shape[-2:]).to(rgb.device))
    return torch.cat(parts)


def score(rgb: Tensor, ab: Tensor, features: bool = True) -> Scores:
    """Judge colours against photographs.

    Args:
        rgb: Shape (N, 3, 256, 256), uint8, on any device; the measures that need a network run there.
        ab: a* and b*, shape (N, 2, 256, 256).
        features: Measure the Fréchet distance, too, which takes about half of the time.

    Raises:
        ConfigError: The package with the classifier's weights is not installed; it is not needed without `features`.
        ValueError: Not as many colours as photographs, or of another size.
    """
    if len(rgb) != len(ab) or rgb.shape[-2:] != ab.shape[-2:]:
        raise ValueError(f"expected ab (N, 2, H, W) for photographs {tuple(rgb.shape)}, got {tuple(ab.shape)}")
    judge = Judge(["found"], features=features)
    for start in range(0, len(rgb), BATCH):
        part = slice(start, start + BATCH)
        names = [str(number) for number in range(start, start + len(rgb[part]))]
        judge.add(rgb[part], {"found": ab[part]}, names)
    return judge.scores()["found"]


def mean_ab(folder: Path) -> tuple[float, float]:
    """Return the mean a* and b* of the photographs in a folder, a colour for the baseline "mean chroma".

    Raises:
        MediaError: There are none, or none can be decoded.
    """
    total, pictures = torch.zeros(2, dtype=torch.float64), 0
    for photo in find(folder):
        picture = sets.read(photo)
        if picture is not None:
            total += lab_from_rgb(tensor([picture]).float() / 255)[0, 1:].double().mean((1, 2))
            pictures += 1
    if not pictures:
        raise MediaError("none of its pictures can be decoded", str(folder))
    a, b = (total / pictures).tolist()
    return a, b
