"""Precision, recall, density and coverage compared with torch-fidelity, prdc and NumPy; nearest neighbours; memorisation."""

from __future__ import annotations

import contextlib
import io

import numpy as np
import pytest
import torch
from torch import Tensor
from torch_fidelity.metric_prc import prc_features_to_metric

from gan_cli.metrics import neighbours
from gan_cli.metrics.neighbours import memorisation, nearest_neighbours, prdc


def features(seed: int, n: int = 150, d: int = 8) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed)) * (1 + 0.05 * seed) + 0.1 * seed


def distances(x: Tensor, y: Tensor) -> np.ndarray:
    a, b = x.double().numpy(), y.double().numpy()
    return np.sqrt(np.square(a[:, None] - b[None]).sum(2))


def plain(real: Tensor, fake: Tensor, k_precision: int = 3, k_density: int = 5) -> dict[str, float]:
    between = distances(real, fake)

    def radii(x: Tensor, k: int) -> np.ndarray:
        return np.sort(distances(x, x) + np.diag([np.inf] * len(x)), axis=1)[:, k - 1]

    inside = between < radii(real, k_density)[:, None]
    return {
        "precision": (between <= radii(real, k_precision)[:, None]).any(0).mean(),
        "recall": (between <= radii(fake, k_precision)[None]).any(1).mean(),
        "density": inside.sum(0).mean() / k_density,
        "coverage": inside.any(1).mean(),
    }


@pytest.mark.parametrize(("n", "m", "d"), [(150, 150, 8), (150, 90, 8), (90, 150, 3), (40, 30, 200), (7, 6, 2)])
@pytest.mark.parametrize(("k_precision", "k_density"), [(3, 5), (5, 3), (1, 1)])
@pytest.mark.parametrize("chunk", [1, 16, 4096])
def test_prdc_is_what_its_definition_says(n, m, d, k_precision, k_density, chunk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "CHUNK_ROWS", chunk)
    real, fake = features(1, n, d), features(3, m, d)
    found = prdc(real, fake, k_precision=k_precision, k_density=k_density)
    assert found == pytest.approx(plain(real, fake, k_precision, k_density), abs=1e-12)


@pytest.mark.parametrize(("n", "m", "d"), [(500, 500, 8), (500, 300, 64)])
def test_precision_and_recall_agree_with_torch_fidelity(n: int, m: int, d: int) -> None:
    real, fake = features(1, n, d), features(3, m, d)
    expected = prc_features_to_metric(fake.double(), real.double(), verbose=False, save_cpu_ram=False)
    found = prdc(real, fake)
    assert 0 < found["precision"] < 1 and 0 < found["recall"] < 1
    assert found["precision"] == pytest.approx(expected["precision"], rel=1e-6)
    assert found["recall"] == pytest.approx(expected["recall"], rel=1e-6)


@pytest.mark.parametrize(("n", "m", "d"), [(500, 500, 8), (500, 300, 64)])
def test_density_and_coverage_agree_with_prdc(n: int, m: int, d: int) -> None:
    compute_prdc = pytest.importorskip("prdc").compute_prdc
    real, fake = features(1, n, d), features(3, m, d)
    with contextlib.redirect_stdout(io.StringIO()):
        expected = compute_prdc(real.double().numpy(), fake.double().numpy(), nearest_k=5)
    found = prdc(real, fake, k_precision=5)
    assert found == pytest.approx(expected, rel=1e-9)  # no distance equals a radius here, so < and <= are the same


@pytest.mark.parametrize(("n", "d", "offset"), [(700, 8, 0.0), (300, 300, 0.0), (600, 64, 1e4)])
def test_identical_sets_are_exact_although_distances_are_rounded(n: int, d: int, offset: float) -> None:
    """The 5th neighbour is on the border, so only the image itself and four others are strictly inside."""
    real = features(1, n, d) + offset
    assert prdc(real, real) == {"precision": 1, "recall": 1, "density": 1, "coverage": 1}
    shuffled = real[torch.randperm(n, generator=torch.Generator().manual_seed(0))]
    assert prdc(real, shuffled) == {"precision": 1, "recall": 1, "density": 1, "coverage": 1}


@pytest.mark.parametrize("d", [8, 513])
def test_one_repeated_image_is_its_own_ball(d: int) -> None:
    """Balls of radius 0 hold what equals their centres, for both pairs of metrics. prdc leaves that to rounding."""
    image = features(1, 1, d)
    for shift in (0.0, 1e4):
        same = prdc((image + shift).expand(60, d), (image + shift).expand(50, d))
        assert same == {"precision": 1, "recall": 1, "density": 60 / 5, "coverage": 1}
    other = prdc(image.expand(60, d), features(2, 1, d).expand(50, d))
    assert other == {"precision": 0, "recall": 0, "density": 0, "coverage": 0}


