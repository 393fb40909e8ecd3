"""The U-Net generator of pix2pix (Isola et al. 2017, section 6.1.1), as in the authors' Torch code, phillipi/pix2pix.

At 256 x 256 the encoder is C64-C128-C256-C512-C512-C512-C512-C512, the decoder CD512-CD512-CD512-C512-C256-C128-C64 and an
output layer. The input of each decoder layer but the first is the previous layer concatenated with the encoder layer of the
same size. The innermost 1 x 1 map is not normalised, which would set it to zero for a batch of one (errata of the paper).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from gan_cli.networks.layers import initialise, make_norm
from gan_cli.ranges import Channels, Fraction, UNetImageSize, Width


class Generator(nn.Module):
    """image -> 1 x 1 -> image by 4 x 4 convolutions of stride 2, with skips between layers of one size.

    Encoder and decoder have log2(image_size) layers each; channels double from ``width`` up to 8 * width.

    ``dropout``: rate in the first three decoder layers. It is the only noise, so the paper keeps it at test time.
    ``norm``: ``batch`` in the paper, which for a batch of one is instance norm.
    """

    def __init__(
        self,
        image_size: UNetImageSize,
        channels: Channels,
        width: Width = 64,
        dropout: Fraction = 0.5,
        norm: Literal["batch", "instance", "none"] = "batch",
    ) -> None:
        super().__init__()
        bias = norm != "batch"  # batch norm has its own
        depth = image_size.bit_length() - 1  # 256 -> 8
        widths = [width * 2 ** min(i, 3) for i in range(depth)]

        self.encoder = nn.ModuleList([nn.Conv2d(channels, widths[0], 4, stride=2, padding=1)])
        for i in range(1, depth):
            innermost = i == depth - 1
            self.encoder.append(
                nn.Sequential(
                    nn.LeakyReLU(0.2),  # not in place: its input is also a skip connection
                    nn.Conv2d(widths[i - 1], widths[i], 4, stride=2, padding=1, bias=bias or innermost),
                    nn.Identity() if innermost else make_norm(norm, widths[i]),
                )
            )

        self.decoder = nn.ModuleList()
        width_in = widths[-1]
        for i, width_out in enumerate(reversed(widths[:-1])):
            self.decoder.append(
                nn.Sequential(
                    nn.ReLU(),
                    nn.ConvTranspose2d(width_in, width_out, 4, stride=2, padding=1, bias=bias),
                    make_norm(norm, width_out),
                    nn.Dropout(dropout) if i < 3 else nn.Identity(),
                )
            )
            width_in = 2 * width_out  # concatenated with the skip connection
        self.decoder.append(nn.Sequential(nn.ReLU(), nn.ConvTranspose2d(width_in, channels, 4, stride=2, padding=1), nn.Tanh()))
        self.apply(initialise)

    def forward(self, images: Tensor) -> Tensor:
        """Map ``images`` in [-1, 1], (N, channels, image_size, image_size), to images of the same shape and range."""
        skips = [images]
        for encode in self.encoder:
            skips.append(encode(skips[-1]))
        x = skips.pop()
        for i, decode in enumerate(self.decoder):
            x = decode(x if i == 0 else torch.cat([x, skips.pop()], dim=1))
        return x
