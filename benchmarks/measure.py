"""Trainings in separate processes that run on request, so that several can take turns on one machine.

``Training`` is the parent's side. The process runs the plain loop, or gan_cli's ``session.run`` with everything outside the
step. After the requested steps it reports how long they took and waits.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import multiprocessing
import os
import resource
import signal
import statistics
import sys
import tempfile
import threading
import time
import traceback
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from cases import CASES, composed, plain_steps
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map
from torch.utils.flop_counter import flop_registry

Report = dict[str, Any]
PR_SET_PDEATHSIG = 1  # prctl(2)


@dataclass(frozen=True)
class Shape:
    """The memory layout of a tensor. Its values do not affect the time."""

    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device

    def make(self) -> Tensor:
        """Make a tensor of random numbers with this layout."""
        if 0 in self.shape:
            return torch.empty(self.shape, dtype=self.dtype, device=self.device)
        size = 1 + sum((n - 1) * step for n, step in zip(self.shape, self.stride, strict=True))
        return torch.randn(size, device=self.device).to(self.dtype).as_strided(self.shape, self.stride)


class Products(TorchDispatchMode):
    """Recorder of all matrix products and convolutions, forward and backward, with their FLOPs by torch's formulas.

    torch's ``FlopCounterMode`` counts the same, but its hooks fail on ``autograd.grad``, which a gradient penalty needs.
    """

    def __init__(self) -> None:
        super().__init__()
        self.flops = 0
        self.calls: list[tuple[Any, Any, Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if func.overloadpacket in flop_registry:
            self.flops += flop_registry[func.overloadpacket](*args, **kwargs, out_val=result)
            note = lambda x: Shape(tuple(x.shape), x.stride(), x.dtype, x.device) if isinstance(x, Tensor) else x  # noqa: E731
            self.calls.append((func, tree_map(note, args), tree_map(note, kwargs)))
        return result

    @torch.no_grad()
    def again(self, rounds: int) -> float:
        """Repeat all recorded operations ``rounds`` times. Returns the median time in seconds."""
        tensors: dict[Shape, Tensor] = {}
        make = lambda x: tensors.setdefault(x, x.make()) if isinstance(x, Shape) else x  # noqa: E731
        calls = [(func, tree_map(make, args), tree_map(make, kwargs)) for func, args, kwargs in self.calls]
        times = []
        for _ in range(rounds + 1):
            synchronise()
            start = time.perf_counter()
            for func, args, kwargs in calls:
                func(*args, **kwargs)
            synchronise()
            times.append(time.perf_counter() - start)
        return statistics.median(times[1:])


def synchronise() -> None:
    """Wait for the GPU, if there is one in use."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


KINDS = ("products", "elementwise and norms", "optimizer, average, clipping", "data and copies", "Python and launching")
COPIES = {"copy_", "index_select", "index", "cat", "clone", "fill_", "zero_", "stack", "_to_copy", "index_copy_", "randperm"}
UPDATES = ("_foreach_", "_fused_", "linalg_vector_norm")


def kind_of(event: Any) -> str | None:
    """The kind of a profiler event, one of :data:`KINDS`; None if it is not an operation."""
    name = event.name
    if not name.startswith("aten::"):
        return None
    name = name.removeprefix("aten::")
    parent = event.cpu_parent
    while parent is not None:
        if parent.name.startswith("Optimizer.step"):
            return "optimizer, average, clipping"
        parent = parent.cpu_parent
    if "conv" in name or "linear" in name or name in ("mm", "addmm", "bmm", "baddbmm"):
        return "products"
    if name.startswith(UPDATES) or name in ("clamp", "clamp_"):  # ReLU is clamp_min
        return "optimizer, average, clipping"
    return "data and copies" if name in COPIES else "elementwise and norms"


def profiled(events: Iterable[Any], wall: float, cuda: bool) -> Report:
    """Seconds by kind, and on a GPU the seconds in which kernels ran."""
    kinds: dict[str, float] = dict.fromkeys(KINDS, 0.0)
    device = 0.0
    for event in events:
        kind = kind_of(event)
        if cuda and event.device_type == torch.autograd.DeviceType.CUDA:
            if getattr(event, "is_user_annotation", False):  # a span around kernels, which are counted themselves
                continue
            device += event.time_range.elapsed_us() / 1e6
        elif kind is not None:
            kinds[kind] += (event.self_device_time_total if cuda else event.self_cpu_time_total) / 1e6
    kinds["Python and launching"] = max(wall - (device if cuda else sum(kinds.values())), 0.0)
    return {"kinds": kinds, "wall": wall, "kernels": device if cuda else None}


