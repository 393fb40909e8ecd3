"""What nearest neighbours in feature space tell: precision, recall, density, coverage, memorisation."""

from __future__ import annotations

import torch
from torch import Tensor

from gan_cli.metrics.frechet import float64

CHUNK_ROWS = 512  # rows of a distance matrix at a time
ROUNDING_TOLERANCE = 1e-12  # squared distances that differ by less, as a part of the squared norms, count as equal


def prdc(real: Tensor, fake: Tensor, *, k_precision: int = 3, k_density: int = 5) -> dict[str, float]:
    """Fidelity and diversity from balls around features that reach to the k-th nearest neighbour in the same set.

    * ``precision``: part of the fakes in the ball of any real (Kynkäänniemi et al. 2019, equations 1 and 2).
    * ``recall``: part of the reals in the ball of any fake (same place).
    * ``density``: mean number of real balls that a fake is in, divided by k (Naeem et al. 2020, equation 3). Can exceed 1.
    * ``coverage``: part of the real balls with a fake in them (Naeem et al. 2020, equation 4).

    Precision and recall count the border of a ball as inside, density and coverage do not; so one image, repeated in both
    sets, has precision and recall 1, density and coverage 0. An image is not its own neighbour.

    Args:
        real: features, float (n, d).
        fake: features, float (m, d).
        k_precision: k of precision and recall, less than n and m.
        k_density: k of density and coverage, less than n and m.
    """
    k = max(k_precision, k_density)
    assert min(k_precision, k_density) >= 1 and min(len(real), len(fake)) > k
    real, fake = float64(real), float64(fake)
    centre = real.mean(0)  # distances stay the same, norms and with them rounding errors become smaller
    real, fake = real - centre, fake - centre
    real_radii, fake_radii = _squared_radii(real, k), _squared_radii(fake, k)
    real_rounding = ROUNDING_TOLERANCE * (_squared_norms(real) + real_radii[:, -1])
    fake_rounding = ROUNDING_TOLERANCE * (_squared_norms(fake) + fake_radii[:, -1])
    closed_real = real_radii[:, k_precision - 1] + real_rounding
    closed_fake = fake_radii[:, k_precision - 1] + fake_rounding
    open_real = real_radii[:, k_density - 1] - real_rounding

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
    """The k nearest rows of ``database``, nearest first; which of several at the same distance is left open.

    Args:
        queries: features, float (n, d).
        database: features, float (m, d).
        k: 1 to m.

    Returns:
        Euclidean distances, float64 (n, k), exactly 0 between equal rows; and row numbers, int64 (n, k).
    """
    assert 1 <= k <= len(database)
    queries, database = float64(queries), float64(database)
    centre = database.mean(0)
    queries, database = queries - centre, database - centre
    distances, indices = [], []
    for rows in torch.split(queries, CHUNK_ROWS):
        found = _squared_distances(rows, database).topk(k, dim=1, largest=False).indices
        # Again from the differences: the product's rounding errors would hide how near the very near ones are.
        exact = torch.stack([(rows - database[column]).norm(dim=1) for column in found.T], dim=1)
        exact, order = exact.sort(dim=1, stable=True)
        distances.append(exact)
        indices.append(found.gather(1, order))
    return torch.cat(distances), torch.cat(indices)


def memorisation(train: Tensor, fake: Tensor, held_out: Tensor) -> float:
    """The probability that a fake is nearer to its nearest training image than a held-out real is to its own.

    The statistic of Mann and Whitney, ties count half; the idea is the data-copying test of Meehan et al. 2020, section 3,
    here over the whole space at once.

    Args:
        train: features of the images trained on, float (n, d).
        fake: features of generated images, float (m, d).
        held_out: features of real images that were not trained on, float (l, d).

    Returns:
        0.5 if fakes are as far from the training images as new real ones, towards 1 for copies, towards 0 for fakes that
        are far from the data.
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
    """float64 (n, d) and (m, d) to (n, m). Rounding can make it a little negative."""
    return torch.addmm(_squared_norms(columns), rows, columns.T, alpha=-2).add_(_squared_norms(rows)[:, None])


def _squared_radii(features: Tensor, k: int) -> Tensor:
    """Squared distances to the 1st to k-th nearest other row: (n, d) to (n, k)."""
    radii = torch.full((len(features), k), torch.inf, dtype=features.dtype, device=features.device)
    for start in range(0, len(features), CHUNK_ROWS):
        rows = features[start : start + CHUNK_ROWS]
        stop = start + len(rows)
        # These rows to themselves and to all later ones, which learn from the same distances.
        distances = _squared_distances(rows, features[start:])
        distances.fill_diagonal_(torch.inf)
        _keep_smallest(radii[start:stop], distances)
        _keep_smallest(radii[stop:], distances[:, len(rows) :].T)
    return radii


def _keep_smallest(kept: Tensor, more: Tensor) -> None:
    """Each row of ``kept``, (n, k), becomes the k smallest of itself and of the same row of ``more``, ascending."""
    k = kept.shape[1]
    smallest = more.topk(min(k, more.shape[1]), dim=1, largest=False).values
    kept.copy_(torch.cat([kept, smallest], dim=1).topk(k, dim=1, largest=False).values)
