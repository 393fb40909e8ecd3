"""Errors of Hydra, OmegaConf and the system as one line."""

from __future__ import annotations

import errno
import logging
import os
import re
import sys
from itertools import pairwise
from pathlib import Path

import yaml
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from gan_cli.config import groups, schema
from gan_cli.config.names import SYNONYMS, nearest
from gan_cli.system.errors import (
    ConfigError,
    GanError,
    OutputError,
    file_of,
    of_system,
)
from gan_cli.system.text import first_line
from gan_cli.system.version import install_command

CONFIG_PACKAGE = "gan_cli.conf"
REMOVED_KEYS = {  # key -> what to do instead
    "hydra.sweeper.retry_failed": "Move optuna.db away: the same command draws the values again and keeps finished runs"
}


def compose(config_name: str, overrides: list[str], config_dir: str | None) -> DictConfig:
    """The config of a command with everything of Hydra's in it."""
    import hydra
    from hydra.core.global_hydra import GlobalHydra

    GlobalHydra.instance().clear()
    searched = [f"hydra.searchpath=[file://{os.path.abspath(config_dir)}]"] if config_dir else []
    with hydra.initialize_config_module(CONFIG_PACKAGE, version_base="1.3"):
        return hydra.compose(config_name, overrides=[*overrides, *searched], return_hydra_config=True)


def translate(error: Exception, config_name: str, *, composing: bool) -> GanError | None:
    """Translate an error of Hydra, OmegaConf or the system into one line; None for a bug.

    ``composing``: whether the config is still being composed, so that any error comes from what the user wrote.
    """
    exhausted = of_system(error, "output")
    if exhausted is not None:
        return exhausted
    if isinstance(error, GanError):
        return error
    text = str(error)
    if isinstance(error, OSError) and error.errno is not None and not isinstance(error, HydraException):
        if composing and error.errno == errno.ENAMETOOLONG:
            return ConfigError("a name is too long for a file", "command line", "Choose an option of the group")
        todo = "Check the path; that of a sweep is set by hydra.sweep.dir="
        where = file_of(error)
        return OutputError(f"the path cannot be used: {error.strerror or first_line(text)}", where, todo)
    return _of_composition(error, config_name, composing=composing)


def _of_composition(error: Exception, config_name: str, *, composing: bool) -> ConfigError | None:
    """Translate an error of Hydra, OmegaConf or a YAML file; None for any other."""
    text = str(error)
    first = first_line(text)
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        return _missing_option(error)
    if isinstance(error, OverrideParseException):
        detail = first_line(str(getattr(error, "message", "") or first))
        if detail.startswith(("Lexer", "mismatched", "no viable", "extraneous", "missing")):
            detail = "a value is missing, or a character needs quotes"
        return ConfigError(f"cannot read {error.override!r}: {detail}", "command line", "Write key=value, quoted for the shell")
    if isinstance(error, yaml.YAMLError):
        mark = getattr(error, "problem_mark", None)
        at = f"{os.path.basename(str(mark.name))}, line {mark.line + 1}" if mark else "a YAML file"
        return ConfigError(f"the YAML cannot be read: {getattr(error, 'problem', None) or first}", at, "Correct the file")
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
        if key in (*groups.GROUPS, "experiment"):
            return ConfigError(f"{values!r} are several options", key, "Add -m to sweep over them")
        return ConfigError(f"{values!r} are several values", key, f"Add -m to sweep over them, or write '{key}=[{values}]'")
    added = re.search(r"Multiple values for ([\w/]+)\.|An item is already at '([^']+)'", text)
    if added:
        key = added[1] or added[2]
        return ConfigError("the config has this key already", f"+{key}", f"Leave out the +: {key}=VALUE")
    if "Config group override must be a string" in text:
        todo = "Name an option of the group; --help lists them"
        return ConfigError("a config group cannot be null", "command line", todo)
    if "config directory" in text:
        return ConfigError(first.rstrip("."), "--config-dir", "Give a folder with groups in it, such as DIR/loss/mine.yaml")
    if composing and isinstance(error, RecursionError):
        return ConfigError("a value is nested too deep, or contains itself", "configuration", "Check its values")
    if isinstance(error, HydraException) or composing:
        return ConfigError(first.rstrip(".") or type(error).__name__, "configuration", "--help shows the composed config")
    return None


