"""The palette of colours, and the losses of a distribution over it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from restore.photographs import find
from restore.train.losses import DistributionLoss, histogram, nearest_share, palette, rarity


@pytest.fixture
def bins() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.tensor([[0.0, 0.0], [40.0, 0.0], [0.0, 40.0], [-40.0, 0.0], [0.0, -40.0]]), torch.full((5,), 0.2)


def test_the_loss_is_least_at_the_true_colour(bins: tuple[torch.Tensor, torch.Tensor]) -> None:
    loss = DistributionLoss(*bins, sigma=5.0, rebalance=0.5)
    ab = torch.tensor([0.0, 40.0])[None, :, None, None].expand(1, 2, 4, 4)
    values = [sum(map(float, loss(10 * torch.eye(5)[k][None, :, None, None].expand(1, 5, 4, 4), ab))) for k in range(5)]
    assert values.index(min(values)) == 2
    assert min(values) < 0.05


def test_rare_colours_weigh_more_unless_rebalancing_is_one() -> None:
    prior = torch.tensor([0.9, 0.1, 0.0, 0.0, 0.0])
    centers = torch.tensor([[0.0, 0.0], [60.0, 0.0], [0.0, 99.0], [0.0, -99.0], [-99.0, 0.0]])
    grey, red = (torch.tensor([a, 0.0])[None, :, None, None] for a in (0.0, 60.0))
    flat = torch.zeros(1, 5, 1, 1)
    fair = DistributionLoss(centers, prior, 5.0, rebalance=1.0)
    rare = DistributionLoss(centers, prior, 5.0, rebalance=0.3)
    assert float(fair(flat, grey)[0]) == pytest.approx(float(fair(flat, red)[0]))
    assert float(rare(flat, red)[0]) > 2 * float(rare(flat, grey)[0])


def test_the_loss_is_the_published_one_worked_out_pixel_by_pixel() -> None:
    """Zhang et al. 2016: soft encoding of the five nearest bins, cross-entropy, each bin's part times its rarity."""
    rng = np.random.default_rng(0)
    centers, prior = rng.uniform(-60, 60, (9, 2)), rng.dirichlet(np.ones(9))
    logits, truth = rng.normal(size=(2, 9, 3, 4)), np.rint(rng.uniform(-60, 60, (2, 2, 3, 4)))
    weight = 1 / (0.7 * prior + 0.3 / 9)
    weight /= (prior * weight).sum()
    assert rarity(torch.tensor(prior), 0.3).numpy() == pytest.approx(weight)
    losses = []
    for picture, y, x in np.ndindex(2, 3, 4):
        far = np.linalg.norm(centers - truth[picture, :, y, x], axis=1)
        nearest = far.argsort()[:5]
        soft = np.exp(-(far[nearest] ** 2) / (2 * 12.0**2))
        soft /= soft.sum()
        share = np.exp(logits[picture, :, y, x])
        entropy = -(soft * np.log(share / share.sum())[nearest]).sum()
        losses.append(entropy * (soft * weight[nearest]).sum())
    loss = DistributionLoss(torch.tensor(centers).float(), torch.tensor(prior).float(), sigma=12.0, rebalance=0.3)
    found = loss(torch.tensor(logits), torch.tensor(truth).float())[0]
    assert float(found) == pytest.approx(np.mean(losses), rel=1e-4)


def test_the_mean_term_is_the_distance_of_the_mean_colour(bins: tuple[torch.Tensor, torch.Tensor]) -> None:
    loss = DistributionLoss(*bins, sigma=5.0, rebalance=0.5)
    logits = torch.zeros(1, 5, 1, 1)  # all alike: the mean is grey
    near, far = (float(loss(logits, torch.tensor([a, 0.0])[None, :, None, None])[1]) for a in (5.0, 40.0))
    assert near == pytest.approx(0.5 * 5**2 / 10 / 2 / 10)  # one of two coordinates is off, in the square part
    assert far == pytest.approx((40 - 5) / 2 / 10)


def test_the_loss_learns_the_colours_own_frequencies(bins: tuple[torch.Tensor, torch.Tensor]) -> None:
    loss = DistributionLoss(*bins, sigma=2.0, rebalance=1.0)
    truth = bins[0][torch.tensor([1, 1, 1, 2])].T.reshape(1, 2, 2, 2)
    logits = torch.zeros(1, 5, 1, 1, requires_grad=True)
    optimizer = torch.optim.Adam([logits], lr=0.2)
    for _ in range(150):
        optimizer.zero_grad()
        torch.autograd.backward([loss(logits.expand(1, 5, 2, 2), truth)[0]])
        optimizer.step()
    assert torch.softmax(logits, 1).flatten()[1:3].tolist() == pytest.approx([0.75, 0.25], abs=0.02)


def test_the_palette_covers_the_colours_and_counts_them(photographs: Path) -> None:
    counts = histogram(find(photographs), seed=0)
    centers = palette(counts, 12, seed=0)
    prior = nearest_share(counts, centers)
    assert centers.shape == (12, 2)
    assert float(prior.sum()) == pytest.approx(1.0, abs=1e-5)
    assert torch.equal(centers.norm(dim=1).argsort(), torch.arange(12))
    a, b = np.nonzero(counts)
    cells = torch.tensor(np.stack((a, b), 1) * 2.0 - 127, dtype=torch.float32)
    near = torch.cdist(cells, centers).min(1).values
    assert float((near * torch.tensor(counts[a, b], dtype=torch.float32)).sum() / counts.sum()) < 15
    assert torch.equal(palette(counts, 12, seed=0), centers)
