"""SIGINT, SIGTERM and SIGUSR1 at any moment: the state is saved, with an exit code for it, and the same command resumes."""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest

from gan_cli.rundir import checkpoint, status
from gan_cli.rundir.best import read_best

from .processes import TINY, Command, half_written, newest, reached, watching

SOAK = "GAN_CLI_SOAK" in os.environ
pytestmark = pytest.mark.usefixtures("no_process_left")
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
TRIALS = [50] if SOAK else [1, pytest.param(3, marks=pytest.mark.slow)]  # signals in a running program
EARLY = 20 if SOAK else 0  # signals during the start of Python and torch
KINDS = ("dcgan", "folder", "cyclegan", "wgan_gp") if SOAK else ("folder",)
STEPS = 200 if SOAK else 20
OFTEN = [f"total_steps={STEPS}", "save_every=7", "log_every=3", "sample_every=10"]
READY = "To continue it: "  # printed just before the loop starts


def printed(command: Command, text: str = READY) -> bool:
    return text in command.text


def assert_resumable(command: Command, run_dir: Path, number: int) -> None:
    """Check that the command ended as a preempted run."""
    name, said = signal.Signals(number).name, status.read(run_dir) or {}
    assert command.process.returncode == 75, command.text
    assert (said["state"], said["exit_code"]) == ("preempted", 75)
    assert newest(run_dir) == said["step"] > 0
    assert f"stopped at step {said['step']} of {STEPS} by {name}, state saved" in command.text
    assert "Traceback" not in command.text and "error" not in command.text
    assert half_written(run_dir) == []
    command.assert_nobody_left()


def overrides(kind: str, data_root: Path) -> list[str]:
    return [*TINY[kind], *([f"dataset.root={data_root / 'photos'}"] if kind == "folder" else []), *OFTEN]


@pytest.fixture(scope="module")
def whole() -> dict[tuple[str, ...], Path]:
    """Uninterrupted runs, by their overrides."""
    return {}


@pytest.fixture
def finish(
    whole: dict[tuple[str, ...], Path], tmp_path_factory: pytest.TempPathFactory, read: Any
) -> Callable[[list[str], Path], None]:
    """``finish(args, run_dir)``: resume with the same command and compare the end with an uninterrupted run."""

    def finish(args: list[str], run_dir: Path) -> None:
        last = Command(run_dir.parent, *args, f"run_dir={run_dir.name}", real=SOAK)
        assert last.end() == 0, last.text
        assert half_written(run_dir) == []
        if (key := tuple(args)) not in whole:
            home = tmp_path_factory.mktemp("whole")
            assert Command(home, *args, "run_dir=whole", real=SOAK).end() == 0
            whole[key] = home / "whole"
        read.assert_same(whole[key], run_dir)

    return finish


def stopped_again_and_again(
    home: Path, args: list[str], trials: int, early: int, seed: int, finish: Callable[[list[str], Path], None]
) -> Counter[str]:
    """Stop runs at random until they are done, and start new ones until there were ``TRIALS`` signals."""
    rng, counts = random.Random(seed), Counter[str]()
    home.mkdir()
    while counts["signals"] < trials or counts["early"] < early:
        name = f"run{counts['runs']}"
        run_dir, done = home / name, False
        while not done and (counts["signals"] < trials or counts["early"] < early):
            number, before = rng.choice(SIGNALS), newest(run_dir)
            command = Command(home, *args, f"run_dir={name}", real=SOAK)
            if counts["early"] < early:
                command.live(rng.uniform(0, 3))
                started = printed(command)
            else:
                assert command.until(partial(printed, command)), command.text
                command.live(rng.uniform(0, 2.5 if SOAK else 0.3))
                started = True
            command.send(number)
            code = command.end()
            command.assert_nobody_left()
            if code == 0:
                done = True
            elif started or "state saved" in command.text:
                assert_resumable(command, run_dir, number)
                counts["signals" if started else "early"] += 1
            else:  # before the first step
                assert code in (75, -number, 130), command.text
                assert newest(run_dir) == before and (not run_dir.exists() or half_written(run_dir) == [])
                counts["early"] += 1
                counts[f"early, exit code {code}"] += 1
        finish(args, run_dir)
        counts["runs"] += 1
    return counts


