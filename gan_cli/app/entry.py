"""What the three commands share: Hydra's entry, and every foreseeable error as one line with its exit code."""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import signal
import string
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TextIO

from omegaconf import DictConfig, OmegaConf, open_dict

from gan_cli.app.messages import CONFIG_PACKAGE, compose, translate
from gan_cli.system import console, signals, torchrun
from gan_cli.system.errors import (
    ConfigError,
    GanError,
    NotFoundError,
    PreemptedError,
    PrunedError,
    SweepError,
)
from gan_cli.system.text import first_line, job_name

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override

log = logging.getLogger("gan_cli")


MAX_JOBS = 10_000  # most jobs of one sweep
SPINS = "3000"  # turns a thread waits for the others before it sleeps: by default so many that two trainings starve each other


def run(app: Callable[[DictConfig], Any], config_name: str, name: str, *, resumable: bool = False) -> NoReturn:
    """Run a Hydra application and leave the process with the right exit code.

    Args:
        app: gets the composed config; may raise :class:`GanError`.
        config_name: primary config in conf/. name: of the program, for messages.
        resumable: the same command continues what a signal has ended.
    """
    program = Program(app, config_name, name, resumable)
    together = resumable and torchrun.world() > 1
    if together:
        torchrun.end_with_parent()
    open_standard_streams()
    if "OMP_WAIT_POLICY" not in os.environ:  # read by GNU OpenMP, which torch brings
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)
    try:
        with signals.interrupting(program.interrupted):
            code = program.run()
    except signals.Interrupted as interrupted:
        code = program.interrupted(str(interrupted))
    except SystemExit as ended:
        if not (together and isinstance(ended.code, int)):
            raise
        code = ended.code
    if together:
        os._exit(code)  # threads of a group that lost a process may wait for it for hours
    sys.exit(code)


@dataclass
class Program:
    """A command that composes its config with Hydra: the boundary where an error becomes one line and an exit code.

    Below it an error is raised or passes. Of processes that train together rank 0 prints; another does so only if its
    error ``is_first_failure``. See :func:`run` for the first four.

    Attributes:
        folder: the one that the command was typed in. want_traceback: the user has set HYDRA_FULL_ERROR=1.
        has_begun: a config could be composed. failure: the error that ended the only job.
    """

    app: Callable[[DictConfig], Any]
    config_name: str
    name: str
    resumable: bool
    folder: str = ""
    want_traceback: bool = False
    has_begun: bool = False
    failure: Exception | None = None

    @property
    def silent(self) -> bool:
        """Whether another process prints what there is to say."""
        return self.resumable and torchrun.rank() > 0

    @property
    def log_level(self) -> int:
        """The level from which on the log is shown."""
        return logging.CRITICAL if self.silent else logging.INFO

    def interrupted(self, signal_name: str) -> int:
        """Print that a signal came while there was nothing to save; return the exit code."""
        todo = " before a step was made, nothing is lost. The same command starts again, or continues the run"
        if not self.silent:
            with contextlib.suppress(OSError):
                text = f"{self.name}: interrupted by {signal_name}{todo if self.resumable else ''}"
                print(text, file=sys.stderr, flush=True)
        return PreemptedError.exit_code if self.resumable else 128 + signal.Signals[signal_name]

    def run(self) -> int:
        """Compose, run all jobs, print the error if there is one; return the exit code."""
        try:
            self.folder = os.getcwd()
        except OSError as error:
            what = f"the current directory is not there: {error.strerror}"
            return self.fail(NotFoundError(what, ".", "Change to another one"))
        sys.path.append(self.folder)  # a user's class may lie beside their YAML; last, so that it shadows nothing installed
        self.want_traceback = os.environ.get("HYDRA_FULL_ERROR") == "1"
        os.environ["HYDRA_FULL_ERROR"] = "1"  # makes Hydra hand its exceptions on instead of printing them
        console.setup(self.log_level)
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("error", category=UserWarning, module=r"hydra\.")
                compose_and_run(self)
            sys.stdout.flush()
        except BrokenPipeError:  # gan-train ... | head
            forget(sys.stdout)
            return 0
        except Exception as error:
            known = self.translated(error)
            if isinstance(error, SweepError):
                print(f"{self.name}: {error}", file=sys.stderr)
                return error.exit_code
            if known is None:
                raise
            if self.want_traceback:
                traceback.print_exc()
            return self.fail(known)
        finally:
            flush_or_forget()
        return 0 if self.failure is None else self.fail(self.failure)

    def job(self, cfg: DictConfig) -> Any:
        """Run one job. The error of the only one is kept as ``failure``; that of a job of a sweep is printed and raised."""
        from hydra.core.hydra_config import HydraConfig
        from hydra.types import RunMode

        self.has_begun = True
        if self.folder not in sys.path:  # a launcher may run this in another process
            sys.path.append(self.folder)
        hydra = HydraConfig.get()
        shares = signals.is_elsewhere() and "joblib" in str(hydra.launcher._target_).lower()
        console.setup(self.log_level, job_name(str(hydra.job.override_dirname)) if shares else "")
        try:
            return self.app(cfg)
        except Exception as error:
            known = self.translated(error)
            sweeping = hydra.mode == RunMode.MULTIRUN
            if signals.received and sweeping and not signals.is_elsewhere():  # Ctrl-C ends the sweep, also if a job cannot save
                say(self.name, known or error)
                sys.exit(getattr(known, "exit_code", 1))
            if self.want_traceback or not (sweeping or known):
                raise
            if sweeping:  # say it now; the other jobs go on, and the sweeper says what it means
                say(self.name, known or error)
                raise (known or error) from error.__cause__
            self.failure = known
            return None

    def translated(self, error: Exception) -> GanError | None:
        """The error as one of ours, or None if it is nobody's but the code's.

        Raises:
            Interrupted: a signal came, of which a library made something else.
        """
        if signals.received and not isinstance(error, GanError):
            raise signals.Interrupted(signals.received[0]) from error
        return translate(error, self.config_name, composing=not self.has_begun)

    def fail(self, error: Exception) -> int:
        """Print an error, if this process is the one to do it; return its exit code."""
        if not self.silent:
            say(self.name, error)
        elif getattr(error, "is_first_failure", False):
            say(f"{self.name}: rank {torchrun.rank()}", error)
        return getattr(error, "exit_code", 1)


