"""A sweep over every combination."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Sequence

from hydra.core.override_parser.types import Override

from gan_cli.app.entry import refuse_huge_sweep
from gan_cli.sweeps import directory
from gan_cli.sweeps.jobs import Jobs, Outcome
from gan_cli.system.errors import ConfigError, SweepError

log = logging.getLogger("gan_cli")


class Grid(Jobs):
    """Every combination of the values of every key: ``-m loss=hinge,wgan_gp seed=range(0,5)``."""

    def sweep(self, arguments: list[str]) -> list[Outcome]:
        """Called by Hydra with the overrides of the command line.

        Raises:
            SweepError: of the jobs that failed, after all have ended.
        """
        jobs = combinations(self.parse(arguments))
        with self.opened(arguments):
            outcomes = self.run(jobs)
            failed = {one.name: one.error for one in outcomes if one.error is not None}
        done = sum(one.state == "complete" for one in outcomes)
        if done:
            log.info("compare them: %s", directory.compare(self.directory))
        if failed:
            raise SweepError(failed)
        log.info("the sweep is finished: %d of %d jobs are complete", done, len(outcomes))
        return outcomes


def combinations(overrides: Sequence[Override]) -> list[list[str]]:
    """The jobs of a grid, the last key changing fastest.

    Raises:
        ConfigError: too many, or a continuous range, which has no values to go through.
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
            todo = "List values (choice, range), or search: hydra/sweeper=optuna, or hydra/sweeper=random"
            raise ConfigError(f"a grid cannot go through {str(override.input_line).partition('=')[2]}", key, todo)
    return [list(job) for job in dict.fromkeys(itertools.product(*values))]  # a value given twice is one job
