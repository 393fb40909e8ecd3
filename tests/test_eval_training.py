"""gan-train eval_every=N: it changes nothing of the training, keeps the best checkpoint, and measures as gan-eval does."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gan_cli import load_run
from gan_cli.config.metrics import direction
from gan_cli.training import evaluation

from .conftest import quick, train_tiny  # type: ignore[import-not-found]

CLASSIFIER = ["features=classifier", "features.epochs=1"]
EVERY = [*CLASSIFIER, "log_every=3", "sample_every=4", "save_every=5", "num_samples=40"]
PAIRS = ["model=pix2pix", "dataset=digits_paired", "sample_every=4", "save_every=5", "log_every=3"]


def best(run: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((run / "best.json").read_text())
    return content


def results(run: Path) -> dict[str, Any]:
    return {path.name: json.loads(path.read_text()) for path in sorted((run / "evaluations").iterdir())}


def by_step(run: Path, metric: str) -> dict[int, float]:
    return {result["protocol"]["step"]: result["metrics"][metric] for result in results(run).values()}


def training_rows(read: Any, run: Path) -> list[dict[str, Any]]:
    measured = {f"metric/{key}" for result in results(run).values() for key in result["metrics"]}
    return [{k: v for k, v in row.items() if k not in measured} for row in read.rows(run)]


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """``scripted(3, 2, 4)``: the values that the next evaluations find, whatever they measure."""

    measure = evaluation.Evaluation.measure

    def scripted(*values: float, metric: str = "kid") -> None:
        left = list(values)

        def measured(self: Any, *args: Any) -> dict[str, float]:
            return {**measure(self, *args), metric: float(left.pop(0))}

        monkeypatch.setattr(evaluation.Evaluation, "measure", measured)

    return scripted


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 12 steps with an evaluation every 2. Read only."""
    home = tmp_path_factory.mktemp("watched")
    train_tiny(home, *EVERY, "total_steps=12", "eval_every=2", "metrics=[kid,fid]", "run_dir=run")
    return home / "run"


# The training is the same


@pytest.mark.slow
def test_it_changes_nothing_of_the_training(watched: Path, train: Any, read: Any, tmp_path: Path) -> None:
    train(*EVERY, "total_steps=12", "run_dir=alone")
    alone = tmp_path / "alone"
    assert read.steps(alone) == [5, 10, 12]
    for step in (10, 12):
        a, b = read.tensors(alone, step), read.tensors(watched, step)
        a, b = ({k: v for k, v in tensors.items() if not k.startswith("log_sums.")} for tensors in (a, b))
        assert a.keys() == b.keys() and all(a[key].tobytes() == b[key].tobytes() for key in a)
    assert read.pictures(watched) == read.pictures(alone)
    assert training_rows(read, watched) == read.rows(alone)
    evaluated = ("config", "log_counts", "best")
    one, two = ({k: v for k, v in read.info(run).items() if k not in evaluated} for run in (watched, alone))
    assert one == two


@pytest.mark.slow
def test_nor_of_a_translation(train: Any, read: Any, tmp_path: Path) -> None:
    args = [*PAIRS, "total_steps=6", "num_samples=10"]
    train(*args, "run_dir=watched", "eval_every=2", "metrics=[psnr]", tiny="pix2pix")
    train(*args, "run_dir=alone", tiny="pix2pix")
    watched, alone = tmp_path / "watched", tmp_path / "alone"
    a, b = ({k: v for k, v in read.tensors(run, 6).items() if not k.startswith("log_sums.")} for run in (watched, alone))
    assert a.keys() == b.keys() and all(a[key].tobytes() == b[key].tobytes() for key in a)
    assert read.pictures(watched) == read.pictures(alone)
    assert training_rows(read, watched) == read.rows(alone)
    values = by_step(watched, "psnr")
    assert list(values) == [2, 4, 6] and best(watched)["value"] == max(values.values())


# What it writes


