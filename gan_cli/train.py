"""``gan-train``: train a GAN from a composed config, or continue a run."""

from __future__ import annotations

import logging
import os
import re
import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import NoReturn

from omegaconf import DictConfig, OmegaConf

from gan_cli.app import entry
from gan_cli.app.commands import continue_command
from gan_cli.config.training import check
from gan_cli.sweeps import worker_processes
from gan_cli.sweeps.directory import continue_sweep
from gan_cli.system import signals, torchrun
from gan_cli.system.errors import ConfigError, PreemptedError
from gan_cli.system.text import job_name, override

log = logging.getLogger("gan_cli")


def app(cfg: DictConfig) -> float | None:
    """One run. Returns the value of ``optimized_metric`` for a Hydra sweeper."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    hydra = HydraConfig.get()
    overrides = [o for o in entry.task_overrides(hydra) if not o.startswith("run_dir=")]
    original = None
    if cfg.from_run is None:
        config = check(cfg)  # before torch is imported
    else:
        from gan_cli.rundir.from_run import Original

        overrides = [o.removeprefix("++") for o in overrides]
        original = Original.read(cfg)
        config = original.changed(cfg, overrides)
    if config.batch_size % torchrun.world():
        near = max(1, round(config.batch_size / torchrun.world())) * torchrun.world()
        what = f"batch_size={config.batch_size} cannot be divided among {torchrun.world()} processes"
        raise ConfigError(what, "batch_size", f"Set batch_size={near}, or start another number of processes")
    if config.run_dir == "":
        raise ConfigError("a directory is needed", "run_dir", "Set run_dir=DIR, or leave it out for a new one")
    from gan_cli.training.session import train_run

    run_dir, report = Path(config.run_dir).expanduser() if config.run_dir is not None else None, None
    sweeping = run_dir is None and hydra.mode == RunMode.MULTIRUN
    place: AbstractContextManager[None] = nullcontext()
    if sweeping:
        run_dir = Path(hydra.sweep.dir) / job_name(str(hydra.job.override_dirname))
        worker_processes.obey(run_dir.parent)
        place = worker_processes.own_gpu(run_dir.parent, config.device, hydra.job.num)
        if str(hydra.sweeper._target_).endswith(".OptunaSweeper"):
            from gan_cli.sweeps.search import Options, reporter

            options = Options.checked(OmegaConf.to_container(hydra.sweeper))  # type: ignore[arg-type]
            report = reporter(options, run_dir.parent, run_dir.name)
    choices = hydra.runtime.choices
    preset, given = choices.get("sweep"), {o.partition("=")[0] for o in overrides}
    if preset is not None and hydra.mode == RunMode.RUN and not given & set(hydra.sweeper.params):  # of a job some are given
        log.info("note: sweep=%s sweeps with -m only; this is one run", preset)
    name = "-".join(str(choices[group]).replace("/", "-") for group in ("model", "dataset", "loss"))
    if original is not None:
        name = f"from-{original.run_dir.name}"
    try:
        with place:
            value = train_run(
                config, run_dir, name, lambda path: continue_command(hydra, overrides, path), report=report, original=original
            )
        if sweeping and signals.received:  # in the last step
            raise signals.Interrupted(signals.received[0])
        return value
    except (PreemptedError, signals.Interrupted):
        if sweeping and signals.received and not signals.is_elsewhere():
            log.info("to continue the whole sweep: %s", continue_sweep())
        raise


def loosened(arguments: list[str]) -> list[str]:
    """Arguments as Hydra takes them beside ``from_run=``, whose run may have other keys than the default options have.

    The directory is quoted if it is there: those of a sweep's jobs are called ``loss=hinge,seed=0``.
    """
    if not any(argument.startswith("from_run=") for argument in arguments):
        return arguments
    result = []
    for argument in arguments:
        key, _, value = argument.partition("=")
        if key == "from_run" and os.path.isdir(os.path.expanduser(value)):
            argument = override(key, value)
        elif re.fullmatch(r"(?!hydra\.)\w+(\.\w+)+", key):
            argument = f"++{argument}"
        result.append(argument)
    return result


def main() -> NoReturn:
    """Console script."""
    sys.argv[1:] = loosened(sys.argv[1:])
    entry.run(app, "train", "gan-train", resumable=True)


if __name__ == "__main__":
    main()
