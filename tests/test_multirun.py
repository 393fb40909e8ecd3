"""Sweeps: a directory per job, nothing of one job in the next, and no job stops the others."""

from __future__ import annotations

import os
import shlex
import signal
from pathlib import Path
from typing import Any

import pytest

from gan_cli.rundir import status
from gan_cli.sweeps.directory import read_plan
from gan_cli.system.locks import locked

from .conftest import TINY, quick  # type: ignore[import-not-found]
from .reliability.processes import Command  # type: ignore[import-not-found]


def jobs(sweep: Path) -> dict[str, Path]:
    return {path.name: path for path in sorted(sweep.iterdir()) if path.is_dir()}


@pytest.mark.slow
def test_three_losses_times_two_seeds(train: Any, read: Any, tmp_path: Path) -> None:
    common = ["total_steps=2", "schedule=linear", "precision=auto"]
    train("-m", "loss=non_saturating,hinge,wgan_gp", "seed=0,1", *common)
    (sweep,) = (tmp_path / "outputs").iterdir()
    assert sweep.name.startswith("sweep-loss-seed-")
    found = jobs(sweep)
    assert len(found) == 6
    for loss in ("non_saturating", "hinge", "wgan_gp"):
        for seed in (0, 1):
            name = f"loss={loss},seed={seed}"
            assert read.rows(found[name])[-1]["step"] == 2
            if (loss, seed) == ("wgan_gp", 0):
                train(f"loss={loss}", f"seed={seed}", *common, f"run_dir=alone-{loss}")
                read.assert_same(tmp_path / f"alone-{loss}", found[name])


@pytest.mark.slow
def test_no_job_inherits_anything(train: Any, read: Any, tmp_path: Path) -> None:
    """The number of threads of the job before must not show in the job after."""
    train("-m", "threads=2,1", "total_steps=2", "hydra.sweep.dir=sweep")
    (last,) = (path for name, path in jobs(tmp_path / "sweep").items() if "threads=1" in name)
    train("threads=1", "total_steps=2", "run_dir=alone")
    read.assert_same(tmp_path / "alone", last)


def test_the_same_sweep_again_is_finished(train: Any, read: Any, tmp_path: Path) -> None:
    """It is found by what is overridden, in any order; what is complete is not touched."""
    train("-m", "loss=hinge,lsgan", "seed=0", "total_steps=1", "log_every=1")
    (sweep,) = (tmp_path / "outputs").iterdir()
    plan = read_plan(sweep)
    assert plan is not None and plan["jobs"] == ["loss=hinge", "loss=lsgan"]
    assert plan["cwd"] == str(tmp_path) and shlex.split(plan["command"])[1:3] == ["-m", "threads=1"]
    before = {path: path.stat().st_mtime_ns for job in jobs(sweep).values() for path in [job, *job.rglob("*")]}
    train("-m", "log_every=1", "total_steps=1", "seed=0", "loss=hinge,lsgan")
    assert [path.name for path in (tmp_path / "outputs").iterdir()] == [sweep.name]
    assert {path: path.stat().st_mtime_ns for job in jobs(sweep).values() for path in [job, *job.rglob("*")]} == before


@pytest.mark.slow
def test_other_overrides_are_another_sweep(train: Any, tmp_path: Path) -> None:
    train("-m", "seed=0,1", "total_steps=1")
    train("-m", "seed=0,1", "total_steps=1", "loss=hinge")
    assert len(list((tmp_path / "outputs").iterdir())) == 2


