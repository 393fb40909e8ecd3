"""A table of groups: the values of each over its seeds, and the test against the best.

Runs of different data are in different tables, values of different protocols in different columns.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from gan_cli.comparing import naming, statistics
from gan_cli.comparing.gather import finite, listed
from gan_cli.comparing.grouping import by_data, group_runs, titles_of
from gan_cli.comparing.records import Column, Comparison, EvaluationRecord, Group, RunRecord, Summary
from gan_cli.comparing.scalars import LOGGED, TAIL, better, reached, tail
from gan_cli.config.metrics import VALUES, direction, is_better
from gan_cli.rundir import evaluations
from gan_cli.system.errors import ConfigError
from gan_cli.system.text import short

MIN_FID_IMAGES = 1000  # the FID of fewer images is mostly bias, see docs/evaluation.md
MAX_COLUMNS = 8
AT_MARK = "@"  # between a metric and its protocol where a comparison has several


@dataclass(frozen=True)
class Question:
    """What is asked of the runs.

    Attributes:
        at: ``last``, ``best`` or a number of images: which evaluation of each run counts.
        sort: a column, or "" for the first one. protocol: the only one whose evaluations count, or "" to choose.
        unfinished: also count runs that are not complete.
    """

    at: str = "last"
    sort: str = ""
    unfinished: bool = False
    protocol: str = ""


def compare(runs: Sequence[RunRecord], notes: Sequence[str] = (), question: Question | None = None) -> list[Comparison]:
    """A comparison for each data set, the largest first. ``notes``: on all of them, said with the first.

    Raises:
        ConfigError: no comparison has the column to sort by, or no run was evaluated at these images.
    """
    question = question or Question()
    parts = by_data(runs)
    titles = titles_of(parts)
    found = [_Table(title, part, question).comparison() for title, part in zip(titles, parts, strict=True)]
    _refuse_unknown(found, question)
    if len(parts) > 1:
        sizes = ", ".join(f"{title} ({plural(len(part), 'run')})" for title, part in zip(titles, parts, strict=True))
        for comparison in found:
            comparison.notes.insert(0, f"runs of different data are never in one table: {sizes}")
    found[0].notes.extend(notes)
    return found


def kept_apart(comparisons: Sequence[Comparison]) -> bool:
    """Return whether there are different data sets, or different protocols in one comparison."""
    return len(comparisons) > 1 or any(AT_MARK in column.name for one in comparisons for column in one.columns)


def plural(n: int, what: str) -> str:
    """Return ``1 run``, ``2 runs``."""
    return f"{n} {what}{'' if n == 1 else 's'}"


def _refuse_unknown(comparisons: Sequence[Comparison], question: Question) -> None:
    columns = [column for one in comparisons for column in one.columns]
    known = dict.fromkeys(column.name for column in columns)
    if question.protocol and not columns:
        there = dict.fromkeys(e.protocol_id for one in comparisons for run in one.runs for e in run.evaluations)
        todo = f"There are: {', '.join(there) or 'none'}"
        if question.protocol in there:
            what = f"no complete run was evaluated by {short(question.protocol, 60)!r}"
            raise ConfigError(what, "--protocol", "Add --unfinished to count the others as far as they are")
        raise ConfigError(f"no run was evaluated by {short(question.protocol, 60)!r}", "--protocol", todo)
    if question.sort and not any(is_called(name, question.sort) for name in known):
        todo = f"There are: {', '.join(known) or 'none'}"
        raise ConfigError(f"there is no column {short(question.sort, 60)!r}", "--sort", todo)
    if question.at.isdecimal() and not any(group.summaries for one in comparisons for group in one.groups):
        images = sorted({e.images for one in comparisons for run in one.runs for e in run.evaluations})
        shown = images if len(images) <= 12 else [*images[:6], "...", *images[-5:]]
        most = max(reached(run) for one in comparisons for run in one.runs)
        todo = f"There are evaluations at: {', '.join(map(str, shown)) or 'none'}; runs are of up to {most} images"
        raise ConfigError(f"no run has a value at {question.at} images", "--at", todo)


def is_called(column: str, name: str) -> bool:
    """Return whether a name means a column: its own, or that without the protocol."""
    return name in (column, column.partition(AT_MARK)[0])


class _Table:
    """Builder of one comparison."""

    def __init__(self, title: str, runs: Sequence[RunRecord], question: Question) -> None:
        self.title, self.question = title, question
        self.notes: list[str] = []
        self.groups = group_runs(runs, self.notes)
        counting = [run for group in self.groups for run in group.runs if question.unfinished or run.state == "complete"]
        self.counted = {run.path for run in counting}
        self.translates = not str(runs[0].config.get("model.task._target_", "")).startswith("gan_cli.tasks.noise.")

    def counting(self, group: Group) -> list[RunRecord]:
        """The runs of a group that go into means."""
        return [run for run in group.runs if run.path in self.counted]

    def comparison(self) -> Comparison:
        """The finished table."""
        question = self.question
        protocols = self._protocols()
        columns = self._evaluated(protocols) if protocols else []
        extra = columns and question.sort and not any(is_called(column.name, question.sort) for column in columns)
        if (not columns and not question.protocol) or extra:
            columns = columns + self._logged([question.sort] if extra else None)
        picked_by = self._picked_by(columns)
        for group in self.groups:
            for column in columns:
                measured = self._measured(group, column, picked_by)
                values = self._values(group, column, measured)
                if values:
                    numbers = list(values.values())
                    mean, std = statistics.mean(numbers), statistics.std(numbers)
                    measured = {path: e for path, e in measured.items() if path in values}
                    group.summaries[column.name] = Summary(values, mean, std, len(numbers), measured=measured)
        for column in columns:
            self._test(column)
        sort_by = self._sort_by(columns)
        self._order(next((column for column in columns if column.name == sort_by), None))
        self._note_states()
        self._note_images(columns, picked_by)
        configs = [naming.comparable(group.runs[0].config) for group in self.groups]
        unnamed = naming.unnamed([group.settings for group in self.groups], configs)
        if unnamed:
            self.notes.append(f"the groups differ by more than their names say: {listed(unnamed)}")
        return Comparison(self.title, self.groups, columns, sort_by, question.at, naming.varied(configs), self.notes)

    # which values

    def _protocols(self) -> list[str]:
        """The ids of the columns: one, if all groups that were evaluated share one; else all, which are then kept apart."""
        per_group = [
            Counter(pid for run in self.counting(group) for pid in {e.protocol_id for e in run.evaluations})
            for group in self.groups
        ]
        per_group = [found for found in per_group if found]
        if self.question.protocol:
            return [self.question.protocol] if any(self.question.protocol in found for found in per_group) else []
        if not per_group:
            return []
        total: Counter[str] = sum(per_group, Counter())
        facts = {e.protocol_id: e.protocol for group in self.groups for run in self.counting(group) for e in run.evaluations}
        order = sorted(total, key=lambda pid: (-total[pid], -_number(facts[pid].get("num_samples")), pid))
        shared = [pid for pid in order if all(pid in found for found in per_group)]
        if shared:
            chosen, rest = shared[0], [pid for pid in order if pid != shared[0]]
            for pid in rest:
                differs = _differences(facts[pid], facts[chosen])
                self.notes.append(f"evaluations by protocol {pid} are not shown: {differs}")
            return [chosen]
        self.notes.append(
            f"the groups were measured by {len(order)} protocols: values of different ones are in columns of their own and "
            "must not be compared. Measure all in one way: gan-eval run_dir=DIR, with the same settings for each"
        )
        for pid in order[1:]:
            self.notes.append(f"protocol {pid}, beside {order[0]}: {_differences(facts[pid], facts[order[0]])}")
        for group in self.groups:
            group.runs = [self._qualified(run) for run in group.runs]
        return order

    def _qualified(self, run: RunRecord) -> RunRecord:
        """With the protocol in the name of every value, so that nothing can mix them."""

        def name(key: str, pid: str) -> str:
            spread = key.endswith("_std")
            return f"{key.removesuffix('_std')}{AT_MARK}{pid}{'_std' if spread else ''}"

        evaluations = [
            replace(e, metrics={name(key, e.protocol_id): value for key, value in e.metrics.items()}) for e in run.evaluations
        ]
        return replace(run, evaluations=evaluations)

    def _evaluated(self, protocols: Sequence[str]) -> list[Column]:
        columns = []
        for pid in protocols:
            there = {
                key
                for group in self.groups
                for run in self.counting(group)
                for e in run.evaluations
                if e.protocol_id == pid
                for key in e.metrics
            }
            for value in VALUES:
                name = f"{value}{AT_MARK}{pid}" if len(protocols) > 1 else value
                if name in there:
                    way = direction(value, self.translates)
                    columns.append(Column(name, way if way in ("lower", "higher") else "", pid))
        without = [run.path for group in self.groups for run in self.counting(group) if not run.evaluations]
        if without:
            self.notes.append(f"never evaluated: {listed(without)}. To evaluate: gan-eval run_dir=DIR")
        return columns

    def _logged(self, names: Sequence[str] | None) -> list[Column]:
        """Columns from training rows: those named, or what was never evaluated is shown by."""
        runs = [run for group in self.groups for run in self.counting(group)]
        there = dict.fromkeys(key for run in runs for row in run.rows for key in row)
        if names is None:
            own = [
                key
                for key in there
                if key.startswith("metric/") and key.removeprefix("metric/").removesuffix("_std") not in VALUES
            ]
            names = [*own, *LOGGED][:MAX_COLUMNS]
            if self.question.sort and self.question.sort not in names:
                names = [self.question.sort, *names]
            if runs:
                share = f"the mean of the last {TAIL:.0%} of a run's rows"
                said = f"never evaluated: the values are training scalars, {share}"
                if not any(better(name) for name in names if name in there):
                    said += (
                        ", and say little about the images. "
                        "To evaluate: gan-eval run_dir=DIR for each run (or train with eval_every=)"
                    )
                self.notes.append(said)
        columns = [Column(name, better(name)) for name in names if name in there and name not in ("step", "images")]
        losses = {json.dumps({k: v for k, v in run.config.items() if k.startswith("loss.")}, default=str) for run in runs}
        if len(losses) > 1 and any("loss" in column.name or "wasserstein" in column.name for column in columns):
            self.notes.append("values of different loss functions, such as d/loss, cannot be compared with each other")
        return columns

    def _picked_by(self, columns: Sequence[Column]) -> dict[str, Column]:
        """For each protocol the column by which ``--at best`` chooses the evaluation of a run."""
        found: dict[str, Column] = {}
        for column in columns:
            if (
                column.protocol_id
                and column.better
                and (column.protocol_id not in found or is_called(column.name, self.question.sort))
            ):
                found[column.protocol_id] = column
        if self.question.at == "best" and found:
            names = ", ".join(column.name for column in found.values())
            self.notes.append(
                f"each run counts at its best evaluation by {names}: chosen by the same values, they look better than they are"
            )
        return found

    def _picked(self, run: RunRecord, pid: str, picked_by: Mapping[str, Column]) -> EvaluationRecord | None:
        found = [e for e in run.evaluations if e.protocol_id == pid]
        if self.question.at.isdecimal():
            found = [e for e in found if e.images == int(self.question.at)]
        if self.question.at == "best" and pid in picked_by:
            name, best = picked_by[pid].name, None
            key = name.partition(AT_MARK)[0]
            for e in found:
                before = None if best is None else best.metrics[name]
                if name in e.metrics and is_better(key, e.metrics[name], before, self.translates):
                    best = e
            return best
        return found[-1] if found else None

    def _measured(self, group: Group, column: Column, picked_by: Mapping[str, Column]) -> dict[str, EvaluationRecord]:
        if not column.protocol_id:
            return {}
        picked = {str(run.path): self._picked(run, column.protocol_id, picked_by) for run in self.counting(group)}
        return {path: evaluation for path, evaluation in picked.items() if evaluation is not None}

    def _values(self, group: Group, column: Column, measured: Mapping[str, EvaluationRecord]) -> dict[str, float]:
        values = {}
        for run in self.counting(group):
            if column.protocol_id:
                picked = measured.get(str(run.path))
                value = None if picked is None else picked.metrics.get(column.name)
            else:
                most = int(self.question.at) if self.question.at.isdecimal() else None
                value = tail(run.rows, column.name, most) if most is None or reached(run) >= most else None
            if value is not None and finite(value):
                values[str(run.path)] = value
        return values

    # which is best

    def _ranked(self, column: Column) -> list[Group]:
        """Return the groups that have a value, best first."""
        sign = -1 if column.better == "higher" else 1
        having = [group for group in self.groups if column.name in group.summaries]
        return sorted(having, key=lambda group: sign * group.summaries[column.name].mean)

    def _test(self, column: Column) -> None:
        """Test every group against the best one."""
        ranked = self._ranked(column)
        if not column.better or len(ranked) < 2:
            return
        best, others = list(ranked[0].summaries[column.name].values.values()), ranked[1:]
        ps = [statistics.welch(list(group.summaries[column.name].values.values()), best) for group in others]
        tested = [k for k, p in enumerate(ps) if p is not None]
        corrected = dict(zip(tested, statistics.holm([p for p in ps if p is not None]), strict=True))
        for k, group in enumerate(others):
            p = corrected.get(k)
            verdict = "worse" if p is not None and p < statistics.LEVEL else "unsupported"
            group.summaries[column.name] = replace(group.summaries[column.name], verdict=verdict, p=p)

    def _sort_by(self, columns: Sequence[Column]) -> str:
        names = [column.name for column in columns]
        if self.question.sort:
            asked = [name for name in names if is_called(name, self.question.sort)]
            if asked:
                return min(asked, key=lambda name: name != self.question.sort)
        best = [column.name for column in columns if column.better] or names
        if best and best[0].partition(AT_MARK)[0] == "fid":
            pid = next(column.protocol_id for column in columns if column.name == best[0])
            kid = best[0].replace("fid", "kid", 1)
            samples = next(
                _number(e.protocol.get("num_samples"))
                for g in self.groups
                for r in g.runs
                for e in r.evaluations
                if e.protocol_id == pid
            )
            if samples < MIN_FID_IMAGES:
                self.notes.append(f"FID of {samples} images is mostly bias" + (": sorted by KID" if kid in names else ""))
                return kid if kid in names else best[0]
        return best[0] if best else ""

    def _order(self, column: Column | None) -> None:
        ranked = self._ranked(column) if column is not None else []
        self.groups = ranked + sorted((g for g in self.groups if g not in ranked), key=lambda group: group.name)

    # notes

    def _note_states(self) -> None:
        how = "counted as far as they are" if self.question.unfinished else "not in the means (--unfinished counts them)"
        empty = [group for group in self.groups if all(run.state != "complete" for run in group.runs)]
        if len(empty) > 1:
            left = [run for group in empty for run in group.runs]
            self.notes.append(f"{len(empty)} groups have no complete run: {_states(left)}, {how}")
        for group in self.groups:
            left = [run for run in group.runs if run.state != "complete"]
            if left and (group not in empty or len(empty) == 1):
                of = plural(len(group.runs), "run")
                self.notes.append(f"{group.name}: of {of} {_states(left)}, {how}: {listed([run.path for run in left])}")
        if not self.counted:
            self.notes.append("no run is complete: --unfinished shows them as far as they are")
        sizes = {len(self.counting(group)) for group in self.groups}
        if sizes == {1}:
            self.notes.append("one seed each: how far results spread is not known, so no difference is supported")

    def _note_images(self, columns: Sequence[Column], picked_by: Mapping[str, Column]) -> None:
        """Note values of different numbers of images."""
        picked = [
            e.images
            for group in self.groups
            for run in self.counting(group)
            for pid in dict.fromkeys(column.protocol_id for column in columns if column.protocol_id)
            if (e := self._picked(run, pid, picked_by)) is not None
        ]
        runs = [run for group in self.groups for run in self.counting(group)]
        by_rows = not any(column.protocol_id for column in columns)
        if self.question.at.isdecimal():
            valued = {path for group in self.groups for summary in group.summaries.values() for path in summary.values}
            without = [run.path for run in runs if str(run.path) not in valued]
            if without:
                self.notes.append(f"no value at {int(self.question.at):,} images: {listed(without)}")
            return
        if by_rows or self.question.at == "best":  # the best lie anywhere: what matters is among how many images
            picked = [reached(run) for run in runs]
        if picked and min(picked) != max(picked):
            self.notes.append(
                f"not of equally many images: from {min(picked):,} to {max(picked):,}; --at IMAGES compares at one number"
            )


def _states(runs: Sequence[RunRecord]) -> str:
    """``2 diverged, 1 pruned``."""
    return ", ".join(f"{n} {state}" for state, n in Counter(run.state for run in runs).items())


def _number(value: object) -> int:
    return value if isinstance(value, int) else 0


def _differences(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> str:
    changed = evaluations.changes(theirs, ours)
    shown = [f"{key} is {short(a)} there, {short(b)} here" for key, (a, b) in changed.items()]
    return "; ".join(shown[:4]) or "another version of the rule"
