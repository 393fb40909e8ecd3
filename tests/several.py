"""What tests/test_distributed.py runs in one process and in several, to compare what came out.

    torchrun --nproc-per-node 2 tests/several.py runs.json two

``runs.json`` holds ``{name: overrides}``. Each run goes to ``<name>-two``; what rank k was shown in it and the state it ended
with go to ``<name>-two.<k>.npz``, what the layers did to ``layers-two.<k>.npz``.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra import compose, initialize_config_module
from torch import nn

from gan_cli.app.commands import Command
from gan_cli.compute import processes
from gan_cli.config.training import check
from gan_cli.data.batches import Batches
from gan_cli.system.errors import ConfigError
from gan_cli.training import session

ROWS = 8  # of a whole batch


def train_all(runs: dict[str, list[str]], suffix: str) -> None:
    """Run them in the current directory, in as many processes as this is one of."""
    following, building = Batches.__next__, session.build_game
    kept: dict[str, Any] = {}

    def record(self: Batches) -> dict[str, Any]:
        batch = following(self)
        kept.update({f"{len(kept):05d}.{key}": values.cpu().numpy() for key, values in batch.items()})
        return batch

    def build(*args: Any) -> Any:
        kept["game"] = building(*args)
        return kept["game"]

    Batches.__next__, session.build_game = record, build  # type: ignore[method-assign]
    session.log.setLevel(logging.INFO)
    try:
        for name, overrides in runs.items():
            with initialize_config_module("gan_cli.conf", version_base="1.3"):
                config = check(compose("train", overrides))
            kept.clear()
            session.run(config, Path(f"{name}-{suffix}"), name, Command(()))
            game = kept.pop("game")
            for part, module in (("task", game.task), ("average", game.ema.average)):
                kept.update({f"{part}.{key}": value.numpy() for key, value in module.state_dict().items()})
            np.savez(f"{name}-{suffix}.{os.environ.get('RANK', 0)}.npz", **kept)
    finally:
        Batches.__next__, session.build_game = following, building  # type: ignore[method-assign]


class Layers(nn.Module):
    """Batch norm of each kind, and dropout on flat and on channels-last maps."""

    def __init__(self) -> None:
        super().__init__()
        self.maps = nn.Sequential(
            *[nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.5)],
            *[nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8, affine=False, momentum=None), nn.Dropout(0.3)],
        )
        self.flat = nn.Sequential(nn.Flatten(), nn.Linear(128, 16), nn.BatchNorm1d(16, eps=1e-3), nn.Dropout(0.5))
        self.last = nn.Sequential(nn.Linear(16, 4), nn.BatchNorm1d(4, track_running_stats=False), nn.Linear(4, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.last(self.flat(self.maps(x)))
        return logits


def layers(suffix: str) -> None:
    """Two updates' worth of forward and backward passes, one of them with real and fake joined."""
    with processes.joined(lambda: torch.device("cpu")):
        torch.set_num_threads(1)
        torch.manual_seed(0)
        network = Layers().to(memory_format=torch.channels_last)
        real, fake = (torch.randn(ROWS, 3, 8, 8).to(memory_format=torch.channels_last) for _ in range(2))
        processes.prepare(network, batch_size=ROWS, sync_batch_norm=True)
        kept = {}
        for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
            torch.manual_seed(1)
            network.zero_grad()
            with processes.together():
                joint = torch.cat([processes.part(real), processes.part(fake)])
                joint.requires_grad_(True)
                with torch.autocast("cpu", dtype, enabled=name == "bf16"):
                    logits = network(joint).float()
                loss = logits.square().mean() + logits.mean()
                loss.backward()
                loss, logs = processes.average(network, loss, {"mean": logits.detach().mean()})
            assert joint.grad is not None
            kept |= {f"{name}.logits": logits.detach(), f"{name}.input": joint.grad, f"{name}.loss": loss.detach(), **logs}
            kept |= {f"{name}.grad.{key}": p.grad for key, p in network.named_parameters() if p.grad is not None}
            kept |= {f"{name}.buffer.{key}": value.clone() for key, value in network.named_buffers()}
        alone = network(real)  # outside of an update: as if there were no others
        kept |= {"alone": alone.detach(), "noise": processes.own(lambda n: torch.randn(n, 2), 3)}
        x = torch.randn(2, 3, requires_grad=True)
        norm = nn.Sequential(nn.BatchNorm1d(3))
        processes.prepare(norm, batch_size=2 * processes.world(), sync_batch_norm=True)
        with processes.together():
            try:
                torch.autograd.grad(norm(x).square().sum(), x, create_graph=True)
                twice = "possible"
            except ConfigError as error:
                twice = str(error)
        arrays = {key: value.numpy() for key, value in kept.items()} | {"twice": np.array(twice)}
        np.savez(f"layers-{suffix}.{os.environ.get('RANK', 0)}.npz", **arrays)


if __name__ == "__main__":
    layers(sys.argv[2])
    train_all(json.loads(Path(sys.argv[1]).read_text()), sys.argv[2])