def test_collapse_to_one_real_image() -> None:
    """All fakes are one real image x: they are in its ball and in the balls that contain x."""
    real = features(1, 200)
    fake = real[7].expand(100, -1)
    found = prdc(real, fake)
    expected = plain(real, fake)
    assert found == pytest.approx(expected, abs=1e-12)
    assert found["precision"] == 1 and found["recall"] == 1 / 200


def test_repeated_images_among_others() -> None:
    """Six copies of each image, so that all radii are 0."""
    real, fake = features(1, 30, 40).repeat(6, 1), torch.cat([features(1, 30, 40)[:15], features(2, 15, 40)]).repeat(6, 1)
    assert prdc(real, fake) == {"precision": 0.5, "recall": 0.5, "density": 0.6, "coverage": 0.5}


def test_sets_far_apart_have_nothing_in_common() -> None:
    assert prdc(features(1), features(1) + 100) == {"precision": 0, "recall": 0, "density": 0, "coverage": 0}


def test_k_may_be_all_the_others() -> None:
    real, fake = features(1, 6), features(2, 6)
    assert prdc(real, fake) == pytest.approx(plain(real, fake))


@pytest.mark.parametrize("chunk", [7, 4096])
def test_nearest(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "CHUNK_ROWS", chunk)
    queries, database = features(1, 50) + 1e3, features(2, 80) + 1e3
    expected = distances(queries, database)
    for k in (1, 4, 80):
        found, rows = nearest_neighbours(queries, database, k=k)
        assert found.shape == rows.shape == (50, k)
        assert found.dtype == torch.float64 and rows.dtype == torch.int64
        np.testing.assert_allclose(found.numpy(), np.sort(expected, axis=1)[:, :k], rtol=1e-9)
        np.testing.assert_array_equal(rows.numpy(), np.argsort(expected, axis=1)[:, :k])


def test_the_distance_to_a_copy_is_exactly_zero() -> None:
    database = features(1, 100, 513) + 1e3
    found, rows = nearest_neighbours(database[30:60], database)
    assert (found == 0).all()
    assert torch.equal(rows.flatten(), torch.arange(30, 60))


def test_near_neighbours_are_told_apart_where_a_product_would_only_give_noise() -> None:
    database = torch.zeros(3, 400, dtype=torch.float64) + 1
    database[:, 0] += torch.tensor([0.0, 1e-9, 3e-9])
    database = torch.cat([database, -database])
    found, rows = nearest_neighbours(database[:1], database, k=3)
    torch.testing.assert_close(found, torch.tensor([[0, 1e-9, 3e-9]], dtype=torch.float64), rtol=1e-6, atol=1e-15)
    assert rows.tolist() == [[0, 1, 2]]


def mann_whitney(train: Tensor, fake: Tensor, held_out: Tensor) -> float:
    a, b = distances(fake, train).min(1)[:, None], distances(held_out, train).min(1)[None]
    return float(((a < b) + 0.5 * (a == b)).mean())


def test_memorisation_pair_by_pair() -> None:
    for fake in (features(1, 60), features(2, 70), features(9, 40)):
        found = memorisation(features(1, 100), fake, features(3, 50))
        assert found == pytest.approx(mann_whitney(features(1, 100), fake, features(3, 50)), abs=1e-12)


def test_memorisation_of_copies_of_new_images_and_of_noise() -> None:
    data = torch.randn(3000, 6, generator=torch.Generator().manual_seed(0))
    train, held_out, new = data[:1000], data[1000:2000], data[2000:]
    assert memorisation(train, train, held_out) == 1
    assert memorisation(train, new, held_out) == pytest.approx(0.5, abs=0.04)  # 3 standard deviations
    assert memorisation(train, new + 50, held_out) == 0
    blurred_copies = train + 0.1 * new
    assert 0.9 < memorisation(train, blurred_copies, held_out) < 1


def test_memorisation_counts_ties_half() -> None:
    train = features(1, 30, 300)
    assert memorisation(train, train[:10], train[5:25]) == 0.5
    held_out = torch.cat([train[:5], features(2, 5, 300)])
    assert memorisation(train, train, held_out) == 0.75


def test_features_are_left_alone() -> None:
    real, fake = features(1).double(), features(2).double()
    before = real.clone(), fake.clone()
    prdc(real, fake)
    memorisation(real, fake, fake)
    assert torch.equal(real, before[0]) and torch.equal(fake, before[1])
