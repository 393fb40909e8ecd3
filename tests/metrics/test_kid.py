"""The kernel distance compared with torch-fidelity and a double sum."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
import torch
from torch import Tensor
from torch_fidelity.defaults import DEFAULTS
from torch_fidelity.metric_kid import kid_features_to_metric

from gan_cli.metrics.kid import kernel_distance


def features(seed: int, n: int = 120, d: int = 24) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed)).add(0.2 * seed).relu()


def by_torch_fidelity(real: Tensor, fake: Tensor, subsets: int, size: int, seed: int = 2020) -> tuple[float, float]:
    found = kid_features_to_metric(fake, real, kid_subsets=subsets, kid_subset_size=size, rng_seed=seed, verbose=False)
    return found["kernel_inception_distance_mean"], found["kernel_inception_distance_std"]


def plain(x: Tensor, y: Tensor) -> float:
    """MMD^2 over all rows, term by term (Binkowski et al. 2018, equation 4)."""
    a, b = x.double().numpy(), y.double().numpy()
    n, m = len(a), len(b)

    def kernel(u, v) -> float:
        return (np.dot(u, v) / len(u) + 1) ** 3

    within_a = sum(kernel(a[i], a[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    within_b = sum(kernel(b[i], b[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    return within_a + within_b - 2 * sum(kernel(u, v) for u in a for v in b) / (n * m)


@pytest.mark.parametrize(("n", "m", "d"), [(120, 120, 24), (120, 90, 24), (60, 130, 80), (50, 50, 1)])
@pytest.mark.parametrize("seed", [2020, 7])
def test_the_same_subsets_as_torch_fidelity(n: int, m: int, d: int, seed: int) -> None:
    real, fake = features(1, n, d), features(2, m, d)
    found = kernel_distance(real, fake, subsets=10, subset_size=40, seed=seed)
    assert found == pytest.approx(by_torch_fidelity(real.double(), fake.double(), 10, 40, seed), rel=1e-10)
    assert found == pytest.approx(by_torch_fidelity(real, fake, 10, 40, seed), rel=1e-4)


def test_the_defaults_are_those_of_torch_fidelity() -> None:
    defaults = {name: p.default for name, p in inspect.signature(kernel_distance).parameters.items()}
    assert defaults["subsets"] == DEFAULTS["kid_subsets"]
    assert defaults["subset_size"] == DEFAULTS["kid_subset_size"]
    assert defaults["seed"] == DEFAULTS["rng_seed"]


def test_all_rows_term_by_term() -> None:
    real, fake = features(1, 20), features(2, 20)
    mean, std = kernel_distance(real, fake, subsets=3)
    assert mean == pytest.approx(plain(real, fake), rel=1e-10)
    assert std == pytest.approx(0, abs=1e-12)


def test_fewer_rows_than_a_subset_where_torch_fidelity_refuses() -> None:
    real, fake = features(1, 20), features(2, 30)
    with pytest.raises(ValueError, match="subset size"):
        by_torch_fidelity(real, fake, 5, 1000)
    found = kernel_distance(real, fake, subsets=5, subset_size=1000)
    assert found == pytest.approx(by_torch_fidelity(real.double(), fake.double(), 5, 20), rel=1e-10)


def test_the_estimate_is_unbiased() -> None:
    """For two samples of one distribution the estimates are around 0, with both signs."""
    draws = torch.randn(200, 2, 30, 6, generator=torch.Generator().manual_seed(3))
    values = torch.tensor([kernel_distance(a, b, subsets=1)[0] for a, b in draws])
    assert abs(values.mean()) < 3 * values.std() / len(values) ** 0.5
    assert 0.2 < (values < 0).double().mean() < 0.8


def test_identical_sets_are_below_zero_as_in_torch_fidelity() -> None:
    real = features(1)
    mean, _ = kernel_distance(real, real, subsets=5, subset_size=120)
    assert mean < 0
    assert mean == pytest.approx(by_torch_fidelity(real.double(), real.double(), 5, 120)[0], rel=1e-9)


def test_one_repeated_image() -> None:
    x, y = features(1, 1), features(2, 1)
    assert kernel_distance(x.expand(50, -1), x.expand(50, -1), subsets=4) == pytest.approx((0, 0), abs=1e-12)
    expected = plain(x.expand(2, -1), y.expand(2, -1))
    assert kernel_distance(x.expand(50, -1), y.expand(50, -1), subsets=4) == pytest.approx((expected, 0), rel=1e-10, abs=1e-12)


def test_pairs_are_not_compared_with_their_partners() -> None:
    """For paired rows the plain estimate is biased by about 1/n of their kernel, the U-statistic is not."""
    for n in (20, 100, 300):
        real = torch.randn(n, 6, generator=torch.Generator().manual_seed(n))
        assert kernel_distance(real, real, subset_size=n, subsets=2, paired=True)[0] == pytest.approx(0, abs=1e-12)
        assert kernel_distance(real, real, subset_size=n, subsets=2)[0] < -0.5 / n
    fake = torch.randn(300, 6, generator=torch.Generator().manual_seed(1))
    k = lambda x, y: (x @ y / 6 + 1) ** 3  # noqa: E731
    x, y = real.double().numpy(), fake.double().numpy()
    pairs = [(i, j) for i in range(300) for j in range(300) if i != j]
    expected = sum(k(x[i], x[j]) + k(y[i], y[j]) - 2 * k(x[i], y[j]) for i, j in pairs) / len(pairs)
    assert kernel_distance(real, fake, subset_size=300, subsets=1, paired=True)[0] == pytest.approx(expected, rel=1e-9)
