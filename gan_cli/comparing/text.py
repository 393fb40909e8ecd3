"""Output of a comparison as text: tables for a terminal and for Markdown, CSV, JSON, commands."""

from __future__ import annotations

import csv
import io
import json
import re
import shlex
import textwrap
from collections.abc import Sequence
from typing import Any

from gan_cli.comparing.gather import finite, plural
from gan_cli.comparing.groups import lost_states
from gan_cli.comparing.records import Column, Comparison, EvaluationRecord, Group, RunRecord
from gan_cli.comparing.scalars import TAIL
from gan_cli.comparing.statistics import LEVEL
from gan_cli.system.text import decimals, short, word

FORMAT = 1  # version of the JSON; increased when a key is removed or changes its meaning
MARKS = {"": "*", "unsupported": "?", "worse": ""}  # mark of each verdict in a table
MIN_NAME_WIDTH = 24  # characters of the first column
MAX_HEAD_LENGTH = 60  # characters of a column name
ARROWS = {"lower": " ↓", "higher": " ↑", "": ""}
WORDS = {"lower": " (lower)", "higher": " (higher)", "": ""}


def plain(text: object, keep: str = "") -> str:
    """Escape control characters, those for the writing direction included, except the characters in ``keep``."""
    return "".join(c if c.isprintable() or c in keep else repr(c)[1:-1] for c in str(text))


def mark(comparison: Comparison, group: Group, column: Column) -> str:
    """Return ``*`` for the best group, ``?`` for one that the seeds do not separate from it, else an empty text."""
    having = sum(column.name in one.summaries for one in comparison.groups)
    if not column.better or having < 2 or column.name not in group.summaries:
        return ""
    return MARKS[group.summaries[column.name].verdict]


def size(group: Group) -> int:
    """Return the number of runs that count: the largest n of its columns."""
    return max((summary.n for summary in group.summaries.values()), default=0)


def table(comparison: Comparison, ways: dict[str, str]) -> list[list[str]]:
    """Return the header and a row for each group, without names of groups. ``ways``: text for a column's direction."""
    plus = "±" if ways is ARROWS else "+-"
    means = {c.name: [g.summaries[c.name].mean for g in comparison.groups if c.name in g.summaries] for c in comparison.columns}
    places = {name: decimals(values) for name, values in means.items()}
    rows = [["n", *(short(column.name, MAX_HEAD_LENGTH) + ways[column.better] for column in comparison.columns)]]
    for group in comparison.groups:
        cells = [", ".join([str(size(group)), *lost_states(group.runs)])]
        for column in comparison.columns:
            summary = group.summaries.get(column.name)
            if summary is None:
                cells.append("-")
                continue
            digits = places[column.name]
            spread = f" {plus} {summary.std:.{digits}f}" if summary.std is not None else ""
            n = f" (n={summary.n})" if summary.n != size(group) else ""
            cells.append(f"{summary.mean:.{digits}f}{spread}{n} {mark(comparison, group, column)}".rstrip())
        rows.append(cells)
    return rows


def headline(comparison: Comparison) -> str:
    """Return the data, the counts of runs, groups and seeds, and which values are shown."""
    seeds = {run.seed for run in comparison.runs}
    sizes = (plural(len(comparison.runs), "run"), plural(len(comparison.groups), "group"), plural(len(seeds), "seed"))
    text = f"{comparison.title}: {', '.join(sizes)}"
    ids = list(dict.fromkeys(column.protocol_id for column in comparison.columns if column.protocol_id))
    if ids:
        at = f"at {int(comparison.at):,} images" if comparison.at.isdecimal() else f"the {comparison.at} one of each run"
        return f"{text}; evaluations by protocol {', '.join(ids)}, {at}"
    return f"{text}; training scalars, mean of the last {TAIL:.0%} of rows" if comparison.columns else text


def legend(comparison: Comparison) -> list[str]:
    """Return the meaning of the marks in the table."""
    marks = {mark(comparison, group, column) for group in comparison.groups for column in comparison.columns}
    found = []
    if "*" in marks:
        found.append("values are mean and standard deviation over n seeds; * is the best of its column")
    if "?" in marks:
        test = f"Welch's t test against the best, Holm-corrected, p >= {LEVEL:g}, or no test: a single seed, or no spread"
        found.append(f"? the seeds do not support that it is worse than the best ({test})")
    return found


def comparison_lines(comparison: Comparison, width: int, unicode: bool) -> list[str]:
    """Return the lines of a table. Columns that do not fit in ``width`` follow in further parts below."""
    top, *rows = table(comparison, ARROWS if unicode else WORDS)
    widths = [max(map(len, cells)) for cells in zip(top, *rows, strict=True)]
    longest = max(len(group.name) for group in comparison.groups)
    most = max(MIN_NAME_WIDTH, min(longest, width - 4 - sum(widths[:3])))
    names = [
        textwrap.wrap(plain(group.name), most, subsequent_indent="  ", break_on_hyphens=False) for group in comparison.groups
    ]
    name_width = max(len(line) for name in names for line in name)
    parts, used = [[0]], name_width + 2 + widths[0]
    for k in range(1, len(top)):
        if used + 2 + widths[k] > width and parts[-1] != [0]:
            parts.append([])
            used = name_width
        parts[-1].append(k)
        used += 2 + widths[k]
    lines = []
    for part in parts:
        lines += ["", _line("", name_width, top, widths, part)]
        for name, row in zip(names, rows, strict=True):
            lines += [_line(name[0], name_width, row, widths, part), *name[1:]]
    return lines[1:]


def _line(name: str, name_width: int, cells: Sequence[str], widths: Sequence[int], part: Sequence[int]) -> str:
    return "  ".join([name.ljust(name_width), *(cells[k].ljust(widths[k]) for k in part)]).rstrip()


