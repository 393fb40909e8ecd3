"""Several processes that train one run: equal networks, averaged gradients, exact resume. If one ends, all end."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from gan_cli.compute import processes
from gan_cli.compute.layers import synchronised
from gan_cli.rundir import status
from gan_cli.tasks.inference import training_behaviour
from gan_cli.tasks.unpaired import ImagePool

from .conftest import TINY, quick  # type: ignore[import-not-found]
from .several import in_ranks, joined, train_in_ranks  # type: ignore[import-not-found]
from .several import train as train_alone  # type: ignore[import-not-found]
from .tiny import PRESETS, config_of, tiny  # type: ignore[import-not-found]

ENVIRONMENT = {**{k: v for k, v in os.environ.items() if k != "HYDRA_FULL_ERROR"}, "OMP_NUM_THREADS": "1"}
SOAK = "GAN_CLI_SOAK" in os.environ
SOME = ["dcgan_digits", "wgan_gp_mnist", "cgan_mnist", "pix2pix_facades", "cyclegan_horse2zebra"]
STEPS = 6
EVERY = ["log_every=1", "save_every=3", "sample_every=3", "gif=false"]
TIMEOUT_S = 240.0  # seconds for anything to happen; a loaded machine needs some of them
# Trainings without layers that draw or mix samples: presets, and what else is set.
SAME_MATHEMATICS = {
    "gan_fashion_mnist": [],
    "gan_fashion_mnist with a penalty": ["loss=wgan_gp", "optimizer.eps=1e-3"],  # eps: or Adam makes whole steps of rounding
    "cyclegan_horse2zebra": ["model.task.pool_size=0"],
    "theory_1d": [],
}


def of_preset(preset: str, data_root: Path, *more: str) -> Any:
    """The config of a preset made tiny."""
    args = [arg for arg in tiny(preset, data_root) if not arg.startswith("batch_size=")]
    return config_of(f"experiment={preset}", *args, "batch_size=4", *EVERY, f"total_steps={STEPS}", *more)


# One training


@pytest.mark.parametrize("preset", PRESETS if SOAK else quick(SOME, "dcgan_digits"))
def test_equal_networks_and_exact_resume(preset: str, data_root: Path, tmp_path: Path, read: Any) -> None:
    first, second = train_in_ranks(of_preset(preset, data_root), tmp_path / "whole")
    assert len(first) > 8
    assert [key for key in first if first[key].tobytes() != second[key].tobytes()] == []
    shutil.copytree(tmp_path / "whole", tmp_path / "resumed")
    shutil.rmtree(tmp_path / "resumed" / "checkpoints" / f"step-{STEPS:08d}")
    train_in_ranks(of_preset(preset, data_root), tmp_path / "resumed")
    read.assert_same_weights(tmp_path / "whole", tmp_path / "resumed")
    assert read.rows(tmp_path / "whole") == read.rows(tmp_path / "resumed")
    assert "continues from step 3" in (tmp_path / "resumed" / "train.log").read_text()
    assert status.read(tmp_path / "resumed")["state"] == "complete"  # type: ignore[index]
    assert read.info(tmp_path / "resumed")["machine"]["processes"] == 2
    assert (tmp_path / "whole" / "train.log").read_text().count("processes: 2 (gloo), 2 of 4 samples each") == 1


@pytest.mark.parametrize("name", quick([*SAME_MATHEMATICS], "gan_fashion_mnist with a penalty"))
def test_averaged_gradients_are_those_of_the_whole_batch(name: str, data_root: Path, tmp_path: Path, read: Any) -> None:
    """With the same noise two processes train what one does, to rounding relative to the largest value of a tensor.

    A bias before a normalisation has no gradient but rounding, of which Adam makes whole steps. The slopes of |x| and ReLU
    jump, so the gradients of CycleGAN may from the third step on.
    """
    config, jumps = of_preset(name.split()[0], data_root, *SAME_MATHEMATICS[name]), name.startswith("cyclegan")
    one = train_alone(config, tmp_path / "one")
    two, _ = train_in_ranks(config, tmp_path / "two", given_noise=True)
    for row, other in zip(read.rows(tmp_path / "one"), read.rows(tmp_path / "two"), strict=True):
        assert row.keys() == other.keys()
        for key in row:
            loose = 3e-2 if jumps and row["step"] > 2 else 1e-3 if key.startswith("metric/") else 2e-5
            assert other[key] == pytest.approx(row[key], rel=loose, abs=1e-5), (key, row["step"])
    assert one.keys() == two.keys()
    for key, values in one.items():
        if not values.size or (jumps and key.endswith("bias")):
            continue
        error = np.abs(values.astype(np.float64) - two[key]).max()
        assert error <= (2e-2 if jumps else 2e-5) * max(np.abs(values).max(), 0.1), (key, error)


def test_noise_differs_between_ranks(data_root: Path, tmp_path: Path, read: Any) -> None:
    """Without being given the noise of one process, two processes see the same data and train another sample of it."""
    config = of_preset("gan_fashion_mnist", data_root, "total_steps=1")
    train_alone(config, tmp_path / "one")
    train_in_ranks(config, tmp_path / "two")
    (one,), (two,) = read.rows(tmp_path / "one"), read.rows(tmp_path / "two")
    assert two["d/real"] == pytest.approx(one["d/real"], rel=1e-5)
    assert two["d/fake"] != pytest.approx(one["d/fake"], rel=1e-5)


# Its parts


def test_averages_and_gathers(tmp_path: Path) -> None:
    def work(rank: int) -> None:
        network = nn.Sequential(nn.Linear(2, 2, bias=False), nn.BatchNorm1d(2), nn.Linear(2, 2))
        network[0].weight.grad = torch.full((2, 2), float(rank)).T
        network[1].running_mean.fill_(10.0 * rank)
        loss, logs = processes.average(network, torch.tensor(2.0 * rank), {"a": torch.tensor([rank])})
        processes.average_buffers(network)
        assert network[0].weight.grad.unique().tolist() == [0.5] and network[2].weight.grad is None
        assert network[1].running_mean.unique().tolist() == [5.0]
        assert (loss.item(), logs["a"].tolist()) == (1.0, [0.5])
        rows = torch.full((2, 3, 2, 2), rank).to(memory_format=torch.channels_last)
        assert processes.gather(rows)[:, 0, 0, 0].tolist() == [0, 0, 1, 1]
        network[2].weight.data.fill_(rank)
        processes.copy_from_first(network)
        assert network[2].weight.unique().tolist() == [0.0]
        stop = ["SIGTERM"] if rank == 1 else []
        assert processes.agree(stop) and len(stop) == 1 and not processes.agree([])

    in_ranks(joined(work))


def test_one_pool_of_the_images_of_all(tmp_path: Path) -> None:
    def work(rank: int) -> None:
        pool, images = ImagePool(8, 1, 2), torch.arange(rank * 100.0, rank * 100 + 24)
        for some in images.view(6, 4, 1, 1, 1).expand(6, 4, 1, 2, 2):
            torch.manual_seed(rank)
            assert pool.query(some).shape == some.shape
        torch.save(pool.images, tmp_path / f"{rank}.pt")

    in_ranks(joined(work))
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    assert torch.equal(first, second) and 0 < (first[:, 0, 0, 0] >= 100).sum() < 8


def test_batch_norm_on_gpus_is_synchronised_but_for_rank_0_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """It cannot run without a GPU: only what is converted is shown, and that evaluation needs no other process."""
    task = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    before, x = task[1], torch.randn(8, 3)
    buffers = synchronised(task)
    processes.synchronise_batch_norm(task, torch.device("cuda"))
    assert task[1] is before, "one process"
    monkeypatch.setattr(processes, "world", lambda: 2)
    processes.synchronise_batch_norm(task, torch.device("cpu"))
    assert task[1] is before
    processes.synchronise_batch_norm(task, torch.device("cuda"))
    assert type(task[1]) is nn.SyncBatchNorm and task[1].weight is before.weight
    assert all(a is b for a, b in zip(buffers, synchronised(task), strict=True))

    def work(rank: int) -> None:
        task.eval()
        if rank == 0:
            with training_behaviour(task, batch_norm=True):
                torch.testing.assert_close(task(x), before.train()(task[0](x)))

    in_ranks(joined(work))


def test_order_and_jitter_of_a_part() -> None:
    import torch

    from gan_cli.data.batches import Batches
    from gan_cli.data.dataset import Jitter
    from gan_cli.data.translation import translation_arrays

    images = [torch.randint(0, 256, (n, 3, 18, 18), dtype=torch.uint8) for n in (7, 9)]
    data = translation_arrays(
        [(("a",), images[0]), (("b",), images[1])],
        image_size=16, channels=3, jitter=Jitter(18, 16, flip=True), held_out=None,
    )  # fmt: skip
    made = [
        Batches(data, batch_size=6, seed=0, device=torch.device("cpu"), rank=rank, world=world)
        for rank, world in ((0, 1), (0, 3), (1, 3), (2, 3))
    ]
    for _ in range(4):
        whole, *parts = [next(batches) for batches in made]
        for key in ("a", "b"):
            assert torch.equal(whole[key], torch.cat([part[key] for part in parts]))
    assert [batches.position for batches in made] == [24] * 4


# How it ends


class Training:
    """``torchrun -m gan_cli.train`` in a directory, and its processes, each of which leads a session of its own."""

    def __init__(self, cwd: Path, *args: str, before: str = "") -> None:
        self.output, self.ranks = cwd / "output.txt", dict[int, int]()  # process ids
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
        command = [*torchrun, "-m", "gan_cli.train", *args, "run_dir=run"]
        shell = ["bash", "-c", f'{before}exec "$@"', "bash", *command]
        with self.output.open("w") as output:
            self.process = subprocess.Popen(shell, cwd=cwd, env=ENVIRONMENT, stdout=output, stderr=output)

    def find(self) -> None:
        """Find the processes that torchrun has started by now."""
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if f"PPid:\t{self.process.pid}\n" in (folder / "status").read_text():
                    environ = dict(item.split(b"=", 1) for item in (folder / "environ").read_bytes().split(b"\0") if item)
                    self.ranks[int(environ[b"RANK"])] = int(folder.name)

    @property
    def lines(self) -> list[str]:
        """Lines of gan-train, without those of torchrun."""
        return [line for line in self.output.read_text().splitlines() if line.startswith("gan-train: ")]

    def until(self, done: Callable[[], bool]) -> None:
        end = time.monotonic() + TIMEOUT_S
        while not done():
            assert time.monotonic() < end and self.process.poll() is None, self.output.read_text()
            time.sleep(0.01)
        self.find()

    def ended(self, seconds: float = TIMEOUT_S) -> None:
        """Wait until it and its processes have ended."""
        end = time.monotonic() + seconds
        self.process.wait(seconds)
        while any(is_running(pid) for pid in self.ranks.values()):
            assert time.monotonic() < end, "processes are left"
            time.sleep(0.05)

    def kill(self) -> None:
        self.find()
        for pid in (*self.ranks.values(), self.process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()


def is_running(pid: int) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Training]]:
    """``start(overrides...)``; nothing is left running."""
    begun: list[Training] = []

    def begin(*args: str, before: str = "") -> Training:
        begun.append(Training(tmp_path, *args, before=before))
        return begun[-1]

    yield begin
    for training in begun:
        training.kill()


needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")
DCGAN = [*TINY["dcgan"], "log_every=1", "sample_every=100000", "save_every=2"]
ENDS = [(1, signal.SIGKILL), (0, signal.SIGKILL), (1, signal.SIGTERM), (None, signal.SIGKILL), (None, signal.SIGINT)]


@needs_proc
@pytest.mark.parametrize("ends", quick({"killed": ENDS[:1], "killed and stopped": ENDS}, "killed"))
def test_all_end_with_one_line_and_can_be_continued(
    ends: list[tuple[int | None, int]], start: Any, train: Any, read: Any, tmp_path: Path
) -> None:
    """A signal to a rank, or to torchrun (None). Continued by two processes, the run equals one not interrupted."""
    run, step = tmp_path / "run", 0

    def saved() -> bool:
        return (run / "checkpoints").exists() and bool(read.steps(run)) and read.steps(run)[-1] > step

    for who, number in ends:
        training = start(*DCGAN, "total_steps=100000")
        training.until(saved)
        os.kill(training.process.pid if who is None else training.ranks[who], number)
        training.ended()
        assert len(training.lines) == 1, (who, number, training.output.read_text())
        line, state = training.lines[0], status.read(run)
        assert state is not None
        if number != signal.SIGKILL or who is None:  # torchrun's death is a SIGTERM for its processes
            assert f"stopped at step {read.steps(run)[-1]} of 100000 by " in line
            assert "torchrun --nproc-per-node=2 -m gan_cli.train" in line
            assert (state["state"], state["step"], state["exit_code"]) == ("preempted", read.steps(run)[-1], 75)
        elif who == 1:
            assert line.startswith("gan-train: error: ")
            assert (state["state"], state["exit_code"], state["message"]) == ("failed", 70, line.partition("error: ")[2])
        else:
            assert line.startswith("gan-train: rank 1: error: ")
        step = read.steps(run)[-1]
    last = f"total_steps={step + 2}"
    if len(ends) == 1:
        result = train(*DCGAN, last, "run_dir=run")
        assert "processes: 2 -> 1" in result.err and read.steps(run)[-1] == step + 2
        return
    for name in ("run", "whole"):
        train_in_ranks(config_of(*DCGAN, last), tmp_path / name)
    read.assert_same_weights(run, tmp_path / "whole")


@needs_proc
@pytest.mark.slow
def test_a_full_disk_ends_all(start: Any, read: Any, tmp_path: Path) -> None:
    training = start(*DCGAN, "total_steps=100000", before="ulimit -f 8; ")
    training.ended()
    (line,) = training.lines
    assert "step 2 " in line and "File too large (run)" in line
    assert (status.read(tmp_path / "run") or {})["exit_code"] == 74


LOSS = """
import os
from gan_cli.system.errors import DataError
from gan_cli.losses import NonSaturating

