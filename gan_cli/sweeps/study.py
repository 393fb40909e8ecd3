"""The study of a search: its options, its storage, and what a job of it reports. Optuna is imported when a search begins."""

from __future__ import annotations

import logging
import math
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from gan_cli.config import metrics
from gan_cli.config.plain import differences
from gan_cli.config.schema import check_fields
from gan_cli.ranges import Count, PositiveInt, Seed
from gan_cli.system.errors import ConfigError, GanError, OutputError

if TYPE_CHECKING:
    from optuna import Study
    from optuna.samplers import BaseSampler
    from optuna.storages import BaseStorage

log = logging.getLogger("gan_cli")
Direction = Literal["minimize", "maximize"]
DATABASE = "optuna.db"  # file in the directory of the sweep
STUDY = "search"  # name of the study in that file
LOCK_TIMEOUT_S = 60  # seconds to wait for another process that writes to it


@dataclass(frozen=True)
class Options:
    """See conf/hydra/sweeper/optuna.yaml."""

    sampler: Literal["tpe", "random"]
    n_trials: PositiveInt
    n_jobs: PositiveInt
    seed: Seed
    direction: Direction | None
    storage: str | None
    study_name: str | None
    params: dict[str, Any]
    pruner: Literal["median", "none"]
    pruner_startup_trials: Count
    pruner_warmup_steps: Count
    confirm: Count

    @classmethod
    def checked(cls, values: dict[str, Any]) -> Options:
        """Options from plain data.

        Raises:
            ConfigError: naming the key, the value and what is allowed.
        """
        known = {key: value for key, value in values.items() if not key.startswith("_")}
        if known.get("pruner") is None:  # none is null in YAML
            known["pruner"] = "none"
        known["params"] = known.get("params") or {}
        return cls(**check_fields(known, cls, "hydra.sweeper."))

    def location(self, sweep_dir: Path) -> str:
        """The storage in messages: without a URL, which may hold a password."""
        return str(sweep_dir / DATABASE) if self.storage is None else "hydra.sweeper.storage"

    def study(self, sweep_dir: Path) -> str:
        """The name of the study in its storage, which several sweeps may share."""
        return self.study_name or (STUDY if self.storage is None else sweep_dir.name)


def direction_of(metric: str | None, wanted: Direction | None) -> Direction:
    """The direction in which the metric is better.

    Raises:
        ConfigError: there is no metric, its direction is unknown, or ``wanted`` is the wrong one.
    """
    if metric is None:
        todo = "Set it, such as optimized_metric=metric/fid eval_every=1000"
        raise ConfigError("a search needs a metric to optimise", "optimized_metric", todo)
    better = metrics.direction(metric.removeprefix("metric/")) if is_evaluated(metric) else ""
    directions: dict[str, Direction] = {"lower": "minimize", "higher": "maximize"}
    right, where = directions.get(better, wanted), "hydra.sweeper.direction"
    if right is None:
        raise ConfigError(f"the better direction of {metric} is unknown", where, f"Set {where}=minimize or maximize")
    if wanted not in (None, right):
        raise ConfigError(f"{metric} is better if it is {better}, {wanted} is the wrong direction", where, "Leave it out")
    return right


def is_evaluated(metric: str) -> bool:
    """Whether evaluations give it, of which the best counts; of a logged one the last row counts."""
    return metric.startswith("metric/") and metric.removeprefix("metric/") in metrics.VALUES


@contextmanager
def storage_errors(where: str) -> Iterator[None]:
    """Within this block a storage that cannot be used is an :class:`OutputError`."""
    from optuna.exceptions import OptunaError
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (OptunaError, SQLAlchemyError, sqlite3.Error) as error:
        reason = str(error.__cause__ or error).strip().splitlines()[0]
        todo = "Repeat the command when it can be used, or set hydra.sweeper.storage="
        raise OutputError(f"the storage of the search cannot be used: {reason}", where, todo) from error


