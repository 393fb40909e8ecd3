"""The words of a command line as overrides of Hydra: paths as they are typed, run directories, lists without brackets."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from omegaconf import DictConfig, OmegaConf

from gan_cli.config.plain import flatten
from gan_cli.system.errors import ConfigError
from gan_cli.system.text import PATH_KEYS, override, quoted

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override

# Keys that take a list. Outside a sweep, commas separate its items.
LISTS = frozenset({"allow_change", "betas", "deviations", "formats", "label", "metrics", "milestones"})
OF_HYDRA = {  # keys of Hydra that gan_cli does not follow -> what to use instead
    "hydra.run.dir": "Set run_dir=DIR",
    "hydra.job.chdir": "Change the directory before the command, or set run_dir=DIR",
    "hydra.output_subdir": "Leave it out; the config of a run is its config.yaml",
    "hydra.sweep.subdir": "Leave it out; the directory of a job is named after its overrides",
}


def to_overrides(words: Sequence[str], *, name: str, sweeping: bool) -> list[str]:
    """The overrides of a command line.

    A directory that holds a run stands for ``run_dir=``; several are swept over. The value of a path is taken literally,
    unless it is quoted for Hydra. In a sweep a comma separates paths, except in the name of something that exists.

    Args:
        words: arguments that are no flags. name: of the command. sweeping: whether ``-m`` is given.

    Raises:
        ConfigError: a word is neither ``key=value`` nor the directory of a run.
    """
    runs = [word for word in words if is_run(word)]
    others = [word for word in words if word not in runs]
    if len(runs) > 1 and name == "gan-train":
        raise ConfigError(f"{len(runs)} runs at a time", runs[1], "Continue one after the other")
    result = [_override(word, sweeping) for word in others]
    run_dirs = [value for key, _, value in (word.partition("=") for word in others) if key == "run_dir"]
    if name == "gan-train" and not sweeping and not runs and len(others) == 1 and run_dirs and is_run(run_dirs[0]):
        runs, run_dirs, result = run_dirs, [], []
    if runs and run_dirs:
        raise ConfigError("two run directories", f"{runs[0]} and run_dir={run_dirs[0]}", "Leave one out")
    if name == "gan-train" and runs:
        if sweeping:
            raise ConfigError("a run is continued by itself", runs[0], "Leave out -m, or sweep over from_run=DIR")
        return [override("from_run", runs[0]), override("run_dir", runs[0]), *result]
    return ([f"run_dir={','.join(map(quoted, runs))}"] if runs else []) + result


def is_run(word: str) -> bool:
    """Whether a word is the path of a run directory; ``seed=0`` is a setting, ``seed=0/`` and ``./seed=0`` are paths."""
    path = os.path.expanduser(word)
    return ("=" not in word or "/" in word) and any(
        os.path.exists(os.path.join(path, name)) for name in ("config.yaml", "checkpoints")
    )


def _override(word: str, sweeping: bool) -> str:
    """One word as an override."""
    key, equals, value = word.partition("=")
    if not key or not (equals or word.startswith("~")):
        if os.path.exists(os.path.expanduser(word)):
            raise ConfigError("this is no run directory", word, "Give the directory that gan-train printed")
        todo = f"Write {key}=VALUE, without blanks around the =" if key else "Write key=value, without blanks"
        raise ConfigError(f"{word!r} is neither key=value nor the directory of a run", "command line", todo)
    if key in OF_HYDRA:
        raise ConfigError("gan_cli does not use this key", key, OF_HYDRA[key])
    last = key.lstrip("+").rpartition(".")[2]
    if last in PATH_KEYS or key == "hydra.sweep.dir":
        return _path(key, value, sweeping)
    if last in LISTS and not sweeping and "," in value and value[0] not in "[\"'$":
        return f"{key}=[{value}]"
    return word


def _path(key: str, value: str, sweeping: bool) -> str:
    """The override of a path, quoted for Hydra."""
    exists = os.path.exists(os.path.expanduser(value))
    is_quoted = re.fullmatch(r"""(["']).*\1""", value, re.DOTALL) is not None
    is_hydras = (
        value in ("", "null", "auto", "???") or is_quoted or (sweeping and re.fullmatch(r"\w+\(.*\)", value) is not None)
    )
    if not exists and (is_hydras or "${" in value):
        return f"{key}={value}"
    if sweeping and not exists and "," in value:
        return f"{key}=" + ",".join(quoted(path) for path in _paths(value))
    return override(key, value)


def _paths(value: str) -> list[str]:
    """The paths that commas separate; the names of existing ones may contain commas."""
    pieces, paths = value.split(","), []
    while pieces:
        sizes = range(len(pieces), 0, -1)
        n = next((n for n in sizes if os.path.exists(os.path.expanduser(",".join(pieces[:n])))), 1)
        paths.append(",".join(pieces[:n]))
        pieces = pieces[n:]
    return paths


def loosened(overrides: Sequence[str]) -> list[str]:
    """Prefix overrides with ``++`` if ``from_run=`` is given: that run may have keys that the default config lacks."""
    if not any(override.startswith("from_run=") for override in overrides):
        return list(overrides)
    return [f"++{one}" if re.fullmatch(r"(?!hydra\.)\w+(\.\w+)+", one.partition("=")[0]) else one for one in overrides]


def with_new_keys(overrides: Sequence[Override], compose: Callable[[list[str]], DictConfig]) -> list[str]:
    """Prefix ``++`` to keys that only the options of a sweep have: ``dataset=mnist,kmnist dataset.root=DIR``.

    ``compose``: composes the config of a list of overrides.
    """
    swept = {one.key_or_group for one in overrides if one.is_sweep_override() or one.key_or_group == "sweep"}
    texts = [str(one.input_line) for one in overrides]
    groups = {"experiment", "sweep"} & swept
    nested = [k for k, one in enumerate(overrides) if re.fullmatch(r"(?!hydra\.)\w+(\.\w+)+=.*", texts[k], re.DOTALL)
              and (groups or one.key_or_group.partition(".")[0] in swept)]  # fmt: skip
    if nested:
        fixed = [text for one, text in zip(overrides, texts, strict=True) if re.fullmatch(r"\w+", one.key_or_group)]
        config = compose([text for text in fixed if text.partition("=")[0] not in swept])
        for k in nested:
            if not _has(config, overrides[k].key_or_group):
                texts[k] = f"++{texts[k]}"
    return texts


def _has(config: DictConfig, key: str) -> bool:
    """Whether a config has a dotted key."""
    keys = flatten(OmegaConf.to_container(config, resolve=False))
    return any(one == key or one.startswith(f"{key}.") for one in keys)
