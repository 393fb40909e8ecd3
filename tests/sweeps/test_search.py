"""Searches: what is asked for, how it goes on, and what becomes of trials that fail. Mostly without training."""

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
    DivergedError,
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
from gan_cli.sweeps.search import Options, Search, direction_of, may_end_otherwise, reporter, spread, verdict
from gan_cli.sweeps.space import Space, read_space, written

stored = pytest.mark.usefixtures("storage")
OPTIONS = Options("tpe", 15, 1, 0, None, None, None, {}, "median", 3, 0, 0, False)


def space(*arguments: str) -> Space:
    return read_space(OverridesParser.create().parse_overrides(list(arguments)))


@dataclass
class Killed(BaseException):
    """As if by kill -9."""


class Objective:
    """Stands for trainings: a function of the overrides, and a record of what was run.

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
            outcomes.append(self.function(dict(o.split("=", 1) for o in job)))
        return outcomes


def ended(state: str = "complete", value: float | None = None, error: Exception | None = None) -> Outcome:
    return Outcome("", Path(), state, value, error)


def bowl(values: dict[str, str]) -> Outcome:
    return ended(value=(math.log10(float(values["x"])) + 3) ** 2 + int(values.get("n", 0)) + float(values.get("seed", 0)) / 100)


def search(
    path: Path, run: Any, *arguments: str, metric: str = "metric/fid", direction: str = "minimize", **options: Any
) -> Search:
    return Search(
        replace(OPTIONS, **options), space(*(arguments or BOWL)), sweep_dir=path, metric=metric, direction=direction, seed=0,
        run=run, name=lambda overrides: ",".join(sorted(overrides)),
    )  # fmt: skip


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
        (["x=1,2", "run_dir=here"], "run_dir", "directory"),
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


@stored
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


@stored
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


@stored
def test_killed_while_it_draws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


@stored
def test_a_finished_search_says_so_and_more_trials_continue_it(tmp_path: Path, said: pytest.LogCaptureFixture) -> None:
    run = Objective(bowl)
    search(tmp_path, run, n_trials=4).optimise()
    search(tmp_path, run, n_trials=4).optimise()
    assert len(run.seen) == 4 and "4 of 4 trials" in said.text
    search(tmp_path, run, n_trials=6).optimise()
    assert len(run.seen) == 6


@stored
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
    assert {t.params["n"] for t in found.trials("FAIL")} == {"1"} and found.best().params["n"] != "1"


@stored
@pytest.mark.parametrize("kind", [ConfigError, TooLargeError])
def test_nothing_but_failures_stop_it(kind: type[GanError], tmp_path: Path) -> None:
    """A memory that others fill should not use up all trials."""
    run = Objective(lambda values: ended("failed", error=kind("a", "b", "c")))
    for _ in range(2):
        with pytest.raises(SweepError, match=r"\b1\b") as stopped:
            search(tmp_path, run).optimise()
        assert stopped.value.exit_code == kind.exit_code
    assert len(run.seen) == 10
    search(tmp_path, Objective(bowl)).optimise()


@stored
@pytest.mark.parametrize("between", [ended("diverged", error=DivergedError("a", "b", "c")), ended("pruned"), ended(value=1.0)])
def test_memory_that_is_filled_later_stops_it_too(between: Outcome, tmp_path: Path) -> None:
    """Five in a row are hardly the values of five trials, whatever came before."""
    full = ended("failed", error=TooLargeError("a", "b", "c"))
    run = Objective(lambda values: between if len(run.seen) in (1, 6) else full)
    with pytest.raises(SweepError, match=r"\b1\b") as stopped:
        search(tmp_path, run).optimise()
    assert len(run.seen) == 11 and stopped.value.exit_code == 71


@stored
def test_a_space_of_which_most_is_refused_is_searched(tmp_path: Path) -> None:
    """Unless all of it is: something else is wrong."""
    refused = ended("failed", error=ConfigError("a", "b", "c"))
    run = Objective(lambda values: bowl(values) if len(run.seen) % 7 == 1 else refused)
    search(tmp_path, run).optimise()
    assert len(run.seen) == 15
    broken = Objective(lambda values: refused)
    with pytest.raises(SweepError, match=r"\b1\b"):
        search(tmp_path, broken, n_trials=30).optimise()
    assert len(broken.seen) == 5


@stored
def test_failed_trials_are_tried_again_if_that_is_asked_for(tmp_path: Path, said: pytest.LogCaptureFixture) -> None:
    """Not those that diverged. What is asked for later does not depend on it."""
    for name in ("whole", "parts"):
        (tmp_path / name).mkdir()
    diverge = ended("diverged", error=DivergedError("a", "b", "c"))
    whole = Objective(lambda values: diverge if len(whole.seen) == 2 else bowl(values))
    search(tmp_path / "whole", whole).optimise()
    failing = Objective(lambda values: {2: diverge, 3: full, 5: full}.get(len(failing.seen)) or bowl(values))
    full = ended("failed", error=TooLargeError("a", "b", "c"))
    found = search(tmp_path / "parts", failing, n_trials=6)
    found.optimise()
    assert [t.number for t in found.trials("FAIL")] == [1, 2, 4]
    lost = tmp_path / "parts" / found.trials()[1].user_attrs["directory"]
    lost.mkdir()
    (lost / "status.json").write_text('{"state": "diverged"}')
    again = Objective(bowl, kill_at=2)
    with pytest.raises(Killed):
        search(tmp_path / "parts", again, n_trials=6, retry_failed=True).optimise()
    assert again.seen == [failing.seen[2], failing.seen[4]] and "trial 2, 4 " in said.text
    rest = Objective(bowl)
    search(tmp_path / "parts", rest, n_trials=6).optimise()
    assert rest.seen == [failing.seen[4]]
    assert [t.number for t in found.trials("FAIL")] == [1] and len(found.trials("COMPLETE")) == 5
    search(tmp_path / "parts", rest, n_trials=6, retry_failed=True).optimise()
    assert len(rest.seen) == 1


@stored
def test_killed_while_a_failed_trial_is_asked_for_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failing = Objective(
        lambda values: ended("failed", error=ConfigError("a", "b", "c")) if len(failing.seen) == 2 else bowl(values)
    )
    search(tmp_path, failing, n_trials=3).optimise()
    dying = search(tmp_path, Objective(bowl), n_trials=3, retry_failed=True)
    monkeypatch.setattr(dying, "name", lambda overrides: (_ for _ in ()).throw(Killed()))
    with pytest.raises(Killed):
        dying.optimise()
    again = Objective(bowl)
    search(tmp_path, again, n_trials=3).optimise()
    assert again.seen == [failing.seen[1]]


PASSING = [kind("a", "b", "c") for kind in (NotFoundError, DiskError, OutputError, MemoryFullError, ClashError)] + [
    RuntimeError("a worker was killed"),
    None,
]


@stored
@pytest.mark.parametrize("error", PASSING)
def test_a_failure_that_may_pass_ends_the_search_and_the_trial_goes_on(
    error: Exception | None, tmp_path: Path, said: pytest.LogCaptureFixture
) -> None:
    """Else a disk that is not mounted buries trials for good."""
    broken = Objective(lambda values: ended("failed", error=error) if len(broken.seen) in (2, 3) else bowl(values))
    found = search(tmp_path, broken, n_jobs=4)
    with pytest.raises(SweepError, match=r"\b2\b") as stopped:
        found.optimise()
    assert stopped.value.exit_code == getattr(error, "exit_code", 1)
    assert [t.state.name for t in found.trials()] == ["COMPLETE", "RUNNING", "RUNNING", "COMPLETE"]
    assert "trial 1 of 15: failed" in said.text
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
def test_only_what_is_too_large_for_memory_is_put_down_to_a_trial(error: Exception, own: bool) -> None:
    known = of_system(error, "")
    assert isinstance(known, MemoryFullError) and known.exit_code == 71
    assert may_end_otherwise(ended("failed", error=known)) is not own


@stored
def test_a_confirmation_that_failed_for_a_reason_that_may_pass_is_no_answer(tmp_path: Path) -> None:
    run = Objective(lambda values: ended("failed", error=DiskError("a", "b", "c")) if "seed" in values else bowl(values))
    found = search(tmp_path, run, n_trials=2, confirm=2)
    found.optimise()
    with pytest.raises(SweepError) as stopped:
        found.confirm()
    assert stopped.value.exit_code == DiskError.exit_code


@stored
def test_all_diverged(tmp_path: Path) -> None:
    found = search(tmp_path, Objective(lambda values: ended("diverged")), n_trials=4)
    found.optimise()
    with pytest.raises(GanError, match="trial"):
        found.best()


@stored
def test_what_was_stopped_goes_on(tmp_path: Path) -> None:
    run = Objective(lambda values: ended("preempted", error=PreemptedError("a", "b", "c")))
    with pytest.raises(SweepError) as stopped:
        search(tmp_path, run).optimise()
    assert stopped.value.exit_code == 75
    again = Objective(bowl)
    search(tmp_path, again, n_trials=2).optimise()
    assert again.seen[0] == run.seen[0] and len(again.seen) == 2


@stored
@pytest.mark.parametrize("n_jobs", [1, 4])
def test_the_same_values_are_not_trained_twice(n_jobs: int, tmp_path: Path) -> None:
    """Nor twice at a time, in one directory."""
    states = {"0": ended(value=1.0), "1": ended("diverged"), "2": ended("pruned")}
    run = Objective(lambda values: states[values["n"]])
    found = search(tmp_path, run, "n=0,1,2", n_jobs=n_jobs)
    found.optimise()
    assert sorted(run.seen) == ["n=0", "n=1", "n=2"]
    kinds = {"0": "COMPLETE", "1": "FAIL", "2": "PRUNED"}
    assert len(found.trials()) == 15 and all(t.state.name == kinds[t.params["n"]] for t in found.trials())


@stored
@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"arguments": ("x=tag(log,interval(1e-5,1))", "n=0,1,2", "m=1")}, "search space: x: "),
        ({"arguments": ("x=tag(log,interval(1e-5,1e-1))", "n=0,1,2", "m=2")}, "setting: m=1, not m=2"),
        ({"metric": "metric/kid"}, "metric: metric/fid, not metric/kid"),
        ({"direction": "maximize"}, "direction"),
        ({"sampler": "random"}, "hydra.sweeper.sampler: tpe, not random"),
        ({"seed": 1}, "hydra.sweeper.seed: 0, not 1"),
        ({"pruner": "none"}, "hydra.sweeper.pruner: median, not none"),
        ({"pruner_warmup_steps": 5}, "hydra.sweeper.pruner_warmup_steps: 0, not 5"),
    ],
)
def test_a_study_of_something_else(change: dict[str, Any], what: str, tmp_path: Path) -> None:
    run = Objective(bowl)
    search(tmp_path, run, n_trials=1).optimise()
    options = {key: value for key, value in change.items() if key != "arguments"}
    with pytest.raises(ConfigError, match=what):
        search(tmp_path, run, *change.get("arguments", ()), **options)


@stored
def test_settings_that_change_no_result_may_change(tmp_path: Path) -> None:
    run = Objective(bowl)
    search(tmp_path, run, *BOWL, "threads=1", n_trials=1).optimise()
    search(tmp_path, run, *BOWL, "threads=2", n_trials=2).optimise()
    assert len(run.seen) == 2


def test_two_sweeps_do_not_share_a_study(tmp_path: Path) -> None:
    """Nor do they take each other's trials; a directory that was moved goes on."""
    storage = f"sqlite:///{tmp_path}/shared.db"
    mine, theirs = tmp_path / "a" / "s", tmp_path / "b" / "s"
    for path in (mine, theirs):
        path.mkdir(parents=True)
    run = Objective(bowl)
    search(mine, run, storage=storage, n_trials=2).optimise()
    with pytest.raises(ConfigError, match=f"{mine} .*study_name="):
        search(theirs, run, storage=storage)
    search(theirs, run, storage=storage, n_trials=1, study_name="other").optimise()
    moved = mine.rename(tmp_path / "s")
    found = search(moved, run, storage=storage, n_trials=3)
    found.optimise()
    assert len(run.seen) == 4 and len(found.trials("COMPLETE")) == 3


