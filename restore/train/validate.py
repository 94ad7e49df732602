"""Judge a network in training: the scores of `restore evaluate`, and a sheet to look at."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from restore.color import lab_from_rgb
from restore.errors import MediaError
from restore.evaluate.photos import colorize, score
from restore.generators import Generator
from restore.train.adapters import paint

if TYPE_CHECKING:
    from restore.train.run import Run


def judge(run: Run, network: Generator, name: str, pictures: int) -> dict[str, Any]:
    """Score a network on validation photographs, and write a sheet of the first dozen.

    Args:
        run: Its photographs are coloured.
        network: A generator in eval mode.
        name: Of the sheet.
        pictures: How many photographs.

    Returns:
        The scores by name.
    """
    truth = run.truths[:pictures]
    ab = colorize(network, truth, autocast=run.config.precision == "bf16")
    picture = sheet(truth[:12], ab[:12])
    folder = run.config.output / "sheets"
    folder.mkdir(exist_ok=True)
    write_picture(folder / f"{name}.png", picture)
    found = score(truth, ab)
    measures = {key: value for key, value in found.measures().items() if key not in ("pictures", "labelled")}
    scores = {key: round(value, 4) for key, value in measures.items() if value is not None}
    if run.board:
        run.board.scalars("validation", scores, run.samples)
        run.board.picture("sheet", picture, run.samples)
    return scores


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
