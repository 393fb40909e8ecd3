"""The config of ``gan-eval``, checked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from gan_cli.app import entry
from gan_cli.config import schema
from gan_cli.config.metrics import Metric
from gan_cli.config.training import check_node
from gan_cli.ranges import Finite, ImageSize, PositiveInt, Seed
from gan_cli.system.errors import ConfigError


@dataclass(frozen=True)
class LPIPSConfig:
    """The network of LPIPS and the files of its weights; None: downloaded."""

    net: Literal["alex", "vgg", "squeeze"]
    weights: str | None
    linear: str | None


@dataclass(frozen=True)
class EvalConfig:
    """The whole config of ``gan-eval``; conf/eval.yaml documents each key."""

    run_dir: str | None
    fake: str | None
    real: str | None
    dataset: dict[str, Any] | None
    features: dict[str, Any]
    metrics: list[Metric] | None
    num_samples: PositiveInt
    num_real: PositiveInt | None
    split: Literal["train", "test"] | None
    seed: Seed
    step: str
    ema: bool
    direction: Literal["a2b", "b2a"] | None
    mode: Literal["paper", "eval"] | None
    truncation: Finite | None
    crop: PositiveInt | None
    image_size: ImageSize | None
    root: str | None
    lpips: dict[str, Any]
    protocol: str
    batch_size: PositiveInt
    device: Literal["auto", "cpu", "cuda", "mps"]
    threads: PositiveInt | None
    cache: str | None
    output: str | None
    trust: bool


def chosen_protocol() -> tuple[str | None, list[str]]:
    """The option of the group, and the keys that the command line sets."""
    from hydra.core.hydra_config import HydraConfig

    hydra = HydraConfig.get()
    return hydra.runtime.choices.get("protocol"), [o.split("=")[0].lstrip("+~") for o in entry.task_overrides(hydra)]


def check(plain: dict[str, Any], protocol: str | None = None, overridden: Sequence[str] = ()) -> EvalConfig:
    """The composed config with its types, ranges and combinations checked.

    Args:
        plain: the composed config. protocol: the named protocol, if there is one. overridden: keys of the command line.

    Raises:
        ConfigError: naming the key, the value and what is allowed.
    """
    plain.pop("total_steps", None)  # dataset=digits sets it for gan-train
    plain.setdefault("dataset", None)  # Hydra omits a group without a chosen option
    plain["protocol"] = protocol or "default"
    fields = schema.check_fields(plain, EvalConfig)
    for key in overridden if protocol is not None else ():
        if key.split(".")[0] in ("features", "num_samples", "num_real", "split", "crop") and key != "features.weights":
            raise ConfigError(f"protocol={protocol} fixes this key", key, f"Leave {key} out, or protocol=")
    fields["lpips"] = schema.check_fields(fields["lpips"], LPIPSConfig, "lpips.")
    fields["features"] = check_node(fields["features"], "features")
    if fields["dataset"] is not None:
        fields["dataset"] = schema.check(fields["dataset"], "dataset")
    config = EvalConfig(**fields)
    refuse_combinations(config)
    return config


def refuse_combinations(config: EvalConfig) -> None:
    """Refuse keys that do not go together.

    Raises:
        ConfigError: naming them.
    """
    for key in ("run_dir", "fake", "real"):
        if getattr(config, key) == "":
            raise ConfigError("a path is needed", key, f"Set {key}=PATH, or leave it out")
    of_run, other = config.run_dir is not None, config.real is not None or config.dataset is not None
    for wrong, what, where, todo in (
        (not of_run and config.fake is None, "there is nothing to measure", "run_dir and fake", "Set run_dir= or fake="),
        (of_run and config.fake is not None, "a run and other images at a time", "run_dir and fake", "Leave one out"),
        (config.metrics == [], "there is nothing to measure", "metrics", "Set metrics=fid,kid, or leave it out"),
        (config.real and config.dataset, "two references at a time", "real and dataset", "Leave one out"),
        (config.root is not None and (other or not of_run), "root is for the run's own data set", "root", "Leave root out"),
        (not of_run and not other, "there is no reference", "real", "Set real=FOLDER_OR_NPZ or dataset=NAME"),
        (of_run and config.image_size, "a run has its own image size", "image_size", "Leave it out; it is for fake="),
    ):
        if wrong:
            raise ConfigError(what, where, todo)
    for key in ("direction", "mode", "truncation"):
        if not of_run and getattr(config, key) is not None:
            raise ConfigError("this is for runs", key, f"Leave {key} out with fake=")