class Odd(NonSaturating):
    calls = 0

    def discriminator(self, real_logits, fake_logits):
        Odd.calls += 1
        if os.environ["RANK"] in ("RANKS") and Odd.calls == 3:
            raise DataError("an image cannot be read", "a.png", "Remove it") if KNOWN else ZeroDivisionError("odd")
        return super().discriminator(real_logits, fake_logits)
"""


@needs_proc
@pytest.mark.slow
@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("ranks", ["1", "01"])
def test_an_error_is_printed_once(ranks: str, known: bool, start: Any, tmp_path: Path) -> None:
    """By the rank that meets it, or by rank 0 if all do. One that is not ours is printed with its traceback."""
    (tmp_path / "my_losses.py").write_text(LOSS.replace("RANKS", ranks).replace("KNOWN", str(known)))
    training = start(*DCGAN, "loss.adversarial._target_=my_losses.Odd", "total_steps=100000")
    training.ended()
    rank = "" if ranks == "01" else "rank 1: "
    message = f"gan-train: {rank}error: an image cannot be read (a.png). Remove it."
    assert training.lines == ([message] if known else [])
    assert training.output.read_text().count("ZeroDivisionError: odd") == (0 if known else 1)
    expected = 70 if ranks == "1" else 65 if known else 1
    assert (status.read(tmp_path / "run") or {})["exit_code"] == expected


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["batch_size=7"], ["batch_size=7", "(batch_size)", "batch_size=8"]),
        pytest.param(["-m", "seed=0,1"], ["(-m under torchrun)"], marks=pytest.mark.slow),
        pytest.param(["lrr=1"], ["'lrr' (lrr)", "optimizer.lr"], marks=pytest.mark.slow),
    ],
)
def test_a_mistake_is_printed_once(args: list[str], expected: list[str], tmp_path: Path) -> None:
    """Before torch is imported, so torchrun, which takes seconds, is left out."""
    said, codes = [], []
    for rank in range(2):
        several = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
        master = {"MASTER_ADDR": "localhost", "MASTER_PORT": "1"}
        command = [sys.executable, "-m", "gan_cli.train", *args]
        ended = subprocess.run(
            command, cwd=tmp_path, env=ENVIRONMENT | several | master, capture_output=True, text=True, timeout=TIMEOUT_S
        )
        said.append(ended.stdout + ended.stderr)
        codes.append(ended.returncode)
    assert codes == [2, 2]
    assert all(text in said[0] for text in expected) and len(said[0].splitlines()) == 1 and said[1] == ""
    assert list(tmp_path.iterdir()) == []
