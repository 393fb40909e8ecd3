"""Searches by Optuna: a sweep whose next job depends on how the ones before it ended.

Optuna is imported when a search begins. Everything a search knows is in its storage, so that the same command goes on: trials
that were running when it was killed are run again with their values, and what is asked next depends on the seed and the trials
so far only.
"""

from __future__ import annotations

import logging
import math
import platform
import re
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from uuid import uuid4

from omegaconf import DictConfig, OmegaConf, open_dict

from gan_cli.comparing.statistics import LEVEL, mean, std, welch
from gan_cli.config import metrics
from gan_cli.config.plain import differences, flatten, is_among
from gan_cli.config.schema import check_fields
from gan_cli.config.training import MAY_CHANGE, check
from gan_cli.ranges import Count, PositiveInt, Seed
from gan_cli.rundir import status
from gan_cli.sweeps.jobs import Jobs, Outcome
from gan_cli.sweeps.space import Space, read_space
from gan_cli.system.errors import ClashError, ConfigError, GanError, OutputError, SweepError, TooLargeError
from gan_cli.system.files import read_file, write_file
from gan_cli.system.text import number

if TYPE_CHECKING:
    from optuna import Study
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler
    from optuna.storages import RDBStorage
    from optuna.trial import FrozenTrial

log = logging.getLogger("gan_cli")
DATABASE = "optuna.db"  # in the directory of the sweep
STUDY = "search"  # its name there
IDENTITY = ".study"  # in the directory of the sweep: says whose study it is, where several sweeps share a storage
WAIT = 60  # seconds for another process that writes to it
HOPELESS = 5  # failures in a row: perhaps it was not the values. Of 30 trials with a third too large, 7 % of searches have them
# What a search is about, though a run that goes on may change it; the rest of MAY_CHANGE is harmless here too.
MATTERS = {"total_steps", "log_every", "sample_every", "optimized_metric", "eval_every", "metrics", "num_samples", "features"}
HARMLESS = (MAY_CHANGE - MATTERS) | {"launcher"}
RETRIED = "retried"  # in the study: numbers of trials in whose place there is another with the same values
EDITED = "Undo the change of the files that it is composed of"
REFUSED = "refused"  # in the place of the settings of an option: why they are no config


@dataclass(frozen=True)
class Options:
    """See conf/hydra/sweeper/optuna.yaml."""

    sampler: Literal["tpe", "random"]
    n_trials: PositiveInt
    n_jobs: PositiveInt
    seed: Seed
    direction: Literal["minimize", "maximize"] | None
    storage: str | None
    study_name: str | None
    params: dict[str, Any]
    pruner: Literal["median", "none"]
    pruner_startup_trials: Count
    pruner_warmup_steps: Count
    confirm: Count
    retry_failed: bool

    @classmethod
    def checked(cls, values: dict[str, Any]) -> Options:
        """From plain data.

        Raises:
            ConfigError: naming the key, the value and what is allowed.
        """
        known = {key: value for key, value in values.items() if not key.startswith("_")}
        if known.get("pruner") is None:  # YAML's word for none
            known["pruner"] = "none"
        known["params"] = known.get("params") or {}
        return cls(**check_fields(known, cls, "hydra.sweeper."))


def refuse_missing() -> None:
    """Say how to get Optuna where it is not installed."""
    if find_spec("optuna") is None:
        raise ConfigError("Optuna is not installed", "hydra/sweeper", "Install it: pip install 'gan_cli[sweep]'")


def direction_of(metric: str | None, wanted: str | None) -> str:
    """``minimize`` or ``maximize``.

    Raises:
        ConfigError: there is no metric, nobody knows what is better, or the other way is.
    """
    if metric is None:
        todo = "Set it, such as optimized_metric=metric/fid eval_every=1000"
        raise ConfigError("a search needs to know what to optimise", "optimized_metric", todo)
    known = metrics.direction(metric.removeprefix("metric/")) if is_evaluated(metric) else ""
    way = {"lower": "minimize", "higher": "maximize"}.get(known)
    where = "hydra.sweeper.direction"
    if way is not None and wanted not in (None, way):
        raise ConfigError(f"{metric} is better if it is {known}, {wanted} is the wrong direction", where, "Leave it out")
    if way is None and wanted is None:
        raise ConfigError(f"which direction of {metric} is better?", where, f"Set {where}=minimize or maximize")
    return str(way or wanted)


