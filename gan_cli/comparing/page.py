"""A comparison as one HTML file that needs no network. Must not import torch.

All that is read of runs may be a stranger's: text is escaped, pictures are PNG files of bounded size, and the page's own
security policy lets no script run but its own.
"""

from __future__ import annotations

import base64
import hashlib
import math
import os
import shlex
import string
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import quote

from gan_cli import __version__, cli
from gan_cli.comparing import charts
from gan_cli.comparing.charts import STYLES, Curve, finite
from gan_cli.comparing.records import Column, Comparison, Evaluation, Group, Run, Summary
from gan_cli.errors import OutputError, of_system
from gan_cli.files import read_file, write_file

PICTURE_LIMIT = 2 * 2**20  # bytes of a file
PICTURES_LIMIT = 6 * 2**20  # of all of a page; a third more as base64
PICTURE_SIDE = 4096  # pixels
CONFIG_LIMIT, CONFIGS_LIMIT = 2**18, 2**20  # bytes of a config.yaml, and of all in a page
MOST_CHARTS = 12  # of training scalars
MOST_PICTURES = 24  # of other seeds
SHARES = (0.25, 0.5, 1.0)  # of the images that all groups have seen: where their samples are put side by side
# Training scalars that say most come first; others follow by name.
SCALARS = ("d/loss", "g/loss", "d/wasserstein", "d/real", "d/fake", "d/accuracy", "d/grad_norm", "g/grad_norm")
OWN = frozenset({"seed", "run_dir"})  # of each run, whatever is compared
ENDED = ("failed", "diverged", "pruned")


def write(comparisons: list[Comparison], path: Path, title: str | None = None) -> None:
    """Write the page, whole or not at all.

    Args:
        comparisons: a chapter each, in this order. title: of the page; None: what there is to see.

    Raises:
        OutputError: it cannot be written there.
        DiskError: the disk is full.
    """
    text = page(comparisons, path, title)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, text)
    except OSError as error:
        todo = "Name a file in a folder that can be written"
        raise of_system(error, str(path)) or OutputError(
            f"the page cannot be written: {error.strerror}", str(path), todo
        ) from error


@dataclass
class Room:
    """What a page still has room for, and where it will lie, for links."""

    folder: Path
    pictures: int = PICTURES_LIMIT
    configs: int = CONFIGS_LIMIT

    def link(self, path: Path) -> str:
        """A relative URL, which never begins with a scheme."""
        return "./" + quote(os.fsencode(os.path.relpath(path.absolute(), self.folder)))

    def picture(self, path: Path) -> tuple[str, int, int] | None:
        """A PNG file as a data: URI, its width and height in pixels; None if it is none, too large, or the page is full."""
        try:
            content = read_file(path, min(PICTURE_LIMIT, self.pictures))
        except OSError:
            return None
        width, height = int.from_bytes(content[16:20]), int.from_bytes(content[20:24])
        if content[:8] != b"\x89PNG\r\n\x1a\n" or not (0 < width <= PICTURE_SIDE and 0 < height <= PICTURE_SIDE):
            return None
        self.pictures -= len(content)
        return f"data:image/png;base64,{base64.b64encode(content).decode()}", width, height

    def config(self, run: Run) -> str | None:
        """The text of ``config.yaml``, or what is known of it; None if the page is full."""
        try:
            text = read_file(run.path / "config.yaml", CONFIG_LIMIT).decode("utf-8", "replace")
        except OSError:
            text = "\n".join(f"{key}: {value}" for key, value in run.config.items())
        self.configs -= len(text)
        return text if self.configs >= 0 else None


@dataclass(frozen=True)
class Named:
    """A group, and what it is called and drawn as everywhere in its chapter: a letter, and a style if it is among the first."""

    group: Group
    letter: str
    style: int | None

    @property
    def badge(self) -> str:
        """The letter, as HTML."""
        return f'<span class="letter">{self.letter}</span>'

    @property
    def html(self) -> str:
        """Letter and name, as HTML."""
        return self.badge + text_of(self.group.name)


def named(comparison: Comparison) -> list[Named]:
    """The groups in their order."""
    return [Named(group, letter(k), k if k < STYLES else None) for k, group in enumerate(comparison.groups)]


