"""Settings of a training run."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import yaml

from restore.errors import ConfigError
from restore.train.config import Content, Critic, Gan, Row, TrainConfig, load

CONFIGS = Path(__file__).resolve().parents[1] / "configs" / "train"
START = "data: a\nvalidation: b\noutput: c\n"
ROWS = "pretrain: [{pixels: 64, batch: 2, steps: 1}]\n"


def test_every_shipped_configuration_is_valid() -> None:
    files = sorted(CONFIGS.glob("*.yaml"))
    assert {"compact", "classification", "deoldify-stable", "pix2pix", "regression"} <= {file.stem for file in files}
    for file in files:
        assert load(file).recipe


def test_the_default_configuration_names_every_setting_of_its_recipe() -> None:
    values = yaml.safe_load((CONFIGS / "compact.yaml").read_text())
    left_out = {"settings", "start", "feature_weights"}
    assert set(values) | left_out == {field.name for field in dataclasses.fields(TrainConfig)}
    for name, cls, others in (("gan", Gan, set()), ("critic", Critic, {"first"})):
        assert set(values[name]) | others == {field.name for field in dataclasses.fields(cls)}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (START + ROWS + "lerning_rate: 1", r"unknown setting 'lerning_rate' \(known: data, validation"),
        (START + ROWS + "content: {gamma: 1}", r"content: unknown setting 'gamma' \(.*known: distribution"),
        (START + ROWS + "gan: {content: {gamma: 1}}", r"c.yaml: gan.content: unknown setting 'gamma'"),
        (START + "pretrain: [{pixel: 64, batch: 2}]", r"pretrain\[0\]: unknown setting 'pixel' \(did you mean pixels"),
        (START + ROWS + "seed: many", r"c.yaml: seed: input should be a valid integer \(found 'many'\)"),
        ("data: a\nvalidation: b", "output must be given"),
        ("- a", "expected settings as `name: value`, found \\['a'\\]"),
        ("a: [", r"c.yaml:1: expected the node content"),
        (START, "nothing to train"),
        (START + "pretrain: [{pixels: 65, batch: 2, steps: 1}]", r"c.yaml: pretrain\[0\]: pixels must be a multiple"),
        (START + "pretrain: [{pixels: 64, batch: 2}]", r"pretrain\[0\]: give steps, epochs or minutes"),
        (START + ROWS + "precision: fp8", "precision: input should be 'bf16' or 'fp32'"),
        (START + ROWS + "generator: vgan", r"generator: unknown 'vgan' \(.*known: .*compact"),
        (START + ROWS + "critic: {rows: [{pixels: 64, batch: 2, steps: 1}]}", "critic.pictures: its rows need renders"),
    ],
)
def test_a_wrong_configuration_is_explained(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        load(path)


def test_a_missing_configuration_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml: cannot be read"):
        load(tmp_path / "none.yaml")


def test_what_is_kept_leaves_out_places_and_rhythm_only(tmp_path: Path) -> None:
    config = TrainConfig(tmp_path, tmp_path, tmp_path, pretrain=(Row(64, 2, 1),), content=Content(absolute=1.0))
    moved = dataclasses.replace(config, output=tmp_path / "b", threads=7, checkpoint_every=9.0)
    assert moved.kept == config.kept
    assert dataclasses.replace(config, seed=1).kept != config.kept
    assert str(tmp_path) not in str(config.record)
