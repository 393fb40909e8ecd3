"""The config of a run, checked before any data is read or file created."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import Any, Literal

from omegaconf import DictConfig, OmegaConf

from gan_cli.config import groups, schema
from gan_cli.config.metrics import VALUES, Metric
from gan_cli.config.names import nearest
from gan_cli.config.plain import Node, flatten, to_plain
from gan_cli.ranges import Count, Fraction, NonNegative, Positive, PositiveInt, Seed
from gan_cli.system.errors import ConfigError

# Keys that may differ when a run is resumed. All others must stay.
MAY_CHANGE = frozenset(
    [
        "run_dir",
        "device",
        "threads",
        "compile",
        "workers",
        "total_steps",
        "log_every",
        "print_rows",
        "sample_every",
        "save_every",
        "keep_checkpoints",
        "milestones",
        "max_skipped_updates",
        "allow_change",
        "max_hours",
        "optimized_metric",
        "eval_every",
        "metrics",
        "num_samples",
        "gif",
        "deviations",
        *groups.MAY_CHANGE,
    ]
)
# Keys of gan-train that are not part of the run's own config: they name another run, or stand for total_steps.
BEGINNING = ("from_run", "trust", "epochs")


@dataclass(frozen=True)
class EMAConfig:
    """See :class:`gan_cli.training.ema.EMA`; ``half_life`` in images."""

    half_life: NonNegative | schema.Built  # a number, or the node of a schedule
    ramp_up: Fraction


@dataclass(frozen=True)
class ModelConfig:
    """The nodes of the two networks and of the task that trains them."""

    task: dict[str, Any]
    generator: dict[str, Any]
    discriminator: dict[str, Any]


@dataclass(frozen=True)
class TrainConfig:
    """The whole config of a run. conf/train.yaml documents each key. Groups are plain ``_target_`` nodes."""

    run_dir: str | None
    seed: Seed
    device: Literal["auto", "cpu", "cuda", "mps"]
    precision: Literal["auto", "fp32", "bf16"]
    compile: Literal["auto", True, False]
    threads: PositiveInt | None
    total_steps: PositiveInt
    batch_size: PositiveInt
    workers: Count | None
    sync_batch_norm: bool
    log_every: PositiveInt
    print_rows: bool
    sample_every: PositiveInt
    save_every: PositiveInt
    keep_checkpoints: PositiveInt
    milestones: list[PositiveInt]
    max_skipped_updates: PositiveInt
    allow_change: list[str]
    max_hours: Positive | None
    optimized_metric: str | None
    eval_every: PositiveInt | None
    metrics: list[Metric] | None
    num_samples: PositiveInt
    features: dict[str, Any]
    gif: bool
    deviations: list[str]
    ema: dict[str, Any]
    model: dict[str, Any]
    loss: dict[str, Any]
    augment: dict[str, Any] | None
    dataset: dict[str, Any]
    optimizer: dict[str, Any]
    schedule: dict[str, Any]

    def as_dict(self) -> dict[str, Any]:
        """The config as plain data, the form that a checkpoint holds."""
        return asdict(self)


def optimizer_node(optimizer: Node, player: str) -> Node:
    """The optimizer node of ``generator`` or ``discriminator``; ``optimizer.discriminator`` overrides values of D's."""
    shared = {k: v for k, v in optimizer.items() if k != "discriminator"}
    return shared if player == "generator" else {**shared, **(optimizer.get("discriminator") or {})}


def check(cfg: DictConfig) -> TrainConfig:
    """Check a composed config: types, ranges, unknown keys and impossible combinations.

    Raises:
        ConfigError: a value is wrong; names the key, the value and what is allowed.
    """
    plain = to_plain(cfg)
    try:
        return check_plain(plain)
    except ConfigError as error:
        raise _with_origin(error, cfg) from None


def check_plain(plain: dict[str, Any]) -> TrainConfig:
    """Check a config in plain data, such as the one in a checkpoint. See :func:`check`."""
    if "experiment" in plain:
        todo = "Begin it with the line '# @package _global_'"
        raise ConfigError("the YAML of the experiment is not a global one", "experiment", todo)
    _refuse_no_classes(plain)
    own = {key: value for key, value in plain.items() if key not in BEGINNING}
    if (own.get("augment") or {}).get("_target_") is None:  # augment=none, or a run of an older version
        own["augment"] = None
    top = schema.check_fields(own, TrainConfig, words=flatten(plain))
    top["ema"] = schema.check_fields(top["ema"], EMAConfig, "ema.")
    top["model"] = schema.check_fields(top["model"], ModelConfig, "model.")
    for part in groups.PARTS:
        section, name = (top["model"], part.key.removeprefix("model.")) if part.group == "model" else (top, part.key)
        section[name] = _optimizer(section[name]) if part.key == "optimizer" else check_node(section[name], part.key)
    _combinations(top)
    return TrainConfig(**top)


