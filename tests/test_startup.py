"""What the shell sees: help, completion and errors of real processes, without waiting for torch."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from gan_cli.app.help import description
from gan_cli.config.training import TrainConfig
from gan_cli.evaluation.config import EvalConfig
from gan_cli.sampling.config import SampleConfig

ROOT = Path(__file__).parents[1]
# Runs a command and fails if it has loaded torch.
WITHOUT_TORCH = """
import sys
sys.argv = {argv!r}
from gan_cli import {module}
try:
    {module}.main()
finally:
    assert 'torch' not in sys.modules, 'torch was imported'
    assert 'numpy' not in sys.modules, 'numpy was imported'
"""


def python(cwd: Path, *args: str, **environ: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, **environ}
    return subprocess.run([sys.executable, *args], cwd=cwd, env=env, capture_output=True, text=True, timeout=60)


def without_torch(cwd: Path, program: str, *args: str) -> subprocess.CompletedProcess[str]:
    code = WITHOUT_TORCH.format(argv=[program, *args], module=program.removeprefix("gan-"))
    return python(cwd, "-c", code)


@pytest.mark.parametrize(
    ("program", "words"),
    [
        ("gan-train", ["dataset=", "mnist", "wgan_gp", "experiment=", "total_steps=", "run_dir", "schedule="]),
        ("gan-sample", ["num_samples=64", "formats", "run_dir", "trust=false"]),
        ("gan-eval", ["run_dir"]),
        ("gan-compare", ["RUNS", "--sort", "--at", "--html"]),
    ],
)
def test_help_without_torch(program: str, words: list[str], tmp_path: Path) -> None:
    result = without_torch(tmp_path, program, "--help")
    assert result.returncode == 0, result.stderr
    assert [word for word in words if word not in result.stdout] == []
    assert "Powered by Hydra" not in result.stdout
    assert list(tmp_path.iterdir()) == []


def test_resolved_config_without_torch(tmp_path: Path) -> None:
    from omegaconf import OmegaConf

    result = without_torch(tmp_path, "gan-train", "model=dcgan", "loss=wgan_gp", "--cfg", "job", "--resolve")
    assert result.returncode == 0, result.stderr
    config = OmegaConf.create(result.stdout)
    assert "${" not in result.stdout
    assert (config.model.generator.image_size, config.model.discriminator.norm) == (32, "layer")


@pytest.mark.parametrize(
    "args", [["batch_size=0"], ["model=nothing"], ["optimizer.lrr=3"], ["loss=wgan_gp", "model.discriminator.norm=batch"]]
)
def test_config_error_without_torch(args: list[str], tmp_path: Path) -> None:
    result = without_torch(tmp_path, "gan-train", *args)
    assert result.returncode == 2
    (line,) = result.stderr.splitlines()
    assert line.startswith("gan-train: error: ")
    assert result.stdout == ""


def test_help_lists_the_users_options_too(gan: Any, tmp_path: Path) -> None:
    (tmp_path / "my" / "loss").mkdir(parents=True)
    (tmp_path / "my" / "loss" / "mine.yaml").write_text("defaults: [hinge]\n")
    result = gan("gan-train", "--config-dir", "my", "--help")
    assert result.code == 0 and "mine" in result.out


@pytest.mark.parametrize("flags", [["--config-dir", "my"], ["--config-dir=my"], ["-cd", "my"]])
@pytest.mark.parametrize("where", [0, 1, 2])
def test_flags_between_overrides(flags: list[str], where: int, gan: Any, tmp_path: Path) -> None:
    (tmp_path / "my" / "loss").mkdir(parents=True)
    (tmp_path / "my" / "loss" / "mine.yaml").write_text("defaults: [hinge]\n")
    args = ["loss=mine", "seed=3"]
    result = gan("gan-train", *args[:where], *flags, *args[where:], "--cfg", "job")
    assert result.code == 0, result.err
    assert "gan_cli.losses.Hinge" in result.out and "seed: 3" in result.out


@pytest.mark.parametrize(
    ("line", "options"),
    [
        ("model=", {"model=dcgan", "model=mlp", "model=wgan_mlp"}),
        ("loss=wgan", {"loss=wgan", "loss=wgan_gp"}),
        ("experiment=", {"experiment=wgan_mnist", "experiment=gan_fashion_mnist"}),
        ("optimizer.", {"optimizer.lr="}),
        ("total_", {"total_steps="}),
    ],
)
def test_tab_completion(line: str, options: set[str], gan: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    text = f"gan-train {line}"
    monkeypatch.setenv("COMP_LINE", text)
    monkeypatch.setenv("COMP_POINT", str(len(text)))
    result = gan("gan-train", "-sc", "query=bash")
    assert result.code == 0, result.err
    assert options <= set(result.out.split())


def test_tab_completion_is_installed_by_a_process(tmp_path: Path) -> None:
    result = without_torch(tmp_path, "gan-train", "-sc", "install=bash")
    assert result.returncode == 0, result.stderr
    assert "complete " in result.stdout and "COMP_LINE" in result.stdout


def test_nothing_but_the_errors_line_in_a_real_process(tmp_path: Path) -> None:
    """An error that needs torch: no warning of any library, no traceback, nothing made."""
    result = python(tmp_path, "-m", "gan_cli.train", "threads=1", "batch_size=100000")
    assert result.returncode == 2
    (line,) = result.stderr.splitlines()
    assert line.startswith("gan-train: error: batch_size=100000 ")
    assert list(tmp_path.iterdir()) == []


def test_traceback_on_demand(tmp_path: Path) -> None:
    result = python(tmp_path, "-m", "gan_cli.train", "batch_size=0", HYDRA_FULL_ERROR="1")
    assert result.returncode != 0 and "Traceback" in result.stderr and "ConfigError" in result.stderr


def test_a_pipe_that_closes_is_no_error(tmp_path: Path) -> None:
    command = f"{sys.executable} -m gan_cli.train --help | head -n 1"
    result = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert result.stdout.startswith("gan-train: ") and result.stderr == ""


def test_current_directory_comes_last_on_the_path(tmp_path: Path) -> None:
    """A file of the user's called like a library must not replace it."""
    (tmp_path / "hydra.py").write_text("raise SystemExit('shadowed')")
    script = "import sys; sys.path.remove(''); sys.argv = ['gan-train', '--help']; from gan_cli import train; train.main()"
    result = python(tmp_path, "-c", script)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(
    ("given", "spins"), [({}, "3000"), ({"OMP_WAIT_POLICY": "active"}, "None"), ({"GOMP_SPINCOUNT": "7"}, "7")]
)
def test_threads_wait_shortly_unless_the_user_says_otherwise(
    given: dict[str, str], spins: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """GNU OpenMP reads it when torch is imported, which is later."""
    quiet = WITHOUT_TORCH.format(argv=["gan-train", "--help"], module="train")
    code = f"import os\n{quiet}    print(os.environ.get('GOMP_SPINCOUNT'))"
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    result = python(tmp_path, "-c", code, **given)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1] == spins


