"""The directory of a run: made for a new one, refused where it holds something else."""

from __future__ import annotations

import time
from pathlib import Path

from gan_cli.rundir import checkpoint
from gan_cli.system.errors import (
    OutputError,
    failing_as,
)
from gan_cli.system.files import OWN_NAMES


def create(name: str) -> Path:
    """A new directory ``outputs/<name>-<date>-<time>``, with ``-2``, ``-3``, ... when others start in the same second.

    Raises:
        OutputError: it cannot be made.
    """
    stem = f"outputs/{name}-{time.strftime('%Y%m%d-%H%M%S')}"
    for k in range(1, 10_000):
        path = Path(stem if k == 1 else f"{stem}-{k}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.mkdir()  # exclusive: one run only gets it
            return path
        except FileExistsError:
            continue
        except OSError as error:
            raise OutputError(f"the run directory cannot be made: {error.strerror}", str(path), "Set run_dir=") from error
    raise OutputError("no free name for a run directory", stem, "Set run_dir=")


def refuse_foreign(run_dir: Path) -> None:
    """Refuse to write into a directory that holds something other than a run."""
    if not run_dir.is_dir():
        raise OutputError("this is a file, not a directory", str(run_dir), "Choose another run_dir=")
    theirs = [p.name for p in run_dir.iterdir() if not p.name.startswith(".")]
    begun = (run_dir / ".lock").exists() and ((run_dir / "config.yaml").exists() or set(theirs) <= OWN_NAMES)
    if theirs and not begun and not checkpoint.steps(run_dir):
        raise OutputError(f"this directory holds other things ({sorted(theirs)[0]})", str(run_dir), "Choose another run_dir=")


def make(run_dir: Path) -> Path:
    """Make a directory the user named."""
    what, todo = "the run directory cannot be made", "Set run_dir=, or hydra.sweep.dir= of a sweep"
    with failing_as(OutputError, what, str(run_dir), todo):
        run_dir.mkdir(parents=True, exist_ok=True)
    return run_dir
