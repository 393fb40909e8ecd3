"""What is on disk of runs: found, and read as far as it can be.

A run directory may be a stranger's, half-written, damaged or of another version: nothing in it is executed, no link in it
is followed, and what cannot be read is said in a note.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeGuard

import yaml

from gan_cli.comparing.records import Evaluation, Run
from gan_cli.config.metrics import VALUES
from gan_cli.config.plain import flatten
from gan_cli.rundir import evaluations, status
from gan_cli.rundir.rows import read_rows
from gan_cli.system.errors import ConfigError, NotFoundError, UntrustedError
from gan_cli.system.files import read_file, refuse_links
from gan_cli.system.locks import is_locked
from gan_cli.system.text import short

DEEPEST = 4  # directories below an argument
MOST_DIRECTORIES = 20_000
MOST_CONFIG, MOST_ROWS = 2**20, 2**28  # bytes
MOST_EVENTS, DEEPEST_CONFIG = 20_000, 16  # of YAML
MOST_COUNT, MOST_VALUE, MOST_BITS = 10**15, 1e100, 1024  # of steps and images; of a metric; of a number of a config
MARKS = ("config.yaml", "status.json", "metrics.jsonl", "checkpoints")  # one of them makes a directory a run
STATES = frozenset({"complete", "preempted", "failed", "diverged", "pruned"})
SHOWN, LONGEST_NAME = 3, 160  # names in a note; letters of one
MOST_SEED_BITS = 63


class Notes:
    """Remarks by what they say, so that one that holds for many runs is one line."""

    def __init__(self) -> None:
        self.names: dict[str, list[str]] = {}

    def add(self, path: Path, text: str) -> None:
        """``text`` holds for ``path``."""
        self.names.setdefault(text, []).append(str(path))

    def lines(self) -> list[str]:
        """``a, b and 3 more: what``, one for each text."""
        return [f"{listed(names)}: {text}" for text, names in self.names.items()]


def listed(names: Sequence[object]) -> str:
    """``a, b, c and 3 more``. Of a long name, such as a path, the middle is left out: its end says what it is."""
    shown = ", ".join(_ends(short(name, 4096)) for name in names[:SHOWN])
    return shown + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")


def _ends(text: str) -> str:
    return text if len(text) <= LONGEST_NAME else f"{text[:40]}...{text[43 - LONGEST_NAME :]}"


def gather(arguments: Sequence[Path]) -> tuple[list[Run], list[str]]:
    """The runs that are, or lie below, these directories, and what there is to say about them, a line each.

    Raises:
        NotFoundError: a directory is not there, or there is no run. ConfigError: it is a file.
        UntrustedError: there are runs, and links in each of them.
    """
    notes = Notes()
    found: dict[Path, Path] = {}
    refused: list[UntrustedError] = []
    for argument in arguments:
        if not os.path.lexists(argument) or (argument.is_symlink() and not argument.exists()):
            raise NotFoundError("there is no such directory", str(argument), "Name directories of runs or sweeps")
    for argument in arguments:
        if argument.is_dir():
            found |= {path.resolve(): path for path in reversed(list(directories(argument, notes)))}
    if not found:
        files = [argument for argument in arguments if not argument.is_dir()]
        if len(files) == len(arguments):
            raise ConfigError("this is a file", str(files[0]), "Name directories of runs or sweeps")
        todo = "gan-train makes one; a run directory has a config.yaml"
        raise NotFoundError("there is no run in it", listed(arguments), todo)
    runs = []
    for path in sorted(found.values()):
        try:
            refuse_links(path, "Remove it")
            run = read(path, notes)
        except UntrustedError as error:
            refused.append(error)
            notes.add(path, f"left out: {error.what} ({Path(error.where).name})")
        except OSError as error:
            notes.add(path, f"left out: it cannot be read: {error.strerror}")
        else:
            runs += [run] if run is not None else []
    if not runs and refused:
        raise refused[0]
    if not runs:
        raise NotFoundError("no run in it can be read", listed(arguments), f"{notes.lines()[0]}")
    return runs, notes.lines()


def directories(top: Path, notes: Notes) -> Iterator[Path]:
    """Run directories at or below ``top``. Those that a sweep still has to begin go into a note."""
    pending, visited = [(top, 0)], 0
    skipped: dict[str, None] = {}
    while pending:
        folder, depth = pending.pop()
        visited += 1
        try:
            with os.scandir(folder) as entries:
                inside = {entry.name: entry.is_dir(follow_symlinks=False) for entry in entries}
        except OSError as error:
            notes.add(folder, f"it cannot be read: {error.strerror}")
            continue
        if "sweep.json" not in inside and any(mark in inside for mark in MARKS):
            yield folder
            continue
        below = [folder / name for name, is_folder in sorted(inside.items()) if is_folder and not name.startswith(".")]
        if "sweep.json" in inside:
            waiting = sum(not is_begun(folder / job) for job in jobs_of(folder, notes))
            if waiting:
                notes.add(folder, f"{waiting} {'job is' if waiting == 1 else 'jobs are'} waiting to begin")
        if depth < DEEPEST and visited + len(pending) < MOST_DIRECTORIES:
            pending += [(path, depth + 1) for path in reversed(below)]
        elif below:
            limit = f"more than {DEEPEST} levels down" if depth >= DEEPEST else f"beyond the first {MOST_DIRECTORIES:,}"
            skipped[f"folders {limit} are not searched: name them"] = None
    for text in skipped:
        notes.add(top, text)


def jobs_of(sweep_dir: Path, notes: Notes) -> list[str]:
    """The names of the jobs of a sweep that are those of directories in it."""
    try:
        jobs = plan_of(sweep_dir)["jobs"]
        return [
            job for job in jobs if isinstance(job, str) and job not in ("", ".", "..") and "/" not in job and "\0" not in job
        ]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        notes.add(sweep_dir, "its sweep.json cannot be read, so jobs that have not begun are not known")
        return []


def is_begun(run_dir: Path) -> bool:
    """Whether there is anything of a run yet."""
    return any(os.path.lexists(run_dir / mark) for mark in MARKS)


def read(run_dir: Path, notes: Notes) -> Run | None:
    """What can be read of a run; None, with a note, if it is not known what was trained."""
    info = newest_state(run_dir)
    config = read_config(run_dir, info, notes)
    if config is None:
        notes.add(run_dir, "left out: half-written or damaged, its config cannot be read")
        return None
    seed = config.get("seed", 0)
    if type(seed) is not int or seed.bit_length() > MOST_SEED_BITS:
        notes.add(run_dir, "left out: its seed is not a whole number, or too large for one")
        return None
    said = status.read(run_dir)
    if said is None:
        notes.add(run_dir, "no status.json that can be read: of an earlier version, or cut off; taken as it looks")
        said = {}
    elif not isinstance(said.get("command"), str):
        notes.add(run_dir, "of an earlier version: the command that made it is not recorded")
    machine, changes = info.get("machine"), info.get("changes")
    precision = machine.get("precision") if isinstance(machine, dict) else None
    rows = rows_of(run_dir, notes)
    evaluations = evaluations_of(run_dir, notes)
    last = rows[-1] if rows else {}
    step = first_count(said.get("step"), last.get("step"), info.get("step"))
    total = first_count(said.get("total_steps"), config.get("total_steps"))
    state = state_of(run_dir, said)
    if state == "unknown" and step >= total > 0:
        state = "complete"  # a run of an earlier version
    return Run(
        path=run_dir,
        config=config,
        state=state,
        message=said["message"] if isinstance(said.get("message"), str) and state != "complete" else "",
        step=step,
        total_steps=total,
        images=first_count(last.get("images"), info.get("images"), max((e.images for e in evaluations), default=0)),
        rows=rows,
        evaluations=evaluations,
        pictures=pictures_of(run_dir),
        seconds=float(last["time/elapsed"]) if finite(last.get("time/elapsed")) else 0.0,
        command=said["command"] if isinstance(said.get("command"), str) else "",
        cwd=said["cwd"] if isinstance(said.get("cwd"), str) else "",
        data=info["data"] if isinstance(info.get("data"), str) else "",
        precision=precision if isinstance(precision, str) else "",
        changes=tuple(str(change) for change in changes) if isinstance(changes, list) else (),
        chosen=is_chosen(run_dir),
    )


def is_chosen(run_dir: Path) -> bool:
    """Whether a search chose it as the best, to train the same with other seeds."""
    try:
        return run_dir.name in list(plan_of(run_dir.parent)["chosen"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False


def plan_of(sweep_dir: Path) -> Any:
    """What its sweep.json holds, which may be anything."""
    return json.loads(read_file(sweep_dir / "sweep.json"))


def first_count(*candidates: object) -> int:
    """The first that is a number of things, else 0."""
    return next((c for c in candidates if is_count(c)), 0)


def is_count(value: object) -> TypeGuard[int]:
    """Whether it is a number of things."""
    return type(value) is int and 0 <= value < MOST_COUNT


def newest_state(run_dir: Path) -> dict[str, Any]:
    """``state.json`` of the newest checkpoint whose own can be read: the config, and the fingerprint of the data."""
    folder = run_dir / "checkpoints"
    with suppress(OSError):
        for name in sorted((n for n in os.listdir(folder) if re.fullmatch(r"step-\d{8,}", n)), reverse=True):
            with suppress(OSError, ValueError, RecursionError):
                state = json.loads(read_file(folder / name / "state.json"))
                if isinstance(state, dict):
                    return state
    return {}


def read_config(run_dir: Path, info: dict[str, Any], notes: Notes) -> dict[str, Any] | None:
    """``config.yaml``, or that of a checkpoint, flattened."""
    with suppress(OSError, ValueError, RecursionError, yaml.YAMLError):
        found = plain_yaml(read_file(run_dir / "config.yaml", MOST_CONFIG))
        if is_config(found):
            return flatten(found)
    if is_config(info.get("config")):
        notes.add(run_dir, "its config.yaml cannot be read; that of its newest checkpoint is used")
        with suppress(RecursionError):
            return flatten(info["config"])
    return None


def plain_yaml(text: bytes) -> Any:
    """Plain data of a YAML text without aliases, of bounded depth and size; nothing it names is made.

    Raises:
        ValueError, yaml.YAMLError: it is something else.
    """
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    depth = 0
    for count, event in enumerate(yaml.parse(text, Loader=loader)):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if count > MOST_EVENTS or depth > DEEPEST_CONFIG or isinstance(event, yaml.AliasEvent):
            raise ValueError("no run's config is like this")
    return yaml.load(text, Loader=loader)


def is_config(node: Any) -> bool:
    """Whether it is nested plain data with names for keys and no giant numbers, and has what every run's config has."""
    return isinstance(node, dict) and _is_plain(node) and isinstance(node.get("dataset"), dict)


