"""The objects of a run: task, players, data and machine."""

from __future__ import annotations

import platform
from dataclasses import dataclass

import torch
from torch import Tensor

from gan_cli.compute import processes
from gan_cli.data.dataset import ImageDataset, TranslationDataset
from gan_cli.training.loop import Players


@dataclass(frozen=True)
class Machine:
    """Device, threads, precision and compiler of a run, with reasons. ``processes``: how several share the work, or None."""

    device: torch.device
    threads: int
    precision: str
    precision_reason: str
    compiled: bool
    compile_reason: str
    processes: str | None = None

    def facts(self) -> dict[str, str | int | bool]:
        """The settings that change the last bits of a result, for the checkpoint."""
        return {
            "processes": processes.world(),
            "threads": self.threads,
            "device": str(self.device),
            "precision": self.precision,
            "compiled": self.compiled,
            "torch": torch.__version__,
            "processor": f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}",
        }


@dataclass
class Game(Players):
    """Everything a run trains with, built from its config.

    ``examples``: what every picture is made from. ``changes``: made to the run since it began, in words.
    """

    dataset: ImageDataset | TranslationDataset
    examples: dict[str, Tensor]
    machine: Machine
    changes: list[str]
