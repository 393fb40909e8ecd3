"""Real processes with missing streams, folders and resources, and with signals before the first step."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from ..conftest import TINY  # type: ignore[import-not-found]

SOAK = "GAN_CLI_SOAK" in os.environ
SIGNALLED = [10] if SOAK else [1, pytest.param(3, marks=pytest.mark.slow)]
WITHIN = 3.0 if SOAK else 1.0  # seconds after the start in which the signals come
BIN = Path(sys.executable).parent
TRAIN = " ".join(["gan-train", *TINY["dcgan"], "total_steps=2", "run_dir=run"])
SURROUNDINGS = {  # shell command, exit code, maximum number of lines on stderr
    "a full device for stdout": ("gan-train --help > /dev/full", 74, 1),
    "current directory deleted": (f"mkdir gone; cd gone; rmdir ../gone; {TRAIN}", 66, 1),
    "no address space": (f"ulimit -v 300000; {TRAIN}", 71, 1),
    "no home, no tmp, no locale": (f"env -u HOME -u XDG_CACHE_HOME TMPDIR=/nope LC_ALL=C {TRAIN} < /dev/null", 0, 99),
    "a home that cannot be written": (f"HOME=/proc XDG_CACHE_HOME=/proc/x {TRAIN}", 0, 99),
    "an empty environment": (f'env -i PATH="$PATH" {TRAIN}', 0, 99),
    "no streams": (f"{TRAIN} <&- >&- 2>&-", 0, 0),
    "a reader that leaves": (f"{TRAIN} 2>&1 | head -n 1; exit ${{PIPESTATUS[0]}}", 0, 0),
    "stderr closed": (f"{TRAIN} 2>&-", 0, 0),
    "stdout closed": (f"{TRAIN} >&-", 0, 99),
    "a full device for stderr": (f"{TRAIN} 2> /dev/full", 0, 0),
    "help without stdout": ("gan-train --help >&-", 0, 0),
    "64 open files": (f"ulimit -n 64; {TRAIN}", 0, 99),
    "1 GB of address space": (f"ulimit -v 1000000; {TRAIN}", 71, 1),
    "a bad value": (f"{TRAIN} batch_size=0 2> /dev/full", 2, 0),
}
SHORT = list(SURROUNDINGS)[:3]


def environment(**more: str) -> dict[str, str]:
    return os.environ | {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", "OMP_NUM_THREADS": "1"} | more


@pytest.mark.parametrize("name", SURROUNDINGS if SOAK else SHORT)
def test_in(name: str, tmp_path: Path) -> None:
    command, code, lines = SURROUNDINGS[name]
    result = subprocess.run(
        ["bash", "-c", command], cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=300,
        start_new_session=True,
    )  # fmt: skip
    assert result.returncode == code, result.stderr
    assert "Traceback" not in result.stderr and "Exception ignored" not in result.stderr
    assert len(result.stderr.splitlines()) <= lines, result.stderr
    if code == 0 and "run_dir" in command:
        assert json.loads((tmp_path / "run" / "status.json").read_text())["state"] == "complete"
    elif code != 0:
        assert lines == 0 or result.stderr.startswith("gan-train: error: ")
        assert list(tmp_path.iterdir()) == []


MAIN = """
import os, sys
from gan_cli import train, sample, eval
from gan_cli.system import signals
handle = signals._handle
def ready(handler):
    before = handle(handler)
    if handler is not signals.note:
        os.write(1, b'ready\\n')
    return before
