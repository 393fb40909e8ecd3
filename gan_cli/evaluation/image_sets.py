"""Sets of images to be measured: of a data set, of noise, of translated sources."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from gan_cli.data.dataset import ImageDataset, TranslationDataset
from gan_cli.images import to_uint8
from gan_cli.protocols import HasModes
from gan_cli.randomness import derive
from gan_cli.system.errors import ConfigError, DivergedError

log = logging.getLogger("gan_cli")


REFERENCE_BATCH = 64


@dataclass(frozen=True)
class Images:
    """``n`` images of one shape that can be gone through more than once, always in the same order.

    Attributes:
        what: in words, for messages. n: how many. shape: (C, H, W).
        batches: gives them as uint8 (b, C, H, W) on any device.
        labels: int64 (n,) on the CPU, or None. class_names: one for each class there is.
        key: what determines them, for the cache; None for images that are seen once only.
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

    return Images(
        what,
        n,
        tuple(dataset.shape),
        batches,
        None if dataset.labels is None else dataset.labels[order],
        dataset.class_names,
        {"data": dataset.fingerprint, "n": n, "of": size},
    )


def of_noise(
    task: Any, generator: nn.Module, n: int, *, seed: int, batch_size: int, device: torch.device, **options: Any
) -> Images:
    """What ``generator`` makes of latents. Image k depends on the seed and k only, and on its label: as many of each class.

    ``options``: keywords of the generator, such as ``truncation``.
    """
    labels = task.labels(n)

    def batches() -> Iterator[Tensor]:
        for start in range(0, n, batch_size):
            stop = min(start + batch_size, n)
            z = task.latents(seed, start, stop).to(device)
            label = None if labels is None else labels[start:stop].to(device)
            with quiet(device):
                images = task.draw(generator, z, label, seed, start, **options)
            yield finite_uint8(images)

    shape = tuple(next(batches()).shape[1:])
    return Images("generated", n, shape, batches, labels)


def of_sources(
    task: Any,
    generator: nn.Module,
    dataset: TranslationDataset,
    n: int,
    *,
    direction: str | None,
    seed: int,
    batch_size: int,
    device: torch.device,
) -> tuple[Images, Images]:
    """Translations of held-out images, and the real images of the domain they go to, which for pairs are the targets."""
    part = dataset.held_out()
    what = "held-out"
    if part is None:
        part, what = dataset, "training"
        log.info("there are no held-out images: those of the training are translated")
    size = dataset.image_size
    streams = {name: (names, stream) for names, stream in part.streams for name in names}
    source, target = ("source", "target") if direction is None else (direction[0], direction[-1])

    def real(name: str, count: int) -> Iterator[Tensor]:
        names, stream = streams[name]
        for start in range(0, count, batch_size):
            pixels = stream.batch(torch.arange(start, min(start + batch_size, count)))
            if pixels.shape[-1] != size:
                pixels = torch.nn.functional.interpolate(pixels, size=(size, size), mode="bilinear", antialias=True)
            yield pixels.chunk(len(names), dim=1)[names.index(name)]

    n = min(n, len(streams[source][1]))

    def translated(noise: object) -> Iterator[Tensor]:
        start = 0
        for images in real(source, n):
            with quiet(device):
                results = task.translate(generator, images.to(device).float().div(127.5).sub(1), direction, noise, start)
            yield finite_uint8(results)
            start += len(images)

    reals = n if dataset.paired else len(streams[target][1])
    shape = (dataset.channels, size, size)
    noisy = dataset.paired and isinstance(task, HasModes) and task.sample_mode == "paper"
    again = (lambda: translated((seed, "again"))) if noisy else None
    fake = Images("generated", n, shape, lambda: translated(seed), again=again)
    key = {"data": part.fingerprint, "of": target, "n": reals, "image_size": size}
    return fake, Images(what, reals, shape, lambda: real(target, reals), key=key)


@contextmanager
def quiet(device: torch.device) -> Iterator[None]:
    """Within this block there is no graph, no TF32, and the caller's random numbers are not touched."""
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
    """The centres of the images.

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
    """(N, C, H, W) to (N, C, side, side), or as they are if there is no side."""
    if side is None:
        return images
    top, left = (images.shape[-2] - side) // 2, (images.shape[-1] - side) // 2
    return images[..., top : top + side, left : left + side]
