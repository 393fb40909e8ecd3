"""Every preset in conf/experiment, its networks made tiny: it trains, resumes exactly, and
is reloaded by gan-sample. A new file there is tested without a change here."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from .conftest import Result, quick, train_tiny  # type: ignore[import-not-found]
from .tiny import PRESETS, composed, config_of, play, tiny  # type: ignore[import-not-found]

STEPS, STOP = 20, 10
EVERY = [f"total_steps={STEPS}", "log_every=4", f"save_every={STOP}", "gif=false"]
KINDS = [  # one preset of each kind of state
    "dcgan_digits",  # running statistics of batch norm, an average of G
    "wgan_cifar10",  # a warm-up of the critic, weights kept in an interval
    "cdcgan_mnist",  # labels
    "pix2pix_facades",  # dropout, pairs
    "cyclegan_horse2zebra",  # pools of images, two domains
    "theory_1d",  # points
]
QUICK = KINDS[:3]  # tests/reliability/test_resume_everywhere.py has every kind


def sample_every(preset: str) -> int:
    return STEPS if preset.startswith("theory_") else 4  # measuring and drawing p_g takes a second


@dataclass(frozen=True)
class Runs:
    """Two run directories: of 20 steps at once, and of 20 steps with a stop after 10; and the output of the commands."""

    whole: Path
    hops: Path
    said: Result
    stopped: Result
    went_on: Result


def run_twice(home: Path, stop_at: Any, undo: Callable[[], None], *args: str, stop: int = STOP) -> Runs:
    said = train_tiny(home, *args, "run_dir=whole", tiny="own")
    stop_at(stop, signal.SIGTERM)
    stopped = train_tiny(home, *args, "run_dir=hops", tiny="own", code=75)
    undo()
    went_on = train_tiny(home, *args, "run_dir=hops", tiny="own")
    return Runs(home / "whole", home / "hops", said, stopped, went_on)


@pytest.fixture(scope="module")
def finished() -> dict[str, Runs]:
    return {}


@pytest.fixture(params=quick(PRESETS, *QUICK))
def preset(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def runs(
    preset: str,
    finished: dict[str, Runs],
    tmp_path_factory: pytest.TempPathFactory,
    data_root: Path,
    stop_at: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> Runs:
    """Runs of each preset, trained once."""
    if preset not in finished:
        home = tmp_path_factory.mktemp(preset)
        args = [f"experiment={preset}", *EVERY, f"sample_every={sample_every(preset)}", *tiny(preset, data_root)]
        finished[preset] = run_twice(home, stop_at, monkeypatch.undo, *args)
    return finished[preset]


def test_there_are_presets() -> None:
    assert {"cgan_mnist", "cgan_fashion_mnist", "wgan_gp_fashion_mnist", "wgan_gp_cifar10", "pix2pix_facades"} <= set(PRESETS)
    assert {"cyclegan_horse2zebra", "cyclegan_facades"} <= set(PRESETS)


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.slow
def test_says_how_it_departs_from_its_paper(name: str) -> None:
    deviations = composed(name)["deviations"]
    assert isinstance(deviations, list)
    for line in deviations:
        assert isinstance(line, str) and len(line) > 8 and line.strip() == line and "\n" not in line
        assert line.endswith("."), line
    assert len(set(deviations)) == len(deviations)
    assert deviations, "none follows its paper in everything"


@pytest.mark.parametrize("name", PRESETS)
def test_takes_a_step(name: str, data_root: Path) -> None:
    game, rows = play(config_of(f"experiment={name}", *tiny(name, data_root)))
    assert all(np.isfinite(value) for value in rows[0].values()) and {"d/loss", "g/loss"} <= rows[0].keys()
    weights = [
        parameter.numel() for player in (game.generator, game.discriminator) for parameter in player.network.parameters()
    ]
    assert len(weights) > 3 and sum(weights) < 60_000, "tiny() leaves something large"


def test_trains(preset: str, runs: Runs, read: Any) -> None:
    rows = read.rows(runs.whole)
    assert [row["step"] for row in rows] == [4, 8, 12, 16, STEPS]
    for row in rows:
        assert {"images", "d/loss", "g/loss"} <= row.keys()
        assert all(np.isfinite(value) for value in row.values()), row
    every = sample_every(preset)
    assert sorted(read.pictures(runs.whole)) == [f"step-{k:08d}.png" for k in range(every, STEPS + 1, every)]
    assert read.steps(runs.whole) == [STOP, STEPS]


def test_prints_its_deviations(preset: str, runs: Runs) -> None:
    said = [line for line in runs.said.err.splitlines() if line.startswith("the recipe departs from its paper")]
    assert said == [f"the recipe departs from its paper: {line}" for line in composed(preset)["deviations"]]
    assert [line for line in runs.said.err.splitlines() if "warning" in line.lower() or "error" in line] == []


def test_goes_on_as_if_never_stopped(preset: str, runs: Runs, read: Any) -> None:
    assert f"step {STOP} of {STEPS} by SIGTERM" in runs.stopped.err
    assert f"from step {STOP}" in runs.went_on.err
    read.assert_same(runs.whole, runs.hops)
    pools = {k: v for k, v in read.tensors(runs.hops).items() if k.startswith("task.pool_") and k.endswith("filled")}
    assert [int(v) for v in pools.values()] == ([8, 8] if preset.startswith("cyclegan") else [])


def test_gan_sample_reloads_it(preset: str, runs: Runs, gan: Any) -> None:
    result = gan("gan-sample", f"run_dir={runs.hops}")
    assert result.code == 0, result.err
    assert result.errors == [] and "Traceback" not in result.err
    assert str(runs.hops / "generated") in result.out + result.err
    config = composed(preset)
    output = runs.hops / "generated" / f"step-{STEPS:08d}-seed0"
    files = sorted(p.relative_to(output).as_posix() for p in output.rglob("*") if p.is_file())
    if "Translation" not in config["model"]["task"]["_target_"]:
        assert files == ["grid.png"]
        with Image.open(output / "grid.png") as picture:
            assert min(picture.size) > 100 and len(set(picture.convert("L").tobytes())) > 5
        return
    count = len([name for name in files if "/" not in name])
    embedded = "digit_styles" in config["dataset"]["_target_"]
    assert count == (64 if embedded else 4), "the held-out images"
    sheets = [f"sheets/{k:03d}.png" for k in range(-(-count // 8))]
    assert files == [*[f"{k:05d}.png" for k in range(count)], *sheets]
    for k in range(count):
        with Image.open(output / f"{k:05d}.png") as picture:
            assert (picture.size, picture.mode) == ((16, 16), "L" if config["dataset"]["channels"] == 1 else "RGB")


# Order and number of updates, and the source of the images


@pytest.mark.parametrize("first", quick(["generator", "discriminator"], "generator"))
@pytest.mark.parametrize("name", quick(["pix2pix_facades", "cyclegan_facades"], "pix2pix_facades"))
def test_order_and_critic_updates_are_settings(
    name: str, first: str, data_root: Path, stop_at: Any, monkeypatch: pytest.MonkeyPatch, read: Any, tmp_path: Path
) -> None:
    args = [f"experiment={name}", *tiny(name, data_root), f"loss.first={first}", "loss.n_critic=2", "model.task.pool_size=3"]
    args = args if "cyclegan" in name else args[:-1]
    args += ["total_steps=8", "log_every=3", "sample_every=4", "save_every=2"]
    runs = run_twice(tmp_path, stop_at, monkeypatch.undo, *args, stop=5)
    assert [row["images"] for row in read.rows(runs.whole)] == [6, 12, 16], "two batches of one image in each step"
    read.assert_same(runs.whole, runs.hops)


@pytest.mark.parametrize("name", quick(["pix2pix_facades", "cyclegan_facades"], "pix2pix_facades"))
def test_bf16_goes_on_as_if_never_stopped(
    name: str, data_root: Path, stop_at: Any, monkeypatch: pytest.MonkeyPatch, read: Any, tmp_path: Path
) -> None:
    args = [f"experiment={name}", *tiny(name, data_root), "precision=bf16", "total_steps=6", "save_every=3"]
    runs = run_twice(tmp_path, stop_at, monkeypatch.undo, *args, stop=4)
    read.assert_same(runs.whole, runs.hops)


@pytest.mark.slow
def test_a_longer_run_measures_as_if_it_had_never_ended(train: Any, read: Any, tmp_path: Path) -> None:
    """At its first end a row is due and no picture, so p_g is not measured."""
    args = ["model=points", "dataset=mixture_1d", "dataset.n=200", "threads=1", "log_every=5", "sample_every=10"]
    train(*args, "total_steps=20", "run_dir=whole", tiny="own")
    train(*args, "total_steps=15", "run_dir=hops", tiny="own")
    train(*args, "total_steps=20", "run_dir=hops", tiny="own")
    rows = read.rows(tmp_path / "whole")
    assert ["metric/jsd" in row for row in rows] == [False, True, False, True]
    assert read.rows(tmp_path / "hops") == rows


@pytest.mark.slow
def test_a_sweep_may_optimise_what_is_measured(gan: Any) -> None:
    args = ["model=points", "dataset=mixture_1d", "dataset.n=200", "threads=1", "batch_size=8"]
    args += ["log_every=2", "sample_every=5", "total_steps=6"]
    assert gan("gan-train", *args, "optimized_metric=metric/jsd", "run_dir=a").code == 0
    result = gan("gan-train", *args, "optimized_metric=metric/jds", "run_dir=b")
    assert result.code == 2 and "metric/jds" in result.errors[0] and "metric/jsd" in result.errors[0]


def test_the_film_of_a_finished_run(train: Any, tmp_path: Path) -> None:
    args = ["total_steps=2", "sample_every=1", "run_dir=run"]
    train(*args)
    film = tmp_path / "run" / "samples" / "training.gif"
    assert not film.exists()
    train(*args, "gif=true")
    with Image.open(film) as picture:
        assert picture.n_frames == 2


@pytest.mark.skipif("GAN_CLI_SLOW" not in os.environ, reason="a minute and a half; GAN_CLI_SLOW=1 runs it")
@pytest.mark.parametrize("seed", [0, 1])
def test_theory_1d_reaches_the_optimum(seed: int, gan: Any, read: Any, tmp_path: Path) -> None:
    args = ["experiment=theory_1d", f"seed={seed}", "threads=1", "sample_every=1500", "log_every=1500"]
    assert gan("gan-train", *args, "run_dir=run").code == 0
    last = read.rows(tmp_path / "run")[-1]
    assert last["metric/jsd"] < 0.05 and abs(last["metric/d_fake"] - 0.5) < 0.05


@pytest.mark.slow
@pytest.mark.parametrize("name", ["pix2pix_facades", "cyclegan_facades"])
def test_who_moves_first_makes_a_difference(name: str, data_root: Path, train: Any, read: Any, tmp_path: Path) -> None:
    for first in ("generator", "discriminator"):
        args = [*tiny(name, data_root), f"loss.first={first}", "total_steps=2"]
        train(f"experiment={name}", *args, f"run_dir={first}", tiny="own")
    a, b = read.tensors(tmp_path / "generator"), read.tensors(tmp_path / "discriminator")
    assert len({frozenset(key for key in run if not key.startswith("log_sums.")) for run in (a, b)}) == 1
    assert any(a[key].tobytes() != b[key].tobytes() for key in a if key.startswith("generator."))


@pytest.mark.parametrize("name", quick(["pix2pix_facades", "cyclegan_horse2zebra"], "pix2pix_facades"))
@pytest.mark.slow
def test_images_decoded_as_they_are_used(
    name: str, data_root: Path, train: Any, stop_at: Any, monkeypatch: pytest.MonkeyPatch, read: Any, tmp_path: Path
) -> None:
    folder = "facades" if "pix2pix" in name else "horse2zebra"
    kind = "paired" if "pix2pix" in name else "unpaired"
    args = [f"model={name.partition('_')[0]}", f"dataset={kind}", *tiny(name, data_root), f"dataset.root={data_root}/{folder}"]
    args += ["total_steps=12", "log_every=5", "sample_every=6", "save_every=4"]
    runs = run_twice(tmp_path, stop_at, monkeypatch.undo, *args, "dataset.memory_gb=0", "workers=2", stop=7)
    read.assert_same(runs.whole, runs.hops)
    train(*args, "dataset.memory_gb=4", "run_dir=memory", tiny="own")
    read.assert_same(runs.whole, tmp_path / "memory")
