"""Short texts: numbers, durations, names of jobs, shell words."""

from __future__ import annotations

import os
import re
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    pass
import hashlib

LONGEST = 200  # bytes of a job's name; file systems take 255


def program(name: str) -> str:
    """What to type for one of the commands: its name, or its path where the environment is not activated."""
    beside = Path(sys.executable).with_name(name)
    found = shutil.which(name)
    if not beside.exists() or (found is not None and Path(found) == beside):
        return name
    return os.path.relpath(beside) if beside.is_relative_to(Path.cwd()) else str(beside)


def override(key: str, value: object) -> str:
    """``key=value`` as Hydra reads it, quoted where it must be, not yet quoted for a shell."""
    text = str(value)
    if re.fullmatch(r"[\w./:+-]+", text):
        return f"{key}={text}"
    escaped = text.replace('"', '\\"')
    return f'{key}="{escaped}"'


def first_line(text: str) -> str:
    """Of a longer message; the second one too, where the first announces it."""
    first, _, rest = text.strip().partition("\n")
    return f"{first.strip()} {first_line(rest)}" if first.endswith(":") and rest.strip() else first.strip()


def number(value: float) -> str:
    """Four significant digits, but no power of ten: whole from 1000 on, six decimals below 0.001."""
    if value == 0 or abs(value) >= 1000:
        return f"{value:.0f}"
    return f"{value:.4g}" if abs(value) >= 1e-3 else f"{value:.6f}"


def short(value: Any, most: int = 24) -> str:
    """A value of a protocol, or a name, in a line of text."""
    text = "".join(c if c.isprintable() else repr(c)[1:-1] for c in str(value))
    return text if len(text) <= most else f"{text[: most - 8]}..."


def job_name(overrides: str) -> str:
    """The directory of a sweep's job: what it overrides, as one plain file name."""
    overrides = overrides or "default"
    name = overrides.replace("/", "_").lstrip(".") or "default"
    if name == overrides and len(name.encode()) <= LONGEST:
        return name
    return f"{name[:100]}-{hashlib.sha256(overrides.encode()).hexdigest()[:12]}"


def clock(seconds: float) -> str:
    """``1:02:03`` or ``2:03``."""
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
