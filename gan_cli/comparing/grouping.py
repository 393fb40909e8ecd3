"""Groups of runs: first by data set, then by config without the seed."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from gan_cli.comparing import naming
from gan_cli.comparing.gather import listed
from gan_cli.comparing.records import Group, RunRecord
from gan_cli.config.training import MAY_CHANGE
from gan_cli.system.text import short


def data_key(run: RunRecord) -> tuple[str, str]:
    """Return two JSON texts of a config: the data set and kind of task, and the path of the data."""
    node = {k: v for k, v in run.config.items() if k.startswith("dataset.")}
    fixed = {k: v for k, v in node.items() if k not in MAY_CHANGE and v is not None}
    kind = str(run.config.get("model.task._target_", "")).rpartition(".")[0]
    place = {k: node.get(k) for k in ("dataset.root", "dataset.path")}
    return json.dumps([kind, fixed], sort_keys=True, default=str), json.dumps(place, sort_keys=True, default=str)


def by_data(runs: Sequence[RunRecord]) -> list[list[RunRecord]]:
    """Return lists of runs with the same data and kind of task, the longest first.

    Data is the same if its fingerprint is, or, where no run at the same path has a fingerprint, its path.
    """
    prints: dict[tuple[str, str], str] = {}
    for run in runs:
        if run.data:
            prints.setdefault(data_key(run), run.data)
    parts: dict[tuple[str, str], list[RunRecord]] = defaultdict(list)
    for run in runs:
        key = data_key(run)
        parts[key[0], run.data or prints.get(key) or key[1]].append(run)
    return sorted(parts.values(), key=lambda part: -len(part))


def titles_of(parts: Sequence[Sequence[RunRecord]]) -> list[str]:
    """Return a title for each data set: its name, and settings that distinguish it from others of that name."""
    names = [str(part[0].config.get("dataset._target_", "data")).rsplit(".", 1)[-1] for part in parts]
    configs = [
        {k: v for k, v in part[0].config.items() if k.startswith("dataset.") or k == "model.task._target_"} for part in parts
    ]
    titles = []
    for name, part, config in zip(names, parts, configs, strict=True):
        alike = [other for other, its in zip(configs, names, strict=True) if its == name]
        keys = [k for k in naming.varied(alike) if k != "dataset.download"]
        said = ", ".join(f"{k.removeprefix('dataset.')}={naming.text(config.get(k))}" for k in keys[:3])
        title = short(f"{name} ({said})" if said else name, 120)
        titles.append(f"{title} ({part[0].data[:8] or 'unknown content'})" if len(alike) > 1 and not said else title)
    return titles


def as_made(runs: Sequence[RunRecord]) -> list[RunRecord]:
    """Return the runs with the precision in use and the changes made during training as part of their configs.

    A run without a recorded precision gets the one that all others with the same ``precision`` setting used.
    """
    chosen: dict[Any, set[str]] = defaultdict(set)
    for run in runs:
        if run.precision:
            chosen[str(run.config.get("precision"))].add(run.precision)
    found = []
    for run in runs:
        known = {run.precision} if run.precision else chosen[str(run.config.get("precision"))]
        made: dict[str, Any] = {"precision": next(iter(known))} if len(known) == 1 else {}
        made |= {naming.CHANGED: "; ".join(run.changes)} if run.changes else {}
        found.append(replace(run, config=run.config | made))
    return found


def group_runs(runs: Sequence[RunRecord], notes: list[str]) -> list[Group]:
    """Return groups of runs that differ in their seed only. Add notes about runs that are left out."""
    together: dict[str, list[RunRecord]] = defaultdict(list)
    for run in as_made(runs):
        together[json.dumps(naming.comparable(run.config), sort_keys=True, default=str)].append(run)
    changed = [run.path for run in runs if run.changes]
    if changed:
        notes.append(f"settings were changed during training, so these are separate groups: {listed(changed)}")
    members = [_one_of_each_seed(_without_chosen(group, notes), notes) for group in together.values()]
    return [
        Group(", ".join(f"{key}={value}" for key, value in settings.items()) or "all runs", settings, group)
        for group, settings in zip(members, naming.settings(members), strict=True)
    ]


def _without_chosen(runs: Sequence[RunRecord], notes: list[str]) -> Sequence[RunRecord]:
    """Leave out the best trial of a search where other seeds confirm it: its value is biased by the selection."""
    confirming = {run.path.parent for run in runs if not run.chosen}
    biased = [run for run in runs if run.chosen and run.path.parent in confirming]
    if biased:
        notes.append(f"best trial of a search, not counted with the seeds that confirm it: {listed([r.path for r in biased])}")
    return [run for run in runs if run not in biased]


def _one_of_each_seed(runs: Sequence[RunRecord], notes: list[str]) -> list[RunRecord]:
    by_seed: dict[int, list[RunRecord]] = defaultdict(list)
    for run in runs:
        by_seed[run.seed].append(run)
    kept = []
    for seed, same in by_seed.items():
        best = max(same, key=lambda run: (run.state == "complete", run.step, len(run.evaluations)))
        kept.append(best)
        others = [run.path for run in same if run is not best]
        if others:
            notes.append(f"seed {seed} counts once: {best.path} counts, not {listed(others)} with the same config")
    return sorted(kept, key=lambda run: (run.seed, str(run.path)))
