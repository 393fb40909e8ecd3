"""Evaluation results as files and as tables."""

from __future__ import annotations

import glob
import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gan_cli.config.metrics import direction
from gan_cli.system.errors import OutputError, failing_as
from gan_cli.system.files import read_file, write_file
from gan_cli.system.text import number, plus_minus, short

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

# Protocol keys of the samples, the reference and the machine. Results that differ only in these can be compared.
SUBJECT_KEYS = frozenset({"step", "images", "checkpoint_hash", "samples_hash", "samples_path", "reference_path"})
UNCOMPARED_KEYS = SUBJECT_KEYS | {"device", "threads", "versions", "rule"}
# Protocol keys that describe how samples were made. They are unknown for external images; the remaining keys form the rule.
SAMPLING_KEYS = frozenset(
    {"seed", "weights", "batch_norm", "dropout", "precision", "direction", "samples_native", "samples_fit"}
)
# Protocol keys that follow from others, which are shown.
DERIVED_KEYS = frozenset(
    ["kid_subset_size", "neighbours_of", "comparable", "resize", "value_range"]
    + [f"classifier_{fact}" for fact in ("accuracy", "epochs", "images", "threads")]
)
MAX_NOTES = 3  # lines about results by another rule


def write(
    path: Path, values: dict[str, float], protocol: dict[str, Any], todo: str = "Set output= to a folder that can be written"
) -> dict[str, float]:
    """Write ``{"metrics": ..., "protocol": ...}``, atomically; return all metrics of the file.

    Other metrics that the file has of the same weights, protocol and versions are kept.

    Raises:
        OutputError: it cannot be written.
    """
    protocol = {**protocol, "rule": rule_id(protocol)}
    before, machine = read(path), {"device": None, "threads": None}
    if before is not None and before["protocol"] | machine == protocol | machine:
        values = {**before["metrics"], **values}
    text = json.dumps({"metrics": values, "protocol": protocol}, indent=1, allow_nan=False)
    with failing_as(OutputError, "the result cannot be written", str(path), todo):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, text + "\n")
    return values


def to_tensorboard(run_dir: Path, writer: SummaryWriter, step: int, own: str | None = None) -> None:
    """Write gan-eval's results of a step, each protocol under a tag of its own, so that no curve mixes two.

    ``own``: protocol id of the evaluations of the training itself, which are logged under ``metric/``.
    """
    for path in sorted((run_dir / "evaluations").glob(f"step-{step:08d}-*.json")):
        result, identity = read(path), path.stem.rpartition("-")[2]
        for key, value in result["metrics"].items() if result is not None and identity != own else ():
            writer.add_scalar(f"eval_{identity}/{key}", value, step)  # type: ignore[no-untyped-call]


def read(path: Path) -> dict[str, Any] | None:
    """The content of a file of :func:`write`; None if there is no file, or another content."""
    try:
        result = json.loads(read_file(path))
        metrics, protocol = result["metrics"], result["protocol"]
        finite = all(isinstance(value, float | int) and math.isfinite(value) for value in metrics.values())
        return result if finite and isinstance(protocol, dict) else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        return None


def metric_lines(values: dict[str, float], translates: bool) -> list[str]:
    """Lines of a table: each value with its spread and the direction that is better."""
    shown = [key for key in values if not key.endswith("_std")]
    width = max([len("metric"), *map(len, shown)])
    lines = [f"{'metric':<{width}}  {'value':<20}  better"]
    for key in shown:
        spread = f" {plus_minus()} {number(values[key + '_std'])}" if key + "_std" in values else ""
        lines.append(f"{key:<{width}}  {number(values[key]) + spread:<20}  {direction(key, translates)}")
    return lines


def protocol_id(protocol: dict[str, Any]) -> str:
    """8 hex digits that two results share if and only if they can be compared."""
    compared = {key: value for key, value in protocol.items() if key not in UNCOMPARED_KEYS}
    return hashlib.sha256(json.dumps(compared, sort_keys=True).encode()).hexdigest()[:8]


def rule_id(protocol: dict[str, Any]) -> str:
    """8 hex digits of the rule alone, which the results of runs and of external images share."""
    return protocol_id({key: value for key, value in protocol.items() if key not in SAMPLING_KEYS})


def changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Keys of the rule or of the sampling that two protocols have with different values, and both values."""
    both = sorted((new.keys() & old.keys()) - UNCOMPARED_KEYS - DERIVED_KEYS)
    return {key: (old[key], new[key]) for key in both if old[key] != new[key]}


def others(protocol: dict[str, Any], path: Path) -> list[str]:
    """A line for each other protocol by which the same samples or run were measured, with its differences.

    ``path``: of the result. Its name begins with that of the samples or run.
    """
    protocols: dict[str, list[str]] = {}
    subject = path.stem.rpartition("-")[0]
    if "samples_hash" not in protocol:  # a run, at any step
        subject = subject[:-8]
    for file in sorted(path.parent.glob(f"{glob.escape(subject)}*.json")):
        result = read(file) if file != path else None
        theirs = result["protocol"] if result is not None else {}
        changed = [f"{key} is {short(a)} there, {short(b)} here" for key, (a, b) in changes(theirs, protocol).items()]
        if changed:
            protocols.setdefault("; ".join(changed), []).append(short(file.name, 80))
    lines = [
        f"not to be compared with {files[0]}{f' and {len(files) - 1} more' if len(files) > 1 else ''}: {differences}"
        for differences, files in protocols.items()
    ]
    return [
        *lines[:MAX_NOTES],
        *([f"nor with results of {len(lines) - MAX_NOTES} more rules"] if len(lines) > MAX_NOTES else []),
    ]
