"""Metrics from nearest neighbours in feature space: precision, recall, density, coverage, memorisation."""

from __future__ import annotations

import torch
from torch import Tensor

from gan_cli.metrics.frechet import float64

CHUNK_ROWS = 512  # rows of a distance matrix at a time
TINY = 1e-300  # squared radius of a ball that holds equal points only
ROUNDING_TOLERANCE = 1e-12  # fraction of the squared norms; squared distances that differ by less count as equal


def prdc(real: Tensor, fake: Tensor, *, k_precision: int = 3, k_density: int = 5) -> dict[str, float]:
    """Fidelity and diversity from balls around features, whose radius is the distance to the k-th nearest neighbour.

    The neighbours are those in the same set; an image is not its own neighbour.

    * ``precision``: fraction of the fakes in the ball of any real (Kynkäänniemi et al. 2019, equations 1 and 2).
    * ``recall``: fraction of the reals in the ball of any fake (same equations).
    * ``density``: mean number of real balls around a fake, divided by k (Naeem et al. 2020, equation 3). Can exceed 1.
    * ``coverage``: fraction of the real balls with a fake in them (Naeem et al. 2020, equation 4).

    The border of a ball is inside for precision and recall, and outside for density and coverage. So for one image,
    repeated in both sets, precision and recall are 1, density and coverage 0.

    Args:
        real: features, float (n, d).
        fake: features, float (m, d).
        k_precision: k of precision and recall, less than n and m.
        k_density: k of density and coverage, less than n and m.
    """
    k = max(k_precision, k_density)
    assert min(k_precision, k_density) >= 1 and min(len(real), len(fake)) > k
    real, fake = float64(real), float64(fake)
    centre = real.mean(0)  # does not change distances, but reduces norms and so rounding errors
    real, fake = real - centre, fake - centre
    real_radii, fake_radii = _squared_radii(real, k), _squared_radii(fake, k)
    real_rounding = ROUNDING_TOLERANCE * (_squared_norms(real) + real_radii[:, -1])
    fake_rounding = ROUNDING_TOLERANCE * (_squared_norms(fake) + fake_radii[:, -1])
    closed_real = real_radii[:, k_precision - 1] + real_rounding
    closed_fake = fake_radii[:, k_precision - 1] + fake_rounding
    radii = real_radii[:, k_density - 1]
    # The ball of a point that equals its k nearest others has the radius 0 and holds the points that equal it.
    open_real = torch.where(radii <= real_rounding, radii + real_rounding + TINY, radii - real_rounding)

    precise = torch.zeros(len(fake), dtype=torch.bool, device=fake.device)
    recalled, inside, covered = torch.zeros(3, dtype=torch.int64, device=fake.device)
    for start in range(0, len(real), CHUNK_ROWS):
        rows = slice(start, start + CHUNK_ROWS)
        distances = _squared_distances(real[rows], fake)
        precise |= (distances <= closed_real[rows, None]).any(0)
        recalled += torch.count_nonzero((distances <= closed_fake).any(1))
        in_ball = distances < open_real[rows, None]
        inside += torch.count_nonzero(in_ball)
        covered += torch.count_nonzero(in_ball.any(1))
    return {
        "precision": int(torch.count_nonzero(precise)) / len(fake),
        "recall": int(recalled) / len(real),
        "density": int(inside) / (k_density * len(fake)),
        "coverage": int(covered) / len(real),
    }


def nearest_neighbours(queries: Tensor, database: Tensor, *, k: int = 1) -> tuple[Tensor, Tensor]:
    """Find the k nearest rows of ``database`` for each query, nearest first. The order of equal distances is undefined.

    Args:
        queries: features, float (n, d).
        database: features, float (m, d).
        k: number of neighbours, 1 to m.

    Returns:
        Euclidean distances, float64 (n, k), exactly 0 between equal rows; and row indices, int64 (n, k).
    """
    assert 1 <= k <= len(database)
    queries, database = float64(queries), float64(database)
    centre = database.mean(0)
    queries, database = queries - centre, database - centre
    distances, indices = [], []
    for rows in torch.split(queries, CHUNK_ROWS):
        columns = _squared_distances(rows, database).topk(k, dim=1, largest=False).indices
        # Distances from differences, because the rounding errors of the product exceed very small distances.
        exact = torch.stack([(rows - database[column]).norm(dim=1) for column in columns.T], dim=1)
        exact, order = exact.sort(dim=1, stable=True)
        distances.append(exact)
        indices.append(columns.gather(1, order))
    return torch.cat(distances), torch.cat(indices)


def memorisation(train: Tensor, fake: Tensor, held_out: Tensor) -> float:
    """The probability that a fake is nearer to its nearest training image than a held-out real is to its own.

    The Mann-Whitney statistic, with ties counted half. It is the data-copying test of Meehan et al. 2020, section 3,
    without their division of the space into cells.

    Args:
        train: features of the training images, float (n, d).
        fake: features of generated images, float (m, d).
        held_out: features of held-out real images, float (l, d).

    Returns:
        0.5 if fakes are as far from the training images as held-out ones; near 1 for copies, near 0 for fakes that are
        far from the data.
    """
    of_fake = nearest_neighbours(fake, train)[0].flatten()
    of_held_out = nearest_neighbours(held_out, train)[0].flatten().sort().values
    nearer = torch.searchsorted(of_held_out, of_fake)
    nearer_or_equal = torch.searchsorted(of_held_out, of_fake, right=True)
    return 1 - float((nearer + nearer_or_equal).double().mean()) / (2 * len(held_out))


def _squared_norms(x: Tensor) -> Tensor:
    norms: Tensor = torch.linalg.vector_norm(x, dim=1)
    return norms.square()


def _squared_distances(rows: Tensor, columns: Tensor) -> Tensor:
    """Squared distances (n, m) of float64 rows (n, d) and (m, d). Rounding can make them slightly negative."""
    return torch.addmm(_squared_norms(columns), rows, columns.T, alpha=-2).add_(_squared_norms(rows)[:, None])


def _squared_radii(features: Tensor, k: int) -> Tensor:
    """Squared distances to the 1st to k-th nearest other row: (n, d) to (n, k)."""
    radii = torch.full((len(features), k), torch.inf, dtype=features.dtype, device=features.device)
    for start in range(0, len(features), CHUNK_ROWS):
        rows = features[start : start + CHUNK_ROWS]
        stop = start + len(rows)
        # Distances of these rows to themselves and to all later rows; they count for the later rows too.
        distances = _squared_distances(rows, features[start:])
        distances.fill_diagonal_(torch.inf)
        _keep_smallest(radii[start:stop], distances)
        _keep_smallest(radii[stop:], distances[:, len(rows) :].T)
    return radii


def _keep_smallest(kept: Tensor, more: Tensor) -> None:
    """Update each row of ``kept``, (n, k), to the k smallest values of itself and the same row of ``more``, ascending."""
    k = kept.shape[1]
    smallest = more.topk(min(k, more.shape[1]), dim=1, largest=False).values
    kept.copy_(torch.cat([kept, smallest], dim=1).topk(k, dim=1, largest=False).values)
