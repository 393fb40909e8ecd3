"""Checkpoints are atomic, verified, and without pickle."""

from __future__ import annotations

import builtins
import errno
import hashlib
import json
import os
import pickle
import random
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gan_cli.rundir import checkpoint
from gan_cli.system.errors import CheckpointError, DiskError, NotFoundError

INFO = {"images": 640, "rate": 2e-4, "nothing": None, "names": ["ä", "b"], "nested": {"deep": [1, 2.5, True]}}


def small(step: int = 1) -> checkpoint.TensorGroups:
    return {"generator": {"w": torch.arange(6.0).reshape(2, 3) + step}, "optimizer_generator": {"w.step": torch.tensor(step)}}


def save(run_dir: Path, *steps: int) -> None:
    for step in steps:
        checkpoint.save(run_dir, step, small(step), {"images": 64 * step})


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def assert_intact(run_dir: Path, step: int) -> None:
    saved = checkpoint.load(run_dir, step)
    assert saved.step == step and saved.info["images"] == 64 * step
    torch.testing.assert_close(saved.tensors, small(step), rtol=0, atol=0)


def is_refused(run_dir: Path, step: int) -> bool:
    try:
        checkpoint.load(run_dir, step)
    except CheckpointError:
        return True
    return False


def damage(run_dir: Path, step: int) -> None:
    file = run_dir / "checkpoints" / checkpoint.name(step) / "generator.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)


def test_round_trip_of_tensors_and_info(tmp_path: Path) -> None:
    torch.manual_seed(0)
    shared = torch.randn(4)
    network = nn.Conv2d(3, 5, 3).to(memory_format=torch.channels_last)
    group: dict[str, Tensor] = {
        "float32": torch.randn(3, 2),
        "float64": torch.randn(3, dtype=torch.float64),
        "float16": torch.randn(3).half(),
        "bfloat16": torch.randn(3).bfloat16(),
        "int64": torch.tensor([2**62, -1]),
        "uint8": torch.tensor([0, 255], dtype=torch.uint8),
        "bool": torch.tensor([True, False]),
        "scalar": torch.tensor(7),
        "empty": torch.empty(0, 3),
        "channels_last": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
        "transposed": torch.randn(3, 4).t(),
        "slice": torch.randn(6)[::2],
        "expanded": torch.randn(1, 3).expand(4, 3),
        "shared": shared,
        "shared_too": shared,
        "view": shared[1:3],
        "parameter": network.weight,
        "special": torch.tensor([float("inf"), float("-inf"), 0.0, -0.0]),
    }
    checkpoint.save(tmp_path, 12, {"a": group, "b": {"x": torch.ones(1)}}, INFO)
    saved = checkpoint.load(tmp_path, 12)
    assert saved.step == 12 and set(saved.tensors) == {"a", "b"}
    assert INFO.items() <= saved.info.items()
    assert set(saved.tensors["a"]) == set(group)
    for key, tensor in group.items():
        got = saved.tensors["a"][key]
        assert got.dtype == tensor.dtype and got.shape == tensor.shape and got.device.type == "cpu", key
        assert torch.equal(got, tensor.detach()), key


def test_what_is_saved_is_a_copy(tmp_path: Path) -> None:
    tensors = small()
    checkpoint.save(tmp_path, 1, tensors, {"images": 64})
    tensors["generator"]["w"].zero_()
    assert_intact(tmp_path, 1)


def test_only_checkpoints_lie_in_their_folder(tmp_path: Path) -> None:
    save(tmp_path, 1, 120)
    assert names(tmp_path) == ["checkpoints"]
    assert names(tmp_path / "checkpoints") == ["step-00000001", "step-00000120"]
    assert names(tmp_path / "checkpoints" / "step-00000120") == [
        "generator.safetensors",
        "manifest.json",
        "optimizer_generator.safetensors",
        "state.json",
    ]
    assert checkpoint.steps(tmp_path) == [1, 120]


def test_a_flipped_bit_or_a_cut_end_is_always_found(tmp_path: Path) -> None:
    save(tmp_path, 1)
    files = sorted((tmp_path / "checkpoints" / "step-00000001").iterdir())
    rng = random.Random(0)
    missed = []
    for kind in ["flip", "cut"] * 60:
        file = rng.choice(files)
        whole = file.read_bytes()
        place = rng.randrange(len(whole))
        data = bytearray(whole[:place] if kind == "cut" else whole)
        if kind == "flip":
            data[place] ^= 1 << rng.randrange(8)
        file.write_bytes(data)
        if not is_refused(tmp_path, 1):
            missed.append((kind, file.name, place))
        file.write_bytes(whole)
    assert missed == []
    assert_intact(tmp_path, 1)


def test_every_byte_of_the_manifest_counts(tmp_path: Path) -> None:
    """The manifest is the only file without a hash."""
    save(tmp_path, 1)
    file = tmp_path / "checkpoints" / "step-00000001" / "manifest.json"
    whole = file.read_bytes()
    rng = random.Random(0)
    missed = []
    for place in range(len(whole)):
        data = bytearray(whole)
        data[place] ^= 1 << rng.randrange(8)
        file.write_bytes(data)
        if not is_refused(tmp_path, 1):
            missed.append(bytes(data[max(place - 12, 0) : place + 12]))
    assert missed == []


