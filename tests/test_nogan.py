"""The three phases of training: what is learned, in which order, and how a killed run goes on."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import pytest
import torch
from photographs import picture
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn

from restore import generators
from restore.errors import ConfigError, MediaError, RestoreError
from restore.generators.compact import Compact
from restore.train import Progress, TrainConfig, adapters, nogan, snapshots, train
from restore.train.augment import PLAIN
from restore.train.config import Choice, Content, Critic, Gan, Row
from restore.train.content import ContentLoss
from restore.train.run import Run
from restore.train.team import Team, joined
from restore.train.validate import write_picture

ALONE = Team(0, 1, torch.device("cpu"))
TINY = {"bins": 8, "pixels": 64}


@pytest.fixture
def config(photographs: Path, tmp_path: Path) -> TrainConfig:
    """Phase 1 alone, of two rows."""
    return TrainConfig(
        data=photographs,
        validation=photographs,
        output=tmp_path / "out",
        name="tiny",
        recipe="test",
        settings=TINY,
        pretrain=(Row(64, 2, steps=2, frozen=True), Row(96, 3, steps=2)),
        encoder_weights="random",
        precision="fp32",
        validation_pictures=2,
        checkpoint_every=0.0,
        board=False,
        threads=1,  # two would wait for one another on a busy machine
    )


@pytest.fixture
def short_gan(config: TrainConfig) -> TrainConfig:
    """All three phases."""
    return dataclasses.replace(
        config,
        pretrain=(Row(64, 2, steps=1),),
        critic=Critic(filters=4, pictures=6, rows=(Row(96, 2, steps=2),)),
        gan=Gan(
            steps=6, pixels=96, batch=2, threshold=9.0, content=Content(absolute=1.0), average=0.5, snapshot_every=2
        ),
        choice=Choice(pictures=2),
    )


def weights_of(path: Path) -> dict[str, torch.Tensor]:
    return load_file(path)


def same(one: Path, two: Path) -> bool:
    here, there = weights_of(one), weights_of(two)
    return all(torch.equal(here[key], there[key]) for key in here)


# Phase 1


def test_a_run_writes_weights_with_their_record_metrics_and_a_sheet(config: TrainConfig) -> None:
    steps: list[Progress] = []
    path = train(config, progress=steps.append)
    assert [(step.phase, step.step) for step in steps] == [
        ("pretrain-0", 1), ("pretrain-0", 2), ("pretrain-1", 1), ("pretrain-1", 2),
    ]  # fmt: skip
    assert steps[-1].samples == 2 + 2 + 3 + 3
    with safe_open(path, "pt") as file:
        record, keys = file.metadata(), set(file.keys())
        assert file.get_tensor("head.weight").dtype == torch.float16
    assert keys == set(Compact(bins=8).state_dict())
    assert record["phases"] == "pretrain-0 pretrain-1 settle"
    assert json.loads(record["settings"]) == {"pixels": 64, "bins": 8, "temperature": 0.7}
    assert json.loads(record["config"])["pretrain"][1]["pixels"] == 96
    assert json.loads(record["metrics"])["ab_error"] > 0
    with (config.output / "metrics.csv").open() as file_:
        rows = list(csv.DictReader(file_))
    assert float(rows[-1]["auc"]) > 0
    sheet = cv2.imread(str(config.output / "sheets" / "settle-000000.png"))
    assert sheet is not None
    assert sheet.shape == (192, 3 * 3 * 192, 3)


def test_exported_weights_run(config: TrainConfig) -> None:
    loaded = generators.load(train(config), precision="fp32")
    assert loaded.generator == "compact"
    assert loaded(torch.rand(1, 1, 64, 64)).shape == (1, 2, 32, 32)


def test_a_frozen_encoder_learns_in_its_norms_only(config: TrainConfig) -> None:
    run = Run(dataclasses.replace(config, pretrain=config.pretrain[:1]), ALONE)
    config.output.mkdir()
    before = {key: value.clone() for key, value in run.generator.named_parameters()}
    nogan.pretrain(run)
    moved = {key for key, value in run.generator.named_parameters() if not torch.equal(before[key], value)}
    assert "encoder._bn0.weight" in moved
    assert not any("conv" in key for key in moved if key.startswith("encoder."))
    assert any(key.startswith("up16.") for key in moved)


def test_the_encoders_early_layers_learn_slowest() -> None:
    generator = Compact(bins=8)
    rates: dict[str, float] = {}
    names = {id(parameter): name for name, parameter in generator.named_parameters()}
    for group in adapters.groups(generator, "compact", 0.01, 0.02):
        rates |= {names[id(parameter)]: group["scale"] for parameter in group["params"]}
        assert group["weight_decay"] == (0.02 if group["params"][0].ndim == 4 else 0.0)
    assert set(rates) == set(names.values())
    assert rates["encoder._conv_stem.weight"] == 0.01
    assert rates["encoder._blocks.14._project_conv.weight"] == pytest.approx(0.1)
    assert rates["head.weight"] == 1.0


def test_the_learning_rate_rises_then_falls_in_each_row(config: TrainConfig) -> None:
    run = Run(dataclasses.replace(config, checkpoint_every=99.0), ALONE)
    config.output.mkdir()
    parameter = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([{"params": [parameter], "scale": 0.5}], lr=1.0)
    row = Row(64, 2, steps=20, rate=2.0, warmup=0.25, floor=0.1)
    rates = [optimizer.param_groups[0]["lr"] for _ in run.steps("pretrain-9", row, {"generator": optimizer})]
    assert max(rates) == rates[5] == 1.0
    assert rates == sorted(rates[:5]) + sorted(rates[5:], reverse=True)
    assert 0.1 < rates[-1] < 0.12


def test_a_row_may_be_as_long_as_epochs_or_time_say(config: TrainConfig) -> None:
    config.output.mkdir()
    run = Run(dataclasses.replace(config, checkpoint_every=99.0), ALONE)
    assert len(list(run.steps("a", Row(64, 2, epochs=1.5), {}))) == 5  # 9 of 6 pictures, two a step
    seconds = Row(64, 2, steps=10**6, minutes=0.2 / 60)
    assert 1 <= len(list(run.steps("b", seconds, {}))) < 10**5


def test_calm_takes_the_weights_of_the_loss_back(config: TrainConfig) -> None:
    config.output.mkdir()
    changes = {}
    for calm in (0.0, 1.0):
        run = Run(dataclasses.replace(config, calm=calm), ALONE)
        before = run.average.state_dict()["head.bias"].clone()
        nogan.settle(run)
        changes[calm] = run.generator.state_dict()["head.bias"] - before
    rare, common = int(run.prior.argmin()), int(run.prior.argmax())
    assert changes[1.0][rare] < 0 < changes[1.0][common]
    assert not changes[0.0].any()


def test_saturation_makes_the_palette_livelier(config: TrainConfig) -> None:
    config.output.mkdir()
    run = Run(dataclasses.replace(config, saturation=1.25), ALONE)
    before = run.average.state_dict()["bins"].clone()
    nogan.settle(run)
    assert torch.allclose(run.generator.state_dict()["bins"], 1.25 * before)


def test_four_pictures_are_learned_by_heart(config: TrainConfig, photographs: Path) -> None:
    """The mean colour error of a step falls to less than half in sixty steps."""
    (photographs / "a.tar").unlink()
    for seed in range(3):
        (photographs / f"{seed}.jpg").write_bytes(picture(seed))
    still = dataclasses.replace(
        config, pretrain=(Row(64, 4, steps=60, rate=1e-3),), content=Content(absolute=1.0),
        augmentation=dataclasses.replace(PLAIN, crop_area=1.0, crop_aspect=1.0, flip=0.0),
        degradation=dataclasses.replace(config.degradation, share=0.0),
        settings={"bins": 32, "pixels": 64}, checkpoint_every=99.0,
    )  # fmt: skip
    errors: list[float] = []
    train(still, progress=lambda step: errors.append(step.loss))
    assert sum(errors[-5:]) < 0.5 * sum(errors[:5])


# Content


def test_each_term_of_the_content_loss_has_its_weight(config: TrainConfig) -> None:
    run = Run(config, ALONE)
    batch = run.photos.batch(0, 2, 64)
    found = nogan._painted(run, adapters.Painting(run.generator), batch)

    def loss(**weights: float) -> float:
        return ContentLoss(Content(**weights), config, run.generator, run.prior)(found, batch).item()

    terms = {"distribution": 1.0, "mean": 0.1, "squared": 2.0, "absolute": 3.0, "feature": 0.5}
    apart = [loss(**{name: weight}) for name, weight in terms.items()]
    assert all(value > 0 for value in apart)
    assert sum(apart) == pytest.approx(loss(**terms), rel=1e-5)
    assert apart[3] == pytest.approx(3 * (found.ab - batch.ab).abs().mean().item() / 100, rel=1e-5)


def test_a_content_loss_that_does_not_fit_is_refused(config: TrainConfig) -> None:
    run = Run(config, ALONE)
    cnn = dataclasses.replace(config, generator="cnn")
    with pytest.raises(ConfigError, match="the generator cnn has no distribution"):
        ContentLoss(Content(distribution=1.0), cnn, generators.build("cnn", filters=4), run.prior)
    with pytest.raises(ConfigError, match="every term has weight 0"):
        ContentLoss(Content(), config, run.generator, run.prior)


@pytest.mark.parametrize(
    ("name", "settings"),
    [("compact", TINY), ("cnn", {"filters": 4}), ("pix2pix", {"filters": 4}), ("eccv16", {"width": 4})],
)
def test_every_generator_paints_with_the_true_lightness(name: str, settings: dict[str, Any]) -> None:
    from restore.color import lab_from_rgb

    torch.manual_seed(0)
    generator = generators.build(name, **settings)
    grey = torch.rand(2, 1, 256, 256)
    clean = torch.rand(2, 1, 256, 256) * 60 + 20
    _, ab, rgb = adapters.Painting(generator)(grey, clean)
    assert ab.shape[:2] == (2, 2)
    assert rgb.shape == (2, 3, 256, 256)
    assert (lab_from_rgb(rgb.detach())[:, :1] - clean).abs().max() < 0.02
    assert rgb.requires_grad


# Phases 2 and 3


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
    assert all(torch.equal(value.half(), weights_of(settled)[key]) for key, value in weights_of(before).items())
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

    def copies() -> dict[str, list[torch.Tensor]]:
        return {name: [p.detach().clone() for p in network.parameters()] for name, network in networks.items()}

    states = [copies()]
    run.report = lambda _: states.append(copies())
    nogan.play(run, 0)

    def moved(name: str, step: int) -> bool:
        return any(not torch.equal(a, b) for a, b in zip(states[step][name], states[step + 1][name], strict=True))

    assert (moved("critic", 0), moved("generator", 0)) == (True, False)
    assert (moved("critic", 1), moved("generator", 1)) == (False, True)


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


def test_a_run_that_is_over_does_nothing_and_one_that_is_to_start_over_does_all(config: TrainConfig) -> None:
    train(config)
    seen: list[Progress] = []
    train(config, progress=seen.append)
    assert not seen
    train(config, resume=False, progress=seen.append)
    assert len(seen) == 4


def test_a_checkpoint_of_other_settings_or_pictures_is_refused(config: TrainConfig, photographs: Path) -> None:
    train(config)
    with pytest.raises(ConfigError, match="made with other seed, settings"):
        train(dataclasses.replace(config, seed=3, settings={"bins": 9, "pixels": 64}))
    (photographs / "new.jpg").write_bytes(picture(20))
    with pytest.raises(ConfigError, match="made with other data"):
        train(config)


def test_a_loss_that_is_no_number_stops_the_run(config: TrainConfig) -> None:
    wild = dataclasses.replace(config, pretrain=(Row(64, 2, steps=30, rate=1e30),))
    with pytest.raises(RestoreError, match=r"the content loss is (nan|inf) at step \d+ of pretrain-0.*lower rate"):
        train(wild)


def test_a_run_may_start_from_weights(config: TrainConfig, tiny_weights: Path) -> None:
    start = dataclasses.replace(config, start=str(tiny_weights), settings={"pixels": 64}, pretrain=config.pretrain[:1])
    run = Run(start, ALONE)
    assert torch.equal(run.generator.state_dict()["up16.conv.0.weight"], load_file(tiny_weights)["up16.conv.0.weight"])
    with pytest.raises(ConfigError, match="holds weights of compact, and the generator is cnn"):
        Run(dataclasses.replace(start, generator="cnn", settings={"filters": 4}), ALONE)


def test_a_sheet_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    import numpy as np

    with pytest.raises(MediaError, match="sheet cannot be written"):
        write_picture(tmp_path / "none" / "sheet.png", np.zeros((4, 4, 3), np.uint8))


# Several processes


def test_two_processes_train_one_generator(config: TrainConfig, tmp_path: Path) -> None:
    """Both see half of each batch, and end with the weights of the leader."""
    import yaml

    settings = config.to_dict() | {"pretrain": [{"pixels": 64, "batch": 4, "steps": 2}]}
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump({key: value for key, value in settings.items() if value is not None}))
    code = (
        "import sys, hashlib\nfrom pathlib import Path\nfrom restore.train import load, nogan\n"
        "from restore.train.run import Run\nfrom restore.train.team import joined\n"
        "config = load(Path(sys.argv[1]))\nconfig.output.mkdir(exist_ok=True)\n"
        "with joined('cpu') as team:\n    run = Run(config, team)\n    nogan.pretrain(run)\n"
        "    print(team.rank, run.samples, float(run.generator.head.weight.detach().double().sum()))\n"
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = os.environ | {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", code, str(file)]
    processes = [
        subprocess.Popen(command, env=shared | {"RANK": str(rank)}, stdout=subprocess.PIPE, text=True)
        for rank in range(2)
    ]
    said = [process.communicate(timeout=200)[0].split() for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert said[0][1:] == said[1][1:]
    assert said[0][1] == "8"


def test_a_batch_that_cannot_be_shared_out_is_refused() -> None:
    team = Team(1, 2, torch.device("cpu"))
    assert team.share(10, 6) == (13, 3)
    with pytest.raises(ConfigError, match="a batch of 5 cannot be shared out among 2 processes"):
        team.share(10, 5)


@pytest.mark.parametrize(("name", "message"), [("cuda:77", "cuda:77 is not there"), ("warp", "found 'warp'")])
def test_a_device_that_is_not_there_is_named(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message), joined(name):
        pass
