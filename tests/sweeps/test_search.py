"""Searches without trainings: the values they ask for, how they resume, and what becomes of trials that fail."""

from __future__ import annotations

import errno
import logging
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from gan_cli.system.errors import (
    ClashError,
    ConfigError,
    DiskError,
    GanError,
    MemoryFullError,
    NotFoundError,
    OutputError,
    PreemptedError,
    SweepError,
    TooLargeError,
    of_system,
)

pytest.importorskip("optuna")

from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from gan_cli.sweeps.jobs import Outcome
from gan_cli.sweeps.search import Search, confirm, is_final
from gan_cli.sweeps.space import Space, read_space, written
from gan_cli.sweeps.study import Options, direction_of, open_study, reporter

in_memory = pytest.mark.usefixtures("storages")
OPTIONS = Options("tpe", 15, 1, 0, None, None, None, {}, "median", 3, 0, 0)


def space(*arguments: str) -> Space:
    return read_space(OverridesParser.create().parse_overrides(list(arguments)))


@dataclass
class Killed(BaseException):
    """A kill -9."""


class Objective:
    """Stands for trainings: a function of the overrides, and a record of the runs.

    ``kill_at``: the number of the run that does not end.
    """

    def __init__(self, function: Callable[[dict[str, str]], Outcome], kill_at: int | None = None) -> None:
        self.function, self.kill_at, self.seen = function, kill_at, []

    def __call__(self, jobs: Sequence[Sequence[str]]) -> list[Outcome]:
        outcomes = []
        for job in jobs:
            self.seen.append(" ".join(job))
            if len(self.seen) == self.kill_at:
                raise Killed
            outcomes.append(replace(self.function(dict(o.split("=", 1) for o in job)), name=self.seen[-1]))
        return outcomes


def ended(state: str = "complete", value: float | None = None, error: Exception | None = None) -> Outcome:
    return Outcome("", Path(), state, value, error)


def bowl(values: dict[str, str]) -> Outcome:
    return ended(value=(math.log10(float(values["x"])) + 3) ** 2 + int(values.get("n", 0)) + float(values.get("seed", 0)) / 100)


def search(path: Path, run: Any, *arguments: str, direction: Any = "minimize", config: Any = None, **options: Any) -> Search:
    chosen, searched = replace(OPTIONS, **options), space(*(arguments or BOWL))
    study = open_study(chosen, path, direction, {"search space": searched.said, "config": config or {"model.width": 4}})
    return Search(chosen, searched, study, "metric/fid", run, lambda overrides: ",".join(sorted(overrides)))


BOWL = ("x=tag(log,interval(1e-5,1e-1))", "n=0,1,2", "m=1")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x=1,2,3", CategoricalDistribution(["1", "2", "3"])),
        ("x=choice(a,b,a)", CategoricalDistribution(["a", "b"])),
        ("x=shuffle(c,a,b)", CategoricalDistribution(["c", "a", "b"])),
        ("x=[0.0,0.9],[0.5,0.999]", CategoricalDistribution(["[0.0,0.9]", "[0.5,0.999]"])),
        ("x=range(1,8,3)", IntDistribution(1, 7, step=3)),
        ("x=range(8,1,-3)", IntDistribution(2, 8, step=3)),
        ("x=range(0,1,0.25)", FloatDistribution(0, 0.75, step=0.25)),
        ("x=tag(log,range(1,100))", IntDistribution(1, 99, log=True)),
        ("x=interval(0,1)", FloatDistribution(0, 1)),
        ("x=int(interval(1,9))", IntDistribution(1, 9)),
        ("x=tag(log,int(interval(1,9)))", IntDistribution(1, 9, log=True)),
        ("x=tag(log,interval(1e-5,1e-2))", FloatDistribution(1e-5, 1e-2, log=True)),
    ],
)
def test_hydras_words_for_what_is_searched(text: str, expected: Any) -> None:
    assert space(text).searched == {"x": expected}


