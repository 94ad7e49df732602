"""Phase 1 of training: what is learned, by how many processes, and what of it is written."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import pytest
import torch
import yaml
from photographs import picture
from safetensors import safe_open
from torch import nn

from restore import generators
from restore.errors import ConfigError
from restore.generators.compact import Compact
from restore.photographs import find, fingerprint
from restore.train import Progress, TrainConfig, adapters, nogan, train
from restore.train.augment import PLAIN
from restore.train.board import Board
from restore.train.config import Content, Row
from restore.train.content import ContentLoss
from restore.train.run import Run
from restore.train.team import Team, joined

ALONE = Team(0, 1, torch.device("cpu"))


def test_a_run_writes_weights_with_their_record_metrics_and_a_sheet(pretraining: TrainConfig) -> None:
    steps: list[Progress] = []
    path = train(pretraining, progress=steps.append)
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
    assert json.loads(record["versions"])["torch"] == torch.__version__
    assert (record["recipe"], record["seed"], record["samples"]) == ("test", "0", "10")
    assert int(record["seconds"]) >= 0
    assert record["data_sha256"] == record["validation_sha256"] == fingerprint(find(pretraining.data))
    with (pretraining.output / "metrics.csv").open() as file_:
        rows = list(csv.DictReader(file_))
    assert float(rows[-1]["auc"]) > 0
    sheet = cv2.imread(str(pretraining.output / "sheets" / "settle-000000.png"))
    assert sheet is not None
    assert sheet.shape == (192, 3 * 3 * 192, 3)


def test_exported_weights_run(pretraining: TrainConfig) -> None:
    loaded = generators.load(train(pretraining), precision="fp32")
    assert loaded.generator == "compact"
    assert loaded(torch.rand(1, 1, 64, 64)).shape == (1, 2, 32, 32)


def test_a_frozen_encoder_learns_in_its_norms_only(pretraining: TrainConfig) -> None:
    run = Run(dataclasses.replace(pretraining, pretrain=pretraining.pretrain[:1]), ALONE)
    pretraining.output.mkdir()
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


def test_the_learning_rate_rises_then_falls_in_each_row(pretraining: TrainConfig) -> None:
    run = Run(dataclasses.replace(pretraining, checkpoint_every=99.0), ALONE)
    pretraining.output.mkdir()
    parameter = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([{"params": [parameter], "scale": 0.5}], lr=1.0)
    row = Row(64, 2, steps=20, rate=2.0, warmup=0.25, floor=0.1)
    rates = [optimizer.param_groups[0]["lr"] for _ in run.steps("pretrain-9", row, {"generator": optimizer})]
    assert max(rates) == rates[5] == 1.0
    assert rates == sorted(rates[:5]) + sorted(rates[5:], reverse=True)
    assert 0.1 < rates[-1] < 0.12


def test_the_momentum_falls_while_the_rate_rises_and_rises_while_it_falls(pretraining: TrainConfig) -> None:
    run = Run(dataclasses.replace(pretraining, checkpoint_every=99.0), ALONE)
    pretraining.output.mkdir()
    optimizer = torch.optim.AdamW([{"params": [nn.Parameter(torch.zeros(1))], "scale": 1.0}], betas=(0.9, 0.99))
    row = Row(64, 2, steps=20, rate=2.0, warmup=0.25, momentum=(0.95, 0.85))
    betas = [optimizer.param_groups[0]["betas"] for _ in run.steps("pretrain-9", row, {"generator": optimizer})]
    first = [beta for beta, _ in betas]
    assert first[0] == pytest.approx(0.95)
    assert min(first) == first[5] == pytest.approx(0.85)
    assert first == sorted(first[:5], reverse=True) + sorted(first[5:])
    assert first[-1] > 0.945
    assert {second for _, second in betas} == {0.99}


def test_a_row_may_be_as_long_as_epochs_or_time_say(pretraining: TrainConfig) -> None:
    pretraining.output.mkdir()
    run = Run(dataclasses.replace(pretraining, checkpoint_every=99.0), ALONE)
    assert len(list(run.steps("a", Row(64, 2, epochs=1.5), {}))) == 5  # 9 of 6 pictures, two a step
    seconds = Row(64, 2, steps=10**6, minutes=0.2 / 60)
    assert 1 <= len(list(run.steps("b", seconds, {}))) < 10**5


def test_the_averaged_weights_follow_by_their_decay_and_faster_at_the_start_of_a_phase(
    pretraining: TrainConfig,
) -> None:
    run = Run(pretraining, ALONE)
    average, now = (network.state_dict()["head.weight"] for network in (run.average, run.generator))
    now.add_(1.0)
    for step, decay, gap in ((0, 0.9, 0.1), (8, 0.9, 0.05), (10_000, 0.9, 0.045), (10_000, 0.0, 0.0)):
        run.step = step  # (1 + step) / (10 + step) is 0.1, then 0.5, then more than the decay
        run.follow(decay)
        assert (now - average).mean().item() == pytest.approx(gap, abs=1e-6)


def test_tensorboard_finds_the_losses_the_scores_and_the_sheets(pretraining: TrainConfig) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]

    train(dataclasses.replace(pretraining, board=True, pretrain=(Row(64, 2, steps=11),), checkpoint_every=99.0))
    (folder,) = {file.parent for file in (pretraining.output / "board").rglob("events*")}
    found = EventAccumulator(str(folder)).Reload()
    assert found.Tags()["images"] == ["sheet"]
    assert {"pretrain/content", "validation/ab_error", "validation/auc"} <= set(found.Tags()["scalars"])
    (point,) = found.Scalars("pretrain/content")
    assert (point.step, point.value > 0) == (20, True)


def test_a_board_without_tensorboard_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ConfigError, match=r"needs TensorBoard; install restore\[train\] or set board: false"):
        Board(tmp_path)


def test_calm_takes_the_weights_of_the_loss_back(pretraining: TrainConfig) -> None:
    pretraining.output.mkdir()
    changes = {}
    for calm in (0.0, 1.0):
        run = Run(dataclasses.replace(pretraining, calm=calm), ALONE)
        before = run.average.state_dict()["head.bias"].clone()
        nogan.settle(run)
        changes[calm] = run.generator.state_dict()["head.bias"] - before
    rare, common = int(run.prior.argmin()), int(run.prior.argmax())
    assert changes[1.0][rare] < 0 < changes[1.0][common]
    assert not changes[0.0].any()


def test_four_pictures_are_learned_by_heart(pretraining: TrainConfig, photographs: Path) -> None:
    """The mean colour error of a step falls to less than half in sixty steps."""
    (photographs / "a.tar").unlink()
    for seed in range(3):
        (photographs / f"{seed}.jpg").write_bytes(picture(seed))
    still = dataclasses.replace(
        pretraining, pretrain=(Row(64, 4, steps=60, rate=1e-3),), content=Content(absolute=1.0),
        augmentation=dataclasses.replace(PLAIN, crop_area=1.0, crop_aspect=1.0, flip=0.0),
        degradation=dataclasses.replace(pretraining.degradation, share=0.0),
        settings={"bins": 32, "pixels": 64}, checkpoint_every=99.0,
    )  # fmt: skip
    errors: list[float] = []
    train(still, progress=lambda step: errors.append(step.loss))
    assert sum(errors[-5:]) < 0.5 * sum(errors[:5])


def test_each_term_of_the_content_loss_has_its_weight(pretraining: TrainConfig) -> None:
    run = Run(pretraining, ALONE)
    batch = run.photos.batch(0, 2, 64)
    found = nogan._painted(run, adapters.Painting(run.generator), batch)

    def loss(**weights: float) -> float:
        return ContentLoss(Content(**weights), pretraining, run.generator, run.prior)(found, batch).item()

    terms = {"distribution": 1.0, "mean": 0.1, "squared": 2.0, "absolute": 3.0, "feature": 0.5}
    apart = [loss(**{name: weight}) for name, weight in terms.items()]
    assert all(value > 0 for value in apart)
    assert sum(apart) == pytest.approx(loss(**terms), rel=1e-5)
    assert apart[2] == pytest.approx(2 * (found.ab - batch.ab).square().mean().item() / 100**2, rel=1e-5)
    assert apart[3] == pytest.approx(3 * (found.ab - batch.ab).abs().mean().item() / 100, rel=1e-5)


def test_a_content_loss_that_does_not_fit_is_refused(pretraining: TrainConfig) -> None:
    run = Run(pretraining, ALONE)
    cnn = dataclasses.replace(pretraining, generator="cnn")
    with pytest.raises(ConfigError, match="the generator cnn has no distribution"):
        ContentLoss(Content(distribution=1.0), cnn, generators.build("cnn", filters=4), run.prior)
    with pytest.raises(ConfigError, match="every term has weight 0"):
        ContentLoss(Content(), pretraining, run.generator, run.prior)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("compact", {"bins": 8, "pixels": 64}),
        ("cnn", {"filters": 4}),
        ("pix2pix", {"filters": 4}),
        ("eccv16", {"width": 4}),
    ],
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


def written(folder: Path, config: TrainConfig, **changes: Any) -> Path:
    """Write settings as a user does."""
    file = folder / "config.yaml"
    settings = config.to_dict() | changes
    file.write_text(yaml.safe_dump({key: value for key, value in settings.items() if value is not None}))
    return file


def test_the_command_trains_where_there_is_no_terminal_too(
    pretraining: TrainConfig, tmp_path: Path, call: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    file = written(tmp_path, pretraining)
    assert call("train", file) == 0
    said = capsys.readouterr()
    assert said.out == f"weights are in {pretraining.output / 'tiny.safetensors'}\n"
    assert said.err == ""


def test_two_processes_train_one_generator(pretraining: TrainConfig, tmp_path: Path) -> None:
    """Both see half of each batch in all phases, and end with the weights of the leader, who writes the files."""
    row = {"pixels": 64, "batch": 4, "steps": 2}
    gan = {**row, "threshold": 9.0, "content": {"absolute": 1.0}, "snapshot_every": 2}
    critic = {"filters": 8, "pictures": 4, "rows": [row]}
    file = written(tmp_path, pretraining, pretrain=[row], choice={"pictures": 2}, critic=critic, gan=gan)
    code = (
        "import sys\nfrom pathlib import Path\nfrom restore.train import load, nogan\n"
        "def shown(run, cycle, choose=nogan.choose):\n"
        "    for network in (run.generator, run.critic):\n"
        "        print(sum(float(p.detach().double().sum()) for p in network.parameters()))\n"
        "    choose(run, cycle)\n    print(run.samples, float(run.generator.head.weight.detach().double().sum()))\n"
        "nogan.choose = shown\nnogan.train(load(Path(sys.argv[1])))\n"
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
    assert said[0] == said[1]
    assert said[0][2] == str(3 * 2 * 4 + 4)  # three phases and the renders
    with safe_open(pretraining.output / "tiny.safetensors", "pt") as weights:
        assert weights.metadata()["phases"].split()[-1] == "choose-0"


def test_a_batch_that_cannot_be_shared_out_is_refused() -> None:
    team = Team(1, 2, torch.device("cpu"))
    assert team.share(10, 6) == (13, 3)
    with pytest.raises(ConfigError, match="a batch of 5 cannot be shared out among 2 processes"):
        team.share(10, 5)


@pytest.mark.parametrize(("name", "message"), [("cuda:77", "cuda:77 is not there"), ("warp", "found 'warp'")])
def test_a_device_that_is_not_there_is_named(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message), joined(name):
        pass
