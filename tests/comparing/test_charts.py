"""The lines of a chart lie where the data is."""

from __future__ import annotations

import math
import re
from itertools import pairwise

import pytest

from gan_cli.comparing import charts
from gan_cli.comparing.charts import Axis, Curve, Point
from gan_cli.comparing.html import STYLES

NAN = math.nan


def points(*pairs: tuple[float, float]) -> list[Point]:
    return [Point(x, y, y, y, 1) for x, y in pairs]


def chart(*curves: Curve) -> str:
    return charts.line_chart(list(curves), "images", "fid", "a chart")


def paths(svg: str, kind: str) -> list[str]:
    return re.findall(rf'<path class="{kind}" d="([^"]*)"', svg)


def places(path: str) -> list[tuple[float, float]]:
    """Of all points of a path."""
    return [(float(x), float(y)) for x, y in re.findall(r"([-\d.]+) ([-\d.]+)", path)]


def ticks(svg: str, anchor: str) -> dict[str, float]:
    """Text -> place along its axis. ``anchor``: ``end`` of the vertical one, ``middle`` of the other."""
    found = re.findall(rf'<text class="tick" x="([\d.]+)" y="([\d.]+)" text-anchor="{anchor}">([^<a-z]+[kM]?)<', svg)
    return {text: float(y) - 4 if anchor == "end" else float(x) for x, y, text in found}


def test_points_lie_where_the_ticks_say() -> None:
    svg = chart(Curve("A", "A one", 0, points((0, 10), (400, 30), (800, 20))))
    (path,) = paths(svg, "line s0")
    x, y = ticks(svg, "middle"), ticks(svg, "end")
    assert places(path) == [(x["0"], y["10"]), (x["400"], y["30"]), (x["800"], y["20"])]


def test_the_mean_and_the_band_are_those_of_the_seeds() -> None:
    runs = [{1: (100.0, 1.0), 2: (200.0, 4.0)}, {1: (100.0, 2.0), 2: (200.0, 4.0)}, {1: (100.0, 3.0), 2: (200.0, 4.0)}]
    first, second = charts.over_seeds(runs)
    assert (first.x, first.y, first.low, first.high, first.n) == (100, 2, 1, 3, 3)
    assert (second.low, second.high) == (4, 4)
    (both, _) = charts.over_seeds(runs[:2])
    assert (both.low, both.y, both.high) == (1, 1.5, 2), "of two seeds the values themselves"
    (one, _) = charts.over_seeds(runs[:1])
    assert (one.low, one.y, one.high, one.n) == (1, 1, 1, 1)


def test_a_band_is_drawn_around_the_line() -> None:
    svg = chart(Curve("A", "A", 0, [Point(0, 2, 1, 3, 3), Point(10, 4, 3, 5, 3)]))
    (path,) = paths(svg, "band s0")
    x, y = ticks(svg, "middle"), ticks(svg, "end")
    corners = [(x["0"], y["3"]), (x["10"], y["5"]), (x["10"], y["3"]), (x["0"], y["1"])]
    assert places(path) == corners


def test_a_run_that_ended_leaves_the_mean_to_the_others() -> None:
    runs = [{1: (1.0, 1.0), 2: (2.0, 1.0), 3: (3.0, 1.0)}, {1: (1.0, 3.0)}]
    assert [(point.y, point.n) for point in charts.over_seeds(runs)] == [(2, 2), (1, 1), (1, 1)]


def test_rows_that_not_all_running_seeds_have_are_left_out() -> None:
    runs = [{1: (1.0, 1.0), 2: (2.0, 9.0), 3: (3.0, 1.0)}, {1: (1.0, 3.0), 3: (3.0, 3.0)}]
    assert [point.x for point in charts.over_seeds(runs)] == [1, 3]
    assert [point.x for point in charts.over_seeds([{1: (1.0, 1.0), 3: (3.0, 1.0)}, {2: (2.0, 1.0), 4: (4.0, 1.0)}])] == [1, 4]
    crossed = [{1: (1.0, 1.0), 4: (4.0, 1.0)}, {1: (1.5, 1.0), 5: (5.0, 1.0)}]
    assert [point.x for point in charts.over_seeds(crossed)] == [1.25, 5]


def test_what_is_not_a_number_is_a_gap() -> None:
    svg = chart(Curve("A", "A", 0, points((0, 1), (1, 2), (2, NAN), (3, 2), (4, 1), (5, NAN), (6, 1))))
    (path,) = paths(svg, "line s0")
    assert path.count("M") == 2 and path.count("L") == 2
    assert svg.count('class="mark s0"') >= 2, "the point that stands alone is marked"
    assert "nan" not in svg
    (gap, _) = charts.over_seeds([{1: (1.0, NAN), 2: (2.0, 1.0)}])
    assert gap.n == 0 and math.isnan(gap.y)


