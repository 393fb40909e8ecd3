"""The players with which Lucic et al. 2018 compare losses, after InfoGAN (Chen et al. 2016, appendix C.1).

Layer by layer as in google/compare_gan (tag v1.0, ``abstract_gan.py``): 4 x 4 kernels, LeakyReLU 0.2, and batch norm with an
epsilon of 0.001 except in the first and last layers. At 28 x 28 the maps are 7 x 7, then 14 x 14.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from gan_cli.networks.layers import make_norm
from gan_cli.ranges import Channels, QuarteredImageSize, Width

NORM_EPSILON = 1e-3  # epsilon of batch norm


def _initialise(module: nn.Module) -> None:
    """Draw weights from N(0, 0.02), truncated at two standard deviations for convolutions, and set biases to 0."""
    if isinstance(module, nn.Conv2d):
        nn.init.trunc_normal_(module.weight, 0.0, 0.02, -0.04, 0.04)
    elif isinstance(module, nn.Linear | nn.ConvTranspose2d):
        nn.init.normal_(module.weight, 0.0, 0.02)
    if isinstance(module, nn.Conv2d | nn.Linear | nn.ConvTranspose2d) and module.bias is not None:
        nn.init.zeros_(module.bias)


class Generator(nn.Module):
    """z -> ``hidden`` -> maps of a quarter of the image size -> maps of half -> image."""

    def __init__(
        self,
        latent_dim: Width,
        image_size: QuarteredImageSize,
        channels: Channels,
        width: Width = 64,
        hidden: Width = 1024,
    ) -> None:
        super().__init__()
        side = image_size // 4
        self.layers = nn.Sequential(
            nn.Linear(latent_dim, hidden),
            nn.BatchNorm1d(hidden, NORM_EPSILON),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Linear(hidden, 2 * width * side * side),
            nn.BatchNorm1d(2 * width * side * side, NORM_EPSILON),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Unflatten(1, (2 * width, side, side)),
            nn.ConvTranspose2d(2 * width, width, 4, stride=2, padding=1),
            nn.BatchNorm2d(width, NORM_EPSILON),
            nn.LeakyReLU(0.2, inplace=True),
            nn.ConvTranspose2d(width, channels, 4, stride=2, padding=1),
        )
        self.apply(_initialise)

    def forward(self, z: Tensor) -> Tensor:
        """Map ``z`` (N, latent_dim) to images in [-1, 1], (N, channels, image_size, image_size)."""
        logits: Tensor = self.layers(z)
        return 2 * torch.sigmoid(logits) - 1


class Discriminator(nn.Module):
    """image -> maps of half the image size -> maps of a quarter -> ``hidden`` -> one logit.

    ``norm``: ``batch`` or ``none`` in the study; critics with a per-sample penalty need ``layer`` or ``none``.
    """

    def __init__(
        self,
        image_size: QuarteredImageSize,
        channels: Channels,
        width: Width = 64,
        hidden: Width = 1024,
        norm: Literal["batch", "layer", "none"] = "batch",
    ) -> None:
        super().__init__()
        side = image_size // 4
        norms = {"batch": nn.BatchNorm1d(hidden, NORM_EPSILON), "layer": nn.LayerNorm(hidden), "none": nn.Identity()}
        self.layers = nn.Sequential(
            nn.Conv2d(channels, width, 4, stride=2, padding=1),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Conv2d(width, 2 * width, 4, stride=2, padding=1),
            nn.BatchNorm2d(2 * width, NORM_EPSILON) if norm == "batch" else make_norm(norm, 2 * width),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Flatten(),
            nn.Linear(2 * width * side * side, hidden),
            norms[norm],
            nn.LeakyReLU(0.2, inplace=True),
            nn.Linear(hidden, 1),
        )
        self.apply(_initialise)

    def forward(self, images: Tensor) -> Tensor:
        """Map ``images`` in [-1, 1], (N, C, H, W), to logits (N,)."""
        logits: Tensor = self.layers(images)
        return logits.flatten()
