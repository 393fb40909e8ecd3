"""Every damage of a file of a checkpoint is detected when it is read, and the previous checkpoint is used."""

from __future__ import annotations

import hashlib
import os
import random
import re
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from gan_cli.rundir import checkpoint
from gan_cli.system.errors import CheckpointError

SOAK = "GAN_CLI_SOAK" in os.environ
TRIALS = 400 if SOAK else 40  # trials of each kind of damage
READS = 3000 if SOAK else 300


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    shutil.copytree(trained, tmp_path / "run", ignore=shutil.ignore_patterns("generated", "evaluations"))
    return tmp_path / "run"


def newest(run: Path) -> list[Path]:
    return sorted((run / "checkpoints" / "step-00000004").iterdir())


def flip(data: bytes, rng: random.Random) -> bytes:
    changed, place = bytearray(data), rng.randrange(len(data))
    changed[place] ^= 1 << rng.randrange(8)
    return bytes(changed)


def cut(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data))]


def is_noticed(run: Path) -> bool:
    try:
        checkpoint.load(run, 4)
    except CheckpointError as error:
        return "step-00000004" in str(error) and not checkpoint.verify(run, 4)
    return False


@pytest.mark.parametrize("harm", [flip, cut])
def test_damage_is_noticed(harm: Callable[[bytes, random.Random], bytes], run: Path) -> None:
    rng, files, found = random.Random(0), newest(run), 0
    weights = [path.stat().st_size for path in files]
    assert checkpoint.verify(run, 4) and checkpoint.load(run, 4).step == 4
    for trial in range(TRIALS):
        file = files[trial % len(files)] if trial % 2 else rng.choices(files, weights)[0]
        whole = file.read_bytes()
        file.write_bytes(harm(whole, rng))
        found += is_noticed(run)
        file.write_bytes(whole)
    print(f"{harm.__name__}: {found} of {TRIALS} noticed")
    assert found == TRIALS
    assert checkpoint.verify(run, 4)


def zero_block(run: Path) -> None:
    (largest,) = sorted(newest(run), key=lambda path: path.stat().st_size)[-1:]
    with open(largest, "r+b") as file:
        file.seek(4096)
        file.write(bytes(4096))


def replace_by_another(run: Path) -> None:
    shutil.copy(run / "checkpoints/step-00000002/generator.safetensors", newest(run)[0].with_name("generator.safetensors"))


def replace_all_by_another(run: Path) -> None:
    shutil.rmtree(run / "checkpoints/step-00000004")
    shutil.copytree(run / "checkpoints/step-00000002", run / "checkpoints/step-00000004")


def weights(run: Path) -> Path:
    return run / "checkpoints/step-00000004/generator_ema.safetensors"


DAMAGES: dict[str, Callable[[Path], Any]] = {
    "a block of zeros": zero_block,
    "a lost file": lambda run: weights(run).unlink(),
    "a lost manifest": lambda run: weights(run).with_name("manifest.json").unlink(),
    "an empty file": lambda run: weights(run).write_bytes(b""),
    "an empty manifest": lambda run: weights(run).with_name("manifest.json").write_bytes(b""),
    "a file of another checkpoint": replace_by_another,
    "another checkpoint": replace_all_by_another,
    "something behind the end": lambda run: weights(run).write_bytes(weights(run).read_bytes() + b"\0"),
    "a link": lambda run: (shutil.move(weights(run), run / "elsewhere"), weights(run).symlink_to(run / "elsewhere")),
    "an empty folder": lambda run: [path.unlink() for path in newest(run)],
    "a file in its place": lambda run: (
        shutil.rmtree(run / "checkpoints/step-00000004"),
        (run / "checkpoints/step-00000004").write_text("checkpoint"),
    ),
}


@pytest.mark.parametrize("harm", list(DAMAGES.values()), ids=list(DAMAGES))
def test_the_one_before_is_used(harm: Callable[[Path], Any], run: Path, caplog: pytest.LogCaptureFixture) -> None:
    harm(run)
    caplog.set_level("WARNING", "gan_cli")
    saved = checkpoint.load_newest(run)
    assert saved is not None and saved.step == 2
    assert not checkpoint.verify(run, 4) or harm is replace_all_by_another
    (warning,) = caplog.messages
    assert re.search(r"^warning: .*step-00000004\)\. ", warning), warning


