"""Formatting of numbers, durations, job names and shell words."""

from __future__ import annotations

import hashlib
import math
import os
import re
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

MAX_JOB_NAME_BYTES = 200  # file systems allow 255
# Last parts of keys that take a path. A command line gives it literally.
PATH_KEYS = frozenset(
    {"run_dir", "from_run", "init_from", "input", "output", "fake", "real", "root", "path", "weights", "linear", "cache"}
)


def program(name: str) -> str:
    """The shell word for one of the commands: its name, or its path if the environment is not activated."""
    in_environment = Path(sys.executable).with_name(name)
    on_path = shutil.which(name)
    if not in_environment.exists() or (on_path is not None and Path(on_path) == in_environment):
        return name
    return os.path.relpath(in_environment) if in_environment.is_relative_to(Path.cwd()) else str(in_environment)


def word(key: str, path: object) -> str:
    """``key=path`` as a user types it, before the quotes of a shell; for the keys of :data:`PATH_KEYS`."""
    text = str(path)
    is_plain = text not in ("", "null", "auto", "???") and text[0] not in "\"'" and "${" not in text
    return f"{key}={text}" if is_plain or os.path.exists(text) else f"{key}={quoted(text)}"


def override(key: str, value: object) -> str:
    """``key=value`` with the quotes that Hydra needs."""
    return f"{key}={quoted(str(value))}"


def quoted(text: str) -> str:
    """A text with the quotes that Hydra needs, so that it is a text and not resolved."""
    if re.fullmatch(r"[A-Za-z./][A-Za-z0-9_./-]*", text) and text.lower() not in ("null", "true", "false", "nan", "inf"):
        return text
    text = re.sub(r"(\\*)\$\{", r"\1\1\\${", text)
    text = re.sub(r'(\\*)"', r'\1\1\\"', text)
    trailing = len(text) - len(text.rstrip("\\"))
    return f'"{text}{trailing * chr(92)}"'


def first_line(text: str) -> str:
    """First line of a message; if it ends in a colon, the next line too."""
    first, _, rest = text.strip().partition("\n")
    return f"{first.strip()} {first_line(rest)}" if first.endswith(":") and rest.strip() else first.strip()


def number(value: float) -> str:
    """Format with four significant digits and no exponent: a whole number from 1000 on, six decimals below 0.001."""
    if value == 0 or abs(value) >= 1000:
        return f"{value:.0f}"
    return f"{value:.4g}" if abs(value) >= 1e-3 else f"{value:.6f}"


def decimals(values: Iterable[float]) -> int:
    """Decimals for a column of numbers: its smallest one other than 0 has three significant digits, within 0 to 6 decimals."""
    sizes = [abs(value) for value in values if value and math.isfinite(value)]
    return max(0, min(6, 2 - math.floor(math.log10(min(sizes))))) if sizes else 0


def plus_minus(encoding: str | None = None) -> str:
    """``±``, or ``+-`` where the output cannot show it. ``encoding``: by default that of stdout."""
    return "±" if (encoding or sys.stdout.encoding or "ascii").lower().startswith("utf") else "+-"


def short(value: Any, most: int = 24) -> str:
    """Format a value or name for a line of text: at most ``most`` characters, control characters escaped."""
    text = "".join(c if c.isprintable() else repr(c)[1:-1] for c in str(value))
    return text if len(text) <= most else f"{text[: most - 8]}..."


def job_name(overrides: str) -> str:
    """Directory name of a sweep's job, made of its overrides."""
    overrides = overrides or "default"
    name = overrides.replace("/", "_").lstrip(".") or "default"
    if name == overrides and len(name.encode()) <= MAX_JOB_NAME_BYTES:
        return name
    return f"{name[:100]}-{hashlib.sha256(overrides.encode()).hexdigest()[:12]}"


def clock(seconds: float) -> str:
    """Format a duration as ``1:02:03`` or ``2:03``."""
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


def snake_case(name: str) -> str:
    """Convert ``NonSaturating`` to ``non_saturating``."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
