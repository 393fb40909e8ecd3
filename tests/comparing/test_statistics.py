"""Welch's test and Holm's correction against tables, closed forms and, where it is installed, SciPy."""

from __future__ import annotations

import math
import random

import pytest

from gan_cli.comparing import statistics


@pytest.mark.parametrize(
    ("freedom", "t", "p"),
    [
        (1, 12.706204736, 0.05), (2, 4.302652730, 0.05), (5, 2.570581836, 0.05), (5, 4.032142984, 0.01),
        (10, 2.228138852, 0.05), (30, 2.042272456, 0.05), (120, 1.979930405, 0.05), (1000, 2.580754698, 0.01),
    ],
)  # fmt: skip
def test_tails_of_the_table(freedom: float, t: float, p: float) -> None:
    assert statistics.t_tails(t, freedom) == pytest.approx(p, abs=1e-8)


@pytest.mark.parametrize("t", [0.0, 1e-6, 0.3, 1.0, 7.0, 300.0, 1e6])
def test_tails_of_closed_forms(t: float) -> None:
    assert statistics.t_tails(t, 1) == pytest.approx(2 / math.pi * math.atan2(1, t), rel=1e-8)
    root = math.sqrt(2 + t * t)
    assert statistics.t_tails(t, 2) == pytest.approx(2 / (root * (root + t)), rel=1e-7)


def test_welch_by_hand() -> None:
    """Means 2 and 6, variances 1 and 4, three values each: t = 4 / sqrt(5 / 3) with 50 / 17 degrees of freedom."""
    t, freedom = 4 / math.sqrt(5 / 3), (5 / 3) ** 2 / ((1 / 3) ** 2 / 2 + (4 / 3) ** 2 / 2)
    p = statistics.welch([1, 2, 3], [4, 6, 8])
    assert freedom == pytest.approx(50 / 17) and p == pytest.approx(statistics.t_tails(t, freedom), rel=1e-12)
    assert p == pytest.approx(0.054786766041, abs=1e-9) and p == statistics.welch([4, 6, 8], [1, 2, 3])


def test_welch_is_that_of_scipy() -> None:
    stats = pytest.importorskip("scipy.stats")
    draw = random.Random(0)
    for _ in range(30):
        a = [draw.gauss(0, draw.uniform(0.1, 3)) for _ in range(draw.randint(2, 9))]
        b = [draw.gauss(1, 1) for _ in range(draw.randint(2, 9))]
        assert statistics.welch(a, b) == pytest.approx(float(stats.ttest_ind(a, b, equal_var=False).pvalue), abs=1e-9)


def test_what_cannot_be_tested() -> None:
    assert statistics.welch([1.0], [2.0, 3.0]) is None and statistics.welch([1.0, 2.0], [3.0]) is None
    assert statistics.welch([1.0, 1.0], [1.0, 1.0]) == 1.0
    assert statistics.welch([1.0, 1.0], [2.0, 2.0]) is None and statistics.welch([0.1] * 3, [0.2] * 3) is None
    assert statistics.welch([1e-200, 2e-200], [1e-200, 2e-200]) == pytest.approx(1.0)
    for size in (1e-200, 1e90):
        assert statistics.welch([size, 2 * size], [7 * size, 9 * size]) == pytest.approx(statistics.welch([1, 2], [7, 9]))
    assert statistics.welch([1.0, 1.0], [2.0, 3.0]) == pytest.approx(statistics.t_tails(3.0, 1), abs=1e-12)


def test_means_and_deviations() -> None:
    assert statistics.mean([1, 2, 6]) == 3 and statistics.std([1, 2, 6]) == pytest.approx(math.sqrt(7))
    assert statistics.std([4.0]) is None


def test_holm() -> None:
    assert statistics.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert statistics.holm([0.9, 0.8]) == [1.0, 1.0] and statistics.holm([]) == []


def test_nothing_where_there_is_nothing() -> None:
    """Groups that differ by nothing are called worse in about one of twenty comparisons, not more."""
    draw = random.Random(1)
    wrong = 0
    for _ in range(100):
        groups = [[draw.gauss(0, 1) for _ in range(5)] for _ in range(2)]
        p = statistics.welch(*groups)
        wrong += p is not None and p < statistics.LEVEL
    assert wrong <= 12
