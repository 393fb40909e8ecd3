"""The Fréchet distance compared with torch-fidelity, closed forms, and a reference without covariances."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

from gan_cli.metrics import frechet
from gan_cli.metrics.frechet import Gaussian, frechet_distance

D = 48


def features(seed: int, n: int = 400, d: int = D) -> Tensor:
    """float32 (n, d), correlated, some columns with little variance, like the outputs of ReLU."""
    mixing = torch.randn(d, d, generator=torch.Generator().manual_seed(99)) * torch.logspace(0, -2, d)
    noise = torch.randn(n, d, generator=torch.Generator().manual_seed(seed))
    return (noise * (1 + 0.1 * seed) @ mixing).relu()


def distance(x: Tensor, y: Tensor) -> float:
    return frechet_distance(Gaussian.of(x), Gaussian.of(y))


def from_data(x: Tensor, y: Tensor) -> tuple[float, float]:
    """The distance from the singular values of the centred data in NumPy, and the sum of the traces."""
    a, b = (features.double().numpy() for features in (x, y))
    centred_a, centred_b = ((f - f.mean(0)) / np.sqrt(len(f) - 1) for f in (a, b))
    traces = np.square(centred_a).sum() + np.square(centred_b).sum()
    # (n, d) -> (r, d) with the same covariance.
    root_a, root_b = (s[:, None] * v for _, s, v in (np.linalg.svd(f, full_matrices=False) for f in (centred_a, centred_b)))
    shared = np.linalg.svd(root_a @ root_b.T, compute_uv=False).sum()
    return float(np.square(a.mean(0) - b.mean(0)).sum() + traces - 2 * shared), float(traces)


def by_torch_fidelity(x: Tensor, y: Tensor) -> float:
    a, b = (fid_features_to_statistics(features.double()) for features in (x, y))
    return fid_statistics_to_metric(a, b, False)["frechet_inception_distance"]


def dead(x: Tensor) -> Tensor:
    return x * (torch.arange(D) % 3 != 0) + 0.37


def duplicated(x: Tensor) -> Tensor:
    return torch.cat([x[:, : D // 2]] * 2, dim=1)


def nearly_duplicated(x: Tensor) -> Tensor:
    noise = torch.randn(len(x), D // 2, generator=torch.Generator().manual_seed(5))
    return torch.cat([x[:, : D // 2], x[:, : D // 2] + 1e-5 * noise], dim=1)


def dependent(x: Tensor) -> Tensor:
    return torch.cat([x[:, : D // 2], x[:, : D // 2] @ torch.linspace(-1, 1, (D // 2) ** 2).view(D // 2, -1)], dim=1)


def badly_scaled(x: Tensor) -> Tensor:
    return x * torch.logspace(-6, 6, D)


def one_direction(x: Tensor) -> Tensor:
    return x[:, :1] * torch.linspace(-5, 5, D)


def far_from_zero(x: Tensor) -> Tensor:
    return x + 1000


SPOILT = [dead, duplicated, nearly_duplicated, dependent, badly_scaled, one_direction, far_from_zero]


@pytest.mark.parametrize(("n", "m"), [(400, 400), (400, 300), (D + 1, D + 2), (D, 400), (400, 20), (30, 20), (2, 2)])
def test_it_agrees_with_torch_fidelity(n: int, m: int) -> None:
    x, y = features(1, n), features(2, m)
    assert distance(x, y) == pytest.approx(by_torch_fidelity(x, y), rel=1e-4)
    assert distance(x, y) == pytest.approx(from_data(x, y)[0], rel=1e-10)


@pytest.mark.parametrize("spoil", SPOILT)
def test_singular_and_badly_scaled_covariances(spoil) -> None:
    """For a singular covariance the square root turns rounding errors of 1e-16 into 1e-8."""
    x, y = features(1), features(2)
    for a, b in ((spoil(x), spoil(y)), (spoil(x), y), (x, spoil(y)), (spoil(x)[:30], spoil(y))):
        expected, traces = from_data(a, b)
        assert distance(a, b) == pytest.approx(expected, abs=2e-8 * traces, rel=1e-9)
        if spoil is not badly_scaled:  # where torch-fidelity is inexact
            assert distance(a, b) == pytest.approx(by_torch_fidelity(a, b), rel=1e-4, abs=1e-6 * traces)


def test_every_factor_gives_the_covariance_of_numpy() -> None:
    for spoil in SPOILT:
        for n in (30, 400):
            x = spoil(features(1, n))
            gaussian, covariance = Gaussian.of(x), torch.from_numpy(np.cov(x.double().numpy(), rowvar=False))
            assert gaussian.mean.dtype == gaussian.factor.dtype == torch.float64
            assert gaussian.factor.shape == (D, min(n, D))
            error = gaussian.factor @ gaussian.factor.T - covariance
            scale = (
                covariance.diagonal().max()
                if spoil is not badly_scaled
                else covariance.diagonal().outer(covariance.diagonal()).sqrt()
            )
            assert (error.abs() <= 1e-12 * scale).all()


@pytest.mark.parametrize("spoil", [lambda x: x, *SPOILT])
@pytest.mark.parametrize("n", [30, 400])
def test_equal_sets_have_no_distance(spoil, n: int) -> None:
    x = spoil(features(1, n))
    traces = 2 * float(x.double().var(0).sum())
    assert 0 <= distance(x, x) <= 1e-12 * traces
    assert 0 <= distance(x, x.flip(0)) <= 1e-7 * traces


def test_one_repeated_image_against_itself_and_another() -> None:
    x, y = features(1, 1), features(2, 1)
    for n in (20, 400):
        assert distance(x.expand(n, D), x.expand(n, D)) == 0
        assert distance(x.expand(n, D), y.expand(n, D)) == pytest.approx(float((x - y).double().square().sum()), rel=1e-6)


def test_one_repeated_image_against_a_set() -> None:
    x, y = features(1, 1).expand(400, D), features(2)
    expected = (x.double().mean(0) - y.double().mean(0)).square().sum() + y.double().var(0).sum()
    assert distance(x, y) == pytest.approx(float(expected), rel=1e-10)


def test_shift_and_scale_in_closed_form() -> None:
    """N(m, S) to N(m + t, s^2 S): |t|^2 + (1 - s)^2 tr S."""
    x = features(1)
    mean = x.double().mean(0)
    for s in (1.0, 0.5, 3.0):
        y = (x.double() - mean) * s + mean + 0.25
        expected = D * 0.25**2 + (1 - s) ** 2 * float(x.double().var(0).sum())
        assert distance(x, y) == pytest.approx(expected, rel=1e-10)


def test_one_dimension_in_closed_form() -> None:
    x, y = features(1, d=1), features(2, d=1)
    (mean_x, mean_y), (std_x, std_y) = [float(f.double().mean()) for f in (x, y)], [float(f.double().std()) for f in (x, y)]
    assert distance(x, y) == pytest.approx((mean_x - mean_y) ** 2 + (std_x - std_y) ** 2, rel=1e-9)


def test_it_is_symmetric_and_the_chunks_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = features(1), features(2)
    whole = distance(x, y)
    assert distance(y, x) == pytest.approx(whole, rel=1e-12)
    monkeypatch.setattr(frechet, "CHUNK_ROWS", 7)
    assert distance(x, y) == pytest.approx(whole, rel=1e-12)


def test_features_are_left_alone() -> None:
    x = features(1).double()
    before = x.clone()
    distance(x, x)
    assert torch.equal(x, before)


@pytest.mark.parametrize("n", [D, 400])
def test_non_contiguous_features(n: int) -> None:
    x = features(1, n)
    assert distance(x.T.contiguous().T, features(2)) == pytest.approx(distance(x, features(2)), rel=1e-12)
