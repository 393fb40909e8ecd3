"""The digits of the package, filled and as outlines: image-to-image translation that needs no download."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from gan_cli.data.dataset import TranslationDataset
from gan_cli.data.digits import digits
from gan_cli.data.fitting import to_channels
from gan_cli.data.translation import make_jitter, translation_arrays
from gan_cli.ranges import GreyOrRGB, ImageSize

FINE_SIZE = 64  # outlines are drawn at this size at least
LEVEL = 90  # grey, of 255, from which on a pixel belongs to the digit
CHUNK = 256  # images worked on at a time


def digits_paired(
    *,
    image_size: ImageSize = 32,
    load_size: ImageSize | None = None,
    flip: bool = False,
    channels: GreyOrRGB = 1,
    split: Literal["train", "test"] = "train",
) -> TranslationDataset:
    """Pairs of the outline of a digit (source) and the digit (target): 1,442 to train, 355 held out.

    Args:
        image_size: side in pixels.
        load_size: side in pixels of the images before a random square is cut from them, or None.
        flip: whether pairs are mirrored left to right at random, which makes them other signs than digits.
        channels: 1, or 3 for the same grey three times.
        split: which part. Nothing is held out of ``test``.

    Raises:
        ConfigError: ``load_size`` is smaller than ``image_size``.
    """
    jitter = make_jitter(load_size, image_size, flip)
    filled = digits(image_size=load_size or image_size, split=split).images
    outlined = draw_outlines(split, load_size or image_size)
    pairs = torch.cat([to_channels(outlined, channels), to_channels(filled, channels)], dim=1)

    def held_out() -> TranslationDataset:
        return digits_paired(image_size=image_size, channels=channels, split="test")

    streams = [(("source", "target"), pairs)]
    return translation_arrays(
        streams, image_size=image_size, channels=channels, jitter=jitter, held_out=held_out if split == "train" else None
    )


def digits_unpaired(
    *,
    image_size: ImageSize = 32,
    load_size: ImageSize | None = None,
    flip: bool = False,
    channels: GreyOrRGB = 1,
    split: Literal["train", "test"] = "train",
) -> TranslationDataset:
    """Filled digits (a) and outlines of other digits (b): every other image of each class is in a, the rest in b.

    Arguments and errors as :func:`digits_paired`; both parts are divided in this way.
    """
    jitter = make_jitter(load_size, image_size, flip)
    filled = digits(image_size=load_size or image_size, split=split)
    in_a = _every_other(filled.labels)

    def held_out() -> TranslationDataset:
        return digits_unpaired(image_size=image_size, channels=channels, split="test")

    streams = [
        (("a",), to_channels(filled.images[in_a], channels).contiguous()),
        (("b",), to_channels(draw_outlines(split, load_size or image_size)[~in_a], channels).contiguous()),
    ]
    return translation_arrays(
        streams, image_size=image_size, channels=channels, jitter=jitter, held_out=held_out if split == "train" else None
    )


def draw_outlines(split: Literal["train", "test", "all"], image_size: int) -> Tensor:
    """A thin closed line where each digit begins.

    The digits, enlarged, are cut off at :data:`LEVEL`; the line is what dilation adds to that and erosion takes from it,
    1/32 of the side wide, scaled down by averaging.

    Returns:
        uint8 (N, 1, image_size, image_size), white on black.
    """
    side = image_size * -(-FINE_SIZE // image_size)
    radius = side // 64
    lines = []
    images = digits(image_size=side, split=split).images
    for start in range(0, len(images), CHUNK):
        inside = (images[start : start + CHUNK] >= LEVEL).float()
        line = _dilate(inside, radius) - (1 - _dilate(1 - inside, radius))
        line = F.interpolate(line, size=(image_size, image_size), mode="area")
        lines.append((line * 255).round().to(torch.uint8))
    return torch.cat(lines)


def _dilate(images: Tensor, radius: int) -> Tensor:
    """The maximum over a square around each pixel, first down its columns, then along its rows. (N, 1, H, W) to the same."""
    down = F.max_pool2d(images, (2 * radius + 1, 1), stride=1, padding=(radius, 0))
    return F.max_pool2d(down, (1, 2 * radius + 1), stride=1, padding=(0, radius))


def _every_other(labels: Tensor | None) -> Tensor:
    """Every other sample of each class: bool (N,)."""
    assert labels is not None
    chosen = np.zeros(len(labels), dtype=bool)
    for label in range(10):
        chosen[np.flatnonzero(labels == label)[::2]] = True
    return torch.from_numpy(chosen)
