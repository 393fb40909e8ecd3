"""``gan-train``: train a GAN from a composed config, or continue a run."""

from __future__ import annotations

import hashlib
import shlex
import sys
from pathlib import Path
from typing import NoReturn

from omegaconf import DictConfig

from gan_cli import cli
from gan_cli.config import check


def app(cfg: DictConfig) -> float | None:
    """One run. Returns the value of ``optimized_metric`` for a Hydra sweeper."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    config = check(cfg)  # before torch is imported
    from gan_cli.trainer import train_run

    hydra = HydraConfig.get()
    choices = hydra.runtime.choices
    name = "-".join(str(choices[group]).replace("/", "-") for group in ("model", "dataset", "loss"))
    run_dir = Path(config.run_dir) if config.run_dir is not None else None
    if run_dir is None and hydra.mode == RunMode.MULTIRUN:
        run_dir = Path(hydra.sweep.dir) / job_name(hydra.job.override_dirname)
    overrides = [str(o) for o in hydra.overrides.task if not str(o).startswith("run_dir=")]
    return train_run(config, run_dir, name, lambda path: continue_command(overrides, path))


def job_name(overrides: str) -> str:
    """The directory of a sweep's job: what it overrides, as one plain file name."""
    name = overrides.replace("/", "_") or "default"
    if len(name.encode()) > 200:
        name = f"{name[:100]}-{hashlib.sha256(name.encode()).hexdigest()[:12]}"
    return name


def continue_command(overrides: list[str], run_dir: Path) -> str:
    """The command that starts this run, with its directory."""
    flags = []
    for k, argument in enumerate(sys.argv):
        if argument in ("--config-dir", "-cd", "--config-name", "-cn"):
            flags += sys.argv[k : k + 2]
        elif argument.startswith(("--config-dir=", "--config-name=")):
            flags.append(argument)
    return shlex.join(["gan-train", *flags, *overrides, cli.override("run_dir", run_dir)])


def main() -> NoReturn:
    """Console script."""
    cli.run(app, "train", "gan-train")


if __name__ == "__main__":
    main()
