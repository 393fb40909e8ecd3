"""The config of ``gan-sample``, checked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from gan_cli.ranges import Finite, PositiveInt, Seed


@dataclass(frozen=True)
class SampleConfig:
    """Everything ``gan-sample`` reads; conf/sample.yaml says what each key means."""

    run_dir: str
    num_samples: PositiveInt
    seed: Seed
    label: Any
    truncation: Finite | None
    input: str | None
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
