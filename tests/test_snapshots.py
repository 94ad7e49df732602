"""The choice of a snapshot."""

from __future__ import annotations

from pathlib import Path

import cv2
import pytest
import torch
from safetensors.torch import save_file

from restore.errors import MediaError
from restore.train.config import Choice
from restore.train.snapshots import blended, curve, inflection

CHOICE = Choice(auc_loss=0.5, outliers=0.5, patience=2)


def rows(*distances: float, auc: float = 90.0, outliers: float = 0.1) -> list[dict[str, float]]:
    return [{"fd": fd, "auc": auc, "outliers": outliers, "colorfulness": 30.0} for fd in distances]


def test_the_least_distance_before_the_decline_is_chosen() -> None:
    assert inflection(rows(9, 7, 5, 6, 6.5, 1), CHOICE) == 2  # the last one comes after the decline


def test_a_dent_in_the_curve_is_not_the_decline() -> None:
    assert inflection(rows(9, 7, 8, 5, 6), CHOICE) == 3


def test_nothing_better_than_before_the_gan_keeps_the_generator_as_it_was() -> None:
    assert inflection(rows(5, 6, 7, 4), CHOICE) == 0


def test_wrong_colours_are_not_bought_with_a_small_distance() -> None:
    table = rows(9, 8, 5)
    table[2]["auc"] = 89.0
    assert inflection(table, CHOICE) == 1
    table[2] |= {"auc": 90.0, "outliers": 0.9}
    assert inflection(table, CHOICE) == 1


def test_a_blend_lies_between_its_ends(tmp_path: Path) -> None:
    for name, value in (("a", 1.0), ("b", 3.0)):
        save_file({"w": torch.tensor([value]), "n": torch.tensor(int(value))}, tmp_path / f"{name}.safetensors")
    mixed = blended(tmp_path / "a.safetensors", tmp_path / "b.safetensors", 0.25)
    assert mixed["w"].item() == 1.5
    assert mixed["n"].item() == 3


def test_the_curve_is_drawn(tmp_path: Path) -> None:
    table = [row | {"snapshot": f"gan-0-{n}"} for n, row in enumerate(rows(9, 7, 8))]
    curve(tmp_path / "curve.png", table, 1)
    picture = cv2.imread(str(tmp_path / "curve.png"))
    assert picture is not None
    assert picture.min() < 60
    with pytest.raises(MediaError, match="curve cannot be written"):
        curve(tmp_path / "none" / "curve.png", table, 1)
