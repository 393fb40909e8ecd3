"""The two image-to-image tasks with players of one layer, against the papers' equations written out again."""

from __future__ import annotations

import copy
from collections.abc import Callable
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gan_cli.data.dataset import ArrayDataset, Jitter, TranslationDataset
from gan_cli.losses import Hinge, LeastSquares, NonSaturating, Wasserstein
from gan_cli.networks.pair import Judges, Translators
from gan_cli.objective import Objective
from gan_cli.penalties import GradientPenalty
from gan_cli.schedules import Constant
from gan_cli.tasks.inference import one_by_one, training_behaviour
from gan_cli.tasks.paired import PairedTranslation
from gan_cli.tasks.translation import held_out
from gan_cli.tasks.unpaired import ImagePool, UnpairedTranslation
from gan_cli.training.ema import EMA
from gan_cli.training.loop import Player, Progress, frozen, train

from .tiny import turns  # type: ignore[import-not-found]

C, H, N = 2, 8, 3
Batch = dict[str, Tensor]
Task = PairedTranslation | UnpairedTranslation


def images(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def batch(*keys: str, seed: int = 0, n: int = N) -> Batch:
    return dict(zip(keys, images(len(keys), n, C, H, H, seed=seed), strict=True))


class Translator(nn.Module):
    """tanh(convolution), dropout or batch norm between. Keeps what it was given and what it made."""

    def __init__(self, middle: nn.Module | None = None) -> None:
        super().__init__()
        self.conv, self.middle = nn.Conv2d(C, C, 3, padding=1), middle or nn.Identity()
        self.given: list[Tensor] = []
        self.made: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        result = torch.tanh(self.middle(self.conv(x)))
        self.given.append(x.detach().clone())
        self.made.append(result.detach().clone())
        return result


class Judge(nn.Module):
    """A map of logits. Keeps what it was given."""

    def __init__(self, channels: int, norm: nn.Module | None = None) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(channels, 4, 4, 2, 1), norm or nn.Identity(), nn.Tanh(), nn.Conv2d(4, 1, 3))
        self.given: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.given.append(x.detach().clone())
        return self.layers(x)


def paired(
    middle: nn.Module | None = None, norm: nn.Module | None = None, objective: Any = None, **more: Any
) -> PairedTranslation:
    torch.manual_seed(0)
    game = Objective(**{"adversarial": NonSaturating(), "discriminator_weight": 0.5, **(objective or {})})
    return PairedTranslation(Translator(middle), Judge(2 * C, norm), game, **more)


def unpaired(
    middle: Callable[[], nn.Module | None] = lambda: None, norm: Callable[[], nn.Module | None] = lambda: None,
    objective: Any = None, **more: Any,
) -> UnpairedTranslation:  # fmt: skip
    torch.manual_seed(0)
    game = Objective(**{"adversarial": LeastSquares(generator_weight=1.0), "first": "generator", **(objective or {})})
    return UnpairedTranslation(
        Translators(Translator(middle()), Translator(middle())), Judges(Judge(C, norm()), Judge(C, norm())), game,
        **{"channels": C, "image_size": H, "pool_size": 4, **more},
    )  # fmt: skip


def both(first: str = "discriminator", **objective: Any) -> list[Task]:
    return [paired(objective={"first": first, **objective}), unpaired(objective={"first": first, **objective})]


def of(task: Task, seed: int = 0, n: int = N) -> Batch:
    return batch(*task.batch_keys, seed=seed, n=n)


class Stream:
    """Endless batches for the engine, each different."""

    def __init__(self, task: Task) -> None:
        self.task, self.position, self.served = task, 0, []

    def __next__(self) -> Batch:
        self.served.append(of(self.task, seed=self.position))
        self.position += N
        return self.served[-1]


