"""The interfaces of data sets: samples of one shape, read by index, in one stream or in two."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Protocol

import numpy as np
import torch
from torch import Tensor


class ImageDataset(Protocol):
    """Images of one size, each with an optional label, in a fixed order.

    Attributes:
        image_size: side in pixels.
        channels: 1 (grey) or 3 (RGB); twice as many for pairs.
        shape: (C, H, W), of one sample.
        labels: int64 (N,) on the CPU, or None for an unlabelled set.
        class_names: one name per class, in label order; empty for an unlabelled set.
        fingerprint: hex digest of the data and the fitting options; it changes when the images do.
    """

    image_size: int
    channels: int
    shape: tuple[int, ...]
    labels: Tensor | None
    class_names: list[str]
    fingerprint: str

    def __len__(self) -> int: ...

    def batch(self, indices: Tensor) -> Tensor:
        """``indices``: int64 (B,) on the CPU. Returns uint8 (B, C, H, W) on the CPU."""
        ...


class ArrayDataset:
    """An :class:`ImageDataset` held in memory, or samples of any other shape.

    Args:
        images: uint8 (N, C, H, H), or float32 (N, ...), which is served unchanged. N is at least 1.
        labels: integers (N,), or None.
        class_names: one name per class.
        fingerprint: see :func:`fingerprint`.

    Attributes:
        shape: the shape of one sample.
        image_size, channels: set for images (N, C, H, H) only.
    """

    image_size: int
    channels: int

    def __init__(self, images: Tensor, *, labels: Tensor | None, class_names: list[str], fingerprint: str) -> None:
        allowed = images.dtype == torch.float32 or (images.dtype == torch.uint8 and images.dim() == 4)
        assert allowed and len(images) > 0, (images.dtype, images.shape)
        assert labels is None or labels.shape == images.shape[:1], labels.shape
        self.images = images
        self.shape = tuple(images.shape[1:])
        if images.dim() == 4:
            self.image_size, self.channels = images.shape[-1], images.shape[1]
        self.labels = None if labels is None else labels.long()
        self.class_names = class_names
        self.fingerprint = fingerprint

    def __len__(self) -> int:
        return len(self.images)

    def batch(self, indices: Tensor) -> Tensor:
        """``indices``: int64 (B,). Returns (B, *shape) of the type of the images."""
        return self.images.index_select(0, indices)


class Jitter:
    """Random jitter (Isola et al. 2017, section 6.2): images are stored larger than they are used, cut and mirrored at random.

    Args:
        load_size: side in pixels of the stored images, at least ``image_size``; None if they are not cut.
        image_size: side in pixels of the images as they are used.
        flip: whether each is mirrored left to right with probability 1/2.
    """

    def __init__(self, load_size: int | None, image_size: int, *, flip: bool) -> None:
        self.load_size, self.image_size, self.flip = load_size or image_size, image_size, flip
        assert self.load_size >= image_size, (load_size, image_size)

    def __call__(self, images: Tensor, generator: torch.Generator, rank: int = 0, world: int = 1) -> Tensor:
        """Cut and mirror each image independently, all its channels alike.

        Args:
            images: (B, C, S, S) of any type on any device, S the ``load_size``.
            generator: a generator of the CPU. The draws depend on B * world only.
            rank, world: ``images`` are part ``rank`` of the ``world`` equal parts of a batch.

        Returns:
            (B, C, H, H) on the same device, H the ``image_size``.
        """
        count, channels, side = images.shape[:3]
        assert side == self.load_size, (side, self.load_size)
        corners = torch.randint(side - self.image_size + 1, (world * count, 2), generator=generator).chunk(world)[rank]
        mirrored = torch.randint(2, (world * count, 1), generator=generator).chunk(world)[rank].bool()
        span = torch.arange(self.image_size)
        rows = corners[:, :1] + span
        columns = corners[:, 1:] + (torch.where(mirrored, span.flip(0), span) if self.flip else span)
        where = torch.stack([rows, columns])
        if images.is_cuda:
            where = where.pin_memory()  # page-locked memory: the copy to the device is asynchronous
        rows, columns = where.to(images.device, non_blocking=True)
        samples = torch.arange(count, device=images.device).view(-1, 1, 1, 1)
        planes = torch.arange(channels, device=images.device).view(1, -1, 1, 1)
        return images[samples, planes, rows[:, None, :, None], columns[:, None, None, :]]


class TranslationDataset:
    """Images of two domains, to be translated into each other: pairs in one stream, or one stream for each domain.

    * Paired: one stream ``(("source", "target"), dataset)`` whose images have 2 * ``channels`` channels, those of the
      source first, so that both are cut and mirrored alike.
    * Unpaired: two streams ``(("a",), dataset)`` and ``(("b",), dataset)``, each with its own length and order.

    Args:
        streams: as above. The side of their images is the ``load_size`` of ``jitter``, or ``image_size`` without one.
        image_size: side in pixels of the images as they are served.
        channels: 1 or 3, of one image.
        jitter: the random jitter of every image each time it is served, or None.
        fingerprint: see :func:`fingerprint`.
        held_out: builds the held-out part; None if there is none.
    """

    def __init__(
        self,
        streams: list[tuple[tuple[str, ...], ImageDataset]],
        *,
        image_size: int,
        channels: int,
        jitter: Jitter | None,
        fingerprint: str,
        held_out: Callable[[], TranslationDataset] | None,
    ) -> None:
        assert [names for names, _ in streams] in ([("source", "target")], [("a",), ("b",)]), streams
        self.streams = streams
        self.image_size, self.channels = image_size, channels
        self.paired = len(streams) == 1
        self.jitter = jitter
        self.labels: Tensor | None = None
        self.class_names: list[str] = []
        self.fingerprint = fingerprint
        self._held_out = held_out

    def __len__(self) -> int:
        """Samples of an epoch: the pairs, or the images of the larger domain."""
        return max(len(dataset) for _, dataset in self.streams)

    def held_out(self) -> TranslationDataset | None:
        """The held-out part at ``image_size``, without jitter, read when this is called. None if there is none."""
        return None if self._held_out is None else self._held_out()


def fingerprint(*parts: np.ndarray | str | int | None) -> str:
    """Hash the source arrays and the options that decide how they look. Returns 32 hex digits."""
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        if isinstance(part, np.ndarray):
            digest.update(repr((part.shape, part.dtype.str)).encode())
            digest.update(np.ascontiguousarray(part).data)
        else:
            digest.update(repr(part).encode(errors="backslashreplace"))
    return digest.hexdigest()