def open_storage(options: Options, sweep_dir: Path) -> BaseStorage:
    """Open the database of the search, or make it.

    Raises:
        ConfigError, OutputError: it cannot be opened.
    """
    from optuna.storages import RDBStorage

    for name in ("optuna", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)
    # A path may hold characters that a URL may not.
    connect = partial(sqlite3.connect, sweep_dir / DATABASE, timeout=LOCK_TIMEOUT_S, check_same_thread=False)
    where = options.location(sweep_dir)
    try:
        with storage_errors(where):
            if options.storage is not None:
                return RDBStorage(options.storage)
            return RDBStorage("sqlite:///search.db", engine_kwargs={"creator": connect})
    except (ImportError, ValueError, KeyError, RuntimeError) as error:  # the last: made by another version of Optuna
        todo = "Leave hydra.sweeper.storage out, or write a URL such as sqlite:///FILE"
        raise ConfigError(f"the storage cannot be opened: {str(error).splitlines()[0]}", where, todo) from error


def open_study(options: Options, sweep_dir: Path, direction: Direction, settings: dict[str, Any]) -> Study:
    """Open the study of a search, or create it.

    Args:
        settings: by name, what all trials share; the study keeps it.

    Raises:
        ConfigError: the study was begun with other settings or options. OutputError: its storage cannot be used.
    """
    import optuna

    where, asked = options.location(sweep_dir), {**settings, "direction": direction}
    pruning = () if options.pruner == "none" else ("pruner_startup_trials", "pruner_warmup_steps")
    asked |= {f"hydra.sweeper.{key}": getattr(options, key) for key in ("sampler", "seed", "pruner", *pruning)}
    storage = open_storage(options, sweep_dir)
    with storage_errors(where):
        name = options.study(sweep_dir)
        study = optuna.create_study(storage=storage, study_name=name, direction=direction, load_if_exists=True)
        begun = study.user_attrs
        for what, mine in asked.items():
            changed = differences({what: begun[what]}, {what: mine}) if what in begun else {}
            if changed:
                listed = "; ".join(f"{key.removeprefix(f'{what}.')}: {change}" for key, change in list(changed.items())[:8])
                todo = "Repeat the command it was begun with, or choose another hydra.sweep.dir= or hydra.sweeper.study_name="
                raise ConfigError(f"the study was begun with another {what}: {listed}", where, todo)
            if what not in begun:
                study.set_user_attr(what, mine)
    return study


def make_sampler(options: Options, position: int) -> BaseSampler:
    """The sampler of the trial at this position: it depends on the seed and the position only, so a killed search repeats."""
    import numpy as np
    from optuna.samplers import RandomSampler, TPESampler

    seed = int(np.random.SeedSequence((options.seed, position)).generate_state(1)[0])
    return RandomSampler(seed) if options.sampler == "random" else TPESampler(seed=seed)


def reporter(options: Options, sweep_dir: Path, directory: str) -> Callable[[int, float], bool] | None:
    """A function for the job in ``directory``: reports a step and its value of the metric, returns whether to prune.

    It works in any process. None if the job is no running trial of the search. A step that was reported before the job was
    killed is not reported again.
    """
    if options.pruner == "none":
        return None
    import optuna

    storage = open_storage(options, sweep_dir)
    pruner = optuna.pruners.MedianPruner(options.pruner_startup_trials, options.pruner_warmup_steps)
    with storage_errors(options.location(sweep_dir)):
        study = optuna.load_study(study_name=options.study(sweep_dir), storage=storage)
        running = study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,))
    trial_id = next((t._trial_id for t in running if t.user_attrs.get("directory") == directory), None)
    if trial_id is None:
        return None

    def should_prune(step: int, value: float) -> bool:
        try:
            with storage_errors(directory):
                last = storage.get_trial(trial_id).last_step
                if last is not None and step < last:
                    return False
                if step != last and math.isfinite(value):
                    storage.set_trial_intermediate_value(trial_id, step, value)
                return pruner.prune(study, storage.get_trial(trial_id))
        except GanError as error:  # no reason to end a training
            log.warning("warning: nothing is pruned at step %d: %s", step, error)
            return False

    return should_prune