@pytest.mark.parametrize(
    ("texts", "where", "value"),
    [
        *[
            ([text], text, value)
            for text, value in (("x=interval(1,1)", "1"), ("x=interval(2,1)", "2"), ("x=interval(0,inf)", "inf"))
        ],
        *[([text], text, "range") for text in ("x=range(3,3)", "x=range(0,9,-1)", "x=tag(log,range(1,9,2))")],
        *[([text], text, "0") for text in ("x=tag(log,interval(0,1))", "x=tag(log,range(0,9))")],
        (["x=tag(log,choice(1,2))"], "x=tag(log,choice(1,2))", "choices"),
        (["x=tag(uniform,interval(0,1))"], "x=tag(uniform,interval(0,1))", "'uniform'"),
        *[(texts, "command line", "") for texts in (["x=1", "y=2"], [])],
        (["x=1,2", "seed=0,1"], "seed", "seed"),
    ],
)
def test_what_cannot_be_searched(texts: list[str], where: str, value: str) -> None:
    with pytest.raises(ConfigError) as refused:
        space(*texts)
    assert refused.value.where == where and value in refused.value.what


def test_drawn_numbers_are_written_short_and_within_their_bounds() -> None:
    assert written(0.000123456789, FloatDistribution(1e-5, 1e-2, log=True)) == "0.000123457"
    assert written(0.9999996, FloatDistribution(0, 0.9999997)) == "0.9999996"
    assert written(0.1 + 0.2, FloatDistribution(0, 0.9, step=0.1)) == "0.3"
    assert written(7, IntDistribution(1, 9)) == "7"
    assert written("[0.0,0.9]", CategoricalDistribution(["[0.0,0.9]"])) == "[0.0,0.9]"


def test_each_choice_is_tried_before_anything_is_trained() -> None:
    found = [
        " ".join(space("a=x,y", "b=interval(1,2)", "c=p,q,r", "d=5").overrides(v))
        for v in space("a=x,y", "b=interval(1,2)", "c=p,q,r").choices()
    ]
    assert found[0] == "d=5 a=x b=1 c=p" and {"d=5 a=y b=1 c=p", "d=5 a=x b=1 c=q", "d=5 a=x b=1 c=r"} == set(found[1:])


@pytest.mark.parametrize(
    ("metric", "wanted", "expected"),
    [
        ("metric/fid", None, "minimize"),
        ("metric/is", None, "maximize"),
        ("d/wasserstein", "minimize", "minimize"),
        ("metric/memorisation", "minimize", "minimize"),
        (None, None, "optimized_metric"),
        ("d/wasserstein", None, "d/wasserstein"),
        ("metric/memorisation", None, "metric/memorisation"),
        ("metric/fid", "maximize", "metric/fid"),
    ],
)
def test_the_direction(metric: str | None, wanted: str | None, expected: str) -> None:
    if expected in ("minimize", "maximize"):
        assert direction_of(metric, wanted) == expected
    else:
        with pytest.raises(ConfigError, match=expected):
            direction_of(metric, wanted)


@in_memory
@pytest.mark.parametrize("sampler", ["tpe", "random"])
@pytest.mark.parametrize("kills", [[1], [4, 2, 9]])
def test_killed_and_continued_it_asks_for_what_it_would_have_asked_for(sampler: str, kills: list[int], tmp_path: Path) -> None:
    whole, parts = Objective(bowl), []
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    search(tmp_path / "a", whole, sampler=sampler).optimise()
    for kill_at in [*kills, None]:
        part = Objective(bowl, kill_at)
        try:
            search(tmp_path / "b", part, sampler=sampler).optimise()
        except Killed:
            part.seen.pop()
        parts += part.seen
    assert len(set(whole.seen)) > 10 and parts == whole.seen


@in_memory
def test_batches_too(tmp_path: Path) -> None:
    """A batch that was killed is run again as a whole, before anything is told."""
    whole, first, second = Objective(bowl), Objective(bowl, 12), Objective(bowl)
    for name, runs in {"a": [whole], "b": [first, second]}.items():
        (tmp_path / name).mkdir()
        for run in runs:
            try:
                search(tmp_path / name, run, n_jobs=4).optimise()
            except Killed:
                run.seen = run.seen[:8]
    assert first.seen + second.seen == whole.seen and len(whole.seen) == 15


