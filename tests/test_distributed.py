"""Several processes train as one does: the same data, and weights that differ by rounding. If one ends, all end."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gan_cli.rundir import status

from .conftest import TINY, quick  # type: ignore[import-not-found]
from .several import ROWS, layers, train_all  # type: ignore[import-not-found]
from .test_presets import PRESETS, tiny  # type: ignore[import-not-found]

ENVIRONMENT = {**{k: v for k, v in os.environ.items() if k != "HYDRA_FULL_ERROR"}, "OMP_NUM_THREADS": "1"}
SOAK = "GAN_CLI_SOAK" in os.environ
SOME = [
    *["gan_fashion_mnist", "dcgan_digits", "wgan_gp_mnist", "wgan_gp_cifar10", "cdcgan_mnist", "cgan_mnist"],
    *["pix2pix_facades", "cyclegan_horse2zebra", "theory_1d"],
]
CHOSEN = PRESETS if SOAK else SOME
QUICK = ["dcgan_digits", "cgan_mnist"]
chosen = CHOSEN if SOAK else quick(CHOSEN, *QUICK)
STEPS = 6
EVERY = ["batch_size=4", "log_every=1", "save_every=3", f"sample_every={STEPS}", "gif=false"]
PATIENCE = 240.0  # seconds for anything to happen; a loaded machine needs some of them
ALIKE = 8  # steps after which rounding, which a training multiplies, has not changed its losses yet


def torchrun(count: int = 2) -> list[str]:
    return [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"]


# The same training


@pytest.fixture(scope="module")
def pairs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, data_root: Path) -> Path:
    """Runs by one process and by two, each in a directory. Those of slow tests only if there are any to run."""
    every = any(item.path == request.path and item.get_closest_marker("slow") for item in request.session.items)
    home = tmp_path_factory.mktemp("pairs")
    runs = {}
    for preset in CHOSEN if every or SOAK else QUICK:
        args = [arg for arg in tiny(preset, data_root) if not arg.startswith("batch_size=")]
        runs[preset] = [f"experiment={preset}", *args, *EVERY, f"total_steps={STEPS}"]
    dcgan = runs["dcgan_digits"]
    runs |= {"bf16": [*dcgan, "precision=bf16"], "apart": [*dcgan, "sync_batch_norm=false"], "resumed": dcgan}
    if "cyclegan_horse2zebra" in runs:
        runs["files"] = [*runs["cyclegan_horse2zebra"], "dataset.memory_gb=0", "workers=1"]
    (home / "runs.json").write_text(json.dumps(runs))
    here = os.getcwd()
    os.chdir(home)
    try:
        train_all({"resumed": [*dcgan, "total_steps=3"]}, "two")
        command = [*torchrun(), str(Path(__file__).with_name("several.py")), "runs.json", "two"]
        with subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as two:
            try:
                layers("one")
                train_all(runs, "one")
                said, _ = two.communicate(timeout=2 * PATIENCE)
            finally:
                two.kill()
    finally:
        os.chdir(here)
    assert two.returncode == 0, said.decode()
    return home


def kept(home: Path, name: str) -> tuple[Any, list[Any]]:
    return np.load(home / f"{name}-one.0.npz"), [np.load(home / f"{name}-two.{rank}.npz") for rank in range(2)]


@pytest.mark.parametrize("preset", [*chosen, pytest.param("files", marks=pytest.mark.slow)])
def test_the_same_data_in_the_same_order(preset: str, pairs: Path) -> None:
    one, two = kept(pairs, preset)
    batches = [key for key in one.files if key[:5].isdecimal()]
    assert len(batches) >= STEPS and all(rank.files == one.files for rank in two)
    for key in batches:
        assert np.array_equal(one[key], np.concatenate([rank[key] for rank in two])), key


@pytest.mark.parametrize("name", [*chosen, "bf16", "apart"])
def test_every_process_has_the_same_networks(name: str, pairs: Path) -> None:
    _, (first, second) = kept(pairs, name)
    state = [key for key in first.files if not key[:5].isdecimal()]
    assert len(state) > 8
    assert [key for key in state if first[key].tobytes() != second[key].tobytes()] == []


@pytest.mark.parametrize("preset", chosen)
def test_the_same_losses_and_weights(preset: str, pairs: Path, read: Any) -> None:
    """To rounding, relative to the largest of a tensor.

    A bias before a normalisation has no gradient but rounding, which Adam makes steps of its full length from. CycleGAN has
    many of them; the slopes of its |x| and ReLU jump besides, so its gradients may from the third step on.
    """
    jumps = preset.startswith("cyclegan")
    ones, twos = read.rows(pairs / f"{preset}-one"), read.rows(pairs / f"{preset}-two")
    assert [row["step"] for row in ones] == [row["step"] for row in twos] == [*range(1, STEPS + 1)]
    for one, two in zip(ones, twos, strict=True):
        assert one.keys() == two.keys()
        for key in one:
            loose = 3e-2 if jumps and one["step"] > 2 else 1e-3 if key.startswith("metric/") else 2e-5
            assert two[key] == pytest.approx(one[key], rel=loose, abs=1e-6), (key, one["step"])
    one, two = read.tensors(pairs / f"{preset}-one"), read.tensors(pairs / f"{preset}-two")
    assert one.keys() == two.keys()
    for key, values in one.items():
        assert values.dtype == two[key].dtype and values.shape == two[key].shape
        before_norm = key.endswith(("bias", "running_mean")) and (jumps or preset == "wgan_gp_cifar10")
        if key.startswith(("optimizer_", "log_sums")) or not values.size or before_norm:
            continue
        error = np.abs(values.astype(np.float64) - two[key]).max()
        assert error <= (2e-2 if jumps else 2e-5) * max(np.abs(values).max(), 0.1), (key, error)


def test_bf16(pairs: Path, read: Any) -> None:
    ones, twos = read.rows(pairs / "bf16-one"), read.rows(pairs / "bf16-two")
    for key in ("d/loss", "g/loss"):
        assert [row[key] for row in twos] == pytest.approx([row[key] for row in ones], rel=2e-2), key


def test_batch_norm_of_each_part(pairs: Path, read: Any) -> None:
    """Another training, with running statistics of the same size."""
    assert "batch norm over each part by itself" in (pairs / "apart-two" / "train.log").read_text()
    ones, twos = read.rows(pairs / "apart-one"), read.rows(pairs / "apart-two")
    assert [row["d/loss"] for row in twos] != pytest.approx([row["d/loss"] for row in ones], rel=1e-4)
    one, two = read.tensors(pairs / "apart-one"), read.tensors(pairs / "apart-two")
    for key in (key for key in one if key.endswith("running_var")):
        assert two[key] == pytest.approx(one[key], rel=0.3), key
    assert read.rows(pairs / "dcgan_digits-one") == ones, "nothing to one process"


def test_one_process_goes_on_as_two(pairs: Path, read: Any) -> None:
    said = (pairs / "resumed-two" / "train.log").read_text()
    assert "step 3" in said and "processes: 1 -> 2" in said
    one, two = read.tensors(pairs / "dcgan_digits-one"), read.tensors(pairs / "resumed-two")
    for key in (key for key in one if key.startswith("generator")):
        assert two[key] == pytest.approx(one[key], abs=2e-6), key


def test_one_directory_by_the_first_process(pairs: Path, read: Any) -> None:
    names = [{path.name for path in (pairs / f"dcgan_digits-{suffix}").iterdir()} for suffix in ("one", "two")]
    assert names[0] == names[1]
    events = [list((pairs / f"dcgan_digits-{suffix}" / "tensorboard").iterdir()) for suffix in ("one", "two")]
    assert len(events[0]) == len(events[1])
    assert read.info(pairs / "dcgan_digits-two")["machine"]["processes"] == 2
    said = (pairs / "dcgan_digits-two" / "train.log").read_text()
    assert said.count("processes: 2 (gloo), 2 of 4 samples each, batch norm over the whole batch") == 1
    assert status.read(pairs / "dcgan_digits-two")["state"] == "complete"  # type: ignore[index]


# Its parts


def whole(one: Any, two: list[Any], key: str) -> tuple[np.ndarray, np.ndarray]:
    """A tensor of all rows, by one process and put together from those of two; real ones first, then the generated."""
    if key.endswith((".logits", ".input")):
        halves = [rank[key].reshape(2, ROWS // 2, *one[key].shape[1:]) for rank in two]
        return one[key], np.concatenate(halves, axis=1).reshape(one[key].shape)
    return one[key], two[0][key]


def test_layers_are_those_of_the_whole_batch(pairs: Path) -> None:
    """Batch norm against PyTorch's on the whole batch, and dropout: forward, backward, running statistics."""
    one, two = kept(pairs, "layers")
    keys = [key for key in one.files if key.split(".")[0] in ("fp32", "bf16")]
    assert {"fp32.logits", "fp32.input", "fp32.grad.maps.1.weight", "bf16.buffer.maps.5.running_var"} <= set(keys)
    for key in keys:
        expected, found = whole(one, two, key)
        found = found / 2 if key.endswith(".input") else found  # the mean over all of a loss that is a mean over half
        error = np.abs(found.astype(np.float64) - expected).max()
        tolerance = 1e-5 if key.startswith("fp32") else 5e-2
        assert error <= tolerance * max(1.0, np.abs(expected).max()), (key, error)
    assert np.array_equal(*(rank["fp32.grad.maps.0.weight"] for rank in two))


