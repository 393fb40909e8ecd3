"""The Inception Score compared with torch-fidelity and a NumPy formula."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch_fidelity.metric_isc import isc_features_to_metric

from gan_cli.metrics.inception_score import inception_score


def logits(n: int = 200, classes: int = 12, scale: float = 3.0) -> Tensor:
    return scale * torch.randn(n, classes, generator=torch.Generator().manual_seed(0))


def by_torch_fidelity(x: Tensor, splits: int = 10, seed: int = 2020) -> tuple[float, float]:
    found = isc_features_to_metric(x, splits=splits, rng_seed=seed)
    return found["inception_score_mean"], found["inception_score_std"]


def plain(x: Tensor, splits: int, seed: int) -> tuple[float, float]:
    rows = x.double().numpy()[np.random.RandomState(seed).permutation(len(x))]
    scores = []
    for i in range(splits):
        part = rows[i * len(rows) // splits : (i + 1) * len(rows) // splits]
        p = np.exp(part) / np.exp(part).sum(1, keepdims=True)
        scores.append(np.exp(np.mean([sum(a * np.log(a / b) for a, b in zip(row, p.mean(0), strict=True)) for row in p])))
    return float(np.mean(scores)), float(np.std(scores))


@pytest.mark.parametrize(("n", "splits"), [(200, 10), (203, 10), (10, 10), (50, 1), (31, 7)])
@pytest.mark.parametrize("seed", [2020, 5])
def test_it_agrees_with_torch_fidelity_and_the_plain_formula(n: int, splits: int, seed: int) -> None:
    x = logits(n)
    found = inception_score(x, splits=splits, seed=seed)
    assert found == pytest.approx(by_torch_fidelity(x, splits, seed), rel=1e-10, abs=1e-10)
    assert found == pytest.approx(plain(x, splits, seed), rel=1e-10, abs=1e-10)


def test_the_defaults_are_those_of_torch_fidelity() -> None:
    assert inception_score(logits()) == pytest.approx(by_torch_fidelity(logits()), rel=1e-10)


def test_equal_images_score_one() -> None:
    assert inception_score(logits(1).expand(40, -1)) == pytest.approx((1, 0), abs=1e-12)


def test_sure_and_evenly_spread_scores_the_number_of_classes() -> None:
    assert inception_score(1e3 * torch.eye(7).repeat(20, 1), splits=1) == pytest.approx((7, 0), abs=1e-12)


def test_classes_of_probability_zero_in_a_whole_split_where_torch_fidelity_is_nan() -> None:
    x = torch.full((40, 5), -1e4)
    x[:20, 0] = x[20:, 1] = 1e4
    assert np.isnan(by_torch_fidelity(x, splits=1)[0])
    assert inception_score(x, splits=1) == pytest.approx((2, 0), abs=1e-12)


def test_float32_logits_are_not_rounded_further() -> None:
    x = logits(scale=40)
    assert inception_score(x) == pytest.approx(inception_score(x.double()), rel=1e-14)
