"""Everything a run trains with, as one object."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gan_cli.compute import processes
from gan_cli.data.batches import Batches
from gan_cli.data.dataset import ImageDataset, TranslationDataset
from gan_cli.training.ema import EMA
from gan_cli.training.loop import Player, Progress


@dataclass
class Game:
    """Everything a run trains with, built from its config."""

    task: Any
    generator: Player
    discriminator: Player
    ema: EMA
    batches: Batches
    dataset: ImageDataset | TranslationDataset
    examples: dict[str, Tensor]  # what every picture is made from
    progress: Progress
    device: torch.device
    threads: int
    precision: str
    precision_reason: str
    compiled: bool
    compile_reason: str
    changes: list[str]  # made to the run since it began, in words
    processes: str | None = None  # that train it together, in words

    def machine(self) -> dict[str, str | int | bool]:
        """What the last bits of a result depend on besides the config."""
        return {
            "processes": processes.world(),
            "threads": self.threads,
            "device": str(self.device),
            "precision": self.precision,
            "compiled": self.compiled,
            "torch": torch.__version__,
            "processor": f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}",
        }
