"""The kernel distance between two sets of features; with Inception's features it is the KID."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from gan_cli.metrics.frechet import float64, gram


def kernel_distance(
    real: Tensor, fake: Tensor, *, subsets: int = 100, subset_size: int = 1000, seed: int = 2020
) -> tuple[float, float]:
    """The unbiased estimate of MMD^2 with the kernel ``(x.y / d + 1)^3`` (Binkowski et al. 2018, section 4).

    The subsets are those of torch-fidelity with the generated images as its first input: rows without replacement from
    ``RandomState(seed)``, generated ones first.

    Args:
        real: features, float (n, d), n >= 2.
        fake: features, float (m, d), m >= 2.
        subsets: how many estimates.
        subset_size: rows of each set in an estimate, or all rows of the smaller set if that has fewer.
        seed: of the subsets.

    Returns:
        Mean and standard deviation (not that of the mean) of the estimates. The mean can be a little below 0.
    """
    size = min(subset_size, len(real), len(fake))
    assert size >= 2 and subsets >= 1
    random = np.random.RandomState(seed)

    def subset(features: Tensor) -> Tensor:
        return float64(features[torch.from_numpy(random.choice(len(features), size, replace=False))])

    estimates = []
    for _ in range(subsets):
        y, x = subset(fake), subset(real)
        within = _kernel(gram(x), x.shape[1]) + _kernel(gram(y), x.shape[1])
        between = _kernel(x @ y.T, x.shape[1])
        estimates.append((within.sum() - within.trace()) / (size * (size - 1)) - 2 * between.mean())
    values = torch.stack(estimates)
    return float(values.mean()), float(values.std(correction=0))


def _kernel(products: Tensor, dim: int) -> Tensor:
    return (products / dim + 1) ** 3