def play(task: Task, steps: int, look: Callable[[str], None] = lambda who: None, precision: Any = torch.float32) -> list[Any]:
    """Steps of the engine's loop. ``look`` is called before each move. Returns the moves: who, which batch."""
    moves: list[tuple[str, Batch]] = []
    stream = Stream(task)

    def watched(who: str, loss: Any) -> Any:
        def call(given: Batch, *more: Any) -> Any:
            moves.append((who, given))
            look(who)
            return loss(given, *more)

        return call

    g, d = (
        Player(name, task, network, torch.optim.Adam(network.parameters(), lr=0.01), Constant(), precision=precision)
        for name, network in (("generator", task.generator), ("discriminator", task.discriminator))
    )
    for who, player in (("G", g), ("D", d)):
        player.loss_and_gradient = watched(who, player.plain_loss_and_gradient)
    game = SimpleNamespace(
        task=task, generator=g, discriminator=d, ema=EMA(task.generator, 0), batches=stream, progress=Progress()
    )
    train(game, total_steps=steps, seed=0, after_step=lambda logs: True)
    return moves


# Values


def same_gradients(loss: Tensor, expected: Tensor, network: nn.Module, reference: nn.Module | None = None) -> None:
    """Of two losses in the weights of a network, the second in those of a copy of it if ``reference`` is given."""
    got = torch.autograd.grad(loss, list(network.parameters()))
    wanted = torch.autograd.grad(expected, list((reference or network).parameters()))
    torch.testing.assert_close(got, wanted, atol=1e-5, rtol=1e-4)


def test_pix2pix_losses() -> None:
    """Isola et al. 2017, equations 1 to 4, in float64."""
    task, given = paired(l1_weight=7.0), of(paired())
    d_loss, d_logs = turns(task).discriminator(given)
    g_loss, g_logs = turns(task).generator(given)

    def d(x: Tensor, y: Tensor) -> Tensor:
        first, last = task.discriminator.layers[0], task.discriminator.layers[3]
        hidden = F.conv2d(torch.cat([x, y], 1), first.weight.double(), first.bias.double(), stride=2, padding=1)
        logits = F.conv2d(hidden.tanh(), last.weight.double(), last.bias.double())
        return 1 / (1 + torch.exp(-logits))

    x, y = (value.double() for value in given.values())
    conv = task.generator.conv
    fake = torch.tanh(F.conv2d(x, conv.weight.double(), conv.bias.double(), padding=1))
    expected_d = -0.5 * (torch.log(d(x, y)).mean() + torch.log(1 - d(x, fake)).mean())
    adversarial, l1 = -torch.log(d(x, fake)).mean(), (y - fake).abs().sum() / y.numel()
    for got, wanted in [
        (d_loss, expected_d),
        (d_logs["d/loss"], expected_d),
        (d_logs["d/real"], d(x, y).mean()),
        (d_logs["d/fake"], d(x, fake).mean()),
        (g_loss, adversarial + 7 * l1),
        (g_logs["g/loss"], adversarial + 7 * l1),
        (g_logs["g/adversarial"], adversarial),
        (g_logs["g/l1"], l1),
    ]:
        assert got.shape == () and got.item() == pytest.approx(wanted.item(), rel=1e-5)
    assert not any(v.requires_grad for v in (*d_logs.values(), *g_logs.values()))
    same_gradients(d_loss, expected_d, task.discriminator)
    same_gradients(g_loss, adversarial + 7 * l1, task.generator)