def test_results_rows_and_curves(watched: Path, read: Any) -> None:
    found = results(watched)
    (rule,) = {name.rpartition("-")[2] for name in found}
    assert list(found) == [f"step-{k:08d}-{rule}" for k in (2, 4, 6, 8, 10, 12)]
    assert best(watched)["protocol_id"] == rule.removesuffix(".json")
    logged = {row["step"]: row for row in read.rows(watched)}
    scalars = read.scalars(watched)
    for row, step in ((3, 2), (6, 6), (9, 8), (12, 12)):  # the last one before the row, as it is
        metrics = found[f"step-{step:08d}-{rule}"]["metrics"]
        assert set(metrics) == {"kid", "kid_std", "fid"}
        for key, value in metrics.items():
            assert logged[row][f"metric/{key}"] == pytest.approx(value, rel=1e-6)
            assert dict(scalars[f"metric/{key}"])[row] == pytest.approx(value, rel=1e-6)
    log = (watched / "train.log").read_text()
    assert re.search(r"evaluation of step 2: .*kid \S+.* \(best so far\)", log)


@pytest.mark.parametrize("kind", quick(["noise", "pairs"], "noise"))
def test_gan_eval_finds_the_same(kind: str, watched: Path, train: Any, read: Any, gan: Any, tmp_path: Path) -> None:
    run, metrics, count = watched, "metrics=[kid,fid]", 40
    if kind == "pairs":
        train(*PAIRS, "total_steps=2", "eval_every=2", "metrics=[psnr,ssim]", "num_samples=10", "run_dir=run", tiny="pix2pix")
        run, metrics, count = tmp_path / "run", "metrics=[psnr,ssim]", 10
    result = gan("gan-eval", f"run_dir={run}", f"num_samples={count}", metrics, *CLASSIFIER, "threads=1", "output=out")
    assert result.code == 0, result.err
    (path,) = (tmp_path / "out").iterdir()
    theirs = json.loads((run / "evaluations" / path.name[path.name.index("step-") :]).read_text())
    ours = json.loads(path.read_text())
    assert ours["protocol"] == theirs["protocol"], "the same in every respect: protocol, step, weights, machine"
    assert ours["metrics"] == pytest.approx(theirs["metrics"], rel=1e-6)


def test_the_best_checkpoint(watched: Path, read: Any, gan: Any, tmp_path: Path) -> None:
    values = by_step(watched, "kid")
    step = min(values, key=lambda k: values[k])
    assert best(watched) == {**best(watched), "step": step, "metric": "kid", "value": values[step]}
    assert set(read.steps(watched)) == {5, 10, 12} | {step}
    assert load_run(watched, step="best", device="cpu").step == step
    for number in ("best", step):
        output = f"output={number}"
        assert gan("gan-sample", f"run_dir={watched}", f"step={number}", "formats=[npz]", output, "threads=1").code == 0
    assert (tmp_path / "best" / "samples.npz").read_bytes() == (tmp_path / str(step) / "samples.npz").read_bytes()
    args = ["num_samples=40", "metrics=[kid]", *CLASSIFIER, "threads=1", "output=out"]
    result = gan("gan-eval", f"run_dir={watched}", "step=best", *args)
    assert result.code == 0 and f"step {step} " in result.out
    (path,) = (tmp_path / "out").iterdir()
    assert json.loads(path.read_text())["metrics"]["kid"] == pytest.approx(values[step], rel=1e-6)


# Rotation


@pytest.mark.slow
def test_the_best_survives_and_goes_when_replaced(train: Any, read: Any, scripted: Any, tmp_path: Path) -> None:
    args = [*CLASSIFIER, "num_samples=10", "metrics=[kid]", "eval_every=1", "save_every=4", "keep_checkpoints=1", "run_dir=run"]
    run = tmp_path / "run"
    seen: dict[int, list[int]] = {}
    for total, value, there in (
        (3, (5.0, 4.0, 9.0), [2, 3]),
        (6, (9.0, 9.0, 9.0), [2, 6]),
        (7, (3.0,), [7]),
        (9, (8.0, 8.0), [7, 9]),
    ):
        scripted(*value)
        train(*args, f"total_steps={total}")
        seen[total] = read.steps(run)
        assert seen[total] == there, seen
    assert best(run)["step"] == 7 and best(run)["value"] == 3


def test_equal_values_keep_the_first(train: Any, scripted: Any, tmp_path: Path) -> None:
    scripted(1.0, 1.0, 1.0)
    train(*CLASSIFIER, "num_samples=10", "metrics=[kid]", "eval_every=1", "total_steps=3", "run_dir=run")
    assert best(tmp_path / "run")["step"] == 1


