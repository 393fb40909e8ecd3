"""An endless stream of batches whose order depends only on the seed and the position, so that it can start anywhere."""

from __future__ import annotations

import signal
from collections.abc import Generator, Iterator
from typing import Any

import torch
import torch.utils.data
from torch import Tensor

from gan_cli.data.dataset import ArrayDataset, ImageDataset
from gan_cli.errors import ConfigError, GanError
from gan_cli.randomness import derive

Stream = Generator[tuple[Tensor, Tensor | None], None, None]  # uint8 (B, C, H, W) and int64 (B,), anywhere
MAX_RESIDENT_BYTES = 2 * 2**30  # a larger set stays in host memory


class Batches:
    """Iterator over ``{"image": ..., "label": ...}``, without end.

    Position p of the stream is the image at offset ``p % N`` of a permutation made from the seed and the epoch
    ``p // N``. A batch may run across the end of an epoch: no image is dropped, none is seen twice in an epoch.

    * ``image``: float32 (B, C, H, W) in [-1, 1] on ``device``.
    * ``label``: int64 (B,) on ``device``; absent for an unlabelled set.

    Args:
        dataset: what to serve. A set in memory is moved to an accelerator where it fits easily.
        batch_size: images per batch, at most ``len(dataset)``.
        seed: of the order.
        device: where the batches go.
        position: images served before, the ``position`` of the iterator to continue.
        workers: processes that decode files; no effect on the images, nor on a set in memory.

    Raises:
        ConfigError: ``batch_size`` is larger than the data set.
    """

    def __init__(
        self,
        dataset: ImageDataset,
        *,
        batch_size: int,
        seed: int,
        device: torch.device,
        position: int = 0,
        workers: int = 0,
    ) -> None:
        n = len(dataset)
        if batch_size > n:
            raise ConfigError(
                f"batch_size={batch_size} is larger than the data set of {n} images",
                "batch_size",
                f"Set batch_size={n} or less",
            )
        self.position = position
        self._batch_size, self._seed, self._device = batch_size, seed, device
        self._source = self._from_memory(dataset) if isinstance(dataset, ArrayDataset) else self._read(dataset, workers)

    def __iter__(self) -> Batches:
        return self

    def __next__(self) -> dict[str, Tensor]:
        images, labels = next(self._source)
        self.position += self._batch_size
        batch = {"image": self._send(images).float().div_(127.5).sub_(1.0)}
        if labels is not None:
            batch["label"] = self._send(labels)
        return batch

    def close(self) -> None:
        """Ends the worker processes, if any. The iterator cannot be used after that."""
        self._source.close()

    def _send(self, values: Tensor) -> Tensor:
        if self._device.type == "cuda" and not values.is_cuda:
            values = values.pin_memory()  # returns the same tensor if a worker's batch is pinned already
        return values.to(self._device, non_blocking=True)

    def _indices(self, n: int, device: torch.device) -> Iterator[Tensor]:
        return index_batches(n, self._batch_size, seed=self._seed, position=self.position, device=device)

    def _from_memory(self, dataset: ArrayDataset) -> Stream:
        device = self._device if _fits(dataset.images.nbytes, self._device) else torch.device("cpu")
        images = dataset.images.to(device)
        labels = None if dataset.labels is None else dataset.labels.to(device)
        for indices in self._indices(len(dataset), device):
            yield images.index_select(0, indices), None if labels is None else labels.index_select(0, indices)

    def _read(self, dataset: ImageDataset, workers: int) -> Stream:
        cpu = torch.device("cpu")
        batches: Iterator[Tensor] = map(dataset.batch, self._indices(len(dataset), cpu))
        if workers > 0:
            batches = _raise_errors(
                torch.utils.data.DataLoader(
                    _Decoder(dataset),
                    batch_size=None,  # an index of ours is a whole batch
                    sampler=self._indices(len(dataset), cpu),
                    num_workers=workers,
                    worker_init_fn=_ignore_interrupt,
                    pin_memory=self._device.type == "cuda",
                    generator=torch.Generator(),  # or it draws from the global one
                )
            )
        for indices, images in zip(self._indices(len(dataset), cpu), batches, strict=True):
            yield images, None if dataset.labels is None else dataset.labels.index_select(0, indices)


def permutation(n: int, *, seed: int, epoch: int) -> Tensor:
    """The order of one epoch, a function of its arguments only. Returns int64 (n,)."""
    generator = torch.Generator().manual_seed(derive(seed, "data", epoch))
    return torch.randperm(n, generator=generator)


def index_batches(n: int, batch_size: int, *, seed: int, position: int, device: torch.device) -> Iterator[Tensor]:
    """Endless batches of indices into ``n`` images, from ``position`` on. Yields int64 (batch_size,) on ``device``."""
    epoch, offset = divmod(position, n)
    order = permutation(n, seed=seed, epoch=epoch).to(device)
    while True:
        indices = order[offset : offset + batch_size]
        offset += batch_size
        if offset >= n:  # batch_size <= n, so one more epoch is enough
            epoch, offset = epoch + 1, offset - n
            order = permutation(n, seed=seed, epoch=epoch).to(device)
            indices = torch.cat([indices, order[:offset]])
        yield indices


def _fits(size_bytes: int, device: torch.device) -> bool:
    """Whether a set can live on ``device`` and leave most of it to the training."""
    if device.type == "cuda":
        free = torch.cuda.mem_get_info(device)[0]
    elif device.type == "mps":
        free = torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    else:
        return device.type == "cpu"
    return size_bytes < min(MAX_RESIDENT_BYTES, free / 2)


class _Decoder(torch.utils.data.Dataset[Any]):
    """What a worker runs. An error of ours travels as a value, since the loader would wrap it in a traceback."""

    def __init__(self, dataset: ImageDataset) -> None:
        self.dataset = dataset

    def __getitem__(self, indices: Tensor) -> Any:
        try:
            return self.dataset.batch(indices)
        except GanError as error:
            return type(error), error.what, error.where, error.todo


def _raise_errors(results: Any) -> Iterator[Tensor]:
    for result in results:
        if not isinstance(result, Tensor):
            kind, what, where, todo = result
            raise kind(what, where, todo)
        yield result


def _ignore_interrupt(worker: int) -> None:
    """Ctrl-C reaches every process of the terminal; only the parent answers it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
