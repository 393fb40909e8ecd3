"""Fit images of any size and channel count to squares of one size, in uint8, exact where nothing changes."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from gan_cli.ranges import Fit

CHUNK = 1024  # images fitted at a time, so that a large set needs little more memory than its result


def fit_images(images: Tensor, *, image_size: int, channels: int, fit: Fit) -> Tensor:
    """Make every image a square of ``image_size`` with ``channels`` channels.

    * ``pad``: an image smaller than ``image_size`` is centred on black up to the next power of two, when that is not
      larger than ``image_size`` (28 becomes 32); then resized if it still differs.
    * ``resize``: directly to the square, ignoring the aspect ratio.
    * ``crop``: the largest centred square, resized.

    Resizing is bilinear with antialiasing. Grey becomes RGB by repetition, RGB becomes grey by ITU-R 601 luma, alpha is
    composited over white.

    Args:
        images: uint8 (N, C, H, W), C in 1 (grey), 3 (RGB), 4 (RGBA).
        image_size: side in pixels of the result.
        channels: 1 or 3, of the result.
        fit: see above.

    Returns:
        uint8 (N, channels, image_size, image_size); ``images`` itself where nothing had to change.
    """
    if images.shape[1:] == (channels, image_size, image_size):
        return images
    fitted = torch.empty(len(images), channels, image_size, image_size, dtype=torch.uint8)
    for start in range(0, len(images), CHUNK):
        chunk = to_channels(images[start : start + CHUNK], channels)
        fitted[start : start + CHUNK] = _to_square(chunk, image_size, fit)
    return fitted


def to_channels(images: Tensor, channels: int) -> Tensor:
    """uint8 (N, 1 | 3 | 4, H, W) to uint8 (N, channels, H, W), ``channels`` 1 or 3."""
    if images.shape[1] == 4:
        rgb, alpha = images[:, :3].float(), images[:, 3:].float() / 255
        images = (rgb * alpha + 255 * (1 - alpha)).round().to(torch.uint8)
    if images.shape[1] == 1:
        return images.expand(-1, channels, -1, -1)
    if channels == 1:
        red, green, blue = images.int().unbind(1)
        luma = (19595 * red + 38470 * green + 7471 * blue + 32768) >> 16  # the integers that Pillow uses
        return luma.to(torch.uint8).unsqueeze(1)
    return images


def _to_square(images: Tensor, image_size: int, fit: str) -> Tensor:
    height, width = images.shape[-2:]
    if fit == "crop":
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        images = images[..., top : top + side, left : left + side]
    elif fit == "pad":
        side = max(height, width)
        power_of_two = 1 << (side - 1).bit_length()
        if side < image_size and power_of_two <= image_size:
            side = power_of_two
        top, left = (side - height) // 2, (side - width) // 2
        images = F.pad(images, (left, side - width - left, top, side - height - top))
    if images.shape[-2:] == (image_size, image_size):
        return images
    return F.interpolate(images, size=(image_size, image_size), mode="bilinear", antialias=True)