def test_a_training_goes_on_from_the_one_before(run: Path, train: Any, read: Any, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "whole")
    checkpoints = ["save_every=2", "log_every=2", "sample_every=2"]
    train("total_steps=6", *checkpoints, "run_dir=whole")
    zero_block(run)
    harmed = newest(run)[0].parent.stat().st_ino
    result = train("total_steps=6", *checkpoints, "run_dir=run")
    assert "warning: " in result.err and "step 2" in result.err
    (aside,) = run.glob("damaged-step-00000004-*")
    assert aside.stat().st_ino == harmed
    read.assert_same(tmp_path / "whole", run)


def contents(run: Path) -> dict[str, str]:
    files = [
        path for path in sorted(run.rglob("*")) if path.is_file() and path.name not in (".lock", "train.log", "status.json")
    ]
    return {str(path.relative_to(run)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_when_all_are_damaged_nothing_starts_over(run: Path, gan: Any, train: Any) -> None:
    for step in (2, 4):
        (run / f"checkpoints/step-{step:08d}/state.json").write_bytes(b"{}")
    before = contents(run)
    for result in (train("total_steps=6", "run_dir=run", code=76), gan("gan-sample", "run_dir=run", "threads=1")):
        assert result.code == 76
        *warnings, line = result.err.splitlines()
        assert [re.findall(r"step-\d{8}", text) for text in warnings] == [["step-00000004"], ["step-00000002"]]
        assert ": error: " in line and "state.json" in line
    assert contents(run) == before


def test_a_checkpoint_of_a_later_version_says_so(run: Path, gan: Any) -> None:
    for path in (run / "checkpoints").glob("*/manifest.json"):
        path.write_text(path.read_text().replace('"format": 1', '"format": 7'))
    result = gan("gan-sample", "run_dir=run", "threads=1", "step=4")
    assert result.code == 76 and "gan_cli" in result.err


def test_what_is_unknown_in_a_manifest_does_no_harm(run: Path) -> None:
    for path in (run / "checkpoints").glob("*/manifest.json"):
        path.write_text(path.read_text().replace('"format": 1', '"comment": [], "format": 1'))
    assert checkpoint.find(run, "last").step == 4


@pytest.mark.parametrize("keep", [1, 2])
def test_reading_while_a_training_writes_and_rotates(keep: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    done, written = threading.Event(), [1]

    def save(step: int) -> None:
        tensors = {"generator_ema": {"w": torch.full((1000,), float(step))}, "generator": {"w": torch.zeros(100)}}
        checkpoint.save(tmp_path, step, tensors, {"images": step})

    def write() -> None:
        while not done.is_set():
            save(written[-1] + 1)
            checkpoint.rotate(tmp_path, written[-1] + 1, keep)
            written.append(written[-1] + 1)

    save(1)
    writer = threading.Thread(target=write)
    writer.start()
    seen = []
    try:
        while len(seen) < READS or (written[-1] < READS / 10 and writer.is_alive()):
            floor = written[-1]
            saved = checkpoint.find(tmp_path, "last")
            assert saved.step >= floor and float(saved.tensors["generator_ema"]["w"][0]) == saved.step
            seen.append(saved.step)
    finally:
        done.set()
        writer.join()
    print(f"{len(seen)} reads while {written[-1]} checkpoints were written, {len(set(seen))} of them seen")
    assert seen == sorted(seen) and written[-1] >= READS / 10


def test_a_checkpoint_that_goes_while_it_is_read(
    run: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    genuine, saved = checkpoint.read_file, checkpoint.load(run, 4)

    def read_file(path: Path, *args: Any) -> bytes:
        if path.name == "generator.safetensors" and path.parent.name == "step-00000004":
            checkpoint.save(run, 6, saved.tensors, saved.info | {"step": 6})
            shutil.rmtree(path.parent)
        return genuine(path, *args)

    monkeypatch.setattr(checkpoint, "read_file", read_file)
    assert checkpoint.find(run, "last").step == 6
    assert caplog.messages == []
