"""Configs as plain data: conversion, flattening, comparison."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from gan_cli.system.errors import ConfigError

Node = dict[str, Any]  # a `_target_` and its arguments


def to_plain(cfg: DictConfig) -> dict[str, Any]:
    """Convert a composed config to plain data and resolve its interpolations.

    Raises:
        ConfigError: an interpolation has no target, or a mandatory value is missing.
    """
    try:
        plain = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        key = error.full_key or "configuration"
        if type(error).__name__ == "MissingMandatoryValue":
            raise ConfigError("a value is needed", key, f"Set {key}=VALUE") from error
        message = str(error.msg or error).split("\n")[0]
        lacking = re.search(r"Interpolation key 'dataset\.(\w+)' not found", message)
        if lacking:
            todo = "This data set is for model=points"
            if lacking[1] in ("dim", "density"):
                todo = "With this model use dataset=mixture_1d, ring or gaussian_grid"
            what = f"the model needs dataset.{lacking[1]}, and this data set has none"
            raise ConfigError(what, key, todo) from error
        raise ConfigError(message, key, "Correct the ${...} reference") from error
    assert isinstance(plain, dict)
    _refuse_odd_keys(plain, "")
    return {str(k): v for k, v in plain.items()}


def _refuse_odd_keys(node: Any, path: str) -> None:
    for key, value in node.items() if isinstance(node, dict) else []:
        if not isinstance(key, str):
            raise ConfigError(
                f"the key {key!r} is not a name", f"{path}{key}", "Keys are names of arguments: put quotes around it"
            )
        _refuse_odd_keys(value, f"{path}{key}.")


def to_yaml(plain: dict[str, Any]) -> str:
    """Plain data as YAML text."""
    return OmegaConf.to_yaml(OmegaConf.create(plain))


def flatten(node: Any, prefix: str = "") -> dict[str, Any]:
    """Nested plain data as ``{"optimizer.lr": 2e-4, ...}``."""
    if isinstance(node, dict) and node:
        return {k: v for name, child in node.items() for k, v in flatten(child, f"{prefix}.{name}" if prefix else name).items()}
    return {prefix: node}


def differences(old: dict[str, Any], new: dict[str, Any]) -> dict[str, str]:
    """The differences between two configs: ``{"optimizer.lr": "0.0002 -> 0.001", ...}``."""
    a, b = flatten(old), flatten(new)
    missing = "(missing)"
    return {
        key: f"{a.get(key, missing)} -> {b.get(key, missing)}"
        for key in sorted(a.keys() | b.keys())
        if a.get(key) != b.get(key)  # null equals a missing key: older versions lack it
    }


def is_among(key: str, names: Collection[str]) -> bool:
    """Whether ``names`` contains a key or a section that holds it."""
    parts = key.split(".")
    return any(".".join(parts[:k]) in names for k in range(1, len(parts) + 1))
