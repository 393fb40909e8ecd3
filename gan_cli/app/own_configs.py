"""YAML files of the user's own, from ``--config-dir``: byte order marks, and numbers that YAML reads as octal."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gan_cli.system.errors import ConfigError

OCTAL = re.compile(r"\s*[\w.]+:\s+[-+]?(0\d+)\s*(#.*)?")


def ignore_byte_order_marks() -> None:
    """Let Hydra find the ``# @package`` line of a file that begins with a byte order mark. YAML itself allows one."""
    from hydra.plugins.config_source import ConfigSource

    read: Any = ConfigSource._get_header_dict

    def without_mark(text: str) -> Any:
        return read(text.removeprefix("\ufeff"))

    if read.__name__ != without_mark.__name__:  # not done yet
        ConfigSource._get_header_dict = staticmethod(without_mark)  # type: ignore[method-assign, assignment]


def refuse_octal(folder: str, overrides: Sequence[str]) -> None:
    """Refuse ``seed: 010`` in the options that are chosen from a folder: YAML reads 8.

    Raises:
        ConfigError: naming the file and the line.
    """
    options = [Path(folder, group, f"{name}.yaml") for group, _, name in (word.partition("=") for word in overrides)]
    for path in (path for path in options if path.is_file()):
        for n, line in enumerate(path.read_text(encoding="utf-8-sig", errors="replace").splitlines(), 1):
            if match := OCTAL.fullmatch(line):
                todo = f"Write {int(match[1])} for the number, or '{match[1]}' with quotes for a text"
                raise ConfigError(f"YAML reads {match[1]} as an octal number", f"{path}, line {n}", todo)
