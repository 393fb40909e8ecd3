"""A run in TensorBoard's HParams tab: its hyper-parameters, its metrics, and how it ended.

``SummaryWriter.add_hparams`` is not enough: it marks a run as successful when it begins, and makes a directory per run.
"""

from __future__ import annotations

import re
import shlex
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tensorboard.compat.proto.event_pb2 import Event  # type: ignore[import-untyped]
from tensorboard.compat.proto.summary_pb2 import Summary  # type: ignore[import-untyped]
from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2  # type: ignore[import-untyped]
from tensorboard.summary.writer.record_writer import RecordWriter  # type: ignore[import-untyped]
from torch.utils.tensorboard.summary import hparams

from gan_cli.config import groups
from gan_cli.config.plain import Node, flatten, is_among
from gan_cli.config.training import BEGINNING, MAY_CHANGE, optimizer_node
from gan_cli.system.files import atomic_file
from gan_cli.system.text import snake_case

# Names of conf/loss for classes that are used together.
LOSSES = {
    "least_squares": "lsgan",
    "wasserstein+weight_clip": "wgan",
    "wasserstein+gradient_penalty": "wgan_gp",
    "non_saturating+r1": "r1",
}
DEFAULT_FIRST = {"model", "dataset", "loss", "optimizer.lr", "seed"}  # shown first if the directory's name holds no key


def values(config: Node, command: str = "") -> dict[str, str | float]:
    """Hyper-parameters by name: those that every run has, and those that its command sets, if they change the result.

    Config groups have the option of the command line, or the class name if the command has none.
    """
    flat, shown = flatten(config), names(config)
    groups_shown = frozenset(shown)
    for player, prefix in (("generator", "optimizer"), ("discriminator", "optimizer.discriminator")):
        node = optimizer_node(config["optimizer"], player)
        numbers = {key: value for key, value in node.items() if not isinstance(value, dict)}  # dicts are schedules
        shown[f"{prefix}.lr"] = numbers.get("lr")
        shown |= {f"{prefix}.beta{k}": beta for k, beta in enumerate(numbers.get("betas") or [], 1)}
    for key in ("seed", "loss.n_critic", "batch_size", "total_steps", "ema.half_life"):
        shown[key] = flat.get(key)
    for word in shlex.split(command):
        key, given, value = word.lstrip("+").partition("=")
        counts = key not in shown and not is_among(key, {*MAY_CHANGE, *BEGINNING, "sweep", "launcher"})
        if given and re.fullmatch(r"\w+(\.\w+)*", key) and (counts or key in groups_shown):
            shown[key] = flat.get(key, value)
    return {
        key: float(value) if isinstance(value, int | float) and not isinstance(value, bool) else str(value)
        for key, value in shown.items()
        if value is not None
    }


def names(config: dict[str, Any]) -> dict[str, Any]:
    """Short names of ``model``, ``dataset``, ``loss`` and ``optimizer`` by their classes: ``dcgan``, ``digits``, ``wgan_gp``.

    Other parts with ``in_hparams`` that are set follow, by the name of their class.
    """
    generator, loss = config["model"]["generator"], config["loss"]
    module, _, name = generator.get("a2b", generator)["_target_"].rpartition(".")
    terms = (loss.get("regularisers") or {}).values()
    parts = [*(loss.get(part) for part in ("adversarial", "constraint", "penalty")), *terms]
    losses = [snake_case(_class_name(node["_target_"])) for node in parts if node]
    objective = "+".join(losses) or snake_case(_class_name(loss["_target_"]))
    special = {
        "model": module.rpartition(".")[2] + ("" if name == "Generator" else f".{name}"),
        "dataset": config["dataset"]["_target_"].rpartition(".")[2],
        "loss": LOSSES.get(objective, objective),
        "optimizer": config["optimizer"]["_target_"].rpartition(".")[2],
    }
    nodes = {part.group: config.get(part.group) for part in groups.PARTS if part.in_hparams and part.group not in special}
    return special | {group: snake_case(_class_name(node["_target_"])) for group, node in nodes.items() if node}


def _class_name(target: str) -> str:
    return target.rpartition(".")[2]


def columns(logged: Iterable[str], evaluated: Iterable[str] = ()) -> list[str]:
    """The metrics to show: those evaluated and the two losses, or else all logged ones except times and skipped updates."""
    losses = ["d/loss", "g/loss"]
    own = [
        key for key in logged if key not in ("step", "images", "epoch", *losses) and not re.match("time/|[dg]/skipped$", key)
    ]
    return [*(f"metric/{name}" for name in evaluated), *losses] if evaluated else [*losses, *own]


def beginning(values: Mapping[str, str | float], metrics: Iterable[str], name: str = "") -> list[Summary]:
    """The start of a session with these hyper-parameters, and the metrics to show with them, in this order.

    ``name``: of the run's directory. Keys in it, as in ``loss=hinge,seed=0``, differ between runs and come first.
    """
    experiment, session, _ = hparams(dict(values), dict.fromkeys(metrics, 0.0))  # type: ignore[no-untyped-call]
    swept = {part.partition("=")[0] for part in name.split(",")} & values.keys() or DEFAULT_FIRST
    shown = metadata.parse_experiment_plugin_data(experiment.value[0].metadata.plugin_data.content)
    for info in shown.hparam_infos:
        info.differs = info.name in swept
    return [_summary(metadata.EXPERIMENT_TAG, experiment=shown), session]


def write(path: Path, summaries: Iterable[Summary]) -> None:
    """Write an event file, atomically, in the place of an earlier one."""
    with atomic_file(path) as file:
        records = RecordWriter(file)
        records.write(Event(wall_time=time.time(), file_version="brain.Event:2").SerializeToString())
        for summary in summaries:
            records.write(Event(wall_time=time.time(), summary=summary).SerializeToString())


def ending(success: bool) -> Summary:
    """The end of a session."""
    status = api_pb2.STATUS_SUCCESS if success else api_pb2.STATUS_FAILURE
    return _summary(metadata.SESSION_END_INFO_TAG, session_end_info=plugin_data_pb2.SessionEndInfo(status=status))


def _summary(tag: str, **content: Any) -> Summary:
    data = plugin_data_pb2.HParamsPluginData(**content)
    return Summary(value=[Summary.Value(tag=tag, metadata=metadata.create_summary_metadata(data))])