@pytest.mark.slow
def test_the_best_survives_a_session_without_evaluations(
    train: Any, read: Any, gan: Any, scripted: Any, tmp_path: Path
) -> None:
    scripted(1.0, 2.0, 2.0)
    args = ["save_every=4", "keep_checkpoints=1", "run_dir=run"]
    train(*args, *CLASSIFIER, "num_samples=10", "metrics=[kid]", "eval_every=1", "total_steps=3")
    train(*args, "total_steps=10")
    assert read.steps(tmp_path / "run") == [1, 10]
    assert load_run(tmp_path / "run", step="best", device="cpu").step == 1
    scripted(5.0)
    train(*args, *CLASSIFIER, "num_samples=10", "metrics=[kid]", "eval_every=11", "total_steps=11")
    assert best(tmp_path / "run")["step"] == 1 and read.steps(tmp_path / "run") == [1, 11]


def test_another_rule_is_refused_and_another_metric_decides_anew(train: Any, scripted: Any, tmp_path: Path) -> None:
    args = [*CLASSIFIER, "metrics=[kid,fid]", "eval_every=1", "run_dir=run"]
    scripted(1.0, 7.0)
    train(*args, "num_samples=10", "total_steps=1")
    before = {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir() if path.is_file() and path.name != ".lock"}
    refused = train(*args, "num_samples=11", "total_steps=2", code=2)
    assert {name: (tmp_path / "run" / name).read_bytes() for name in before} == before and len(before) > 3, "as it was"
    (line,) = refused.errors
    assert all(key in line for key in ("metrics", "num_samples", "features"))
    said = train(*args, "num_samples=10", "total_steps=2", "optimized_metric=metric/fid")
    assert "optimized_metric" in said.err and "metric/fid" in said.err
    assert (best(tmp_path / "run")["step"], best(tmp_path / "run")["metric"]) == (2, "fid")


@pytest.mark.slow
def test_a_mark_of_an_earlier_run_does_not_count(train: Any, gan: Any, scripted: Any, tmp_path: Path) -> None:
    scripted(1.0, 1.0)
    train(*CLASSIFIER, "num_samples=10", "metrics=[kid]", "eval_every=1", "total_steps=2", "run_dir=run")
    for folder in sorted((tmp_path / "run" / "checkpoints").iterdir()):
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()
    train("total_steps=1", "seed=5", "run_dir=run")
    assert gan("gan-sample", "run_dir=run", "step=best").code == 66


# Stopped and continued


@pytest.mark.parametrize(("stop", "every"), quick([(5, 2), (7, 3), (4, 4)], (4, 4)))
def test_goes_on_as_if_never_stopped(
    stop: int, every: int, train: Any, stop_at: Any, monkeypatch: pytest.MonkeyPatch, read: Any, tmp_path: Path
) -> None:
    args = [*EVERY, "total_steps=10", f"eval_every={every}", "metrics=[fid,kid,prdc]", "keep_checkpoints=2"]
    train(*args, "run_dir=whole")
    stop_at(stop, signal.SIGTERM)
    train(*args, "run_dir=hops", code=75)
    monkeypatch.undo()
    train(*args, "run_dir=hops")
    whole, hops = tmp_path / "whole", tmp_path / "hops"
    read.assert_same(whole, hops)
    assert best(whole) == best(hops) and results(whole) == results(hops)
    a, b = (read.scalars(run) for run in (whole, hops))
    assert {k: v for k, v in a.items() if not k.startswith("time/")} == {
        k: v for k, v in b.items() if not k.startswith("time/")
    }


@pytest.mark.slow
def test_a_kill_between_a_checkpoint_and_its_mark(train: Any, read: Any, tmp_path: Path) -> None:
    args = [*EVERY, "eval_every=2", "metrics=[kid]", "save_every=4"]
    train(*args, "total_steps=8", "run_dir=whole")
    step = best(tmp_path / "whole")["step"]
    train(*args, f"total_steps={step}", "run_dir=hops")
    marked = best(tmp_path / "hops")
    assert marked["step"] == step
    (tmp_path / "hops" / "best.json").unlink()
    train(*args, f"total_steps={step}", "run_dir=hops")
    assert best(tmp_path / "hops") == marked, "of a finished run"
    (tmp_path / "hops" / "best.json").unlink()
    train(*args, "total_steps=8", "run_dir=hops")
    assert best(tmp_path / "hops") == best(tmp_path / "whole") and read.steps(tmp_path / "hops") == read.steps(
        tmp_path / "whole"
    )


