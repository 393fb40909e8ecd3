"""Discovery and tolerant reading of run directories.

A run directory may be untrusted, incomplete, damaged or of another version. Nothing in it is executed and no link is
followed. What cannot be read is reported in a note.
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

from gan_cli.comparing.records import EvaluationRecord, RunRecord
from gan_cli.config.metrics import VALUES
from gan_cli.config.plain import flatten
from gan_cli.rundir import evaluations, status
from gan_cli.rundir.metrics_log import read_rows
from gan_cli.system.errors import ConfigError, NotFoundError, UntrustedError
from gan_cli.system.files import read_file, refuse_links
from gan_cli.system.locks import is_locked
from gan_cli.system.text import short

MAX_DEPTH = 4  # levels of folders searched below an argument
MAX_FOLDERS = 20_000  # folders searched below an argument
MAX_CONFIG_BYTES, MAX_LOG_BYTES = 2**20, 2**28
MAX_YAML_EVENTS, MAX_CONFIG_DEPTH = 20_000, 16
MAX_COUNT = 10**15  # steps or images
MAX_METRIC = 1e100  # absolute value; a larger one is ignored
MAX_CONFIG_BITS, MAX_SEED_BITS = 1024, 63  # size of an integer
MARKS = ("config.yaml", "status.json", "metrics.jsonl", "checkpoints")  # any of these names makes a folder a run directory
STATES = frozenset({"complete", "preempted", "failed", "diverged", "pruned"})
MAX_LISTED, MAX_PATH_LENGTH = 3, 160  # paths in a note, characters of one path
UNREADABLE = (OSError, ValueError, KeyError, TypeError, RecursionError)  # errors of reading a damaged JSON file


class Notes:
    """Remarks about paths. The same remark about several paths is one line."""

    def __init__(self) -> None:
        self.paths: dict[str, list[str]] = {}

    def add(self, path: Path, text: str) -> None:
        """Add a remark about a path."""
        self.paths.setdefault(text, []).append(str(path))

    def lines(self) -> list[str]:
        """Return ``a, b, c and 3 more: remark`` for each remark."""
        return [f"{listed(paths)}: {text}" for text, paths in self.paths.items()]


def listed(names: Sequence[object]) -> str:
    """Return ``a, b, c and 3 more``. The middle of a long name is left out."""
    texts = [short(name, 4096) for name in names[:MAX_LISTED]]
    shown = ", ".join(t if len(t) <= MAX_PATH_LENGTH else f"{t[:40]}...{t[43 - MAX_PATH_LENGTH :]}" for t in texts)
    return shown + (f" and {len(names) - MAX_LISTED} more" if len(names) > MAX_LISTED else "")


def plural(n: int, noun: str) -> str:
    """Return ``1 run``, ``2 runs``."""
    return f"{n} {noun}{'' if n == 1 else 's'}"


def gather(arguments: Sequence[Path]) -> tuple[list[RunRecord], list[str]]:
    """Read all runs at or below these directories. Return them with notes, one line each.

    Raises:
        NotFoundError: a directory does not exist, or no run was found. ConfigError: all arguments are files.
        UntrustedError: every run that was found contains links.
    """
    notes, found, runs = Notes(), dict[Path, Path](), list[RunRecord]()
    refused: UntrustedError | None = None
    for argument in arguments:
        if not argument.exists():
            raise NotFoundError("no such directory", str(argument), "Name directories of runs or sweeps")
        if argument.is_dir():
            found |= {path.resolve(): path for path in directories(argument, notes)}
    if not any(argument.is_dir() for argument in arguments):
        raise ConfigError("a file, not a directory", str(arguments[0]), "Name directories of runs or sweeps")
    if not found:
        raise NotFoundError("no run found", listed(arguments), "gan-train makes one; a run directory has a config.yaml")
    for path in sorted(found.values()):
        try:
            refuse_links(path, "Remove it")
            run = read(path, notes)
        except UntrustedError as error:
            refused = refused or error
            notes.add(path, f"left out: {error.what} ({Path(error.where).name})")
        except OSError as error:
            notes.add(path, f"left out: cannot be read: {error.strerror}")
        else:
            runs += [run] if run is not None else []
    if not runs:
        raise refused or NotFoundError("no run can be read", listed(arguments), notes.lines()[0])
    return runs, notes.lines()


def directories(top: Path, notes: Notes) -> Iterator[Path]:
    """Yield the run directories at or below ``top``. Add a note about folders and jobs that are left out."""

    def note_error(error: OSError) -> None:
        notes.add(Path(error.filename), f"cannot be read: {error.strerror}")

    for count, (name, below, files) in enumerate(os.walk(top, onerror=note_error), 1):
        folder = Path(name)
        if "sweep.json" in files:
            _note_waiting_jobs(folder, notes)
        elif any(mark in below or mark in files for mark in MARKS):
            below.clear()
            yield folder
        below[:] = sorted(name for name in below if not name.startswith("."))
        if below and len(folder.relative_to(top).parts) >= MAX_DEPTH:
            below.clear()
            notes.paths.setdefault(f"folders more than {MAX_DEPTH} levels down are not searched; name them", [str(top)])
        if below and count >= MAX_FOLDERS:
            notes.add(top, f"folders beyond the first {MAX_FOLDERS:,} are not searched; name them")
            return


def _note_waiting_jobs(sweep_dir: Path, notes: Notes) -> None:
    try:
        jobs = [job for job in _plan(sweep_dir)["jobs"] if isinstance(job, str) and "/" not in job]
        waiting = sum(not any(os.path.lexists(sweep_dir / job / mark) for mark in MARKS) for job in jobs)
    except UNREADABLE:
        notes.add(sweep_dir, "sweep.json cannot be read, so jobs that have not started are unknown")
        return
    if waiting:
        notes.add(sweep_dir, f"{plural(waiting, 'job')} not started")


def _plan(sweep_dir: Path) -> Any:
    """Return the content of a sweep.json, which may be any JSON."""
    return json.loads(read_file(sweep_dir / "sweep.json"))


def read(run_dir: Path, notes: Notes) -> RunRecord | None:
    """Read as much of a run as possible. Return None, with a note, if its config or seed cannot be read."""
    info = newest_state(run_dir)
    config = read_config(run_dir, info, notes)
    if config is None:
        notes.add(run_dir, "left out: its config cannot be read; incomplete or damaged")
        return None
    seed = config.get("seed", 0)
    if type(seed) is not int or seed.bit_length() > MAX_SEED_BITS:
        notes.add(run_dir, f"left out: seed is not an integer of at most {MAX_SEED_BITS} bits")
        return None
    saved = status.read(run_dir)
    if saved is None:
        notes.add(run_dir, "no readable status.json (an earlier version, or damaged): its state is inferred")
    elif not _text(saved.get("command")):
        notes.add(run_dir, "written by an earlier version: its command is not recorded")
    saved = saved or {}
    rows, measured = rows_of(run_dir, notes), evaluations_of(run_dir, notes)
    machine, changes, last = info.get("machine"), info.get("changes"), rows[-1] if rows else {}
    step = _first_count(saved.get("step"), last.get("step"), info.get("step"))
    total_steps = _first_count(saved.get("total_steps"), config.get("total_steps"))
    state = state_of(run_dir, saved)
    if state == "unknown" and step >= total_steps > 0:
        state = "complete"  # a run of an earlier version
    return RunRecord(
        path=run_dir,
        config=config,
        state=state,
        message=_text(saved.get("message")) if state != "complete" else "",
        step=step,
        total_steps=total_steps,
        images=_first_count(last.get("images"), info.get("images"), max((e.images for e in measured), default=0)),
        rows=rows,
        evaluations=measured,
        pictures=pictures_of(run_dir),
        seconds=float(last["time/elapsed"]) if finite(last.get("time/elapsed")) else 0.0,
        command=_text(saved.get("command")),
        cwd=_text(saved.get("cwd")),
        data=_text(info.get("data")),
        precision=_text(machine.get("precision")) if isinstance(machine, dict) else "",
        changes=tuple(str(change) for change in changes) if isinstance(changes, list) else (),
        chosen=_is_chosen(run_dir),
    )


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _is_chosen(run_dir: Path) -> bool:
    """Return whether a search selected the run as its best trial, to repeat it with other seeds."""
    try:
        return run_dir.name in list(_plan(run_dir.parent)["chosen"])
    except UNREADABLE:
        return False


def _first_count(*candidates: object) -> int:
    """Return the first of the candidates that is a number of steps or images, else 0."""
    return next((candidate for candidate in candidates if _is_count(candidate)), 0)


def _is_count(value: object) -> TypeGuard[int]:
    return type(value) is int and 0 <= value < MAX_COUNT


def newest_state(run_dir: Path) -> dict[str, Any]:
    """Return ``state.json`` of the newest checkpoint where it can be read, else an empty dictionary."""
    with suppress(OSError):
        names = [name for name in os.listdir(run_dir / "checkpoints") if re.fullmatch(r"step-\d{8,}", name)]
        for name in sorted(names, reverse=True):
            with suppress(OSError, ValueError, RecursionError):
                state = json.loads(read_file(run_dir / "checkpoints" / name / "state.json"))
                if isinstance(state, dict):
                    return state
    return {}


def read_config(run_dir: Path, info: dict[str, Any], notes: Notes) -> dict[str, Any] | None:
    """Return the flattened ``config.yaml``, else that of a checkpoint's ``state.json``, else None."""
    with suppress(OSError, ValueError, RecursionError, yaml.YAMLError):
        found = _plain_yaml(read_file(run_dir / "config.yaml", MAX_CONFIG_BYTES))
        if _is_config(found):
            return flatten(found)
    with suppress(RecursionError):
        if _is_config(info.get("config")):
            notes.add(run_dir, "config.yaml cannot be read; the config of its newest checkpoint is used")
            return flatten(info["config"])
    return None


