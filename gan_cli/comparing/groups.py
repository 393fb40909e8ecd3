"""Tables of groups: values over seeds, and tests against the best group.

Runs of different data are in different tables, values of different protocols in different columns.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from gan_cli.comparing import naming, statistics
from gan_cli.comparing.gather import finite, listed, plural
from gan_cli.comparing.grouping import by_data, group_runs, titles_of
from gan_cli.comparing.records import Column, Comparison, EvaluationRecord, Group, RunRecord, Summary
from gan_cli.comparing.scalars import LOGGED, TAIL, better, reached, tail
from gan_cli.config.metrics import VALUES, direction, is_better
from gan_cli.rundir import evaluations
from gan_cli.system.errors import ConfigError
from gan_cli.system.text import short

MIN_FID_IMAGES = 1000  # the FID of fewer images is mostly bias, see docs/evaluation.md
MAX_LOGGED_COLUMNS = 8
AT_MARK = "@"  # separates a metric and its protocol in a column name


@dataclass(frozen=True)
class Question:
    """Options of a comparison.

    Attributes:
        at: ``last``, ``best`` or a number of images: the evaluation of each run that counts.
        sort: name of a column, or "" for the first. protocol: id of the only protocol that counts, or "" to choose one.
        unfinished: also count runs that are not complete.
    """

    at: str = "last"
    sort: str = ""
    unfinished: bool = False
    protocol: str = ""


def compare(runs: Sequence[RunRecord], notes: Sequence[str], question: Question) -> list[Comparison]:
    """Return a comparison for each data set, the one with most runs first. ``notes`` are added to the first.

    Raises:
        ConfigError: the question names a column, protocol or number of images that no run has.
    """
    parts = by_data(runs)
    titles = titles_of(parts)
    found = [_Table(title, part, question).comparison() for title, part in zip(titles, parts, strict=True)]
    _refuse_unknown(found, question)
    if len(parts) > 1:
        sizes = ", ".join(f"{title} ({plural(len(part), 'run')})" for title, part in zip(titles, parts, strict=True))
        for comparison in found:
            comparison.notes.insert(0, f"each data set has its own table: {sizes}")
    found[0].notes.extend(notes)
    return found


def kept_apart(comparisons: Sequence[Comparison]) -> bool:
    """Return whether there are different data sets, or different protocols in one comparison."""
    return len(comparisons) > 1 or any(AT_MARK in column.name for one in comparisons for column in one.columns)


def _refuse_unknown(comparisons: Sequence[Comparison], question: Question) -> None:
    names = list(dict.fromkeys(column.name for one in comparisons for column in one.columns))
    runs = [run for one in comparisons for run in one.runs]
    if question.protocol and not names:
        ids = list(dict.fromkeys(e.protocol_id for run in runs for e in run.evaluations))
        todo = f"There are: {', '.join(ids) or 'none'}"
        if question.protocol in ids:
            todo = "Only incomplete runs were. Add --unfinished to count them"
        raise ConfigError(f"no run was evaluated by {short(question.protocol, 60)!r}", "--protocol", todo)
    if question.sort and not any(is_called(name, question.sort) for name in names):
        todo = f"There are: {', '.join(names) or 'none'}"
        raise ConfigError(f"there is no column {short(question.sort, 60)!r}", "--sort", todo)
    if question.at.isdecimal() and not any(group.summaries for one in comparisons for group in one.groups):
        images = sorted({e.images for run in runs for e in run.evaluations})
        shown = images if len(images) <= 12 else [*images[:6], "...", *images[-5:]]
        most = max(map(reached, runs))
        todo = f"There are evaluations at: {', '.join(map(str, shown)) or 'none'}; runs have up to {most} images"
        raise ConfigError(f"no run has a value at {question.at} images", "--at", todo)


def is_called(column: str, name: str) -> bool:
    """Return whether ``name`` is that of a column, with or without its protocol."""
    return name in (column, column.partition(AT_MARK)[0])


class _Table:
    """Builder of one comparison."""

    def __init__(self, title: str, runs: Sequence[RunRecord], question: Question) -> None:
        self.title, self.question = title, question
        self.notes: list[str] = []
        self.groups = group_runs(runs, self.notes)
        self.translates = not str(runs[0].config.get("model.task._target_", "")).startswith("gan_cli.tasks.noise.")

    def counted(self, group: Group) -> list[RunRecord]:
        """Return the runs of a group that count in means."""
        return [run for run in group.runs if self.question.unfinished or run.state == "complete"]

    @property
    def runs(self) -> list[RunRecord]:
        """All runs that count in means."""
        return [run for group in self.groups for run in self.counted(group)]

    def comparison(self) -> Comparison:
        """Return the finished table."""
        sort = self.question.sort
        protocols = self._protocols()
        columns = self._evaluated(protocols) if protocols else []
        if not columns and not self.question.protocol:
            columns = self._logged()
        elif columns and sort and not any(is_called(column.name, sort) for column in columns):
            columns += self._existing([sort])
        picked = self._picked(columns)
        for group in self.groups:
            for column in columns:
                measured = picked.get(column.protocol_id, {})
                values = {str(run.path): self._value(run, column, measured) for run in self.counted(group)}
                known = {path: value for path, value in values.items() if value is not None and finite(value)}
                if known:
                    numbers = list(known.values())
                    used = {path: measured[path] for path in known if path in measured}
                    group.summaries[column.name] = Summary(
                        known, statistics.mean(numbers), statistics.std(numbers), len(numbers), measured=used
                    )
        for column in columns:
            self._test(column)
        sort_by = self._sort_by(columns)
        ranked = [group for column in columns if column.name == sort_by for group in self._ranked(column)]
        self.groups = ranked + sorted((g for g in self.groups if g not in ranked), key=lambda group: group.name)
        self._note_states()
        self._note_images([e.images for by_path in picked.values() for e in by_path.values()])
        configs = [naming.comparable(group.runs[0].config) for group in self.groups]
        unnamed = naming.unnamed([group.settings for group in self.groups], configs)
        if unnamed:
            self.notes.append(f"the groups also differ in settings that their names do not show: {listed(unnamed)}")
        return Comparison(self.title, self.groups, columns, sort_by, self.question.at, naming.varied(configs), self.notes)

    # columns and values

    def _protocols(self) -> list[str]:
        """Return one protocol id if all evaluated groups share it, else all ids, for separate columns."""
        if self.question.protocol:
            known = any(e.protocol_id == self.question.protocol for run in self.runs for e in run.evaluations)
            return [self.question.protocol] if known else []
        ids = {run.path: {e.protocol_id for e in run.evaluations} for run in self.runs}
        per_group = [set().union(*(ids[run.path] for run in self.counted(group))) for group in self.groups]
        per_group = [found for found in per_group if found]
        if not per_group:
            return []
        facts = {e.protocol_id: e.protocol for run in self.runs for e in run.evaluations}
        total = Counter(pid for found in ids.values() for pid in found)
        order = sorted(total, key=lambda pid: (-total[pid], -_num_samples(facts[pid]), pid))
        shared = [pid for pid in order if all(pid in found for found in per_group)]
        if shared:
            for pid in order:
                if pid != shared[0]:
                    differs = _differences(facts[pid], facts[shared[0]])
                    self.notes.append(f"evaluations by protocol {pid} are not shown: {differs}")
            return shared[:1]
        self.notes.append(
            f"{len(order)} protocols, each with its own columns; their values are not comparable. "
            "For comparable values run gan-eval run_dir=DIR with the same settings on each run"
        )
        for pid in order[1:]:
            self.notes.append(f"protocol {pid} against {order[0]}: {_differences(facts[pid], facts[order[0]])}")
        for group in self.groups:
            group.runs = [_qualified(run) for run in group.runs]
        return order

    def _evaluated(self, protocols: Sequence[str]) -> list[Column]:
        columns = []
        for pid in protocols:
            present = {key for run in self.runs for e in run.evaluations if e.protocol_id == pid for key in e.metrics}
            for metric in VALUES:
                name = f"{metric}{AT_MARK}{pid}" if len(protocols) > 1 else metric
                if name in present:
                    way = direction(metric, self.translates)
                    columns.append(Column(name, way if way in ("lower", "higher") else "", pid))
        without = [run.path for run in self.runs if not run.evaluations]
        if without:
            self.notes.append(f"never evaluated: {listed(without)}. To evaluate: gan-eval run_dir=DIR")
        return columns

    def _logged(self) -> list[Column]:
        """Return columns of training scalars, for runs that were never evaluated."""
        keys = dict.fromkeys(key for run in self.runs for row in run.rows for key in row if key.startswith("metric/"))
        own = [key for key in keys if key.removeprefix("metric/").removesuffix("_std") not in VALUES]
        names = [*own, *LOGGED][:MAX_LOGGED_COLUMNS]
        if self.question.sort and self.question.sort not in names:
            names = [self.question.sort, *names]
        columns = self._existing(names)
        if self.runs:
            note = f"never evaluated: values are training scalars, the mean of the last {TAIL:.0%} of a run's rows"
            if not any(column.better for column in columns):
                note += ". They tell little about the images. To evaluate: gan-eval run_dir=DIR, or train with eval_every="
            self.notes.append(note)
        return columns

    def _existing(self, names: Sequence[str]) -> list[Column]:
        """Return columns for the training scalars that exist."""
        keys = {key for run in self.runs for row in run.rows for key in row} - {"step", "images", "epoch"}
        columns = [Column(name, better(name)) for name in names if name in keys]
        losses = {json.dumps({k: v for k, v in run.config.items() if k.startswith("loss.")}, default=str) for run in self.runs}
        if len(losses) > 1 and any("loss" in column.name or "wasserstein" in column.name for column in columns):
            self.notes.append("values of different loss functions, such as d/loss, are not comparable")
        return columns

    def _picked(self, columns: Sequence[Column]) -> dict[str, dict[str, EvaluationRecord]]:
        """Return the evaluation of each run that counts, by protocol and path."""
        deciding: dict[str, str] = {}  # column by which --at best chooses, of each protocol
        for column in columns:
            preferred = column.protocol_id not in deciding or is_called(column.name, self.question.sort)
            if column.protocol_id and column.better and preferred:
                deciding[column.protocol_id] = column.name
        if self.question.at == "best" and deciding:
            names = ", ".join(deciding.values())
            self.notes.append(f"each run counts at its best evaluation by {names}: the choice makes these values optimistic")
        picked: dict[str, dict[str, EvaluationRecord]] = {column.protocol_id: {} for column in columns if column.protocol_id}
        for pid, by_path in picked.items():
            for run in self.runs:
                found = [e for e in run.evaluations if e.protocol_id == pid]
                if self.question.at.isdecimal():
                    found = [e for e in found if e.images == int(self.question.at)]
                elif self.question.at == "best" and pid in deciding:
                    found = self._best(found, deciding[pid])
                if found:
                    by_path[str(run.path)] = found[-1]
        return picked

    def _best(self, found: Sequence[EvaluationRecord], name: str) -> list[EvaluationRecord]:
        """Return the evaluation with the best value of a column, if any has one."""
        best: EvaluationRecord | None = None
        for e in found:
            before = None if best is None else best.metrics[name]
            if name in e.metrics and is_better(name.partition(AT_MARK)[0], e.metrics[name], before, self.translates):
                best = e
        return [] if best is None else [best]

    def _value(self, run: RunRecord, column: Column, measured: Mapping[str, EvaluationRecord]) -> float | None:
        if column.protocol_id:
            evaluation = measured.get(str(run.path))
            return None if evaluation is None else evaluation.metrics.get(column.name)
        most = int(self.question.at) if self.question.at.isdecimal() else None
        return tail(run.rows, column.name, most) if most is None or reached(run) >= most else None

    # ranking

    def _ranked(self, column: Column) -> list[Group]:
        """Return the groups that have a value, best first."""
        sign = -1 if column.better == "higher" else 1
        having = [group for group in self.groups if column.name in group.summaries]
        return sorted(having, key=lambda group: sign * group.summaries[column.name].mean)

    def _test(self, column: Column) -> None:
        """Test every group against the best one."""
        summaries = [group.summaries for group in self._ranked(column)]
        if not column.better or len(summaries) < 2:
            return
        best, *others = [list(one[column.name].values.values()) for one in summaries]
        ps = [statistics.welch(values, best) for values in others]
        corrected = iter(statistics.holm([p for p in ps if p is not None]))
        for one, tested in zip(summaries[1:], ps, strict=True):
            p = None if tested is None else next(corrected)
            verdict = "worse" if p is not None and p < statistics.LEVEL else "unsupported"
            one[column.name] = replace(one[column.name], verdict=verdict, p=p)

    def _sort_by(self, columns: Sequence[Column]) -> str:
        """Return the column of --sort, else the first one with a direction; KID for FID of few images."""
        asked = [column.name for column in columns if self.question.sort and is_called(column.name, self.question.sort)]
        if asked:
            return self.question.sort if self.question.sort in asked else asked[0]
        first = next((column for column in columns if column.better), columns[0] if columns else None)
        if first is None or first.name.partition(AT_MARK)[0] != "fid":
            return first.name if first else ""
        facts = next(e.protocol for run in self.runs for e in run.evaluations if e.protocol_id == first.protocol_id)
        if _num_samples(facts) >= MIN_FID_IMAGES:
            return first.name
        kid = first.name.replace("fid", "kid", 1)
        has_kid = any(column.name == kid for column in columns)
        self.notes.append(f"FID of {_num_samples(facts)} images is mostly bias" + (": sorted by KID" if has_kid else ""))
        return kid if has_kid else first.name

    # notes

    def _note_states(self) -> None:
        how = "counted" if self.question.unfinished else "not counted (--unfinished counts them)"
        empty = [group for group in self.groups if all(run.state != "complete" for run in group.runs)]
        if len(empty) > 1:
            states = ", ".join(lost_states([run for group in empty for run in group.runs]))
            self.notes.append(f"{len(empty)} groups have no complete run: {states}, {how}")
        for group in self.groups:
            left = [run.path for run in group.runs if run.state != "complete"]
            if left and (group not in empty or len(empty) == 1):
                states = ", ".join(lost_states(group.runs))
                self.notes.append(f"{group.name}: {states} of {plural(len(group.runs), 'run')}, {how}: {listed(left)}")
        if not self.runs:
            self.notes.append("no run is complete: add --unfinished to count the others")
        if {len(self.counted(group)) for group in self.groups} == {1}:
            self.notes.append("one seed in each group: no difference is supported, since the spread over seeds is unknown")

    def _note_images(self, measured: Sequence[int]) -> None:
        """Note values at different numbers of images. ``measured``: of the evaluations that count."""
        if self.question.at.isdecimal():
            valued = {path for group in self.groups for summary in group.summaries.values() for path in summary.values}
            without = [run.path for run in self.runs if str(run.path) not in valued]
            if without:
                self.notes.append(f"no value at {int(self.question.at):,} images: {listed(without)}")
            return
        if not measured or self.question.at == "best":  # the best of a run is chosen among all of its images
            measured = [reached(run) for run in self.runs]
        if measured and min(measured) != max(measured):
            self.notes.append(
                f"unequal numbers of images: from {min(measured):,} to {max(measured):,}; use --at IMAGES for equal ones"
            )


def _qualified(run: RunRecord) -> RunRecord:
    """Return the run with the protocol in the name of every metric, so that protocols cannot be mixed."""

    def name(key: str, pid: str) -> str:
        metric = key.removesuffix("_std")
        return f"{metric}{AT_MARK}{pid}{key.removeprefix(metric)}"

    renamed = [{name(key, e.protocol_id): value for key, value in e.metrics.items()} for e in run.evaluations]
    return replace(run, evaluations=[replace(e, metrics=m) for e, m in zip(run.evaluations, renamed, strict=True)])


def lost_states(runs: Sequence[RunRecord]) -> list[str]:
    """Return ``["2 diverged", "1 pruned"]``: the states other than complete."""
    return [f"{n} {state}" for state, n in Counter(run.state for run in runs).items() if state != "complete"]


def _num_samples(protocol: Mapping[str, Any]) -> int:
    found = protocol.get("num_samples")
    return found if isinstance(found, int) else 0


def _differences(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> str:
    changed = evaluations.changes(theirs, ours)
    shown = [f"{key} is {short(a)} instead of {short(b)}" for key, (a, b) in changed.items()]
    return "; ".join(shown[:4]) or "another version of the rule"
