"""Jobs in other processes end when the sweep does: saved, and the same command goes on to the same end."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from gan_cli import status

from ..conftest import TINY  # type: ignore[import-not-found]

pytestmark = pytest.mark.skipif(importlib.util.find_spec("joblib") is None, reason="the sweep extra is not installed")
SWEEP = ["-m", *TINY["dcgan"], "launcher=joblib", "hydra.launcher.n_jobs=2", "seed=0,1,2", "hydra.sweep.dir=sweep"]
LONG = [*SWEEP, "total_steps=100000", "log_every=5", "save_every=100000", "sample_every=100000"]


def started(cwd: Path, args: list[str]) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "gan_cli.train", *args]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, cwd=cwd, env=environment, stderr=open(cwd / "said.txt", "w"), start_new_session=True)


def wait_for(what: Any, seconds: float = 120) -> None:
    limit = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < limit, "it never came"
        time.sleep(0.1)


def training(sweep: Path, seed: int) -> bool:
    rows = sweep / f"seed={seed}" / "metrics.jsonl"
    return rows.exists() and rows.stat().st_size > 0


def states(sweep: Path) -> dict[str, tuple[str, int]]:
    found = {path.name: status.read(path) for path in sweep.iterdir() if path.is_dir()}
    return {name: (told["state"], told["step"]) for name, told in found.items() if told is not None}


def processes(group: int) -> int:
    """That have not ended, of a group."""
    found = 0
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                rest = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            found += int(rest[2]) == group and rest[0] != "Z"
    return found


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc")
@pytest.mark.parametrize(("number", "to_group"), [(signal.SIGKILL, False), (signal.SIGTERM, False), (signal.SIGINT, True)])
def test_the_sweep_ends_and_all_jobs_with_it(number: int, to_group: bool, tmp_path: Path) -> None:
    sweep = tmp_path / "sweep"
    process = started(tmp_path, LONG)
    try:
        wait_for(lambda: training(sweep, 0) and training(sweep, 1))
        (os.killpg if to_group else os.kill)(process.pid, number)
        code = process.wait(60)
        wait_for(lambda: processes(process.pid) == 0, 30)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert code == (-signal.SIGKILL if number == signal.SIGKILL else 75), (tmp_path / "said.txt").read_text()
    ended = states(sweep)
    assert set(ended) == {"seed=0", "seed=1"}, "the third was not begun"
    assert all(state == "preempted" and step > 0 for state, step in ended.values())
    assert all((sweep / name / "checkpoints" / f"step-{step:08d}").is_dir() for name, (_, step) in ended.items())
