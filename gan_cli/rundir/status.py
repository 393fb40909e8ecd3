"""``status.json`` of a run: its state for schedulers, sweeps and people who do not read logs."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, Protocol

from gan_cli.system.errors import DivergedError, GanError, PreemptedError, PrunedError
from gan_cli.system.files import read_file, write_file

State = Literal["running", "complete", "preempted", "failed", "diverged", "pruned"]


class HasStep(Protocol):
    """A counter of completed steps."""

    @property
    def step(self) -> int: ...


class Status:
    """Writer of ``status.json``: state, step, exit code and the printed error.

    After a ``kill -9`` the state is still ``running``. The lock of the run directory (``.lock``) shows whether it is true.

    Args:
        run_dir: directory of the run. total_steps: of the config. progress: counter of completed steps.
        command: command line, without ``run_dir``, that trains an identical run from the current directory.
    """

    def __init__(self, run_dir: Path, total_steps: int, progress: HasStep, command: str = "") -> None:
        self.path, self.total_steps, self.progress = run_dir / "status.json", total_steps, progress
        self.command, self.cwd, self.since = command, os.getcwd(), _now()

    def write(self, state: State, message: str | None = None, exit_code: int | None = None) -> None:
        """Write the file atomically. An error of the disk is ignored: it must not end the run."""
        status = {
            "state": state,
            "step": self.progress.step,
            "total_steps": self.total_steps,
            "exit_code": exit_code,
            "message": message,
            "command": self.command,
            "cwd": self.cwd,
            "process": os.getpid(),
            "since": self.since,
            "updated": _now(),
        }
        with contextlib.suppress(OSError):
            write_file(self.path, json.dumps(status, indent=1) + "\n")

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Write ``running`` at the start of this block and the outcome at its end."""
        self.write("running")
        try:
            yield
        except BaseException as error:
            kinds: dict[type[BaseException], State] = {
                PreemptedError: "preempted", DivergedError: "diverged", PrunedError: "pruned"
            }  # fmt: skip
            code = error.exit_code if isinstance(error, GanError) else 1
            self.write(kinds.get(type(error), "failed"), str(error) or type(error).__name__, code)
            raise
        self.write("complete", exit_code=0)


def read(run_dir: Path) -> dict[str, Any] | None:
    """The content of ``status.json``, or None if it is missing or invalid."""
    try:
        status = json.loads(read_file(run_dir / "status.json"))
        return status if isinstance(status, dict) and isinstance(status.get("state"), str) else None
    except (OSError, ValueError, RecursionError):
        return None


def command(run_dir: Path) -> str:
    """The recorded command line of the run, without ``run_dir``, or "". Quoted for a shell, because it may be untrusted."""
    try:
        words = shlex.split(str((read(run_dir) or {}).get("command", "")))
    except ValueError:
        return ""
    text = shlex.join(words)
    return text if text.isprintable() and words and Path(words[0]).name in ("gan-train", "torchrun") else ""


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")
