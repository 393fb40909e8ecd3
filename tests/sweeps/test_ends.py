"""How a sweep ends: what is not tried again, what is said, and with which exit code."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any, ClassVar

import pytest
from omegaconf import OmegaConf

from gan_cli.sweeps import directory, jobs, lost_jobs, worker_processes
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
    before = times(tmp_path / "s" / "optimizer.lr=1e+30")
    again = gan(*sweep, *one)
    assert again.code == 79 and before and before == times(tmp_path / "s" / "optimizer.lr=1e+30"), again.err
    assert "diverged before" in again.err and "1 of 2 jobs" in again.err
    assert again.err.strip().splitlines()[-1] == "gan-train: 1 failed: optimizer.lr=1e+30"
    other = gan(*sweep, "max_skipped_updates=2")
    assert "diverged before" not in other.err, "with another limit it may go on"


def test_a_launcher_that_cannot_begin(gan: Any, tmp_path: Path) -> None:
    pytest.importorskip("joblib")
    result = gan(
        "gan-train", "-m", *TINY["dcgan"], "launcher=joblib", "hydra.launcher.n_jobs=0", "seed=0,1", "hydra.sweep.dir=s"
    )
    assert result.code == 2 and "n_jobs == 0" in result.errors[0], result.err
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
    assert len(result.errors) == 1 and "disk of step 7 (here)" in result.errors[0]


class Job:
    """A planned one, as the sweep sees it."""

    def __init__(self, name: str, lost: bool = False, ended: str = "") -> None:
        self.name, self.lost, self.ended, self.path, self.overrides = name, lost, ended, Path(name), [name]
        self.config, self.message, self.changed = None, "", []

    def is_lost(self, since: float) -> bool:
        return self.lost

    def told_at(self) -> float:
        return 10.0


def test_what_is_said_of_jobs_that_a_signal_ended(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(directory, "continue_sweep", lambda: "gan-train -m")
    monkeypatch.setattr(signals, "received", ["SIGTERM"])
    grid: Any = jobs.Jobs()
    grid.directory = tmp_path
    saved = PreemptedError("stopped", "a", "Continue")
    refused, full = ConfigError("no such value", "b", "Correct it"), DiskError("no space", "b", "Free some")
    ends = lost_jobs.as_failed(saved), lost_jobs.as_failed(refused), lost_jobs.as_failed(full)
    grid.signalled = 11.0
    error = grid._stopped([Job("a"), Job("b"), Job("c")], ends, 0.0)
    assert isinstance(error, PreemptedError), "what failed before the signal had nothing to save"
    grid.signalled = 9.0
    error = grid._stopped([Job("a"), Job("b"), Job("c")], ends, 0.0)
    assert isinstance(error, DiskError) and " c (" in str(error)
    gone = lost_jobs.as_failed(lost_jobs.LostError("its process is gone", "b", "Repeat it"))
    for ends in ([], [lost_jobs.as_failed(saved), gone]):
        error = grid._stopped([Job("a"), Job("b", lost=True)], ends, 0.0)
        assert type(error) is PeerError and " b (" in str(error), "it is not launched again"


@pytest.fixture
def grid(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """A sweep whose jobs are called as they are typed, all lost when ``bad`` ones are among a batch that is launched."""
    monkeypatch.setattr(directory, "continue_sweep", lambda: "gan-train -m")

    class Sweep(jobs.Jobs):
        bad: ClassVar[set[str]] = set()
        finished: ClassVar[dict[str, str]] = {}
        launches: ClassVar[list[list[str]]] = []

        def plan(self, overrides: Any) -> Any:
            (name,) = overrides
            return Job(name, lost=name in self.launches[-1][:2] if self.launches else False, ended=self.finished.get(name, ""))

        def _launch(self, batch: Any) -> Any:
            self.launches.append([job.name for job in batch])
            for job in batch:
                job.lost = job in batch[:2]  # two workers
            if self.bad & {job.name for job in batch[:2]}:
                raise lost_jobs.LostError("a worker was killed", "here", "Repeat it")
            if self.bad & {job.name for job in batch}:  # the first two came to their end before
                self.finished.update({job.name: "pruned" for job in batch[:2]})
                raise lost_jobs.LostError("a worker was killed", "here", "Repeat it")
            return [lost_jobs.as_failed(PrunedError("hopeless", job.name, "")) for job in batch]

    sweep: Any = Sweep()
    sweep.bad, sweep.finished, sweep.launches = set(), {}, []
    sweep.directory = tmp_path
    sweep.watch = Watch(tmp_path, sweep.names)
    monkeypatch.setattr(sweep.watch, "start", lambda: None)
    return sweep


def test_a_job_that_always_kills_its_worker_fails_alone(grid: Any) -> None:
    grid.bad = {"a"}
    outcomes = grid.run([[name] for name in "abcd"])
    assert {one.name: one.state for one in outcomes} == {"a": "failed", "b": "pruned", "c": "pruned", "d": "pruned"}
    assert isinstance(outcomes[0].error, PeerError)
    assert ["a"] in grid.launches and len(grid.launches) < 8, grid.launches


def test_what_ended_before_a_worker_was_killed_is_not_begun_again(grid: Any) -> None:
    grid.bad = {"c"}
    outcomes = grid.run([[name] for name in "abcd"])
    assert {one.name: one.state for one in outcomes} == {"a": "pruned", "b": "pruned", "c": "failed", "d": "pruned"}
    assert sum("a" in batch for batch in grid.launches) == 1


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


@pytest.mark.parametrize(("n", "here"), [(1, True), (2, False), (0, False), (-1000, True)])
def test_a_single_worker_of_joblib_is_this_process(n: int, here: bool) -> None:
    """So it speaks for itself, and draws the bar."""
    pytest.importorskip("joblib")
    sweep = jobs.Jobs()
    target = "hydra_plugins.hydra_joblib_launcher.joblib_launcher.JoblibLauncher"
    sweep.config = OmegaConf.create({"hydra": {"launcher": {"_target_": target, "n_jobs": n}}})
    assert sweep._is_here() is here
