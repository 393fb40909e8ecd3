"""Everything a run trains with, built from its config and its checkpoint."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import nn

from gan_cli.compute import processes
from gan_cli.compute.device import choose_device, default_threads, to_device
from gan_cli.compute.layers import has_convolutions
from gan_cli.config.build import build
from gan_cli.config.training import TrainConfig, optimizer_node
from gan_cli.data.batches import Batches
from gan_cli.data.dataset import ImageDataset, TranslationDataset
from gan_cli.objective import PlayerName
from gan_cli.randomness import seed_everything
from gan_cli.rundir.checkpoint import Checkpoint
from gan_cli.training.checks import data_change, refuse_batch_norm, refuse_batch_of_one, refuse_wrong_data, refuse_wrong_shapes
from gan_cli.training.compiling import choose_compile, compile_game
from gan_cli.training.game import Game, Machine
from gan_cli.training.loop import Player, Progress
from gan_cli.training.settings import build_average, build_optimizer
from gan_cli.training.state import restore

SIDES: tuple[PlayerName, ...] = ("generator", "discriminator")
MAX_AUTO_WORKERS = 8  # worker processes at most when workers is null


def load_dataset(config: TrainConfig) -> ImageDataset | TranslationDataset:
    """The training set; rank 0 goes first, since it may download."""
    with processes.first_goes_first():
        dataset: ImageDataset | TranslationDataset = build(config.dataset, "dataset")
    return dataset


def build_game(config: TrainConfig, saved: Checkpoint | None, dataset: ImageDataset | TranslationDataset | None = None) -> Game:
    """Networks, optimizers, data and their state: that of ``saved``, or a new one that depends on the seed only.

    ``dataset``: the training set, if it is loaded already.
    """
    device, threads = choose_device(config.device), choose_threads(config.threads, saved)
    torch.set_num_threads(threads)
    task, networks = build_task(config, device)
    precision, precision_reason = processes.from_first(choose_precision(config.precision, device, task, saved))
    ema = build_average(task.generator, config.ema)
    players = build_players(config, task, networks, torch.bfloat16 if precision == "bf16" else torch.float32)
    refuse_batch_of_one(task, config.batch_size // processes.world())
    if dataset is None:
        dataset = load_dataset(config)
    refuse_wrong_data(task, dataset)
    refuse_wrong_shapes(task, dataset, device)
    progress, changes = Progress(), []
    if saved is not None:
        changes = [*saved.info.get("changes", []), *data_change(saved, dataset.fingerprint, config.allow_change)]
        progress = Progress(saved.step, int(saved.info["images"]))
        restore(task, ema, players, saved, model=config.model, optimizer=config.optimizer)
    for module in (task, ema.average):
        processes.copy_from_first(module)
    if config.sync_batch_norm:
        processes.synchronise_batch_norm(task, device)
    order = partial(
        Batches, dataset, batch_size=config.batch_size, seed=config.seed, device=device,
        rank=processes.rank(), world=processes.world(),
    )  # fmt: skip
    workers = min(threads, MAX_AUTO_WORKERS) if config.workers is None else config.workers
    batches = order(position=progress.images, workers=workers)
    sharing = processes.describe(task, device, config.batch_size)
    compiled, compile_reason = choose_compile(config.compile, device, saved)
    if compiled:
        sample = order()
        try:
            first, second = SIDES if task.objective.first == "generator" else SIDES[::-1]
            movers = (players[first], players[second])
            compiled, problem = compile_game(task, movers, next(sample), forced=config.compile is True)
        finally:
            sample.close()
        compile_reason = problem or compile_reason
    return Game(
        task=task,
        generator=players["generator"],
        discriminator=players["discriminator"],
        ema=ema,
        batches=batches,
        progress=progress,
        dataset=dataset,
        examples=task.examples(dataset, config.seed, device),
        machine=Machine(device, threads, precision, precision_reason, compiled, compile_reason, sharing),
        changes=changes,
    )


def build_task(config: TrainConfig, device: torch.device) -> tuple[Any, dict[PlayerName, nn.Module]]:
    """The task and the networks of its two players."""
    networks: dict[PlayerName, nn.Module] = {}
    for side in SIDES:
        seed_everything(config.seed, "init", side)
        networks[side] = to_device(build(config.model[side], f"model.{side}"), device)
    augment = build(config.augment, "augment") if config.augment is not None else None
    objective = build(config.loss, "loss", augment=augment)
    refuse_batch_norm(objective, networks["discriminator"])
    return build(config.model["task"], "model.task", **networks, objective=objective).to(device), networks


def build_players(
    config: TrainConfig, task: Any, networks: dict[PlayerName, nn.Module], precision: torch.dtype
) -> dict[PlayerName, Player]:
    """Both players, each with its optimizer."""
    schedule = build(config.schedule, "schedule")
    players = {}
    for side, network in networks.items():
        optimizer, settings = build_optimizer(optimizer_node(config.optimizer, side), network.parameters())
        players[side] = Player(
            name=side,
            task=task,
            network=network,
            optimizer=optimizer,
            settings=settings,
            schedule=schedule,
            constraint=task.objective.constraint if side == "discriminator" else None,
            precision=precision,
        )
    return players


def choose_threads(threads: int | None, saved: Checkpoint | None) -> int:
    """The number of CPU threads: as set, else as recorded for the same number of processes, else the default."""
    if threads is not None:
        return threads
    if saved is not None and saved.info["machine"].get("processes", 1) == processes.world():
        return int(saved.info["machine"]["threads"]) or default_threads()
    return default_threads()


def choose_precision(precision: str, device: torch.device, task: nn.Module, saved: Checkpoint | None) -> tuple[str, str]:
    """``fp32`` or ``bf16``, and the reason. ``auto`` keeps the recorded precision, else takes bf16 where it is faster."""
    if precision != "auto":
        return precision, "as set"
    if saved is not None and saved.info["machine"]["device"] == str(device):
        return str(saved.info["machine"]["precision"]), "as the run began"
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        checks = (getattr(torch.cpu, n, None) for n in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
        native = device.type == "cpu" and any(check() for check in checks if check is not None)
    if not native:
        return "fp32", f"the {device.type} has no bf16 arithmetic"
    if not has_convolutions(task):
        return "fp32", "the networks have no convolutions to speed up"
    return "bf16", "faster for convolutions here; precision=fp32 forces the other"
