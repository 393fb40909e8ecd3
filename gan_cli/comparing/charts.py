"""Line charts over seeds as SVG that stands inside a page and takes its colours from ``page.css``."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from gan_cli.comparing.html import number, text_of
from gan_cli.comparing.records import Group, Run

MOST_POINTS = 160  # of a line; more are averaged
HUGE = 1e30  # beyond it a value is a training that blew up, not a value
WIDTH, HEIGHT = 400, 280
LEFT, RIGHT, TOP, BOTTOM = 52, 26, 12, 40  # of the plot, inside these


@dataclass(frozen=True)
class Point:
    """Seeds at one place of a line: ``y`` is their mean, NaN where no seed has a value; ``low`` and ``high`` bound the band.

    ``n``: how many seeds; with one, the bounds are ``y``.
    """

    x: float
    y: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class Curve:
    """A line of a chart.

    Attributes:
        label: a letter or two, at its end. name: said in full by the markers.
        style: colour, dash and marker, from 0; None: thin and grey, without a label.
        points: from left to right. ends: where a run of it ended early.
    """

    label: str
    name: str
    style: int | None
    points: list[Point]
    ends: list[tuple[float, float]] = field(default_factory=list)


@dataclass(frozen=True)
class Axis:
    """``low`` to ``high`` onto ``start`` to ``stop``, in units of the picture."""

    low: float
    high: float
    log: bool
    start: float
    stop: float

    def place(self, value: float) -> float:
        """Where a value lies; values outside are moved to the edge."""
        value = min(max(value, self.low), self.high)
        low, high = self.low, self.high
        if self.log:
            value, low, high = math.log10(value), math.log10(low), math.log10(high)
        return round(self.start + (value - low) / (high - low) * (self.stop - self.start), 1)

    def ticks(self) -> list[float]:
        """Round values, four to seven of them."""
        return log_ticks(self.low, self.high) if self.log else linear_ticks(self.low, self.high)


def finite(value: Any) -> float:
    """A number that can be drawn, or NaN: rows may be a stranger's."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < HUGE:
        return math.nan
    return float(value)


def counting(group: Group, column: str = "") -> list[Run]:
    """The runs of a group that the table counts: in a column, or in any if the group has no value of it."""
    found = [group.summaries[column]] if column in group.summaries else group.summaries.values()
    keys = {key for summary in found for key in summary.values}
    return [run for run in group.runs if str(run.path) in keys]


