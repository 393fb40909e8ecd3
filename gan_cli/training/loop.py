"""The alternating loop (Goodfellow et al. 2014, algorithm 1). The losses are those of a task."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from gan_cli.compute import processes
from gan_cli.data.batches import Batches
from gan_cli.objective import Logs, PlayerName, Schedule, Turn
from gan_cli.randomness import seed_step
from gan_cli.tasks.task import Batch, Made, Task
from gan_cli.training.ema import EMA

Update = Callable[[Batch, Made | None, Turn], tuple[Tensor, Logs, Made | None]]


@dataclass
class Player:
    """One player: its network, optimizer, loss, and the constraint after each update.

    An update with a non-finite loss or gradient is skipped, since it would spoil the weights and Adam's moments for good.
    A fused Adam or AdamW skips on the device. For other optimizers the host synchronises with the device.

    Attributes:
        name: ``discriminator`` or ``generator``; its first letter begins the keys of the logs.
        task: gives the loss. schedule: step -> factor on the learning rate.
        settings: of the optimizer that follow the images seen, such as ``lr`` or ``betas``, by name.
        constraint: applied to the network after each update.
        skipped: int64 scalar on the device: updates skipped in a row, until now.
        loss_and_gradient: :meth:`plain_loss_and_gradient`, or the same compiled, see :mod:`gan_cli.training.compiling`.
    """

    name: PlayerName
    task: Task
    network: nn.Module
    optimizer: torch.optim.Optimizer
    schedule: Callable[[int], float]
    settings: Mapping[str, Schedule] = field(default_factory=dict)
    constraint: Callable[[nn.Module], None] | None = None
    precision: torch.dtype = torch.float32
    base_lrs: list[float] = field(init=False)
    skipped: Tensor = field(init=False)
    loss_and_gradient: Update = field(init=False)

    def __post_init__(self) -> None:
        self.loss_and_gradient = self.plain_loss_and_gradient
        self.base_lrs = [group["lr"] for group in self.optimizer.param_groups]
        self.skipped = torch.zeros((), dtype=torch.int64, device=next(self.network.parameters()).device)

    def follow_schedules(self, step: int, images: int) -> None:
        """Set the optimizer for step ``step``, counted from 0, after ``images`` real images."""
        values = {key: schedule(images) for key, schedule in self.settings.items()}
        factor = self.schedule(step)
        for group, lr in zip(self.optimizer.param_groups, self.base_lrs, strict=True):
            group.update(values)
            group["lr"] = values.get("lr", lr) * factor

    def update(self, batch: Batch, before: Made | None, turn: Turn) -> tuple[Logs, Made | None]:
        """One gradient step, unless it is skipped. Returns logs on the device, and what the next turn may reuse."""
        self.optimizer.zero_grad(set_to_none=True)
        loss, logs, made = self.loss_and_gradient(batch, before, turn)
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
        return logs | {f"{self.name[0]}/grad_norm": norm, f"{self.name[0]}/skipped": skip}, made

    def plain_loss_and_gradient(self, batch: Batch, before: Made | None, turn: Turn) -> tuple[Tensor, Logs, Made | None]:
        """Compute the gradient of the weights; return the loss, detached, the logs, and what the next turn may reuse.

        torch.compile compiles this function.
        """
        device_type = next(iter(batch.values())).device.type
        with torch.autocast(device_type, self.precision, enabled=self.precision is not torch.float32):
            made = self.task.prepare(batch, self.name, before)
            minimised = self.task.discriminator_loss if self.name == "discriminator" else self.task.generator_loss
            loss, logs = minimised(batch, made, turn)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach(), logs, self.task.shared(made)

    def gradient_norm(self) -> Tensor:
        """L2 norm over all weights of the gradient of the last update, a scalar on the device."""
        return nn.utils.get_total_norm([p.grad for p in self.network.parameters() if p.grad is not None])

    def not_finite(self) -> str:
        """The loss or the parameter whose value or gradient was not finite in the last update."""
        lost = (name for name, p in self.network.named_parameters() if p.grad is not None and not p.grad.isfinite().all())
        name = next(lost, None)
        return "loss, or the norm of its gradient," if name is None else f"gradient of {name}"


@dataclass
class Progress:
    """The progress of a run. ``step``: completed generator updates. ``images``: real images shown to the discriminator."""

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


@dataclass
class Players:
    """The objects of the loop: a task, its two players, the average of G, data and progress."""

    task: Any
    generator: Player
    discriminator: Player
    ema: EMA
    batches: Batches
    progress: Progress


def train(
    game: Players,
    *,
    total_steps: int,
    seed: int,
    after_step: Callable[[Logs], bool],
) -> None:
    """Run the game from its progress to ``total_steps``.

    A step is n_critic updates of D, each on its own batch, and one of G, in the order that the objective gives.
    Neighbouring turns of different players have one batch, and what the task made of it.
    ``after_step`` gets the step's logs (scalars on the device) and returns whether to go on; with a fused Adam nothing else
    in the loop waits for the device. Of several critic updates the last one's logs are kept, and the share that was skipped.
    """
    task, progress, batches = game.task, game.progress, game.batches
    players: dict[PlayerName, Player] = {"discriminator": game.discriminator, "generator": game.generator}
    go_on = True
    while progress.step < total_steps and go_on:
        seed_step(seed, progress.step, processes.rank())
        for player in players.values():
            player.follow_schedules(progress.step, progress.images)
        turn = task.objective.turn(progress.step, progress.images, game.discriminator.skipped.device)
        logs: Logs = {}
        skips: list[Tensor] = []
        mover, made = None, None
        for name in task.objective.order(progress.step):
            if mover in (None, name):
                batch, made = next(batches), None
            mover = name
            if name == "generator":
                with frozen(task.discriminator):
                    new, made = game.generator.update(batch, made, turn)
            else:
                new, made = game.discriminator.update(batch, made, turn)
                new |= task.objective.after_discriminator(new)
                skips.append(new["d/skipped"])
            logs |= new
        logs["d/skipped"] = torch.stack(skips).mean()
        shown, progress.images = batches.position - progress.images, batches.position
        processes.average_buffers(task)
        progress.step += 1
        game.ema.update(shown, progress.images)
        go_on = after_step(logs)