@pytest.mark.parametrize(
    ("program", "keys"), [("gan-train", TrainConfig), ("gan-sample", SampleConfig), ("gan-eval", EvalConfig)]
)
def test_help_has_a_line_for_each_key_and_option(program: str, keys: type, gan: Any) -> None:
    shown = gan(program, "--help").out
    lines = [line.strip() for line in shown.splitlines()]
    for name in (field.name for field in fields(keys)):
        start = re.escape(name)
        assert any(re.match(rf"{start}(\.\w+)?=\S+ ?", line) for line in lines), name
    if program == "gan-train":
        for file in (ROOT / "conf").glob("[!h]*/*.yaml"):
            if file.parent.name != "protocol":
                assert any(line.split(" ")[0] == file.stem for line in lines), file
        assert max(map(len, lines)) <= 120


def test_help_of_a_group_has_its_options_and_keys(gan: Any) -> None:
    shown = gan("gan-train", "--help", "loss", "loss=wgan_gp").out
    assert "hinge" in shown
    assert "loss.penalty.weight=10" in shown
    assert "a number > 0" in shown
    refused = gan("gan-train", "--help", "lsos")
    assert refused.code == 2
    assert "loss" in refused.error.todo


@pytest.mark.parametrize(("program", "config"), [("gan-train", "train"), ("gan-eval", "eval")])
def test_help_of_every_group(program: str, config: str, gan: Any) -> None:
    text = (ROOT / "conf" / f"{config}.yaml").read_text()
    names = [file.name for file in (ROOT / "conf").iterdir() if f"  - {file.name}: " in text]
    assert len(names) > 2
    for name in names:
        shown = gan(program, "--help", name)
        assert shown.code == 0, shown.err
        assert all(file.stem in shown.out for file in (ROOT / "conf" / name).glob("*.yaml"))
    assert "loss.penalty.weight" in gan("gan-train", "--help", "loss=wgan_gp").out


def test_each_yaml_says_what_it_is() -> None:
    for file in (ROOT / "conf").glob("[!h]*/*.yaml"):
        assert len(description(file)) > 20, file
