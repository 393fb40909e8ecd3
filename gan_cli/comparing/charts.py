"""Curves over seeds, drawn by matplotlib as SVG that takes its colours from the style sheet of the page."""

from __future__ import annotations

import io
import math
import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from gan_cli.comparing.records import Column, Group, RunRecord

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_POINTS = 160  # points of a line; a longer one is averaged
MAX_DRAWN = 1e30  # larger values come from a training that diverged, and leave a gap
ENDED = ("failed", "diverged", "pruned")  # states of runs whose curve ends with a cross
STYLES = 8  # groups with a colour, dash and marker; the others are thin grey lines
WIDTH, HEIGHT = 4.4, 3.0  # inches of a chart; the page scales it
LABEL_DISTANCE = 0.06  # share of the height between the letters of two lines
MARKERS, DASHES = "osD^", ("-", (0, (4, 2)), (0, (1.4, 1.4)), (0, (5, 1.6, 1.4, 1.6)))
# Colours that stand for variables of the style sheet, so that dark mode and paper have their own.
VARIABLES = [*(f"s{k}" for k in range(STYLES)), "others", "ink", "soft", "grid", "paper"]
COLOURS = {name: f"#0000{k + 1:02x}" for k, name in enumerate(VARIABLES)}


class Point(NamedTuple):
    """Several seeds at one place: their mean (NaN if no seed has a value), the bounds of the band, the number of values."""

    x: float
    y: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class Curve:
    """A line of a chart.

    Attributes:
        letter: drawn at its end. style: from 0 to ``STYLES - 1``; None: thin, grey and without a letter.
        points: from left to right. ends: (x, y) where a run ended early.
    """

    letter: str
    style: int | None
    points: list[Point]
    ends: list[tuple[float, float]] = field(default_factory=list)


