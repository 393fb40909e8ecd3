"""Resuming a run: its newest checkpoint, and the files of a run that is already complete."""

from __future__ import annotations

import logging
from pathlib import Path

from gan_cli.app.commands import Command
from gan_cli.compute import processes
from gan_cli.rundir import checkpoint, status
from gan_cli.rundir.checkpoint import Checkpoint
from gan_cli.system.errors import CheckpointError
from gan_cli.training.loop import Progress
from gan_cli.training.report import film
from gan_cli.training.state import refuse_incomplete

log = logging.getLogger("gan_cli")


def reopen(run_dir: Path, total_steps: int, command: Command) -> Checkpoint | None:
    """Load the newest checkpoint of a run, if it has one.

    Raises:
        CheckpointError: no checkpoint can be read, or it is incomplete.
    """
    checkpoint.clean(run_dir)
    try:
        saved = checkpoint.load_newest(run_dir)
    except CheckpointError as error:  # recorded as failed, so that a scheduler does not requeue
        newest = Progress(max(checkpoint.steps(run_dir), default=0))
        status.Status(run_dir, total_steps, newest, command.anew()).write("failed", str(error), error.exit_code)
        raise
    if saved is not None:
        refuse_incomplete(saved)
    return saved


def finish_again(run_dir: Path, total_steps: int, saved: Checkpoint, command: Command, *, gif: bool) -> None:
    """Write what is missing of a complete run that was killed after its last checkpoint."""
    log.info("%s is finished: %d of %d steps", run_dir, saved.step, total_steps)
    if (status.read(run_dir) or {}).get("state") != "complete":
        status.Status(run_dir, total_steps, saved, command.anew()).write("complete", exit_code=0)
    checkpoint.mark_best(run_dir, checkpoint.best_of(saved, run_dir))
    if gif:
        film(run_dir)
    processes.from_first(None)