def letter(k: int) -> str:
    """A, B, ..., Z, AA, AB, ..."""
    rest, last = divmod(k, 26)
    return (letter(rest - 1) if rest else "") + string.ascii_uppercase[last]


def text_of(value: object, most: int = 2000) -> str:
    """Any text for HTML: escaped, and what does not print (or turns the direction of writing) as its code; lines stay."""
    text = str(value)
    text = text if len(text) <= most else text[:most] + " ..."
    return escape("".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in text))


def count(n: int, thing: str) -> str:
    """``1 run``, ``2 runs``, ``1,000 images``."""
    return f"{n:,} {thing}{'' if n == 1 or thing.endswith('s') else 's'}"


def listed(items: Sequence[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    return " and ".join([", ".join(items[:-1]), items[-1]] if len(items) > 1 else items)


def spread(mean: float, std: float | None) -> str:
    """``12.3 ± 0.45``: the spread in two digits, the mean in as many decimals."""
    if std is None or not math.isfinite(std) or std == 0:
        return charts.number(mean) + (" ± 0" if std == 0 else "")
    digits = min(max(0, 1 - math.floor(math.log10(std))), 8)
    return f"{mean:,.{digits}f} ± {std:,.{digits}f}".replace("-", "−")


def duration(seconds: float) -> str:
    """``45 s``, ``3 min 20 s``, ``2 h 05 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def page(comparisons: list[Comparison], path: Path, title: str | None = None) -> str:
    """All of the file that will lie at ``path``."""
    room = Room(path.absolute().parent)
    room_each = PICTURES_LIMIT // max(1, len(comparisons))
    runs = sum(len(comparison.runs) for comparison in comparisons)
    title = title or f"Comparison of {count(runs, 'run')}"
    chapters = []
    for k, comparison in enumerate(comparisons):
        room.pictures = room_each
        chapters.append(_chapter(comparison, f"c{k + 1}", room))
    css, script = (resources.files("gan_cli.comparing").joinpath(f"page.{kind}").read_text("utf-8") for kind in ("css", "js"))
    allowed = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{allowed}'; base-uri 'none'"
    contents = "".join(f'<li><a href="#c{k + 1}">{text_of(c.title)}</a></li>' for k, c in enumerate(comparisons))
    apart = "<p>Results of different data sets or protocols cannot be compared; each has a chapter of its own.</p>"
    chapter_list = f'{apart}<nav aria-label="Chapters"><ul>{contents}</ul></nav>' if len(comparisons) > 1 else ""
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
{chapter_list}
</header>
<main>
{"".join(chapters) or "<p>There is nothing to compare.</p>"}
</main>
<footer>Written by gan-compare of gan_cli {__version__}. <em>Images</em> are real images shown to the discriminator; a
<em>step</em> is one update of the generator.</footer>
<script>{script}</script>
</body>
</html>
"""


def _chapter(comparison: Comparison, ident: str, room: Room) -> str:
    groups = named(comparison)
    sections = [
        ("differs", "What differs", _differs(comparison, groups)),
        ("metrics", "Metrics", _metrics(comparison, groups)),
        ("curves", "Curves", _curves(comparison, groups)),
        ("time", "Quality against time", _against_time(comparison, groups)),
        ("samples", "Samples at equal images seen", _samples(groups, room)),
        ("runs", "Runs", _runs(comparison, groups, ident, room)),
    ]
    sections = [section for section in sections if section[2]]
    links = "".join(f'<li><a href="#{ident}-{key}">{name}</a></li>' for key, name, _ in sections)
    notes = "".join(f"<li>{text_of(note)}</li>" for note in comparison.notes)
    states = listed(_states(comparison.runs))
    answer = " ".join(text_of(sentence) for sentence in headline(comparison))
    size = f"{count(len(groups), 'group')}, {count(len(comparison.runs), 'run')}: {states}."
    body = "".join(
        f'<section aria-labelledby="{ident}-{key}">\n<h3 id="{ident}-{key}">{name}</h3>\n{text}\n</section>\n'
        for key, name, text in sections
    )
    return f"""<section aria-labelledby="{ident}">
<h2 id="{ident}">{text_of(comparison.title)}</h2>
<p class="answer">{answer}</p>
<p class="soft">{size}</p>
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
    value = f"{column.name} {spread(best.mean, best.std)} over {count(best.n, 'seed')}"
    lost = len(comparison.groups) - len(ranked)
    without = [f"{count(lost, 'group')} of {len(comparison.groups)} {'has' if lost == 1 else 'have'} no value."] if lost else []
    if len(ranked) == 1:
        return [f"{group.name}: {value}.", *without]
    if not column.better:
        return [f"{column.name} has no better or worse; {len(ranked)} groups have a value.", *without]
    first = f"{group.name} has the {_superlative(column.better)} {column.name}: {spread(best.mean, best.std)} over {count(best.n, 'seed')}."
    return [first, *_support(ranked[1:], best), *without]


def _superlative(better: str) -> str:
    if better.startswith("near"):
        return f"value nearest to {better.split()[-1]} of"
    return {"lower": "lowest", "higher": "highest"}.get(better, "best")


def _support(others: list[tuple[Group, Summary]], best: Summary) -> list[str]:
    """Sentences on what the seeds say of the difference to each other group."""
    worse = [group for group, summary in others if summary.verdict == "worse"]
    open_ = [(group, summary) for group, summary in others if summary.verdict == "unsupported"]
    silent = len(others) - len(worse) - len(open_)
    sentences = []
    if silent == len(others):
        alone = "There is one seed of it" if best.n == 1 else "There is one seed of each other group"
        return [f"{alone}: whether other seeds would give the same order is not known."]
    if worse and len(worse) == len(others):
        sentences.append(
            "The seeds support that the other group is worse."
            if len(others) == 1
            else f"The seeds support that all {len(others)} other groups are worse."
        )
    elif worse:
        sentences.append(
            f"The seeds support that {len(worse)} of {len(others)} other groups {'is' if len(worse) == 1 else 'are'} worse."
        )
    if open_:
        names = [f"{group.name}{f' (p = {summary.p:.2g})' if summary.p is not None else ''}" for group, summary in open_]
        shown = listed(names[:3]) if len(names) <= 3 else f"{', '.join(names[:3])} and {len(names) - 3} more"
        sentences.append(f"They do not tell it from {shown}." if worse else f"The seeds do not tell it from {shown}.")
    if silent:
        sentences.append(f"Of {count(silent, 'group')} nothing can be said, for lack of seeds.")
    return sentences


def _differs(comparison: Comparison, groups: list[Named]) -> str:
    runs = comparison.runs
    shared, other = _settings(comparison)
    parts = []
    if len(groups) > 1 and comparison.varied:
        heads = "".join(f'<th scope="col">{text_of(key)}</th>' for key in comparison.varied)
        rows = "".join(
            f'<tr><th scope="row">{one.badge}<span class="some">{text_of(_seeds(one.group))}</span></th>'
            + "".join(f'<td class="value">{text_of(_setting(one.group, key))}</td>' for key in comparison.varied)
            + "</tr>"
            for one in groups
        )
        parts.append(
            f'<div class="box" tabindex="0" role="group" aria-label="What differs"><table class="sortable"><thead><tr>'
            f'<th scope="col">group</th>{heads}</tr></thead><tbody>{rows}</tbody></table></div>'
        )
    else:
        parts.append("<p>Nothing but the seed.</p>" if len(runs) > 1 else "<p>There is one run.</p>")
    if other and len(groups) > 1:
        few = groups[:STYLES]
        heads = "".join(f'<th scope="col">{one.letter}</th>' for one in few)
        rows = "".join(
            f'<tr><th scope="row">{text_of(key)}</th>'
            + "".join(f'<td class="value">{text_of(_setting(one.group, key), 200)}</td>' for one in few)
            + "</tr>"
            for key in other
        )
        more = f"<p class='note'>The first {len(few)} groups.</p>" if len(groups) > len(few) else ""
        parts.append(
            f"<details><summary>What differs with it ({len(other)})</summary>{more}"
            f'<div class="box" tabindex="0" role="group" aria-label="What differs with it"><table><thead><tr>'
            f'<th scope="col">setting</th>{heads}</tr></thead><tbody>{rows}</tbody></table></div></details>'
        )
    if shared:
        parts.append(
            f'<details class="bulky"><summary>What all runs share ({len(shared)})</summary>{_facts(shared, "setting")}</details>'
        )
    return "\n".join(parts)


def _facts(facts: dict[str, Any], head: str) -> str:
    rows = "".join(
        f'<tr><th scope="row">{text_of(key)}</th><td class="value">{text_of(value, 500)}</td></tr>'
        for key, value in facts.items()
    )
    return (
        f'<div class="box" tabindex="0" role="group" aria-label="{head}s"><table><thead><tr><th scope="col">{head}</th><th scope="col">value</th></tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


def _seeds(group: Group) -> str:
    seeds = sorted({run.seed for run in group.runs})
    return f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds[:8]))}{' ...' if len(seeds) > 8 else ''}"


def _setting(group: Group, key: str) -> str:
    """A setting of a group; ``-`` where it has none."""
    if key in group.settings:
        return group.settings[key]
    values = list(dict.fromkeys(str(run.config[key]) for run in group.runs if key in run.config))
    return " or ".join(values[:3]) or "-"


def _settings(comparison: Comparison) -> tuple[dict[str, Any], list[str]]:
    """What all runs share, and the keys of what differs beside what is compared."""
    runs = comparison.runs
    keys = sorted({key for run in runs for key in run.config} - OWN)
    shared, other = {}, []
    for key in keys:
        values = {str(run.config.get(key, "")) for run in runs}
        if len(values) == 1:
            shared[key] = runs[0].config[key]
        elif key not in comparison.varied:
            other.append(key)
    return shared, other


def _column_head(column: Column, direction: bool = True) -> str:
    better = (
        f"<small>{text_of(column.better)} is better</small>" if column.better and not column.better.startswith("near") else ""
    )
    better = better or (f"<small>{text_of(column.better)}</small>" if column.better else "")
    first = ' data-first="descending"' if column.better == "higher" else ""
    return f'<th scope="col" class="number"{first}>{text_of(column.name)}{better if direction else ""}</th>'


def _best(comparison: Comparison, column: Column) -> float | None:
    """The best mean of a column, if there are two to choose from."""
    means = [group.summaries[column.name].mean for group in comparison.groups if column.name in group.summaries]
    if len(means) < 2 or not column.better:
        return None
    if column.better.startswith("near"):
        goal = float(column.better.split()[-1])
        return min(means, key=lambda mean: abs(mean - goal))
    return max(means) if column.better == "higher" else min(means)


def _cell(summary: Summary | None, best: float | None, seeds: int) -> str:
    if summary is None:
        return '<td class="number some" data-value="">-</td>'
    marks = []
    if summary.verdict == "unsupported":
        marks.append('<abbr class="mark-text" title="the seeds do not tell it from the best">≈</abbr>')
    if summary.n != seeds:
        marks.append(f'<span class="some">n = {summary.n}</span>')
    kind = "number best" if summary.mean == best else "number"
    return f'<td class="{kind}" data-value="{summary.mean!r}">{spread(summary.mean, summary.std)}{"".join(f" {mark}" for mark in marks)}</td>'


def _against(summary: Summary | None, first: bool) -> str:
    """Whether the seeds support that a group is worse than the best."""
    if summary is None:
        return "no value"
    if first:
        return "best mean"
    p = f", p = {summary.p:.2g}" if summary.p is not None else ""
    return {"worse": f"worse{p}", "unsupported": f"not told apart{p}"}.get(summary.verdict, "too few seeds")


def _metrics(comparison: Comparison, groups: list[Named]) -> str:
    columns = comparison.columns
    if not columns:
        return "<p>No run has a value.</p>"
    best = {column.name: _best(comparison, column) for column in columns}
    by = next((column for column in columns if column.name == comparison.sort_by), None)
    judged = by is not None and best[by.name] is not None
    rows = []
    for k, one in enumerate(groups):
        group = one.group
        lost = [state for state in _states(group.runs) if not state.endswith(" complete")]
        state = f'{len(group.runs)}{f"""<br><span class="warn">{text_of(", ".join(lost))}</span>""" if lost else ""}'
        verdict = f"<td>{_against(group.summaries.get(comparison.sort_by), k == 0)}</td>" if judged else ""
        cells = "".join(_cell(group.summaries.get(column.name), best[column.name], len(group.runs)) for column in columns)
        rows.append(
            f'<tr><th scope="row" class="name">{one.html}</th><td class="number" data-value="{len(group.runs)}">{state}</td>{cells}{verdict}</tr>'
        )
    heads = "".join(_column_head(column) for column in columns)
    verdict = f'<th scope="col">{text_of(comparison.sort_by)} against the best</th>' if judged else ""
    legend = "Mean ± standard deviation (n - 1) over seeds; best mean in bold. "
    if any(summary.verdict == "unsupported" for group in comparison.groups for summary in group.summaries.values()):
        legend += "≈: the seeds do not tell it from the best (Welch's t test, p values corrected by Holm). "
    evaluated = [column for column in columns if column.protocol_id]
    if evaluated:
        which = {"last": "the last evaluation", "best": "the best evaluation"}.get(
            comparison.at, f"the evaluation at {comparison.at} images"
        )
        legend += f"Of each run {which} counts."
    else:
        legend += "From training rows: no run was evaluated."
    return (
        f'<div class="box" tabindex="0" role="group" aria-label="Metrics"><table class="sortable wide"><thead><tr><th scope="col">group</th>'
        f'<th scope="col" class="number">runs</th>{heads}{verdict}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>\n'
        f'<p class="note">{legend}</p>\n{_protocols(comparison, evaluated)}'
    )


def _protocols(comparison: Comparison, columns: list[Column]) -> str:
    parts = []
    for ident in dict.fromkeys(column.protocol_id for column in columns):
        found = (e for run in comparison.runs for e in run.evaluations if e.protocol_id == ident)
        evaluation = next(found, None)
        if evaluation is not None:
            names = ", ".join(column.name for column in columns if column.protocol_id == ident)
            parts.append(
                f'<details class="bulky"><summary>How {text_of(names)} {"was" if "," not in names else "were"} measured: protocol {text_of(ident)}</summary>'
                f"{_facts(evaluation.protocol, 'fact')}</details>"
            )
    return "".join(parts)


def _evaluations(run: Run, column: Column) -> list[Evaluation]:
    return [e for e in run.evaluations if e.protocol_id == column.protocol_id and column.name in e.metrics]


def _at_step(run: Run, step: int, key: str) -> float:
    """Images seen or seconds trained at a step: of its row, or in proportion from the next one; NaN if there is no row."""
    rows = [row for row in run.rows if math.isfinite(finite(row.get(key)))]
    row = next((row for row in rows if row["step"] >= step), rows[-1] if rows else None)
    if row is None or not row["step"]:
        return math.nan
    return finite(row[key]) * (1.0 if row["step"] == step else step / row["step"])


def _series(run: Run, column: Column, x: str) -> dict[int, tuple[float, float]]:
    """Step -> (x, value). ``x``: ``images`` or ``time/elapsed``."""
    if not column.protocol_id:
        found = [(row["step"], finite(row.get(x)), finite(row[column.name])) for row in run.rows if column.name in row]
    elif x == "images":
        found = [(e.step, float(e.images), finite(e.metrics[column.name])) for e in _evaluations(run, column)]
    else:
        found = [(e.step, _at_step(run, e.step, x), finite(e.metrics[column.name])) for e in _evaluations(run, column)]
    return {step: (at, value) for step, at, value in sorted(found) if math.isfinite(at)}


def _lines(groups: list[Named], column: Column, x: str) -> list[Curve]:
    curves = []
    for one in groups:
        runs = [(run, _series(run, column, x)) for run in one.group.runs]
        ends = [series[max(series)] for run, series in runs if series and run.state in ENDED]
        points = charts.over_seeds([series for _, series in runs])
        if points:
            curves.append(Curve(one.letter, f"{one.letter} {one.group.name}", one.style, points, ends))
    return curves


def _described(column: Column, curves: list[Curve], x_label: str) -> str:
    """What a chart shows, for who cannot see it."""
    ends = [(curve, [point for point in curve.points if point.n]) for curve in curves if curve.style is not None]
    said = [f"{curve.name} ends at {charts.number(points[-1].y)}" for curve, points in ends if points]
    return f"{column.name} against {x_label}: {'; '.join(said)}"


def _figure(column: Column, curves: list[Curve], x_label: str) -> str:
    svg = charts.line_chart(curves, x_label, text_of(column.name), _described(column, curves, x_label))
    better = (
        f" <span>({text_of(column.better)}{' is better' if not column.better.startswith('near') else ''})</span>"
        if column.better
        else ""
    )
    return f"<figure><figcaption>{text_of(column.name)}{better}</figcaption>{svg}</figure>\n" if svg else ""


def _legend(groups: list[Named]) -> str:
    items = [f"<li>{charts.swatch(one.style)}<span>{one.html}</span></li>" for one in groups if one.style is not None]
    if len(groups) > STYLES:
        items.append(f"<li>{charts.swatch(None)}{count(len(groups) - STYLES, 'other')}</li>")
    return f'<ul class="legend">{"".join(items)}</ul>\n'


def _band_note(comparison: Comparison) -> str:
    said = []
    if any(len(group.runs) > 1 for group in comparison.groups):
        said.append("Lines are means over seeds, bands one standard deviation each way (of two seeds: both values).")
    if any(run.state in ENDED for run in comparison.runs):
        said.append("A cross marks where a run ended early; the mean goes on without it.")
    return f'<p class="note">{" ".join(said)}</p>\n' if said else ""


def _curves(comparison: Comparison, groups: list[Named]) -> str:
    shown = [column for column in comparison.columns if column.protocol_id]
    main, once = [], False
    for column in shown or comparison.columns:
        curves = _lines(groups, column, "images")
        if all(len(curve.points) < 2 for curve in curves):
            once = once or bool(curves)
            continue
        main.append(_figure(column, curves, "images seen"))
    logged = {key for run in comparison.runs for row in run.rows for key in row if key.startswith(("d/", "g/"))}
    logged -= {column.name for column in comparison.columns} if not shown else set()
    order = [*(key for key in SCALARS if key in logged), *sorted(logged - set(SCALARS))]
    scalars = [
        _figure(Column(key, ""), _lines(groups, Column(key, ""), "images"), "images seen") for key in order[:MOST_CHARTS]
    ]
    scalars = [figure for figure in scalars if figure]
    parts = [_legend(groups) + _band_note(comparison)] if main or scalars else []
    if main:
        parts.append(f'<div class="charts">{"".join(main)}</div>')
    elif once:
        parts.append('<p class="note">Each run was evaluated once; eval_every= gives curves.</p>')
    if scalars:
        left = f", {len(order) - MOST_CHARTS} more are in metrics.jsonl" if len(order) > MOST_CHARTS else ""
        parts.append(
            f'<details><summary>Training scalars ({len(scalars)}{left})</summary><div class="charts">{"".join(scalars)}</div></details>'
        )
    return "\n".join(parts)


def _against_time(comparison: Comparison, groups: list[Named]) -> str:
    column = next((column for column in comparison.columns if column.name == comparison.sort_by), None)
    if column is None:
        return ""
    curves = _lines(groups, column, "time/elapsed")
    longest = max((point.x for curve in curves for point in curve.points), default=0.0)
    unit, seconds = next((u for u in (("hours", 3600.0), ("minutes", 60.0)) if longest >= 3 * u[1]), ("seconds", 1.0))
    scaled = [
        Curve(
            curve.label,
            curve.name,
            curve.style,
            [charts.Point(point.x / seconds, point.y, point.low, point.high, point.n) for point in curve.points],
            [(x / seconds, y) for x, y in curve.ends],
        )
        for curve in curves
    ]
    figure = _figure(column, scaled, f"{unit} of training")
    if not figure:
        return ""
    note = "Seconds are those of each run's own log, on the machine it ran on, evaluations while training included."
    return f'{_legend(groups)}<div class="charts large">{figure}</div>\n<p class="note">{note}</p>'


@dataclass(frozen=True)
class Picture:
    """A file of ``samples/`` and the images that had been seen by then."""

    step: int
    images: float
    path: Path


def _pictures(run: Run) -> list[Picture]:
    found = [Picture(step, _at_step(run, step, "images"), path) for step, path in sorted(run.pictures.items())]
    return [picture for picture in found if math.isfinite(picture.images)]


def _shown_run(group: Group) -> Run | None:
    """The run whose pictures stand for a group: the first seed that was completed, or the first with pictures."""
    runs = sorted((run for run in group.runs if _pictures(run)), key=lambda run: (run.state != "complete", run.seed))
    return runs[0] if runs else None


def _samples(groups: list[Named], room: Room) -> str:
    rows = [(one, run) for one in groups[:STYLES] if (run := _shown_run(one.group)) is not None]
    if not rows:
        return ""
    reached = {run.path: _pictures(run)[-1].images for _, run in rows}
    common = min([reached[run.path] for _, run in rows if run.state == "complete"] or reached.values())
    columns = _columns([_pictures(run) for _, run in rows], common)
    parts, failed = [], 0
    for one, run in rows:
        cells = []
        for goal in columns:
            picture = _nearest(_pictures(run), goal)
            if picture is None:
                cells.append(f'<div class="none">none at {goal:,.0f} images: it has seen {reached[run.path]:,.0f}</div>')
                continue
            figure = _grid(one, run, picture, room)
            failed += not figure
            cells.append(figure or '<div class="none">left out: not a PNG file, or the page is full</div>')
        parts.append(
            f'<h4>{one.html} <span class="soft">seed {run.seed}</span></h4>\n<div class="samples c{len(columns)}">{"".join(cells)}</div>\n'
        )
    others, left = _other_seeds(groups, [run for _, run in rows], room)
    said = [
        f"Columns are {listed([f'{goal:,.0f}' for goal in columns])} images, the nearest picture of each run, the same latents throughout."
    ]
    if len(groups) > STYLES:
        said.append(f"The first {STYLES} of {len(groups)} groups.")
    return f'<p class="note">{" ".join(said)}</p>\n{"".join(parts)}{others}{left}'


def _columns(runs: list[list[Picture]], common: float) -> list[float]:
    """The numbers of images to show: shares of what all have reached, without those that would show the same pictures."""
    goals: dict[tuple[Path | None, ...], float] = {}
    for share in SHARES:
        nearest = [_nearest(pictures, share * common) for pictures in runs]
        if any(nearest):
            goals[tuple(picture and picture.path for picture in nearest)] = share * common
    return list(goals.values()) or [common]


def _nearest(pictures: list[Picture], images: float) -> Picture | None:
    """The picture made nearest to a number of images, if it is within a quarter of it."""
    nearest = min(pictures, key=lambda picture: abs(picture.images - images))
    return nearest if abs(nearest.images - images) <= 0.25 * images else None


def _grid(one: Named, run: Run, picture: Picture, room: Room) -> str:
    embedded = room.picture(picture.path)
    if embedded is None:
        return ""
    uri, width, height = embedded
    where = f"{picture.images:,.0f} images (step {picture.step:,})"
    alt = f"Samples of {one.group.name}, seed {run.seed}, after {where}"
    return (
        f'<figure><img src="{uri}" width="{width}" height="{height}" alt="{text_of(alt)}">'
        f"<figcaption>{where}</figcaption></figure>"
    )


def _other_seeds(groups: list[Named], shown: list[Run], room: Room) -> tuple[str, str]:
    """The last pictures of the other runs, folded, and a line about those that there was no room for."""
    paths = {run.path for run in shown}
    rest = [
        (one, run)
        for one in groups
        for run in sorted(one.group.runs, key=lambda run: run.seed)
        if run.path not in paths and _pictures(run)
    ]
    figures, left = [], 0
    for one, run in rest:
        figure = _grid(one, run, _pictures(run)[-1], room) if len(figures) < MOST_PICTURES else ""
        left += not figure
        if figure:
            label = f"{one.badge}seed {run.seed}{f', {text_of(run.state)}' if run.state != 'complete' else ''}, "
            figures.append(figure.replace("<figcaption>", f"<figcaption>{label}", 1))
    fold = (
        f'<details><summary>Last pictures of other seeds ({len(figures)})</summary><div class="samples c4">{"".join(figures)}</div></details>'
        if figures
        else ""
    )
    line = (
        f'<p class="note">{count(left, "picture")} of other seeds left out, to keep this file small; they are in samples/ of each run.</p>'
        if left
        else ""
    )
    return fold, line


def _runs(comparison: Comparison, groups: list[Named], ident: str, room: Room) -> str:
    heads = "".join(_column_head(column, False) for column in comparison.columns)
    rows, folds, number = [], [], 0
    for one in groups:
        for run in sorted(one.group.runs, key=lambda run: run.seed):
            number += 1
            key = f"{ident}-run-{number}"
            rows.append(_run_row(comparison, one, run, key, room))
            folds.append(_run_fold(one, run, key, room))
    return (
        f'<div class="box" tabindex="0" role="group" aria-label="Runs"><table class="sortable wide"><thead><tr><th scope="col">group</th><th scope="col" class="number">seed</th>'
        f'<th scope="col">state</th><th scope="col" class="number">step</th><th scope="col" class="number">images</th><th scope="col" class="number">time</th>{heads}'
        f'<th scope="col">files</th></tr></thead><tbody>{"".join(rows)}</tbody></table></div>\n'
        f"<h4>Commands and configs</h4>\n{''.join(folds)}"
    )


def _run_row(comparison: Comparison, one: Named, run: Run, key: str, room: Room) -> str:
    values = [
        one.group.summaries[column.name].values.get(run.path.name) if column.name in one.group.summaries else None
        for column in comparison.columns
    ]
    cells = "".join(
        f'<td class="number" data-value="{value!r}">{charts.number(value)}</td>'
        if value is not None
        else '<td class="number some" data-value="">-</td>'
        for value in values
    )
    state = "" if run.state == "complete" else ' class="warn"'
    step = f"{run.step:,}" + (f" of {run.total_steps:,}" if run.step != run.total_steps else "")
    return (
        f'<tr><th scope="row"><a href="#{key}">{one.letter}<span class="some"> {text_of(run.path.name)}</span></a></th>'
        f'<td class="number" data-value="{run.seed}">{run.seed}</td><td{state}>{text_of(run.state)}</td>'
        f'<td class="number" data-value="{run.step}">{step}</td><td class="number" data-value="{run.images}">{run.images:,}</td>'
        f'<td class="number" data-value="{run.seconds!r}">{duration(run.seconds)}</td>{cells}'
        f'<td><a href="{room.link(run.path / "config.yaml")}">config</a> <a href="{room.link(run.path)}/">directory</a></td></tr>'
    )


def _run_fold(one: Named, run: Run, key: str, room: Room) -> str:
    again = shlex.join(["gan-train", cli.override("from_run", run.path), cli.override("run_dir", f"{run.path}-again")])
    parts = [f'<p class="warn">{text_of(run.message)}</p>' if run.message else ""]
    if run.command:
        where = f" in {text_of(run.cwd)}" if run.cwd else ""
        parts.append(
            f"<p class='note'>Made by, typed{where}:</p>{_command(run.command)}"
            if where
            else f"<p class='note'>Made by:</p>{_command(run.command)}"
        )
    else:
        parts.append("<p class='note'>The command that made it was not recorded.</p>")
    parts.append(f"<p class='note'>To make it again:</p>{_command(again)}")
    text = room.config(run)
    if text is None:
        parts.append("<p class='note'>Its config is left out, to keep this file small.</p>")
    else:
        parts.append(
            f'<details class="bulky"><summary>config.yaml</summary><pre tabindex="0"><code>{text_of(text, CONFIG_LIMIT)}</code></pre></details>'
        )
    return f'<details class="run" id="{key}"><summary>{one.badge}seed {run.seed} <span class="some">{text_of(run.path)}</span></summary><div>{"".join(parts)}</div></details>\n'


def _command(command: str) -> str:
    return f'<div class="command"><pre><code>{text_of(command)}</code></pre></div>'