def test_outside_of_an_update_nothing_is_shared(pairs: Path) -> None:
    one, two = kept(pairs, "layers")
    for rank in two:
        assert rank["alone"].shape == one["alone"].shape and rank["noise"].shape == one["noise"].shape == (3, 2)


def test_a_penalty_through_synchronised_batch_norm_is_refused(pairs: Path) -> None:
    one, two = kept(pairs, "layers")
    assert str(one["twice"]) == "possible"
    for rank in two:
        assert all(text in str(rank["twice"]) for text in ("(sync_batch_norm)", "sync_batch_norm=false"))


def test_jitter_and_order_of_a_part() -> None:
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
        command = [*torchrun(), "-m", "gan_cli.train", *args, "run_dir=run"]
        shell = ["bash", "-c", f'{before}exec "$@"', "bash", *command]
        with self.output.open("w") as output:
            self.process = subprocess.Popen(shell, cwd=cwd, env=ENVIRONMENT, stdout=output, stderr=output)

    def find(self) -> None:
        """The processes that torchrun has started by now."""
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if f"PPid:\t{self.process.pid}\n" in (folder / "status").read_text():
                    environ = dict(item.split(b"=", 1) for item in (folder / "environ").read_bytes().split(b"\0") if item)
                    self.ranks[int(environ[b"RANK"])] = int(folder.name)

    @property
    def said(self) -> list[str]:
        """Lines of gan-train, those of torchrun left out."""
        return [line for line in self.output.read_text().splitlines() if line.startswith("gan-train: ")]

    def until(self, done: Callable[[], bool]) -> None:
        end = time.monotonic() + PATIENCE
        while not done():
            assert time.monotonic() < end and self.process.poll() is None, self.output.read_text()
            time.sleep(0.01)
        self.find()

    def ended(self, seconds: float = PATIENCE) -> None:
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


