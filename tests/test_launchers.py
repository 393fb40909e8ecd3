"""Sweeps through Hydra's other launchers: the same runs, bit for bit."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from .conftest import TINY, quick  # type: ignore[import-not-found]

SWEEP = ["-m", *TINY["dcgan"], "seed=0,1", "total_steps=2"]


@pytest.mark.parametrize("name", quick(["joblib", "submitit"], "joblib"))
def test_the_same_as_one_job_after_the_other(name: str, train: Any, read: Any, tmp_path: Path) -> None:
    if (
        importlib.util.find_spec("hydra_plugins") is None
        or importlib.util.find_spec(f"hydra_plugins.hydra_{name}_launcher") is None
    ):
        pytest.skip(f"hydra-{name}-launcher is not installed")
    launcher = {"joblib": ["launcher=joblib", "hydra.launcher.n_jobs=2"], "submitit": ["launcher=submitit_local"]}
    rest = [argument for argument in SWEEP if argument != "threads=1"]  # which the presets set
    command = [sys.executable, "-m", "gan_cli.train", *rest, *launcher[name], "hydra.sweep.dir=launched"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    code, said = on_a_terminal(command, tmp_path, environment)
    assert code == 0, said
    assert "2 of 2 complete" in said and "generator:" not in said, "the table, and not what each job says for itself"
    train(*SWEEP, "hydra.sweep.dir=one_by_one")
    names = sorted(path.name for path in (tmp_path / "one_by_one").iterdir() if path.is_dir())
    assert len(names) == 2
    for job in names:
        read.assert_same(tmp_path / "one_by_one" / job, tmp_path / "launched" / job)
        assert "To continue it: " in (tmp_path / "launched" / job / "train.log").read_text()


def on_a_terminal(command: list[str], cwd: Path, environment: dict[str, str]) -> tuple[int, str]:
    """The exit code of a command, and what it wrote to a terminal."""
    ours, its = pty.openpty()
    process = subprocess.Popen(command, cwd=cwd, env=environment, stdin=its, stdout=its, stderr=its)
    os.close(its)
    said = b""
    with contextlib.suppress(OSError):  # nobody writes any more
        while part := os.read(ours, 65536):
            said += part
    os.close(ours)
    return process.wait(300), said.decode()


def test_a_failure_is_said_in_one_line(tmp_path: Path) -> None:
    """It comes from another process, as an exception."""
    import pickle

    from gan_cli.system.errors import ConfigError

    error = ConfigError("a value is needed", "run_dir", "Set it")
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is ConfigError and str(again) == str(error) and again.todo == "Set it"
