"""``gan-train from_run=DIR``: a copy of a run, trained from what its directory records."""

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
from gan_cli.rundir.trust import TRAINED, check_trusted
from gan_cli.system import console
from gan_cli.system.errors import CheckpointError, ConfigError, DataError, NewerError, NotFoundError
from gan_cli.system.files import read_file, refuse_links
from gan_cli.system.text import short
from gan_cli.system.version import __version__

log = logging.getLogger("gan_cli")
MAX_THREADS = 1024  # a recorded number of threads above this is ignored
OF_THE_COMMAND = ("run_dir", "allow_change", "max_hours")  # keys that are never copied
# Key of the config -> key of the recorded machine.
MACHINE = {"threads": "threads", "precision": "precision", "compile": "compiled", "device": "device"}
OLD_VERSION_ADVICE = "Use the version that made it"


@dataclass(frozen=True)
class Original:
    """The run to copy, or to continue with its own config.

    Attributes:
        run_dir: its directory. config: of the run, not yet checked. trust: it may name classes of the user's own.
        info: plain data of its newest checkpoint; empty if there is none.
        continues: whether the run itself is trained on, so that any key may be set; ``allow_change`` decides then.
    """

    run_dir: Path
    config: dict[str, Any]
    trust: bool
    info: dict[str, Any]
    continues: bool = False

    @classmethod
    def read(cls, cfg: DictConfig) -> Original:
        """The run that a composed config names in ``from_run``, with ``trust``.

        Raises:
            NotFoundError, CheckpointError: it is no run, or cannot be read. UntrustedError: it names code that is not ours.
            ConfigError: it is the directory to train in.
        """
        where, trust = schema.convert(cfg.from_run, str, "from_run"), schema.convert(cfg.trust, bool, "trust")
        run_dir = Path(where).expanduser()
        if not run_dir.is_dir():
            raise NotFoundError("there is no such run directory", where, "Give the directory gan-train printed")
        if not trust:
            refuse_links(run_dir)
        info = read_info(run_dir)
        config = info.get("config") or read_config(run_dir)
        lacking = [name for name in ("model", "loss", "optimizer", "schedule", "dataset", "ema")
                   if not isinstance(config, dict) or not isinstance(config.get(name), dict)]  # fmt: skip
        try:
            for part in TRAINED if not trust and not lacking else ():
                check_trusted(config, part)
        except KeyError as error:
            lacking = [str(error)]
        if lacking:
            raise CheckpointError(f"its config has no {', '.join(lacking)}", where, OLD_VERSION_ADVICE)
        is_same = cfg.run_dir is not None and Path(str(cfg.run_dir)).expanduser().resolve() == run_dir.resolve()
        return cls(run_dir.resolve(), config, trust, info, is_same)

    def changed(self, cfg: DictConfig, overrides: list[str]) -> TrainConfig:
        """Its config, with the keys that may be set together with ``from_run``, and the settings of its machine.

        Args:
            cfg: composed of the defaults and ``overrides``. overrides: the arguments of the command.

        Raises:
            ConfigError: something else was set. CheckpointError: this version cannot use the config.
        """
        plain = self._completed(to_plain(cfg))
        own = set()  # keys of the command, whose errors are the user's
        for override in OverridesParser.create().parse_overrides(overrides):
            key = override.get_key_element().lstrip("+~")
            if key in BEGINNING or key in ("run_dir", "sweep", "launcher"):
                continue
            if override.is_delete() or not (self.continues or key == "seed" or is_among(key, MAY_CHANGE)):
                command = status.command(self.run_dir)
                todo = f"Edit and repeat {command} instead" if command else "Repeat the command that made it with another value"
                what = f"{key} is part of the run; with from_run only seed and keys without effect on the result can be set"
                raise ConfigError(what, str(override.input_line), todo)
            value = OmegaConf.select(cfg, key)
            _put(plain, key, OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value)
            own.add(key)
        try:
            config = check_plain(plain)
        except ConfigError as error:
            if is_among(error.where.split(" ")[0].split("[")[0], own | set(OF_THE_COMMAND)):
                raise
            what, where = f"the run's config: {short(error.what, 300)}", f"{self.run_dir}, {short(error.where, 200)}"
            todo = error.todo if error.todo == schema.IMPORT_ADVICE else OLD_VERSION_ADVICE
            raise CheckpointError(what, where, todo) from error
        end, total = plain["schedule"].get("total_steps"), self.config.get("total_steps")
        if isinstance(end, int) and config.total_steps > max(end, total if isinstance(total, int) else 0):
            what = f"the schedule of the run ends at step {end}, with the learning rate that it has there"
            todo = "Leave it out, or repeat the command that made the run with another value"
            raise ConfigError(what, f"total_steps={config.total_steps}", todo)
        return config

    def _completed(self, defaults: dict[str, Any]) -> dict[str, Any]:
        """Its config with keys that an older version did not have, and with what was left to its machine, as it was there."""
        plain: dict[str, Any] = copy.deepcopy(self.config)
        missing = {key: value for key, value in defaults.items() if key not in (*BEGINNING, *plain)}
        missing |= {f"ema.{k}": v for k, v in defaults["ema"].items() if k not in plain["ema"]}
        for key, value in missing.items():
            _put(plain, key, value)
            log.info("note: the run is of an older version, without %s; it is %s here", key, value)
        if self.continues:
            return plain | {key: defaults[key] for key in OF_THE_COMMAND}
        machine = self._recorded("machine")
        plain |= {key: machine[name] for key, name in MACHINE.items() if name in machine}
        plain["device"] = str(plain["device"]).partition(":")[0]
        if isinstance(plain["threads"], int) and plain["threads"] > MAX_THREADS:
            plain["threads"] = None
        if not self.trust and "download" in plain["dataset"]:
            plain["dataset"]["download"] = False
        return plain | {key: defaults[key] for key in OF_THE_COMMAND}

    def _recorded(self, key: str) -> dict[str, Any]:
        """A part of the checkpoint's data; empty if there is none."""
        part = self.info.get(key)
        return part if isinstance(part, dict) else {}

    def refuse_other_data(self, fingerprint: str, allowed: list[str]) -> None:
        """Refuse data that the run was not trained on. Called before anything is written.

        Raises:
            DataError: naming both fingerprints; not with ``data`` in ``allowed``.
        """
        before = str(self.info.get("data", fingerprint))
        if before != fingerprint and "data" not in allowed:
            todo = "Set dataset.root to where that is, or use what is here all the same: allow_change=data"
            where = f"{short(before[:12])} -> {fingerprint[:12]}"
            raise DataError("the data is not that which the run was trained on", where, todo)

    def announce(self, seed: int, machine: dict[str, Any], fingerprint: str) -> None:
        """Log which run is copied, and each difference that may change the result."""
        log.info("a copy of: %s", self.run_dir)
        notes = [] if self.info else ["it has no checkpoint, which records threads, precision and data"]
        before = {"seed": self.config.get("seed")}
        now: dict[str, Any] = {"seed": seed}
        if self.info:
            versions, changes = self._recorded("versions"), self.info.get("changes")
            before |= {"data": self.info.get("data"), **self._recorded("machine"), "gan_cli": versions.get("gan_cli")}
            now |= {"data": fingerprint, **machine, "gan_cli": __version__}
            notes = [f"it was changed {change}" for change in (changes if isinstance(changes, list) else [])]
        for note in [f"{key}: {before.get(key)} -> {value}" for key, value in now.items() if before.get(key) != value] + notes:
            log.info("note: not the same run: %s", short(note, 500))

    def compare(self, seed: int, run_dir: Path) -> None:
        """Log whether the weights are identical, by the newest checkpoint of a step that both runs have."""
        if seed != self.config.get("seed"):
            return
        common = set(checkpoint.steps(self.run_dir)) & set(checkpoint.steps(run_dir))
        if not common:
            log.info("not compared: there is no step of which both this run and %s have a checkpoint", self.run_dir)
            return
        step, groups = max(common), ("generator", "generator_ema")
        try:
            before, now = (
                checkpoint.load(path, step, lambda info: dict.fromkeys(groups)).hashes for path in (self.run_dir, run_dir)
            )
        except (CheckpointError, NotFoundError) as error:
            log.warning("warning: not compared: %s", error)
            return
        if all(before[f"{group}{checkpoint.SUFFIX}"] == now[f"{group}{checkpoint.SUFFIX}"] for group in groups):
            text = "reproduced: the weights of step %d are identical to those of %s"
            log.log(console.NOTICE, text, step, self.run_dir)
            return
        first = first_difference(self.run_dir, run_dir)
        since = "" if first is None else f"; the rows differ since step {first}"
        log.warning("warning: not reproduced: the weights of step %d differ from those of %s%s", step, self.run_dir, since)


