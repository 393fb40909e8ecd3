"""Trains a list of runs one after the other: alone, or as one of the processes that torchrun starts.

    torchrun --nproc-per-node 2 tests/several.py runs.json suffix

``runs.json`` holds ``{name: overrides}``. Each run goes to ``<name>-<suffix>``, what rank k was shown in it to
``<name>-<suffix>.<k>.npz``.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from hydra import compose, initialize_config_module

from gan_cli.config import check
from gan_cli.data.batches import Batches
from gan_cli.trainer import train_run


def train_all(runs: dict[str, list[str]], suffix: str) -> None:
    """Run them in the current directory."""
    rank = int(os.environ.get("RANK", "0"))
    following, shown = Batches.__next__, {}

    def record(self: Batches) -> dict[str, Any]:
        batch = following(self)
        shown.update({f"{len(shown):05d}.{key}": values.cpu().numpy() for key, values in batch.items()})
        return batch

    Batches.__next__ = record  # type: ignore[method-assign]
    try:
        for name, overrides in runs.items():
            begun = time.monotonic()
            with initialize_config_module("gan_cli.conf", version_base="1.3"):
                config = check(compose("train", overrides))
            shown.clear()
            train_run(config, Path(f"{name}-{suffix}"), name, str)
            np.savez(f"{name}-{suffix}.{rank}.npz", **shown)
            print(name, rank, round(time.monotonic() - begun, 2), flush=True)
    finally:
        Batches.__next__ = following  # type: ignore[method-assign]


if __name__ == "__main__":
    train_all(json.loads(Path(sys.argv[1]).read_text()), sys.argv[2])