ENDS = [(0, signal.SIGKILL), (1, signal.SIGTERM), (None, signal.SIGKILL)]  # a rank, or torchrun
ENDS = [(1, signal.SIGKILL), *ENDS] if SOAK else ENDS


@needs_proc
@pytest.mark.parametrize("ends", quick({"stopped": ENDS[-2:-1], "killed, stopped twice": ENDS}, "stopped"))
@pytest.mark.slow
def test_whatever_ends_it_it_goes_on(
    ends: list[tuple[int | None, int]], start: Any, train: Any, read: Any, tmp_path: Path
) -> None:
    """Finished by one process: as if there had been one process all along.

    How many steps there are depends on the machine, so losses are compared only of the first ones.
    """
    run, step = tmp_path / "run", 0

    def later() -> bool:
        return (run / "checkpoints").exists() and bool(read.steps(run)) and read.steps(run)[-1] > step

    for who, number in ends:
        training = start(*DCGAN, "total_steps=100000")
        training.until(later)
        os.kill(training.process.pid if who is None else training.ranks[who], number)
        training.ended()
        assert len(training.said) == 1, (who, number, training.output.read_text())
        line, state = training.said[0], status.read(run)
        assert state is not None
        if (who, number) == (1, signal.SIGKILL):
            assert "error: " in line and "(killed" in line
            assert (state["state"], state["exit_code"], state["message"]) == ("failed", 70, line.partition("error: ")[2])
        elif (who, number) == (0, signal.SIGKILL):
            assert "error: rank 1 of 2: " in line and "(killed" in line
        else:  # SIGTERM, and for torchrun's death too
            assert f"stopped at step {read.steps(run)[-1]} of 100000 by SIGTERM, state saved" in line
            assert "Continue with: " in line and "torchrun --nproc-per-node=2 -m gan_cli.train" in line
            assert (state["state"], state["step"], state["exit_code"]) == ("preempted", read.steps(run)[-1], 75)
        step = read.steps(run)[-1]
    last = f"total_steps={step + 2}"
    result = train(*DCGAN, last, "run_dir=run")
    assert "processes: 2 -> 1" in result.err
    train(*DCGAN, last, "run_dir=alone")
    assert read.steps(run)[-1] == read.steps(tmp_path / "alone")[-1]
    ones, twos = read.rows(tmp_path / "alone"), read.rows(run)
    assert [row["step"] for row in ones] == [row["step"] for row in twos] == [*range(1, step + 3)]
    for key in ("d/loss", "g/loss"):
        assert [row[key] for row in twos[:ALIKE]] == pytest.approx([row[key] for row in ones[:ALIKE]], rel=1e-3), key


