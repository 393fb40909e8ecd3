"""The objective: the whole game as one config node, so that ``loss=wgan_gp`` alone is right."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from gan_cli.ranges import Count, Positive, PositiveInt

Critic = Callable[[Tensor], Tensor]
Logs = dict[str, Tensor]


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
class WarmUp:
    """More critic updates where the critic lags: in the first ``steps`` steps, and in every ``every``-th step after them.

    The values are those of the WGAN authors' code (martinarjovsky/WassersteinGAN, main.py); the paper says only that the
    critic can be trained to optimality.
    """

    n_critic: PositiveInt = 100
    steps: Count = 25
    every: PositiveInt | None = 500

    def applies(self, step: int) -> bool:
        """Whether ``step``, counted from 0, is one of those."""
        return step < self.steps or (self.every is not None and step % self.every == 0)


@dataclass(frozen=True)
class Objective:
    """What the players minimise and how they take turns.

    A critic is a function from images to logits with the condition already bound, so nothing here knows about labels or
    pairs.

    Attributes:
        adversarial: the pair of losses.
        penalty: added to the discriminator's loss, ``(critic, real, fake) -> scalar``.
        constraint: applied to the discriminator after each of its updates.
        n_critic: discriminator updates per generator update (k in Goodfellow et al. 2014, algorithm 1).
        warm_up: steps that have more of them.
        first: who moves first in a step.
        discriminator_weight: factor on the discriminator's adversarial loss (pix2pix: 0.5).
        critic_norm: normalisation for convolutional discriminators; model configs read it, nothing else does.
    """

    adversarial: AdversarialLoss
    penalty: Callable[..., Tensor] | None = None
    constraint: Callable[[nn.Module], None] | None = None
    n_critic: PositiveInt = 1
    warm_up: WarmUp | None = None
    first: Literal["discriminator", "generator"] = "discriminator"
    discriminator_weight: Positive = 1.0
    critic_norm: Literal["batch", "layer", "instance", "none"] = "batch"

    def turns(self, step: int) -> int:
        """Discriminator updates in ``step``, counted from 0."""
        return self.warm_up.n_critic if self.warm_up is not None and self.warm_up.applies(step) else self.n_critic

    def discriminator_loss(self, critic: Critic, real: Tensor, fake: Tensor, *, separately: bool) -> tuple[Tensor, Logs]:
        """What D minimises, a scalar, and what to log.

        ``real``, ``fake``: (N, ...), without a graph. ``separately``: in two passes, for a D that normalises over the batch;
        else ``critic`` gets both at once, (2N, ...), which is the same mathematics and faster.
        """
        real_logits, fake_logits = judge(critic, real, fake, separately)
        loss = self.discriminator_weight * self.adversarial.discriminator(real_logits, fake_logits)
        with torch.no_grad():
            logs = self.adversarial.report(real_logits, fake_logits)
        if self.penalty is not None:
            penalty = self.penalty(critic, real, fake)
            loss = loss + penalty
            logs["d/penalty"] = penalty.detach()
        return loss, {"d/loss": loss.detach(), **logs}

    def generator_loss(self, critic: Critic, real: Tensor, fake: Tensor, *, separately: bool) -> Tensor:
        """What G minimises against D, a scalar. ``real`` is looked at by relativistic losses only."""
        if not self.adversarial.uses_real:
            return self.adversarial.generator(None, critic(fake).float())
        return self.adversarial.generator(*judge(critic, real, fake, separately))


def judge(critic: Critic, real: Tensor, fake: Tensor, separately: bool) -> tuple[Tensor, Tensor]:
    """Float32 logits of real and generated images."""
    fake = fake.to(real.dtype)
    if separately:
        return critic(real).float(), critic(fake).float()
    real_logits, fake_logits = critic(torch.cat([real, fake])).float().chunk(2)
    return real_logits, fake_logits


def mixes_batch(network: nn.Module) -> bool:
    """Whether a network normalises over the batch, so that its logits for a sample depend on the others."""
    return any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in network.modules())
