"""What some tasks can do besides training: the protocols by which commands and evaluations ask.

A task of a user's own implements the methods; it need not inherit. ``isinstance(task, Samples)`` asks whether the methods
are there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn

Batch = dict[str, Tensor]  # what the data set gives


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
class HasModes(Protocol):
    """A task whose trained generator can be used in two ways.

    Attributes:
        sample_mode: ``paper``, with dropout and the batch norm statistics of each image, or ``eval``.
    """

    sample_mode: str


@runtime_checkable
class DrawsPoints(Protocol):
    """A task whose samples are points of a known density, not images.

    The task has the density of the data as ``density``, with ``dim``. It is no attribute of the protocol, because
    ``isinstance`` does not find submodules of an ``nn.Module`` from Python 3.12 on.
    """

    def draw_points(self, points: Any) -> Tensor:
        """A picture of points, uint8 (C, H, W)."""
        ...


@runtime_checkable
class Scores(Protocol):
    """A task that can be asked for D's logits, so that overfitting is measured."""

    def score(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Logits of D on the images of ``batch`` and on as many new ones of G, float32, as in training."""
        ...
