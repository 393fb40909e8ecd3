"""Functions shared by the two image-to-image tasks."""

from __future__ import annotations

import logging
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from gan_cli.images import make_grid, to_uint8

log = logging.getLogger("gan_cli")
ROWS = 8  # number of examples in a picture


def held_out(dataset: Any, n: int) -> dict[str, Tensor]:
    """The first ``n`` images of each kind that training does not see, by batch key: float32 (n, C, H, W) in [-1, 1].

    A data set without a held-out part gives its first training images, without jitter, and logs it.
    """
    part = dataset.held_out()
    if part is None:
        log.info("there are no held-out images: these are images of the training")
        part = dataset
    examples: dict[str, Tensor] = {}
    for keys, images in part.streams:
        pixels = images.batch(torch.arange(min(n, len(images)))).float()
        if pixels.shape[-1] != dataset.image_size:
            pixels = F.interpolate(pixels, size=dataset.image_size, mode="bilinear", antialias=True)
        examples |= zip(keys, (pixels / 127.5 - 1).chunk(len(keys), dim=1), strict=True)
    return examples


def sheet(columns: list[Tensor]) -> Tensor:
    """A picture, uint8 (C, H, W), with a row for each sample, from columns of images in [-1, 1], each (N, C, H, W)."""
    rows = min(len(column) for column in columns)
    cells = torch.stack([to_uint8(column[:rows]) for column in columns], dim=1)
    return make_grid(cells.flatten(0, 1), per_row=len(columns))
