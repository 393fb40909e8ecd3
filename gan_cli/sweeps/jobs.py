"""What all sweeps share: jobs that are finished stay as they are, broken ones go on, and it is said.

Hydra finds the sweepers in ``hydra_plugins/gan_cli_sweepers``. Must not import torch.
"""

from __future__ import annotations

import logging
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from gan_cli import signals, status
from gan_cli.config import MAY_CHANGE, TrainConfig, check, differences, is_among
from gan_cli.errors import ConfigError, DivergedError, PreemptedError, PrunedError
from gan_cli.files import read_file
from gan_cli.outcome import final_metric
from gan_cli.sweeps import directory as places
from gan_cli.sweeps.elsewhere import STOP
from gan_cli.sweeps.table import Watch

log = logging.getLogger("gan_cli")


@dataclass(frozen=True)
class Planned:
    """A job before it is launched.

    Attributes:
        overrides: all that Hydra gets. name, path: of its directory. config: None if it is not valid, which the job will say.
    """

    overrides: list[str]
    name: str
    path: Path
    config: TrainConfig | None

    @property
    def finished(self) -> bool:
        """Whether there is nothing to do: a run of this config is complete there."""
        return self.config is not None and is_finished(self.path, self.config)


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
        self.launched = 0

    def setup(self, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Called by Hydra."""
        self.context, self.config = hydra_context, config
        self.launcher: Launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

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
        if self.config.hydra.sweep.dir == places.AUTO:
            typed = OverridesParser.create().parse_overrides(list(self.config.hydra.overrides.hydra))
            with read_write(self.config), open_dict(self.config):
                self.config.hydra.sweep.dir = places.default_dir([*overrides, *typed])
        self.directory = Path(self.config.hydra.sweep.dir)
        # A job is called after what is swept: the rest is the same for all of them.
        fixed = sorted({override.key_or_group for override in overrides if not override.is_sweep_override()})
        self.fixed = fixed if len(fixed) < len(overrides) else []
        with places.held(self.directory):
            log.info("sweep directory: %s", self.directory)
            log.info("to go on with the sweep, whatever ends it, repeat the command: %s", places.continue_sweep())
            self.watch = Watch(self.directory, self.names)
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
        name = places.job_name(str(cfg.hydra.job.override_dirname))
        with open_dict(cfg):
            del cfg["hydra"]
        chosen = OmegaConf.select(cfg, "run_dir")
        path = Path(str(chosen)).expanduser() if chosen else self.directory / name
        try:
            return Planned(everything, name, path, check(cfg))
        except ConfigError:
            return Planned(everything, name, path, None)

    def run(self, jobs: Sequence[Sequence[str]]) -> list[Outcome]:
        """Launch a batch, without the jobs that are finished; those of a launcher with several workers run side by side.

        Raises:
            Interrupted: a signal ended the sweep; what ran has saved its state.
        """
        planned = [self.plan(overrides) for overrides in jobs]
        self.names += [job.name for job in planned if job.name not in self.names]
        places.write_plan(self.directory, self.names)
        todo = [job for job in planned if not job.finished]
        if len(todo) < len(planned):
            log.info("%d of %d jobs are finished and stay as they are", len(planned) - len(todo), len(planned))
        ended: dict[int, JobReturn] = {}
        if todo:
            self.watch.start()
            with self._signals_to_jobs():
                returns = self.launcher.launch([job.overrides for job in todo], initial_job_idx=self.launched)
            self.launched += len(todo)
            ended = {id(job): job_return for job, job_return in zip(todo, returns, strict=True)}
        if signals.received:
            raise signals.Interrupted(signals.received[0])
        return [outcome(job, ended.get(id(job))) for job in planned]

    @contextmanager
    def _signals_to_jobs(self) -> Iterator[None]:
        """Where jobs run in other processes, the first signal lets them save and end. The second acts at once."""
        if self.config.hydra.launcher._target_.endswith("BasicLauncher"):  # the job itself listens
            yield
            return

        def pass_on(number: int, frame: object) -> None:
            signals.note(number, None)
            (self.directory / STOP).touch()
            log.info("%s: the jobs save and end; once more to end at once", signal.Signals(number).name)

        before = {each: signal.signal(each, pass_on) for each in signals.SIGNALS}
        try:
            yield
        finally:
            for each, handler in before.items():
                signal.signal(each, handler)


def outcome(job: Planned, ended: JobReturn | None) -> Outcome:
    """``ended``: what the launcher says; None for a job that was finished before."""
    if ended is None:
        assert job.config is not None
        return Outcome(job.name, job.path, "complete", final_metric(job.path, job.config), None)
    result = ended._return_value
    if ended.status == JobStatus.COMPLETED:
        return Outcome(job.name, job.path, "complete", result, None)
    states = {DivergedError: "diverged", PreemptedError: "preempted", PrunedError: "pruned"}
    return Outcome(job.name, job.path, states.get(type(result), "failed"), None, result)


def is_finished(path: Path, config: TrainConfig) -> bool:
    """Whether a run of this config, or one that differs in nothing that matters, is complete there."""
    told = status.read(path)
    if told is None or told["state"] != "complete" or int(told.get("step") or 0) < config.total_steps:
        return False
    try:
        before = yaml.load(read_file(path / "config.yaml"), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (OSError, ValueError, yaml.YAMLError, RecursionError):
        return False
    changed = differences(before, config.as_dict()) if isinstance(before, dict) else {"": ""}
    return all(is_among(key, MAY_CHANGE - {"gif"}) for key in changed)


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
