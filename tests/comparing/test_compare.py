"""gan-compare on run directories written by hand, and on a sweep."""

from __future__ import annotations

import copy
import csv
import fcntl
import io
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from gan_cli.comparing import groups, text
from gan_cli.comparing.gather import gather


def noted(out: str, *words: str) -> bool:
    """Return whether one line has all of the words."""
    return any(all(word in line for word in words) for line in out.splitlines())


CONFIG: dict[str, Any] = {
    "run_dir": None,
    "seed": 0,
    "threads": 1,
    "total_steps": 100,
    "batch_size": 8,
    "sample_every": 10,
    "features": {},
    "ema": {"half_life": 10000.0},
    "model": {
        "task": {"_target_": "gan_cli.tasks.noise.NoiseToImage", "latent_dim": 64},
        "generator": {"_target_": "gan_cli.networks.mlp.Generator", "latent_dim": 64, "hidden": [8]},
        "discriminator": {"_target_": "gan_cli.networks.mlp.Discriminator", "hidden": [8]},
    },
    "loss": {
        "_target_": "gan_cli.objective.Objective",
        "adversarial": {"_target_": "gan_cli.losses.Hinge"},
        "penalty": None,
        "n_critic": 1,
        "critic_norm": "batch",
    },
    "dataset": {"_target_": "gan_cli.data.idx.fashion_mnist", "root": "data", "image_size": 32, "download": True},
    "optimizer": {"_target_": "gan_cli.optimizers.adam", "lr": 0.0002, "betas": [0.5, 0.999]},
    "schedule": {"_target_": "gan_cli.schedules.Constant"},
}
WGAN_GP = {
    "loss.adversarial._target_": "gan_cli.losses.Wasserstein",
    "loss.penalty": {"_target_": "gan_cli.penalties.GradientPenalty", "weight": 10.0},
    "loss.n_critic": 5,
    "loss.critic_norm": "layer",
}
PROTOCOL = {"features": "classifier", "features_hash": "ab", "num_samples": 10000, "reference": "fashion_mnist", "seed": 0}


def changed(config: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    config = copy.deepcopy(config)
    for key, value in changes.items():
        *path, last = key.split(".")
        node = config
        for part in path:
            node = node[part]
        node[last] = value
    return config


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Path]:
    """Write a run directory below ``runs/``."""

    def write(
        name: str,
        seed: int = 0,
        fid: float | None = None,
        *,
        changes: dict[str, Any] | None = None,
        state: str | None = "complete",
        command: str | None = None,
        data: str = "f" * 16,
        protocol: dict[str, Any] | None = None,
        evaluations: dict[int, dict[str, float]] | None = None,
        rows: list[dict[str, Any]] | None = None,
    ) -> Path:
        from gan_cli.rundir.evaluations import protocol_id
        from gan_cli.rundir.evaluations import write as write_evaluation

        path = tmp_path / "runs" / name
        path.mkdir(parents=True)
        config = changed(CONFIG, {"seed": seed, **(changes or {})})
        (path / "config.yaml").write_text(yaml.safe_dump(config))
        steps = config["total_steps"] if state in ("complete", None) else 50
        status = {"state": state, "step": steps, "total_steps": config["total_steps"], "message": None}
        if command is not None:
            status |= {"command": command, "cwd": "/somewhere"}
        if state is not None:
            (path / "status.json").write_text(json.dumps(status))
        if rows is None:
            rows = [{"step": s, "images": 8 * s, "d/loss": 1 / s, "g/loss": s / 10} for s in range(10, steps + 1, 10)]
        (path / "metrics.jsonl").write_text("".join(json.dumps({**row, "time/elapsed": 1.5}) + "\n" for row in rows))
        (path / "checkpoints" / f"step-{steps:08d}").mkdir(parents=True)
        saved = {"step": steps, "images": 8 * steps, "data": data, "config": config}
        (path / "checkpoints" / f"step-{steps:08d}" / "state.json").write_text(json.dumps(saved))
        found = evaluations or ({} if fid is None else {steps: {"fid": fid, "fid_std": 0.1, "is": 10 - fid}})
        for step, values in found.items():
            said = {**PROTOCOL, **(protocol or {}), "step": step, "images": 8 * step}
            write_evaluation(path / "evaluations" / f"step-{step:08d}-{protocol_id(said)}.json", values, said)
        return path

    return write


@pytest.fixture
def two(run: Any) -> None:
    """Two losses, three seeds each, clearly apart; and a third like the first."""
    for seed, (a, b, c) in enumerate([(1.0, 5.0, 1.1), (1.2, 5.5, 0.9), (0.8, 4.7, 1.4)]):
        run(f"sweep/loss=hinge,seed={seed}", seed, a)
        run(f"sweep/loss=wgan_gp,seed={seed}", seed, b, changes=WGAN_GP)
        other = {"loss.adversarial._target_": "gan_cli.losses.NonSaturating"}
        run(f"sweep/loss=non_saturating,seed={seed}", seed, c, changes=other)


@pytest.fixture
def compare(gan: Any) -> Callable[..., Any]:
    """``gan-compare runs ...``, which must end with ``code`` and say no more than one error."""

    def call(*args: object, code: int = 0, runs: str = "runs") -> Any:
        result = gan("gan-compare", *([runs] if runs else []), *args)
        assert result.code == code, result.out + result.err
        assert len(result.errors) == (code != 0) and "Traceback" not in result.err
        assert code == 0 or len(result.err.splitlines()) == 1
        return result

    return call


