"""Every YAML file composes, passes the check, starts with its command, and trains."""

from __future__ import annotations

import math
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_module

import gan_cli.config
from gan_cli.config import groups
from gan_cli.config.plain import differences
from gan_cli.config.training import TrainConfig
from gan_cli.rundir.trust import TRAINED, check_trusted

from .conftest import TINY, every, quick  # type: ignore[import-not-found]
from .tiny import config_of, play  # type: ignore[import-not-found]

CONF = Path(__file__).parents[1] / "conf"
GROUPS = [*groups.GROUPS, "experiment", "launcher", "protocol", "sweep"]
SWEEPERS = "hydra"  # folder of Hydra's own groups
EVALUATION = {"features", "protocol"}  # groups of gan-eval only
ALL_OPTIONS = sorted((path.parent.name, path.stem) for path in CONF.glob("*/*.yaml"))
OPTIONS = [(group, name) for group, name in ALL_OPTIONS if group not in EVALUATION]
EXPERIMENTS = [name for group, name in OPTIONS if group == "experiment"]
NEEDED = {
    "image_folder": ["dataset.root=photos"],
    "npz": ["dataset.path=images.npz"],
    "paired": ["model=pix2pix", "dataset.root=pairs"],
    "unpaired": ["model=cyclegan", "dataset.root=domains"],
    "mixture_1d": ["model=points"],
    "ring": ["model=points"],
    "gaussian_grid": ["model=points"],
}


def composed(*overrides: str, config_dir: Path | None = None) -> TrainConfig:
    with initialize_config_module("gan_cli.conf", version_base="1.3"):
        extra = [f"hydra.searchpath=[file://{config_dir}]"] if config_dir else []
        return gan_cli.config.training.check(compose("train", overrides=[*extra, *overrides], return_hydra_config=False))


@cache
def composed_preset(name: str) -> TrainConfig:
    return composed(f"experiment={name}")


def nested(config: TrainConfig, key: str) -> Any:
    value: Any = config.as_dict()
    for part in key.split("."):
        value = value[part]
    return value


def test_every_group_has_options() -> None:
    assert sorted(p.name for p in CONF.iterdir() if p.is_dir() and not p.name.startswith("_")) == sorted([*GROUPS, SWEEPERS])
    assert {group for group, _ in ALL_OPTIONS} == set(GROUPS)
    assert len(OPTIONS) >= 29


@pytest.mark.parametrize(("group", "name"), every(6, OPTIONS))
def test_composes_and_passes_the_check(group: str, name: str) -> None:
    """All classes of an option are trusted, so that from_run= can use it."""
    config = composed(f"{group}={name}", *NEEDED.get(name, [])).as_dict()
    for part in TRAINED:
        check_trusted(config, part)


@pytest.mark.parametrize(("group", "name"), ALL_OPTIONS)
def test_opens_with_its_command(group: str, name: str) -> None:
    comments = []
    for line in (CONF / group / f"{name}.yaml").read_text().splitlines():
        if not line.startswith("#"):
            break
        if "@package" not in line:
            comments.append(line.removeprefix("#").strip())
    assert len(comments) >= 2, "the command, and what it is"
    if group == "experiment":
        assert comments[0] == f"gan-train experiment={name}"
    else:
        words = comments[0].split()
        program = "gan-eval" if group in EVALUATION else "gan-train"
        assert words[0] == program and f"{group}={name}" in words[1:]


