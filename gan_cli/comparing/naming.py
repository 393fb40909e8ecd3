"""Names of groups, made of the settings that differ between them."""

from __future__ import annotations

import json
import re
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from gan_cli.comparing.records import RunRecord
from gan_cli.config.groups import GROUPS
from gan_cli.config.plain import is_among
from gan_cli.config.training import MAY_CHANGE
from gan_cli.system.text import short, snake_case

# Settings that do not separate groups: without effect on results, averaged over, or, like the data, compared elsewhere.
# A different total_steps does separate them.
SAME = (MAY_CHANGE - {"total_steps"}) | {"seed", "dataset", "from_run", "trust", "hydra"}
MAX_NODE_KEYS = 2  # differing keys of a config group that are named one by one instead of by its class
MAX_SETTINGS = 4  # settings in a name made from the configs
MISSING = "(not there)"
CHANGED = "changed"  # key for changes made during training

Config = Mapping[str, Any]
Labels = list[dict[str, str]]  # settings in the name of each group


def comparable(config: Config) -> dict[str, Any]:
    """Return a flattened config without :data:`SAME` and null, since older configs lack keys that are null today."""
    return {key: value for key, value in config.items() if value is not None and not is_among(key, SAME)}


def text(value: Any) -> str:
    """Return the text of a value of a config."""
    if isinstance(value, str):
        return short(value, 60)
    if isinstance(value, float):
        return f"{value:g}" if float(f"{value:g}") == value else repr(value)
    return short(json.dumps(value, default=str, separators=(",", ":")), 60)


def overrides(run: RunRecord) -> dict[str, str]:
    """Return the overrides of a run's command, else of the name of its directory, without :data:`SAME`."""
    try:
        words = shlex.split(run.command)
    except ValueError:
        words = []
    pairs = [m.groups() for m in (re.fullmatch(r"\+{0,2}([A-Za-z_][\w.@/]*)=(.*)", word, re.DOTALL) for word in words) if m]
    if not pairs and not re.search(r"-[0-9a-f]{12}$", run.path.name):  # a name with a hash was cut off
        pairs = re.findall(r"(?:^|,)([A-Za-z_][\w.@]*)=(.*?)(?=,[A-Za-z_][\w.@]*=|$)", run.path.name)
    return {key: short(value, 60) for key, value in pairs if not is_among(key, SAME)}


def settings(groups: Sequence[Sequence[RunRecord]]) -> Labels:
    """Return the settings that distinguish each group, ``{"loss": "hinge"}``: as typed, else from the configs."""
    if len(groups) < 2:
        return [{} for _ in groups]
    configs = [comparable(runs[0].config) for runs in groups]
    labels = _typed(groups, configs)
    if len(labels[0]) <= MAX_SETTINGS and _distinct(labels):
        return labels
    labels = _of_configs(configs)
    if not _distinct(labels):
        count: Counter[str] = Counter()
        for label in labels:
            key = json.dumps(label)
            count[key] += 1
            if count[key] > 1:
                label["variant"] = str(count[key])
    return labels


def varied(configs: Sequence[Config]) -> list[str]:
    """Return the keys whose values differ, in the order of the configs."""
    keys = dict.fromkeys(key for config in configs for key in config)
    return [key for key in keys if any(_value(config, key) != _value(configs[0], key) for config in configs[1:])]


def unnamed(labels: Sequence[Mapping[str, str]], configs: Sequence[Config]) -> list[str]:
    """Return differing settings that no label covers, as ``batch_size (8, 64)``. A label of a node covers its keys."""
    named = {key.replace("/", ".") for label in labels for key in label}
    found = []
    for key in _once(varied(configs), configs):
        if not is_among(key, named):
            values = list(dict.fromkeys(text(_value(config, key)) for config in configs))
            found.append(f"{key} ({', '.join([*values[:2], *(['...'] if len(values) > 2 else [])])})")
    return found


def _value(config: Config, key: str) -> Any:
    return config.get(key, MISSING)


def _distinct(labels: Labels) -> bool:
    return len({json.dumps(label, sort_keys=True) for label in labels}) == len(labels)