@pytest.mark.parametrize("trials", TRIALS)
def test_at_random_times(trials: int, tmp_path: Path, data_root: Path, finish: Any) -> None:
    share = [(trials + k) // len(KINDS) for k in range(len(KINDS))]
    jobs = [
        (tmp_path / kind, overrides(kind, data_root), part, EARLY // len(KINDS), k, finish)
        for k, (kind, part) in enumerate(zip(KINDS, share, strict=True))
    ]
    with ThreadPoolExecutor(2 if SOAK else 1) as pool:
        total = sum(pool.map(lambda job: stopped_again_and_again(*job), jobs), Counter[str]())
    print(f"{total['signals']} of {trials} signals left a run that goes on; {dict(total)}; all ended identical")
    assert total["signals"] >= trials


@pytest.mark.parametrize("number", SIGNALS if SOAK else [signal.SIGINT])
@pytest.mark.slow
def test_to_the_whole_group(number: int, data_root: Path, tmp_path: Path, finish: Any) -> None:
    """Ctrl-C also reaches the workers that decode images."""
    args = overrides("folder", data_root)
    command = Command(tmp_path, *args, "run_dir=r", real=SOAK)
    assert command.until(lambda: reached(tmp_path / "r") >= 7), command.text
    os.killpg(command.pid, number)
    command.end()
    assert_resumable(command, tmp_path / "r", number)
    finish(args, tmp_path / "r")


@pytest.mark.parametrize("delay", [0, 0.001, 0.01, 0.05] if SOAK else [0.002])
@pytest.mark.parametrize("number", SIGNALS if SOAK else [signal.SIGTERM])
def test_a_second_one_ends_it_at_once(number: int, delay: float, tmp_path: Path, finish: Any) -> None:
    args = [*TINY["dcgan"], *OFTEN]
    command = Command(tmp_path, *args, "run_dir=r", real=SOAK)
    assert command.until(lambda: reached(tmp_path / "r") >= 7), command.text
    before = newest(tmp_path / "r")
    command.send(number)
    time.sleep(delay)
    sent = time.monotonic()
    command.send(number)
    code = command.end()
    assert code == 75 or (code == -number and time.monotonic() - sent < 60), command.text  # 75: delivered as one
    assert newest(tmp_path / "r") >= before and "Traceback" not in command.text
    if SOAK:
        finish(args, tmp_path / "r")


def signal_when(number: int, folder: Path, operation: str, at: int, moment: str) -> Callable[[], object]:
    """The process gets a signal in the middle of an operation on its files."""

    def hook(name: str, when: str) -> None:
        seen[f"{name} {when}"] += 1
        if (name, when) == (operation, moment) and seen[f"{name} {when}"] == at:
            os.kill(os.getpid(), number)

    seen = Counter[str]()
    return partial(watching, folder, hook)


PLACES = [
    ("write", 9, "middle"),
    ("write", 9, "before"),
    ("fsync", 3, "after"),
    ("mkdir", 4, "before"),
    ("rename", 1, "before"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("operation", "at", "moment"), PLACES if SOAK else PLACES[2:3])
def test_while_it_saves(operation: str, at: int, moment: str, tmp_path: Path, finish: Any) -> None:
    args, number = [*TINY["dcgan"], *OFTEN], signal.SIGUSR1
    within = signal_when(number, tmp_path / "r", operation, at, moment)
    command = Command(tmp_path, *args, "run_dir=r", within=within)
    command.end()
    assert_resumable(command, tmp_path / "r", number)
    finish(args, tmp_path / "r")


def test_while_it_evaluates(tmp_path: Path, finish: Any) -> None:
    args = [*TINY["pix2pix"], *OFTEN, "eval_every=4", "metrics=[psnr]", "num_samples=4"]

    def within() -> None:
        from gan_cli.training.evaluation import TrainingEvaluation

        measure = TrainingEvaluation.measure

        def noisy(self: Any) -> Any:
            os.kill(os.getpid(), signal.SIGTERM)
            return measure(self)

        TrainingEvaluation.measure = noisy  # type: ignore[method-assign]

    command = Command(tmp_path, *args, "run_dir=r", within=within)
    command.end()
    assert_resumable(command, tmp_path / "r", signal.SIGTERM)
    assert checkpoint.steps(tmp_path / "r") == [4] and (read_best(tmp_path / "r") or {})["step"] == 4
    if SOAK:
        finish(args, tmp_path / "r")


@pytest.mark.parametrize("number", SIGNALS if SOAK else [signal.SIGTERM])
def test_while_the_workers_start(number: int, data_root: Path, tmp_path: Path) -> None:
    def within() -> None:
        start = BaseProcess.start

        def noisy(worker: BaseProcess) -> None:
            start(worker)
            os.killpg(os.getpid(), number)
            BaseProcess.start = start  # type: ignore[method-assign]

        BaseProcess.start = noisy  # type: ignore[method-assign]

    command = Command(tmp_path, *overrides("folder", data_root), "run_dir=r", within=within)
    command.end()
    assert_resumable(command, tmp_path / "r", number)
    assert newest(tmp_path / "r") == 1
