"""The space of a search, written in Hydra's words. Optuna is imported when a space is read.

``a,b`` and ``choice(a,b)``, ``range(0,10,2)``, ``interval(0,1)``, ``int(interval(1,9))``, ``tag(log,interval(1e-5,1e-2))``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gan_cli.system.errors import ConfigError

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override, RangeSweep
    from optuna.distributions import BaseDistribution

DIGITS = 6  # significant digits of a drawn number in overrides and names of directories


@dataclass(frozen=True)
class Space:
    """The searched keys and the fixed overrides.

    Attributes:
        searched: key -> distribution, sorted by key. A choice is kept as the text that is typed for it.
        said: key -> the user's text. fixed: overrides that all trials share.
    """

    searched: dict[str, BaseDistribution]
    said: dict[str, str]
    fixed: list[str]

    def overrides(self, values: Mapping[str, Any]) -> list[str]:
        """The overrides of a job with these values of the searched keys."""
        return [*self.fixed, *self.drawn(values)]

    def drawn(self, values: Mapping[str, Any]) -> list[str]:
        """The overrides of the searched keys alone."""
        return [f"{key}={written(values[key], self.searched[key])}" for key in self.searched]

    def choices(self) -> list[dict[str, Any]]:
        """Few points with each choice in one of them: the first of every key, then every other choice by itself."""
        from optuna.distributions import CategoricalDistribution

        first: dict[str, Any] = {}
        others = []
        for key, distribution in self.searched.items():
            several = distribution.choices if isinstance(distribution, CategoricalDistribution) else [distribution.low]  # type: ignore[attr-defined]
            first[key] = several[0]
            others += [(key, choice) for choice in several[1:]]
        return [first, *({**first, key: choice} for key, choice in others)]


def read_space(overrides: Sequence[Override]) -> Space:
    """Read the space of a search from the overrides of a command.

    Raises:
        ConfigError: nothing to search, or a key or value that cannot be searched.
    """
    swept = {o.get_key_element(): o for o in overrides if o.is_sweep_override()}
    if not swept:
        todo = "Give a key several values: 'optimizer.lr=tag(log,interval(1e-5,1e-2))' or loss=hinge,wgan_gp"
        raise ConfigError("there is nothing to search", "command line", todo)
    if "seed" in swept:
        todo = "Set one seed; hydra.sweeper.confirm=3 trains the best trial with three others"
        raise ConfigError("seed cannot be searched", "seed", todo)
    fixed = [str(o.input_line) for o in overrides if not o.is_sweep_override()]
    said = {key: str(swept[key].input_line).partition("=")[2] for key in sorted(swept)}
    return Space({key: distribution(swept[key]) for key in said}, said, fixed)


def distribution(override: Override) -> BaseDistribution:
    """The distribution of a searched key.

    Raises:
        ConfigError: it has no values, or they cannot be drawn.
    """
    from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, RangeSweep, Sweep
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    sweep, where = override.value(), str(override.input_line)
    tags = sweep.tags if isinstance(sweep, Sweep) else set()
    log = "log" in tags
    if tags - {"log"}:
        raise ConfigError(f"there is no tag {sorted(tags - {'log'})[0]!r}", where, "The one there is is log")
    if isinstance(sweep, IntervalSweep):
        low, high = sweep.start, sweep.end
        assert low is not None and high is not None
        _refuse_bounds(low, high, log, where)
        if isinstance(low, int) and isinstance(high, int):
            return IntDistribution(low, high, log=log)
        return FloatDistribution(low, high, log=log)
    if isinstance(sweep, RangeSweep):
        return _stepwise(sweep, log, where)
    if log:
        raise ConfigError("choices have no logarithm", where, "Tag an interval or a range")
    if isinstance(sweep, ChoiceSweep):
        sweep.shuffle = False  # the order of choices belongs to the study
    values = list(dict.fromkeys(override.sweep_string_iterator()))
    if not values:
        raise ConfigError("there is nothing to choose from", where, "Name values")
    return CategoricalDistribution(values)


def _refuse_bounds(low: float, high: float, log: bool, where: str) -> None:
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ConfigError(f"the interval from {low:g} to {high:g} is empty or has no end", where, "Write the lower bound first")
    if log and low <= 0:
        raise ConfigError(f"{low:g} has no logarithm", where, "Begin above 0, or leave out log")


def _stepwise(sweep: RangeSweep, log: bool, where: str) -> BaseDistribution:
    from optuna.distributions import FloatDistribution, IntDistribution

    assert sweep.start is not None and sweep.stop is not None
    start, stop, step = sweep.start, sweep.stop, sweep.step
    count = math.ceil((stop - start) / step - 1e-9) if step and all(map(math.isfinite, (start, stop, step))) else 0
    if count < 1:
        raise ConfigError("the range is empty or has no end", where, "Write range(start,stop,step)")
    ends = sorted((start, start + (count - 1) * step))
    whole = all(isinstance(value, int) for value in (start, stop, step))
    if log:
        _refuse_bounds(ends[0], ends[1], log, where)
        if not whole or abs(step) != 1:
            raise ConfigError("a range with a logarithm goes in whole steps of 1", where, "Write tag(log,interval(...))")
        return IntDistribution(int(ends[0]), int(ends[1]), log=True)
    if whole:
        return IntDistribution(int(ends[0]), int(ends[1]), step=int(abs(step)))
    return FloatDistribution(ends[0], ends[1], step=abs(step))


def written(value: Any, distribution: BaseDistribution) -> str:
    """The text of a drawn value: numbers with few digits, within their bounds."""
    if not isinstance(value, float):
        return str(value)
    short = f"{value:.{DIGITS}g}"
    low, high = distribution.low, distribution.high  # type: ignore[attr-defined]
    return short if low <= float(short) <= high else repr(value)