@pytest.mark.slow
def test_every_hour_of_it(train: Any, read: Any, tmp_path: Path) -> None:
    """Stopped after each step."""
    args = [*EVERY, "total_steps=4", "eval_every=2", "metrics=[fid]", "save_every=3"]
    train(*args, "run_dir=whole")
    for k in range(1, 5):
        train(*args, "run_dir=hops", "max_hours=1e-9", code=75 if k < 4 else 0)
    read.assert_same(tmp_path / "whole", tmp_path / "hops")
    assert best(tmp_path / "whole") == best(tmp_path / "hops") and results(tmp_path / "whole") == results(tmp_path / "hops")


def test_an_evaluation_that_fails_does_not_end_the_training(train: Any, read: Any, tmp_path: Path) -> None:
    args = [*EVERY, "metrics=[fid]", "eval_every=2", "total_steps=4", "optimized_metric=metric/fid", "run_dir=run"]
    train(*args, "max_hours=1e-9", code=75)
    (tmp_path / "run" / "evaluations").write_text("no folder")
    said = train(*args)
    assert len(re.findall(r"warning: .*evaluation of step [0-9]+", said.err)) == 2 and not said.errors
    assert read.steps(tmp_path / "run")[-1] == 4 and not (tmp_path / "run" / "best.json").exists()


# Which value decides, and what a sweeper gets


@pytest.mark.parametrize(
    ("metrics", "decides"),
    quick(
        [
            ("[kid,fid]", "kid"),
            ("[fid,kid]", "fid"),
            ("[prdc,fid]", "coverage"),
            ("null", "kid"),
            ("[is,kid]", "is"),
            ("[memorisation]", "memorisation"),
        ],
        *[("[prdc,fid]", "coverage"), ("null", "kid")],
    ),
)
def test_the_first_decides(metrics: str, decides: str, train: Any, read: Any, tmp_path: Path) -> None:
    train(*EVERY, f"metrics={metrics}", "eval_every=1", "total_steps=2", "run_dir=run")
    found = best(tmp_path / "run")
    assert found["metric"] == decides
    values = by_step(tmp_path / "run", decides)
    pick = {"lower": min, "higher": max}.get(direction(decides), lambda v, key: min(v, key=lambda k: abs(values[k] - 0.5)))
    assert found["value"] == values[pick(values, key=lambda k: values[k])]


@pytest.mark.slow
def test_psnr_decides_of_pairs(train: Any, tmp_path: Path) -> None:
    train(*PAIRS, *CLASSIFIER, "total_steps=1", "eval_every=1", "num_samples=12", "run_dir=run", tiny="pix2pix")
    assert best(tmp_path / "run")["metric"] == "psnr"
    (result,) = results(tmp_path / "run").values()
    assert set(result["metrics"]) == {"psnr", "ssim", "kid", "kid_std", "fid"}


@pytest.mark.slow
def test_cyclegan(train: Any, gan: Any, tmp_path: Path) -> None:
    args = ["model=cyclegan", "dataset=digits_unpaired", *CLASSIFIER, "num_samples=12", "metrics=[kid]"]
    train(*args, "total_steps=2", "eval_every=1", "run_dir=run", tiny="cyclegan")
    assert {r["protocol"]["direction"] for r in results(tmp_path / "run").values()} == {"a2b"}
    result = gan("gan-eval", "run_dir=run", "metrics=[kid]", *CLASSIFIER, "num_samples=12", "threads=1", "output=out")
    (path,) = (tmp_path / "out").iterdir()
    assert result.code == 0
    assert (
        json.loads(path.read_text())["protocol"] == results(tmp_path / "run")[path.name[path.name.index("step-") :]]["protocol"]
    )
    assert json.loads(path.read_text())["metrics"] == pytest.approx(
        results(tmp_path / "run")[path.name[path.name.index("step-") :]]["metrics"], rel=1e-6
    )


