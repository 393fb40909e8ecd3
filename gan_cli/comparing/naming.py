"""Short names for groups of runs: what differs between them, as a person would say it."""

from __future__ import annotations

import json
import re
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from gan_cli.comparing.records import Run
from gan_cli.config.groups import GROUPS
from gan_cli.config.plain import is_among
from gan_cli.config.training import MAY_CHANGE
from gan_cli.system.text import short

# What makes no other result, what the means are over, and the data, which is compared by its content elsewhere. Runs of
# another length are another group.
SAME = (MAY_CHANGE - {"total_steps"}) | {"seed", "dataset", "from_run", "trust", "hydra"}
FEW = 2  # keys of a node that are named one by one
MOST = 4  # settings in a name made from the config
MISSING = "(not there)"
CHANGED = "changed"  # key of what was changed while a run was trained


def comparable(config: Mapping[str, Any]) -> dict[str, Any]:
    """A flattened config without what changes no result, and without null, which is what a key was before there was one."""
    return {key: value for key, value in config.items() if value is not None and not is_among(key, SAME)}


def text(value: Any) -> str:
    """A value of a config in a name."""
    if isinstance(value, str):
        return short(value, 60)
    if isinstance(value, float):
        return f"{value:g}" if float(f"{value:g}") == value else repr(value)
    return short(json.dumps(value, default=str, separators=(",", ":")), 60)


def overrides(run: Run) -> dict[str, str]:
    """What the command of a run set, or the name of its directory says, without what changes no result."""
    try:
        words = shlex.split(run.command)
    except ValueError:
        words = []
    pairs = [m.groups() for m in (re.fullmatch(r"\+{0,2}([A-Za-z_][\w.@/]*)=(.*)", word, re.DOTALL) for word in words) if m]
    if not pairs and not re.search(r"-[0-9a-f]{12}$", run.path.name):  # a name that was too long is cut off
        pairs = re.findall(r"(?:^|,)([A-Za-z_][\w.@]*)=(.*?)(?=,[A-Za-z_][\w.@]*=|$)", run.path.name)
    return {key: short(value, 60) for key, value in pairs if not is_among(key, SAME)}


def settings(groups: Sequence[Sequence[Run]]) -> list[dict[str, str]]:
    """For each group what sets it apart from the others, ``{"loss": "hinge"}``: as it was typed, else from the configs."""
    if len(groups) < 2:
        return [{} for _ in groups]
    configs = [comparable(runs[0].config) for runs in groups]
    for found in (_typed(groups, configs), _of_configs(configs)):
        if found is not None and _apart(found):
            return found
    labels = _of_configs(configs)
    count: Counter[str] = Counter()
    for label in labels:  # cannot be told apart in few words
        key = json.dumps(label)
        count[key] += 1
        if count[key] > 1:
            label["variant"] = str(count[key])
    return labels


def varied(configs: Sequence[Mapping[str, Any]]) -> list[str]:
    """The keys that differ, in the order of the configs."""
    keys = dict.fromkeys(key for config in configs for key in config)
    return [key for key in keys if any(_value(config, key) != _value(configs[0], key) for config in configs[1:])]


def unnamed(labels: Sequence[Mapping[str, str]], configs: Sequence[Mapping[str, Any]]) -> list[str]:
    """What differs and is in no label: ``batch_size (8, 64)``. A key in a group of the config that is named is."""
    named = {key.replace("/", ".") for label in labels for key in label}
    found = []
    for key in _once(varied(configs), configs):
        if not is_among(key, named):
            values = list(dict.fromkeys(text(_value(config, key)) for config in configs))
            found.append(f"{key} ({', '.join(values[:FEW])}{', ...' if len(values) > FEW else ''})")
    return found


def _value(config: Mapping[str, Any], key: str) -> Any:
    return config.get(key, MISSING)


def _apart(labels: Sequence[dict[str, str]]) -> bool:
    return len({json.dumps(label, sort_keys=True) for label in labels}) == len(labels)