@pytest.fixture
def tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[dict[str, Any]]]:
    """The comparisons of the JSON, without the command line. Keywords are those of ``Question``."""

    def call(*paths: str, **question: Any) -> list[dict[str, Any]]:
        monkeypatch.chdir(tmp_path)
        found = groups.compare(*gather([Path(path) for path in paths or ("runs",)]), groups.Question(**question))
        return json.loads(text.as_json(found))["comparisons"]

    return call


def lines_of(text: str, start: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith(start)]


def test_groups_means_and_what_the_seeds_support(two: Any, compare: Any, tables: Any) -> None:
    out = compare().out
    (best,), (same,), (worse,) = (lines_of(out, f"loss={name} ") for name in ("hinge", "non_saturating", "wgan_gp"))
    assert best.split()[1:6] == ["3", "1.00", "+-", "0.20", "*"]
    assert same.split()[1:6] == ["3", "1.13", "+-", "0.25", "?"]
    assert worse.split()[1:5] == ["3", "5.07", "+-", "0.40"] and "?" not in worse and "*" not in worse
    assert out.index("loss=hinge ") < out.index("loss=non_saturating ") < out.index("loss=wgan_gp ")
    assert "Welch's t test" in out and "p >= 0.05" in out and "more: --html" in out
    (one,) = tables()
    assert [column["name"] for column in one["columns"]] == ["fid", "is"]
    fids = [group["summaries"]["fid"] for group in one["groups"]]
    assert [fid["verdict"] for fid in fids] == ["", "unsupported", "worse"]
    assert fids[0]["p"] is None and fids[2]["p"] < 0.01 < 0.05 < fids[1]["p"]
    assert {key.split(".")[0] for key in one["varied"]} == {"loss"}


def test_values_of_one_seed_support_nothing(run: Any, compare: Any) -> None:
    run("a", 0, 1.0)
    run("b", 0, 500.0, changes=WGAN_GP)
    out = compare().out
    assert noted(out, "one seed") and re.search(r"5\d\d[.\d]* \?", out)
    assert "loss=wasserstein+gradient_penalty" in out and "loss=hinge" in out


def test_sort_by_any_column(two: Any, compare: Any, tables: Any) -> None:
    def names(sort: str = "") -> list[str]:
        (one,) = tables(sort=sort)
        return [group["name"] for group in one["groups"]]

    assert names() == names("is") == ["loss=hinge", "loss=non_saturating", "loss=wgan_gp"]
    (one,) = tables(sort="g/loss")
    assert one["sort_by"] == "g/loss" and [c["name"] for c in one["columns"]] == ["fid", "is", "g/loss"]
    error = compare("--sort", "speed", code=2).errors[0]
    assert "'speed'" in error and "There are: fid, is" in error


def test_seeds_and_what_changes_no_result_make_no_group(run: Any, tables: Any) -> None:
    harmless = {"threads": 4, "sample_every": 5, "run_dir": "x", "dataset.root": "elsewhere", "features": {"_target_": "a"}}
    run("a", 0, 1.0)
    run("b", 1, 2.0, changes=harmless)
    run("c", 0, 3.0, changes={"total_steps": 200})
    (one,) = tables()
    assert [(group["name"], group["n"]) for group in one["groups"]] == [("total_steps=100", 2), ("total_steps=200", 1)]


def test_names_come_from_what_was_typed(run: Any, tables: Any) -> None:
    run("a", 0, 1.0, command="gan-train dataset=fashion_mnist loss=hinge threads=1 seed=0")
    run("b", 0, 2.0, command="gan-train dataset=fashion_mnist loss=my_wgan seed=0 threads=1", changes=WGAN_GP)
    run("c", 0, 3.0, command="gan-train dataset=fashion_mnist 'optimizer.betas=[0,0.9]'", changes={"optimizer.betas": [0, 0.9]})
    names = {group["name"] for one in tables() for group in one["groups"]}
    assert names == {
        "loss=hinge, optimizer.betas=[0.5,0.999]",
        "loss=my_wgan, optimizer.betas=[0.5,0.999]",
        "loss=hinge, optimizer.betas=[0,0.9]",
    }


def test_many_keys_are_not_listed(run: Any, tables: Any) -> None:
    wide = {f"model.generator.option{k}": k for k in range(12)} | {
        "model.generator._target_": "gan_cli.networks.dcgan.Generator"
    }
    run("a", 0, 1.0)
    run("b", 0, 2.0, changes=wide)
    assert [group["name"] for group in tables()[0]["groups"]] == ["model=mlp", "model=dcgan"]


def test_groups_that_names_cannot_tell_apart_keep_different_names(run: Any, tables: Any) -> None:
    for k in range(3):
        run(str(k), 0, 1.0 + k, command="gan-train loss=hinge", changes={"ema.half_life": 1000.0 * k})
    names = [group["name"] for group in tables()[0]["groups"]]
    assert names == ["ema.half_life=0", "ema.half_life=1000", "ema.half_life=2000"]