@in_memory
def test_killed_while_it_draws(tmp_path: Path) -> None:
    """A trial without a directory has not begun."""
    whole = Objective(bowl)
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    search(tmp_path / "a", whole, n_trials=13).optimise()
    run = Objective(bowl)
    search(tmp_path / "b", run, n_trials=11).optimise()
    half = search(tmp_path / "b", run, n_trials=12)
    half.name = lambda overrides: exec("raise Killed", {"Killed": Killed})  # type: ignore[return-value]
    with pytest.raises(Killed):
        half.optimise()
    search(tmp_path / "b", run, n_trials=13).optimise()
    assert run.seen == whole.seen


@in_memory
def test_more_trials_continue_a_finished_search(tmp_path: Path) -> None:
    run = Objective(bowl)
    search(tmp_path, run, n_trials=4).optimise()
    search(tmp_path, run, n_trials=4).optimise()
    assert len(run.seen) == 4
    search(tmp_path, run, n_trials=6).optimise()
    assert len(run.seen) == 6


@in_memory
@pytest.mark.parametrize(
    "bad",
    [
        *[ended(value=math.nan), ended(value=None), ended(value=math.inf), ended("diverged")],
        *[ended("failed", error=kind("a", "b", "c")) for kind in (ConfigError, TooLargeError)],
    ],
)
def test_a_trial_without_a_value_fails_and_the_search_goes_on(bad: Outcome, tmp_path: Path) -> None:
    run = Objective(lambda values: bad if values["n"] == "1" else bowl(values))
    found = search(tmp_path, run)
    found.optimise()
    assert len(found.trials()) == 15 and 0 < len(found.trials("FAIL")) < 15
    assert {t.params["n"] for t in found.trials("FAIL")} == {"1"} and found.study.best_params["n"] != "1"


PASSING = [kind("a", "b", "c") for kind in (NotFoundError, DiskError, OutputError, MemoryFullError, ClashError)] + [
    RuntimeError("a worker was killed"),
    None,
]


@in_memory
@pytest.mark.parametrize("error", PASSING)
def test_a_failure_for_another_reason_ends_the_search_and_the_trial_is_run_again(
    error: Exception | None, tmp_path: Path
) -> None:
    """With a disk that is not mounted no trial would have a value, and the search would be a random one."""
    broken = Objective(lambda values: ended("failed", error=error) if len(broken.seen) in (2, 3) else bowl(values))
    found = search(tmp_path, broken, n_jobs=4)
    with pytest.raises(SweepError) as stopped:
        found.optimise()
    assert broken.seen[1] in str(stopped.value) and broken.seen[2] in str(stopped.value)
    assert stopped.value.exit_code == getattr(error, "exit_code", 1)
    assert [t.state.name for t in found.trials()] == ["COMPLETE", "RUNNING", "RUNNING", "COMPLETE"]
    again = Objective(bowl)
    search(tmp_path, again, n_jobs=4, n_trials=4).optimise()
    assert again.seen == broken.seen[1:3] and {t.state.name for t in found.trials()} == {"COMPLETE"}


