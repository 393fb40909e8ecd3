"""The protocol of a task: the methods that the loop and a run call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from gan_cli.objective import Logs, Objective, PlayerName, Turn

Batch = dict[str, Tensor]  # a batch of the data set
Made = dict[str, Tensor]  # tensors that a task makes from a batch


class Task(Protocol):
    """The losses of two players, and the pictures and measurements of a run. All state is in parameters and buffers.

    The losses are functions of their arguments and keep no state between calls.

    Attributes:
        batch_keys: keys that a batch of the data set must have.
        one_pass: whether both turns of a step always share one graph of G, see :mod:`gan_cli.training.compiling`.
    """

    generator: nn.Module
    discriminator: nn.Module
    objective: Objective
    batch_keys: tuple[str, ...]
    one_pass: bool

    def prepare(self, batch: Batch, player: PlayerName, before: Made | None) -> Made:
        """The inputs of a turn of ``player`` besides the batch: fakes, latents, labels.

        ``before``: the result of :meth:`shared` for the adjacent turn of the other player on this batch, or None.
        """
        ...

    def shared(self, made: Made) -> Made | None:
        """The argument ``before`` of the next turn, if that is a turn of the other player on the same batch."""
        ...

    def discriminator_loss(self, batch: Batch, made: Made, turn: Turn) -> tuple[Tensor, Logs]:
        """The loss of D, a scalar, and scalars to log. ``made``: see :meth:`prepare`."""
        ...

    def generator_loss(self, batch: Batch, made: Made, turn: Turn) -> tuple[Tensor, Logs]:
        """The loss of G, a scalar, and scalars to log. ``batch``: the batch of the adjacent discriminator update."""
        ...

    def examples(self, dataset: Any, seed: int, device: torch.device) -> Batch:
        """The examples of all pictures of a run: latents and labels, or held-out images."""
        ...

    def picture(self, generator: nn.Module, examples: Batch) -> Tensor:
        """A picture of the examples by ``generator``, the average of the task's: uint8 (C, H, W) on the CPU."""
        ...

    def measure(self, generator: nn.Module, examples: Batch) -> dict[str, float]:
        """Scalars to log with each picture, keys ``metric/...``."""
        ...

    def try_out(self, attempt: Callable[..., Tensor], dataset: Any, device: torch.device) -> None:
        """Call ``attempt(where, network, *inputs, wanted=shape)`` for each network, to find a mistake in it early."""
        ...