def _plain_yaml(text: bytes) -> Any:
    """Load YAML without tags or aliases, of bounded depth and size.

    Raises:
        ValueError, yaml.YAMLError: the text is something else.
    """
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    depth = 0
    for count, event in enumerate(yaml.parse(text, Loader=loader)):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if count > MAX_YAML_EVENTS or depth > MAX_CONFIG_DEPTH or isinstance(event, yaml.AliasEvent):
            raise ValueError("too large or too deep for a config, or has aliases")
    return yaml.load(text, Loader=loader)


def _is_config(node: Any) -> bool:
    """Return whether it is a dictionary of plain data with a ``dataset``, which every run's config has."""
    return isinstance(node, dict) and _is_plain(node) and isinstance(node.get("dataset"), dict)


def _is_plain(node: Any, depth: int = 0) -> bool:
    if isinstance(node, dict):
        return depth < MAX_CONFIG_DEPTH and all(isinstance(k, str) and _is_plain(v, depth + 1) for k, v in node.items())
    if isinstance(node, list):
        return depth < MAX_CONFIG_DEPTH and all(_is_plain(value, depth + 1) for value in node)
    if isinstance(node, str):
        return not any("\ud800" <= c <= "\udfff" for c in node)  # surrogates cannot be encoded as UTF-8
    return not isinstance(node, int) or node.bit_length() <= MAX_CONFIG_BITS


