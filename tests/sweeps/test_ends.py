"""How a sweep ends: what is not tried again, what is said, and with which exit code."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gan_cli import signals
from gan_cli.errors import DiskError, PreemptedError
from gan_cli.sweeps import directory, elsewhere, jobs

from ..conftest import TINY  # type: ignore[import-not-found]


def times(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_a_diverged_job_is_not_trained_again(gan: Any, tmp_path: Path) -> None:
    sweep = ["gan-train", "-m", *TINY["dcgan"], "loss=lsgan", "optimizer.lr=1e-3,1e30", "total_steps=2", "hydra.sweep.dir=s"]
    one = ["max_skipped_updates=1"]
    assert gan(*sweep, *one).code == 79
    before = times(tmp_path / "s" / "optimizer.lr=1e+30")
    again = gan(*sweep, *one)
    assert again.code == 79 and before and before == times(tmp_path / "s" / "optimizer.lr=1e+30"), again.err
    assert "diverged before, would again, and stay as they are" in again.err and "1 of 2 jobs are finished" in again.err
    assert again.err.strip().splitlines()[-1] == "gan-train: 1 failed: optimizer.lr=1e+30"
    other = gan(*sweep, "max_skipped_updates=2")
    assert "diverged before" not in other.err, "with another limit it may go on"


def test_a_launcher_that_cannot_begin(gan: Any, tmp_path: Path) -> None:
    pytest.importorskip("joblib")
    result = gan(
        "gan-train", "-m", *TINY["dcgan"], "launcher=joblib", "hydra.launcher.n_jobs=0", "seed=0,1", "hydra.sweep.dir=s"
    )
    assert result.code == 2 and "the launcher cannot run the jobs: n_jobs == 0" in result.errors[0], result.err
    assert not (tmp_path / "s" / ".stop").exists()


def test_home(gan: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert gan("gan-train", "-m", *TINY["dcgan"], "seed=0,1", "total_steps=1", "hydra.sweep.dir='~/s'").code == 0
    assert (tmp_path / "home" / "s" / "seed=1" / "status.json").exists() and not (tmp_path / "~").exists()


def test_a_job_whose_sweep_is_gone_is_not_begun(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It ends at once: with other jobs' results in the pipe that nobody reads, telling would take for ever."""
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    monkeypatch.setenv("GAN_CLI_SWEEP", f"{socket.gethostname()}:{gone.pid}")
    monkeypatch.setattr(os, "_exit", sys.exit)
    before = signal.getsignal(signal.SIGINT)
    try:
        with pytest.raises(SystemExit) as ended:
            elsewhere.obey(tmp_path)
    finally:
        signal.signal(signal.SIGINT, before)
    assert ended.value.code == PreemptedError.exit_code


def test_stopped_with_a_full_disk(gan: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    begun = []

    def full(*args: object, **keywords: object) -> None:
        begun.append(args)
        signals.received.append("SIGINT")
        raise DiskError("the checkpoint could not be written", "here", "Free some space")

    monkeypatch.setattr("gan_cli.trainer.train_run", full)
    result = gan("gan-train", "-m", *TINY["dcgan"], "seed=0,1", "hydra.sweep.dir=s")
    assert (result.code, len(begun)) == (DiskError.exit_code, 1), result.err
    assert "could not be written" in result.errors[0] and "nothing is lost" not in result.err


def test_what_is_said_of_jobs_that_a_signal_ended(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(directory, "continue_sweep", lambda: "gan-train -m")
    monkeypatch.setattr(signals, "received", ["SIGTERM"])
    grid = jobs.Jobs()
    grid.directory = tmp_path
    saved, lost = PreemptedError("stopped", "a", "Continue"), DiskError("no space", "b", "Free some")
    assert isinstance(grid._stopped([saved, saved]), PreemptedError)
    error = grid._stopped([saved, lost])
    assert error.exit_code == DiskError.exit_code and "and 1 of its jobs failed" in str(error)