def test_a_sweep_directory_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / ".study").mkdir()
    with pytest.raises(OutputError, match=r"\.study"):
        search(tmp_path, Objective(bowl), storage=f"sqlite:///{tmp_path}/shared.db")


@stored
@pytest.mark.parametrize("bad", [ended("diverged"), ended(value=1.0)])
def test_a_trial_that_somebody_else_ended(bad: Outcome, tmp_path: Path) -> None:
    def meddle(values: dict[str, str]) -> Outcome:
        found.study.tell(0, 3.0)
        return bad

    found = search(tmp_path, Objective(meddle))
    with pytest.raises(OutputError, match="search: .*study_name="):
        found.optimise()


@pytest.mark.parametrize("storage", ["nonsense", "sqlite:////nowhere/at/all.db", "oracle9://x/y"])
def test_a_storage_that_cannot_be_opened(storage: str, tmp_path: Path) -> None:
    with pytest.raises((ConfigError, OutputError), match="storage"):
        search(tmp_path, Objective(bowl), storage=storage)


def test_a_password_is_not_said(tmp_path: Path) -> None:
    with pytest.raises(GanError) as refused:
        search(tmp_path, Objective(bowl), storage="oracle9://me:secret@host/x")
    assert "secret" not in str(refused.value) and "oracle9://me:***@host/x" in str(refused.value)


