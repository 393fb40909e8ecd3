"""What all sweeps share: jobs that are finished stay as they are, broken ones go on, and it is said.

Hydra finds the sweepers in ``hydra_plugins/gan_cli_sweepers``.
"""

from __future__ import annotations

import logging
import math
import os
import signal
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from multiprocessing import resource_tracker
from pathlib import Path

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from gan_cli.config.plain import differences, is_among
from gan_cli.config.training import MAY_CHANGE, TrainConfig, check
from gan_cli.rundir import status
from gan_cli.rundir.best import final_metric
from gan_cli.sweeps import directory
from gan_cli.sweeps.elsewhere import STOP, gpus
from gan_cli.sweeps.lost import LOST, LostError, as_failed, as_failures, is_loss
from gan_cli.sweeps.table import Watch, look
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
from gan_cli.system.text import first_line, job_name

log = logging.getLogger("gan_cli")
MANY = 30  # jobs: to compose their configs takes a while
MOST_LOSSES = 2  # times that a job may be lost beside others; after that it is launched alone, for the last time
PATIENCE = 30.0  # seconds for jobs to save
UNSAVED = (CheckpointError, DiskError, MemoryFullError, OutputError)  # what ends a job that cannot save
EVALUATION = {"eval_every", "metrics", "num_samples", "features"}