@needs_proc
@pytest.mark.slow
def test_a_full_disk_ends_all(start: Any, read: Any, tmp_path: Path) -> None:
    training = start(*DCGAN, "total_steps=100000", before="ulimit -f 8; ")
    training.until(lambda: training.process.poll() is not None or bool(training.said))
    training.ended()
    (line,) = training.said
    assert "step 2 " in line and "File too large (run)" in line
    assert (status.read(tmp_path / "run") or {})["exit_code"] == 74


@pytest.mark.slow
@needs_proc
def test_what_one_process_alone_meets_it_says(start: Any, tmp_path: Path) -> None:
    (tmp_path / "my_losses.py").write_text(
        "import os\n"
        "from gan_cli.system.errors import DataError\n"
        "from gan_cli.losses import NonSaturating\n"
        "class Odd(NonSaturating):\n"
        "    calls = 0\n"
        "    def discriminator(self, real_logits, fake_logits):\n"
        "        Odd.calls += 1\n"
        "        if os.environ['RANK'] == '1' and Odd.calls == 3:\n"
        "            raise DataError('an image cannot be read', 'a.png', 'Remove it')\n"
        "        return super().discriminator(real_logits, fake_logits)\n"
    )
    training = start(*DCGAN, "loss.adversarial._target_=my_losses.Odd", "total_steps=100000")
    training.until(lambda: training.process.poll() is not None or len(training.said) == 2)
    training.ended()
    one, two = sorted(training.said)
    assert "(rank 1 of 2: an image cannot be read (a.png). Remove it." in one
    assert two == "gan-train: error: rank 1 of 2: an image cannot be read (a.png). Remove it."
    assert (status.read(tmp_path / "run") or {})["exit_code"] == 70


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["batch_size=7"], ["batch_size=7", "(batch_size)", "batch_size=8"]),
        pytest.param(["-m", "seed=0,1"], ["(-m under torchrun)"], marks=pytest.mark.slow),
        pytest.param(["lrr=1"], ["'lrr' (lrr)", "optimizer.lr"], marks=pytest.mark.slow),
    ],
)
def test_a_mistake_is_said_once(args: list[str], expected: list[str], tmp_path: Path) -> None:
    """Before torch is imported, so torchrun, which takes seconds, is left out."""
    said, codes = [], []
    for rank in range(2):
        several = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
        master = {"MASTER_ADDR": "localhost", "MASTER_PORT": "1"}
        command = [sys.executable, "-m", "gan_cli.train", *args]
        ended = subprocess.run(
            command, cwd=tmp_path, env=ENVIRONMENT | several | master, capture_output=True, text=True, timeout=PATIENCE
        )
        said.append(ended.stdout + ended.stderr)
        codes.append(ended.returncode)
    assert codes == [2, 2]
    assert all(text in said[0] for text in expected) and len(said[0].splitlines()) == 1 and said[1] == ""
    assert list(tmp_path.iterdir()) == []
