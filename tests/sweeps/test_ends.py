"""How a sweep ends: which jobs are tried again, and with which exit code."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hydra.core.utils import JobReturn, JobStatus
from omegaconf import OmegaConf

from gan_cli.sweeps import directory, jobs, worker_processes
from gan_cli.sweeps.progress_table import Watch
from gan_cli.system import signals
from gan_cli.system.errors import ConfigError, DiskError, PeerError, PreemptedError, PrunedError

from ..conftest import TINY  # type: ignore[import-not-found]


def times(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
def test_a_diverged_job_is_not_trained_again(gan: Any, tmp_path: Path) -> None:
    sweep = ["gan-train", "-m", *TINY["dcgan"], "loss=lsgan", "optimizer.lr=1e-3,1e30", "total_steps=2", "hydra.sweep.dir=s"]
    one = ["max_skipped_updates=1"]
    assert gan(*sweep, *one).code == 79
    before = times(tmp_path / "s")
    again = gan(*sweep, *one)
    after = times(tmp_path / "s")
    assert again.code == 79 and {p.name for p in after if after[p] != before.get(p)} <= {"sweep.json", ".lock"}, again.err
    assert again.err.strip().splitlines()[-1] == "gan-train: 1 failed: optimizer.lr=1e+30"
    gan(*sweep, "max_skipped_updates=2")
    assert after != times(tmp_path / "s"), "with another limit it is trained again"


def test_a_launcher_that_cannot_begin(gan: Any, tmp_path: Path) -> None:
    pytest.importorskip("joblib")
    result = gan(
        "gan-train", "-m", *TINY["dcgan"], "launcher=joblib", "hydra.launcher.n_jobs=0", "seed=0,1", "hydra.sweep.dir=s"
    )
    assert result.code == 2 and result.error.where == "hydra.launcher", result.err
    assert not (tmp_path / "s" / ".stop").exists()


@pytest.mark.slow
def test_home(gan: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert gan("gan-train", "-m", *TINY["dcgan"], "seed=0,1", "total_steps=1", "hydra.sweep.dir='~/s'").code == 0
    assert (tmp_path / "home" / "s" / "seed=1" / "status.json").exists() and not (tmp_path / "~").exists()


def test_a_job_without_its_sweep_is_not_begun(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It ends at once: an exception would wait for ever for a reader of the pipe."""
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    monkeypatch.setenv("GAN_CLI_SWEEP", f"{socket.gethostname()}:{gone.pid}")
    monkeypatch.setattr(os, "_exit", sys.exit)
    before = signal.getsignal(signal.SIGINT)
    try:
        with pytest.raises(SystemExit) as ended:
            worker_processes.obey(tmp_path)
    finally:
        signal.signal(signal.SIGINT, before)
    assert ended.value.code == PreemptedError.exit_code


def test_stopped_with_a_full_disk(gan: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    begun = []

    def full(*args: object, **keywords: object) -> None:
        begun.append(args)
        signals.received.append("SIGINT")
        raise DiskError("disk of step 7", "here", "Free some space")

    monkeypatch.setattr("gan_cli.training.session.run", full)
    result = gan("gan-train", "-m", *TINY["dcgan"], "seed=0,1", "hydra.sweep.dir=s")
    assert (result.code, len(begun)) == (DiskError.exit_code, 1), result.err
    assert result.error.where == "here"


def failed(error: Exception) -> JobReturn:
    """The launcher's result of a job that raised."""
    end = JobReturn()
    end.status, end.return_value = JobStatus.FAILED, error
    return end


class BrokenExecutor(RuntimeError):
    """Called like joblib's, when one of its workers was killed."""


class Launcher:
    """Stands for joblib's: two workers at a time, which are killed with a job in ``bad``, each job pruned."""

    def __init__(self, folder: Path, bad: str = "", error: Exception | None = None) -> None:
        self.folder, self.bad, self.error, self.launches = folder, bad, error, list[list[str]]()

    def launch(self, batch: list[list[str]], number: int) -> list[JobReturn]:
        names = [name for (name,) in batch]
        self.launches.append(names)
        for k in range(0, len(names), 2):
            for name in names[k : k + 2]:
                (self.folder / name).mkdir(exist_ok=True)
                (self.folder / name / "status.json").write_text('{"state": "running", "step": 3}')
            if self.error is not None:
                raise self.error
            if set(self.bad) & set(names[k : k + 2]):
                raise BrokenExecutor
        return [failed(PrunedError("hopeless", name, "")) for name in names]


@pytest.fixture
def grid(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """A sweep with joblib's launcher, whose jobs are called as they are typed."""
    monkeypatch.setattr(directory, "continue_sweep", lambda: "gan-train -m")
    launcher = {"_target_": "hydra_plugins.hydra_joblib_launcher.joblib_launcher.JoblibLauncher", "n_jobs": 2}
    context: Any = None
    sweep: Any = jobs.Jobs(context, context, OmegaConf.create({"hydra": {"launcher": launcher}, "device": "auto"}))
    sweep.directory = tmp_path
    sweep.watch = Watch(tmp_path, sweep.names)
    monkeypatch.setattr(sweep.watch, "start", lambda: None)
    sweep.plan = lambda overrides: jobs.Planned(list(overrides), overrides[0], tmp_path / overrides[0], None)
    sweep.launcher = Launcher(tmp_path)
    return sweep


def test_a_killed_worker_fails_the_jobs_that_ran_and_the_others_follow(grid: Any, tmp_path: Path) -> None:
    grid.launcher.bad = "a"
    outcomes = grid.run([[name] for name in "abcd"])
    assert {one.name: one.state for one in outcomes} == {"a": "failed", "b": "failed", "c": "pruned", "d": "pruned"}
    assert [type(one.error) for one in outcomes[:2]] == [PeerError, PeerError] and grid.watch.failed == set("abcd")
    assert grid.launcher.launches == [list("abcd"), list("cd")]


def test_a_launcher_that_loses_everything_ends(grid: Any, tmp_path: Path) -> None:
    grid.launcher.error, grid.launcher.folder = BrokenExecutor(), tmp_path / "elsewhere"
    grid.launcher.folder.mkdir()
    assert [one.state for one in grid.run([["a"], ["b"], ["c"]])] == ["failed"] * 3
    assert len(grid.launcher.launches) == 1


def test_the_exit_of_a_sweep_that_a_signal_ended(grid: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(signals, "received", ["SIGTERM"])
    saved, refused = failed(PreemptedError("stopped", "a", "Continue")), failed(ConfigError("no such value", "b", "Correct"))
    full = failed(DiskError("no space", "c", "Free some"))
    for ends, lost, kind in (
        ([saved, refused], False, PreemptedError),
        ([saved, full], False, DiskError),
        ([], True, PeerError),
    ):
        assert type(jobs._stopped(tmp_path, ends, lost)) is kind


def test_the_plan_keeps_what_began_with_an_earlier_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(directory, "continue_sweep", lambda: "gan-train -m")
    directory.write_plan(tmp_path, ["a", "b"], ["a"])
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "status.json").write_text("{}")
    directory.write_plan(tmp_path, ["c"])
    plan = directory.read_plan(tmp_path)
    assert plan is not None and (plan["jobs"], plan["chosen"]) == (["a", "c"], ["a"])
    (tmp_path / "sweep.json").write_text('{"jobs": ["a"], "chosen": 3}')
    directory.write_plan(tmp_path, ["c"], ["c"])
    assert (directory.read_plan(tmp_path) or {})["chosen"] == ["c"]
