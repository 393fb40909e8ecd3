"""Dropout of a trained generator: on, and for each sample its own, whatever is drawn beside it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gan_cli.tasks import inference
from gan_cli.tasks.inference import with_own_noise

N = 150
KINDS = {
    "plain": (nn.Dropout(0.3), (4, 5)),
    "flat": (nn.Dropout(0.5), (7,)),
    "1d": (nn.Dropout1d(0.5), (6, 5)),
    "channels": (nn.Dropout2d(0.5), (6, 3, 3)),
    "3d": (nn.Dropout3d(0.5), (6, 2, 3, 3)),
    "of another kind": (nn.AlphaDropout(0.5), (4, 5)),
}


def drawn(layer: nn.Module, x: Tensor, seed: int = 0, start: int = 0) -> Tensor:
    return with_own_noise(nn.Sequential(nn.Identity(), layer).eval(), x, None, seed, start)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("most", [2**20, 64, 1])
def test_a_sample_does_not_depend_on_its_neighbours(kind: str, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """``most``: one draw for many samples, for a few, for each its own."""
    monkeypatch.setattr(inference, "MASK_NUMBERS", most)
    layer, shape = KINDS[kind]
    x = torch.rand(N, *shape) + 1
    whole = drawn(layer, x)
    for start, stop in ((0, 1), (3, 4), (60, 70), (64, 128), (149, 150)):
        assert torch.equal(drawn(layer, x[start:stop], start=start), whole[start:stop])
    assert not torch.equal(drawn(layer, x, seed=1), whole)
    assert not torch.equal(whole[:50] / x[:50], whole[50:100] / x[50:100])


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "of another kind"])
def test_dropped_as_torch_does(kind: str) -> None:
    """Zero with probability p, else scaled by 1 / (1 - p); of channels all or nothing."""
    layer, shape = KINDS[kind]
    ours, theirs = drawn(layer, torch.ones(N, *shape)), layer.train()(torch.ones(N, *shape))
    layer.eval()
    assert set(ours.unique().tolist()) == set(theirs.unique().tolist())
    assert float((ours == 0).float().mean()) == pytest.approx(float(layer.p), abs=0.08)  # type: ignore[arg-type]
    if not isinstance(layer, nn.Dropout):
        assert all(len(channel.unique()) == 1 for channel in ours.flatten(0, 1))


def test_every_layer_and_call_draws_its_own() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Dropout(0.5), nn.Dropout(0.5)

        def forward(self, x: Tensor) -> Tensor:
            return torch.stack([self.a(x), self.b(x), self.a(x)], dim=1)

    one, two, three = with_own_noise(Twice(), torch.ones(8, 50), None, 0, 0).unbind(1)
    assert not torch.equal(one, two) and not torch.equal(one, three) and not torch.equal(two, three)


def test_nothing_is_left_behind() -> None:
    network = nn.Sequential(nn.Dropout(0.5), nn.Dropout(1.0)).eval()
    state = torch.get_rng_state()
    assert torch.equal(with_own_noise(network, torch.ones(3, 9), None, 0, 0), torch.zeros(3, 9))
    assert torch.equal(torch.get_rng_state(), state)
    assert not any(module.training or module._forward_hooks for module in network.modules())


def test_nothing_is_left_behind_by_a_failure() -> None:
    network: Any = nn.Sequential(nn.Dropout(0.5), nn.Linear(2, 2)).eval()
    with pytest.raises(RuntimeError, match="shape"):
        with_own_noise(network, torch.ones(3, 9), None, 0, 0)
    assert not network[0]._forward_hooks


def test_networks_with_labels() -> None:
    class Labelled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.drop = nn.Dropout(0.5)

        def forward(self, z: Tensor, label: Tensor) -> Tensor:
            return self.drop(z) * label[:, None]

    x, label = torch.ones(5, 40), torch.arange(5)
    whole = with_own_noise(Labelled(), x, label, 3, 10)
    assert torch.equal(with_own_noise(Labelled(), x[2:4], label[2:4], 3, 12), whole[2:4])