@pytest.mark.parametrize("name", [name for group, name in OPTIONS if group == "dataset"])
def test_trains(name: str, tmp_path: Path, data_root: Path) -> None:
    """Every data set trains, without a run directory. The presets train in test_presets.py."""
    lines = (CONF / "dataset" / f"{name}.yaml").read_text().splitlines()
    command = next(line for line in lines if line.startswith("# gan-train"))
    model = re.search(r"model=(\w+)", command)  # the model of its command, if the default does not fit
    own_data = {
        "image_folder": [f"dataset.root={data_root}/photos"],
        "npz": [f"dataset.path={data_root}/images.npz"],
        "paired": [f"dataset.root={data_root}/facades"],
        "unpaired": [f"dataset.root={data_root}/horse2zebra"],
    }
    tiny = model[1] if model else "dcgan"
    data = own_data.get(name, [f"dataset.root={data_root}"] if "root" in "\n".join(lines) else [])
    jittered = any(line.startswith("load_size: 286") for line in lines)
    small = ["dataset.image_size=32", "dataset.load_size=36"] if jittered else []
    game, rows = play(config_of(f"model={tiny}", f"dataset={name}", *TINY[tiny], *data, *small), 3)
    assert len(rows) == 3 and all(math.isfinite(row["d/loss"]) for row in rows)
    examples = game.task.examples(game.dataset, 0, torch.device("cpu"))
    assert game.task.picture(game.task.generator, examples).dtype == torch.uint8


@pytest.mark.parametrize(("group", "name"), [o for o in OPTIONS if o[0] not in ("dataset", "experiment")])
def test_trains_without_files(group: str, name: str) -> None:
    tiny = {"wgan_mlp": "mlp"}.get(name, name) if group == "model" else "dcgan"
    short = ["loss.warm_up.n_critic=3"] if name == "wgan_warm_up" else []
    _, rows = play(config_of(f"{group}={name}", *TINY[tiny if tiny in TINY else "dcgan"], *short))
    assert len(rows) == 1 and all(math.isfinite(row["d/loss"]) for row in rows)


@pytest.mark.parametrize("dataset", ["mnist", "cifar10"])
def test_a_root_with_the_files_is_not_written_to(dataset: str, train: Any, data_root: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in data_root.rglob("*")}
    train(f"dataset={dataset}", f"dataset.root={data_root}", "total_steps=1", "dataset.image_size=16")
    assert {path: path.stat().st_mtime_ns for path in data_root.rglob("*")} == before


PRESETS = {
    "gan_fashion_mnist": {
        "dataset._target_": "gan_cli.data.idx.fashion_mnist",
        "dataset.image_size": 28,
        "batch_size": 100,
        "total_steps": 300_000,
        "optimizer._target_": "gan_cli.optimizers.adam",
        "optimizer.lr": 2e-4,
        "optimizer.betas": [0.9, 0.999],
        "optimizer.discriminator.lr": 2e-4,
        "optimizer.discriminator.betas": [0.9, 0.999],
        "model.task.same_noise": True,
        "model.task.latent_dim": 64,
        "model.generator.hidden": [256, 256],
        "model.discriminator.hidden": [256, 256],
        "loss.adversarial._target_": "gan_cli.losses.NonSaturating",
    },
    "wgan_mnist": {
        "dataset._target_": "gan_cli.data.idx.mnist",
        "dataset.image_size": 28,
        "batch_size": 64,
        "optimizer._target_": "gan_cli.optimizers.rmsprop",
        "optimizer.lr": 5e-5,
        "optimizer.discriminator.lr": 5e-5,
        "loss.adversarial._target_": "gan_cli.losses.Wasserstein",
        "loss.constraint": {"_target_": "gan_cli.objective.WeightClip", "limit": 0.01},
        "loss.n_critic": 5,
        "model.task.latent_dim": 100,
        "model.generator.hidden": [256, 512, 1024],
        "model.discriminator.hidden": [512, 256],
    },
    "wgan_gp_mnist": {
        "dataset.image_size": 32,
        "batch_size": 64,
        "optimizer.lr": 2e-4,
        "optimizer.betas": [0.0, 0.9],
        "loss.penalty": {"_target_": "gan_cli.penalties.GradientPenalty", "weight": 10.0},
        "loss.n_critic": 5,
        "model.discriminator.norm": "layer",
    },
    "dcgan_fashion_mnist": {"dataset.image_size": 32, "optimizer.lr": 2e-4, "optimizer.betas": [0.5, 0.999]},
    "dcgan_digits": {"dataset._target_": "gan_cli.data.digits.digits", "dataset.image_size": 32, "total_steps": 2000},
}  # fmt: skip


