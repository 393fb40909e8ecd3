"""Types with a range, for the arguments of everything that a config file can name.

A constructor that says ``lr: Positive`` needs no other check. :mod:`gan_cli.config.schema` reads the annotation and
refuses ``lr=-1`` or ``lr=nan`` before anything is built.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal


@dataclass(frozen=True)
class Range:
    """An interval for a finite number. ``ge``/``gt``: lower bound, ``le``/``lt``: upper bound, each optional."""

    ge: float | None = None
    gt: float | None = None
    le: float | None = None
    lt: float | None = None

    def __contains__(self, value: Any) -> bool:
        return (
            (isinstance(value, int) or math.isfinite(value))
            and (self.ge is None or value >= self.ge)
            and (self.gt is None or value > self.gt)
            and (self.le is None or value <= self.le)
            and (self.lt is None or value < self.lt)
        )

    def __str__(self) -> str:
        signs = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}
        parts = [f"{sign} {getattr(self, name):.10g}" for name, sign in signs.items() if getattr(self, name) is not None]
        return " and ".join(parts) or "finite"


@dataclass(frozen=True)
class PowerOfTwoRange:
    """A power of two between two bounds, both included."""

    low: int
    high: int

    def __contains__(self, value: Any) -> bool:
        return bool(self.low <= value <= self.high and value & (value - 1) == 0)

    def __str__(self) -> str:
        return f"a power of two from {self.low} to {self.high}"


@dataclass(frozen=True)
class MultipleRange:
    """A multiple of ``step`` between two bounds, both included."""

    step: int
    low: int
    high: int

    def __contains__(self, value: Any) -> bool:
        return bool(self.low <= value <= self.high and value % self.step == 0)

    def __str__(self) -> str:
        return f"a multiple of {self.step} from {self.low} to {self.high}"


@dataclass(frozen=True)
class Items:
    """A list of at most ``most``."""

    most: int

    def __contains__(self, value: Any) -> bool:
        return len(value) <= self.most

    def __str__(self) -> str:
        return f"a list of at most {self.most}"


Finite = Annotated[float, Range()]
Finites = Annotated[Sequence[Finite], Items(16)]
Positive = Annotated[float, Range(gt=0)]
NonNegative = Annotated[float, Range(ge=0)]
Fraction = Annotated[float, Range(ge=0, le=1)]  # both ends included
Momentum = Annotated[float, Range(ge=0, lt=1)]  # decay rate of a running average
Betas = tuple[Momentum, Momentum]

Seed = Annotated[int, Range(ge=0, le=2**32 - 1)]
Count = Annotated[int, Range(ge=0)]
PositiveInt = Annotated[int, Range(ge=1)]
Channels = Annotated[int, Range(ge=1, le=4)]  # channels of an image
ConditionChannels = Annotated[int, Range(ge=0, le=64)]
ImageSize = Annotated[int, Range(ge=4, le=2048)]  # side in pixels
GreyOrRGB = Literal[1, 3]  # channels of an image that is read from a file
Fit = Literal["pad", "resize", "crop"]  # how an image becomes square
OnBadImage = Literal["error", "skip"]
# The config of a run may be untrusted, so everything that costs memory or time to build has an upper bound.
Width = Annotated[int, Range(ge=1, le=65536)]  # units or channels of a layer
Hidden = Annotated[Sequence[Width], Items(64)]  # widths of the hidden layers, in order
Classes = Annotated[int, Range(ge=1, le=65536)]
Pieces = Annotated[int, Range(ge=1, le=64)]  # linear functions of a maxout unit
Blocks = Annotated[int, Range(ge=1, le=64)]
PoolSize = Annotated[int, Range(ge=0, le=10_000)]  # images in CycleGAN's pool
Coordinate = Annotated[float, Range(ge=-1e6, le=1e6)]
Spread = Annotated[float, Range(ge=1e-6, le=1e6)]  # a standard deviation, or a distance
Modes = Annotated[int, Range(ge=1, le=256)]
ModesPerSide = Annotated[int, Range(ge=1, le=16)]
Coordinates = Annotated[Sequence[Coordinate], Items(256)]  # one coordinate for each mode on a line
Points = Annotated[Sequence[Annotated[Sequence[Coordinate], Items(16)]], Items(256)]  # one point for each mode
Spreads = Annotated[Sequence[Spread], Items(256)]
Shares = Annotated[Sequence[Positive], Items(256)]
DCGANImageSize = Annotated[int, PowerOfTwoRange(16, 256)]
ResNetImageSize = Annotated[int, PowerOfTwoRange(16, 256)]
QuarteredImageSize = Annotated[int, MultipleRange(4, 8, 256)]
UNetImageSize = Annotated[int, PowerOfTwoRange(16, 1024)]
TranslatorImageSize = Annotated[int, MultipleRange(4, 8, 2048)]
PatchLayers = Annotated[int, Range(ge=0, le=6)]