@pytest.mark.slow
def test_broken_jobs_go_on_and_new_ones_begin(
    train: Any, read: Any, tmp_path: Path, stop_at: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["-m", "seed=0,1,2", "total_steps=4", "hydra.sweep.dir=sweep"]
    train("seed=0", "total_steps=4", "run_dir='sweep/seed=0'")
    stop_at(2, signal.SIGTERM)
    result = train(*command, code=75)
    assert "gan-train -m" in result.err
    states = {name: read_status(path)["state"] for name, path in jobs(tmp_path / "sweep").items()}
    assert states == {"seed=0": "complete", "seed=1": "preempted"}
    monkeypatch.undo()
    result = train(*command)
    assert "seed=1  preempted" in result.err and "seed=2  waiting" in result.err
    train("seed=1", "total_steps=4", "run_dir=one")
    read.assert_same(tmp_path / "one", tmp_path / "sweep" / "seed=1")
    assert {read_status(path)["state"] for path in jobs(tmp_path / "sweep").values()} == {"complete"}


def read_status(path: Path) -> dict[str, Any]:
    found = status.read(path)
    assert found is not None
    return found


def test_one_process_sweeps(train: Any, tmp_path: Path) -> None:
    (tmp_path / "sweep").mkdir()
    with locked(tmp_path / "sweep", "sweep"):
        result = train("-m", "seed=0,1", "total_steps=1", "hydra.sweep.dir=sweep", code=73)
    assert result.error.names(os.getpid(), "hydra.sweep.dir=") and result.error.where == "sweep"
    assert jobs(tmp_path / "sweep") == {}


def test_a_grid_has_values(train: Any) -> None:
    error = train("-m", "optimizer.lr=interval(1e-5,1e-2)", code=2).error
    assert error.where == "optimizer.lr" and error.names("interval(1e-5,1e-2)", "hydra/sweeper=optuna")


@pytest.mark.parametrize(
    ("args", "where", "todo"),
    [
        (["seed=0,1", "run_dir=r"], "run_dir=r", "hydra.sweep.dir="),
        (["sweep=losses,learning_rates"], "sweep=losses,learning_rates", "sweep=NAME"),
        (["seed=0,1", "hydra.sweep.dir="], "hydra.sweep.dir", "hydra.sweep.dir="),
    ],
)
def test_refused(args: list[str], where: str, todo: str, train: Any, tmp_path: Path) -> None:
    error = train("-m", *args, code=2).error
    assert error.where == where and todo in error.todo
    assert not any(path.is_dir() for path in tmp_path.iterdir())


def test_killed_and_repeated(train: Any, read: Any, tmp_path: Path) -> None:
    """kill -9 in the second job: the first stays, the second resumes."""
    common = ["log_every=1", "save_every=1", "sample_every=100", "total_steps=8"]
    command = ["-m", "seed=0,1", *TINY["dcgan"], *common, "hydra.sweep.dir=sweep"]
    train("seed=0", *common, "run_dir='sweep/seed=0'")
    process = Command(tmp_path, *command)
    assert process.until(lambda: list(tmp_path.glob("sweep/seed=1/checkpoints/step-00000001")))
    process.send(signal.SIGKILL)
    assert process.end() == -signal.SIGKILL
    assert read_status(tmp_path / "sweep" / "seed=1")["state"] == "running"
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "sweep" / "seed=0").rglob("*")}
    train(*command)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    train("seed=1", *common, "run_dir=alone")
    read.assert_same_weights(tmp_path / "alone", tmp_path / "sweep" / "seed=1")


@pytest.mark.slow
def test_a_preset_without_the_flag(train: Any) -> None:
    assert "note: sweep=losses " in train("sweep=losses", "total_steps=1").err
    assert "note: sweep=losses " not in train("sweep=losses", "loss=hinge", "seed=1", "total_steps=1").err


@pytest.mark.slow
def test_finished_jobs_are_not_evaluated_again(train: Any, tmp_path: Path) -> None:
    train("-m", "seed=0,1", "total_steps=1", "hydra.sweep.dir=sweep")
    train("-m", "seed=0,1", "total_steps=1", "hydra.sweep.dir=sweep", "eval_every=1", "metrics=[kid]")
    assert not list((tmp_path / "sweep").glob("*/evaluations/*"))


@pytest.mark.parametrize("step", quick(['"abc"', "[1]", "null", "1.5"], "[1]"))
@pytest.mark.slow
def test_a_status_that_cannot_be(step: str, train: Any, tmp_path: Path) -> None:
    train("-m", "seed=0,1", "total_steps=1", "hydra.sweep.dir=sweep")
    file = tmp_path / "sweep" / "seed=0" / "status.json"
    file.write_text(file.read_text().replace('"step": 1', f'"step": {step}'))
    assert "1 of 2 jobs" in train("-m", "seed=0,1", "total_steps=1", "hydra.sweep.dir=sweep").err


@pytest.mark.slow
def test_longer_jobs_go_on(train: Any, read: Any, tmp_path: Path) -> None:
    train("-m", "seed=0,1", "total_steps=1", "hydra.sweep.dir=sweep")
    train("-m", "seed=0,1", "total_steps=2", "hydra.sweep.dir=sweep")
    assert [read.rows(path)[-1]["step"] for path in jobs(tmp_path / "sweep").values()] == [2, 2]


@pytest.mark.slow
@pytest.mark.parametrize("where", [0, 1, 2])
def test_the_flag_may_stand_anywhere(where: int, gan: Any, tmp_path: Path) -> None:
    args = ["seed=0,1", "batch_size=5000"]
    result = gan("gan-train", *args[:where], "-m", *args[where:])
    assert result.code != 0
    assert len([line for line in result.errors if "batch_size=5000 " in line]) == 2


