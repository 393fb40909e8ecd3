"""What a task is, and what some tasks can do besides: the protocols by which everything else asks.

A task of a user's own implements the methods; it need not inherit. ``isinstance(task, Samples)`` asks whether the methods
are there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

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


@runtime_checkable
class Samples(Protocol):
    """A task whose generator makes images, or points, from noise."""

    num_classes: int | None

    def latents(self, seed: object, start: int, stop: int) -> Tensor:
        """Latents of samples ``start`` to ``stop``: float32 (stop - start, latent_dim), a function of seed and index only."""
        ...

    def labels(self, n: int, classes: Sequence[int] | None = None) -> Tensor | None:
        """Labels of ``n`` samples, int64 (n,), of the ``classes`` given; None for an unconditional generator."""
        ...

    def draw(
        self, generator: nn.Module, z: Tensor, label: Tensor | None, seed: object = 0, start: int = 0, **options: Any
    ) -> Tensor:
        """The samples that an average of the task's generator makes of latents (N, latent_dim) and labels: (N, ...).

        ``options``: keywords of the generator's ``forward``, such as ``truncation``.
        """
        ...

    def interpolate(self, seed: object, points: int, frames: int) -> Tensor:
        """Latents on a closed path through ``points`` latents: float32 (points * frames, latent_dim)."""
        ...


@runtime_checkable
class Translates(Protocol):
    """A task whose generator makes images from images.

    Attributes:
        directions: names of the directions, such as ``a2b`` and ``b2a``; empty if there is one only.
    """

    directions: tuple[str, ...]

    def translate(
        self, generator: nn.Module, images: Tensor, direction: str | None, seed: object = 0, start: int = 0
    ) -> Tensor:
        """Images in [-1, 1], float (N, C, H, W), to images of the same kind, float32."""
        ...

    def columns(
        self, generator: nn.Module, examples: Batch, direction: str | None, seed: object = 0, start: int = 0
    ) -> list[Tensor]:
        """The columns of a picture of examples: source, result, and what they are compared with."""
        ...


@runtime_checkable
class DrawsPoints(Protocol):
    """A task whose samples are points of a known density, not images.

    Attributes:
        density: of the data, with ``dim``.
    """

    density: Any

    def draw_points(self, points: Any) -> Tensor:
        """A picture of points, uint8 (C, H, W)."""
        ...


@runtime_checkable
class Scores(Protocol):
    """A task that can be asked for D's logits, so that overfitting is measured."""

    def score(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Logits of D on the images of ``batch`` and on as many new ones of G, float32, as in training."""
        ...
