"""Runs of one data set together, and in it the runs that differ by their seed only."""

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
    """Return the data and kind of task of a run, as far as its config says, and where the data lies."""
    node = {k: v for k, v in run.config.items() if k.startswith("dataset.")}
    fixed = {k: v for k, v in node.items() if k not in MAY_CHANGE and v is not None}
    kind = str(run.config.get("model.task._target_", "")).rpartition(".")[0]
    place = {k: node.get(k) for k in ("dataset.root", "dataset.path")}
    return json.dumps([kind, fixed], sort_keys=True, default=str), json.dumps(place, sort_keys=True, default=str)


def by_data(runs: Sequence[RunRecord]) -> list[list[RunRecord]]:
    """Return the runs of the same data and kind of task together. A fingerprint, where there is one, decides over the place."""
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
    """Return the name of each data set, with what sets it apart from another one of the same name."""
    names = [str(part[0].config.get("dataset._target_", "data")).rsplit(".", 1)[-1] for part in parts]
    configs = [
        {k: v for k, v in part[0].config.items() if k.startswith("dataset.") or k == "model.task._target_"} for part in parts
    ]
    titles = []
    for name, part, config in zip(names, parts, configs, strict=True):
        alike = [other for other, its in zip(configs, names, strict=True) if its == name]
        keys = [k for k in naming.varied(alike) if k != "dataset.download"] if len(alike) > 1 else []
        said = ", ".join(f"{k.removeprefix('dataset.')}={naming.text(config.get(k))}" for k in keys[:3])
        titles.append(short(f"{name} ({said})" if said else name, 120))
        if len(alike) > 1 and not said:
            titles[-1] += f" ({part[0].data[:8] or 'unknown content'})"
    return titles


def as_made(runs: Sequence[RunRecord]) -> list[RunRecord]:
    """Return the runs with the precision that the machine chose in their config, and with what changed while they were trained.

    A run without a recorded precision gets that of all others that asked for the same.
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
    """Return the runs in groups that differ by more than the seed, and add to the notes what was left out or is special."""
    together: dict[str, list[RunRecord]] = defaultdict(list)
    for run in as_made(runs):
        together[json.dumps(naming.comparable(run.config), sort_keys=True, default=str)].append(run)
    changed = [run.path for run in runs if run.changes]
    if changed:
        notes.append(f"changed while trained, so in groups of their own: {listed(changed)}")
    members = [_one_of_each_seed(_without_chosen(group, notes), notes) for group in together.values()]
    found = []
    for group, settings in zip(members, naming.settings(members), strict=True):
        name = ", ".join(f"{key}={value}" for key, value in settings.items())
        found.append(Group(name or "all runs", settings, group))
    return found


def _without_chosen(runs: Sequence[RunRecord], notes: list[str]) -> Sequence[RunRecord]:
    """Leave out the best trial of a search where other seeds confirm it, since it was chosen for its value."""
    confirming = {run.path.parent for run in runs if not run.chosen}
    lucky = [run for run in runs if run.chosen and run.path.parent in confirming]
    if lucky:
        notes.append(
            f"chosen for its value by the search, so it does not count beside the seeds that confirm it: "
            f"{listed([run.path for run in lucky])}"
        )
    return [run for run in runs if run not in lucky]


def _one_of_each_seed(runs: Sequence[RunRecord], notes: list[str]) -> list[RunRecord]:
    by_seed: dict[Any, list[RunRecord]] = defaultdict(list)
    for run in runs:
        by_seed[run.config.get("seed", 0)].append(run)
    kept = []
    for seed, same in by_seed.items():
        best = max(same, key=lambda run: (run.state == "complete", run.step, len(run.evaluations)))
        kept.append(best)
        others = [run.path for run in same if run is not best]
        if others:
            notes.append(f"seed {seed} counts once: {best.path} is taken, not {listed(others)}, which is of the same config")
    return sorted(kept, key=lambda run: (str(type(run.config.get("seed", 0))), run.config.get("seed", 0), str(run.path)))
