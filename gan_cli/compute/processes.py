"""Several processes that train one run together, started by torchrun.

Each takes its rows of every batch, and the gradients are averaged over all of them after each backward pass. Latents, dropout
masks and the like are drawn by every process for the whole batch, from one seed, and each takes its rows of that too: N
processes train as one does, but for rounding. Other random numbers differ between processes.

All of this holds within :func:`together`, an update that all processes make at the same time. Outside of it, as in the pictures
and evaluations of the first process, networks behave as if there were no others.

Without torchrun every function here does nothing.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, cast

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed import PrefixStore, rendezvous  # type: ignore[attr-defined]

from gan_cli.compute.layers import synchronised
from gan_cli.randomness import seed_everything
from gan_cli.system import torchrun
from gan_cli.system.errors import ConfigError, DeviceError, GanError, PeerError, PreemptedError, blaming
from gan_cli.system.signals import SIGNALS

PATIENCE = timedelta(hours=6)  # with a process that evaluates or saves; one that ends is noticed at once
MEETING = 600.0  # seconds for all processes to come up
WORD = 2.0  # seconds to wait for the last words of another process
PAUSE = 0.3  # seconds for gloo's threads to end, or they abort the interpreter (torch 2.15)


@dataclass
class _Group:
    """The processes of this training.

    ``running``: buffers to be averaged after each update. ``common``: state of the random numbers that all draw alike.
    """

    rank: int
    world: int
    store: Any
    backend: str
    control: Any = None  # gloo, for what is on the CPU
    batch: int = 0  # rows of one process
    together: bool = False
    common: tuple[Tensor, Tensor | None] | None = None
    running: list[Tensor] = field(default_factory=list)


_group: _Group | None = None
_groups_made = 0


def rank() -> int:
    """Of this process, from 0; the first one alone writes."""
    return 0 if _group is None else _group.rank


def world() -> int:
    """Processes that train together."""
    return 1 if _group is None else _group.world


@contextmanager
def joined(device: Callable[[], torch.device]) -> Iterator[None]:
    """Within this block the processes that torchrun started are one training; without it nothing is done.

    The one that fails says why; if it cannot, the first process that is left does. The others end without a word.

    Args:
        device: gives what is trained on.

    Raises:
        PeerError: another process ended.
        SystemExit: another process has said why this one ends.
    """
    global _group
    if torchrun.world() == 1:
        yield
        return
    group = _group = _join()
    try:
        _connect(group, device())
        yield
        _part(group)
    except PreemptedError:
        _part(group)
        if group.rank > 0:
            sys.exit(PreemptedError.exit_code)
        raise
    except SystemExit:
        raise
    except BaseException as error:
        _last_words(group, error)
        raise
    finally:
        _group = None


def _join() -> _Group:
    """Meet the others. Waits in Python, so that a signal is heard."""
    global _groups_made
    store, rank, world = next(iter(rendezvous("env://")))
    _groups_made += 1
    store = PrefixStore(f"gan_cli.{_groups_made}", store)
    store.set(f"here.{rank}", "")
    group = _Group(rank, world, store, "gloo")
    for other in range(world):
        if _read(group, f"here.{other}", MEETING) is None:
            todo = "See what it said; torchrun starts as many as --nnodes and --nproc-per-node say"
            raise PeerError("another process of this training did not start", f"rank {other} of {world}", todo)
    return group


def _connect(group: _Group, device: torch.device) -> None:
    if device.type == "cuda":
        local = torchrun.local_rank()
        if local >= torch.cuda.device_count():
            what = f"{torchrun.local_world()} processes on a machine with {torch.cuda.device_count()} GPUs"
            raise DeviceError(what, "--nproc-per-node", "Start one process for each GPU, or set device=cpu")
        torch.cuda.set_device(local)  # which ``cuda`` means from now on
        group.backend = "nccl"
    elif device.type != "cpu":
        raise DeviceError(f"several processes cannot train on {device}", "device", "Set device=cpu, or leave torchrun out")
    with _reaching(group):
        dist.init_process_group(
            "gloo" if group.backend == "gloo" else "cpu:gloo,cuda:nccl",
            store=PrefixStore("group", group.store), rank=group.rank, world_size=group.world, timeout=PATIENCE,
        )  # fmt: skip
        group.control = dist.group.WORLD if group.backend == "gloo" else dist.new_group(backend="gloo", timeout=PATIENCE)


def _part(group: _Group) -> None:
    """Wait for each other, so that torchrun ends nobody who still saves."""
    with contextlib.suppress(RuntimeError):  # done is done
        dist.barrier(group.control)
        dist.destroy_process_group()
        time.sleep(PAUSE)


def _last_words(group: _Group, error: BaseException) -> None:
    """Leave word of a failure to the others, and end silently if one of them has said it.

    Raises:
        SystemExit: one has.
    """
    text = str(error)
    with contextlib.suppress(RuntimeError):
        group.store.set(f"failed.{group.rank}", text)
    if group.rank == 0 or not isinstance(error, Exception):
        return
    first = _read(group, "failed.0", WORD)
    if isinstance(error, PeerError):
        with contextlib.suppress(RuntimeError):
            if first is not None or group.store.add("said", 1) > 1:
                sys.exit(error.exit_code)
    elif first == text:
        sys.exit(error.exit_code if isinstance(error, GanError) else 1)
    if isinstance(error, GanError):
        error.args = (f"rank {group.rank} of {group.world}: {text}",)
        error.heard = True


def _read(group: _Group, key: str, seconds: float) -> str | None:
    """What another process left in the store, or None if it leaves nothing in this time."""
    end = time.monotonic() + seconds
    with contextlib.suppress(RuntimeError):  # torchrun, which keeps the store, is gone
        while not group.store.check([key]):
            if time.monotonic() > end:
                return None
            time.sleep(0.02)
        return str(group.store.get(key).decode())
    return None


@contextmanager
def _reaching(group: _Group) -> Iterator[None]:
    """An error of what is done with the others means that one of them ended."""

    def blame(error: Exception) -> GanError:
        end = time.monotonic() + WORD / 4
        said = None
        while said is None and time.monotonic() < end:
            found = [(k, _read(group, f"failed.{k}", 0.0)) for k in range(group.world) if k != group.rank]
            said = next((f"rank {k} of {group.world}: {text}" for k, text in found if text is not None), None)
        what = "another process of this training ended"
        todo = "The same command continues from the last checkpoint"
        return PeerError(what, said or "killed, or its machine was lost", todo)

    with blaming(blame, RuntimeError):
        yield


def from_first(value: Any) -> Any:
    """What the first process gives, in every process: plain data."""
    if _group is None:
        return value
    given = [value]
    with _reaching(_group):
        dist.broadcast_object_list(given, src=0, group=_group.control)
    return given[0]


@contextmanager
def first_goes_first() -> Iterator[None]:
    """The first process runs this block before the others, which find on the disk what it put there."""
    if _group is not None and _group.rank > 0:
        from_first(None)
    yield
    if _group is not None and _group.rank == 0:
        from_first(None)


def agree(stop: list[str]) -> bool:
    """Whether to stop: if any process has a reason in ``stop``. Then all of them have one, and end after the same step."""
    if _group is None:
        return bool(stop)
    names = [each.name for each in SIGNALS]
    code = 0 if not stop else names.index(stop[0]) + 1 if stop[0] in names else len(names) + 1
    flag = torch.tensor(code)
    with _reaching(_group):
        dist.all_reduce(flag, dist.ReduceOp.MAX, group=_group.control)
    reason = int(flag)
    if reason and not stop:
        stop.append([*names, "max_hours"][reason - 1])
    return reason > 0


def make_alike(module: nn.Module) -> None:
    """Give every process the first one's values: another kind of machine may have made others of the same seed."""
    if _group is None:
        return
    for tensor in module.state_dict().values():
        whole = tensor.contiguous()
        with _reaching(_group):
            dist.broadcast(whole, src=0)
        tensor.copy_(whole)


