"""A sweep over every combination of values."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Mapping, Sequence

from hydra.core.override_parser.types import Override

from gan_cli.app.entry import refuse_huge_sweep
from gan_cli.sweeps import directory
from gan_cli.sweeps.jobs import Jobs, Outcome
from gan_cli.system.errors import ConfigError, SweepError

log = logging.getLogger("gan_cli")


def sweep(jobs: Jobs, params: Mapping[str, str], arguments: Sequence[str]) -> list[Outcome]:
    """Run every combination: ``-m loss=hinge,wgan_gp seed=range(0,5)``.

    Args:
        params: values by key, from a config. arguments: overrides of the command line, which win.

    Raises:
        SweepError: jobs failed; raised when all have ended.
    """
    overrides = jobs.parse(params, arguments)
    combinations = combine(overrides)
    if not combinations:
        raise ConfigError("the sweep has no jobs", " ".join(arguments), "Check its globs and ranges")
    with jobs.opened(overrides):
        outcomes = jobs.run(combinations)
    done = sum(one.state == "complete" for one in outcomes)
    if done:
        log.info("compare them: %s", directory.compare(jobs.directory))
    if failed := {one.name: one.error for one in outcomes if one.error is not None}:
        raise SweepError(failed)
    log.info("the sweep is finished: %d of %d jobs are complete", done, len(outcomes))
    return outcomes


def combine(overrides: Sequence[Override]) -> list[list[str]]:
    """The overrides of each job of a grid; the last key changes fastest.

    Raises:
        ConfigError: there are too many, or an interval has no list of values.
    """
    refuse_huge_sweep(overrides)
    values: list[list[str]] = []
    for override in overrides:
        key = override.get_key_element()
        if not override.is_sweep_override():
            values.append([str(override.input_line)])
        elif override.is_discrete_sweep():
            values.append([f"{key}={value}" for value in override.sweep_string_iterator()])
        else:
            todo = "List values (choice, range), or search: hydra/sweeper=optuna or hydra/sweeper=random"
            raise ConfigError(f"a grid needs a list of values, not {str(override.input_line).partition('=')[2]}", key, todo)
    return [list(job) for job in dict.fromkeys(itertools.product(*values))]  # a value given twice is one job