def _add(labels: Labels, key: str, values: Sequence[str]) -> None:
    for label, value in zip(labels, values, strict=True):
        label[key] = value


def _typed(groups: Sequence[Sequence[RunRecord]], configs: Sequence[Config]) -> Labels:
    """Return labels from overrides."""
    known: list[dict[str, str]] = []
    for runs in groups:
        merged: dict[str, str] = {}
        for run in runs:
            merged = overrides(run) | merged
        known.append(merged)
    labels: Labels = [{} for _ in groups]
    for key in dict.fromkeys(key for each in known for key in each):
        values = _as_typed(key, known, configs)
        if len(set(values)) > 1:
            _add(labels, key, values)
    if any(CHANGED in config for config in configs):
        _add(labels, CHANGED, [text(config.get(CHANGED, "no")) for config in configs])
    return labels


def _as_typed(key: str, known: Sequence[Mapping[str, str]], configs: Sequence[Config]) -> list[str]:
    """Return a text for each group's value of an override's key. Equal values of the configs get equal texts."""
    name = key.replace("/", ".")
    if any(name in config for config in configs):
        return [text(config.get(name)) for config in configs]
    nodes = [{k: v for k, v in config.items() if is_among(k, {name})} for config in configs]
    if not any(nodes):
        if any(inside.startswith(f"{name.split('.')[0]}.") for config in configs for inside in config):
            return ["null" for _ in configs]  # the parent exists, so this key is null in all configs
        return [each.get(key, "?") for each in known]
    insides = [json.dumps(node, sort_keys=True, default=str) for node in nodes]
    words: dict[str, str] = {}
    for inside, each, config in zip(insides, known, configs, strict=True):
        if key in each or inside not in words:
            words[inside] = each.get(key) or (node_label(config, key) if key in GROUPS else "?")
    return [words[inside] for inside in insides]


def _of_configs(configs: Sequence[Config]) -> Labels:
    """Return labels from the differences of the configs. A node with many differences is named by its class."""
    differing = varied(configs)
    labels: Labels = [{} for _ in configs]
    plain = [key for key in differing if key.split(".")[0] not in GROUPS]
    for node in GROUPS:
        inside = [key for key in differing if key.split(".")[0] == node]
        named = [node_label(config, node) for config in configs]
        if (len(inside) > MAX_NODE_KEYS or any(key.endswith("_target_") for key in inside)) and len(set(named)) > 1:
            _add(labels, node, named)
        else:
            plain += [key for key in inside if len(inside) <= MAX_NODE_KEYS or not key.endswith("_target_")]
    for key in _once(plain, configs):
        if len(labels[0]) >= MAX_SETTINGS and _distinct(labels):
            break
        _add(labels, key, [text(_value(config, key)) for config in configs])
    for key in _once(differing, configs):  # keys inside the nodes, until the labels are distinct
        if _distinct(labels) or len(labels[0]) >= 2 * MAX_SETTINGS:
            break
        if not key.endswith("_target_"):
            _add(labels, key, [text(_value(config, key)) for config in configs])
    return labels


def _once(keys: Sequence[str], configs: Sequence[Config]) -> list[str]:
    """Return the keys without those that repeat another one, as ``schedule.total_steps`` does."""
    kept: dict[str, str] = {}
    for key in sorted(keys, key=lambda key: key.count(".")):
        values = [_value(config, key) for config in configs]
        same = json.dumps([key.rpartition(".")[2], values], default=str)
        kept.setdefault(key if any(isinstance(value, list) for value in values) else same, key)
    return [key for key in keys if key in kept.values()]


def node_label(config: Config, node: str) -> str:
    """Return the classes of a config group in the words of its options: ``wasserstein+gradient_penalty``."""
    if node == "model":
        target = str(config.get("model.generator._target_", "")).split(".")
        return short(target[-2] if len(target) > 1 and target[-1] == "Generator" else snake_case(target[-1]), 40) or "?"
    if not any(is_among(key, {node}) for key in config):
        return "none"
    targets = [str(v).rsplit(".", 1)[-1] for k, v in config.items() if k.startswith(f"{node}.") and k.endswith("_target_")]
    names = [snake_case(name) for name in targets if name != "Objective"]
    return short("+".join(names), 60) or "?"
