"""The table of jobs: what it reads from disk, and how long it says the rest takes."""

from __future__ import annotations

import io
import json
import logging
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from gan_cli.sweeps.progress_table import Job, Watch, clock, look, remaining, summary, table
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
    assert look(tmp_path, "b").state == "stopped", "nobody holds it"
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
    assert remaining([done, half, waiting], 1) == 30
    assert remaining([done, half, waiting], 2) == 20, "the longest one"
    assert remaining([done, half], 1, more=2) == 50
    assert remaining([waiting], 1) is None
    assert remaining([done], 1) == 0
    assert [clock(s) for s in (None, 59.6, 3661)] == ["-", "1:00", "1:01:01"]


def test_words() -> None:
    jobs = [Job("loss=hinge,seed=0", "complete", 100, 100, 20.0), Job("loss=lsgan,seed=0", "running", 50, 100, 10.0)]
    lines = table(jobs)
    assert lines[1].split() == ["loss=hinge,seed=0", "complete", "100/100", "0:20", "-"]
    assert lines[2].split() == ["loss=lsgan,seed=0", "running", "50/100", "0:10", "0:10"]
    assert summary(jobs, 1) == "1 of 2 complete, 1 running, ETA 0:10"
    assert summary(jobs, 1, more=3) == "1 of 5 complete, 1 running, 3 to come, ETA 1:10"


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> pytest.LogCaptureFixture:
    """What is logged, by a watch that looks all the time."""
    monkeypatch.setattr("gan_cli.sweeps.progress_table.LOOK", 0.01)
    monkeypatch.setattr(logging.getLogger("gan_cli"), "propagate", True)
    caplog.set_level(logging.INFO, logger="gan_cli")
    return caplog


def until(what: Callable[[], object]) -> None:
    limit = time.monotonic() + 60
    while not what() and time.monotonic() < limit:
        time.sleep(0.01)


def test_a_watch_says_what_changes(tmp_path: Path, said: pytest.LogCaptureFixture) -> None:
    watch = Watch(tmp_path, ["a", "b"])
    watch.start()
    job(tmp_path / "made", "complete", 100, 20.0)
    (tmp_path / "made").rename(tmp_path / "a")  # whole at once
    until(lambda: "a: complete" in said.text)
    watch.stop()
    assert "0 of 2 complete, 2 waiting" in said.text
    assert "sweep: a: complete (1 of 2 complete, 1 waiting, ETA 0:20)" in said.text
    assert said.records[-1].getMessage().endswith("1 of 2 complete, 1 waiting\n"), "it is over"


def test_a_job_that_failed_in_this_session_is_not_one_that_was_stopped(tmp_path: Path) -> None:
    job(tmp_path / "a", "running", 50, 10.0)
    watch = Watch(tmp_path, ["a", "b"])
    watch.failed = {"a": "no space", "b": "no such loss"}
    assert [(found.state, found.step, found.message) for found in watch._look()] == [
        ("failed", 50, "no space"),
        ("failed", 0, "no such loss"),
    ]


def test_why_a_job_failed_that_cannot_say_it_here(tmp_path: Path, said: pytest.LogCaptureFixture) -> None:
    watch = Watch(tmp_path, ["a"], apart=True, says=True)
    watch.start()
    job(tmp_path / "made", "diverged", 30, 6.0)
    told = json.loads((tmp_path / "made" / "status.json").read_text()) | {"message": "training diverged"}
    (tmp_path / "made" / "status.json").write_text(json.dumps(told))
    (tmp_path / "made").rename(tmp_path / "a")
    until(lambda: watch.said)
    watch.stop()
    assert "a: training diverged" in [record.getMessage() for record in said.records]
    assert watch.said == {"a"}


def test_a_log_has_the_table_now_and_then(
    tmp_path: Path, said: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of jobs elsewhere nothing else may be said for hours."""
    monkeypatch.setattr("gan_cli.sweeps.progress_table.EVERY", 0.05)
    for apart, least in ((True, 4), (False, 2)):
        said.clear()
        watch = Watch(tmp_path, ["a"], apart=apart)
        watch.start()
        until(lambda: said.text.count("1 waiting") >= 4) if apart else time.sleep(0.2)
        watch.stop()
        assert said.text.count("1 waiting") >= least
    assert said.text.count("1 waiting") == 2, "a job in this process speaks for itself"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_on_a_terminal_each_job_that_runs_has_a_bar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr("gan_cli.sweeps.progress_table.LOOK", 0.01)
    job(tmp_path / "a", "running", 50, 10.0)
    with locked(tmp_path / "a"):
        watch = Watch(tmp_path, ["a", "b"], apart=True)
        watch.start()
        until(lambda: "ETA 0:10\n" in terminal.getvalue() or "50/100, ETA 0:10" in terminal.getvalue())
    until(lambda: not watch.bars or not watch.bars.jobs)
    assert watch.bars is not None and not watch.bars.jobs, "it was killed"
    watch.stop()
    drawn = terminal.getvalue()
    assert "50/100, ETA 0:10" in drawn and "0 of 2 complete, 1 running, 1 waiting, ETA 0:30" in drawn
