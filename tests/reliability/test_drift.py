"""A run that continues with other settings or other data: noted, refused, or allowed by name; and what rotation spares."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from gan_cli.rundir import checkpoint
from gan_cli.system.errors import DiskError

from ..conftest import train_tiny  # type: ignore[import-not-found]

slow = pytest.mark.slow
FEW = ["save_every=2", "log_every=2", "sample_every=2", "run_dir=r"]


@pytest.fixture(scope="module")
def two_steps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 2 steps."""
    home: Path = tmp_path_factory.mktemp("two_steps")
    train_tiny(home, "total_steps=2", *FEW)
    return home / "r"


@pytest.fixture
def begun(two_steps: Path, train: Any, tmp_path: Path) -> Any:
    """Begins with a run of 2 steps, then continues with more settings to step 4."""

    def go_on(*args: str, code: int = 0, first: tuple[str, ...] = ()) -> Any:
        if not (tmp_path / "r").exists() and first:
            train("total_steps=2", *FEW, *first)
        elif not (tmp_path / "r").exists():
            shutil.copytree(two_steps, tmp_path / "r")
        return train("total_steps=4", *FEW, *first, *args, code=code)

    return go_on


def test_what_does_no_harm_is_noted(begun: Any) -> None:
    result = begun("keep_checkpoints=7")
    assert "keep_checkpoints: 3 -> 7; total_steps: 2 -> 4\n" in result.err
    assert " on keep_checkpoints" not in result.err


@pytest.mark.parametrize("allowed", ["ema.half_life", pytest.param("ema", marks=slow)])
def test_what_is_allowed_by_name_is_recorded(allowed: str, begun: Any, read: Any, tmp_path: Path) -> None:
    refused = begun("ema.half_life=5", code=2)
    assert "ema.half_life: 10000.0 -> 5.0 (r)" in refused.errors[0]
    assert refused.errors[0].endswith("allow_change=ema.half_life.")
    result = begun("ema.half_life=5", f"allow_change=[{allowed}]")
    assert "from step 2 on ema.half_life: 10000.0 -> 5.0\n" in result.err
    assert read.info(tmp_path / "r")["changes"] == ["from step 2 on ema.half_life: 10000.0 -> 5.0"]
    assert begun(code=2).errors[0].count("ema.half_life: 5.0 -> 10000.0") == 1  # the first command would be another change
    assert "on ema.half_life" not in begun("ema.half_life=5").err  # finished, and the setting is the run's now


@slow
def test_another_name_allows_nothing(begun: Any, read: Any, tmp_path: Path) -> None:
    assert "batch_size: 8 -> 4" in begun("batch_size=4", "allow_change=[optimizer,data]", code=2).errors[0]
    assert read.steps(tmp_path / "r") == [2]


def test_another_optimizer_begins_anew(begun: Any) -> None:
    result = begun("optimizer=rmsprop", "allow_change=[optimizer]")
    for side in ("generator", "discriminator"):
        assert [line for line in result.err.splitlines() if side in line and "optimizer" in line]


def test_networks_of_another_shape_do_not_fit(begun: Any, read: Any, tmp_path: Path) -> None:
    result = begun("model.generator.width=8", "allow_change=[model]", code=76)
    assert len(result.errors) == 1 and "Traceback" not in result.err
    assert read.steps(tmp_path / "r") == [2]


def test_other_data_is_refused_or_allowed_and_recorded(begun: Any, read: Any, data_root: Path, tmp_path: Path) -> None:
    shutil.copytree(data_root / "photos", tmp_path / "photos")
    photos = ("dataset=image_folder", "dataset.root=photos", "dataset.image_size=16")
    begun(first=photos)
    shutil.rmtree(tmp_path / "r" / "checkpoints" / "step-00000004")
    shutil.copy(tmp_path / "photos" / "class0" / "0.png", tmp_path / "photos" / "class0" / "another.png")
    refused = begun(first=photos, code=65)
    assert refused.errors[0].endswith("allow_change=data.")
    begun("allow_change=[data]", first=photos)
    (change,) = read.info(tmp_path / "r")["changes"]
    assert change.startswith("from step 2 on data: ")


def test_milestones_stay(train: Any, read: Any, tmp_path: Path) -> None:
    args = ["keep_checkpoints=1", "save_every=4", "log_every=4", "sample_every=4", "milestones=[3,4,7,50]", "run_dir=r"]
    train(*args, "total_steps=9")
    assert read.steps(tmp_path / "r") == [3, 4, 7, 9]
    train(*args, "total_steps=13")
    assert read.steps(tmp_path / "r") == [3, 4, 7, 13]


