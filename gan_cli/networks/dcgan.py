"""DCGAN (Radford et al. 2016, figure 1 and section 3), layer by layer as in dcgan.torch.

Strided 4 x 4 convolutions without bias; batch norm except in G's last and D's first layer; ReLU and tanh in G, LeakyReLU 0.2
in D. At 64 x 64 and ``width=64`` the channels are 512-256-128-64, as in dcgan.torch. ``width=128`` gives the
1024-512-256-128 of the paper's figure 1. Other sizes add a stage per doubling or drop one per halving.

The conditional players are the same networks with a label as in cGAN (Mirza & Osindero 2014).
"""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from gan_cli.networks.layers import initialise, make_norm
from gan_cli.ranges import Channels, Classes, DCGANImageSize, Width


def stage_widths(image_size: int, width: int) -> list[int]:
    """Channels at 4 x 4, 8 x 8, ..., image_size / 2. The last is ``width``; each one before it twice that, up to 16 * width."""
    stages = image_size.bit_length() - 3  # 64 -> 4
    return [width * 2 ** min(i, 4) for i in reversed(range(stages))]


class Generator(nn.Module):
    """z -> 4 x 4 -> ... -> image, by transposed convolutions."""

    def __init__(self, latent_dim: Width, image_size: DCGANImageSize, channels: Channels, width: Width = 64) -> None:
        super().__init__()
        widths = stage_widths(image_size, width)
        layers: list[nn.Module] = [nn.ConvTranspose2d(latent_dim, widths[0], 4, bias=False)]
        for width_in, width_out in zip(widths, [*widths[1:], channels], strict=True):
            layers += [
                nn.BatchNorm2d(width_in),
                nn.ReLU(inplace=True),
                nn.ConvTranspose2d(width_in, width_out, 4, stride=2, padding=1, bias=False),
            ]
        self.layers = nn.Sequential(*layers, nn.Tanh())
        self.apply(initialise)

    def forward(self, z: Tensor) -> Tensor:
        """Map ``z`` (N, latent_dim) to images in [-1, 1], (N, channels, image_size, image_size)."""
        images: Tensor = self.layers(z[:, :, None, None])
        return images


class Discriminator(nn.Module):
    """image -> ... -> 4 x 4 -> one logit, by strided convolutions.

    ``norm``: ``batch`` in the paper; critics with a per-sample penalty need ``layer``, ``instance`` or ``none``.
    """

    def __init__(
        self,
        image_size: DCGANImageSize,
        channels: Channels,
        width: Width = 64,
        norm: Literal["batch", "layer", "instance", "none"] = "batch",
    ) -> None:
        super().__init__()
        widths = stage_widths(image_size, width)[::-1]
        layers: list[nn.Module] = [nn.Conv2d(channels, widths[0], 4, stride=2, padding=1, bias=False)]
        for width_in, width_out in pairwise(widths):
            layers += [
                nn.LeakyReLU(0.2, inplace=True),
                nn.Conv2d(width_in, width_out, 4, stride=2, padding=1, bias=False),
                make_norm(norm, width_out),
            ]
        layers += [nn.LeakyReLU(0.2, inplace=True), nn.Conv2d(widths[-1], 1, 4, bias=False)]
        self.layers = nn.Sequential(*layers)
        self.apply(initialise)

    def forward(self, images: Tensor) -> Tensor:
        """Map ``images`` in [-1, 1], (N, C, H, W), to logits (N,)."""
        logits: Tensor = self.layers(images)
        return logits.flatten()


class ConditionalGenerator(nn.Module):
    """The generator on the concatenation of z and the one-hot label."""

    def __init__(
        self,
        latent_dim: Width,
        image_size: DCGANImageSize,
        channels: Channels,
        num_classes: Classes,
        width: Width = 64,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.generator = Generator(latent_dim + num_classes, image_size, channels, width)

    def forward(self, z: Tensor, label: Tensor) -> Tensor:
        """Map ``z`` (N, latent_dim) and ``label`` int64 (N,) to images in [-1, 1], (N, channels, image_size, image_size)."""
        one_hot = functional.one_hot(label, self.num_classes).to(z.dtype)
        images: Tensor = self.generator(torch.cat([z, one_hot], dim=1))
        return images


class ConditionalDiscriminator(nn.Module):
    """The discriminator on the image and one more channel: a learned map per class, initialised from N(0, 1)."""

    def __init__(
        self,
        image_size: DCGANImageSize,
        channels: Channels,
        num_classes: Classes,
        width: Width = 64,
        norm: Literal["batch", "layer", "instance", "none"] = "batch",
    ) -> None:
        super().__init__()
        self.maps = nn.Embedding(num_classes, image_size**2)
        self.discriminator = Discriminator(image_size, channels + 1, width, norm)

    def forward(self, images: Tensor, label: Tensor) -> Tensor:
        """Map ``images`` in [-1, 1], (N, C, H, W), and ``label`` int64 (N,) to logits (N,)."""
        maps = self.maps(label).view(-1, 1, *images.shape[2:])
        logits: Tensor = self.discriminator(torch.cat([images, maps], dim=1))
        return logits