def _is_plain(node: Any, depth: int = 0) -> bool:
    if isinstance(node, dict):
        return depth < DEEPEST_CONFIG and all(isinstance(k, str) and _is_plain(v, depth + 1) for k, v in node.items())
    if isinstance(node, list):
        return depth < DEEPEST_CONFIG and all(_is_plain(value, depth + 1) for value in node)
    if isinstance(node, str):
        return not any("\ud800" <= c <= "\udfff" for c in node)  # which no file can hold
    return not isinstance(node, int) or node.bit_length() <= MOST_BITS


def rows_of(run_dir: Path, notes: Notes) -> list[dict[str, Any]]:
    """Of ``metrics.jsonl``, numbers only, and none that is too large to calculate with."""
    try:
        rows = read_rows(run_dir, MOST_ROWS)
    except OSError as error:
        notes.add(run_dir, f"its metrics.jsonl cannot be read: {error.strerror}")
        return []
    if not rows:
        with suppress(OSError):
            if os.lstat(run_dir / "metrics.jsonl").st_size:
                notes.add(run_dir, "its metrics.jsonl has no row that can be read")
    return [{k: v for k, v in row.items() if _is_value(v)} for row in rows if is_count(row["step"])]


def _is_value(value: object) -> bool:
    """Whether it is a number as a run logs it. What is not finite stays: it is a gap in a curve."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) < MOST_VALUE or (isinstance(value, float) and not math.isfinite(value))


def evaluations_of(run_dir: Path, notes: Notes) -> list[Evaluation]:
    """By step."""
    found = []
    for path in sorted((run_dir / "evaluations").glob("*.json")):
        result = evaluations.read(path)
        protocol = result["protocol"] if result is not None else {}
        step, images = protocol.get("step"), protocol.get("images")
        if result is None or not is_count(step) or not is_count(images) or not _is_finite(protocol):
            notes.add(path, "not an evaluation that can be read, left out")
            continue
        values = {k: float(v) for k, v in result["metrics"].items() if _is_value(v)}
        known = {k: v for k, v in values.items() if k.removesuffix("_std") in VALUES or k.startswith("fid/")}
        found.append(Evaluation(step, images, known, evaluations.protocol_id(protocol), protocol))
    return sorted(found, key=lambda evaluation: evaluation.step)


def _is_finite(protocol: dict[str, Any]) -> bool:
    try:
        json.dumps(protocol, allow_nan=False)
    except ValueError:
        return False
    return True


def pictures_of(run_dir: Path) -> dict[int, Path]:
    """Of ``samples/``, by step."""
    paths = sorted((run_dir / "samples").glob("step-*.png"))
    return {int(path.stem[5:]): path for path in paths if re.fullmatch(r"step-\d{8,15}", path.stem)}


def state_of(run_dir: Path, said: dict[str, Any]) -> str:
    """Of a run that says it is running, or nothing, the lock tells whether it is."""
    if said.get("state") in STATES:
        return str(said["state"])
    if is_locked(run_dir):
        return "running"
    return "stopped" if said.get("state") == "running" else "unknown"


def finite(value: object) -> bool:
    """Whether it is a number to calculate with."""
    return isinstance(value, int | float) and math.isfinite(value)
