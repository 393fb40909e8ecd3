"""What is measured and against what: samples of a run, or images that lie in a folder or an npz file."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from gan_cli.compute.device import choose_device
from gan_cli.compute.layers import dropouts
from gan_cli.config.build import build
from gan_cli.config.metrics import FEATURES_NEEDED, LABELS_NEEDED, TARGETS_NEEDED
from gan_cli.config.plain import Node
from gan_cli.data.dataset import ImageDataset, TranslationDataset
from gan_cli.evaluation.image_sets import Images, cropped, of_dataset, of_noise, of_sources
from gan_cli.evaluation.measure import LPIPS_PAIRS, LPIPS_SIZE, Evaluation, enough, refuse_too_few, versions
from gan_cli.evaluation.references import (
    describe,
    labelled_sets,
    node_of_path,
    readdressed,
    reference_node,
    refuse_other_shape,
    same_classes,
    with_split,
)
from gan_cli.metrics.cache import cache_dir
from gan_cli.metrics.features import Extractor, build_extractor, default_node
from gan_cli.metrics.lpips import LPIPS
from gan_cli.metrics.similarity import SMALLEST_IMAGE
from gan_cli.metrics.weights import WeightFile, find_weights, load_tensors
from gan_cli.protocols import DrawsPoints, HasModes
from gan_cli.rundir.reload import Run, draw_options, load_run
from gan_cli.system.errors import ConfigError, DataError

if TYPE_CHECKING:
    from gan_cli.evaluation.config import EvalConfig

log = logging.getLogger("gan_cli")
WITHOUT = "or leave lpips out of metrics="
TORCHVISION = "https://download.pytorch.org/models/"
TRUNKS = {
    net: WeightFile(name, TORCHVISION + name, sha256)
    for net, name, sha256 in [
        ("alex", "alexnet-owt-7be5be79.pth", "7be5be791159472b1fbf3c69796f7cb30dca7ad8466c2df70058c37116cdee02"),
        ("vgg", "vgg16-397923af.pth", "397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0"),
        ("squeeze", "squeezenet1_1-b8a52dc0.pth", "b8a52dc049b60e4b6ab68ad0df457362afab8b6304b2febdc1650a5dab4d7e7b"),
    ]
}
# The authors' repository at a fixed commit.
ZHANG = "https://raw.githubusercontent.com/richzhang/PerceptualSimilarity/082bb24f84c091ea94de2867d34c4544f68e0963/lpips/weights/v0.1/"
LINEAR = {
    net: WeightFile(f"lpips_v0.1_{net}.pth", f"{ZHANG}{net}.pth", sha256)
    for net, sha256 in {
        "alex": "df73285e35b22355a2df87cdb6b70b343713b667eddbda73e1977e0c860835c0",
        "vgg": "a78928a0af1e5f0fcb1f3b9e8f8c3a2a5a3de244d830ad5c1feddc79b8432868",
        "squeeze": "4a5350f23600cb79923ce65bb07cbf57dca461329894153e05a1346bd531cf76",
    }.items()
}


@dataclass(frozen=True)
class Rule:
    """How to measure: see the keys of the same names in conf/eval.yaml."""

    metrics: Sequence[str] | None
    features: Node
    lpips: dict[str, Any]
    cache: str | None
    crop: int | None


@dataclass(frozen=True)
class Case:
    """What is measured, against what, and by which rule.

    Attributes:
        evaluation: the rule, with its reference. fake: the images.
        title: what they are, in words. reference: what they are compared with, in words.
        path: of the result, without the end of its name. protocol: what the images say about how they were made.
    """

    evaluation: Evaluation
    fake: Images
    title: str
    reference: str
    path: Path
    protocol: dict[str, Any]


def of_run(config: EvalConfig) -> Case:
    """Samples of a run, or its translations of held-out images."""
    assert config.run_dir is not None
    run = load_run(config.run_dir, step=config.step, ema=config.ema, device=config.device, trust=config.trust)
    folder = Path(config.output).expanduser() if config.output is not None else run.run_dir / "evaluations"
    if isinstance(run.task, DrawsPoints):
        todo = "Its distance from the data is logged while it trains: metric/... in metrics.jsonl"
        raise ConfigError("the run makes points, not images", str(run.run_dir), todo)
    total = run.config["total_steps"]
    if run.step < total and config.step == "last":
        log.info("the run is not finished: this is step %d of %d", run.step, total)
    node = reference_node(run, config)
    set_mode(run, config)
    options = draw_options(run.generator, truncation=config.truncation)
    device = run.device
    if run.translates:
        with readdressed({"dataset.root": "root=", "dataset.path": "root="}):
            dataset = build(node, "dataset")
        if not isinstance(dataset, TranslationDataset):
            where = "dataset" if config.real is None else "real"
            raise ConfigError("the run translates images, and the reference has no sources", where, "Leave it out")
        for key in ("num_real", "split"):
            if getattr(config, key) is not None:
                raise ConfigError("the held-out images are the reference of translations", key, "Leave it out")
        direction = config.direction or next(iter(run.task.directions), None)
        fake, real = of_sources(
            run.task, run.generator, dataset, config.num_samples,
            direction=direction, seed=config.seed, batch_size=config.batch_size, device=device,
        )  # fmt: skip
        split, training = real.what, None
    else:
        training, direction = None, None
        part, split = with_split(node, config.split)
        with readdressed({"dataset.root": "root=", "dataset.path": "root="} if config.dataset is None else {}):
            dataset = build(part, "dataset")
        if isinstance(dataset, TranslationDataset):
            raise ConfigError(
                "the run makes images from noise, and the reference has pairs or domains", "dataset", "Leave it out"
            )
        fake = of_noise(
            run.task, run.generator, config.num_samples,
            seed=config.seed, batch_size=config.batch_size, device=device, **options,
        )  # fmt: skip
        real = of_dataset(dataset, "reference", config.num_real)
        refuse_other_shape(fake, real)
        if "memorisation" in (config.metrics or []):
            if config.real is not None or config.dataset is not None:
                what = "memorisation is measured by the images that the run was trained on"
                raise ConfigError(what, "real" if config.real is not None else "dataset", "Leave it out")
            training = dataset if part == node else build(node, "dataset")
    own = config.real is None and config.dataset is None
    if own and (run.translates or node.get("split", "all") == split) and dataset.fingerprint != run.data:
        log.warning("warning: the data set is not that which the run was trained on; it has changed since")
    evaluation = prepare(
        real, fake, rule_of(config), node=node, device=device, training=training,
        paired=run.translates and direction is None, two_domains=direction is not None,
    )  # fmt: skip
    elsewhere = f"{run.run_dir.resolve().name}-{run.weights_hash[:8]}"  # where results of several runs may lie together
    return Case(
        evaluation,
        cropped(fake, config.crop),
        title=f"{run.run_dir}, step {run.step:,} ({run.images:,} images), {'EMA' if config.ema else 'raw'} weights",
        reference=describe(node, split),
        path=folder / (f"step-{run.step:08d}" if config.output is None else f"{elsewhere}-step-{run.step:08d}"),
        protocol={
            **how_compared(node, split),
            **how_made(run.task, run.generator, seed=config.seed, ema=config.ema, direction=direction),
            **options,
            "step": run.step,
            "images": run.images,
            "checkpoint_hash": run.weights_hash,
            **machine(device),
        },
    )


def of_files(config: EvalConfig) -> Case:
    """Images that somebody made."""
    assert config.fake is not None
    ours, native = node_of_path(config.fake, "fake", config.image_size)
    if config.real is not None:
        node, _ = node_of_path(config.real, "real", config.image_size)
        ours["channels"] = node["channels"] = max(ours["channels"], node["channels"])
    else:
        assert config.dataset is not None
        node = {**config.dataset}
        if config.image_size is not None and "image_size" in node:
            node["image_size"] = config.image_size
        ours["fit"] = node.get("fit", "resize")  # as the reference is
    part, split = with_split(node, config.split)
    with readdressed({"dataset.root": "fake=", "dataset.path": "fake="}):
        made = build(ours, "fake")
    with readdressed({"dataset.root": "real=", "dataset.path": "real="} if config.real is not None else {}):
        dataset = build(part, "dataset")
    if isinstance(dataset, TranslationDataset) or len(dataset.shape) != 3:
        raise ConfigError("the reference is not a set of single images", "dataset", "Choose another one")
    fake, real = of_dataset(made, "generated", config.num_samples), of_dataset(dataset, "reference", config.num_real)
    if not same_classes(fake.class_names, real.class_names):
        fake = replace(fake, labels=None, class_names=())  # folders that are not the classes of the data
    refuse_other_shape(fake, real)
    device = choose_device(config.device)
    training = None
    if "memorisation" in (config.metrics or []):
        training = dataset if part == node else build(node, "dataset")
    folder = Path(config.output).expanduser() if config.output is not None else Path("outputs/evaluations")
    given = Path(config.fake).expanduser().resolve()
    return Case(
        prepare(real, fake, rule_of(config), node=node, device=device, training=training),
        cropped(fake, config.crop),
        title=f"{config.fake}, {fake.n:,} images",
        reference=config.real or describe(node, split),
        path=folder / f"{given.stem if given.is_file() else given.name}-{made.fingerprint[:8]}",
        protocol={
            **how_compared(node, split),
            "samples_native": native,
            "samples_fit": ours["fit"],
            "samples_hash": made.fingerprint,
            "samples_path": config.fake,
            **machine(device),
        },
    )


def how_compared(node: Node, split: str) -> dict[str, Any]:
    """Of the protocol: the reference."""
    place = node.get("root", node.get("path"))
    return {"reference": node["_target_"].rsplit(".", 1)[-1], "reference_split": split, "reference_path": place}


def how_made(task: Any, generator: nn.Module, *, seed: int, ema: bool, direction: str | None) -> dict[str, Any]:
    """Of the protocol: how a generator was used."""
    mode = task.sample_mode if isinstance(task, HasModes) else None
    each_alone = mode == "paper"
    drops = bool(dropouts(generator)) and mode in (None, "paper")
    return {
        "seed": seed,
        "weights": "EMA" if ema else "raw",
        "batch_norm": "statistics of each image" if each_alone else "running statistics",
        "dropout": "on" if drops else "off",
        "precision": "fp32",
        "direction": direction,
    }


def machine(device: torch.device) -> dict[str, Any]:
    """Of the protocol: what computed it."""
    return {"device": str(device), "threads": torch.get_num_threads(), "versions": versions()}


def rule_of(config: EvalConfig) -> Rule:
    """The part of a config that says how to measure."""
    return Rule(config.metrics, config.features, config.lpips, config.cache, config.crop)


def prepare(
    real: Images,
    fake: Images,
    rule: Rule,
    *,
    node: Node,
    device: torch.device,
    training: ImageDataset | None = None,
    paired: bool = False,
    two_domains: bool = False,
) -> Evaluation:
    """The rule for these images: metrics that fit, the network that gives features, the reference.

    Args:
        node: of the data set, with the part that the generator learned from. training, paired: see :class:`Evaluation`.
        two_domains: the images are translations without targets.

    Raises:
        GanError: a metric does not fit, or weights are missing.
    """
    wanted, real = rule.metrics, cropped(real, rule.crop)
    for metric in wanted or []:
        refuse_misfit(metric, fake, real, paired=paired, two_domains=two_domains)
    folder = cache_dir(rule.cache)
    extractor = None
    if wanted is None or FEATURES_NEEDED & set(wanted):
        features = rule.features if rule.features.get("_target_") else default_node(node["_target_"])
        extractor = build_extractor(features, labelled=labelled_sets(node, real), folder=folder, device=device)
        if extractor.dim == 0:  # one of the user's own says what it gives when it is used
            extractor(next(real.batches())[:2].to(device))
    own_classes = extractor is not None and extractor.name == "classifier" and extractor.num_classes == len(real.class_names)
    metrics = wanted or all_that_fit(extractor, fake, real, own_classes=own_classes, paired=paired, two_domains=two_domains)
    if wanted is None:  # nobody asked for what so few images cannot give
        metrics = [metric for metric in metrics if metric not in ("is", "prdc") or enough(metric, fake, real)]
    refuse_without_classes(metrics, fake, own_classes)
    refuse_too_few(metrics, fake, real)
    if "is" in metrics and extractor is not None and extractor.num_classes is None:
        raise ConfigError("the features come without class logits, which IS is made of", "metrics", "Leave is out")
    lpips, facts = load_lpips(rule.lpips, folder, paired) if "lpips" in metrics else (None, {})
    held_out = None
    unseen = {"train": "test", "test": "train"}.get(node.get("split", "all"))
    if "memorisation" in metrics and unseen is not None:
        held_out = cropped(of_dataset(build({**node, "split": unseen}, "dataset"), "held-out"), rule.crop)
    return Evaluation(
        metrics,
        real,
        extractor,
        device,
        folder,
        crop=rule.crop,
        paired=paired,
        own_classes=own_classes,
        lpips=None if lpips is None else lpips.to(device),
        lpips_facts=facts,
        training=training,
        held_out=held_out,
    )


def refuse_misfit(metric: str, fake: Images, real: Images, *, paired: bool, two_domains: bool) -> None:
    """What a metric needs of the images must be there.

    Raises:
        ConfigError: it is not.
    """
    todo = f"Leave {metric} out of metrics="
    if metric in TARGETS_NEEDED and not paired:
        raise ConfigError(f"{metric} compares images with their targets, and these have none", "metrics", todo)
    if metric == "ssim" and min(fake.shape[1:]) < SMALLEST_IMAGE:
        raise ConfigError(f"ssim needs images of {SMALLEST_IMAGE} pixels at least", "metrics", todo)
    if metric == "lpips" and two_domains:
        what = "lpips needs targets, or several samples from one condition, and these translations have neither"
        raise ConfigError(what, "metrics", todo)
    if metric == "memorisation" and (paired or two_domains):
        raise ConfigError("memorisation is measured of samples from noise", "metrics", todo)
    if metric in LABELS_NEEDED and real.labels is None:
        raise ConfigError(f"{metric} needs the classes of the real images, and the data set is unlabelled", "metrics", todo)
    if metric == "accuracy" and fake.labels is None:
        raise ConfigError("accuracy is the share of samples of the class asked for, and no class is", "metrics", todo)


def refuse_without_classes(metrics: Sequence[str], fake: Images, own_classes: bool) -> None:
    """Without labels of the samples the classifier of the data has to say which class they are.

    Raises:
        ConfigError: another extractor is used.
    """
    for metric in LABELS_NEEDED & set(metrics):
        if not own_classes and (metric != "fid_per_class" or fake.labels is None):
            todo = f"Set features=classifier, or leave {metric} out of metrics="
            raise ConfigError(f"{metric} needs a network that knows the classes of the data set", "features", todo)


def all_that_fit(
    extractor: Extractor | None, fake: Images, real: Images, *, own_classes: bool, paired: bool, two_domains: bool
) -> list[str]:
    """What is measured where nobody says."""
    if paired:
        return ["psnr", "ssim", "kid", "fid"]
    if two_domains:
        return ["kid", "fid"]
    chosen = ["fid", "kid", "is", "prdc"] if extractor is not None and extractor.num_classes else ["fid", "kid", "prdc"]
    if own_classes and real.labels is not None:
        chosen += ["classes"] if fake.labels is None else ["classes", "accuracy"]
    return chosen


def load_lpips(config: dict[str, Any], folder: Path, paired: bool) -> tuple[LPIPS, dict[str, Any]]:
    """LPIPS and what is to be said about it."""
    net = config["net"]
    trunk, trunk_hash = find_weights(TRUNKS[net], path=config["weights"], folder=folder, key="lpips.weights", instead=WITHOUT)
    linear, linear_hash = find_weights(LINEAR[net], path=config["linear"], folder=folder, key="lpips.linear", instead=WITHOUT)
    try:
        lpips = LPIPS(load_tensors(trunk), load_tensors(linear), net)
    except ValueError as error:
        todo = "Give the files that torchvision and the authors of LPIPS publish"
        raise DataError(f"the weights do not fit: {error}", f"lpips.net={net}", todo) from error
    return lpips.eval().requires_grad_(False), {
        "lpips": "distance to the target" if paired else "diversity: distance within pairs of samples",
        "lpips_net": f"{net}, v0.1",
        "lpips_trunk_hash": trunk_hash,
        "lpips_linear_hash": linear_hash,
        "lpips_resize": f"bilinear up to {LPIPS_SIZE} where smaller",
        "lpips_pairs": None if paired else LPIPS_PAIRS,
    }


def set_mode(run: Run, config: EvalConfig) -> None:
    """How a run that translates is used.

    Raises:
        ConfigError: ``direction`` or ``mode`` is for another kind of run.
    """
    if config.direction is not None and not (run.translates and run.task.directions):
        raise ConfigError("the run does not translate two ways", "direction", "Leave direction out")
    if config.mode is not None:
        if not isinstance(run.task, HasModes):
            raise ConfigError("the run has one mode only", "mode", "Leave mode out; it is for pix2pix models")
        run.task.sample_mode = config.mode