def _refuse_no_classes(plain: dict[str, Any]) -> None:
    """Refuse a class-conditional network on a data set without a number of classes."""
    generator = flatten(plain.get("model", {})).get("generator.num_classes", 1)
    if generator is None:
        raise ConfigError(
            "the model is class-conditional, and the data set has no classes",
            "dataset.num_classes",
            "Choose a labelled data set and, where it is null, set dataset.num_classes to the number of its classes",
        )


def check_node(value: Any, key: str, where: str | None = None) -> Any:
    """Check the node of one of :data:`gan_cli.config.groups.PARTS`. An optional node without a ``_target_`` stays empty.

    Args:
        value: plain data. key: of the part. where: key for messages, by default ``key``.

    Raises:
        ConfigError: there is no ``_target_``, or an argument is wrong.
    """
    part, where = groups.BY_KEY[key], where or key
    if part.optional and (value is None or (isinstance(value, dict) and value.get("_target_") is None)):
        return None if value is None else {}
    if not isinstance(value, dict) or "_target_" not in value:
        raise ConfigError("there is no _target_ to build", where, f"Choose an option of the group: {where}=NAME")
    return schema.check(value, where, part.injected)


def _optimizer(node: Node) -> Node:
    """Check the optimizer node for both players."""
    if not isinstance(node.get("discriminator"), dict | None):
        schema.convert(node["discriminator"], dict[str, Any] | None, "optimizer.discriminator")
    generator = _player_optimizer(optimizer_node(node, "generator"), "optimizer")
    discriminator = _player_optimizer(optimizer_node(node, "discriminator"), "optimizer.discriminator")
    return {**generator, "discriminator": {k: discriminator[k] for k in node.get("discriminator") or {}}}


def _player_optimizer(node: Node, where: str) -> Node:
    """Check the optimizer node of a player. Any setting may be the node of a schedule."""
    ramps = {key: value for key, value in node.items() if isinstance(value, dict) and "_target_" in value}
    numbers = {key: value for key, value in node.items() if key not in ramps}
    checked = {key: schema.check(value, f"{where}.{key}") for key, value in ramps.items()}
    return {**check_node(numbers, "optimizer", where), **checked}


def _combinations(top: dict[str, Any]) -> None:
    keys = [".".join(key.split(".")[:k]) for key in flatten(top) for k in range(1, key.count(".") + 2)]
    for name in top["allow_change"]:
        if name != "data" and name not in keys:
            near = nearest(name, keys).strip() or "Name keys or groups, such as [optimizer.lr], or data"
            raise ConfigError(f"there is no key {name!r} that could change", "allow_change", near)
    if top["eval_every"] is not None and top["eval_every"] > top["total_steps"]:
        what = f"there would be no evaluation in {top['total_steps']} steps"
        raise ConfigError(what, f"eval_every={top['eval_every']}", f"Set eval_every={top['total_steps']} or less")
    if top["optimized_metric"] in VALUES:
        what = f"the run logs no {top['optimized_metric']!r}"
        raise ConfigError(what, "optimized_metric", f"Did you mean: metric/{top['optimized_metric']}?")
    evaluated = str(top["optimized_metric"]).removeprefix("metric/") in VALUES
    if evaluated and top["eval_every"] is None:
        todo = f"Set eval_every={top['total_steps']}, or less"
        raise ConfigError(f"{top['optimized_metric']} is measured only if there are evaluations", "optimized_metric", todo)
    if str(top["optimized_metric"]).startswith("metric/") and not evaluated and top["sample_every"] > top["total_steps"]:
        raise ConfigError(
            f"{top['optimized_metric']} is measured every {top['sample_every']} steps, so never in {top['total_steps']}",
            "optimized_metric and sample_every",
            f"Set sample_every={top['total_steps']} or less",
        )
    needed = top["loss"].get("critic_norm", "batch")
    if top["loss"].get("penalty") is not None and needed != "batch" and top["model"]["discriminator"].get("norm") == "batch":
        raise ConfigError(
            "a penalty defined sample by sample cannot be used with batch norm in the critic, which mixes samples",
            f"loss.critic_norm={needed} and model.discriminator.norm=batch",
            f"Set model.discriminator.norm={needed}",
        )
    classes = top["model"]["task"].get("num_classes")
    known = top["dataset"].get("num_classes")
    if classes is not None and known is not None and classes != known:
        raise ConfigError(
            f"the model has {classes} classes, the data set {known}",
            "model.task.num_classes and dataset.num_classes",
            "Set model.task.num_classes=${dataset.num_classes}",
        )


def _with_origin(error: ConfigError, cfg: DictConfig) -> ConfigError:
    """Add the key that a value was interpolated from, which is the one to change."""
    raw: Any = OmegaConf.to_container(cfg, resolve=False)
    for part in error.where.split("."):
        raw = raw.get(part) if isinstance(raw, dict) else None
    if isinstance(raw, str) and re.fullmatch(r"\$\{\w[\w.]*\}", raw):
        source = raw[2:-1]
        return ConfigError(error.what, f"{error.where}, from {source}", error.todo.replace(error.where, source))
    return error
