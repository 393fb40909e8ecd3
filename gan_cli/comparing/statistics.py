"""Means over seeds, and whether a difference between two is more than seeds can make."""

from __future__ import annotations

import math
from collections.abc import Sequence

LEVEL = 0.05  # of p below which a difference counts as supported
INTERVALS = 2000  # of Simpson's rule; even


def mean(values: Sequence[float]) -> float:
    """The arithmetic mean of at least one value."""
    return math.fsum(values) / len(values)


def std(values: Sequence[float]) -> float | None:
    """The standard deviation with n - 1, or None for one value."""
    if len(values) < 2:
        return None
    if min(values) == max(values):
        return 0.0  # which the rounded mean may not give
    middle = mean(values)
    return math.hypot(*(value - middle for value in values)) / math.sqrt(len(values) - 1)


def welch(a: Sequence[float], b: Sequence[float]) -> float | None:
    """The two-sided p of Welch's t test that ``a`` and ``b`` have one mean (Welch 1947), or None if one is a single value.

    Without any spread it is 1 for equal values, and None for others: how far seeds can lie apart is not known then.
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
    """The probability that Student's t is further from 0 than ``t`` >= 0. ``freedom``: degrees, at least 1.

    With t = sqrt(freedom) cot(u) the tail is an integral of sin(u)^(freedom - 1) by Simpson's rule; for few degrees u is s^4,
    which makes it smooth where u is 0.
    """
    power = 4 if freedom < 5 else 1
    end = math.pow(math.atan2(math.sqrt(freedom), t), 1 / power)
    step = end / INTERVALS
    points = [k * step for k in range(INTERVALS + 1)]
    values = [power * s ** (power - 1) * math.pow(math.sin(s**power), freedom - 1) for s in points]
    integral = step / 3 * (values[0] + values[-1] + 4 * math.fsum(values[1:-1:2]) + 2 * math.fsum(values[2:-1:2]))
    factor = math.exp(math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)) / math.sqrt(math.pi)
    return min(1.0, 2 * factor * integral)


def holm(ps: Sequence[float]) -> list[float]:
    """The p values of several tests, each corrected for there being several (Holm 1979), in the order given."""
    corrected, least = [0.0] * len(ps), 0.0
    for rank, index in enumerate(sorted(range(len(ps)), key=lambda k: ps[k])):
        least = max(least, min(1.0, (len(ps) - rank) * ps[index]))
        corrected[index] = least
    return corrected
