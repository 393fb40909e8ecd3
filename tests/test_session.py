"""A session beside the steps: what is due when, and what ends it, with a clock and an evaluation of the test's own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_module

from gan_cli.app.commands import Command
from gan_cli.config.training import TrainConfig, check
from gan_cli.system.errors import DivergedError, MemoryFullError, PreemptedError, PrunedError
from gan_cli.training.build import build_game
from gan_cli.training.plan import Due, Plan
from gan_cli.training.session import Session
from tests.conftest import TINY, Reader

PLAN = Plan(total_steps=10, log_every=4, sample_every=3, save_every=6, eval_every=5, milestones=[7])


@pytest.mark.parametrize(
    ("step", "due"),
    [
        (1, ""),
        (3, "picture measurement"),
        (4, "row"),
        (5, "evaluation"),
        (6, "picture measurement checkpoint"),
        (7, "checkpoint"),
        (8, "row"),
        (10, "row picture evaluation checkpoint last"),
    ],
)
def test_what_is_due_at_a_step(step: int, due: str) -> None:
    assert PLAN.due(step) == Due(**{field.name: field.name in due.split() for field in fields(Due)})


def test_the_plan_of_an_old_checkpoint_has_no_evaluations() -> None:
    old = {"total_steps": 10, "log_every": 4, "sample_every": 3, "save_every": 6, "model": {}}
    assert Plan.of(old) == replace(PLAN, eval_every=None, milestones=[])


class Evaluation:
    """Stands for that of a run: each value is given, or raised."""

    metric, values, best, rule = "fid", ["fid"], None, "1a2b3c4d"

    def __init__(self, *found: float | Exception) -> None:
        self.found = list(found)

    def begin(self, run_dir: Path, best: Any) -> None:
        """Nothing to prepare."""

    def measure(self) -> tuple[dict[str, float], bool]:
        """The next value; the smallest is the best."""
        value = self.found.pop(0)
        if isinstance(value, Exception):
            raise value
        is_best = self.best is None or value < self.best["value"]
        if is_best:
            self.best = {"step": 0, "metric": "fid", "value": value, "protocol_id": "x"}
        return {"fid": value}, is_best


@pytest.fixture
def session(tmp_path: Path) -> Callable[..., Session]:
    """``session(*overrides, **injected)``: a new one in ``tmp_path``."""

    def make(*overrides: str, **injected: Any) -> Session:
        with initialize_config_module("gan_cli.conf", version_base="1.3"):
            config: TrainConfig = check(compose("train", [*TINY["dcgan"], "gif=false", *overrides]))
        return Session(config, tmp_path, build_game(config, None), None, Command(("gan-train",)), **injected)

    return make


def test_the_clock_ends_a_session(session: Any, tmp_path: Path) -> None:
    seconds = iter([0.0, 3000.0, 4000.0])
    with pytest.raises(PreemptedError) as stopped:
        session("total_steps=5", "max_hours=1", clock=lambda: next(seconds)).run()
    assert "max_hours=1" in stopped.value.what
    assert Reader.steps(tmp_path) == [2]


def test_a_failed_evaluation_does_not_end_the_training(session: Any, tmp_path: Path) -> None:
    evaluation = Evaluation(3.0, MemoryFullError("out of memory", "memory", "Free some"), 2.0)
    keys = ["total_steps=3", "eval_every=1", "save_every=10", "log_every=1"]
    session(*keys, evaluation=evaluation).run()
    assert [row.get("metric/fid") for row in Reader.rows(tmp_path)] == [3.0, None, 2.0]
    assert evaluation.found == []


def test_a_generator_that_is_not_finite_ends_the_training(session: Any, tmp_path: Path) -> None:
    evaluation = Evaluation(DivergedError("images are not finite", "generated", "Train anew"))
    with pytest.raises(DivergedError) as ended:
        session("total_steps=3", "eval_every=1", evaluation=evaluation).run()
    assert ended.value.where == str(tmp_path) and "step 1" in ended.value.what
    assert not (tmp_path / "checkpoints").exists()


def test_a_run_that_the_search_gives_up_is_saved(session: Any, tmp_path: Path) -> None:
    reported = []

    def report(step: int, value: float) -> bool:
        reported.append(step)
        return step == 2

    with pytest.raises(PrunedError):
        session("total_steps=5", "log_every=1", "optimized_metric=d/loss", report=report).run()
    assert reported == [1, 2] and Reader.steps(tmp_path) == [2]
