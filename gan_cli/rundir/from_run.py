"""``gan-train from_run=DIR``: a run made anew from what its directory says of it."""

from __future__ import annotations

import copy
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from gan_cli.config import schema
from gan_cli.config.plain import is_among, to_plain
from gan_cli.config.training import BEGINNING, MAY_CHANGE, TrainConfig, check_plain
from gan_cli.rundir import checkpoint, status
from gan_cli.rundir.metrics_log import read_rows
from gan_cli.rundir.trust import DEEPEST, TRAINED, check_trusted
from gan_cli.system import console
from gan_cli.system.errors import CheckpointError, ConfigError, DataError, NewerError, NotFoundError
from gan_cli.system.files import read_file, refuse_links
from gan_cli.system.text import short
from gan_cli.system.version import __version__

log = logging.getLogger("gan_cli")
KINDS = {"threads": int, "precision": str, "compiled": bool, "device": str}  # of the machine, what a config can ask for
MOST_THREADS = 1024  # that are begun because a run says so
OF_THE_COMMAND = ("run_dir", "allow_change", "max_hours")  # and not of the run


@dataclass(frozen=True)
class Original:
    """The run that is made anew.

    Attributes:
        run_dir: its directory. config: its own, not yet checked. trust: it may name classes of the user's own.
        info: plain data of its newest checkpoint; empty if there is none.
    """

    run_dir: Path
    config: dict[str, Any]
    trust: bool
    info: dict[str, Any]

    @classmethod
    def read(cls, cfg: DictConfig) -> Original:
        """The run that a composed config names in ``from_run``, with ``trust``.

        Raises:
            NotFoundError, CheckpointError: it is no run, or cannot be read. UntrustedError: it may run somebody's code.
            ConfigError: it is the directory to train in.
        """
        where, trust = schema.convert(cfg.from_run, str, "from_run"), schema.convert(cfg.trust, bool, "trust")
        run_dir = Path(where).expanduser()
        if cfg.run_dir is not None and Path(str(cfg.run_dir)).expanduser().resolve() == run_dir.resolve():
            todo = "Choose another run_dir=, or leave out from_run and repeat its own command to continue it"
            raise ConfigError("a run cannot be made anew in its own directory", "from_run and run_dir", todo)
        if not run_dir.is_dir():
            raise NotFoundError("there is no such run directory", where, "Give the directory gan-train printed")
        if not trust:
            refuse_links(run_dir)
        info = read_info(run_dir)
        config = info.get("config") or read_config(run_dir)
        sections = ("model", "loss", "optimizer", "schedule", "dataset", "ema")
        if not isinstance(config, dict) or not all(isinstance(config.get(name), dict) for name in sections):
            what = f"its config is not that of a run, which has the sections {', '.join(sections)}"
            raise CheckpointError(what, where, "Use the version that made it")
        original = cls(run_dir.resolve(), config, trust, info)
        original._refuse_untrusted()
        return original

    def _refuse_untrusted(self) -> None:
        if self.trust:
            return
        for part in TRAINED:
            try:
                check_trusted(self.config, part)
            except (KeyError, TypeError) as error:
                if part == "features":  # there were none
                    continue
                what = f"the run's config has no {part}"
                raise CheckpointError(what, str(self.run_dir), "Use the version that made it") from error

    def changed(self, cfg: DictConfig, overrides: list[str]) -> TrainConfig:
        """Its config with what may be set beside ``from_run``, on a machine set up as the one it was made with.

        Args:
            cfg: composed of the defaults and ``overrides``. overrides: what was typed.

        Raises:
            ConfigError: something else was set. CheckpointError: its config is not one that this version can use.
        """
        defaults = to_plain(cfg)
        plain: dict[str, Any] = copy.deepcopy(self.config)
        missing = {key: value for key, value in defaults.items() if key not in (*BEGINNING, *plain)}
        missing |= {f"ema.{k}": v for k, v in defaults["ema"].items() if k not in plain["ema"]}
        for key, value in missing.items():
            _put(plain, key, value)
            log.info("note: the run is of an older version, without %s; it is %s here", key, value)
        for key, value in self._machine().items():
            plain[key] = value
        if isinstance(plain["threads"], int) and plain["threads"] > MOST_THREADS:
            what = "note: the run says that it was made with %s threads, more than %d: the default is taken, or threads="
            log.info(what, short(plain["threads"]), MOST_THREADS)
            plain["threads"] = None
        if not self.trust and "download" in plain["dataset"]:
            plain["dataset"]["download"] = False
        plain |= {key: defaults[key] for key in OF_THE_COMMAND}
        for override in OverridesParser.create().parse_overrides(overrides):
            key = override.get_key_element().lstrip("+~")
            if key in BEGINNING or key in ("run_dir", "sweep", "launcher"):
                continue
            if key != "seed" and (override.is_delete() or not is_among(key, MAY_CHANGE)):
                command = status.command(self.run_dir)
                todo = f"Edit and repeat {command} instead" if command else "Repeat the command that made it with another value"
                what = f"{key} is part of what the run is; beside from_run only seed and what changes no result can be set"
                raise ConfigError(what, str(override.input_line), todo)
            value = OmegaConf.select(cfg, key)
            _put(plain, key, OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value)
        try:
            config = check_plain(plain)
        except ConfigError as error:
            if any(is_among(error.where.split(" ")[0].split("[")[0], [o.partition("=")[0].lstrip("+")]) for o in overrides):
                raise
            what, where = f"the run's config: {short(error.what, 300)}", f"{self.run_dir}, {short(error.where, 200)}"
            raise CheckpointError(what, where, "Use the version that made it") from error
        ends, then = plain["schedule"].get("total_steps"), self.config.get("total_steps")
        if isinstance(ends, int) and config.total_steps > max(ends, then if isinstance(then, int) else 0):
            what = f"the schedule of the run ends at step {ends}, with the learning rate that it has there"
            todo = "Leave it out, or repeat the command that made the run with another value"
            raise ConfigError(what, f"total_steps={config.total_steps}", todo)
        return config

    def _machine(self) -> dict[str, Any]:
        """What the config leaves to the machine, as it was then."""
        machine = self.info.get("machine")
        if not isinstance(machine, dict) or any(type(machine.get(key)) is not kind for key, kind in KINDS.items()):
            return {}
        return {
            "threads": machine["threads"],
            "precision": machine["precision"],
            "compile": machine["compiled"],
            "device": machine["device"].partition(":")[0],
        }

    def refuse_other_data(self, fingerprint: str, allowed: list[str]) -> None:
        """Called before anything is made.

        Raises:
            DataError: the data is not what the run was trained on, and that was not allowed.
        """
        then = self.info.get("data", fingerprint)
        if then != fingerprint and "data" not in allowed:
            todo = "Set dataset.root to where that is, or use what is here all the same: allow_change=[data]"
            raise DataError(
                "the data is not that which the run was trained on", f"{short(str(then)[:12])} -> {fingerprint[:12]}", todo
            )

    def announce(self, seed: int, machine: dict[str, Any], fingerprint: str) -> None:
        """Say of what run this is a copy, and what is not as it was."""
        log.info("made anew from: %s", self.run_dir)
        for reason in self.reasons(seed, machine, fingerprint):
            log.info("note: not the same run: %s", short(reason, 500))

    def reasons(self, seed: int, machine: dict[str, Any], fingerprint: str) -> list[str]:
        """Why the result may be, or is, another."""
        found = []
        if seed != self.config.get("seed"):
            found.append(f"seed: {self.config.get('seed')} -> {seed}")
        if not self.info:
            return [*found, "it has no checkpoint that says with how many threads, what precision and which data it was made"]
        if self.info.get("data") != fingerprint:
            found.append(f"data: {self.info.get('data')} -> {fingerprint}")
        changes = self.info.get("changes")
        found += [f"it was changed {change}" for change in (changes if isinstance(changes, list) else [])]
        then = self.info.get("machine")
        then = then if isinstance(then, dict) else {}
        found += [f"{key}: {then.get(key)} -> {value}" for key, value in machine.items() if then.get(key) != value]
        versions = self.info.get("versions")
        then_version = versions.get("gan_cli") if isinstance(versions, dict) else None
        if then_version != __version__:
            found.append(f"gan_cli: {then_version} -> {__version__}")
        return found

    def compare(self, seed: int, run_dir: Path) -> None:
        """Say whether the weights became the same, by the newest checkpoint of a step of which both have one."""
        if seed != self.config.get("seed"):
            return
        common = sorted(set(checkpoint.steps(self.run_dir)) & set(checkpoint.steps(run_dir)))
        if not common:
            log.info("not compared: there is no step of which both this run and %s have a checkpoint", self.run_dir)
            return
        step, groups = common[-1], ("generator", "generator_ema")
        try:
            then, now = (
                checkpoint.load(path, step, lambda info: dict.fromkeys(groups)).hashes for path in (self.run_dir, run_dir)
            )
        except (CheckpointError, NotFoundError) as error:
            log.warning("warning: not compared: %s", error)
            return
        if all(then[f"{group}{checkpoint.SUFFIX}"] == now[f"{group}{checkpoint.SUFFIX}"] for group in groups):
            text = "reproduced: the weights of step %d are identical to those of %s"
            log.log(console.NOTICE, text, step, self.run_dir)
            return
        first = first_difference(self.run_dir, run_dir)
        since = "" if first is None else f"; the rows differ since step {first}"
        log.warning("warning: not reproduced: the weights of step %d differ from those of %s%s", step, self.run_dir, since)