@pytest.mark.parametrize(("preset", "key"), [(p, k) for p, values in PRESETS.items() for k in values])
def test_preset_has_the_value_of_its_source(preset: str, key: str) -> None:
    assert nested(composed_preset(preset), key) == PRESETS[preset][key]


def test_dcgan_digits_is_the_default() -> None:
    assert differences(composed("experiment=dcgan_digits").as_dict(), composed().as_dict()).keys() == {
        *("deviations", "total_steps", "model.generator.width", "model.discriminator.width")
    }


@pytest.mark.parametrize(
    ("overrides", "key", "value"),
    every(3, [
        ([], "batch_size", 64),
        (["model=mlp"], "batch_size", 100),
        (["model=mlp"], "optimizer.betas", [0.9, 0.999]),
        (["model=mlp", "batch_size=7"], "batch_size", 7),
        (["model=mlp", "optimizer.betas=[0.1,0.2]"], "optimizer.discriminator.betas", [0.1, 0.2]),
        (["model=wgan_mlp"], "loss.adversarial._target_", "gan_cli.losses.Wasserstein"),
        (["model=wgan_mlp"], "loss.n_critic", 5),
        (["model=wgan_mlp"], "optimizer._target_", "gan_cli.optimizers.rmsprop"),
        (["model=wgan_mlp", "loss=hinge"], "loss.adversarial._target_", "gan_cli.losses.Hinge"),
        (["model=wgan_mlp", "loss=hinge"], "loss.constraint", None),
        (["model=wgan_mlp", "optimizer=adam"], "optimizer._target_", "gan_cli.optimizers.adam"),
        (["experiment=wgan_gp_mnist", "optimizer.lr=3e-4"], "optimizer.lr", 3e-4),
        (["experiment=wgan_mnist", "model=dcgan", "dataset.image_size=32"], "model.generator.width", 64),
        (["experiment=gan_fashion_mnist", "dataset=digits"], "dataset._target_", "gan_cli.data.digits.digits"),
        (["experiment=gan_fashion_mnist", "dataset=digits"], "total_steps", 300_000),
        (["loss=wgan_gp"], "model.discriminator.norm", "layer"),
        (["dataset.image_size=64", "dataset=cifar10"], "model.generator.image_size", 64),
        (["optimizer.lr=1e-3"], "optimizer.discriminator.lr", 1e-3),
        (["optimizer=ttur"], "optimizer.discriminator.lr", 4e-4),
        (["total_steps=5", "schedule=linear"], "schedule.total_steps", 5),
    ]),
)  # fmt: skip
def test_later_beats_earlier(overrides: list[str], key: str, value: object) -> None:
    assert nested(composed(*overrides), key) == value


@pytest.mark.parametrize(
    ("overrides", "batch_size", "loss"),
    [
        (["experiment=mine"], 33, "LeastSquares"),
        (["experiment=mine", "batch_size=9", "loss=hinge"], 9, "Hinge"),
        (["experiment=mine", "model=mlp"], 33, "LeastSquares"),
    ],
)
def test_an_experiment_of_the_users_beats_the_model(overrides: list[str], batch_size: int, loss: str, tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text(
        "# @package _global_\ndefaults:\n  - override /model: wgan_mlp\n  - override /loss: lsgan\nbatch_size: 33\n"
    )
    config = composed(*overrides, config_dir=tmp_path)
    assert (config.batch_size, config.loss["adversarial"]["_target_"]) == (batch_size, f"gan_cli.losses.{loss}")


@pytest.mark.parametrize(
    "first",
    quick(["model=mlp", "model=wgan_mlp", "experiment=gan_fashion_mnist", "experiment=wgan_gp_mnist"], "model=wgan_mlp"),
)
@pytest.mark.parametrize("optimizer", ["sgd", "ttur"])
def test_optimizer_on_the_command_line_comes_with_its_own_settings(first: str, optimizer: str) -> None:
    assert composed(first, f"optimizer={optimizer}").optimizer == composed(f"optimizer={optimizer}").optimizer
