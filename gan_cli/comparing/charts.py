"""Curves over seeds, drawn by matplotlib as SVG that takes its colours from the style sheet of the page."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from gan_cli.comparing.records import Column, Group, RunRecord
from gan_cli.comparing.statistics import mean, std

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_POINTS = 160  # points of a line, beyond which neighbours are averaged
MAX_DRAWN = 1e30  # absolute value; a larger one leaves a gap
ENDED = ("failed", "diverged", "pruned")  # states of runs whose curve ends in a cross
STYLES = 8  # groups with a colour, dash and marker; further ones are thin grey lines
WIDTH, HEIGHT = 4.4, 3.0  # inches of a chart before the page scales it
LABEL_DISTANCE = 0.06  # minimum distance of two letters, as a fraction of the height
MARKERS, DASHES = "osD^", ("-", (0, (4, 2)), (0, (1.4, 1.4)), (0, (5, 1.6, 1.4, 1.6)))
# Placeholder colours, replaced by variables of the style sheet so that dark mode and paper have different colours.
VARIABLES = [*(f"s{k}" for k in range(STYLES)), "others", "ink", "soft", "grid", "paper"]
COLOURS = {name: f"#0000{k + 1:02x}" for k, name in enumerate(VARIABLES)}
LOOK: dict[Any, Any] = {
    **{f"{part}color": COLOURS["soft"] for part in ("axes.edge", "axes.label", "xtick.", "ytick.", "text.")},
    **{f"axes.spines.{side}": False for side in ("top", "left", "right")},
    **{"axes.grid": True, "axes.grid.axis": "y", "grid.color": COLOURS["grid"], "ytick.major.size": 0, "ytick.minor.size": 0},
    **{"font.family": "DejaVu Sans", "font.size": 9, "axes.facecolor": "none", "axes.axisbelow": True, "svg.fonttype": "none"},
    **{"figure.facecolor": "none", "lines.linewidth": 1.6, "lines.markersize": 4.0},
}


class Point(NamedTuple):
    """Mean of n seeds (NaN without a value) at one x, with the bounds of the band."""

    x: float
    y: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class Curve:
    """A line of a chart.

    Attributes:
        letter: label at the end of the line. style: 0 to ``STYLES - 1``, or None for a thin grey line without a letter.
        points: sorted by x. ends: (x, y) of runs that ended early.
    """

    letter: str
    style: int | None
    points: list[Point]
    ends: list[tuple[float, float]] = field(default_factory=list)


@dataclass(frozen=True)
class Named:
    """A group with its letter, and its style in the charts; None after the first groups."""

    group: Group
    letter: str
    style: int | None


def drawable(value: object) -> float:
    """Return a value of an untrusted run as a number that can be drawn, else NaN."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < MAX_DRAWN:
        return math.nan
    return float(value)


def drawn_runs(group: Group, column: str = "") -> list[RunRecord]:
    """Return the runs that count in the table: in this column, or in any column if the group has no value of it."""
    summaries = [group.summaries[column]] if column in group.summaries else group.summaries.values()
    paths = {path for summary in summaries for path in summary.values}
    return [run for run in group.runs if str(run.path) in paths]


def at_steps(run: RunRecord, steps: Sequence[int], key: str) -> dict[int, float]:
    """Interpolate a column that grows from 0, such as images, at these steps: proportional to the next or the last row."""
    rows = [(row["step"], value) for row in run.rows if row["step"] > 0 and math.isfinite(value := drawable(row.get(key)))]
    rows.sort()
    if not rows:
        return {}
    found = {step: next((row for row in rows if row[0] >= step), rows[-1]) for step in steps}
    return {step: value * (step / at) for step, (at, value) in found.items()}


def series(run: RunRecord, column: Column, x: str) -> dict[int, tuple[float, float]]:
    """Return (x, value) by step. ``x`` is the key of the horizontal axis, ``images`` or ``time/elapsed``."""
    if not column.protocol_id:
        rows = [(row["step"], drawable(row.get(x)), drawable(row[column.name])) for row in run.rows if column.name in row]
        return {step: (at, value) for step, at, value in rows if math.isfinite(at)}
    evaluations = [e for e in run.evaluations if e.protocol_id == column.protocol_id and column.name in e.metrics]
    places = {e.step: float(e.images) for e in evaluations}
    if x != "images":
        places = at_steps(run, list(places), x)
    return {e.step: (places[e.step], drawable(e.metrics[column.name])) for e in evaluations if e.step in places}


def curve(group: Group, letter: str, style: int | None, column: Column, x: str) -> Curve | None:
    """Return the line of a group over the runs that count in the table, or None without values."""
    runs = [(run, series(run, column, x)) for run in drawn_runs(group, column.name)]
    points = thinned(over_seeds([values for _, values in runs]))
    ends = [values[max(values)] for run, values in runs if values and run.state in ENDED]
    return Curve(letter, style, points, ends) if any(point.n for point in points) else None


def over_seeds(runs: Sequence[dict[int, tuple[float, float]]]) -> list[Point]:
    """Return the mean of several runs with a band of one standard deviation (n - 1) each way, or of both values of two runs.

    Points are at the steps that all runs have in common, except runs that begin later or ended earlier. Without any such
    step there is a point at every step.
    """
    runs = [run for run in runs if run]
    keys = sorted({key for run in runs for key in run})
    spans = [(run, min(run), max(run)) for run in runs]
    shared = [key for key in keys if all(key in run for run, first, last in spans if first <= key <= last)]
    points = []
    for key in shared or keys:
        there = [run[key] for run in runs if key in run]
        values = [y for _, y in there if math.isfinite(y)]
        center = mean(values) if values else math.nan
        low, high = min(values, default=math.nan), max(values, default=math.nan)
        if len(values) > 2:
            spread = std(values) or 0.0
            low, high = center - spread, center + spread
        points.append(Point(mean([x for x, _ in there]), center, low, high, len(values)))
    return points


