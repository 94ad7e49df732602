"""Folded, packed and bf16 generators against plain ones.

Folding and packing change ab by rounding of fp32 only; bf16 by a small part of a just noticeable difference on average.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from restore.generators import Generator, build
from restore.generators.blocks import SelfAttention, SpectralConv2d, WeightNormConv2d
from restore.generators.fold import PACKS, FoldedAttention, PackedConv2d, cast, fold, pack

TINY: dict[str, dict[str, object]] = {
    "compact": {},
    "deoldify_deep": {"depths": (1, 2, 2, 1), "width": 8, "nf": 1.5},
    "deoldify_wide": {"depths": (1, 2, 2, 1), "width": 4, "nf": 0.125},
    "eccv16": {"width": 16},
}

FP32_MEAN, FP32_MAX = 1e-5, 1e-3
BF16_MEAN, BF16_MAX = 0.1, 1.0
"""Largest mean and largest single difference of ab that folding, and folding with bf16, may make."""

packs = pytest.mark.skipif(not PACKS, reason="oneDNN's packed convolutions are used on x86 only")


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # these networks are too small to share out
    yield
    torch.set_num_threads(threads)


def trained(name: str) -> Generator:
    """Return a generator as after training: norms with statistics of their own, attention on, a palette."""
    return copy.deepcopy(_trained(name))


@cache
def _trained(name: str) -> Generator:
    torch.manual_seed(0)
    module = build(name, **TINY[name]).train()
    with torch.no_grad():
        for layer in module.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.weight.uniform_(0.8, 1.2)
                layer.bias.normal_(0, 0.1)
            if isinstance(layer, SpectralConv2d):
                for _ in range(10):
                    layer.normalized()
        for key, value in module.state_dict().items():
            if key.endswith("gamma"):
                value.fill_(0.5)
            if key in ("bins", "model_out.weight"):
                value.normal_(0, 30 if key == "bins" else 0.5)
        for _ in range(2):
            module.colorize(pictures(4))
    return module.eval()


def pictures(count: int = 2, height: int = 64, width: int = 96) -> Tensor:
    y, x = torch.meshgrid(torch.linspace(0, 9, height), torch.linspace(0, 12, width), indexing="ij")
    return torch.stack([0.5 + 0.4 * torch.sin(x + i) * torch.cos(y * (1 + i)) for i in range(count)])[:, None]


def ab(module: Generator) -> Tensor:
    with torch.inference_mode():
        return module.colorize(pictures().to(memory_format=torch.channels_last))


def assert_close(found: Tensor, expected: Tensor, mean: float, most: float) -> None:
    assert expected.std() > 1, "a grey output compares nothing"
    difference = (found - expected).abs()
    assert difference.mean() <= mean
    assert difference.max() <= most


@pytest.mark.parametrize("name", TINY)
def test_folding_changes_colours_by_rounding_only(name: str) -> None:
    expected = ab(trained(name))
    assert_close(ab(fold(trained(name))), expected, FP32_MEAN, FP32_MAX)


@packs
@pytest.mark.parametrize("name", TINY)
def test_packing_changes_colours_by_rounding_only(name: str) -> None:
    expected = ab(trained(name))
    assert_close(ab(pack(fold(trained(name)))), expected, FP32_MEAN, FP32_MAX)


@pytest.mark.parametrize("name", TINY)
def test_bf16_keeps_to_the_stated_bounds(name: str) -> None:
    expected = ab(trained(name))
    assert_close(ab(cast(fold(trained(name)), torch.bfloat16)), expected, BF16_MEAN, BF16_MAX)


@packs
@pytest.mark.parametrize("name", TINY)
def test_packed_bf16_keeps_to_the_stated_bounds(name: str) -> None:
    expected = ab(trained(name))
    assert_close(ab(pack(cast(fold(trained(name)), torch.bfloat16))), expected, BF16_MEAN, BF16_MAX)


@pytest.mark.parametrize("name", TINY)
def test_no_norm_is_left_that_could_be_folded(name: str) -> None:
    module = fold(trained(name))
    assert not any(isinstance(m, SpectralConv2d | WeightNormConv2d) for m in module.modules())
    left = [key for key, m in module.named_modules() if isinstance(m, nn.BatchNorm2d)]
    after_relu = {
        "compact": [],
        "deoldify_deep": ["layers.1", "layers.3.0.2", "layers.3.1.2"]
        + [f"layers.{n}.{child}" for n in (4, 5, 6, 7) for child in ("bn", "conv1.2", "conv2.2")],
        "deoldify_wide": ["layers.1", "layers.3.0.2", "layers.3.1.2"]
        + [f"layers.{n}.{child}" for n in (4, 5, 6, 7) for child in ("bn", "conv.2")],
        "eccv16": [f"model{n}.{6 if n > 2 else 4}" for n in range(1, 8)],
    }
    assert left == after_relu[name]


def test_convolutions_are_channels_last() -> None:
    for layer in fold(trained("deoldify_wide")).modules():
        if isinstance(layer, nn.Conv2d):
            assert layer.weight.is_contiguous(memory_format=torch.channels_last)


def test_batch_norms_and_bins_stay_in_fp32() -> None:
    module = cast(fold(trained("eccv16")), torch.bfloat16)
    kept = [m for m in module.modules() if isinstance(m, nn.BatchNorm2d)]
    assert {m.weight.dtype for m in kept} == {torch.float32}
    assert module.get_parameter("model_out.weight").dtype == torch.float32
    assert module.get_parameter("model8.0.weight").dtype == torch.bfloat16


@pytest.mark.parametrize("size", [(3, 5), (8, 8)])
def test_folded_attention_is_attention(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    attention = SelfAttention(32).eval()
    with torch.inference_mode():
        attention.gamma.fill_(2.0)
        x = torch.randn(2, 32, *size)
        expected = attention(x)
        assert (expected - x).abs().max() > 0.1
        assert torch.allclose(FoldedAttention(attention)(x), expected, atol=1e-4)


@packs
@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(5, 7, 3, padding=1),
        nn.Conv2d(8, 8, 5, stride=2, padding=2, bias=False),
        nn.Conv2d(8, 12, 3, padding=2, dilation=2),
        nn.Conv2d(12, 12, 3, padding=1, groups=12),
        nn.Conv2d(259, 3, 1),
    ],
)
@pytest.mark.parametrize("relu", [False, True])
def test_a_packed_convolution_is_the_convolution_at_any_size(conv: nn.Conv2d, relu: bool) -> None:
    packed = PackedConv2d(conv, relu)
    with torch.inference_mode():
        for batch, height, width in ((1, 9, 11), (2, 9, 11), (1, 40, 24)):
            x = torch.randn(batch, conv.in_channels, height, width).to(memory_format=torch.channels_last)
            expected = conv(x).relu() if relu else conv(x)
            assert torch.allclose(packed(x), expected, atol=1e-5)


@packs
def test_threads_may_share_a_packed_generator_from_the_first_call() -> None:
    module = pack(fold(trained("deoldify_wide")))
    with ThreadPoolExecutor(4) as pool:
        first, *others = pool.map(lambda _: ab(module), range(8))
    assert all(torch.equal(first, other) for other in others)


@packs
def test_work_of_packed_convolutions_is_counted() -> None:
    plain, packed = trained("deoldify_wide"), pack(fold(trained("deoldify_wide")))
    counts = []
    for module in (plain, packed):
        with FlopCounterMode(display=False) as counter:
            ab(module)
        counts.append(counter.get_total_flops())
    assert counts[0] > 1e6
    assert counts[1] == pytest.approx(counts[0], rel=0.02)
