"""The directory of a sweep: what it is called, what is in it, and who holds it."""

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

from gan_cli.sweeps.elsewhere import STOP, own_mark
from gan_cli.system.errors import OutputError
from gan_cli.system.files import read_file, write_file
from gan_cli.system.locks import locked
from gan_cli.system.signals import SWEEP
from gan_cli.system.text import program

AUTO = "auto"  # hydra.sweep.dir: called after what is swept


def default_dir(overrides: Sequence[Override]) -> str:
    """``outputs/sweep-<what is swept>-<hash>``: the same for the same overrides, in any order, with any launcher."""
    words, texts = [], []
    for override in overrides:
        key, text = override.key_or_group, str(override.input_line)
        if key in ("launcher", "hydra/launcher") or (key.startswith("hydra.") and not key.startswith("hydra.sweeper.params")):
            continue  # where, how many and how it is shown
        texts.append(text)
        if key == "sweep":
            words.append(str(override.value()))
        elif override.is_sweep_override():
            words.append(key.removeprefix("hydra.sweeper.params.").rpartition(".")[2])
    shown = re.sub(r"[^\w-]+", "_", "-".join(dict.fromkeys(words)))[:60]
    digest = hashlib.sha256("\n".join(sorted(texts)).encode()).hexdigest()[:8]
    return f"outputs/sweep-{shown or 'jobs'}-{digest}"


def continue_sweep() -> str:
    """The command that goes on with this sweep: the one that began it."""
    flags = [argument for argument in sys.argv[1:] if argument in ("-m", "--multirun")]
    return shlex.join([program("gan-train"), *flags, *(a for a in sys.argv[1:] if a not in flags)])


def compare(directory: Path) -> str:
    """The command that shows what came out."""
    return shlex.join([program("gan-compare"), str(directory)])


@contextmanager
def held(directory: Path) -> Iterator[None]:
    """Be the only process that sweeps here.

    Raises:
        OutputError: another one does, or it cannot be written.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        what = f"the directory of the sweep cannot be made: {error.strerror}"
        raise OutputError(what, str(directory), "Set hydra.sweep.dir=") from error
    before = os.environ.get(SWEEP)
    with locked(directory, "sweep", "Wait for it, or set hydra.sweep.dir="):
        (directory / STOP).unlink(missing_ok=True)
        os.environ[SWEEP] = own_mark()
        try:
            yield
        finally:
            if before is None:
                os.environ.pop(SWEEP, None)
            else:
                os.environ[SWEEP] = before


def write_plan(directory: Path, jobs: Sequence[str], chosen: Sequence[str] = ()) -> None:
    """``sweep.json``: the command, and the names of all jobs in their order, also those that began with an earlier command.

    ``chosen``: of a search those that were its best, when others began to train the same with other seeds.

    Raises:
        OutputError: it cannot be written.
    """
    plan: dict[str, Any] = {"command": continue_sweep(), "cwd": os.getcwd()}
    there = read_plan(directory) or {"jobs": []}
    begun = [job for job in there["jobs"] if job not in jobs and (directory / job / "status.json").exists()]
    plan["jobs"] = [*begun, *jobs]
    before = there.get("chosen")
    names = [*chosen, *(before if isinstance(before, list) else [])]
    plan["chosen"] = sorted({name for name in names if isinstance(name, str)})
    try:
        write_file(directory / "sweep.json", json.dumps(plan, indent=1) + "\n")
    except OSError as error:
        what = f"the directory of the sweep cannot be written: {error.strerror}"
        raise OutputError(what, str(directory), "Set hydra.sweep.dir=") from error


def read_plan(directory: Path) -> dict[str, Any] | None:
    """What :func:`write_plan` wrote, or None if it is not there or not that."""
    with suppress(OSError, ValueError, RecursionError):
        plan = json.loads(read_file(directory / "sweep.json"))
        if isinstance(plan, dict) and isinstance(plan.get("jobs"), list) and all(isinstance(j, str) for j in plan["jobs"]):
            return plan
    return None
