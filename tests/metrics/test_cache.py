"""What is computed once: read again only if it is what was asked for and whole."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from gan_cli.metrics.cache import cache_dir, cached, digest

KEY = {"data": "abc", "n": 3}


class Compute:
    """Counts how often it is called; the result says which call it was."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        self.calls += 1
        values = torch.arange(6.0).view(2, 3).T  # not contiguous
        return {"x": values, "y": values[:1], "half": torch.ones(2).bfloat16(), "n": torch.tensor(3)}, {"a": (1, "é")}


def the_file(folder: Path) -> Path:
    (path,) = folder.glob("*.safetensors")
    return path


def test_computed_once_and_the_same_when_read(tmp_path: Path) -> None:
    compute = Compute()
    first, info = cached("thing", KEY, compute, tmp_path / "new")
    again, info_again = cached("thing", dict(reversed(KEY.items())), compute, tmp_path / "new")
    assert compute.calls == 1
    assert info == info_again == {"a": [1, "é"]}
    assert first.keys() == again.keys() == compute()[0].keys()
    for name, value in compute()[0].items():
        assert torch.equal(first[name], value) and torch.equal(again[name], value)
        assert first[name].dtype == again[name].dtype == value.dtype and first[name].is_contiguous()


def test_file_is_named_after_its_key_and_describes_itself(tmp_path: Path) -> None:
    cached("thing", KEY, Compute(), tmp_path)
    path = the_file(tmp_path)
    assert path.name.startswith("thing-") and len(path.stem) == len("thing-") + 16
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    assert json.loads(metadata["key"])["key"] == KEY and json.loads(metadata["info"]) == {"a": [1, "é"]}
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(("kind", "key"), [("other", KEY), ("thing", {**KEY, "n": 4}), ("thing", {"data": "abc"})])
def test_another_key_is_another_file(kind: str, key: dict[str, Any], tmp_path: Path) -> None:
    compute = Compute()
    cached("thing", KEY, compute, tmp_path)
    cached(kind, key, compute, tmp_path)
    assert compute.calls == 2 and len(list(tmp_path.glob("*.safetensors"))) == 2


def flip_last_byte(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


def another_result(path: Path) -> None:
    """Well formed, of the same key."""
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    save_file({"x": torch.zeros(3, 2)}, path, metadata=metadata)


def another_info(path: Path) -> None:
    with safe_open(path, framework="pt") as file:
        metadata, tensors = file.metadata(), {k: file.get_tensor(k).clone() for k in file.keys()}  # noqa: SIM118
    save_file(tensors, path, metadata={**metadata, "info": '{"a":[2,"é"]}'})


def foreign(path: Path) -> None:
    save_file({"x": torch.zeros(3, 2)}, path)


def another_key(path: Path) -> None:
    cached("thing", {"n": 7}, Compute(), path.parent / "aside")
    os.replace(the_file(path.parent / "aside"), path)


DAMAGE = [
    flip_last_byte,
    another_result,
    another_info,
    foreign,
    another_key,
    lambda path: path.write_bytes(b""),
    lambda path: path.write_bytes(path.read_bytes()[:-10]),
    lambda path: path.write_bytes(b"\x80\x04nothing of the kind" * 10),
]


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_wrong_file_is_never_used(damage: Callable[[Path], Any], tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    compute = Compute()
    expected = cached("thing", KEY, compute, tmp_path)
    path = the_file(tmp_path)
    damage(path)
    caplog.clear()
    result = cached("thing", KEY, compute, tmp_path)
    assert compute.calls == 2 and result[1] == expected[1] and digest(result[0]) == digest(expected[0])
    (record,) = caplog.records
    assert record.levelno == logging.WARNING and str(path) in record.getMessage()
    cached("thing", KEY, compute, tmp_path)
    assert compute.calls == 2 and len(caplog.records) == 1, "it was replaced"


@pytest.mark.parametrize("place", ["file", "read_only"])
def test_a_folder_that_cannot_be_written(place: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    folder = tmp_path / "file" if place == "file" else Path("/proc/gan_cli")
    compute = Compute()
    result, info = cached("thing", KEY, compute, folder)
    assert compute.calls == 1 and result["x"].shape == (3, 2) and info == {"a": [1, "é"]}
    assert [r.levelno for r in caplog.records] == [logging.WARNING] and str(folder) in caplog.text


def test_a_failed_write_leaves_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("gan_cli.system.files.os.replace", full)
    result, _ = cached("thing", KEY, Compute(), tmp_path)
    assert result["x"].shape == (3, 2) and "No space left" in caplog.text
    assert list(tmp_path.iterdir()) == []


def test_a_failing_computation_leaves_nothing_and_may_be_repeated(tmp_path: Path) -> None:
    def fail() -> Any:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        cached("thing", KEY, fail, tmp_path)
    compute = Compute()
    cached("thing", KEY, compute, tmp_path)
    assert compute.calls == 1


def slow(folder: Path, started: Any, go_on: Any) -> None:
    def compute() -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        started.set()
        go_on.wait(20)
        return {"x": torch.ones(2)}, {"by": "the other process"}

    cached("thing", KEY, compute, folder)


def test_two_processes_at_once_both_compute_and_leave_one_file(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    started, go_on = context.Event(), context.Event()
    process = context.Process(target=slow, args=(tmp_path, started, go_on))
    process.start()
    assert started.wait(300)
    compute = Compute()
    _, info = cached("thing", KEY, compute, tmp_path)
    assert (compute.calls, info) == (1, {"a": [1, "é"]})
    go_on.set()
    process.join()
    assert process.exitcode == 0 and list(tmp_path.iterdir()) == [the_file(tmp_path)]
    assert cached("thing", KEY, compute, tmp_path)[1] == {"by": "the other process"}


def test_cache_dir(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    monkeypatch.setenv("XDG_CACHE_HOME", "/cache")
    assert cache_dir("given/here") == Path("given/here")
    assert cache_dir("~/here") == Path("/home/somebody/here")
    assert cache_dir(None) == Path("/cache/gan_cli")
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    assert cache_dir(None) == Path("/home/somebody/.cache/gan_cli")


def test_digest_looks_at_names_types_shapes_and_bytes() -> None:
    x = torch.arange(4.0)
    variants = [{"x": x}, {"y": x}, {"x": x.view(2, 2)}, {"x": x.view(torch.int32)}, {"x": x + 1e-6}, {}]
    assert len({digest(v) for v in variants}) == len(variants)
    assert digest({"a": x, "b": x.view(2, 2).T}) == digest({"b": x.view(2, 2).T.contiguous(), "a": x})
