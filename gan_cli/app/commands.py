"""Shell commands that resume or repeat a run."""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gan_cli.system import torchrun
from gan_cli.system.text import program, word


@dataclass(frozen=True)
class Command:
    """The shell command of a run.

    Attributes:
        words: program and arguments without ``run_dir``. continued: the run that is continued with its own config.
    """

    words: tuple[str, ...]
    continued: str | None = None

    @classmethod
    def of_job(cls, hydra: Any, overrides: list[str]) -> Command:
        """The command of a job, made from its config: on a cluster ``sys.argv`` is not the user's command line.

        Args:
            hydra: node ``hydra`` of the composed config. overrides: of the job.
        """
        folders = [near(source.path) for source in hydra.runtime.config_sources if source.provider == "command-line"]
        flags = [argument for folder in folders for argument in ("--config-dir", folder)]
        if hydra.job.config_name != "train":
            flags += ["--config-name", str(hydra.job.config_name)]
        searched = [str(o) for o in hydra.overrides.hydra if str(o).startswith("hydra.searchpath=")]
        start = [program("gan-train")]
        if torchrun.world() > 1:
            nodes = torchrun.world() // torchrun.local_world()
            several = [f"--nnodes={nodes}"] if nodes > 1 else []
            start = [program("torchrun"), *several, f"--nproc-per-node={torchrun.local_world()}", "-m", "gan_cli.train"]
        return cls((*start, *flags, *overrides, *searched))

    def of_run(self, run_dir: Path) -> Command:
        """The command that continues a run with its own config and the arguments of this one, which has ``from_run``."""
        return Command(tuple(w for w in self.words if not w.startswith("from_run=")), near(str(run_dir)))

    def anew(self) -> str:
        """The command that starts the same run in a new directory."""
        return shlex.join([*self.words, *([word("from_run", self.continued)] if self.continued else [])])

    def resume(self, run_dir: Path) -> str:
        """The command that resumes the run in its directory."""
        return shlex.join([*self.words, self.continued or word("run_dir", run_dir)])


def near(path: str) -> str:
    """A path for the command line: relative if it is below the current directory."""
    return os.path.relpath(path) if Path(path).is_relative_to(Path.cwd()) else path