@pytest.mark.parametrize("first", ["generator", "discriminator"])
@pytest.mark.parametrize("identity_weight", [0.0, 0.5])
def test_cyclegan_losses(identity_weight: float, first: str) -> None:
    """Zhu et al. 2017, equations 1 to 3 with section 4's squares, and section 5.2's identity loss."""
    task = unpaired(cycle_weight=3.0, identity_weight=identity_weight, objective={"first": first})
    given = of(task)
    moves = {"G": turns(task).generator, "D": turns(task).discriminator}
    results = {who: moves[who](given) for who in ("GD" if first == "generator" else "DG")}
    a, b = given.values()
    weights = copy.deepcopy(task)
    f, g, d_a, d_b = weights.generator.b2a, weights.generator.a2b, weights.discriminator.a, weights.discriminator.b
    fake_a, fake_b = f(b), g(a)
    adversarial = (1 - d_b(fake_b)).pow(2).mean() + (1 - d_a(fake_a)).pow(2).mean()
    cycle = (f(fake_b) - a).abs().mean() + (g(fake_a) - b).abs().mean()
    identity = (g(b) - b).abs().mean() + (f(a) - a).abs().mean()
    g_loss, g_logs = results["G"]
    expected_g = adversarial + 3 * cycle + 3 * identity_weight * identity
    torch.testing.assert_close(g_loss, expected_g)
    same_gradients(g_loss, expected_g, task.generator, weights.generator)
    expected = {"g/loss": g_loss.detach(), "g/adversarial": adversarial.detach(), "g/cycle": cycle.detach()}
    if identity_weight > 0:
        expected["g/identity"] = identity.detach()
    torch.testing.assert_close(g_logs, expected)

    fake_a, fake_b = fake_a.detach(), fake_b.detach()
    loss_a = (d_a(a) - 1).pow(2).mean() / 2 + d_a(fake_a).pow(2).mean() / 2
    loss_b = (d_b(b) - 1).pow(2).mean() / 2 + d_b(fake_b).pow(2).mean() / 2
    d_loss, d_logs = results["D"]
    torch.testing.assert_close(d_loss, loss_a + loss_b)
    same_gradients(d_loss, loss_a + loss_b, task.discriminator, weights.discriminator)
    scores = {"d/real": (d_a(a).mean() + d_b(b).mean()) / 2, "d/fake": (d_a(fake_a).mean() + d_b(fake_b).mean()) / 2}
    right = [(d_a(a) > 0.5), (d_b(b) > 0.5), (d_a(fake_a) < 0.5), (d_b(fake_b) < 0.5)]
    scores["d/accuracy"] = torch.stack([side.float().mean() for side in right]).mean()
    losses = {"d/loss": loss_a + loss_b, "d/loss_a": loss_a, "d/loss_b": loss_b}
    torch.testing.assert_close(d_logs, {k: v.detach() for k, v in (scores | losses).items()})
    assert not any(v.requires_grad for v in (*d_logs.values(), *g_logs.values()))


def test_cyclegan_logs_the_mean_of_both_domains_and_the_sum_of_losses() -> None:
    task = unpaired(objective={"adversarial": Wasserstein(), "penalty": GradientPenalty(10.0)})
    _, logs = turns(task).discriminator(of(task))
    torch.testing.assert_close(logs["d/wasserstein"], logs["d/real"] - logs["d/fake"])
    torch.testing.assert_close(logs["d/loss"], logs["d/loss_a"] + logs["d/loss_b"])
    torch.testing.assert_close(logs["d/loss"], 2 * (logs["d/fake"] - logs["d/real"]) + logs["d/penalty"])


def test_without_the_identity_term_no_image_of_the_target_domain_is_translated_for_it() -> None:
    for weight, passes in ((0.0, [N, N]), (0.5, [2 * N, N])):
        task = unpaired(identity_weight=weight)
        turns(task).generator(of(task))
        assert [len(x) for x in task.generator.a2b.given] == [len(x) for x in task.generator.b2a.given] == passes


def test_batch_norm_in_a_translator_does_not_mix_the_domains() -> None:
    task = unpaired(middle=lambda: nn.BatchNorm2d(C))
    given = of(task)
    turns(task).generator(given)
    assert [len(x) for x in task.generator.a2b.given] == [N] * 3  # a, b, and b's translation
    assert torch.equal(task.generator.a2b.given[0], given["a"]) and torch.equal(task.generator.a2b.given[1], given["b"])


# Turns


