"""What goes wrong in a training run: no space, no number; and what is nowhere lost by it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
from conftest import small_disk
from test_pretrain import ALONE

from restore.errors import MediaError
from restore.train import TrainConfig, nogan, snapshots
from restore.train.config import Critic, Gan, Row
from restore.train.export import export
from restore.train.run import Run
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
        "b.safetensors": lambda: export(run.average, run.config, run.data_hash, run.record(), path),
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
