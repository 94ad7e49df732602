"""The published DeOldify U-Nets, against outputs of the original program."""

from __future__ import annotations

import json
import runpy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from skimage.color import rgb2lab
from torch import Tensor

from restore.color import lab_from_rgb
from restore.errors import ConfigError
from restore.generators import build, load_state
from restore.generators.blocks import SpectralConv1d, SpectralConv2d, WeightNormConv2d, blur
from restore.generators.deoldify import MEAN, STD, DeOldifyDeep, DeOldifyWide, colorize_image

TINY_WIDE = {"depths": (1, 2, 2, 1), "width": 4, "nf": 0.125}
TINY_DEEP = {"depths": (1, 2, 2, 1), "width": 8, "nf": 1.5}

PUBLISHED = [
    ("deoldify_video", "deoldify_wide", {}),
    ("deoldify_artistic", "deoldify_deep", {}),
    ("deoldify_tiny_wide", "deoldify_wide", TINY_WIDE),
    ("deoldify_tiny_deep", "deoldify_deep", TINY_DEEP),
]


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # these networks are too small to share out
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def seeded(shared: Path) -> dict[str, Callable[..., Any]]:
    return runpy.run_path(str(shared / "reference" / "seeded_weights.py"))


@pytest.fixture
def tiny_wide(shared: Path) -> DeOldifyWide:
    with torch.serialization.safe_globals([slice]):
        state = torch.load(shared / "reference" / "TinyWide_gen.pth", map_location="cpu", weights_only=True)
    module = DeOldifyWide(**TINY_WIDE)  # type: ignore[arg-type]
    load_state(module, state["model"], "deoldify_wide", "TinyWide_gen.pth")
    return module


@pytest.mark.needs_shared
@pytest.mark.parametrize(("name", "generator", "settings"), PUBLISHED)
def test_keys_shapes_and_their_order_are_the_published_ones(
    shared: Path, name: str, generator: str, settings: dict[str, object]
) -> None:
    with torch.device("meta"):
        state = build(generator, **settings).state_dict()
    found = [[key, list(value.shape), str(value.dtype).removeprefix("torch.")] for key, value in state.items()]
    assert found == json.loads((shared / "reference" / f"{name}.keys.json").read_text())


@pytest.mark.needs_shared
@pytest.mark.parametrize(
    ("name", "generator", "settings"),
    [pytest.param(*PUBLISHED[0], marks=pytest.mark.release), *PUBLISHED[1:]],  # 215 million weights take their time
)
def test_outputs_are_those_of_the_original_network(
    shared: Path, seeded: dict[str, Callable[..., Any]], name: str, generator: str, settings: dict[str, object]
) -> None:
    keys = json.loads((shared / "reference" / f"{name}.keys.json").read_text())
    (fixture,) = (shared / "reference").glob(f"{name}.seed0.*.npy")
    expected = np.load(fixture)
    with torch.device("meta"):
        module = build(generator, **settings)
    load_state(module, seeded["seeded_state_dict"](keys, 0), generator, name)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    with torch.inference_mode():
        found = module((seeded["seeded_input"](expected.shape, 0) - mean) / std)
    assert np.abs(found.numpy() - expected).max() <= 1e-4


@pytest.mark.needs_shared
@pytest.mark.parametrize("kind", ["gray", "color"])
def test_the_whole_filter_makes_the_original_programs_picture(shared: Path, tiny_wide: DeOldifyWide, kind: str) -> None:
    source = np.asarray(Image.open(shared / "reference" / f"in_{kind}_317x241.png").convert("RGB"))
    expected = np.asarray(Image.open(shared / "reference" / f"tiny_wide_in_{kind}_317x241_rf10.png").convert("RGB"))
    difference = np.abs(colorize_image(tiny_wide, source, 10).astype(int) - expected)
    assert difference.max() <= 2
    assert difference.mean() < 0.1


@pytest.mark.needs_shared
def test_colorize_gives_the_ab_of_the_whole_filter(shared: Path, tiny_wide: DeOldifyWide) -> None:
    gray = np.asarray(Image.open(shared / "reference" / "in_gray_317x241.png").convert("L").resize((160, 160)))
    picture = colorize_image(tiny_wide, np.repeat(gray[..., None], 3, 2), 10)
    with torch.inference_mode():
        ab = tiny_wide.colorize(torch.from_numpy(gray / np.float32(255))[None, None])[0].permute(1, 2, 0).numpy()
    difference = np.abs(ab - rgb2lab(picture)[..., 1:])
    assert difference.mean() < 0.6  # 8-bit rounding of YUV, twice
    assert np.abs(ab).mean() > 5


