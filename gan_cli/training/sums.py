"""Sums of logged scalars on the device, with the same bits wherever a run stops and resumes."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

BLOCK = 64  # steps whose scalars are added at a time


@dataclass
class Sums:
    """Sums of scalars that are logged together, for their means. Adding a step makes one small tensor.

    Steps are added in blocks that begin with the row, so the result has the same bits wherever a run stops and resumes.

    Attributes:
        total: float32 (2, n): sums of the finite values of n scalars, and their counts.
        block: at most ``BLOCK`` later steps, (n,) each.
    """

    total: Tensor
    block: list[Tensor] = field(default_factory=list)

    def add(self, values: Tensor) -> None:
        """Add the scalars of a step, (n,)."""
        self.block.append(values)
        if len(self.block) == BLOCK:
            self.total, self.block = self.result(), []

    def result(self) -> Tensor:
        """``total`` with the block added."""
        if not self.block:
            return self.total
        values, finite = self._block()
        return self.total + torch.stack([values.sum(0), finite.sum(0)])

    def state(self) -> Tensor:
        """Float32 (2 + 2 k, n): ``total``, the k steps of the block with 0 for non-finite values, and 1 where finite."""
        return torch.cat([self.total, *self._block()]) if self.block else self.total

    @classmethod
    def of_state(cls, state: Tensor) -> Sums:
        """Restore :meth:`state`."""
        values, finite = state[2:].chunk(2) if len(state) > 2 else (state[2:], state[2:])
        return cls(state[:2], list(torch.where(finite > 0, values, math.nan)))

    def _block(self) -> tuple[Tensor, Tensor]:
        values = torch.stack(self.block).float()
        finite = torch.isfinite(values)
        return torch.where(finite, values, 0.0), finite.float()
