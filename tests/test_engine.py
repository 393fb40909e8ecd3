"""The alternating loop: who moves when, on which images, with which weights."""

from __future__ import annotations

import copy
from collections.abc import Callable
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gan_cli.data.batches import Batches
from gan_cli.data.dataset import ArrayDataset
from gan_cli.losses import NonSaturating, Wasserstein
from gan_cli.networks import mlp
from gan_cli.objective import Objective, WeightClip
from gan_cli.penalties import GradientPenalty
from gan_cli.schedules import Constant
from gan_cli.tasks.noise import NoiseToImage
from gan_cli.tasks.task import Batch
from gan_cli.training.ema import EMA
from gan_cli.training.loop import Player, Progress, frozen, train

N, BATCH = 10, 4  # batches run across the ends of epochs
PIXELS = torch.randint(256, (N, 1, 4, 4), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


class NormedCritic(nn.Module):
    """A critic with affine normalisation, whose weights start at 1."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(16, 6), nn.LayerNorm(6), nn.LeakyReLU(0.2), nn.Linear(6, 1))

    def forward(self, images: Tensor, label: Tensor | None = None) -> Tensor:
        return self.layers(images).flatten()


class Game:
    """Two small players; ``turns`` records every call of a loss."""

    def __init__(self, objective: Objective | None = None, critic: nn.Module | None = None, **player: Any) -> None:
        torch.manual_seed(0)
        self.generator = mlp.Generator(latent_dim=3, image_size=4, channels=1, hidden=[6])
        self.critic = critic or mlp.Discriminator(image_size=4, channels=1, hidden=[6])
        self.objective = objective or Objective(NonSaturating())
        self.task = NoiseToImage(self.generator, self.critic, self.objective, latent_dim=3)
        self.turns: list[tuple[str, Batch]] = []
        self.at_turn: Callable[[str], None] = lambda who: None
        self.ema = EMA(self.generator, half_life=20)
        self.progress = Progress()
        options = {"schedule": Constant(), "lr": 0.1, **player}
        lr = options.pop("lr")
        g, d = torch.optim.Adam(self.generator.parameters(), lr=lr), torch.optim.Adam(self.critic.parameters(), lr, (0.5, 0.9))
        self.g = Player("generator", self.task, self.generator, g, **options)
        self.d = Player("discriminator", self.task, self.critic, d, constraint=self.objective.constraint, **options)
        for who, player in (("G", self.g), ("D", self.d)):
            player.loss_and_gradient = self.recorded(who, player.plain_loss_and_gradient)

    def recorded(self, who: str, loss: Callable[..., Any]) -> Callable[..., Any]:
        def call(batch: Batch, *more: Any) -> Any:
            self.turns.append((who, batch))
            self.at_turn(who)
            return loss(batch, *more)

        return call

    def batches(self, position: int = 0) -> Batches:
        dataset = ArrayDataset(PIXELS, labels=None, class_names=[], fingerprint="")
        return Batches(dataset, batch_size=BATCH, seed=5, device=torch.device("cpu"), position=position)

    def run(self, total_steps: int, after_step: Callable[[dict[str, Tensor]], bool] = lambda logs: True) -> Game:
        stream = self.batches(self.progress.images)
        game = SimpleNamespace(
            task=self.task, generator=self.g, discriminator=self.d, ema=self.ema, batches=stream, progress=self.progress
        )
        train(game, total_steps=total_steps, seed=7, after_step=after_step)
        return self

    def state(self) -> dict[str, Tensor]:
        moments = {
            f"{side}.{k}.{name}": value
            for side, player in (("g", self.g), ("d", self.d))
            for k, entry in player.optimizer.state_dict()["state"].items()
            for name, value in entry.items()
        }
        average = {f"ema.{k}": v for k, v in self.ema.average.state_dict().items()}
        return copy.deepcopy({**self.task.state_dict(), **average, **moments})


def objective(n_critic: int = 1, first: Any = "discriminator", **more: Any) -> Objective:
    return Objective(more.pop("adversarial", NonSaturating()), n_critic=n_critic, first=first, **more)


@pytest.mark.parametrize("n_critic", [1, 3, 5])
@pytest.mark.parametrize("first", ["discriminator", "generator"])
def test_order_number_and_batches_of_the_turns(n_critic: int, first: str) -> None:
    steps = 4
    game = Game(objective(n_critic, first)).run(steps)
    step = "D" * n_critic + "G" if first == "discriminator" else "G" + "D" * n_critic
    assert "".join(who for who, _ in game.turns) == step * steps
    assert (game.progress.step, game.progress.images) == (steps, steps * n_critic * BATCH)

    stream = game.batches()
    shown = [batch["image"] for who, batch in game.turns if who == "D"]
    assert all(torch.equal(image, next(stream)["image"]) for image in shown)
    for k, (who, batch) in enumerate(game.turns):
        if who == "G":
            neighbour = game.turns[k - 1 if first == "discriminator" else k + 1]
            assert neighbour[0] == "D" and batch is neighbour[1]


@pytest.mark.parametrize("first", ["discriminator", "generator"])
def test_each_turn_moves_its_own_player_only(first: str) -> None:
    game = Game(objective(3, first))
    states: list[tuple[str, list[Tensor], list[Tensor]]] = []

    def remember(who: str) -> None:
        states.append((who, *([p.detach().clone() for p in n.parameters()] for n in (game.generator, game.critic))))

    game.at_turn = remember
    game.run(2)
    remember("end")
    for (who, g_before, d_before), (_, g_after, d_after) in pairwise(states):
        same = {
            "G": all(torch.equal(a, b) for a, b in zip(g_before, g_after, strict=True)),
            "D": all(torch.equal(a, b) for a, b in zip(d_before, d_after, strict=True)),
        }
        assert same == {"G": who != "G", "D": who != "D"}


@pytest.mark.parametrize("first", ["discriminator", "generator"])
def test_no_gradient_reaches_the_other_player(first: str) -> None:
    game = Game(objective(2, first))
    untouched: dict[str, list[Tensor | None]] = {}

    def gradients(network: nn.Module) -> list[Tensor | None]:
        return [None if p.grad is None else p.grad.clone() for p in network.parameters()]

    def others(who: str) -> nn.Module:
        return game.critic if who == "G" else game.generator

    def equal(a: list[Tensor | None], b: list[Tensor | None]) -> bool:
        return all(x is y if x is None or y is None else torch.equal(x, y) for x, y in zip(a, b, strict=True))

    game.at_turn = lambda who: untouched.update({who: gradients(others(who))})
    checked = []
    for who, player in (("G", game.g), ("D", game.d)):

        def check(*_: Any, who: str = who) -> None:
            checked.append(who)
            assert equal(untouched[who], gradients(others(who)))

        player.optimizer.register_step_pre_hook(check)
    game.run(2)
    assert sorted(checked) == ["D"] * 4 + ["G"] * 2


def test_the_generators_gradient_goes_through_the_discriminator() -> None:
    game = Game().run(1)
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in game.generator.parameters())
    assert all(p.requires_grad for p in game.critic.parameters())


def test_frozen_gives_back_what_it_found() -> None:
    """A feature extractor that its author froze stays frozen."""
    network = nn.Sequential(nn.Linear(2, 2).requires_grad_(False), nn.Linear(2, 1))
    with frozen(network):
        assert not any(p.requires_grad for p in network.parameters())
    assert [p.requires_grad for p in network.parameters()] == [False, False, True, True]
    with pytest.raises(RuntimeError), frozen(network):
        raise RuntimeError
    assert [p.requires_grad for p in network.parameters()] == [False, False, True, True]


@pytest.mark.parametrize("first", ["discriminator", "generator"])
def test_clipping_holds_after_every_critic_update(first: str) -> None:
    limit = 0.01
    game = Game(objective(5, first, adversarial=Wasserstein(), constraint=WeightClip(limit)), NormedCritic(), lr=0.1)
    moved, largest = [], []
    start = [p.detach().clone() for p in game.generator.parameters()]

    def look(*_: Any) -> None:
        largest.append([p.abs().max().item() for p in game.critic.parameters()])

    def at_turn(who: str) -> None:
        if any(t == "D" for t, _ in game.turns[:-1]):  # there has been an update
            look()

    game.at_turn = at_turn
    game.d.optimizer.register_step_post_hook(lambda *_: moved.append(max(p.abs().max() for p in game.critic.parameters())))
    game.run(3)
    look()
    assert len(moved) == 15 and min(moved) > limit, "without the constraint they would leave the interval"
    assert len(largest) >= 15
    assert max(map(max, largest)) <= limit * (1 + 1e-6)
    assert any((a - b).abs().max() > limit for a, b in zip(start, game.generator.parameters(), strict=True))


@pytest.mark.parametrize("n_critic", [1, 3])
def test_the_learning_rate_of_a_step_is_that_of_the_schedule(n_critic: int) -> None:
    game = Game(objective(n_critic), schedule=lambda step: 1 / (step + 1), lr=0.1)
    game.d.optimizer.add_param_group({"params": [nn.Parameter(torch.zeros(1))], "lr": 0.4})
    game.d.base_lrs.append(0.4)
    rates: list[tuple[str, list[float]]] = []
    for who, player in (("G", game.g), ("D", game.d)):
        player.optimizer.register_step_pre_hook(
            lambda optimizer, *_, who=who: rates.append((who, [g["lr"] for g in optimizer.param_groups]))
        )
    game.run(3)
    expected = []
    for step in range(3):
        expected += [("D", [0.1 / (step + 1), 0.4 / (step + 1)])] * n_critic + [("G", [0.1 / (step + 1)])]
    assert [who for who, _ in rates] == [who for who, _ in expected]
    for (_, got), (_, wanted) in zip(rates, expected, strict=True):
        assert got == pytest.approx(wanted)


def test_it_stops_when_told_to() -> None:
    game = Game(objective(2))
    seen: list[dict[str, Tensor]] = []
    game.run(10, lambda logs: bool(seen.append(logs)) or len(seen) < 3)
    assert (game.progress.step, game.progress.images, len(seen)) == (3, 3 * 2 * BATCH, 3)
    assert {"d/loss", "g/loss", "d/real", "d/fake"} <= set(seen[0])
    assert not any(v.requires_grad for logs in seen for v in logs.values())


def test_a_finished_run_does_nothing() -> None:
    game = Game().run(2)
    before = game.state()
    game.run(2, lambda logs: pytest.fail("a step was made"))
    torch.testing.assert_close(game.state(), before, rtol=0, atol=0)


def test_the_average_is_updated_with_the_images_of_each_step(monkeypatch: pytest.MonkeyPatch) -> None:
    game = Game(objective(3))
    calls: list[tuple[int, int]] = []
    monkeypatch.setattr(game.ema, "update", lambda shown, images: calls.append((shown, images)))
    game.run(2)
    assert calls == [(3 * BATCH, 3 * BATCH), (3 * BATCH, 6 * BATCH)]


class Relativistic:
    """Jolicoeur-Martineau 2019: needs the real logits in both turns."""

    uses_real = True

    def __init__(self) -> None:
        self.received: list[Tensor | None] = []

    def discriminator(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        return nn.functional.softplus(fake_logits - real_logits).mean()

    def generator(self, real_logits: Tensor | None, fake_logits: Tensor) -> Tensor:
        self.received.append(real_logits)
        assert real_logits is not None
        return nn.functional.softplus(real_logits - fake_logits).mean()

    def report(self, real_logits: Tensor, fake_logits: Tensor) -> dict[str, Tensor]:
        return {}


@pytest.mark.parametrize("first", ["discriminator", "generator"])
def test_a_relativistic_loss_gets_the_real_logits_in_the_generators_turn(first: str) -> None:
    adversarial = Relativistic()
    game = Game(objective(2, first, adversarial=adversarial))
    expected: list[Tensor] = []

    def at_turn(who: str) -> None:
        if who == "G":
            expected.append(game.critic(game.turns[-1][1]["image"]).detach())

    game.at_turn = at_turn
    game.run(2)
    assert len(adversarial.received) == 2
    for got, wanted in zip(adversarial.received, expected, strict=True):
        torch.testing.assert_close(got, wanted)


@pytest.mark.parametrize("first", ["discriminator", "generator"])
def test_a_run_in_two_parts_is_the_run_in_one(first: str) -> None:
    """With noise, a random penalty, moments and epochs that end within a step."""

    def game() -> Game:
        return Game(objective(2, first, adversarial=Wasserstein(), penalty=GradientPenalty()), lr=1e-2)

    whole = game().run(6)
    parts = game().run(3)
    halfway = parts.state()
    torch.manual_seed(999)
    torch.randn(100)
    parts.run(6)
    torch.testing.assert_close(parts.state(), whole.state(), rtol=0, atol=0)
    assert parts.progress == whole.progress
    assert any(not torch.equal(v, halfway[k]) for k, v in whole.state().items())


def test_bf16_keeps_weights_and_losses_in_float32() -> None:
    dtypes: set[torch.dtype] = set()

    class Spy(NonSaturating):
        def discriminator(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
            dtypes.update((real_logits.dtype, fake_logits.dtype))
            return super().discriminator(real_logits, fake_logits)

        def generator(self, real_logits: Tensor | None, fake_logits: Tensor) -> Tensor:
            dtypes.add(fake_logits.dtype)
            return super().generator(real_logits, fake_logits)

    game = Game(objective(2, adversarial=Spy(), penalty=GradientPenalty()), precision=torch.bfloat16).run(2)
    assert dtypes == {torch.float32}
    assert {p.dtype for p in game.task.parameters()} == {torch.float32}
    assert all(v.isfinite().all() for v in game.state().values())
