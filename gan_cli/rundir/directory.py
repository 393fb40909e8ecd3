"""The directory of a run: created for a new run, refused if it holds other files."""

from __future__ import annotations

import time
from pathlib import Path

from gan_cli.rundir import checkpoint
from gan_cli.system.errors import OutputError, failing_as
from gan_cli.system.files import OWN_NAMES


def create(name: str) -> Path:
    """Create ``outputs/<name>-<date>-<time>``, with ``-2``, ``-3``, ... for runs that start in the same second.

    Raises:
        OutputError: the directory cannot be created.
    """
    stem = f"outputs/{name}-{time.strftime('%Y%m%d-%H%M%S')}"
    for k in range(1, 10_000):
        path = Path(stem if k == 1 else f"{stem}-{k}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.mkdir()  # fails if another run has created it
            return path
        except FileExistsError:
            continue
        except OSError as error:
            what = f"the run directory cannot be created: {error.strerror}"
            raise OutputError(what, str(path), "Set run_dir=") from error
    raise OutputError("no name for a run directory is left", stem, "Set run_dir=")


def refuse_foreign(run_dir: Path) -> None:
    """Refuse to write into a directory that holds other files than those of a run."""
    if not run_dir.is_dir():
        raise OutputError("this is a file, not a directory", str(run_dir), "Choose another run_dir=")
    names = [p.name for p in run_dir.iterdir() if not p.name.startswith(".")]
    is_run = (run_dir / ".lock").exists() and ((run_dir / "config.yaml").exists() or set(names) <= OWN_NAMES)
    if names and not is_run and not checkpoint.steps(run_dir):
        raise OutputError(f"this directory holds other files ({sorted(names)[0]})", str(run_dir), "Choose another run_dir=")


def make(run_dir: Path) -> Path:
    """Create a directory that the user named."""
    what, todo = "the run directory cannot be created", "Set run_dir=, or hydra.sweep.dir= for a sweep"
    with failing_as(OutputError, what, str(run_dir), todo):
        run_dir.mkdir(parents=True, exist_ok=True)
    return run_dir
