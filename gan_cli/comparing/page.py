"""A comparison as one HTML file that needs no network.

All that is read of runs may be a stranger's: text is escaped, pictures are PNG files of bounded size, and the page's own
security policy lets no script run but its own.
"""

from __future__ import annotations

import base64
import hashlib
import math
import shlex
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

from gan_cli.comparing import charts, samples
from gan_cli.comparing.charts import Curve, counting, finite
from gan_cli.comparing.html import (
    CONFIG_LIMIT,
    PICTURES_LIMIT,
    STYLES,
    Named,
    Room,
    cell,
    count,
    direction,
    duration,
    fold,
    head,
    listed,
    named,
    note,
    number,
    row,
    short_names,
    spread,
    table,
    text_of,
)
from gan_cli.comparing.records import Column, Comparison, Group, Run, Summary
from gan_cli.comparing.text import measured, training
from gan_cli.system.errors import OutputError, failing_as
from gan_cli.system.files import write_output
from gan_cli.system.text import override
from gan_cli.system.version import __version__

MOST_CHARTS = 12  # of training scalars
# Training scalars that say most come first; others follow by name.
SCALARS = ("d/loss", "g/loss", "d/wasserstein", "d/real", "d/fake", "d/accuracy", "d/grad_norm", "g/grad_norm")
OWN = frozenset({"seed", "run_dir"})  # of each run, whatever is compared
ENDED = ("failed", "diverged", "pruned")
NOTHING = cell("-", "number some", "")


def write(comparisons: list[Comparison], path: Path, title: str | None = None) -> None:
    """Write the page, whole or not at all.

    Args:
        comparisons: a chapter each, in this order. title: of the page; None: what is compared.

    Raises:
        OutputError: it cannot be written there.
        DiskError: the disk is full.
    """
    text = page(comparisons, path, title)
    with failing_as(OutputError, "the page cannot be written", str(path), "Name a file in a folder that can be written"):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_output(path, text)


def page(comparisons: list[Comparison], path: Path, title: str | None = None) -> str:
    """All of the file that will lie at ``path``."""
    room = Room(path.absolute().parent)
    title = title or _title(comparisons)
    chapters = []
    for k, comparison in enumerate(comparisons):
        room.pictures = PICTURES_LIMIT // len(comparisons)
        chapters.append(_chapter(comparison, f"c{k + 1}", room))
    files = resources.files("gan_cli.comparing")
    css, script = (files.joinpath(f"page.{kind}").read_text("utf-8") for kind in ("css", "js"))
    allowed = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{allowed}'; base-uri 'none'"
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{text_of(title)}</title>
<style>
{css}</style>
</head>
<body>
<header>
<h1>{text_of(title)}</h1>
{_contents(comparisons)}</header>
<main>
{"".join(chapters) or "<p>There is nothing to compare.</p>"}
</main>
<footer>Written by gan-compare of gan_cli {__version__}. <em>Images</em> are real images shown to the discriminator; a
<em>step</em> is one update of the generator.</footer>
<script>{script}</script>
</body>
</html>
"""


def _title(comparisons: list[Comparison]) -> str:
    runs = count(sum(len(comparison.runs) for comparison in comparisons), "run")
    varied = list(dict.fromkeys(key for comparison in comparisons for key in compared(comparison)))
    return f"Comparison of {runs}{f' by {listed(varied)}' if 0 < len(varied) <= 3 else ''}"


def _contents(comparisons: list[Comparison]) -> str:
    if len(comparisons) < 2:
        return ""
    items = "".join(f'<li><a href="#c{k + 1}">{text_of(c.title)}</a></li>' for k, c in enumerate(comparisons))
    apart = "<p>Results of different data sets or protocols cannot be compared: each has a chapter of its own.</p>"
    return f'{apart}\n<nav aria-label="Chapters"><ul>{items}</ul></nav>\n'


def _chapter(comparison: Comparison, ident: str, room: Room) -> str:
    comparison = replace(comparison, groups=short_names(comparison.groups))
    groups = named(comparison.groups)
    sections = [
        ("differs", "What differs", _differs(comparison, groups)),
        ("metrics", "Metrics", _metrics(comparison, groups)),
        ("curves", "Curves", _curves(comparison, groups)),
        ("time", "Quality against time", _against_time(comparison, groups)),
        ("samples", "Samples at equal images seen", samples.section(groups, room)),
        ("runs", "Runs", _runs(comparison, groups, ident, room)),
    ]
    sections = [section for section in sections if section[2]]
    links = "".join(f'<li><a href="#{ident}-{key}">{name}</a></li>' for key, name, _ in sections)
    body = "".join(
        f'<section class="part-{key}" aria-labelledby="{ident}-{key}">\n<h3 id="{ident}-{key}">{name}</h3>\n{text}</section>\n'
        for key, name, text in sections
    )
    notes = "".join(f"<li>{text_of(line)}</li>" for line in comparison.notes)
    size = f"{count(len(groups), 'group')}, {count(len(comparison.runs), 'run')}: {listed(_states(comparison.runs))}."
    return f"""<section aria-labelledby="{ident}">
