"""Noise to image: the game of Goodfellow et al. 2014, with or without a class label."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from gan_cli.networks import apply
from gan_cli.objective import Objective
from gan_cli.randomness import sample_normal, sample_uniform
from gan_cli.ranges import PositiveInt, Width

Logs = dict[str, Tensor]


class NoiseToImage(nn.Module):
    """A generator ``G(z, label) -> image`` against a discriminator ``D(image, label) -> logits``.

    Real and generated images go through D in separate passes where D normalises over the batch (as DCGAN's authors do), in
    one joint pass otherwise, which is the same mathematics and faster.

    Args:
        generator, discriminator: networks. objective: the game.
        latent_dim: size of z. prior: distribution of z.
        same_noise: both players' turns of a step use the same latents.
        num_classes: number of classes when the networks are class-conditional, else None.
    """

    def __init__(
        self,
        generator: nn.Module,
        discriminator: nn.Module,
        objective: Objective,
        latent_dim: Width,
        prior: Literal["normal", "uniform"] = "normal",
        same_noise: bool = False,
        num_classes: PositiveInt | None = None,
    ) -> None:
        super().__init__()
        self.generator, self.discriminator, self.objective = generator, discriminator, objective
        self.latent_dim, self.prior, self.same_noise, self.num_classes = latent_dim, prior, same_noise, num_classes
        self.mixes_batch = any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in discriminator.modules())
        self.batch_keys = ("image",) if num_classes is None else ("image", "label")
        self._noise: Tensor | None = None  # of the turn before, within a step

    def noise(self, n: int, device: torch.device) -> Tensor:
        """Training latents, float32 (n, latent_dim), from the global generator."""
        if self.prior == "uniform":
            return torch.rand(n, self.latent_dim, device=device) * 2 - 1
        return torch.randn(n, self.latent_dim, device=device)

    def _latents(self, batch: dict[str, Tensor], new: bool) -> Tensor:
        noise = self._noise if self.same_noise and not new else None
        if noise is None:
            noise = self.noise(batch["image"].shape[0], batch["image"].device)
        self._noise = noise if new else None
        return noise

    def _label(self, batch: dict[str, Tensor]) -> Tensor | None:
        return batch["label"] if self.num_classes is not None else None

    def discriminator_loss(self, batch: dict[str, Tensor]) -> tuple[Tensor, Logs]:
        """``batch``: ``image`` in [-1, 1], (N, C, H, W), and ``label``, int64 (N,). Returns a scalar and what to log."""
        real, label = batch["image"], self._label(batch)
        with torch.no_grad():
            fake = apply(self.generator, self._latents(batch, new=self.objective.first == "discriminator"), label)
        real_logits, fake_logits = self._discriminate(real, fake.to(real.dtype), label)
        loss = self.objective.adversarial.discriminator(real_logits, fake_logits)
        with torch.no_grad():
            logs = self.objective.adversarial.report(real_logits, fake_logits)
        if self.objective.penalty is not None:
            penalty = self.objective.penalty(lambda images: apply(self.discriminator, images, label), real, fake)
            loss = loss + penalty
            logs["d/penalty"] = penalty.detach()
        return loss, {"d/loss": loss.detach(), **logs}

    def generator_loss(self, batch: dict[str, Tensor]) -> tuple[Tensor, Logs]:
        """``batch``: that of D's neighbouring turn. Returns a scalar and what to log."""
        label = self._label(batch)
        fake = apply(self.generator, self._latents(batch, new=self.objective.first == "generator"), label)
        if self.objective.adversarial.uses_real:
            real_logits, fake_logits = self._discriminate(batch["image"], fake, label)
        else:
            real_logits, fake_logits = None, apply(self.discriminator, fake, label).float()
        loss = self.objective.adversarial.generator(real_logits, fake_logits)
        return loss, {"g/loss": loss.detach()}

    def _discriminate(self, real: Tensor, fake: Tensor, label: Tensor | None) -> tuple[Tensor, Tensor]:
        if self.mixes_batch:
            return apply(self.discriminator, real, label).float(), apply(self.discriminator, fake, label).float()
        both = None if label is None else torch.cat([label, label])
        real_logits, fake_logits = apply(self.discriminator, torch.cat([real, fake]), both).float().chunk(2)
        return real_logits, fake_logits

    def latents(self, seed: object, start: int, stop: int) -> Tensor:
        """Latents of samples ``start`` to ``stop``: float32 (stop - start, latent_dim), a function of seed and index only."""
        if self.prior == "uniform":
            return sample_uniform(seed, start, stop, self.latent_dim) * 2 - 1
        return sample_normal(seed, start, stop, self.latent_dim)

    def labels(self, start: int, stop: int, per_row: int) -> Tensor | None:
        """Labels of samples ``start`` to ``stop``, int64, a row of ``per_row`` samples per class; None if unconditional."""
        if self.num_classes is None:
            return None
        return torch.arange(start, stop) // per_row % self.num_classes

    def interpolate(self, seed: object, points: int, frames: int) -> Tensor:
        """Latents on a closed path through ``points`` latents, ``frames`` a leg: float32 (points * frames, latent_dim).

        Spherical for a normal prior, whose mass lies on a shell (White 2016), straight for a uniform one.
        """
        corners = self.latents(seed, 0, points)
        legs = []
        for a, b in zip(corners, corners.roll(-1, 0), strict=True):
            t = torch.arange(frames)[:, None] / frames
            if self.prior == "normal":
                omega = torch.acos((a @ b / (a.norm() * b.norm())).clamp(-1, 1)).clamp_min(1e-6)
                legs.append((torch.sin((1 - t) * omega) * a + torch.sin(t * omega) * b) / torch.sin(omega))
            else:
                legs.append(torch.lerp(a, b, t))
        return torch.cat(legs)
