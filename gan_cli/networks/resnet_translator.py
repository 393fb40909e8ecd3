"""The ResNet generator of CycleGAN (Zhu et al. 2017, appendix 7.2), after Johnson et al. (2016)."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from gan_cli.networks.layers import initialise, make_norm
from gan_cli.ranges import Blocks, Channels, TranslatorImageSize, Width

TranslatorNorm = Literal["batch", "instance", "none"]


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions of ``width`` channels with reflection padding, added to their input; no activation after."""

    def __init__(self, width: int, norm: TranslatorNorm) -> None:
        super().__init__()
        bias = norm != "batch"
        self.layers = nn.Sequential(
            nn.ReflectionPad2d(1),
            nn.Conv2d(width, width, 3, bias=bias),
            make_norm(norm, width),
            nn.ReLU(inplace=True),
            nn.ReflectionPad2d(1),
            nn.Conv2d(width, width, 3, bias=bias),
            make_norm(norm, width),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map ``x`` (N, width, H, W) to the same shape."""
        change: Tensor = self.layers(x)
        return x + change


class Generator(nn.Module):
    """c7s1-64, d128, d256, R256 x blocks, u128, u64, c7s1-channels; norm and ReLU after each, tanh after the last.

    ``blocks``: residual blocks; null for the paper's choice, 9 from 256 x 256 on and 6 below. ``norm``: ``instance``
    without affine in the paper.
    """

    def __init__(
        self,
        image_size: TranslatorImageSize,
        channels: Channels,
        width: Width = 64,
        blocks: Blocks | None = None,
        norm: Literal["batch", "instance", "none"] = "instance",
    ) -> None:
        super().__init__()
        bias = norm != "batch"  # batch norm has its own

        def stage(convolution: nn.Conv2d | nn.ConvTranspose2d) -> list[nn.Module]:
            return [convolution, make_norm(norm, convolution.out_channels), nn.ReLU(inplace=True)]

        if blocks is None:
            blocks = 9 if image_size >= 256 else 6
        self.layers = nn.Sequential(
            nn.ReflectionPad2d(3),
            *stage(nn.Conv2d(channels, width, 7, bias=bias)),
            *stage(nn.Conv2d(width, 2 * width, 3, stride=2, padding=1, bias=bias)),
            *stage(nn.Conv2d(2 * width, 4 * width, 3, stride=2, padding=1, bias=bias)),
            *[ResidualBlock(4 * width, norm) for _ in range(blocks)],
            *stage(nn.ConvTranspose2d(4 * width, 2 * width, 3, stride=2, padding=1, output_padding=1, bias=bias)),
            *stage(nn.ConvTranspose2d(2 * width, width, 3, stride=2, padding=1, output_padding=1, bias=bias)),
            nn.ReflectionPad2d(3),
            nn.Conv2d(width, channels, 7),
            nn.Tanh(),
        )
        self.apply(initialise)

    def forward(self, images: Tensor) -> Tensor:
        """Map ``images`` in [-1, 1], (N, channels, H, W), H and W multiples of 4, to images of the same shape and range."""
        translated: Tensor = self.layers(images)
        return translated
