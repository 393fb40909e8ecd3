"""The objective, and the noise-to-image task: latents, labels and passes through the discriminator."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gan_cli.losses import LeastSquares, NonSaturating, Wasserstein
from gan_cli.networks import mlp
from gan_cli.objective import Objective, WeightClip
from gan_cli.penalties import GradientPenalty
from gan_cli.tasks.noise import NoiseToImage

from .tiny import turns  # type: ignore[import-not-found]

DIM, N, CLASSES = 5, 6, 3
IMAGES = torch.rand(N, 1, 4, 4, generator=torch.Generator().manual_seed(0)) * 2 - 1
LABELS = torch.tensor([0, 2, 1, 1, 0, 2])
BATCH = {"image": IMAGES, "label": LABELS}


class Generator(nn.Module):
    """Keeps what it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = mlp.Generator(latent_dim=DIM, image_size=4, channels=1, hidden=[6])
        self.z: list[Tensor] = []
        self.labels: list[Tensor | None] = []

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        self.z.append(z.clone())
        self.labels.append(label)
        return self.inner(z)


class Discriminator(nn.Module):
    """Keeps what it was given; ``norm`` after the first layer."""

    def __init__(self, norm: nn.Module | None = None) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(16, 6), norm or nn.Identity(), nn.Tanh(), nn.Linear(6, 1))
        self.images: list[Tensor] = []
        self.labels: list[Tensor | None] = []

    def forward(self, images: Tensor, label: Tensor | None = None) -> Tensor:
        self.images.append(images.detach().clone())
        self.labels.append(label)
        return self.layers(images).flatten()


def make_task(norm: nn.Module | None = None, objective: dict[str, Any] | None = None, **options: Any) -> NoiseToImage:
    torch.manual_seed(0)
    game = Objective(**{"adversarial": NonSaturating(), **(objective or {})})
    return NoiseToImage(Generator(), Discriminator(norm), game, latent_dim=DIM, **options)


def play(task: NoiseToImage, n_critic: int) -> list[tuple[str, Tensor]]:
    """Run a step of the loop. Returns the player and the latents of each update."""
    latents = play_alone(task, n_critic)
    return list(zip(turns_of(task, n_critic), latents, strict=True))


def turns_of(task: NoiseToImage, n_critic: int) -> str:
    return "D" * n_critic + "G" if task.objective.first == "discriminator" else "G" + "D" * n_critic


def play_alone(task: NoiseToImage, n_critic: int) -> list[Tensor]:
    """Run a step. Returns the latents that G got."""
    task.generator.z.clear()
    for turn in turns_of(task, n_critic):
        (turns(task).discriminator if turn == "D" else turns(task).generator)(BATCH)
    return list(task.generator.z)


@pytest.mark.parametrize("limit", [0.01, 0.5])
def test_weight_clip_clamps_everything_learnt_and_nothing_else(limit: float) -> None:
    network = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
    with torch.no_grad():
        network[0].weight.copy_(torch.linspace(-1, 1, 16).reshape(4, 4))
    before = copy.deepcopy(network.state_dict())
    WeightClip(limit)(network)
    for name, value in network.state_dict().items():
        learnt = name in dict(network.named_parameters())
        torch.testing.assert_close(value, before[name].clamp(-limit, limit) if learnt else before[name])


def test_objective_defaults() -> None:
    game = Objective(NonSaturating())
    assert (game.n_critic, game.first, game.penalty, game.constraint) == (1, "discriminator", None, None)


@pytest.mark.parametrize("n_critic", [1, 3])
@pytest.mark.parametrize("first", ["discriminator", "generator"])
@pytest.mark.parametrize("same_noise", [False, True])
def test_same_noise_joins_the_neighbouring_turns_of_a_step(n_critic: int, first: str, same_noise: bool) -> None:
    task = make_task(objective={"n_critic": n_critic, "first": first}, same_noise=same_noise)
    task.repeats = False
    everything = []
    for _ in range(3):
        turns = play(task, n_critic)
        (g,) = [k for k, (who, _) in enumerate(turns) if who == "G"]
        neighbour = g - 1 if first == "discriminator" else g + 1
        assert torch.equal(turns[g][1], turns[neighbour][1]) == same_noise
        everything += [z for _, z in turns]
    distinct = {tuple(z.flatten().tolist()) for z in everything}
    assert len(distinct) == len(everything) - 3 * same_noise


def test_one_pass_for_both_turns_is_the_same() -> None:
    """Bit-identical, and the second step does not use the graph of the first."""
    results = []
    for once in (True, False):
        task = make_task(same_noise=True)
        assert task.repeats
        task.repeats = once
        gradients = []
        for seed in (1, 2):
            torch.manual_seed(seed)
            task.zero_grad()
            loss, _ = turns(task).discriminator(BATCH)
            loss.backward()
            assert all(p.grad is None for p in task.generator.parameters())
            loss, _ = turns(task).generator(BATCH)
            loss.backward()
            gradients += [p.grad for p in task.parameters() if p.grad is not None]
        assert len(task.generator.z) == (2 if once else 4)
        results.append(gradients)
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


