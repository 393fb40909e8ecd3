"""The digits of the package, filled and as outlines: image-to-image translation that needs no download."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypedDict, Unpack

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from gan_cli.data.dataset import TranslationDataset
from gan_cli.data.digits import digits
from gan_cli.data.fitting import to_channels
from gan_cli.data.translation import make_jitter, translation_arrays
from gan_cli.ranges import GreyOrRGB, ImageSize

FINE_SIZE = 64  # pixels, the least side at which outlines are drawn
LEVEL = 90  # grey level, of 255, from which on a pixel belongs to the digit
CHUNK = 256  # images per step of the drawing

Streams = list[tuple[tuple[str, ...], Tensor]]  # keys of a batch and their images, uint8 (N, C, H, W)


class DigitStyleOptions(TypedDict, total=False):
    """The options of :func:`digits_paired` and :func:`digits_unpaired`.

    * ``image_size``, 32: side in pixels.
    * ``load_size``, None: side in pixels of the images before a random square is cut from them. None: not cut.
    * ``flip``, false: whether images are mirrored left to right at random, which makes them other signs than digits.
    * ``channels``, 1: 1, or 3 for the same grey three times.
    * ``split``, "train": "train" or "test". Nothing is held out of ``test``.
    """

    image_size: ImageSize
    load_size: ImageSize | None
    flip: bool
    channels: GreyOrRGB
    split: Literal["train", "test"]


def digits_paired(**options: Unpack[DigitStyleOptions]) -> TranslationDataset:
    """Pairs of the outline of a digit (source) and the digit (target): 1,442 to train, 355 held out.

    Args:
        options: see :class:`DigitStyleOptions`.

    Raises:
        ConfigError: ``load_size`` is smaller than ``image_size``.
    """

    def pair(filled: Tensor, outlines: Tensor, labels: Tensor) -> Streams:
        return [(("source", "target"), torch.cat([outlines, filled], dim=1))]

    return _digit_styles(pair, **options)


def digits_unpaired(**options: Unpack[DigitStyleOptions]) -> TranslationDataset:
    """Filled digits (a) and outlines of other digits (b): every other image of each class is in a, the rest in b.

    Arguments and errors as :func:`digits_paired`; both parts are divided in this way.
    """

    def divide(filled: Tensor, outlines: Tensor, labels: Tensor) -> Streams:
        in_a = _every_other(labels)
        return [(("a",), filled[in_a].contiguous()), (("b",), outlines[~in_a].contiguous())]

    return _digit_styles(divide, **options)


def _digit_styles(
    make_streams: Callable[[Tensor, Tensor, Tensor], Streams],
    *,
    image_size: int = 32,
    load_size: int | None = None,
    flip: bool = False,
    channels: GreyOrRGB = 1,
    split: Literal["train", "test"] = "train",
) -> TranslationDataset:
    jitter = make_jitter(load_size, image_size, flip)
    filled = digits(image_size=load_size or image_size, split=split)
    assert filled.labels is not None
    outlines = draw_outlines(split, load_size or image_size)
    streams = make_streams(to_channels(filled.images, channels), to_channels(outlines, channels), filled.labels)

    def held_out() -> TranslationDataset:
        return _digit_styles(make_streams, image_size=image_size, channels=channels, split="test")

    return translation_arrays(
        streams, image_size=image_size, channels=channels, jitter=jitter, held_out=held_out if split == "train" else None
    )


def draw_outlines(split: Literal["train", "test", "all"], image_size: int) -> Tensor:
    """Draw a thin closed line around the strokes of each digit.

    The digits are enlarged and cut off at :data:`LEVEL`. The line is what dilation adds to that and erosion takes from it,
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
    """The maximum over a square around each pixel, first along columns, then along rows. (N, 1, H, W) to the same."""
    down = F.max_pool2d(images, (2 * radius + 1, 1), stride=1, padding=(radius, 0))
    return F.max_pool2d(down, (1, 2 * radius + 1), stride=1, padding=(0, radius))


def _every_other(labels: Tensor) -> Tensor:
    """Every other sample of each class, as a mask: bool (N,)."""
    chosen = np.zeros(len(labels), dtype=bool)
    for label in range(10):
        chosen[np.flatnonzero(labels == label)[::2]] = True
    return torch.from_numpy(chosen)
