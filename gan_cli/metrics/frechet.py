"""The Fréchet distance between Gaussians fitted to features; with Inception's features it is the FID."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

import torch
from torch import Tensor

CHUNK_ROWS = 4096  # rows converted to float64 at a time


@dataclass(frozen=True)
class Gaussian:
    """The mean and the unbiased covariance of features, on the CPU.

    The covariance is stored as a factor. The trace term of the distance is then a sum of singular values of a product of
    two factors, which needs no matrix square root and does not amplify rounding errors.

    Attributes:
        mean: float64 (d,).
        factor: float64 (d, r) with r = min(n, d); the covariance is ``factor @ factor.T``.
    """

    mean: Tensor
    factor: Tensor

    @classmethod
    def of(cls, features: Tensor) -> Gaussian:
        """Fit a Gaussian to features, float (n, d) with n >= 2."""
        n, d = features.shape
        assert n >= 2
        mean = torch.stack([float64(chunk).sum(0) for chunk in torch.split(features, CHUNK_ROWS)]).sum(0) / n
        if n <= d:
            return cls(mean.cpu(), (float64(features) - mean).T.cpu() / sqrt(n - 1))
        scatter = torch.zeros(d, d, dtype=torch.float64, device=mean.device)
        for chunk in torch.split(features, CHUNK_ROWS):
            scatter += gram((float64(chunk) - mean).T)
        return cls(mean.cpu(), _factor(scatter.cpu() / (n - 1)))


def frechet_distance(a: Gaussian, b: Gaussian) -> float:
    """``|mean_a - mean_b|^2 + tr(A + B - 2 (A B)^(1/2))`` for the covariances A and B.

    The square of the 2-Wasserstein distance (Dowson & Landau 1982), the FID of Heusel et al. 2017, equation 6.
    The last trace is the sum of the singular values of ``a.factor.T @ b.factor``.

    Returns:
        At least 0. The error is about 1e-7 of the two traces, so the distance of equal Gaussians may be that large.
    """
    assert a.mean.shape == b.mean.shape
    shared = torch.linalg.svdvals(a.factor.T @ b.factor).sum()
    spread = a.factor.square().sum() + b.factor.square().sum() - 2 * shared
    return max(0.0, float((a.mean - b.mean).square().sum() + spread))


def float64(features: Tensor) -> Tensor:
    """Convert to float64 on the same device, or on the CPU for mps, which has no float64."""
    return (features.cpu() if features.device.type == "mps" else features).double()


def gram(x: Tensor) -> Tensor:
    """``x @ x.T``. On the CPU by NumPy, which computes only one half of the symmetric result."""
    if x.device.type != "cpu":
        return x @ x.T
    return torch.from_numpy(x.numpy() @ x.numpy().T)


def _factor(covariance: Tensor) -> Tensor:
    """Cholesky factor, or for a singular covariance the symmetric one (2048 columns: 2 s instead of 0.1 s)."""
    factor: Tensor
    factor, failed = torch.linalg.cholesky_ex(covariance)
    # The fraction of each column's variance that the columns before it do not explain.
    unexplained = factor.diagonal().square() / covariance.diagonal()
    if failed or unexplained.min() < 1e-10:
        values, vectors = torch.linalg.eigh(covariance)
        factor = vectors * values.clamp(min=0).sqrt()
    return factor
