"""Values of runs that were never evaluated: means of training scalars."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from gan_cli.comparing import statistics
from gan_cli.comparing.gather import finite
from gan_cli.comparing.records import RunRecord
from gan_cli.config.metrics import VALUES, direction

TAIL = 0.1  # fraction of a run's rows, from the end, that are averaged
LOGGED = ("d/wasserstein", "d/loss", "g/loss")  # columns of the table after those of metric/
LOWER = frozenset(f"metric/{name}" for name in ("jsd", "value_gap", "wasserstein_1", "d_error"))
HIGHER = frozenset(f"metric/{name}" for name in ("good_share", "modes"))


def reached(run: RunRecord) -> int:
    """Return the largest number of images that a run has recorded."""
    return max([run.images, *(e.images for e in run.evaluations)])


def tail(rows: Sequence[Mapping[str, Any]], key: str, most_images: int | None = None) -> float | None:
    """Return the mean of the last tenth of the rows with ``key``, up to ``most_images``, or None without such rows."""
    values = [
        row[key]
        for row in rows
        if finite(row.get(key)) and (most_images is None or (finite(row.get("images")) and row["images"] <= most_images))
    ]
    return statistics.mean(values[-max(1, math.ceil(TAIL * len(values))) :]) if values else None


def better(name: str) -> str:
    """Return ``lower`` or ``higher`` for a training scalar with a direction, else "". A loss of two players has none."""
    if name.removeprefix("metric/") in VALUES:
        way = direction(name.removeprefix("metric/"))
        return way if way in ("lower", "higher") else ""
    return "lower" if name in LOWER else "higher" if name in HIGHER else ""