def memory(cuda: bool) -> int:
    """Peak memory of this process in bytes: allocated on the GPU, or resident."""
    if cuda:
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


class Enough(Exception):
    """The parent has requested the end of the training."""


class Watch:
    """The process's side: runs the requested steps and reports."""

    def __init__(self, connection: Connection, cuda: bool) -> None:
        self.connection, self.cuda = connection, cuda
        self.waited, self.left = 0.0, 0

    def begin(self) -> None:
        """Wait for the next request, before its first step.

        Raises:
            Enough: the request is to end.
        """
        what, count = self.connection.recv()
        if what == "end":
            raise Enough
        self.stack = ExitStack()
        self.answer: Callable[[float], Report] = lambda seconds: {}
        if what == "products":
            products = self.stack.enter_context(Products())
            self.answer = lambda seconds: {"flops": products.flops, "bare": products.again(5)}
        elif what == "profile":
            activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if self.cuda else [])]
            profiler = self.stack.enter_context(profile(activities=activities))
            self.answer = lambda seconds: profiled(profiler.events(), seconds, self.cuda)
        self.left, self.waited = count, 0.0
        synchronise()
        self.started, self.cpu = time.perf_counter(), time.process_time()

    def step(self) -> None:
        """Count a step. After the last requested one, report and wait for the next request."""
        self.left -= 1
        if self.left > 0:
            return
        synchronise()
        seconds, cpu = time.perf_counter() - self.started, time.process_time() - self.cpu
        self.stack.close()
        answer = self.answer(seconds)
        self.connection.send({"seconds": seconds, "cpu": cpu, "waited": self.waited, "memory": memory(self.cuda), **answer})
        self.begin()

    def loader(self, batches: Iterable[Any]) -> Iterator[Any]:
        """Repeat the epochs of ``batches`` endlessly and measure the time spent waiting for batches.

        Raises:
            ValueError: an epoch has no batch.
        """
        while True:
            start = time.perf_counter()
            iterator = iter(batches)  # starts the workers of a DataLoader, every epoch
            batch = next(iterator, None)
            if batch is None:
                raise ValueError("the data set is smaller than a batch")
            while batch is not None:
                self.waited += time.perf_counter() - start
                yield batch
                start = time.perf_counter()
                batch = next(iterator, None)


def run_plain(watch: Watch, kind: str, case: str, folder: Path, settings: Sequence[str], run_dir: Path) -> None:
    """Run the plain loop."""
    steps = plain_steps(CASES[case], composed(CASES[case], folder, *settings), folder, watch.loader)
    next(steps)
    watch.connection.send({"precision": "fp32", "compiled": False})
    watch.begin()
    while True:
        next(steps)
        watch.step()


def run_ours(watch: Watch, kind: str, case: str, folder: Path, settings: Sequence[str], run_dir: Path) -> None:
    """Run ``gan-train``, stopped between steps. ``kind``: ``as compiled`` has the operations of a compiled step."""
    from gan_cli.app.commands import Command
    from gan_cli.training import session

    train = session.train

    def watched(game: Any, *, after_step: Callable[[dict[str, Tensor]], bool], **keywords: Any) -> None:
        batches = type(game.batches)
        load = batches.__next__

        def timed(self: Any) -> Any:
            start = time.perf_counter()
            batch = load(self)
            watch.waited += time.perf_counter() - start
            return batch

        def after(logs: dict[str, Tensor]) -> bool:
            go_on = after_step(logs)
            watch.step()
            return go_on

        batches.__next__ = timed
        compiled = game.generator.loss_and_gradient != game.generator.plain_loss_and_gradient
        precision = "bf16" if game.generator.precision is torch.bfloat16 else "fp32"
        watch.connection.send({"precision": precision, "compiled": compiled})
        watch.begin()
        if kind == "as compiled":  # a compiled step has two passes of G over the same noise
            game.task.repeats = False
        train(game, after_step=after, **keywords)

    session.train = watched
    config = composed(CASES[case], folder, *settings)
    session.run(config, run_dir, "bench", Command(()))


