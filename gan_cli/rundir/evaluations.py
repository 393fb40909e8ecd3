"""Results of evaluations as files and as tables."""

from __future__ import annotations

import glob
import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gan_cli.config.metrics import direction
from gan_cli.system.errors import OutputError, failing_as
from gan_cli.system.files import read_file, write_file
from gan_cli.system.text import number, short

# Which samples and references were measured, and on what machine; results that differ only here can be compared.
WHICH = frozenset({"step", "images", "checkpoint_hash", "samples_hash", "samples_path", "reference_path"})
NOT_HOW = WHICH | {"device", "threads", "versions", "rule"}
# How the samples were made, which nobody knows of somebody else's; the rest is the rule that they are measured by.
MADE = frozenset({"seed", "weights", "batch_norm", "dropout", "precision", "direction", "samples_native", "samples_fit"})
MOST_NOTES = 3
FOLLOWS = frozenset(
    ["kid_subset_size", "neighbours_of", "comparable", "resize", "value_range"]
    + [f"classifier_{fact}" for fact in ("accuracy", "epochs", "images", "threads")]
)  # from others of the protocol, which are shown


def write(
    path: Path, values: dict[str, float], protocol: dict[str, Any], todo: str = "Set output= to a folder that can be written"
) -> dict[str, float]:
    """Write ``{"metrics": ..., "protocol": ...}``; the file is whole or not there.

    Other metrics that were measured earlier, of the same weights, in the same way and by the same versions, are kept.
    Returns them all.

    Raises:
        OutputError: it cannot be written.
    """
    protocol = {**protocol, "rule": rule_id(protocol)}
    before, anywhere = read(path), {"device": None, "threads": None}
    if before is not None and {**before["protocol"], **anywhere} == {**protocol, **anywhere}:
        values = {**before["metrics"], **values}
    text = json.dumps({"metrics": values, "protocol": protocol}, indent=1, allow_nan=False)
    with failing_as(OutputError, "the result cannot be written", str(path), todo):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, text + "\n")
    return values


def read(path: Path) -> dict[str, Any] | None:
    """What :func:`write` wrote, or None if it is not there or not that."""
    try:
        result = json.loads(read_file(path))
        metrics, protocol = result["metrics"], result["protocol"]
        finite = all(isinstance(value, float | int) and math.isfinite(value) for value in metrics.values())
        return result if finite and isinstance(protocol, dict) else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        return None


def table(values: dict[str, float], translates: bool) -> list[str]:
    """A line for each value, its spread beside it, and which direction is better."""
    shown = [key for key in values if not key.endswith("_std")]
    width = max([len("metric"), *map(len, shown)])
    lines = [f"{'metric':<{width}}  {'value':<20}  better"]
    for key in shown:
        spread = f" +- {number(values[key + '_std'])}" if key + "_std" in values else ""
        lines.append(f"{key:<{width}}  {number(values[key]) + spread:<20}  {direction(key, translates)}")
    return lines


def protocol_id(protocol: dict[str, Any]) -> str:
    """8 hex digits that two results share exactly if they were measured in the same way."""
    how = {key: value for key, value in protocol.items() if key not in NOT_HOW}
    return hashlib.sha256(json.dumps(how, sort_keys=True).encode()).hexdigest()[:8]


def rule_id(protocol: dict[str, Any]) -> str:
    """8 hex digits of the rule alone: shared by a run and by anybody's images that were measured in the same way."""
    return protocol_id({key: value for key, value in protocol.items() if key not in MADE})


def changes(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """What two protocols, which both say it, do not share of how they measure."""
    both = sorted((ours.keys() & theirs.keys()) - NOT_HOW - FOLLOWS)
    return {key: (theirs[key], ours[key]) for key in both if theirs[key] != ours[key]}


def others(protocol: dict[str, Any], path: Path) -> list[str]:
    """A line for each other way in which the same samples or run were measured: what is different about it.

    ``path``: of the result, whose name begins with what was measured.
    """
    ways: dict[str, list[str]] = {}
    subject = path.stem.rpartition("-")[0]
    if "samples_hash" not in protocol:  # a run, at any step
        subject = subject[:-8]
    for file in sorted(path.parent.glob(f"{glob.escape(subject)}*.json")):
        result = read(file) if file != path else None
        theirs = result["protocol"] if result is not None else {}
        changed = [f"{key} is {short(a)} there, {short(b)} here" for key, (a, b) in changes(theirs, protocol).items()]
        if changed:
            ways.setdefault("; ".join(changed), []).append(short(file.name, 80))
    lines = [
        f"not to be compared with {files[0]}{f' and {len(files) - 1} more' if len(files) > 1 else ''}: {way}"
        for way, files in ways.items()
    ]
    return [
        *lines[:MOST_NOTES],
        *([f"nor with results of {len(lines) - MOST_NOTES} more rules"] if len(lines) > MOST_NOTES else []),
    ]
