"""What goes wrong in a training run: no space, no number; and what is nowhere lost by it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
import torch
from conftest import small_disk
from test_nogan import same
from test_pretrain import ALONE

from restore.errors import MediaError, RestoreError
from restore.train import Progress, TrainConfig, nogan, snapshots, train
from restore.train.config import Critic, Gan, Row
from restore.train.export import export
from restore.train.run import Run
from restore.train.team import Team
from restore.train.validate import write_rows


@pytest.fixture
def run(pretraining: TrainConfig) -> Run:
    """A run before its first step, with renders to make."""
    pretraining.output.mkdir()
    critic = Critic(filters=4, pictures=6, rows=(Row(96, 2, steps=2),))
    return Run(dataclasses.replace(pretraining, critic=critic, gan=Gan(steps=2)), ALONE)


@pytest.mark.parametrize("space", [2000, 90_000])
@pytest.mark.parametrize("name", ["checkpoint.pt", "renders.npy", "a.safetensors", "b.safetensors", "metrics.csv"])
def test_on_a_full_disk_every_file_is_named_and_the_one_before_stays(run: Run, name: str, space: int) -> None:
    path = run.config.output / name
    writers: dict[str, Callable[[], object]] = {
        "checkpoint.pt": run.save,
        "renders.npy": lambda: nogan.render(run, 0),
        "a.safetensors": lambda: snapshots.take(path, run.average),
        "b.safetensors": lambda: export(run.average, run.config, run.record(), path),
        "metrics.csv": lambda: write_rows(path, [{"fd": 0.1 * number} for number in range(40_000)]),
    }
    path.write_bytes(b"before")
    with small_disk(space), pytest.raises(MediaError, match=rf"{name}: cannot be written: no space left .* run again"):
        writers[name]()
    assert path.read_bytes() == b"before"
    assert [file.name for file in run.config.output.iterdir()] == [name]
    writers[name]()
    assert path.stat().st_size > space


def test_renders_are_an_array_that_numpy_maps(run: Run) -> None:
    nogan.render(run, 0)
    renders = np.load(run.config.output / "renders.npy", mmap_mode="r")
    assert (renders.shape, renders.dtype) == ((6, 3, 96, 96), np.uint8)
    assert renders.std() > 10


def test_a_run_whose_loss_was_no_number_goes_on_with_a_lower_rate(
    pretraining: TrainConfig, caplog: pytest.LogCaptureFixture
) -> None:
    def rated(rate: float, folder: str) -> TrainConfig:
        rows = (Row(64, 2, steps=1), Row(64, 2, steps=3, rate=rate))
        return dataclasses.replace(
            pretraining, pretrain=rows, checkpoint_every=99.0, output=pretraining.output / folder
        )

    with pytest.raises(
        RestoreError, match=r"content loss is (nan|inf) at step \d of pretrain-1; lower the rate.*again"
    ):
        train(rated(1e30, "wild"))
    seen: list[Progress] = []
    path = train(rated(1e-3, "wild"), progress=seen.append)
    assert [(step.phase, step.step) for step in seen] == [("pretrain-1", number) for number in (1, 2, 3)]
    assert "going on with other learning rates" in caplog.text
    assert same(path, train(rated(1e-3, "calm")))


def test_a_run_that_was_started_over_and_killed_at_once_does_not_take_up_the_old_one(pretraining: TrainConfig) -> None:
    config = dataclasses.replace(pretraining, checkpoint_every=99.0)
    train(config)

    def kill(progress: Progress) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(config, resume=False, progress=kill)
    seen: list[Progress] = []
    train(config, progress=seen.append)
    assert [step.phase for step in seen] == 2 * ["pretrain-0"] + 2 * ["pretrain-1"]


def test_chance_depends_on_the_place_in_the_run_and_the_process_alone(pretraining: TrainConfig) -> None:
    """So what is dropped after a kill is what would have been dropped, in every process and on every device."""

    def drawn(rank: int, samples: int, steps: int) -> list[float]:
        config = dataclasses.replace(pretraining, checkpoint_every=99.0)
        run = Run(config, Team(rank, 1, torch.device("cpu")))
        run.samples = samples
        return [torch.rand(1).item() for _ in run.steps("pretrain-0", Row(64, 2, steps=steps), {})]

    pretraining.output.mkdir()
    whole = drawn(0, 0, 4)
    assert len(set(whole)) == 4
    assert drawn(0, 4, 2) == whole[2:]
    assert not set(drawn(1, 0, 4)) & set(whole)
