"""Noise to image: the game of Goodfellow et al. 2014, with or without a class label."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from gan_cli.compute.layers import dropouts, mixing, random_in_eval
from gan_cli.data.batches import permutation
from gan_cli.images import make_grid, to_uint8
from gan_cli.networks import apply
from gan_cli.objective import Critic, Logs, Objective, PlayerName, Turn
from gan_cli.randomness import sample_normal, sample_uniform
from gan_cli.ranges import Classes, Width
from gan_cli.tasks.inference import training_behaviour, with_own_noise
from gan_cli.tasks.task import Batch, Made

GRID = 64  # images in a sample grid without classes
PER_CLASS = 8  # images of a class in a sample grid, one row
MAX_ROWS = 16  # classes; with more classes the sample grid has GRID images


def diversity(images: Tensor, label: Tensor | None) -> Tensor | None:
    """The mean over all pairs of the root mean square difference of their pixels, a scalar.

    ``images``: float (N, C, H, W). ``label``: int64 (N,), if only pairs of one class count, or None. None if there is no pair.
    """
    flat = images.float().flatten(1)
    groups = [flat] if label is None else [flat[label == c] for c in sorted(set(label.tolist()))]
    distances = torch.cat([torch.nn.functional.pdist(group) for group in groups])
    return distances.mean() / flat.shape[1] ** 0.5 if len(distances) else None


class NoiseToImage(nn.Module):
    """A generator ``G(z, label) -> image`` against a discriminator ``D(image, label) -> logits``.

    If D mixes samples, as batch norm does, real and generated images get separate passes (as in DCGAN's code). Otherwise
    they share one pass, which is mathematically equal and faster.

    Args:
        generator, discriminator: networks. objective: the game.
        latent_dim: size of z. prior: distribution of z.
        same_noise: both players' turns of a step use the same latents.
        num_classes: number of classes when the networks are class-conditional, else None.
        fake_labels: labels of generated images in training: those of the batch, or drawn uniformly.
    """

    one_pass = False

    def __init__(
        self,
        generator: nn.Module,
        discriminator: nn.Module,
        objective: Objective,
        latent_dim: Width,
        prior: Literal["normal", "uniform"] = "normal",
        same_noise: bool = False,
        num_classes: Classes | None = None,
        fake_labels: Literal["batch", "uniform"] = "batch",
    ) -> None:
        super().__init__()
        self.generator, self.discriminator, self.objective = generator, discriminator, objective
        self.latent_dim, self.prior, self.same_noise, self.num_classes = latent_dim, prior, same_noise, num_classes
        self.fake_labels = fake_labels
        self.mixes_samples = bool(mixing(discriminator))
        self.batch_keys = ("image",) if num_classes is None else ("image", "label")
        random = bool(dropouts(generator)) or random_in_eval(generator)
        self.repeats = not random and next(generator.buffers(), None) is None  # G is a function of its latents

    def noise(self, n: int, device: torch.device) -> Tensor:
        """Training latents, float32 (n, latent_dim), from the global generator."""
        if self.prior == "uniform":
            return torch.rand(n, self.latent_dim, device=device) * 2 - 1
        return torch.randn(n, self.latent_dim, device=device)

    def prepare(self, batch: Batch, player: PlayerName, before: Made | None) -> Made:
        """Latents ``z`` (N, latent_dim), generated images ``fake`` (N, C, H, W) and their labels ``label``."""
        if before is not None and "fake" in before:
            return before
        image = batch["image"]
        z = before["z"] if before is not None else self.noise(len(image), image.device)
        label = self._fake_label(batch) if before is None or "label" not in before else before["label"]
        with torch.set_grad_enabled(player == "generator" or self._once()):
            fake = apply(self.generator, z, label)
        return {"z": z, "fake": fake} | ({} if label is None else {"label": label})

    def shared(self, made: Made) -> Made | None:
        """With ``same_noise`` the latents, and the generated images if the other turn would generate the same."""
        if not self.same_noise:
            return None
        return made if self._once() else {key: value for key, value in made.items() if key != "fake"}

    def _once(self) -> bool:
        """Whether one pass of G serves both turns of a step. A compiled turn cannot leave its graph to the next one."""
        game = self.objective
        alike = self.same_noise and game.first == "discriminator" and game.n_critic == 1 and game.warm_up is None
        return alike and self.repeats and not torch.compiler.is_compiling()

    def _fake_label(self, batch: Batch) -> Tensor | None:
        if self.num_classes is None or self.fake_labels == "batch":
            return batch.get("label") if self.num_classes is not None else None
        label = batch["label"]
        return torch.randint(self.num_classes, (len(label),), device=label.device)

    def _critic(self, batch: Batch, made: Made) -> Critic:
        real, fake = ((), ()) if self.num_classes is None else ((batch["label"],), (made["label"],))
        return Critic(self.discriminator, real, fake, self.objective.augment, self.mixes_samples)

    def discriminator_loss(self, batch: Batch, made: Made, turn: Turn) -> tuple[Tensor, Logs]:
        """``batch``: ``image`` in [-1, 1], (N, C, H, W), and ``label``, int64 (N,). Returns a scalar and logs."""
        return self.objective.discriminator_loss(self._critic(batch, made), batch["image"], made["fake"].detach(), turn)

    def generator_loss(self, batch: Batch, made: Made, turn: Turn) -> tuple[Tensor, Logs]:
        """``batch``: the batch of the adjacent turn of D. Returns a scalar and logs."""
        inputs = tuple(made[key] for key in ("z", "label") if key in made)
        critic = self._critic(batch, made)
        loss, _, logs = self.objective.generator_loss(critic, batch["image"], made["fake"], turn, self.generator, inputs)
        return loss, {"g/loss": loss.detach(), **logs}

    def draw(
        self, generator: nn.Module, z: Tensor, label: Tensor | None, seed: object = 0, start: int = 0, **options: Any
    ) -> Tensor:
        """Generate images (N, C, H, W) with an average of the generator from latents (N, latent_dim) and labels.

        Dropout is part of the noise that the generator was trained with, so it stays on: sample k draws its mask from
        ``seed`` and ``start + k``. Layers with ``random_in_eval`` are treated alike. ``options``: keywords of the generator.
        """
        if not dropouts(generator) and not random_in_eval(generator):
            images: Tensor = apply(generator, z, label, **options)
            return images
        return with_own_noise(generator, z, label, seed, start, **options)

    def latents(self, seed: object, start: int, stop: int) -> Tensor:
        """Latents of samples ``start`` to ``stop``: float32 (stop - start, latent_dim), a function of seed and index only."""
        if self.prior == "uniform":
            return sample_uniform(seed, start, stop, self.latent_dim) * 2 - 1
        return sample_normal(seed, start, stop, self.latent_dim)

    def labels(self, n: int, classes: Sequence[int] | None = None) -> Tensor | None:
        """Labels of ``n`` samples, int64 (n,); None if unconditional.

        Sorted by class, ``n // classes`` each; the rest are one each of the first classes. ``classes``: default all.
        """
        if self.num_classes is None:
            return None
        chosen = torch.arange(self.num_classes) if classes is None else torch.tensor(classes)
        blocks = chosen.repeat_interleave(n // len(chosen))
        return torch.cat([blocks, chosen[: n - len(blocks)]])

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

    def examples(self, dataset: Any, seed: int, device: torch.device) -> dict[str, Tensor]:
        """64 latents, or 8 per class with their labels where there are at most 16 classes.

        ``diversity``: the diversity of as many real images, within classes; a scalar, missing for points.
        """
        few = self.num_classes is not None and self.num_classes <= MAX_ROWS
        n = PER_CLASS * self.num_classes if few and self.num_classes else GRID
        label = self.labels(n)
        examples = {"z": self.latents(seed, 0, n), "label": label}
        if len(dataset.shape) == 3:
            examples["diversity"] = self._diversity_of_data(dataset, label, n, seed)
        return {key: values.to(device) for key, values in examples.items() if values is not None}

    def _diversity_of_data(self, dataset: Any, label: Tensor | None, n: int, seed: int) -> Tensor | None:
        """The diversity of ``n`` training images, as many of each class as in ``label``."""
        chosen = permutation(len(dataset), seed=seed, epoch=0)
        if label is None:
            real, classes = dataset.batch(chosen[:n]), None
        else:
            counts = enumerate(torch.bincount(label).tolist())
            chosen = torch.cat([chosen[dataset.labels[chosen] == c][:count] for c, count in counts])
            real, classes = dataset.batch(chosen), dataset.labels[chosen]
        return diversity(real.float() / 127.5 - 1 if real.dtype == torch.uint8 else real, classes)

    def picture(self, generator: nn.Module, examples: dict[str, Tensor]) -> Tensor:
        """A grid, uint8 (C, H, W), eight in a row."""
        return make_grid(to_uint8(self.draw(generator, examples["z"], examples.get("label"))), PER_CLASS)

    def measure(self, generator: nn.Module, examples: dict[str, Tensor]) -> dict[str, float]:
        """``metric/diversity``: :func:`diversity` of the sample grid, divided by that of as many real images.

        1: as diverse as the data. 0: one image for all latents. It does not measure image quality.
        """
        real = examples.get("diversity")
        if real is None or not real > 0:
            return {}
        images = self.draw(generator, examples["z"], examples.get("label"))
        ours = diversity(images, examples.get("label"))
        return {} if ours is None else {"metric/diversity": float(ours / real)}

    @torch.no_grad()
    def score(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Logits of D, float32, on the images of ``batch`` and on as many generated ones. No state changes.

        Batch norm in D uses the statistics of each kind, as in training. Its running statistics mix both kinds, and D was
        not trained with them.
        """
        image, modules = batch["image"], list(self.modules())
        training = [module.training for module in modules]
        self.eval()
        try:
            with training_behaviour(self, batch_norm=True):
                made = self.prepare(batch, "discriminator", None)
                real, fake = self._critic(batch, made).both(image, made["fake"])
                return real.logits, fake.logits
        finally:
            for module, mode in zip(modules, training, strict=True):
                module.training = mode

    def try_out(self, attempt: Callable[..., Tensor], dataset: Any, device: torch.device) -> None:
        """Try two samples in G, and G's output in D."""
        labels = self.labels(2)
        label = [] if labels is None else [labels.to(device)]
        z = self.latents(0, 0, 2).to(device)
        fake = attempt("generator", self.generator, z, *label, wanted=(2, *dataset.shape))
        attempt("discriminator", self.discriminator, fake, *label)
