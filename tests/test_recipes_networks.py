"""The networks of the recipes: pix2pix, plain regression, classification, the larger compact, DeOldify in a GAN."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from restore import generators, weights
from restore.color import lab_from_rgb, lightness
from restore.errors import ConfigError, WeightsError
from restore.generators import Generator, build, load
from restore.generators.compact import Compact
from restore.generators.deoldify import MEAN, STD, DeOldify
from restore.generators.eccv16 import BINS, Eccv16
from restore.generators.pix2pix import Pix2Pix
from restore.train.critics import NoGanCritic, critic_loss, generator_loss
from restore.train.features import FeatureLoss
from restore.train.quantise import grid, smoothed

TINY: dict[str, dict[str, object]] = {
    "pix2pix": {"filters": 4, "levels": 4},
    "cnn": {"filters": 4},
    "eccv16": {"width": 4, "temperature": 0.38},
    "compact": {"encoder": "lite2", "bins": 8},
}
DEOLDIFY: dict[str, dict[str, object]] = {
    "deoldify_wide": {"depths": (1, 2, 2, 1), "width": 4, "nf": 0.125},
    "deoldify_deep": {"depths": (1, 2, 2, 1), "width": 8, "nf": 1.5},
}


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # these networks are too small to share out
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def feature() -> FeatureLoss:
    return FeatureLoss()


def grey(batch: int = 1, height: int = 64, width: int = 64) -> Tensor:
    return torch.rand(batch, 1, height, width, generator=torch.Generator().manual_seed(1))


def settled(name: str) -> Generator:
    """Build a tiny generator as after training: norms with statistics, and colours to choose from."""
    torch.manual_seed(0)
    module = build(name, **TINY[name]).train()
    with torch.no_grad():
        if isinstance(module, Eccv16):
            module.model_out.weight.copy_((grid() / 110).T[:, :, None, None])
        if isinstance(module, Compact):
            module.bins.normal_(0, 30)
        for _ in range(8):
            module.colorize(grey(2))
    return module.eval()


# pix2pix


def test_pix2pix_has_the_published_layers() -> None:
    with torch.device("meta"):
        module = Pix2Pix()
    down = [block[0] for block in module.down]  # type: ignore[index]
    up = [*(block[0] for block in module.up), module.head]  # type: ignore[index]
    encoder = [64, 128, 256, 512, 512, 512, 512, 512]
    assert [(c.in_channels, c.out_channels) for c in down] == list(zip([1, *encoder], encoder, strict=False))
    decoder = [(512, 512), *[(1024, 512)] * 3, (1024, 256), (512, 128), (256, 64), (128, 2)]
    assert [(c.in_channels, c.out_channels) for c in up] == decoder
    assert all((c.kernel_size, c.stride) == ((4, 4), (2, 2)) for c in (*down, *up))
    normed = [any(isinstance(layer, nn.BatchNorm2d) for layer in block) for block in module.down]  # type: ignore[attr-defined]
    assert normed == [False, *[True] * 6, False]
    dropped = [any(isinstance(layer, nn.Dropout) for layer in block) for block in module.up]  # type: ignore[attr-defined]
    assert dropped == [True] * 3 + [False] * 4


def test_pix2pix_starts_as_published() -> None:
    torch.manual_seed(0)
    module = Pix2Pix(16)
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            assert layer.weight.std().item() == pytest.approx(0.02, rel=0.15)
        if isinstance(layer, nn.BatchNorm2d):
            assert layer.weight.mean().item() == pytest.approx(1, abs=0.02)
            assert not layer.bias.any()


@pytest.mark.parametrize("size", [(16, 16), (1, 1), (30, 50), (96, 32)])
def test_pix2pix_takes_any_size_and_gives_ab_of_that_size(size: tuple[int, int]) -> None:
    with torch.inference_mode():
        ab = settled("pix2pix").colorize(torch.rand(2, 1, *size))
    assert ab.shape == (2, 2, *size)
    assert ab.abs().max() <= 110
    assert ab.dtype == torch.float32


def test_pix2pix_drops_features_in_training_only() -> None:
    module = settled("pix2pix")
    with torch.no_grad():
        assert torch.equal(module.colorize(grey()), module.colorize(grey()))
        module.train()
        assert not torch.equal(module.colorize(grey()), module.colorize(grey()))


# plain regression


def test_the_plain_network_has_the_published_layers() -> None:
    with torch.device("meta"):
        module = build("cnn")
    found = [(m.out_channels // 32 or 2, m.stride[0]) for m in module.modules() if isinstance(m, nn.Conv2d)]
    channels, strides = [2, 2, 4, 4, 8, 8, 16, 8, 4, 2, 1, 2], [1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 1]
    assert found == list(zip(channels, strides, strict=True))
    assert sum(isinstance(m, nn.Upsample) for m in module.modules()) == 2


def test_the_plain_network_gives_ab_at_half_the_size() -> None:
    with torch.inference_mode():
        ab = settled("cnn").colorize(grey(2, 32, 48))
    assert ab.shape == (2, 2, 16, 24)
    assert ab.std() > 0


# what all have in common


@pytest.mark.parametrize("name", ["pix2pix", "cnn", "eccv16"])
def test_a_network_learns_the_colours_of_a_picture(name: str) -> None:
    module = settled(name).train()
    gray, true = grey(2, 32, 32), torch.tensor([30.0, -20.0])[None, :, None, None]
    optimizer = torch.optim.Adam([p for p in module.parameters() if p.requires_grad], 2e-3)
    errors = []
    for _ in range(25):
        error = (module.colorize(gray) - true).square().mean()
        optimizer.zero_grad()
        torch.autograd.backward([error])
        optimizer.step()
        errors.append(error.item())
    assert errors[-1] < 0.5 * errors[0]


@pytest.mark.parametrize("name", list(TINY))
@pytest.mark.parametrize(("precision", "bound"), [("fp32", 1e-3), ("bf16", 3.0)])
def test_exported_weights_load_by_their_record_and_give_the_same_colours(
    name: str, precision: generators.Precision, bound: float, tmp_path: Path
) -> None:
    if precision == "bf16" and not generators._cpu_takes_bf16():
        pytest.skip("this CPU does not take bf16")
    module, path = settled(name), tmp_path / "w.safetensors"
    record = {"generator": name, "settings": json.dumps(TINY[name])}
    save_file(module.state_dict(), path, metadata=record)
    loaded = load(path, precision=precision)
    with torch.inference_mode():
        expected = module.colorize(grey(2))
    assert loaded.generator == name
    assert expected.std() > 0.01
    assert (loaded(grey(2)) - expected).abs().mean() < bound


@pytest.mark.parametrize("name", ["pix2pix", "cnn"])
def test_weights_without_a_record_are_recognised_by_their_keys(name: str) -> None:
    with torch.device("meta"):
        state = build(name).state_dict()
    assert generators._recognised(Path("x.pth"), state) == (name, {})


@pytest.mark.parametrize("name", ["pix2pix", "cnn"])
def test_frames_are_coloured_at_256(name: str) -> None:
    assert build(name, **TINY[name]).size(720, 1280) == (256, 256)


@pytest.mark.parametrize("name", ["pix2pix", "cnn"])
def test_the_input_is_lightness_about_zero(name: str) -> None:
    module = settled(name)
    with torch.inference_mode():
        assert torch.equal(module.colorize(grey()), module(lightness(grey()) / 50 - 1))


# classification


def test_the_colours_are_the_313_published_ones_in_their_order() -> None:
    """How many there are for each a, and where the list and each row begin and end, as published."""
    points = [(round(a), round(b)) for a, b in grid().tolist()]
    assert len(points) == BINS
    assert points == sorted(points)
    assert (points[:6], points[-1]) == ([(-90, 50), (-90, 60), (-90, 70), (-90, 80), (-90, 90), (-80, 20)], (100, 0))
    rows = Counter(a for a, _ in points)
    assert list(rows) == list(range(-90, 101, 10))
    assert list(rows.values()) == [5, 8, 10, 12, 14, 15, 16, 16, 17, 18, 18, 18, 19, 20, 19, 20, 20, 19, 19, 10]
    assert {(60, -110), (90, 70), (-50, 100)} <= set(points)
    assert not {(50, -110), (100, 10), (-60, 100)} & set(points)


def test_every_colour_lies_in_a_square_of_four_of_them() -> None:
    points = {(round(a), round(b)) for a, b in grid().tolist()}
    rgb = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)).round(decimals=1)
    low = (lab_from_rgb(rgb)[0, 1:].flatten(1).T / 10).floor().int() * 10
    for a, b in {(int(a), int(b)) for a, b in low}:
        assert {(a, b), (a + 10, b), (a, b + 10), (a + 10, b + 10)} <= points


def test_smoothing_spreads_a_share_over_its_neighbours_and_keeps_the_sum() -> None:
    bins = torch.tensor([[0.0, 0.0], [10.0, 0.0], [100.0, 0.0]])
    near = 2.718281828 ** -(100 / 50)
    found = smoothed(torch.tensor([1.0, 0.0, 0.0]), bins)
    assert torch.allclose(found, torch.tensor([1.0, near, 0.0]) / (1 + near), atol=1e-6)
    prior = torch.rand(BINS, generator=torch.Generator().manual_seed(0))
    assert smoothed(prior / prior.sum(), grid()).sum().item() == pytest.approx(1)


def test_the_annealed_mean_is_between_the_mean_and_the_likeliest_colour() -> None:
    module = Eccv16(4)
    colours = grid() / 110
    with torch.no_grad():
        module.model_out.weight.copy_(colours.T[:, :, None, None])
        for parameter in module.model8.parameters():
            parameter.zero_()
        two = {200: 0.6, 100: 0.4}
        head = module.model8[-1]
        assert isinstance(head, nn.Conv2d)
        assert head.bias is not None
        head.bias.fill_(-100)
        for number, share in two.items():
            head.bias[number] = torch.tensor(share).log()
        for temperature in (1.0, 0.38):
            module.temperature = temperature
            one, other = (share ** (1 / temperature) for share in two.values())
            expected = 110 * (one * colours[200] + other * colours[100]) / (one + other)
            found = module.eval().colorize(grey(1, 16, 16))[0, :, 8, 8]
            assert torch.allclose(found, expected, atol=1e-3)


def test_a_temperature_of_zero_is_refused() -> None:
    with pytest.raises(ConfigError, match="temperature must be above 0, got 0"):
        build("eccv16", width=4, temperature=0.0)


# the larger compact


def test_the_larger_compact_is_at_most_25_megabytes_and_the_default_is_as_it_was() -> None:
    with torch.device("meta"):
        small, large = Compact(), Compact(encoder="lite2")
    sizes = [2 * sum(value.numel() for value in module.state_dict().values()) for module in (small, large)]
    assert 1.5 * sizes[0] < sizes[1] < 25e6
    shipped = weights.read_state(weights.find("compact-v1").path)
    assert {key: value.shape for key, value in small.state_dict().items()} == {k: v.shape for k, v in shipped.items()}


def test_weights_of_the_smaller_do_not_fit_the_larger() -> None:
    path = weights.find("compact-v1").path
    with torch.device("meta"):
        large = Compact(encoder="lite2")
    with pytest.raises(WeightsError, match="does not fit the generator compact: of"):
        generators.load_state(large, weights.read_state(path), "compact", path)


def test_an_encoder_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ConfigError, match="unknown variant 'b7' of EfficientNet-Lite"):
        build("compact", encoder="b7")


# DeOldify in a GAN


def deoldify_rgb(module: DeOldify, gray: Tensor) -> Tensor:
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    return module((gray - mean) / std) * std + mean  # type: ignore[no-any-return]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", list(DEOLDIFY))
def test_deoldify_takes_a_step_against_critic_and_features(name: str, precision: str, feature: FeatureLoss) -> None:
    torch.manual_seed(0)
    module, critic = build(name, **DEOLDIFY[name]).train(), NoGanCritic(8)
    assert isinstance(module, DeOldify)
    true = torch.rand(2, 3, 64, 64)
    optimizer = torch.optim.AdamW(module.parameters(), 1e-3, betas=(0.0, 0.9))
    before = {key: value.clone() for key, value in module.state_dict().items()}
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        found = deoldify_rgb(module, true.mean(1, keepdim=True))
        loss = generator_loss(critic(found)) + 1.5 * feature(found, true)
        torch.autograd.backward([critic_loss(critic(true), critic(found.detach()))])
    assert all(p.grad is not None for p in critic.parameters())
    torch.autograd.backward([loss])
    idle = [key for key, p in module.named_parameters() if p.grad is None or not torch.isfinite(p.grad).all()]
    assert idle == []
    optimizer.step()
    still = [key for key, value in module.state_dict().items() if torch.equal(value, before[key])]
    # Attention starts with gain 0, so what lies behind the gain does not learn in the first step.
    assert all(".query." in key or ".key." in key or ".value." in key or "weight_u" in key for key in still), still
    spectral = [key for key in before if key.endswith("weight_u")]
    assert sum(key not in still for key in spectral) > 0.8 * len(spectral)


def test_the_decoder_of_deoldify_starts_with_equal_sub_pixels_and_zero_biases() -> None:
    module = build("deoldify_deep", **DEOLDIFY["deoldify_deep"])
    state = module.state_dict()
    shuffles = [key for key in state if "shuf.conv.0.weight_orig" in key or key == "layers.8.conv.0.weight_v"]
    assert len(shuffles) == 5
    for key in shuffles:
        assert torch.equal(state[key][0::4], state[key][3::4])
        assert state[key].std() > 0
    for key in ("layers.8.conv.0.bias", "layers.10.layers.0.0.bias", "layers.11.0.bias"):
        assert not state[key].any()
    conv = state["layers.3.0.0.weight_orig"]
    assert conv.std().item() == pytest.approx((2 / conv[0].numel()) ** 0.5, rel=0.05)  # He et al. 2015
