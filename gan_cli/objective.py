"""The objective: the whole game as one config node, so that ``loss=wgan_gp`` alone is right."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from gan_cli.ranges import Positive, PositiveInt


class AdversarialLoss(Protocol):
    """A pair of losses; see :mod:`gan_cli.losses`."""

    uses_real: bool

    def discriminator(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        """What D minimises, a scalar."""
        ...

    def generator(self, real_logits: Tensor | None, fake_logits: Tensor) -> Tensor:
        """What G minimises, a scalar."""
        ...

    def report(self, real_logits: Tensor, fake_logits: Tensor) -> dict[str, Tensor]:
        """Scalars to log, keys ``d/...``."""
        ...


class WeightClip:
    """Keeps every weight of the critic in [-limit, limit] (Arjovsky et al. 2017, algorithm 1, line 7)."""

    def __init__(self, limit: Positive = 0.01) -> None:
        self.limit = limit

    @torch.no_grad()
    def __call__(self, discriminator: nn.Module) -> None:
        """Clamp all parameters in place, the affine ones of normalisation layers included, as the reference code does."""
        for parameter in discriminator.parameters():
            parameter.clamp_(-self.limit, self.limit)


@dataclass(frozen=True)
class Objective:
    """What the players minimise and how they take turns.

    Attributes:
        adversarial: the pair of losses.
        penalty: added to the discriminator's loss, ``(critic, real, fake) -> scalar``.
        constraint: applied to the discriminator after each of its updates.
        n_critic: discriminator updates per generator update (k in Goodfellow et al. 2014, algorithm 1).
        first: who moves first in a step.
        critic_norm: normalisation for convolutional discriminators; model configs read it, nothing else does.
    """

    adversarial: AdversarialLoss
    penalty: Callable[..., Tensor] | None = None
    constraint: Callable[[nn.Module], None] | None = None
    n_critic: PositiveInt = 1
    first: Literal["discriminator", "generator"] = "discriminator"
    critic_norm: Literal["batch", "layer", "instance", "none"] = "batch"
