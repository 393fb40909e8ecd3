"""Settings that may follow a schedule over the images seen: those of optimizers, and the half-life of the average."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from gan_cli.config.build import build
from gan_cli.config.plain import Node
from gan_cli.objective import Schedule
from gan_cli.schedules import is_schedule
from gan_cli.system.errors import ConfigError
from gan_cli.training.ema import EMA


def build_optimizer(node: Node, params: Iterable[nn.Parameter]) -> tuple[torch.optim.Optimizer, dict[str, Schedule]]:
    """Build the optimizer of a config node, and the schedules of its settings by name.

    Raises:
        ConfigError: the optimizer does not support a change of a setting that has a schedule.
    """
    schedules: dict[str, Schedule] = {k: build(v, f"optimizer.{k}") for k, v in node.items() if is_schedule(v)}
    start = {key: schedule(0) for key, schedule in schedules.items()}
    optimizer: torch.optim.Optimizer = build({**node, **start}, "optimizer", params=params)
    for key in schedules:
        if key not in optimizer.param_groups[0]:
            raise ConfigError(f"{key} cannot change while training", f"optimizer.{key}", "Give it a number")
    return optimizer, schedules


def build_average(network: nn.Module, ema: dict[str, Any]) -> EMA:
    """Build the average of a network from the section ``ema`` of the config."""
    return EMA(network, **{key: build(value, f"ema.{key}") if is_schedule(value) else value for key, value in ema.items()})
