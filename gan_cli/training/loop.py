"""The alternating loop (Goodfellow et al. 2014, algorithm 1). A task says what each player minimises; the rest is here."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from gan_cli.compute import processes
from gan_cli.data.batches import Batches
from gan_cli.objective import Objective
from gan_cli.randomness import seed_everything
from gan_cli.training.ema import EMA

log = logging.getLogger("gan_cli")


Batch = dict[str, Tensor]
Loss = Callable[[Batch], tuple[Tensor, dict[str, Tensor]]]


class Task(Protocol):
    """What two players minimise, and how it is looked at. All state is in parameters and buffers.

    ``batch_keys``: what the data set must give. A task that is :class:`gan_cli.protocols.Scores` has D's
    overfitting watched, see :class:`gan_cli.training.overfitting.Overfitting`. One with ``one_pass = True`` uses the graph of one pass of G in both
    turns of a step, see :mod:`gan_cli.training.compiling`.
    """

    generator: nn.Module
    discriminator: nn.Module
    objective: Objective
    batch_keys: tuple[str, ...]

    def discriminator_loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """What D minimises, a scalar, and what to log."""
        ...

    def generator_loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """What G minimises, a scalar, and what to log. ``batch`` is that of D's neighbouring turn."""
        ...

    def examples(self, dataset: Any, seed: int, device: torch.device) -> Batch:
        """What every picture of a run is made from: latents and labels, or held-out images."""
        ...

    def picture(self, generator: nn.Module, examples: Batch) -> Tensor:
        """uint8 (C, H, W) on the CPU: what ``generator``, an average of the task's, makes of the examples."""
        ...

    def measure(self, generator: nn.Module, examples: Batch) -> dict[str, float]:
        """Scalars to log beside each picture, keys ``metric/...``."""
        ...

    def try_out(self, attempt: Callable[..., Tensor], dataset: Any, device: torch.device) -> None:
        """Call ``attempt(where, network, *inputs, wanted=shape)`` for each network, so that a mistake in it is found early."""
        ...


@dataclass
class Player:
    """One side of the game: its network, its optimizer, its loss, and what holds after each of its updates.

    An update whose loss or gradient is not finite is skipped: one such gradient would stay in the weights, and in Adam's
    moments, for good. A fused Adam or AdamW decides it on the device; for other optimizers the host waits for the answer.

    Attributes:
        name: ``d`` or ``g``, before the keys of what it logs.
        skipped: int64 scalar on the device: updates skipped in a row, until now.
        loss_and_gradient: :meth:`plain_loss_and_gradient`, or the same compiled, see :mod:`gan_cli.training.compiling`.
    """

    name: str
    network: nn.Module
    optimizer: torch.optim.Optimizer
    loss: Loss
    schedule: Callable[[int], float]
    constraint: Callable[[nn.Module], None] | None = None
    precision: torch.dtype = torch.float32
    base_lrs: list[float] = field(init=False)
    skipped: Tensor = field(init=False)
    loss_and_gradient: Loss = field(init=False)

    def __post_init__(self) -> None:
        self.loss_and_gradient = self.plain_loss_and_gradient
        self.base_lrs = [group["lr"] for group in self.optimizer.param_groups]
        self.skipped = torch.zeros((), dtype=torch.int64, device=next(self.network.parameters()).device)

    def set_learning_rate(self, step: int) -> None:
        """The learning rate of step ``step``, counted from 0."""
        factor = self.schedule(step)
        for group, lr in zip(self.optimizer.param_groups, self.base_lrs, strict=True):
            group["lr"] = lr * factor

    def update(self, batch: Batch) -> dict[str, Tensor]:
        """One gradient step, unless it is skipped. Returns what to log, still on the device."""
        self.optimizer.zero_grad(set_to_none=True)
        loss, logs = self.loss_and_gradient(batch)
        loss, logs = processes.average(self.network, loss, logs)
        norm = self.gradient_norm()
        finite = torch.isfinite(loss + norm)
        skip = (~finite).float()
        if isinstance(self.optimizer, torch.optim.Adam | torch.optim.AdamW) and self.optimizer.defaults["fused"]:
            self.optimizer.found_inf = skip  # type: ignore[attr-defined]  # the kernel skips by itself, as for GradScaler
            self.optimizer.step()
        elif finite:
            self.optimizer.step()
        self.skipped = torch.where(finite, 0, self.skipped + 1)
        if self.constraint is not None:
            self.constraint(self.network)
        return logs | {f"{self.name}/grad_norm": norm, f"{self.name}/skipped": skip}

    def plain_loss_and_gradient(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss, detached, and what to log; the gradient is left in the weights. This is what gets compiled."""
        device_type = next(iter(batch.values())).device.type
        with torch.autocast(device_type, self.precision, enabled=self.precision is not torch.float32):
            loss, logs = self.loss(batch)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach(), logs

    def gradient_norm(self) -> Tensor:
        """L2 norm over all weights of the gradient of the last update, a scalar on the device."""
        return nn.utils.get_total_norm([p.grad for p in self.network.parameters() if p.grad is not None])

    def not_finite(self) -> str:
        """What was not finite in the last update, or where."""
        lost = (name for name, p in self.network.named_parameters() if p.grad is not None and not p.grad.isfinite().all())
        name = next(lost, None)
        return "loss, or the norm of its gradient," if name is None else f"gradient of {name}"


@dataclass
class Progress:
    """How far a run is. ``step``: completed generator updates. ``images``: real images shown to the discriminator."""

    step: int = 0
    images: int = 0


@contextmanager
def frozen(network: nn.Module) -> Iterator[None]:
    """Within this block no gradient is computed for the network's weights, only through them."""
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)


class Game(Protocol):
    """What the loop needs: a task, its two players, the average of G, data, and how far the run is."""

    task: Any
    generator: Player
    discriminator: Player
    ema: EMA
    batches: Batches
    progress: Progress


def train(
    game: Game,
    *,
    total_steps: int,
    seed: int,
    after_step: Callable[[dict[str, Tensor]], bool],
) -> None:
    """Run the game from its progress to ``total_steps``.

    A step is n_critic updates of D, each on a batch of its own, and one of G, in the order the objective says.
    ``after_step`` gets the step's logs (scalars on the device) and says whether to go on; with a fused Adam nothing else in
    the loop waits for the device. Of several critic updates the last one's logs are kept, and the share that was skipped.
    """

    task, progress, batches = game.task, game.progress, game.batches

    def move_generator(batch: Batch) -> dict[str, Tensor]:
        with frozen(task.discriminator), processes.together():
            return game.generator.update(batch)

    def move_discriminator(batch: Batch) -> dict[str, Tensor]:
        with processes.together():
            return game.discriminator.update(batch)

    generator_first = task.objective.first == "generator"
    go_on = True
    while progress.step < total_steps and go_on:
        seed_everything(seed, "step", progress.step)
        game.generator.set_learning_rate(progress.step)
        game.discriminator.set_learning_rate(progress.step)
        logs: dict[str, Tensor] = {}
        skipped: list[Tensor] = []
        for turn in range(task.objective.turns(progress.step)):
            batch = next(batches)
            if turn == 0 and generator_first:
                logs |= move_generator(batch)
            logs |= move_discriminator(batch)
            skipped.append(logs[f"{game.discriminator.name}/skipped"])
        logs[f"{game.discriminator.name}/skipped"] = torch.stack(skipped).mean()
        if not generator_first:
            logs |= move_generator(batch)
        shown, progress.images = batches.position - progress.images, batches.position
        progress.step += 1
        game.ema.update(shown, progress.images)
        go_on = after_step(logs)
