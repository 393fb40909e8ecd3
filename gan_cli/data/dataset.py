"""What every data set is: uint8 images of one size in memory, or files decoded as they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from gan_cli.errors import DataError

Fit = Literal["pad", "resize", "crop"]


class ImageDataset(Protocol):
    """A set of images of one size, each with an optional label.

    Attributes:
        image_size: side in pixels. channels: 1 (grey) or 3 (RGB).
        labels: int64 (N,), or None for an unlabelled set. class_names: one name per class, in label order.
        fingerprint: hex digest of what the set consists of; another one means other data.
    """

    image_size: int
    channels: int
    labels: Tensor | None
    class_names: Sequence[str]
    fingerprint: str

    def __len__(self) -> int: ...

    def images(self, indices: Tensor) -> Tensor:
        """``indices``: int64 (B,). Returns uint8 (B, C, H, W)."""
        ...
