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
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TextIO

from omegaconf import DictConfig, OmegaConf, open_dict

from gan_cli.system import console, signals, torchrun
from gan_cli.system.errors import (
    ConfigError,
    GanError,
    NotFoundError,
    PreemptedError,
    PrunedError,
    SweepError,
)

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override
from gan_cli.app.messages import CONFIG_PACKAGE, _compose, _translate
from gan_cli.system.text import first_line

log = logging.getLogger("gan_cli")


MAX_JOBS = 10_000  # of a sweep
SPINS = "3000"  # turns a thread waits for the others before it sleeps: by default so many that two trainings starve each other


def run(app: Callable[[DictConfig], Any], config_name: str, name: str, *, resumable: bool = False) -> NoReturn:
    """Run a Hydra application and leave the process with the right exit code.

    Args:
        app: gets the composed config; may raise :class:`GanError`.
        config_name: primary config in conf/. name: of the program, for messages.
        resumable: the same command goes on where a signal ended it.
    """

    silent = resumable and torchrun.rank() > 0  # of several processes that train, the first one speaks
    if resumable and torchrun.world() > 1:
        torchrun.end_with_parent()

    def leave(signal_name: str) -> int:
        todo = " before a step was made, nothing is lost. The same command starts again, or continues the run"
        if not silent:
            with contextlib.suppress(OSError):
                print(f"{name}: interrupted by {signal_name}{todo if resumable else ''}", file=sys.stderr, flush=True)
        return PreemptedError.exit_code if resumable else 128 + signal.Signals[signal_name]

    open_standard_streams()
    if "OMP_WAIT_POLICY" not in os.environ:  # read by GNU OpenMP, which torch brings
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)
    try:
        with signals.interrupting(leave):
            code = _run(app, config_name, name, silent=silent, resumable=resumable)
    except signals.Interrupted as interrupted:
        code = leave(str(interrupted))
    except SystemExit as ended:
        if not (resumable and torchrun.world() > 1 and isinstance(ended.code, int)):
            raise
        code = ended.code
    if resumable and torchrun.world() > 1:
        os._exit(code)  # threads of a group that lost a process may wait for it for hours
    sys.exit(code)


def _run(app: Callable[[DictConfig], Any], config_name: str, name: str, *, silent: bool, resumable: bool) -> int:
    try:
        here = os.getcwd()
    except OSError as error:
        say(name, NotFoundError(f"the current directory is not there: {error.strerror}", ".", "Change to another one"))
        return NotFoundError.exit_code
    sys.path.append(here)  # a user's own class may lie next to their YAML; last, so that it shadows nothing installed
    want_traceback = os.environ.get("HYDRA_FULL_ERROR") == "1"
    os.environ["HYDRA_FULL_ERROR"] = "1"  # makes Hydra hand its exceptions on instead of printing them
    level = logging.CRITICAL if silent else logging.INFO
    console.setup(level)
    begun: list[DictConfig] = []
    failed: dict[str, Exception] = {}

    def job(cfg: DictConfig) -> Any:
        from hydra.core.hydra_config import HydraConfig
        from hydra.types import RunMode

        from gan_cli.system.text import job_name

        begun.append(cfg)
        if here not in sys.path:  # a launcher may run this in another process
            sys.path.append(here)
        hydra = HydraConfig.get()
        shared = signals.is_elsewhere() and "joblib" in str(hydra.launcher._target_).lower()
        console.setup(level, job_name(str(hydra.job.override_dirname)) if shared else "")
        try:
            return app(cfg)
        except Exception as error:
            if signals.received and not isinstance(error, GanError):  # a library made something else of it
                raise signals.Interrupted(signals.received[0]) from error
            known = _translate(error, config_name, composing=False)
            sweeping = hydra.mode == RunMode.MULTIRUN
            here_too = signals.received and sweeping and not signals.is_elsewhere()
            if here_too:  # Ctrl-C means the whole sweep, also if a job cannot save
                say(name, known or error)
                sys.exit(getattr(known, "exit_code", 1))
            if want_traceback or not (sweeping or known):
                raise
            if sweeping:  # say it now; the other jobs go on, and the sweeper says what it means
                say(name, known or error)
                raise (known or error) from error.__cause__
            failed[" ".join(task_overrides(hydra))] = known or error
            return None

    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", category=UserWarning, module=r"hydra\.")
            _main(job, config_name, name, resumable=resumable)
        sys.stdout.flush()
    except BrokenPipeError:  # gan-train ... | head
        forget(sys.stdout)
        return 0
    except Exception as error:
        if signals.received and not isinstance(error, GanError):
            raise signals.Interrupted(signals.received[0]) from error
        if isinstance(error, SweepError):
            print(f"{name}: {error}", file=sys.stderr)
            return error.exit_code
        known = _translate(error, config_name, composing=not begun)
        if known is None:
            raise
        if want_traceback:
            traceback.print_exc()
        if not silent or known.heard:
            say(name, known)
        return known.exit_code
    finally:
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except OSError:  # a full disk, said already; the interpreter would say it again
                forget(stream)
    for failure in failed.values():
        if not silent or getattr(failure, "heard", False):
            say(name, failure)
        return getattr(failure, "exit_code", 1)
    return 0


def open_standard_streams() -> None:
    """``2>&-`` and the like: the next file opened would take the place of the stream, and get what is written to it."""
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        if number > 0:
            setattr(sys, ("stdout", "stderr")[number - 1], open(number, "w", closefd=False))
    os.close(number)


def forget(stream: TextIO) -> None:
    """What a stream still holds goes nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _main(job: Callable[[DictConfig], Any], config_name: str, name: str, *, resumable: bool) -> None:
    import hydra
    from hydra._internal.utils import get_args_parser

    parser: argparse.ArgumentParser = get_args_parser()

    def refuse(message: str) -> NoReturn:
        raise ConfigError(message, "command line", f"See {name} --help")

    parser.error = refuse  # type: ignore[method-assign]
    args = parser.parse_intermixed_args()
    # Hydra does not take flags between overrides; a user may well put them there.
    sys.argv[1:] = [*args.overrides, *(a for a in sys.argv[1:] if a not in args.overrides)]
    if args.help:
        print(_help(args.config_name or config_name, args))
        return
    if not resumable:  # a training's own sweeper asks
        refuse_huge_sweep(_parsed(args.overrides))
    if args.multirun and torchrun.world() > 1:
        todo = "Leave out -m and start one torchrun for each job, or leave out torchrun"
        raise ConfigError("several processes cannot sweep together", "-m under torchrun", todo)
    hydra.main(config_path=f"pkg://{CONFIG_PACKAGE}", config_name=config_name, version_base="1.3")(job)()


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
    cfg = _compose(config_name, args.overrides, args.config_dir)
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