def prepare(task: nn.Module, *, batch_size: int, sync_batch_norm: bool) -> str | None:
    """Make the layers of ``task`` that mix or drop samples those of a training by several processes.

    Args:
        batch_size: of all processes together.
        sync_batch_norm: normalise over the whole batch; else over each process's part, running statistics averaged.

    Returns:
        What is done, for the log; None with one process.
    """
    if _group is None:
        return None
    _group.batch = batch_size // _group.world
    norms = [module for module in task.modules() if type(module) in SYNCED]
    for norm in norms if sync_batch_norm else []:
        norm.__class__ = SYNCED[type(norm)]
    for module in task.modules():
        if type(module) is nn.Dropout:
            module.__class__ = _Dropout
    buffers = [buffer for norm in norms for buffer in (norm.running_mean, norm.running_var)]
    _group.running = [] if sync_batch_norm else [cast(Tensor, buffer) for buffer in buffers if buffer is not None]
    _group.running += synchronised(task)
    how = f"{_group.world} ({_group.backend}), {_group.batch} of {batch_size} samples each"
    over = "the whole batch" if sync_batch_norm else "each part by itself (sync_batch_norm=false)"
    return how + (f", batch norm over {over}" if norms else "")


@contextmanager
def together() -> Iterator[None]:
    """Within this block all processes do the same, each with its rows of the batch."""
    if _group is None:
        yield
        return
    _group.together = True
    try:
        yield
    finally:
        _group.together = False


