"""The report on a run's health: each sign on rows made up for it, and on runs made to fail in each way."""

from __future__ import annotations

import gzip
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gan_cli.data.dataset import ArrayDataset
from gan_cli.losses import NonSaturating
from gan_cli.objective import Objective
from gan_cli.tasks.noise import NoiseToImage, diversity
from gan_cli.training.health import Health, against_divergence
from gan_cli.training.loop import Player
from gan_cli.training.overfitting import Overfitting, held_out

from .conftest import quick  # type: ignore[import-not-found]

TOTAL = 2000
WELL = {
    **{"d/accuracy": 0.9, "d/loss": 0.6, "g/grad_norm": 3.0},
    **{"metric/diversity": 0.9, "metric/classes": 1.0, "d/overfitting": 0.1},
}
ILL = {
    "D is saturated": {"d/accuracy": 1.0, "d/loss": 0.001},
    "the gradient of G has vanished": {"g/grad_norm": 1e-4},
    "G has collapsed": {"metric/diversity": 0.1},
    "G misses classes": {"metric/classes": 0.5},
    "D is overfitting": {"d/overfitting": 0.8},
}


def report(rows: list[dict[str, float]], every: int = 50, total: int = TOTAL) -> list[str]:
    health = Health(total)
    return [line for k, row in enumerate(rows, 1) for line in health.update({"step": k * every, **row})]


# Rows


@pytest.mark.parametrize(("what", "ill"), ILL.items())
def test_what_lasts_is_said_once_and_so_is_its_end(what: str, ill: dict[str, float]) -> None:
    rows = [WELL] * 20 + [WELL | ill] * 10 + [WELL] * 10
    begins, ends = report(rows)
    assert what in begins and "step 1050" in begins and "step 1550" not in begins
    assert what in ends and "step 1550" in ends
    assert len(report(rows[:30])) == 1


@pytest.mark.parametrize(("what", "ill"), ILL.items())
def test_single_rows_say_nothing(what: str, ill: dict[str, float]) -> None:
    assert report([WELL] * 20 + [WELL | ill, WELL] * 10) == []
    begins = [WELL] * 20 + [WELL | ill] * 10
    assert len(report(begins + [WELL, WELL | ill] * 10)) == 1


@pytest.mark.parametrize(("what", "ill"), ILL.items())
def test_what_is_short_against_the_run_says_nothing(what: str, ill: dict[str, float]) -> None:
    assert report([WELL] * 20 + [WELL | ill] * 10 + [WELL] * 20, total=100_000) == []


@pytest.mark.parametrize(("what", "ill"), ILL.items())
def test_rows_without_the_number_do_not_count(what: str, ill: dict[str, float]) -> None:
    without = {key: value for key, value in WELL.items() if key not in ill}
    rows = [WELL] * 20 + [WELL | ill, *[without] * 3] * 4
    (line,) = report(rows)
    assert what in line and "step 1050" in line
    assert report([{}] * 40) == []


def test_every_line_is_one_line_with_its_numbers() -> None:
    lines = report([WELL] * 20 + [{key: value for ill in ILL.values() for key, value in ill.items()}] * 10)
    assert len(lines) == len(ILL) and all("\n" not in line and "{" not in line for line in lines)
    for number in ("100.0%", "0.001", "0.0001", "10%", "50%", "80%"):
        assert any(number in line for line in lines), number


def test_old_rows_say_again_what_they_said() -> None:
    rows = [{"step": 50 * k, **WELL, **(ILL["D is saturated"] if k > 15 else {})} for k in range(1, 31)]
    whole, first, second = Health(TOTAL), Health(TOTAL), Health(TOTAL)
    said = [line for row in rows for line in whole.update(row)]
    before = [line for row in rows[:17] for line in first.update(row)]
    for row in rows[:17]:
        second.update(row)
    assert before + [line for row in rows[17:] for line in second.update(row)] == said and len(said) == 1


