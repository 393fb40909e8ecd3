"""status.json after every kind of end of a run."""

from __future__ import annotations

import json
import os
import shlex
import signal
from pathlib import Path
from typing import Any

import pytest

from gan_cli.rundir import status
from gan_cli.training.loop import Progress

from .conftest import quick  # type: ignore[import-not-found]


def of(run: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((run / "status.json").read_text())
    return content


def test_complete(trained: Path) -> None:
    found = of(trained)
    assert (found["state"], found["step"], found["total_steps"], found["exit_code"], found["message"]) == (
        "complete",
        4,
        4,
        0,
        None,
    )
    assert found["process"] == os.getpid() and found["since"] <= found["updated"]
    assert status.read(trained) == found


@pytest.mark.parametrize("number", quick([signal.SIGINT, signal.SIGTERM, signal.SIGUSR1], signal.SIGUSR1))
def test_preempted_and_continued(number: int, train: Any, stop_at: Any, tmp_path: Path) -> None:
    stop_at(2, number)
    stopped = train("total_steps=4", "run_dir=r", code=75)
    found = of(tmp_path / "r")
    assert (found["state"], found["step"], found["exit_code"]) == ("preempted", 2, 75)
    assert signal.Signals(number).name in found["message"] and found["message"] in stopped.err
    train("total_steps=4", "run_dir=r")
    assert (of(tmp_path / "r")["state"], of(tmp_path / "r")["step"]) == ("complete", 4)


def test_diverged(train: Any, tmp_path: Path) -> None:
    result = train("model=mlp", "optimizer.lr=1e30", "total_steps=50", "log_every=2", "run_dir=r", tiny="mlp", code=79)
    found = of(tmp_path / "r")
    assert (found["state"], found["exit_code"]) == ("diverged", 79) and f"error: {found['message']}" in result.err


def test_failed(train: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device", "events")

    monkeypatch.setattr("gan_cli.training.writer.Writer.row", full)
    result = train("total_steps=4", "log_every=1", "run_dir=r", code=74)
    found = of(tmp_path / "r")
    assert (found["state"], found["exit_code"], found["step"]) == ("failed", 74, 1) and found["message"] in result.err


def test_running_while_it_runs(train: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from gan_cli.training.writer import Writer

    seen, add = [], Writer.add

    def look(self: Any, logs: Any) -> None:
        add(self, logs)
        seen.append((of(tmp_path / "r")["state"], of(tmp_path / "r")["step"]))

    monkeypatch.setattr(Writer, "add", look)
    train("total_steps=4", "save_every=2", "run_dir=r")
    assert seen == [("running", 0), ("running", 0), ("running", 2), ("running", 2)]


def test_a_status_that_cannot_be_written_ends_no_run(tmp_path: Path) -> None:
    (tmp_path / "status.json").mkdir()
    with status.Status(tmp_path, 3, Progress()).kept():
        pass
    assert status.read(tmp_path) is None


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"state": 3}', "[" * 100_000])
def test_what_is_no_status_is_none(content: str, tmp_path: Path) -> None:
    (tmp_path / "status.json").write_text(content)
    assert status.read(tmp_path) is None


def test_the_command_that_makes_the_run_anew(train: Any, gan: Any, read: Any, tmp_path: Path) -> None:
    train("total_steps=2", "run_dir=a", "seed=3")
    found = of(tmp_path / "a")
    assert found["cwd"] == str(tmp_path)
    program, *args = shlex.split(found["command"])
    assert program == "gan-train" and args[-2:] == ["total_steps=2", "seed=3"]
    assert gan(program, *args, "run_dir=b").code == 0
    read.assert_same(tmp_path / "a", tmp_path / "b")
    assert of(tmp_path / "b")["command"] == found["command"]


@pytest.mark.slow
def test_the_command_of_a_job_has_its_config_dir(train: Any, tmp_path: Path) -> None:
    (tmp_path / "my" / "loss").mkdir(parents=True)
    (tmp_path / "my" / "loss" / "mine.yaml").write_text("defaults: [hinge]\n")
    train("--config-dir", "my", "-m", "loss=mine,lsgan", "total_steps=1", "hydra.sweep.dir=sweep", "model.task.prior='normal'")
    commands = sorted(of(path.parent)["command"] for path in (tmp_path / "sweep").glob("*/status.json"))
    assert len(commands) == 2
    for command, loss in zip(commands, ("lsgan", "mine"), strict=True):
        assert command.startswith("gan-train --config-dir my ") and f" loss={loss} " in command
        assert "run_dir" not in command and "hydra" not in command and "-m" not in shlex.split(command)
