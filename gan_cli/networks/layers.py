"""Layers that several networks share."""

from __future__ import annotations

from typing import Literal

from torch import nn

Norm = Literal["batch", "layer", "instance", "none"]


def make_norm(kind: Norm, channels: int) -> nn.Module:
    """A normalisation for (N, channels, H, W).

    ``layer`` normalises each sample over all of (channels, H, W) with an affine per channel (Ba et al. 2016, as WGAN-GP
    recommends it for the critic); ``instance`` each channel of each sample.
    """
    if kind == "batch":
        return nn.BatchNorm2d(channels)
    if kind == "layer":
        return nn.GroupNorm(1, channels)
    if kind == "instance":
        return nn.InstanceNorm2d(channels)
    return nn.Identity()
