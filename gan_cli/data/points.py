"""Points drawn from a known density, in place of images."""

from __future__ import annotations

import torch

from gan_cli.data.dataset import ArrayDataset, fingerprint
from gan_cli.data.densities import GaussianMixture
from gan_cli.randomness import derive
from gan_cli.ranges import PositiveInt, Seed


def points(*, density: GaussianMixture, dim: PositiveInt, n: PositiveInt = 100_000, seed: Seed = 0) -> ArrayDataset:
    """``n`` independent points of ``density``, float32 (n, dim), not scaled.

    Args:
        density: the density.
        dim: number of coordinates, which must be that of the density; models read it from here.
        n: number of points. It is large, because D would overfit a small sample.
        seed: the seed of the sample.

    Raises:
        ValueError: ``dim`` is not that of the density.
    """
    if dim != density.dim:
        raise ValueError(f"dim is {dim}, the density has {density.dim}")
    drawn = density.sample(n, torch.Generator().manual_seed(derive(seed, "points")))
    return ArrayDataset(drawn, labels=None, class_names=[], fingerprint=fingerprint(drawn.numpy()))