@pytest.mark.parametrize("first", ["generator", "discriminator"])
@pytest.mark.parametrize("kind", [0, 1])
def test_gradients_reach_only_the_player_whose_turn_it_is(kind: int, first: str) -> None:
    task = both(first)[kind]

    def moved() -> tuple[list[bool], list[bool]]:
        g, d = ([p.grad is not None and bool((p.grad != 0).any()) for p in n.parameters()]
                for n in (task.generator, task.discriminator))  # fmt: skip
        task.zero_grad(set_to_none=True)
        return g, d

    for who in "GD" if first == "generator" else "DG":
        if who == "D":
            turns(task).discriminator(of(task))[0].backward()
            g, d = moved()
            assert not any(g) and all(d)
        else:
            with frozen(task.discriminator):
                turns(task).generator(of(task))[0].backward()
            g, d = moved()
            assert all(g) and not any(d)


@pytest.mark.parametrize("kind", [0, 1])
def test_the_images_themselves_get_no_gradient(kind: int) -> None:
    task = both(penalty=GradientPenalty())[kind]
    given = of(task)
    turns(task).discriminator(given)[0].backward()
    turns(task).generator(given)[0].backward()
    assert all(not v.requires_grad and v.grad is None for v in given.values())


@pytest.mark.parametrize("n_critic", [1, 2, 3])
@pytest.mark.parametrize("first", ["generator", "discriminator"])
def test_pix2pix_one_dropout_mask_for_neighbouring_turns(first: str, n_critic: int) -> None:
    """The generated image that G is judged on is that of D's neighbouring turn; other turns of D have their own."""
    task = paired(middle=nn.Dropout(0.5), objective={"first": first, "n_critic": n_critic})
    seen: list[tuple[str, Tensor]] = []
    whose = [""]

    def judged(_m: Any, inputs: tuple[Tensor]) -> None:
        pairs = inputs[0].detach().clone()
        seen.append((whose[0], pairs[-N:]))  # with D's turn in one pass: real ones first

    task.discriminator.register_forward_pre_hook(judged)
    steps = 3
    moves = play(task, steps, lambda who: whose.__setitem__(0, who))
    step = "G" + "D" * n_critic if first == "generator" else "D" * n_critic + "G"
    assert "".join(who for who, _ in moves) == "".join(who for who, _ in seen) == step * steps
    for k, (who, pairs) in enumerate(seen):
        assert torch.equal(pairs[:, :C], moves[k][1]["source"])
        if who == "G":
            neighbour = k + 1 if first == "generator" else k - 1
            assert torch.equal(pairs, seen[neighbour][1]) and moves[k][1] is moves[neighbour][1]
    assert len(task.generator.made) == n_critic * steps, "G works once for each turn of D"
    assert len({tuple(pairs.flatten().tolist()) for _, pairs in seen}) == n_critic * steps


@pytest.mark.parametrize("n_critic", [1, 2, 3])
@pytest.mark.parametrize("first", ["generator", "discriminator"])
def test_cyclegan_the_fakes_of_each_turn(first: str, n_critic: int) -> None:
    """Without a pool: D's turn beside G's looks at what G was judged on; the others at translations of their own batches."""
    task = unpaired(objective={"first": first, "n_critic": n_critic}, pool_size=0)
    whose, seen = [""], []
    weights: list[Any] = []

    def look(who: str) -> None:
        whose[0] = who
        weights.append(copy.deepcopy(task.generator))

    for key in "ab":
        getattr(task.discriminator, key).register_forward_pre_hook(
            lambda _m, inputs, key=key: seen.append((len(weights) - 1, key, inputs[0].detach().clone()))
        )
    moves = play(task, 2, look)
    for k, key, x in seen:
        who, given = moves[k]
        neighbour = k > 0 and who == "D" and first == "generator" and moves[k - 1][0] == "G"
        g = weights[k - 1 if neighbour else k]
        fake = g.b2a(given["b"]) if key == "a" else g.a2b(given["a"])
        torch.testing.assert_close(x[-N:], fake.detach())
        if who == "D":
            assert torch.equal(x[:N], given[key])
    assert len(seen) == 2 * len(moves) == 4 * (n_critic + 1)


