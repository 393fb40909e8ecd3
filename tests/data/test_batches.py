"""The order of the images: a function of the seed and the position, whatever decodes them."""

from __future__ import annotations

import errno
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import time
from itertools import islice
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from gan_cli.data.batches import Batches, decode_in_processes, permutation
from gan_cli.data.dataset import ArrayDataset
from gan_cli.data.image_folder import image_folder
from gan_cli.system.errors import ConfigError, DataError, MemoryFullError

CPU = torch.device("cpu")


def numbered(n: int, labelled: bool = True) -> ArrayDataset:
    """Image i has the value i everywhere."""
    images = torch.arange(n, dtype=torch.uint8).reshape(n, 1, 1, 1).expand(n, 1, 4, 4).contiguous()
    labels = torch.arange(n) if labelled else None
    return ArrayDataset(images, labels=labels, class_names=[], fingerprint="")


def served(batches: Batches, count: int) -> list[int]:
    """The numbers of the next images, from their pixels."""
    images = torch.cat([batch["image"] for batch in islice(batches, count)])
    return ((images[:, 0, 0, 0] + 1) * 127.5).round().long().tolist()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for index in range(10):
        path = tmp_path / "images" / f"class{index % 2}" / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8, 3), index * 20, dtype=np.uint8)).save(path)
    return tmp_path / "images"


def test_batches_have_the_promised_types_and_range() -> None:
    dataset = ArrayDataset(
        torch.tensor([0, 255], dtype=torch.uint8).reshape(2, 1, 1, 1).expand(2, 3, 4, 4).contiguous(),
        labels=torch.tensor([0, 1], dtype=torch.uint8),
        class_names=["black", "white"],
        fingerprint="",
    )
    batch = next(Batches(dataset, batch_size=2, seed=0, device=CPU))
    assert batch["image"].dtype == torch.float32 and batch["image"].shape == (2, 3, 4, 4)
    assert batch["label"].dtype == torch.int64
    assert (batch["image"][:, 0, 0, 0] == batch["label"] * 2.0 - 1).all()
    assert "label" not in next(Batches(numbered(5, labelled=False), batch_size=2, seed=0, device=CPU))


