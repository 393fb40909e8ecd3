"""Paired image-to-image translation: pix2pix (Isola et al. 2017)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from gan_cli.compute.layers import mixing
from gan_cli.objective import Critic, Logs, Objective, PlayerName, Turn
from gan_cli.ranges import NonNegative
from gan_cli.tasks.inference import one_by_one, training_behaviour
from gan_cli.tasks.task import Batch, Made
from gan_cli.tasks.translation import ROWS, held_out, sheet


class PairedTranslation(nn.Module):
    """A generator ``G(source) -> target`` against a discriminator of pairs ``D(source, target) -> logits``.

    G minimises its adversarial loss + l1_weight * E||target - G(source)||_1 (Isola et al. 2017, equation 4). G has no
    noise input: its dropout is the noise (section 2.1). Both turns of a step use the same G(source), as in the authors' code.

    Args:
        generator: maps (N, C, H, W) to (N, C, H, W). discriminator: takes source and target concatenated along the channels.
        objective: the game.
        l1_weight: lambda of equation 4.
        sample_mode: mode of the trained generator. ``paper``: as in training, with dropout and with the batch norm
            statistics of each single image (section 3.3); ``eval``: without dropout, with running statistics.
    """

    batch_keys = ("source", "target")
    one_pass = True  # both turns of a step share one graph of G
    directions = ()  # a single direction, that of the data set

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
        self.mixes_samples = bool(mixing(discriminator))

    def prepare(self, batch: Batch, player: PlayerName, before: Made | None) -> Made:
        """``fake``: G(source), float32 (N, C, H, W), used by both turns of a step. It has a graph if G's turn uses it."""
        if before is not None:
            return before
        with torch.set_grad_enabled(player == "generator" or self.objective.first == "discriminator"):
            return {"fake": self.generator(batch["source"]).float()}

    def shared(self, made: Made) -> Made | None:
        """The images with their graph, which the second turn reuses."""
        return made

    def _critic(self, source: Tensor) -> Critic:
        return Critic(self._of_pairs, (source,), (source,), self.objective.augment, self.mixes_samples)

    def _of_pairs(self, images: Tensor, source: Tensor) -> Any:
        return self.discriminator(torch.cat([source, images], 1))

    def discriminator_loss(self, batch: Batch, made: Made, turn: Turn) -> tuple[Tensor, Logs]:
        """The loss of D and scalars to log. ``batch``: ``source`` and ``target`` in [-1, 1], (N, C, H, W)."""
        critic = self._critic(batch["source"])
        return self.objective.discriminator_loss(critic, batch["target"], made["fake"].detach(), turn)

    def generator_loss(self, batch: Batch, made: Made, turn: Turn) -> tuple[Tensor, Logs]:
        """The loss of G and scalars to log. ``batch``: the batch of the adjacent discriminator update."""
        fake, target, source = made["fake"], batch["target"], batch["source"]
        loss, adversarial, logs = self.objective.generator_loss(
            self._critic(source), target, fake, turn, self.generator, (source,)
        )
        l1 = (fake - target).abs().mean()
        loss = loss + self.l1_weight * l1
        return loss, {"g/loss": loss.detach(), "g/adversarial": adversarial.detach(), **logs, "g/l1": l1.detach()}

    def translate(
        self, generator: nn.Module, images: Tensor, direction: str | None, seed: object = 0, start: int = 0
    ) -> Tensor:
        """Translate images in [-1, 1], float (N, C, H, W), to float32 of the same shape; see :func:`one_by_one`."""
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
        """Columns of a picture: source, result and, if it is known, target."""
        source = examples["source"]
        target = [examples["target"]] if "target" in examples else []
        return [source, self.translate(generator, source, direction, seed, start), *target]

    def picture(self, generator: nn.Module, examples: dict[str, Tensor]) -> Tensor:
        """A picture, uint8 (C, H, W), with the columns source, result, target."""
        return sheet(self.columns(generator, examples, None))

    def measure(self, generator: nn.Module, examples: dict[str, Tensor]) -> dict[str, float]:
        """No measurements; ``gan-eval`` compares results with targets."""
        return {}

    def try_out(self, attempt: Callable[..., Tensor], dataset: Any, device: torch.device) -> None:
        """Try G on a source, and D on the pair."""
        shape = (2, dataset.channels, dataset.image_size, dataset.image_size)
        source = torch.zeros(shape, device=device)
        fake = attempt("generator", self.generator, source, wanted=shape)
        attempt("discriminator", self.discriminator, torch.cat([source, fake], 1))
