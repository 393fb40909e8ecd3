"""A comparison as one HTML file that needs no network: ``page.html.j2``, rendered by Jinja2.

Jinja2 escapes all text of runs, pictures are PNG files of bounded size, and the page's security policy allows no script.
"""

from __future__ import annotations

import math
import os
import re
import shlex
import string
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from gan_cli.comparing import charts, samples
from gan_cli.comparing.charts import STYLES, Curve, Named
from gan_cli.comparing.gather import plural
from gan_cli.comparing.groups import lost_states
from gan_cli.comparing.records import Column, Comparison, Group, Summary
from gan_cli.comparing.text import mark, measured, plain, run_value, training
from gan_cli.system.errors import OutputError, failing_as
from gan_cli.system.files import write_output
from gan_cli.system.text import clock, number, word
from gan_cli.system.version import __version__

MAX_CHARTS = 12  # charts of training scalars
# Training scalars by importance; others follow in alphabetical order.
SCALARS = ("d/loss", "g/loss", "d/wasserstein", "d/real", "d/fake", "d/accuracy", "d/grad_norm", "g/grad_norm")


def write(comparisons: list[Comparison], path: Path, title: str | None = None) -> None:
    """Write the page atomically.

    Args:
        comparisons: chapters of the page. title: of the page; by default the number of runs and the compared settings.

    Raises:
        OutputError: the file cannot be written. DiskError: the disk is full.
    """
    content = page(comparisons, path, title or title_of(comparisons))
    with failing_as(OutputError, "the page cannot be written", str(path), "Name a file in a folder that can be written"):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_output(path, content)


