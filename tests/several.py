"""Trainings by several processes, forked from this one: torchrun takes seconds to start them."""

from __future__ import annotations

import logging
import multiprocessing
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch._dynamo  # a training imports it, in 3 seconds: forked processes have it from here
from torch import Tensor

from gan_cli.app.commands import Command
from gan_cli.compute import processes
from gan_cli.config.training import TrainConfig
from gan_cli.randomness import seed_step
from gan_cli.training import loop, session

TIMEOUT_S = 120


def in_ranks(work: Callable[[int], None], world: int = 2) -> None:
    """Call ``work(rank)`` in ``world`` processes with the environment that torchrun gives them."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]

    def run(rank: int) -> None:
        several = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "LOCAL_WORLD_SIZE": world}
        os.environ |= {key: str(value) for key, value in (several | {"MASTER_ADDR": "localhost", "MASTER_PORT": port}).items()}
        torch.set_num_threads(1)
        work(rank)

    ranks = [multiprocessing.get_context("fork").Process(target=run, args=(rank,)) for rank in range(world)]
    try:
        for process in ranks:
            process.start()
        for process in ranks:
            process.join(TIMEOUT_S)
        assert [process.exitcode for process in ranks] == [0] * world
    finally:
        for process in ranks:
            process.kill()


def joined(work: Callable[[int], None]) -> Callable[[int], None]:
    """``work`` among processes that are connected."""

    def run(rank: int) -> None:
        with processes.joined(lambda: torch.device("cpu")):
            work(rank)

    return run


def train(config: TrainConfig, run_dir: Path) -> dict[str, np.ndarray]:
    """Train in this process; return all weights and buffers."""
    games, build = [], session.build_game

    def keep(*args: Any) -> Any:
        games.append(build(*args))
        return games[-1]

    session.build_game = keep
    session.log.setLevel(logging.INFO)  # for train.log
    try:
        session.run(config, run_dir, run_dir.name, Command(()))
    finally:
        session.build_game = build
    parts = {"task": games[0].task, "average": games[0].ema.average}
    return {f"{name}.{key}": value.numpy() for name, part in parts.items() for key, value in part.state_dict().items()}


def train_in_ranks(config: TrainConfig, run_dir: Path, *, given_noise: bool = False) -> list[dict[str, np.ndarray]]:
    """Train by two processes; return the weights and buffers of each.

    ``given_noise``: each process takes its rows of what one process would draw for the whole batch.
    """

    def work(rank: int) -> None:
        if given_noise:
            take_rows_of_one_process(rank, 2)
        np.savez(f"{run_dir}.{rank}.npz", **train(config, run_dir))

    in_ranks(work)
    return [dict(np.load(f"{run_dir}.{rank}.npz")) for rank in range(2)]


def take_rows_of_one_process(rank: int, world: int) -> None:
    """Let torch.rand, randn and randint give this rank its rows of what one process would draw."""

    def rows_of(draw: Callable[..., Tensor], position: int) -> Callable[..., Tensor]:
        def drawn(*args: Any, **options: Any) -> Tensor:
            if options.get("generator") is not None or not processes.world() > 1:
                return draw(*args, **options)
            size = args[position]
            rows = (size[0] * world, *size[1:]) if isinstance(size, tuple) else size * world
            return draw(*args[:position], rows, *args[position + 1 :], **options).chunk(world)[rank]

        return drawn

    loop.seed_step = lambda seed, step, rank: seed_step(seed, step, 0)  # type: ignore[attr-defined]
    torch.rand, torch.randn = rows_of(torch.rand, 0), rows_of(torch.randn, 0)  # type: ignore[assignment]
    torch.randint = rows_of(torch.randint, 1)  # type: ignore[assignment]