@pytest.mark.parametrize("value", [NAN, math.inf, -math.inf, 10**400, 1e300, True, "3", None])
def test_what_cannot_be_drawn(value: object) -> None:
    assert math.isnan(charts.finite(value))


def test_one_point_is_a_marker() -> None:
    svg = chart(Curve("A", "A", 0, [Point(1000, 5, 4, 6, 3)]))
    assert paths(svg, "line s0") == [] and svg.count('class="mark s0"') == 1 and len(paths(svg, "band s0")) == 1
    assert ">A</text>" in svg


def test_nothing_is_no_chart() -> None:
    assert chart() == "" == chart(Curve("A", "A", 0, points((1, NAN))))


def test_a_wide_range_is_logarithmic() -> None:
    svg = chart(Curve("A", "A", 0, points((0, 1000), (1, 100), (2, 10))))
    (path,) = paths(svg, "line s0")
    y = ticks(svg, "end")
    assert [at for _, at in places(path)] == [y["1000"], y["100"], y["10"]]
    assert y["100"] - y["1000"] == pytest.approx(y["10"] - y["100"], abs=0.2)
    assert charts.y_axis([Curve("A", "A", 0, points((0, -1), (1, 1000)))]).log is False  # type: ignore[union-attr]


def test_a_band_does_not_squeeze_the_lines() -> None:
    axis = charts.y_axis([Curve("A", "A", 0, [Point(0, 1, -1e6, 1e6, 3), Point(1, 2, 1, 3, 3)])])
    assert axis is not None and axis.low > -2 and axis.high < 5
    assert axis.place(1e6) == axis.stop, "what goes beyond is cut"


@pytest.mark.parametrize(("low", "high"), [(0, 1), (3, 4.1), (-7, 9), (0, 128_000), (99.99, 100), (1e-7, 3e-7), (1e12, 9e12)])
def test_linear_ticks_are_round_and_few(low: float, high: float) -> None:
    found = charts.linear_ticks(low, high)
    assert 3 <= len(found) <= 8 and all(low - 1e-9 * high <= tick <= high * (1 + 1e-9) for tick in found)
    texts = charts.tick_texts(found, False)
    assert len(set(texts)) == len(texts) and max(map(len, texts)) <= 9


@pytest.mark.parametrize(("low", "high"), [(1, 30), (0.01, 900), (1e-9, 1e9), (12, 350)])
def test_log_ticks_are_round_and_few(low: float, high: float) -> None:
    found = charts.log_ticks(low, high)
    assert 3 <= len(found) <= 10 and all(low <= tick * 1.001 and tick <= high * 1.001 for tick in found)


def test_tick_texts() -> None:
    assert charts.tick_texts([0, 50_000, 100_000], False) == ["0", "50k", "100k"]
    assert charts.tick_texts([-0.5, 0, 0.5], False) == ["−0.5", "0.0", "0.5"]
    assert charts.tick_texts([0, 250, 500], False) == ["0", "250", "500"]


def test_many_points_are_thinned_and_stay_in_place() -> None:
    many = charts.thinned(points(*((x, 2 * x) for x in range(10_000))))
    assert len(many) <= charts.MOST_POINTS and all(point.y == pytest.approx(2 * point.x) for point in many)


def test_labels_do_not_lie_over_each_other() -> None:
    curves = [Curve("ABCDEFGH"[k], f"{k}", k, points((0, 1), (1, 1 + k / 1000), (2, 9))) for k in range(8)]
    heights = sorted(float(y) for y in re.findall(r'<text class="label" x="[\d.]+" y="([-\d.]+)"', chart(*curves)))
    assert len(heights) == 8 and all(b - a >= 11.9 for a, b in pairwise(heights))
    assert heights[-1] <= charts.HEIGHT - charts.BOTTOM + 4


def test_styles_differ_by_more_than_colour() -> None:
    assert len({charts.marker(k) for k in range(STYLES)}) == STYLES


def test_an_axis_of_one_value() -> None:
    assert isinstance(charts.y_axis([Curve("A", "A", 0, points((0, 0.0)))]), Axis)
    assert "<svg" in chart(Curve("A", "A", 0, points((0, 0.0)))) and "<svg" in chart(Curve("A", "A", 0, points((5, 7), (5, 7))))
