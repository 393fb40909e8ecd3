"""Whether the discriminator knows its training images by heart: what it says of held-out ones."""

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
IMAGES = 256  # of each kind
CHUNK = 64  # images at a time, at most
CLEAR = 0.5  # standard deviations between real and generated, below which D says too little


class Overfitting:
    """Measures r_v = (E[D(train)] - E[D(held out)]) / (E[D(train)] - E[D(fake)]) of logits (Karras et al. 2020, equation 1).

    0: D takes held-out images for as real as those it is trained on. 1: for as generated as those of G.

    Args:
        task: of which nothing is measured unless it is :class:`gan_cli.protocols.Scores`.
        dataset: what it is trained on. node: its config. A set of which ``split: train`` is taken has the rest held out.
        seed: which images are looked at. device: where.
    """

    def __init__(self, task: Any, dataset: Any, node: Node, *, seed: int, device: torch.device) -> None:
        self.task, self.device = task, device
        self.parts: list[dict[str, Tensor]] = []  # training images, then held-out ones; uint8
        rest = held_out(node) if isinstance(task, Scores) else None
        if rest is not None and min(len(dataset), len(rest)) > 1:
            self.parts = [self._choose(part, seed) for part in (dataset, rest)]

    def _choose(self, part: ImageDataset, seed: int) -> dict[str, Tensor]:
        indices = permutation(len(part), seed=seed, epoch=0)[:IMAGES]
        chosen = {"image": part.batch(indices)}
        if part.labels is not None:
            chosen["label"] = part.labels[indices]
        return {key: values.to(self.device) for key, values in chosen.items()}

    @torch.no_grad()
    def measure(self) -> dict[str, float]:
        """``d/overfitting``: r_v. Empty if nothing is held out, and where D does not tell real from generated."""
        if not self.parts:
            return {}
        (train, fake), (rest, more) = (self._score(part) for part in self.parts)
        fake = torch.cat([fake, more])
        gap = train.mean() - fake.mean()
        if not gap > CLEAR * torch.sqrt((train.var() + fake.var()) / 2):
            return {}
        return {"d/overfitting": float((train.mean() - rest.mean()) / gap)}

    def _score(self, part: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Logits of ``part`` and of as many generated images."""
        logits = []
        count = -(-len(part["image"]) // CHUNK)
        for values in zip(*(tensor.tensor_split(count) for tensor in part.values()), strict=True):
            batch = dict(zip(part, values, strict=True))
            batch["image"] = batch["image"].float() / 127.5 - 1
            logits.append(self.task.score(batch))
        real, fake = zip(*logits, strict=True)
        return torch.cat(real).flatten(), torch.cat(fake).flatten()


def held_out(node: Node) -> ImageDataset | None:
    """What ``split: test`` holds of the data set of a config that takes ``split: train``. None if there is none to be had."""
    if node.get("split") != "train":
        return None
    there = {key: False for key in ("download",) if key in node}  # or it is no use
    try:
        part: ImageDataset = build({**node, "split": "test", **there}, "dataset")
    except Exception as error:  # a number less in the log must not end a run
        log.debug("no held-out images to look for overfitting with: %s", error)
        return None
    return part
