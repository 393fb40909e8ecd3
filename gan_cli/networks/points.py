"""Fully connected players for points (N, dim) instead of images, for runs that measure the theory.

Weights are initialised as in He et al. 2015 (section 2.2). PyTorch's default has a six times smaller variance; both players
are then so smooth at first that D approaches D* more slowly.
"""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

from gan_cli.ranges import Hidden, Width

LEAKY_RELU_SLOPE = 0.2  # slope in the discriminator


class Generator(nn.Module):
    """latent - hidden layers with ReLU - unbounded coordinates."""

    def __init__(self, latent_dim: Width, dim: Width, hidden: Hidden = (128, 128, 128)) -> None:
        super().__init__()
        self.layers = _layers([latent_dim, *hidden, dim], slope=0.0)

    def forward(self, z: Tensor) -> Tensor:
        """Map ``z`` (N, latent_dim) to points (N, dim)."""
        points: Tensor = self.layers(z)
        return points


class Discriminator(nn.Module):
    """coordinates - hidden layers with LeakyReLU 0.2 - one logit."""

    def __init__(self, dim: Width, hidden: Hidden = (128, 128)) -> None:
        super().__init__()
        self.layers = _layers([dim, *hidden, 1], slope=LEAKY_RELU_SLOPE)

    def forward(self, points: Tensor) -> Tensor:
        """Map ``points`` (N, dim) to logits (N,)."""
        logits: Tensor = self.layers(points)
        return logits.flatten()


def _layers(widths: list[int], slope: float) -> nn.Sequential:
    """Linear layers with LeakyReLU between them. The last has PyTorch's initial weights, so that outputs are small at first."""
    layers: list[nn.Module] = []
    for width_in, width_out in pairwise(widths):
        linear = nn.Linear(width_in, width_out)
        nn.init.kaiming_normal_(linear.weight, nonlinearity="relu")
        layers += [linear, nn.LeakyReLU(slope, inplace=True)]
    layers.pop()
    linear.reset_parameters()
    return nn.Sequential(*layers)
