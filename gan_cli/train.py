"""``gan-train``: train a GAN from a composed config, or continue a run."""

from __future__ import annotations

import logging
import shlex
import sys
from pathlib import Path
from typing import NoReturn

from omegaconf import DictConfig, OmegaConf

from gan_cli import cli, signals, torchrun
from gan_cli.config import check
from gan_cli.errors import ConfigError, PreemptedError
from gan_cli.sweeps import elsewhere
from gan_cli.sweeps.directory import continue_sweep, job_name


def app(cfg: DictConfig) -> float | None:
    """One run. Returns the value of ``optimized_metric`` for a Hydra sweeper."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    config = check(cfg)  # before torch is imported
    if config.batch_size % torchrun.world():
        near = max(1, round(config.batch_size / torchrun.world())) * torchrun.world()
        what = f"batch_size={config.batch_size} cannot be divided among {torchrun.world()} processes"
        raise ConfigError(what, "batch_size", f"Set batch_size={near}, or start another number of processes")
    from gan_cli.trainer import train_run

    if config.run_dir == "":
        raise ConfigError("a directory is needed", "run_dir", "Set run_dir=DIR, or leave it out for a new one")
    hydra = HydraConfig.get()
    choices = hydra.runtime.choices
    name = "-".join(str(choices[group]).replace("/", "-") for group in ("model", "dataset", "loss"))
    overrides = [o for o in cli.task_overrides(hydra) if not o.startswith("run_dir=")]
    run_dir = Path(config.run_dir).expanduser() if config.run_dir is not None else None
    sweeping = run_dir is None and hydra.mode == RunMode.MULTIRUN
    if sweeping:
        sweep_dir = Path(hydra.sweep.dir)
        run_dir = sweep_dir / job_name(str(hydra.job.override_dirname))
        elsewhere.obey(sweep_dir)
    report = None
    if sweeping and run_dir is not None and str(hydra.sweeper._target_).endswith(".OptunaSweeper"):
        from gan_cli.sweeps.search import Options, reporter

        options = Options.checked(OmegaConf.to_container(hydra.sweeper))  # type: ignore[arg-type]
        report = reporter(options, run_dir.parent, run_dir.name)
    try:
        value = train_run(config, run_dir, name, lambda path: continue_command(overrides, path), report)
        if sweeping and signals.received:  # in the last step
            raise signals.Interrupted(signals.received[0])
        return value
    except (PreemptedError, signals.Interrupted):
        if sweeping and signals.received:
            logging.getLogger("gan_cli").info("to continue the whole sweep: %s", continue_sweep())
        raise


def continue_command(overrides: list[str], run_dir: Path) -> str:
    """The command that starts this run, with its directory."""
    flags = []
    for k, argument in enumerate(sys.argv):
        if argument in ("--config-dir", "-cd", "--config-name", "-cn"):
            flags += sys.argv[k : k + 2]
        elif argument.startswith(("--config-dir=", "--config-name=")):
            flags.append(argument)
    start = [cli.program("gan-train")]
    if torchrun.world() > 1:
        nodes = torchrun.world() // torchrun.local_world()
        several = [f"--nnodes={nodes}"] if nodes > 1 else []
        start = [cli.program("torchrun"), *several, f"--nproc-per-node={torchrun.local_world()}", "-m", "gan_cli.train"]
    return shlex.join([*start, *flags, *overrides, cli.override("run_dir", run_dir)])


def main() -> NoReturn:
    """Console script."""
    cli.run(app, "train", "gan-train", resumable=True)


if __name__ == "__main__":
    main()