def flush_or_forget() -> None:
    """Flush the standard streams. What a full disk refuses is forgotten, or the interpreter would print that once more."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            forget(stream)


def open_standard_streams() -> None:
    """``2>&-`` and the like: the next file opened would take the place of the stream, and get what is written to it."""
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        if number > 0:
            setattr(sys, ("stdout", "stderr")[number - 1], open(number, "w", closefd=False))
    os.close(number)


def forget(stream: TextIO) -> None:
    """What a stream still holds goes nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def compose_and_run(program: Program) -> None:
    """Parse the command line, and have Hydra compose a config for each job and run it."""
    import hydra
    from hydra._internal.utils import get_args_parser

    parser: argparse.ArgumentParser = get_args_parser()

    def refuse(message: str) -> NoReturn:
        raise ConfigError(message, "command line", f"See {program.name} --help")

    parser.error = refuse  # type: ignore[method-assign]
    args = parser.parse_intermixed_args()
    # Hydra does not take flags between overrides; a user may well put them there.
    sys.argv[1:] = [*args.overrides, *(a for a in sys.argv[1:] if a not in args.overrides)]
    if args.help:
        print(_help(args.config_name or program.config_name, args))
        return
    if not program.resumable:  # a training's own sweeper asks
        refuse_huge_sweep(_parsed(args.overrides))
    if args.multirun and torchrun.world() > 1:
        todo = "Leave out -m and start one torchrun for each job, or leave out torchrun"
        raise ConfigError("several processes cannot sweep together", "-m under torchrun", todo)
    hydra.main(config_path=f"pkg://{CONFIG_PACKAGE}", config_name=program.config_name, version_base="1.3")(program.job)()


def _parsed(overrides: list[str]) -> list[Override]:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    return OverridesParser.create().parse_overrides(overrides)


def refuse_huge_sweep(overrides: Sequence[Override]) -> None:
    """Hydra lists every job before the first one begins.

    Raises:
        ConfigError: there are too many.
    """
    from hydra.core.override_parser.types import ChoiceSweep, RangeSweep

    jobs = 1.0
    for override in overrides:
        sweep = override.value()
        if isinstance(sweep, ChoiceSweep):
            jobs *= len(sweep.list)
        elif isinstance(sweep, RangeSweep) and None not in (sweep.start, sweep.stop, sweep.step):
            start, stop, step = float(sweep.start), float(sweep.stop), float(sweep.step)  # type: ignore[arg-type]
            if not step:
                raise ConfigError("a range with a step of 0 does not end", str(override.input_line), "Write range(start,stop)")
            jobs *= max(1.0, abs(stop - start) / abs(step))
        if not jobs <= MAX_JOBS:
            raise ConfigError(f"a sweep of more than {MAX_JOBS:,} jobs", "command line", "Sweep fewer values at a time")


def _help(config_name: str, args: argparse.Namespace) -> str:
    """The help template of the config, filled in. Hydra's own way to list the groups takes half a second."""
    folders = [Path(str(resources.files(CONFIG_PACKAGE))), *([Path(args.config_dir)] if args.config_dir else [])]
    groups: dict[str, set[str]] = {}
    for file in (file for folder in folders for file in folder.glob("*/*.yaml")):
        groups.setdefault(file.parent.name, set()).add(file.stem)
    cfg = compose(config_name, args.overrides, args.config_dir)
    template = string.Template(cfg.hydra.help.template)
    with open_dict(cfg):
        del cfg["hydra"]
    return template.safe_substitute(
        APP_CONFIG_GROUPS="\n".join(f"{name}: {', '.join(sorted(groups[name]))}" for name in sorted(groups)),
        CONFIG=OmegaConf.to_yaml(cfg, resolve=bool(args.resolve)),
    )


def say(name: str, error: Exception) -> None:
    """Print an error as one line."""
    text = str(error)
    if not isinstance(error, GanError):
        text = (
            f"{type(error).__name__}: {first_line(text)} (a bug in a class of your own or in gan_cli). See the run's train.log."
        )
    kind = "" if isinstance(error, PreemptedError | PrunedError) else "error: "
    console.write(f"{name}: {kind}{text}")


def task_overrides(hydra: Any) -> list[str]:
    """What the command line, or the sweep, sets for this job: as it was typed, ``${...}`` not resolved."""
    plain = OmegaConf.to_container(hydra.overrides.task, resolve=False)
    assert isinstance(plain, list)
    return [str(override) for override in plain]