class NoOriginal:
    """The original of a run that is no copy: nothing is refused, logged or compared."""

    def refuse_other_data(self, fingerprint: str, allowed: list[str]) -> None:
        """Refuse nothing."""

    def announce(self, seed: int, machine: dict[str, Any], fingerprint: str) -> None:
        """Log nothing."""

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
    except CheckpointError as error:
        if isinstance(error, NewerError) or not (run_dir / "config.yaml").is_file():
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
        return OmegaConf.to_container(OmegaConf.create(read_file(path).decode()), resolve=False)
    except FileNotFoundError as error:
        todo = "Give the directory gan-train printed"
        raise NotFoundError("this is no run: it has neither a checkpoint nor a config.yaml", str(run_dir), todo) from error
    except (OSError, ValueError, RecursionError, AssertionError, yaml.YAMLError, OmegaConfBaseException) as error:
        reason = short(str(error).splitlines()[0] if str(error) else type(error).__name__, 200)
        raise CheckpointError(f"the config cannot be read: {reason}", str(path), "Use another from_run=") from error


def first_difference(one: Path, other: Path) -> int | None:
    """The first step whose rows differ in the two runs; times do not count."""

    def rows(run_dir: Path) -> dict[int, dict[str, Any]]:
        return {row["step"]: {k: v for k, v in row.items() if not k.startswith("time/")} for row in read_rows(run_dir)}

    before, now = rows(one), rows(other)
    return next((step for step, row in now.items() if before.get(step, row) != row), None)


def _put(plain: dict[str, Any], key: str, value: Any) -> None:
    """Set a dotted key of nested data."""
    *parents, last = key.split(".")
    for parent in parents:
        plain = plain.setdefault(parent, {})
    plain[last] = value