@pytest.mark.parametrize("kind", [0, 1])
@pytest.mark.parametrize("adversarial", [NonSaturating(), LeastSquares(), Hinge(), Wasserstein()])
def test_joint_and_separate_passes_agree(kind: int, adversarial: Any) -> None:
    results = []
    for separately in (False, True):
        task = both(adversarial=adversarial)[kind]
        assert not task.mixes_samples
        task.mixes_samples = separately
        d_loss, logs = turns(task).discriminator(of(task))
        d_loss.backward()
        judges = [m for m in task.modules() if isinstance(m, Judge)]
        assert [len(x) for m in judges for x in m.given] == ([N, N] if separately else [2 * N]) * len(judges)
        results.append((d_loss, logs, [p.grad for p in task.discriminator.parameters()]))
    torch.testing.assert_close(results[0], results[1], atol=1e-6, rtol=1e-5)


def test_batch_norm_in_the_discriminator_means_separate_passes() -> None:
    tasks: list[Task] = [paired(norm=nn.BatchNorm2d(4)), unpaired(norm=lambda: nn.BatchNorm2d(4))]
    for task in tasks:
        assert task.mixes_samples
        turns(task).discriminator(of(task))
        assert all([len(x) for x in m.given] == [N, N] for m in task.modules() if isinstance(m, Judge))


