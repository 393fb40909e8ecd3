"""The best checkpoint of a run (``best.json``), and the metric that a sweeper gets."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from gan_cli.config.metrics import VALUES
from gan_cli.rundir.metrics_log import read_rows
from gan_cli.system.errors import ConfigError
from gan_cli.system.files import read_file


def final_metric(run_dir: Path, key: str | None, *, evaluated: bool) -> float | None:
    """The metric of a run for a sweeper: of the best checkpoint if it is an evaluated metric, else the last logged value.

    Args:
        key: ``optimized_metric``. evaluated: whether the run has ``eval_every``.

    Raises:
        ConfigError: the run does not log ``key``.
    """
    best = read_best(run_dir)
    if evaluated and best is not None and key in (None, f"metric/{best['metric']}"):
        return float(best["value"])
    if key is None:
        return None
    if evaluated and key.removeprefix("metric/") in VALUES:
        return None  # every evaluation failed
    rows = read_rows(run_dir)
    refuse_unknown_metric(key, {k for row in rows for k in row})
    return float(next(row[key] for row in reversed(rows) if key in row))


def refuse_unknown_metric(key: str | None, logged: Iterable[str]) -> None:
    """Refuse an ``optimized_metric`` that the run does not log."""
    if key is not None and key not in logged:
        raise ConfigError(f"the run does not log {key!r}", "optimized_metric", f"It logs: {', '.join(sorted(logged))}")


def read_best(run_dir: Path) -> dict[str, Any] | None:
    """``step``, ``metric``, ``value`` and ``protocol_id`` of the best checkpoint, or None."""
    try:
        return as_best(json.loads(read_file(run_dir / "best.json")))
    except (OSError, ValueError, RecursionError):
        return None


def as_best(best: Any) -> dict[str, Any] | None:
    """``best`` if it has the keys and types of ``best.json``, else None."""
    kinds = {"step": int, "metric": str, "value": float, "protocol_id": str}
    return best if isinstance(best, dict) and all(isinstance(best.get(key), kind) for key, kind in kinds.items()) else None
