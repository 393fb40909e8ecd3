"""Losses compared with the formulas of their papers, written with sigmoid and log."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from gan_cli.losses import Hinge, LeastSquares, Logistic, Minimax, NonSaturating, Wasserstein

ALL = [Minimax, NonSaturating, LeastSquares, Hinge, Wasserstein]
REAL = torch.tensor([-2.0, -0.3, 0.0, 0.9, 3.1], dtype=torch.float64)
FAKE = torch.tensor([1.7, -1.2, 0.4, -4.0, 0.0], dtype=torch.float64)


def log_d(logits: Tensor) -> Tensor:
    return torch.log(torch.sigmoid(logits)).mean()


def log_not_d(logits: Tensor) -> Tensor:
    return torch.log(1 - torch.sigmoid(logits)).mean()


def relu(x: Tensor) -> Tensor:
    return torch.where(x > 0, x, 0)


FORMULAS = {
    Minimax: (lambda r, f: -log_d(r) - log_not_d(f), lambda f: log_not_d(f)),
    NonSaturating: (lambda r, f: -log_d(r) - log_not_d(f), lambda f: -log_d(f)),
    LeastSquares: (lambda r, f: ((r - 1) ** 2).mean() / 2 + (f**2).mean() / 2, lambda f: ((f - 1) ** 2).mean() / 2),
    Hinge: (lambda r, f: relu(1 - r).mean() + relu(1 + f).mean(), lambda f: -f.mean()),
    Wasserstein: (lambda r, f: f.mean() - r.mean(), lambda f: -f.mean()),
}


@pytest.mark.parametrize("kind", ALL)
def test_values_are_those_of_the_paper(kind: type) -> None:
    discriminator, generator = FORMULAS[kind]
    torch.testing.assert_close(kind().discriminator(REAL, FAKE), discriminator(REAL, FAKE))
    torch.testing.assert_close(kind().generator(None, FAKE), generator(FAKE))
    torch.testing.assert_close(kind().generator(REAL, FAKE), generator(FAKE))


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("shape", [(1,), (6,), (2, 1, 30, 30)])
def test_logits_may_have_any_shape(kind: type, shape: tuple[int, ...]) -> None:
    real, fake = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0)).unbind()
    values = [kind().discriminator(real, fake), kind().generator(None, fake), *kind().report(real, fake).values()]
    flat = [kind().discriminator(real.flatten(), fake.flatten()), kind().generator(None, fake.flatten())]
    assert all(v.shape == () for v in values)
    torch.testing.assert_close(values[:2], flat)


@pytest.mark.parametrize("kind", ALL)
def test_real_and_fake_may_differ_in_number(kind: type) -> None:
    expected = kind().discriminator(REAL, FAKE)
    torch.testing.assert_close(kind().discriminator(REAL.repeat(3), FAKE), expected)


def test_at_one_half_the_value_of_the_game_is_minus_log_four() -> None:
    zero = torch.zeros(8)
    assert Minimax().discriminator(zero, zero).item() == pytest.approx(math.log(4))
    assert Minimax().generator(None, zero).item() == pytest.approx(-math.log(2))
    value = -Minimax().discriminator(zero, zero)
    assert value.item() == pytest.approx(-math.log(4))
    assert NonSaturating().generator(None, zero).item() == pytest.approx(math.log(2))


def test_the_optimal_discriminator_is_the_ratio_of_densities() -> None:
    """Goodfellow et al. 2014, proposition 1 and theorem 1, on three points."""
    p_data, p_g = torch.tensor([0.5, 0.3, 0.2]), torch.tensor([0.1, 0.3, 0.6])
    real, fake = (torch.repeat_interleave(torch.arange(3), (10 * p).round().long()) for p in (p_data, p_g))
    logits = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([logits], max_iter=100, tolerance_grad=1e-10, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = Logistic().discriminator(logits[real], logits[fake])
        value.backward()
        return value

    optimizer.step(loss)
    optimum = (p_data / (p_data + p_g)).double()
    torch.testing.assert_close(logits.detach().sigmoid(), optimum, atol=1e-5, rtol=0)
    middle = (p_data + p_g) / 2
    divergence = sum((p * torch.log(p / middle)).sum() for p in (p_data, p_g)) / 2
    assert loss().item() == pytest.approx(math.log(4) - 2 * float(divergence), abs=1e-6)


def test_only_the_minimax_gradient_vanishes_where_the_discriminator_is_sure() -> None:
    def gradient(loss: Minimax | NonSaturating) -> float:
        logits = torch.full((1,), -20.0, requires_grad=True)
        loss.generator(None, logits).backward()
        assert logits.grad is not None
        return logits.grad.item()

    assert -1e-8 < gradient(Minimax()) < 0
    assert gradient(NonSaturating()) == pytest.approx(-1.0)


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_extreme_logits_give_finite_values_and_gradients(kind: type, sign: float) -> None:
    real = torch.full((3,), sign * 1e4, requires_grad=True)
    fake = torch.full((3,), -sign * 1e4, requires_grad=True)
    losses = [kind().discriminator(real, fake), kind().generator(None, fake)]
    sum(losses).backward()
    assert real.grad is not None and fake.grad is not None
    assert all(x.isfinite().all() for x in (*losses, real.grad, fake.grad))


@pytest.mark.parametrize("kind", ALL)
def test_the_players_want_opposite_fakes(kind: type) -> None:
    fake = torch.zeros(4, requires_grad=True)
    (by_d,) = torch.autograd.grad(kind().discriminator(torch.full((4,), 0.5), fake + 0.5), fake)
    (by_g,) = torch.autograd.grad(kind().generator(None, fake + 0.5), fake)
    assert (by_d > 0).all() and (by_g < 0).all()


@pytest.mark.parametrize("kind", [Minimax, NonSaturating])
def test_logistic_losses_report_probabilities(kind: type) -> None:
    report = kind().report(REAL, FAKE)
    assert set(report) == {"d/real", "d/fake", "d/accuracy"}
    torch.testing.assert_close(report["d/real"], torch.sigmoid(REAL).mean())
    torch.testing.assert_close(report["d/fake"], torch.sigmoid(FAKE).mean())


@pytest.mark.parametrize("kind", [LeastSquares, Hinge, Wasserstein])
def test_score_losses_report_scores(kind: type) -> None:
    report = kind().report(REAL, FAKE)
    torch.testing.assert_close(report["d/real"], REAL.mean())
    torch.testing.assert_close(report["d/fake"], FAKE.mean())
    if kind is Wasserstein:
        torch.testing.assert_close(report["d/wasserstein"], REAL.mean() - FAKE.mean())


@pytest.mark.parametrize(("kind", "boundary"), [(Minimax, 0.0), (NonSaturating, 0.0), (Hinge, 0.0), (LeastSquares, 0.5)])
def test_accuracy_is_the_share_on_the_right_side(kind: type, boundary: float) -> None:
    right = [x > boundary for x in REAL.tolist()], [x < boundary for x in FAKE.tolist()]
    assert kind().report(REAL, FAKE)["d/accuracy"].item() == pytest.approx(sum(map(sum, right)) / 10)


def test_a_critic_has_no_accuracy() -> None:
    assert "d/accuracy" not in Wasserstein().report(REAL, FAKE)
