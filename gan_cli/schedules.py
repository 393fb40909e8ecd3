"""Learning-rate schedules: ``step -> factor`` on every learning rate, with no state of their own."""

from __future__ import annotations

import math

from gan_cli.ranges import Fraction, PositiveInt


class Constant:
    """The learning rate stays as it is."""

    def __call__(self, step: int) -> float:
        """The factor at ``step``, counted from 0."""
        return 1.0


class Linear:
    """1 for the first ``start`` of the run, then straight down to ``final`` (CycleGAN and pix2pix: start 0.5, final 0)."""

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