def rows_of(run_dir: Path, notes: Notes) -> list[dict[str, Any]]:
    """Return the rows of ``metrics.jsonl`` with their numbers only. NaN and infinity stay: they are gaps in a curve."""
    path = run_dir / "metrics.jsonl"
    try:
        rows = read_rows(run_dir, MAX_LOG_BYTES)
        if not rows and os.path.lexists(path) and os.lstat(path).st_size:
            notes.add(run_dir, "metrics.jsonl has no readable row")
    except OSError as error:
        notes.add(run_dir, f"metrics.jsonl cannot be read: {error.strerror}")
        return []
    return [{k: v for k, v in row.items() if _is_value(v)} for row in rows if _is_count(row["step"])]


def _is_value(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) < MAX_METRIC or (isinstance(value, float) and not math.isfinite(value))


def evaluations_of(run_dir: Path, notes: Notes) -> list[EvaluationRecord]:
    """Return the evaluations of a run, sorted by step."""
    found = []
    for path in sorted((run_dir / "evaluations").glob("*.json")):
        result = evaluations.read(path) or {"protocol": {}}
        protocol = result["protocol"]
        step, images = protocol.get("step"), protocol.get("images")
        try:
            json.dumps(protocol, allow_nan=False)
        except ValueError:
            step = None
        if not _is_count(step) or not _is_count(images):
            notes.add(path, "left out: not a readable evaluation")
            continue
        values = {k: float(v) for k, v in result["metrics"].items() if _is_value(v)}
        known = {k: v for k, v in values.items() if k.removesuffix("_std") in VALUES or k.startswith("fid/")}
        found.append(EvaluationRecord(step, images, known, evaluations.protocol_id(protocol), protocol))
    return sorted(found, key=lambda evaluation: evaluation.step)


def pictures_of(run_dir: Path) -> dict[int, Path]:
    """Return the files of ``samples/`` by step."""
    paths = sorted((run_dir / "samples").glob("step-*.png"))
    return {int(path.stem[5:]): path for path in paths if re.fullmatch(r"step-\d{8,15}", path.stem)}


def state_of(run_dir: Path, saved: dict[str, Any]) -> str:
    """Return the recorded state of a run that ended. For others the lock tells whether a process still trains it."""
    if saved.get("state") in STATES:
        return str(saved["state"])
    if is_locked(run_dir):
        return "running"
    return "stopped" if saved.get("state") == "running" else "unknown"


def finite(value: object) -> bool:
    """Return whether a value is a number other than NaN and infinity."""
    return isinstance(value, int | float) and math.isfinite(value)
