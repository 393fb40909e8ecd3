"""The kernel distance between two sets of features; with Inception's features it is the KID."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from gan_cli.metrics.frechet import float64, gram


def kernel_distance(
    real: Tensor, fake: Tensor, *, subsets: int = 100, subset_size: int = 1000, seed: int = 2020, paired: bool = False
) -> tuple[float, float]:
    """The unbiased estimate of MMD^2 with the kernel ``(x.y / d + 1)^3`` (Binkowski et al. 2018, section 4).

    The subsets are those of torch-fidelity with the generated images as its first input: rows without replacement from
    ``RandomState(seed)``, generated ones first.

    Args:
        real: features, float (n, d), n >= 2.
        fake: features, float (m, d), m >= 2.
        subsets: number of estimates.
        subset_size: rows of each set in an estimate, or the size of the smaller set if it has fewer rows.
        seed: seed of the subsets.
        paired: whether row k of one set belongs to row k of the other, as a translation to its target. Both subsets then
            have the same rows, and pairs are left out of the kernel sum, where they would bias it (the U-statistic of
            Gretton et al. 2012, lemma 6).

    Returns:
        Mean and standard deviation of the estimates (not of the mean). The mean can be slightly negative.
    """
    assert not paired or len(real) == len(fake)
    size = min(subset_size, len(real), len(fake))
    assert size >= 2 and subsets >= 1
    random = np.random.RandomState(seed)

    def rows(features: Tensor) -> Tensor:
        return torch.from_numpy(random.choice(len(features), size, replace=False))

    estimates = []
    for _ in range(subsets):
        indices = rows(fake)
        y, x = float64(fake[indices]), float64(real[indices if paired else rows(real)])
        within = _kernel(gram(x), x.shape[1]).add_(_kernel(gram(y), x.shape[1]))
        between = _kernel(x @ y.T, x.shape[1])
        cross = (between.sum() - between.trace()) / (size * (size - 1)) if paired else between.mean()
        estimates.append((within.sum() - within.trace()) / (size * (size - 1)) - 2 * cross)
    values = torch.stack(estimates)
    return float(values.mean()), float(values.std(correction=0))


def _kernel(products: Tensor, dim: int) -> Tensor:
    """The cubic kernel of inner products, computed in place."""
    return products.div_(dim).add_(1).pow_(3)
