"""Several programs at once: starts in the same second, in the same directory, and sampling during a training."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import torch

from .processes import TINY, Command, newest, reached

SOAK = "GAN_CLI_SOAK" in os.environ
pytestmark = pytest.mark.usefixtures("no_process_left")
STARTS = 20 if SOAK else 3
PAIRS = 20 if SOAK else 1
SAMPLINGS = [100] if SOAK else [3, pytest.param(10, marks=pytest.mark.slow)]
LONG = [*TINY["dcgan"], "total_steps=100000", "save_every=1", "keep_checkpoints=1"]


def all_end(commands: list[Command], number: int = signal.SIGTERM) -> list[int]:
    for command in commands:
        command.send(number)
    return [command.end() for command in commands]


def test_starts_in_the_same_second(tmp_path: Path) -> None:
    commands = [Command(tmp_path, *LONG, real=SOAK) for _ in range(STARTS)]
    assert all(command.until(lambda command=command: "To continue it: " in command.text, 300) for command in commands)
    assert all_end(commands) == [75] * STARTS, [command.text for command in commands]
    folders = [line.split(": ")[1] for c in commands for line in c.text.splitlines() if line.startswith("run directory")]
    assert len(set(folders)) == STARTS == len(list((tmp_path / "outputs").iterdir()))
    assert all(newest(tmp_path / folder) > 0 for folder in folders)
    print(f"{STARTS} starts at once: {len(set(folders))} directories")


def test_two_starts_in_one_directory(tmp_path: Path) -> None:
    for k in range(PAIRS):
        commands = [Command(tmp_path, *LONG, f"run_dir=r{k}", real=SOAK and k < 3) for _ in range(2)]
        commands[0].until(lambda both=commands: both[1].ended)
        refused, other = sorted(commands, key=lambda command: not command.ended)
        assert refused.end() == 73, refused.text
        assert str(other.pid) in refused.text
        assert "Traceback" not in refused.text and len(refused.text.splitlines()) == 1
        assert other.until(lambda k=k: reached(tmp_path / f"r{k}") > 0), other.text
        assert all_end([other]) == [75], other.text
    print(f"{PAIRS} pairs of starts in one directory: {PAIRS} refused")


def test_a_kill_frees_the_directory(tmp_path: Path) -> None:
    first = Command(tmp_path, *LONG, "run_dir=r", real=SOAK)
    assert first.until(lambda: reached(tmp_path / "r") > 0), first.text
    assert all_end([first], signal.SIGKILL) == [-signal.SIGKILL]
    before = newest(tmp_path / "r")
    second = Command(tmp_path, *LONG, "run_dir=r", real=SOAK)
    assert second.until(lambda: reached(tmp_path / "r") > before + 1), second.text
    assert all_end([second]) == [75] and f"step {before}" in second.text


@pytest.mark.parametrize("samplings", SAMPLINGS)
@pytest.mark.slow
def test_sampling_while_a_training_writes(samplings: int, tmp_path: Path) -> None:
    from gan_cli import load_run

    args = [*TINY["dcgan"], "save_every=1", "log_every=1000", "sample_every=1000"]
    assert Command(tmp_path, *args, "total_steps=40", "keep_checkpoints=1000", "run_dir=whole").end() == 0
    command = Command(tmp_path, *args, "total_steps=100000", "keep_checkpoints=1", "run_dir=r")
    assert command.until(lambda: reached(tmp_path / "r")), command.text
    seen: dict[int, torch.Tensor] = {}
    for _ in range(samplings):
        run = load_run(tmp_path / "r")
        images = run.sample(4)
        if run.step <= 40:
            assert torch.equal(images, load_run(tmp_path / "whole", step=run.step).sample(4)), run.step
        assert torch.equal(images, seen.setdefault(run.step, images)), run.step
    assert not command.ended and all_end([command]) == [75]
    print(f"{samplings} samplings of {len(seen)} checkpoints while they were written and rotated")
