"""What every data set is: images of one size, each with an optional label, asked for by index."""

from __future__ import annotations

import hashlib
from typing import Protocol

import numpy as np
import torch
from torch import Tensor


class ImageDataset(Protocol):
    """A set of images of one size, each with an optional label. Nothing here is random: the order is made elsewhere.

    Attributes:
        image_size: side in pixels.
        channels: 1 (grey) or 3 (RGB).
        labels: int64 (N,) on the CPU, or None for an unlabelled set.
        class_names: one name per class, in label order; empty for an unlabelled set.
        fingerprint: hex digest of the data and of how it is fitted; another one means other images.
    """

    image_size: int
    channels: int
    labels: Tensor | None
    class_names: list[str]
    fingerprint: str

    def __len__(self) -> int: ...

    def batch(self, indices: Tensor) -> Tensor:
        """``indices``: int64 (B,) on the CPU. Returns uint8 (B, C, H, W) on the CPU."""
        ...


class ArrayDataset:
    """An :class:`ImageDataset` held in memory.

    Args:
        images: uint8 (N, C, H, H), N at least 1.
        labels: integers (N,), or None.
        class_names: one name per class.
        fingerprint: see :func:`fingerprint`.
    """

    def __init__(self, images: Tensor, *, labels: Tensor | None, class_names: list[str], fingerprint: str) -> None:
        assert images.dtype == torch.uint8 and images.dim() == 4 and len(images) > 0, (images.dtype, images.shape)
        assert labels is None or labels.shape == images.shape[:1], labels.shape
        self.images = images
        self.image_size, self.channels = images.shape[-1], images.shape[1]
        self.labels = None if labels is None else labels.long()
        self.class_names = class_names
        self.fingerprint = fingerprint

    def __len__(self) -> int:
        return len(self.images)

    def batch(self, indices: Tensor) -> Tensor:
        """``indices``: int64 (B,). Returns uint8 (B, C, H, W)."""
        return self.images.index_select(0, indices)


def fingerprint(*parts: np.ndarray | str | int | None) -> str:
    """Hashes the source arrays and whatever decides how they are shown. Returns 32 hex digits."""
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        if isinstance(part, np.ndarray):
            digest.update(repr((part.shape, part.dtype.str)).encode())
            digest.update(np.ascontiguousarray(part).data)
        else:
            digest.update(repr(part).encode(errors="backslashreplace"))
    return digest.hexdigest()
