"""Shell commands that resume or repeat a run."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Any

from gan_cli.system import torchrun
from gan_cli.system.text import override, program


def continue_command(hydra: Any, overrides: list[str], run_dir: Path | None) -> str:
    """The command that starts this run, with its directory, or without one so that it makes a new run.

    It does not depend on ``sys.argv``: in a job of a cluster that is not what the user typed.

    Args:
        hydra: that part of the composed config. overrides: of the job.
    """
    flags = [a for s in hydra.runtime.config_sources if s.provider == "command-line" for a in ("--config-dir", near(s.path))]
    if hydra.job.config_name != "train":
        flags += ["--config-name", str(hydra.job.config_name)]
    searched = [str(o) for o in hydra.overrides.hydra if str(o).startswith("hydra.searchpath=")]
    start = [program("gan-train")]
    if torchrun.world() > 1:
        nodes = torchrun.world() // torchrun.local_world()
        several = [f"--nnodes={nodes}"] if nodes > 1 else []
        start = [program("torchrun"), *several, f"--nproc-per-node={torchrun.local_world()}", "-m", "gan_cli.train"]
    where = [override("run_dir", run_dir)] if run_dir is not None else []
    return shlex.join([*start, *flags, *overrides, *searched, *where])


def near(path: str) -> str:
    """A path as it may be typed here: relative, if it is below the current directory."""
    return os.path.relpath(path) if Path(path).is_relative_to(Path.cwd()) else path
