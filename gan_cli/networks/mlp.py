"""Fully connected players, as in the Fashion-MNIST and WGAN tutorials. PyTorch's default initialisation, no normalisation."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

from gan_cli.ranges import Channels, Hidden, ImageSize, Width


class Generator(nn.Module):
    """latent - hidden layers with ReLU - pixels with tanh.

    The Fashion-MNIST tutorial has 64-256-256-784, the WGAN tutorial 100-256-512-1024-784.
    """

    def __init__(
        self,
        latent_dim: Width,
        image_size: ImageSize,
        channels: Channels,
        hidden: Hidden = (256, 256),
    ) -> None:
        super().__init__()
        self.shape = (channels, image_size, image_size)
        widths = [latent_dim, *hidden]
        layers: list[nn.Module] = []
        for width_in, width_out in pairwise(widths):
            layers += [nn.Linear(width_in, width_out), nn.ReLU(inplace=True)]
        self.layers = nn.Sequential(*layers, nn.Linear(widths[-1], channels * image_size**2), nn.Tanh())

    def forward(self, z: Tensor) -> Tensor:
        """Map ``z`` (N, latent_dim) to images in [-1, 1], (N, channels, image_size, image_size)."""
        images: Tensor = self.layers(z)
        return images.view(-1, *self.shape)


class Discriminator(nn.Module):
    """pixels - hidden layers with LeakyReLU 0.2 - one logit.

    The Fashion-MNIST tutorial has 784-256-256-1, the critic of the WGAN tutorial 784-512-256-1.
    """

    def __init__(self, image_size: ImageSize, channels: Channels, hidden: Hidden = (256, 256)) -> None:
        super().__init__()
        widths = [channels * image_size**2, *hidden]
        layers: list[nn.Module] = [nn.Flatten()]
        for width_in, width_out in pairwise(widths):
            layers += [nn.Linear(width_in, width_out), nn.LeakyReLU(0.2, inplace=True)]
        self.layers = nn.Sequential(*layers, nn.Linear(widths[-1], 1))

    def forward(self, images: Tensor) -> Tensor:
        """Map ``images`` in [-1, 1], (N, C, H, W), to logits (N,)."""
        logits: Tensor = self.layers(images)
        return logits.flatten()
