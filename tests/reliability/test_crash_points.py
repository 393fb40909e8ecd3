"""Every crash point of a save: the process is killed before, in and after each file operation, and at each system call."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path

import pytest
import torch

from gan_cli.rundir import checkpoint

from ..conftest import quick  # type: ignore[import-not-found]
from .processes import Forked, half_written, newest, watched

SOAK = "GAN_CLI_SOAK" in os.environ
DEAD = 9
CALLS = "openat,write,fsync,close,rename,renameat,renameat2,mkdir,mkdirat,unlink,unlinkat,rmdir"
CALLS_IN_SHORT = "fsync,rename,mkdir"
STRIDE = 1 if SOAK else 7  # test every STRIDE-th crash point


def save(run_dir: Path, step: int) -> None:
    tensors = {"generator": {"w": torch.full((300,), float(step))}, "optimizer_generator": {"w.step": torch.tensor(step)}}
    checkpoint.save(run_dir, step, tensors, {"value": step})


def first(run_dir: Path) -> None:
    save(run_dir, 3)


def rotated(run_dir: Path) -> None:
    save(run_dir, 3)
    checkpoint.rotate(run_dir, 3, 2, {1})


def only_one(run_dir: Path) -> None:
    save(run_dir, 3)
    checkpoint.rotate(run_dir, 3, 1)


def best(run_dir: Path) -> None:
    save(run_dir, 3)
    checkpoint.mark_best(run_dir, {"step": 3, "metric": "fid", "value": 1.0, "protocol_id": "p"})
    checkpoint.rotate(run_dir, 3, 1, {1, 2}, spared={3})


def no_longer_best(run_dir: Path) -> None:
    checkpoint.mark_best(run_dir, None)
    checkpoint.rotate(run_dir, 2, 1)


@dataclass(frozen=True)
class Case:
    """An operation on a run with checkpoints of these steps, and the steps that may be the newest after it."""

    act: Callable[[Path], None]
    before: tuple[int, ...]
    newest: set[int]


CASES = {
    "the first": Case(first, (), {3}),
    "one more, the oldest goes": Case(rotated, (1, 2), {2, 3}),
    "one more, all others go": Case(only_one, (1, 2), {2, 3}),
    "the best": Case(best, (1, 2), {2, 3}),
    "the best is gone": Case(no_longer_best, (1, 2), {2}),
}


@pytest.fixture
def prepared(tmp_path: Path) -> Callable[[Case], Path]:
    """Make a fresh copy of the initial run of a case."""

    def prepare(case: Case) -> Path:
        original, run_dir = tmp_path / f"{case.act.__name__}-{len(case.before)}", tmp_path / "r"
        if not original.exists():
            original.mkdir()
            for step in case.before:
                save(original, step)
            if case.before:
                checkpoint.mark_best(original, {"step": 1, "metric": "fid", "value": 2.0, "protocol_id": "p"})
        shutil.rmtree(run_dir, ignore_errors=True)
        shutil.copytree(original, run_dir)
        return run_dir

    return prepare


def assert_nothing_lost(case: Case, run_dir: Path) -> None:
    """Check the run as the next session finds it, and after its cleaning."""
    for cleaned in (False, True):  # as another program reads it, and as the next session does
        newest(run_dir)  # every existing checkpoint verifies
        found = checkpoint.load_newest(run_dir)
        assert found.step == found.info["value"] and found.step in case.newest if found else not case.before
        if cleaned:
            assert half_written(run_dir) == []
        checkpoint.clean(run_dir)
    save(run_dir, 4)
    checkpoint.rotate(run_dir, 4, 1)
    assert (checkpoint.steps(run_dir), newest(run_dir), half_written(run_dir)) == ([4], 4, [])


def act_and_die(case: Case, run_dir: Path, at: int) -> None:
    calls = count()

    def die(operation: str, when: str) -> None:
        if next(calls) == at:
            os.write(1, f"{operation} {when}\n".encode())
            os._exit(DEAD)

    with watched(run_dir, die):
        case.act(run_dir)


def act_when_told(case: Case, run_dir: Path, go: Path) -> None:
    while not go.exists():
        pass
    case.act(run_dir)


@pytest.mark.parametrize("name", quick(list(CASES), *list(CASES)[:2]))
def test_death_at_each_file_operation(name: str, prepared: Callable[[Case], Path], tmp_path: Path) -> None:
    case, seen = CASES[name], []
    for at in count(step=STRIDE):
        run_dir = prepared(case)
        code = Forked(partial(act_and_die, case, run_dir, at), tmp_path / "output").wait(60)
        said = (tmp_path / "output").read_text()
        assert code in (0, DEAD), said
        assert_nothing_lost(case, run_dir)
        if code == 0:
            break
        seen.append(said)
    print(f"{name}: {len(seen)} crash points around file operations")
    assert len(seen) >= (30 if case.act is not no_longer_best else 10) // STRIDE


@pytest.mark.parametrize("name", CASES if SOAK else ["one more, all others go"])
def test_death_at_each_system_call(name: str, prepared: Callable[[Case], Path], tmp_path: Path) -> None:
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("strace is not installed")
    case, points = CASES[name], dict.fromkeys((CALLS if SOAK else CALLS_IN_SHORT).split(","), 0)
    for call in points:
        for at in count(1):
            run_dir = prepared(case)
            go = tmp_path / "go"
            go.unlink(missing_ok=True)

            child = Forked(partial(act_when_told, case, run_dir, go), tmp_path / "output")
            tracer = subprocess.Popen(
                [strace, "-f", "-p", str(child.pid), "-e", f"trace={call}", "-e", f"inject={call}:signal=KILL:when={at}"],
                stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
            )  # fmt: skip
            assert tracer.stderr is not None
            if "attached" not in (said := tracer.stderr.readline()):
                os.kill(child.pid, signal.SIGKILL)
                child.wait(10)
                tracer.communicate()
                pytest.skip(f"strace may not attach here: {said}")
            go.touch()
            code = child.wait(60)
            said = tracer.communicate()[1]
            assert code in (0, -signal.SIGKILL), (tmp_path / "output").read_text() + said
            assert_nothing_lost(case, run_dir)
            if code == 0:
                break
            points[call] += 1
    print(f"{name}: {sum(points.values())} crash points at system calls: {points}")
    assert points["fsync"] >= 5 or case.act is no_longer_best
    assert points["rename"] >= 1
