"""The objective: the whole game as one config node, so that ``loss=wgan_gp`` alone is a complete choice.

:class:`Critic` is the discriminator with its conditions bound and its images augmented. :class:`Objective` combines an
adversarial loss with regularisers, a constraint and the order of the turns.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from gan_cli.ranges import Count, NonNegative, Positive, PositiveInt

Logs = dict[str, Tensor]
Schedule = Callable[[int], Any]  # images that D has seen -> value of a setting, see gan_cli.schedules.Ramp
PlayerName = Literal["discriminator", "generator"]


class AdversarialLoss(Protocol):
    """A pair of losses; see :mod:`gan_cli.losses`."""

    uses_real: bool

    def discriminator(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        """The loss that D minimises, a scalar."""
        ...

    def generator(self, real_logits: Tensor | None, fake_logits: Tensor) -> Tensor:
        """The loss that G minimises, a scalar."""
        ...

    def report(self, real_logits: Tensor, fake_logits: Tensor) -> dict[str, Tensor]:
        """Scalars to log, keys ``d/...``."""
        ...


class Augmentation(Protocol):
    """A differentiable change of every image that D sees, real and generated (Karras et al. 2020; Zhao et al. 2020).

    An ``nn.Module``, whose buffers are saved and restored with the run. An optional method ``after_discriminator(logs)`` is
    called after each update of D and returns scalars to log.
    """

    def __call__(self, images: Sequence[Tensor]) -> Sequence[Tensor]:
        """Augment each tensor of ``images``, float (N, C, H, W) in [-1, 1]. Row k of every tensor uses the same draws."""
        ...


@dataclass(frozen=True)
class Turn:
    """The inputs of an update besides its batch.

    Attributes:
        due: names of the regularisers in this update. A compiled update is specialised on them.
        weights: float32 scalars, the weights of the regularisers that follow a schedule.
    """

    due: tuple[str, ...] = ()
    weights: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Outputs:
    """Real or generated images with their condition, and the outputs of D on them.

    Attributes:
        images: the images before augmentation, (N, ...). seen: the images after it, which are the input of D.
        condition: labels (N,) or source images (N, C, H, W) after augmentation.
        logits: float32, of any shape with samples first.
        extra: the outputs of D besides logits.
    """

    images: Tensor
    seen: Tensor
    condition: tuple[Tensor, ...]
    logits: Tensor
    extra: tuple[Tensor, ...] = ()


class Critic:
    """The discriminator with its conditions bound and its images augmented.

    Args:
        discriminator: ``discriminator(images, *condition)`` gives logits, or a tuple of logits and other tensors (N, ...).
        real, fake: the conditions of real and of generated images: labels (N,), or images (N, C, H, W). Condition images
            are augmented together with the images they belong to.
        augment: applied to every image; None for no augmentation.
        mixes_samples: whether the output for a sample depends on the other samples. If so, real and generated images get
            separate passes. Otherwise they share one joint pass, which is faster and gives the same outputs.
    """

    def __init__(
        self,
        discriminator: Callable[..., Any],
        real: tuple[Tensor, ...] = (),
        fake: tuple[Tensor, ...] = (),
        augment: Augmentation | None = None,
        mixes_samples: bool = False,
    ) -> None:
        self.discriminator, self.augment, self.mixes_samples = discriminator, augment, mixes_samples
        self.real_condition, self.fake_condition = real, fake

    def real(self, images: Tensor) -> Outputs:
        """A pass of real images (N, ...) through augmentation and D."""
        return self._one(images, self.real_condition)

    def fake(self, images: Tensor) -> Outputs:
        """A pass of generated images (N, ...) through augmentation and D."""
        return self._one(images, self.fake_condition)

    def both(self, real: Tensor, fake: Tensor, *, separately: bool = False) -> tuple[Outputs, Outputs]:
        """Outputs on real and generated images, from one joint pass unless D mixes samples or ``separately`` is set."""
        fake = fake.to(real.dtype)
        if self.mixes_samples or separately:
            return self.real(real), self.fake(fake)
        real_seen, real_bound = self._augmented(real, self.real_condition)
        fake_seen, fake_bound = self._augmented(fake, self.fake_condition)
        condition = [torch.cat(pair) for pair in zip(real_bound, fake_bound, strict=True)]
        joint = self.outputs(torch.cat([real_seen, fake_seen]), *condition)
        of_real, of_fake = zip(*(torch.split(output, [len(real), len(fake)]) for output in joint), strict=True)
        return (
            Outputs(real, real_seen, real_bound, of_real[0], of_real[1:]),
            Outputs(fake, fake_seen, fake_bound, of_fake[0], of_fake[1:]),
        )

    def outputs(self, images: Tensor, *condition: Tensor) -> tuple[Tensor, ...]:
        """Float32 logits of images without augmentation, followed by the other outputs of D."""
        result = self.discriminator(images, *condition)
        logits, *extra = result if isinstance(result, tuple) else (result,)
        return (logits.float(), *extra)

    def __call__(self, images: Tensor, condition: tuple[Tensor, ...] | None = None) -> Tensor:
        """Float32 logits of images without augmentation. ``condition``: by default that of real images."""
        return self.outputs(images, *(self.real_condition if condition is None else condition))[0]

    def _one(self, images: Tensor, condition: tuple[Tensor, ...]) -> Outputs:
        seen, bound = self._augmented(images, condition)
        logits, *extra = self.outputs(seen, *bound)
        return Outputs(images, seen, bound, logits, tuple(extra))

    def _augmented(self, images: Tensor, condition: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
        if self.augment is None:
            return images, condition
        pictures = [k for k, tensor in enumerate(condition) if tensor.is_floating_point() and tensor.dim() == 4]
        seen, *others = self.augment([images, *(condition[k] for k in pictures)])
        changed = dict(zip(pictures, others, strict=True))
        return seen, tuple(changed.get(k, tensor) for k, tensor in enumerate(condition))


@dataclass(frozen=True)
class DiscriminatorPass:
    """The input of a regulariser of D: the critic, and its outputs on real and generated images with their graphs."""

    critic: Critic
    real: Outputs
    fake: Outputs


@dataclass(frozen=True)
class GeneratorPass:
    """The input of a regulariser of G.

    Attributes:
        generator: the network, or one direction of it. inputs: its arguments in this turn: latents and labels, or sources.
        images: the generated images with their graph.
        critic: D. fake: the outputs of D on ``images``.
    """

    generator: nn.Module
    inputs: tuple[Tensor, ...]
    images: Tensor
    critic: Critic
    fake: Outputs


class Regulariser(nn.Module):
    """A term of a player's loss, ``weight * forward(seen)``; its buffers are saved with the run.

    A subclass computes ``forward(seen)``, a float32 scalar without its weight, outside of autocast. ``seen`` is a
    :class:`DiscriminatorPass` or, with ``player = "generator"``, a :class:`GeneratorPass`.

    Args:
        weight: factor of the term, a number or a schedule of it over the images seen.
        every: interval in steps of lazy regularisation (Karras et al. 2020, StyleGAN2, section 3.1). The term is part of
            the loss in every ``every``-th step only, and ``every`` times as strong.
    """

    player: PlayerName = "discriminator"
    differentiates: tuple[str, ...] = ()  # "real", "fake" or both: images for which the term needs the gradient of D
    per_sample = False  # True: undefined where D mixes samples, as batch norm does

    def __init__(self, weight: NonNegative | Schedule = 1.0, every: PositiveInt = 1) -> None:
        super().__init__()
        self.weight, self.every = weight, every


class Penalty(Regulariser):
    """The ``penalty`` of a loss as a regulariser: ``penalty(critic, real, fake)`` on augmented images, weight included."""

    def __init__(self, penalty: Callable[..., Tensor]) -> None:
        super().__init__()
        self.penalty = penalty
        self.per_sample = getattr(penalty, "per_sample", False)

    def forward(self, seen: DiscriminatorPass) -> Tensor:
        """The penalty, a scalar. Its critic has the condition of the real images."""
        critic = partial(seen.critic, condition=seen.real.condition)
        return self.penalty(critic, seen.real.seen.detach(), seen.fake.seen.detach())


class WeightClip:
    """Weight clipping to [-limit, limit] (Arjovsky et al. 2017, algorithm 1, line 7)."""

    def __init__(self, limit: Positive = 0.01) -> None:
        self.limit = limit

    @torch.no_grad()
    def __call__(self, discriminator: nn.Module) -> None:
        """Clamp all parameters in place, including those of normalisation layers, as the reference code does."""
        for parameter in discriminator.parameters():
            parameter.clamp_(-self.limit, self.limit)


@dataclass(frozen=True)
class WarmUp:
    """More critic updates in the first ``steps`` steps and in every ``every``-th step after them.

    The default values are those of the WGAN authors' code (martinarjovsky/WassersteinGAN, main.py). The paper gives no
    numbers: it says that the critic can be trained to optimality.
    """

    n_critic: PositiveInt = 100
    steps: Count = 25
    every: PositiveInt | None = 500

    def applies(self, step: int) -> bool:
        """Return whether ``step``, counted from 0, has ``n_critic`` critic updates."""
        return step < self.steps or (self.every is not None and step % self.every == 0)


class Objective(nn.Module):
    """The losses of both players and the order of their turns. A module, so that its state is saved with the run.

    Args:
        adversarial: the pair of losses.
        penalty: a term of the discriminator's loss, ``(critic, real, fake) -> scalar``, logged as ``d/penalty``.
        regularisers: more terms by name, each logged as ``d/<name>`` or ``g/<name>``.
        constraint: a callable on the discriminator, applied after each of its updates.
        n_critic: discriminator updates per generator update (k in Goodfellow et al. 2014, algorithm 1).
        warm_up: steps with more critic updates.
        first: the player that moves first in a step.
        discriminator_weight: factor on the discriminator's adversarial loss (pix2pix: 0.5).
        critic_norm: normalisation for convolutional discriminators. Only model configs read it.
        augment: augmentation of every image that D sees, set by the config group ``augment``.
    """

    def __init__(
        self,
        adversarial: AdversarialLoss,
        penalty: Callable[..., Tensor] | None = None,
        regularisers: dict[str, Regulariser] | None = None,
        constraint: Callable[[nn.Module], None] | None = None,
        n_critic: PositiveInt = 1,
        warm_up: WarmUp | None = None,
        first: Literal["discriminator", "generator"] = "discriminator",
        discriminator_weight: Positive = 1.0,
        critic_norm: Literal["batch", "layer", "instance", "none"] = "batch",
        augment: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.adversarial, self.constraint = adversarial, constraint
        self.n_critic, self.warm_up, self.first = n_critic, warm_up, first
        self.discriminator_weight, self.critic_norm, self.augment = discriminator_weight, critic_norm, augment
        own = {"penalty": Penalty(penalty)} if penalty is not None else {}
        self.regularisers = nn.ModuleDict(own | dict(regularisers or {}))

    @property
    def penalty(self) -> Callable[..., Tensor] | None:
        return dict(self.terms())["penalty"].penalty if "penalty" in self.regularisers else None  # type: ignore[return-value]

    def turns(self, step: int) -> int:
        """Number of discriminator updates in ``step``, which counts from 0."""
        return self.warm_up.n_critic if self.warm_up is not None and self.warm_up.applies(step) else self.n_critic

    def order(self, step: int) -> list[PlayerName]:
        """The players of ``step`` in their order, one name for each update."""
        critic: list[PlayerName] = ["discriminator"] * self.turns(step)
        return ["generator", *critic] if self.first == "generator" else [*critic, "generator"]

    def turn(self, step: int, images: int, device: torch.device) -> Turn:
        """The :class:`Turn` of the updates in ``step``, after D has seen ``images`` real images."""
        due = {name: term for name, term in self.terms() if step % term.every == 0}
        weights = {name: term.weight(images) for name, term in due.items() if callable(term.weight)}
        return Turn(tuple(due), {name: torch.tensor(float(weight), device=device) for name, weight in weights.items()})

    def terms(self) -> list[tuple[str, Regulariser]]:
        """All regularisers by name, the penalty first."""
        return list(self.regularisers.items())  # type: ignore[arg-type]

    def discriminator_loss(self, critic: Critic, real: Tensor, fake: Tensor, turn: Turn) -> tuple[Tensor, Logs]:
        """The loss of D, a scalar, and scalars to log. ``real``, ``fake``: (N, ...), without a graph.

        A regulariser that differentiates D reuses the logits of this pass with their graph. Real and generated images then
        get separate passes, so that the gradient for one kind does not cost a pass of both.
        """
        due = [(name, term) for name, term in self.terms() if name in turn.due and term.player == "discriminator"]
        wanted = {kind for _, term in due for kind in term.differentiates}
        real = real.detach().requires_grad_(True) if "real" in wanted else real
        fake = fake.detach().float().requires_grad_(True) if "fake" in wanted else fake
        seen = DiscriminatorPass(critic, *critic.both(real, fake, separately=bool(wanted)))
        real_logits, fake_logits = seen.real.logits, seen.fake.logits
        loss = self.discriminator_weight * self.adversarial.discriminator(real_logits, fake_logits)
        with torch.no_grad():
            logs = self.adversarial.report(real_logits, fake_logits)
            if self.augment is not None:  # r_t of Karras et al. 2020, equation 1
                logs["d/real_sign"] = real_logits.sign().mean()
        loss, logs = _added(loss, logs, "d", due, seen, turn)
        return loss, {"d/loss": loss.detach(), **logs}

    def generator_loss(
        self, critic: Critic, real: Tensor, fake: Tensor, turn: Turn, generator: nn.Module, inputs: tuple[Tensor, ...]
    ) -> tuple[Tensor, Tensor, Logs]:
        """The loss of G with and without its regularisers, two scalars, and the regularisers' values to log.

        ``real`` is used by relativistic losses only. ``generator`` made ``fake`` from ``inputs``.
        """
        if self.adversarial.uses_real:
            real_seen, seen = critic.both(real, fake)
            adversarial = self.adversarial.generator(real_seen.logits, seen.logits)
        else:
            seen = critic.fake(fake)
            adversarial = self.adversarial.generator(None, seen.logits)
        due = [(name, term) for name, term in self.terms() if name in turn.due and term.player == "generator"]
        loss, logs = _added(adversarial, {}, "g", due, GeneratorPass(generator, inputs, fake, critic, seen), turn)
        return loss, adversarial, logs

    def after_discriminator(self, logs: Logs) -> Logs:
        """Let the augmentation adapt to the logs of an update of D. Returns more scalars to log."""
        adapt = getattr(self.augment, "after_discriminator", None)
        return dict(adapt(logs)) if adapt is not None else {}


def _added(
    loss: Tensor,
    logs: Logs,
    prefix: str,
    terms: Sequence[tuple[str, Regulariser]],
    seen: DiscriminatorPass | GeneratorPass,
    turn: Turn,
) -> tuple[Tensor, Logs]:
    """``loss`` plus the regularisers ``terms``, and ``logs`` plus their weighted values as ``prefix/name``."""
    for name, term in terms:
        with torch.autocast(loss.device.type, enabled=False):
            value = turn.weights.get(name, term.weight) * term(seen)
        logs[f"{prefix}/{name}"] = value.detach()
        loss = loss + value * term.every
    return loss, logs