def page(comparisons: list[Comparison], path: Path, title: str) -> str:
    """Return the content of the file at ``path``, which has relative links to the runs."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup, escape

    environment = Environment(
        loader=PackageLoader("gan_cli.comparing", ""), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
        finalize=lambda value: value if isinstance(value, Markup) else plain(value, keep="\n"),
    )  # fmt: skip

    def breaks(name: str) -> Markup:  # allows line breaks after punctuation
        return Markup(re.sub("([=_/,])", r"\1<wbr>", str(escape(plain(name)))))

    folder = path.absolute().parent
    environment.filters |= {"number": number, "clock": clock, "plural": plural, "breaks": breaks}
    environment.filters |= {"link": lambda run: "./" + quote(os.fsencode(os.path.relpath(run.path.absolute(), folder)))}
    chapters = [chapter(one, f"c{k}", len(comparisons)) for k, one in enumerate(comparisons, 1)]
    swatches = {style: charts.swatch(style) for style in {one.style for each in chapters for one in each["groups"]}}
    return environment.get_template("page.html.j2").render(
        title=title, chapters=chapters, swatches=swatches, version=__version__, joined=joined, STYLES=STYLES
    )


def title_of(comparisons: Sequence[Comparison]) -> str:
    """Return ``Comparison of 20 runs by loss``."""
    keys = list(dict.fromkeys(key for comparison in comparisons for key in compared(comparison)))
    runs = plural(sum(len(comparison.runs) for comparison in comparisons), "run")
    return f"Comparison of {runs}{f' by {joined(keys)}' if 0 < len(keys) <= 3 else ''}"


def chapter(comparison: Comparison, ident: str, chapters: int) -> dict[str, Any]:
    """Return the variables of the template for a comparison."""
    groups = [Named(group, letter(k), k if k < STYLES else None) for k, group in enumerate(comparison.groups)]
    shared, others = settings(comparison)
    sorted_by = next((column for column in comparison.columns if column.name == comparison.sort_by), None)
    complete = sum(run.state == "complete" for run in comparison.runs)
    return {
        "ident": ident,
        "comparison": comparison,
        "groups": groups,
        "answer": answer(comparison, sorted_by),
        "states": [*([f"{complete} complete"] if complete else []), *lost_states(comparison.runs)],
        "compared": compared(comparison),
        "setting": setting,
        "seeds": {one.letter: sorted({run.seed for run in one.group.runs}) for one in groups},
        "shared": shared,
        "others": others,
        "columns": sorted(comparison.columns, key=lambda column: column is not sorted_by),
        "metrics": [(one, lost_states(one.group.runs), _cells(comparison, one.group)) for one in groups],
        "explained": explained(comparison),
        "protocols": _protocols(comparison),
        **_curves(comparison, groups, ident),
        "time": _against_time(sorted_by, groups, ident),
        "samples": samples.section(groups, samples.Room(samples.MAX_PICTURES_BYTES // chapters)),
        "runs": [
            {
                "group": one,
                "run": run,
                "values": [run_value(one.group, run, column.name) for column in comparison.columns],
                "measured": [f"{e.images:,}" for e in measured(one.group, run)],
                "command": training(run),
                "again": shlex.join(["gan-train", word("from_run", run.path), word("run_dir", f"again/{run.path.name}")]),
            }
            for one in groups
            for run in sorted(one.group.runs, key=lambda run: run.seed)
        ],
    }


def letter(k: int) -> str:
    """Return A, B, ..., Z, AA, AB, ..."""
    rest, last = divmod(k, 26)
    return (letter(rest - 1) if rest else "") + string.ascii_uppercase[last]


def joined(items: Sequence[str]) -> str:
    """Return ``a``, ``a and b``, ``a, b and c``."""
    return " and ".join([", ".join(items[:-1]), items[-1]] if len(items) > 1 else items)


def spread(mean: float, std: float | None) -> str:
    """Return ``12.34 ± 0.45``: the spread with two digits, the mean with as many decimals."""
    if not std:
        return number(mean) + (" ± 0" if std == 0 else "")
    digits = min(max(0, 1 - math.floor(math.log10(std))), 8)
    return f"{mean:,.{digits}f} ± {std:,.{digits}f}"


def answer(comparison: Comparison, column: Column | None) -> list[str]:
    """Return sentences: the best group, and how well the seeds support it."""
    if column is None:
        return ["No run has a value to compare by."]
    ranked = [(group, group.summaries[column.name]) for group in comparison.groups if column.name in group.summaries]
    if not ranked:
        return [f"No run has a value of {column.name}."]
    group, best = ranked[0]
    value = f"{spread(best.mean, best.std)} over {plural(best.n, 'seed')}"
    lost = len(group.runs) - best.n
    after = [f"Without a value: {lost} of its {len(group.runs)} runs."] if lost > 0 else []
    if len(ranked) == 1:
        first = f"{group.name}: {column.name} {value}."
    elif not column.better:
        first, after = f"{column.name} has no direction: {len(ranked)} groups have a value.", []
    else:
        first = f"{group.name} has the {'lowest' if column.better == 'lower' else 'highest'} {column.name}: {value}."
        after += _support(ranked[1:], best)
    if len(ranked) < len(comparison.groups):
        after.append(f"Without a value: {len(comparison.groups) - len(ranked)} of {len(comparison.groups)} groups.")
    return [first, *after]


def _support(others: Sequence[tuple[Group, Summary]], best: Summary) -> list[str]:
    """Return sentences about the differences to the other groups."""
    worse = sum(summary.verdict == "worse" for _, summary in others)
    untested = sum(summary.p is None and 1 in (summary.n, best.n) for _, summary in others)
    if untested == len(others):
        return [f"No test is possible: {'it' if best.n == 1 else 'each other group'} has one seed."]
    close = [
        group.name + (f" (p = {summary.p:.2g})" if summary.p is not None else "")
        for group, summary in others
        if summary.verdict == "unsupported" and not (summary.p is None and 1 in (summary.n, best.n))
    ]
    sentences = [f"The seeds support that it is better than {worse} of {plural(len(others), 'other group')}."] if worse else []
    if close:
        names = close if len(close) <= 3 else [*close[:3], f"{len(close) - 3} more"]
        sentences.append(f"The seeds do not separate it from {joined(names)}.")
    if untested:
        sentences.append(f"Not tested, with one seed: {plural(untested, 'group')}.")
    return sentences


def compared(comparison: Comparison) -> list[str]:
    """Return the keys in the names of the groups, or else all that differ."""
    return list(dict.fromkeys(key for group in comparison.groups for key in group.settings)) or comparison.varied


def settings(comparison: Comparison) -> tuple[dict[str, Any], list[str]]:
    """Return the settings that all runs share, and the keys of further differences between runs."""
    runs = comparison.runs
    shared, others = {}, []
    for key in sorted({key for run in runs for key in run.config} - {"seed", "run_dir"}):
        if len({str(run.config.get(key, "")) for run in runs}) == 1:
            shared[key] = runs[0].config.get(key, "")
        elif key not in compared(comparison):
            others.append(key)
    return shared, others


def setting(group: Group, key: str) -> str:
    """Return the value of a setting in a group, or ``-``."""
    values = dict.fromkeys(str(run.config[key]) for run in group.runs if key in run.config)
    return group.settings.get(key) or " or ".join(list(values)[:3]) or "-"


def _cells(comparison: Comparison, group: Group) -> dict[str, dict[str, Any]]:
    """Return the cell of each column: mean and spread, below it p and n, and whether it is the best."""
    cells = {}
    for column in comparison.columns:
        summary = group.summaries.get(column.name)
        if summary is not None:
            tied = "≈" if summary.verdict == "unsupported" else ""
            small = [f"{tied} p = {summary.p:.2g}".strip() if summary.p is not None else tied]
            small += [f"n = {summary.n}"] if summary.n != len(group.runs) else []
            cells[column.name] = {
                "text": spread(summary.mean, summary.std),
                "small": ", ".join(filter(None, small)),
                "best": mark(comparison, group, column) == "*",
            }
    return cells


def explained(comparison: Comparison) -> str:
    """Return the caption of the table of metrics."""
    sentences = ["Mean ± standard deviation (n - 1) over seeds; the best mean is bold."]
    if any(summary.verdict for group in comparison.groups for summary in group.summaries.values()):
        sentences.append("p: Welch's t test against the best, Holm-corrected. ≈: the seeds do not separate it from the best.")
    if any(column.protocol_id for column in comparison.columns):
        which = f"the evaluation at {comparison.at} images" if comparison.at.isdecimal() else f"the {comparison.at} evaluation"
        sentences.append(f"Of each run {which} counts.")
    else:
        sentences.append("Values are training scalars: no run was evaluated.")
    return " ".join(sentences)


def _protocols(comparison: Comparison) -> list[dict[str, Any]]:
    facts = {e.protocol_id: e.protocol for run in comparison.runs for e in run.evaluations}
    names: dict[str, list[str]] = {}
    for column in comparison.columns:
        names.setdefault(column.protocol_id, []).append(column.name)
    return [{"ident": ident, "names": names[ident], "facts": facts[ident]} for ident in names if ident in facts]


def _lines(groups: Sequence[Named], column: Column, x: str) -> list[Curve]:
    curves = [charts.curve(one.group, one.letter, one.style, column, x) for one in groups]
    return [curve for curve in curves if curve is not None]


def _figure(column: Column, curves: Sequence[Curve], x_label: str, ident: str) -> dict[str, Any]:
    """Return a chart for the template, with its last values as text for screen readers."""
    ends = [f"{curve.letter} ends at {number(curve.points[-1].y)}" for curve in curves if curve.style is not None]
    described = f"{column.name} against {x_label}: {'; '.join(ends)}"
    return {"column": column, "described": described, "svg": charts.line_chart(curves, x_label, f"{ident}-{column.name}")}


def _curves(comparison: Comparison, groups: Sequence[Named], ident: str) -> dict[str, Any]:
    """Return the charts against images seen: columns of the table, and training scalars."""
    evaluated = [column for column in comparison.columns if column.protocol_id]
    lines = {column: _lines(groups, column, "images") for column in evaluated or comparison.columns}
    drawn = {column: curves for column, curves in lines.items() if any(len(curve.points) > 1 for curve in curves)}
    logged = {key for run in comparison.runs for row in run.rows for key in row if key.startswith(("d/", "g/"))}
    logged -= {column.name for column in lines}
    keys = [*(key for key in SCALARS if key in logged), *sorted(logged - set(SCALARS))]
    more = {(one := Column(key, "")): _lines(groups, one, "images") for key in keys[:MAX_CHARTS]}
    runs = [run for group in comparison.groups for run in charts.drawn_runs(group)]
    return {
        "curves": [_figure(column, curves, "images seen", ident) for column, curves in drawn.items()],
        "scalars": [_figure(column, curves, "images seen", ident) for column, curves in more.items() if curves],
        "more_scalars": max(0, len(keys) - MAX_CHARTS),
        "drawn": len(runs),
        "ended_early": any(run.state in charts.ENDED for run in runs),
        "evaluated_once": bool(evaluated) and not drawn,
    }


def _against_time(column: Column | None, groups: Sequence[Named], ident: str) -> dict[str, Any] | None:
    """Return the chart of a column against hours, minutes or seconds of training."""
    curves = _lines(groups, column, "time/elapsed") if column is not None else []
    if column is None or not curves:
        return None
    longest = max(point.x for curve in curves for point in curve.points)
    unit, seconds = next((u for u in (("hours", 3600.0), ("minutes", 60.0)) if longest >= 3 * u[1]), ("seconds", 1.0))
    for curve in curves:
        curve.points[:] = [point._replace(x=point.x / seconds) for point in curve.points]
        curve.ends[:] = [(x / seconds, y) for x, y in curve.ends]
    return _figure(column, curves, f"{unit} of training", f"{ident}-time")
