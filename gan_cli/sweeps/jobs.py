"""The jobs of a sweep: finished ones are skipped, interrupted ones resume, and one that fails stops no other."""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict, read_write

from gan_cli.config.plain import differences, is_among
from gan_cli.config.training import MAY_CHANGE, TrainConfig, check
from gan_cli.rundir import status
from gan_cli.rundir.best import final_metric
from gan_cli.sweeps import directory
from gan_cli.sweeps.progress_table import Watch
from gan_cli.sweeps.worker_processes import STOP, gpus
from gan_cli.system import signals
from gan_cli.system.errors import (
    CheckpointError,
    ConfigError,
    DiskError,
    DivergedError,
    GanError,
    MemoryFullError,
    OutputError,
    PeerError,
    PreemptedError,
    PrunedError,
)
from gan_cli.system.files import read_file
from gan_cli.system.locks import is_locked
from gan_cli.system.text import first_line, job_name, override

log = logging.getLogger("gan_cli")
UNSAVED = (CheckpointError, DiskError, MemoryFullError, OutputError)  # errors of a job that cannot save its state
LOSSES = {"BrokenExecutor", "UncompletedJobError"}  # errors of joblib and submitit when a process is gone


@dataclass
class Planned:
    """A job before it is launched.

    Attributes:
        overrides: all of Hydra's. name, path: of its directory. config: None if it is invalid, which the job will report.
    """

    overrides: list[str]
    name: str
    path: Path
    config: TrainConfig | None

    @cached_property
    def changed(self) -> list[str]:
        """Keys in which the existing run differs."""
        try:
            saved = yaml.load(read_file(self.path / "config.yaml"), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        except (OSError, ValueError, yaml.YAMLError, RecursionError):
            return ["config.yaml"]
        return list(differences(saved, self.config.as_dict())) if self.config and isinstance(saved, dict) else ["config.yaml"]

    @cached_property
    def ended(self) -> str:
        """``complete``, ``diverged`` or ``pruned`` if the existing run ended so and needs no launch; else ""."""
        found = status.read(self.path) or {}
        state, step = found.get("state"), found.get("step")
        if self.config is None or not isinstance(step, int):
            return ""
        if state == "complete" and step >= self.config.total_steps:
            return "complete" if all(is_among(key, MAY_CHANGE - {"gif"}) for key in self.changed) else ""
        return state if state in ("diverged", "pruned") and not self.changed else ""  # it would end so again

    def has_begun(self, since: float) -> bool:
        """Whether its state changed after ``since`` (``time.time()``), give or take a second between clocks."""
        try:
            return (self.path / "status.json").stat().st_mtime + 1 > since
        except OSError:
            return False


@dataclass(frozen=True)
class Outcome:
    """The end of a job.

    Attributes:
        state: complete, diverged, pruned, preempted or failed. value: of ``optimized_metric``, if there is one.
    """

    name: str
    path: Path
    state: str
    value: float | None
    error: BaseException | None


class Jobs:
    """The jobs of a grid or a search, with the sweep's directory and launcher. Arguments are those of Hydra's sweepers."""

    def __init__(self, context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.context, self.task_function, self.config = context, task_function, config
        self.names: list[str] = []
        self.chosen: list[str] = []  # names of the best trials of a search, which are trained again with other seeds
        self.fixed: list[str] = []  # keys that all jobs share, which are in no job's name
        self.launched = 0  # number of jobs launched so far

    def parse(self, params: Mapping[str, str], arguments: Sequence[str]) -> list[Override]:
        """The overrides of ``params``, of which those of the command line replace some."""
        parser = OverridesParser.create(config_loader=self.context.config_loader)
        given = [*(f"{key}={value}" for key, value in params.items()), *arguments]
        return list({override.get_key_element(): override for override in parser.parse_overrides(given)}.values())

    @contextmanager
    def opened(self, overrides: Sequence[Override]) -> Iterator[None]:
        """Hold the directory of the sweep and show the state of its jobs.

        Raises:
            ConfigError: an override does not go with a sweep. OutputError: the directory is in use or cannot be written.
        """
        self._refuse(overrides)
        chosen = self.config.hydra.sweep.dir
        if chosen == directory.AUTO:
            typed = OverridesParser.create().parse_overrides(list(self.config.hydra.overrides.hydra))
            chosen = directory.default_dir([*overrides, *typed])
        self.directory = Path(chosen).expanduser()
        with read_write(self.config), open_dict(self.config):
            self.config.hydra.sweep.dir = str(self.directory)
        self.set_workers()
        self.launcher: Launcher = Plugins.instance().instantiate_launcher(
            hydra_context=self.context, task_function=self.task_function, config=self.config
        )
        fixed = sorted({override.key_or_group for override in overrides if not override.is_sweep_override()})
        self.fixed = fixed if len(fixed) < len(overrides) else []
        with directory.held(self.directory):
            log.info("sweep directory: %s", self.directory)
            log.info("to continue the sweep after any end, repeat the command: %s", directory.continue_sweep())
            self.watch = Watch(self.directory, self.names)
            try:
                yield
            finally:
                self.watch.stop()

    def _refuse(self, overrides: Sequence[Override]) -> None:
        if self.config.hydra.sweep.dir == "":
            raise ConfigError("a directory is needed", "hydra.sweep.dir", "Set hydra.sweep.dir=DIR, or leave it out")
        for given in overrides:
            key, text = given.key_or_group, str(given.input_line)
            if key == "run_dir":
                raise ConfigError("each job has its own directory", text, "Set hydra.sweep.dir=DIR for all of them")
            if key in ("sweep", "launcher") and given.is_sweep_override():
                raise ConfigError(f"a sweep has one {key}", text, f"Choose one: {key}=NAME")

    def set_workers(self) -> None:
        """Give joblib a worker for each GPU that the jobs may use, unless a number was set; else it has one for each core."""
        launcher = self.config.hydra.launcher
        if (
            self.launcher_is("joblib")
            and launcher.n_jobs == -1
            and self.config.device in ("auto", "cuda")
            and (count := gpus())
        ):
            with read_write(self.config), open_dict(self.config):
                launcher.n_jobs = count
            log.info("jobs at a time: %d, one for each GPU (hydra.launcher.n_jobs)", count)

    def launcher_is(self, kind: str) -> bool:
        """``kind``: ``basic``, ``joblib`` or ``submitit``."""
        return kind in str(self.config.hydra.launcher._target_).lower()

    def compose(self, overrides: Sequence[str]) -> DictConfig:
        """The config of a job, with Hydra's own section.

        Raises:
            Hydra's errors: it cannot be composed.
        """
        return self.context.config_loader.load_sweep_config(self.config, list(overrides))

    def plan(self, overrides: Sequence[str]) -> Planned:
        """Compose the config of a job, to know its name and whether there is anything to do."""
        everything = [
            *overrides,
            override("hydra.sweep.dir", self.directory),
            f"hydra.job.config.override_dirname.exclude_keys=[{','.join(map(repr, self.fixed))}]",
        ]
        cfg = self.compose(everything)
        name = job_name(str(cfg.hydra.job.override_dirname))
        try:
            config = config_of(cfg, overrides)
        except GanError:
            config = None
        return Planned(everything, name, self.directory / name, config)

    def run(self, jobs: Sequence[Sequence[str]]) -> list[Outcome]:
        """Launch the jobs that are not finished; a launcher with several workers runs as many at a time.

        Raises:
            PreemptedError: a signal ended the sweep; what ran has saved its state. GanError: or could not save it.
            ConfigError: the launcher cannot run jobs.
        """
        planned = [self.plan(overrides) for overrides in jobs]
        self.names += [job.name for job in planned if job.name not in self.names]
        directory.write_plan(self.directory, self.names, self.chosen)
        _log_finished(planned)
        returns: dict[str, JobReturn] = {}
        todo = [job for job in planned if not job.ended]
        while todo:
            self.watch.start()
            began = time.time()
            returns |= self._launch(todo, began)
            rest = [job for job in todo if job.name not in returns and not job.has_begun(began)]
            todo = rest if self.launcher_is("joblib") and len(rest) < len(todo) else []  # after a worker was killed
        outcomes = [outcome(job, returns.get(job.name)) for job in planned]
        for one in outcomes:
            if one.error is not None:
                self.watch.failed.add(one.name)
                if self.launcher_is("submitit") or one.name not in returns:  # the job could not print it here
                    log.info("%s: %s", one.name, one.error)
        return outcomes

    def _launch(self, batch: Sequence[Planned], began: float) -> dict[str, JobReturn]:
        """The launcher's results by name of the job. They are missing if a process of the launcher was killed."""
        jobs, number = [job.overrides for job in batch], self.launched
        self.launched += len(batch)
        if self.launcher_is("basic"):  # the job itself answers signals
            return dict(zip((job.name for job in batch), self.launcher.launch(jobs, number), strict=True))
        returns: dict[str, JobReturn] = {}
        with self._passing_signals_on():
            try:
                returns = dict(zip((job.name for job in batch), self.launcher.launch(jobs, number), strict=True))
            except (Exception, KeyboardInterrupt) as error:
                if not signals.received and not LOSSES & {kind.__name__ for kind in type(error).__mro__}:
                    what = f"the launcher cannot run the jobs: {first_line(str(error))[:200]}"
                    todo = "Set it up for this machine, or choose another launcher="
                    raise ConfigError(what, "hydra.launcher", todo) from error
                if not signals.received:
                    log.warning("warning: a process of the launcher was killed, often for lack of memory")
                while any(is_locked(job.path) for job in batch):  # submitit's other jobs run on
                    time.sleep(0.1)
        if signals.received:
            is_lost = any(job.has_begun(began) for job in batch if job.name not in returns)
            raise _stopped(self.directory, returns.values(), is_lost)
        return returns

    @contextmanager
    def _passing_signals_on(self) -> Iterator[None]:
        """Within this block the first signal lets jobs in other processes save and end. The second acts at once."""

        def pass_on(number: int, frame: object) -> None:
            signals.note(number, None)
            (self.directory / STOP).touch()
            log.info("%s: the jobs save and end; once more to end at once", signal.Signals(number).name)

        before = {each: signal.signal(each, pass_on) for each in signals.SIGNALS}
        # Processes inherit the mask, so Ctrl-C ends none of them while it starts. Here the thread of Watch gets it.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
            for each, handler in before.items():
                signal.signal(each, handler)


def config_of(cfg: DictConfig, overrides: Sequence[str]) -> TrainConfig:
    """The checked config of a job; with ``from_run`` that of the run it names.

    Raises:
        GanError: it is invalid.
    """
    with open_dict(cfg):
        del cfg["hydra"]
    if cfg.from_run is None:
        return check(cfg)
    from gan_cli.rundir.from_run import Original

    return Original.read(cfg).changed(cfg, [override.removeprefix("++") for override in overrides])


def _log_finished(planned: Sequence[Planned]) -> None:
    done, diverged = ([job for job in planned if job.ended == state] for state in ("complete", "diverged"))
    if done:
        log.info("%d of %d jobs are finished and stay as they are", len(done), len(planned))
    if diverged:
        text = "diverged before and stay as they are (to try one again, move its directory away): %s"
        log.info(text, "; ".join(job.name for job in diverged))


def outcome(job: Planned, returned: JobReturn | None) -> Outcome:
    """``returned``: of the launcher; None for a job that ended before, or whose process is gone."""
    if returned is not None:
        result = returned._return_value
        if returned.status == JobStatus.COMPLETED:
            return Outcome(job.name, job.path, "complete", result, None)
        states = {DivergedError: "diverged", PreemptedError: "preempted", PrunedError: "pruned"}
        return Outcome(job.name, job.path, states.get(type(result), "failed"), None, result)
    job = replace(job)  # read its files again
    error: GanError | None = None
    value, state = None, job.ended or "failed"
    if state == "complete" and job.config is not None:
        try:
            value = final_metric(job.path, job.config.optimized_metric, evaluated=job.config.eval_every is not None)
        except ConfigError as unknown:
            state, error = "failed", unknown
    elif state == "diverged":
        message = str((status.read(job.path) or {}).get("message") or "training diverged")
        error = DivergedError(message, str(job.path), "Leave it out")
    elif state == "failed":
        error = PeerError("its process was killed, often for lack of memory", str(job.path), "Repeat the command")
    return Outcome(job.name, job.path, state, value, error)


def _stopped(sweep_dir: Path, returns: Iterable[JobReturn], is_lost: bool) -> GanError:
    """The error of a sweep that a signal ended. ``is_lost``: whether a process of the launcher was killed."""
    what, todo = f"the sweep was stopped by {signals.received[0]}", f"Continue with: {directory.continue_sweep()}"
    for error in (returned._return_value for returned in returns):
        if isinstance(error, UNSAVED):
            return type(error)(f"{what}, and a job could not save: {error.what}", error.where, todo)
    if is_lost:
        return PeerError(f"{what}, and one of its processes was killed", str(sweep_dir), todo)
    return PreemptedError(f"{what}, its jobs have saved their state", str(sweep_dir), todo)
