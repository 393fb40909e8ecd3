"""The entry of gan-train, gan-sample and gan-eval: Hydra, signals, and the boundary where an error becomes an exit code."""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TextIO

from omegaconf import DictConfig, OmegaConf

from gan_cli.app.copying import copy
from gan_cli.app.help import page
from gan_cli.app.messages import CONFIG_PACKAGE, compose, translate, unknown_flag
from gan_cli.app.own_configs import ignore_byte_order_marks, refuse_octal
from gan_cli.app.words import is_run, loosened, to_overrides, with_new_keys
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
from gan_cli.system.version import version

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override

log = logging.getLogger("gan_cli")


MAX_JOBS = 10_000  # jobs of one sweep
SPIN_COUNT = "3000"  # busy-wait iterations of an OpenMP thread before it sleeps; the default starves a second training


def run(app: Callable[[DictConfig], Any], config_name: str, name: str, keys: type, *, resumable: bool = False) -> NoReturn:
    """Run a Hydra application and leave the process with the right exit code.

    Args:
        app: function of the composed config; may raise :class:`GanError`.
        config_name: primary config in conf/. name: of the program, for messages. keys: dataclass of its top-level keys.
        resumable: whether the same command continues a run that a signal ended.
    """
    program = Program(app, config_name, name, keys, resumable)
    together = resumable and torchrun.world() > 1
    if together:
        torchrun.end_with_parent()
    open_standard_streams()
    if "OMP_WAIT_POLICY" not in os.environ:  # read by GNU OpenMP, which torch brings
        os.environ.setdefault("GOMP_SPINCOUNT", SPIN_COUNT)
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
        os._exit(code)  # without joining threads, which may wait hours for a lost process
    sys.exit(code)


@dataclass
class Program:
    """A command that composes its config with Hydra: the boundary where an error becomes one line and an exit code.

    Code below it raises errors or lets them pass. Of processes that train together rank 0 prints, or the rank whose error
    ``is_first_failure``. See :func:`run` for the first five attributes.

    Attributes:
        folder: current directory at the start. want_traceback: whether the user has set HYDRA_FULL_ERROR=1.
        has_begun: whether a config was composed. failure: the error that ended a single run.
    """

    app: Callable[[DictConfig], Any]
    config_name: str
    name: str
    keys: type
    resumable: bool
    folder: str = ""
    want_traceback: bool = False
    has_begun: bool = False
    failure: Exception | None = None

    @property
    def silent(self) -> bool:
        """Whether this process leaves the printing to rank 0."""
        return self.resumable and torchrun.rank() > 0

    @property
    def log_level(self) -> int:
        """Lowest level of log lines that are printed."""
        return logging.CRITICAL if self.silent else logging.INFO

    def interrupted(self, signal_name: str) -> int:
        """Report a signal that came before there was anything to save; return the exit code."""
        todo = " before the first step; nothing is lost. The same command starts or continues the run"
        if not self.silent:
            with contextlib.suppress(OSError):
                text = f"{self.name}: interrupted by {signal_name}{todo if self.resumable else ''}"
                print(text, file=sys.stderr, flush=True)
        return PreemptedError.exit_code if self.resumable else 128 + signal.Signals[signal_name]

    def run(self) -> int:
        """Compose the config, run all jobs, print an error; return the exit code."""
        try:
            self.folder = os.getcwd()
        except OSError as error:
            what = f"the current directory does not exist: {error.strerror}"
            return self.fail(NotFoundError(what, ".", "Change to another one"))
        sys.path.append(self.folder)  # for a user's own classes; last, so that no installed module is shadowed
        self.want_traceback = os.environ.get("HYDRA_FULL_ERROR") == "1"
        os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises exceptions instead of printing them
        console.setup(self.log_level)
        console.shared_lines.clear()
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
        """Run one job. The error of a single run is kept as ``failure``; that of a sweep's job is printed and raised."""
        from hydra.core.hydra_config import HydraConfig
        from hydra.types import RunMode

        self.has_begun = True
        if self.folder not in sys.path:  # in a process of a launcher
            sys.path.append(self.folder)
        hydra = HydraConfig.get()
        shares = signals.is_elsewhere() and "joblib" in str(hydra.launcher._target_).lower()
        console.setup(self.log_level, job_name(str(hydra.job.override_dirname)) if shares else "")
        try:
            return self.app(cfg)
        except Exception as error:
            known = self.translated(error)
            sweeping = hydra.mode == RunMode.MULTIRUN
            if signals.received and sweeping and not signals.is_elsewhere():  # Ctrl-C ends the sweep even if a job cannot save
                say(self.name, known or error)
                sys.exit(getattr(known, "exit_code", 1))
            if self.want_traceback or not (sweeping or known):
                raise
            if sweeping:  # printed now, since the other jobs continue
                say(self.name, known or error)
                raise (known or error) from error.__cause__
            self.failure = known
            return None

    def translated(self, error: Exception) -> GanError | None:
        """The error as a :class:`GanError`, or None for a bug.

        Raises:
            Interrupted: a signal came, and a library raised another error because of it.
        """
        if signals.received and not isinstance(error, GanError):
            raise signals.Interrupted(signals.received[0]) from error
        known = translate(error, self.config_name, composing=not self.has_begun)
        if known is not None and getattr(error, "is_first_failure", False):
            known.is_first_failure = True
        return known

    def fail(self, error: Exception) -> int:
        """Print an error, if this process is the one to do it; return its exit code."""
        if not self.silent:
            say(self.name, error)
        elif getattr(error, "is_first_failure", False):
            say(f"{self.name}: rank {torchrun.rank()}", error)
        return getattr(error, "exit_code", 1)


