"""The gradient penalty for critics with a known gradient (Gulrajani et al. 2017, equation 3)."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from gan_cli.losses import Wasserstein
from gan_cli.objective import Critic, Objective, Turn
from gan_cli.penalties import GradientPenalty

SHAPE = (6, 2, 3, 4)


def images(seed: int = 0, n: int = SHAPE[0]) -> tuple[Tensor, Tensor]:
    """Real and fake images."""
    real, fake = torch.rand(2, n, *SHAPE[1:], generator=torch.Generator().manual_seed(seed)) * 2 - 1
    return real, fake


class Recorder:
    """D(x) = scale * ||x||^2 / 2, whose gradient is scale * x. Records its inputs."""

    def __init__(self, scale: Tensor | float = 1.0) -> None:
        self.scale = scale
        self.seen: list[Tensor] = []

    def __call__(self, x: Tensor) -> Tensor:
        self.seen.append(x.detach().clone())
        return self.scale * x.flatten(1).square().sum(1) / 2


def places(real: Tensor, fake: Tensor, x_hat: Tensor) -> Tensor:
    """alpha in x_hat = fake + alpha (real - fake), one per sample; fails off the segment."""
    line, offset = (real - fake).flatten(1), (x_hat - fake).flatten(1)
    alpha = (line * offset).sum(1) / line.square().sum(1)
    torch.testing.assert_close(offset, alpha[:, None] * line, atol=1e-5, rtol=0)
    return alpha


@pytest.mark.parametrize(("weight", "target"), [(10.0, 1.0), (0.1, 1.0), (1.0, 0.0), (10.0, 2.5)])
@pytest.mark.parametrize("seed", [0, 1])
def test_linear_critic(weight: float, target: float, seed: int) -> None:
    """<w, x> has the gradient w everywhere, so the images do not matter; the norm is over C, H and W."""
    w = torch.randn(SHAPE[1:], generator=torch.Generator().manual_seed(7))
    real, fake = images(seed)
    penalty = GradientPenalty(weight, target)(lambda x: (x * w).flatten(1).sum(1), real, fake)
    assert penalty.shape == ()
    torch.testing.assert_close(penalty, weight * (w.norm() - target) ** 2)


def test_a_map_of_logits_counts_as_their_sum() -> None:
    w = torch.randn(SHAPE[1:], generator=torch.Generator().manual_seed(7))
    penalty = GradientPenalty()(lambda x: x * w, *images())
    torch.testing.assert_close(penalty, 10 * (w.norm() - 1) ** 2)


def test_a_critic_with_gradient_norm_one_is_not_penalised() -> None:
    w = torch.full(SHAPE[1:], 24**-0.5)
    assert GradientPenalty()(lambda x: (x * w).flatten(1).sum(1), *images()).item() == pytest.approx(0, abs=1e-9)


def test_the_gradient_is_taken_on_the_segment_at_a_place_of_each_samples_own() -> None:
    real, fake = images()
    critic = Recorder()
    penalty = GradientPenalty()(critic, real, fake)
    (x_hat,) = critic.seen
    alpha = places(real, fake, x_hat)
    assert ((alpha >= 0) & (alpha <= 1)).all()
    assert alpha.unique().numel() == len(real)
    torch.testing.assert_close(penalty, 10 * (x_hat.flatten(1).norm(dim=1) - 1).square().mean())


def test_the_places_are_uniform() -> None:
    torch.manual_seed(0)
    real, fake = images(n=2000)
    critic = Recorder()
    GradientPenalty()(critic, real, fake)
    alpha = places(real, fake, critic.seen[0]).sort().values
    assert (alpha - torch.linspace(0, 1, len(alpha))).abs().max() < 0.045  # Kolmogorov-Smirnov, p = 0.0006


def test_every_call_draws_new_places() -> None:
    critic = Recorder()
    for _ in range(2):
        GradientPenalty()(critic, *images())
    assert not torch.equal(*critic.seen)


def test_the_gradient_reaches_the_critics_weights_in_closed_form() -> None:
    """With real = fake = x the penalty is weight * mean (a ||x|| - 1)^2."""
    a = torch.tensor(0.7, requires_grad=True)
    real, _ = images()
    GradientPenalty()(Recorder(a), real, real).backward()
    norm = real.flatten(1).norm(dim=1)
    assert a.grad is not None
    torch.testing.assert_close(a.grad, 10 * (2 * (0.7 * norm - 1) * norm).mean())


def test_the_gradient_agrees_with_finite_differences() -> None:
    torch.manual_seed(0)
    critic = nn.Sequential(nn.Flatten(), nn.Linear(24, 8), nn.Tanh(), nn.Linear(8, 1))
    real, fake = images()

    def penalty() -> Tensor:
        torch.manual_seed(1)
        return GradientPenalty()(critic, real, fake)

    penalty().backward()
    for parameter in (critic[1].weight, critic[1].bias, critic[3].weight):
        gradient, step = parameter.grad, 1e-2
        direction = gradient / gradient.norm()
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                parameter += sign * step * direction
            values.append(penalty().item())
            with torch.no_grad():
                parameter -= sign * step * direction
        assert (values[0] - values[1]) / (2 * step) == pytest.approx(gradient.norm().item(), rel=2e-3)


def test_the_images_keep_their_gradients_out_of_it() -> None:
    real, fake = images()
    GradientPenalty()(Recorder(torch.tensor(1.0, requires_grad=True)), real, fake).backward()
    assert not real.requires_grad and real.grad is None and not fake.requires_grad and fake.grad is None


def test_it_runs_in_float32_under_autocast() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(24, 1)
    seen: list[torch.dtype] = []

    def critic(x: Tensor) -> Tensor:
        logits = layer(x.flatten(1))
        seen.append(logits.dtype)
        return logits

    real, fake = images()
    objective, values = Objective(Wasserstein(), GradientPenalty()), []
    for given in (fake, fake, fake.bfloat16()):
        torch.manual_seed(1)
        with torch.autocast("cpu", torch.bfloat16, enabled=bool(values)):
            _, logs = objective.discriminator_loss(Critic(critic), real, given, Turn(("penalty",)))
        values.append(logs["d/penalty"])
    assert seen == [torch.float32, torch.float32, torch.bfloat16, torch.float32, torch.bfloat16, torch.float32]
    assert torch.equal(values[0], values[1]) and values[2].dtype == torch.float32
