"""Phases 2 and 3 of training, and how a killed run goes on."""

from __future__ import annotations

import csv
import dataclasses
from pathlib import Path
from typing import Any

import cv2
import pytest
import torch
from photographs import picture
from safetensors import safe_open
from safetensors.torch import load_file
from test_pretrain import ALONE

from restore.errors import ConfigError, MediaError
from restore.generators.compact import Compact
from restore.train import Progress, TrainConfig, nogan, snapshots, train
from restore.train.config import Choice, Content, Critic, Gan, Row
from restore.train.run import Run
from restore.train.validate import write_picture


@pytest.fixture
def short_gan(pretraining: TrainConfig) -> TrainConfig:
    """All three phases."""
    return dataclasses.replace(
        pretraining,
        pretrain=(Row(64, 2, steps=1),),
        critic=Critic(filters=4, pictures=6, rows=(Row(96, 2, steps=2),)),
        gan=Gan(
            steps=6, pixels=96, batch=2, threshold=9.0, content=Content(absolute=1.0), average=0.5, snapshot_every=2
        ),
        choice=Choice(pictures=2),
    )


def same(one: Path, two: Path) -> bool:
    here, there = load_file(one), load_file(two)
    return all(torch.equal(here[key], there[key]) for key in here)


def test_the_phases_follow_one_another_and_leave_their_curve(short_gan: TrainConfig) -> None:
    steps: list[Progress] = []
    path = train(short_gan, progress=steps.append)
    assert [step.phase for step in steps] == ["pretrain-0"] + 2 * ["critic-0-0"] + 6 * ["gan-0"]
    with safe_open(path, "pt") as file:
        assert file.metadata()["phases"].split() == [
            "pretrain-0", "settle", "render-0", "critic-0-0", "gan-0", "choose-0",
        ]  # fmt: skip
    with (short_gan.output / "gan-0.csv").open() as file_:
        rows = list(csv.DictReader(file_))
    assert [row["snapshot"] for row in rows] == ["gan-0-before", "gan-0-000002", "gan-0-000004", "gan-0-000006"]
    assert [row["chosen"] for row in rows].count("True") == 1
    assert cv2.imread(str(short_gan.output / "gan-0.png")) is not None
    before, after = (short_gan.output / "snapshots" / f"gan-0-{name}.safetensors" for name in ("before", "000006"))
    settled = train(dataclasses.replace(short_gan, critic=Critic(), gan=Gan(), output=short_gan.output / "alone"))
    assert all(torch.equal(value.half(), load_file(settled)[key]) for key, value in load_file(before).items())
    assert not same(before, after)