def test_a_seed_counts_once(run: Any, compare: Any, tables: Any) -> None:
    run("a", 0, 1.0)
    run("b", 0, 9.0, state="preempted")
    run("c", 1, 3.0)
    result = compare("--unfinished")
    (group,) = tables(unfinished=True)[0]["groups"]
    assert [Path(each["path"]).name for each in group["runs"]] == ["a", "c"] and group["summaries"]["fid"]["mean"] == 2.0
    assert noted(result.out, "0", "runs/a", "runs/b")


def test_the_same_run_given_twice_is_one(two: Any, tables: Any) -> None:
    (one,) = tables("runs/sweep", "runs/sweep/loss=hinge,seed=0", "./runs/../runs")
    assert sum(len(group["runs"]) for group in one["groups"]) == 9 and not noted("\n".join(one["notes"]), "seed 0")


# what cannot be compared


def test_data_sets_are_never_in_one_table(run: Any, compare: Any, tables: Any) -> None:
    run("a", 0, 1.0)
    run("b", 0, 2.0, changes={"dataset._target_": "gan_cli.data.idx.mnist"}, data="e" * 16)
    run("c", 1, 2.0, changes={"dataset.image_size": 64}, data="d" * 16)
    run("d", 1, 2.0, changes={"dataset._target_": "gan_cli.data.idx.mnist"}, data="c" * 16)
    found = tables()
    assert sorted(one["data"] for one in found) == [
        "fashion_mnist (image_size=32)", "fashion_mnist (image_size=64)", "mnist (cccccccc)", "mnist (eeeeeeee)"
    ]  # fmt: skip
    assert all(len(one["groups"]) == 1 and noted(one["notes"][0], *(each["data"] for each in found)) for one in found)
    assert len([line for line in lines_of(compare().out, "note: ") if "mnist (eeeeeeee)" in line]) == 1
    assert "--strict" in compare("--strict", code=2).errors[0]


def test_data_that_lies_elsewhere_is_the_same(run: Any, compare: Any, tables: Any) -> None:
    run("a", 0, 1.0)
    run("b", 1, 2.0, changes={"dataset.root": "/other"})
    run("c", 2, 2.0, data="", changes={"dataset.root": "/other"})  # no checkpoint yet: the same path is the same data
    assert len(tables()) == 1
    compare("--strict")


def test_a_protocol_that_all_share_is_the_column(run: Any, compare: Any, tables: Any, tmp_path: Path) -> None:
    from gan_cli.rundir import evaluations

    for k, changes in enumerate([{}, WGAN_GP]):
        run(f"r{k}", 0, 1.0 + k, changes=changes)
    fewer = {**PROTOCOL, "num_samples": 500, "step": 100, "images": 800}
    evaluations.write(tmp_path / "runs" / "r0" / "evaluations" / "step-00000100-x.json", {"fid": 99.0}, fewer)
    compare("--strict")
    (one,) = tables()
    assert [(c["name"], g["summaries"]["fid"]["mean"]) for c, g in zip(one["columns"], one["groups"], strict=True)] == [
        ("fid", 1.0), ("is", 2.0)
    ]  # fmt: skip
    assert any(noted(note, "num_samples", "500", "10000") for note in one["notes"])


def test_protocols_are_never_in_one_column(run: Any, compare: Any, tables: Any) -> None:
    for seed in range(2):
        run(f"a{seed}", seed, 1.0 + seed)
        run(f"b{seed}", seed, 100.0 + seed, changes=WGAN_GP, protocol={"num_samples": 2000})
    (one,) = tables()
    names = [column["name"] for column in one["columns"]]
    assert len(names) == 4 and names[0].startswith("fid@") and names[2].startswith("fid@") and names[0] != names[2]
    assert all(len(group["summaries"]) == 2 for group in one["groups"])
    assert all(summary["verdict"] == "" for group in one["groups"] for summary in group["summaries"].values())
    assert noted("\n".join(one["notes"]), "num_samples", "2000", "10000")
    out = compare().out
    assert "*" not in out and noted(out, "2 protocols", "gan-eval run_dir=DIR")
    assert "--strict" in compare("--strict", code=2).errors[0]
    assert tables(sort="is")[0]["sort_by"].startswith("is@")
    assert "There are: fid@" in compare("--sort", "kid", code=2).errors[0]
    (one,) = tables(protocol=names[2].partition("@")[2])
    assert [column["name"] for column in one["columns"]] == ["fid", "is"]
    assert sorted(group["n"] for group in one["groups"]) == [0, 2]
    assert "There are: " in compare("--protocol", "bogus", code=2).errors[0]


# which values


def test_which_evaluation_counts(run: Any, compare: Any, tables: Any) -> None:
    values = {50: {"fid": 1.0, "kid": 5.0}, 80: {"fid": 9.0, "kid": 0.5}, 100: {"fid": 3.0, "kid": 3.0}}
    run("a", 0, evaluations=values)
    run("b", 1, evaluations={100: {"fid": 5.0, "kid": 1.0}})

    def mean(metric: str, at: str = "last", sort: str = "") -> float:
        (one,) = tables(at=at, sort=sort)
        return one["groups"][0]["summaries"][metric]["mean"]

    assert mean("fid") == 4.0
    assert mean("fid", "best") == 3.0 and mean("kid", "best") == 3.0  # of the same evaluation
    assert mean("kid", "best", "kid") == 0.75
    assert mean("fid", "400") == 1.0 and mean("fid", "800") == 4.0
    assert noted(compare("--at", "best").out, "note: ", "best", "fid")
    assert "400, 640, 800" in compare("--at", "7", code=2).errors[0]
    compare("--at", "first", code=2)
    assert json.loads(compare("--at", "0800", "--json", "-").out)["comparisons"][0]["at"] == "800"


