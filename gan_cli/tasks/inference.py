"""Sampling from generators with noise in their layers: dropout, or batch norm over a single image."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import count
from typing import Any

import torch
from torch import Tensor, nn

from gan_cli.compute.layers import batch_norms, dropouts, random_in_eval
from gan_cli.networks import apply
from gan_cli.randomness import SAMPLE_BLOCK, derive, seed_everything

MULTIPLY = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)  # layers that multiply by 0 or 1 / (1 - p)
MASK_NUMBERS = 2**20  # values of the mask of a block; a larger sample is a block of one


@contextmanager
def training_behaviour(network: nn.Module, *, batch_norm: bool) -> Iterator[None]:
    """Activate dropout within this block, without updates of running statistics.

    Args:
        network: in evaluation mode. batch_norm: normalise by the statistics of the batch at hand.
    """
    layers, norms = dropouts(network), batch_norms(network) if batch_norm else []
    before = [layer.training for layer in layers]
    statistics = [(norm.running_mean, norm.running_var) for norm in norms]
    for layer in layers:
        layer.training = True
    for norm in norms:  # without statistics evaluation takes those of the batch, and of this process alone
        norm.running_mean = norm.running_var = None
    try:
        yield
    finally:
        for layer, training in zip(layers, before, strict=True):
            layer.training = training
        for norm, (mean, var) in zip(norms, statistics, strict=True):
            norm.running_mean, norm.running_var = mean, var


def one_by_one(network: nn.Module, inputs: Tensor, label: Tensor | None, seed: object, start: int, **options: Any) -> Tensor:
    """Run ``network`` on each sample alone, so that no result depends on the batch.

    Sample k draws its dropout from ``seed`` and ``start + k``. ``inputs``: (N, ...); ``label``: int64 (N,) or None. Returns
    what the network returns, (N, ...).
    """
    results = []
    for k in range(len(inputs)):
        seed_everything(seed, "layers", start + k)
        results.append(apply(network, inputs[k : k + 1], None if label is None else label[k : k + 1], **options))
    return torch.cat(results)


def with_own_noise(
    network: nn.Module, inputs: Tensor, label: Tensor | None, seed: object, start: int, **options: Any
) -> Tensor:
    """Run ``network`` in evaluation mode with active dropout. Sample k draws its masks from ``seed`` and ``start + k``.

    ``inputs``: (N, ...); ``label``: int64 (N,) or None. Returns what the network returns, (N, ...).
    """
    layers = dropouts(network)
    if random_in_eval(network) or not all(type(layer) in MULTIPLY for layer in layers):
        with training_behaviour(network, batch_norm=False):
            return one_by_one(network, inputs, label, seed, start, **options)
    calls, odd = count(), []

    def drop(layer: nn.Module, given: tuple[Tensor, ...], result: Tensor) -> Tensor:
        odd.extend([layer] if len(given[0]) != len(inputs) else [])
        return given[0] * _mask(layer, given[0], (seed, "layers", next(calls)), start)

    with ExitStack() as stack:
        for layer in layers:
            stack.callback(layer.register_forward_hook(drop).remove)
        results: Tensor = apply(network, inputs, label, **options)
    if odd:  # the first axis is not the samples
        with training_behaviour(network, batch_norm=False):
            return one_by_one(network, inputs, label, seed, start, **options)
    return results


def _mask(layer: nn.Module, x: Tensor, seed: object, start: int) -> Tensor:
    """The dropout mask of samples ``start``, ``start + 1``, ..., cut out of masks that are drawn for blocks of samples."""
    shape = x.shape[1:] if isinstance(layer, nn.Dropout) else x.shape[1:2] + (1,) * (x.dim() - 2)
    rows = max(1, min(SAMPLE_BLOCK, MASK_NUMBERS // shape.numel()))
    stop, keep = start + len(x), 1.0 - float(layer.p)  # type: ignore[arg-type]
    blocks = []
    for block in range(start // rows, -(-stop // rows)):
        generator = torch.Generator().manual_seed(derive(seed, block))
        blocks.append(torch.rand(rows, *shape, generator=generator) < keep)  # torch's own Bernoulli takes five times as long
    first = start - start // rows * rows
    return torch.cat(blocks)[first : first + len(x)].to(x.device, x.dtype).div_(keep or 1.0)
