"""Snapshots of a GAN's generator, and the choice of the one at the inflection point.

At first a GAN makes colours livelier and more like photographs'; after a point pictures get worse while the losses say
nothing of it. So every snapshot is scored on validation photographs, and the best before the decline is kept.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn

from restore.errors import MediaError
from restore.output.disk import whole
from restore.train.config import Choice
from restore.train.validate import write_rows

Score = dict[str, Any]


def take(path: Path, network: nn.Module) -> None:
    """Write the weights of a network as they are now.

    Raises:
        MediaError: They cannot be written.
    """
    path.parent.mkdir(exist_ok=True)
    tensors = {key: value.contiguous() for key, value in network.state_dict().items()}
    with whole(path) as file:
        file.write(save(tensors))


def best_of(files: list[Path], judge: Callable[[Path], Score], choice: Choice, table: Path) -> Path:
    """Score snapshots and return the one at the inflection point.

    Args:
        files: In the order in which they were taken; the first is of before the GAN.
        judge: Scores what a snapshot would become.
        choice: What is allowed.
        table: CSV file for the scores; the curve is written beside it, as PNG.
    """
    rows = [judge(path) for path in files]
    best = inflection(rows, choice)
    write_rows(table, [row | {"chosen": number == best} for number, row in enumerate(rows)])
    curve(table.with_suffix(".png"), rows, best)
    return files[best]


def blended(before: Path, after: Path, share: float) -> dict[str, Tensor]:
    """Return weights between those of two snapshots: some of the liveliness of a GAN, with less of its noise."""
    here, there = load_file(before), load_file(after)
    return {
        key: torch.lerp(here[key], there[key], share) if here[key].is_floating_point() else there[key] for key in here
    }


def inflection(rows: list[Score], choice: Choice) -> int:
    """Return the number of the snapshot at the inflection point.

    It has the least Fréchet distance of those that keep the colours right (AuC) and have no more outliers than allowed;
    the search ends where `patience` snapshots in a row were worse than the best before them.

    Args:
        rows: Scores with ``fd``, ``auc`` and ``outliers``; the first is of the generator before the GAN.
        choice: What is allowed.
    """
    best, since = 0, 0
    for number, row in enumerate(rows):
        sound = row["auc"] >= rows[0]["auc"] - choice.auc_loss
        sound = sound and row["outliers"] <= choice.outliers
        if sound and row["fd"] < rows[best]["fd"]:
            best, since = number, 0
        elif number > best:
            since += 1
        if since >= choice.patience:
            break
    return best


def curve(path: Path, rows: list[Score], chosen: int, size: tuple[int, int] = (960, 540)) -> None:
    """Draw each score over the snapshots, between its least and its greatest value; a line marks the choice.

    Raises:
        MediaError: The file cannot be written.
    """
    width, height = size
    picture = np.full((height, width, 3), 255, np.uint8)
    x = np.linspace(60, width - 200, max(2, len(rows)))[: len(rows)]
    cv2.line(picture, (int(x[chosen]), 20), (int(x[chosen]), height - 20), (180, 180, 180), 1)
    colors = {"fd": (30, 30, 200), "auc": (160, 90, 20), "colorfulness": (30, 140, 30), "outliers": (170, 30, 170)}
    for line, (name, color) in enumerate(colors.items()):
        values = np.array([float(row[name]) for row in rows])
        low, high = float(values.min()), float(values.max())
        y = height - 40 - (values - low) / max(high - low, 1e-9) * (height - 80)
        points = np.stack((x, y), 1).round().astype(np.int32)
        cv2.polylines(picture, [points], False, color, 2, cv2.LINE_AA)
        label = f"{name} {low:.2f}-{high:.2f}"
        place = (width - 190, 40 + 26 * line)
        cv2.putText(picture, label, place, cv2.FONT_HERSHEY_SIMPLEX, 0.42, color, 1, cv2.LINE_AA)
    name = str(rows[chosen]["snapshot"])
    cv2.putText(picture, name, (int(x[chosen]) + 4, 16), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (90, 90, 90), 1, cv2.LINE_AA)
    if not cv2.imwrite(str(path), picture):
        raise MediaError("the curve cannot be written", str(path))
