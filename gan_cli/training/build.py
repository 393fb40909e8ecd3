"""Everything a run trains with: built from its config, taken apart for a checkpoint, put together again from one."""

from __future__ import annotations

import logging

import torch
from torch import nn

from gan_cli.compute import processes
from gan_cli.compute.device import choose_device, default_threads, to_device
from gan_cli.compute.layers import has_convolutions
from gan_cli.config.build import build
from gan_cli.config.training import TrainConfig, optimizer_node
from gan_cli.data.batches import Batches
from gan_cli.objective import PlayerName
from gan_cli.randomness import seed_everything
from gan_cli.rundir.checkpoint import Checkpoint
from gan_cli.training.checks import data_change, refuse_batch_norm, refuse_wrong_data, refuse_wrong_shapes
from gan_cli.training.compiling import choose_compile, compile_game
from gan_cli.training.game import Game
from gan_cli.training.loop import Player, Progress
from gan_cli.training.settings import build_average, build_optimizer
from gan_cli.training.state import restore

SIDES: tuple[PlayerName, ...] = ("generator", "discriminator")
log = logging.getLogger("gan_cli")
MOST_WORKERS = 8  # that are started without being asked for


def build_game(config: TrainConfig, saved: Checkpoint | None) -> Game:
    """Networks, optimizers, data and their state: that of ``saved``, or a new one that depends on the seed only."""
    device = choose_device(config.device)
    alike = saved is not None and saved.info["machine"].get("processes", 1) == processes.world()
    threads = config.threads or (saved is not None and alike and int(saved.info["machine"]["threads"])) or default_threads()
    torch.set_num_threads(threads)
    networks: dict[PlayerName, nn.Module] = {}
    for side in SIDES:
        seed_everything(config.seed, "init", side)
        networks[side] = to_device(build(config.model[side], f"model.{side}"), device)
    augment = build(config.augment, "augment") if config.augment is not None else None
    objective = build(config.loss, "loss", augment=augment)
    refuse_batch_norm(objective, networks["discriminator"])
    task = build(config.model["task"], "model.task", **networks, objective=objective).to(device)
    precision, reason = processes.from_first(choose_precision(config.precision, device, task, saved))
    ema = build_average(task.generator, config.ema)
    schedule = build(config.schedule, "schedule")
    optimizers = {s: build_optimizer(optimizer_node(config.optimizer, s), networks[s].parameters()) for s in networks}
    players = {
        side: Player(
            name=side,
            task=task,
            network=networks[side],
            optimizer=optimizers[side][0],
            settings=optimizers[side][1],
            schedule=schedule,
            constraint=objective.constraint if side == "discriminator" else None,
            precision=torch.bfloat16 if precision == "bf16" else torch.float32,
        )
        for side in networks
    }
    with processes.first_goes_first():  # it may download
        dataset = build(config.dataset, "dataset")
    refuse_wrong_data(task, dataset)
    refuse_wrong_shapes(task, dataset, device)
    progress, changes = Progress(), []
    if saved is not None:
        changes = [*saved.info.get("changes", []), *data_change(saved, dataset.fingerprint, config.allow_change)]
        progress = Progress(saved.step, int(saved.info["images"]))
        restore(task, ema, players, saved, config)
    for module in (task, ema.average):
        processes.make_alike(module)
    together = processes.prepare(task, batch_size=config.batch_size, sync_batch_norm=config.sync_batch_norm)
    batches = Batches(
        dataset, batch_size=config.batch_size, seed=config.seed, device=device, position=progress.images,
        workers=min(threads, MOST_WORKERS) if config.workers is None else config.workers,
        rank=processes.rank(), world=processes.world(),
    )  # fmt: skip
    compiled, compile_reason = choose_compile(config.compile, device, saved)
    if compiled:
        movers = (players["discriminator"], players["generator"])
        sample = Batches(
            dataset, batch_size=config.batch_size, seed=config.seed, device=device,
            rank=processes.rank(), world=processes.world(),
        )  # fmt: skip
        try:
            compiled, problem = compile_game(
                task,
                movers if objective.first == "discriminator" else (movers[1], movers[0]),
                next(sample),
                forced=config.compile is True,
            )
        finally:
            sample.close()
        compile_reason = problem or compile_reason
    return Game(
        task=task,
        generator=players["generator"],
        discriminator=players["discriminator"],
        ema=ema,
        batches=batches,
        dataset=dataset,
        examples=task.examples(dataset, config.seed, device),
        progress=progress,
        device=device,
        threads=threads,
        precision=precision,
        precision_reason=reason,
        compiled=compiled,
        compile_reason=compile_reason,
        changes=changes,
        processes=together,
    )


def choose_precision(precision: str, device: torch.device, task: nn.Module, saved: Checkpoint | None) -> tuple[str, str]:
    """``fp32`` or ``bf16``, and why. ``auto`` keeps what the run began with, else takes bf16 where it pays."""
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
