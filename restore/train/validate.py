"""Colour held-out photographs: numbers and a sheet to look at."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from restore.color import lab_from_rgb, rgb_from_lab
from restore.errors import MediaError
from restore.generators.compact import Compact
from restore.metrics import colorfulness
from restore.train.data import Photo, decode

PIXELS = 256
"""Side at which photographs are judged; aspect ignored, as in the published comparisons."""


@dataclass(frozen=True, slots=True)
class Score:
    """Means over photographs."""

    ab_error: float
    """Euclidean distance in the ab plane."""
    auc: float
    """Percent: area under the share of pixels nearer than a threshold, thresholds 0 to 150 (Zhang et al. 2016)."""
    psnr: float
    """Decibels of R'G'B', with the truth's L*."""
    colorfulness: float
    """Of Hasler and Suesstrunk 2003; near that of the truth is good, above is neon, below is washed out."""

    def row(self) -> dict[str, float]:
        """Return the numbers by name."""
        return asdict(self)


def load(photos: list[Photo], count: int) -> Tensor:
    """Return the first `count` readable pictures as R'G'B', shape (N, 3, 256, 256), uint8.

    Raises:
        MediaError: None can be decoded.
    """
    pictures = (picture for photo in photos[:count] if (picture := decode(photo)) is not None)
    resized = [cv2.resize(picture, (PIXELS, PIXELS), interpolation=cv2.INTER_AREA) for picture in pictures]
    if not resized:
        raise MediaError("none of the validation pictures can be decoded", str(photos[0].path))
    return torch.from_numpy(np.stack(resized)).permute(0, 3, 1, 2).contiguous()


def grey_of(rgb: Tensor) -> Tensor:
    """Return BT.601 luma of R'G'B' (N, 3, H, W) in [0, 1], shape (N, 1, H, W)."""
    red, green, blue = rgb.unbind(1)
    return (0.299 * red + 0.587 * green + 0.114 * blue)[:, None]


@torch.inference_mode()
def colorize(network: Compact, rgb: Tensor, autocast: bool) -> Tensor:
    """Colour the grey of `rgb` (N, 3, H, W), uint8, and return ab (N, 2, H, W)."""
    found = []
    for batch in torch.split(rgb, 4):
        grey = grey_of(batch / 255).contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            ab = network.colorize(grey)
        found.append(F.interpolate(ab, rgb.shape[-2:], mode="bilinear", align_corners=False))
    return torch.cat(found)


def paint(rgb: Tensor, ab: Tensor) -> Tensor:
    """Return R'G'B' in [0, 1] with the L* of `rgb` (N, 3, H, W), uint8, and the colours `ab`."""
    lightness = lab_from_rgb(rgb / 255)[:, :1]
    return rgb_from_lab(torch.cat((lightness, ab), 1)).clamp(0, 1)


def score(rgb: Tensor, ab: Tensor) -> Score:
    """Judge the colours `ab` (N, 2, H, W) against photographs (N, 3, H, W), uint8."""
    errors, areas, psnrs, colors = [], [], [], []
    for truth, found in zip(torch.split(rgb, 1), torch.split(ab, 1), strict=True):
        distance = (lab_from_rgb(truth / 255)[:, 1:] - found).norm(dim=1)
        painted = paint(truth, found)
        errors.append(distance.mean())
        areas.append((1 - distance.clamp(max=150) / 150).mean() * 100)
        psnrs.append(-10 * torch.log10((painted - truth / 255).square().mean().clamp_min(1e-10)))
        colors.append(torch.tensor(colorfulness(_bytes(painted)[0])))
    means = [float(torch.stack(values).double().mean()) for values in (errors, areas, psnrs, colors)]
    return Score(*means)


def sheet(path: Path, rgb: Tensor, ab: Tensor, rows: int = 4, columns: int = 3, pixels: int = 192) -> None:
    """Write a sheet of grey, coloured and true pictures side by side.

    Raises:
        MediaError: The file cannot be written.
    """
    rgb, ab = rgb[: rows * columns], ab[: rows * columns]
    triples = torch.cat((paint(rgb, torch.zeros_like(ab)), paint(rgb, ab), rgb / 255), 3)
    small = [
        np.asarray(cv2.resize(tile, (3 * pixels, pixels), interpolation=cv2.INTER_AREA), np.uint8)
        for tile in _bytes(triples)
    ]
    small += [np.zeros_like(small[0])] * (-len(small) % columns)
    lines = [np.concatenate(small[i : i + columns], 1) for i in range(0, len(small), columns)]
    if not cv2.imwrite(str(path), np.concatenate(lines)[..., ::-1]):
        raise MediaError("the sheet cannot be written", str(path))


def _bytes(rgb: Tensor) -> NDArray[np.uint8]:
    """Return (N, 3, H, W) in [0, 1] as code values (N, H, W, 3)."""
    codes: NDArray[np.uint8] = np.rint(rgb.permute(0, 2, 3, 1).numpy() * 255).astype(np.uint8)
    return codes
