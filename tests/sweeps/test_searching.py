"""``gan-train -m hydra/sweeper=optuna``, with trainings of a few steps."""

from __future__ import annotations

import importlib.util
import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from gan_cli.rundir import status
from gan_cli.system.locks import locked

optuna = pytest.importorskip("optuna")

TINY = ["threads=1", "batch_size=8", "precision=fp32", "model.generator.width=4", "model.discriminator.width=4"]
BASE = ["-m", "hydra/sweeper=optuna", "total_steps=4", "log_every=2", "hydra.sweep.dir=s"]
LOSS = ["optimized_metric=g/loss", "hydra.sweeper.direction=minimize"]
RATES = "optimizer.lr=tag(log,interval(1e-5,1e-2))"


def slow(*case: Any) -> Any:
    """Parameters of a test that only make test-all runs."""
    return pytest.param(*case, marks=pytest.mark.slow)


def stored(sweep: Path) -> list[Any]:
    """The trials in the database of a sweep."""
    return optuna.load_study(study_name="search", storage=f"sqlite:///{sweep}/optuna.db").trials


@pytest.fixture
def trials(storages: dict[Path, Any]) -> Callable[[Path], list[Any]]:
    """The trials of a search in this process, whose study is in memory."""
    return lambda sweep: optuna.load_study(study_name="search", storage=storages[sweep]).trials


@pytest.mark.slow
def test_a_search_that_is_repeated(trials: Any, train: Any, tmp_path: Path) -> None:
    betas = "optimizer.betas=[0.0,0.9],[0.5,0.999]"
    args = [*BASE, *LOSS, RATES, betas, "hydra.sweeper.n_trials=3", "hydra.sweeper.pruner=none"]
    first = train(*args)
    found = trials(tmp_path / "s")
    assert [t.state.name for t in found] == ["COMPLETE"] * 3
    for trial in found:
        run_dir = tmp_path / "s" / trial.user_attrs["directory"]
        last = json.loads((run_dir / "metrics.jsonl").read_text().splitlines()[-1])
        assert trial.value == last["g/loss"] and f"optimizer.betas={trial.params['optimizer.betas']}" in run_dir.name
        assert "total_steps" not in run_dir.name
    best = min(found, key=lambda t: t.value)
    assert f"best trial:  {best.number}, g/loss" in first.err and "search: 3 complete, 0 pruned, 0 failed" in first.err
    command = next(line for line in first.err.splitlines() if line.startswith("by itself:"))
    assert "run_dir=NEW" in command and "hydra" not in command and "-m" not in command.split()
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "s").rglob("*") if path.name == "status.json"}
    again = train(*args)
    assert f"best trial:  {best.number}, g/loss" in again.err
    assert files == {path: path.stat().st_mtime_ns for path in (tmp_path / "s").rglob("*") if path.name == "status.json"}


def test_a_stopped_search_continues(trials: Any, train: Any, stop_at: Any, tmp_path: Path) -> None:
    args = [*BASE, *LOSS, RATES, "model=mlp", "hydra.sweeper.n_trials=2", "hydra.sweeper.pruner_startup_trials=1"]
    stop_at(3, signal.SIGINT)
    stopped = train(*args, tiny="mlp", code=75)
    assert "Traceback" not in stopped.err
    first = trials(tmp_path / "s")
    assert [(t.state.name, list(t.intermediate_values)) for t in first] == [("RUNNING", [2])]
    train(*args, tiny="mlp")
    ended = trials(tmp_path / "s")
    assert ended[0].params == first[0].params and ended[0].state.name == "COMPLETE" and ended[1].state.name != "RUNNING"


