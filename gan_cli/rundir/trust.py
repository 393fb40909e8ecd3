"""What a run directory may hold and name: it is data that people exchange, and nothing in it may choose code."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import torch
from torch import nn

from gan_cli.config import schema
from gan_cli.config.plain import Node
from gan_cli.config.training import INJECTED
from gan_cli.ranges import ImageSize
from gan_cli.system.errors import CheckpointError, ConfigError, UntrustedError
from gan_cli.system.text import short

# What gan-sample and gan-eval may build to translate held-out images or compare with real ones.
DATASETS = frozenset(
    f"gan_cli.data.{name}"
    for name in (
        "paired.paired",
        "facades.facades",
        "facades.facades_unpaired",
        "unpaired.unpaired",
        "unpaired.cyclegan_set",
        "digit_styles.digits_paired",
        "digit_styles.digits_unpaired",
        "digits.digits",
        "idx.mnist",
        "idx.fashion_mnist",
        "idx.kmnist",
        "cifar10.cifar10",
        "image_folder.image_folder",
        "npz.npz",
    )
)
FEATURES = frozenset(f"gan_cli.metrics.{name}" for name in ("classifier.Classifier", "inception.Inception"))
PARTS = ("model.task", "model.generator")  # of a run's config that are built to draw from it
TRAINED = (*PARTS, "model.discriminator", "loss", "augment", "optimizer", "schedule", "dataset", "features")  # to train it anew
# Where a class or function must be defined that a run's config names, and those within it; a set: which it must be.
ALLOWED: dict[str, tuple[str, ...] | frozenset[str]] = {
    "model.task": ("gan_cli.tasks.",),
    "model.generator": ("gan_cli.networks.",),
    "model.discriminator": ("gan_cli.networks.",),
    "loss": ("gan_cli.objective.",),
    "augment": ("gan_cli.augment.",),
    "optimizer": ("gan_cli.optimizers.", "torch.optim."),
    "schedule": ("gan_cli.schedules.",),
    "dataset": DATASETS | {"gan_cli.data.points.points"},
    "features": FEATURES,
}
INNER: dict[str, tuple[str, ...]] = {
    **{part: allowed for part, allowed in ALLOWED.items() if isinstance(allowed, tuple)},
    "model.task": ("gan_cli.data.densities.",),
    "loss": ("gan_cli.losses.", "gan_cli.penalties.", "gan_cli.objective.", "gan_cli.schedules."),
    "optimizer": ("gan_cli.schedules.",),
    "dataset": ("gan_cli.data.densities.",),
    "features": (),
}
MOST_VALUES, MOST_TARGETS, DEEPEST = 10_000, 16, 16  # of a node in a run's config


def check_trusted(config: dict[str, Any], part: str) -> None:
    """Refuse a config from a run directory that could run code which is not part of gan_cli, or is no plain config.

    Only networks, tasks and data sets of the package may be named, each where it is due, and what counts is where they are
    defined: ``gan_cli.sample.os.system`` begins well and is refused all the same. Interpolations were resolved when the run
    began.

    Args:
        config: of the run. part: one of :data:`TRAINED`.

    Raises:
        UntrustedError: naming the class or value.
    """
    todo, targets = "Do not use this run", 0
    node: Any = config
    for name in part.split("."):
        node = node[name]
    for count, (place, key, value) in enumerate(_walk(node, part)):
        targets += key == "_target_"
        size = count + (len(value) if isinstance(value, dict | list) else 0)
        if size > MOST_VALUES or targets > MOST_TARGETS or place.count(".") > DEEPEST:
            raise UntrustedError("no run's config is as large or as deep as this", part, todo)
        if key == "_target_":
            _check_target(str(value), place, (ALLOWED if place == part else INNER)[part])
        elif str(key).startswith("_"):
            raise UntrustedError(f"the key {short(key)} is not allowed in a run's config", short(place, 200), todo)
        elif isinstance(value, str) and ("${" in value or value == "???"):
            raise UntrustedError(f"the value {short(value)} is not allowed in a run's config", short(place, 200), todo)


def _walk(node: Any, where: str) -> Iterator[tuple[str, Any, Any]]:
    """Everything in nested plain data: the place, the key there or None in a list, the value."""
    pending = [(where, None, node)]
    while pending:
        place, key, value = pending.pop()
        yield place, key, value
        if isinstance(value, dict):
            pending += [(f"{place}.{k}" if k != "_target_" else place, k, v) for k, v in value.items()]
        elif isinstance(value, list):
            pending += [(f"{place}.{k}", None, v) for k, v in enumerate(value)]


def _check_target(target: str, where: str, allowed: tuple[str, ...] | frozenset[str]) -> None:
    """``allowed``: in which modules it may be defined, or what it may be."""
    if isinstance(allowed, frozenset):
        if target in allowed:
            return
    elif target.startswith(allowed):
        try:
            found = schema.locate(target)
        except (ImportError, AttributeError):
            found = None
        ours = f"{getattr(found, '__module__', '')}.".startswith(allowed)
        if ours and _is_kind(found, where):
            return
    todo = "If you know whose code that is, add trust=true"
    raise UntrustedError(f"the run uses {short(target, 80)}, which is not part of gan_cli", short(where, 200), todo)


def _is_kind(found: Any, where: str) -> bool:
    """Networks, tasks and densities are modules; from torch come optimizers only."""
    if where.startswith(("model.", "dataset")):
        return isinstance(found, type) and issubclass(found, nn.Module)
    if found.__module__.startswith("torch."):
        return isinstance(found, type) and issubclass(found, torch.optim.Optimizer)
    return callable(found)


def is_trusted(config: dict[str, Any], dataset: bool) -> bool:
    """Whether sampling from a run with this config needs no ``trust=true``. ``dataset``: from its own images."""
    try:
        for part in (*PARTS, "dataset") if dataset else PARTS:
            check_trusted(config, part)
    except UntrustedError:
        return False
    return True


def checked(info: dict[str, Any], trust: bool) -> tuple[dict[str, Node], bool]:
    """The nodes of a run's task and generator, and whether all they name is part of gan_cli, so that they are checked.

    Raises:
        CheckpointError: something is missing, or out of range. UntrustedError: they name classes of somebody's own.
    """
    todo = "Use another step="
    try:
        config, names = info["config"], info["class_names"]
        kinds = [(info["images"], int), (info["data"], str), (config["total_steps"], int), (names, list)]
        nodes = {key: config["model"][key] for key in ("task", "generator")}
        kinds += [(config["dataset"]["_target_"], str), *((node["_target_"], object) for node in nodes.values())]
    except (KeyError, TypeError) as error:
        raise CheckpointError(f"the checkpoint does not say what it is of: {error} is missing", "state.json", todo) from error
    if not all(isinstance(value, kind) for value, kind in kinds) or not all(isinstance(name, str) for name in names):
        raise CheckpointError("the checkpoint does not say in plain words what it is of", "state.json", todo)
    if trust and not is_trusted(config, dataset=False):
        return nodes, False
    for part in PARTS:
        check_trusted(config, part)
    nodes = {key: valid(node, f"model.{key}") for key, node in nodes.items()}
    for key in ("latent_dim", "num_classes"):
        if nodes["task"].get(key) != nodes["generator"].get(key):
            raise CheckpointError(f"the run's task and generator do not have the same {key}", f"model.task.{key}", todo)
    if len(names) > (nodes["task"].get("num_classes") or len(names)):
        raise CheckpointError(f"there are {len(names)} names for fewer classes", "state.json", todo)
    if "pool_size" in nodes["task"]:
        nodes["task"]["pool_size"] = 0  # of images that only the training needs
    return nodes, True


def valid(node: Node, where: str) -> Node:
    """A node of a run's config whose arguments are of the types and in the ranges that gan-train would allow.

    Raises:
        CheckpointError: naming the key.
    """
    try:
        return schema.check(node, where, INJECTED)
    except ConfigError as error:
        what = f"the run's config: {short(error.what, 300)}"
        raise CheckpointError(what, short(error.where, 200), "Use the version that made it") from error


def own_dataset(config: dict[str, Any], trust: bool) -> Node:
    """Of the images that a run was trained on, as it may be built. Of a stranger's run it downloads and creates nothing.

    Raises:
        UntrustedError, CheckpointError: it may not be.
    """
    node: Node = config["dataset"]
    if trust:
        return node
    check_trusted(config, "dataset")
    node = {key: value for key, value in valid(node, "dataset").items() if key != "memory_gb"}
    return {**node, "download": False} if "download" in (schema.parameters(node["_target_"]) or {}) else node


def fitting(config: dict[str, Any]) -> Node:
    """``image_size``, ``channels`` and ``fit`` of the images that a run was trained on, where they are said and in range."""
    kinds = {"image_size": ImageSize, "channels": Literal[1, 3], "fit": Literal["pad", "resize", "crop"]}
    data = config["dataset"]
    plain = {key: data[key] for key in kinds if isinstance(data.get(key), int | str)}  # what else could name a class
    try:
        return {key: schema.convert(value, kinds[key], f"dataset.{key}") for key, value in plain.items()}
    except ConfigError as error:
        raise CheckpointError(f"the run's config: {error.what}", error.where, "Use the version that made it") from error
