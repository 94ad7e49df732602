from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import make_clip

from restore import generators
from restore.clip import Clip, Plane, concatenate
from restore.colorize.neural import Neural, devices_of, generator_input
from restore.errors import ConfigError, StageError, WeightsError


def _ab(stage: Neural, clip: Clip) -> np.ndarray:
    out = stage(clip)
    assert out.ab is not None
    assert out.luma is clip.luma
    return out.ab


@pytest.mark.parametrize("precision", ["fp32", "auto"])
@pytest.mark.parametrize("chunk", [1, 2, 3, 7])
def test_a_frames_bits_do_not_depend_on_its_neighbours(tiny_weights: Path, precision: str, chunk: int) -> None:
    stage = Neural(str(tiny_weights), "cpu", precision)  # type: ignore[arg-type]
    clip = make_clip(frames=11, height=48, width=64, ab=False)
    whole = _ab(stage, clip)
    pieces = [_ab(stage, clip[start : start + chunk]) for start in range(0, len(clip), chunk)]
    assert np.array_equal(np.concatenate(pieces), whole)


def test_a_frames_bits_do_not_depend_on_threads(tiny_weights: Path) -> None:
    stage, clip, before = Neural(str(tiny_weights), "cpu"), make_clip(4, 48, 64, ab=False), torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = _ab(stage, clip)
        torch.set_num_threads(3)
        assert np.array_equal(_ab(stage, clip), one)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("depth", [8, 10, 16])
def test_the_generator_sees_the_same_picture_at_every_depth(tiny_weights: Path, depth: int) -> None:
    loaded = generators.load(str(tiny_weights))
    clip = make_clip(1, 60, 80, depth=8)
    deeper = replace(clip.color, depth=depth)
    scaled: Plane = clip.luma if depth == 8 else clip.luma.astype(np.uint16) * np.uint16(2 ** (depth - 8))
    gray = generator_input(scaled, deeper, loaded)
    assert gray.shape == (1, 1, *loaded.size(60, 80))
    assert np.abs(gray - generator_input(clip.luma, clip.color, loaded)).max() < 1 / 219
    assert gray.min() >= 0
    assert gray.max() <= 1


def test_a_stage_pickles_and_does_the_same(tiny_weights: Path) -> None:
    stage, clip = Neural(str(tiny_weights), "cpu"), make_clip(2, ab=False)
    assert np.array_equal(_ab(pickle.loads(pickle.dumps(stage)), clip), _ab(stage, clip))


def test_batches_are_dealt_to_devices_in_order(tiny_weights: Path) -> None:
    """Two names of one device stand in for two devices."""
    clip = make_clip(9, 48, 64, ab=False)
    one, two = Neural(str(tiny_weights), "cpu"), Neural(str(tiny_weights), "cpu,cpu")
    assert np.array_equal(_ab(one, clip), _ab(two, clip))


def test_a_batch_that_does_not_fit_is_halved_and_the_user_told(
    tiny_weights: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    clip, seen = make_clip(5, 48, 64, ab=False), []
    expected = _ab(Neural(str(tiny_weights), "cpu", "fp32"), clip)
    run = generators.Loaded.__call__

    def small(self: generators.Loaded, gray: torch.Tensor) -> torch.Tensor:
        seen.append(len(gray))
        if len(gray) > 1:
            raise torch.OutOfMemoryError("out of memory")
        return run(self, gray)

    monkeypatch.setattr(generators.Loaded, "__call__", small)
    found = _ab(Neural(str(tiny_weights), "cpu", "fp32"), clip)
    assert np.abs(found - expected).max() < 1e-3
    assert {4, 2, 1} <= set(seen)
    assert "frames 0-3 go in batches of 2" in caplog.text


@pytest.mark.parametrize(("height", "width"), [(128, 128), (96, 160), (32, 160)])
def test_a_frame_that_does_not_fit_is_cut_into_tiles(
    height: int, width: int, tiny_weights: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A generator whose colour is its input shows that tiles land where they belong."""
    gray = np.random.default_rng(0).random((2, 1, height, width), np.float32)
    limit = height * width

    def copy(self: generators.Loaded, batch: torch.Tensor) -> torch.Tensor:
        if batch.numel() >= limit:
            raise torch.OutOfMemoryError("out of memory")
        return torch.nn.functional.avg_pool2d(batch, 2).expand(-1, 2, -1, -1) * 100

    monkeypatch.setattr(generators.Loaded, "__call__", copy)
    found = Neural(str(tiny_weights), "cpu")._colour(generators.load(str(tiny_weights)), gray, (0, 1))
    expected = gray.reshape(2, height // 2, 2, width // 2, 2).mean((2, 4)) * 100
    assert found.shape == (2, 2, height // 2, width // 2)
    assert np.abs(found - expected[:, None]).max() < 1e-3
    assert "go in tiles" in caplog.text


def test_a_tile_that_does_not_fit_fails(tiny_weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(self: generators.Loaded, gray: torch.Tensor) -> torch.Tensor:
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr(generators.Loaded, "__call__", none)
    with pytest.raises(StageError, match="does not fit the memory of cpu"):
        Neural(str(tiny_weights), "cpu")(make_clip(2, ab=False))


def test_a_clip_in_pieces_is_coloured_as_one(tiny_weights: Path) -> None:
    stage, clip = Neural(str(tiny_weights), "cpu"), make_clip(6, 48, 64, ab=False)
    assert np.array_equal(_ab(stage, concatenate([clip[:2], clip[2:]])), _ab(stage, clip))


@pytest.mark.parametrize(
    ("names", "message"),
    [("gpu", "unknown device 'gpu'"), ("mps", "is not supported"), ("cuda:99", "is not on this machine")],
)
def test_a_wrong_device_is_named(names: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        devices_of(names)


def test_several_devices_are_taken_in_order() -> None:
    assert devices_of("cpu, cpu") == ["cpu", "cpu"]
    assert devices_of("auto")[0] in ("cpu", "cuda")


def test_settings_are_checked() -> None:
    with pytest.raises(ValueError, match="batch must be"):
        Neural(batch=0)
    with pytest.raises(ValueError, match="render_factor must be"):
        Neural(render_factor=1)


def test_unknown_weights_are_named() -> None:
    with pytest.raises(WeightsError, match="nothing-like-it"):
        Neural("nothing-like-it", "cpu")(make_clip(1, ab=False))