def report(comparisons: Sequence[Comparison], width: int, unicode: bool) -> str:
    """Return all tables and notes for a terminal. A note of several tables is given once."""
    blocks, seen = [], set[str]()
    for comparison in comparisons:
        notes = [f"note: {plain(note)}" for note in comparison.notes if note not in seen]
        seen.update(comparison.notes)
        lines = comparison_lines(comparison, width, unicode)
        blocks.append("\n".join([plain(headline(comparison)), "", *lines, "", *legend(comparison), *notes]).rstrip())
    return "\n\n".join(blocks)


def markdown(comparisons: Sequence[Comparison]) -> str:
    """Return all tables and notes as Markdown."""
    blocks = []
    for comparison in comparisons:
        names = ["", *(group.name for group in comparison.groups)]
        rows = [_row([name, *cells]) for name, cells in zip(names, table(comparison, ARROWS), strict=True)]
        rows.insert(1, "| " + " | ".join(["---"] * (len(comparison.columns) + 2)) + " |")
        notes = [f"- {_escaped(line)}" for line in [*legend(comparison), *comparison.notes]]
        blocks.append("\n".join([f"**{_escaped(headline(comparison))}**", "", *rows, "", *notes]).rstrip())
    return "\n\n".join(blocks)


def _row(values: Sequence[str]) -> str:
    return f"| {' | '.join(map(_escaped, values))} |"


def _escaped(text: str) -> str:
    return "".join(f"\\{c}" if c in "|*_<>`[]\\" else c for c in plain(text))


def as_csv(comparisons: Sequence[Comparison]) -> str:
    """Return a row for each run: values that count in the means, settings of its group and its command."""
    settings = dict.fromkeys(key for one in comparisons for group in one.groups for key in group.settings)
    metrics = dict.fromkeys(column.name for one in comparisons for column in one.columns)
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    attributes = ("path", "state", "seed", "step", "total_steps", "images", "seconds")
    fixed = ["data", "group", *attributes, "protocol", "measured_step", "measured_images"]
    writer.writerow([*fixed, *(f"set:{key}" for key in settings), *metrics, "command", "cwd"])
    for one in comparisons:
        for group in one.groups:
            for run in group.runs:
                found = measured(group, run)
                known = [one.title, group.name, *(getattr(run, key) for key in attributes)]
                known += [" ".join(str(getattr(e, key)) for e in found) for key in ("protocol_id", "step", "images")]
                known += [group.settings.get(key, "") for key in settings]
                known += [run_value(group, run, name) for name in metrics]
                writer.writerow([*known, training(run), run.cwd])
    return out.getvalue()


def run_value(group: Group, run: RunRecord, name: str) -> float | None:
    """Return the value of a run that counts in the mean of a column, or None."""
    return group.summaries[name].values.get(str(run.path)) if name in group.summaries else None


def measured(group: Group, run: RunRecord) -> list[EvaluationRecord]:
    """Return the evaluations of a run that count, one for each protocol."""
    found = [summary.measured.get(str(run.path)) for summary in group.summaries.values()]
    return list({(e.protocol_id, e.step): e for e in found if e is not None}.values())


def as_json(comparisons: Sequence[Comparison]) -> str:
    """Return all data of the tables; docs/sweeps.md documents the keys."""
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
                "summaries": {
                    name: {key: getattr(summary, key) for key in ("mean", "std", "n", "verdict", "p")}
                    for name, summary in group.summaries.items()
                },
                "runs": [_run(one, group, run) for run in group.runs],
            }
            for group in one.groups
        ],
    }


def _run(one: Comparison, group: Group, run: RunRecord) -> dict[str, Any]:
    values = {column.name: run_value(group, run, column.name) for column in one.columns}
    keys = ("path", "state", "message", "seed", "step", "total_steps", "images")
    return {
        **{key: getattr(run, key) for key in keys},
        "seconds": run.seconds if finite(run.seconds) else None,
        "values": {name: value for name, value in values.items() if value is not None},
        "measured": [{"protocol": e.protocol_id, "step": e.step, "images": e.images} for e in measured(group, run)],
        "command": training(run),
        "cwd": run.cwd,
    }


def training(run: RunRecord) -> str:
    """Return the recorded command, or an empty text unless it runs gan-train.

    The record is untrusted and a user may paste it into a shell, so other programs and paths of programs are refused.
    """
    try:
        program, *words = shlex.split(run.command)
    except ValueError:  # unbalanced quotes, or empty
        return ""
    name = program.rpartition("/")[2]
    flags = [word for word in words if re.fullmatch(r"--(nnodes|nproc-per-node)=\d+", word)]
    known = name == "gan-train" or (name == "torchrun" and words[: len(flags) + 2] == [*flags, "-m", "gan_cli.train"])
    return shlex.join([name, *words]) if known else ""


def commands(comparisons: Sequence[Comparison]) -> str:
    """Return two shell commands for each run: the recorded one, and ``gan-train from_run=``."""
    lines = []
    for one in comparisons:
        for group in one.groups:
            lines.append(f"# {one.title}: {group.name}")
            for run in group.runs:
                lines.append(f"# {run.path}")
                if run.changes:
                    lines.append(f"# changed during training, {'; '.join(run.changes)}: no command reproduces it")
                if training(run):
                    folder = f"cd {shlex.quote(run.cwd)} && " if run.cwd else ""
                    lines.append(f"{folder}{training(run)} run_dir=NEW")
                elif run.command:
                    lines.append("# not shown: the recorded command does not run gan-train")
                lines.append(shlex.join(["gan-train", word("from_run", run.path), "run_dir=NEW"]))
    return "\n".join(map(plain, lines))
