"""The handwritten digits that come with the package: a first run needs no download.

Optical Recognition of Handwritten Digits, E. Alpaydin and C. Kaynak, UCI Machine Learning Repository, 1998, CC BY 4.0,
https://doi.org/10.24432/C50P49. The 1,797 images of its test part, as scikit-learn ships them; see
``scripts/make_digits.py`` for how ``digits.npz`` is made.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F

from gan_cli.data.dataset import ArrayDataset, fingerprint
from gan_cli.data.fitting import to_channels
from gan_cli.ranges import GreyOrRGB, ImageSize


def digits(
    *,
    image_size: ImageSize = 32,
    channels: GreyOrRGB = 1,
    num_classes: Literal[10] = 10,
    split: Literal["train", "test", "all"] = "train",
) -> ArrayDataset:
    """Handwritten digits, 8x8 pixels in 17 grey levels, enlarged with a border of one pixel (bicubic).

    Every fifth image of each class is held out: 1,442 images in ``train``, 355 in ``test``, 1,797 in ``all``. (The
    images are ordered 0 to 9 by writer, so every fifth of all images would favour some classes.)

    Args:
        image_size: side in pixels.
        channels: 1, or 3 for the same grey three times.
        num_classes: always 10; models read it from here.
        split: the part to read.
    """
    with np.load(Path(__file__).with_name("digits.npz"), allow_pickle=False) as file:
        pixels, labels = file["images"], file["labels"]  # uint8 (1797, 8, 8) in 0..16, uint8 (1797,)
    if split != "all":
        test = np.zeros(len(labels), dtype=bool)
        for label in range(num_classes):
            test[np.flatnonzero(labels == label)[4::5]] = True
        part = test if split == "test" else ~test
        pixels, labels = pixels[part], labels[part]
    bordered = F.pad(torch.from_numpy(pixels).float().unsqueeze(1) * (255 / 16), (1, 1, 1, 1))
    enlarged = F.interpolate(bordered, size=(image_size, image_size), mode="bicubic", antialias=True)
    images = to_channels(enlarged.round().clamp(0, 255).to(torch.uint8), channels)
    return ArrayDataset(
        images.contiguous(),
        labels=torch.from_numpy(labels),
        class_names=[str(digit) for digit in range(num_classes)],
        fingerprint=fingerprint(pixels, labels, image_size, channels),
    )
