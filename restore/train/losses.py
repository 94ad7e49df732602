"""The palette of colours, and the losses of a distribution over it.

Source: Zhang, Isola and Efros 2016, "Colorful Image Colorization", 2.2 (soft encoding, class rebalancing). Theirs is a
fixed grid of 313 bins; here the bins are the cluster centres of the training photographs' colours, dense where eyes
and photographs have many colours (near grey, skin, foliage) and wide apart where they have few.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from restore.photographs import Photo
from restore.train.data import lab, opened

Points = NDArray[np.floating[Any]]

_NEAREST = 5
"""Bins that one true colour is spread over."""


def histogram(photos: list[Photo], seed: int, count: int = 800) -> NDArray[np.float64]:
    """Count colours in cells of 2 ab units, shape (128, 128), over `count` random photographs."""
    total = np.zeros((128, 128))
    for index in np.random.default_rng(seed).permutation(len(photos))[:count]:
        found = opened(photos[index])
        picture = found.pixels() if found else None
        if picture is None:
            continue
        small = np.asarray(cv2.resize(picture, (64, 64), interpolation=cv2.INTER_AREA), np.float32)
        ab = lab(small / np.float32(255))[..., 1:].reshape(-1, 2)
        total += np.histogram2d(ab[:, 0], ab[:, 1], bins=128, range=((-128, 128), (-128, 128)))[0]
    return total


def palette(counts: NDArray[np.float64], bins: int, seed: int) -> Tensor:
    """Cluster colours into bins, weighted by the square root of how common they are.

    Returns:
        Centres, shape (K, 2), ab, from grey to saturated.
    """
    cells, share = _cells(counts)
    rng, weight = np.random.default_rng(seed), np.sqrt(share)
    centers: Points = cells[rng.choice(len(cells), bins, replace=len(cells) < bins, p=weight / weight.sum())]
    for _ in range(60):
        nearest = _distances(cells, centers).argmin(1)
        mass = np.bincount(nearest, weight, bins)
        mean = np.stack([np.bincount(nearest, weight * cells[:, i], bins) for i in (0, 1)], 1)
        centers = np.where(mass[:, None] > 0, mean / np.maximum(mass, 1e-12)[:, None], centers)
    return torch.tensor(centers[np.hypot(*centers.T).argsort()], dtype=torch.float32)


def nearest_share(counts: NDArray[np.float64], bins: Tensor) -> Tensor:
    """Return the share of all pixels whose colour is nearest to each of the bins (K, 2); shape (K,), sums to 1."""
    cells, share = _cells(counts)
    nearest = _distances(cells, bins.double().cpu().numpy()).argmin(1)
    return torch.tensor(np.bincount(nearest, share, len(bins)), dtype=torch.float32)


def _cells(counts: NDArray[np.float64]) -> tuple[Points, Points]:
    """Return the colours that occur, shape (N, 2), and their shares, for the counts of `histogram`."""
    a, b = np.nonzero(counts >= 1)
    return np.stack((a, b), 1) * 2.0 - 127.0, counts[a, b] / counts.sum()


def _distances(one: Points, two: Points) -> Points:
    squared: Points = ((one[:, None] - two[None]) ** 2).sum(-1)
    return squared


def rarity(prior: Tensor, rebalance: float) -> Tensor:
    """Return how much the loss weighs each bin, shape (K,), mean 1 over pixels, for the bins' shares of all pixels.

    Source: Zhang et al. 2016, equation 4.
    """
    weight = 1 / ((1 - rebalance) * prior + rebalance / len(prior))
    return weight / (weight * prior).sum()


class DistributionLoss:
    """Rebalanced cross-entropy against softly encoded colours, and smooth L1 of the distribution's mean colour."""

    def __init__(self, centers: Tensor, prior: Tensor, sigma: float, rebalance: float) -> None:
        """Prepare a table from every whole ab to its nearest bins.

        Args:
            centers: Shape (K, 2).
            prior: Shape (K,), sums to 1.
            sigma: Width of the soft encoding, ab units.
            rebalance: Lambda of Zhang et al.: 1 weights all bins alike.
        """
        self.centers = centers
        weight = rarity(prior.to(centers.device), rebalance)
        axis = torch.arange(-128.0, 129.0, device=centers.device)
        grid = torch.stack(torch.meshgrid(axis, axis, indexing="ij"), -1).reshape(-1, 2)
        squared, self.nearest = torch.cdist(grid, centers).square().topk(_NEAREST, largest=False)
        share = torch.softmax(-squared / (2 * sigma**2), 1)
        self.share = share * (share * weight[self.nearest]).sum(1, keepdim=True)

    def __call__(self, logits: Tensor, ab: Tensor) -> tuple[Tensor, Tensor]:
        """Return both losses, scalars, of logits (B, K, H, W) against ab (B, 2, H, W)."""
        flat = logits.float().permute(0, 2, 3, 1).reshape(-1, logits.shape[1])
        truth = ab.permute(0, 2, 3, 1).reshape(-1, 2)
        cell = (truth.round().clamp(-128, 128) + 128).long()
        cell = cell[:, 0] * 257 + cell[:, 1]
        log_share = F.log_softmax(flat, 1)
        entropy = -(log_share.gather(1, self.nearest[cell]) * self.share[cell]).sum(1).mean()
        return entropy, F.smooth_l1_loss(log_share.exp() @ self.centers, truth, beta=10.0) / 10.0