def is_evaluated(metric: str) -> bool:
    """Whether evaluations give it, of which the best one counts; else rows do, of which the last one counts."""
    return metric.startswith("metric/") and metric.removeprefix("metric/") in metrics.VALUES


@contextmanager
def translated(where: str) -> Iterator[None]:
    """Within this block a storage that cannot be used is an error of ours."""
    from optuna.exceptions import OptunaError
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (OptunaError, SQLAlchemyError, sqlite3.Error) as error:
        reason = str(error.__cause__ or error).strip().splitlines()[0]
        todo = "Repeat the command when it can be used, or set hydra.sweeper.storage="
        raise OutputError(f"the storage of the search cannot be used: {reason}", where, todo) from error


def place(options: Options, sweep_dir: Path) -> str:
    """Where the storage is, for messages: no passwords."""
    if options.storage is None:
        return str(sweep_dir / DATABASE)
    return re.sub(r"://([^:/@]*):[^@]*@", r"://\1:***@", options.storage)


def open_storage(options: Options, sweep_dir: Path) -> RDBStorage:
    """The database of the search, made if there is none.

    Raises:
        ConfigError, OutputError: it cannot be opened.
    """
    from optuna.storages import RDBStorage

    for name in ("optuna", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)
    where = place(options, sweep_dir)
    if options.storage is not None:
        more = {"connect_args": {"timeout": WAIT}} if options.storage.startswith("sqlite") else {}
        make = partial(RDBStorage, options.storage, engine_kwargs=more)
    else:
        file = sweep_dir / DATABASE
        connect = partial(sqlite3.connect, file, timeout=WAIT, check_same_thread=False)  # a path may hold what a URL may not
        make = partial(RDBStorage, "sqlite:///search.db", engine_kwargs={"creator": connect})
    try:
        with translated(where):
            return make()
    except (ImportError, ValueError, KeyError) as error:
        todo = "Leave hydra.sweeper.storage out, or write a URL such as sqlite:///FILE"
        raise ConfigError(f"the storage cannot be opened: {error}", where, todo) from error
    except RuntimeError as error:  # of another version of Optuna
        raise ConfigError(str(error).splitlines()[0].rstrip("."), where, "Set hydra.sweeper.storage= to a new one") from error


def study_name(options: Options, sweep_dir: Path) -> str:
    """Of the study in the storage, which others may share if it is not our own file."""
    return options.study_name or (STUDY if options.storage is None else sweep_dir.name)


def identity(sweep_dir: Path) -> str:
    """Of the directory, wherever it is moved to and from whatever machine it is seen.

    Raises:
        OutputError: it cannot be written or read.
    """
    file = sweep_dir / IDENTITY
    try:
        if not file.exists():
            write_file(file, uuid4().hex + "\n")
        return read_file(file).decode().strip()
    except (OSError, ValueError) as error:
        raise OutputError(f"the directory of the sweep cannot be used: {error}", str(file), "Set hydra.sweep.dir=") from error


def make_pruner(options: Options) -> BasePruner:
    """Decides which trials are hopeless."""
    from optuna.pruners import MedianPruner, NopPruner

    if options.pruner == "none":
        return NopPruner()
    return MedianPruner(n_startup_trials=options.pruner_startup_trials, n_warmup_steps=options.pruner_warmup_steps)


def make_sampler(options: Options, position: int) -> BaseSampler:
    """Draws the values of the trial at this position: from the seed and the trials before it, and nothing else."""
    import numpy as np
    from optuna.samplers import RandomSampler, TPESampler

    seed = int(np.random.SeedSequence((options.seed, position)).generate_state(1)[0])
    return RandomSampler(seed) if options.sampler == "random" else TPESampler(seed=seed)


