"""Sets of images to be measured: of a data set, of noise, of translated sources."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from gan_cli.compute.layers import dropouts
from gan_cli.data.dataset import ImageDataset, TranslationDataset
from gan_cli.images import to_uint8
from gan_cli.protocols import HasModes
from gan_cli.randomness import derive
from gan_cli.system.errors import ConfigError, DivergedError

log = logging.getLogger("gan_cli")
REFERENCE_BATCH = 64  # images


@dataclass(frozen=True)
class Images:
    """``n`` images of one shape that can be read more than once, always in the same order.

    Attributes:
        what: a word for messages, such as ``generated``. n: their number. shape: (C, H, W).
        batches: gives them as uint8 (b, C, H, W) on any device.
        labels: int64 (n,) on the CPU, or None. class_names: one for each class.
        key: plain data that determines them, for the cache; None for images that are read once only.
        again: the same samples with other noise, where the condition alone does not decide them.
    """

    what: str
    n: int
    shape: tuple[int, ...]
    batches: Callable[[], Iterator[Tensor]]
    labels: Tensor | None = None
    class_names: Sequence[str] = ()
    key: dict[str, Any] | None = None
    again: Callable[[], Iterator[Tensor]] | None = None


def of_dataset(dataset: ImageDataset, what: str, n: int | None = None) -> Images:
    """The images of a data set, or ``n`` of them chosen at random, the same ones every time."""
    size = len(dataset)
    n = size if n is None else min(n, size)
    order = torch.arange(size)
    if n < size:
        order = torch.randperm(size, generator=torch.Generator().manual_seed(derive("reference")))[:n]

    def batches() -> Iterator[Tensor]:
        for start in range(0, n, REFERENCE_BATCH):
            yield dataset.batch(order[start : start + REFERENCE_BATCH])

    labels = None if dataset.labels is None else dataset.labels[order]
    key = {"data": dataset.fingerprint, "n": n, "of": size}
    return Images(what, n, tuple(dataset.shape), batches, labels, dataset.class_names, key)


@dataclass(frozen=True)
class Sampler:
    """A trained generator and how it is used. Image k depends on ``seed``, k and its condition, not on ``batch_size``.

    Args:
        direction: ``a2b`` or ``b2a`` for two-way translation, else None.
        options: keywords of the generator, such as ``truncation``.
    """

    task: Any
    generator: nn.Module
    device: torch.device
    seed: int = 0
    batch_size: int = 64
    direction: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def from_noise(self, n: int) -> Images:
        """``n`` samples; for a class-conditional generator as many of each class, class after class."""
        labels = self.task.labels(n)

        def batches() -> Iterator[Tensor]:
            for start in range(0, n, self.batch_size):
                stop = min(start + self.batch_size, n)
                z = self.task.latents(self.seed, start, stop).to(self.device)
                label = None if labels is None else labels[start:stop].to(self.device)
                with quiet(self.device):
                    images = self.task.draw(self.generator, z, label, self.seed, start, **self.options)
                yield finite_uint8(images)

        return Images("generated", n, tuple(next(batches()).shape[1:]), batches, labels)

    def translations(self, dataset: TranslationDataset, n: int) -> tuple[Images, Images]:
        """Translations of at most ``n`` held-out images, and the real images of their domain, for pairs the targets."""
        part, what = dataset.held_out(), "held-out"
        if part is None:
            part, what = dataset, "training"
            log.info("there are no held-out images: training images are translated")
        streams = {name: (names, stream) for names, stream in part.streams for name in names}
        direction = self.direction
        source, target = ("source", "target") if direction is None else (direction[0], direction[-1])
        n, size = min(n, len(streams[source][1])), dataset.image_size

        def real(name: str, count: int) -> Iterator[Tensor]:
            names, stream = streams[name]
            for start in range(0, count, self.batch_size):
                pixels = stream.batch(torch.arange(start, min(start + self.batch_size, count)))
                if pixels.shape[-1] != size:
                    pixels = torch.nn.functional.interpolate(pixels, size=(size, size), mode="bilinear", antialias=True)
                yield pixels.chunk(len(names), dim=1)[names.index(name)]

        def translated(noise: object) -> Iterator[Tensor]:
            start = 0
            for pixels in real(source, n):
                images = pixels.to(self.device).float().div(127.5).sub(1)
                with quiet(self.device):
                    results = self.task.translate(self.generator, images, direction, noise, start)
                yield finite_uint8(results)
                start += len(images)

        count = n if dataset.paired else len(streams[target][1])
        shape = (dataset.channels, size, size)
        noisy = dataset.paired and isinstance(self.task, HasModes) and self.task.sample_mode == "paper"
        again = (lambda: translated((self.seed, "again"))) if noisy else None
        key = {"data": part.fingerprint, "of": target, "n": count, "image_size": size}
        fake = Images("generated", n, shape, lambda: translated(self.seed), again=again)
        return fake, Images(what, count, shape, lambda: real(target, count), key=key)

    def facts(self, ema: bool) -> dict[str, Any]:
        """The part of a protocol that tells how the generator was used. ``ema``: it is the averaged one."""
        mode = self.task.sample_mode if isinstance(self.task, HasModes) else None
        drops = bool(dropouts(self.generator)) and mode in (None, "paper")
        return {
            "seed": self.seed,
            "weights": "EMA" if ema else "raw",
            "batch_norm": "statistics of each image" if mode == "paper" else "running statistics",
            "dropout": "on" if drops else "off",
            "precision": "fp32",
            "direction": self.direction,
            **self.options,
        }


@contextmanager
def quiet(device: torch.device) -> Iterator[None]:
    """Within this block there is no graph and no TF32, and the caller's random state is kept."""
    plain = torch.backends.cudnn.flags(enabled=True, allow_tf32=False)
    with plain, torch.no_grad(), torch.random.fork_rng([device] if device.type == "cuda" else []):
        yield


def finite_uint8(images: Tensor) -> Tensor:
    """Images in [-1, 1] to uint8.

    Raises:
        DivergedError: a value is not finite.
    """
    if not torch.isfinite(images).all():
        raise DivergedError("the generator makes values that are not finite", "the run", "Set step= to an earlier checkpoint")
    return to_uint8(images)


def cropped(images: Images, side: int | None) -> Images:
    """The centres of the images; the same images if ``side`` is None.

    Raises:
        ConfigError: they are smaller than that.
    """
    if side is None or images.shape[1:] == (side, side):
        return images
    height, width = images.shape[1:]
    if side > min(height, width):
        raise ConfigError(f"{side} pixels cannot be cut from images of {height} x {width}", "crop", "Leave crop out")

    def cut(batches: Callable[[], Iterator[Tensor]]) -> Callable[[], Iterator[Tensor]]:
        return lambda: (centre(batch, side) for batch in batches())

    return replace(
        images,
        shape=(images.shape[0], side, side),
        batches=cut(images.batches),
        key=None if images.key is None else {**images.key, "crop": side},
        again=None if images.again is None else cut(images.again),
    )


def centre(images: Tensor, side: int | None) -> Tensor:
    """(N, C, H, W) to (N, C, side, side); the same images if ``side`` is None."""
    if side is None:
        return images
    top, left = (images.shape[-2] - side) // 2, (images.shape[-1] - side) // 2
    return images[..., top : top + side, left : left + side]
