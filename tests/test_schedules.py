"""Learning-rate factors at given steps."""

from __future__ import annotations

import math

import pytest

from gan_cli.schedules import Constant, Cosine, Linear


@pytest.mark.parametrize("step", [0, 1, 10**9])
def test_constant(step: int) -> None:
    assert Constant()(step) == 1.0


@pytest.mark.parametrize(
    ("start", "final", "step", "factor"),
    [
        (0.5, 0.0, 0, 1.0),
        (0.5, 0.0, 50, 1.0),
        (0.5, 0.0, 75, 0.5),
        (0.5, 0.0, 99, 0.02),
        (0.5, 0.0, 100, 0.0),
        (0.5, 0.0, 150, 0.0),
        (0.0, 0.0, 25, 0.75),
        (0.0, 0.2, 50, 0.6),
        (0.0, 0.2, 100, 0.2),
        (1.0, 0.0, 100, 1.0),
    ],
)
def test_linear(start: float, final: float, step: int, factor: float) -> None:
    assert Linear(total_steps=100, start=start, final=final)(step) == pytest.approx(factor)


@pytest.mark.parametrize(
    ("final", "step", "factor"),
    [
        (0.0, 0, 1.0),
        (0.0, 25, 0.5 + math.sqrt(0.125)),
        (0.0, 50, 0.5),
        (0.0, 100, 0.0),
        (0.0, 170, 0.0),
        (0.2, 50, 0.6),
        (0.2, 100, 0.2),
    ],
)
def test_cosine(final: float, step: int, factor: float) -> None:
    assert Cosine(total_steps=100, final=final)(step) == pytest.approx(factor)


@pytest.mark.parametrize("schedule", [Linear(total_steps=37), Cosine(total_steps=37, final=0.1)])
def test_it_starts_at_one_and_never_rises(schedule: Linear | Cosine) -> None:
    factors = [schedule(step) for step in range(60)]
    assert factors[0] == 1.0
    assert factors == sorted(factors, reverse=True)