@pytest.mark.parametrize("ill", [{"d/accuracy": 1.0, "d/loss": 0.05}, {"d/accuracy": 0.98, "d/loss": 0.001}])
def test_a_discriminator_well_ahead_is_not_saturated(ill: dict[str, float]) -> None:
    assert report([WELL | ill] * 40) == []


def test_a_penalty_is_no_part_of_the_loss_that_saturates() -> None:
    assert report([{"d/accuracy": 1.0, "d/loss": 0.5, "d/penalty": 0.499}] * 40) != []


def test_a_gradient_that_was_never_there_has_vanished() -> None:
    (line,) = report([{"g/grad_norm": 0.0}] * 40)
    assert "the gradient of G" in line and "step 50:" in line


def test_a_gradient_may_be_small_and_may_shrink_slowly() -> None:
    assert report([{"g/grad_norm": 1e-5}] * 40) == []
    assert report([{"g/grad_norm": 10 * 0.9**k} for k in range(100)], total=5000) == []
    assert report([{"g/grad_norm": 1e6 if k == 10 else 1.0} for k in range(40)]) == []


def test_a_generator_may_take_its_time_to_become_diverse() -> None:
    young = [{"metric/diversity": 0.1, "metric/classes": 0.2}] * 16
    assert report(young + [WELL] * 24) == []
    assert len(report(young * 2)) == 2
    fallen = report([{"metric/diversity": 0.8}] * 4 + [{"metric/diversity": 0.1}] * 8)
    assert "G has collapsed" in fallen[0] and "step 250:" in fallen[0]
    assert report([{"metric/diversity": 0.1}] * 40, every=10, total=400) == []


# What the rows hold


def test_the_gradient_norm_is_over_all_weights() -> None:
    network = nn.ModuleDict({"a": nn.Linear(2, 3), "b": nn.Linear(3, 1, bias=False)})
    optimizer = torch.optim.SGD(network.parameters(), 0.1)
    player = Player("discriminator", None, network, optimizer, lambda step: 1.0)
    assert player.gradient_norm().item() == 0
    network["b"](network["a"](torch.randn(5, 2))).sum().backward()
    squares = sum(float((p.grad.double() ** 2).sum()) for p in network.parameters() if p.grad is not None)
    assert player.gradient_norm().item() == pytest.approx(math.sqrt(squares))
    network["b"].weight.grad = None
    assert player.gradient_norm().item() < math.sqrt(squares)


def test_diversity_is_the_mean_difference_of_pairs() -> None:
    images = torch.randn(6, 2, 3, 3)
    label = torch.tensor([0, 0, 0, 4, 4, 7])

    def differences(same: bool) -> list[float]:
        array, pairs = images.double().numpy(), [(i, j) for i in range(6) for j in range(i)]
        return [np.sqrt(((array[i] - array[j]) ** 2).mean()) for i, j in pairs if not same or label[i] == label[j]]

    assert float(diversity(images, None)) == pytest.approx(np.mean(differences(False)), rel=1e-5)
    assert float(diversity(images, label)) == pytest.approx(np.mean(differences(True)), rel=1e-5)
    assert diversity(images[:1], None) is None and diversity(images[2:4], label[2:4]) is None


class Copies(nn.Module):
    """G(z) = the data set's image at each z's place in turn, or always the first."""

    def __init__(self, images: Tensor, collapsed: bool) -> None:
        super().__init__()
        self.images, self.collapsed = images, collapsed

    def forward(self, z: Tensor) -> Tensor:
        return self.images[torch.zeros(len(z), dtype=torch.int64) if self.collapsed else torch.arange(len(z))]


def dataset(n: int = 64, seed: int = 0) -> ArrayDataset:
    pixels = torch.randint(256, (n, 1, 4, 4), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)
    return ArrayDataset(pixels, labels=None, class_names=[], fingerprint="")


