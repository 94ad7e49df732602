"""What `restore bench` reports; how fast things are is not tested."""

from __future__ import annotations

import json
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from media import make_film

from restore import bench as module
from restore import generators
from restore.colorize.neural import Neural
from restore.source.decode import read
from restore.source.probe import probe


def test_every_stage_the_generator_and_the_whole_path_are_measured(
    tmp_path: Path,
    tiny_weights: Path,
    call: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "BATCHES", (1, 2))
    threads = torch.get_num_threads(), cv2.getNumThreads()
    film = make_film(tmp_path / "in.mp4", frames=8)
    words = ["bench", "--film", film, "--weights", tiny_weights, "--device", "cpu", "--repeats", 1]
    assert call(*words, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    stages = found["stages"]
    assert list(stages) == ["scan", "decode", "neural", "smooth", "paint", "encode", "sum"]
    assert stages.pop("sum") == pytest.approx(sum(stages.values()))
    assert min(stages.values()) > 0
    assert list(found["generator"]) == ["1", "2"]
    assert found["end_to_end"]["frames"] == 8
    assert found["end_to_end"]["peak memory, MB"] > 50
    assert found["film"].startswith("in.mp4, 96x64, h264, ")
    assert found["machine"]["device"] == "cpu"
    assert (torch.get_num_threads(), cv2.getNumThreads()) == threads
    assert [path.name for path in tmp_path.iterdir()] == ["in.mp4"]


def test_the_operations_of_a_generator_are_those_of_its_layers(
    tiny_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BATCHES", (1,))
    neural = Neural(weights=str(tiny_weights), device="cpu", precision="fp32")
    generator = generators.load(neural.weights, "cpu", "fp32")
    by_hand = 0

    def count(convolution: torch.nn.Conv2d, _: object, output: torch.Tensor) -> None:
        nonlocal by_hand
        by_hand += 2 * output.numel() * convolution.weight[0].numel()

    name, network = generators.read(str(tiny_weights))
    assert name == "compact"
    for layer in network.modules():
        if isinstance(layer, torch.nn.Conv2d):
            layer.register_forward_hook(count)
    size = generator.size(64, 96)
    with torch.inference_mode():
        network.eval().colorize(torch.rand(1, 1, *size))
    gflop, rates = module._generator(neural, 64, 96, 1)
    assert by_hand / 1e9 < gflop < 1.1 * by_hand / 1e9  # attention and the palette come on top
    assert rates.keys() == {1}


def test_the_film_that_is_generated_is_grey_and_moves(tmp_path: Path) -> None:
    source = probe(str(module.make_film(tmp_path / "bench.mp4", frames=3, width=160, height=96)))
    assert (source.width, source.height, source.codec, source.average_rate) == (160, 96, "h264", Fraction(25))
    frames = list(read(source))
    assert len(frames) == 3
    assert all(frame.chroma is not None and np.abs(frame.chroma.astype(int) - 128).max() <= 1 for frame in frames)
    assert (frames[0].luma != frames[2].luma).mean() > 0.5
