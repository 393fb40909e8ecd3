"""torch.compile of a player's loss together with its backward pass, checked against the plain one before the first step.

The network alone must not be compiled where a penalty differentiates it twice; a function that holds the penalty and the
backward pass may be (pytorch #91469, #181581).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from gan_cli.compute import processes
from gan_cli.objective import Logs, Turn
from gan_cli.randomness import seed_everything
from gan_cli.rundir.checkpoint import Checkpoint
from gan_cli.system.errors import ConfigError
from gan_cli.tasks.task import Batch, Made, Task
from gan_cli.training.loop import Player, Update, frozen

log = logging.getLogger("gan_cli")
TOLERANCE = {torch.float32: 0.01, torch.bfloat16: 0.1}  # relative, of a player's whole gradient


def choose_compile(wanted: str | bool, device: torch.device, saved: Checkpoint | None) -> tuple[bool, str]:
    """Whether to compile, and why. ``auto`` keeps what the run began with, else compiles where it pays."""
    if wanted != "auto":
        return bool(wanted), "as set"
    if processes.world() > 1:
        return False, "several processes; compile=true tries it"
    if saved is not None and saved.info["machine"]["device"] == str(device):
        return bool(saved.info["machine"].get("compiled")), "as the run began"
    if device.type == "cuda":
        return True, "faster on a GPU; compile=false leaves it out"
    return False, f"gains little on a {device.type} and takes up to a minute; compile=true tries it"


def compile_game(task: Task, players: tuple[Player, Player], batch: Batch, *, forced: bool) -> tuple[bool, str]:
    """Compile what both players minimise, with its gradient, if the result is right.

    Args:
        task: with ``one_pass`` its networks are compiled instead.
        players: in the order in which they move. batch: one to try it with; buffers are as before after it.
        forced: whether a failure is an error.

    Returns:
        Whether it is compiled now, and why not.

    Raises:
        ConfigError: it was forced and cannot be done.
    """
    log.info("compiling the step, which can take a minute")
    failure: Exception | None = None
    try:
        with _settings():
            plain = trial(task, players, batch)
            _compile(task, players)
            problem = disagreement(plain, trial(task, players, batch), players)
    except Exception as error:  # the compiler, its C++ compiler and its drivers may raise anything
        failure = error
        problem = f"{type(error).__name__}: {error}".strip().split("\n")[0][:200].rstrip(".")
    if problem is None:
        return True, ""
    for player in players:
        player.loss_and_gradient = player.plain_loss_and_gradient
        player.network._compiled_call_impl = None
    if forced:
        todo = "Set compile=false. It needs a C++ compiler with Python's headers, on a GPU Triton"
        raise ConfigError(f"the step cannot be compiled: {problem}", "compile=true", todo) from failure
    return False, f"it cannot be compiled here: {problem}"


def _compile(task: Task, players: tuple[Player, Player]) -> None:
    if task.one_pass:
        for player in players:
            player.network.compile(fullgraph=True, dynamic=False)
        return
    on_gpu = next(task.generator.parameters()).is_cuda
    graphs = on_gpu and task.objective.warm_up is None  # one for each turn of a step: a hundred of them would be too many
    for k, player in enumerate(players):
        function: Update = torch.compile(
            player.plain_loss_and_gradient, fullgraph=True, dynamic=False, mode="reduce-overhead" if graphs else None
        )
        if graphs:
            function = _replayed(function, first=k == 0)
        if player.network is task.discriminator:
            function = _beside_frozen(function, task.generator)
        player.loss_and_gradient = function


def _replayed(function: Update, *, first: bool) -> Update:
    """Copy the results: a CUDA graph writes them where it wrote the last ones. A step begins with ``first``."""

    def run(batch: Batch, before: Made | None, turn: Turn) -> tuple[Tensor, Logs, Made | None]:
        if first:
            torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
        loss, logs, made = function(batch, before, turn)
        copies = None if made is None else {key: value.clone() for key, value in made.items()}
        return loss.clone(), {key: value.clone() for key, value in logs.items()}, copies

    return run


def _beside_frozen(function: Update, network: nn.Module) -> Update:
    """Freeze ``network`` in the step of its opponent, or dynamo takes its present gradients for sums to be added to."""

    def run(batch: Batch, before: Made | None, turn: Turn) -> tuple[Tensor, Logs, Made | None]:
        with frozen(network):
            return function(batch, before, turn)

    return run


@contextmanager
def _settings() -> Iterator[None]:
    """Settings of the compiler, kept after the block: functions are compiled again for new shapes."""
    import torch._dynamo
    import torch._inductor.config

    torch._dynamo.reset()  # functions of earlier jobs of a sweep count towards a limit
    torch._dynamo.config.trace_autograd_ops = True  # the backward pass, and the gradient within a penalty
    torch._inductor.config.fallback_random = True  # the random numbers of the plain path
    torch._inductor.config.compile_threads = 1 if not torch.cuda.is_available() else None
    noisy = logging.getLogger("torch.utils.cpp_extension")  # speaks of CUDA where there is none
    level = noisy.level
    noisy.setLevel(logging.ERROR)
    try:
        yield
    finally:
        noisy.setLevel(level)


def trial(task: Any, players: tuple[Player, Player], batch: Batch) -> list[tuple[Tensor, Tensor]]:
    """Loss and gradient, flat, of each player for one batch. Weights and buffers stay as they are."""
    buffers = [(buffer, buffer.clone()) for buffer in task.buffers()]
    turn, made, found = task.objective.turn(0, 0, next(task.parameters()).device), None, []
    for player in players:
        seed_everything("trial", player.name[0])
        player.optimizer.zero_grad(set_to_none=True)
        with frozen(task.discriminator) if player.name == "generator" else nullcontext():
            loss, _, made = player.loss_and_gradient(batch, made, turn)
        gradients = [p.grad if p.grad is not None else torch.zeros_like(p) for p in player.network.parameters()]
        found.append((loss.clone(), torch.cat([gradient.flatten() for gradient in gradients])))
    for player in players:
        player.optimizer.zero_grad(set_to_none=True)
    for buffer, before in buffers:
        buffer.copy_(before)
    return found


def disagreement(
    plain: list[tuple[Tensor, Tensor]], fast: list[tuple[Tensor, Tensor]], players: tuple[Player, Player]
) -> str | None:
    """In words, if losses or gradients differ by more than rounding."""
    for (loss, gradient), (other, otherwise), player in zip(plain, fast, players, strict=True):
        scale = gradient.norm().clamp_min(1e-12)
        difference = float(torch.maximum((gradient - otherwise).norm() / scale, (loss - other).abs() / loss.abs().clamp_min(1)))
        if not difference <= TOLERANCE[player.precision]:
            return f"the compiled gradient of {player.name[0].upper()} differs by {difference:.1%}"
    return None
