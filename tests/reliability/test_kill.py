"""kill -9 at random moments, many times in a row: the finished run is bit-identical to an uninterrupted one."""

from __future__ import annotations

import json
import os
import random
import signal
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from gan_cli.rundir import status

from .processes import TINY, Command, half_written, newest

SOAK = "GAN_CLI_SOAK" in os.environ
pytestmark = pytest.mark.usefixtures("no_process_left")
KILLS = [25] if SOAK else [1, pytest.param(4, marks=pytest.mark.slow)]  # kills of each chain
KINDS = ("folder", "dcgan", "cyclegan", "wgan_gp")
CHAINS = 8 if SOAK else 1
LIFE = 6.0 if SOAK else 0.6  # seconds that a process lives at most, with the import of torch
STEPS = 120 if SOAK else 14
SAVE_EVERY = 2
OFTEN = [f"total_steps={STEPS}", f"save_every={SAVE_EVERY}", "log_every=1", "sample_every=5", "gif=true"]


def last_row(run_dir: Path) -> int:
    """Step of the last whole line of metrics.jsonl, 0 if there is none."""
    path = run_dir / "metrics.jsonl"
    for line in reversed(path.read_text().splitlines() if path.exists() else []):
        try:
            return int(json.loads(line)["step"])
        except ValueError:
            continue
    return 0


def saving(run_dir: Path) -> set[str]:
    """Temporary files of a save or rotation that is running or was killed."""
    try:
        with os.scandir(run_dir) as entries:
            return {entry.name for entry in entries if entry.name.startswith((".saving-", ".deleting-"))}
    except FileNotFoundError:
        return set()


def wait_to_kill(command: Command, run_dir: Path, rng: random.Random) -> None:
    """Wait for some time, or for some saves and a moment of the next one."""
    if rng.random() < 0.5:
        command.live(rng.uniform(0, LIFE))
        return
    for _ in range(rng.randrange(1, 8)):
        if not command.until(lambda: saving(run_dir)) or not command.until(lambda: not saving(run_dir)):
            return
    command.until(lambda: saving(run_dir))
    command.live(rng.uniform(0, 0.004))


def chain(home: Path, kind: str, args: list[str], kills: int, seed: int, read: Any) -> Counter[str]:
    """Kill runs until they are done, and start new ones until there were ``KILLS`` kills."""
    rng, counts = random.Random(seed), Counter[str]()
    home.mkdir()
    assert Command(home, *TINY[kind], *args, *OFTEN, "run_dir=whole", real=SOAK).end(600) == 0
    while counts["kills"] < kills:
        name = f"run{counts['completed']}"
        run_dir, before, done = home / name, 0, False
        while not done:
            earlier = saving(run_dir)
            command = Command(home, *TINY[kind], *args, *OFTEN, f"run_dir={name}", real=SOAK)
            if counts["kills"] < kills:
                wait_to_kill(command, run_dir, rng)
                command.send(signal.SIGKILL)
            code = command.end(600)
            command.assert_nobody_left()
            assert code in (0, -signal.SIGKILL), command.text
            done = code == 0
            counts["kills"] += not done
            counts["in a save"] += not done and bool(saving(run_dir) - earlier)
            step, written = newest(run_dir), last_row(run_dir)
            assert step >= before, "a checkpoint was lost"
            assert written - step <= SAVE_EVERY, f"lost {written - step} steps"
            assert ((status.read(run_dir) or {}) if run_dir.exists() else {}).get("step", 0) <= step, "it was said to be saved"
            counts["worst loss"] = max(counts["worst loss"], written - step)
            before = step
        counts["completed"] += 1
        assert half_written(run_dir) == []
        assert (status.read(run_dir) or {})["state"] == "complete"
        read.assert_same(home / "whole", run_dir)
        one, two = (read.scalars(run) for run in (home / "whole", run_dir))
        assert [k for k in one if not k.startswith("time/") and one[k] != two.get(k)] == []
        assert read.images(home / "whole") == read.images(run_dir)
    print(f"{kind}: {dict(counts)}")
    return counts


@pytest.mark.parametrize("kills", KILLS)
def test_kill_9(kills: int, tmp_path: Path, data_root: Path, read: Any) -> None:
    kinds = {kind: [f"dataset.root={data_root / 'photos'}"] if kind == "folder" else [] for kind in KINDS}
    jobs = [
        (tmp_path / str(k), kind, args, kills, k, read) for k, (kind, args) in enumerate([*kinds.items()] * 2) if k < CHAINS
    ]
    with ThreadPoolExecutor(2 if SOAK else 1) as pool:
        found = list(pool.map(lambda job: chain(*job), jobs))
    total = sum(found, Counter[str]())
    total["worst loss"] = max(counts["worst loss"] for counts in found)
    print(
        f"{total['kills']} kills, {total['in a save']} of them in a save; worst loss {total['worst loss']} steps of"
        f" {SAVE_EVERY} between saves; {total['completed']} runs completed, all identical to one never stopped"
    )
    assert total["kills"] == kills * CHAINS
    assert total["in a save"] >= (20 if SOAK else 0)
