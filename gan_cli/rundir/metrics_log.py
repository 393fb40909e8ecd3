"""Reading of ``metrics.jsonl``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from gan_cli.system.files import opened


def read_rows(run_dir: Path, limit: int | None = None) -> list[dict[str, Any]]:
    """The rows of ``metrics.jsonl``, each with its ``step``. Lines that are not JSON are left out, as after a crash.

    ``limit``: maximum size of the file in bytes, for untrusted runs. Without a file there are no rows.

    Raises:
        OSError: the file cannot be read or is larger.
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
