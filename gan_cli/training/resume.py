"""Resuming a run: its newest checkpoint, the changes of its config, and the files of a run that is already complete."""

from __future__ import annotations

import logging
from pathlib import Path

from gan_cli.app.commands import Command
from gan_cli.compute import processes
from gan_cli.config.training import TrainConfig
from gan_cli.rundir import checkpoint, status
from gan_cli.rundir.checkpoint import Checkpoint
from gan_cli.system.errors import CheckpointError
from gan_cli.training.checks import refuse_drift
from gan_cli.training.loop import Progress
from gan_cli.training.report import film
from gan_cli.training.state import refuse_incomplete

log = logging.getLogger("gan_cli")


def reopen(run_dir: Path, config: TrainConfig, command: Command) -> tuple[Checkpoint | None, list[str]]:
    """Load the newest checkpoint of a run, if it has one, and list the changes of the config that ``allow_change`` permits."""
    checkpoint.clean(run_dir)
    try:
        saved = checkpoint.load_newest(run_dir)
    except CheckpointError as error:  # recorded as failed, so that a scheduler does not requeue
        newest = Progress(max(checkpoint.steps(run_dir), default=0))
        status.Status(run_dir, config.total_steps, newest, command.anew()).write("failed", str(error), error.exit_code)
        raise
    if saved is None:
        return None, []
    refuse_incomplete(saved)
    changes = refuse_drift(saved, config.as_dict(), config.allow_change, run_dir)
    if saved.step < config.total_steps:
        checkpoint.set_aside(run_dir, [step for step in checkpoint.steps(run_dir) if step > saved.step])
    return saved, changes


def finish_again(run_dir: Path, config: TrainConfig, saved: Checkpoint, command: Command) -> None:
    """Write what is missing of a complete run that was killed after its last checkpoint."""
    log.info("%s is finished: %d of %d steps", run_dir, saved.step, config.total_steps)
    if (status.read(run_dir) or {}).get("state") != "complete":
        status.Status(run_dir, config.total_steps, saved, command.anew()).write("complete", exit_code=0)
    checkpoint.mark_best(run_dir, checkpoint.best_of(saved, run_dir))
    if config.gif:
        film(run_dir)
    processes.from_first(None)
