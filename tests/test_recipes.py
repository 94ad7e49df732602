"""Every recipe of the field by the one loop: from its settings to weights that colour."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

from restore import generators
from restore.train import Progress, TrainConfig, train
from restore.train.config import Choice, Content, Critic, Gan, Row

ONE = (Row(64, 2, steps=1),)
DEOLDIFY: dict[str, Any] = {
    "pretrain": (Row(64, 2, steps=1, frozen=True), Row(64, 2, steps=1, encoder_rate=1e-3)),
    "content": Content(feature=1.0),
    "average": 0.0,
    "critic": Critic(filters=8, pictures=2, rows=ONE),
    "gan": Gan(steps=2, pixels=64, batch=2, threshold=9.0, snapshot_every=2),
}
RECIPES: dict[str, tuple[str, dict[str, Any]]] = {
    "regression": ("cnn", {"settings": {"filters": 4}, "pretrain": ONE, "content": Content(squared=1.0)}),
    "classification": (
        "eccv16",
        {"settings": {"width": 4, "temperature": 0.38}, "pretrain": ONE, "content": Content(distribution=1.0)},
    ),
    "pix2pix": (
        "pix2pix",
        {
            "settings": {"filters": 4, "levels": 4},
            "pretrain": (),
            "critic": Critic("patch", filters=4),
            "gan": Gan(
                steps=4, pixels=64, batch=2, threshold=0.0, critic_rate=1.0, betas=(0.5, 0.999), frozen=False,
                content=Content(absolute=100.0), snapshot_every=4,
            ),
        },
    ),
    "wide": ("deoldify_wide", {"settings": {"depths": (1, 1, 1, 1), "width": 4, "nf": 0.125}, **DEOLDIFY}),
    "deep": ("deoldify_deep", {"settings": {"depths": (1, 1, 1, 1), "width": 8, "nf": 1.5}, **DEOLDIFY}),
}  # fmt: skip


@pytest.mark.parametrize("recipe", list(RECIPES))
def test_a_recipe_trains_its_generator_by_the_same_loop(pretraining: TrainConfig, recipe: str) -> None:
    generator, settings = RECIPES[recipe]
    config = dataclasses.replace(
        pretraining, generator=generator, choice=Choice(pictures=2, auc_loss=99.0), checkpoint_every=99.0, **settings
    )
    seen: list[Progress] = []
    loaded = generators.load(train(config, progress=seen.append), precision="fp32")
    assert len(seen) == sum(row.steps for row in (*config.pretrain, *config.critic.rows)) + config.gan.steps
    assert all(step.loss > 0 for step in seen)
    assert loaded.generator == generator
    with torch.inference_mode():
        assert loaded(torch.rand(1, 1, *loaded.size(64, 64))).shape[:2] == (1, 2)