def flush_or_forget() -> None:
    """Flush the standard streams. A stream that cannot be written is discarded: the interpreter would report it again."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            forget(stream)


def open_standard_streams() -> None:
    """Open closed standard streams (``2>&-``) on /dev/null, or the next file opened would receive their output."""
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        if number > 0:
            setattr(sys, ("stdout", "stderr")[number - 1], open(number, "w", closefd=False))
    os.close(number)


def forget(stream: TextIO) -> None:
    """Discard the buffer of a stream and all that is written to it."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def compose_and_run(program: Program) -> None:
    """Parse the command line; let Hydra compose a config for each job and run it."""
    import hydra
    from hydra._internal.utils import get_args_parser

    parser: argparse.ArgumentParser = get_args_parser()

    def refuse(message: str) -> NoReturn:
        raise unknown_flag(message, program.name, program.config_name)

    parser.error = refuse  # type: ignore[method-assign]
    if "--version" in sys.argv[1:]:
        print(f"{program.name} {version()}")
        return
    if program.resumable and sys.argv[1:2] == ["--copy"]:
        print(copy(sys.argv[2:], Path(str(resources.files(CONFIG_PACKAGE)))))
        return
    args = parser.parse_intermixed_args()
    topics = [word for word in args.overrides if args.help and "=" not in word]
    flags = [a for a in sys.argv[1:] if a not in args.overrides]
    if not program.resumable and sum(map(is_run, args.overrides)) > 1 and not args.multirun:
        args.multirun = True  # gan-eval A B
        flags.append("-m")
    args.overrides = rewritten(program, args, [word for word in args.overrides if word not in topics])
    sys.argv[1:] = [*args.overrides, *flags]  # Hydra refuses flags between overrides
    if args.help:
        folders = [Path(str(resources.files(CONFIG_PACKAGE))), *([Path(args.config_dir)] if args.config_dir else [])]
        base = partial(compose, args.config_name or program.config_name, args.overrides, args.config_dir)
        print(page(folders, program.config_name, program.keys, base, topics=topics, given=args.overrides))
        return
    if not program.resumable:  # gan-train's sweeper has its own check
        refuse_huge_sweep(_parsed(args.overrides))
    if args.multirun and torchrun.world() > 1:
        todo = "Leave out -m and start one torchrun for each job, or leave out torchrun"
        raise ConfigError("several processes cannot sweep together", "-m under torchrun", todo)
    hydra.main(config_path=f"pkg://{CONFIG_PACKAGE}", config_name=program.config_name, version_base="1.3")(program.job)()


def rewritten(program: Program, args: argparse.Namespace, words: list[str]) -> list[str]:
    """The words of the command line as overrides of Hydra.

    Raises:
        ConfigError: a word, or a YAML file that it chooses, cannot be used.
    """
    if args.config_path:
        raise ConfigError("gan_cli has its own configs", "--config-path", "Add a folder of your own with --config-dir DIR")
    ignore_byte_order_marks()
    if args.config_dir:
        refuse_octal(args.config_dir, words)
    overrides = to_overrides(words, name=program.name, sweeping=bool(args.multirun))
    if program.resumable:
        overrides = loosened(overrides)
    if program.resumable and args.multirun:
        overrides = with_new_keys(_parsed(overrides), partial(compose, program.config_name, config_dir=args.config_dir))
    return overrides


def _parsed(overrides: list[str]) -> list[Override]:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    return OverridesParser.create().parse_overrides(overrides)


def refuse_huge_sweep(overrides: Sequence[Override]) -> None:
    """Refuse a sweep of more than ``MAX_JOBS`` jobs, since Hydra lists all of them before the first one starts.

    Raises:
        ConfigError: the sweep is too large, or a range never ends.
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
                raise ConfigError("a range with a step of 0 has no end", str(override.input_line), "Write range(start,stop)")
            jobs *= max(1.0, abs(stop - start) / abs(step))
        if not jobs <= MAX_JOBS:
            raise ConfigError(f"a sweep of more than {MAX_JOBS:,} jobs", "command line", "Sweep fewer values at a time")


def say(name: str, error: Exception) -> None:
    """Print an error as one line."""
    text = str(error)
    if not isinstance(error, GanError):
        text = f"{type(error).__name__}: {first_line(text)} (a bug in your own class or in gan_cli). See the run's train.log."
    kind = "" if isinstance(error, PreemptedError | PrunedError) else "error: "
    console.write(f"{name}: {kind}{text}")


def task_overrides(hydra: Any) -> list[str]:
    """The overrides of this job, from the command line or the sweep; ``${...}`` is not resolved."""
    plain = OmegaConf.to_container(hydra.overrides.task, resolve=False)
    assert isinstance(plain, list)
    return [str(override) for override in plain]
