"""Curves over seeds, and the SVG that matplotlib makes of them."""

from __future__ import annotations

import math
import re
from itertools import pairwise
from xml.etree import ElementTree

import pytest

from gan_cli.comparing import charts
from gan_cli.comparing.charts import Curve, Point

NAN = math.nan


def points(*pairs: tuple[float, float]) -> list[Point]:
    return [Point(x, y, y, y, 0 if math.isnan(y) else 1) for x, y in pairs]


def chart(*curves: Curve) -> str:
    return charts.line_chart(curves, "images seen", "one")


def paths(svg: str, colour: str) -> list[list[tuple[float, float]]]:
    """The points of each line of a colour that is not a marker or a band."""
    found = re.findall(rf'<path d="([^"]*)" clip-path="[^"]*" style="fill: none; [^"]*stroke: var\(--{colour}\)', svg)
    return [[(float(x), float(y)) for x, y in re.findall(r"([-\d.]+) ([-\d.]+)", path)] for path in found]


def test_the_mean_and_the_band_are_those_of_the_seeds() -> None:
    runs = [{1: (100.0, 1.0), 2: (200.0, 4.0)}, {1: (100.0, 2.0), 2: (200.0, 4.0)}, {1: (100.0, 3.0), 2: (200.0, 4.0)}]
    assert charts.over_seeds(runs) == [(100, 2, 1, 3, 3), (200, 4, 4, 4, 3)]
    assert charts.over_seeds(runs[:2])[0] == (100, 1.5, 1, 2, 2), "of two seeds both values"
    assert charts.over_seeds(runs[:1])[0] == (100, 1, 1, 1, 1)


def test_a_run_that_ended_leaves_the_mean_to_the_others() -> None:
    runs = [{1: (1.0, 1.0), 2: (2.0, 1.0), 3: (3.0, 1.0)}, {1: (1.0, 3.0)}]
    assert [(point.y, point.n) for point in charts.over_seeds(runs)] == [(2, 2), (1, 1), (1, 1)]


@pytest.mark.parametrize(
    ("steps", "expected"),
    [(([1, 2, 3], [1, 3]), [1, 3]), (([1, 3], [2, 4]), [1, 4])],
)
def test_steps_that_not_all_running_seeds_have_are_left_out(steps: tuple[list[int], list[int]], expected: list[int]) -> None:
    runs = [{step: (float(step), 1.0) for step in each} for each in steps]
    assert [point.x for point in charts.over_seeds(runs)] == expected


@pytest.mark.parametrize("value", [NAN, math.inf, -math.inf, 10**400, 1e300, True, "3", None])
def test_what_cannot_be_drawn_is_a_gap(value: object) -> None:
    assert math.isnan(charts.drawable(value))
    (gap, _) = charts.over_seeds([{1: (1.0, charts.drawable(value)), 2: (2.0, 1.0)}])
    assert gap.n == 0 and math.isnan(gap.y)


def test_many_points_are_thinned_and_stay_in_place() -> None:
    many = charts.thinned(points(*((x, 2 * x) for x in range(10_000))))
    assert len(many) <= charts.MAX_POINTS and all(point.y == pytest.approx(2 * point.x) for point in many)


def test_a_chart_is_small_deterministic_xml_in_the_colours_of_the_page() -> None:
    curves = [Curve("A", 0, [Point(0, 10, 9, 11, 3), Point(800, 20, 18, 22, 3)]), Curve("B", 5, points((0, 15), (800, 12)))]
    svg = chart(*curves)
    ElementTree.fromstring(svg.replace("xlink:", ""))
    assert svg == chart(*curves) and len(svg) < 20_000
    assert not re.search(r"#[0-9a-f]{6}\b(?!\w)|20\d\d-\d\d|http|font-family", svg), (
        "colours and fonts come from the page; no date, no address"
    )
    assert {"var(--s0)", "var(--s5)", "var(--ink)", "var(--grid)"} <= set(re.findall(r"var\(--\w+\)", svg))
    assert [re.search(rf">{text}</text>", svg) is not None for text in ("A", "B", "800", "images seen")] == [True] * 4
    assert "fill-opacity: 0.14" in svg, "the band"
    first, second = (set(re.findall(r' id="(\w+)"', charts.line_chart(curves, "x", name))) for name in ("one", "two"))
    assert first and not first & second, "ids of two charts of a page differ"


def test_lines_lie_where_the_values_are() -> None:
    (line,) = paths(chart(Curve("A", 0, points((0, 10), (400, 30), (800, 20)))), "s0")
    (x0, y0), (x1, y1), (x2, y2) = line
    assert x1 - x0 == pytest.approx(x2 - x1, abs=0.05) and y0 - y1 == pytest.approx(2 * (y2 - y1), abs=0.05) and y0 > y1


def test_gaps_crosses_and_single_points() -> None:
    svg = chart(Curve("A", 0, points((0, 1), (1, 2), (2, NAN), (3, 2)), [(3, 2)]))
    assert "nan" not in svg.lower().replace("nan_", "")
    for curve in (Curve("A", 0, points((1000, 5))), Curve("A", None, points((0, 0.0))), Curve("A", 1, points((5, 7), (5, 7)))):
        assert "<svg" in chart(curve)


def test_a_wide_range_is_logarithmic() -> None:
    (line,) = paths(chart(Curve("A", 0, points((0, 1000), (1, 100), (2, 10)))), "s0")
    assert line[1][1] - line[0][1] == pytest.approx(line[2][1] - line[1][1], abs=0.05)


def test_letters_do_not_lie_over_each_other() -> None:
    curves = [Curve("ABCDEFGH"[k], k, points((0, 1), (2, 9 + k / 1000))) for k in range(8)]
    found = re.findall(r'<text [^>]*y="([\d.]+)"[^>]*>[A-H]</text>', chart(*curves))
    heights = sorted(map(float, found))
    assert len(heights) == 8 and all(b - a > 8 for a, b in pairwise(heights))


def test_styles_differ_by_more_than_colour() -> None:
    looks = [charts._look(k) for k in range(charts.STYLES)]
    assert len({(look["marker"], look["markerfacecolor"] == look["color"]) for look in looks}) == charts.STYLES
