"""Every recipe of the field by the one loop: from its settings to weights that colour."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from test_pretrain import ALONE
from torch import nn

from restore import generators
from restore.errors import ConfigError, WeightsError
from restore.generators.deoldify import DeOldifyWide
from restore.train import Progress, TrainConfig, train
from restore.train.config import Choice, Content, Critic, Gan, Row
from restore.train.run import Run

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


def test_deoldify_starts_from_torchvisions_weights_of_its_encoder(pretraining: TrainConfig, tmp_path: Path) -> None:
    generator, settings = RECIPES["wide"]
    names = {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3", "7": "layer4"}
    torch.manual_seed(7)
    encoder = DeOldifyWide(**settings["settings"]).layers[0]
    assert isinstance(encoder, nn.Module)
    state = {names[key[0]] + key[1:]: value for key, value in encoder.state_dict().items() if "num_b" not in key}
    assert {"conv1.weight", "bn1.running_var", "layer1.0.downsample.1.bias", "layer4.0.conv3.weight"} <= set(state)
    path = tmp_path / "resnet.pth"
    torch.save(state | {"fc.weight": torch.zeros(2, 2)}, path)
    config = dataclasses.replace(pretraining, generator=generator, encoder_weights=str(path), **settings)
    started = Run(config, ALONE).generator.state_dict()
    assert all(torch.equal(started[f"layers.0.{key}"], value) for key, value in encoder.state_dict().items())
    assert config.record["encoder_weights"] == "resnet.pth"
    torch.save({key: value for key, value in state.items() if "layer4" not in key}, path)
    with pytest.raises(WeightsError, match=r"(?s)resnet.pth does not fit the generator's ResNet:.*7\.0\.conv1"):
        Run(config, ALONE)
    with pytest.raises(ConfigError, match="only DeOldify's generators take a file, and the generator is compact; exp"):
        Run(dataclasses.replace(pretraining, encoder_weights=str(path)), ALONE)
