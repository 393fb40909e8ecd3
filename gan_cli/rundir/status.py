"""``status.json`` of a run: what a scheduler, a sweep or a person wants to know without reading logs."""

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
    """Counts completed steps."""

    @property
    def step(self) -> int:
        """As it is now."""


class Status:
    """Keeps ``status.json``: state, step, exit code and the line that was printed.

    A run that was killed still says ``running``; whether it is tells the lock (``.lock``), which goes with the process.

    Args:
        run_dir: where. total_steps: of the run. progress: has the ``step`` it is at.
        command: what makes the run anew when typed here, without ``run_dir``.
    """

    def __init__(self, run_dir: Path, total_steps: int, progress: HasStep, command: str = "") -> None:
        self.path, self.total_steps, self.progress = run_dir / "status.json", total_steps, progress
        self.command, self.cwd, self.since = command, os.getcwd(), _now()

    def write(self, state: State, message: str | None = None, exit_code: int | None = None) -> None:
        """The file is whole or as it was; that it cannot be written ends no run."""
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
        """``running`` within this block, and how it ended after it."""
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
    """What the run says of itself, or None if it says nothing."""
    try:
        status = json.loads(read_file(run_dir / "status.json"))
        return status if isinstance(status, dict) and isinstance(status.get("state"), str) else None
    except (OSError, ValueError, RecursionError):
        return None


def command(run_dir: Path) -> str:
    """What the run says made it, without its ``run_dir``; "" if it does not say. Quoted: a stranger may have written it."""
    try:
        words = shlex.split(str((read(run_dir) or {}).get("command", "")))
    except ValueError:
        return ""
    text = shlex.join(words)
    return text if text.isprintable() and words and Path(words[0]).name in ("gan-train", "torchrun") else ""


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")
