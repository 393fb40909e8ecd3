"""The theory of Goodfellow et al. 2014 on densities that are known: what is measured is what the propositions say."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gan_cli.data.densities import GaussianMixture, Grid, Mixture1D, Ring
from gan_cli.data.points import points
from gan_cli.losses import Minimax, NonSaturating, Wasserstein
from gan_cli.networks.points import Discriminator, Generator
from gan_cli.objective import Objective
from gan_cli.tasks.theory import Theory, centres, inner_edges, jensen_shannon, optimal_discriminator, shares, smooth, value

from .conftest import quick  # type: ignore[import-not-found]
from .tiny import turns  # type: ignore[import-not-found]

DENSITIES = {"mixture_1d": Mixture1D(), "ring": Ring(), "gaussian_grid": Grid(spacing=2.0)}
CPU = torch.device("cpu")


def drawn(density: GaussianMixture, n: int, seed: int = 0) -> Tensor:
    return density.sample(n, torch.Generator().manual_seed(seed))


def theory(density: GaussianMixture, adversarial: Any = None, latent_dim: int = 1, prior: Any = "uniform") -> Theory:
    torch.manual_seed(0)
    generator, discriminator = Generator(latent_dim, density.dim), Discriminator(density.dim)
    return Theory(generator, discriminator, Objective(adversarial or NonSaturating()), density, latent_dim, prior)


class Fixed(nn.Module):
    """A generator whose points are given."""

    def __init__(self, made: Tensor) -> None:
        super().__init__()
        self.made = made

    def forward(self, z: Tensor) -> Tensor:
        return self.made[: len(z)]


class Quantile(nn.Module):
    """The generator that has p_g = p_data + shift: the inverse distribution function, of z uniform on [-1, 1]."""

    def __init__(self, density: GaussianMixture, shift: float = 0.0) -> None:
        super().__init__()
        self.density, self.shift = density, shift

    def forward(self, z: Tensor) -> Tensor:
        return self.density.quantiles((z[:, 0].double() + 1) / 2)[:, None].float() + self.shift


def measured(task: Theory, generator: nn.Module) -> dict[str, float]:
    data = points(density=task.density, dim=task.density.dim, n=2000)
    return task.measure(generator, task.examples(data, 0, CPU))


# The densities


@pytest.mark.parametrize("name", DENSITIES)
def test_cells_of_the_grid_share_all_of_the_probability(name: str) -> None:
    density = DENSITIES[name]
    edges = inner_edges(density)
    mass = density.cell_masses(edges)
    assert mass.shape == (edges.shape[1] + 1,) * density.dim and float(mass.sum()) == pytest.approx(1, abs=1e-6)
    width = float(edges[0, 1] - edges[0, 0])
    at_centres = density.log_prob(centres(edges).double()).exp() * width**density.dim
    assert float((mass - at_centres).abs().sum()) < 0.05  # what a cell holds is about density x size


@pytest.mark.parametrize("name", DENSITIES)
def test_samples_have_the_mean_and_spread_of_the_mixture(name: str) -> None:
    density = DENSITIES[name]
    x = drawn(density, 200_000)
    assert x.dtype == torch.float32 and x.shape == (200_000, density.dim)
    torch.testing.assert_close(x.mean(0), density.means.mean(0), atol=0.02, rtol=0)
    mode, distance = density.nearest(x)
    assert (torch.bincount(mode, minlength=density.modes) / len(x) * density.modes).sub(1).abs().max() < 0.1
    if density.dim == 2:  # Rayleigh: P(distance > 3 std) = exp(-9/2)
        assert float((distance <= 3).float().mean()) == pytest.approx(1 - math.exp(-4.5), abs=2e-3)


def test_weights_are_shares() -> None:
    density = Mixture1D([0.0, 10.0], [1.0, 1.0], [3.0, 1.0])
    assert float((drawn(density, 50_000) < 5).float().mean()) == pytest.approx(0.75, abs=0.01)
    assert density.log_prob(torch.tensor([[0.0]])).exp().item() == pytest.approx(0.75 / math.sqrt(2 * math.pi), rel=1e-5)


def test_quantiles_undo_the_distribution_function() -> None:
    u = torch.linspace(0.001, 0.999, 999, dtype=torch.float64)
    torch.testing.assert_close(Mixture1D([3.0], [2.0]).quantiles(u), 3 + 2 * torch.special.ndtri(u), atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (([[0.0]], [1.0, 1.0]), "1 means for 2 stds"),
        (([[0.0], [1.0, 2.0]], [1.0, 1.0]), "same number of coordinates"),
        (([[0.0]], [1.0], [1.0, 1.0]), "2 weights"),
    ],
)
def test_lists_that_do_not_fit_are_refused(arguments: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        GaussianMixture(*arguments)


def test_points_are_a_function_of_the_seed() -> None:
    first, again, other = (points(density=Ring(), dim=2, n=50, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(first.images, again.images) and first.fingerprint == again.fingerprint != other.fingerprint
    assert first.images.dtype == torch.float32 and first.shape == (2,)
    with pytest.raises(ValueError, match="dim is 1, the density has 2"):
        points(density=Ring(), dim=1)


# The divergences


def test_value_is_minus_log_4_where_p_g_is_p_data() -> None:  # theorem 1
    for density in DENSITIES.values():
        mass = density.cell_masses(inner_edges(density))
        assert float(value(mass, mass)) == pytest.approx(-math.log(4), abs=1e-6)
        assert float(jensen_shannon(mass, mass)) == pytest.approx(0, abs=1e-6)


def test_value_is_0_and_jsd_log_2_where_they_do_not_meet() -> None:
    density = Mixture1D([-5.0, 5.0], [0.3, 0.3])
    edges = inner_edges(density)
    left, right = (Mixture1D([mean], [0.3]).cell_masses(edges) for mean in (-5.0, 5.0))
    assert float(jensen_shannon(left, right)) == pytest.approx(math.log(2), abs=1e-6)
    assert float(value(left, right)) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("shift", [0.1, 0.5, 2.0])
def test_value_is_that_of_the_integral_at_the_optimal_discriminator(shift: float) -> None:  # equations 4 to 6
    p = Mixture1D()
    q = Mixture1D([mean + shift for mean in (-2.0, 0.0, 2.0)], [0.5] * 3)
    x = torch.linspace(-10, 12, 200_001, dtype=torch.float64)
    p_x, q_x = (density.log_prob(x[:, None]).exp() for density in (p, q))
    best = p_x / (p_x + q_x)
    integral = torch.trapezoid(torch.xlogy(p_x, best) + torch.xlogy(q_x, q_x / (p_x + q_x)), x)
    middle = (p_x + q_x) / 2
    jsd = torch.trapezoid(torch.xlogy(p_x, p_x / middle) + torch.xlogy(q_x, q_x / middle), x) / 2
    edges = inner_edges(p)
    cells = p.cell_masses(edges), q.cell_masses(edges)
    assert float(integral) == pytest.approx(-math.log(4) + 2 * float(jsd), abs=1e-6)  # the identity itself
    assert float(value(*cells)) == pytest.approx(-math.log(4) + 2 * float(jensen_shannon(*cells)), abs=1e-6)
    assert float(jensen_shannon(*cells)) == pytest.approx(float(jsd), rel=0.02)  # cells lose next to nothing
    assert float(jensen_shannon(*cells)) <= float(jsd)  # and never add


def test_no_discriminator_has_a_greater_value_than_the_optimal_one() -> None:  # proposition 1
    p, q = (Mixture1D([mean], [1.0]).cell_masses(inner_edges(Mixture1D())) for mean in (-1.0, 1.0))
    best = optimal_discriminator(p, q)
    for seed in range(20):
        other = torch.sigmoid(torch.logit(best) + torch.randn(best.shape, generator=torch.Generator().manual_seed(seed)))
        assert float((p * other.log() + q * (1 - other).log()).sum()) < float(value(p, q))


# The estimates


@pytest.mark.parametrize("name", DENSITIES)
def test_random_samples_of_p_data_itself_have_next_to_no_divergence(name: str) -> None:
    density = DENSITIES[name]
    found = measured(theory(density, latent_dim=density.dim), Fixed(drawn(density, 2**16)))
    assert 0 <= found["metric/jsd"] < 0.004
    assert found["metric/value_gap"] == pytest.approx(2 * found["metric/jsd"], abs=1e-5)


def test_evenly_spread_latents_have_less_noise_than_random_ones() -> None:
    density = Mixture1D()
    random, even = (measured(theory(density), g) for g in (Fixed(drawn(density, 2**16)), Quantile(density)))
    assert even["metric/jsd"] < random["metric/jsd"] / 10 and even["metric/jsd"] < 1e-5
    assert even["metric/wasserstein_1"] < 1e-3


def test_jsd_of_points_far_away_is_log_2() -> None:
    for density in DENSITIES.values():
        found = measured(theory(density, latent_dim=density.dim), Fixed(torch.full((2**16, density.dim), 50.0)))
        assert found["metric/jsd"] == pytest.approx(math.log(2), abs=1e-3)
        assert found["metric/value"] == pytest.approx(0, abs=2e-3)


@pytest.mark.parametrize("shift", quick([-3.0, 0.25, 1.0], 0.25))
def test_wasserstein_1_of_a_shift_is_the_shift(shift: float) -> None:
    density = Mixture1D()
    assert measured(theory(density), Quantile(density, shift))["metric/wasserstein_1"] == pytest.approx(abs(shift), abs=1e-3)


def test_shares_put_each_point_in_its_cell() -> None:
    edges = torch.tensor([[0.0, 1.0], [0.0, 1.0]])  # 3 x 3 cells
    x = torch.tensor([[-9.0, 0.5], [0.5, 0.5], [0.5, 0.5], [9.0, -9.0]])
    assert shares(x, edges).tolist() == [[0, 0.25, 0], [0, 0.5, 0], [0.25, 0, 0]]


@pytest.mark.parametrize("size", [(40,), (30, 30)])
def test_smoothing_keeps_the_mass_and_lowers_the_divergence(size: tuple[int, ...]) -> None:
    p, q = (torch.rand(size, generator=torch.Generator().manual_seed(seed)) ** 4 for seed in (0, 1))
    p, q = p / p.sum(), q / q.sum()
    assert float(smooth(p).sum()) == pytest.approx(1, abs=1e-5)
    assert 0 < float(jensen_shannon(smooth(p), smooth(q))) < float(jensen_shannon(p, q))


def test_modes_and_good_points_are_counted() -> None:
    ring = Ring(std=0.1)
    angles = torch.arange(2**16) % 3 * (2 * math.pi / 8)  # the centres of three modes
    made = 2 * torch.stack([angles.cos(), angles.sin()], dim=1)
    task = theory(ring, latent_dim=2, prior="normal")
    found = measured(task, Fixed(made))
    assert (found["metric/modes"], found["metric/good_share"]) == (3, 1)
    off = made.clone()
    off[::2] *= 1.2  # 0.4 = 4 standard deviations away from the centre
    found = measured(task, Fixed(off))
    assert (found["metric/modes"], found["metric/good_share"]) == (3, 0.5)
    assert "metric/wasserstein_1" not in found
    assert measured(task, Fixed(torch.zeros(2**16, 2)))["metric/modes"] == 0


# The discriminator


@pytest.mark.parametrize("name", quick(["mixture_1d", "ring"], "mixture_1d"))
def test_a_trained_discriminator_is_the_optimal_one(name: str) -> None:  # proposition 1, with G frozen
    density = DENSITIES[name]
    task = theory(density, Minimax(), latent_dim=density.dim, prior="normal")
    task.generator = nn.Linear(density.dim, density.dim)  # p_g is a Gaussian
    nn.init.eye_(task.generator.weight)
    nn.init.constant_(task.generator.bias, 0.3)
    optimizer = torch.optim.Adam(task.discriminator.parameters(), lr=5e-3)
    data = points(density=density, dim=density.dim, n=100_000)
    steps = 800
    for step in range(steps):
        torch.manual_seed(step)
        optimizer.param_groups[0]["lr"] = 5e-3 * (1 - step / steps)
        loss, _ = turns(task).discriminator({"image": data.batch(torch.randint(len(data), (1024,)))})
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    found = task.measure(task.generator, task.examples(data, 0, CPU))
    assert found["metric/d_error"] < 0.02
    assert found["metric/jsd"] > 0.02  # it was not a matter of 1/2 everywhere
    assert loss.item() == pytest.approx(-found["metric/value"], abs=0.06)  # the inner maximum is reached: C(G), on a batch


def test_scores_are_not_taken_for_probabilities() -> None:
    found = measured(theory(Mixture1D(), Wasserstein()), Quantile(Mixture1D()))
    assert sorted(found) == ["metric/jsd", "metric/value", "metric/value_gap", "metric/wasserstein_1"]
    assert all(isinstance(number, float) for number in found.values())


# The picture


@pytest.mark.parametrize("adversarial", quick({"gan": NonSaturating(), "wgan": Wasserstein()}, "gan"))
@pytest.mark.parametrize(
    ("density", "latent_dim", "prior"),
    quick(
        {"1d": (Mixture1D(), 1, "uniform"), "1d of 3": (Mixture1D(), 3, "normal"), "2d": (Ring(), 2, "normal")},
        *["1d", "2d"],
    ),
)
def test_the_picture_is_an_image_that_depends_on_the_generator_only(
    density: GaussianMixture, latent_dim: int, prior: str, adversarial: Any
) -> None:
    task = theory(density, adversarial, latent_dim, prior)
    examples = task.examples(points(density=density, dim=density.dim, n=3000), 0, CPU)
    first, again = task.picture(task.generator, examples), task.picture(task.generator, examples)
    assert first.dtype == torch.uint8 and first.shape == (3, 600, 900)
    assert torch.equal(first, again) and first.float().std() > 10
    other = task.picture(Fixed(drawn(density, 2**16)), examples)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("name", DENSITIES)
def test_samples_are_drawn_on_the_density(name: str) -> None:
    density = DENSITIES[name]
    task = theory(density, latent_dim=density.dim)
    task.objective = None  # as when a run is reloaded to draw from
    pictures = [task.draw_points(drawn(density, 100, seed)) for seed in (0, 1)]
    assert pictures[0].dtype == torch.uint8 and pictures[0].shape == (3, 600, 900)
    assert not torch.equal(*pictures)


def test_examples_are_a_function_of_the_seed() -> None:
    task = theory(Ring(), latent_dim=2, prior="normal")
    data = points(density=Ring(), dim=2, n=10)
    first, again, other = (task.examples(data, seed, CPU) for seed in (0, 0, 1))
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["latents"], other["latents"])
    assert first["latents"].isfinite().all() and len(first["data"]) == 10
    torch.testing.assert_close(first["latents"].std(0), torch.ones(2), atol=0.01, rtol=0)


def test_more_than_two_dimensions_are_refused() -> None:
    with pytest.raises(ValueError, match="3 dimensions"):
        theory(GaussianMixture([[0.0, 0.0, 0.0]], [1.0]))
