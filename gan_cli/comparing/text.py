"""A comparison as text: tables for a terminal and for Markdown, CSV, JSON, commands."""

from __future__ import annotations

import csv
import io
import json
import re
import shlex
import textwrap
from collections import Counter
from collections.abc import Sequence
from typing import Any

from gan_cli.comparing.gather import finite
from gan_cli.comparing.groups import plural
from gan_cli.comparing.records import Column, Comparison, EvaluationRecord, Group, RunRecord, Summary
from gan_cli.comparing.scalars import TAIL
from gan_cli.comparing.statistics import LEVEL
from gan_cli.system.text import number, override, short

FORMAT = 1  # of the JSON; grows when a key changes its meaning or goes
BEST, UNSUPPORTED = "*", "?"
NARROWEST_NAME = 24
LONGEST_HEAD = 60
ARROWS = {"lower": "↓", "higher": "↑", "": ""}
WORDS = {"lower": " (lower)", "higher": " (higher)", "": ""}


def plain(text: object) -> str:
    """A text, perhaps a stranger's, that leaves a terminal as it is."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in str(text))


def value(summary: Summary | None, size: int) -> str:
    """``1.17 +- 0.06``, and the number of values where it is not ``size``."""
    if summary is None:
        return "-"
    spread = f" +- {number(summary.std)}" if summary.std is not None else ""
    return number(summary.mean) + spread + (f" (n={summary.n})" if summary.n != size else "")


def mark(comparison: Comparison, group: Group, column: Column) -> str:
    """``*`` the best, ``?`` what the seeds cannot tell from it."""
    summary = group.summaries.get(column.name)
    having = [g for g in comparison.groups if column.name in g.summaries]
    if summary is None or not column.better or len(having) < 2:
        return ""
    return {"": BEST, "unsupported": UNSUPPORTED, "worse": ""}[summary.verdict]


def size(group: Group) -> int:
    """How many of its runs count: the most values that it has of anything."""
    return max((summary.n for summary in group.summaries.values()), default=0)


def runs_of(group: Group) -> str:
    """``4, 1 diverged``."""
    left = Counter(run.state for run in group.runs if run.state != "complete")
    return ", ".join([str(size(group)), *(f"{n} {state}" for state, n in left.items())])


def cells(comparison: Comparison, group: Group) -> list[str]:
    """The row of a group, without its name."""
    values = [
        f"{value(group.summaries.get(column.name), size(group))} {mark(comparison, group, column)}".rstrip()
        for column in comparison.columns
    ]
    return [runs_of(group), *values]


def heads(comparison: Comparison, unicode: bool) -> list[str]:
    """Of the columns after the name."""
    ways = ARROWS if unicode else WORDS
    return [
        "n",
        *(
            short(column.name, LONGEST_HEAD) + (f" {ways[column.better]}".replace("  ", " ") if column.better else "")
            for column in comparison.columns
        ),
    ]


def headline(comparison: Comparison) -> str:
    """What is compared, and by which rule."""
    seeds = len({run.seed for run in comparison.runs})
    text = (
        f"{comparison.title}: {plural(len(comparison.runs), 'run')}, {plural(len(comparison.groups), 'group')}, "
        f"{plural(seeds, 'seed')}"
    )
    ids = list(dict.fromkeys(column.protocol_id for column in comparison.columns if column.protocol_id))
    if ids:
        return f"{text}; evaluations by protocol {', '.join(ids)}, {at(comparison)}"
    return f"{text}; training scalars, mean of the last {TAIL:.0%} of rows" if comparison.columns else text


def at(comparison: Comparison) -> str:
    """Which evaluation of each run."""
    if comparison.at.isdecimal():
        return f"at {int(comparison.at):,} images"
    return f"the {comparison.at} one of each run"


def legend(comparison: Comparison) -> list[str]:
    """What the marks mean, where there are any."""
    marks = {mark(comparison, group, column) for group in comparison.groups for column in comparison.columns}
    found = []
    if BEST in marks:
        found.append("values are mean +- standard deviation over n seeds; * is the best of its column")
    if UNSUPPORTED in marks:
        test = f"Welch's t test against the best, Holm-corrected, p >= {LEVEL:g}, or no test: a single seed, or no spread"
        found.append(f"? the seeds do not support that it is worse than the best ({test})")
    return found


def comparison_lines(comparison: Comparison, width: int, unicode: bool) -> list[str]:
    """For a terminal: in several parts where the columns do not fit in ``width``; long names go over several lines."""
    rows = [cells(comparison, group) for group in comparison.groups]
    top = heads(comparison, unicode)
    widths = [max(len(row[k]) for row in [top, *rows]) for k in range(len(top))]
    longest = max((len(group.name) for group in comparison.groups), default=0)
    most = max(NARROWEST_NAME, min(longest, width - 4 - sum(widths[:3])))
    names = [wrapped(plain(group.name), most) for group in comparison.groups]
    name_width = max((len(line) for lines in names for line in lines), default=0)
    lines: list[str] = []
    columns = list(range(1, len(top)))
    while columns or not lines:
        part, room = [0] if not lines else [], width - name_width - (2 + widths[0] if not lines else 0)
        while columns and (len(part) <= (not lines) or room >= 2 + widths[columns[0]]):
            room -= 2 + widths[columns[0]]
            part.append(columns.pop(0))
        lines += [""] if lines else []
        lines.append((" " * name_width + "".join(f"  {top[k]:<{widths[k]}}" for k in part)).rstrip())
        for name, row in zip(names, rows, strict=True):
            first = f"{name[0]:<{name_width}}" + "".join(f"  {row[k]:<{widths[k]}}" for k in part)
            lines += [first.rstrip(), *name[1:]]
    return lines


def wrapped(name: str, width: int) -> list[str]:
    """A name in lines, broken after commas if possible."""
    return textwrap.wrap(name, width, subsequent_indent="  ", break_on_hyphens=False) or [""]


def report(comparisons: Sequence[Comparison], width: int, unicode: bool) -> str:
    """All tables and notes for a terminal."""
    blocks: list[str] = []
    said: dict[str, None] = {}
    for comparison in comparisons:
        notes = [note for note in comparison.notes if note not in said]
        said |= dict.fromkeys(notes)
        lines = [plain(headline(comparison)), "", *comparison_lines(comparison, width, unicode), "", *legend(comparison)]
        blocks.append("\n".join([*lines, *(f"note: {plain(note)}" for note in notes)]).rstrip())
    return "\n\n".join(blocks)


def markdown(comparisons: Sequence[Comparison]) -> str:
    """The same as Markdown."""
    blocks = []
    for comparison in comparisons:
        header = ["", *map(_escaped, heads(comparison, unicode=True))]
        rows = [[group.name, *cells(comparison, group)] for group in comparison.groups]
        lines = [f"**{_escaped(headline(comparison))}**", ""]
        lines += [_row(header), _row(["---"] * len(header)), *(_row([_escaped(cell) for cell in row]) for row in rows), ""]
        lines += [f"- {_escaped(line)}" for line in [*legend(comparison), *comparison.notes]]
        blocks.append("\n".join(lines).rstrip())
    return "\n\n".join(blocks)


def _row(values: Sequence[str]) -> str:
    return f"| {' | '.join(values)} |"


def _escaped(text: str) -> str:
    return "".join(f"\\{c}" if c in "|*_<>`[]\\" else c for c in plain(text))


def as_csv(comparisons: Sequence[Comparison]) -> str:
    """One row for each run; which of its evaluations counts is that of the table."""
    settings = dict.fromkeys(key for one in comparisons for group in one.groups for key in group.settings)
    metrics = dict.fromkeys(column.name for one in comparisons for column in one.columns)
    fixed = ["data", "group", "path", "state", "seed", "step", "total_steps", "images", "seconds"]
    fixed += ["protocol", "measured_step", "measured_images"]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*fixed, *(f"set:{key}" for key in settings), *metrics, "command", "cwd"])
    for one in comparisons:
        for group in one.groups:
            for run in group.runs:
                known = [
                    one.title,
                    group.name,
                    run.path,
                    run.state,
                    run.seed,
                    run.step,
                    run.total_steps,
                    run.images,
                    run.seconds,
                ]
                found = measured(group, run)
                known += [" ".join(str(getattr(e, key)) for e in found) for key in ("protocol_id", "step", "images")]
                values = [run_value(group, run, name) for name in metrics]
                writer.writerow(
                    [
                        *known,
                        *(group.settings.get(key, "") for key in settings),
                        *values,
                        shlex.join(training(run)),
                        run.cwd,
                    ]
                )
    return out.getvalue()


def run_value(group: Group, run: RunRecord, name: str) -> float | None:
    """What a run adds to a mean, or None."""
    return group.summaries[name].values.get(str(run.path)) if name in group.summaries else None


def measured(group: Group, run: RunRecord) -> list[EvaluationRecord]:
    """The evaluations of a run that count: one for each protocol, none if its values are from training rows."""
    found = [summary.measured.get(str(run.path)) for summary in group.summaries.values()]
    return list({(e.protocol_id, e.step): e for e in found if e is not None}.values())


def as_json(comparisons: Sequence[Comparison]) -> str:
    """Everything of the tables; docs/sweeps.md has the keys."""
    found = {"format": FORMAT, "comparisons": [_comparison(one) for one in comparisons]}
    return json.dumps(found, indent=1, allow_nan=False, default=str) + "\n"


def _comparison(one: Comparison) -> dict[str, Any]:
    protocols = {e.protocol_id: e.protocol for run in one.runs for e in run.evaluations}
    return {
        "data": one.title,
        "at": one.at,
        "sort_by": one.sort_by,
        "columns": [{"name": c.name, "better": c.better, "protocol": c.protocol_id} for c in one.columns],
        "protocols": {c.protocol_id: protocols[c.protocol_id] for c in one.columns if c.protocol_id},
        "varied": one.varied,
        "notes": one.notes,
        "groups": [
            {
                "name": group.name,
                "settings": group.settings,
                "n": size(group),
                "summaries": {name: _summary(summary) for name, summary in group.summaries.items()},
                "runs": [_run(one, group, run) for run in group.runs],
            }
            for group in one.groups
        ],
    }


def _summary(summary: Summary) -> dict[str, Any]:
    return {"mean": summary.mean, "std": summary.std, "n": summary.n, "verdict": summary.verdict, "p": summary.p}


def _run(one: Comparison, group: Group, run: RunRecord) -> dict[str, Any]:
    values = {column.name: run_value(group, run, column.name) for column in one.columns}
    return {
        "path": str(run.path),
        "state": run.state,
        "message": run.message,
        "seed": run.seed,
        "step": run.step,
        "total_steps": run.total_steps,
        "images": run.images,
        "seconds": run.seconds if finite(run.seconds) else None,
        "values": {name: value for name, value in values.items() if value is not None},
        "measured": [{"protocol": e.protocol_id, "step": e.step, "images": e.images} for e in measured(group, run)],
        "command": shlex.join(training(run)),
        "cwd": run.cwd,
    }


def training(run: RunRecord) -> list[str]:
    """The words of the command that made a run, or none if it is not known, or is not one that a run records.

    It may be a stranger's and be copied into a shell: no other program, and none by its path.
    """
    try:
        program, *words = shlex.split(run.command)
    except ValueError:  # also if it is empty
        return []
    name = program.rpartition("/")[2]
    if name == "torchrun":
        flags = [word for word in words if re.fullmatch(r"--(nnodes|nproc-per-node)=\d+", word)]
        return [name, *words] if words[: len(flags) + 2] == [*flags, "-m", "gan_cli.train"] else []
    return [name, *words] if name == "gan-train" else []


def commands(comparisons: Sequence[Comparison]) -> str:
    """What to type to make each run anew."""
    lines = []
    for one in comparisons:
        for group in one.groups:
            lines.append(plain(f"# {one.title}: {group.name}"))
            for run in group.runs:
                again = ["gan-train", override("from_run", run.path), "run_dir=NEW"]
                lines.append(plain(f"# {run.path}"))
                if run.changes:
                    lines.append(plain(f"# changed while it was trained, {'; '.join(run.changes)}: no command makes the same"))
                words = training(run)
                if words:
                    go = f"cd {shlex.quote(run.cwd)} && " if run.cwd else ""
                    lines.append(plain(f"{go}{shlex.join([*words, 'run_dir=NEW'])}"))
                elif run.command:
                    lines.append("# the recorded command is not one of gan-train, and not shown")
                lines.append(plain(shlex.join(again)))
    return "\n".join(lines)
