"""Means of what is logged: the same bits wherever a run stops, and little work beside a step."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from gan_cli.system.errors import CheckpointError
from gan_cli.training.guard import Guard
from gan_cli.training.loop import Progress
from gan_cli.training.sums import BLOCK, Sums
from gan_cli.training.writer import Options, Writer

STEPS = 2 * BLOCK + 9


def values() -> Tensor:
    """(STEPS, 3) float32, of which some are not finite."""
    table = torch.randn(STEPS, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 1e4, 1e-4])
    table[5, 0], table[BLOCK + 1, 1], table[STEPS - 1, 2] = math.nan, math.inf, -math.inf
    return table


def writer(run_dir: Path, waited: Callable[[], float] = lambda: 0.0) -> Writer:
    run_dir.mkdir(exist_ok=True)
    return Writer.open(run_dir, Progress(), Options(1000, 1000), guard=Guard(run_dir, ""), waited=waited)


def test_sums_leave_out_what_is_not_finite() -> None:
    sums = Sums(torch.zeros(2, 3))
    for row in values():
        sums.add(row)
    total, count = sums.result()
    finite = values().isfinite()
    torch.testing.assert_close(total, torch.where(finite, values(), 0).double().sum(0).float(), rtol=1e-4, atol=1e-3)
    assert count.tolist() == [STEPS - 1] * 3
    assert len(sums.block) < BLOCK


@pytest.mark.parametrize("stop", [0, 1, 6, BLOCK - 1, BLOCK, BLOCK + 2, STEPS])
def test_a_row_that_a_checkpoint_interrupts_has_the_same_bits(stop: int) -> None:
    whole, sums = Sums(torch.zeros(2, 3)), Sums(torch.zeros(2, 3))
    for k, row in enumerate(values()):
        if k == stop:
            assert sums.state().isfinite().all()  # a checkpoint takes nothing else
            sums = Sums.of_state(sums.state())
        whole.add(row)
        sums.add(row)
        assert torch.equal(sums.result(), whole.result())
    assert torch.equal(Sums.of_state(sums.state()).result(), whole.result())


def test_a_look_at_the_row_changes_nothing(tmp_path: Path) -> None:
    one, two = writer(tmp_path / "a"), writer(tmp_path / "b")
    for k, row in enumerate(values().nan_to_num(0, 0, 0)):
        for each in (one, two):
            each.add(dict(zip(("d/loss", "d/x", "g/y"), row, strict=True)))
        if k % 10 == 3:
            one.row(keep_sums=True)
    first, second = ({k: v for k, v in each.row().items() if not k.startswith("time/")} for each in (one, two))
    assert first == second
    assert one.sums == {}
    one.close()
    two.close()


def test_scalars_of_several_types(tmp_path: Path) -> None:
    each = writer(tmp_path / "a")
    for _ in range(3):
        each.add({"d/a": torch.tensor(0.5, dtype=torch.bfloat16), "d/b": torch.tensor(0.25, requires_grad=True)})
    each.measure({"metric/c": 7.0})
    row = each.row()
    assert (row["d/a"], row["d/b"], row["metric/c"]) == (0.5, 0.25, 7.0)
    each.close()


def test_waiting_for_data_is_a_column(tmp_path: Path) -> None:
    """As a share of the time since the last row."""
    waited = [5.0]
    each = writer(tmp_path / "a", waited=lambda: waited[0])
    each.row_time -= 100
    waited[0] += 25
    assert each.row()["time/data_wait"] == pytest.approx(0.25, abs=0.01)
    each.row_time -= 100
    assert each.row()["time/data_wait"] == 0
    each.close()


@pytest.mark.parametrize("shape", [(3, 1), (1, 1), (2, 2), (2,), (2 + 2 * BLOCK, 1)])
def test_a_state_that_is_none_is_refused(shape: tuple[int, ...], tmp_path: Path) -> None:
    each = writer(tmp_path / "a")
    with pytest.raises(CheckpointError):
        each.load_state({"d/loss": torch.zeros(shape)}, torch.device("cpu"))
    each.close()
