"""The critics, and the losses of a critic and of its generator."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from restore.train.critics import NoGanCritic, PatchCritic, critic_loss, generator_loss


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # these networks are too small to share out
    yield
    torch.set_num_threads(threads)


def convolutions(network: nn.Module) -> list[nn.Conv2d]:
    return [module for module in network.modules() if isinstance(module, nn.Conv2d)]


def seen(logits: Tensor, picture: Tensor) -> tuple[int, int]:
    """Return the height and width of the patch that the logit in the middle depends on."""
    row, column = logits.shape[2] // 2, logits.shape[3] // 2
    (gradient,) = torch.autograd.grad(logits[0, 0, row, column], picture)
    touched = gradient[0].abs().amax(0) > 0
    rows, columns = touched.any(1).nonzero().flatten(), touched.any(0).nonzero().flatten()
    return int(rows[-1] - rows[0]) + 1, int(columns[-1] - columns[0]) + 1


def test_the_nogan_critic_has_the_published_layers() -> None:
    with torch.device("meta"):
        critic = NoGanCritic()
    found = [(c.in_channels, c.out_channels, c.kernel_size[0], c.stride[0], c.padding[0]) for c in convolutions(critic)]
    assert found == [
        (3, 256, 4, 2, 1),
        (256, 256, 3, 1, 1),
        (256, 512, 4, 2, 1),
        (512, 512, 3, 1, 1),
        (512, 1024, 4, 2, 1),
        (1024, 1024, 3, 1, 1),
        (1024, 2048, 4, 2, 1),
        (2048, 2048, 3, 1, 1),
        (2048, 1, 4, 1, 0),
    ]
    assert [c.bias is not None for c in convolutions(critic)] == [True] * 8 + [False]
    assert [m.p for m in critic.modules() if isinstance(m, nn.Dropout2d)] == [0.075, 0.15, 0.15, 0.15]
    assert {m.negative_slope for m in critic.modules() if isinstance(m, nn.LeakyReLU)} == {0.2}
    names = [type(layer).__name__ for layer in critic.layers]
    assert names.count("SelfAttention") == 1
    assert names.index("SelfAttention") == 8  # at the end of the first block


@pytest.mark.parametrize(("pixels", "places"), [(192, 9), (128, 5), (64, 1)])
def test_the_nogan_critic_judges_patches(pixels: int, places: int) -> None:
    with torch.inference_mode():
        assert NoGanCritic(8)(torch.rand(1, 3, pixels, pixels)).shape == (1, 1, places, places)


def test_every_convolution_of_the_nogan_critic_has_spectral_norm() -> None:
    torch.manual_seed(0)
    critic = NoGanCritic(8).train()
    for _ in range(20):
        critic(torch.rand(2, 3, 64, 64))
    critic.eval()
    for conv in convolutions(critic):
        assert torch.linalg.matrix_norm(conv.weight.flatten(1), 2).item() == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_forward_in_training_moves_the_spectral_vectors_and_one_outside_does_not(precision: str) -> None:
    torch.manual_seed(0)
    critic = NoGanCritic(8)
    for training in (True, False):
        critic.train(training)
        before = {key: value.clone() for key, value in critic.state_dict().items() if key.endswith(("_u", "_v"))}
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            critic(torch.rand(1, 3, 64, 64))
        moved = [not torch.equal(value, critic.state_dict()[key]) for key, value in before.items()]
        assert len(moved) == 9 * 2 + 3 * 2
        assert any(moved) == training


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_nogan_critic_learns_to_tell_colour_from_grey(precision: str) -> None:
    torch.manual_seed(0)
    critic = NoGanCritic(8, dropout=0.0).train()
    optimizer = torch.optim.AdamW(critic.parameters(), 1e-3, betas=(0.0, 0.9))
    real = torch.rand(4, 3, 1, 1) * torch.rand(4, 1, 64, 64)
    for _ in range(120):
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            logits = critic(torch.cat((real, real.mean(1, keepdim=True).expand_as(real))))
        loss = critic_loss(*logits.chunk(2))
        optimizer.zero_grad()
        torch.autograd.backward([loss])
        optimizer.step()
    assert loss.item() < 0.5  # ln 2 is a guess


def test_the_patch_critic_has_the_published_layers_and_start() -> None:
    torch.manual_seed(0)
    critic = PatchCritic()
    found = [(c.in_channels, c.out_channels, c.kernel_size[0], c.stride[0]) for c in convolutions(critic)]
    assert found == [(4, 64, 4, 2), (64, 128, 4, 2), (128, 256, 4, 2), (256, 512, 4, 1), (512, 1, 4, 1)]
    for conv in convolutions(critic):
        assert conv.weight.std().item() == pytest.approx(0.02, rel=0.1)
        assert abs(conv.weight.mean().item()) < 0.002
        assert conv.bias is None or not conv.bias.any()
    norms = [module for module in critic.modules() if isinstance(module, nn.BatchNorm2d)]
    assert [norm.num_features for norm in norms] == [128, 256, 512]
    assert norms[2].weight.mean().item() == pytest.approx(1, abs=0.005)
    assert norms[2].weight.std().item() == pytest.approx(0.02, rel=0.15)


def test_a_logit_of_the_patch_critic_sees_70_pixels_of_both_pictures() -> None:
    torch.manual_seed(0)
    critic = PatchCritic(8).eval()
    grey, rgb = torch.rand(1, 1, 160, 144, requires_grad=True), torch.rand(1, 3, 160, 144, requires_grad=True)
    logits = critic(grey, rgb)
    assert logits.shape == (1, 1, 18, 16)
    for module in critic.modules():
        if isinstance(module, nn.LeakyReLU):
            assert module.negative_slope == 0.2
    assert seen(logits, rgb) == (70, 70)
    assert seen(critic(grey, rgb), grey) == (70, 70)


def test_the_critics_loss_is_the_mean_cross_entropy_of_all_patches() -> None:
    real, fake = torch.tensor([[2.0, -1.0]]), torch.tensor([[0.5, -3.0], [1.0, 4.0]])
    by_hand = sum(math.log1p(math.exp(-x)) for x in (2.0, -1.0)) / 2
    by_hand += sum(math.log1p(math.exp(x)) for x in (0.5, -3.0, 1.0, 4.0)) / 4
    assert critic_loss(real, fake).item() == pytest.approx(by_hand / 2)
    assert critic_loss(torch.zeros(1), torch.zeros(1)).item() == pytest.approx(math.log(2))


def test_the_generators_loss_is_the_cross_entropy_of_renders_taken_for_photographs() -> None:
    fake = torch.tensor([[0.5, -3.0], [1.0, 4.0]])
    by_hand = sum(math.log1p(math.exp(-x)) for x in (0.5, -3.0, 1.0, 4.0)) / 4
    assert generator_loss(fake).item() == pytest.approx(by_hand)
    assert generator_loss(fake + 1) < generator_loss(fake)


def test_the_losses_of_half_precision_logits_are_float32() -> None:
    logits = torch.ones(2, 1, 3, 3, dtype=torch.bfloat16)
    assert critic_loss(logits, logits).dtype == generator_loss(logits).dtype == torch.float32
