"""Random numbers depend on the seed, a position and, for the noise of a training step, the rank."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from gan_cli.randomness import derive, sample_normal, sample_uniform, seed_everything, seed_step

TABLES = [sample_normal, sample_uniform]


@pytest.mark.parametrize(
    ("parts", "value"),
    [
        ((0, "init", "generator"), 1937801414962612690),
        ((0, "step", 0), 4666984622602656556),
        ((), 2847183694713211083),
    ],
)
def test_seeds_never_change(parts: tuple[object, ...], value: int) -> None:
    """Runs that were saved continue with these; another value would be another run."""
    assert derive(*parts) == value


def test_different_parts_give_different_seeds() -> None:
    parts = [(s, word, k) for s in range(10) for word in ("step", "data", "sample") for k in range(50)]
    parts += [(1, 23), (12, 3), ("1", 23), (123,), ("step",), (("step",),), ("a", "b"), ("ab",)]  # type: ignore[list-item]
    seeds = [derive(*p) for p in parts]
    assert len({s % 2**32 for s in seeds}) == len(parts), "CPU generators look at the low 32 bits"
    assert all(0 <= s < 2**63 for s in seeds)


def test_seed_everything_sets_the_global_generator() -> None:
    draws = []
    for step in (0, 1, 0):
        seed_everything(5, "step", step)
        draws.append(torch.rand(4))
    assert torch.equal(draws[0], draws[2]) and not torch.equal(draws[0], draws[1])


def test_each_rank_draws_other_noise_and_rank_0_that_of_one_process() -> None:
    draws = []
    for step, rank in ((7, 0), (7, 1), (7, 2), (8, 1)):
        seed_step(3, step, rank)
        draws.append(torch.randn(4))
    assert len({tuple(draw.tolist()) for draw in draws}) == 4
    seed_everything(3, "step", 7)
    assert torch.equal(torch.randn(4), draws[0])


def test_seed_everything_gives_what_torch_gives() -> None:
    seed_everything(5, "step", 3)
    ours = torch.rand(4), torch.randn(4)
    torch.manual_seed(derive(5, "step", 3))
    assert torch.equal(ours[0], torch.rand(4)) and torch.equal(ours[1], torch.randn(4))


@pytest.mark.skipif(torch.cuda.is_available(), reason="depends on whether CUDA was used before")
def test_seeding_is_nothing_beside_a_step() -> None:
    """It is done every step; torch.manual_seed takes 200 to 500 us where CUDA is not used, to keep a traceback."""
    times = []
    for step in range(200):
        start = time.perf_counter()
        seed_everything(0, "step", step)
        times.append(time.perf_counter() - start)
    assert min(times) < 100e-6, f"{1e6 * min(times):.0f} us"


@pytest.mark.parametrize("table", TABLES)
def test_rows_do_not_depend_on_how_they_are_asked_for(table: Callable[..., Tensor]) -> None:
    whole = table(9, 0, 300, 3)
    assert whole.shape == (300, 3) and whole.dtype == torch.float32
    cuts = [0, 1, 63, 64, 65, 127, 128, 200, 256, 300]
    for a, b in itertools.combinations_with_replacement(cuts, 2):
        assert torch.equal(table(9, a, b, 3), whole[a:b])
    assert torch.equal(torch.cat([table(9, k, k + 1, 3) for k in range(130)]), whole[:130])


@pytest.mark.parametrize("table", TABLES)
def test_rows_differ_between_each_other_and_between_seeds(table: Callable[..., Tensor]) -> None:
    rows = [tuple(r) for seed in (0, 1, "0") for r in table(seed, 0, 130, 3).tolist()]
    assert len(set(rows)) == len(rows)


@pytest.mark.parametrize("table", TABLES)
def test_sampling_leaves_the_global_generator_alone(table: Callable[..., Tensor]) -> None:
    before = torch.get_rng_state()
    table(0, 0, 100, 3)
    assert torch.equal(torch.get_rng_state(), before)


def test_distributions() -> None:
    normal, uniform = sample_normal(0, 0, 5000, 4), sample_uniform(0, 0, 5000, 4)
    assert normal.mean().item() == pytest.approx(0, abs=0.03) and normal.std().item() == pytest.approx(1, abs=0.03)
    assert uniform.min() >= 0 and uniform.max() < 1
    assert uniform.mean().item() == pytest.approx(0.5, abs=0.01)