class Relativistic:
    """Jolicoeur-Martineau 2019: in G's turn too D must see the real images, beside their sources."""

    uses_real = True

    def discriminator(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        return F.softplus(fake_logits - real_logits).mean()

    def generator(self, real_logits: Tensor | None, fake_logits: Tensor) -> Tensor:
        assert real_logits is not None
        return F.softplus(real_logits - fake_logits).mean()

    def report(self, real_logits: Tensor, fake_logits: Tensor) -> dict[str, Tensor]:
        return {}


def test_a_relativistic_loss_sees_the_real_images() -> None:
    task = paired(objective={"adversarial": Relativistic()}, l1_weight=0.0)
    x, y = (given := of(task)).values()
    loss, _ = turns(task).generator(given)
    d, fake = task.discriminator.layers, task.generator.made[0]
    torch.testing.assert_close(loss, F.softplus(d(torch.cat([x, y], 1)) - d(torch.cat([x, fake], 1))).mean())
    two = unpaired(objective={"adversarial": Relativistic()}, cycle_weight=0.0)
    a, b = (given := of(two)).values()
    loss, _ = turns(two).generator(given)
    d_a, d_b = two.discriminator.a.layers, two.discriminator.b.layers
    fake_b, fake_a = two.generator.a2b.made[0][:N], two.generator.b2a.made[0][:N]
    torch.testing.assert_close(loss, F.softplus(d_b(b) - d_b(fake_b)).mean() + F.softplus(d_a(a) - d_a(fake_a)).mean())


@pytest.mark.parametrize("first", ["generator", "discriminator"])
@pytest.mark.parametrize("kind", [0, 1])
def test_bf16_gives_losses_in_float32(kind: int, first: str) -> None:
    task = both(first, penalty=GradientPenalty())[kind]
    made: set[torch.dtype] = set()
    for module in task.modules():
        if isinstance(module, Translator):
            module.register_forward_hook(lambda _m, _i, output: made.add(output.dtype))
    results = {}
    for precision in (torch.float32, torch.bfloat16):
        torch.manual_seed(0)
        moves = [turns(task).generator, turns(task).discriminator]
        with torch.autocast("cpu", torch.bfloat16, enabled=precision is torch.bfloat16):
            results[precision] = [move(of(task)) for move in (moves if first == "generator" else moves[::-1])]
    assert made == {torch.float32, torch.bfloat16}
    for (loss, logs), (exact, _) in zip(results[torch.bfloat16], results[torch.float32], strict=True):
        assert {loss.dtype, *(v.dtype for v in logs.values())} == {torch.float32}
        assert loss.item() == pytest.approx(exact.item(), rel=0.05) and loss.item() != exact.item()
    play(task, 2, precision=torch.bfloat16)
    assert {v.dtype for v in task.state_dict().values() if v.is_floating_point()} == {torch.float32}
    assert all(v.isfinite().all() for v in task.state_dict().values())


def test_the_gradient_penalty_of_pix2pix_is_about_the_target_only() -> None:
    """D(x, y) = <u, x> + <w, y> has the gradient w in y, whatever its source: weight * (||w|| - 1)^2."""
    task = paired(objective={"adversarial": Wasserstein(), "penalty": GradientPenalty()})

    class Linear(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(images(2 * C, H, H, seed=9))

        def forward(self, pairs: Tensor) -> Tensor:
            seen.append(pairs.detach().clone())
            return (pairs * self.weight).flatten(1).sum(1)

    seen: list[Tensor] = []
    task.discriminator = Linear()
    given = of(task)
    loss, logs = turns(task).discriminator(given)
    w = task.discriminator.weight[C:]
    torch.testing.assert_close(logs["d/penalty"], (10 * (w.norm() - 1) ** 2).detach())
    difference = ((task.generator.made[0] - given["target"]).mean(0) * w).sum()
    torch.testing.assert_close(loss, 0.5 * difference + 10 * (w.norm() - 1) ** 2)  # the penalty is not halved
    assert torch.equal(seen[1][:, :C], given["source"]), "each between its own pair"
    line, offset = (given["target"] - task.generator.made[0]).flatten(1), (seen[1][:, C:] - task.generator.made[0]).flatten(1)
    alpha = (line * offset).sum(1) / line.square().sum(1)
    torch.testing.assert_close(offset, alpha[:, None] * line, atol=1e-5, rtol=0)
    assert alpha.unique().numel() == N


# The pool


@pytest.mark.parametrize("n", [1, 3, 8])
@pytest.mark.parametrize("size", [1, 5, 6])
def test_pool_image_by_image(size: int, n: int) -> None:
    """Batches that fill it in part, and ones larger than it: each image is asked about after the one before it."""
    torch.manual_seed(0)
    pool, kept, old = ImagePool(size, 1, 1), [], 0
    for start in range(0, 40 * n, n):
        given = torch.arange(start, start + n, dtype=torch.float32).view(n, 1, 1, 1)
        returned = pool.query(given)
        assert returned.shape == given.shape and returned.dtype == torch.float32 and not returned.requires_grad
        for number, result in zip(range(start, start + n), returned.flatten().tolist(), strict=True):
            if len(kept) < size:
                assert result == number
                kept.append(result)
            elif result != number:
                kept[kept.index(result)] = number
                old += 1
        assert pool.filled.item() == len(kept) and pool.images.flatten().tolist()[: len(kept)] == kept
    assert (40 * n - size) * 0.2 < old < (40 * n - size) * 0.8


def test_what_the_pool_returned_does_not_change_later() -> None:
    torch.manual_seed(0)
    pool, results = ImagePool(2, 1, 1), []
    given = [torch.full((2, 1, 1, 1), float(k)) for k in range(20)]
    for x in given:
        results.append((pool.query(x), len(results)))
    copies = [(x.clone(), k) for x, k in results]
    pool.query(torch.full((50, 1, 1, 1), -1.0))
    assert all(torch.equal(x, y) for (x, _), (y, _) in zip(results, copies, strict=True))
    assert all(bool((x == k).all()) for k, x in enumerate(given))


def test_each_domain_has_its_pool() -> None:
    task = unpaired(pool_size=2 * N)
    turns(task).generator(of(task))
    turns(task).discriminator(of(task))
    assert (task.pool_a.filled.item(), task.pool_b.filled.item()) == (N, N)
    torch.testing.assert_close(task.pool_a.images[:N], task.generator.b2a.made[0][:N])
    torch.testing.assert_close(task.pool_b.images[:N], task.generator.a2b.made[0][:N])


# State


@pytest.mark.parametrize("first", ["generator", "discriminator"])
@pytest.mark.parametrize("kind", [0, 1])
def test_copies_go_on_as_the_original(kind: int, first: str) -> None:
    """Between steps a deep copy, and a new task with the state dict, have everything."""
    task = both(first)[kind]
    play(task, 3)
    fresh = both(first)[kind]
    assert any(not torch.equal(v, fresh.state_dict()[k]) for k, v in task.state_dict().items())
    fresh.load_state_dict(task.state_dict())
    tasks = [task, copy.deepcopy(task), fresh]
    for each in tasks:
        play(each, 3)
    for each in tasks[1:]:
        torch.testing.assert_close(each.state_dict(), task.state_dict(), rtol=0, atol=0)


def test_the_pools_are_the_only_state_beside_the_networks() -> None:
    pools = {f"pool_{key}.{what}" for key in "ab" for what in ("images", "filled")}
    networks = ("generator.", "discriminator.")
    assert {k for k in unpaired().state_dict() if not k.startswith(networks)} == pools
    assert all(k.startswith(networks) for k in paired().state_dict())


# Looking at it


def pixels(n: int, channels: int, size: int, seed: int = 0) -> ArrayDataset:
    data = torch.randint(256, (n, channels, size, size), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)
    return ArrayDataset(data, labels=None, class_names=[], fingerprint="")


def dataset(kind: int, n: int, size: int = H, *, seed: int = 0, jitter: Jitter | None = None, held: Any = None) -> Any:
    streams = [
        [(("source", "target"), pixels(n, 2 * C, size, seed))],
        [(("a",), pixels(n, C, size, seed)), (("b",), pixels(n + 2, C, size, seed + 1))],
    ][kind]
    return TranslationDataset(streams, image_size=H, channels=C, jitter=jitter, fingerprint="", held_out=held)


@pytest.mark.parametrize("kind", [0, 1])
def test_examples_are_the_first_held_out_images(kind: int) -> None:
    task = both()[kind]
    shown = task.examples(dataset(kind, 20, held=lambda: dataset(kind, 12, seed=5)), 0, torch.device("cpu"))
    assert list(shown) == list(task.batch_keys)
    raw = torch.cat([part.images[:8].float() for _, part in dataset(kind, 12, seed=5).streams], dim=1)
    torch.testing.assert_close(torch.cat(list(shown.values()), 1), raw / 127.5 - 1)
    assert all(v.dtype == torch.float32 and v.shape == (8, C, H, H) for v in shown.values())
    assert min(v.min() for v in shown.values()) >= -1 and max(v.max() for v in shown.values()) <= 1


@pytest.mark.parametrize("kind", [0, 1])
def test_without_a_held_out_part_the_examples_are_training_images(kind: int) -> None:
    """Whole, at the size of the others, always the same: no jitter."""
    task = both()[kind]
    data = dataset(kind, 20, H + 4, jitter=Jitter(H + 4, H, flip=True))
    shown = task.examples(data, 0, torch.device("cpu"))
    assert all(v.shape == (8, C, H, H) and v.abs().max() <= 1 + 1e-6 for v in shown.values())
    torch.testing.assert_close(shown, task.examples(data, 1, torch.device("cpu")), rtol=0, atol=0)
    raw = torch.cat([part.images[:8].float() for _, part in data.streams], dim=1) / 127.5 - 1
    resized = torch.cat(list(shown.values()), 1)
    torch.testing.assert_close(resized.mean((2, 3)), raw.mean((2, 3)), atol=0.05, rtol=0)
    fitted = F.interpolate(raw, size=(H, H), mode="bilinear", antialias=True)
    torch.testing.assert_close(resized, fitted, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("n", "asked"), [(3, 8), (8, 3), (5, 5)])
def test_as_many_examples_as_there_are(n: int, asked: int) -> None:
    assert {len(v) for v in held_out(dataset(0, n), asked).values()} == {min(n, asked)}
    shown = held_out(dataset(1, n), asked)
    assert (len(shown["a"]), len(shown["b"])) == (min(n, asked), min(n + 2, asked))


def test_pictures_have_a_row_for_each_example() -> None:
    """Source, result, target; or a, there, back, b, there, back. As many rows as the shorter domain has."""
    for kind, columns in ((0, 3), (1, 6)):
        task = both()[kind]
        shown = task.examples(dataset(kind, 5), 0, torch.device("cpu"))
        picture = task.picture(task.generator.eval(), shown)
        assert picture.dtype == torch.uint8 and picture.shape == (C, 5 * (H + 2) + 2, columns * (H + 2) + 2)
        keys = ["source", None, "target"] if kind == 0 else ["a", None, None, "b", None, None]
        for k, key in enumerate(keys):
            if key is not None:
                cell = picture[:, 2 : 2 + H, 2 + k * (H + 2) :][..., :H]
                torch.testing.assert_close(cell.float() / 127.5 - 1, shown[key][0], atol=0.004, rtol=0)


def test_the_reconstruction_goes_there_and_back() -> None:
    task = unpaired()
    shown = of(task)
    g = task.generator
    with torch.no_grad():
        for way, there, back in (("a2b", g.a2b, g.b2a), ("b2a", g.b2a, g.a2b)):
            x = shown[way[0]]
            torch.testing.assert_close(task.columns(g, shown, way), [x, there(x), back(there(x))])


@pytest.mark.parametrize("mode", ["paper", "eval"])
@pytest.mark.parametrize("middle", [nn.Dropout, lambda: nn.BatchNorm2d(C)])
def test_a_translation_depends_on_its_number_and_not_on_its_neighbours(middle: Callable[[], nn.Module], mode: Any) -> None:
    task = paired(middle=middle(), sample_mode=mode)
    generator, x = copy.deepcopy(task.generator).eval(), images(6, C, H, H)
    with torch.no_grad():
        whole = task.translate(generator, x, None, seed=3)
        parts = [task.translate(generator, x[start:stop], None, 3, start) for start, stop in pairwise([0, 1, 4, 6])]
    assert torch.equal(torch.cat(parts), whole) and whole.dtype == torch.float32
    assert not any(m.training for m in generator.modules())


def test_training_behaviour_is_undone() -> None:
    network = nn.Sequential(nn.Conv2d(C, C, 1), nn.BatchNorm2d(C), nn.BatchNorm2d(C, track_running_stats=False), nn.Dropout())
    network.eval()
    network[3].train()
    before = copy.deepcopy(network.state_dict())
    with pytest.raises(RuntimeError, match="channels"), training_behaviour(network, batch_norm=True):
        network(torch.cat([network(images(4, C, H, H))] * 2, 1))
    assert [m.training for m in network] == [False, False, False, True]
    assert [network[1].track_running_stats, network[2].track_running_stats] == [True, False]
    torch.testing.assert_close(network.state_dict(), before, rtol=0, atol=0)


def test_one_by_one_keeps_the_order() -> None:
    x = images(5, C, H, H)
    assert torch.equal(one_by_one(nn.Identity(), x, None, 0, 0), x)


@pytest.mark.parametrize("kind", [0, 1])
def test_every_network_is_tried(kind: int) -> None:
    task, tried = both()[kind], []

    def attempt(where: str, network: nn.Module, *inputs: Tensor, wanted: tuple[int, ...] | None = None) -> Tensor:
        result = network(*inputs)
        assert wanted is None or result.shape == wanted == (2, C, H, H)
        tried.append(where)
        return result

    task.try_out(attempt, dataset(kind, 4), torch.device("cpu"))
    parts = ["generator", "discriminator"]
    assert tried == (parts if kind == 0 else ["generator.a2b", "discriminator.b", "generator.b2a", "discriminator.a"])
