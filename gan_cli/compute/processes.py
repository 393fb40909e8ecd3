"""Several processes that train one run, started by torchrun.

Each process takes its rows of every batch. After a backward pass the gradients are averaged over all processes, so that
their networks stay equal. Noise differs between ranks: :func:`gan_cli.randomness.seed_step`. Rank 0 alone writes files.

Without torchrun every function here does nothing.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed import PrefixStore, Store, rendezvous  # type: ignore[attr-defined]

from gan_cli.compute.layers import batch_norms, synchronised
from gan_cli.system import signals, torchrun
from gan_cli.system.errors import DeviceError, PeerError, PreemptedError, blaming

PEER_TIMEOUT = timedelta(hours=6)  # longest wait for a rank that evaluates or saves; a rank that ends is noticed at once
MEETING_POLL_S = 0.02  # seconds between two looks at who has started
RANK_0_HEAD_START_S = 0.5  # seconds in which rank 0 alone may claim the error line


def rank() -> int:
    """Return the rank of this process, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def world() -> int:
    """Return the number of processes that train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


@contextmanager
def joined(choose_device: Callable[[], torch.device]) -> Iterator[None]:
    """Train together with the other processes of torchrun within this block.

    Exactly one process prints an error: the first to fail, and rank 0 if all fail alike. The others exit silently.

    Raises:
        PeerError: another process ended.
        SystemExit: another process prints the error.
    """
    if torchrun.world() == 1:
        yield
        return
    store = _meet()
    try:
        _take_gpu(choose_device())
        yield
        _wait_for_all()
        dist.destroy_process_group()
    except PreemptedError:  # torchrun kills all as soon as one has ended: rank 0 saves first
        _wait_for_all()
        raise
    except BaseException as error:
        signals.ignore()  # torchrun's, if another process has ended
        if isinstance(error, Exception) or rank() == 0:
            if not _claims_error_line(store):
                sys.exit(getattr(error, "exit_code", 1))
            error.is_first_failure = True  # type: ignore[attr-defined]
        raise


def _meet() -> Store:
    """Wait for the other processes and connect to them; return the key-value store of all."""
    store, rank, world = next(iter(rendezvous("env://")))
    store.set(f"started.{rank}", "")
    while not store.check([f"started.{other}" for other in range(world)]):
        time.sleep(MEETING_POLL_S)  # a wait in Python: signals do not interrupt those of torch
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo",
        store=PrefixStore("group", store), rank=rank, world_size=world, timeout=PEER_TIMEOUT,
    )  # fmt: skip
    return cast(Store, store)


def _take_gpu(device: torch.device) -> None:
    """Let ``cuda`` mean the GPU of this process."""
    if device.type == "cuda":
        if torchrun.local_rank() >= torch.cuda.device_count():
            what = f"{torchrun.local_world()} processes on a machine with {torch.cuda.device_count()} GPUs"
            raise DeviceError(what, "--nproc-per-node", "Start one process for each GPU, or set device=cpu")
        torch.cuda.set_device(torchrun.local_rank())
    elif device.type != "cpu":
        raise DeviceError(f"several processes cannot train on {device}", "device", "Set device=cpu, or leave torchrun out")


def _wait_for_all() -> None:
    """Wait until all processes are here, or one has ended."""
    signals.ignore()
    with contextlib.suppress(PeerError), _peers():
        dist.all_reduce(torch.zeros(1))


def _claims_error_line(store: Store) -> bool:
    """Whether this process is the first to claim the error line."""
    if rank() > 0:
        time.sleep(RANK_0_HEAD_START_S)
    try:
        return int(store.add("error_lines", 1)) == 1
    except RuntimeError:  # torchrun, which keeps the store, has ended
        return rank() == 0


@contextmanager
def _peers() -> Iterator[None]:
    """Within this block, an exchange with the other processes, a RuntimeError means that one of them has ended."""
    what, where = "another process of this training ended", "killed, or its machine was lost"
    todo = "The same command continues from the last checkpoint"
    with blaming(lambda error: PeerError(what, where, todo), RuntimeError):
        yield


def from_first(value: Any) -> Any:
    """Return the plain data that rank 0 passes, on every rank."""
    if world() == 1:
        return value
    values = [value]
    with _peers():
        dist.broadcast_object_list(values, src=0, device=torch.device("cpu"))
    return values[0]


@contextmanager
def first_goes_first() -> Iterator[None]:
    """Run this block on rank 0 before the other ranks, which find on the disk what it has put there."""
    if rank() > 0:
        from_first(None)
    yield
    if rank() == 0:
        from_first(None)


def agree(stop: list[str]) -> bool:
    """Return whether any process has a reason in ``stop``. All of them then have one, and end after the same step."""
    if world() == 1:
        return bool(stop)
    wanted = torch.tensor(int(bool(stop)))
    with _peers():
        dist.all_reduce(wanted, dist.ReduceOp.MAX)
    if wanted and not stop:
        stop.append("a signal to another process")
    return bool(wanted)


def copy_from_first(module: nn.Module) -> None:
    """Give every rank the weights of rank 0: another kind of processor may have initialised others from the same seed."""
    if world() == 1:
        return
    for tensor in module.state_dict().values():
        whole = tensor.contiguous()
        with _peers():
            dist.broadcast(whole, src=0)
        tensor.copy_(whole)


def synchronise_batch_norm(task: nn.Module, device: torch.device) -> None:
    """Let batch norm take the statistics of the whole batch, which PyTorch does on GPUs only.

    Statistics in evaluation mode stay those of each process, as rank 0 alone evaluates.
    """
    if world() > 1 and device.type == "cuda":
        nn.SyncBatchNorm.convert_sync_batchnorm(task)  # type: ignore[no-untyped-call]


def describe(task: nn.Module, device: torch.device, batch_size: int) -> str | None:
    """Return how the processes share the work, for the log; None with one process."""
    if world() == 1:
        return None
    norms = batch_norms(task)
    synced = any(isinstance(norm, nn.SyncBatchNorm) for norm in norms)
    over = "the whole batch" if synced else "the samples of each process"
    how = f"{world()} ({'nccl' if device.type == 'cuda' else 'gloo'}), {batch_size // world()} of {batch_size} samples each"
    return how + (f", batch norm over {over}" if norms else "")


def gather(rows: Tensor) -> Tensor:
    """Concatenate the rows (n, ...) of all processes, rank by rank: (world * n, ...), without a graph."""
    if world() == 1:
        return rows
    parts = [torch.empty_like(rows, memory_format=torch.contiguous_format) for _ in range(world())]
    with _peers():
        dist.all_gather(parts, rows.detach().contiguous())
    return torch.cat(parts)


def average(network: nn.Module, loss: Tensor, logs: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    """Average the gradients of ``network`` over all processes, in place, and return the averages of the loss and the logs.

    A value that is not finite in one process is not finite in all of them afterwards.
    """
    if world() == 1:
        return loss, logs
    gradients = [p.grad for p in network.parameters() if p.grad is not None]
    means = _means([*gradients, loss, *logs.values()])
    for gradient, mean in zip(gradients, means, strict=False):
        gradient.copy_(mean)
    return means[len(gradients)], dict(zip(logs, means[len(gradients) + 1 :], strict=True))


def average_buffers(task: nn.Module) -> None:
    """Average running statistics and other :func:`synchronised` buffers over all processes, in place."""
    if world() == 1 or not (buffers := synchronised(task)):
        return
    for buffer, mean in zip(buffers, _means(buffers), strict=True):
        buffer.copy_(mean)


def _means(tensors: list[Tensor]) -> list[Tensor]:
    """Return the means of tensors over all processes, float32, from one exchange."""
    flat = torch.cat([tensor.detach().float().flatten() for tensor in tensors])
    with _peers():
        dist.all_reduce(flat)
    parts = torch.split(flat / world(), [tensor.numel() for tensor in tensors])
    return [part.view(tensor.shape) for part, tensor in zip(parts, tensors, strict=True)]