@pytest.mark.parametrize("size", [(1, 1), (17, 33), (48, 80), (50, 70), (63, 65)])
@pytest.mark.parametrize(("generator", "settings"), [("deoldify_wide", TINY_WIDE), ("deoldify_deep", TINY_DEEP)])
def test_sizes_need_not_be_multiples_of_32(generator: str, settings: dict[str, object], size: tuple[int, int]) -> None:
    module = build(generator, **settings).eval()
    with torch.inference_mode():
        ab = module.colorize(torch.rand(2, 1, *size))
    assert ab.shape == (2, 2, *size)
    assert ab.isfinite().all()


def test_colorize_keeps_the_luma_that_came_in() -> None:
    torch.manual_seed(0)
    module = DeOldifyWide(**TINY_WIDE).eval()  # type: ignore[arg-type]
    gray = torch.full((1, 1, 32, 32), 0.5)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    with torch.inference_mode():
        raw = (module((gray - mean) / std) * std + mean).clamp(0, 1)
        yuv = cv2.cvtColor(raw[0].permute(1, 2, 0).numpy(), cv2.COLOR_RGB2YUV)
        yuv[..., 0] = 0.5
        joined = torch.from_numpy(cv2.cvtColor(yuv, cv2.COLOR_YUV2RGB)).clamp(0, 1).permute(2, 0, 1)
        assert (module.colorize(gray)[0] - lab_from_rgb(joined)[1:]).abs().max() < 0.2  # OpenCV's rounded coefficients
        assert module.colorize(gray).std() > 1


@pytest.mark.parametrize("module", [DeOldifyWide, DeOldifyDeep])
def test_the_render_factor_is_the_side_of_the_square_in_sixteenths(
    module: type[DeOldifyWide | DeOldifyDeep],
) -> None:
    with torch.device("meta"):
        assert module((1, 1, 1, 1), 8).size(720, 1280) == (336, 336)
        assert module((1, 1, 1, 1), 8, render_factor=10).size(480, 640) == (160, 160)


def test_a_render_factor_below_one_is_refused() -> None:
    with pytest.raises(ConfigError, match="render factor must be 1 or more"):
        DeOldifyWide(**TINY_WIDE, render_factor=0)  # type: ignore[arg-type]


def test_the_blur_averages_with_the_left_and_upper_neighbours_and_repeats_the_edge() -> None:
    x = torch.rand(1, 2, 5, 7)
    padded = torch.nn.functional.pad(x, (1, 0, 1, 0), mode="replicate")
    expected = (padded[..., 1:, 1:] + padded[..., :-1, 1:] + padded[..., 1:, :-1] + padded[..., :-1, :-1]) / 4
    assert torch.allclose(blur(x), expected, atol=1e-6)


@pytest.mark.parametrize("conv", [SpectralConv2d(6, 8, bias=True), SpectralConv1d(6, 8)])
def test_training_moves_the_spectral_vectors_until_the_largest_singular_value_is_one(
    conv: SpectralConv1d | SpectralConv2d,
) -> None:
    x = torch.rand(1, 6, 4, 4) if isinstance(conv, SpectralConv2d) else torch.rand(1, 6, 16)
    conv.train()
    for _ in range(200):
        conv(x)
    assert torch.linalg.matrix_norm(conv.normalized().flatten(1), ord=2).item() == pytest.approx(1, abs=1e-3)
    (gradient,) = torch.autograd.grad(conv(x).square().sum(), conv.weight_orig)
    assert gradient.abs().sum() > 0


@pytest.mark.parametrize("conv", [SpectralConv2d(6, 8), SpectralConv1d(6, 8)])
def test_outside_training_the_stored_vectors_decide_even_where_they_are_wrong(
    conv: SpectralConv1d | SpectralConv2d,
) -> None:
    conv.eval()
    before = conv.weight_u.clone(), conv.weight_v.clone()
    sigma = conv.weight_u @ conv.weight_orig.flatten(1) @ conv.weight_v
    assert torch.allclose(conv.normalized(), conv.weight_orig / sigma)
    assert torch.equal(conv.weight_u, before[0])
    assert torch.equal(conv.weight_v, before[1])


def test_weight_norm_gives_each_output_the_length_of_weight_g() -> None:
    conv = WeightNormConv2d(6, 8)
    with torch.no_grad():
        conv.weight_g.copy_(torch.arange(1.0, 9.0).view(8, 1, 1, 1))
    lengths = torch.linalg.vector_norm(conv.normalized(), dim=(1, 2, 3))
    assert torch.allclose(lengths, torch.arange(1.0, 9.0))


def test_the_networks_train() -> None:
    module = DeOldifyDeep(**TINY_DEEP).train()  # type: ignore[arg-type]
    loss: Tensor = module(torch.rand(2, 3, 32, 32)).square().mean()
    gradients = torch.autograd.grad(loss, list(module.parameters()))
    assert all(gradient.isfinite().all() for gradient in gradients)
