"""The config of ``gan-sample``, checked."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from gan_cli.config import schema
from gan_cli.ranges import Finite, OnBadImage, PositiveInt, Seed
from gan_cli.system.errors import ConfigError

FORMATS = ("grid", "npz", "png", "gif")


@dataclass(frozen=True)
class SampleConfig:
    """The whole config of ``gan-sample``; conf/sample.yaml documents each key."""

    run_dir: str
    num_samples: PositiveInt
    seed: Seed
    label: Any
    truncation: Finite | None
    input: str | None
    on_bad_image: OnBadImage
    direction: Literal["a2b", "b2a"] | None
    mode: Literal["paper", "eval"] | None
    formats: list[Literal["grid", "npz", "png", "gif"]] | None
    output: str | None
    step: str
    ema: bool
    batch_size: PositiveInt
    device: Literal["auto", "cpu", "cuda", "mps"]
    threads: PositiveInt | None
    trust: bool

    def folder_name(self, step: int) -> str:
        """``step-<8 digits>-seed<k>``, followed by what else was asked for."""
        parts = [f"step-{step:08d}", f"seed{self.seed}"]
        parts += [] if self.ema else ["raw"]
        parts += [f"truncation{self.truncation:g}"] if self.truncation is not None else []
        parts += [value for value in (self.mode, self.direction) if value is not None]
        if self.input is not None:
            path = Path(self.input).expanduser().absolute()
            parts.append(f"{path.stem[:60]}-{_digest(str(path))}")
        if self.label is not None:
            labels = [str(label) for label in (self.label if isinstance(self.label, list) else [self.label])]
            plain = "-".join(labels)
            parts.append(f"label-{plain if re.fullmatch('[0-9A-Za-z-]{1,60}', plain) else _digest(repr(labels))}")
        return "-".join(parts)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:6]


def check(plain: dict[str, Any]) -> SampleConfig:
    """The composed config with its types and ranges checked.

    Raises:
        ConfigError: naming the key, the value and what is allowed.
    """
    config = SampleConfig(**schema.check_fields(plain, SampleConfig))
    if config.formats == []:
        raise ConfigError("there is nothing to write", "formats", f"Set formats to any of: {', '.join(FORMATS)}")
    if config.output is not None and Path(config.output).suffix.lower() in (".png", ".gif", ".npz", ".jpg", ".jpeg"):
        todo = f"Name a folder, output={Path(config.output).with_suffix('')}; formats= chooses the kinds of files"
        raise ConfigError("output is a folder", f"output={config.output}", todo)
    return config
