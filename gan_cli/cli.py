"""What the three commands share: Hydra's entry, and every foreseeable error as one line with its exit code."""

from __future__ import annotations

import argparse
import contextlib
import errno
import logging
import os
import re
import shutil
import signal
import string
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from importlib import resources
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TextIO

import yaml
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from gan_cli import console, signals, torchrun
from gan_cli.errors import (
    ConfigError,
    GanError,
    NotFoundError,
    OutputError,
    PreemptedError,
    PrunedError,
    SweepError,
    file_of,
    of_system,
)
from gan_cli.schema import nearest

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override

CONFIG_PACKAGE = "gan_cli.conf"
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

        from gan_cli.sweeps.directory import job_name

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


def _compose(config_name: str, overrides: list[str], config_dir: str | None) -> DictConfig:
    from hydra import compose, initialize_config_module
    from hydra.core.global_hydra import GlobalHydra

    GlobalHydra.instance().clear()
    searched = [f"hydra.searchpath=[file://{os.path.abspath(config_dir)}]"] if config_dir else []
    with initialize_config_module(CONFIG_PACKAGE, version_base="1.3"):
        return compose(config_name, overrides=[*overrides, *searched], return_hydra_config=True)


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


def program(name: str) -> str:
    """What to type for one of the commands: its name, or its path where the environment is not activated."""
    beside = Path(sys.executable).with_name(name)
    found = shutil.which(name)
    if not beside.exists() or (found is not None and Path(found) == beside):
        return name
    return os.path.relpath(beside) if beside.is_relative_to(Path.cwd()) else str(beside)


def override(key: str, value: object) -> str:
    """``key=value`` as Hydra reads it, quoted where it must be, not yet quoted for a shell."""
    text = str(value)
    if re.fullmatch(r"[\w./:+-]+", text):
        return f"{key}={text}"
    escaped = text.replace('"', '\\"')
    return f'{key}="{escaped}"'


def _translate(error: Exception, config_name: str, *, composing: bool) -> GanError | None:
    """An error of Hydra, OmegaConf or the system as one line, or None when it is not one of the user's.

    ``composing``: the application has not begun; until then there is nothing but what the user wrote.
    """
    if isinstance(error, GanError):
        return error
    text = str(error)
    exhausted = of_system(error, "output")
    if exhausted is not None:
        return exhausted
    if isinstance(error, OSError) and error.errno is not None and not isinstance(error, HydraException):
        if composing and error.errno == errno.ENAMETOOLONG:
            return ConfigError("a name that is too long for a file", "command line", "Choose an option of the group")
        todo = "Check the path; that of a sweep is set by hydra.sweep.dir="
        where = file_of(error)
        return OutputError(f"the path cannot be used: {error.strerror or first_line(text)}", where, todo)
    first = first_line(text)
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, option = error.missing_cfg_file.rpartition("/")
        options = list(error.options or [])
        near = nearest(option, options).strip()
        todo = f"Options: {', '.join(options)}" + (f". {near}" if near else "")
        if not group:
            return ConfigError(f"there is no config {option!r}", "--config-name", "Leave it out")
        if group == "hydra/launcher":
            extra = {"joblib": "sweep", "submitit_local": "slurm", "submitit_slurm": "slurm"}.get(option)
            todo = f"Install it: pip install 'gan_cli[{extra}]'" if extra else todo
        if not options:
            todo = "Check the name of the group; --help lists them"
        return ConfigError(f"{group} has no option {option!r}", f"{group}={option}", todo)
    if isinstance(error, OverrideParseException):
        detail = first_line(str(getattr(error, "message", "") or first))
        if detail.startswith("Lexer"):
            detail = "a character in it needs quotes"
        return ConfigError(f"cannot read {error.override!r}: {detail}", "command line", "Write key=value, in quotes if need be")
    if isinstance(error, yaml.YAMLError):
        mark = getattr(error, "problem_mark", None)
        at = f"{os.path.basename(str(mark.name))}, line {mark.line + 1}" if mark else "a YAML file"
        return ConfigError(f"YAML that cannot be read: {getattr(error, 'problem', None) or first}", at, "Correct the file")
    match = re.search(r"Could not override '([^']+)'", text)
    if match:
        return _unknown_key(match[1], config_name)
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, OmegaConfBaseException):
        cause = cause.__cause__
    if isinstance(cause, OmegaConfBaseException):
        key = str(cause.full_key or "configuration")
        if "not in struct" in str(cause):
            return _unknown_key(key, config_name)
        return ConfigError(first_line(str(cause.msg or cause)), key, "--help lists the keys")
    ambiguous = re.search(r"Ambiguous value for argument '([^=']+)=([^']*)'", text)
    if ambiguous:
        key, values = ambiguous.groups()
        return ConfigError(f"{values!r} are several values", key, f"Write {key}=[{values}] for a list")
    if "Config group override must be a string" in text:
        todo = "Name an option of the group; --help lists them"
        return ConfigError("a group cannot be null", "command line", todo)
    if "config directory" in text:
        return ConfigError(first.rstrip("."), "--config-dir", "Give a folder with groups in it, such as DIR/loss/mine.yaml")
    if composing and isinstance(error, RecursionError):
        return ConfigError("something is nested too deep or within itself", "configuration", "Check what was given")
    if isinstance(error, HydraException) or composing:
        return ConfigError(first.rstrip(".") or type(error).__name__, "configuration", "--help shows how it is put together")
    return None


def first_line(text: str) -> str:
    """Of a longer message; the second one too, where the first announces it."""
    first, _, rest = text.strip().partition("\n")
    return f"{first.strip()} {first_line(rest)}" if first.endswith(":") and rest.strip() else first.strip()


def _unknown_key(key: str, config_name: str) -> ConfigError:
    """Suggests a key beside it, else anywhere, else lists those beside it."""
    keys = _all_keys(config_name, key)
    parent = key.rpartition(".")[0]
    beside = [k for k in keys if k.rpartition(".")[0] == parent]
    near = nearest(key, beside).strip() or nearest(key, keys).strip()
    listed = f"The keys there are: {', '.join(beside)}" if beside else "--help lists the keys"
    return ConfigError(f"unknown key {key!r}", key, near or listed)


def _all_keys(config_name: str, unknown: str) -> list[str]:
    """Every key and group of the config that the group choices on the command line give, ``unknown`` left out."""
    from gan_cli.config import flatten

    choices = [a for a in sys.argv[1:] if re.fullmatch(r"\w+=[\w-]+", a) and not a.startswith(f"{unknown}=")]
    config_dir = next((b for a, b in pairwise(sys.argv) if a in ("--config-dir", "-cd")), None)
    for overrides in (choices, []):
        try:
            plain = OmegaConf.to_container(_compose(config_name, overrides, config_dir), resolve=False)
            keys = [k for k in flatten(plain) if not k.startswith("hydra.") and not k.endswith("_target_")]
            return list(dict.fromkeys([*(k.split(".")[0] for k in keys), *keys]))
        except Exception as problem:
            logging.getLogger("gan_cli").debug("no keys for %s: %s", overrides, problem)
    return []