@pytest.mark.parametrize(
    ("change", "passes"),
    [({"first": "generator"}, 2), ({"n_critic": 2}, 3), ({}, 1)],
)
def test_one_pass_only_where_both_turns_make_the_same(change: dict[str, Any], passes: int) -> None:
    task = make_task(objective=change, same_noise=True)
    assert len(play_alone(task, change.get("n_critic", 1))) == passes


@pytest.mark.parametrize("layer", [nn.BatchNorm1d(6), nn.Dropout(0.5)])
def test_no_single_pass_for_a_generator_that_is_random_or_remembers(layer: nn.Module) -> None:
    generator = nn.Sequential(nn.Linear(DIM, 6), layer)
    assert not NoiseToImage(generator, Discriminator(None), Objective(NonSaturating()), DIM, same_noise=True).repeats


@pytest.mark.parametrize("adversarial", [NonSaturating(), LeastSquares()])
@pytest.mark.parametrize("norm", ["none", "layer", "batch"])
def test_the_loss_is_that_of_separate_passes(adversarial: Any, norm: str) -> None:
    make_norm = {"none": lambda: None, "layer": lambda: nn.LayerNorm(6), "batch": lambda: nn.BatchNorm1d(6)}[norm]
    task = make_task(make_norm(), {"adversarial": adversarial})
    reference = copy.deepcopy(task)
    loss, logs = turns(task).discriminator(BATCH)
    loss.backward()

    fake = reference.generator(task.generator.z[0]).detach()
    real_logits, fake_logits = reference.discriminator(IMAGES), reference.discriminator(fake)
    expected = adversarial.discriminator(real_logits, fake_logits)
    expected.backward()
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(logs["d/loss"], expected.detach())
    for got, wanted in zip(task.discriminator.parameters(), reference.discriminator.parameters(), strict=True):
        torch.testing.assert_close(got.grad, wanted.grad, atol=1e-6, rtol=1e-4)
    assert all(p.grad is None for p in task.generator.parameters())
    torch.testing.assert_close(task.discriminator.state_dict(), reference.discriminator.state_dict())


@pytest.mark.parametrize(("norm", "passes"), [(None, [2 * N]), (nn.LayerNorm(6), [2 * N]), (nn.BatchNorm1d(6), [N, N])])
def test_batch_norm_sees_real_and_generated_images_apart(norm: nn.Module | None, passes: list[int]) -> None:
    task = make_task(norm)
    turns(task).discriminator(BATCH)
    assert [len(images) for images in task.discriminator.images] == passes


def test_the_generators_loss() -> None:
    task = make_task()
    loss, logs = turns(task).generator(BATCH)
    logits = task.discriminator(task.generator.inner(task.generator.z[0]))
    torch.testing.assert_close(loss, -torch.log(torch.sigmoid(logits)).mean())
    assert set(logs) == {"g/loss"} and not logs["g/loss"].requires_grad
    loss.backward()
    assert all(p.grad is not None for p in task.generator.parameters())


def test_the_penalty_is_added_and_logged() -> None:
    class Constant(GradientPenalty):
        def __call__(self, critic: Any, real: Tensor, fake: Tensor) -> Tensor:
            assert real.shape == fake.shape == IMAGES.shape and not fake.requires_grad
            return critic(real).mean() * 0 + 3

    task = make_task(objective={"adversarial": Wasserstein(), "penalty": Constant()})
    loss, logs = turns(task).discriminator(BATCH)
    real, fake = task.discriminator.layers(IMAGES), task.discriminator.layers(task.generator.inner(task.generator.z[0]))
    torch.testing.assert_close(loss, fake.mean() - real.mean() + 3)
    assert logs["d/penalty"].item() == 3 and not any(v.requires_grad for v in logs.values())
    torch.testing.assert_close(logs["d/wasserstein"], (real.mean() - fake.mean()).detach())