def end_with_parent() -> None:
    """Exit when the parent process ends."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def end_with_parent_too() -> None:
    """Let the kernel kill this process when its parent ends, on Linux. This works for a stopped process too."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def serve(connection: Connection, kind: str, case: str, folder: Path, settings: Sequence[str], cuda: bool) -> None:
    """Run a training in this process, as the target of :class:`Training`."""
    threading.Thread(target=end_with_parent, daemon=True).start()
    os.setsid()  # a process group with the workers of the loader
    end_with_parent_too()
    with tempfile.TemporaryDirectory(prefix="gan-cli-bench-") as home:
        os.dup2(os.open(f"{home}/stderr", os.O_WRONLY | os.O_CREAT), 2)  # no progress bar, no warnings between the tables
        logging.getLogger("gan_cli").setLevel(logging.ERROR)
        run = run_plain if kind == "plain" else run_ours
        try:
            run(Watch(connection, cuda), kind, case, folder, settings, Path(home) / "run")
        except (Enough, EOFError):  # EOFError: the parent has ended
            pass
        except BaseException:
            with contextlib.suppress(OSError):
                connection.send({"error": traceback.format_exc()})


class Training:
    """A process that trains on request.

    Args:
        kind: ``plain``, ``ours`` or ``as compiled``. case: key of :data:`cases.CASES`. folder: directory of its data.
        settings: arguments of ``gan-train``, which the plain loop uses too. device: ``cpu`` or ``cuda``.
    """

    def __init__(self, kind: str, case: str, folder: Path, settings: Sequence[str], device: str) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(
            ["measure", "gan_cli.training.session", "torch.utils.tensorboard", "tqdm"]
        )  # once for all
        self.connection, child_end = context.Pipe()
        overrides = [*settings, f"device={device}"]
        self.process = context.Process(target=serve, args=(child_end, kind, case, folder, overrides, device == "cuda"))
        self.process.start()
        child_end.close()
        began = self._receive()
        self.precision: str = began["precision"]
        self.compiled: bool = began["compiled"]
        self._signal(signal.SIGSTOP)

    def _receive(self) -> Report:
        try:
            report: Report = self.connection.recv()
        except EOFError:
            report = {"error": "the training process was killed, most likely for lack of memory"}
        if "error" in report:
            self.process.join()
            sys.exit(report["error"])
        return report

    def ask(self, what: str, count: int = 1) -> Report:
        """Run ``count`` steps. ``what``: ``steps``, ``products`` or ``profile``.

        Returns:
            ``seconds`` of wall time, ``cpu`` seconds, seconds ``waited`` for data, peak ``memory`` in bytes, and the results of
            ``products`` or ``profile``.
        """
        self._signal(signal.SIGCONT)
        self.connection.send((what, count))
        try:
            return self._receive()
        finally:
            self._signal(signal.SIGSTOP)

    def _signal(self, number: int) -> None:
        """Send a signal to the process and to the workers of its loader, which would otherwise keep decoding."""
        with contextlib.suppress(OSError):
            os.killpg(self.process.pid or 0, number)

    def end(self) -> None:
        """End the process."""
        self._signal(signal.SIGCONT)
        with contextlib.suppress(OSError):
            self.connection.send(("end", 0))
        self.connection.close()
        self.process.join(10)
        self.process.kill()
        self.process.join()


class Peak:
    """The rate of a large square matrix product in FLOP/s, measured several times between the trainings."""

    def __init__(self, device: str) -> None:
        self.device, self.size = torch.device(device), 2048 if device == "cpu" else 8192
        self.rates: dict[str, list[float]] = defaultdict(list)

    def measure(self) -> None:
        """Measure the rate of each precision once more."""
        for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
            a, b = (torch.randn(self.size, self.size, device=self.device).to(dtype) for _ in range(2))
            a @ b
            times = []
            for _ in range(3):
                synchronise()
                start = time.perf_counter()
                a @ b
                synchronise()
                times.append(time.perf_counter() - start)
            self.rates[name].append(2 * self.size**3 / min(times))

    def __getitem__(self, name: str) -> float:
        """The median rate of ``fp32`` or ``bf16``."""
        return statistics.median(self.rates[name])
