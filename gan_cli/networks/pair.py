"""Two players that train as one, as in CycleGAN (Zhu et al. 2017, section 3): one parameter set, one optimizer, two parts.

Neither has a ``forward``: the task calls the parts.
"""

from __future__ import annotations

from torch import nn


class Translators(nn.Module):
    """``a2b``: images of domain a -> images of domain b, the paper's G; ``b2a``: the way back, F."""

    def __init__(self, a2b: nn.Module, b2a: nn.Module) -> None:
        super().__init__()
        self.a2b = a2b
        self.b2a = b2a


class Judges(nn.Module):
    """``a``: images -> logits for domain a, the paper's D_X; ``b``: for domain b, D_Y."""

    def __init__(self, a: nn.Module, b: nn.Module) -> None:
        super().__init__()
        self.a = a
        self.b = b
