"""How a trained generator is run when part of its noise is in its layers: in dropout, or in the statistics of an image."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from gan_cli.randomness import seed_everything


def dropouts(network: nn.Module) -> list[nn.Module]:
    """The layers of a network that drop something."""
    return [m for m in network.modules() if isinstance(m, nn.modules.dropout._DropoutNd) and m.p > 0]


@contextmanager
def training_behaviour(network: nn.Module, *, batch_norm: bool) -> Iterator[None]:
    """Within this block dropout drops; nothing is remembered.

    ``batch_norm``: and batch norm uses the statistics of what it is given.
    """
    norms = [m for m in network.modules() if batch_norm and isinstance(m, nn.modules.batchnorm._BatchNorm)]
    before = [(m, m.training) for m in (*norms, *dropouts(network))]
    tracked = [m.track_running_stats for m in norms]
    for module, _ in before:
        module.training = True
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for module, training in before:
            module.training = training
        for norm, track in zip(norms, tracked, strict=True):
            norm.track_running_stats = track


def one_by_one(network: nn.Module, inputs: Tensor, label: Tensor | None, seed: object, start: int) -> Tensor:
    """``network`` on each sample alone, so that no result depends on its neighbours.

    Sample k draws its dropout from ``seed`` and ``start + k``. ``inputs``: (N, ...); ``label``: int64 (N,) or None. Returns
    what the network returns, (N, ...).
    """
    results = []
    for k in range(len(inputs)):
        seed_everything(seed, "layers", start + k)
        alone = [inputs[k : k + 1]] if label is None else [inputs[k : k + 1], label[k : k + 1]]
        results.append(network(*alone))
    return torch.cat(results)
