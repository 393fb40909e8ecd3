"""Optional capabilities of tasks: drawing samples, translating images, drawing points, scoring images.

A user's task implements the methods of a protocol and need not inherit from it. ``isinstance(task, Samples)`` tests
whether the methods exist.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn

Batch = dict[str, Tensor]  # a batch of a data set, for example image and label


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
        """Samples (N, ...) of ``generator`` for latents (N, latent_dim) and labels (N,).

        ``generator``: the task's generator or its running average. ``options``: keywords of its ``forward``, such as
        ``truncation``.
        """
        ...

    def interpolate(self, seed: object, points: int, frames: int) -> Tensor:
        """Latents on a closed path through ``points`` latents: float32 (points * frames, latent_dim)."""
        ...


@runtime_checkable
class Translates(Protocol):
    """A task whose generator makes images from images.

    Attributes:
        directions: names of the directions, such as ``a2b`` and ``b2a``; empty if there is only one.
    """

    directions: tuple[str, ...]

    def translate(
        self, generator: nn.Module, images: Tensor, direction: str | None, seed: object = 0, start: int = 0
    ) -> Tensor:
        """Translate images in [-1, 1], float (N, C, H, W). Returns float32 images of the same shape and range."""
        ...

    def columns(
        self, generator: nn.Module, examples: Batch, direction: str | None, seed: object = 0, start: int = 0
    ) -> list[Tensor]:
        """The columns of a picture of examples: source, result, and target or reconstruction."""
        ...


@runtime_checkable
class HasModes(Protocol):
    """A task whose trained generator has two modes of sampling.

    Attributes:
        sample_mode: ``paper``, with dropout and the batch norm statistics of each image, or ``eval``.
    """

    sample_mode: str


@runtime_checkable
class DrawsPoints(Protocol):
    """A task whose samples are points of a known density, not images.

    The task also has ``density``, the density of the data, with ``dim``. It is not an attribute of the protocol, because
    from Python 3.12 on ``isinstance`` does not find submodules of an ``nn.Module``.
    """

    def draw_points(self, points: Any) -> Tensor:
        """Draw points as a picture, uint8 (C, H, W)."""
        ...


@runtime_checkable
class Scores(Protocol):
    """A task that gives D's logits, from which overfitting is measured."""

    def score(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Float32 logits of D on the images of ``batch`` and on as many new samples of G, in training mode."""
        ...