@pytest.mark.slow
def test_stopped_and_continued_it_is_the_search_that_was_never_stopped(
    trials: Any, train: Any, read: Any, stop_at: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Down to the bits of every run, pruned ones too."""
    args = [*BASE[:-1], *LOSS, RATES, "model=mlp", "hydra.sweeper.n_trials=3", "hydra.sweeper.pruner_startup_trials=1"]
    train = partial(train, tiny="mlp")
    train(*args, "hydra.sweep.dir=whole")
    stop_at(3, signal.SIGINT)
    stopped = train(*args, "hydra.sweep.dir=parts", code=75)
    assert "Traceback" not in stopped.err
    assert [t.state.name for t in trials(tmp_path / "parts")] == ["RUNNING"]
    monkeypatch.undo()
    train(*args, "hydra.sweep.dir=parts")
    whole, parts = trials(tmp_path / "whole"), trials(tmp_path / "parts")
    assert [(t.params, t.state, t.value, t.intermediate_values) for t in whole] == [
        (t.params, t.state, t.value, t.intermediate_values) for t in parts
    ]
    assert {"PRUNED", "COMPLETE"} == {t.state.name for t in whole}
    for trial in whole:
        read.assert_same_weights(*(tmp_path / name / trial.user_attrs["directory"] for name in ("whole", "parts")))


@pytest.mark.slow
def test_a_pruned_run_says_so_and_can_be_continued_by_hand(
    trials: Any, train: Any, gan: Any, read: Any, tmp_path: Path
) -> None:
    args = ["optimizer.lr=2e-4,1e-5,1e-3", "hydra.sweeper.n_trials=6", "hydra.sweeper.pruner_startup_trials=1"]
    result = train(*BASE, *LOSS, *args)
    pruned = [t for t in trials(tmp_path / "s") if t.state.name == "PRUNED"]
    assert pruned and len({t.user_attrs["directory"] for t in trials(tmp_path / "s")}) == 3
    run_dir = tmp_path / "s" / pruned[0].user_attrs["directory"]
    told = status.read(run_dir)
    assert told is not None and told["state"] == "pruned" and told["step"] == 2 and read.steps(run_dir) == [2]
    line = next(line for line in result.err.splitlines() if line.startswith("gan-train: pruned at step 2 of 4"))
    assert "error" not in line and result.errors == []
    train(f"optimizer.lr={pruned[0].params['optimizer.lr']}", "total_steps=4", "log_every=2", *LOSS[:1], f'run_dir="{run_dir}"')
    assert read.steps(run_dir)[-1] == 4


@pytest.mark.slow
def test_diverged_trials_fail_and_the_search_goes_on(trials: Any, train: Any, tmp_path: Path) -> None:
    args = ["optimizer=sgd", "optimizer.lr=1e20,1e-4", "hydra.sweeper.n_trials=5", "hydra.sweeper.seed=1", "total_steps=6"]
    result = train(*BASE, *LOSS, *args)
    states = {t.params["optimizer.lr"]: t.state.name for t in trials(tmp_path / "s")}
    assert states == {"1e+20": "FAIL", "0.0001": "COMPLETE"}
    assert len([line for line in result.errors if "diverged" in line]) == 1


@pytest.mark.slow
def test_a_run_that_is_in_use_is_tried_again_by_the_same_command(trials: Any, train: Any, tmp_path: Path) -> None:
    """An old copy of it still runs after kill -9, as jobs of a cluster do."""
    args = [*BASE, *LOSS, "optimizer.lr=1e-4,1e-3", "hydra.sweeper.n_trials=2"]
    with ExitStack() as stack:
        for name in ("optimizer.lr=0.0001", "optimizer.lr=0.001", "optimizer.lr=1e-4", "optimizer.lr=1e-3"):
            (tmp_path / "s" / name).mkdir(parents=True)
            stack.enter_context(locked(tmp_path / "s" / name))
        refused = train(*args, code=73)
    assert len(refused.errors) == 1 and str(os.getpid()) in refused.errors[0] and "Traceback" not in refused.err
    assert [t.state.name for t in trials(tmp_path / "s")] == ["RUNNING"]
    train(*args)
    assert [t.state.name for t in trials(tmp_path / "s")] == ["COMPLETE"] * 2


@pytest.mark.slow
def test_data_that_is_not_there_buries_no_trial(trials: Any, train: Any, data_root: Path, tmp_path: Path) -> None:
    args = [*BASE, *LOSS, RATES, "hydra.sweeper.n_trials=2", "dataset=mnist", "dataset.download=false"]
    mounted = tmp_path / "data"
    failed = train(*args, f"dataset.root={mounted}", code=66)
    assert len(failed.errors) == 1 and [t.state.name for t in trials(tmp_path / "s")] == ["RUNNING"]
    mounted.symlink_to(data_root)
    train(*args, f"dataset.root={mounted}")
    assert [t.state.name for t in trials(tmp_path / "s")] == ["COMPLETE"] * 2


@pytest.mark.slow
def test_another_seed_of_the_sampler_is_another_search(train: Any, gan: Any, tmp_path: Path) -> None:
    train(*BASE, *LOSS, RATES, "hydra.sweeper.n_trials=1")
    result = gan("gan-train", *TINY, *BASE, *LOSS, RATES, "hydra.sweeper.n_trials=1", "hydra.sweeper.seed=7")
    assert result.code == 2 and result.error.names("hydra.sweeper.seed: 0 -> 7")


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    """A folder for ``--config-dir`` with ``experiment=my`` and ``loss=mine``."""
    for name, text in {"experiment/my": "# @package _global_\ntotal_steps: 4", "loss/mine": "defaults: [minimax]"}.items():
        (tmp_path / "conf" / name).parent.mkdir(parents=True)
        (tmp_path / "conf" / f"{name}.yaml").write_text(text)
    return tmp_path / "conf"


MINE = ["--config-dir", "conf", "-m", "hydra/sweeper=optuna", "experiment=my", "hydra.sweep.dir=s", "log_every=2", *LOSS, RATES]


@pytest.mark.slow
def test_an_experiment_that_was_edited_is_another_search(trials: Any, train: Any, conf: Path, tmp_path: Path) -> None:
    train(*MINE, "hydra.sweeper.n_trials=1")
    file = conf / "experiment" / "my.yaml"
    before = file.read_text()
    file.write_text(before.replace("4", "6") + "\nloss:\n  n_critic: 3\n")
    refused = train(*MINE, "hydra.sweeper.n_trials=2", code=2)
    assert refused.error.names("loss.n_critic: 1 -> 3", "total_steps: 4 -> 6") and refused.error.where == "s/optuna.db"
    assert len(trials(tmp_path / "s")) == 1
    file.write_text(before + "\nworkers: 0\n")  # changes no result
    train(*MINE, "hydra.sweeper.n_trials=2")
    assert [t.state.name for t in trials(tmp_path / "s")] == ["COMPLETE"] * 2


@pytest.mark.slow
def test_an_evaluation_is_what_is_optimised_and_reported(trials: Any, train: Any, tmp_path: Path) -> None:
    evaluated = ["model=pix2pix", "eval_every=2", "metrics=[psnr]", "num_samples=4", "optimized_metric=metric/psnr"]
    train(*BASE, *evaluated, RATES, "hydra.sweeper.n_trials=1", tiny="pix2pix")
    (trial,) = trials(tmp_path / "s")
    assert list(trial.intermediate_values) == [2] and trial.state.name == "COMPLETE"
    best = json.loads((tmp_path / "s" / trial.user_attrs["directory"] / "best.json").read_text())
    assert best["value"] == trial.value


@pytest.mark.parametrize(
    ("args", "named"),
    [
        ([*LOSS], []),
        slow([RATES], ["optimized_metric"]),
        slow([RATES, "optimized_metric=g/loss"], ["g/loss", "direction"]),
        ([RATES, *LOSS, "hydra.sweeper.direction=up"], ["'up'", "hydra.sweeper.direction"]),
        slow([RATES, *LOSS, "hydra.sweeper.n_trials=0"], ["0", "hydra.sweeper.n_trials"]),
        slow([RATES, *LOSS, "hydra.sweeper.sampler=cmaes"], ["'cmaes'", "hydra.sweeper.sampler"]),
        slow([RATES, *LOSS, "hydra.sweeper.n_trial=3"], ["'hydra.sweeper.n_trial'", "hydra.sweeper.n_trials"]),
        slow([*LOSS, "optimizer.lr=interval(1,0)"], ["1", "0", "optimizer.lr"]),
        ([*LOSS, "optimizer.lr=interval(-1,1)"], ["-1", "optimizer.lr"]),
        ([*LOSS, "optimizer.lrr=interval(0,1)"], ["'optimizer.lrr'"]),
        slow([*LOSS, "loss=hinge,hinges"], ["loss", "'hinges'"]),
        ([*LOSS, RATES, "seed=0,1"], ["(seed)"]),
        ([*LOSS, RATES, "hydra.sweeper.retry_failed=true"], ["(hydra.sweeper.retry_failed)", "optuna.db"]),
    ],
)
def test_what_is_wrong_is_one_line_and_makes_nothing(args: list[str], named: list[str], gan: Any, tmp_path: Path) -> None:
    result = gan("gan-train", *BASE, *args)
    assert result.code == 2 and len(result.errors) == 1, result.err
    assert [text for text in named if text not in result.errors[0]] == [], result.err
    assert "Traceback" not in result.err and not (tmp_path / "s").exists()


def test_without_optuna(gan: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr("gan_cli.sweeps.search.find_spec", lambda name: None if name == "optuna" else find(name))
    result = gan("gan-train", *BASE, *LOSS, RATES)
    assert result.code == 2 and "optuna" in result.error.todo and not (tmp_path / "s").exists()


@pytest.mark.slow
def test_the_best_trial_is_confirmed_once(train: Any, gan: Any, tmp_path: Path) -> None:
    args = [*BASE, *LOSS, "seed=0", "optimizer.lr=1e-4,1e-3", "hydra.sweeper.n_trials=2", "hydra.sweeper.confirm=2"]
    first = train(*args)
    names = sorted(path.name for path in (tmp_path / "s").iterdir() if path.is_dir())
    assert {"seed=1", "seed=2", "optimizer.lr=0.0001"} <= set(names) and len([n for n in names if "seed=" in n]) == 4
    again = train(*args)
    assert "run directory:" not in again.err
    lines = [[line for line in out.err.splitlines() if "n=2 of 2" in line or "gan-compare" in line] for out in (first, again)]
    assert lines[0] == lines[1] and len(lines[0]) == 3
    compared = gan("gan-compare", *shlex.split(lines[0][-1].partition("gan-compare")[2]))
    assert compared.code == 0 and "2 groups, 2 seeds" in compared.out


def test_the_preset_is_a_search(gan: Any) -> None:
    result = gan("gan-train", "sweep=search", "--cfg", "all")
    assert result.code == 0 and "OptunaSweeper" in result.out and "n_trials: 30" in result.out


@pytest.mark.slow
def test_through_joblib_two_at_a_time(train: Any, read: Any, tmp_path: Path) -> None:
    """The same as one after the other, with the study in a database."""
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    options = ["hydra.sweeper.n_trials=8", "hydra.sweeper.n_jobs=2", "hydra.sweeper.pruner_startup_trials=1"]
    args = [*BASE[:-1], *LOSS, RATES, *options]
    launched = [*args, "launcher=joblib", "hydra.launcher.n_jobs=2", "hydra.sweep.dir=launched"]
    command = [sys.executable, "-m", "gan_cli.train", *TINY, *launched]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stderr
    train(*args, "hydra.sweep.dir=one_by_one")
    theirs, ours = stored(tmp_path / "launched"), stored(tmp_path / "one_by_one")
    assert [(t.params, t.state, t.value) for t in theirs] == [(t.params, t.state, t.value) for t in ours]
    assert "PRUNED" in {t.state.name for t in ours}
    for trial in ours:
        read.assert_same_weights(*(tmp_path / name / trial.user_attrs["directory"] for name in ("launched", "one_by_one")))