@pytest.mark.parametrize(
    ("error", "own"),
    [
        (RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory (Cannot allocate memory)"), True),
        (RuntimeError("CUDA error: out of memory"), False),  # another process has all of it
        (ImportError("libtorch_cpu.so: failed to map segment from shared object"), False),
        (OSError("libtorch_cpu.so: failed to map segment from shared object"), False),
        (RuntimeError("can't start new thread"), False),
        (MemoryError(), False),
        *[(OSError(number, os.strerror(number)), False) for number in (errno.EMFILE, errno.EAGAIN, errno.ENOMEM)],
    ],
)
def test_only_too_large_tensors_are_the_fault_of_a_trial(error: Exception, own: bool) -> None:
    known = of_system(error, "")
    assert isinstance(known, MemoryFullError) and known.exit_code == 71
    assert is_final(ended("failed", error=known)) is own


@in_memory
def test_a_stopped_trial_resumes(tmp_path: Path) -> None:
    run = Objective(lambda values: ended("preempted", error=PreemptedError("a", "b", "c")))
    with pytest.raises(SweepError) as stopped:
        search(tmp_path, run).optimise()
    assert stopped.value.exit_code == 75
    again = Objective(bowl)
    search(tmp_path, again, n_trials=2).optimise()
    assert again.seen[0] == run.seen[0] and len(again.seen) == 2


@in_memory
def test_trials_of_equal_values_are_one_job_of_a_batch(tmp_path: Path) -> None:
    """In one directory only one run can train. In later batches the run is there, and finished."""
    states = {"0": ended(value=1.0), "1": ended("diverged"), "2": ended("pruned")}
    batches: list[list[str]] = []

    def run(jobs: Sequence[Sequence[str]]) -> list[Outcome]:
        batches.append([job[0] for job in jobs])
        return [states[job[0][-1]] for job in jobs]

    found = search(tmp_path, run, "n=0,1,2", n_jobs=4)
    found.optimise()
    kinds = {"0": "COMPLETE", "1": "FAIL", "2": "PRUNED"}
    assert all(len(batch) == len(set(batch)) for batch in batches) and len(batches) == 4
    assert len(found.trials()) == 15 and all(t.state.name == kinds[t.params["n"]] for t in found.trials())


@in_memory
@pytest.mark.parametrize(
    ("change", "named"),
    [
        (
            {"arguments": ("x=tag(log,interval(1e-5,1))", "n=0,1,2", "m=1")},
            ["search space", "x: tag(log,interval(1e-5,1e-1)) ->"],
        ),
        ({"config": {"model.width": 8}}, ["config", "model.width: 4 -> 8"]),
        ({"direction": "maximize"}, ["direction: minimize -> maximize"]),
        ({"sampler": "random"}, ["hydra.sweeper.sampler: tpe -> random"]),
        ({"seed": 1}, ["hydra.sweeper.seed: 0 -> 1"]),
        ({"pruner": "none"}, ["hydra.sweeper.pruner: median -> none"]),
        ({"pruner_warmup_steps": 5}, ["hydra.sweeper.pruner_warmup_steps: 0 -> 5"]),
    ],
)
def test_a_study_of_something_else(change: dict[str, Any], named: list[str], tmp_path: Path) -> None:
    run = Objective(bowl)
    search(tmp_path, run, n_trials=1).optimise()
    options = {key: value for key, value in change.items() if key != "arguments"}
    with pytest.raises(ConfigError) as refused:
        search(tmp_path, run, *change.get("arguments", ()), **options)
    assert [text for text in named if text not in refused.value.what] == []


def test_a_shared_storage_has_a_study_for_each_sweep(tmp_path: Path) -> None:
    """Its name is that of the directory, or hydra.sweeper.study_name."""
    storage = f"sqlite:///{tmp_path}/shared.db"
    run = Objective(bowl)
    found = search(tmp_path / "a", run, storage=storage, n_trials=2)
    found.optimise()
    search(tmp_path / "b", run, storage=storage, n_trials=1).optimise()
    again = search(tmp_path / "elsewhere", run, storage=storage, n_trials=3, study_name="a")
    again.optimise()
    assert len(run.seen) == 4 and len(found.trials("COMPLETE")) == 3


@pytest.mark.parametrize("storage", ["nonsense", "sqlite:////nowhere/at/all.db", "oracle9://x/y"])
def test_a_storage_that_cannot_be_opened(storage: str, tmp_path: Path) -> None:
    with pytest.raises((ConfigError, OutputError)) as refused:
        search(tmp_path, Objective(bowl), storage=storage)
    assert refused.value.where == "hydra.sweeper.storage"


def test_a_password_is_not_printed(tmp_path: Path) -> None:
    with pytest.raises(GanError) as refused:
        search(tmp_path, Objective(bowl), storage="oracle9://me:secret@host/x")
    assert "secret" not in str(refused.value)


def test_a_damaged_storage(tmp_path: Path) -> None:
    (tmp_path / "optuna.db").write_bytes(b"not a database" * 100)
    with pytest.raises(OutputError) as refused:
        search(tmp_path, Objective(bowl))
    assert refused.value.where == str(tmp_path / "optuna.db")


def test_any_name_of_a_directory(tmp_path: Path) -> None:
    odd = tmp_path / "a?b#c{d}%20 e"
    odd.mkdir()
    search(odd, Objective(bowl), n_trials=1).optimise()
    assert [path.name for path in odd.iterdir()] == ["optuna.db"]


@in_memory
def test_the_median_prunes(tmp_path: Path) -> None:
    """In steps of the training; a step is reported once, and a resumed run is judged as it was."""
    options = {"pruner_warmup_steps": 20, "n_trials": 8}
    verdicts: list[list[bool]] = []
    path = tmp_path

    def train(values: dict[str, str]) -> Outcome:
        hopeless = reporter(replace(OPTIONS, **options), path, ",".join(sorted(f"{k}={v}" for k, v in values.items())))
        assert hopeless is not None
        level = 9.0 if len(verdicts) in (4, 6) else 1.0
        said = [hopeless(step, level + step / 1000) for step in (10, 20, 30)]
        again = reporter(replace(OPTIONS, **options), path, ",".join(sorted(f"{k}={v}" for k, v in values.items())))
        assert again is not None and [again(step, level + step / 1000) for step in (10, 20, 30)] == [False, False, said[2]]
        verdicts.append(said)
        return ended("pruned") if said[1] else ended(value=level)

    found = search(path, Objective(train), **options)
    found.optimise()
    bad = [False, True, True]
    assert verdicts == [bad if k in (4, 6) else [False] * 3 for k in range(8)]
    assert [t.state.name for t in found.trials()] == ["PRUNED" if k in (4, 6) else "COMPLETE" for k in range(8)]
    assert found.trials("PRUNED")[0].value == 9.03
    assert reporter(replace(OPTIONS, **options), path, "x=1") is None
    assert reporter(replace(OPTIONS, pruner="none"), path, "x=1") is None


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    monkeypatch.setattr(logging.getLogger("gan_cli"), "propagate", True)
    caplog.set_level(logging.INFO, "gan_cli")
    return caplog


@in_memory
def test_the_best_trial_is_confirmed(tmp_path: Path, logged: pytest.LogCaptureFixture) -> None:
    """With other seeds than those of trials, and the default with the same seeds."""

    def noisy(values: dict[str, str]) -> Outcome:
        return ended(value=(9.0 if "x" not in values else float(values["x"])) + float(values.get("seed", 5)) / 100)

    run = Objective(noisy)
    found = search(tmp_path, run, "x=1,2,3", "m=1", "seed=5", n_trials=6, n_jobs=2)
    found.optimise()
    confirm(found, found.study.best_params, range(6, 9))
    assert run.seen[-6:] == [*(f"m=1 x=1 seed={seed}" for seed in (6, 7, 8)), *(f"m=1 seed={seed}" for seed in (6, 7, 8))]
    assert "best     metric/fid 1.07 ± 0.01, n=3 of 3" in logged.text
    assert "default  metric/fid 9.07 ± 0.01, n=3 of 3" in logged.text
    assert "gan-compare --at best" in logged.text


@in_memory
def test_a_confirmation_counts_the_runs_that_completed(tmp_path: Path, logged: pytest.LogCaptureFixture) -> None:
    def some(values: dict[str, str]) -> Outcome:
        lost = ("1", "2") if "x" in values else ("1", "2", "3")
        return ended("diverged") if values.get("seed") in lost else ended(value=float(values.get("x", 3)))

    found = search(tmp_path, Objective(some), "x=1,2", n_trials=4)
    found.optimise()
    confirm(found, found.study.best_params, range(1, 4))
    assert "metric/fid 1, n=1 of 3" in logged.text and "n=0 of 3" in logged.text


@in_memory
def test_a_confirmation_that_failed_for_another_reason_ends_the_search(tmp_path: Path) -> None:
    run = Objective(lambda values: ended("failed", error=DiskError("a", "b", "c")) if "seed" in values else bowl(values))
    found = search(tmp_path, run, n_trials=2)
    found.optimise()
    with pytest.raises(SweepError) as stopped:
        confirm(found, found.study.best_params, range(1, 3))
    assert stopped.value.exit_code == DiskError.exit_code