class NoOriginal:
    """Stands for the original of a run that is no copy: there is nothing to refuse, to say or to compare."""

    def refuse_other_data(self, fingerprint: str, allowed: list[str]) -> None:
        """Refuse nothing."""

    def announce(self, seed: int, machine: dict[str, Any], fingerprint: str) -> None:
        """Say nothing."""

    def compare(self, seed: int, run_dir: Path) -> None:
        """Compare nothing."""


def read_info(run_dir: Path) -> dict[str, Any]:
    """Plain data of the newest checkpoint that verifies; empty if there is none but a config.yaml.

    Raises:
        CheckpointError: none can be read, and there is no config.yaml either.
    """
    try:
        newest = checkpoint.load_newest(run_dir, lambda info: {})
        return {} if newest is None else newest.info
    except NewerError:
        raise
    except CheckpointError as error:
        if not (run_dir / "config.yaml").is_file():
            raise
        log.warning("warning: %s", CheckpointError(error.what, error.where, "config.yaml is used in its place"))
        return {}


def read_config(run_dir: Path) -> Any:
    """The content of config.yaml as plain data; nothing in it is resolved.

    Raises:
        NotFoundError: there is none. CheckpointError: it is not YAML as a run writes it.
    """
    path = run_dir / "config.yaml"
    try:
        text = read_file(path).decode()
        depth = 0
        for event in yaml.parse(text):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if isinstance(event, yaml.AliasEvent) or depth > DEEPEST:
                raise ValueError("it has references, which multiply, or is nested too deep")
        return OmegaConf.to_container(OmegaConf.create(text), resolve=False)
    except FileNotFoundError as error:
        todo = "Give the directory gan-train printed"
        raise NotFoundError("this is no run: it has neither a checkpoint nor a config.yaml", str(run_dir), todo) from error
    except (OSError, ValueError, RecursionError, AssertionError, yaml.YAMLError, OmegaConfBaseException) as error:
        what = f"the config cannot be read: {short(str(error).splitlines()[0] if str(error) else type(error).__name__, 200)}"
        raise CheckpointError(what, str(path), "Use another from_run=") from error


def first_difference(one: Path, other: Path) -> int | None:
    """The first step of which both have a row, and not the same one; what depends on the clock does not count."""
    before = {row["step"]: _timeless(row) for row in read_rows(one)}
    steps = (row["step"] for row in read_rows(other) if row["step"] in before and before[row["step"]] != _timeless(row))
    return next(steps, None)


def _timeless(row: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if not key.startswith("time/")}


def _put(plain: dict[str, Any], key: str, value: Any) -> None:
    """Set a dotted key of nested data."""
    *parents, last = key.split(".")
    for parent in parents:
        plain = plain.setdefault(parent, {})
    plain[last] = value