def over_seeds(runs: Sequence[dict[int, tuple[float, float]]]) -> list[Point]:
    """The mean of several runs, with a band of one standard deviation (n - 1) each way, or of both values where there are two.

    ``runs``: (x, y) of each run by what they have in common there, such as the step. Where one of the runs that are still
    going has no row, there is no point; if that leaves none, because no two runs have rows at the same steps, there is one
    for each row.
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
        if not values:
            points.append(Point(x, math.nan, math.nan, math.nan, 0))
            continue
        mean = statistics.fmean(values)
        low, high = min(values), max(values)
        if len(values) > 2:
            # As statistics.stdev, which takes five times as long for digits that nobody sees.
            spread = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))
            low, high = mean - spread, mean + spread
        points.append(Point(x, mean, low, high, len(values)))
    return points


def thinned(points: list[Point]) -> list[Point]:
    """At most about ``MOST_POINTS``: means of neighbours."""
    size = math.ceil(len(points) / MOST_POINTS)
    if size < 2:
        return points
    parts = [points[k : k + size] for k in range(0, len(points), size)]
    return [_mean(part) for part in parts]


def _mean(points: list[Point]) -> Point:
    there = [point for point in points if point.n] or points
    x, y, low, high = (statistics.fmean(getattr(point, key) for point in there) for key in ("x", "y", "low", "high"))
    return Point(x, y, low, high, min(point.n for point in there))


def linear_ticks(low: float, high: float) -> list[float]:
    """Multiples of 1, 2, or 5 times a power of ten in ``low`` to ``high``."""
    rough = (high - low) / 4.5
    power = 10.0 ** math.floor(math.log10(rough))
    step = power * min((1, 2, 5, 10), key=lambda factor: abs(math.log(factor * power / rough)))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [k * step for k in range(first, last + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten in ``low`` to ``high``, every other or fewer of many; 2 and 5 times them too if there are few."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    every, factors = max(1, (last - first) // 6), (1,) if last - first > 3 else (1, 2, 5)
    ticks = [factor * 10.0**power for power in range(first, last + 1, every) for factor in factors]
    return [tick for tick in ticks if low * (1 - 1e-9) <= tick <= high * (1 + 1e-9)]


def tick_texts(ticks: list[float], log: bool) -> list[str]:
    """As short as they can be told apart: 0.25, 20k, 1.5M, 1e-6."""
    most = max((abs(tick) for tick in ticks), default=0.0)
    power, unit = next(((p, u) for p, u in ((9, "G"), (6, "M"), (3, "k")) if most >= 10 * 10.0**p), (0, ""))
    if log:
        return [
            f"{tick:g}".replace("-", "−") if tick < 1e4 else f"{tick / 1e3:g}k" if tick < 1e6 else f"{tick:.0e}"
            for tick in ticks
        ]
    step = min((b - a for a, b in pairwise(ticks)), default=most or 1.0)
    if most >= 1e13 or step < 1e-4:
        return [f"{tick:.1e}".replace("-", "−") for tick in ticks]
    digits = max(0, -math.floor(math.log10(step / 10.0**power) + 1e-9))
    return [f"{tick / 10.0**power:.{digits}f}{unit if tick else ''}".replace("-", "−") for tick in ticks]


def y_axis(curves: Iterable[Curve]) -> Axis | None:
    """Of all lines, with room; logarithmic for positive values over more than a factor of 20; None if there is no value."""
    points = [point for curve in curves for point in curve.points if math.isfinite(point.y)]
    if not points:
        return None
    least, most = min(point.y for point in points), max(point.y for point in points)
    log = least > 0 and most / least > 20
    # A band may not squeeze the lines: it is cut where it goes beyond twice their range.
    if log:
        low = max(min(point.low for point in points), least / 1.5)
        high = min(max(point.high for point in points), most * 1.5)
        return Axis(low / 1.1, high * 1.1, True, HEIGHT - BOTTOM, TOP)
    span = most - least or abs(most) * 0.1 or 1.0
    low = max(min(point.low for point in points), least - span)
    high = min(max(point.high for point in points), most + span)
    room = (high - low) * 0.06 or span
    low = 0.0 if 0 <= low < room else low - room
    return Axis(low, high + room, False, HEIGHT - BOTTOM, TOP)


def line_chart(curves: list[Curve], x_label: str, y_label: str, described: str) -> str:
    """An ``<svg>`` of the lines, or "" if there is nothing to draw.

    Args:
        x_label: with its unit. y_label: shown over the vertical axis by whoever places the chart, and said by the markers.
        described: what a reader who cannot see it is told.
    """
    curves = [Curve(curve.label, curve.name, curve.style, thinned(curve.points), curve.ends) for curve in curves]
    places = [point.x for curve in curves for point in curve.points if math.isfinite(point.y)]
    y = y_axis(curves)
    if y is None:
        return ""
    left, right = min(places), max(places)
    if 0 <= left < (right - left) / 2:
        left = 0.0
    if left == right:
        left, right = (left - 1, right + 1) if left <= 0 else (left / 2, right * 1.5)
    x = Axis(left, right, False, LEFT, WIDTH - RIGHT)
    drawn = sorted(curves, key=lambda curve: curve.style is not None)  # the grey ones lie below
    parts = [
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{text_of(described)}">',
        *_axes(x, y, x_label),
    ]
    parts += [_band(curve, x, y) for curve in drawn]
    parts += [_line(curve, x, y, x_label, y_label) for curve in drawn]
    return "".join([*parts, *_labels(curves, x, y), "</svg>"])


def _axes(x: Axis, y: Axis, x_label: str) -> list[str]:
    bottom, parts = HEIGHT - BOTTOM, []
    ticks = y.ticks()
    for tick, text in zip(ticks, tick_texts(ticks, y.log), strict=True):
        at = y.place(tick)
        parts.append(f'<path class="grid" d="M{LEFT} {at}H{WIDTH - RIGHT}"/>')
        parts.append(f'<text class="tick" x="{LEFT - 7}" y="{at + 4:.1f}" text-anchor="end">{text}</text>')
    ticks = x.ticks()
    for tick, text in zip(ticks, tick_texts(ticks, x.log), strict=True):
        at = x.place(tick)
        parts.append(f'<path class="axis" d="M{at} {bottom}v4"/>')
        parts.append(f'<text class="tick" x="{at}" y="{bottom + 17}" text-anchor="middle">{text}</text>')
    parts.append(f'<path class="axis" d="M{LEFT} {bottom}H{WIDTH - RIGHT}"/>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f'<text class="tick" x="{middle:.0f}" y="{HEIGHT - 6}" text-anchor="middle">{text_of(x_label)}</text>')
    return parts


def _stretches(curve: Curve) -> list[list[Point]]:
    """The parts of a line between its gaps."""
    parts: list[list[Point]] = [[]]
    for point in curve.points:
        if math.isfinite(point.y):
            parts[-1].append(point)
        elif parts[-1]:
            parts.append([])
    return [part for part in parts if part]


def _band(curve: Curve, x: Axis, y: Axis) -> str:
    if curve.style is None:
        return ""
    parts = []
    for points in _stretches(curve):
        if len(points) > 1 and any(point.n > 1 for point in points):
            there = [f"{x.place(point.x)} {y.place(point.high)}" for point in points]
            back = [f"{x.place(point.x)} {y.place(point.low)}" for point in reversed(points)]
            parts.append(f"M{'L'.join(there + back)}Z")
        elif len(points) == 1 and points[0].n > 1:
            at = x.place(points[0].x)
            parts.append(f"M{at - 2} {y.place(points[0].high)}h4V{y.place(points[0].low)}h-4Z")
    return f'<path class="band s{curve.style}" d="{"".join(parts)}"/>' if parts else ""


def _line(curve: Curve, x: Axis, y: Axis, x_label: str, y_label: str) -> str:
    kind = "others" if curve.style is None else f"s{curve.style}"
    stretches = _stretches(curve)
    points = [point for part in stretches for point in part]
    paths = ["M" + "L".join(f"{x.place(point.x)} {y.place(point.y)}" for point in part) for part in stretches if len(part) > 1]
    parts = [f'<path class="line {kind}" d="{"".join(paths)}"/>' if paths else ""]
    alone = {id(part[0]) for part in stretches if len(part) == 1}
    every = max(1, math.ceil(len(points) / 12))
    # Counted from the end, where lines are told apart; each style begins elsewhere, so that markers do not hide each other.
    offset = (curve.style or 0) % every
    for k, point in enumerate(reversed(points)):
        if id(point) in alone or (curve.style is not None and (k == 0 or k % every == offset)):
            spread = f", {number(point.low)} to {number(point.high)}" if point.n > 1 else ""
            said = f"{curve.name}: {y_label} {number(point.y)}{spread} at {number(point.x)} {x_label}, n = {point.n}"
            parts.append(
                f'<g class="mark {kind}" transform="translate({x.place(point.x)} {y.place(point.y)})">'
                f"<title>{text_of(said)}</title>{marker(curve.style)}</g>"
            )
    for at, value in curve.ends:
        if math.isfinite(value):
            cross = f'<path class="cross {kind}" d="M-4-4L4 4M-4 4L4-4"/>'
            said = f"{curve.name}: a run ended early"
            parts.append(f'<g transform="translate({x.place(at)} {y.place(value)})"><title>{text_of(said)}</title>{cross}</g>')
    return "".join(parts)


def _labels(curves: list[Curve], x: Axis, y: Axis) -> list[str]:
    """A letter at the end of each line, moved up or down where they would lie over each other."""
    ends = []
    for curve in curves:
        points = [point for point in curve.points if math.isfinite(point.y)]
        if curve.style is not None and points:
            ends.append((y.place(points[-1].y), x.place(points[-1].x), curve.label))
    ends.sort()
    heights = [at for at, _, _ in ends]
    for k in range(1, len(ends)):
        heights[k] = max(heights[k], heights[k - 1] + 12)
    lowest = float(HEIGHT - BOTTOM)
    for k in reversed(range(len(ends))):
        heights[k] = min(heights[k], lowest)
        lowest = heights[k] - 12
    return [
        f'<text class="label" x="{at + 8:.1f}" y="{height + 4:.1f}">{text_of(label)}</text>'
        for (_, at, label), height in zip(ends, heights, strict=True)
    ]


# Circle, square, triangle, diamond, and the same hollow.
_SHAPES = (
    '<circle r="3.4"/>',
    '<path d="M-3.1-3.1h6.2v6.2h-6.2Z"/>',
    '<path d="M0-4.3L4 3H-4Z"/>',
    '<path d="M0-4.6L4 0L0 4.6L-4 0Z"/>',
)


def marker(style: int | None) -> str:
    """The shape of a style around (0, 0)."""
    if style is None:
        return '<circle r="2"/>'
    shape = _SHAPES[style % len(_SHAPES)]
    return shape.replace("/>", ' class="hollow"/>') if style >= len(_SHAPES) else shape


def swatch(style: int | None) -> str:
    """A piece of line with its marker, for a legend."""
    kind = "others" if style is None else f"s{style}"
    mark = f'<g class="mark {kind}" transform="translate(17 7)">{marker(style)}</g>' if style is not None else ""
    return (
        f'<svg class="swatch" viewBox="0 0 34 14" width="34" height="14" aria-hidden="true">'
        f'<path class="line {kind}" d="M0 7H34"/>{mark}</svg>'
    )
