"""Runs stopped at every step and several times end bit-identical to uninterrupted ones."""

from __future__ import annotations

import random
import signal
from pathlib import Path
from typing import Any

import pytest

from .conftest import KINDS, SOAK, STEPS  # type: ignore[import-not-found]

FINISHED = 5 if SOAK else 1  # resumed runs of each kind that train to their end
HOPS = 20 if SOAK else 3
NAMES = list(KINDS)
each_kind = pytest.mark.parametrize("name", NAMES)
some_kinds = pytest.mark.parametrize(
    "name", NAMES if SOAK else ["cyclegan", pytest.param("photos, 2 workers", marks=pytest.mark.slow)]
)
pytestmark = pytest.mark.usefixtures("unsynced")


def stops(name: str) -> list[int]:
    """The steps after which a run of this kind is resumed: 1 to 40, or one of them that differs between kinds."""
    return list(range(1, 41)) if SOAK else [1 + NAMES.index(name) % (STEPS - 2)]


# If the step from k to k + 1 ends in the state of the uninterrupted run for every k, then by induction any number of
# stops does.


@each_kind
def test_killed_after_a_step_then_stopped_after_the_next(name: str, kinds: Any, stop_at: Any, tmp_path: Path) -> None:
    kind = kinds(name)
    for k in stops(name):
        run = kind.killed(tmp_path / str(k), k, before=k + k % 2)  # killed right after its save, or right before the next
        if k % 3 == 0:
            stop_at(-1, 0)
            reason, limit = "max_hours=1e-09", 1e-9
        else:
            reason, limit = ("SIGTERM", None) if k % 3 == 1 else ("SIGUSR1", None)
            stop_at(k + 1, getattr(signal, reason))
        assert kind.train(run, max_hours=limit) == f"stopped at step {k + 1} of {STEPS} by {reason}, state saved"
        assert (k, kind.lost(run, k + 1)) == (k, [])
    print(f"resume: {name}: after {len(stops(name))} of {len(stops(name))} steps; state, rows and pictures bit-identical")


@some_kinds
def test_killed_then_run_to_the_end(name: str, kinds: Any, read: Any, tmp_path: Path) -> None:
    kind = kinds(name)
    for k in random.Random(name).sample(range(1, STEPS - 1), FINISHED):
        run = kind.killed(tmp_path / str(k), k, before=k + 1)
        assert kind.train(run) == ""
        assert kind.lost(run, STEPS) == []
        read.assert_same(kind.whole, run)
        curves = [{k: v for k, v in read.scalars(r).items() if not k.startswith("time/")} for r in (kind.whole, run)]
        assert curves[0] == curves[1] and len(curves[0]) > 4
        assert [path.read_bytes() for path in sorted(run.glob("best.json"))] == [
            path.read_bytes() for path in sorted(kind.whole.glob("best.json"))
        ]


@pytest.mark.slow
@some_kinds
def test_shorter_then_longer(name: str, kinds: Any, read: Any, tmp_path: Path) -> None:
    kind = kinds(name)
    stops = sorted(random.Random(name).sample(range(1, STEPS), 2))
    for total in stops:
        assert kind.train(tmp_path / "r", total_steps=total) == ""
    assert kind.train(tmp_path / "r") == ""
    read.assert_same(kind.whole, tmp_path / "r")
    assert kind.lost(tmp_path / "r", STEPS) == []


@some_kinds
def test_many_hops(name: str, kinds: Any, read: Any, stop_at: Any, tmp_path: Path) -> None:
    kind, draw, run = kinds(name), random.Random(name), tmp_path / "r"
    first = draw.randrange(1, STEPS - 2)
    rest = [k for k in range(1, STEPS) if k not in (first, first + 1)]
    stops = sorted([first, first + 1, *draw.sample(rest, HOPS - 2)])  # at least two of them are successive
    for hop, k in enumerate(stops):
        number = draw.choice([signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
        stop_at(k, number)
        workers = 2 * (hop % 2) if "photos" in name else 0
        assert f"stopped at step {k} of {STEPS} by {number.name}" in kind.train(run, workers=workers)
        assert kind.lost(run, k) == []
    assert kind.train(run) == ""
    assert kind.lost(run, STEPS) == []
    read.assert_same(kind.whole, run)
    print(f"resume: {name}: {HOPS} hops in a row, stopped at {stops}: bit-identical after each and at the end")


@some_kinds
def test_what_is_drawn_measured_and_written_on_the_way_changes_nothing(name: str, kinds: Any, tmp_path: Path) -> None:
    kind = kinds(name)
    rarely: dict[str, Any] = dict.fromkeys(("log_every", "sample_every", "save_every"), 1000)
    assert kind.train(tmp_path / "r", **rarely, eval_every=None) == ""
    assert set(kind.lost(tmp_path / "r", STEPS)) <= {"log_sums.safetensors", "tensors", "best", "rows", "pictures"}


def test_workers_change_nothing(kinds: Any) -> None:
    assert kinds("photos").lost(kinds("photos, 2 workers").whole, STEPS) == []


# Exceptions from the promise are logged


def test_another_machine_is_said(kinds: Any, forge: Any, tmp_path: Path) -> None:
    kind = kinds("mlp")
    note = "differ slightly"
    for key, value in (("", None), ("threads", 2), ("device", "cuda"), ("torch", "2.9.0")):

        def elsewhere(tensors: Any, info: Any, key: str = key, value: Any = value) -> None:
            if key:
                assert info["machine"][key] != value
                info["machine"][key] = value

        run = forge(kind, tmp_path / (key or "same"), 5, elsewhere)
        log = run / "train.log"
        log.unlink()
        kind.train(run, max_hours=1e-9)
        notes = [line for line in log.read_text().splitlines() if note in line]
        assert len(notes) == bool(key)
        assert not key or f"{key}: {value} -> " in notes[0]
