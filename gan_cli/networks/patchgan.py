"""PatchGAN (Isola et al. 2017, sections 3.2.2 and 6.1.2), as in phillipi/pix2pix: a logit for each overlapping patch."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

from torch import Tensor, nn

from gan_cli.networks.layers import initialise, make_norm
from gan_cli.ranges import Channels, ConditionChannels, PatchLayers, Width


class Discriminator(nn.Module):
    """image -> map of logits, by 4 x 4 convolutions.

    ``layers=3`` is C64-C128-C256 with stride 2, then C512 and the logits with stride 1: patches of 70 x 70, and 30 x 30
    logits for 256 x 256 pixels. The receptive field for 1 to 6 layers is 16, 34, 70, 142, 286 and 574 pixels. ``layers=0``
    is the paper's 1 x 1 PixelGAN: C64-C128 and the logits by 1 x 1 convolutions.

    ``condition_channels``: channels of the source image, which the caller concatenates in front of the target.
    ``norm``: normalisation of all but the first and last layers: ``batch`` in pix2pix, ``instance`` in CycleGAN (appendix
    7.2). Critics with a per-sample penalty need ``layer``, ``instance`` or ``none``.
    """

    def __init__(
        self,
        channels: Channels,
        condition_channels: ConditionChannels = 0,
        layers: PatchLayers = 3,
        width: Width = 64,
        norm: Literal["batch", "layer", "instance", "none"] = "batch",
    ) -> None:
        super().__init__()
        self.depth = layers
        kernel, padding = (4, 1) if layers > 0 else (1, 0)
        strides = [2] * layers + [1] if layers > 0 else [1, 1]
        widths = [width * 2 ** min(i, 3) for i in range(len(strides))]
        stages: list[nn.Module] = [
            nn.Conv2d(condition_channels + channels, widths[0], kernel, strides[0], padding),
            nn.LeakyReLU(0.2, inplace=True),
        ]
        for (width_in, width_out), stride in zip(pairwise(widths), strides[1:], strict=True):
            stages += [
                nn.Conv2d(width_in, width_out, kernel, stride, padding, bias=norm != "batch"),
                make_norm(norm, width_out),
                nn.LeakyReLU(0.2, inplace=True),
            ]
        self.layers = nn.Sequential(*stages, nn.Conv2d(widths[-1], 1, kernel, 1, padding))
        self.apply(initialise)

    def forward(self, images: Tensor) -> Tensor:
        """Map ``images`` in [-1, 1], (N, condition_channels + channels, H, W), to logits (N, 1, h, w).

        Raises:
            ValueError: the images are smaller than a patch.
        """
        side, smallest = min(images.shape[-2:]), 3 * 2**self.depth if self.depth > 0 else 1
        if side < smallest:
            raise ValueError(f"layers={self.depth} needs images of {smallest} pixels, these have {side}: set fewer layers")
        logits: Tensor = self.layers(images)
        return logits