@dataclass
class Planned:
    """A job before it is launched.

    Attributes:
        overrides: all that Hydra gets. name, path: of its directory. config: None if it is not valid, which the job will say.
    """

    overrides: list[str]
    name: str
    path: Path
    config: TrainConfig | None

    @cached_property
    def changed(self) -> list[str]:
        """Keys in which the run that is there differs."""
        try:
            there = yaml.load(read_file(self.path / "config.yaml"), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        except (OSError, ValueError, yaml.YAMLError, RecursionError):
            return ["config.yaml"]
        if self.config is None or not isinstance(there, dict):
            return ["config.yaml"]
        return list(differences(there, self.config.as_dict()))

    @cached_property
    def ended(self) -> str:
        """``complete``, ``diverged`` or ``pruned`` if there is nothing to do as the run that is there ended so; else ""."""
        told = status.read(self.path)
        state, step = (told["state"], told.get("step")) if told is not None else ("", None)
        if self.config is None or not isinstance(step, int):
            return ""
        if state == "complete" and step >= self.config.total_steps:
            return "complete" if all(is_among(key, MAY_CHANGE - {"gif"}) for key in self.changed) else ""
        # As it would again.
        return state if state in ("diverged", "pruned") and not self.changed else ""

    @property
    def message(self) -> str:
        """What the run that is there ended with."""
        return str((status.read(self.path) or {}).get("message") or "")

    def is_lost(self, since: float) -> bool:
        """Whether it began after ``since`` (``time.time()``) and its process is gone, with what it had not saved."""
        return look(self.path.parent, self.path.name).state == "stopped" and self.told_at() > since

    def told_at(self) -> float:
        """When its state last changed, with a second for clocks that are not the same."""
        try:
            return (self.path / "status.json").stat().st_mtime + 1
        except OSError:
            return -math.inf


@dataclass(frozen=True)
class Outcome:
    """How a job ended.

    Attributes:
        state: complete, diverged, pruned, preempted or failed. value: of ``optimized_metric``, where it has one.
    """

    name: str
    path: Path
    state: str
    value: float | None
    error: BaseException | None


class Jobs:
    """What all sweeps share.

    Args:
        params: what is swept, by key, as a config says it; the command line comes after it.
    """

    def __init__(self, params: dict[str, str] | None = None) -> None:
        self.params = dict(params or {})
        self.names: list[str] = []
        self.chosen: list[str] = []  # of them, the best of a search, which others train again with other seeds
        self.launched = 0
        self.losses: Counter[str] = Counter()  # of a job: how many times it was running when a worker was killed
        self.signalled = math.inf  # time.time() of the first signal

    def setup(self, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Called by Hydra."""
        self.context, self.task_function, self.config = hydra_context, task_function, config

    def parse(self, arguments: Sequence[str]) -> list[Override]:
        """The overrides of ``params`` and, in their place, those of the command line."""
        parser = OverridesParser.create(config_loader=self.context.config_loader)
        given = [*(f"{key}={value}" for key, value in self.params.items()), *arguments]
        return list({override.get_key_element(): override for override in parser.parse_overrides(given)}.values())

    @contextmanager
    def opened(self, arguments: Sequence[str]) -> Iterator[list[Override]]:
        """Hold the directory of the sweep and show its jobs. Gives what :meth:`parse` does.

        Raises:
            OutputError: another process sweeps here, or it cannot be written.
        """
        if self.config.hydra.sweep.dir == "":
            raise ConfigError("a directory is needed", "hydra.sweep.dir", "Set hydra.sweep.dir=DIR, or leave it out")
        overrides = self.parse(arguments)
        for override in overrides:
            if override.key_or_group == "run_dir":
                todo = "Set hydra.sweep.dir=DIR for all of them"
                raise ConfigError("each job has a directory of its own", str(override.input_line), todo)
            if override.key_or_group in ("sweep", "launcher") and override.is_sweep_override():
                raise ConfigError("one at a time", str(override.input_line), f"Choose one: {override.key_or_group}=NAME")
        if self.config.hydra.sweep.dir == directory.AUTO:
            typed = OverridesParser.create().parse_overrides(list(self.config.hydra.overrides.hydra))
            with read_write(self.config), open_dict(self.config):
                self.config.hydra.sweep.dir = directory.default_dir([*overrides, *typed])
        self.directory = Path(self.config.hydra.sweep.dir).expanduser()
        with read_write(self.config), open_dict(self.config):
            self.config.hydra.sweep.dir = str(self.directory)
        self._one_job_a_gpu()
        self.launcher: Launcher = Plugins.instance().instantiate_launcher(
            hydra_context=self.context, task_function=self.task_function, config=self.config
        )
        # A job is called after what is swept: the rest is the same for all of them.
        fixed = sorted({override.key_or_group for override in overrides if not override.is_sweep_override()})
        self.fixed = fixed if len(fixed) < len(overrides) else []
        with directory.held(self.directory):
            log.info("sweep directory: %s", self.directory)
            log.info("to go on with the sweep, whatever ends it, repeat the command: %s", directory.continue_sweep())
            apart = not self.launcher_is("basic") and not self._is_here()
            self.watch = Watch(self.directory, self.names, apart=apart, says=apart and not self.launcher_is("joblib"))
            try:
                yield overrides
            finally:
                self.watch.stop()

    def plan(self, overrides: Sequence[str]) -> Planned:
        """Compose a job's config to see what it is called and whether there is anything to do.

        Raises:
            Hydra's errors, if it cannot be composed.
        """
        own = [
            f"hydra.sweep.dir={_quoted(str(self.directory))}",
            f"hydra.job.config.override_dirname.exclude_keys=[{','.join(map(_quoted, self.fixed))}]",
        ]
        everything = [*overrides, *own]
        cfg = self.context.config_loader.load_sweep_config(self.config, everything)
        name = job_name(str(cfg.hydra.job.override_dirname))
        with open_dict(cfg):
            del cfg["hydra"]
        chosen = OmegaConf.select(cfg, "run_dir")
        path = Path(str(chosen)).expanduser() if chosen else self.directory / name
        try:
            return Planned(everything, name, path, _config(cfg, overrides))
        except GanError:
            return Planned(everything, name, path, None)

    def run(self, jobs: Sequence[Sequence[str]]) -> list[Outcome]:
        """Launch a batch, without the jobs that are finished; those of a launcher with several workers run side by side.

        Raises:
            PreemptedError: a signal ended the sweep; what ran has saved its state. GanError: or could not save it.
            ConfigError: the launcher cannot run jobs.
        """
        if len(jobs) > MANY:
            log.info("looking at %d jobs", len(jobs))
        planned = [self.plan(overrides) for overrides in jobs]
        self.names += [job.name for job in planned if job.name not in self.names]
        directory.write_plan(self.directory, self.names, self.chosen)
        done, diverged = ([job for job in planned if job.ended == state] for state in ("complete", "diverged"))
        if done:
            log.info("%d of %d jobs are finished and stay as they are", len(done), len(planned))
        if diverged:
            text = "diverged before, would again, and stay as they are (to try one all the same, move its directory away): %s"
            log.info(text, "; ".join(job.name for job in diverged))
        other = sorted({key for job in done for key in job.changed if is_among(key, EVALUATION)})
        if other:
            log.info("note: nor are they evaluated anew, though %s differ: gan-eval run_dir=DIR does that", ", ".join(other))
        returns: dict[str, JobReturn] = {}
        while todo := [job for job in planned if not job.ended and job.name not in returns]:
            self.watch.start()
            batch = [job for job in todo if self.losses[job.name] < MOST_LOSSES] or todo[:1]
            batch.sort(key=lambda job: self.losses[job.name])
            began = time.time()
            try:
                returns |= zip((job.name for job in batch), self._launch(batch), strict=True)
            except LostError as error:
                gone = [job.name for job in batch if job.is_lost(began)] or [job.name for job in batch]
                for name in gone:
                    self.losses[name] += 1
                    if self.losses[name] > MOST_LOSSES:
                        returns[name] = as_failed(error)
                log.warning("warning: %s; all that are not complete go on from their checkpoints", error.what)
                planned = [self.plan(overrides) for overrides in jobs]  # as they are now
        outcomes = [outcome(job, returns.get(job.name)) for job in planned]
        for one in outcomes:
            if one.error is not None:
                self.watch.failed[one.name] = str(one.error)
                if (self.watch.says and one.name not in self.watch.said) or isinstance(one.error, LostError):
                    log.info("%s: %s", one.name, one.error)
        return outcomes

    def _one_job_a_gpu(self) -> None:
        """``launcher=joblib`` has as many workers as cores; where there are GPUs, as many as those, unless told otherwise."""
        launcher = self.config.hydra.launcher
        if not self.launcher_is("joblib") or launcher.n_jobs != -1 or self.config.device not in ("auto", "cuda"):
            return
        if count := gpus():
            with read_write(self.config), open_dict(self.config):
                launcher.n_jobs = count
            log.info("jobs side by side: %d, one for each GPU (hydra.launcher.n_jobs)", count)

    def _is_here(self) -> bool:
        """Whether joblib has a single worker, which is this process."""
        if not self.launcher_is("joblib") or self.config.hydra.launcher.n_jobs == 0:  # which joblib refuses
            return False
        from joblib import effective_n_jobs

        return bool(effective_n_jobs(self.config.hydra.launcher.n_jobs) == 1)

    def launcher_is(self, *kinds: str) -> bool:
        """Whether it is one of these: ``basic``, ``joblib``, ``submitit``."""
        return any(kind in str(self.config.hydra.launcher._target_).lower() for kind in kinds)

    def _launch(self, batch: Sequence[Planned]) -> Sequence[JobReturn]:
        """What the launcher says of each job.

        Raises:
            LostError: a worker was killed, and all others with it.
        """
        self.launched += len(batch)
        began = time.time()
        try:
            with self._signals_to_jobs(), as_failures() if self.launcher_is("submitit") else nullcontext():
                jobs = [job.overrides for job in batch]
                returns: Sequence[JobReturn] = self.launcher.launch(jobs, initial_job_idx=self.launched - len(batch))
        except (Exception, KeyboardInterrupt) as error:
            if signals.received and not isinstance(error, signals.Interrupted):
                raise self._stopped(batch, [], began) from error
            if not isinstance(error, Exception) or isinstance(error, GanError) or self.launcher_is("basic"):
                raise
            if not is_loss(error):
                what = f"the launcher cannot run the jobs: {first_line(str(error))[:200]}"
                raise ConfigError(what, "hydra.launcher", "Set it up for this machine, or choose another launcher=") from error
            (self.directory / STOP).touch()  # what still runs saves and ends
            self._wait_for_jobs()
            (self.directory / STOP).unlink(missing_ok=True)
            what = "a process of the launcher was killed, for lack of memory perhaps"
            raise LostError(what, str(self.directory), "Repeat the command, which goes on") from error
        if signals.received:
            raise self._stopped(batch, returns, began)
        return returns

    def _wait_for_jobs(self) -> None:
        until = time.monotonic() + PATIENCE
        while any(is_locked(self.directory / name) for name in self.names) and time.monotonic() < until:
            time.sleep(0.1)

    def _stopped(self, batch: Sequence[Planned], returns: Sequence[JobReturn], began: float) -> GanError:
        """What a signal ended. ``began``: when the batch did, in ``time.time()``."""
        self._wait_for_jobs()
        errors = {job.name: end._return_value for job, end in zip(batch, returns, strict=False)}
        unsaved: dict[str, GanError] = {}
        for job in batch:
            error = errors.get(job.name)
            if job.is_lost(began):
                known = isinstance(error, GanError) and not isinstance(error, PreemptedError)
                unsaved[job.name] = error if known else PeerError(LOST, str(job.path), "")  # type: ignore[assignment]
            elif isinstance(error, UNSAVED) and job.told_at() > self.signalled:
                unsaved[job.name] = error
        stopped, todo = f"the sweep was stopped by {signals.received[0]}", f"Continue with: {directory.continue_sweep()}"
        if unsaved:
            first = next(iter(unsaved.values()))
            kind = PeerError if isinstance(first, LostError) else type(first)  # the sweep itself does not try again
            return kind(f"{stopped}, and these jobs could not save: {'; '.join(unsaved)}", str(self.directory), todo)
        return PreemptedError(f"{stopped}, its jobs have saved their state", str(self.directory), todo)

    @contextmanager
    def _signals_to_jobs(self) -> Iterator[None]:
        """Where jobs run in other processes, the first signal lets them save and end. The second acts at once."""
        if self.launcher_is("basic"):  # the job itself listens
            yield
            return

        def pass_on(number: int, frame: object) -> None:
            signals.note(number, None)
            self.signalled = min(self.signalled, time.time())
            (self.directory / STOP).touch()
            log.info("%s: the jobs save and end; once more to end at once", signal.Signals(number).name)

        if self.launcher_is("joblib"):
            with patched("PYTHONWARNINGS", "ignore:resource_tracker"):  # it complains of what killed workers leave
                resource_tracker.ensure_running()  # joblib would start it later, and that unblocks SIGINT
        before = {each: signal.signal(each, pass_on) for each in signals.SIGNALS}
        # Processes begin with what is blocked here: Ctrl-C is for this one alone, which hears it in the thread that watches.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
            for each, handler in before.items():
                signal.signal(each, handler)


@contextmanager
def patched(variable: str, value: str) -> Iterator[None]:
    """Within this block an environment variable has another value, unless the user set it."""
    set_here = variable not in os.environ
    os.environ.setdefault(variable, value)
    try:
        yield
    finally:
        if set_here:
            del os.environ[variable]


def outcome(job: Planned, ended: JobReturn | None) -> Outcome:
    """``ended``: what the launcher says; None for a job that was not begun, as it has ended before."""
    if ended is None and job.ended != "complete":
        error = DivergedError(job.message, str(job.path), "Leave it out") if job.ended == "diverged" else None
        return Outcome(job.name, job.path, job.ended, None, error)
    if ended is None:
        config = job.config
        assert config is not None
        try:
            value = final_metric(job.path, config.optimized_metric, evaluated=config.eval_every is not None)
            return Outcome(job.name, job.path, "complete", value, None)
        except ConfigError as error:  # no such metric
            return Outcome(job.name, job.path, "failed", None, error)
    result = ended._return_value
    if ended.status == JobStatus.COMPLETED:
        return Outcome(job.name, job.path, "complete", result, None)
    states = {DivergedError: "diverged", PreemptedError: "preempted", PrunedError: "pruned"}
    return Outcome(job.name, job.path, states.get(type(result), "failed"), None, result)


def _config(cfg: DictConfig, overrides: Sequence[str]) -> TrainConfig:
    """Of a job; beside ``from_run`` that of the run it names."""
    if cfg.from_run is None:
        return check(cfg)
    from gan_cli.rundir.from_run import Original

    return Original.read(cfg).changed(cfg, [override.removeprefix("++") for override in overrides])


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