signals._handle = ready
sys.argv[:] = sys.argv[1:]
{'gan-train': train, 'gan-sample': sample, 'gan-eval': eval}[sys.argv[0]].main()
"""  # says when it has begun: before that a signal does what it does to any process


def signalled(cwd: Path, numbers: list[int], seconds: float, *args: str) -> tuple[int, list[str]]:
    """Exit code and stderr of a command that gets signals some time after its start."""
    process = subprocess.Popen(
        [sys.executable, "-c", MAIN, *args], cwd=cwd, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        start_new_session=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None and process.stdout.readline() == b"ready\n"
        time.sleep(seconds)
        for number in numbers:
            process.send_signal(number)
        err = process.communicate(timeout=300)[1]
    finally:
        process.kill()
        process.wait()
    return process.returncode, err.decode().splitlines()


@pytest.mark.parametrize("signals", SIGNALLED)
def test_a_signal_before_the_first_step(signals: int, tmp_path: Path) -> None:
    draw = random.Random(3)
    for k in range(signals):
        number, seconds = draw.choice([signal.SIGINT, signal.SIGTERM, signal.SIGUSR1]), draw.uniform(0, WITHIN)
        command = ["gan-train", *TINY["dcgan"], "total_steps=100000", f"run_dir={k}"]
        code, err = signalled(tmp_path, [number], seconds, *command)
        told = f"{number.name} after {seconds:.2f} s: {err}"
        assert code == 75, told
        if len(err) == 1:
            assert err[0].startswith("gan-train: ") and number.name in err[0], told
        else:  # the loop had started
            assert " step " in err[-1] and number.name in err[-1], told
    print(f"{signals} signals within {WITHIN:g} s of the start: all resumable")


@pytest.mark.parametrize(("program", "arg"), [("gan-sample", "run_dir=no"), ("gan-eval", "run_dir=no")])
def test_other_commands_end_as_the_shell_expects(program: str, arg: str, tmp_path: Path) -> None:
    if not SOAK:
        pytest.skip("a soak test")
    for number in (signal.SIGINT, signal.SIGTERM):
        assert signalled(tmp_path, [number], 0, program, arg) == (128 + number, [f"{program}: interrupted by {number.name}"])


def test_a_signal_that_a_library_takes_for_its_own_failure(gan: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def signalled(*args: Any, **keywords: Any) -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(1)
        except BaseException as error:
            raise ImportError("initialization failed") from error

    monkeypatch.setattr("gan_cli.training.session.run", signalled)
    for args in ([], ["-m", "seed=1,2"]):
        result = gan("gan-train", *args)
        assert result.code == 75 and "Traceback" not in result.err
        assert result.err.splitlines()[-1].startswith("gan-train: ")


def test_a_signal_in_the_last_step_of_a_job_ends_the_sweep(train: Any, stop_at: Any, tmp_path: Path) -> None:
    stop_at(2, signal.SIGINT)
    result = train("-m", "seed=0,1", "total_steps=2", "hydra.sweep.dir=sweep", code=75)
    (job,) = (path for path in (tmp_path / "sweep").iterdir() if path.is_dir())
    assert json.loads((job / "status.json").read_text())["state"] == "complete"
    assert "to continue the whole sweep: " in result.err and "Traceback" not in result.err


def test_a_signal_in_the_last_step_of_a_single_run_changes_nothing(train: Any, stop_at: Any) -> None:
    stop_at(2, signal.SIGTERM)
    train("total_steps=2", "run_dir=run")


@pytest.mark.slow
def test_three_of_four_jobs(train: Any, tmp_path: Path) -> None:
    args = ["optimizer=sgd", "optimizer.lr=1e-4,1e20,1e-3,1e-5", "total_steps=6", "hydra.sweep.dir=sweep"]
    train("-m", *args, "max_skipped_updates=1", code=79)
    found = [json.loads(path.read_text())["state"] for path in (tmp_path / "sweep").glob("*/status.json")]
    assert sorted(found) == ["complete", "complete", "complete", "diverged"]


def test_a_traceback_goes_to_the_log_of_the_run_only(train: Any, tmp_path: Path) -> None:
    result = train("optimizer=sgd", "optimizer.lr=1e20", "total_steps=6", "run_dir=run", code=79)
    assert "Traceback" not in result.err
    assert "Traceback" in (tmp_path / "run" / "train.log").read_text()
