"""Pairs of networks with one optimizer, as in CycleGAN (Zhu et al. 2017, section 3).

They have no ``forward``: the task calls the two parts.
"""

from __future__ import annotations

from torch import nn


class Translators(nn.Module):
    """Two generators. ``a2b`` maps images of domain a to domain b (the paper's G), ``b2a`` maps back (F)."""

    def __init__(self, a2b: nn.Module, b2a: nn.Module) -> None:
        super().__init__()
        self.a2b = a2b
        self.b2a = b2a


class Judges(nn.Module):
    """Two discriminators. ``a`` gives logits for images of domain a (the paper's D_X), ``b`` for domain b (D_Y)."""

    def __init__(self, a: nn.Module, b: nn.Module) -> None:
        super().__init__()
        self.a = a
        self.b = b
