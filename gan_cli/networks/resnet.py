"""The CIFAR-10 ResNet of WGAN-GP (Gulrajani et al. 2017, appendix F), without labels.

As in gan_cifar_resnet.py of igul222/improved_wgan_training: pre-activation residual blocks of two 3 x 3 convolutions with
``width`` channels, nearest-neighbour upsampling and mean pooling. A shortcut that changes the size or channels is a 1 x 1
convolution at the smaller size, with which upsampling and pooling commute.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from gan_cli.networks.layers import Norm, make_norm
from gan_cli.ranges import Channels, ResNetImageSize, Width


def convolution(width_in: int, width_out: int, kernel: int = 3, gain: float = 2**0.5) -> nn.Conv2d:
    """A convolution that keeps the size. Weights are uniform with variance gain^2 * 2 / (fan_in + fan_out), biases 0.

    This is the reference code's initialisation: the gain for ReLU (He et al. 2015) with the mean of both fans (Glorot &
    Bengio 2010), and gain 1 for shortcuts and G's last layer.
    """
    layer = nn.Conv2d(width_in, width_out, kernel, padding=kernel // 2)
    nn.init.xavier_uniform_(layer.weight, gain)
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    return layer


def linear(width_in: int, width_out: int) -> nn.Linear:
    """A linear layer with Glorot's uniform weights and biases 0."""
    layer = nn.Linear(width_in, width_out)
    nn.init.xavier_uniform_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


class ResidualBlock(nn.Module):
    """norm - ReLU - [upsample] - conv - norm - ReLU - conv - [mean pool], added to the shortcut."""

    def __init__(self, width: int, norm: Norm, resample: Literal["up", "down"] | None = None) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            make_norm(norm, width),
            nn.ReLU(),  # not in place: without a norm its input is also the input of the shortcut
            nn.Upsample(scale_factor=2) if resample == "up" else nn.Identity(),
            convolution(width, width),
            make_norm(norm, width),
            nn.ReLU(),
            convolution(width, width),
            nn.AvgPool2d(2) if resample == "down" else nn.Identity(),
        )
        self.shortcut: nn.Module = nn.Identity()
        if resample == "up":
            self.shortcut = nn.Sequential(convolution(width, width, kernel=1, gain=1), nn.Upsample(scale_factor=2))
        elif resample == "down":
            self.shortcut = nn.Sequential(nn.AvgPool2d(2), convolution(width, width, kernel=1, gain=1))

    def forward(self, x: Tensor) -> Tensor:
        """Map ``x`` (N, width, H, W) to (N, width, H', W') with twice, half or the same height and width."""
        output: Tensor = self.shortcut(x) + self.layers(x)
        return output


class FirstBlock(nn.Module):
    """D's first block, which halves the image: no norm, and no activation before the first convolution."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(convolution(channels, width), nn.ReLU(), convolution(width, width), nn.AvgPool2d(2))
        self.shortcut = nn.Sequential(nn.AvgPool2d(2), convolution(channels, width, kernel=1, gain=1))

    def forward(self, images: Tensor) -> Tensor:
        """Map ``images`` (N, channels, H, W) to (N, width, H / 2, W / 2)."""
        output: Tensor = self.shortcut(images) + self.layers(images)
        return output


class Generator(nn.Module):
    """z -> 4 x 4 -> a block per doubling -> image, with batch norm. The paper's z has 128 dimensions."""

    def __init__(self, latent_dim: Width, image_size: ResNetImageSize, channels: Channels, width: Width = 128) -> None:
        super().__init__()
        doublings = image_size.bit_length() - 3  # 32 -> 3
        self.layers = nn.Sequential(
            linear(latent_dim, width * 4 * 4),
            nn.Unflatten(1, (width, 4, 4)),
            *[ResidualBlock(width, "batch", "up") for _ in range(doublings)],
            nn.BatchNorm2d(width),
            nn.ReLU(),
            convolution(width, channels, gain=1),
            nn.Tanh(),
        )

    def forward(self, z: Tensor) -> Tensor:
        """Map ``z`` (N, latent_dim) to images in [-1, 1], (N, channels, image_size, image_size)."""
        images: Tensor = self.layers(z)
        return images


class Discriminator(nn.Module):
    """image -> a block per halving -> 8 x 8 -> two blocks -> ReLU, mean over positions -> one logit.

    ``norm``: ``none`` in the paper, ``layer`` as its alternative. ``batch`` is not allowed with a per-sample penalty.
    """

    def __init__(
        self,
        image_size: ResNetImageSize,
        channels: Channels,
        width: Width = 128,
        norm: Literal["batch", "layer", "instance", "none"] = "none",
    ) -> None:
        super().__init__()
        halvings = image_size.bit_length() - 4  # 32 -> 2
        self.layers = nn.Sequential(
            FirstBlock(channels, width),
            *[ResidualBlock(width, norm, "down") for _ in range(halvings - 1)],
            *[ResidualBlock(width, norm) for _ in range(2)],
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            linear(width, 1),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Map ``images`` in [-1, 1], (N, C, H, W), to logits (N,)."""
        logits: Tensor = self.layers(images)
        return logits.flatten()
