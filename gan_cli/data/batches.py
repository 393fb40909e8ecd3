"""Endless batches. Their order depends only on the seed and the position, so that a stream can start anywhere."""

from __future__ import annotations

import atexit
import contextlib
import math
import signal
import time
import traceback
from collections.abc import Generator, Iterator
from contextlib import ExitStack
from itertools import cycle
from multiprocessing import Pipe, Process
from multiprocessing.connection import Connection

import numpy as np
import torch
from torch import Tensor

from gan_cli.data.dataset import ArrayDataset, ImageDataset, TranslationDataset
from gan_cli.randomness import derive
from gan_cli.system.errors import ConfigError, GanError, MemoryFullError
from gan_cli.system.signals import SIGNALS

Source = Generator[tuple[Tensor, Tensor | None], None, None]  # samples (B, ...) and labels int64 (B,), on any device
DECODE_TIMEOUT_S = 600.0  # seconds that a batch may take to decode


class Batches:
    """Endless iterator over batches of any data set.

    Position p of a stream is the sample at offset ``p % N`` of a permutation made from the seed and the epoch ``p // N``.
    A batch may span two epochs: no sample is dropped, none is seen twice in an epoch. Each stream of an unpaired set has
    its own order. Jitter is a function of the seed, the stream and the position of the batch.

    * An :class:`ImageDataset`: ``image``, and int64 ``label`` (B,) unless the set is unlabelled.
    * A :class:`TranslationDataset`: ``source`` and ``target``, or ``a`` and ``b``.

    Each of ``world`` processes has an iterator over its part of every batch, and reads nothing else.

    Images are float32 (B, C, H, W) in [-1, 1]; float32 samples of the data set are not changed. Everything is
    on ``device``.

    Args:
        dataset: the samples. A set in memory is moved to an accelerator if it fits into half of the free memory there.
        batch_size: samples per batch and stream, over all processes, at most the length of the shortest stream.
        seed: the seed of the order and the jitter.
        device: the device of the batches.
        position: samples of each stream served before: the ``position`` of the iterator to resume.
        workers: processes that decode files, divided among the streams. They change no image. A set in memory needs none.
        rank, world: the rank of this process and the number of processes, which divides ``batch_size``.

    Attributes:
        waited: seconds that the caller has spent in ``next``.
        workers: the argument.
        resident: whether data sets in memory lie in the memory of ``device``.

    Raises:
        ConfigError: ``batch_size`` is larger than the data set.
    """

    def __init__(
        self,
        dataset: ImageDataset | TranslationDataset,
        *,
        batch_size: int,
        seed: int,
        device: torch.device,
        position: int = 0,
        workers: int = 0,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        assert batch_size % world == 0, (batch_size, world)
        streams: list[tuple[tuple[str, ...], ImageDataset]]
        if isinstance(dataset, TranslationDataset):
            streams, self._jitter = dataset.streams, dataset.jitter
        else:
            streams, self._jitter = [(("image",), dataset)], None
        names, shortest = min(streams, key=lambda stream: len(stream[1]))
        if batch_size > len(shortest):
            of = f"domain {names[0]!r}" if len(streams) > 1 else "the data set"
            raise ConfigError(
                f"batch_size={batch_size} is larger than {of} of {len(shortest)} {'pairs' if len(names) > 1 else 'images'}",
                "batch_size",
                f"Set batch_size={len(shortest)} or less",
            )
        self.position, self.waited = position, 0.0
        self._batch_size, self._seed, self._device = batch_size, seed, device
        self._rank, self._world = rank, world
        self._names = [names for names, _ in streams]
        self.workers, workers = workers, -(-workers // len(streams))
        self.resident = _fits(sum(part.images.nbytes for _, part in streams if isinstance(part, ArrayDataset)), device)
        self._sources = [
            self._from_memory(part, k) if isinstance(part, ArrayDataset) else self._read(part, k, workers)
            for k, (_, part) in enumerate(streams)
        ]

    def __iter__(self) -> Batches:
        return self

    def __next__(self) -> dict[str, Tensor]:
        start = time.perf_counter()
        batch: dict[str, Tensor] = {}
        for k, (names, source) in enumerate(zip(self._names, self._sources, strict=True)):
            samples, labels = next(source)
            samples = _on(self._device, samples)
            if self._jitter is not None:
                generator = torch.Generator().manual_seed(derive(self._seed, "jitter", k, self.position))
                samples = self._jitter(samples, generator, self._rank, self._world)
            if samples.dtype == torch.uint8:
                samples = samples.float().div_(127.5).sub_(1.0)
            parts = samples.chunk(len(names), dim=1) if len(names) > 1 else [samples]
            batch |= {name: part.contiguous() for name, part in zip(names, parts, strict=True)}
            if labels is not None:
                batch["label"] = _on(self._device, labels)
        self.position += self._batch_size
        self.waited += time.perf_counter() - start
        return batch

    def close(self) -> None:
        """End the worker processes, if any. The iterator cannot be used afterwards."""
        for source in self._sources:
            source.close()

    def _indices(self, n: int, stream: int, device: torch.device) -> Iterator[Tensor]:
        seed = self._seed if stream == 0 else derive(self._seed, "stream", stream)
        whole = index_batches(n, self._batch_size, seed=seed, position=self.position, device=device)
        return (indices.chunk(self._world)[self._rank] for indices in whole)

    def _from_memory(self, dataset: ArrayDataset, stream: int) -> Source:
        device = self._device if self.resident else torch.device("cpu")
        images = dataset.images.to(device)
        labels = None if dataset.labels is None else dataset.labels.to(device)
        for indices in self._indices(len(dataset), stream, device):
            yield images.index_select(0, indices), None if labels is None else labels.index_select(0, indices)

    def _read(self, dataset: ImageDataset, stream: int, workers: int) -> Source:
        cpu = torch.device("cpu")
        order = self._indices(len(dataset), stream, cpu)
        batches = decode_in_processes(dataset, order, workers) if workers > 0 else map(dataset.batch, order)
        for indices, images in zip(self._indices(len(dataset), stream, cpu), batches, strict=True):
            yield images, None if dataset.labels is None else dataset.labels.index_select(0, indices)


def permutation(n: int, *, seed: int, epoch: int) -> Tensor:
    """The order of one epoch, int64 (n,): a function of its arguments only."""
    generator = torch.Generator().manual_seed(derive(seed, "data", epoch))
    return torch.randperm(n, generator=generator)


def index_batches(n: int, batch_size: int, *, seed: int, position: int, device: torch.device) -> Iterator[Tensor]:
    """Endless batches of indices into ``n`` images, from ``position`` on. Yields int64 (batch_size,) on ``device``."""
    epoch, offset = divmod(position, n)
    order = _on(device, permutation(n, seed=seed, epoch=epoch))
    while True:
        indices = order[offset : offset + batch_size]
        offset += batch_size
        if offset >= n:  # batch_size <= n, so one more epoch is enough
            epoch, offset = epoch + 1, offset - n
            order = _on(device, permutation(n, seed=seed, epoch=epoch))
            indices = torch.cat([indices, order[:offset]])
        yield indices


def _on(device: torch.device, values: Tensor) -> Tensor:
    """Copy ``values`` to ``device`` without synchronising with it."""
    if device.type == "cuda" and not values.is_cuda:
        values = values.pin_memory()
    return values.to(device, non_blocking=True)


def _fits(size_bytes: int, device: torch.device) -> bool:
    """Whether a data set needs at most half of the free memory of ``device``."""
    if device.type == "cuda":
        free = torch.cuda.mem_get_info(device)[0]
    elif device.type == "mps":
        free = torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    else:
        return device.type == "cpu"
    return size_bytes < free / 2


def decode_in_processes(dataset: ImageDataset, order: Iterator[Tensor], workers: int) -> Iterator[Tensor]:
    """Yield ``dataset.batch`` of each item of ``order``, computed ahead by worker processes.

    Each worker has one pipe. A killed worker closes its pipe, so that it is noticed at once; shared memory and locks, which
    could fill up or stay behind, are not used. The workers end when the iterator is closed or this process is killed.
    torch's DataLoader costs this process 1.3 to 2 times the CPU time per batch, and raises from a signal handler at any line.

    Raises:
        GanError: an error of ``dataset.batch``.
        MemoryFullError: a worker cannot be started, or was killed.
    """
    with ExitStack() as stack:
        atexit.register(stack.close)  # runs before that of multiprocessing, which would wait for workers that ignore SIGTERM
        stack.callback(atexit.unregister, stack.close)
        pipes = []
        try:
            for _ in range(workers):
                ours, theirs = Pipe()
                pipes.append(stack.enter_context(ours))
                process = Process(target=_decode, args=(dataset, theirs, ours), daemon=True)
                before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # until the worker ignores them
                try:
                    with theirs:
                        process.start()
                finally:
                    signal.pthread_sigmask(signal.SIG_SETMASK, before)
                stack.callback(process.join)
                stack.callback(process.kill)
        except OSError as error:
            what = f"the processes that decode images cannot be started: {error.strerror}"
            raise MemoryFullError(what, "workers", "Set workers=0 or fewer") from error
        try:
            for pipe in pipes:
                pipe.send(next(order).numpy())
            for pipe in cycle(pipes):
                if not pipe.poll(DECODE_TIMEOUT_S):
                    raise MemoryFullError(
                        "a process that decodes images does not answer", "workers", "Check the disk, or set workers=0"
                    )
                result = pipe.recv()
                if isinstance(result, tuple):
                    kind, *arguments = result
                    raise kind(*arguments)
                shape, dtype = result
                array = np.empty(math.prod(shape), dtype)
                pipe.recv_bytes_into(array)
                pipe.send(next(order).numpy())
                yield torch.from_numpy(array.reshape(shape))
        except (EOFError, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None and not isinstance(error, ConnectionError):
                raise
            what = "a process that decodes images was killed, most often for lack of memory"
            raise MemoryFullError(what, "workers", "Set workers=0 or fewer") from error


def _decode(dataset: ImageDataset, pipe: Connection, others: Connection) -> None:
    """Main function of a worker. It sends arrays by value; tensors would go through shared memory.

    A list of shape and dtype is followed by the bytes of an array; a tuple is an error.
    """
    others.close()  # the end of the parent: while it is open here, this worker would not notice that the parent ended
    for number in SIGNALS:  # a scheduler sends them to every process of a job; only the parent handles them
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    torch.set_num_threads(1)
    with contextlib.suppress(EOFError, ConnectionError):  # the parent has ended
        while True:
            indices = torch.from_numpy(pipe.recv())
            try:
                array = np.ascontiguousarray(dataset.batch(indices).numpy())
                pipe.send([array.shape, array.dtype.str])
                pipe.send_bytes(array.reshape(-1).data)
            except GanError as error:
                pipe.send((type(error), error.what, error.where, error.todo, error.key))
            except OSError as error:
                pipe.send((OSError, error.errno, error.strerror, str(error.filename)))
            except Exception as error:
                kind = MemoryError if isinstance(error, MemoryError) else RuntimeError
                pipe.send((kind, str(error) if kind is MemoryError else traceback.format_exc()))
