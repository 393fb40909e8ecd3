"""The directory of a sweep: its name, its plan, and the lock of the process that sweeps in it."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import Override

from gan_cli.sweeps.worker_processes import STOP, own_mark
from gan_cli.system.errors import OutputError, failing_as
from gan_cli.system.files import read_file, write_file
from gan_cli.system.locks import locked
from gan_cli.system.signals import SWEEP
from gan_cli.system.text import program

AUTO = "auto"  # value of hydra.sweep.dir that stands for default_dir()


def default_dir(overrides: Sequence[Override]) -> str:
    """``outputs/sweep-<swept keys>-<hash>``: the same for the same overrides, in any order and with any launcher."""
    words, texts = [], []
    for override in overrides:
        key, text = override.key_or_group, str(override.input_line)
        if key in ("launcher", "hydra/launcher") or (key.startswith("hydra.") and not key.startswith("hydra.sweeper.params")):
            continue  # settings of the machine, not of the jobs
        texts.append(text)
        if key == "sweep":
            words.append(str(override.value()))
        elif override.is_sweep_override():
            words.append(key.removeprefix("hydra.sweeper.params.").rpartition(".")[2])
    shown = re.sub(r"[^\w-]+", "_", "-".join(dict.fromkeys(words)))[:60]
    digest = hashlib.sha256("\n".join(sorted(texts)).encode()).hexdigest()[:8]
    return f"outputs/sweep-{shown or 'jobs'}-{digest}"


def continue_sweep() -> str:
    """The shell command that continues this sweep: the one that began it."""
    flags = [argument for argument in sys.argv[1:] if argument in ("-m", "--multirun")]
    return shlex.join([program("gan-train"), *flags, *(a for a in sys.argv[1:] if a not in flags)])


def compare(*paths: Path, flags: Sequence[str] = ()) -> str:
    """The shell command that compares runs or sweeps."""
    return shlex.join([program("gan-compare"), *flags, *map(str, paths)])


@contextmanager
def held(directory: Path) -> Iterator[None]:
    """Hold the directory: a second process that sweeps in it is refused.

    Raises:
        OutputError: another process holds it, or it cannot be written.
    """
    with failing_as(OutputError, "the directory of the sweep cannot be made", str(directory), "Set hydra.sweep.dir="):
        directory.mkdir(parents=True, exist_ok=True)
    with locked(directory, "sweep", "Wait for it, or set hydra.sweep.dir="):
        (directory / STOP).unlink(missing_ok=True)
        os.environ[SWEEP] = own_mark()
        yield


def write_plan(directory: Path, jobs: Sequence[str], chosen: Sequence[str] = ()) -> None:
    """Write ``sweep.json``: the command, and the names of all jobs in order, also those begun by an earlier command.

    ``chosen``: names of the best trials of a search, which are trained again with other seeds.

    Raises:
        OutputError: it cannot be written.
    """
    earlier = read_plan(directory) or {"jobs": []}
    begun = [job for job in earlier["jobs"] if job not in jobs and (directory / job / "status.json").exists()]
    before = earlier.get("chosen")
    names = [*chosen, *(before if isinstance(before, list) else [])]
    plan = {
        "command": continue_sweep(),
        "cwd": os.getcwd(),
        "jobs": [*begun, *jobs],
        "chosen": sorted({name for name in names if isinstance(name, str)}),
    }
    with failing_as(OutputError, "the directory of the sweep cannot be written", str(directory), "Set hydra.sweep.dir="):
        write_file(directory / "sweep.json", json.dumps(plan, indent=1) + "\n")


def read_plan(directory: Path) -> dict[str, Any] | None:
    """The content of ``sweep.json``, or None if it cannot be read."""
    with suppress(OSError, ValueError, RecursionError):
        plan = json.loads(read_file(directory / "sweep.json"))
        if isinstance(plan, dict) and isinstance(plan.get("jobs"), list) and all(isinstance(j, str) for j in plan["jobs"]):
            return plan
    return None
