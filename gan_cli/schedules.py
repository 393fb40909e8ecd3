"""Stateless schedules.

The config group ``schedule`` holds those of the learning rate, ``step -> factor`` on every learning rate. :class:`Ramp` is
for single settings, ``images seen -> value``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

from gan_cli.ranges import Finite, Finites, Fraction, PositiveInt


class Constant:
    """A constant learning rate."""

    def __call__(self, step: int) -> float:
        """The factor at ``step``, counted from 0."""
        return 1.0


class Linear:
    """1 up to the fraction ``start`` of the run, then linear down to ``final`` (CycleGAN, pix2pix: start 0.5, final 0)."""

    def __init__(self, total_steps: PositiveInt, start: Fraction = 0.5, final: Fraction = 0.0) -> None:
        self.total_steps, self.start, self.final = total_steps, start, final

    def __call__(self, step: int) -> float:
        """The factor at ``step``, counted from 0."""
        progress = min(step / self.total_steps, 1.0)
        if progress <= self.start:
            return 1.0
        return 1.0 + (self.final - 1.0) * (progress - self.start) / (1.0 - self.start)


class Cosine:
    """Half a cosine from 1 to ``final`` over the run (Loshchilov and Hutter 2017, equation 5, without restarts)."""

    def __init__(self, total_steps: PositiveInt, final: Fraction = 0.0) -> None:
        self.total_steps, self.final = total_steps, final

    def __call__(self, step: int) -> float:
        """The factor at ``step``, counted from 0."""
        progress = min(step / self.total_steps, 1.0)
        return self.final + (1.0 - self.final) * 0.5 * (1.0 + math.cos(math.pi * progress))


class Ramp:
    """A value that goes from ``start`` to ``end`` over the first ``images`` real images and then stays at ``end``.

    It can stand for a regulariser's weight, ``optimizer.lr``, ``optimizer.betas`` and ``ema.half_life``. The half cosine
    is that of R3GAN (Huang et al. 2024, appendix).

    Args:
        start, end: numbers, or lists of numbers for settings that are lists.
        images: number of real images shown to D between ``start`` and ``end``.
        shape: ``linear``, or ``cosine`` for half a cosine.
    """

    def __init__(
        self,
        start: Finite | Finites,
        end: Finite | Finites,
        images: PositiveInt,
        shape: Literal["linear", "cosine"] = "cosine",
    ) -> None:
        if isinstance(start, Sequence) != isinstance(end, Sequence) or (
            isinstance(start, Sequence) and isinstance(end, Sequence) and len(start) != len(end)
        ):
            raise ValueError(f"start and end must both be numbers or lists of one length: {start} and {end}")
        self.start, self.end, self.images, self.shape = start, end, images, shape

    def __call__(self, images: int) -> Any:
        """The value after ``images`` real images: a float, or a list of floats if ``start`` is a list."""
        t = min(images / self.images, 1.0)
        t = t if self.shape == "linear" else 0.5 - 0.5 * math.cos(math.pi * t)
        if isinstance(self.start, Sequence) and isinstance(self.end, Sequence):
            return [a + (b - a) * t for a, b in zip(self.start, self.end, strict=True)]
        assert not isinstance(self.start, Sequence) and not isinstance(self.end, Sequence)
        return self.start + (self.end - self.start) * t


def is_schedule(value: Any) -> bool:
    """Return whether a plain value of a config is the node of a schedule."""
    return isinstance(value, dict) and "_target_" in value
