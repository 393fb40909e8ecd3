"""The Inception Score: high if single images are recognisable and the set is diverse."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from gan_cli.metrics.frechet import float64


def inception_score(logits: Tensor, *, splits: int = 10, seed: int = 2020) -> tuple[float, float]:
    """``exp(E_x KL(p(y|x) || p(y)))`` of each split of the images (Salimans et al. 2016, section 4).

    The images are first shuffled as torch-fidelity does it, by ``RandomState(seed)``.

    Args:
        logits: logits of a classifier, float (n, classes), n >= splits.
        splits: number of parts of nearly equal size, each with its own p(y).
        seed: seed of the shuffle.

    Returns:
        Mean and standard deviation over the splits; between 1 and the number of classes.
    """
    n = len(logits)
    assert n >= splits >= 1
    order = torch.from_numpy(np.random.RandomState(seed).permutation(n))
    scores = []
    for i in range(splits):
        p = float64(logits[order[i * n // splits : (i + 1) * n // splits]]).softmax(1)
        # The mean KL as a difference of entropies, where a probability of 0 contributes 0.
        information = torch.special.entr(p.mean(0)).sum() - torch.special.entr(p).sum(1).mean()
        scores.append(information.exp())
    values = torch.stack(scores)
    return float(values.mean()), float(values.std(correction=0))