def test_unequal_numbers_of_images_are_noted(run: Any, compare: Any) -> None:
    run("a", 0, 1.0)
    run("b", 0, 2.0, changes={"total_steps": 300})
    assert noted(compare().out, "800", "2,400")


def test_runs_never_evaluated(run: Any, tables: Any) -> None:
    for seed in range(2):
        run(f"a{seed}", seed)
        rows = [{"step": s, "images": 8 * s, "d/wasserstein": 2.0 - s / 100, "d/loss": float("nan")} for s in range(1, 101)]
        run(f"b{seed}", seed, changes=WGAN_GP, rows=rows)
    (one,) = tables()
    assert [c["name"] for c in one["columns"]] == ["d/wasserstein", "d/loss", "g/loss"] and not any(
        c["protocol"] or c["better"] for c in one["columns"]
    )
    of = {name: group["summaries"] for group in one["groups"] for name in group["summaries"]}
    assert of["d/wasserstein"]["d/wasserstein"]["mean"] == pytest.approx(2 - 0.955)  # the last 10 of 100
    assert of["g/loss"]["g/loss"]["mean"] == 10.0  # the last of 10
    assert noted("\n".join(one["notes"]), "10%", "gan-eval run_dir=DIR", "eval_every=")
    assert noted("\n".join(one["notes"]), "d/loss")


def test_some_evaluated(run: Any, compare: Any) -> None:
    run("a", 0, 1.0)
    run("b", 1)
    out = compare().out
    assert noted(out, "runs/b", "run_dir=DIR")


def test_fid_of_few_images_does_not_decide(run: Any, tables: Any) -> None:
    run("a", 0, evaluations={100: {"fid": 1.0, "kid": 2.0}}, protocol={"num_samples": 200})
    (one,) = tables()
    assert one["sort_by"] == "kid" and "FID of 200 images" in " ".join(one["notes"])


def test_incomplete_runs_are_named_and_not_counted(run: Any, compare: Any) -> None:
    for seed in range(3):
        run(f"a{seed}", seed, 1.0 + seed)
    run("d", 3, 50.0, state="diverged")
    run("e", 4, 60.0, state="running")  # no process holds the lock
    out = compare().out
    assert "3, 1 diverged, 1 stopped  2.00 +- 1.00" in out
    assert noted(out, "1", "1", "runs/d", "runs/e")
    assert "5, 1 diverged, 1 stopped" in compare("--unfinished").out


