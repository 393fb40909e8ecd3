"""The images that gan-eval measures, from a run, a folder or an npz file, and their reference."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gan_cli.config.build import build
from gan_cli.config.plain import Node
from gan_cli.data.dataset import TranslationDataset
from gan_cli.evaluation.image_sets import Sampler, of_dataset
from gan_cli.evaluation.references import (
    Reference,
    describe,
    given_by,
    node_of_path,
    node_of_run,
    refuse_other_shape,
    same_classes,
    with_split,
)
from gan_cli.evaluation.rule import Comparison
from gan_cli.protocols import DrawsPoints
from gan_cli.rundir.reload import Run, chosen_direction, draw_options
from gan_cli.system.errors import ConfigError

log = logging.getLogger("gan_cli")


@dataclass(frozen=True)
class Case:
    """Images, their reference, and the names of both for messages and files.

    Attributes:
        title: description of the images. reference: description of the reference.
        folder: default folder of the result. name: file name of the result, without the id of the protocol.
        owner: prefix of the file name in any other folder, which may hold results of several runs.
        protocol: the part of the protocol that describes how the images were made.
    """

    images: Comparison
    title: str
    reference: str
    folder: Path
    name: str
    protocol: dict[str, Any]
    owner: str = ""


def of_run(run: Run, sampler: Sampler, n: int, reference: Reference, *, trust: bool) -> Case:
    """``n`` samples of a run, or translations of held-out images.

    Raises:
        GanError: the reference does not fit.
    """
    images = compared(run, sampler, n, reference, node_of_run(run.config, reference, trust))
    return Case(
        images,
        title=f"{run.run_dir}, step {run.step:,} ({run.images:,} images), {'EMA' if run.ema else 'raw'} weights",
        reference=describe(images.node, images.split),
        folder=run.run_dir / "evaluations",
        name=f"step-{run.step:08d}",
        protocol={
            **sampler.facts(run.ema),
            "step": run.step,
            "images": run.images,
            "checkpoint_hash": run.weights_hash,
        },
        owner=f"{run.run_dir.resolve().name}-{run.weights_hash[:8]}-",
    )


def sampler_of(
    run: Run, seed: int, batch_size: int, direction: str | None, mode: str | None, truncation: float | None
) -> Sampler:
    """The generator of a run with the options of conf/eval.yaml that have the names of these arguments.

    Raises:
        ConfigError: the run makes points, or ``direction``, ``mode`` or ``truncation`` is for another kind of run.
    """
    if isinstance(run.task, DrawsPoints):
        todo = "Its distance from the data is logged while it trains: metric/... in metrics.jsonl"
        raise ConfigError("the run makes points, not images", str(run.run_dir), todo)
    direction = chosen_direction(run, direction, mode)
    options = draw_options(run.generator, truncation=truncation)
    return Sampler(run.task, run.generator, run.device, seed, batch_size, direction, options)


def compared(run: Run, sampler: Sampler, n: int, reference: Reference, node: Node) -> Comparison:
    """``n`` images of a run and their reference, the data set of ``node``.

    Raises:
        GanError: the reference does not fit the run.
    """
    if run.translates:
        for key in ("num_real", "split"):
            if getattr(reference, key) is not None:
                raise ConfigError("the held-out images are the reference of translations", key, "Leave it out")
    part, split = (node, None) if run.translates else with_split(node, reference.split)
    with given_by(reference.path_key):
        dataset = build(part, "dataset")
    if run.translates != isinstance(dataset, TranslationDataset):
        what = "the run makes images from noise, and the reference has pairs or domains"
        if run.translates:
            what = "the run translates images, and the reference has no sources"
        raise ConfigError(what, reference.key, "Leave it out")
    if reference.is_own and split in (None, node.get("split", "all")) and dataset.fingerprint != run.data:
        log.warning("warning: the data set has changed since the run was trained on it")
    if split is None:
        fake, real = sampler.translations(dataset, n)
        return Comparison(fake, real, node, real.what, kind="pairs" if sampler.direction is None else "domains")
    fake, real = sampler.from_noise(n), of_dataset(dataset, "reference", reference.num_real)
    refuse_other_shape(fake, real)
    training = (lambda: dataset if part == node else build(node, "dataset")) if reference.is_own else None
    return Comparison(fake, real, node, split, training=training)


def of_files(fake: str, n: int, image_size: int | None, reference: Reference) -> Case:
    """At most ``n`` of the images in a folder or an npz file, scaled to ``image_size`` if it is given.

    Raises:
        GanError: files cannot be read, or the reference does not fit.
    """
    ours, native = node_of_path(fake, "fake", image_size)
    if reference.real is not None:
        node, _ = node_of_path(reference.real, "real", image_size)
        ours["channels"] = node["channels"] = max(ours["channels"], node["channels"])
    else:
        node = dict(reference.dataset or {})
        if image_size is not None and "image_size" in node:
            node["image_size"] = image_size
        ours["fit"] = node.get("fit", "resize")  # the fit of the reference
    part, split = with_split(node, reference.split)
    with given_by("fake"):
        made = build(ours, "fake")
    with given_by(reference.path_key):
        dataset = build(part, "dataset")
    if isinstance(dataset, TranslationDataset) or len(dataset.shape) != 3:
        raise ConfigError("the reference is not a set of single images", "dataset", "Choose another one")
    samples, real = of_dataset(made, "generated", n), of_dataset(dataset, "reference", reference.num_real)
    if not same_classes(samples.class_names, real.class_names):  # folders that are not the classes of the data
        samples = replace(samples, labels=None, class_names=())
    refuse_other_shape(samples, real)
    path = Path(fake).expanduser().resolve()
    return Case(
        Comparison(samples, real, node, split, training=lambda: dataset if part == node else build(node, "dataset")),
        title=f"{fake}, {samples.n:,} images",
        reference=reference.real or describe(node, split),
        folder=Path("outputs/evaluations"),
        name=f"{path.stem if path.is_file() else path.name}-{made.fingerprint[:8]}",
        protocol={
            "samples_native": native,
            "samples_fit": ours["fit"],
            "samples_hash": made.fingerprint,
            "samples_path": fake,
        },
    )
