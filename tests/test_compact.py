"""The default generator."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors import safe_open
from torch import Tensor, nn

from restore import generators, weights
from restore.errors import WeightsError
from restore.evaluate import photos
from restore.generators.compact import GREY_MEAN, GREY_STD, Compact, SelfAttention, Shuffle
from restore.generators.efficientnet import EfficientNetLite, imagenet, pad_same


@pytest.fixture(scope="module")
def network() -> Compact:
    """A network as after training: norms with statistics of their own, attention switched on, a palette."""
    torch.manual_seed(0)
    network = Compact(temperature=0.5).eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean = torch.randn(module.num_features) * 0.1
            module.running_var = torch.rand(module.num_features) + 0.5
    with torch.no_grad():
        network.attention.gamma.fill_(0.5)
        network.bins.copy_(torch.randn(96, 2) * 30)
    return network


def grey(batch: int = 1, height: int = 64, width: int = 96) -> Tensor:
    return torch.rand(batch, 1, height, width, generator=torch.Generator().manual_seed(1))


def test_it_has_at_most_eight_million_parameters() -> None:
    assert sum(parameter.numel() for parameter in Compact().parameters()) < 8e6


@pytest.mark.parametrize(
    ("height", "width", "size"),
    [
        (720, 1280, (192, 352)),
        (256, 256, (256, 256)),
        (480, 720, (224, 320)),
        (1280, 720, (352, 192)),
        (1, 1, (256, 256)),
        (8, 4000, (32, 5728)),
    ],
)
def test_size_keeps_the_shape_and_the_area_in_multiples_of_32(height: int, width: int, size: tuple[int, int]) -> None:
    assert Compact().size(height, width) == size


def test_size_follows_the_pixels_setting() -> None:
    assert Compact(pixels=128).size(300, 300) == (128, 128)


def test_ab_has_half_the_size_and_is_float32(network: Compact) -> None:
    with torch.inference_mode():
        ab = network.colorize(grey(2))
    assert ab.shape == (2, 2, 32, 48)
    assert ab.dtype == torch.float32


@pytest.mark.parametrize("shape", [(1, 3, 64, 64), (1, 1, 64, 70), (1, 1, 50, 64), (1, 64, 64)])
def test_grey_of_another_shape_is_refused(network: Compact, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="multiples of 32"):
        network.colorize(torch.zeros(shape))


def test_a_picture_does_not_depend_on_its_neighbours_in_the_batch(network: Compact) -> None:
    batch = grey(3)
    with torch.inference_mode():
        assert torch.allclose(network.colorize(batch)[1:2], network.colorize(batch[1:2]), atol=1e-3)


def test_the_folded_network_gives_the_same_colours(network: Compact) -> None:
    folded = network.folded()
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    with torch.inference_mode():
        difference = (folded.colorize(grey()) - network.colorize(grey())).abs().max()
    assert difference < 1e-3  # float32 rounding of ab up to 100


def test_folding_leaves_the_original_as_it_was(network: Compact) -> None:
    before = {key: value.clone() for key, value in network.state_dict().items()}
    network.folded()
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())
    assert network.temperature == 0.5


def test_bfloat16_stays_near_float32(network: Compact) -> None:
    with torch.inference_mode():
        exact = network.colorize(grey())
        with torch.autocast("cpu", torch.bfloat16):
            rough = network.folded().colorize(grey())
    # Random weights make logits that nearly tie, so single pixels may change sides; the picture must not.
    assert (rough - exact).abs().mean() < 1.0


def test_half_precision_weights_take_float32_grey(network: Compact) -> None:
    with torch.inference_mode():
        ab = network.folded().to(torch.bfloat16).colorize(grey())
        exact = network.colorize(grey())
    assert ab.dtype == torch.float32
    assert (ab - exact).abs().mean() < 1.0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_attention_stays_finite_in_half_precision(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    attention = SelfAttention(32)
    with torch.no_grad():
        attention.gamma.fill_(1.0)
        attention.log_scale.fill_(50.0)
        seen = attention.to(dtype)((torch.randn(1, 32, 8, 8) * 1000).to(dtype))
    assert torch.isfinite(seen).all()


def test_attention_starts_as_the_identity() -> None:
    x = torch.randn(2, 16, 4, 6)
    assert torch.equal(SelfAttention(16)(x), x)


def test_attention_carries_a_far_place_into_every_other() -> None:
    torch.manual_seed(0)
    attention = SelfAttention(16)
    with torch.no_grad():
        attention.gamma.fill_(1.0)
        one = torch.randn(1, 16, 4, 6)
        two = one.clone()
        two[..., 0, 0] += 5
        assert ((attention(one) - attention(two)).abs().amax(1) > 1e-6).all()


def test_up_sampling_starts_without_a_checkerboard() -> None:
    torch.manual_seed(0)
    up = Shuffle(8, 4).eval()
    with torch.inference_mode():
        y = up(torch.randn(1, 8, 1, 1).expand(1, 8, 5, 7))
    assert y.shape == (1, 4, 10, 14)
    assert torch.allclose(y, y[..., :1, :1].expand_as(y), atol=1e-6)


def test_temperature_one_is_the_mean_and_low_temperature_the_mode() -> None:
    network = Compact(bins=3)
    network.bins.copy_(torch.tensor([[0.0, 0.0], [60.0, 0.0], [0.0, 60.0]]))
    logits = torch.tensor([0.2, 0.5, 0.3]).log()[None, :, None, None]
    network.temperature = 1.0
    assert torch.allclose(network.decode(logits).flatten(), torch.tensor([30.0, 18.0]), atol=1e-4)
    network.temperature = 0.02
    assert torch.allclose(network.decode(logits).flatten(), torch.tensor([60.0, 0.0]), atol=1e-3)


def test_colorize_normalises_as_imagenet_does(network: Compact) -> None:
    with torch.inference_mode():
        expected = network.decode(network((grey() - GREY_MEAN) / GREY_STD))
        assert torch.equal(network.colorize(grey()), expected)


def test_the_encoder_takes_the_published_weights_and_gives_five_strides() -> None:
    encoder = EfficientNetLite().eval()
    encoder.load_imagenet(imagenet())
    with torch.inference_mode():
        features = encoder(grey(1, 64, 96))
    assert [tuple(f.shape[1:]) for f in features] == [
        (c, 64 // s, 96 // s) for c, s in zip((16, 24, 40, 112, 320), (2, 4, 8, 16, 32), strict=True)
    ]


def test_the_grey_stem_equals_the_rgb_stem_on_equal_channels() -> None:
    state, encoder = imagenet(), EfficientNetLite()
    encoder.load_imagenet(state)
    x = pad_same(torch.randn(1, 1, 32, 32), 3, 2)
    three = F.conv2d(x.expand(1, 3, -1, -1), state["_conv_stem.weight"], stride=2)
    assert torch.allclose(encoder._conv_stem(x), three, atol=1e-5)


def test_weights_of_another_network_are_refused() -> None:
    state = imagenet()
    del state["_blocks.3._bn1.weight"]
    with pytest.raises(WeightsError, match=r"(?s)not ImageNet weights of EfficientNet-lite0.*_blocks\.3\._bn1\.weight"):
        EfficientNetLite().load_imagenet(state)


def test_same_padding_puts_the_odd_pixel_right_and_below() -> None:
    x = torch.ones(1, 1, 8, 9)
    assert pad_same(x, 3, 2).shape == (1, 1, 9, 11)  # even: only below; odd: one on either side
    assert pad_same(x, 3, 2)[0, 0, 0].tolist() == [0.0] + [1.0] * 9 + [0.0]
    assert pad_same(x, 5, 2).shape == (1, 1, 11, 13)
    assert pad_same(x, 5, 2)[0, 0, :, 5].tolist() == [0.0] + [1.0] * 8 + [0.0, 0.0]


# The weights that ship


def built(name: str) -> Compact:
    found = weights.find(name)
    assert found.entry is not None
    network = generators.build("compact", **found.entry.settings)
    assert isinstance(network, Compact)
    network.load_state_dict({key: value.float() for key, value in weights.read_state(found.path).items()})
    return network.eval()


@pytest.fixture(scope="module")
def shipped() -> Compact:
    return built("compact-v2")


def test_the_shipped_weights_are_whole_and_small() -> None:
    assert weights.verify("compact-v2").ok
    assert weights.verify("compact-v2").bytes < 16e6


def test_the_shipped_record_says_how_the_weights_were_made() -> None:
    found = weights.find("compact-v2")
    with safe_open(found.path, "pt") as file:
        record = file.metadata()
    assert found.entry is not None
    assert json.loads(record["settings"]) == found.entry.settings
    assert json.loads(record["metrics"])["ab_error"] == pytest.approx(found.entry.training["ab_error"], abs=0.01)
    assert {"config", "data_sha256", "seed", "versions", "samples", "phases"} <= set(record)


@pytest.mark.needs_shared
@pytest.mark.parametrize(("name", "decibels"), [("compact-v1", 0.3), ("compact-v2", 0.0)])
def test_the_shipped_weights_colour_held_out_photographs(name: str, decibels: float, shared: Path) -> None:
    """Lively colour that is wrong costs more PSNR than none: of v2, which is to be lively, it stays above grey's."""
    rgb = photos.truths(shared / "data" / "val", 48)
    ours = photos.score(rgb, photos.colorize(built(name).folded(), rgb, autocast=True), features=False)
    grey = photos.score(rgb, torch.zeros(len(rgb), 2, *rgb.shape[-2:]), features=False)
    assert ours.ab_error is not None
    assert grey.ab_error is not None
    assert ours.psnr is not None
    assert grey.psnr is not None
    assert ours.ab_error < grey.ab_error - 1
    assert ours.psnr > grey.psnr + decibels
    assert 25 < ours.colorfulness < 50  # neither washed out nor neon


@pytest.mark.needs_shared
def test_the_default_is_nearly_as_colourful_as_photographs(shipped: Compact, shared: Path) -> None:
    rgb = photos.truths(shared / "data" / "val", 500)
    ours = photos.score(rgb, photos.colorize(shipped.folded(), rgb, autocast=True), features=False)
    assert ours.colorfulness_delta is not None
    assert ours.colorfulness >= 0.8 * (ours.colorfulness - ours.colorfulness_delta)


@pytest.mark.needs_shared
def test_bfloat16_changes_the_shipped_colours_less_than_an_eye_sees(shipped: Compact, shared: Path) -> None:
    rgb = photos.truths(shared / "data" / "val", 8)
    exact = photos.colorize(shipped, rgb)
    rough = photos.colorize(shipped.folded(), rgb, autocast=True)
    assert (rough - exact).abs().mean() < 0.5
    assert (rough - exact).norm(dim=1).quantile(0.99) < 2.3  # just noticeable, Mahy et al. 1994
