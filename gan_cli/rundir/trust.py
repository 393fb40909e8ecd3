"""Checks of untrusted runs: a run directory is data that people exchange, and must not choose code."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from gan_cli.config import groups, schema
from gan_cli.config.groups import Kind
from gan_cli.config.plain import Node
from gan_cli.ranges import Fit, GreyOrRGB, ImageSize
from gan_cli.system.errors import CheckpointError, ConfigError, UntrustedError
from gan_cli.system.text import short

DRAWN = tuple(part.key for part in groups.PARTS if part.draws)  # keys of the nodes that sampling builds
TRAINED = tuple(part.key for part in groups.PARTS)  # keys of the nodes that from_run= builds
DATASET_TYPES = ("ImageDataset", "ArrayDataset", "TranslationDataset")  # return annotations of data set functions


def check_trusted(config: dict[str, Any], key: str) -> None:
    """Refuse a config that names code outside gan_cli, or that is not resolved.

    Each node may name only its kind of class, such as a network. The module that defines the class counts, so that
    ``gan_cli.sample.os.system`` is refused.

    Args:
        config: config of the run. key: key of the node, one of :data:`TRAINED`.

    Raises:
        UntrustedError: naming the class or value.
    """
    todo, part = "Do not use this run", groups.BY_KEY[key]
    node: Any = config
    for name in key.split("."):
        node = node.get(name) if part.optional else node[name]
    for place, name, value in _walk(node, key):
        if name == "_target_":
            outer = place == key
            _check_target(str(value), place, part.modules if outer else part.inner, part.kind if outer else part.inner_kind)
        elif str(name).startswith("_"):
            raise UntrustedError(f"the key {short(name)} is not allowed in a run's config", short(place, 200), todo)
        elif isinstance(value, str) and ("${" in value or value == "???"):
            raise UntrustedError(f"the value {short(value)} is not allowed in a run's config", short(place, 200), todo)


def _walk(node: Any, where: str) -> Iterator[tuple[str, Any, Any]]:
    """All values in nested plain data, each with its place and its key; the key is None in a list."""
    pending = [(where, None, node)]
    while pending:
        place, key, value = pending.pop()
        yield place, key, value
        if isinstance(value, dict):
            pending += [(f"{place}.{k}" if k != "_target_" else place, k, v) for k, v in value.items()]
        elif isinstance(value, list):
            pending += [(f"{place}.{k}", None, v) for k, v in enumerate(value)]


def _check_target(target: str, where: str, modules: tuple[str, ...], kind: Kind) -> None:
    """Refuse a target that is not defined in one of ``modules``, or is not of this kind."""
    found = None
    if _is_in(target, modules):
        try:
            found = schema.locate(target)
        except (ImportError, AttributeError):
            found = None
    defined = f"{getattr(found, '__module__', '')}.{getattr(found, '__qualname__', '')}"
    if not (_is_in(defined, modules) and _is_kind(found, kind)):
        todo = "If you know whose code that is, add trust=true"
        raise UntrustedError(f"the run uses {short(target, 80)}, which is not part of gan_cli", short(where, 200), todo)


def _is_in(name: str, modules: tuple[str, ...]) -> bool:
    return any(name.startswith(module) if module.endswith(".") else name == module for module in modules)


def _is_kind(found: Any, kind: Kind) -> bool:
    """Whether a class or function is of this kind. A class of torch must be an optimizer."""
    if kind == "module":
        return isinstance(found, type) and issubclass(found, nn.Module)
    if kind == "dataset":  # a public function that is declared to return one
        name, returned = getattr(found, "__qualname__", "_"), getattr(found, "__annotations__", {}).get("return")
        return inspect.isfunction(found) and "." not in name and not name.startswith("_") and returned in DATASET_TYPES
    return callable(found) and (not found.__module__.startswith("torch.") or _is_optimizer(found))


def _is_optimizer(found: Any) -> bool:
    return isinstance(found, type) and issubclass(found, torch.optim.Optimizer)


def is_trusted(config: dict[str, Any], dataset: bool) -> bool:
    """Whether sampling from a run with this config needs no ``trust=true``. ``dataset``: its data set is needed too."""
    try:
        for part in (*DRAWN, "dataset") if dataset else DRAWN:
            check_trusted(config, part)
    except UntrustedError:
        return False
    return True


def checked(info: dict[str, Any], trust: bool) -> tuple[dict[str, Node], bool]:
    """The nodes of a run's task and generator, and whether they passed the checks of untrusted runs.

    Raises:
        CheckpointError: a value is missing or out of range. UntrustedError: a node names another class, without ``trust``.
    """
    todo = "Use another step="
    try:
        config, names = info["config"], info["class_names"]
        kinds = [(info["images"], int), (info["data"], str), (config["total_steps"], int), (names, list)]
        nodes = {key: config["model"][key] for key in ("task", "generator")}
        kinds += [(config["dataset"]["_target_"], str), *((node["_target_"], object) for node in nodes.values())]
    except (KeyError, TypeError) as error:
        raise CheckpointError(f"the checkpoint lacks {error}", "state.json", todo) from error
    if not all(isinstance(value, kind) for value, kind in kinds) or not all(isinstance(name, str) for name in names):
        raise CheckpointError("the state of the checkpoint is not of the right types", "state.json", todo)
    if trust and not is_trusted(config, dataset=False):
        return nodes, False
    for part in DRAWN:
        check_trusted(config, part)
    nodes = {key: valid(node, f"model.{key}") for key, node in nodes.items()}
    for key in ("latent_dim", "num_classes"):
        if nodes["task"].get(key) != nodes["generator"].get(key):
            raise CheckpointError(f"the run's task and generator do not have the same {key}", f"model.task.{key}", todo)
    if len(names) > (nodes["task"].get("num_classes") or len(names)):
        raise CheckpointError(f"there are {len(names)} names for fewer classes", "state.json", todo)
    if "pool_size" in nodes["task"]:
        nodes["task"]["pool_size"] = 0  # images, for training only
    return nodes, True


def valid(node: Node, where: str) -> Node:
    """Check a node of a run's config against the types and ranges of gan-train.

    Raises:
        CheckpointError: naming the key.
    """
    try:
        return schema.check(node, where, groups.BY_KEY[where].injected)
    except ConfigError as error:
        what = f"the run's config: {short(error.what, 300)}"
        raise CheckpointError(what, short(error.where, 200), "Use the version that made it") from error


def own_dataset(config: dict[str, Any], trust: bool) -> Node:
    """The node of a run's data set. Without ``trust`` it downloads and creates nothing.

    Raises:
        UntrustedError, CheckpointError: the node is refused.
    """
    node: Node = config["dataset"]
    if trust:
        return node
    check_trusted(config, "dataset")
    node = {key: value for key, value in valid(node, "dataset").items() if key != "memory_gb"}
    return {**node, "download": False} if "download" in (schema.parameters(node["_target_"]) or {}) else node


def fitting(config: dict[str, Any]) -> Node:
    """``image_size``, ``channels``, ``fit`` and ``background`` of a run's training images, if its config has them.

    Raises:
        CheckpointError: one is out of range.
    """
    kinds = {"image_size": ImageSize, "channels": GreyOrRGB, "fit": Fit, "background": str}
    data = config["dataset"]
    plain = {key: data[key] for key in kinds if isinstance(data.get(key), int | str)}  # others could name a class
    try:
        return {key: schema.convert(value, kinds[key], f"dataset.{key}") for key, value in plain.items()}
    except ConfigError as error:
        raise CheckpointError(f"the run's config: {error.what}", error.where, "Use the version that made it") from error
