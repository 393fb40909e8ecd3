"""Unpaired image-to-image translation: CycleGAN (Zhu et al. 2017)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from gan_cli.compute import processes
from gan_cli.compute.layers import mixing
from gan_cli.networks.pair import Judges, Translators
from gan_cli.objective import Critic, Logs, Objective, PlayerName, Turn
from gan_cli.ranges import Channels, ImageSize, NonNegative, PoolSize
from gan_cli.tasks.inference import one_by_one
from gan_cli.tasks.task import Batch, Made
from gan_cli.tasks.translation import ROWS, held_out, sheet


class ImagePool(nn.Module):
    """A history of generated images for the discriminator (Shrivastava et al. 2017; CycleGAN, section 4).

    While it fills, an image asked about goes in and comes back. Afterwards, with probability one half, an old image comes
    back and the new one takes its place; else the new one comes back and is not kept. All state is in buffers. Under
    torchrun every process holds the same pool, of the images of all processes.

    Args:
        size: images kept; 0 gives every image back. channels, image_size: of the images.
    """

    images: Tensor
    filled: Tensor

    def __init__(self, size: PoolSize, channels: Channels, image_size: ImageSize) -> None:
        super().__init__()
        self.size = size
        self.register_buffer("images", torch.zeros(size, channels, image_size, image_size))
        self.register_buffer("filled", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def query(self, images: Tensor) -> Tensor:
        """``images``: float (N, C, H, W), without a graph. Returns as many, new or old, without a wait for the device."""
        if self.size == 0:
            return images
        device, returned = images.device, []
        draws = [(torch.rand((), device=device), torch.randint(self.size, (), device=device)) for _ in images]
        coins, slots = (processes.gather(torch.stack(column)) for column in zip(*draws, strict=True))
        for image, coin, slot in zip(processes.gather(images.to(self.images.dtype)), coins, slots, strict=True):
            full = self.filled >= self.size
            swap = full & (coin < 0.5)
            slot = torch.where(full, slot, self.filled)[None]
            old = self.images.index_select(0, slot)[0]
            returned.append(torch.where(swap, old, image))
            self.images.index_copy_(0, slot, torch.where(swap | ~full, image, old)[None])
            self.filled.copy_((self.filled + 1).clamp_max(self.size))
        return torch.stack(returned).chunk(processes.world())[processes.rank()]


class UnpairedTranslation(nn.Module):
    """Two generators a -> b and b -> a against a discriminator for each domain.

    The generators minimise their adversarial losses + cycle_weight * (E||b2a(a2b(a)) - a||_1 + E||a2b(b2a(b)) - b||_1)
    (Zhu et al. 2017, equations 2 and 3) + cycle_weight * identity_weight * (E||a2b(b) - b||_1 + E||b2a(a) - a||_1)
    (section 5.2). The discriminators look at a pool of generated images.

    Args:
        generator: with ``a2b`` and ``b2a``. discriminator: with ``a`` and ``b``. objective: the game, the same for both.
        channels, image_size: of the images.
        cycle_weight: lambda of equation 3. identity_weight: relative to it; 0 leaves the term out.
        pool_size: generated images remembered for each domain.
    """

    batch_keys = ("a", "b")
    directions = ("a2b", "b2a")
    one_pass = False

    def __init__(
        self,
        generator: Translators,
        discriminator: Judges,
        objective: Objective,
        channels: Channels,
        image_size: ImageSize,
        cycle_weight: NonNegative = 10.0,
        identity_weight: NonNegative = 0.5,
        pool_size: PoolSize = 50,
    ) -> None:
        super().__init__()
        self.generator, self.discriminator, self.objective = generator, discriminator, objective
        self.cycle_weight, self.identity_weight = cycle_weight, identity_weight
        self.pool_a, self.pool_b = ImagePool(pool_size, channels, image_size), ImagePool(pool_size, channels, image_size)
        self.mixes_samples = bool(mixing(discriminator))

    def prepare(self, batch: Batch, player: PlayerName, before: Made | None) -> Made:
        """Translations, float32: ``a`` and ``b``; in G's turn also ``same_a`` and ``same_b`` for the identity term."""
        if before is not None:
            return before
        a, b = batch["a"], batch["b"]
        if player == "discriminator":
            with torch.no_grad():
                return {"a": self.generator.b2a(b).float(), "b": self.generator.a2b(a).float()}
        fake_b, same_b = self._both(self.generator.a2b, a, b)
        fake_a, same_a = self._both(self.generator.b2a, b, a)
        return {"a": fake_a, "b": fake_b} | ({} if same_a is None or same_b is None else {"same_a": same_a, "same_b": same_b})

    def shared(self, made: Made) -> Made | None:
        """If G moves first, D gets the translations of G's turn. Otherwise G translates again."""
        return {key: made[key].detach() for key in ("a", "b")} if self.objective.first == "generator" else None

    def _critic(self, domain: str) -> Critic:
        return Critic(getattr(self.discriminator, domain), (), (), self.objective.augment, self.mixes_samples)

    def discriminator_loss(self, batch: Batch, made: Made, turn: Turn) -> tuple[Tensor, Logs]:
        """``batch``: ``a`` and ``b`` in [-1, 1], (N, C, H, W), not pairs. Returns a scalar and logs."""
        pools = {"a": self.pool_a, "b": self.pool_b}
        (loss_a, logs_a), (loss_b, logs_b) = (
            self.objective.discriminator_loss(self._critic(key), batch[key], pools[key].query(made[key].detach()), turn)
            for key in ("a", "b")
        )
        logs = {key: value + logs_b[key] for key, value in logs_a.items()}
        summed = {"d/loss", *(f"d/{name}" for name, _ in self.objective.terms())}  # terms of the loss; all else are means
        logs = {key: value if key in summed else value / 2 for key, value in logs.items()}
        return loss_a + loss_b, {**logs, "d/loss_a": logs_a["d/loss"], "d/loss_b": logs_b["d/loss"]}

    def generator_loss(self, batch: Batch, made: Made, turn: Turn) -> tuple[Tensor, Logs]:
        """``batch``: the batch of the adjacent turn of D. Returns a scalar and logs."""
        a, b, fake_a, fake_b = batch["a"], batch["b"], made["a"], made["b"]
        to_b, to_a = self.generator.a2b, self.generator.b2a
        loss_b, adversarial_b, logs_b = self.objective.generator_loss(self._critic("b"), b, fake_b, turn, to_b, (a,))
        loss_a, adversarial_a, logs_a = self.objective.generator_loss(self._critic("a"), a, fake_a, turn, to_a, (b,))
        back_a, back_b = to_a(fake_b).float(), to_b(fake_a).float()
        cycle = (back_a - a).abs().mean() + (back_b - b).abs().mean()
        loss = loss_a + loss_b + self.cycle_weight * cycle
        logs = {"g/adversarial": (adversarial_a + adversarial_b).detach(), "g/cycle": cycle.detach()}
        logs |= {key: value + logs_b[key] for key, value in logs_a.items()}
        if "same_a" in made:
            identity = (made["same_a"] - a).abs().mean() + (made["same_b"] - b).abs().mean()
            loss = loss + self.cycle_weight * self.identity_weight * identity
            logs["g/identity"] = identity.detach()
        return loss, {"g/loss": loss.detach(), **logs}

    def _both(self, translator: nn.Module, images: Tensor, own: Tensor) -> tuple[Tensor, Tensor | None]:
        """Translations of ``images``, and of images of the target domain for the identity term."""
        if self.identity_weight == 0:
            return translator(images).float(), None
        if mixing(translator):
            return translator(images).float(), translator(own).float()
        translated, same = translator(torch.cat([images, own])).float().chunk(2)
        return translated, same

    def translate(
        self, generator: nn.Module, images: Tensor, direction: str | None, seed: object = 0, start: int = 0
    ) -> Tensor:
        """Translate images in [-1, 1], float (N, C, H, W), to the other domain, float32. ``direction``: ``a2b`` or ``b2a``."""
        assert direction in self.directions, direction
        return one_by_one(getattr(generator, direction), images, None, seed, start).float()

    def examples(self, dataset: Any, seed: int, device: torch.device) -> dict[str, Tensor]:
        """Held-out images of both domains."""
        return {key: images.to(device) for key, images in held_out(dataset, ROWS).items()}

    def columns(
        self, generator: nn.Module, examples: dict[str, Tensor], direction: str | None, seed: object = 0, start: int = 0
    ) -> list[Tensor]:
        """Columns of a picture: source, result, reconstruction."""
        assert direction in self.directions, direction
        source = examples[direction[0]]
        result = self.translate(generator, source, direction, seed, start)
        return [source, result, self.translate(generator, result, direction[::-1], seed, start)]

    def picture(self, generator: nn.Module, examples: dict[str, Tensor]) -> Tensor:
        """A picture, uint8 (C, H, W), with the columns a, a2b(a), b2a(a2b(a)), b, b2a(b), a2b(b2a(b))."""
        return sheet([column for way in self.directions for column in self.columns(generator, examples, way)])

    def measure(self, generator: nn.Module, examples: dict[str, Tensor]) -> dict[str, float]:
        """No measurements; see ``gan-eval``."""
        return {}

    def try_out(self, attempt: Callable[..., Tensor], dataset: Any, device: torch.device) -> None:
        """Try an image in each translator, and its translation in the discriminator of that domain."""
        shape = (2, dataset.channels, dataset.image_size, dataset.image_size)
        images = torch.zeros(shape, device=device)
        for way in self.directions:
            fake = attempt(f"generator.{way}", getattr(self.generator, way), images, wanted=shape)
            attempt(f"discriminator.{way[-1]}", getattr(self.discriminator, way[-1]), fake)
