"""Overfitting of the discriminator, measured on held-out images."""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import Tensor

from gan_cli.config.build import build
from gan_cli.config.plain import Node
from gan_cli.data.batches import permutation
from gan_cli.data.dataset import ImageDataset
from gan_cli.protocols import Scores

log = logging.getLogger("gan_cli")
MAX_IMAGES = 256  # training images that are scored, and as many held-out ones
CHUNK_IMAGES = 64  # images that D scores at a time
MIN_GAP = 0.5  # standard deviations between D's scores of real and generated images; below, r_v is noise


class Overfitting:
    """Measures r_v = (E[D(train)] - E[D(held out)]) / (E[D(train)] - E[D(fake)]) of logits (Karras et al. 2020, equation 1).

    0: D scores held-out images like training images. 1: like generated ones.

    Args:
        task: measured only if it implements :class:`gan_cli.protocols.Scores`.
        dataset: the training set. node: its config; with ``split: train`` the test split is held out.
        seed: decides which images are measured. device: of the networks.
    """

    def __init__(self, task: Any, dataset: Any, node: Node, *, seed: int, device: torch.device) -> None:
        self.task, self.device = task, device
        self.parts: list[dict[str, Tensor]] = []  # training images, then held-out ones; uint8
        rest = held_out(node) if isinstance(task, Scores) else None
        if rest is not None and min(len(dataset), len(rest)) > 1:
            self.parts = [self._choose(part, seed) for part in (dataset, rest)]

    def _choose(self, part: ImageDataset, seed: int) -> dict[str, Tensor]:
        indices = permutation(len(part), seed=seed, epoch=0)[:MAX_IMAGES]
        chosen = {"image": part.batch(indices)}
        if part.labels is not None:
            chosen["label"] = part.labels[indices]
        return {key: values.to(self.device) for key, values in chosen.items()}

    @torch.no_grad()
    def measure(self) -> dict[str, float]:
        """``d/overfitting``: r_v. Empty without held-out images, and where D does not tell real from generated."""
        if not self.parts:
            return {}
        (train, fake), (rest, more) = (self._score(part) for part in self.parts)
        fake = torch.cat([fake, more])
        gap = train.mean() - fake.mean()
        if not gap > MIN_GAP * torch.sqrt((train.var() + fake.var()) / 2):
            return {}
        return {"d/overfitting": float((train.mean() - rest.mean()) / gap)}

    def _score(self, part: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Logits of ``part`` and of as many generated images."""
        logits = []
        count = -(-len(part["image"]) // CHUNK_IMAGES)
        for values in zip(*(tensor.tensor_split(count) for tensor in part.values()), strict=True):
            batch = dict(zip(part, values, strict=True))
            batch["image"] = batch["image"].float() / 127.5 - 1
            logits.append(self.task.score(batch))
        real, fake = zip(*logits, strict=True)
        return torch.cat(real).flatten(), torch.cat(fake).flatten()


def held_out(node: Node) -> ImageDataset | None:
    """The test split of a data set that trains on its train split, or None."""
    if node.get("split") != "train":
        return None
    offline = {"download": False} if "download" in node else {}
    try:
        part: ImageDataset = build({**node, "split": "test", **offline}, "dataset")
    except Exception as error:  # a missing test split must not end a run
        log.debug("overfitting of D is not measured, there are no held-out images: %s", error)
        return None
    return part