@slow
def test_milestones_do_not_count_among_the_newest(train: Any, read: Any, tmp_path: Path) -> None:
    train("keep_checkpoints=2", "save_every=4", "milestones=[7]", "total_steps=12", "run_dir=r")
    assert read.steps(tmp_path / "r") == [7, 8, 12]


def save(run_dir: Path, *steps: int) -> None:
    for step in steps:
        checkpoint.save(run_dir, step, {"generator": {"w": torch.full((4,), float(step))}}, {"images": step})


def damage(run_dir: Path, step: int) -> None:
    path = run_dir / "checkpoints" / checkpoint.name(step) / "generator.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"x")


def test_rotation_counts_what_verifies(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    save(tmp_path, 1, 2, 3, 4, 5)
    damage(tmp_path, 4)
    checkpoint.rotate(tmp_path, 5, 3)
    assert checkpoint.steps(tmp_path) == [2, 3, 5]
    assert len(list(tmp_path.glob("damaged-step-00000004-*"))) == 1
    assert list(tmp_path.glob(".*")) == []


def test_nothing_is_deleted_for_one_that_cannot_be_read_back(tmp_path: Path) -> None:
    save(tmp_path, 1, 2, 3)
    damage(tmp_path, 3)
    with pytest.raises(DiskError, match="step 3"):
        checkpoint.rotate(tmp_path, 3, 1)
    assert checkpoint.steps(tmp_path) == [1, 2, 3]


def test_a_killed_run_that_had_all_its_steps_is_complete(trained: Path, train: Any, tmp_path: Path) -> None:
    shutil.copytree(trained, tmp_path / "r")
    path = tmp_path / "r" / "status.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "state": "running", "exit_code": None}))
    train("total_steps=4", *FEW)
    assert (json.loads(path.read_text())["state"], json.loads(path.read_text())["exit_code"]) == ("complete", 0)


def test_another_torch_is_said(trained: Path, train: Any, tmp_path: Path) -> None:
    import hashlib

    shutil.copytree(trained, tmp_path / "r")
    folder = tmp_path / "r" / "checkpoints" / "step-00000004"
    info = json.loads((folder / "state.json").read_text())
    info["machine"]["torch"] = "1.13"
    (folder / "state.json").write_text(json.dumps(info))
    manifest = json.loads((folder / "manifest.json").read_text())
    content = (folder / "state.json").read_bytes()
    manifest["files"]["state.json"] = [len(content), hashlib.sha256(content).hexdigest()]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    result = train("total_steps=6", *FEW)
    change = f"torch: 1.13 -> {torch.__version__}\n"
    assert change in result.err


def test_a_name_that_is_no_key(begun: Any) -> None:
    (line,) = begun("allow_change=[optimzer.lr]", code=2).errors
    assert "'optimzer.lr'" in line and "optimizer.lr?" in line


@slow
def test_a_learning_rate_is_that_of_both_players(begun: Any, read: Any, tmp_path: Path) -> None:
    refused = begun("optimizer.lr=1e-5", code=2)
    assert refused.errors[0].endswith("allow_change=optimizer.lr.")
    begun("optimizer.lr=1e-5", "allow_change=[optimizer.lr]")
    assert len(read.info(tmp_path / "r")["changes"]) == 2


def test_status_of_a_run_whose_checkpoints_are_all_damaged(begun: Any, tmp_path: Path) -> None:
    begun()
    for step in checkpoint.steps(tmp_path / "r"):
        damage(tmp_path / "r", step)
    begun(code=76)
    found = json.loads((tmp_path / "r" / "status.json").read_text())
    assert (found["state"], found["exit_code"], found["step"]) == ("failed", 76, 4)


@pytest.mark.parametrize(
    "name",
    [".metrics.jsonl.tmp", *(pytest.param(name, marks=slow) for name in (".status.json.tmp", ".writing-0", ".best.json.tmp"))],
)
def test_a_planted_temporary_is_not_followed(name: str, begun: Any, tmp_path: Path) -> None:
    begun(first=())
    (tmp_path / "victim").write_text("mine")
    (tmp_path / "r" / name).symlink_to(tmp_path / "victim")
    begun("total_steps=6")
    assert (tmp_path / "victim").read_text() == "mine"
    assert not (tmp_path / "r" / "metrics.jsonl").is_symlink()
