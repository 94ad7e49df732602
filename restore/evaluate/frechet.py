"""The Fréchet distance of two sets of pictures, by features of EfficientNet-Lite.

It is not the FID: that one is defined by the features of one particular Inception network, and its values are not
comparable with these. Neither are values from different numbers of pictures: from fewer than some thousand the distance
is too large, the more the fewer.
"""

from __future__ import annotations

from functools import cached_property, lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from restore.generators.efficientnet import Classifier, classifier
from restore.generators.fold import fold

VARIANT = "lite0"
NAME = "EfficientNet-Lite0"
"""The network, as it is named beside every distance."""

Matrix = NDArray[np.float64]


@lru_cache(maxsize=2)
def network(device: torch.device) -> Classifier:
    """Return the classifier whose features are compared.

    Raises:
        ConfigError: The package with its weights is not installed.
    """
    return fold(classifier(VARIANT)).to(device)


class Moments:
    """Mean and covariance of features that come in batches."""

    def __init__(self) -> None:
        self.count = 0
        self._sum: Matrix | None = None
        self._products: Matrix | None = None

    def add(self, features: Tensor) -> None:
        """Take the features of more pictures, shape (B, K)."""
        rows = features.double().cpu().numpy()
        total, products = rows.sum(0), rows.T @ rows
        self._sum = total if self._sum is None else self._sum + total
        self._products = products if self._products is None else self._products + products
        self.count += len(rows)

    @property
    def mean(self) -> Matrix:
        """Shape (K,)."""
        assert self._sum is not None
        return np.asarray(self._sum / self.count)

    @property
    def covariance(self) -> Matrix:
        """Shape (K, K), of a sample."""
        assert self._products is not None
        return np.asarray((self._products - self.count * np.outer(self.mean, self.mean)) / (self.count - 1))

    @cached_property
    def root(self) -> Matrix:
        """The symmetric square root of the covariance, once all pictures are in."""
        values, vectors = np.linalg.eigh(self.covariance)
        return np.asarray((vectors * np.sqrt(values.clip(0))) @ vectors.T)


def distance(truth: Moments, found: Moments) -> float | None:
    """Return the Fréchet distance of two normal distributions, None if either is of fewer than two pictures.

    Source: Dowson and Landau, "The Fréchet Distance between Multivariate Normal Distributions", 1982, equation 4; its
    use for pictures: Heusel et al. 2017. The trace of the root of a product of covariances is that of the symmetric
    matrix with the same eigenvalues, so the root is real.
    """
    if min(truth.count, found.count) < 2:
        return None
    apart = float(np.square(truth.mean - found.mean).sum())
    covariance = found.covariance
    common = np.linalg.eigvalsh(truth.root @ covariance @ truth.root).clip(0)
    spread = float(np.trace(truth.covariance) + np.trace(covariance) - 2 * np.sqrt(common).sum())
    return max(0.0, apart + spread)
