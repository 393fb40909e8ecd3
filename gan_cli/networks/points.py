"""Fully connected players for points (N, dim) instead of images: the runs that check the theory."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from gan_cli.ranges import PositiveInt, Width


class Generator(nn.Module):
    """latent - hidden layers with ReLU - coordinates, which are not bounded."""

    def __init__(self, latent_dim: Width, dim: PositiveInt, hidden: Sequence[Width] = (128, 128)) -> None:
        super().__init__()
        self.layers = _layers([latent_dim, *hidden, dim])

    def forward(self, z: Tensor) -> Tensor:
        """``z``: (N, latent_dim). Returns points (N, dim)."""
        points: Tensor = self.layers(z)
        return points


class Discriminator(nn.Module):
    """coordinates - hidden layers with ReLU - one logit."""

    def __init__(self, dim: PositiveInt, hidden: Sequence[Width] = (128, 128)) -> None:
        super().__init__()
        self.layers = _layers([dim, *hidden, 1])

    def forward(self, points: Tensor) -> Tensor:
        """``points``: (N, dim). Returns logits (N,)."""
        logits: Tensor = self.layers(points)
        return logits.flatten()


def _layers(widths: list[int]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for width_in, width_out in pairwise(widths):
        layers += [nn.Linear(width_in, width_out), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers[:-1])
