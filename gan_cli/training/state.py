"""The state of a run, converted to and from the content of a checkpoint."""

from __future__ import annotations

import logging
import platform
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from gan_cli.config.plain import Node
from gan_cli.config.training import optimizer_node
from gan_cli.objective import PlayerName
from gan_cli.rundir.checkpoint import Checkpoint, TensorGroups
from gan_cli.rundir.reload import load_state
from gan_cli.system.errors import CheckpointError
from gan_cli.system.version import __version__, commit
from gan_cli.training.ema import EMA
from gan_cli.training.game import Game
from gan_cli.training.loop import Player

log = logging.getLogger("gan_cli")


# The plain data of a checkpoint that a run needs to resume.
NEEDED: dict[str, type] = {
    "images": int,
    "skipped.generator": int,
    "skipped.discriminator": int,
    "optimizer_scalars.generator": dict,
    "optimizer_scalars.discriminator": dict,
    "machine.threads": int,
    "machine.device": str,
    "machine.precision": str,
    "machine.compiled": bool,
    "data": str,
    "changes": list,
    "tensors": dict,
    "config.total_steps": int,
    "config.log_every": int,
    "config.sample_every": int,
    "config.save_every": int,
    "config.model": dict,
    "config.optimizer": dict,
    "config.schedule": dict,
}
NO_MOMENTS = ("lr", "betas", "eps", "weight_decay")  # settings that do not affect the format of an optimizer's state


def snapshot(game: Game) -> tuple[TensorGroups, dict[str, Any]]:
    """The state of the run without its config, as tensors and plain data."""
    groups: TensorGroups = {"generator": {}, "discriminator": {}, "task": {}}
    for key, tensor in game.task.state_dict().items():
        side, _, rest = key.partition(".")
        if side in ("generator", "discriminator"):
            groups[side][rest] = tensor
        else:
            groups["task"][key] = tensor
    groups["generator_ema"] = game.ema.average.state_dict()
    scalars = {}
    for side, player in (("generator", game.generator), ("discriminator", game.discriminator)):
        groups[f"optimizer_{side}"], scalars[side] = optimizer_state(player)
    info = {
        "images": game.progress.images,
        "skipped": {"generator": int(game.generator.skipped), "discriminator": int(game.discriminator.skipped)},
        "optimizer_scalars": scalars,
        "machine": game.machine.facts(),
        "data": game.dataset.fingerprint,
        "class_names": list(game.dataset.class_names),
        "changes": game.changes,
        "versions": {"gan_cli": __version__, "commit": commit(), "python": platform.python_version()},
    }
    return groups, info


def restore(
    task: nn.Module, ema: EMA, players: Mapping[PlayerName, Player], saved: Checkpoint, *, model: Node, optimizer: Node
) -> None:
    """Restore the state from :func:`snapshot`. ``model``, ``optimizer``: nodes of the config of the resumed run.

    Raises:
        CheckpointError: the checkpoint belongs to other networks or optimizers.
    """
    groups, where = saved.tensors, f"checkpoint of step {saved.step}"
    try:
        nested = {f"{group}.{k}": v for group in ("generator", "discriminator") for k, v in groups[group].items()}
        load_state(task, {**nested, **groups.get("task", {})}, where)
        load_state(ema.average, groups["generator_ema"], where)
        for side, player in players.items():
            player.skipped.fill_(int(saved.info["skipped"][side]))
            then, now = (optimizer_node(node, side) for node in (saved.info["config"]["optimizer"], optimizer))
            if has_same_moments(then, now):
                load_optimizer(player, groups.get(f"optimizer_{side}", {}), saved.info["optimizer_scalars"][side])
            else:
                log.info("note: the %s has another optimizer than before, which starts without state", side)
    except CheckpointError as error:
        if saved.info["config"]["model"] == model:
            raise
        todo = "Networks of another shape need another run_dir="
        raise CheckpointError(error.what, where, todo) from error
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        what = f"the checkpoint does not hold what the run needs: {type(error).__name__} {error}"
        raise CheckpointError(what, where, "Use the version that made it, or another run_dir=") from error


def refuse_incomplete(saved: Checkpoint) -> None:
    """Refuse a checkpoint without all plain data of :func:`snapshot`, for example of an older version.

    Raises:
        CheckpointError: with the missing key.
    """
    for key, kind in NEEDED.items():
        value: Any = saved.info
        for part in key.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        least = 1 if key.startswith("config.") else 0
        if type(value) is not kind or (isinstance(value, int) and not least <= value < 2**53):
            what = f"the checkpoint does not say {key} as this version does"
            raise CheckpointError(what, f"step {saved.step}", "Use the version that made it, or another run_dir=")
    there = {group: sorted(tensors) for group, tensors in saved.tensors.items()}
    best = saved.info.get("best", "missing")
    if saved.info["tensors"] != there or not (best is None or (isinstance(best, dict) and isinstance(best.get("step"), int))):
        what = "the checkpoint does not hold all that was saved"
        raise CheckpointError(what, f"step {saved.step}", "Use the version that made it, or another run_dir=")
    for group, tensors in saved.tensors.items():
        lost = [key for key, tensor in tensors.items() if tensor.is_floating_point() and not tensor.isfinite().all()]
        if lost:
            what = f"the checkpoint holds a value that is not finite: {group} {lost[0]}"
            raise CheckpointError(what, f"step {saved.step}", "Use another step, or another run_dir=")


def has_same_moments(then: Node, now: Node) -> bool:
    """Return whether two configs give optimizers with the same format of state."""
    a, b = ({key: value for key, value in node.items() if key not in NO_MOMENTS} for node in (then, now))
    return a == b


def optimizer_state(player: Player) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The optimizer's tensors and its other values, both with keys ``<parameter>.<name>``."""
    values = {
        f"{name}.{key}": value
        for name, parameter in player.network.named_parameters()
        for key, value in player.optimizer.state.get(parameter, {}).items()
    }
    tensors = {k: v for k, v in values.items() if isinstance(v, Tensor)}
    return tensors, {k: v for k, v in values.items() if k not in tensors}


def load_optimizer(player: Player, tensors: dict[str, Tensor], scalars: dict[str, Any]) -> None:
    """Restore an optimizer from :func:`optimizer_state`."""
    names = {name: k for k, (name, _) in enumerate(player.network.named_parameters())}
    state: dict[int, dict[str, Any]] = {}
    for full, value in {**tensors, **scalars}.items():
        name, _, key = full.rpartition(".")
        state.setdefault(names[name], {})[key] = value
    player.optimizer.load_state_dict({**player.optimizer.state_dict(), "state": state})
    for parameter, entry in player.optimizer.state.items():
        for key, value in entry.items():  # fused kernels need moments in the memory format of the weights
            if isinstance(value, Tensor) and value.dim() > 0:
                if value.shape != parameter.shape:
                    raise ValueError(f"a moment of shape {tuple(value.shape)} for weights of {tuple(parameter.shape)}")
                entry[key] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