class Search:
    """A study and the jobs that it asks for.

    Args:
        run: overrides of jobs -> how each ended, in the same order. Jobs that are finished are not run again.
        name: overrides of a job -> the name of its directory in ``sweep_dir``.
        metric: what is optimised. direction: ``minimize`` or ``maximize``. seed: of the trainings.
        settings: what all trials have in common, by what it is called, as the files say it now.

    Raises:
        ConfigError: the storage holds a study of another space, metric or setting.
    """

    def __init__(
        self,
        options: Options,
        space: Space,
        *,
        sweep_dir: Path,
        metric: str,
        direction: str,
        seed: int,
        run: Callable[[list[list[str]]], Sequence[Outcome]],
        name: Callable[[list[str]], str],
        settings: Callable[[], dict[str, Any]] = dict,
    ) -> None:
        self.options, self.space, self.sweep_dir = options, space, sweep_dir
        self.metric, self.direction, self.seed, self.run, self.name = metric, direction, seed, run, name
        self.settings = settings
        self.storage = open_storage(options, sweep_dir)
        self.where = place(options, sweep_dir)
        self.in_a_row = 0  # failures put down to values since a trial of this session was trained
        self.trained = False  # whether one was, in this session
        with translated(self.where):
            self.study = self._open()

    def _open(self) -> Study:
        import optuna

        known = study_name(self.options, self.sweep_dir)
        study = optuna.create_study(
            storage=self.storage, study_name=known, direction=self.direction, load_if_exists=True,  # type: ignore[arg-type]
            pruner=make_pruner(self.options),
        )  # fmt: skip
        asked = {
            "metric": self.metric,
            "direction": self.direction,
            "search space": self.space.said,
            "setting": sorted(o for o in self.space.fixed if not is_among(o.lstrip("+").split("=")[0], HARMLESS)),
            "hydra.sweeper.sampler": self.options.sampler,
            "hydra.sweeper.seed": self.options.seed,
            "hydra.sweeper.pruner": self.options.pruner,
        }
        if self.options.pruner != "none":
            asked["hydra.sweeper.pruner_startup_trials"] = self.options.pruner_startup_trials
            asked["hydra.sweeper.pruner_warmup_steps"] = self.options.pruner_warmup_steps
        self._refuse_another_owner(study)
        self._refuse_other(study, asked, "Repeat the command it was started with")
        self._refuse_other(study, self.settings(), EDITED)
        return study

    def _refuse_other(self, study: Study, asked: dict[str, Any], todo: str) -> None:
        """Refuse what the study was not begun with.

        One of an older version does not say all of it, and learns it when a trial was trained: runs that are there know theirs.
        """
        found = {**study.user_attrs, "direction": study.direction.name.lower()}
        for what, mine in asked.items():
            theirs = found.get(what, mine)
            if theirs != mine and (study.trials or what == "direction") and not _is_refused(theirs):
                todo += ", or choose another hydra.sweep.dir= or hydra.sweeper.study_name="
                raise ConfigError(f"the study was begun with another {what}: {_difference(theirs, mine)}", self.where, todo)
            if theirs != mine or (what not in study.user_attrs and (self.trained or not study.trials)):
                study.set_user_attr(what, mine)

    def _launch(self, jobs: list[list[str]]) -> Sequence[Outcome]:
        """Run jobs, unless a file that they are composed of was changed meanwhile."""
        now = self.settings()
        with self._writing():
            self._refuse_other(self.study, now, EDITED)
        return self.run(jobs)

    def _refuse_another_owner(self, study: Study) -> None:
        if self.options.storage is None:  # in the directory of the sweep, and held with it
            return
        mine = identity(self.sweep_dir)
        if study.user_attrs.get("owner", mine) != mine:
            what = f"the study {study.study_name} belongs to another sweep directory, {study.user_attrs.get('place')}"
            todo = "Sweep there, or set hydra.sweeper.study_name= to a name of its own"
            raise ConfigError(what, self.where, todo)
        study.set_user_attr("owner", mine)
        study.set_user_attr("place", f"{self.sweep_dir.absolute()} on {platform.node()}")

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Within this block what cannot be stored is an error of ours, also if somebody else changed the study meanwhile."""
        try:
            with translated(self.where):
                yield
        except (KeyError, ValueError) as error:
            what = f"another process changed the study {self.study.study_name}: {error}"
            raise OutputError(what, self.where, "Set hydra.sweeper.study_name= to a name of its own for one of them") from error

    def trials(self, *states: str) -> list[FrozenTrial]:
        """Those that began, in these states, in the order of their beginning."""
        with translated(self.where):
            every, retried = self.study.get_trials(deepcopy=False), self.study.user_attrs.get(RETRIED, [])
        begun = [t for t in every if "directory" in t.user_attrs and t.number not in retried]
        return [t for t in begun if not states or t.state.name in states]

    def optimise(self) -> None:
        """Run trials until there are as many as wanted. Says what happens.

        Raises:
            SweepError: a job was stopped, or failed for a reason that may pass: its trial goes on with the same command. Or
                everything fails.
        """
        if self.options.retry_failed:
            self._retry()
        left = self.trials("RUNNING")
        finished = len(self.trials("COMPLETE", "PRUNED", "FAIL"))
        self._forget_unbegun()
        if left:
            listed = ", ".join(str(t.number) for t in left)
            log.info("search: trial %s was not finished and goes on", listed)
        elif finished >= self.options.n_trials:
            log.info("search: %d of %d trials are finished, there is nothing to try", finished, self.options.n_trials)
        elif finished:
            log.info("search: %d of %d trials are finished, the others follow", finished, self.options.n_trials)
        while True:
            missing = self.options.n_trials - len(self.trials("COMPLETE", "PRUNED", "FAIL"))
            batch = left or [self._ask() for _ in range(min(self.options.n_jobs, missing))]
            if not batch:
                return
            self._play(batch)
            left = []

    def _retry(self) -> None:
        """Ask for the values of failed trials again, in their place. Those that diverged would do so again."""
        failed = [t for t in self.trials("FAIL") if self._state(t) != "diverged"]
        if not failed:
            log.info("search: no trial failed that could end otherwise")
            return
        with self._writing():
            for trial in failed:  # killed between these, values are tried twice, which is known then
                self.study.enqueue_trial(trial.params)
                self.study.set_user_attr(RETRIED, [*self.study.user_attrs.get(RETRIED, []), trial.number])
        log.info("search: trial %s failed, its values are tried again", ", ".join(str(t.number) for t in failed))

    def _state(self, trial: FrozenTrial) -> str:
        """Of its run."""
        return str((status.read(self.sweep_dir / trial.user_attrs["directory"]) or {}).get("state"))

    def _forget_unbegun(self) -> None:
        """Trials that were killed before all their values were drawn: they are drawn again, the same, or given again."""
        from optuna.trial import TrialState

        with self._writing():
            for trial in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
                if "directory" not in trial.user_attrs:
                    if "fixed_params" in trial.system_attrs:
                        self.study.enqueue_trial(trial.system_attrs["fixed_params"])
                    self.study.tell(trial.number, state=TrialState.FAIL)

    def _ask(self) -> FrozenTrial:
        with self._writing():
            self.study.sampler = make_sampler(self.options, len(self.trials()))
            trial = self.study.ask(self.space.searched)
        directory = self.name(self.space.overrides(trial.params))
        with self._writing():
            trial.set_user_attr("directory", directory)  # from now on it has begun
            return self.study.get_trials(deepcopy=False)[trial.number]

    def _play(self, batch: list[FrozenTrial]) -> None:
        """Run trials and tell the study. The same values as before lead to the same end, which is known."""
        directories = [str(t.user_attrs["directory"]) for t in batch]
        known = {str(t.user_attrs["directory"]): t for t in self.trials("COMPLETE", "PRUNED", "FAIL")}
        jobs = {d: self.space.overrides(t.params) for d, t in zip(directories, batch, strict=True) if d not in known}
        outcomes = dict(zip(jobs, self._launch(list(jobs.values())) if jobs else [], strict=True))
        stopped: dict[str, BaseException] = {}
        faults: dict[str, BaseException] = {}
        for directory, trial in zip(directories, batch, strict=True):
            if directory in known:
                log.info("search: trial %d has the values of trial %d", trial.number, known[directory].number)
                self._repeat(trial, known[directory])
                continue
            outcome = outcomes[directory]
            if may_end_otherwise(outcome):
                stopped[directory] = outcome.error or Exception()
                text = "search: trial %d of %d: %s; the same command takes it up again"
                log.info(text, trial.number, self.options.n_trials, outcome.state)
                continue
            self._tell(trial, outcome)
            known[directory] = self.study.get_trials(deepcopy=False)[trial.number]
            if outcome.error is None or not is_own_fault(outcome.error):
                self.in_a_row, self.trained = 0, True  # also one that diverged: there was memory for it
            elif isinstance(outcome.error, TooLargeError) or not self.trained:
                # Another program may fill the memory at any time. What is refused once something was trained is refused for
                # its values: the files are still what they were.
                self.in_a_row += 1
                faults[directory] = outcome.error
        if faults and self.in_a_row >= HOPELESS:
            text = "search: stopped by %d failures in a row; the same command goes on, and %s tries them again too"
            log.info(text, self.in_a_row, "hydra.sweeper.retry_failed=true")
            stopped |= faults
        if stopped:
            raise SweepError(stopped)

    def _tell(self, trial: FrozenTrial, outcome: Outcome) -> None:
        from optuna.trial import TrialState

        value, total = outcome.value, self.options.n_trials
        sound = outcome.state == "complete" and value is not None and math.isfinite(value)
        with self._writing():
            if sound:
                self.study.tell(trial.number, value)
            elif outcome.state == "pruned":
                self.study.tell(trial.number, state=TrialState.PRUNED)
            else:
                self.study.tell(trial.number, state=TrialState.FAIL)
        if sound:
            assert value is not None
            best = " (best so far)" if self.study.best_trial.number == trial.number else ""
            log.info("search: trial %d of %d: %s %s%s", trial.number, total, self.metric, number(value), best)
            return
        ended = outcome.state if outcome.state != "complete" else f"without a value of {self.metric}"
        log.info("search: trial %d of %d: %s", trial.number, total, ended)

    def _repeat(self, trial: FrozenTrial, before: FrozenTrial) -> None:
        with self._writing():
            study_id = self.storage.get_study_id_from_name(self.study.study_name)
            trial_id = self.storage.get_trial_id_from_study_id_trial_number(study_id, trial.number)
            for step, value in before.intermediate_values.items():
                self.storage.set_trial_intermediate_value(trial_id, step, value)
            if before.state.name == "COMPLETE":
                self.study.tell(trial.number, before.value)
            else:
                self.study.tell(trial.number, state=before.state)

    def best(self) -> FrozenTrial:
        """The best of those that completed; the first of equals.

        Raises:
            GanError: none did.
        """
        complete = self.trials("COMPLETE")
        if not complete:
            todo = f"See their train.log in {self.sweep_dir}, and narrow the search space"
            raise GanError("no trial gave a value", self.metric, todo)
        sign = 1.0 if self.direction == "minimize" else -1.0
        return min(complete, key=lambda t: (sign * _value(t), t.number))

    def report(self, command: Callable[[list[str]], str]) -> None:
        """Say what was found. ``command``: overrides -> what to type for this job by itself."""
        counts = {state: len(self.trials(state)) for state in ("COMPLETE", "PRUNED", "FAIL")}
        best = self.best()
        overrides = self.space.overrides(best.params)
        log.info(
            "search: %d trials: %d complete, %d pruned, %d failed",
            sum(counts.values()), counts["COMPLETE"], counts["PRUNED"], counts["FAIL"],
        )  # fmt: skip
        log.info("best trial:  %d, %s %s", best.number, self.metric, number(_value(best)))
        log.info("values:      %s", " ".join(overrides[len(self.space.fixed) :]))
        log.info("directory:   %s", self.sweep_dir / best.user_attrs["directory"])
        log.info("by itself:   %s", command(overrides))

    def confirm(self) -> None:
        """Train the best trial and the default with seeds that no trial used, and say whether they differ."""
        seeds = range(self.seed + 1, self.seed + 1 + self.options.confirm)
        fixed = [o for o in self.space.fixed if not o.startswith("seed=")]
        drawn = self.space.overrides(self.best().params)[len(self.space.fixed) :]
        outcomes = self._launch([[*those, f"seed={seed}"] for those in ([*fixed, *drawn], fixed) for seed in seeds])
        stopped = {o.name: o.error or Exception() for o in outcomes if may_end_otherwise(o)}
        if stopped:
            raise SweepError(stopped)
        counts = "best evaluation" if is_evaluated(self.metric) else "last row"
        log.info("confirmed by the %s of each run with seeds %s, which no trial used:", counts, ", ".join(map(str, seeds)))
        values: dict[str, list[float]] = {}
        for k, label in enumerate(("best", "default")):
            mine = outcomes[k * len(seeds) : (k + 1) * len(seeds)]
            values[label] = [o.value for o in mine if o.state == "complete" and o.value is not None and math.isfinite(o.value)]
            lost = len(mine) - len(values[label])
            log.info("  %-8s %s %s%s", label, self.metric, spread(values[label]), f", {lost} did not complete" if lost else "")
        log.info("  %s", verdict(values["best"], values["default"], self.direction))


def is_own_fault(error: BaseException | None) -> bool:
    """Whether a failure is put down to the values of a trial: they are refused, or make tensors that do not fit in memory.

    Not so a run that is there with another config, nor a lack of files, of threads or of memory to begin with.
    """
    return isinstance(error, ConfigError | TooLargeError) and not isinstance(error, ClashError)


def may_end_otherwise(outcome: Outcome) -> bool:
    """Whether it says nothing of the values of a trial: it was stopped, or failed as any other would have."""
    return outcome.state == "preempted" or (outcome.state == "failed" and not is_own_fault(outcome.error))


def spread(values: list[float]) -> str:
    """Mean and standard deviation with n - 1."""
    deviation = std(values)
    if deviation is None:
        return f"{number(values[0])}, n=1" if values else "nothing, n=0"
    return f"{number(mean(values))} +- {number(deviation)}, n={len(values)}"


def verdict(best: list[float], default: list[float], direction: str) -> str:
    """Whether seeds support that the best trial is better than the default."""
    p = welch(best, default)
    if p is None:
        why = "too few values" if min(len(best), len(default)) < 2 else "no spread over seeds"
        return f"{why} to say whether they differ"
    gain = (mean(default) - mean(best)) * (1 if direction == "minimize" else -1)
    test = f"Welch's t test, p={p:.3g}"
    if not p < LEVEL:
        return f"the seeds do not support a difference ({test})"
    return f"the seeds support that the {'best trial' if gain > 0 else 'default'} is better, by {number(abs(gain))} ({test})"


def reporter(options: Options, sweep_dir: Path, directory: str) -> Callable[[int, float], bool] | None:
    """For the job in ``directory``: takes a value of the metric at a step and says whether the trial is hopeless.

    Works in whatever process the job runs in. None if it is no running trial of the search. A step that was reported before
    the job was killed is not reported again.
    """
    if options.pruner == "none":
        return None
    import optuna

    storage = open_storage(options, sweep_dir)
    with translated(place(options, sweep_dir)):
        known = study_name(options, sweep_dir)
        study = optuna.load_study(study_name=known, storage=storage, pruner=make_pruner(options))
        running = study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,))
        mine = next((t for t in running if t.user_attrs.get("directory") == directory), None)
        if mine is None:
            return None
        trial_id = storage.get_trial_id_from_study_id_trial_number(storage.get_study_id_from_name(known), mine.number)

    def hopeless(step: int, value: float) -> bool:
        try:
            with translated(directory):
                last = storage.get_trial(trial_id).last_step
                if last is not None and step < last:
                    return False
                if step != last and math.isfinite(value):
                    storage.set_trial_intermediate_value(trial_id, step, value)
                return study.pruner.prune(study, storage.get_trial(trial_id))
        except GanError as error:  # the training is worth more
            log.warning("warning: nothing is pruned at step %d: %s", step, error)
            return False

    return hopeless


def _value(trial: FrozenTrial) -> float:
    assert trial.value is not None
    return trial.value


def _is_refused(settings: Any) -> bool:
    """Whether it stands for an option with which nothing can be trained: that may be mended."""
    return isinstance(settings, dict) and REFUSED in settings


def _difference(theirs: Any, mine: Any) -> str:
    """In a few words, what a study has and this command has not."""
    if isinstance(theirs, dict) and isinstance(mine, dict):
        changed = [f"{key}: {change}" for key, change in differences(theirs, mine).items()]
        return "; ".join(changed[:8]) + (f"; and {len(changed) - 8} more" if len(changed) > 8 else "")
    if isinstance(theirs, list) and isinstance(mine, list):
        was, now = ([o for o in a if o not in b] for a, b in ((theirs, mine), (mine, theirs)))
        return f"{' '.join(was) or '(nothing)'}, not {' '.join(now) or '(nothing)'}"
    return f"{theirs}, not {mine}"


class OptunaSearch(Jobs):
    """``-m hydra/sweeper=optuna``; its options are those of conf/hydra/sweeper/optuna.yaml."""

    def __init__(self, **options: Any) -> None:
        plain = {key: OmegaConf.to_container(value) if OmegaConf.is_config(value) else value for key, value in options.items()}
        self.options = Options.checked(plain)
        super().__init__(self.options.params)

    def sweep(self, arguments: list[str]) -> None:
        """Called by Hydra with the overrides of the command line.

        Raises:
            GanError, SweepError: the search cannot begin, was stopped, or gave nothing.
        """
        refuse_missing()
        space = read_space(self.parse(arguments))
        first, *others = (space.overrides(values) for values in space.choices())
        config = check(self._compose(first))
        for overrides in others:
            self._compose(overrides)  # names that are not there
        metric = config.optimized_metric
        direction = direction_of(metric, self.options.direction)
        assert metric is not None
        with self.opened(arguments):
            search = Search(
                self.options, space, sweep_dir=self.directory, metric=metric, direction=direction, seed=config.seed,
                run=self.run, name=lambda overrides: self.plan(overrides).name, settings=lambda: self._settings(space),
            )  # fmt: skip
            self.watch.expected = self.options.n_trials
            search.optimise()
            self.watch.expected = 0
            if self.options.confirm:
                self.fixed = [key for key in self.fixed if key != "seed"]
                self.chosen = [search.best().user_attrs["directory"]]
                search.confirm()
            from gan_cli.app.commands import Command

            search.report(lambda overrides: Command.of_job(self.config.hydra, overrides).resume(Path("NEW")))

    def _settings(self, space: Space) -> dict[str, Any]:
        """The config at the first of all values, and with each other option of a group, without what changes no result.

        Raises:
            ConfigError: the first one is refused.
        """
        first, *others = space.choices()
        options = self.context.config_loader.get_group_options
        groups = {key for key in space.searched if options(key.lstrip("+").partition("@")[0])}
        found = {"config": self._setting(space.overrides(first))}
        for values in others:
            (key,) = (key for key in values if values[key] != first[key])
            if key in groups:
                try:
                    setting = self._setting(space.overrides(values))
                except ConfigError as error:  # which is for its trials to say
                    setting = {REFUSED: str(error)}
                found[f"config of {key}={values[key]}"] = setting
        return found

    def _setting(self, overrides: list[str]) -> dict[str, Any]:
        plain = flatten(check(self._compose(overrides)).as_dict())
        return {key: value for key, value in plain.items() if value is not None and not is_among(key, HARMLESS)}

    def _compose(self, overrides: list[str]) -> DictConfig:
        cfg = self.context.config_loader.load_sweep_config(self.config, overrides)
        with open_dict(cfg):
            del cfg["hydra"]
        return cfg
