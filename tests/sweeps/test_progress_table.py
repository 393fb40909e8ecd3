"""The table of jobs: what it reads from disk, and the time left."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from gan_cli.sweeps.progress_table import Job, Watch, look, remaining, summary, table
from gan_cli.system.locks import locked


def job(path: Path, state: str, step: int, seconds: float = 0.0, total: int = 100) -> None:
    path.mkdir(parents=True)
    told = {"state": state, "step": step, "total_steps": total, "message": None}
    (path / "status.json").write_text(json.dumps(told))
    rows = [{"step": k, "time/elapsed": seconds * k / step} for k in range(10, step + 1, 10)]
    (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_states(tmp_path: Path) -> None:
    job(tmp_path / "a", "complete", 100, 20.0)
    job(tmp_path / "b", "running", 50, 10.0)
    job(tmp_path / "c", "diverged", 30, 6.0)
    assert look(tmp_path, "a") == Job("a", "complete", 100, 100, 20.0)
    assert look(tmp_path, "b").state == "stopped", "no process holds it"
    with locked(tmp_path / "b"):
        running = look(tmp_path, "b")
    assert (running.state, running.step, running.left) == ("running", 50, 10.0)
    assert look(tmp_path, "c").left == 0
    assert look(tmp_path, "d") == Job("d", "waiting")


def test_a_running_job_is_where_its_last_row_is(tmp_path: Path) -> None:
    """status.json is written with checkpoints only."""
    job(tmp_path / "b", "running", 50, 10.0)
    told = json.loads((tmp_path / "b" / "status.json").read_text()) | {"step": 0}
    (tmp_path / "b" / "status.json").write_text(json.dumps(told))
    with locked(tmp_path / "b"):
        assert look(tmp_path, "b").step == 50


@pytest.mark.parametrize("text", ["", "\n", "{", "[]", '{"step": "x"}', '{"step": 3}'])
def test_rows_that_cannot_be_read(text: str, tmp_path: Path) -> None:
    job(tmp_path / "b", "running", 0)
    (tmp_path / "b" / "metrics.jsonl").write_text(text)
    with locked(tmp_path / "b"):
        assert (look(tmp_path, "b").step, look(tmp_path, "b").left) == (0, None)


def test_time_left() -> None:
    done, half, waiting = Job("a", "complete", 100, 100, 20.0), Job("b", "running", 50, 100, 10.0), Job("c", "waiting")
    assert remaining([done, half, waiting]) == 30
    assert remaining([done, half, half, waiting]) == 20, "two at a time"
    assert remaining([done, half], more=2) == 50
    assert remaining([waiting]) is None
    assert remaining([done]) == 0


def test_the_table() -> None:
    jobs = [Job("loss=hinge,seed=0", "complete", 100, 100, 20.0), Job("loss=lsgan,seed=0", "running", 50, 100, 10.0)]
    lines = table(jobs)
    assert lines[1].split() == ["loss=hinge,seed=0", "complete", "100/100", "0:20", "-"]
    assert lines[2].split() == ["loss=lsgan,seed=0", "running", "50/100", "0:10", "0:10"]
    assert summary(jobs) == "1 of 2 complete, 1 running, ETA 0:10"
    assert summary(jobs, more=3) == "1 of 5 complete, 1 running, 3 to come, ETA 1:10"
    assert summary(jobs, over=True) == "1 of 2 complete, 1 running"


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> pytest.LogCaptureFixture:
    """The log of a watch that looks all the time."""
    monkeypatch.setattr("gan_cli.sweeps.progress_table.POLL_S", 0.01)
    monkeypatch.setattr(logging.getLogger("gan_cli"), "propagate", True)
    caplog.set_level(logging.INFO, logger="gan_cli")
    return caplog


def wait_for(condition: Callable[[], object]) -> None:
    limit = time.monotonic() + 60
    while not condition() and time.monotonic() < limit:
        time.sleep(0.01)


def test_a_watch_logs_what_changes(tmp_path: Path, logged: pytest.LogCaptureFixture) -> None:
    watch = Watch(tmp_path, ["a", "b"])
    watch.start()
    job(tmp_path / "made", "complete", 100, 20.0)
    (tmp_path / "made").rename(tmp_path / "a")  # all files at once
    wait_for(lambda: "a: complete" in logged.text)
    watch.stop()
    first, change, last = (record.getMessage() for record in logged.records)
    assert first.endswith("0 of 2 complete, 2 waiting\n")
    assert change == "sweep: a: complete; 1 of 2 complete, 1 waiting, ETA 0:20"
    assert last.endswith("1 of 2 complete, 1 waiting\n"), "no time is left"


def test_a_job_that_failed_in_this_session_is_not_one_that_was_stopped(tmp_path: Path) -> None:
    job(tmp_path / "a", "running", 50, 10.0)
    watch = Watch(tmp_path, ["a", "b"])
    watch.failed = {"a", "b"}
    assert [(found.state, found.step) for found in watch.look()] == [("failed", 50), ("failed", 0)]


def test_a_summary_now_and_then(tmp_path: Path, logged: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs in other processes may log nothing for hours."""
    monkeypatch.setattr("gan_cli.sweeps.progress_table.SUMMARY_S", 0.05)
    watch = Watch(tmp_path, ["a"])
    watch.start()
    wait_for(lambda: logged.text.count("1 waiting") >= 3)
    watch.stop()
    assert logged.text.count("1 waiting") >= 4