@pytest.mark.parametrize("batch_size", [1, 3, 7])
def test_every_epoch_serves_every_image_once(batch_size: int) -> None:
    order = served(Batches(numbered(7), batch_size=batch_size, seed=3, device=CPU), 21)
    epochs = [order[start : start + 7] for start in range(0, 7 * 3, 7)]
    assert all(sorted(epoch) == list(range(7)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3


def test_resuming_gives_the_same_continuation() -> None:
    whole = served(Batches(numbered(11), batch_size=4, seed=5, device=CPU), 20)
    for done in range(12):
        first = Batches(numbered(11), batch_size=4, seed=5, device=CPU)
        for _ in range(done):
            next(first)
        assert first.position == 4 * done
        rest = Batches(numbered(11), batch_size=4, seed=5, device=CPU, position=first.position)
        assert served(rest, 20 - done) == whole[4 * done :]
    # The position counts images, so the batch size may change.
    assert served(Batches(numbered(11), batch_size=2, seed=5, device=CPU, position=6), 10) == whole[6:26]


def test_labels_follow_images() -> None:
    batches = Batches(numbered(9), batch_size=4, seed=1, device=CPU)
    for batch in islice(batches, 6):
        assert (((batch["image"][:, 0, 0, 0] + 1) * 127.5).round().long() == batch["label"]).all()


def test_order_depends_on_every_bit_of_the_seed_and_on_nothing_else() -> None:
    orders = {tuple(permutation(20, seed=seed, epoch=epoch).tolist()) for seed in (0, 1, 2**31) for epoch in (0, 1, 2**32)}
    assert len(orders) == 9
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = served(Batches(numbered(20), batch_size=5, seed=1, device=CPU), 4)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    assert served(Batches(numbered(20), batch_size=5, seed=1, device=CPU), 4) == first


def test_a_batch_larger_than_the_set_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"batch_size=8.*\b7 images .*batch_size=7"):
        Batches(numbered(7), batch_size=8, seed=0, device=CPU)


def test_workers_serve_the_same_batches_as_memory(folder: Path) -> None:
    def collect(memory_gb: float, workers: int) -> list[dict[str, torch.Tensor]]:
        dataset = image_folder(root=str(folder), image_size=8, memory_gb=memory_gb)
        batches = Batches(dataset, batch_size=4, seed=2, device=CPU, position=3, workers=workers)
        collected = list(islice(batches, 8))
        assert batches.position == 3 + 4 * 8
        batches.close()
        return collected

    state = torch.get_rng_state()
    memory, streamed, parallel = collect(4, 0), collect(0, 0), collect(0, 2)
    assert torch.equal(torch.get_rng_state(), state)
    for expected, *others in zip(memory, streamed, parallel, strict=True):
        for other in others:
            assert torch.equal(other["image"], expected["image"]) and torch.equal(other["label"], expected["label"])
    assert not multiprocessing.active_children()


class Floats:
    """Batches of another type, not contiguous."""

    def batch(self, indices: Tensor) -> Tensor:
        return (indices[:, None, None] * torch.ones(len(indices), 3, 2)).float().transpose(1, 2)


def test_whatever_a_data_set_makes_comes_through_the_pipe() -> None:
    order = [torch.arange(k, 2 * k) for k in (5, 1, 4)]
    batches = decode_in_processes(cast(Any, Floats()), iter([*order, *order]), 2)
    for indices, batch in zip(order, batches, strict=False):
        assert batch.dtype == torch.float32 and batch.is_contiguous()
        assert torch.equal(batch, Floats().batch(indices))
        batch += 1  # it is the caller's
    cast(Any, batches).close()


def test_the_time_that_batches_take_is_counted() -> None:
    batches = Batches(numbered(10), batch_size=3, seed=0, device=CPU)
    assert batches.waited == 0
    start = time.perf_counter()
    list(islice(batches, 5))
    assert 0 < batches.waited <= time.perf_counter() - start


@pytest.mark.parametrize("workers", [0, 1])
def test_a_file_that_breaks_later_is_one_clear_error(folder: Path, workers: int) -> None:
    dataset = image_folder(root=str(folder), image_size=8, memory_gb=0)
    (folder / "class0" / "4.png").write_text("<html>")
    batches = Batches(dataset, batch_size=10, seed=0, device=CPU, workers=workers)
    with pytest.raises(DataError, match=r"4\.png.*on_bad_image=skip") as error:
        next(batches)
    assert "\n" not in str(error.value)
    batches.close()


def stream(folder: Path, workers: int = 2) -> Batches:
    dataset = image_folder(root=str(folder), image_size=8, memory_gb=0)
    return Batches(dataset, batch_size=4, seed=2, device=CPU, workers=workers)


def lives(pid: int) -> bool:
    """Not gone, and not a zombie that nobody has asked about."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_killed_process_is_one_clear_error(folder: Path) -> None:
    batches = stream(folder)
    next(batches)
    started = time.monotonic()
    multiprocessing.active_children()[0].kill()
    with pytest.raises(MemoryFullError, match=r"\(workers\)\. .*workers=0"):
        served(batches, 5)
    assert time.monotonic() - started < 60 and not multiprocessing.active_children()


def test_a_killed_process_ends_the_run_at_once(
    train: Any, data_root: Path, tmp_path: Path, read: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gan_cli.training.writer import Writer

    add = Writer.add

    def kill(self: Any, logs: Any) -> None:
        add(self, logs)
        if self.progress.step == 3:
            multiprocessing.active_children()[0].kill()

    monkeypatch.setattr(Writer, "add", kill)
    photos = ["dataset=image_folder", f"dataset.root={data_root}/photos", "dataset.image_size=16", "dataset.memory_gb=0"]
    result = train(*photos, "workers=2", "total_steps=50", "save_every=2", "run_dir=run", code=71)
    (line,) = result.errors
    assert "was killed" in line and "Traceback" not in result.err
    assert read.steps(tmp_path / "run")[-1] < 50  # its next batches may have been in the pipe
    assert not multiprocessing.active_children()
    monkeypatch.setattr(Writer, "add", add)
    train(*photos, "workers=2", "total_steps=6", "save_every=2", "run_dir=run")
    assert read.steps(tmp_path / "run")[-1] == 6


def test_processes_that_cannot_be_started_are_one_clear_error(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forks, fork = [], os.fork

    def fail() -> int:
        forks.append(0)
        if len(forks) == 2:
            raise OSError(errno.EAGAIN, "Resource temporarily unavailable")
        return fork()

    monkeypatch.setattr(os, "fork", fail)
    with pytest.raises(MemoryFullError, match="workers=0"):
        next(stream(folder))
    assert len(forks) == 2 and not multiprocessing.active_children()


@pytest.mark.parametrize("workers", [0, 2])
def test_no_file_handles_left_is_one_clear_error(folder: Path, workers: int) -> None:
    batches = stream(folder, workers)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.open(os.devnull, os.O_RDONLY)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, limits[1]))
    try:
        with pytest.raises(MemoryFullError, match="Too many open files"):
            next(batches)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        os.close(lowest)
    assert not multiprocessing.active_children()


def test_signals_to_the_whole_job_are_left_to_the_parent(folder: Path) -> None:
    batches, undisturbed = stream(folder), stream(folder, workers=0)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM):
        assert torch.equal(next(batches)["image"], next(undisturbed)["image"])
        for process in multiprocessing.active_children():
            os.kill(process.pid or 0, number)
    assert [torch.equal(next(batches)["image"], next(undisturbed)["image"]) for _ in range(8)] == [True] * 8
    started = time.monotonic()
    batches.close()
    assert time.monotonic() - started < 60 and not multiprocessing.active_children()


def test_processes_end_with_a_parent_that_is_killed(folder: Path) -> None:
    reading, writing = os.pipe()
    parent = os.fork()
    if parent == 0:
        batches = stream(folder, workers=3)
        next(batches)
        os.write(writing, " ".join(str(process.pid) for process in multiprocessing.active_children()).encode())
        time.sleep(60)
        os._exit(1)
    pids = [int(pid) for pid in os.read(reading, 1000).split()]
    assert len(pids) == 3 and all(map(lives, pids))
    os.kill(parent, signal.SIGKILL)
    os.waitpid(parent, 0)
    os.close(reading)
    os.close(writing)
    deadline = time.monotonic() + 60
    while any(map(lives, pids)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(lives, pids))


@pytest.mark.slow
def test_full_shared_memory_and_a_forgotten_close_do_no_harm(folder: Path) -> None:
    program = f"""
import gan_cli.data.batches, gan_cli.data.image_folder, torch
dataset = gan_cli.data.image_folder.image_folder(root={str(folder)!r}, image_size=256, memory_gb=0)
batches = gan_cli.data.batches.Batches(dataset, batch_size=10, seed=0, device=torch.device("cpu"), workers=2)
assert all(next(batches)["image"].shape == (10, 3, 256, 256) for _ in range(4))
batches.itself = batches  # only the end of the interpreter ends it
"""
    mount = 'mount -t tmpfs -o size=4k tmpfs /dev/shm && exec "$@"'
    if subprocess.run(["unshare", "-rm", "sh", "-c", mount, "", "true"], capture_output=True).returncode != 0:
        pytest.skip("no private mounts here")
    command = ["unshare", "-rm", "sh", "-c", mount, "", sys.executable, "-c", program]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("workers", "content"),
    [
        *[(0, b"<html>"), (2, None)],
        *[pytest.param(*case, marks=pytest.mark.slow) for case in [(0, None), (0, b""), (2, b"<html>"), (2, b"")]],
    ],
)
def test_a_file_that_breaks_during_training_leaves_the_checkpoints(
    workers: int, content: bytes | None, train: Any, folder: Path, tmp_path: Path, read: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gan_cli.training.writer import Writer

    add = Writer.add

    def damage(self: Any, logs: Any) -> None:
        add(self, logs)
        if self.progress.step == 3:
            (folder / "class1" / "3.png").unlink()
            if content is not None:
                (folder / "class1" / "3.png").write_bytes(content)

    monkeypatch.setattr(Writer, "add", damage)
    photos = ["dataset=image_folder", f"dataset.root={folder}", "dataset.image_size=16", "dataset.memory_gb=0"]
    result = train(*photos, f"workers={workers}", "total_steps=50", "save_every=2", "run_dir=run", code=65)
    (line,) = result.errors
    assert "3.png" in line and "Traceback" not in result.err
    assert read.steps(tmp_path / "run")[0] == 2 and not multiprocessing.active_children()
