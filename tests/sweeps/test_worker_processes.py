"""Jobs in other processes end when the sweep does, with their state saved."""

from __future__ import annotations

import importlib.util
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from gan_cli.rundir import status

from ..conftest import TINY  # type: ignore[import-not-found]

LAUNCHERS = {"joblib": ["launcher=joblib", "hydra.launcher.n_jobs=2"], "submitit": ["launcher=submitit_local"]}
JOBS = {"joblib": "seed=0,1,2", "submitit": "seed=0,1"}  # which begins all at once
SOAK = "GAN_CLI_SOAK" in os.environ
ENDS = [(signal.SIGKILL, False), (signal.SIGTERM, False), (signal.SIGINT, True)]  # a signal, and whether all processes get it
# One end of each kind, and Ctrl-C with both launchers: only there do the jobs get the signal too.
ENDED = [("submitit", *ENDS[0]), ("joblib", *ENDS[1]), *((launcher, *ENDS[2]) for launcher in LAUNCHERS)]
ALL_ENDED = [(launcher, *end) for launcher in LAUNCHERS for end in ENDS]
# submitit waits 15 seconds for the result of a process that was killed.
IMPATIENT = "from submitit.core.core import Job; Job._results_timeout_s = 1; from gan_cli.train import main; main()"
LONG = ["total_steps=100000", "log_every=5", "save_every=100000", "sample_every=100000"]
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc")


@pytest.fixture(params=LAUNCHERS)
def launcher(request: pytest.FixtureRequest) -> str:
    if importlib.util.find_spec(request.param) is None:
        pytest.skip(f"{request.param} is not installed")
    return str(request.param)


def sweep_of(launcher: str, *args: str) -> list[str]:
    return ["-m", *TINY["dcgan"], *LAUNCHERS[launcher], JOBS[launcher], "hydra.sweep.dir=sweep", *args]


@contextmanager
def started(cwd: Path, args: list[str], *python: str) -> Iterator[subprocess.Popen[bytes]]:
    """The command in a new process group, all of which has ended afterwards."""
    command = [sys.executable, *(python or ("-m", "gan_cli.train")), *args]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with open(cwd / "said.txt", "w") as said:
        process = subprocess.Popen(command, cwd=cwd, env=environment, stderr=said, start_new_session=True)
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)


def wait_for(condition: Any, seconds: float = 300) -> None:
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, "timeout"
        time.sleep(0.03)


def training(sweep: Path, seed: int) -> bool:
    rows = sweep / f"seed={seed}" / "metrics.jsonl"
    return rows.exists() and rows.stat().st_size > 0


def states(sweep: Path) -> dict[str, tuple[str, int]]:
    found = {path.name: status.read(path) for path in sweep.iterdir() if path.is_dir()}
    return {name: (told["state"], told["step"]) for name, told in found.items() if told is not None}


def alive(sweep: Path) -> list[str]:
    """Command lines of processes whose current directory is that of this test."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                here = (entry / "cwd").resolve() == sweep.parent
                state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
                line = (entry / "cmdline").read_text()
            except OSError:
                continue
            if here and state != "Z" and "resource_tracker" not in line:
                found.append(line)
    return found


@linux
@pytest.mark.parametrize(
    ("launcher", "number", "to_group"),
    ALL_ENDED if SOAK else ENDED,
    indirect=["launcher"],
)
@pytest.mark.slow
def test_the_sweep_ends_and_all_jobs_with_it(launcher: str, number: int, to_group: bool, tmp_path: Path) -> None:
    sweep = tmp_path / "sweep"
    with started(tmp_path, sweep_of(launcher, *LONG)) as process:
        wait_for(lambda: training(sweep, 0) and training(sweep, 1))
        (os.killpg if to_group else os.kill)(process.pid, number)
        code = process.wait(300)
        wait_for(lambda: not alive(sweep))
    said = (tmp_path / "said.txt").read_text()
    assert code == (-signal.SIGKILL if number == signal.SIGKILL else 75), said
    assert "Traceback" not in said and "before a step" not in said
    if code == 75:
        (line,) = (line for line in said.splitlines() if line.startswith("gan-train: the sweep was stopped by "))
        assert "Continue with: " in line and " -m " in line
    ended = states(sweep)
    assert set(ended) == {"seed=0", "seed=1"}, "the third was not begun"
    assert all(state == "preempted" and step > 0 for state, step in ended.values())
    assert all((sweep / name / "checkpoints" / f"step-{step:08d}").is_dir() for name, (_, step) in ended.items())


@pytest.mark.slow
@linux
def test_a_killed_worker_fails_its_job_and_others_run(launcher: str, tmp_path: Path) -> None:
    """joblib kills its other workers too. The same command resumes all of them."""
    sweep = tmp_path / "sweep"
    python = ["-c", IMPATIENT] if launcher == "submitit" else []
    args = sweep_of(launcher, "total_steps=250", "log_every=5", "save_every=50", "sample_every=250")
    with started(tmp_path, args, *python) as process:
        wait_for(lambda: training(sweep, 0) and training(sweep, 1))
        told = status.read(sweep / "seed=0")
        assert told is not None
        os.kill(told["process"], signal.SIGKILL)
        code = process.wait(300)
        wait_for(lambda: not alive(sweep))
    said = (tmp_path / "said.txt").read_text()
    ended = {name: state for name, (state, _) in states(sweep).items()}
    last = f"seed={JOBS[launcher][-1]}"
    assert code == 70 and ended["seed=0"] == "running" and ended[last] == "complete", said
    assert "Traceback" not in said and re.search("^seed=0 +failed", said, re.MULTILINE), said
    with started(tmp_path, args) as process:
        assert process.wait(300) == 0
    assert {state for state, _ in states(sweep).values()} == {"complete"}


@pytest.mark.slow
@linux
def test_ctrl_c_while_the_processes_start(launcher: str, tmp_path: Path) -> None:
    with started(tmp_path, sweep_of(launcher, *LONG)) as process:
        wait_for(lambda: "waiting" in (tmp_path / "said.txt").read_text())
        time.sleep(1)
        os.killpg(process.pid, signal.SIGINT)
        code = process.wait(300)
        wait_for(lambda: not alive(tmp_path / "sweep"))
    said = (tmp_path / "said.txt").read_text()
    assert code == 75 and ("Traceback" not in said or launcher == "joblib"), said


@pytest.mark.slow
def test_a_failing_job_says_why(launcher: str, tmp_path: Path) -> None:
    """In the directory that follows from the overrides, where submitit's own files go too."""
    args = ["-m", *TINY["dcgan"], *LAUNCHERS[launcher], "batch_size=8,100000", "total_steps=1"]
    with started(tmp_path, args) as process:
        assert process.wait(300) == 2
    said = (tmp_path / "said.txt").read_text()
    assert re.search(r"error: .*batch_size=100000|^batch_size=100000: ", said, re.MULTILINE), said
    assert "batch_size=100000  failed" in said
    assert said.strip().splitlines()[-1] == "gan-train: 1 failed: batch_size=100000"
    assert [path.name for path in tmp_path.iterdir() if path.name != "said.txt"] == ["outputs"]
