"""Data distributions with a known density, for runs that check the theory: mixtures of isotropic Gaussians."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from gan_cli.ranges import Coordinates, Modes, ModesPerSide, Points, Shares, Spread, Spreads


class GaussianMixture(nn.Module):
    """p(x) = sum_k weights_k N(x; means_k, stds_k^2 I).

    Args:
        means: one centre per mode, (K, dim). stds: one standard deviation per mode.
        weights: relative share of each mode; None: equal shares.

    Raises:
        ValueError: the lists do not fit together.
    """

    means: Tensor  # float32 (K, dim)
    stds: Tensor  # float32 (K,)
    log_weights: Tensor  # float32 (K,), of weights that sum to 1

    def __init__(
        self,
        means: Points,
        stds: Spreads,
        weights: Shares | None = None,
    ) -> None:
        super().__init__()
        shares = [1.0] * len(stds) if weights is None else list(weights)
        if not len(means) == len(stds) == len(shares) > 0:
            given = "" if weights is None else f" and {len(shares)} weights"
            raise ValueError(f"there are {len(means)} means for {len(stds)} stds{given}")
        if len({len(mean) for mean in means}) != 1 or not len(means[0]):
            raise ValueError("the means must all have the same number of coordinates, at least one")
        self.register_buffer("means", torch.tensor([list(mean) for mean in means], dtype=torch.float32))
        self.register_buffer("stds", torch.tensor(list(stds), dtype=torch.float32))
        self.register_buffer("log_weights", torch.tensor([math.log(share / sum(shares)) for share in shares]))
        self.modes, self.dim = self.means.shape

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """``n`` independent points, float32 (n, dim), on the CPU."""
        mode = torch.multinomial(self.log_weights.exp().cpu(), n, replacement=True, generator=generator)
        noise = torch.randn(n, self.dim, generator=generator)
        return self.means.cpu()[mode] + self.stds.cpu()[mode, None] * noise

    def log_prob(self, x: Tensor) -> Tensor:
        """log p(x). ``x``: (..., dim). Returns (...), of the same dtype."""
        z = (x.unsqueeze(-2) - self.means.to(x.dtype)) / self.stds.to(x.dtype)[:, None]
        log_modes = -0.5 * z.square().sum(-1) - self.dim * (self.stds.log() + 0.5 * math.log(2 * math.pi)).to(x.dtype)
        return torch.logsumexp(self.log_weights.to(x.dtype) + log_modes, dim=-1)

    def nearest(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """For each of ``x``, (N, dim): the index of the nearest mode, int64 (N,), and the distance in standard deviations."""
        distance, mode = torch.cdist(x, self.means.to(x.dtype)).min(dim=1)
        return mode, distance / self.stds.to(x.dtype)[mode]

    def cell_masses(self, edges: Tensor) -> Tensor:
        """The exact probability of every cell of a grid whose outermost cells reach to infinity.

        ``edges``: float64 (dim, cells - 1) on the CPU, ascending, the inner edges of each axis. Returns float64 (cells,) * dim.
        """
        weights, means, stds = (x.cpu().double() for x in (self.log_weights.exp(), self.means, self.stds))
        z = (edges[None] - means[:, :, None]) / stds[:, None, None]
        cdf = torch.special.ndtr(z)  # (K, dim, cells - 1)
        below, above = torch.zeros_like(cdf[..., :1]), torch.ones_like(cdf[..., :1])
        mass = torch.cat([below, cdf, above], dim=-1).diff(dim=-1)  # (K, dim, cells)
        total = weights.reshape(-1, *[1] * self.dim)
        for axis in range(self.dim):
            total = total * mass[:, axis].reshape(self.modes, *[-1 if k == axis else 1 for k in range(self.dim)])
        return total.sum(0)

    def quantiles(self, u: Tensor) -> Tensor:
        """The inverse distribution function, in one dimension. ``u``: float64 (N,) in (0, 1), on the CPU; so are they."""
        assert self.dim == 1, self.dim
        weights, means, stds = (x.cpu().double() for x in (self.log_weights.exp(), self.means[:, 0], self.stds))
        low = torch.full_like(u, float((means - 40 * stds).min()))
        high = torch.full_like(u, float((means + 40 * stds).max()))
        for _ in range(60):  # bisection, to the last digits of float64
            middle = (low + high) / 2
            under = (weights * torch.special.ndtr((middle[:, None] - means) / stds)).sum(1) < u
            low, high = torch.where(under, middle, low), torch.where(under, high, middle)
        return (low + high) / 2


class Mixture1D(GaussianMixture):
    """Gaussians on a line. ``means``, ``stds``, ``weights``: one number per mode; weights None: equal shares."""

    def __init__(
        self,
        means: Coordinates = (-2.0, 0.0, 2.0),
        stds: Spreads = (0.5, 0.5, 0.5),
        weights: Shares | None = None,
    ) -> None:
        super().__init__([[mean] for mean in means], stds, weights)


class Ring(GaussianMixture):
    """Equal Gaussians at equal distances on a circle (the 2-D experiment of Metz et al. 2017 and Srivastava et al. 2017)."""

    def __init__(self, modes: Modes = 8, radius: Spread = 2.0, std: Spread = 0.2) -> None:
        angles = [2 * math.pi * k / modes for k in range(modes)]
        super().__init__([[radius * math.cos(a), radius * math.sin(a)] for a in angles], [std] * modes)


class Grid(GaussianMixture):
    """``side`` x ``side`` equal Gaussians on a square lattice around 0 (Srivastava et al. 2017)."""

    def __init__(self, side: ModesPerSide = 5, spacing: Spread = 1.0, std: Spread = 0.2) -> None:
        places = [spacing * (k - (side - 1) / 2) for k in range(side)]
        super().__init__([[x, y] for x in places for y in places], [std] * side**2)