def seed_step(seed: int, step: int) -> None:
    """Seed the random numbers of a step, counted from 0: other ones in each process, so that a plain ``torch.randn`` in a
    loss or a network draws for the rows of its process. What all processes must draw alike is drawn within :func:`common`.
    """
    seed_everything(seed, "step", step)
    if _group is not None:
        _group.common = _random_state()
        seed_everything(seed, "step", step, "rank", _group.rank)


@contextmanager
def common() -> Iterator[None]:
    """Within this block all processes draw the same random numbers: those that one process alone would draw."""
    group = _group
    if group is None or not group.together or group.common is None:
        yield
        return
    own_state = _random_state()
    _set_random_state(group.common)
    try:
        yield
    finally:
        group.common = _random_state()
        _set_random_state(own_state)


def _random_state() -> tuple[Tensor, Tensor | None]:
    """The states of the global generators: of the CPU, and of this process's GPU if it is in use."""
    gpu = torch.cuda.get_rng_state() if torch.cuda.is_initialized() else None  # type: ignore[no-untyped-call]
    return torch.get_rng_state(), gpu


def _set_random_state(state: tuple[Tensor, Tensor | None]) -> None:
    """Undo :func:`_random_state`."""
    torch.set_rng_state(state[0])
    if state[1] is not None:
        torch.cuda.set_rng_state(state[1])


def own(draw: Callable[[int], Tensor], n: int) -> Tensor:
    """``n`` random rows: this process's part of what one process would draw for the whole batch.

    ``draw``: makes that many rows from the global generator.
    """
    if _group is None or not _group.together:
        return draw(n)
    with common():
        return part(draw(n * _group.world))


def part(whole: Tensor) -> Tensor:
    """This process's rows of something that all processes have, (world * n, ...)."""
    if _group is None or not _group.together:
        return whole
    return whole.chunk(_group.world)[_group.rank]


def gather(rows: Tensor) -> Tensor:
    """The rows (n, ...) of all processes, (world * n, ...), in the order of the whole batch. Without a graph."""
    if _group is None or not _group.together:
        return rows
    return _gather(_group, rows.detach()).flatten(0, 1)


def _gather(group: _Group, tensor: Tensor) -> Tensor:
    parts = [torch.empty_like(tensor, memory_format=torch.contiguous_format) for _ in range(group.world)]
    with _reaching(group):
        dist.all_gather(parts, tensor.contiguous())
    return torch.stack(parts)


