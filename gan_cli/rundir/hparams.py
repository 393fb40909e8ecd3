"""What TensorBoard's HParams tab shows of a run: its hyper-parameters, its metrics, and how it ended."""

from __future__ import annotations

import re
import shlex
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tensorboard.compat.proto.event_pb2 import Event  # type: ignore[import-untyped]
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata  # type: ignore[import-untyped]
from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2  # type: ignore[import-untyped]
from tensorboard.summary.writer.record_writer import RecordWriter  # type: ignore[import-untyped]
from torch.utils.tensorboard.summary import hparams

from gan_cli.config import groups
from gan_cli.config.plain import Node, flatten, is_among
from gan_cli.config.training import BEGINNING, MAY_CHANGE, optimizer_node
from gan_cli.system.files import atomic_file
from gan_cli.system.text import snake_case

# As conf/loss calls what these classes make together.
LOSSES = {
    "least_squares": "lsgan",
    "wasserstein+weight_clip": "wgan",
    "wasserstein+gradient_penalty": "wgan_gp",
    "non_saturating+r1": "r1",
}
USUAL = {"model", "dataset", "loss", "optimizer.lr", "seed"}  # come first where a directory's name does not say what differs


def values(config: Node, command: str = "") -> dict[str, str | float]:
    """Hyper-parameters by name: the ones that every run has, and what its command sets that decides the result.

    Of groups the option is told as it was typed, else the name of the class that it stands for.
    """
    flat, told = flatten(config), names(config)
    named = frozenset(told)
    for player, prefix in (("generator", "optimizer"), ("discriminator", "optimizer.discriminator")):
        node = optimizer_node(config["optimizer"], player)
        numbers = {key: value for key, value in node.items() if not isinstance(value, dict)}  # and no schedules
        told[f"{prefix}.lr"] = numbers.get("lr")
        told |= {f"{prefix}.beta{k}": beta for k, beta in enumerate(numbers.get("betas") or [], 1)}
    for key in ("seed", "loss.n_critic", "batch_size", "total_steps", "ema.half_life"):
        told[key] = flat.get(key)
    for word in shlex.split(command):
        key, given, value = word.lstrip("+").partition("=")
        counts = key not in told and not is_among(key, {*MAY_CHANGE, *BEGINNING, "sweep", "launcher"})
        if given and re.fullmatch(r"\w+(\.\w+)*", key) and (counts or key in named):
            told[key] = flat.get(key, value)
    return {
        key: float(value) if isinstance(value, int | float) and not isinstance(value, bool) else str(value)
        for key, value in told.items()
        if value is not None
    }


def names(config: dict[str, Any]) -> dict[str, Any]:
    """``model``, ``dataset``, ``loss`` and ``optimizer`` in short, by their classes: ``dcgan``, ``digits``, ``wgan_gp``.

    Other parts that are set and have ``in_hparams`` follow, by the name of their class.
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
    """The metrics to show: those evaluated and the two losses, or else all that was logged but the clock's and skips."""
    losses = ["d/loss", "g/loss"]
    own = [key for key in logged if key not in ("step", "images", *losses) and not re.match("time/|[dg]/skipped$", key)]
    return [*(f"metric/{name}" for name in evaluated), *losses] if evaluated else [*losses, *own]


def beginning(told: Mapping[str, str | float], metrics: Iterable[str], name: str = "") -> list[Summary]:
    """A session with these hyper-parameters, and which metrics to put beside them, in their order.

    ``name``: of the run's directory. What it says differs between runs, ``loss=hinge,seed=0``, comes before the rest.
    """
    experiment, session, _ = hparams(dict(told), dict.fromkeys(metrics, 0.0))  # type: ignore[no-untyped-call]
    swept = {part.partition("=")[0] for part in name.split(",")} & told.keys() or USUAL
    shown = metadata.parse_experiment_plugin_data(experiment.value[0].metadata.plugin_data.content)
    for info in shown.hparam_infos:
        info.differs = info.name in swept
    return [_summary(metadata.EXPERIMENT_TAG, experiment=shown), session]


def write(path: Path, summaries: Iterable[Summary]) -> None:
    """An event file of these, in the place of an earlier one, whole or not at all."""
    now = time.time()
    events = [Event(wall_time=now, file_version="brain.Event:2")]
    events += [Event(wall_time=now, summary=summary) for summary in summaries]
    with atomic_file(path) as file:
        records = RecordWriter(file)
        for event in events:
            records.write(event.SerializeToString())


def ending(success: bool) -> Summary:
    """How the session ended."""
    status = api_pb2.STATUS_SUCCESS if success else api_pb2.STATUS_FAILURE
    return _summary(metadata.SESSION_END_INFO_TAG, session_end_info=plugin_data_pb2.SessionEndInfo(status=status))


def _summary(tag: str, **content: Any) -> Summary:
    data = plugin_data_pb2.HParamsPluginData(version=metadata.PLUGIN_DATA_VERSION, **content)
    plugin = SummaryMetadata.PluginData(plugin_name=metadata.PLUGIN_NAME, content=data.SerializeToString())
    return Summary(value=[Summary.Value(tag=tag, metadata=SummaryMetadata(plugin_data=plugin))])
