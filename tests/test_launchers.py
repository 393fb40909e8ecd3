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

LAUNCHER = {"joblib": ["launcher=joblib", "hydra.launcher.n_jobs=2"], "submitit": ["launcher=submitit_local"]}


@pytest.mark.parametrize(("name", "seeds"), quick([("joblib", "0"), ("joblib", "0,1"), ("submitit", "0,1")], ("joblib", "0")))
def test_the_same_as_one_job_after_the_other(name: str, seeds: str, train: Any, read: Any, tmp_path: Path) -> None:
    """A process for each job imports torch, so the quick case has one job."""
    if (
        importlib.util.find_spec("hydra_plugins") is None
        or importlib.util.find_spec(f"hydra_plugins.hydra_{name}_launcher") is None
    ):
        pytest.skip(f"hydra-{name}-launcher is not installed")
    sweep = ["-m", *TINY["dcgan"], f"seed=choice({seeds})", "loss=hinge", "total_steps=2"]
    rest = [argument for argument in sweep if argument != "threads=1"]  # which the presets set
    command = [sys.executable, "-m", "gan_cli.train", *rest, *LAUNCHER[name], "hydra.sweep.dir=launched"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    code, said = on_a_terminal(command, tmp_path, environment)
    assert code == 0, said
    jobs = len(seeds.split(","))
    assert f"{jobs} of {jobs} complete" in said and "generator:" not in said, "the table, and not the log of each job"
    train(*sweep, "hydra.sweep.dir=one_by_one")
    names = sorted(path.name for path in (tmp_path / "one_by_one").iterdir() if path.is_dir())
    assert len(names) == jobs
    for job in names:
        read.assert_same(tmp_path / "one_by_one" / job, tmp_path / "launched" / job)
        assert "To continue it: " in (tmp_path / "launched" / job / "train.log").read_text()


def on_a_terminal(command: list[str], cwd: Path, environment: dict[str, str]) -> tuple[int, str]:
    """The exit code of a command, and what it wrote to a terminal."""
    ours, its = pty.openpty()
    process = subprocess.Popen(command, cwd=cwd, env=environment, stdin=its, stdout=its, stderr=its)
    os.close(its)
    said = b""
    with contextlib.suppress(OSError):  # the command has ended
        while part := os.read(ours, 65536):
            said += part
    os.close(ours)
    return process.wait(300), said.decode()


def test_an_error_from_another_process_is_the_same() -> None:
    """It comes as a pickled exception."""
    import pickle

    from gan_cli.system.errors import ConfigError

    error = ConfigError("a value is needed", "run_dir", "Set it")
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is ConfigError and str(again) == str(error) and again.todo == "Set it"