def average(network: nn.Module, loss: Tensor, logs: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    """Average over all processes, in one go and in float32: the gradients of ``network``, in place, the loss and the logs.

    A value that is not finite in one process is not finite in all of them afterwards.
    """
    group = _group
    if group is None or not group.together:
        return loss, logs
    changed = [p.grad for p in network.parameters() if p.grad is not None] + group.running
    scalars = [loss.detach(), *logs.values()]
    flat = torch.cat([tensor.detach().float().flatten() for tensor in (*changed, *scalars)])
    with _reaching(group):
        dist.all_reduce(flat)
    parts = torch.split(flat / group.world, [tensor.numel() for tensor in (*changed, *scalars)])
    for tensor, mean in zip(changed, parts, strict=False):
        tensor.copy_(mean.view(tensor.shape))
    loss, *values = (mean.view(scalar.shape) for scalar, mean in zip(scalars, parts[len(changed) :], strict=True))
    return loss, dict(zip(logs, values, strict=True))


class _Normalise(torch.autograd.Function):
    """Batch norm by given statistics, which are those of the batches of all processes, so that gradients flow through them."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, var: Tensor, eps: float) -> Tensor:
        ctx.save_for_backward(x, weight, mean, var)
        ctx.eps = eps
        return F.batch_norm(x, mean, var, weight, bias, eps=eps)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        if torch.is_grad_enabled():
            todo = "Set sync_batch_norm=false, or choose another norm"
            raise ConfigError("batch norm of several processes cannot be differentiated twice", "sync_batch_norm", todo)
        x, weight, mean, var = ctx.saved_tensors
        direct, by_weight, by_bias = torch.ops.aten.native_batch_norm_backward(
            gradients[0], x, weight, mean, var, None, None, False, ctx.eps, [True, True, True]
        )
        assert _group is not None
        count = _group.world * x.numel() // x.shape[1]
        sums = _gather(_group, torch.stack([by_weight, by_bias])).sum(0)
        slope, shift = -weight * torch.rsqrt(var + ctx.eps) / count * sums
        through = F.batch_norm(x, mean, var, slope, shift, eps=ctx.eps)  # the statistics: slope * normalised x + shift
        return direct + through, by_weight, by_bias, None, None, None


class _SyncedBatchNorm(nn.modules.batchnorm._BatchNorm):
    """Batch norm over the batches of all processes (Ioffe and Szegedy 2015 over the whole batch), on any device.

    Statistics are float32 whatever the precision of the rest, and the running variance is the unbiased one of the whole batch,
    as PyTorch's.
    """

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, ...) of a part of the batch, to the same."""
        use_batch = self.training or self.running_mean is None
        if _group is None or not _group.together or not use_batch:
            return super().forward(input)
        self._check_input_dim(input)  # type: ignore[no-untyped-call]
        weight = torch.ones(input.shape[1], device=input.device) if self.weight is None else self.weight
        bias = torch.zeros_like(weight) if self.bias is None else self.bias
        with torch.no_grad():
            _, mean, inverse = torch.native_batch_norm(input, weight, bias, None, None, True, 0.0, self.eps)
            var = (inverse.square().reciprocal() - self.eps).clamp_min(0)
            means, variances = _gather(_group, torch.stack([mean, var])).unbind(1)
            mean = means.mean(0)
            var = (variances + (means - mean).square()).mean(0)
        if self.training and self.track_running_stats:
            self._remember(mean, var, _group.world * input.numel() // input.shape[1])
        normalised: Tensor = _Normalise.apply(input, weight, bias, mean, var, self.eps)  # type: ignore[no-untyped-call]
        return normalised

    @torch.no_grad()
    def _remember(self, mean: Tensor, var: Tensor, count: int) -> None:
        if self.num_batches_tracked is None or self.running_mean is None or self.running_var is None:
            return
        self.num_batches_tracked.add_(1)
        weight = self.momentum if self.momentum is not None else 1.0 / float(self.num_batches_tracked)
        self.running_mean.lerp_(mean, weight)
        self.running_var.lerp_(var * (count / (count - 1)), weight)


class _SyncedBatchNorm1d(_SyncedBatchNorm, nn.BatchNorm1d):
    pass


class _SyncedBatchNorm2d(_SyncedBatchNorm, nn.BatchNorm2d):
    pass


class _SyncedBatchNorm3d(_SyncedBatchNorm, nn.BatchNorm3d):
    pass


SYNCED: dict[type[nn.Module], type[nn.Module]] = {
    nn.BatchNorm1d: _SyncedBatchNorm1d,
    nn.BatchNorm2d: _SyncedBatchNorm2d,
    nn.BatchNorm3d: _SyncedBatchNorm3d,
}


class _Dropout(nn.Dropout):
    """Dropout whose mask is drawn for the whole batch, real and generated samples one after the other if both are there."""

    def forward(self, input: Tensor) -> Tensor:
        """Of any shape, samples first."""
        group = _group
        if group is None or not group.together or not self.training or self.p == 0 or len(input) % group.batch:
            return super().forward(input)
        dense = input.dim() == 4 and input.is_contiguous(memory_format=torch.channels_last) and not input.is_contiguous()
        ones = torch.ones(
            (group.world * len(input), *input.shape[1:]), dtype=input.dtype, device=input.device
        )  # laid out as the whole batch would be: the order of the draws depends on it
        ones = ones.to(memory_format=torch.channels_last) if dense else ones
        with common():
            mask = F.dropout(ones, self.p, training=True)
        kinds = len(input) // group.batch
        return input * mask.view(kinds, group.world, group.batch, *input.shape[1:])[:, group.rank].reshape(input.shape)
