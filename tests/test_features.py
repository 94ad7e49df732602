"""The feature loss."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from restore.errors import ConfigError, WeightsError
from restore.generators.efficientnet import classifier
from restore.train.features import IMAGENET_MEAN, IMAGENET_STD, TERMS, FeatureLoss, Vgg16


@pytest.fixture(scope="module")
def loss() -> FeatureLoss:
    return FeatureLoss()


@pytest.fixture(scope="module")
def vgg() -> Vgg16:
    torch.manual_seed(0)
    network = Vgg16().eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.1, 0.1)  # type: ignore[arg-type]
            nn.init.uniform_(module.running_var, 0.05, 0.2)  # type: ignore[arg-type]
    return network


@pytest.fixture(scope="module")
def vgg_file(vgg: Vgg16, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As torchvision publishes it, with a classifier that has no use here."""
    path = tmp_path_factory.mktemp("vgg") / "vgg16_bn.pth"
    torch.save(vgg.state_dict() | {"classifier.0.weight": torch.zeros(2, 2)}, path)
    return path


def pictures(seed: int = 0) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(seed)
    true = F.interpolate(torch.rand(2, 3, 8, 8, generator=rng), (64, 64), mode="bilinear")
    return true.mean(1, keepdim=True).expand(-1, 3, -1, -1).contiguous(), true


def by_hand(found: Tensor, true: Tensor, maps: list[tuple[Tensor, Tensor]], terms: tuple[float, ...]) -> Tensor:
    std = torch.tensor(IMAGENET_STD).reshape(1, 3, 1, 1)
    features = [term * (one - two).abs().mean() for term, (one, two) in zip(terms, maps, strict=True)]
    return (found / std - true / std).abs().mean() + sum(features)


def test_it_is_the_l1_of_pixels_and_of_feature_maps(loss: FeatureLoss) -> None:
    found, true = pictures()
    network = classifier()
    with torch.no_grad():
        maps = list(zip(network.stages(found)[1:], network.stages(true)[1:], strict=True))
        expected = by_hand(found, true, maps, TERMS["efficientnet"])
        assert loss(found, true).item() == pytest.approx(expected.item(), rel=1e-4)
        assert [m.shape[-1] for m, _ in maps] == [16, 8, 4, 2]


def test_it_is_zero_for_the_true_picture_alone_and_falls_towards_it(loss: FeatureLoss) -> None:
    found, true = pictures()
    with torch.no_grad():
        assert loss(true, true).item() == 0
        assert loss(torch.lerp(found, true, 0.7), true) < 0.5 * loss(found, true)


def test_its_gradient_leads_to_the_colours(loss: FeatureLoss) -> None:
    grey, true = pictures()
    offset = torch.zeros(2, 3, 8, 8, requires_grad=True)
    optimizer = torch.optim.Adam([offset], 0.05)
    values = []
    for _ in range(20):
        value = loss(grey + F.interpolate(offset, (64, 64), mode="bilinear"), true)
        optimizer.zero_grad()
        torch.autograd.backward([value])
        optimizer.step()
        values.append(value.item())
    assert values[-1] < 0.4 * values[0]
    assert all(parameter.grad is None for parameter in loss.parameters())


def test_every_map_of_features_reaches_the_gradient(loss: FeatureLoss) -> None:
    found, true = pictures()
    found.requires_grad_()
    for part in loss.parts(found, true):
        (gradient,) = torch.autograd.grad(part, found, retain_graph=True)
        assert torch.isfinite(gradient).all()
        assert (gradient.abs().amax((1, 2, 3)) > 0).all()


def test_training_mode_changes_nothing(loss: FeatureLoss) -> None:
    found, true = pictures()
    with torch.no_grad():
        expected = loss.eval()(found, true)
        assert loss.train()(found, true) == expected
        assert loss(found, true) == expected  # no norm has moved


def test_under_autocast_it_stays_near_and_is_float32(loss: FeatureLoss) -> None:
    found, true = pictures()
    with torch.no_grad():
        exact = loss(found, true)
        with torch.autocast("cpu", torch.bfloat16):
            rough = loss(found, true)
    assert rough.dtype == torch.float32
    assert rough.item() == pytest.approx(exact.item(), rel=0.03)


def test_with_vgg_it_is_the_published_loss(vgg: Vgg16, vgg_file: Path) -> None:
    """Against VGG16's layers counted by hand: the last ReLU before the third, fourth and fifth pooling."""
    found, true = pictures()
    mean, std = (torch.tensor(v).reshape(1, 3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    maps = []
    with torch.no_grad():
        one, two = (found - mean) / std, (true - mean) / std
        pools = 0
        for i, layer in enumerate(vgg.features):
            if isinstance(layer, nn.MaxPool2d):
                pools += 1
                if pools > 2:
                    assert i - 1 in (22, 32, 42)
                    maps.append((one, two))
            one, two = layer(one.clone()), layer(two.clone())
        maps.append((one, two))
        expected = by_hand(found, true, maps, (20.0, 70.0, 10.0))
        with torch.autocast("cpu", torch.bfloat16):
            value = FeatureLoss("vgg16_bn", vgg_file)(found, true)
    assert value.item() == pytest.approx(expected.item(), rel=1e-4)  # of fp32, so autocast is off inside
    assert value.item() > 1.5 * by_hand(found, true, maps, (0.0, 0.0, 0.0)).item()


def test_vgg_has_the_keys_and_shapes_of_torchvision() -> None:
    state = Vgg16().state_dict()
    assert len(state) == 13 * 7
    assert state["features.0.weight"].shape == (64, 3, 3, 3)
    assert state["features.40.weight"].shape == (512, 512, 3, 3)
    assert state["features.41.running_var"].shape == (512,)
    assert sum(value.numel() for key, value in state.items() if "running" not in key and "num" not in key) == 14_723_136


def test_other_weights_of_the_terms_are_taken() -> None:
    found, true = pictures()
    loss = FeatureLoss(terms=(0.0, 0.0, 0.0, 0.0))
    with torch.no_grad():
        assert loss(found, true).item() == pytest.approx(loss.parts(found, true)[0].item())


def test_vgg_without_its_weights_is_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"vgg16_bn needs torchvision's ImageNet weights.*or choose the network effic"
    ):
        FeatureLoss("vgg16_bn")


def test_a_file_for_the_packaged_network_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"efficientnet takes no file of weights, found .*x\.pth"):
        FeatureLoss("efficientnet", tmp_path / "x.pth")


def test_an_unknown_network_is_refused() -> None:
    with pytest.raises(ConfigError, match="unknown network 'vgg19'; known: vgg16_bn, efficientnet"):
        FeatureLoss("vgg19")  # type: ignore[arg-type]


def test_two_terms_for_four_maps_are_refused() -> None:
    with pytest.raises(ConfigError, match="expected 4 weights of feature maps, found"):
        FeatureLoss(terms=(1.0, 1.0))


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    torch.save({"features.0.weight": torch.zeros(64, 3, 3, 3)}, tmp_path / "vgg16.pth")
    with pytest.raises(
        WeightsError, match=r"(?s)vgg16\.pth does not hold the weights of vgg16_bn.*features\.1\.weight"
    ):
        FeatureLoss("vgg16_bn", tmp_path / "vgg16.pth")