def drawable(value: object) -> float:
    """Return the number if it can be drawn, else NaN: rows may come from an untrusted run."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < MAX_DRAWN:
        return math.nan
    return float(value)


def drawn_runs(group: Group, column: str = "") -> list[RunRecord]:
    """Return the runs that the table counts: in this column, or in any if the group has no value of it."""
    summaries = [group.summaries[column]] if column in group.summaries else group.summaries.values()
    paths = {path for summary in summaries for path in summary.values}
    return [run for run in group.runs if str(run.path) in paths]


def at_steps(run: RunRecord, steps: Sequence[int], key: str) -> dict[int, float]:
    """Return a column that grows from 0, such as images, at these steps: in proportion of the next row, or of the last."""
    rows = [(row["step"], value) for row in run.rows if row["step"] > 0 and math.isfinite(value := drawable(row.get(key)))]
    rows.sort()
    if not rows:
        return {}
    found = {step: next((row for row in rows if row[0] >= step), rows[-1]) for step in steps}
    return {step: value * (step / at) for step, (at, value) in found.items()}


def series(run: RunRecord, column: Column, x: str) -> dict[int, tuple[float, float]]:
    """Return (x, value) by step. ``x``: the key of the horizontal axis, ``images`` or ``time/elapsed``."""
    if not column.protocol_id:
        rows = [(row["step"], drawable(row.get(x)), drawable(row[column.name])) for row in run.rows if column.name in row]
        return {step: (at, value) for step, at, value in rows if math.isfinite(at)}
    evaluations = [e for e in run.evaluations if e.protocol_id == column.protocol_id and column.name in e.metrics]
    places = {e.step: float(e.images) for e in evaluations}
    if x != "images":
        places = at_steps(run, list(places), x)
    return {e.step: (places[e.step], drawable(e.metrics[column.name])) for e in evaluations if e.step in places}


def curve(group: Group, letter: str, style: int | None, column: Column, x: str) -> Curve | None:
    """Return the line of a group, over the runs that the table counts, or None if there is none."""
    runs = [(run, series(run, column, x)) for run in drawn_runs(group, column.name)]
    points = thinned(over_seeds([values for _, values in runs]))
    ends = [values[max(values)] for run, values in runs if values and run.state in ENDED]
    return Curve(letter, style, points, ends) if any(point.n for point in points) else None


def over_seeds(runs: Sequence[dict[int, tuple[float, float]]]) -> list[Point]:
    """Return the mean of several runs, with a band of one standard deviation (n - 1) each way; of two runs, both values.

    Only steps that all runs which are not yet over have in common make a point, or all steps if there is no such one.
    """
    runs = [run for run in runs if run]
    keys = sorted({key for run in runs for key in run})
    spans = [(run, min(run), max(run)) for run in runs]
    shared = [key for key in keys if all(key in run for run, first, last in spans if first <= key <= last)]
    points = []
    for key in shared or keys:
        there = [run[key] for run in runs if key in run]
        values = [y for _, y in there if math.isfinite(y)]
        x = statistics.fmean(x for x, _ in there)
        mean = statistics.fmean(values) if values else math.nan
        low, high = min(values, default=math.nan), max(values, default=math.nan)
        if len(values) > 2:
            spread = statistics.stdev(values)
            low, high = mean - spread, mean + spread
        points.append(Point(x, mean, low, high, len(values)))
    return points


def thinned(points: list[Point]) -> list[Point]:
    """Return at most about ``MAX_POINTS``, each the mean of neighbours."""
    size = math.ceil(len(points) / MAX_POINTS)
    if size < 2:
        return points
    parts = [points[k : k + size] for k in range(0, len(points), size)]
    parts = [[point for point in part if point.n] or part for part in parts]
    return [_mean(part) for part in parts]


def _mean(points: Sequence[Point]) -> Point:
    x, y, low, high = (statistics.fmean(point[k] for point in points) for k in range(4))
    return Point(x, y, low, high, points[0].n)


def line_chart(curves: Sequence[Curve], x_label: str, ident: str) -> str:
    """Return an ``<svg>`` of the lines. ``ident``: not that of another chart of the page, since ids in it follow from it."""
    figure, axes = _figure(ident, WIDTH, HEIGHT)
    figure.subplots_adjust(left=0.13, right=0.93, top=0.96, bottom=0.16)
    for one in sorted(curves, key=lambda one: one.style is not None):  # the grey ones lie below
        x, y, low, high, _ = zip(*one.points, strict=True)
        if one.style is None:
            axes.plot(x, y, color=COLOURS["others"], linewidth=0.8)
            continue
        axes.fill_between(x, low, high, color=COLOURS[f"s{one.style}"], alpha=0.14, linewidth=0)
        axes.plot(x, y, **_look(one.style), markevery=max(1, len(x) // 8))
        for end in one.ends:
            axes.plot(*end, marker="x", color=COLOURS[f"s{one.style}"], markersize=7, zorder=5)
    _scale(axes, [point for one in curves for point in one.points if point.n])
    axes.set_xlabel(x_label)
    _letters(axes, [one for one in curves if one.style is not None])
    return _svg(figure, ident)


def swatch(style: int | None, ident: str) -> str:
    """Return a piece of a line with its marker, for a legend."""
    figure, axes = _figure(ident, 0.4, 0.155)
    axes.set_position((0, 0, 1, 1))
    axes.axis("off")
    look = {"color": COLOURS["others"]} if style is None else _look(style)
    axes.plot([0, 1, 2], [0, 0, 0], **look, markevery=[1])
    return _svg(figure, ident)


def _look(style: int) -> dict[str, Any]:
    """A line of this style; from the fourth on the markers are hollow."""
    colour, k = COLOURS[f"s{style}"], style % 4
    face = COLOURS["paper"] if style >= 4 else colour
    return {
        "color": colour,
        "linestyle": DASHES[k],
        "marker": MARKERS[k],
        "linewidth": 1.6,
        "markersize": 4.0,
        "markerfacecolor": face,
    }


def _figure(ident: str, width: float, height: float) -> tuple[Figure, Axes]:
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    soft = COLOURS["soft"]
    look: dict[Any, Any] = {
        **{"axes.edgecolor": soft, "axes.labelcolor": soft, "xtick.color": soft, "ytick.color": soft, "text.color": soft},
        **{f"axes.spines.{side}": False for side in ("top", "left", "right")},
        **{"axes.grid": True, "axes.grid.axis": "y", "grid.color": COLOURS["grid"], "ytick.major.size": 0},
        **{"font.family": "DejaVu Sans", "font.size": 9, "axes.facecolor": "none", "axes.axisbelow": True},
    }
    with rc_context(look):
        figure = Figure((width, height), facecolor="none")
        return figure, figure.add_subplot()


def _scale(axes: Axes, points: Sequence[Point]) -> None:
    """Logarithmic for positive values over more than a factor of 20. Wide bands are cut rather than squeeze the lines."""
    from matplotlib.ticker import EngFormatter, FuncFormatter, LogLocator, MaxNLocator, NullFormatter

    least, most = min(point.y for point in points), max(point.y for point in points)
    span = most - least or abs(most) * 0.1 or 1.0
    low, high = min(point.low for point in points), max(point.high for point in points)
    if least > 0 and most / least > 20:
        axes.set_yscale("log")
        axes.set_ylim(max(low, least / 1.5) / 1.1, min(high, most * 1.5) * 1.1)
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if most / least < 1e3 else (1.0,)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.tick_params(axis="y", which="minor", size=0)
    else:
        axes.set_ylim(max(low, least - span) - 0.06 * span, min(high, most + span) + 0.06 * span)
        axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    axes.set_xlim(left=min(0.0, min(point.x for point in points)))
    axes.xaxis.set_major_locator(MaxNLocator(7, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))


def _letters(axes: Axes, curves: Sequence[Curve]) -> None:
    """A letter at the end of each line, moved where it would lie over another one."""
    to_share = axes.transData - axes.transAxes
    ends = []
    for one in curves:
        last = [point for point in one.points if point.n][-1]
        ends.append((float(to_share.transform((last.x, last.y))[1]), last.x, one.letter))
    ends.sort()
    shares = [share for share, _, _ in ends]
    for k in range(1, len(shares)):
        shares[k] = max(shares[k], shares[k - 1] + LABEL_DISTANCE)
    for k in reversed(range(len(shares))):  # back down, below the upper edge
        shares[k] = min(shares[k], 1.0 if k == len(shares) - 1 else shares[k + 1] - LABEL_DISTANCE)
    for share, (_, x, letter) in zip(shares, ends, strict=True):
        axes.annotate(
            letter, (x, share), (6, 0), xycoords=("data", "axes fraction"), textcoords="offset points", va="center",
            fontweight="bold", color=COLOURS["ink"], annotation_clip=False,
        )  # fmt: skip


def _svg(figure: Figure, ident: str) -> str:
    from matplotlib import rc_context

    file = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": ident}):
        figure.savefig(file, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    text = file.getvalue()
    width, height = (72 * inches for inches in figure.get_size_inches())
    body = text[text.index(">", text.index("<svg")) + 1 :]
    body = re.sub(r' id="[\w.]+_\d+"', "", body)  # figure_1, axes_1, ...: the same in each chart
    body = re.sub(r" font-family: [^;]*;", "", body)  # that of the page
    body = re.sub(r"#0000([0-9a-f]{2})", lambda found: f"var(--{VARIABLES[int(found[1], 16) - 1]})", body)
    body = re.sub(r' (?:d|x|y|transform)="[^"]*"', lambda found: re.sub(r"(\.\d\d)\d+", r"\1", found[0]), body)
    return f'<svg viewBox="0 0 {width:.1f} {height:.1f}" aria-hidden="true">' + re.sub(r"\s*\n\s*", " ", body)
