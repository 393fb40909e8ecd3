"""Means over seeds, Welch's t test and Holm's correction."""

from __future__ import annotations

import math
from collections.abc import Sequence

LEVEL = 0.05  # p below which the seeds support a difference


def mean(values: Sequence[float]) -> float:
    """Return the arithmetic mean of at least one value."""
    return math.fsum(values) / len(values)


def std(values: Sequence[float]) -> float | None:
    """Return the standard deviation with n - 1, or None for one value."""
    if len(values) < 2:
        return None
    if min(values) == max(values):
        return 0.0  # without the rounding error of the mean
    center = mean(values)
    return math.hypot(*(value - center for value in values)) / math.sqrt(len(values) - 1)


def welch(a: Sequence[float], b: Sequence[float]) -> float | None:
    """Return the two-sided p of Welch's t test of equal means (Welch 1947), or None if one sample is a single value.

    If neither sample has any spread, p is 1 for equal means and else None, because the spread over seeds is unknown.
    """
    first, second = std(a), std(b)
    if first is None or second is None:
        return None
    difference, unit = abs(mean(a) - mean(b)), max(first, second)
    if unit == 0:
        return 1.0 if difference == 0 else None
    u, v = (first / unit) ** 2 / len(a), (second / unit) ** 2 / len(b)
    share = u / (u + v)
    freedom = 1 / (share**2 / (len(a) - 1) + (1 - share) ** 2 / (len(b) - 1))
    return t_tails(difference / unit / math.sqrt(u + v), max(1.0, freedom))


def t_tails(t: float, freedom: float) -> float:
    """Return the two-sided tail probability of Student's t at ``t`` >= 0 with ``freedom`` >= 1 degrees of freedom.

    It is the regularised incomplete beta function I_x(freedom / 2, 1 / 2) at x = freedom / (freedom + t^2).
    """
    from mpmath import betainc  # comes with torch; SciPy, which has the t distribution itself, would add 35 MB

    return float(betainc(freedom / 2, 0.5, 0, freedom / (freedom + t * t), regularized=True))


def holm(ps: Sequence[float]) -> list[float]:
    """Return the p values with Holm's correction for several tests (Holm 1979), in the given order."""
    corrected, least = [0.0] * len(ps), 0.0
    for rank, index in enumerate(sorted(range(len(ps)), key=lambda k: ps[k])):
        least = max(least, min(1.0, (len(ps) - rank) * ps[index]))
        corrected[index] = least
    return corrected