<h2 id="{ident}">{text_of(comparison.title)}</h2>
<p class="answer">{" ".join(text_of(sentence) for sentence in headline(comparison))}</p>
<p class="soft">{text_of(size)}</p>
{f'<ul class="notes">{notes}</ul>' if notes else ""}
<nav aria-label="Sections of {text_of(comparison.title)}"><ul>{links}</ul></nav>
{body}</section>
"""


def _states(runs: list[Run]) -> list[str]:
    """``4 complete``, ``1 diverged``."""
    order = dict.fromkeys(["complete", *sorted(run.state for run in runs)])
    return [f"{n} {state}" for state in order if (n := sum(run.state == state for run in runs))]


def headline(comparison: Comparison) -> list[str]:
    """The answer, and how far the seeds support it, in sentences of plain text."""
    column = next((column for column in comparison.columns if column.name == comparison.sort_by), None)
    if column is None:
        return ["No run has a value to compare by."]
    ranked = [(group, group.summaries[column.name]) for group in comparison.groups if column.name in group.summaries]
    if not ranked:
        return [f"No run has a value of {column.name}."]
    group, best = ranked[0]
    value = f"{spread(best.mean, best.std)} over {count(best.n, 'seed')}"
    lost = len(group.runs) - best.n
    after = [f"{lost} of its {len(group.runs)} runs {_have(lost)} no value."] if lost > 0 else []
    if len(ranked) == 1:
        first = f"{group.name}: {column.name} {value}."
    elif not column.better:
        first = f"{column.name} has no better or worse: {len(ranked)} groups have a value."
        after = []
    else:
        first = f"{group.name} has the {'lowest' if column.better == 'lower' else 'highest'} {column.name}: {value}."
        after += _support(ranked[1:], best)
    without = len(comparison.groups) - len(ranked)
    return [first, *after, *([f"{without} of {len(comparison.groups)} groups {_have(without)} no value."] if without else [])]


def _have(n: int) -> str:
    return "has" if n == 1 else "have"


def _support(others: list[tuple[Group, Summary]], best: Summary) -> list[str]:
    """What the seeds say of the difference to each other group."""
    worse = sum(summary.verdict == "worse" for _, summary in others)
    silent = sum(summary.p is None and 1 in (summary.n, best.n) for _, summary in others)
    close = [
        (group, summary)
        for group, summary in others
        if summary.verdict == "unsupported" and (summary.p is not None or 1 not in (summary.n, best.n))
    ]
    if silent == len(others):
        alone = "There is one seed of it" if best.n == 1 else "There is one seed of each other group"
        return [f"{alone}: whether other seeds would give the same order is not known."]
    said = []
    if worse:
        which = f"{worse} of {len(others)} other groups {'is' if worse == 1 else 'are'}"
        if worse == len(others):
            which = "the other group is" if worse == 1 else f"all {worse} other groups are"
        said.append(f"The seeds support that {which} worse.")
    if close:
        names = [group.name + (f" (p = {summary.p:.2g})" if summary.p is not None else "") for group, summary in close]
        names = names if len(names) <= 3 else [*names[:3], f"{len(names) - 3} more"]
        said.append(f"{'They' if worse else 'The seeds'} do not tell it from {listed(names)}.")
    if silent:
        said.append(f"Of {count(silent, 'group')} nothing can be said, for lack of seeds.")
    return said


def _differs(comparison: Comparison, groups: list[Named]) -> str:
    shared, others = _settings(comparison)
    if len(groups) > 1 and compared(comparison):
        rows = [
            row(
                f'{one.badge} <span class="some">{_seeds(one.group)}</span>',
                "".join(cell(text_of(_setting(one.group, key)), "value") for key in compared(comparison)),
            )
            for one in groups
        ]
        text = table("What differs", head("group") + "".join(map(head, compared(comparison))), rows, "sortable")
    else:
        text = "<p>Nothing but the seed.</p>\n" if len(comparison.runs) > 1 else "<p>There is one run.</p>\n"
    if others and len(groups) > 1:
        few = groups[:STYLES]
        rows = [
            row(text_of(key), "".join(cell(text_of(_setting(one.group, key), 200), "value") for one in few)) for key in others
        ]
        heads = head("setting") + "".join(head(one.letter) for one in few)
        more = note(f"Of {len(groups)} groups the first {len(few)}." if len(groups) > len(few) else "")
        text += fold(f"What differs with it ({len(others)})", more + table("What differs with it", heads, rows))
    return text + (fold(f"What all runs share ({len(shared)})", _facts(shared, "setting"), "bulky") if shared else "")


def compared(comparison: Comparison) -> list[str]:
    """What the groups are called after; what else differs in their configs follows from it."""
    return list(dict.fromkeys(key for group in comparison.groups for key in group.settings)) or comparison.varied


def _settings(comparison: Comparison) -> tuple[dict[str, Any], list[str]]:
    """What all runs share, and the keys of what differs beside what is compared."""
    runs = comparison.runs
    shared, others = {}, []
    for key in sorted({key for run in runs for key in run.config} - OWN):
        if len({str(run.config.get(key, "")) for run in runs}) == 1:
            shared[key] = runs[0].config.get(key, "")
        elif key not in compared(comparison):
            others.append(key)
    return shared, others


def _seeds(group: Group) -> str:
    seeds = sorted({run.seed for run in group.runs})
    return f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds[:8]))}{' ...' if len(seeds) > 8 else ''}"


def _setting(group: Group, key: str) -> str:
    """A setting of a group; ``-`` where it has none."""
    if key in group.settings:
        return group.settings[key]
    values = dict.fromkeys(str(run.config[key]) for run in group.runs if key in run.config)
    return " or ".join(list(values)[:3]) or "-"


def _facts(facts: dict[str, Any], what: str) -> str:
    rows = [row(text_of(key), cell(text_of(value, 500), "value")) for key, value in facts.items()]
    return table(f"{what}s", head(what) + head("value"), rows)


def _metrics(comparison: Comparison, groups: list[Named]) -> str:
    # What is sorted by comes first.
    columns = sorted(comparison.columns, key=lambda column: column.name != comparison.sort_by)
    if not columns:
        return "<p>No run has a value.</p>\n"
    best = {column.name: _best(comparison, column) for column in columns}
    heads = [head(column.name, "number", direction(column), down=column.better == "higher") for column in columns]
    rows = []
    for one in groups:
        found = one.group.summaries
        cells = [_mean(found.get(column.name), best[column.name], len(one.group.runs)) for column in columns]
        lost = [state for state in _states(one.group.runs) if not state.endswith(" complete")]
        states = "".join(f'<small class="warn">{text_of(state)}</small>' for state in lost)
        runs = cell(str(len(one.group.runs)), "number")
        rows.append(row(one.html + states, runs + "".join(cells), "name"))
    text = table("Metrics", head("group") + head("runs", "number") + "".join(heads), rows, "sortable wide")
    return text + note(_explained(comparison)) + _protocols(comparison)


def _best(comparison: Comparison, column: Column) -> float | None:
    """The best mean of a column, if there are two to choose from."""
    means = [group.summaries[column.name].mean for group in comparison.groups if column.name in group.summaries]
    if len(means) < 2 or not column.better:
        return None
    return max(means) if column.better == "higher" else min(means)


def _mean(summary: Summary | None, best: float | None, runs: int) -> str:
    """A cell: mean and spread, and in small what the seeds say of the difference to the best."""
    if summary is None:
        return NOTHING
    close = "≈" if summary.verdict == "unsupported" else ""
    said = [
        f"{close} p = {summary.p:.2g}".strip() if summary.p is not None else close,
        f"n = {summary.n}" if summary.n != runs else "",
    ]
    small = ", ".join(filter(None, said))
    text = spread(summary.mean, summary.std) + (f"<small>{small}</small>" if small else "")
    return cell(text, "number best" if summary.mean == best else "number", repr(summary.mean))


def _explained(comparison: Comparison) -> str:
    said = ["Mean ± standard deviation (n - 1) over seeds; the best mean is bold."]
    verdicts = {summary.verdict for group in comparison.groups for summary in group.summaries.values()}
    if verdicts - {""}:
        said.append("p: of Welch's t test against the best, corrected by Holm. ≈: the seeds do not tell it from the best.")
    if any(column.protocol_id for column in comparison.columns):
        which = {"last": "the last evaluation", "best": "the best evaluation"}
        said.append(f"Of each run {which.get(comparison.at, f'the evaluation at {text_of(comparison.at)} images')} counts.")
    else:
        said.append("From training rows: no run was evaluated.")
    return " ".join(said)


def _protocols(comparison: Comparison) -> str:
    text = ""
    for ident in dict.fromkeys(column.protocol_id for column in comparison.columns if column.protocol_id):
        names = [column.name for column in comparison.columns if column.protocol_id == ident]
        found = (e for run in comparison.runs for e in run.evaluations if e.protocol_id == ident)
        if (evaluation := next(found, None)) is not None:
            title = f"How {listed(names)} {'was' if len(names) == 1 else 'were'} measured: protocol {ident}"
            text += fold(text_of(title), _facts(evaluation.protocol, "fact"), "bulky")
    return text


def _series(run: Run, column: Column, x: str) -> dict[int, tuple[float, float]]:
    """Step -> (x, value). ``x``: ``images`` or ``time/elapsed``."""
    if not column.protocol_id:
        found = [(row["step"], finite(row.get(x)), finite(row[column.name])) for row in run.rows if column.name in row]
        return {step: (at, value) for step, at, value in found if math.isfinite(at)}
    evaluations = [e for e in run.evaluations if e.protocol_id == column.protocol_id and column.name in e.metrics]
    places = {e.step: float(e.images) for e in evaluations}
    if x != "images":
        places = samples.at_steps(run, places, x)
    return {e.step: (places[e.step], finite(e.metrics[column.name])) for e in evaluations if e.step in places}


def _lines(groups: list[Named], column: Column, x: str) -> list[Curve]:
    """Of the runs that count in the table: in this column, or in any if it is none of the table."""
    curves = []
    for one in groups:
        runs = [(run, _series(run, column, x)) for run in counting(one.group, column.name)]
        ends = [series[max(series)] for run, series in runs if series and run.state in ENDED]
        points = charts.over_seeds([series for _, series in runs])
        if points:
            curves.append(Curve(one.letter, f"{one.letter} {one.group.name}", one.style, points, ends))
    return curves


def _figure(column: Column, curves: list[Curve], x_label: str) -> str:
    """A chart under its name, or "" if there is nothing to draw."""
    ends = [(curve, [point for point in curve.points if point.n]) for curve in curves if curve.style is not None]
    said = [f"{curve.name} ends at {number(points[-1].y)}" for curve, points in ends if points]
    described = f"{column.name} against {x_label}: {'; '.join(said)}"
    svg = charts.line_chart(curves, x_label, column.name, described)
    better = f" <span>({text_of(direction(column))})</span>" if column.better else ""
    return f"<figure><figcaption>{text_of(column.name)}{better}</figcaption>{svg}</figure>\n" if svg else ""


def _legend(groups: list[Named]) -> str:
    items = [f"<li>{charts.swatch(one.style)}{one.html}</li>" for one in groups if one.style is not None]
    if len(groups) > STYLES:
        items.append(f"<li>{charts.swatch(None)}{count(len(groups) - STYLES, 'other')}</li>")
    return f'<ul class="legend">{"".join(items)}</ul>\n'


def _curves(comparison: Comparison, groups: list[Named]) -> str:
    evaluated = [column for column in comparison.columns if column.protocol_id]
    lines = {column: _lines(groups, column, "images") for column in evaluated or comparison.columns}
    main = [
        _figure(column, curves, "images seen") for column, curves in lines.items() if any(len(c.points) > 1 for c in curves)
    ]
    logged = {key for run in comparison.runs for row in run.rows for key in row if key.startswith(("d/", "g/"))}
    logged -= {column.name for column in lines}
    keys = [*(key for key in SCALARS if key in logged), *sorted(logged - set(SCALARS))]
    scalars = [_figure(Column(key, ""), _lines(groups, Column(key, ""), "images"), "images seen") for key in keys[:MOST_CHARTS]]
    main, scalars = [figure for figure in main if figure], [figure for figure in scalars if figure]
    if not main and not scalars:
        return ""
    said = []
    if any(len(group.runs) > 1 for group in comparison.groups):
        said.append("Lines are means over seeds, bands one standard deviation each way (of two seeds: both values).")
    drawn = [run for group in comparison.groups for run in counting(group)]
    if len(drawn) < len(comparison.runs):
        said.append(f"Drawn are only runs with a value in the table: {len(drawn)} of {len(comparison.runs)}.")
    if any(run.state in ENDED for run in drawn):
        said.append("A cross marks where a run ended early; the mean goes on without it.")
    if evaluated and not main:
        said.append("Each run was evaluated once: eval_every= gives curves.")
    text = _legend(groups) + note(" ".join(said)) + (f'<div class="charts">{"".join(main)}</div>\n' if main else "")
    if scalars:
        left = f"; {len(keys) - MOST_CHARTS} more are in metrics.jsonl" if len(keys) > MOST_CHARTS else ""
        text += fold(f"Training scalars ({len(scalars)}{left})", f'<div class="charts">{"".join(scalars)}</div>')
    return text


def _against_time(comparison: Comparison, groups: list[Named]) -> str:
    column = next((column for column in comparison.columns if column.name == comparison.sort_by), None)
    if column is None:
        return ""
    curves = _lines(groups, column, "time/elapsed")
    longest = max((point.x for curve in curves for point in curve.points), default=0.0)
    unit, seconds = next((u for u in (("hours", 3600.0), ("minutes", 60.0)) if longest >= 3 * u[1]), ("seconds", 1.0))
    scaled = [
        replace(
            curve,
            points=[replace(point, x=point.x / seconds) for point in curve.points],
            ends=[(x / seconds, y) for x, y in curve.ends],
        )
        for curve in curves
    ]
    figure = _figure(column, scaled, f"{unit} of training")
    if not figure:
        return ""
    said = "Time is that of each run's own log, on the machine it ran on, with the evaluations made while training."
    return f'{_legend(groups)}<div class="charts large">{figure}</div>\n{note(said)}'


def _runs(comparison: Comparison, groups: list[Named], ident: str, room: Room) -> str:
    rows: list[str] = []
    folds: list[str] = []
    for one in groups:
        for run in sorted(one.group.runs, key=lambda run: run.seed):
            key = f"{ident}-run-{len(rows) + 1}"
            rows.append(_run_row(comparison, one, run, key, room))
            folds.append(_run_fold(one, run, key, room))
    heads = head("run") + head("state")
    heads += "".join(head(name, "number") for name in ("step", "images", "time"))
    heads += head("measured at", "number", "images") if any(column.protocol_id for column in comparison.columns) else ""
    heads += "".join(head(column.name, "number", down=column.better == "higher") for column in comparison.columns)
    text = table("Runs", heads + head("files"), rows, "sortable wide")
    return f"{text}<h4>Commands and configs</h4>\n{''.join(folds)}"


def _run_row(comparison: Comparison, one: Named, run: Run, key: str, room: Room) -> str:
    found = [one.group.summaries.get(column.name) for column in comparison.columns]
    values = [summary.values.get(str(run.path)) if summary is not None else None for summary in found]
    places = []
    if any(column.protocol_id for column in comparison.columns):
        at = measured(one.group, run)
        places = [cell(listed([f"{e.images:,}" for e in at]), "number", at[0].images) if at else NOTHING]
    cells = [
        cell(text_of(run.state), "" if run.state == "complete" else "warn"),
        cell(f"{run.step:,}" + (f" of {run.total_steps:,}" if run.step != run.total_steps else ""), "number", run.step),
        cell(f"{run.images:,}", "number", run.images),
        cell(duration(run.seconds), "number", run.seconds),
        *places,
        *(NOTHING if value is None else cell(number(value), "number", repr(value)) for value in values),
        cell(
            f'<a href="{room.link(run.path / "config.yaml")}">config</a> <a href="{room.link(run.path)}/">directory</a>',
            "files",
        ),
    ]
    return row(f'{one.badge} <a href="#{key}">seed {run.seed}</a>', "".join(cells), "files")


def _run_fold(one: Named, run: Run, key: str, room: Room) -> str:
    """How a run was made, how to make it again, and its config."""
    again = shlex.join(["gan-train", override("from_run", run.path), override("run_dir", f"again/{run.path.name}")])
    parts = [f'<p class="warn">{text_of(run.message)}</p>\n' if run.message else ""]
    if made := training(run):
        parts.append(note(f"Made by{f', in {text_of(run.cwd)}' if run.cwd else ''}:") + _command(shlex.join(made)))
    else:
        why = "is not one of gan-train, and not shown" if run.command else "was not recorded"
        parts.append(note(f"The command that made it {why}."))
    if run.changes:
        parts.append(note(text_of(f"Changed while it was trained, {'; '.join(run.changes)}: no command makes the same.")))
    parts.append(f'<div class="bulky">{note("To make it again:")}{_command(again)}</div>\n')
    text = room.config(run)
    if text is None:
        parts.append(note("Its config is left out to keep this file small."))
    else:
        code = f'<pre tabindex="0"><code>{text_of(text, CONFIG_LIMIT)}</code></pre>\n'
        parts.append(fold("config.yaml", code, "bulky"))
    summary = f'{one.badge} seed {run.seed} <span class="some">{text_of(run.path)}</span>'
    return f'<details class="run" id="{key}"><summary>{summary}</summary><div>{"".join(parts)}</div></details>\n'


def _command(command: str) -> str:
    return f'<div class="command"><pre><code>{text_of(command)}</code></pre></div>\n'