def _typed(groups: Sequence[Sequence[Run]], configs: Sequence[Mapping[str, Any]]) -> list[dict[str, str]] | None:
    """By overrides, where some are known."""
    known: list[dict[str, str]] = []
    for runs in groups:
        merged: dict[str, str] = {}
        for run in runs:
            merged = overrides(run) | merged
        known.append(merged)
    keys = dict.fromkeys(key for each in known for key in each)
    labels: list[dict[str, str]] = [{} for _ in groups]
    for key in keys:
        values = _said(key, known, configs)
        if len(set(values)) > 1:
            for label, value in zip(labels, values, strict=True):
                label[key] = value
    if any(CHANGED in config for config in configs):
        for label, config in zip(labels, configs, strict=True):
            label[CHANGED] = text(config.get(CHANGED, "no"))
    return labels if len(labels[0]) <= MOST else None


def _said(key: str, known: Sequence[Mapping[str, str]], configs: Sequence[Mapping[str, Any]]) -> list[str]:
    """A word for what each group has for a key that was typed: the same one for the same values."""
    name = key.replace("/", ".")
    if any(name in config for config in configs):
        return [text(config.get(name)) for config in configs]
    if not any(is_among(inside, {name}) for config in configs for inside in config):
        if any(inside.startswith(f"{name.split('.')[0]}.") for config in configs for inside in config):
            return ["null" for _ in configs]  # in all of them
        return [each.get(key, "?") for each in known]
    words: dict[str, str] = {}
    insides = [json.dumps({k: v for k, v in c.items() if is_among(k, {name})}, sort_keys=True, default=str) for c in configs]
    for inside, each, config in zip(insides, known, configs, strict=True):
        if key in each or inside not in words:
            words[inside] = each.get(key) or (node_label(config, key) if key in GROUPS else "?")
    return [words[inside] for inside in insides]


def _of_configs(configs: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """By what differs in the configs; many keys of one node are its class."""
    differing = varied(configs)
    labels: list[dict[str, str]] = [{} for _ in configs]
    plain = [key for key in differing if key.split(".")[0] not in GROUPS]
    for node in GROUPS:
        inside = [key for key in differing if key.split(".")[0] == node]
        if len(inside) <= FEW and not any(key.endswith("_target_") for key in inside):
            plain += inside
            continue
        for label, config in zip(labels, configs, strict=True):
            label[node] = node_label(config, node)
        if len({label[node] for label in labels}) == 1:
            for label in labels:
                del label[node]
            plain += [key for key in inside if not key.endswith("_target_")]
    for key in _once(plain, configs):
        if len(labels[0]) >= MOST and _apart(labels):
            break
        for label, config in zip(labels, configs, strict=True):
            label[key] = text(_value(config, key))
    rest = [k for k in _once(differing, configs) if not k.endswith("_target_") and not any(k in label for label in labels)]
    while rest and not _apart(labels) and len(labels[0]) < 2 * MOST:
        key = rest.pop(0)
        for label, config in zip(labels, configs, strict=True):
            label[key] = text(_value(config, key))
    return labels


def _once(keys: Sequence[str], configs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Without what only repeats another key, as ``schedule.total_steps`` does."""
    kept: dict[str, str] = {}
    for key in sorted(keys, key=lambda key: key.count(".")):
        values = [_value(config, key) for config in configs]
        same = json.dumps([key.rpartition(".")[2], values], default=str)
        kept.setdefault(key if any(isinstance(value, list) for value in values) else same, key)
    return [key for key in keys if key in kept.values()]


def node_label(config: Mapping[str, Any], node: str) -> str:
    """``wasserstein+gradient_penalty``: the classes of a node of the config in the words of the options."""
    if node == "model":
        target = str(config.get("model.generator._target_", "")).split(".")
        return short(target[-2] if len(target) > 1 and target[-1] == "Generator" else _snake(target[-1]), 40) or "?"
    if not any(is_among(key, {node}) for key in config):
        return "none"
    targets = [str(v).rsplit(".", 1)[-1] for k, v in config.items() if k.startswith(f"{node}.") and k.endswith("_target_")]
    names = [_snake(name) for name in targets if name != "Objective"]
    return short("+".join(names), 60) or "?"


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
