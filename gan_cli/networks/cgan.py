"""The fully connected conditional players of Mirza & Osindero (2014), section 4.1: MNIST, latents and one-hot labels.

The paper's images are in [0, 1], from a sigmoid. Here they are in [-1, 1], from tanh, which is a rescaled sigmoid. The paper
gives no initialisation; PyTorch's default is used.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from gan_cli.networks.layers import Maxout
from gan_cli.ranges import Channels, Classes, Fraction, ImageSize, Pieces, Width


class Generator(nn.Module):
    """z to 200 and the label to 1000 ReLU units, both to 1200 ReLU units, then pixels; dropout on the hidden layers."""

    def __init__(
        self,
        latent_dim: Width,
        image_size: ImageSize,
        channels: Channels,
        num_classes: Classes,
        hidden_z: Width = 200,
        hidden_y: Width = 1000,
        hidden: Width = 1200,
        dropout: Fraction = 0.5,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.shape = (channels, image_size, image_size)
        self.z = nn.Sequential(nn.Linear(latent_dim, hidden_z), nn.ReLU(), nn.Dropout(dropout))
        self.y = nn.Sequential(nn.Linear(num_classes, hidden_y), nn.ReLU(), nn.Dropout(dropout))
        self.joint = nn.Sequential(nn.Linear(hidden_z + hidden_y, hidden), nn.ReLU(), nn.Dropout(dropout))
        self.pixels = nn.Sequential(nn.Linear(hidden, channels * image_size**2), nn.Tanh())

    def forward(self, z: Tensor, label: Tensor) -> Tensor:
        """Map ``z`` (N, latent_dim) and ``label`` int64 (N,) to images in [-1, 1], (N, channels, image_size, image_size)."""
        one_hot = functional.one_hot(label, self.num_classes).to(z.dtype)
        joint = self.joint(torch.cat([self.z(z), self.y(one_hot)], dim=1))
        images: Tensor = self.pixels(joint)
        return images.view(-1, *self.shape)


class Discriminator(nn.Module):
    """Pixels to a maxout layer of 240 units x 5 pieces, the label to 50 x 5, both to 240 x 4, then one logit.

    These hidden layers have dropout. According to the paper the precise architecture is not critical.
    """

    def __init__(
        self,
        image_size: ImageSize,
        channels: Channels,
        num_classes: Classes,
        hidden_x: Width = 240,
        pieces_x: Pieces = 5,
        hidden_y: Width = 50,
        pieces_y: Pieces = 5,
        hidden: Width = 240,
        pieces: Pieces = 4,
        dropout: Fraction = 0.5,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.x = nn.Sequential(nn.Flatten(), Maxout(channels * image_size**2, hidden_x, pieces_x), nn.Dropout(dropout))
        self.y = nn.Sequential(Maxout(num_classes, hidden_y, pieces_y), nn.Dropout(dropout))
        self.joint = nn.Sequential(Maxout(hidden_x + hidden_y, hidden, pieces), nn.Dropout(dropout))
        self.logit = nn.Linear(hidden, 1)

    def forward(self, images: Tensor, label: Tensor) -> Tensor:
        """Map ``images`` in [-1, 1], (N, C, H, W), and ``label`` int64 (N,) to logits (N,)."""
        one_hot = functional.one_hot(label, self.num_classes).to(images.dtype)
        joint = self.joint(torch.cat([self.x(images), self.y(one_hot)], dim=1))
        logits: Tensor = self.logit(joint)
        return logits.flatten()