def test_a_failing_job_does_not_stop_the_rest(train: Any, read: Any, gan: Any, tmp_path: Path) -> None:
    result = gan(
        "gan-train", "-m", "threads=1", "model.generator.width=4", "model.discriminator.width=4", "batch_size=100000,8",
        "total_steps=1", "hydra.sweep.dir=sweep",
    )  # fmt: skip
    assert result.code == 2
    assert "Traceback" not in result.err + result.out
    (line,) = result.errors
    assert line.startswith("gan-train: error: batch_size=100000 ")
    assert result.err.splitlines()[-1].startswith("gan-train: 1 failed: ")
    found = [path for path in jobs(tmp_path / "sweep").values() if (path / "checkpoints").exists()]
    assert [path.name for path in found] == ["batch_size=8"]


@pytest.mark.slow
def test_a_diverging_job_does_not_stop_the_rest(train: Any, read: Any, tmp_path: Path) -> None:
    args = ["optimizer=sgd", "optimizer.lr=1e20,1e-4", "total_steps=6", "hydra.sweep.dir=sweep"]
    result = train("-m", *args, code=79)
    assert [line for line in result.errors if "training diverged" in line] == result.errors and len(result.errors) == 1
    (good,) = (path for name, path in jobs(tmp_path / "sweep").items() if "lr=1e-4" in name or "lr=0.0001" in name)
    assert read.steps(good) == [6]


def test_a_mistake_in_every_job_is_said_once_per_job_and_makes_nothing(gan: Any, tmp_path: Path) -> None:
    result = gan("gan-train", "-m", "seed=0,1", "lrr=3", "hydra.sweep.dir=sweep")
    assert result.code == 2
    assert result.errors and all("unknown key 'lrr'" in line for line in result.errors)
    assert "Traceback" not in result.err
    assert not any((tmp_path / "sweep").glob("*/*"))


def test_a_signal_ends_the_whole_sweep(train: Any, stop_at: Any, tmp_path: Path) -> None:
    stop_at(2, signal.SIGINT)
    train("-m", "seed=0,1", "total_steps=4", "hydra.sweep.dir=sweep", code=75)
    assert len(jobs(tmp_path / "sweep")) == 1


@pytest.mark.slow
def test_max_hours_ends_one_job(train: Any, tmp_path: Path) -> None:
    train("-m", "seed=0,1", "total_steps=4", "max_hours=1e-9", "hydra.sweep.dir=sweep", code=75)
    assert len(jobs(tmp_path / "sweep")) == 2


@pytest.mark.slow
def test_directories_are_plain_names(train: Any, tmp_path: Path, data_root: Path) -> None:
    """Slashes in a value, or many overrides, give no tree and no name that the file system refuses."""
    long = ["ema.half_life=1000", "ema.ramp_up=0.25", "log_every=17", "sample_every=1017", "save_every=1019", "workers=0"]
    train("-m", "seed=0,1", "dataset=mnist", f"dataset.root={data_root}", *long, "total_steps=1", "hydra.sweep.dir=sweep")
    found = jobs(tmp_path / "sweep")
    assert len(found) == 2 and all((path / "checkpoints").is_dir() for path in found.values())


@pytest.mark.slow
def test_the_printed_command_continues_one_job(train: Any, gan: Any, read: Any, tmp_path: Path) -> None:
    result = train("-m", "seed=3", "total_steps=3", "max_hours=1e-9", "hydra.sweep.dir=sweep", code=75)
    (run_dir,) = jobs(tmp_path / "sweep").values()
    assert not {"-m", "--multirun"} & set(result.continue_command)
    assert gan(*result.continue_command).code == 75
    assert read.steps(run_dir)[-1] == 2


@pytest.mark.slow
def test_the_metric_goes_to_the_sweeper(train: Any, read: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from hydra._internal.core_plugins.basic_launcher import BasicLauncher

    launch, returned = BasicLauncher.launch, []

    def spy(self: Any, *args: Any, **keywords: Any) -> Any:
        results = list(launch(self, *args, **keywords))
        returned.extend(result.return_value for result in results)
        return results

    monkeypatch.setattr(BasicLauncher, "launch", spy)
    train("-m", "seed=0,1", "total_steps=1", "optimized_metric=g/loss", "hydra.sweep.dir=sweep")
    assert sorted(returned) == sorted(read.rows(path)[-1]["g/loss"] for path in jobs(tmp_path / "sweep").values())
