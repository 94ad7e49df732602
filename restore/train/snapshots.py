"""Snapshots of a GAN's generator, and the choice of the one at the inflection point.

At first a GAN makes colours livelier and more like photographs'; after a point pictures get worse while the losses say
nothing of it. So every snapshot is scored on validation photographs, and the best before the decline is kept.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from restore.errors import MediaError
from restore.train.config import Choice

if TYPE_CHECKING:
    from restore.train.run import Run

Score = dict[str, Any]


def take(run: Run, cycle: int) -> None:
    """Write the generator's weights as they are now, or as they are on average."""
    if not run.team.leads:
        return
    network = run.average if run.config.gan.average else run.generator
    path = _folder(run) / f"gan-{cycle}-{run.step + 1:06d}.safetensors"
    path.parent.mkdir(exist_ok=True)
    save_file({key: value.contiguous() for key, value in network.state_dict().items()}, path.with_suffix(".part"))
    path.with_suffix(".part").replace(path)


def keep_best(run: Run, cycle: int) -> None:
    """Score the snapshots of a cycle, write the curve as CSV and PNG, and note which is best."""
    from restore.train.run import write_rows

    before = _state(run)
    rows = [run.judge(run.average, snapshot="before")]
    for path in _files(run, cycle):
        run.average.load_state_dict(load_file(path))
        rows.append(run.judge(run.average, snapshot=path.stem))
    run.average.load_state_dict(before)
    best = inflection(rows, run.config.choice)
    write_rows(run.config.output / f"gan-{cycle}.csv", [row | {"chosen": n == best} for n, row in enumerate(rows)])
    curve(run.config.output / f"gan-{cycle}.png", rows, best)
    if best == 0:
        save_file(before, _folder(run) / "before.safetensors")
    (_folder(run) / f"best-{cycle}.txt").write_text(f"{rows[best]['snapshot']}\n")


def best(run: Run, cycle: int) -> dict[str, Tensor]:
    """Return the weights that `keep_best` chose."""
    name = (_folder(run) / f"best-{cycle}.txt").read_text().strip()
    return load_file(_folder(run) / f"{name}.safetensors", device=str(run.team.device))


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


def _folder(run: Run) -> Path:
    return run.config.output / "snapshots"


def _files(run: Run, cycle: int) -> list[Path]:
    return sorted(_folder(run).glob(f"gan-{cycle}-*.safetensors"))


def _state(run: Run) -> dict[str, Tensor]:
    return {key: torch.clone(value) for key, value in run.average.state_dict().items()}
