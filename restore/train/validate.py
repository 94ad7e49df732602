"""Judge a network in training: the scores of `restore evaluate` as rows, and a sheet to look at."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from restore.color import lab_from_rgb
from restore.errors import MediaError
from restore.evaluate.photos import colorize, score
from restore.generators import Generator
from restore.output.disk import whole
from restore.train.adapters import paint


def judge(network: Generator, truth: Tensor, autocast: bool) -> tuple[dict[str, Any], NDArray[np.uint8]]:
    """Score a network on photographs.

    Args:
        network: A generator.
        truth: The photographs, shape (N, 3, H, W), uint8.
        autocast: Run it in bf16 where that is safe.

    Returns:
        The scores by name, and a sheet of the first dozen.
    """
    ab = colorize(network, truth, autocast=autocast)
    found = score(truth, ab)
    measures = {key: value for key, value in found.measures().items() if key not in ("pictures", "labelled")}
    scores = {key: round(value, 4) for key, value in measures.items() if value is not None}
    return scores, sheet(truth[:12], ab[:12])


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write rows as CSV; a row need not have every column.

    Raises:
        MediaError: The file cannot be written.
    """
    columns = list(dict.fromkeys(key for row in rows for key in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="")
    writer.writeheader()
    writer.writerows(rows)
    with whole(path) as file:
        file.write(text.getvalue().encode())


def sheet(rgb: Tensor, ab: Tensor, columns: int = 3, pixels: int = 192) -> NDArray[np.uint8]:
    """Lay out grey, coloured and true pictures side by side.

    Args:
        rgb: True pictures, shape (N, 3, H, W), uint8.
        ab: Colours found, shape (N, 2, s, t).
        columns: Triples in a row.
        pixels: Side of each picture on the sheet.

    Returns:
        Shape (height, width, 3).
    """
    truth = rgb.float() / 255
    clean = lab_from_rgb(truth)[:, :1]
    triples = torch.cat((paint(clean, torch.zeros_like(ab)), paint(clean, ab), truth), 3).clamp(0, 1)
    codes = np.rint(triples.permute(0, 2, 3, 1).numpy() * 255).astype(np.uint8)
    small = [np.asarray(cv2.resize(one, (3 * pixels, pixels), interpolation=cv2.INTER_AREA)) for one in codes]
    small += [np.zeros_like(small[0])] * (-len(small) % columns)
    lines = [np.concatenate(small[i : i + columns], 1) for i in range(0, len(small), columns)]
    return np.asarray(np.concatenate(lines), np.uint8)


def write_picture(path: Path, rgb: NDArray[np.uint8]) -> None:
    """Write R'G'B', shape (H, W, 3).

    Raises:
        MediaError: The file cannot be written.
    """
    if not cv2.imwrite(str(path), np.ascontiguousarray(rgb[..., ::-1])):
        raise MediaError("the sheet cannot be written", str(path))
