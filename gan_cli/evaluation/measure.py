"""Measurements of images by a rule, for ``gan-eval`` and for ``eval_every`` in training."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import platform
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gan_cli.data.dataset import ImageDataset
from gan_cli.evaluation.image_sets import Images, centre, cropped, of_dataset
from gan_cli.evaluation.perceptual import MAX_PAIRS, Perceptual
from gan_cli.metrics.cache import cached
from gan_cli.metrics.features import Extractor, Features, ProgressLine, extract
from gan_cli.metrics.frechet import Gaussian, frechet_distance
from gan_cli.metrics.inception_score import inception_score
from gan_cli.metrics.kid import kernel_distance
from gan_cli.metrics.neighbours import memorisation, nearest_neighbours, prdc
from gan_cli.metrics.similarity import psnr, ssim
from gan_cli.randomness import derive
from gan_cli.system.errors import ConfigError, DataError
from gan_cli.system.version import __version__, commit

log = logging.getLogger("gan_cli")
KID_SUBSETS, KID_SUBSET_SIZE, SPLITS = 100, 1000, 10
K_PRECISION, K_DENSITY = 3, 5
NEIGHBOUR_ROWS, NEIGHBOURS = 8, 5  # images in the picture of memorisation: samples, and training images of each
MIN_IMAGES = {"fid": 2, "kid": 4, "is": SPLITS, "prdc": max(K_PRECISION, K_DENSITY) + 2, "fid_per_class": 20}
MIN_IMAGES["memorisation"] = 20
MIN_FID_IMAGES = 1000  # the FID of fewer images is mostly bias


@dataclass
class Evaluation:
    """Metrics, features and a reference, used for any number of generators.

    Args:
        metrics: names of :data:`gan_cli.config.metrics.Metric` that fit the images.
        real: the reference; for pairs the targets, in the order of the samples.
        extractor: None if no metric needs features. cache: folder. crop: side that images are cut to, or None.
        paired: sample k has the target k. own_classes: the extractor's logits are of the classes of the data.
        perceptual: LPIPS, or None if it is not measured.
        training, held_out: for memorisation: what the generator learned from, and real images it never saw, if there are any.
    """

    metrics: Sequence[str]
    real: Images
    extractor: Extractor | None
    device: torch.device
    cache: Path
    crop: int | None = None
    paired: bool = False
    own_classes: bool = False
    perceptual: Perceptual | None = None
    training: ImageDataset | None = None
    held_out: Images | None = None
    _reference: tuple[Features, Gaussian | None] | None = None

    def facts(self, fake: Images) -> dict[str, Any]:
        """The part of a protocol that tells how ``fake`` is measured."""
        n = min(fake.n, self.real.n)
        facts: dict[str, Any] = {
            "image_size": self.real.shape[-1],
            "channels": self.real.shape[0],
            "reference_size": self.real.n,
            "reference_hash": short_hash(self.real.key),
            "num_samples": fake.n,
            "values": "uint8, 0 to 255",
            "crop": self.crop,
        }
        if self.extractor is not None:
            facts |= self.extractor.facts
            facts |= {
                "kid_subsets": KID_SUBSETS,
                "kid_subset_size": kid_subset_size(fake.n, self.real.n),
                "kid_estimator": "U-statistic of pairs" if self.paired else "unbiased",
                "is_splits": SPLITS,
                "precision_k": K_PRECISION,
                "density_k": K_DENSITY,
                "neighbours_of": n,
            }
        return facts | (self.perceptual.facts if self.perceptual is not None else {})

    def reference(self) -> tuple[Features, Gaussian | None]:
        """Features of the reference, and the Gaussian fitted to them for FID."""
        if self._reference is None:
            features = self.features_of(self.real)
            self._reference = features, Gaussian.of(features.values) if "fid" in self.metrics else None
        return self._reference

    def features_of(self, images: Images) -> Features:
        """Features of real images, from the cache where they have been computed before."""
        assert self.extractor is not None and images.key is not None
        extractor = self.extractor

        def compute() -> tuple[dict[str, Tensor], dict[str, Any]]:
            found = extract(extractor, images.batches(), images.n, device=self.device, what=f"{images.what} images")
            tensors = {"values": found.values}
            if found.logits is not None:
                tensors["logits"] = found.logits
            return tensors, {}

        key = {"images": images.key, **{k: v for k, v in extractor.facts.items() if k.startswith(("features", "resize"))}}
        tensors, _ = cached("features", key, compute, self.cache)
        return Features(tensors["values"], tensors.get("logits"))

    def measure(self, fake: Images, picture: Callable[[Tensor], None] | None = None) -> dict[str, float]:
        """All values for a set of images.

        Args:
            fake: of the shape of the reference. picture: is given nearest training neighbours, uint8 (C, H, W), if
                memorisation is measured.

        Raises:
            ConfigError: too few images of a kind. DataError: features are not finite.
        """
        one_by_one = Comparisons(self, fake)
        values: dict[str, float] = {}
        if self.extractor is None:
            with ProgressLine(fake.n, f"{fake.what} images") as progress:
                for start, batch in counted(one_by_one.watch()):
                    progress(start + len(batch))
        else:
            found = extract(self.extractor, one_by_one.watch(), fake.n, device=self.device, what=f"{fake.what} images")
            values |= self.from_features(found, fake)
            if "memorisation" in self.metrics:
                values["memorisation"] = self.memorised(found.values, one_by_one.shown, picture)
        values |= one_by_one.means()
        for key, value in values.items():
            if not math.isfinite(value):
                raise DataError(f"{key} is {value}", "metrics", f"Look at the features, or leave {key} out of metrics=")
        return values

    def from_features(self, fake: Features, images: Images) -> dict[str, float]:
        """All metrics of features and logits."""
        real, gaussian = self.reference()
        values: dict[str, float] = {}
        chosen = self.metrics
        if gaussian is not None:
            values["fid"] = frechet_distance(gaussian, Gaussian.of(fake.values))
        if "kid" in chosen:
            values["kid"], values["kid_std"] = kernel_distance(
                real.values,
                fake.values,
                subsets=KID_SUBSETS,
                subset_size=kid_subset_size(images.n, self.real.n),
                paired=self.paired,
            )
        if "is" in chosen and fake.logits is not None:
            values["is"], values["is_std"] = inception_score(fake.logits, splits=SPLITS)
        if "prdc" in chosen:
            n = min(len(real.values), len(fake.values))
            values |= prdc(some(real.values, n), some(fake.values, n), k_precision=K_PRECISION, k_density=K_DENSITY)
        predicted = fake.logits.argmax(1) if fake.logits is not None and self.own_classes else None
        if "classes" in chosen and predicted is not None:
            values["classes"] = effective_classes(predicted, len(self.real.class_names))
        if "accuracy" in chosen and predicted is not None and images.labels is not None:
            values["accuracy"] = float((predicted == images.labels).double().mean())
        if "fid_per_class" in chosen:
            labels = images.labels if images.labels is not None else predicted
            assert labels is not None and self.real.labels is not None
            values |= self.per_class(real.values, fake.values, labels)
        return values

    def per_class(self, real: Tensor, fake: Tensor, labels: Tensor) -> dict[str, float]:
        """``fid/<class>`` for each class, and ``fid_per_class``, their mean. A class of fewer than two samples has none."""
        assert self.real.labels is not None
        values, few = {}, []
        for label, name in enumerate(self.real.class_names):
            theirs, ours = real[self.real.labels == label], fake[labels == label]
            if min(len(theirs), len(ours)) < 2:
                few.append(name)
                continue
            values[f"fid/{name.replace('/', '_')}"] = frechet_distance(Gaussian.of(theirs), Gaussian.of(ours))
        if not values:
            raise ConfigError("no class has two samples", "fid_per_class", "Draw more: num_samples=10000")
        if few:
            log.info("note: fid_per_class is without the classes of fewer than two samples: %s", ", ".join(few))
        return {**values, "fid_per_class": sum(values.values()) / len(values)}

    def memorised(self, fake: Tensor, shown: dict[int, Tensor], picture: Callable[[Tensor], None] | None) -> float:
        """Distances of samples to training images, against those of held-out images. ``shown``: samples by number."""
        assert self.training is not None
        features = self.features_of(cropped(of_dataset(self.training, "training"), self.crop)).values
        if self.held_out is not None:
            unseen, learned = some(self.features_of(self.held_out).values, len(fake)), torch.arange(len(features))
        else:  # a tenth of the training set stands in for them
            order = torch.randperm(len(features), generator=torch.Generator().manual_seed(derive("held out")))
            unseen, learned = features[order[: len(order) // 10]], order[len(order) // 10 :]
        train = features[learned]
        if picture is not None:
            from gan_cli.images import make_grid

            _, found = nearest_neighbours(fake[list(shown)], train, k=NEIGHBOURS)
            neighbours = (centre(self.training.batch(learned[row]), self.crop) for row in found)
            rows = [torch.cat([image[None], near]) for image, near in zip(shown.values(), neighbours, strict=True)]
            picture(make_grid(torch.cat(rows), 1 + NEIGHBOURS))
        return memorisation(train, fake, unseen)


class Comparisons:
    """Images compared one by one as they go by once: with their targets, or in pairs with each other.

    Attributes:
        shown: some of them by number, spread over all classes, uint8 (C, H, W), for a picture.
    """

    def __init__(self, rule: Evaluation, fake: Images) -> None:
        self.rule, self.fake = rule, fake
        self.shown: dict[int, Tensor] = {}
        self._rows = {k * fake.n // NEIGHBOUR_ROWS for k in range(NEIGHBOUR_ROWS)}
        self._found: dict[str, list[Tensor]] = {}
        self._targets = rule.real.batches() if rule.paired else None
        self._perceptual = rule.perceptual
        self._again = fake.again() if rule.perceptual is not None and fake.again is not None else None
        self._alone: Tensor | None = None  # an image whose partner comes with the next batch

    def watch(self) -> Iterator[Tensor]:
        """The images batch by batch, compared on their way."""
        for start, batch in counted(self.fake.batches()):
            images = batch.cpu()
            self.shown |= {k: images[k - start] for k in sorted(self._rows) if start <= k < start + len(images)}
            if self._targets is not None:
                self._with_targets(images, next(self._targets).cpu())
            elif self._perceptual is not None:
                self._in_pairs(images, start + len(images))
            if self._perceptual is not None and self._again is not None:
                self._add("lpips_diversity", self._perceptual(images, next(self._again)))
            yield batch

    def means(self) -> dict[str, float]:
        """Means of the compared pairs.

        Raises:
            ConfigError: LPIPS was asked for, and there were no two images to compare.
        """
        if "lpips" in self.rule.metrics and not self._found:
            raise ConfigError("no two samples are from one condition", "lpips", "Draw more: num_samples=1000")
        return {key: float(torch.cat(parts).double().mean()) for key, parts in self._found.items()}

    def _add(self, key: str, values: Tensor) -> None:
        self._found.setdefault(key, []).append(values)

    def _with_targets(self, images: Tensor, targets: Tensor) -> None:
        for key, compare in (("psnr", psnr), ("ssim", ssim)):
            if key in self.rule.metrics:
                self._add(key, compare(images, targets))
        if self._perceptual is not None:
            self._add("lpips", self._perceptual(images, targets))

    def _in_pairs(self, images: Tensor, stop: int) -> None:
        """Pairs of images 0 and 1, 2 and 3 and so on, also across batches. ``stop``: number of images after these."""
        waiting = images if self._alone is None else torch.cat([self._alone, images])
        begin = stop - len(waiting)
        labels = None if self.fake.labels is None else self.fake.labels[begin:stop]
        one, other = some_pairs(waiting, labels, begin // 2, self.fake.n // 2)
        self._alone = waiting[-1:] if len(waiting) % 2 else None
        if self._perceptual is not None and len(one):
            self._add("lpips", self._perceptual(one, other))


def counted(batches: Iterator[Tensor]) -> Iterator[tuple[int, Tensor]]:
    """Each batch with the number of images before it."""
    start = 0
    for batch in batches:
        yield start, batch
        start += len(batch)


def some_pairs(images: Tensor, labels: Tensor | None, first: int, total: int) -> tuple[Tensor, Tensor]:
    """Neighbours (0, 1), (2, 3), ... of a batch, those of one class only.

    The batch begins with pair ``first`` of ``total``. Of more than MAX_PAIRS as many are taken, spread evenly, since
    samples come class after class.
    """
    even = len(images) // 2 * 2
    pair, wanted = first + torch.arange(even // 2), min(MAX_PAIRS, total)
    keep = (pair + 1) * wanted // max(total, 1) > pair * wanted // max(total, 1)
    if labels is not None:
        keep &= labels[0:even:2] == labels[1:even:2]
    return images[0:even:2][keep], images[1:even:2][keep]


def some(features: Tensor, n: int) -> Tensor:
    """``n`` rows chosen at random, the same ones every time."""
    if n >= len(features):
        return features
    return features[torch.randperm(len(features), generator=torch.Generator().manual_seed(derive("some")))[:n]]


def effective_classes(predicted: Tensor, num_classes: int) -> float:
    """exp(entropy of the histogram) / number of classes: 1 if all are equally frequent, 1/C if there is but one."""
    share = torch.bincount(predicted, minlength=num_classes).double() / len(predicted)
    entropy = -torch.special.xlogy(share, share).sum()
    return math.exp(float(entropy)) / num_classes


def kid_subset_size(n: int, m: int) -> int:
    """Images per subset: 1000, or half of the smaller set, so that the subsets differ."""
    return min(KID_SUBSET_SIZE, n // 2, m // 2)


def advice(metrics: Sequence[str], fake: Images, real: Images, dim: int) -> list[str]:
    """Warnings where there are too few images for FIDs of ``dim`` features to mean much."""
    n, notes = min(fake.n, real.n), []
    if "fid" in metrics and n < max(dim + 1, MIN_FID_IMAGES):
        because = f"the covariance of {dim} features has rank {n - 1} at most" if n <= dim else "its bias depends on the number"
        notes = [f"FID of {n} images is not reliable ({because}): rely on KID, and compare FIDs of as many images only"]
    each = n // max(1, len(real.class_names))
    if "fid_per_class" in metrics and each < max(dim + 1, MIN_FID_IMAGES):
        notes.append(f"FIDs within classes are of about {each} images each: compare them with each other only")
    return notes


def short_hash(value: Any) -> str:
    """16 hex digits of plain data."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]


def versions() -> dict[str, str | None]:
    """Versions of the libraries that computed a result."""
    from importlib.metadata import version

    return {
        "gan_cli": __version__,
        "commit": commit(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "torch_fidelity": version("torch-fidelity"),
        "python": platform.python_version(),
    }