def test_a_damaged_storage(tmp_path: Path) -> None:  # its name says so to the fixture above
    (tmp_path / "optuna.db").write_bytes(b"not a database" * 100)
    with pytest.raises(OutputError, match="storage"):
        search(tmp_path, Objective(bowl))


def test_any_name_of_a_directory(tmp_path: Path) -> None:
    odd = tmp_path / "a?b#c{d}%20 e"
    odd.mkdir()
    search(odd, Objective(bowl), n_trials=1).optimise()
    assert [path.name for path in odd.iterdir()] == ["optuna.db"]


@stored
def test_hopeless_trials_are_pruned_by_the_median(tmp_path: Path) -> None:
    """In steps of the training; a step is reported once, and one that was resumed is judged as it was."""
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
def said(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    monkeypatch.setattr(logging.getLogger("gan_cli"), "propagate", True)
    caplog.set_level(logging.INFO, "gan_cli")
    return caplog


@stored
def test_the_best_trial_is_confirmed(tmp_path: Path, said: pytest.LogCaptureFixture) -> None:
    """With seeds that no trial used, side by side with the default."""

    def noisy(values: dict[str, str]) -> Outcome:
        return ended(value=(9.0 if "x" not in values else float(values["x"])) + float(values.get("seed", 5)) / 100)

    run = Objective(noisy)
    found = search(tmp_path, run, "x=1,2,3", "m=1", "seed=5", n_trials=6, confirm=3, n_jobs=2)
    found.seed = 5
    found.optimise()
    said.clear()
    found.confirm()
    assert run.seen[-6:] == [*(f"m=1 x=1 seed={seed}" for seed in (6, 7, 8)), *(f"m=1 seed={seed}" for seed in (6, 7, 8))]
    assert "seeds 6, 7, 8" in said.text
    assert "best     metric/fid 1.07 +- 0.01, n=3" in said.text and "default  metric/fid 9.07 +- 0.01, n=3" in said.text
    assert "by 8" in said.text


@stored
def test_a_confirmation_with_losses_says_so(tmp_path: Path, said: pytest.LogCaptureFixture) -> None:
    run = Objective(
        lambda values: ended("diverged") if values.get("seed") in ("1", "2") else ended(value=float(values.get("x", 3)))
    )
    found = search(tmp_path, run, "x=1,2", n_trials=4, confirm=3)
    found.optimise()
    found.confirm()
    assert said.text.count("n=1, 2 ") == 2


def test_verdicts() -> None:
    assert "too few" in verdict([1.0], [2.0, 3.0], "minimize")
    assert "the best trial is better, by 2" in verdict([1.0, 1.1, 0.9], [3.0, 3.1, 2.9], "minimize")
    assert "the default is better, by 2" in verdict([1.0, 1.1, 0.9], [3.0, 3.1, 2.9], "maximize")
    assert "do not support" in verdict([1.0, 5.0], [3.0, 4.0], "minimize")
    assert spread([1.0, 3.0]) == "2 +- 1.414, n=2" and spread([1.0]) == "1, n=1" and spread([]) == "nothing, n=0"
