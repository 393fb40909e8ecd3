"""Layers and initialisations shared by several networks."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

Norm = Literal["batch", "layer", "instance", "none"]


def make_norm(kind: Norm, channels: int) -> nn.Module:
    """Make a normalisation layer for (N, channels, H, W).

    ``layer`` normalises each sample over (channels, H, W), with an affine per channel (Ba et al. 2016; WGAN-GP recommends it
    for the critic). ``instance`` normalises each channel of each sample.
    """
    if kind == "batch":
        return nn.BatchNorm2d(channels)
    if kind == "layer":
        return nn.GroupNorm(1, channels)
    if kind == "instance":
        return nn.InstanceNorm2d(channels)
    return nn.Identity()


def initialise(module: nn.Module) -> None:
    """Draw weights of convolutions from N(0, 0.02) and of batch norm from N(1, 0.02); set biases to 0.

    As in DCGAN (section 4 and dcgan.torch), pix2pix (section 6.2 and phillipi/pix2pix) and CycleGAN (appendix 7.1).
    """
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(module.weight, 0.0, 0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)
        nn.init.zeros_(module.bias)


class Maxout(nn.Module):
    """Units that are the maximum of several linear functions, their pieces (Goodfellow et al. 2013, section 3)."""

    def __init__(self, inputs: int, units: int, pieces: int) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, units * pieces)
        self.shape = (units, pieces)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``x`` (N, inputs) to (N, units)."""
        pieces: Tensor = self.linear(x)
        return pieces.view(-1, *self.shape).amax(dim=2)
