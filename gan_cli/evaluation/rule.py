"""The rule that a comparison of images follows: metrics that fit it, the network that gives features, the reference."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch

from gan_cli.config.build import build
from gan_cli.config.metrics import FEATURES_NEEDED, LABELS_NEEDED, TARGETS_NEEDED
from gan_cli.config.plain import Node
from gan_cli.data.dataset import ImageDataset
from gan_cli.evaluation.image_sets import Images, cropped, of_dataset
from gan_cli.evaluation.measure import MIN_IMAGES, Evaluation, versions
from gan_cli.evaluation.perceptual import Perceptual
from gan_cli.evaluation.references import labelled_sets
from gan_cli.metrics.cache import cache_dir
from gan_cli.metrics.features import build_extractor, default_node
from gan_cli.metrics.similarity import SMALLEST_IMAGE
from gan_cli.system.errors import ConfigError


@dataclass(frozen=True)
class Rule:
    """The settings of a measurement; conf/eval.yaml documents the keys of the same names."""

    metrics: Sequence[str] | None
    features: Node
    lpips: dict[str, Any]
    cache: str | None = None
    crop: int | None = None


@dataclass(frozen=True)
class Comparison:
    """Images to measure and their reference.

    Attributes:
        fake: the images. real: the reference, for pairs the targets in the same order.
        node: config of the reference's data set, with the split that the generator was trained on.
        split: the part of that data set that ``real`` is.
        kind: ``single`` images, translations with targets (``pairs``) or without (``domains``).
        training: loads the training set, for memorisation; None if it is unknown.
    """

    fake: Images
    real: Images
    node: Node
    split: str
    kind: Literal["single", "pairs", "domains"] = "single"
    training: Callable[[], ImageDataset] | None = None

    def facts(self) -> dict[str, Any]:
        """The part of a protocol that describes the reference."""
        return {
            "reference": self.node["_target_"].rsplit(".", 1)[-1],
            "reference_split": self.split,
            "reference_path": self.node.get("root", self.node.get("path")),
        }


@dataclass(frozen=True)
class Network:
    """Whether the network that gives features has class logits, and whether they are of the classes of the data set."""

    has_logits: bool
    knows_classes: bool


def machine(device: torch.device) -> dict[str, Any]:
    """The part of a protocol that describes the machine."""
    return {"device": str(device), "threads": torch.get_num_threads(), "versions": versions()}


def prepare(images: Comparison, rule: Rule, device: torch.device) -> Evaluation:
    """Build the evaluation of a comparison from a rule.

    Raises:
        GanError: a metric does not fit, or weights are missing.
    """
    images = replace(images, fake=cropped(images.fake, rule.crop), real=cropped(images.real, rule.crop))
    real, node, wanted = images.real, images.node, rule.metrics
    refuse_misfits(wanted or [], images)
    folder = cache_dir(rule.cache)
    extractor = None
    if wanted is None or FEATURES_NEEDED & set(wanted):
        features = rule.features if rule.features.get("_target_") else default_node(node["_target_"])
        extractor = build_extractor(features, labelled=labelled_sets(node, real), folder=folder, device=device)
        if extractor.dim == 0:  # the dimension of a user's network is known after its first call
            extractor(next(real.batches())[:2].to(device))
    classes = extractor.num_classes if extractor is not None else None
    is_classifier = extractor is not None and extractor.name == "classifier"
    network = Network(bool(classes), is_classifier and classes == len(real.class_names))
    metrics = wanted or default_metrics(images, network)
    refuse_misfits(metrics, images, network)
    held_out = None
    unseen = {"train": "test", "test": "train"}.get(node.get("split", "all"))
    if "memorisation" in metrics and unseen is not None:
        held_out = cropped(of_dataset(build({**node, "split": unseen}, "dataset"), "held-out"), rule.crop)
    paired = images.kind == "pairs"
    return Evaluation(
        metrics,
        real,
        extractor,
        device,
        folder,
        crop=rule.crop,
        paired=paired,
        own_classes=network.knows_classes,
        perceptual=Perceptual(rule.lpips, folder, device, paired=paired) if "lpips" in metrics else None,
        training=images.training() if "memorisation" in metrics and images.training is not None else None,
        held_out=held_out,
    )


def default_metrics(images: Comparison, network: Network) -> list[str]:
    """The default metrics of a comparison."""
    if images.kind != "single":
        return ["psnr", "ssim", "kid", "fid"] if images.kind == "pairs" else ["kid", "fid"]
    metrics = ["fid", "kid", *(["is"] if network.has_logits else []), "prdc"]
    if network.knows_classes and images.real.labels is not None:
        metrics += ["classes"] if images.fake.labels is None else ["classes", "accuracy"]
    n = min(images.fake.n, images.real.n)
    return [metric for metric in metrics if metric not in ("is", "prdc") or n >= MIN_IMAGES[metric]]


def refuse_misfits(metrics: Sequence[str], images: Comparison, network: Network | None = None) -> None:
    """Refuse metrics that need other images, or another network than ``network``.

    Raises:
        ConfigError: naming the metric.
    """
    fake, real, kind = images.fake, images.real, images.kind
    few = min(fake, real, key=lambda some: some.n)
    for metric in metrics:
        labelled, least = metric in LABELS_NEEDED, MIN_IMAGES.get(metric, 1)
        predicted = labelled and (metric != "fid_per_class" or fake.labels is None)  # classes of samples
        too_few = f"needs at least {least} images, and there are {few.n} {few.what} ones"
        for misfit, problem, key in (
            (
                metric in TARGETS_NEEDED and kind != "pairs",
                "compares images with their targets, and these have none",
                "metrics",
            ),
            (metric == "ssim" and min(fake.shape[1:]) < SMALLEST_IMAGE, f"needs images of {SMALLEST_IMAGE} pixels", "metrics"),
            (metric == "lpips" and kind == "domains", "needs targets, or several samples of one condition", "metrics"),
            (
                metric == "memorisation" and images.training is None,
                "needs samples from noise and their training images",
                "metrics",
            ),
            (labelled and real.labels is None, "needs the classes of the real images, and they are unlabelled", "metrics"),
            (metric == "accuracy" and fake.labels is None, "needs samples of given classes, and these have none", "metrics"),
            (few.n < least, too_few, "num_samples or the reference"),
            (network and predicted and not network.knows_classes, "needs features=classifier, of the same classes", "features"),
            (network and metric == "is" and not network.has_logits, "needs features with class logits", "metrics"),
        ):
            if misfit:
                raise ConfigError(f"{metric} {problem}", key, f"Correct that, or leave {metric} out of metrics=")
