"""``gan-train``: train a GAN from a composed config, or resume a run."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from omegaconf import DictConfig, OmegaConf

from gan_cli.app import entry
from gan_cli.app.commands import Command
from gan_cli.config import schema
from gan_cli.config.training import TrainConfig, check
from gan_cli.ranges import Positive
from gan_cli.sweeps import worker_processes
from gan_cli.sweeps.directory import continue_sweep
from gan_cli.system import signals, torchrun
from gan_cli.system.errors import ConfigError, PreemptedError
from gan_cli.system.text import job_name

if TYPE_CHECKING:
    from gan_cli.rundir.from_run import Original

log = logging.getLogger("gan_cli")
MAX_STEPS = 2**53  # larger than any total_steps


def app(cfg: DictConfig) -> float | None:
    """Train one run; return the value of ``optimized_metric`` for a sweeper of Hydra."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    hydra = HydraConfig.get()
    config, original, overrides = checked(cfg, hydra)
    from gan_cli.training import session

    note_unused_sweep(hydra, overrides)
    choices = hydra.runtime.choices
    name = "-".join(str(choices[group]).replace("/", "-") for group in ("model", "dataset", "loss"))
    run_dir = Path(config.run_dir).expanduser() if config.run_dir is not None else None
    command = Command.of_job(hydra, overrides)
    if original is not None and original.continues:
        command, original = command.of_run(original.run_dir), None
    elif original is not None:
        name = f"from-{original.run_dir.name}"
    in_epochs = partial(of_epochs, cfg, config, float(cfg.epochs)) if cfg.epochs is not None else None
    if run_dir is not None or hydra.mode != RunMode.MULTIRUN:
        return session.run(config, run_dir, name, command, original=original, in_epochs=in_epochs)
    run_dir = Path(hydra.sweep.dir) / job_name(str(hydra.job.override_dirname))
    worker_processes.obey(run_dir.parent)
    try:
        with worker_processes.own_gpu(run_dir.parent, config.device, hydra.job.num):
            value = session.run(
                config, run_dir, name, command, report=reporter_of(hydra, run_dir), original=original, in_epochs=in_epochs
            )
        if signals.received:  # received in the last step
            raise signals.Interrupted(signals.received[0])
        return value
    except (PreemptedError, signals.Interrupted):
        if signals.received and not signals.is_elsewhere():
            log.info("to continue the whole sweep: %s", continue_sweep())
        raise


def checked(cfg: DictConfig, hydra: Any) -> tuple[TrainConfig, Original | None, list[str]]:
    """Check the config without importing torch; return it, the run of ``from_run`` and the overrides of the command line.

    Raises:
        GanError: the config or the run is wrong.
    """
    overrides = [o for o in entry.task_overrides(hydra) if not o.startswith("run_dir=")]
    original = None
    if schema.convert(cfg.epochs, Positive | None, "epochs") is not None:
        if any(o.startswith("total_steps=") for o in overrides):
            raise ConfigError("epochs and total_steps both set the length", "epochs and total_steps", "Leave one out")
        cfg.total_steps = MAX_STEPS  # until the size of the training set is known
    if cfg.from_run is None:
        config = check(cfg)
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
    return config, original, overrides


def of_epochs(cfg: DictConfig, config: TrainConfig, epochs: float, images: int) -> TrainConfig:
    """The config of a run of some passes over a training set of ``images`` images.

    ``config``: that of ``cfg``, or of the run that ``cfg`` copies or continues.
    """
    per_step = config.batch_size * int(config.loss.get("n_critic", 1))
    cfg.total_steps = max(1, math.ceil(epochs * images / per_step))
    log.info("epochs=%g: %s steps of %d images", epochs, f"{cfg.total_steps:,}", per_step)
    return check(cfg) if cfg.from_run is None else replace(config, total_steps=cfg.total_steps)


def note_unused_sweep(hydra: Any, overrides: list[str]) -> None:
    """Log that an option of the group ``sweep`` does nothing without ``-m``."""
    from hydra.types import RunMode

    preset, given = hydra.runtime.choices.get("sweep"), {o.partition("=")[0] for o in overrides}
    is_job = bool(given & set(hydra.sweeper.params))
    if preset is not None and hydra.mode == RunMode.RUN and not is_job:
        log.info("note: sweep=%s sweeps with -m only; this is one run", preset)


def reporter_of(hydra: Any, run_dir: Path) -> Callable[[int, float], bool] | None:
    """A function that reports the values of a job to its search; None outside a search."""
    if not str(hydra.sweeper._target_).endswith(".OptunaSweeper"):
        return None
    from gan_cli.sweeps.study import Options, reporter

    options = Options.checked(OmegaConf.to_container(hydra.sweeper))  # type: ignore[arg-type]
    return reporter(options, run_dir.parent, run_dir.name)


def main() -> NoReturn:
    """Console script."""
    entry.run(app, "train", "gan-train", TrainConfig, resumable=True)


if __name__ == "__main__":
    main()