def thinned(points: list[Point]) -> list[Point]:
    """Return at most ``MAX_POINTS`` points, each the mean of neighbours."""
    size = math.ceil(len(points) / MAX_POINTS)
    parts = [points[k : k + size] for k in range(0, len(points), size)] if points else []
    parts = [[point for point in part if point.n] or part for part in parts]
    columns = [list(zip(*part, strict=True)) for part in parts]
    return [Point(mean(x), mean(y), mean(low), mean(high), n[0]) for x, y, low, high, n in columns]


def line_chart(curves: Sequence[Curve], x_label: str, ident: str) -> str:
    """Return an ``<svg>`` of the lines. ``ident`` must be unique in a page, since ids in the SVG depend on it."""

    def draw(figure: Figure) -> None:
        axes = figure.add_axes((0.13, 0.16, 0.8, 0.8))
        for one in sorted(curves, key=lambda one: one.style is not None):  # the grey ones lie below
            x, y, low, high, _ = zip(*one.points, strict=True)
            look = _look(one.style)
            axes.plot(x, y, **look, markevery=max(1, len(x) // 8))
            if one.style is not None:
                axes.fill_between(x, low, high, color=look["color"], alpha=0.14, linewidth=0)
                if len(x) == 1:
                    axes.vlines(x, low, high, color=look["color"], alpha=0.35, linewidth=3)
            for end in one.ends:
                axes.plot(*end, marker="x", color=look["color"], markersize=7, zorder=5)
        _scale(axes, [point for one in curves for point in one.points if point.n])
        axes.set_xlabel(x_label)
        _letters(axes, [one for one in curves if one.style is not None])

    return _svg(draw, ident, WIDTH, HEIGHT)


def swatch(style: int | None) -> str:
    """Return an ``<svg>`` of a line with its marker, for a legend."""
    from matplotlib.lines import Line2D

    def draw(figure: Figure) -> None:
        figure.add_artist(Line2D((0, 0.5, 1), (0.5, 0.5, 0.5), **_look(style), markevery=[1]))

    return _svg(draw, f"swatch-{style}", 0.4, 0.155)


def _look(style: int | None) -> dict[str, Any]:
    """Return the properties of a line. The markers of the last four styles are hollow."""
    if style is None:
        return {"color": COLOURS["others"], "linewidth": 0.8}
    colour = COLOURS[f"s{style}"]
    face = COLOURS["paper"] if style >= 4 else colour
    return {"color": colour, "linestyle": DASHES[style % 4], "marker": MARKERS[style % 4], "markerfacecolor": face}


def _scale(axes: Axes, points: Sequence[Point]) -> None:
    """Use a logarithmic axis for positive values over more than a factor of 20. Bands wider than the lines are cut."""
    from matplotlib.ticker import EngFormatter, LogLocator

    least, most = min(point.y for point in points), max(point.y for point in points)
    span = most - least or abs(most) * 0.1 or 1.0
    low, high = min(point.low for point in points), max(point.high for point in points)
    axes.locator_params(nbins=6, steps=[1, 2, 5, 10])
    if least > 0 and most / least > 20:
        axes.set_yscale("log")
        axes.set_ylim(max(low, least / 1.5) / 1.1, min(high, most * 1.5) * 1.1)
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if most / least < 1e3 else (1.0,)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter("")
    else:
        axes.set_ylim(max(low, least - span) - 0.06 * span, min(high, most + span) + 0.06 * span)
    axes.set_xlim(left=min(0.0, min(point.x for point in points)))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))


def _letters(axes: Axes, curves: Sequence[Curve]) -> None:
    """Write a letter at the end of each line, moved where two would overlap."""
    to_share = axes.transData - axes.transAxes
    lasts = [[point for point in one.points if point.n][-1] for one in curves]
    ends = sorted((float(to_share.transform((p.x, p.y))[1]), p.x, one.letter) for p, one in zip(lasts, curves, strict=True))
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


def _svg(draw: Callable[[Figure], None], ident: str, width: float, height: float) -> str:
    """Return a drawing of ``width`` by ``height`` inches as SVG without colours, fonts or a date."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    file = io.StringIO()
    with rc_context(LOOK | {"svg.hashsalt": ident}):
        figure = Figure((width, height))
        draw(figure)
        figure.savefig(file, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    text = file.getvalue()
    body = text[text.index(">", text.index("<svg")) + 1 :]
    body = re.sub(r' id="[\w.]+_\d+"', "", body)  # figure_1, axes_1, ...: not unique in a page
    body = re.sub(r" font-family: [^;]*;", "", body)  # the page sets the font
    body = re.sub(r"#0000([0-9a-f]{2})", lambda found: f"var(--{VARIABLES[int(found[1], 16) - 1]})", body)
    body = re.sub(r' (?:d|x|y|transform)="[^"]*"', lambda found: re.sub(r"(\.\d\d)\d+", r"\1", found[0]), body)
    return f'<svg viewBox="0 0 {72 * width:.1f} {72 * height:.1f}" aria-hidden="true">' + re.sub(r"\s*\n\s*", " ", body)
