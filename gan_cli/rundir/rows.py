"""``metrics.jsonl`` of a run as it is read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from gan_cli.system.files import opened


def read_rows(run_dir: Path, limit: int | None = None) -> list[dict[str, Any]]:
    """The rows of ``metrics.jsonl``, each with its ``step``; a line that a crash cut off is left out.

    ``limit``: bytes that the file may have, which matters if the run is a stranger's.

    Raises:
        OSError: it cannot be read, or is larger. That there is none is no error.
    """
    rows = []
    try:
        with opened(run_dir / "metrics.jsonl", limit) as file:
            lines = file.read().splitlines()
    except FileNotFoundError:
        return []
    for line in lines:
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(row, dict) and type(row.get("step")) is int:
            rows.append(row)
    return rows