def test_verify_reads_what_load_reads(tmp_path: Path) -> None:
    save(tmp_path, 1, 2)
    assert checkpoint.verify(tmp_path, 1) and not checkpoint.verify(tmp_path, 3)
    damage(tmp_path, 1)
    assert not checkpoint.verify(tmp_path, 1) and checkpoint.verify(tmp_path, 2)
    (manifest,) = (tmp_path / "checkpoints").glob("*2/manifest.json")
    manifest.write_text(re.sub(r"\[\s*(\d+)", r"[9\1", manifest.read_text(), count=1))
    assert not checkpoint.verify(tmp_path, 2) and is_refused(tmp_path, 2)


def test_what_is_wanted_is_read_and_no_more(tmp_path: Path) -> None:
    save(tmp_path, 1)
    saved = checkpoint.find(tmp_path, "last", lambda info: {"generator": 100 * info["images"]})
    assert set(saved.tensors) == {"generator"}
    with pytest.raises(CheckpointError, match=r"generator\.safetensors has \d+ bytes, more than the limit of 8"):
        checkpoint.load(tmp_path, 1, lambda info: {"generator": 8})
    with pytest.raises(CheckpointError, match=r"other\.safetensors"):
        checkpoint.load(tmp_path, 1, lambda info: {"other": None})


@pytest.mark.parametrize("file", ["generator.safetensors", "manifest.json", "state.json"])
def test_a_missing_file_is_named(tmp_path: Path, file: str) -> None:
    save(tmp_path, 1)
    (tmp_path / "checkpoints" / "step-00000001" / file).unlink()
    with pytest.raises(CheckpointError, match=file) as caught:
        checkpoint.load(tmp_path, 1)
    assert caught.value.exit_code == 76 and "step-00000001" in caught.value.where


def rewrite_manifest(run_dir: Path, change: dict[str, Any], **top: Any) -> None:
    file = run_dir / "checkpoints" / "step-00000001" / "manifest.json"
    manifest = json.loads(file.read_text())
    manifest["files"].update(change)
    file.write_text(json.dumps({**manifest, **top}))


@pytest.mark.parametrize("kind", ["relative", "absolute", "nested", "parent"])
def test_a_manifest_that_leads_outside_is_refused(tmp_path: Path, kind: str) -> None:
    save(tmp_path, 1)
    secret = tmp_path / "checkpoints" / "x.json"
    secret.write_text('{"format": 1}')
    path = {"relative": "../x.json", "absolute": str(secret), "nested": "./../x.json", "parent": ".."}[kind]
    digest = hashlib.sha256(secret.read_bytes()).hexdigest()
    rewrite_manifest(tmp_path, {path: [len(secret.read_bytes()), digest]})
    with pytest.raises(CheckpointError):
        checkpoint.load(tmp_path, 1)


def test_another_format_is_refused(tmp_path: Path) -> None:
    save(tmp_path, 1)
    file = tmp_path / "checkpoints" / "step-00000001" / "manifest.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "format": 99}))
    with pytest.raises(CheckpointError, match="format"):
        checkpoint.load(tmp_path, 1)


