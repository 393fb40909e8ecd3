"""What a task is to the loop and to a run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from gan_cli.objective import Logs, Objective, PlayerName, Turn

Batch = dict[str, Tensor]  # what the data set gives
Made = dict[str, Tensor]  # what a task makes of a batch, in its own terms


class Task(Protocol):
    """What two players minimise, and how it is looked at. All state is in parameters and buffers.

    The losses are functions of their arguments; nothing is remembered between two calls.

    Attributes:
        batch_keys: what the data set must give.
        one_pass: whether the turns of a step always go through one graph of G, see :mod:`gan_cli.training.compiling`.
    """

    generator: nn.Module
    discriminator: nn.Module
    objective: Objective
    batch_keys: tuple[str, ...]
    one_pass: bool

    def prepare(self, batch: Batch, player: PlayerName, before: Made | None) -> Made:
        """What ``player`` needs of a batch besides it: fakes, latents, labels.

        ``before``: what :meth:`shared` gave of the neighbouring turn of the other player on this batch, or None.
        """
        ...

    def shared(self, made: Made) -> Made | None:
        """What the next turn is given as ``before`` if it is the other player's on the same batch."""
        ...

    def discriminator_loss(self, batch: Batch, made: Made, turn: Turn) -> tuple[Tensor, Logs]:
        """What D minimises, a scalar, and what to log. ``made``: see :meth:`prepare`."""
        ...

    def generator_loss(self, batch: Batch, made: Made, turn: Turn) -> tuple[Tensor, Logs]:
        """What G minimises, a scalar, and what to log. ``batch``: that of the neighbouring turn of D."""
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