@pytest.mark.slow
def test_the_best_value_goes_to_the_sweeper(train: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scripted: Any) -> None:
    from gan_cli.sweeps.jobs import Jobs

    run_jobs, returned = Jobs.run, []

    def spy(self: Any, jobs: Any) -> Any:
        outcomes = run_jobs(self, jobs)
        returned.extend(outcome.value for outcome in outcomes)
        return outcomes

    monkeypatch.setattr(Jobs, "run", spy)
    args = [*EVERY, "total_steps=4", "eval_every=2", "metrics=[kid,fid]"]
    scripted(2.0, 3.0, 5.0, 4.0, 9.0, 8.0)
    train("-m", "seed=0,1", *args, "hydra.sweep.dir=sweep")
    assert returned == [2, 4]
    returned.clear()
    train("-m", "seed=0", *args, "optimized_metric=metric/fid", "hydra.sweep.dir=other")
    (run,) = (path for path in (tmp_path / "other").iterdir() if path.is_dir())
    assert returned == [min(by_step(run, "fid").values())] and best(run)["metric"] == "fid"
    returned.clear()
    train("-m", "seed=0", *args, "optimized_metric=metric/fid", "hydra.sweep.dir=other")
    assert returned == [best(run)["value"]], "a finished run is asked again"


# Refusals


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["eval_every=5"], r"4 steps \(eval_every=5\)\..*eval_every=4"),
        (["eval_every=0"], r"0.*>= 1.*\(eval_every\)"),
        (["optimized_metric=metric/fid"], r"metric/fid.*eval_every=4"),
        (["eval_every=2", "metrics=[kid]", "optimized_metric=metric/fid"], r"'fid' \(optimized_metric\).*metric/kid"),
        (["eval_every=2", "metrics=[prdc]", "optimized_metric=metric/lpips"], r"'lpips'.*metric/coverage"),
        (["eval_every=2", "metrics=[psnr]"], r"psnr compares images with their targets"),
        (["eval_every=2", "metrics=[accuracy]"], r"accuracy"),
        (["eval_every=2", "metrics=[fdi]"], r"'fdi'.*\(metrics\[0\]\).*fid"),
        (["eval_every=2", "num_samples=1"], r"2 images|kid.*2 images"),
        (["eval_every=2", "features=own"], r"'own'"),
    ],
)
def test_refused(args: list[str], message: str, gan: Any, tmp_path: Path) -> None:
    tiny = ["threads=1", "batch_size=8", "precision=fp32", "model.generator.width=4", "model.discriminator.width=4"]
    keys = {arg.partition("=")[0] for arg in args}
    keys |= {"features.epochs"} & {f"{key}.epochs" for key in keys}
    given = [arg for arg in EVERY if arg.partition("=")[0] not in keys]
    result = gan("gan-train", *tiny, *given, "total_steps=4", *args)
    assert result.code == 2 and re.search(message, *result.errors), result
    assert list(tmp_path.iterdir()) == [], "nothing has been trained"


def test_theory_has_its_own(train: Any, tmp_path: Path) -> None:
    args = ["model=points", "dataset.n=200", "total_steps=2", "eval_every=1", "run_dir=run"]
    result = train(*args, tiny="points", code=2)
    assert "(eval_every)" in result.errors[0] and not (tmp_path / "run").exists()


def test_divergence_is_called_by_its_name(train: Any, tmp_path: Path) -> None:
    args = [*EVERY, "log_every=50", "metrics=[kid]", "eval_every=2", "total_steps=6", "run_dir=run"]
    result = train(*args, "optimizer=sgd", "optimizer.lr=1e20", code=79)
    (line,) = result.errors
    assert "(run)" in line and "step 2" in line


def test_no_network_is_noticed_before_the_training(train: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import urllib.error
    import urllib.request

    def fail(*_: object, **__: object) -> None:
        raise urllib.error.URLError("there is no network")

    monkeypatch.setattr(urllib.request, "urlopen", fail)
    result = train("features=inception", "eval_every=1", "total_steps=1", "run_dir=run", code=66)
    assert "features.weights" in result.errors[0] and not (tmp_path / "run").exists()


def test_own_features_in_training(train: Any, tmp_path: Path) -> None:
    (tmp_path / "my_mean.py").write_text(
        "from torch import nn\n\n\nclass Mean(nn.Module):\n    value_range = (-1, 1)\n\n"
        "    def forward(self, images):\n        return nn.functional.adaptive_avg_pool2d(images, 2).flatten(1)\n"
    )
    (tmp_path / "my" / "features").mkdir(parents=True)
    (tmp_path / "my" / "features" / "mean.yaml").write_text("_target_: my_mean.Mean\n")
    train("--config-dir", "my", "features=mean", "total_steps=2", "eval_every=2", "num_samples=20", "run_dir=run")
    (result,) = results(tmp_path / "run").values()
    assert result["protocol"]["features"] == "my_mean.Mean" and "is" not in result["metrics"]
