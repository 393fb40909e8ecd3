"""Paired image-to-image translation: pix2pix (Isola et al. 2017)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from gan_cli.objective import Critic, Logs, Objective, mixes_batch
from gan_cli.ranges import NonNegative
from gan_cli.tasks.inference import one_by_one, training_behaviour
from gan_cli.tasks.translation import ROWS, held_out, sheet


class PairedTranslation(nn.Module):
    """A generator ``G(source) -> target`` against a discriminator of pairs ``D(source, target) -> logits``.

    G minimises its adversarial loss + l1_weight * E||target - G(source)||_1 (Isola et al. 2017, equation 4). G has no
    noise input: its dropout is the noise (section 2.1). Both turns of a step use the same G(source), as in the authors' code.

    Args:
        generator: maps (N, C, H, W) to (N, C, H, W). discriminator: takes source and target joined along the channels.
        objective: the game.
        l1_weight: lambda of equation 4.
        sample_mode: how the trained generator is used. ``paper``: as in training, with dropout and with the batch norm
            statistics of each single image (section 3.3); ``eval``: without dropout, with running statistics.
    """

    batch_keys = ("source", "target")
    one_pass = True  # both turns of a step go through one graph of G
    directions = ()  # one way only, that of the data set

    def __init__(
        self,
        generator: nn.Module,
        discriminator: nn.Module,
        objective: Objective,
        l1_weight: NonNegative = 100.0,
        sample_mode: Literal["paper", "eval"] = "paper",
    ) -> None:
        super().__init__()
        self.generator, self.discriminator, self.objective = generator, discriminator, objective
        self.l1_weight, self.sample_mode = l1_weight, sample_mode
        self.separately = mixes_batch(discriminator)
        self._fake: Tensor | None = None  # of the turn before, within a step

    def _critic(self, source: Tensor) -> Critic:
        return lambda images: self.discriminator(torch.cat([source.repeat(len(images) // len(source), 1, 1, 1), images], 1))

    def _translate(self, batch: dict[str, Tensor], first: bool) -> Tensor:
        fake = None if first else self._fake
        if fake is None:
            fake = self.generator(batch["source"]).float()
        self._fake = fake if first else None
        return fake

    def discriminator_loss(self, batch: dict[str, Tensor]) -> tuple[Tensor, Logs]:
        """``batch``: ``source`` and ``target`` in [-1, 1], (N, C, H, W). Returns a scalar and what to log."""
        first = self.objective.first == "discriminator"
        with torch.set_grad_enabled(first):  # G's turn goes on with this graph
            fake = self._translate(batch, first).detach()
        critic = self._critic(batch["source"])
        return self.objective.discriminator_loss(critic, batch["target"], fake, separately=self.separately)

    def generator_loss(self, batch: dict[str, Tensor]) -> tuple[Tensor, Logs]:
        """``batch``: that of D's neighbouring turn. Returns a scalar and what to log."""
        fake, target = self._translate(batch, first=self.objective.first == "generator"), batch["target"]
        critic = self._critic(batch["source"])
        adversarial = self.objective.generator_loss(critic, target, fake, separately=self.separately)
        l1 = (fake - target).abs().mean()
        loss = adversarial + self.l1_weight * l1
        return loss, {"g/loss": loss.detach(), "g/adversarial": adversarial.detach(), "g/l1": l1.detach()}

    def translate(
        self, generator: nn.Module, images: Tensor, direction: str | None, seed: object = 0, start: int = 0
    ) -> Tensor:
        """Images in [-1, 1], float (N, C, H, W), to images of the same kind, float32. Image k: see :func:`one_by_one`."""
        if self.sample_mode == "eval":
            return one_by_one(generator, images, None, seed, start).float()
        with training_behaviour(generator, batch_norm=True):
            return one_by_one(generator, images, None, seed, start).float()

    def examples(self, dataset: Any, seed: int, device: torch.device) -> dict[str, Tensor]:
        """Held-out pairs."""
        return {key: images.to(device) for key, images in held_out(dataset, ROWS).items()}

    def columns(
        self, generator: nn.Module, examples: dict[str, Tensor], direction: str | None, seed: object = 0, start: int = 0
    ) -> list[Tensor]:
        """Source, result and, where it is known, target."""
        source = examples["source"]
        target = [examples["target"]] if "target" in examples else []
        return [source, self.translate(generator, source, direction, seed, start), *target]

    def picture(self, generator: nn.Module, examples: dict[str, Tensor]) -> Tensor:
        """A sheet, uint8 (C, H, W): source, result, target."""
        return sheet(self.columns(generator, examples, None))

    def measure(self, generator: nn.Module, examples: dict[str, Tensor]) -> dict[str, float]:
        """Nothing: ``gan-eval`` compares results with targets."""
        return {}

    def try_out(self, attempt: Callable[..., Tensor], dataset: Any, device: torch.device) -> None:
        """A source through G, and the pair through D."""
        shape = (2, dataset.channels, dataset.image_size, dataset.image_size)
        source = torch.zeros(shape, device=device)
        fake = attempt("generator", self.generator, source, wanted=shape)
        attempt("discriminator", self.discriminator, torch.cat([source, fake], 1))
