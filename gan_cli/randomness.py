"""All randomness is derived from the seed and a position, so that nothing about it has to be saved.

The noise of step s is a function of (seed, s, rank), sample k of (seed, k), the data order of (seed, epoch). A resumed run
therefore draws the numbers that it would have drawn.
"""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

SAMPLE_BLOCK = 64  # samples that share one draw


def derive(*parts: object) -> int:
    """A seed in [0, 2^63) from any printable parts. Hashed, as CPU generators look at the low 32 bits only."""
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=8).digest(), "little") >> 1


def seed_everything(*parts: object) -> None:
    """Seed torch's global generators: that of the CPU, and those of the accelerators in use.

    ``torch.manual_seed`` gives the same numbers, but asks every backend, which takes half a millisecond where CUDA is not used.
    """
    seed = derive(*parts)
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.manual_seed_all(seed)
    if torch.backends.mps.is_available():
        torch.mps.manual_seed(seed)


def seed_step(seed: int, step: int, rank: int) -> None:
    """Seed the noise of training step ``step``, counted from 0. Rank 0 draws what a single process would."""
    seed_everything(seed, "step", step, *(("rank", rank) if rank > 0 else ()))


def sample_normal(seed: object, start: int, stop: int, dim: int) -> Tensor:
    """Standard normal rows ``start`` to ``stop`` of the endless table that belongs to ``seed``: float32 (stop - start, dim)."""
    return _rows(torch.randn, seed, start, stop, dim)


def sample_uniform(seed: object, start: int, stop: int, dim: int) -> Tensor:
    """The same, uniform on [0, 1)."""
    return _rows(torch.rand, seed, start, stop, dim)


def _rows(draw, seed: object, start: int, stop: int, dim: int) -> Tensor:  # type: ignore[no-untyped-def]
    blocks = []
    for block in range(start // SAMPLE_BLOCK, -(-stop // SAMPLE_BLOCK)):
        generator = torch.Generator().manual_seed(derive(seed, "sample", block))
        blocks.append(draw(SAMPLE_BLOCK, dim, generator=generator))
    first = start - start // SAMPLE_BLOCK * SAMPLE_BLOCK
    return torch.cat(blocks)[first : first + stop - start] if blocks else torch.empty(0, dim)