def test_diversity_is_one_for_the_data_and_nothing_for_one_image() -> None:
    data, cpu = dataset(), torch.device("cpu")
    for collapsed, expected in ((False, 1.0), (True, 0.0)):
        generator = Copies(data.images.float() / 127.5 - 1, collapsed)
        task = NoiseToImage(generator, nn.Flatten(), Objective(NonSaturating()), latent_dim=3)
        assert task.measure(generator, task.examples(data, 0, cpu)) == pytest.approx({"metric/diversity": expected}, abs=1e-5)


class Memory(nn.Module):
    """Logits 2 for images of ``known``, ``doubt`` for others, -3 for black ones; counts what it was shown while training."""

    def __init__(self, known: Tensor, doubt: float) -> None:
        super().__init__()
        self.known, self.doubt = known.flatten(1), doubt
        self.norm = nn.BatchNorm1d(1)

    def forward(self, images: Tensor) -> Tensor:
        flat = images.flatten(1)
        known = (torch.cdist(flat, self.known).min(1).values < 0.1).float()
        logits = torch.where(flat.max(1).values == -1, -3.0, known * 2 + (1 - known) * self.doubt)
        return logits + 0 * self.norm(logits[:, None])[:, 0]


@pytest.mark.parametrize(("doubt", "expected"), [(2.0, 0.0), (-3.0, 1.0), (1.0, 0.2)])
def test_overfitting_is_how_far_held_out_logits_are_from_those_of_training(
    doubt: float, expected: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    train, rest = dataset(300), dataset(70, seed=1)
    monkeypatch.setattr("gan_cli.training.overfitting.held_out", lambda node: rest)
    generator = nn.Sequential(nn.BatchNorm1d(3), nn.Dropout(0.5), nn.Linear(3, 16), nn.Unflatten(1, (1, 4, 4)))
    nn.init.zeros_(generator[2].weight)
    nn.init.constant_(generator[2].bias, -1.0)
    discriminator = Memory(train.images.float() / 127.5 - 1, doubt)
    task = NoiseToImage(generator, discriminator, Objective(NonSaturating()), latent_dim=3)
    before = {key: value.clone() for key, value in task.state_dict().items()}
    found = Overfitting(task, train, {}, seed=0, device=torch.device("cpu")).measure()
    assert found == pytest.approx({"d/overfitting": expected}, abs=1e-5)
    assert all(torch.equal(value, before[key]) for key, value in task.state_dict().items())
    assert all(module.training for module in task.modules())


def test_a_discriminator_that_cannot_tell_is_not_said_to_overfit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gan_cli.training.overfitting.held_out", lambda node: dataset(70, seed=1))
    generator = nn.Sequential(nn.Linear(3, 16), nn.Unflatten(1, (1, 4, 4)))
    discriminator = nn.Sequential(nn.Flatten(), nn.Linear(16, 1), nn.Hardtanh(0, 0.0001))
    task = NoiseToImage(generator, discriminator, Objective(NonSaturating()), latent_dim=3)
    with torch.no_grad():
        discriminator[1].weight.zero_()
    assert Overfitting(task, dataset(), {}, seed=0, device=torch.device("cpu")).measure() == {}


def test_what_is_held_out() -> None:
    digits = {"_target_": "gan_cli.data.digits.digits", "image_size": 16}
    found = held_out({**digits, "split": "train"})
    assert found is not None and len(found) == 355
    assert held_out({**digits, "split": "all"}) is None and held_out(digits) is None
    absent = {"_target_": "gan_cli.data.idx.mnist", "root": "nowhere", "image_size": 32, "split": "train", "download": True}
    assert held_out(absent) is None


# Runs


def lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if "health: " in line]


MLP = ["model=mlp", "model.generator.hidden=[32]", "model.discriminator.hidden=[32]", "batch_size=16", "run_dir=r"]