def test_the_critic_learns_until_its_threshold_then_the_generator_does_one_step(
    short_gan: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns: list[str] = []
    losses = iter([0.9, 0.7, 0.6, 0.8, 0.5])

    def critic_step(*_: Any) -> float:
        turns.append("critic")
        return next(losses)

    monkeypatch.setattr(nogan, "_critic_step", critic_step)
    monkeypatch.setattr(nogan, "_generator_step", lambda *_: turns.append("generator"))
    monkeypatch.setattr(snapshots, "take", lambda *_: None)
    gan = dataclasses.replace(short_gan.gan, steps=7, threshold=0.65)
    short_gan.output.mkdir()
    run = Run(dataclasses.replace(short_gan, gan=gan), ALONE)
    run.critic = nogan._critic(short_gan, ALONE)
    nogan.play(run, 0)
    assert turns == ["critic", "critic", "critic", "generator", "critic", "critic", "generator"]


def test_in_the_gan_each_network_learns_in_its_own_turn(short_gan: TrainConfig) -> None:
    short_gan.output.mkdir()
    run = Run(dataclasses.replace(short_gan, gan=dataclasses.replace(short_gan.gan, steps=2)), ALONE)
    run.critic = nogan._critic(short_gan, ALONE)
    networks = {"generator": run.generator, "critic": run.critic}
    rates: list[dict[str, float]] = []

    def copies() -> dict[str, list[torch.Tensor]]:
        return {name: [p.detach().clone() for p in network.parameters()] for name, network in networks.items()}

    states = [copies()]

    def report(_: Progress) -> None:
        states.append(copies())
        rates.append({name: optimizer.param_groups[-1]["lr"] for name, optimizer in run.optimizers.items()})
        assert all(group["betas"] == (0.0, 0.9) for o in run.optimizers.values() for group in o.param_groups)

    run.report = report
    nogan.play(run, 0)
    assert rates == 2 * [{"generator": pytest.approx(2e-5), "critic": pytest.approx(1e-4)}]  # two time scales

    def moved(name: str, step: int) -> bool:
        return any(not torch.equal(a, b) for a, b in zip(states[step][name], states[step + 1][name], strict=True))

    assert (moved("critic", 0), moved("generator", 0)) == (True, False)
    assert (moved("critic", 1), moved("generator", 1)) == (False, True)


def test_a_cycle_begins_with_the_snapshot_chosen_before_and_the_last_choice_is_exported(
    short_gan: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    best = {"gan-0-000004", "gan-1-000002"}

    def judge(_: Run, network: Any, snapshot: str = "", **more: Any) -> dict[str, Any]:
        return {"snapshot": snapshot, "fd": float(snapshot not in best), "auc": 90, "outliers": 0, "colorfulness": 30}

    monkeypatch.setattr(Run, "judge", judge)
    critic = dataclasses.replace(short_gan.critic, first=(Row(64, 2, steps=1),))
    steps: list[Progress] = []
    path = train(dataclasses.replace(short_gan, critic=critic, cycles=2), progress=steps.append)
    phases = list(dict.fromkeys(step.phase for step in steps))
    assert phases == ["pretrain-0", "critic-0-0", "critic-0-1", "gan-0", "critic-1-0", "gan-1"]
    kept = {file.stem: file for file in (short_gan.output / "snapshots").iterdir()}
    assert same(kept["gan-0-000004"], kept["best-0"])
    assert same(kept["gan-0-000004"], kept["gan-1-before"])
    exported = load_file(path)
    assert all(torch.equal(value.half(), exported[key]) for key, value in load_file(kept["gan-1-000002"]).items())
    assert not same(kept["gan-1-before"], kept["gan-1-000002"])


@pytest.mark.parametrize("killed", [("pretrain-0", 1), ("critic-0-0", 1), ("gan-0", 3), ("gan-0", 4)])
def test_a_run_that_was_killed_goes_on_as_if_it_had_not_been(
    short_gan: TrainConfig, tmp_path: Path, killed: tuple[str, int]
) -> None:
    whole = train(short_gan)

    def kill(progress: Progress) -> None:
        if (progress.phase, progress.step) == killed:
            raise KeyboardInterrupt

    cut = dataclasses.replace(short_gan, output=tmp_path / "cut")
    with pytest.raises(KeyboardInterrupt):
        train(cut, progress=kill)
    seen: list[Progress] = []
    assert same(whole, train(cut, progress=seen.append))
    assert (seen[0].phase, seen[0].step) == killed  # the step that was not saved is done again


def test_a_run_that_is_over_does_nothing_and_one_that_is_to_start_over_does_all(pretraining: TrainConfig) -> None:
    train(pretraining)
    seen: list[Progress] = []
    train(pretraining, progress=seen.append)
    assert not seen
    train(pretraining, resume=False, progress=seen.append)
    assert len(seen) == 4


def test_a_checkpoint_of_other_settings_or_pictures_is_refused(pretraining: TrainConfig, photographs: Path) -> None:
    train(pretraining)
    with pytest.raises(ConfigError, match="made with other seed, settings"):
        train(dataclasses.replace(pretraining, seed=3, settings={"bins": 9, "pixels": 64}))
    (photographs / "new.jpg").write_bytes(picture(20))
    with pytest.raises(ConfigError, match="made with other data"):
        train(pretraining)


def test_a_run_may_start_from_weights(pretraining: TrainConfig, tiny_weights: Path) -> None:
    start = dataclasses.replace(
        pretraining, start=str(tiny_weights), settings={"pixels": 64}, pretrain=pretraining.pretrain[:1]
    )
    run = Run(start, ALONE)
    assert torch.equal(run.generator.state_dict()["up16.conv.0.weight"], load_file(tiny_weights)["up16.conv.0.weight"])
    with pytest.raises(ConfigError, match="holds weights of compact, and the generator is cnn"):
        Run(dataclasses.replace(start, generator="cnn", settings={"filters": 4}), ALONE)


def test_a_sheet_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    import numpy as np

    with pytest.raises(MediaError, match="sheet cannot be written"):
        write_picture(tmp_path / "none" / "sheet.png", np.zeros((4, 4, 3), np.uint8))


@pytest.mark.parametrize("more", [0.0, 1.4])
def test_the_palette_is_enlivened_up_to_a_share_of_the_photographs_colourfulness(
    short_gan: TrainConfig, more: float
) -> None:
    short_gan.output.mkdir()
    run = Run(dataclasses.replace(short_gan, choice=Choice(pictures=2)), ALONE)
    network = run.average
    assert isinstance(network, Compact)
    network.bins.mul_(0.4)
    palette = network.bins.clone()
    snapshots.take(short_gan.output / "snapshots" / "gan-0-before.safetensors", network)
    nogan.choose(run, 0)
    assert torch.equal(network.bins, palette)
    pale = run.history[-1]
    truth = pale["colorfulness"] - pale["colorfulness_delta"]
    asked = Choice(pictures=2, colorfulness=more * pale["colorfulness"] / truth)
    again = Run(dataclasses.replace(short_gan, choice=asked), ALONE)
    nogan.choose(again, 0)
    factor = float(again.generator.state_dict()["bins"].norm() / palette.norm())
    assert factor == pytest.approx(1) if not more else factor > 1.1
    assert again.history[-1]["colorfulness"] == pytest.approx(max(1.0, more) * pale["colorfulness"], rel=0.1)
