"""A wheel built from the files under version control works in any directory."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

import gan_cli

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("setuptools")
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file() and not name.startswith("tests/"):
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, source / name)
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        ".",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
        "-q",
        "-w",
        str(target),
    ]
    built = subprocess.run(command, cwd=source, capture_output=True, text=True, timeout=120)
    assert built.returncode == 0, built.stderr
    (path,) = target.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(target)
    return target


def run(target: Path, cwd: Path, *args: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": str(target)}
    return subprocess.run([sys.executable, *args], cwd=cwd, env=env, capture_output=True, text=True, timeout=120)


def test_the_version_is_said_once() -> None:
    assert gan_cli.__version__ == importlib.metadata.version("gan_cli")
    assert PROJECT.get("version", gan_cli.__version__) == gan_cli.__version__


def test_wheel_has_everything(installed: Path) -> None:
    files = {path.relative_to(installed).as_posix() for path in installed.rglob("*") if path.is_file()}
    configs = {f"gan_cli/{path.relative_to(ROOT).as_posix()}" for path in (ROOT / "conf").rglob("*.yaml")}
    modules = {
        path.relative_to(ROOT).as_posix() for kind in ("py", "css", "js") for path in (ROOT / "gan_cli").rglob(f"*.{kind}")
    }
    assert len(configs) > 25 and len(modules) > 25
    assert (configs | modules) - files == set()
    assert {"gan_cli/data/digits.npz", "gan_cli/py.typed"} <= files
    licenses = {Path(name).name for name in files if "dist-info/licenses" in name}
    assert {"LICENSE", "digits.LICENSE.txt"} <= licenses
    assert not [name for name in files if name.startswith(("tests", "conf/", "scripts", "docs"))]


def test_console_scripts(installed: Path) -> None:
    (entry_points,) = installed.glob("*.dist-info/entry_points.txt")
    text = entry_points.read_text()
    assert all(f"gan-{name} = gan_cli.{name}:main" in text for name in ("train", "sample", "eval", "compare"))


def test_extras_are_not_needed() -> None:
    assert all(";" not in dependency for dependency in PROJECT["dependencies"])
    assert all(">=" in dependency for dependency in PROJECT["dependencies"])


@pytest.mark.slow
def test_runs_from_another_directory(installed: Path, tmp_path: Path) -> None:
    where = run(installed, tmp_path, "-c", "import gan_cli, gan_cli.conf; print(gan_cli.__file__, *gan_cli.conf.__path__)")
    assert [Path(p).is_relative_to(installed) for p in where.stdout.split()] == [True, True], where.stdout + where.stderr
    config = run(installed, tmp_path, "-m", "gan_cli.train", "experiment=wgan_mnist", "--cfg", "job")
    assert config.returncode == 0 and "gan_cli.objective.WeightClip" in config.stdout, config.stderr
    assert list(tmp_path.iterdir()) == []
    tiny = ["threads=1", "batch_size=8", "model.generator.width=4", "model.discriminator.width=4"]
    trained = run(installed, tmp_path, "-m", "gan_cli.train", *tiny, "total_steps=2", "run_dir=r")
    assert trained.returncode == 0, trained.stderr
    assert (tmp_path / "r" / "checkpoints" / "step-00000002").is_dir()