@pytest.mark.slow
def test_a_healthy_run_is_silent(train: Any, read: Any, tmp_path: Path) -> None:
    size = ["model.generator.width=8", "model.discriminator.width=8", "dataset.image_size=16", "batch_size=32"]
    result = train(*size, "total_steps=300", "log_every=20", "sample_every=100", "run_dir=r")
    assert lines(result.err) == []
    assert read.rows(tmp_path / "r")[-1].keys() >= {"d/accuracy", "d/grad_norm", "g/grad_norm", "metric/diversity"}


def test_a_discriminator_far_too_fast(train: Any, tmp_path: Path) -> None:
    slow = ["optimizer.lr=1e-6", "optimizer.discriminator.lr=5e-3"]
    result = train(*MLP, *slow, "total_steps=200", "log_every=10", tiny="mlp")
    (line,) = lines(result.err)
    assert "D is saturated" in line and "100.0%" in line and "optimizer.discriminator.lr" in line
    assert lines((tmp_path / "r" / "train.log").read_text())[0].endswith(line)
    again = train(*MLP, *slow, "total_steps=250", "log_every=10", tiny="mlp")
    assert lines(again.err) == []  # it was said


def test_minimax_against_a_discriminator_too_strong(train: Any) -> None:
    result = train(*MLP, "loss=minimax", "optimizer.discriminator.lr=2e-2", "total_steps=200", "log_every=10", tiny="mlp")
    assert any("the gradient of G has vanished" in line and "loss=non_saturating" in line for line in lines(result.err))


@pytest.mark.slow
def test_a_collapsed_generator(train: Any) -> None:
    fast = ["optimizer.lr=2e-2", "total_steps=700", "log_every=50", "sample_every=50"]
    result = train(*MLP, *fast, tiny="mlp")
    assert any("G has collapsed" in line and "a lower optimizer.lr" in line for line in lines(result.err))


@pytest.mark.slow
def test_an_overfitting_discriminator(train: Any, tmp_path: Path) -> None:
    random, raw = np.random.default_rng(0), tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part, n in (("train", 16), ("t10k", 100)):
        images = random.integers(0, 2, (n, 4, 4), dtype=np.uint8).repeat(7, 1).repeat(7, 2) * 255
        labels = np.arange(n, dtype=np.uint8) % 10
        for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
            header = bytes([0, 0, 8, array.ndim]) + b"".join(size.to_bytes(4, "big") for size in array.shape)
            (raw / f"{part}-{kind}-ubyte.gz").write_bytes(gzip.compress(header + array.tobytes()))
    data = ["dataset=mnist", f"dataset.root={tmp_path}", "dataset.image_size=8", "dataset.fit=resize"]
    fast = ["optimizer.lr=1e-3", "model.discriminator.hidden=[128]", "optimizer.betas=[0.5,0.999]"]
    result = train(*MLP, *data, *fast, "total_steps=500", "log_every=50", "sample_every=50", tiny="mlp")
    assert any("D is overfitting" in line and "more data" in line for line in lines(result.err)), result.err


@pytest.mark.parametrize(
    ("loss", "todo"),
    quick(
        [("minimax", "loss=wgan_gp"), ("hinge", "loss=wgan_gp"), ("wgan_gp", "loss.penalty.weight")],
        *[("hinge", "loss=wgan_gp"), ("wgan_gp", "loss.penalty.weight")],
    ),
)
def test_values_that_are_not_finite(loss: str, todo: str, train: Any) -> None:
    fast = ["optimizer=sgd", "optimizer.lr=1e38", "total_steps=30", "log_every=10"]
    result = train(*MLP, f"loss={loss}", *fast, tiny="mlp", code=79)
    (line,) = result.errors
    assert "discriminator's " in line and "generator's " in line and " step 1 (10 " in line
    assert "optimizer.lr=0.001" in line and todo in line


def test_advice_without_a_learning_rate() -> None:
    assert against_divergence({}, {}).count("loss=wgan_gp") == 1
    assert "loss.constraint.limit" in against_divergence({"penalty": None, "constraint": {"limit": 0.01}}, {"lr": 1})