@pytest.mark.parametrize("norm", [None, nn.BatchNorm1d(6)])
def test_labels_reach_both_networks_beside_their_images(norm: nn.Module | None) -> None:
    penalty = None if norm is not None else GradientPenalty()
    task = make_task(norm, {"penalty": penalty}, num_classes=CLASSES)
    assert task.batch_keys == ("image", "label")
    turns(task).discriminator(BATCH)
    turns(task).generator(BATCH)
    assert len(task.generator.labels) == 2
    assert all(torch.equal(label, LABELS) for label in task.generator.labels)
    for images, label in zip(task.discriminator.images, task.discriminator.labels, strict=True):
        assert label is not None
        assert torch.equal(label, LABELS.repeat(len(images) // N))
    assert torch.equal(torch.cat(task.discriminator.images)[:N], IMAGES)


def test_an_unconditional_task_ignores_labels() -> None:
    task = make_task()
    assert task.batch_keys == ("image",)
    turns(task).discriminator(BATCH)
    turns(task).generator({"image": IMAGES})
    assert set(task.generator.labels) == set(task.discriminator.labels) == {None}
    assert task.labels(9) is None


@pytest.mark.parametrize("prior", ["normal", "uniform"])
def test_latents_are_a_function_of_seed_and_index(prior: Any) -> None:
    task = make_task(prior=prior)
    table = task.latents(3, 0, 200)
    assert table.shape == (200, DIM) and table.dtype == torch.float32
    torch.manual_seed(17)
    for a, b in [(0, 1), (0, 64), (63, 65), (64, 128), (100, 199), (130, 131), (5, 200), (50, 50), (64, 64)]:
        assert torch.equal(task.latents(3, a, b), table[a:b])
    assert not torch.equal(task.latents(4, 0, 200), table)
    assert len({tuple(row.tolist()) for row in table}) == 200


@pytest.mark.parametrize("source", ["training", "sampling"])
@pytest.mark.parametrize("prior", ["normal", "uniform"])
def test_latents_follow_the_prior(prior: Any, source: str) -> None:
    task = make_task(prior=prior)
    z = task.latents(0, 0, 4000) if source == "sampling" else task.noise(4000, torch.device("cpu"))
    assert z.shape == (4000, DIM)
    std = 1.0 if prior == "normal" else 3**-0.5
    assert z.mean().item() == pytest.approx(0, abs=0.03)
    assert z.std().item() == pytest.approx(std, rel=0.02)
    if prior == "uniform":
        assert -1 <= z.min() < -0.99 and 0.99 < z.max() <= 1
    else:
        assert z.abs().max() > 3


@pytest.mark.parametrize(
    ("n", "classes", "expected"),
    [
        (9, None, [0, 0, 0, 1, 1, 1, 2, 2, 2]),
        (8, None, [0, 0, 1, 1, 2, 2, 0, 1]),
        (2, None, [0, 1]),
        (3, [2], [2, 2, 2]),
        (5, [2, 0], [2, 2, 0, 0, 2]),
        (1, [2, 0], [2]),
    ],
)
def test_labels_go_class_by_class_and_what_remains_in_turn(n: int, classes: Any, expected: list[int]) -> None:
    labels = make_task(num_classes=CLASSES).labels(n, classes)
    assert labels is not None and labels.dtype == torch.int64
    assert labels.tolist() == expected


@pytest.mark.parametrize("prior", ["normal", "uniform"])
@pytest.mark.parametrize(("points", "frames"), [(4, 16), (2, 5), (1, 3), (3, 1)])
def test_the_interpolation_is_a_closed_path_through_the_latents(prior: Any, points: int, frames: int) -> None:
    task = make_task(prior=prior)
    path = task.interpolate(0, points, frames)
    corners = task.latents(0, 0, points)
    assert path.shape == (points * frames, DIM) and path.isfinite().all()
    torch.testing.assert_close(path[::frames], corners, atol=1e-5, rtol=1e-5)
    if frames > 1:
        legs = [(corners[k] - corners[(k + 1) % points]).norm().item() for k in range(points)]
        steps = (path - path.roll(-1, 0)).norm(dim=1)  # the last step leads back to the first frame
        assert steps.max() <= math.pi / 2 * max(legs) / frames * 2 + 1e-5


def test_a_normal_path_stays_on_the_shell() -> None:
    """On a straight path the norm would fall to 0.7 between distant corners."""
    torch.manual_seed(0)
    task = NoiseToImage(Generator(), Discriminator(), Objective(NonSaturating()), latent_dim=512)
    path, corners = task.interpolate(0, 4, 8), task.latents(0, 0, 4).norm(dim=1)
    assert path.norm(dim=1).min() > 0.95 * corners.min()
    assert path.norm(dim=1).max() < 1.05 * corners.max()


def test_a_uniform_path_stays_in_the_cube() -> None:
    path = make_task(prior="uniform").interpolate(0, 5, 7)
    assert path.abs().max() <= 1
    middle = path.view(5, 7, DIM)
    torch.testing.assert_close(middle[:, 2] - middle[:, 1], middle[:, 1] - middle[:, 0])


def test_dropout_in_a_generator_is_noise_that_belongs_to_the_sample() -> None:
    """Samples have dropout, as D saw them. The mask of sample k depends on the seed and k only."""
    task = make_task()
    generator = nn.Sequential(mlp.Generator(latent_dim=DIM, image_size=4, channels=1, hidden=[64]), nn.Dropout(0.5)).eval()
    z = task.latents(0, 0, N)
    images = task.draw(generator, z, None, seed=7)
    assert (images == 0).any() and not generator[1].training
    assert not torch.equal(images, task.draw(generator, z, None, seed=8))
    part = torch.cat([task.draw(generator, z[k : k + 2], None, seed=7, start=k) for k in range(0, N, 2)])
    torch.testing.assert_close(part, images)
