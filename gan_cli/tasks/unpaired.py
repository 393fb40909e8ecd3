"""Unpaired image-to-image translation: CycleGAN (Zhu et al. 2017)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from gan_cli.compute import processes
from gan_cli.networks.pair import Judges, Translators
from gan_cli.objective import Logs, Objective, mixes_batch
from gan_cli.ranges import Channels, ImageSize, NonNegative, PoolSize
from gan_cli.tasks.inference import one_by_one
from gan_cli.tasks.translation import ROWS, held_out, sheet


class ImagePool(nn.Module):
    """A history of generated images for a discriminator to look at (Shrivastava et al. 2017; CycleGAN, section 4).

    While it fills, an image asked about goes in and comes back. Afterwards, with probability one half, an old image comes
    back and the new one takes its place; else the new one comes back and is not kept. All state is in buffers. Several
    processes that train together have the same pool each, of the images of all of them.

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
        """``images``: float (N, C, H, W), without a graph. Returns as many, new or old. Does not wait for the device."""
        if self.size == 0:
            return images
        returned = []
        for image in processes.gather(images.to(self.images.dtype)):
            full = self.filled >= self.size
            swap = full & (torch.rand((), device=image.device) < 0.5)
            slot = torch.where(full, torch.randint(self.size, (), device=image.device), self.filled)[None]
            old = self.images.index_select(0, slot)[0]
            returned.append(torch.where(swap, old, image))
            self.images.index_copy_(0, slot, torch.where(swap | ~full, image, old)[None])
            self.filled.copy_((self.filled + 1).clamp_max(self.size))
        return processes.part(torch.stack(returned))


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
        self.separately = mixes_batch(discriminator)
        self._fakes: tuple[Tensor, Tensor] | None = None  # of the turn before, within a step

    def discriminator_loss(self, batch: dict[str, Tensor]) -> tuple[Tensor, Logs]:
        """``batch``: ``a`` and ``b`` in [-1, 1], (N, C, H, W), not pairs. Returns a scalar and what to log."""
        fakes, self._fakes = self._fakes, None
        if fakes is None:
            with torch.no_grad():
                fakes = self.generator.b2a(batch["b"]).float(), self.generator.a2b(batch["a"]).float()
        loss_a, logs_a = self.objective.discriminator_loss(
            self.discriminator.a, batch["a"], self.pool_a.query(fakes[0]), separately=self.separately
        )
        loss_b, logs_b = self.objective.discriminator_loss(
            self.discriminator.b, batch["b"], self.pool_b.query(fakes[1]), separately=self.separately
        )
        logs = {key: value + logs_b[key] for key, value in logs_a.items()}
        for key in {"d/real", "d/fake", "d/accuracy"} & logs.keys():  # of both domains together
            logs[key] = logs[key] / 2
        return loss_a + loss_b, {**logs, "d/loss_a": logs_a["d/loss"], "d/loss_b": logs_b["d/loss"]}

    def generator_loss(self, batch: dict[str, Tensor]) -> tuple[Tensor, Logs]:
        """``batch``: that of D's neighbouring turn. Returns a scalar and what to log."""
        a, b = batch["a"], batch["b"]
        fake_b, same_b = self._both(self.generator.a2b, a, b)
        fake_a, same_a = self._both(self.generator.b2a, b, a)
        if self.objective.first == "generator":
            self._fakes = fake_a.detach(), fake_b.detach()
        adversarial_b = self.objective.generator_loss(self.discriminator.b, b, fake_b, separately=self.separately)
        adversarial_a = self.objective.generator_loss(self.discriminator.a, a, fake_a, separately=self.separately)
        back_a, back_b = self.generator.b2a(fake_b).float(), self.generator.a2b(fake_a).float()
        cycle = (back_a - a).abs().mean() + (back_b - b).abs().mean()
        loss = adversarial_a + adversarial_b + self.cycle_weight * cycle
        logs = {"g/adversarial": (adversarial_a + adversarial_b).detach(), "g/cycle": cycle.detach()}
        if same_a is not None and same_b is not None:
            identity = (same_a - a).abs().mean() + (same_b - b).abs().mean()
            loss = loss + self.cycle_weight * self.identity_weight * identity
            logs["g/identity"] = identity.detach()
        return loss, {"g/loss": loss.detach(), **logs}

    def _both(self, translator: nn.Module, images: Tensor, own: Tensor) -> tuple[Tensor, Tensor | None]:
        """``images`` translated, and for the identity term images that are of the target domain already."""
        if self.identity_weight == 0:
            return translator(images).float(), None
        if mixes_batch(translator):
            return translator(images).float(), translator(own).float()
        translated, same = translator(torch.cat([images, own])).float().chunk(2)
        return translated, same

    def translate(
        self, generator: nn.Module, images: Tensor, direction: str | None, seed: object = 0, start: int = 0
    ) -> Tensor:
        """Images in [-1, 1], float (N, C, H, W), ``a2b`` or ``b2a``, to images of the other domain, float32."""
        assert direction in self.directions, direction
        return one_by_one(getattr(generator, direction), images, None, seed, start).float()

    def examples(self, dataset: Any, seed: int, device: torch.device) -> dict[str, Tensor]:
        """Held-out images of both domains."""
        return {key: images.to(device) for key, images in held_out(dataset, ROWS).items()}

    def columns(
        self, generator: nn.Module, examples: dict[str, Tensor], direction: str | None, seed: object = 0, start: int = 0
    ) -> list[Tensor]:
        """Source, result, reconstruction."""
        assert direction in self.directions, direction
        source = examples[direction[0]]
        result = self.translate(generator, source, direction, seed, start)
        return [source, result, self.translate(generator, result, direction[::-1], seed, start)]

    def picture(self, generator: nn.Module, examples: dict[str, Tensor]) -> Tensor:
        """A sheet, uint8 (C, H, W): a, a2b(a), b2a(a2b(a)), b, b2a(b), a2b(b2a(b))."""
        return sheet([column for way in self.directions for column in self.columns(generator, examples, way)])

    def measure(self, generator: nn.Module, examples: dict[str, Tensor]) -> dict[str, float]:
        """Nothing: see ``gan-eval``."""
        return {}

    def try_out(self, attempt: Callable[..., Tensor], dataset: Any, device: torch.device) -> None:
        """An image through each translator, and its translation through that domain's discriminator."""
        shape = (2, dataset.channels, dataset.image_size, dataset.image_size)
        images = torch.zeros(shape, device=device)
        for way in self.directions:
            fake = attempt(f"generator.{way}", getattr(self.generator, way), images, wanted=shape)
            attempt(f"discriminator.{way[-1]}", getattr(self.discriminator, way[-1]), fake)
