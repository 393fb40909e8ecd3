"""Presets made tiny: everything of them but their size. Used by tests and by scripts/preset_weights.py."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import torch
from hydra import compose, initialize_config_module
from torch import Tensor

from gan_cli.config.plain import flatten
from gan_cli.config.training import TrainConfig, check

FOLDER = Path(__file__).parents[1] / "conf" / "experiment"
PRESETS = sorted(path.stem for path in FOLDER.glob("*.yaml"))


@cache
def config_of(*overrides: str) -> TrainConfig:
    """What gan-train makes of the overrides. Composed once, so it must not be changed."""
    with initialize_config_module("gan_cli.conf", version_base="1.3"):
        return check(compose("train", list(overrides)))


def composed(preset: str, *overrides: str) -> dict[str, Any]:
    return config_of(f"experiment={preset}", *overrides).as_dict()


def play(config: TrainConfig, steps: int = 1) -> tuple[Any, list[dict[str, float]]]:
    """Build a game and train it without a run directory. Returns it and the logs of each step."""
    from gan_cli.training.build import build_game
    from gan_cli.training.loop import train

    game, rows = build_game(config, None), []

    def after_step(logs: dict[str, Any]) -> bool:
        rows.append({key: float(value) for key, value in logs.items()})
        return True

    train(game, total_steps=steps, seed=config.seed, after_step=after_step)
    return game, rows


# What a key of a network becomes; one that is a copy of another (``b2a: ${.a2b}``) follows it.
TINY_NETWORKS: dict[str, Callable[[Any], str]] = {
    "width": lambda value: "4",
    "hidden": lambda value: "[8]" if isinstance(value, list) else "8",
    "blocks": lambda value: "1",
    "layers": lambda value: str(min(value, 2)),
}
TINY_CGAN = {
    "generator": {"hidden_z": 8, "hidden_y": 8, "hidden": 8},
    "discriminator": {"hidden_x": 8, "hidden_y": 8, "hidden": 8, "pieces_x": 2, "pieces_y": 2, "pieces": 2},
}
TINY_SIZES = {256: 16, 64: 16, 32: 16, 28: 8}


def tiny(preset: str, data_root: Path) -> list[str]:
    """Overrides that leave of a preset everything but its size."""
    config = composed(preset)
    dataset, loss = config["dataset"], config["loss"]
    made = ["threads=1", "precision=fp32", f"batch_size={min(config['batch_size'], 4)}"]
    for side in ("generator", "discriminator"):
        for key, value in flatten(config["model"][side]).items():
            last = key.rpartition(".")[2]
            if last in TINY_NETWORKS and key.split(".")[0] not in ("b2a", "b"):
                made.append(f"model.{side}.{key}={TINY_NETWORKS[last](value)}")
        if config["model"][side]["_target_"].startswith("gan_cli.networks.cgan."):
            made += [f"++model.{side}.{key}={value}" for key, value in TINY_CGAN[side].items()]
    if "pool_size" in config["model"]["task"]:
        made.append("model.task.pool_size=8")
    if "image_size" in dataset:
        size = TINY_SIZES[dataset["image_size"]]
        made.append(f"dataset.image_size={size}")
        if dataset.get("load_size") is not None:
            made.append(f"dataset.load_size={size * 9 // 8}")
    if "root" in dataset:
        made.append(f"dataset.root={data_root}")
    if "n" in dataset:
        made.append("dataset.n=200")
    if loss.get("n_critic", 1) > 2:
        made.append("loss.n_critic=2")
    if loss.get("warm_up") is not None:
        made += ["loss.warm_up.n_critic=3", "loss.warm_up.steps=4", "loss.warm_up.every=8"]
    return made


class Turns:
    """Plays single turns of a task as the loop does: neighbouring turns of both players in a step share what was made."""

    def __init__(self, task: Any) -> None:
        self.task, self.last, self.made = task, "", None

    def discriminator(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """A turn of D: its loss and its logs."""
        return self._play("discriminator", batch)

    def generator(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """A turn of G: its loss and its logs."""
        return self._play("generator", batch)

    def _play(self, name: Any, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        first = self.task.objective.first
        made = self.task.prepare(batch, name, self.made if self.last == first != name else None)
        loss = self.task.discriminator_loss if name == "discriminator" else self.task.generator_loss
        result: tuple[Tensor, dict[str, Tensor]] = loss(batch, made, self.task.objective.turn(0, 0, torch.device("cpu")))
        self.last, self.made = name, self.task.shared(made)
        return result


_turns: WeakKeyDictionary[Any, Turns] = WeakKeyDictionary()


def turns(task: Any) -> Turns:
    """The turns of a task: those that were played go before."""
    return _turns.setdefault(task, Turns(task))