def test_the_lock_shows_whether_a_run_is_running(run: Any, compare: Any, tables: Any) -> None:
    path = run("a", 0, 1.0, state="running")
    states = lambda: [each["state"] for one in tables() for group in one["groups"] for each in group["runs"]]  # noqa: E731
    assert states() == ["stopped"] and not (path / ".lock").exists()
    with open(path / ".lock", "w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert states() == ["running"]
    assert states() == ["stopped"]
    assert noted(compare().out, "note: ", "complete", "--unfinished")


# what is on disk


def test_wrong_arguments(compare: Any, tmp_path: Path) -> None:
    (tmp_path / "runs" / "empty").mkdir(parents=True)
    (tmp_path / "file").write_text("x")
    assert compare(code=66).error.names("runs", "config.yaml")
    assert compare(runs="nowhere", code=66).error.names("nowhere")
    assert compare(runs="file", code=2).error.names("file")
    compare(runs="", code=2)
    compare("--no-such-flag", code=2)
    for option in ("--tensorboard", "--tensorboard=board"):
        assert compare(option, code=2).error.names("--tensorboard", "tensorboard --logdir runs")
    compare("--csv", "", code=2)
    compare("--csv", "-", "--json", "-", code=2)


def test_half_written_runs(run: Any, compare: Any) -> None:
    run("a", 0, 1.0)
    b = run("b", 1, 2.0)
    (b / "metrics.jsonl").write_bytes(b'{"step": 10, "d/loss": 1}\n{"step": 2')
    (b / "evaluations" / "step-00000050-y.json").write_text('{"metrics": {"fid"')
    c = run("c", 2, 3.0)
    (c / "config.yaml").write_text("seed: [")
    d = run("d", 3, 4.0)
    (d / "config.yaml").unlink()
    (d / "checkpoints" / "step-00000100" / "state.json").write_bytes(b"\0")
    e = run("e", 4, 5.0)
    (e / "status.json").write_text("{")
    (e / "metrics.jsonl").write_text("\0\0\0")
    result = compare()
    assert "4  2.75 +-" in result.out  # a, b, c, e
    assert noted(result.out, "runs/d: left out", "config") and noted(result.out, "runs/c: config.yaml", "checkpoint")
    assert noted(result.out, "runs/b/evaluations/step-00000050-y.json: left out") and noted(result.out, "runs/e: metrics.jsonl")
    (d.parent / "only").mkdir()
    d.rename(d.parent / "only" / "d")
    assert compare(runs="runs/only", code=66).error.names("runs/only")


def test_a_run_of_an_earlier_version(run: Any, compare: Any, tables: Any) -> None:
    path = run("a", 0, 1.0, state=None)
    config = yaml.safe_load((path / "config.yaml").read_text())
    del config["features"], config["ema"], config["loss"]["n_critic"]
    (path / "config.yaml").write_text(yaml.safe_dump(config))
    run("b", 1, 2.0)
    out = compare().out
    assert noted(out, "runs/a: ", "status.json", "earlier version") and noted(out, "runs/b: ", "earlier version", "command")
    assert len(tables()[0]["groups"]) == 2  # missing settings may differ


def test_a_sweep_that_is_under_way(two: Any, compare: Any, tmp_path: Path) -> None:
    sweep = tmp_path / "runs" / "sweep"
    jobs = [*sorted(path.name for path in sweep.iterdir()), "loss=lsgan,seed=0", "loss=lsgan,seed=1", "../x"]
    (sweep / "sweep.json").write_text(json.dumps({"command": "gan-train -m", "jobs": jobs}))
    (sweep / ".lock").touch()
    (sweep / "loss=lsgan,seed=0").mkdir()
    assert noted(compare().out, "runs/sweep: 2 jobs")
    (sweep / "sweep.json").write_text("{")
    assert noted(compare().out, "runs/sweep: sweep.json")


def test_an_untrusted_run(run: Any, compare: Any, tmp_path: Path) -> None:
    run("a", 0, 1.0)
    (tmp_path / "secret").write_text("seed: 7")
    linked = run("b", 1, 2.0)
    (linked / "config.yaml").unlink()
    (linked / "config.yaml").symlink_to(tmp_path / "secret")
    pipe = run("c", 2, 2.0)
    (pipe / "metrics.jsonl").unlink()
    os.mkfifo(pipe / "metrics.jsonl")
    (tmp_path / "runs" / "outside").symlink_to("/")
    for name, content in {
        "code": "!!python/object/apply:os.system ['touch made']",
        "bomb": "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a]\nc: [*b,*b,*b,*b,*b]\ndataset: {}\n",
        "deep": "[" * 50_000,
        "keys": "1: 2\ndataset: {3: 4}\n",
    }.items():
        path = run(name, 3, 2.0)
        (path / "config.yaml").write_text(content)
        (path / "checkpoints" / "step-00000100" / "state.json").unlink()
    rude = run("rude", 4, 2.0, command="rm -rf x; gan-train loss=\x1b[31m")
    begun = time.process_time()
    out = compare().out
    assert time.process_time() - begun < 30
    assert "2  1.50 +-" in out and not (tmp_path / "made").exists() and "\x1b" not in out
    assert noted(out, "runs/b: left out", "config.yaml") and noted(out, "runs/c: left out", "metrics.jsonl")
    assert noted(out, "runs/bomb", "runs/code", "runs/deep", "1")
    commands = compare("--commands").out
    assert "rm -rf" not in commands and "\x1b" not in commands
    assert compare(runs="runs/b", code=77).error.names("runs/b/config.yaml") and rude.exists()


# what is written


def test_csv_has_a_row_for_each_run(two: Any, compare: Any, tmp_path: Path) -> None:
    rows = list(csv.DictReader(io.StringIO(compare("--csv", "-").out)))
    assert len(rows) == 9 and {row["set:loss"] for row in rows} == {"hinge", "wgan_gp", "non_saturating"}
    first = rows[0]
    assert (first["seed"], first["state"], float(first["fid"]), first["data"]) == ("0", "complete", 1.0, "fashion_mnist")
    assert len(first["protocol"]) == 8 and first["path"] == "runs/sweep/loss=hinge,seed=0"
    result = compare("--csv", "new/a.csv", "--json", "a.json")
    assert "written: new/a.csv, a.json" in result.out and "loss=hinge" in result.out
    assert list(csv.DictReader((tmp_path / "new" / "a.csv").open())) == rows
    assert json.loads((tmp_path / "a.json").read_text())["format"] == 1


def test_the_keys_of_the_json_are_documented(two: Any, tables: Any) -> None:
    text = (Path(__file__).parents[2] / "docs" / "sweeps.md").read_text()
    (one,) = tables()
    group = one["groups"][0]
    keys = {*one, *one["columns"][0], *group, *group["summaries"]["fid"], *group["runs"][0]}
    assert [key for key in keys if f"`{key}`" not in text] == []


def test_markdown(two: Any, compare: Any) -> None:
    lines = compare("--markdown").out.splitlines()
    (header,) = lines_of("\n".join(lines), "|  | n |")
    assert header == "|  | n | fid ↓ | is ↑ |"
    assert lines[lines.index(header) + 2].startswith("| loss=hinge | 3 | 1.00 ± 0.20 \\* |")


def test_commands(run: Any, compare: Any) -> None:
    run("a b", 0, 1.0, command="gan-train 'model.generator.hidden=[8]' loss=hinge seed=0")
    lines = compare("--commands").out.splitlines()
    assert "cd /somewhere && gan-train 'model.generator.hidden=[8]' loss=hinge seed=0 run_dir=NEW" in lines
    assert any(line.startswith("gan-train 'from_run=runs/a b' run_dir=NEW") for line in lines)


def test_files_are_written_atomically(two: Any, compare: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "taken").mkdir()
    assert "cannot be written" in compare("--csv", "taken", code=73).errors[0]
    assert list((tmp_path / "taken").iterdir()) == [] and not list(tmp_path.glob(".writing-*"))
    (tmp_path / "before.csv").write_text("before")

    def full(*_: object) -> None:
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr("gan_cli.system.files.os.replace", full)
    assert "cannot be written: Operation not permitted" in compare("--csv", "before.csv", code=73).errors[0]
    assert (tmp_path / "before.csv").read_text() == "before" and not list(tmp_path.glob(".writing-*"))


@pytest.mark.parametrize("width", ["40", "80", "200"])
def test_width(two: Any, compare: Any, width: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", width)
    table = compare().out.split("\n\n")[1]
    assert max(len(line) for line in table.splitlines()) <= max(50, int(width))
    assert "is" in compare().out


# a real process, a real sweep


def test_help_and_tables_without_torch(two: Any, tmp_path: Path) -> None:
    loaded = "assert not {'torch', 'numpy'} & set(sys.modules)"
    code = f"import sys\nfrom gan_cli import compare\ntry: compare.main()\nfinally: {loaded}"
    for args in (["--help"], ["runs"], ["runs", "--json", "-"]):
        result = subprocess.run([sys.executable, "-c", code, *args], cwd=tmp_path, capture_output=True, text=True, timeout=300)
        assert result.returncode == 0 and result.stderr == "", result.stderr
    command = f"{sys.executable} -m gan_cli.compare runs | head -n 1"
    result = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert result.stdout.startswith("fashion_mnist: 9 runs, 3 groups, 3 seeds") and result.stderr == ""


@pytest.mark.slow
def test_a_sweep(train: Any, gan: Any) -> None:
    swept = ["-m", "model=mlp", "loss=hinge,wgan_gp", "seed=0,1", "total_steps=4", "log_every=1", "hydra.sweep.dir=s"]
    train(*swept, tiny="mlp")
    result = gan("gan-compare", "s")
    assert result.code == 0, result.err
    assert [len(lines_of(result.out, f"loss={name} ")) for name in ("hinge", "wgan_gp")] == [1, 1]
    assert "digits: 4 runs, 2 groups, 2 seeds; training scalars" in result.out


# groups, notes and untrusted text


def edited(path: Path, **saved: Any) -> None:
    """Add keys to the state.json of the only checkpoint."""
    (state,) = path.glob("checkpoints/*/state.json")
    state.write_text(json.dumps({**json.loads(state.read_text()), **saved}))


def test_runs_of_one_name_keep_their_own_values(run: Any, compare: Any, tmp_path: Path) -> None:
    run("s0/loss=hinge", 0, 1.0)
    run("s1/loss=hinge", 1, 99.0, state="diverged")
    rows = {row["path"]: row["fid"] for row in csv.DictReader(io.StringIO(compare("--csv", "-").out))}
    assert rows == {"runs/s0/loss=hinge": "1.0", "runs/s1/loss=hinge": ""}
    run("s2/loss=hinge", 2, 7.75)
    compare("--html", "a.html")
    page = (tmp_path / "a.html").read_text()
    assert '<td class="number">1</td>' in page and '<td class="number">7.75</td>' in page and ">99<" not in page


def test_no_spread_supports_nothing(run: Any, tables: Any) -> None:
    for seed in range(3):
        run(f"a{seed}", seed, 0.1)
        run(f"b{seed}", seed, 0.2, changes=WGAN_GP)
    verdict = tables()[0]["groups"][1]["summaries"]["fid"]
    assert verdict["verdict"] == "unsupported" and verdict["p"] is None and verdict["std"] == 0


def test_a_run_that_was_changed_is_a_separate_group(run: Any, compare: Any) -> None:
    run("a", 0, 1.0, command="gan-train loss=hinge", changes={"optimizer.lr": 0.1})
    path = run("b", 1, 9.0, command="gan-train loss=hinge", changes={"optimizer.lr": 0.1})
    edited(path, changes=["from step 50 on optimizer.lr: 0.2 -> 0.1"])
    out = compare().out
    assert "2 groups" in out and "changed=from step 50 on" in out and "changed=no" in out
    assert noted(out, "note: ", "changed", "runs/b")
    assert noted(compare("--commands").out, "# ", "from step 50 on optimizer.lr: 0.2 -> 0.1")


def test_the_precision_that_a_machine_chose(run: Any, tables: Any) -> None:
    def made(name: str, seed: int, asked: str, chosen: str | None) -> None:
        path = run(name, seed, 1.0, changes={"precision": asked})
        edited(path, **({"machine": {"precision": chosen}} if chosen else {}))

    made("a", 0, "auto", "bf16")
    made("b", 1, "bf16", "bf16")  # repeated from a config with the precision in use
    made("c", 2, "auto", None)
    assert [group["n"] for group in tables()[0]["groups"]] == [3]
    made("d", 3, "auto", "fp32")
    names = {group["name"]: group["n"] for group in tables()[0]["groups"]}
    assert names == {"precision=bf16": 2, "precision=fp32": 1, "precision=auto": 1}


def test_at_images_that_a_run_did_not_reach(run: Any, compare: Any, tables: Any) -> None:
    run("a", 0)
    path = run("b", 1, rows=[{"step": 10, "images": 80, "d/loss": 7.0}])
    edited(path, images=80)
    (group,) = tables(at="800")[0]["groups"]
    assert group["summaries"]["d/loss"]["n"] == 1
    assert noted(compare("--at", "800").out, "800", "runs/b")
    assert "from 80 to 800" in compare().out and "from 80 to 800" in compare("--at", "best").out
    assert compare("--at", "801", code=2).error.names("--at", "801", "800")


def test_the_evaluation_that_counts_is_in_json_and_csv(run: Any, compare: Any, tables: Any) -> None:
    """The best of a run may lie anywhere, but which runs saw more images matters."""
    run("a", 0, evaluations={50: {"fid": 1.0}, 100: {"fid": 2.0}})
    run("b", 0, evaluations={100: {"fid": 3.0}, 200: {"fid": 4.0}}, changes={**WGAN_GP, "total_steps": 200})
    found = {g["name"]: g["runs"][0] for g in tables(at="best")[0]["groups"]}
    places = sorted((one["measured"][0]["step"], one["measured"][0]["images"], one["step"]) for one in found.values())
    assert places == [(50, 400, 100), (100, 800, 200)]
    assert noted(compare("--at", "best").out, "800", "1,600")
    rows = list(csv.DictReader(io.StringIO(compare("--at", "best", "--csv", "-").out)))
    assert sorted((row["measured_step"], row["measured_images"], len(row["protocol"])) for row in rows) == [
        ("100", "800", 8),
        ("50", "400", 8),
    ]
    run("never", 1)
    rows = list(csv.DictReader(io.StringIO(compare("--csv", "-").out)))
    assert [row["protocol"] for row in rows if row["path"].endswith("never")] == [""]


def test_the_trial_that_was_chosen_for_its_value_does_not_count_with_its_confirmation(
    run: Any, compare: Any, tables: Any, tmp_path: Path
) -> None:
    run("lr=1", 0, 1.0, changes={"optimizer.lr": 1.0})
    run("lr=2", 0, 9.0, changes={"optimizer.lr": 2.0})
    names = [f"lr=1,seed={seed}" for seed in (1, 2)] + [f"seed={seed}" for seed in (1, 2)]
    for name in names:
        run(name, int(name[-1]), 5.0 + int(name[-1]), changes={"optimizer.lr": 1.0} if "lr" in name else None)
    plan = {"command": "gan-train -m", "jobs": ["lr=1", "lr=2", *names], "chosen": ["lr=1"]}
    (tmp_path / "runs" / "sweep.json").write_text(json.dumps(plan))
    found = [group["summaries"]["fid"] for group in tables()[0]["groups"]]
    assert sorted((one["mean"], one["n"]) for one in found) == [(6.5, 2), (6.5, 2), (9.0, 1)]
    assert noted(compare().out, "note: ", "search", "runs/lr=1")
    for damaged in ("{", '{"chosen": 3, "jobs": []}', "[]"):
        (tmp_path / "runs" / "sweep.json").write_text(damaged)
        assert sorted(group["n"] for group in tables()[0]["groups"]) == [1, 2, 3]


def test_groups_without_a_complete_run_are_one_note(run: Any, tables: Any) -> None:
    run("a", 0, 1.0)
    run("b", 1, state="diverged")
    for k in range(2, 7):
        run(f"{k}", 0, changes={"optimizer.lr": float(k)}, state="pruned" if k % 2 else "diverged")
    first, second = (note for note in tables()[0]["notes"] if "--unfinished" in note)
    assert noted(first, "5 groups", "3 diverged, 2 pruned") and noted(second, "1 diverged", "2 runs", "runs/b")


def test_the_end_of_a_long_path_is_shown(run: Any, tables: Any, tmp_path: Path) -> None:
    for seed in range(2):
        run("/".join(["x" * 100, "y" * 100, f"loss=hinge,seed={seed}"]), seed, state="diverged")
    note = next(note for note in tables()[0]["notes"] if "2 diverged" in note)
    assert "loss=hinge,seed=0, runs/xxx" in note and note.endswith("loss=hinge,seed=1") and len(note) < 500


@pytest.mark.parametrize("flags", [["--html", "o"], ["--json", "o"], ["--csv", "o"], []])
def test_text_that_is_not_utf_8(flags: list[str], run: Any, compare: Any, tmp_path: Path) -> None:
    """File names that are not UTF-8, lone surrogates, integers of 1024 bits, and keys that some runs lack."""
    run("a", 0, 1.0, changes={"ema.own": ""})
    path = run("b", 1, 2.0, command="gan-train loss='\ud801'")
    said = json.loads((path / "status.json").read_text()) | {"cwd": "\ud800", "message": "\ud802"}
    (path / "status.json").write_text(json.dumps(said))
    os.rename(path, os.fsencode(tmp_path / "runs") + b"/b\xff")
    run("c", 2, 3.0)
    bad = run("d", 2**1024 - 1, 4.0)
    assert bad.exists()
    with_nan = next((run("e", 4, 5.0) / "evaluations").iterdir())
    with_nan.write_text(with_nan.read_text().replace("10000", "NaN"))
    result = compare(*flags)
    assert noted(result.out, "runs/d: left out", "seed") and noted(result.out, "runs/e/evaluations/", "left out")


@pytest.mark.parametrize("seed", ["[1, 2]", "abc", "null", "true"])
def test_a_seed_that_is_not_an_integer(seed: str, run: Any, compare: Any) -> None:
    run("a", 0, 1.0)
    path = run("b", 1, 2.0)
    (path / "config.yaml").write_text((path / "config.yaml").read_text().replace("seed: 1", f"seed: {seed}"))
    assert noted(compare().out, "runs/b: left out", "seed")


@pytest.mark.parametrize(
    "row",
    [
        '{"step": true, "images": 1}',
        '{"step": 1' + "0" * 400 + "}",
        '{"step": 100, "images": 800, "d/loss": 1' + "0" * 400 + ', "time/elapsed": NaN}',
        '{"step": 100, "images": 1e300, "d/loss": 1e200, "g/loss": -1e200}',
    ],
)
def test_invalid_numbers(row: str, run: Any, compare: Any) -> None:
    for seed in range(2):
        path = run(f"a{seed}", seed)
        with (path / "metrics.jsonl").open("a") as file:
            file.write(row + "\n")
        text = json.dumps({"metrics": {"fid": 10**400}, "protocol": {**PROTOCOL, "step": 100, "images": 800}})
        (path / "evaluations").mkdir()
        (path / "evaluations" / "x.json").write_text(text)
    for args in ([], ["--html", "a.html"]):
        assert noted(compare(*args).out, "runs/a0/evaluations/x.json", "left out")
    assert noted(compare("--json", "-").out, "runs/a0/evaluations/x.json", "left out")


@pytest.mark.parametrize("config", ["x: [{1: 2, a: 3}]", "x: 0x" + "f" * 9000])
def test_invalid_configs(config: str, run: Any, compare: Any) -> None:
    run("a", 0, 1.0)
    path = run("b", 1, 2.0)
    (path / "config.yaml").write_text((path / "config.yaml").read_text() + config + "\n")
    edited(path, config=None)
    assert noted(compare().out, "runs/b: left out", "config")


@pytest.mark.parametrize("flag", ["--csv", "--json", "--html"])
@pytest.mark.parametrize("kind", ["pipe", "link"])
def test_only_files_are_replaced(flag: str, kind: str, run: Any, compare: Any, tmp_path: Path) -> None:
    run("a", 0, 1.0)
    there = tmp_path / "there"
    if kind == "pipe":
        os.mkfifo(there)
    else:
        there.symlink_to(tmp_path / "other")
    assert "regular file" in compare(flag, "there", code=73).errors[0]
    assert there.is_fifo() or there.is_symlink()


def test_control_characters_are_escaped(run: Any, compare: Any) -> None:
    rows = [{"step": 1, "images": 8, "metric/\x1b]0;x\x07|y": 1.0}]
    run("a", 0, rows=rows, command="gan-train x=\x1b[31m\n")
    for args in ([], ["--markdown"], ["--csv", "-"]):
        out = compare(*args).out
        assert "\x1b" not in out and "\x07" not in out and "\\x1b" in out
    assert "\\|y" in compare("--markdown").out


def test_differences_without_a_name_are_noted(run: Any, compare: Any) -> None:
    run("a", 0, 1.0, command="gan-train loss=hinge")
    run("b", 0, 2.0, command="gan-train loss=wgan_gp", changes={**WGAN_GP, "batch_size": 64})
    out = compare().out
    assert "loss=hinge " in out and noted(out, "batch_size", "8", "64")


def test_the_same_value_typed_otherwise_is_no_difference(run: Any, tables: Any) -> None:
    run("a", 0, 1.0, command="gan-train loss=hinge optimizer.lr=2e-4 loss/penalty=none")
    run("b", 0, 2.0, command="gan-train loss=wgan_gp optimizer.lr=0.0002", changes=WGAN_GP)
    run("c", 1, 2.0, command="gan-train loss=my_hinge optimizer.lr=0.001", changes={"optimizer.lr": 0.001})
    names = {group["name"] for group in tables()[0]["groups"]}
    assert len(names) == 3 and all("optimizer.lr=0.0002" in name or "optimizer.lr=0.001" in name for name in names)
    run("d", 0, 2.0, command="gan-train ema.half_life=2e4 optimizer.lr=2e-4", changes={"ema.half_life": 20000.0})
    names = {group["name"] for group in tables("runs/a", "runs/d")[0]["groups"]}
    assert names == {"ema.half_life=10000", "ema.half_life=20000"}


def test_folders_that_are_not_searched_are_noted(run: Any, compare: Any) -> None:
    run("a", 0, 1.0)
    run("1/2/3/4/5/6", 1, 1.0)
    out = compare().out
    assert noted(out, "runs: ", "4 levels") and ": 1 run," in out


def test_points_are_no_images(run: Any, compare: Any) -> None:
    run("a", 0, rows=[{"step": 100, "images": 800, "metric/jsd": 0.1}])
    out = compare().out
    assert noted(out, "note: ", "10%") and "gan-eval" not in out
