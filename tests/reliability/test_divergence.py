"""What is not finite never reaches an optimizer: skipped, counted, and after so many in a row the end."""

from __future__ import annotations

import importlib
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gan_cli.objective import Turn
from gan_cli.training.loop import Player

ROWS = ["log_every=1", "sample_every=100", "save_every=4"]


def of(run: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((run / "status.json").read_text())
    return content


class Task:
    """A loss of D's weights alone."""

    def __init__(self, loss: Callable[[], Tensor]) -> None:
        self.loss = loss

    def prepare(self, *args: Any) -> None:
        return None

    def shared(self, made: None) -> None:
        return None

    def discriminator_loss(self, *args: Any) -> Any:
        return self.loss(), {"d/loss": torch.ones(())}


def player(make: Callable[..., torch.optim.Optimizer], loss: Callable[[nn.Module], Tensor], **options: Any) -> Player:
    torch.manual_seed(0)
    network = nn.Linear(3, 2)
    optimizer = make(network.parameters(), lr=0.1, **options)
    task: Any = Task(lambda: loss(network))
    return Player("discriminator", task, network, optimizer, lambda step: 1.0)


def state(of: Player) -> list[Tensor]:
    moments = [value for entry in of.optimizer.state.values() for value in entry.values() if isinstance(value, Tensor)]
    return [tensor.detach().clone() for tensor in (*of.network.parameters(), *moments)]


OPTIMIZERS: list[Any] = [
    (torch.optim.Adam, {"fused": True}),
    (torch.optim.AdamW, {"fused": True}),
    (torch.optim.SGD, {"fused": True, "momentum": 0.9}),
    (torch.optim.Adam, {}),
    (torch.optim.RMSprop, {}),
]


@pytest.mark.parametrize(("make", "options"), OPTIMIZERS)
@pytest.mark.parametrize("where", ["loss", "gradient", "one weight's gradient"])
@pytest.mark.parametrize("harmed", [(2, 3), (0,)], ids=["later", "at first"])
def test_an_update_that_is_not_finite_changes_nothing(make: Any, options: Any, where: str, harmed: tuple[int, ...]) -> None:
    x, harm = torch.ones(4, 3), [False]

    def loss(network: nn.Module) -> Tensor:
        value = network(x).square().mean()
        if harm[0] and where == "loss":
            return value * math.inf
        if harm[0] and where == "gradient":
            return value + (value.detach() - value).abs().sqrt()  # 0, with a slope of infinity
        if harm[0]:
            weight = network.weight[1, 2]
            return value + (weight - weight.detach()).sqrt()
        return value

    mine, other = player(make, loss, **options), player(make, loss, **options)
    batch = {"image": x}
    for step in range(6):
        harm[0] = step in harmed
        before = state(mine)
        logs, _ = mine.update(batch, None, Turn())
        assert logs["d/skipped"].item() == harm[0] and math.isfinite(logs["d/grad_norm"].item()) != harm[0]
        assert mine.skipped.item() == (step - min(harmed) + 1 if harm[0] else 0)
        if harm[0]:
            assert all(torch.equal(a, b) for a, b in zip(before, state(mine), strict=False))  # zeros may be new
            assert mine.not_finite() == "gradient of weight"
        else:
            other.update(batch, None, Turn())  # never meets it
    assert all(torch.equal(a, b) for a, b in zip(state(mine), state(other), strict=True))


@pytest.fixture
def harm(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """``harm("discriminator", "loss", steps)``: in these steps, counted from 0, its loss or gradient is not finite."""

    def install(side: str, what: str, steps: range, task: str = "noise.NoiseToImage") -> None:
        module, name = task.split(".")
        owner = getattr(importlib.import_module(f"gan_cli.tasks.{module}"), name)
        original, calls = getattr(owner, f"{side}_loss"), iter(range(10**6))

        def call(self: Any, *args: Any) -> Any:
            loss, logs = original(self, *args)
            if next(calls) in steps:
                loss = loss * math.nan if what == "loss" else loss + (loss - loss.detach()).sqrt()
            return loss, logs

        monkeypatch.setattr(owner, f"{side}_loss", call)

    return install


@pytest.mark.parametrize(
    ("side", "what"),
    [
        *[("discriminator", "loss"), ("generator", "gradient")],
        *[pytest.param(*case, marks=pytest.mark.slow) for case in (("discriminator", "gradient"), ("generator", "loss"))],
    ],
)
def test_some_skipped_updates_end_no_run(side: str, what: str, harm: Any, train: Any, read: Any, tmp_path: Path) -> None:
    harm(side, what, range(2, 4))
    result = train(*ROWS, "total_steps=8", "run_dir=r")
    player = side[0]
    (line,) = (line for line in result.err.splitlines() if "step 3 " in line and "skipped" in line)
    assert f" {player.upper()} " in line
    rows = read.rows(tmp_path / "r")
    assert [row["step"] for row in rows if f"{player}/skipped" in row] == [3, 4]
    assert (f"{player}/grad_norm" in rows[2], f"{player}/grad_norm" in rows[4]) == (False, True)
    assert read.steps(tmp_path / "r") == [8]  # not while updates are skipped
    assert "step 4" in result.err and of(tmp_path / "r")["state"] == "complete"


def test_what_reached_the_statistics_of_a_network_is_divergence(
    train: Any, monkeypatch: pytest.MonkeyPatch, read: Any, tmp_path: Path
) -> None:
    from gan_cli.data.batches import Batches

    serve, calls = Batches.__next__, iter(range(10**6))

    def poisoned(self: Any) -> Any:
        batch = serve(self)
        return {**batch, "image": batch["image"] * math.inf} if next(calls) == 4 else batch

    monkeypatch.setattr(Batches, "__next__", poisoned)
    result = train(*ROWS, "total_steps=50", "run_dir=r", code=79)
    assert "running_" in result.errors[0] and "step 5" in result.errors[0]
    assert read.steps(tmp_path / "r") == [4]


def test_the_best_checkpoint_is_not_one_of_a_skipped_update(harm: Any, train: Any, read: Any, tmp_path: Path) -> None:
    harm("generator", "loss", range(7, 8), task="paired.PairedTranslation")
    args = ["log_every=1", "save_every=4", "eval_every=4", "num_samples=4", "metrics=[psnr]", "keep_checkpoints=1"]
    train("model=pix2pix", *args, "total_steps=9", "run_dir=r", tiny="pix2pix")
    best = json.loads((tmp_path / "r" / "best.json").read_text())
    assert best["step"] == 4 and read.steps(tmp_path / "r") == [4, 9]


def test_the_share_counts_every_update_of_a_critic(harm: Any, train: Any, read: Any, tmp_path: Path) -> None:
    harm("discriminator", "loss", range(4, 6))
    train(*ROWS, "loss.n_critic=4", "total_steps=3", "run_dir=r")
    assert [row.get("d/skipped") for row in read.rows(tmp_path / "r")] == [None, 0.5, None]


def test_a_signal_does_not_hide_divergence(harm: Any, train: Any, stop_at: Any, read: Any, tmp_path: Path) -> None:
    import signal

    harm("discriminator", "loss", range(5, 100))
    stop_at(31, signal.SIGTERM)
    train("log_every=100", "save_every=4", "total_steps=200", "max_skipped_updates=25", "run_dir=r", code=79)
    assert read.steps(tmp_path / "r") == [4] and of(tmp_path / "r")["state"] == "diverged"


@pytest.mark.parametrize(("side", "what"), [("discriminator", "loss"), ("generator", "gradient")])
def test_too_many_in_a_row_are_divergence(side: str, what: str, harm: Any, train: Any, read: Any, tmp_path: Path) -> None:
    harm(side, what, range(5, 100))
    result = train(*ROWS, "total_steps=50", "max_skipped_updates=4", "run_dir=r", code=79)
    (line,) = result.errors
    assert side in line and "step 6 (4 " in line and "step 4" in line
    found = of(tmp_path / "r")
    assert (found["state"], found["exit_code"], found["step"]) == ("diverged", 79, 9)
    assert read.steps(tmp_path / "r") == [4] and read.rows(tmp_path / "r")[-1]["step"] == 9
    assert "Traceback" not in result.err


def test_the_critics_updates_are_counted_one_by_one(harm: Any, train: Any, tmp_path: Path) -> None:
    harm("discriminator", "loss", range(6, 100))  # from the first update of step 3 on
    result = train(*ROWS, "loss.n_critic=3", "total_steps=50", "max_skipped_updates=7", "run_dir=r", code=79)
    assert "step 3 (9 " in result.errors[0]


def test_a_diverged_run_goes_on_with_another_learning_rate(train: Any, harm: Any, read: Any, tmp_path: Path) -> None:
    harm("discriminator", "loss", range(5, 15))
    args = [*ROWS, "total_steps=20", "run_dir=r"]
    train(*args, code=79)
    assert read.steps(tmp_path / "r") == [4]
    refused = train(*args, "optimizer.lr=1e-5", code=2)
    assert "optimizer.lr: 0.0002 -> 1e-05 (r)" in refused.errors[0]
    assert refused.errors[0].endswith("allow_change=optimizer.lr.")
    result = train(*args, "optimizer.lr=1e-5", "allow_change=[optimizer.lr]")
    assert "step 4 on optimizer.lr: 0.0002 -> 1e-05" in result.err
    assert any("optimizer.lr: 0.0002 -> 1e-05" in change for change in read.info(tmp_path / "r")["changes"])
    assert of(tmp_path / "r")["state"] == "complete"


def test_the_count_goes_on_in_a_run_that_resumes(harm: Any, train: Any, stop_at: Any, read: Any, tmp_path: Path) -> None:
    import signal

    harm("generator", "loss", range(2, 100))
    stop_at(4, signal.SIGTERM)
    train(*ROWS, "total_steps=50", "run_dir=r", code=75)
    assert read.info(tmp_path / "r")["skipped"] == {"generator": 2, "discriminator": 0}
    harm("generator", "loss", range(100))
    result = train(*ROWS, "total_steps=50", "run_dir=r", code=79)
    assert "generator" in result.errors[0] and "step 3 (10 " in result.errors[0]
