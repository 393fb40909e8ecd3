"""Words of the command line: paths as they are typed, run directories, lists, suggestions, versions."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from gan_cli.app.own_configs import refuse_octal
from gan_cli.app.words import to_overrides
from gan_cli.config.build import build
from gan_cli.config.names import nearest
from gan_cli.system.errors import ConfigError
from gan_cli.system.text import word
from gan_cli.system.version import commit

TINY = ["model.generator.width=8", "model.discriminator.width=8", "total_steps=2", "batch_size=4", "threads=1"]
NAMES = [
    "a b", "데이터", "a'b", 'a"b', "a,b=c", "loss=hinge,seed=0", "2024_01_02", "1e5", "true", "[x]", "a\\b", "b\\", "(x)",
    "a:b", "#a", "~x", "a${b}", "\\${c}", "'q'", "null", "auto", "x\\\\", '"', "choice(a,b)",
]  # fmt: skip


def value_of(override: str) -> Any:
    """The value that a job gets from an override."""
    parsed = OverridesParser.create().parse_override(override)
    return OmegaConf.to_container(OmegaConf.create({"x": parsed.value()}), resolve=True)["x"]  # type: ignore[call-overload,index]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("key", ["run_dir", "dataset.root", "++dataset.path", "hydra.sweep.dir"])
def test_the_path_of_a_folder_is_taken_literally(name: str, key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).mkdir()
    (override,) = to_overrides([f"{key}={name}"], name="gan-eval", sweeping=False)
    assert value_of(override) == name


@pytest.mark.parametrize("name", [name for name in NAMES if "${" not in name and name not in ("'q'", "null", "auto")])
def test_the_path_of_a_new_folder_is_taken_literally(name: str) -> None:
    (override,) = to_overrides([f"run_dir={name}"], name="gan-train", sweeping=False)
    assert value_of(override) == name


@pytest.mark.parametrize("name", NAMES)
def test_a_printed_path_works_in_a_shell(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).mkdir()
    printed = shlex.join([sys.executable, "-c", "import sys; print(sys.argv[1], end='')", word("run_dir", name)])
    typed = subprocess.run(["bash", "-c", printed], capture_output=True, text=True, check=True).stdout
    (override,) = to_overrides([typed], name="gan-sample", sweeping=False)
    assert value_of(override) == name


def test_a_text_keeps_its_braces_when_an_object_is_built() -> None:
    assert str(build({"_target_": "pathlib.PurePath"}, "x")) == "."
    assert build({"_target_": "builtins.dict", "a": "x${b}"}, "x") == {"a": "x${b}"}


def test_commas_of_a_sweep_separate_paths_but_not_the_name_of_a_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("loss=hinge,seed=0", "b"):
        (tmp_path / name).mkdir()
    (override,) = to_overrides(["run_dir=loss=hinge,seed=0,b"], name="gan-eval", sweeping=True)
    parsed = OverridesParser.create().parse_override(override)
    assert [value_of(f"x={value}") for value in parsed.sweep_string_iterator()] == ["loss=hinge,seed=0", "b"]


def test_a_list_needs_no_brackets_outside_a_sweep() -> None:
    words = ["metrics=fid,kid", "formats=npz", "optimizer.betas=0.5,0.9", "seed=0,1", "label=[1,2]"]
    expected = ["metrics=[fid,kid]", "formats=npz", "optimizer.betas=[0.5,0.9]", "seed=0,1", "label=[1,2]"]
    assert to_overrides(words, name="gan-eval", sweeping=False) == expected
    assert to_overrides(words, name="gan-eval", sweeping=True) == words


@pytest.mark.parametrize("word", ["optimizer.lr", "=", "0.1", "nowhere/run"])
def test_a_word_that_is_neither_a_setting_nor_a_run(word: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(repr(word))):
        to_overrides([word], name="gan-train", sweeping=False)


@pytest.mark.parametrize("key", ["hydra.run.dir", "hydra.job.chdir", "hydra.sweep.subdir", "hydra.output_subdir"])
def test_keys_of_hydra_that_would_do_nothing_are_refused(key: str, gan: Callable[..., Any]) -> None:
    result = gan("gan-train", f"{key}=x")
    assert result.code == 2
    assert result.error.where == key


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("lr", "optimizer.lr"), ("lr_d", "optimizer.discriminator.lr"), ("z_dim", "model.task.latent_dim"),
        ("bs", "batch_size"), ("gpu", "device"), ("resume", "run_dir"), ("epoch", "epochs"), ("Batch-Size", "batch_size"),
        ("num_workers", "workers"), ("optimizer.learning_rate", ""), ("sweep.dir", ""), ("qqq", ""),
        ("lrr", "optimizer.lr"), ("optimizer.beta", "optimizer.betas"), ("model.generator.widht", "model.generator.width"),
    ],
)  # fmt: skip
def test_suggested_keys(typed: str, meant: str) -> None:
    keys = ["seed", "device", "epochs", "batch_size", "workers", "run_dir", "total_steps", "optimizer", "optimizer.eps",
            "optimizer.lr", "optimizer.betas", "optimizer.discriminator.lr", "model.task.latent_dim",
            "model.generator.width", "model.discriminator.width"]  # fmt: skip
    assert nearest(typed, keys).strip() == (f"Did you mean: {meant}?" if meant else "")


@pytest.mark.parametrize(("typed", "meant"), [("WGAN-GP", "wgan_gp"), ("FashionMNIST", "fashion_mnist"), ("hing", "hinge")])
def test_suggested_options(typed: str, meant: str) -> None:
    assert nearest(typed, ["hinge", "wgan", "wgan_gp", "mnist", "fashion_mnist"]) == f" Did you mean: {meant}?"


@pytest.mark.parametrize(
    ("arguments", "where", "followed"),
    [
        (["--batch_size", "4"], "command line", ["batch_size=4"]),
        (["seed=0,1"], "seed", ["-m", "seed=0,1"]),
        (["+optimizer.lr=0.1"], "+optimizer.lr", ["optimizer.lr=0.1"]),
        (["model.discriminator.norm=batch", "+experiment=dcgan_digits"], "+experiment", ["experiment=dcgan_digits"]),
        (["device=gpu"], "device", ["device=cpu"]),
    ],
)
def test_hints_that_are_followed_work(arguments: list[str], where: str, followed: list[str], gan: Callable[..., Any]) -> None:
    refused = gan("gan-train", *arguments)
    assert refused.code == 2
    assert refused.error.where == where
    assert gan("gan-train", *TINY, *followed).code == 0


def test_an_argument_that_the_yaml_lacks_is_set_with_a_plus(gan: Callable[..., Any]) -> None:
    refused = gan("gan-train", "loss=lsgan", "loss.adversarial.generator_weight=2")
    assert refused.code == 2
    assert "+loss.adversarial.generator_weight=" in refused.error.todo
    assert gan("gan-train", "loss=lsgan", "+loss.adversarial.generator_weight=2", *TINY).code == 0


def test_octal_numbers_and_byte_order_marks(tmp_path: Path, gan: Callable[..., Any]) -> None:
    folder = tmp_path / "c" / "experiment"
    folder.mkdir(parents=True)
    (folder / "octal.yaml").write_text("# @package _global_\nseed: 010\n")
    (folder / "bom.yaml").write_text("\ufeff# @package _global_\nseed: 1\n")
    (folder / "other.yml").write_text("# @package _global_\nseed: 1\n")
    with pytest.raises(ConfigError, match="line 2"):
        refuse_octal(str(tmp_path / "c"), ["experiment=octal"])
    assert gan("gan-train", "-cd", "c", "experiment=bom", *TINY).code == 0
    assert "other.yaml" in gan("gan-train", "-cd", "c", "experiment=other", *TINY).error.todo


def test_a_run_continues_with_its_own_config(tmp_path: Path, gan: Callable[..., Any]) -> None:
    assert gan("gan-train", "loss=hinge", "optimizer.lr=1e-3", *TINY, "run_dir=a b,c").code == 0
    assert gan("gan-train", "a b,c", "total_steps=3").code == 0
    config = OmegaConf.load(tmp_path / "a b,c" / "config.yaml")
    assert (config.total_steps, config.optimizer.lr) == (3, 1e-3)
    assert "Hinge" in config.loss.adversarial._target_
    assert gan("gan-train", "run_dir=a b,c").code == 0
    assert gan("gan-train", "a b,c", "total_steps=4", "optimizer.lr=2e-3").code == 2
    assert gan("gan-train", "a b,c", "total_steps=4", "optimizer.lr=2e-3", "allow_change=optimizer.lr").code == 0
    assert gan("gan-sample", "a b,c", "formats=npz").code == 0
    assert gan("gan-train", "-m", "a b,c").code == 2


@pytest.mark.parametrize("name", ["gan-train", "gan-sample", "gan-eval"])
def test_the_version_names_the_commit(name: str, gan: Callable[..., Any]) -> None:
    result = gan(name, "--version")
    assert result.code == 0
    if (Path(__file__).parents[1] / ".git").exists():
        head = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True, check=True
        )
        assert commit() == head.stdout[:12]
        assert str(commit()) in result.out


def test_several_runs_are_evaluated_one_after_the_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b/loss=hinge,seed=0"):
        (tmp_path / name / "checkpoints").mkdir(parents=True)
    (override, other) = to_overrides(["a", "b/loss=hinge,seed=0", "metrics=kid"], name="gan-eval", sweeping=True)
    parsed = OverridesParser.create().parse_override(override)
    assert [value_of(f"x={value}") for value in parsed.sweep_string_iterator()] == ["a", "b/loss=hinge,seed=0"]
    assert other == "metrics=kid"
    with pytest.raises(ConfigError):
        to_overrides(["a", "b/loss=hinge,seed=0"], name="gan-train", sweeping=False)
