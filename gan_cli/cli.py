"""What the three commands share: Hydra's entry, and every foreseeable error as one line with its exit code."""

from __future__ import annotations

import argparse
import logging
import os
import re
import string
import sys
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any, NoReturn

from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from gan_cli.errors import ConfigError, GanError, PreemptedError
from gan_cli.schema import nearest

CONFIG_PACKAGE = "gan_cli.conf"


def run(app: Callable[[DictConfig], Any], config_name: str, program: str) -> NoReturn:
    """Run a Hydra application and leave the process with the right exit code.

    Args:
        app: gets the composed config; may raise :class:`GanError`.
        config_name: primary config in conf/. program: name for messages.
    """
    # A user's own class may lie next to their YAML. Last, so that it shadows nothing that is installed.
    sys.path.append(os.getcwd())
    want_traceback = os.environ.get("HYDRA_FULL_ERROR") == "1"
    os.environ["HYDRA_FULL_ERROR"] = "1"  # makes Hydra hand its exceptions on instead of printing them
    _setup_logging()
    failure: list[GanError] = []

    def job(cfg: DictConfig) -> Any:
        from hydra.core.hydra_config import HydraConfig
        from hydra.types import RunMode

        try:
            return app(cfg)
        except GanError as error:
            if want_traceback:
                raise
            if HydraConfig.get().mode == RunMode.MULTIRUN:  # say it now; the other jobs go on
                _say(program, error)
                if getattr(error, "by_signal", False):  # Ctrl-C means the whole sweep
                    sys.exit(error.exit_code)
                raise
            failure.append(error)
            return None

    try:
        _main(job, config_name, program)
    except (HydraException, OmegaConfBaseException, YAMLError, GanError, ValueError) as error:
        if want_traceback:
            raise
        known = error if isinstance(error, GanError) else _translate(error, config_name)
        if known is None:
            raise
        if _is_multirun() and isinstance(error, GanError):
            print(f"{program}: not every job of the sweep succeeded; see above", file=sys.stderr)
        else:
            _say(program, known)
        sys.exit(known.exit_code)
    except KeyboardInterrupt:
        print(f"{program}: interrupted before anything was trained", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    if failure:
        _say(program, failure[0])
        sys.exit(failure[0].exit_code)
    sys.exit(0)


def _main(job: Callable[[DictConfig], Any], config_name: str, program: str) -> None:
    import hydra
    from hydra._internal.utils import get_args_parser

    parser: argparse.ArgumentParser = get_args_parser()

    def refuse(message: str) -> NoReturn:
        raise ConfigError(message, "command line", f"See {program} --help")

    parser.error = refuse  # type: ignore[method-assign]
    args = parser.parse_intermixed_args()
    # Hydra does not take flags between overrides; a user may well put them there.
    sys.argv[1:] = [*args.overrides, *(a for a in sys.argv[1:] if a not in args.overrides)]
    if args.help:
        print(_help(args.config_name or config_name, args))
        return
    hydra.main(config_path=f"pkg://{CONFIG_PACKAGE}", config_name=config_name, version_base="1.3")(job)()


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
    return template.substitute(
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


def _is_multirun() -> bool:
    return "-m" in sys.argv or "--multirun" in sys.argv


def _say(program: str, error: GanError) -> None:
    sys.stdout.flush()
    kind = "" if isinstance(error, PreemptedError) else "error: "
    print(f"{program}: {kind}{error}", file=sys.stderr, flush=True)


def override(key: str, value: object) -> str:
    """``key=value`` as Hydra reads it, quoted where it must be, not yet quoted for a shell."""
    text = str(value)
    if re.fullmatch(r"[\w./:+-]+", text):
        return f"{key}={text}"
    escaped = text.replace('"', '\\"')
    return f'{key}="{escaped}"'


class _Console(logging.Handler):
    """Plain lines on stderr that do not break a progress bar."""

    def emit(self, record: logging.LogRecord) -> None:
        text = self.format(record)
        if "tqdm" in sys.modules:
            sys.modules["tqdm"].tqdm.write(text, file=sys.stderr)
        else:
            print(text, file=sys.stderr, flush=True)


def _setup_logging() -> None:
    logger = logging.getLogger("gan_cli")
    if not logger.handlers:
        logger.addHandler(_Console())
        logger.setLevel(logging.INFO)
        logger.propagate = False


def _translate(error: Exception, config_name: str) -> ConfigError | None:
    """An error of Hydra or OmegaConf as one line, or None when it is not one of the user's."""
    text = str(error)
    first = text.split("\n")[0].strip()
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, option = error.missing_cfg_file.rpartition("/")
        options = list(error.options or [])
        near = nearest(option, options).strip()
        todo = f"Options: {', '.join(options)}" + (f". {near}" if near else "")
        if not group:
            return ConfigError(f"there is no config {option!r}", "--config-name", "Leave it out")
        if not options:
            todo = "Check the name of the group; --help lists them"
        return ConfigError(f"{group} has no option {option!r}", f"{group}={option}", todo)
    if isinstance(error, OverrideParseException):
        detail = str(error.message if hasattr(error, "message") else first).split("\n")[0]
        return ConfigError(f"cannot read {error.override!r}: {detail}", "command line", "Write key=value, in quotes if need be")
    if isinstance(error, YAMLError):
        mark = getattr(error, "problem_mark", None)
        at = f"{os.path.basename(str(mark.name))}, line {mark.line + 1}" if mark else "a YAML file"
        return ConfigError(f"YAML that cannot be read: {getattr(error, 'problem', None) or first}", at, "Correct the file")
    match = re.search(r"Could not override '([^']+)'", text)
    if match:
        key = match[1]
        near = nearest(key, _all_keys(config_name)).strip()
        return ConfigError(f"unknown key {key!r}", key, near or "--help lists the keys")
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, OmegaConfBaseException):
        cause = cause.__cause__
    if isinstance(cause, OmegaConfBaseException):
        key = str(cause.full_key or "configuration")
        near = nearest(key, _all_keys(config_name)).strip() if "not in struct" in str(cause) else ""
        return ConfigError(str(cause.msg or cause).split("\n")[0], key, near or "--help lists the keys")
    if "Config group override must be a string" in text:
        todo = "Name an option of the group; --help lists them"
        return ConfigError("a group cannot be null", "command line", todo)
    if isinstance(error, HydraException):
        return ConfigError(first.rstrip("."), "configuration", "--help shows how it is put together")
    return None


def _all_keys(config_name: str) -> list[str]:
    """Every key and group of the config that the group choices on the command line give."""
    from gan_cli.config import flatten

    choices = [a for a in sys.argv[1:] if re.fullmatch(r"[a-z]+=\w+", a)]
    for overrides in (choices, []):
        try:
            plain = OmegaConf.to_container(_compose(config_name, overrides, None), resolve=False)
            keys = [key for key in flatten(plain) if not key.startswith("hydra.")]
            return [*dict.fromkeys(k.split(".")[0] for k in keys), *keys]
        except Exception as problem:
            logging.getLogger("gan_cli").debug("no keys for %s: %s", overrides, problem)
    return []