def test_the_newest_that_verifies_is_loaded(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert checkpoint.load_newest(tmp_path) is None
    save(tmp_path, 1, 2, 3)
    loaded = checkpoint.load_newest(tmp_path)
    assert loaded is not None and loaded.step == 3
    damage(tmp_path, 3)
    loaded = checkpoint.load_newest(tmp_path)
    assert loaded is not None and loaded.step == 2
    damage(tmp_path, 2)
    damage(tmp_path, 1)
    with pytest.raises(CheckpointError, match="all checkpoints are damaged"):
        checkpoint.load_newest(tmp_path)
    assert names(tmp_path / "checkpoints") == ["step-00000001", "step-00000002", "step-00000003"], "nothing is deleted"


@pytest.mark.parametrize(
    ("saved", "keep", "superseded", "left"),
    [
        ([10, 20, 30, 40], 2, [], [30, 40]),
        ([10, 20], 3, [], [10, 20]),
        ([10, 20, 25], 3, [], [10, 20, 25]),
        ([10, 20, 25, 30], 3, [25], [10, 20, 30]),  # 25: saved because the run was stopped
        ([7, 10, 13, 20], 1, [], [20]),
        ([5], 1, [], [5]),
    ],
)
def test_rotation(tmp_path: Path, saved: list[int], keep: int, superseded: list[int], left: list[int]) -> None:
    save(tmp_path, *saved)
    checkpoint.rotate(tmp_path, saved[-1], keep, superseded)
    assert checkpoint.steps(tmp_path) == left
    assert names(tmp_path) == ["checkpoints"]


def test_rotation_spares_the_best(tmp_path: Path) -> None:
    save(tmp_path, 7, 10, 20, 30)
    checkpoint.rotate(tmp_path, 30, 2, [7], spared=[7])
    assert checkpoint.steps(tmp_path) == [7, 20, 30]
    save(tmp_path, 40)
    checkpoint.rotate(tmp_path, 40, 2, [7], spared=[30])
    assert checkpoint.steps(tmp_path) == [30, 40]


@pytest.mark.parametrize("keep", range(1, 8))
def test_rotation_after_every_save(tmp_path: Path, keep: int) -> None:
    for step in range(1, 11):
        save(tmp_path, step)
        checkpoint.rotate(tmp_path, step, keep)
        assert checkpoint.steps(tmp_path) == list(range(max(1, step - keep + 1), step + 1))


def test_what_a_kill_left_is_cleaned(tmp_path: Path) -> None:
    save(tmp_path, 1)
    for name in (".saving-2-99-abcd", ".deleting-1-abcd", "samples"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text("x")
    assert checkpoint.steps(tmp_path) == [1]
    checkpoint.clean(tmp_path)
    assert names(tmp_path) == ["checkpoints", "samples"]
    assert_intact(tmp_path, 1)


def test_the_same_step_again_is_not_written(tmp_path: Path) -> None:
    save(tmp_path, 1)
    with pytest.raises(DiskError, match="not empty"):
        checkpoint.save(tmp_path, 1, {"other": {"x": torch.zeros(1)}}, {"images": 0})
    assert names(tmp_path) == ["checkpoints"] and checkpoint.steps(tmp_path) == [1]
    assert_intact(tmp_path, 1)


def full_disk(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, at: int) -> None:
    """Make the call number ``at`` of a function fail with a full disk."""
    original, calls = getattr(owner, name), iter(range(10**6))

    def call(*args: Any, **kwargs: Any) -> Any:
        if next(calls) == at:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return original(*args, **kwargs)

    monkeypatch.setattr(owner, name, call)


@pytest.mark.parametrize(
    ("owner", "name", "at"),
    [(os, "fsync", at) for at in range(6)] + [(os, "rename", 0), (builtins, "open", 1), (Path, "mkdir", 1)],
    ids=lambda value: value if isinstance(value, str | int) else "",
)
def test_a_full_disk_harms_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, at: int) -> None:
    save(tmp_path, 1, 2)
    with monkeypatch.context() as patch:
        full_disk(patch, owner, name, at)
        with pytest.raises(DiskError, match="No space left") as caught:
            save(tmp_path, 3)
    assert caught.value.exit_code == 74
    assert names(tmp_path) == ["checkpoints"]
    assert [n for n in names(tmp_path / "checkpoints") if n != "step-00000003"] == ["step-00000001", "step-00000002"]
    for step in checkpoint.steps(tmp_path):
        assert_intact(tmp_path, step)
    if 3 not in checkpoint.steps(tmp_path):  # it exists if only the last fsync failed
        save(tmp_path, 3)
    assert_intact(tmp_path, 3)


def test_loading_never_unpickles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path, 1)

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("something was unpickled")

    for owner, name in ((pickle, "Unpickler"), (pickle, "load"), (pickle, "loads"), (torch, "load")):
        monkeypatch.setattr(owner, name, refuse)
    assert_intact(tmp_path, 1)
    assert checkpoint.load_newest(tmp_path) is not None


def test_a_pickle_in_place_of_a_file_is_refused(tmp_path: Path) -> None:
    save(tmp_path, 1)
    file = tmp_path / "checkpoints" / "step-00000001" / "generator.safetensors"
    torch.save({"w": torch.ones(1)}, file)
    data = file.read_bytes()
    rewrite_manifest(tmp_path, {"generator.safetensors": [len(data), hashlib.sha256(data).hexdigest()]})
    with pytest.raises(CheckpointError):
        checkpoint.load(tmp_path, 1)


def test_find(tmp_path: Path) -> None:
    save(tmp_path, 10, 20)
    assert checkpoint.find(tmp_path, "last").step == 20
    assert checkpoint.find(tmp_path, "10").step == 10
    assert checkpoint.find(tmp_path, "00000010").step == 10
    damage(tmp_path, 20)
    assert checkpoint.find(tmp_path, "last").step == 10
    with pytest.raises(CheckpointError, match="damaged"):
        checkpoint.find(tmp_path, "20")


@pytest.mark.parametrize("step", ["30", "0", "-10", "newest", "1.5", "", "²"])
def test_find_says_which_steps_there_are(tmp_path: Path, step: str) -> None:
    save(tmp_path, 10, 20)
    with pytest.raises(NotFoundError, match="There are: 10, 20") as caught:
        checkpoint.find(tmp_path, step)
    assert caught.value.exit_code == 66


def test_find_without_a_run_or_a_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no such run directory"):
        checkpoint.find(tmp_path / "nowhere", "last")
    for step in ("last", "best", "10"):
        with pytest.raises(NotFoundError, match="has no checkpoint"):
            checkpoint.find(tmp_path, step)
    save(tmp_path, 10)
    with pytest.raises(NotFoundError, match="no best checkpoint"):
        checkpoint.find(tmp_path, "best")
