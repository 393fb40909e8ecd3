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
    """How to measure: see the keys of the same names in conf/eval.yaml."""

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
        node: config of the reference's data set, with the part that the generator learned from.
        split: the part of that data set that ``real`` is.
        kind: ``single`` images, translations with targets (``pairs``) or without (``domains``).
        training: gives what the generator learned from, for memorisation; None if that is not known.
    """

    fake: Images
    real: Images
    node: Node
    split: str
    kind: Literal["single", "pairs", "domains"] = "single"
    training: Callable[[], ImageDataset] | None = None

    def facts(self) -> dict[str, Any]:
        """The part of a protocol that tells of the reference."""
        return {
            "reference": self.node["_target_"].rsplit(".", 1)[-1],
            "reference_split": self.split,
            "reference_path": self.node.get("root", self.node.get("path")),
        }


def machine(device: torch.device) -> dict[str, Any]:
    """The part of a protocol that tells of the machine."""
    return {"device": str(device), "threads": torch.get_num_threads(), "versions": versions()}


def prepare(images: Comparison, rule: Rule, device: torch.device) -> Evaluation:
    """The evaluation that a rule makes of a comparison.

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
        if extractor.dim == 0:  # a user's own network shows its dimension when it is used
            extractor(next(real.batches())[:2].to(device))
    has_logits = extractor is not None and bool(extractor.num_classes)
    own_classes = extractor is not None and extractor.name == "classifier" and extractor.num_classes == len(real.class_names)
    metrics = wanted or default_metrics(images, has_logits, own_classes)
    refuse_without_classes(metrics, images.fake, own_classes)
    refuse_too_few(metrics, images)
    if "is" in metrics and not has_logits:
        raise ConfigError("IS needs features with class logits", "metrics", "Leave is out")
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
        own_classes=own_classes,
        perceptual=Perceptual(rule.lpips, folder, device, paired=paired) if "lpips" in metrics else None,
        training=images.training() if "memorisation" in metrics and images.training is not None else None,
        held_out=held_out,
    )


def default_metrics(images: Comparison, has_logits: bool, own_classes: bool) -> list[str]:
    """The metrics of a comparison for which none are chosen."""
    if images.kind != "single":
        return ["psnr", "ssim", "kid", "fid"] if images.kind == "pairs" else ["kid", "fid"]
    metrics = ["fid", "kid", *(["is"] if has_logits else []), "prdc"]
    if own_classes and images.real.labels is not None:
        metrics += ["classes"] if images.fake.labels is None else ["classes", "accuracy"]
    return [metric for metric in metrics if metric not in ("is", "prdc") or fewest(images)[0] >= MIN_IMAGES[metric]]


def fewest(images: Comparison) -> tuple[int, str]:
    """The number of images in the smaller set, and a word for that set."""
    return min((images.fake.n, images.fake.what), (images.real.n, images.real.what), key=lambda pair: pair[0])


def refuse_misfits(metrics: Sequence[str], images: Comparison) -> None:
    """Refuse metrics that need something else of the images.

    Raises:
        ConfigError: naming the metric.
    """
    fake, real, kind = images.fake, images.real, images.kind
    for metric in metrics:
        labelled = metric in LABELS_NEEDED
        for misfit, problem in (
            (metric in TARGETS_NEEDED and kind != "pairs", "compares images with their targets, and these have none"),
            (metric == "ssim" and min(fake.shape[1:]) < SMALLEST_IMAGE, f"needs images of at least {SMALLEST_IMAGE} pixels"),
            (metric == "lpips" and kind == "domains", "needs targets, or several samples of one condition"),
            (metric == "memorisation" and images.training is None, "needs samples from noise and their own training images"),
            (labelled and real.labels is None, "needs the classes of the real images, and the data set is unlabelled"),
            (metric == "accuracy" and fake.labels is None, "needs samples of given classes, and these have none"),
        ):
            if misfit:
                raise ConfigError(f"{metric} {problem}", "metrics", f"Leave {metric} out of metrics=")


def refuse_without_classes(metrics: Sequence[str], fake: Images, own_classes: bool) -> None:
    """Refuse metrics that need the classifier of the data set to tell the class of a sample.

    Raises:
        ConfigError: another extractor is used.
    """
    for metric in LABELS_NEEDED & set(metrics):
        if not own_classes and (metric != "fid_per_class" or fake.labels is None):
            todo = f"Set features=classifier, or leave {metric} out of metrics="
            raise ConfigError(f"{metric} needs a network that knows the classes of the data set", "features", todo)


def refuse_too_few(metrics: Sequence[str], images: Comparison) -> None:
    """Refuse metrics that are not defined for so few images.

    Raises:
        ConfigError: naming the metric and the numbers.
    """
    n, what = fewest(images)
    for metric in metrics:
        if n < MIN_IMAGES.get(metric, 1):
            problem = f"{metric} needs at least {MIN_IMAGES[metric]} images, and there are {n} {what} ones"
            raise ConfigError(problem, "num_samples or the reference", "Take more, or leave this metric out of metrics=")