def _missing_option(error: MissingConfigException) -> ConfigError:
    """The error for an unknown option, with the options of its group and the nearest one."""
    group, _, option = str(error.missing_cfg_file).rpartition("/")
    options = list(error.options or [])
    near = nearest(option, options).strip()
    todo = f"Options: {', '.join(options)}" + (f". {near}" if near else "")
    if not group:
        return ConfigError(f"there is no config {option!r}", "--config-name", "Leave it out")
    if group == "hydra/launcher":
        extra = {"joblib": "sweep", "submitit_local": "slurm", "submitit_slurm": "slurm"}.get(option)
        todo = f"Install it: {install_command(extra)}" if extra else todo
    other = Path(next(iter(folders_of_own()), ""), group, f"{option}.yml")
    if other.is_file():
        todo = f"Rename {other} to {option}.yaml"
    if not options:
        todo = "Check the name of the group; --help lists them"
    return ConfigError(f"{group} has no option {option!r}", f"{group}={option}", todo)


def _unknown_key(key: str, config_name: str) -> ConfigError:
    """The error for an unknown key, with the nearest key of its section, else of the config, else all keys of its section."""
    if key in REMOVED_KEYS:
        return ConfigError("this key was removed", key, REMOVED_KEYS[key])
    keys, target = _all_keys(config_name, key)
    parent, _, name = key.rpartition(".")
    beside = [k for k in keys if k.rpartition(".")[0] == parent]
    if target is not None and name in (schema.parameters(target) or {}):
        return ConfigError("the YAML leaves this argument at its default", key, f"Write +{key}=VALUE to set it")
    near = nearest(key, keys).strip()
    if not near and key in SYNONYMS["dataset.root"].split():
        near = "For images of your own: dataset=image_folder dataset.root=DIR"
    listed = f"The keys there are: {', '.join(beside)}" if beside else "--help lists the keys"
    return ConfigError(f"unknown key {key!r}", key, near or listed)


def _all_keys(config_name: str, unknown: str) -> tuple[list[str], str | None]:
    """All keys and groups of a config, and the ``_target_`` beside the unknown key.

    The config is composed with the group options of the command line but without ``unknown``.
    """
    from gan_cli.config.plain import flatten

    choices = [a for a in sys.argv[1:] if re.fullmatch(r"[\w/]+=[\w-]+", a) and not a.startswith(f"{unknown}=")]
    config_dir = next(iter(folders_of_own()), None)
    for overrides in (choices, []):
        try:
            plain = flatten(OmegaConf.to_container(compose(config_name, overrides, config_dir), resolve=False))
            inside = [k for k in plain if k.startswith("hydra.") == unknown.startswith("hydra.")]
            keys = [k for k in inside if not k.endswith("_target_")]
            target = plain.get(f"{unknown.rpartition('.')[0]}._target_")
            return list(dict.fromkeys([*(k.split(".")[0] for k in keys), *keys])), target
        except Exception as problem:
            logging.getLogger("gan_cli").debug("the config cannot be composed with %s: %s", overrides, problem)
    return [], None


def folders_of_own() -> list[str]:
    """The folder after ``--config-dir``, if it is given."""
    return [b for a, b in pairwise(sys.argv) if a in ("--config-dir", "-cd")]


def unknown_flag(message: str, name: str, config_name: str) -> ConfigError:
    """The error for a flag that the parser of Hydra refuses with ``message``."""
    match = re.search(r"--?([a-zA-Z][\w-]*)=?(\S*)", message)
    if not match:
        return ConfigError(message, "command line", f"See {name} --help")
    key = match[1].replace("-", "_")
    keys, _ = _all_keys(config_name, key)
    near = f"Write {key}=VALUE" if key in keys else nearest(key, keys).strip() or f"See {name} --help"
    return ConfigError(f"there is no flag {match[0]}; settings have no dashes", "command line", near)
