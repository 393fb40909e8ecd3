"""Searches by Optuna: sweeps whose next job depends on the results so far.

Everything a search knows is in its study, so the same command continues it. Trials that were running when it was killed are run
again with their values, and the next values depend on the seed and the trials so far only.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

from gan_cli.app.commands import Command
from gan_cli.comparing.statistics import mean, std
from gan_cli.config.plain import flatten, is_among
from gan_cli.config.training import MAY_CHANGE
from gan_cli.sweeps import directory
from gan_cli.sweeps.jobs import Jobs, Outcome, config_of
from gan_cli.sweeps.space import Space, read_space
from gan_cli.sweeps.study import Options, direction_of, is_evaluated, make_sampler, open_study, storage_errors
from gan_cli.system.errors import ClashError, ConfigError, GanError, SweepError, TooLargeError
from gan_cli.system.text import number
from gan_cli.system.version import install_command

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial

log = logging.getLogger("gan_cli")
# Keys that must not change in a search, though a run may resume with others.
MUST_STAY = {"total_steps", "log_every", "sample_every", "optimized_metric", "eval_every", "metrics", "num_samples", "features"}
HARMLESS = (MAY_CHANGE - MUST_STAY) | {"launcher"}


def sweep(jobs: Jobs, given: Mapping[str, Any], arguments: Sequence[str]) -> None:
    """Search, confirm and report: ``-m hydra/sweeper=optuna``.

    Args:
        given: the options of conf/hydra/sweeper/optuna.yaml. arguments: overrides of the command line.

    Raises:
        GanError, SweepError: the search cannot begin, was stopped, or gave no value.
    """
    if find_spec("optuna") is None:
        raise ConfigError("Optuna is not installed", "hydra/sweeper", f"Install it: {install_command('sweep')}")
    options = Options.checked({k: OmegaConf.to_container(v) if OmegaConf.is_config(v) else v for k, v in given.items()})
    overrides = jobs.parse(options.params, arguments)
    space = read_space(overrides)
    first, *others = (space.overrides(values) for values in space.choices())
    config = config_of(jobs.compose(first), first)
    for choice in others:
        jobs.compose(choice)  # refuses an option or a key that does not exist
    direction, metric = direction_of(config.optimized_metric, options.direction), str(config.optimized_metric)
    shared = {k: v for k, v in flatten(config.as_dict()).items() if v is not None and not is_among(k, HARMLESS)}
    with jobs.opened(overrides):
        study = open_study(options, jobs.directory, direction, {"search space": space.said, "config": shared})
        search = Search(options, space, study, metric, jobs.run, lambda overrides: jobs.plan(overrides).name)
        jobs.names += dict.fromkeys(str(trial.user_attrs["directory"]) for trial in search.trials())
        jobs.watch.expected = options.n_trials
        with storage_errors(options.location(jobs.directory)):
            search.optimise()
        jobs.watch.expected = 0
        if not search.trials("COMPLETE"):
            raise GanError("no trial gave a value", metric, "See the train.log of the trials, and narrow the search space")
        best = study.best_trial
        if options.confirm:
            jobs.fixed = [key for key in jobs.fixed if key != "seed"]
            jobs.chosen = [best.user_attrs["directory"]]
            confirm(search, best.params, range(config.seed + 1, config.seed + 1 + options.confirm))
        states = {"complete": "COMPLETE", "pruned": "PRUNED", "failed": "FAIL"}
        log.info("search: %s", ", ".join(f"{len(search.trials(state))} {word}" for word, state in states.items()))
        log.info("best trial:  %d, %s %s", best.number, metric, number(study.best_value))
        log.info("values:      %s", " ".join(space.drawn(best.params)))
        log.info("directory:   %s", jobs.directory / best.user_attrs["directory"])
        log.info("by itself:   %s", Command.of_job(jobs.config.hydra, space.overrides(best.params)).resume(Path("NEW")))


@dataclass
class Search:
    """Asks a study for trials, runs their jobs and tells the study the values.

    Attributes:
        run: overrides of jobs -> how each ended, in the same order. Finished jobs are not run again.
        name: overrides of a job -> the name of its directory.
    """

    options: Options
    space: Space
    study: Study
    metric: str
    run: Callable[[list[list[str]]], Sequence[Outcome]]
    name: Callable[[list[str]], str]

    def trials(self, *states: str) -> list[FrozenTrial]:
        """The trials in these states, or all that have begun, in the order of their beginning."""
        begun = [t for t in self.study.get_trials(deepcopy=False) if "directory" in t.user_attrs]
        return [t for t in begun if not states or t.state.name in states]

    def optimise(self) -> None:
        """Run trials until ``n_trials`` have ended, in all sessions.

        Raises:
            SweepError: a job was stopped, or failed for another reason than its values. The same command takes it up again.
        """
        self._forget_incomplete()
        left, ended = self.trials("RUNNING"), len(self.trials("COMPLETE", "PRUNED", "FAIL"))
        if left:
            log.info("search: trial %s was interrupted and resumes", ", ".join(str(t.number) for t in left))
        if ended:
            log.info("search: %d of %d trials are finished", ended, self.options.n_trials)
        while True:
            missing = self.options.n_trials - len(self.trials("COMPLETE", "PRUNED", "FAIL"))
            batch = left or [self._ask() for _ in range(min(self.options.n_jobs, missing))]
            if not batch:
                return
            self._play(batch)
            left = []

    def _forget_incomplete(self) -> None:
        """Give up trials that were killed before all their values were drawn: the same values are drawn again."""
        from optuna.trial import TrialState

        for trial in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if "directory" not in trial.user_attrs:
                self.study.tell(trial.number, state=TrialState.FAIL)

    def _ask(self) -> FrozenTrial:
        self.study.sampler = make_sampler(self.options, len(self.trials()))
        trial = self.study.ask(self.space.searched)
        trial.set_user_attr("directory", self.name(self.space.overrides(trial.params)))  # marks the trial as started
        return self.study.get_trials(deepcopy=False)[trial.number]

    def _play(self, batch: Sequence[FrozenTrial]) -> None:
        """Run the jobs of trials, those with equal values once, and tell the study how they ended."""
        jobs = {str(trial.user_attrs["directory"]): self.space.overrides(trial.params) for trial in batch}
        outcomes = dict(zip(jobs, self.run(list(jobs.values())), strict=True))
        for trial in batch:
            outcome = outcomes[trial.user_attrs["directory"]]
            if is_final(outcome):
                self._tell(trial, outcome)
            else:
                log.info("search: trial %d: %s; the same command takes it up again", trial.number, outcome.state)
        refuse_unfinished(outcomes.values())

    def _tell(self, trial: FrozenTrial, outcome: Outcome) -> None:
        from optuna.trial import TrialState

        value, label = outcome.value, f"search: trial {trial.number} of {self.options.n_trials}"
        if outcome.state == "complete" and value is not None and math.isfinite(value):
            self.study.tell(trial.number, value)
            best = " (best so far)" if self.study.best_trial.number == trial.number else ""
            log.info("%s: %s %s%s", label, self.metric, number(value), best)
            return
        self.study.tell(trial.number, state=TrialState.PRUNED if outcome.state == "pruned" else TrialState.FAIL)
        log.info("%s: %s", label, f"no value of {self.metric}" if outcome.state == "complete" else outcome.state)


def confirm(search: Search, best: Mapping[str, Any], seeds: Sequence[int]) -> None:
    """Train the best trial and the default with seeds that no trial used, and log their means.

    ``best``: the values of that trial.

    Raises:
        SweepError: a job was stopped, or failed for another reason than its values.
    """
    space, metric = search.space, search.metric
    default = [override for override in space.fixed if not override.startswith("seed=")]
    both = {"best": [*default, *space.drawn(best)], "default": default}
    outcomes = search.run([[*overrides, f"seed={seed}"] for overrides in both.values() for seed in seeds])
    refuse_unfinished(outcomes)
    counts = "best evaluation" if is_evaluated(metric) else "last row"
    log.info("confirmation by the %s of each run, seeds %s (no trial used them):", counts, ", ".join(map(str, seeds)))
    for k, label in enumerate(both):
        ends = [one.value for one in outcomes[k * len(seeds) : (k + 1) * len(seeds)] if one.state == "complete"]
        values = [value for value in ends if value is not None and math.isfinite(value)]
        spread = f" ± {number(std(values) or 0)}" if len(values) > 1 else ""
        shown = f"{number(mean(values))}{spread}" if values else "no value"
        log.info("  %-8s %s %s, n=%d of %d", label, metric, shown, len(values), len(seeds))
    flags = ["--at", "best"] if is_evaluated(metric) else []
    log.info("to test the difference: %s", directory.compare(*(one.path for one in outcomes), flags=flags))


def is_final(outcome: Outcome) -> bool:
    """Whether the values of the trial decided how it ended, so that it would end so again.

    A job that failed did so for its values if the config was refused or its tensors do not fit in memory.
    """
    by_values = isinstance(outcome.error, ConfigError | TooLargeError) and not isinstance(outcome.error, ClashError)
    return outcome.state != "preempted" and (outcome.state != "failed" or by_values)


def refuse_unfinished(outcomes: Iterable[Outcome]) -> None:
    """Raise a SweepError of those that are not final."""
    if failed := {one.name: one.error or Exception() for one in outcomes if not is_final(one)}:
        raise SweepError(failed)
