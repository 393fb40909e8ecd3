"""The running average against the definition of a half-life."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

from gan_cli.training.ema import EMA


def set_all(network: nn.Module, value: float) -> None:
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.fill_(value)


def moved(half_life: float, ramp_up: float = 0.0) -> tuple[nn.Linear, EMA]:
    """An average that starts at 0 of a network that is now, and stays, at 1."""
    network = nn.Linear(3, 2)
    set_all(network, 0.0)
    ema = EMA(network, half_life=half_life, ramp_up=ramp_up)
    set_all(network, 1.0)
    return network, ema


def value(ema: EMA) -> float:
    first = next(ema.average.parameters())
    assert all((p == first.flatten()[0]).all() for p in ema.average.parameters())
    return first.flatten()[0].item()


@pytest.mark.parametrize("shown", [1000, 250, 10])
@pytest.mark.parametrize("half_lives", [1, 2, 3])
def test_after_each_half_life_the_old_weights_count_half(shown: int, half_lives: int) -> None:
    _, ema = moved(half_life=1000)
    for images in range(shown, half_lives * 1000 + 1, shown):
        ema.update(shown, images)
    assert value(ema) == pytest.approx(1 - 0.5**half_lives, abs=1e-5)


@pytest.mark.parametrize(
    ("shown", "images", "half_life"),
    [(10, 100, 10), (20, 100, 10), (64, 64, 6.4), (500, 10_000, 1000), (500, 10**6, 1000)],
)
def test_early_the_half_life_is_a_share_of_the_images_seen(shown: int, images: int, half_life: float) -> None:
    _, ema = moved(half_life=1000, ramp_up=0.1)
    ema.update(shown, images)
    assert value(ema) == pytest.approx(1 - 0.5 ** (shown / half_life), abs=1e-6)


@pytest.mark.parametrize("ramp_up", [0.0, 0.1])
def test_no_half_life_means_a_copy(ramp_up: float) -> None:
    network, ema = moved(half_life=0, ramp_up=ramp_up)
    ema.update(1, 1)
    assert value(ema) == 1.0
    set_all(network, 5.0)
    assert value(ema) == 1.0, "a copy, not the weights themselves"


def test_running_statistics_are_averaged_and_counters_copied() -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2))
    ema = EMA(network, half_life=100, ramp_up=0)
    network[1].running_mean.fill_(4.0)
    network[1].running_var.fill_(3.0)
    network[1].num_batches_tracked.fill_(7)
    ema.update(100, 100)
    assert ema.average[1].running_mean.tolist() == pytest.approx([2.0, 2.0])  # from 0
    assert ema.average[1].running_var.tolist() == pytest.approx([2.0, 2.0])  # from 1
    assert ema.average[1].num_batches_tracked.item() == 7


def test_a_batch_norm_that_is_the_network_itself_is_averaged() -> None:
    network = nn.BatchNorm2d(2)
    ema = EMA(network, half_life=100, ramp_up=0)
    network.running_mean.fill_(4.0)
    ema.update(100, 100)
    assert ema.average.running_mean.tolist() == pytest.approx([2.0, 2.0])


def test_batch_norm_without_running_statistics() -> None:
    network = nn.Sequential(nn.BatchNorm2d(2, track_running_stats=False))
    ema = EMA(network, half_life=100, ramp_up=0)
    set_all(network, 3.0)
    ema.update(100, 100)
    assert ema.average[0].weight.tolist() == pytest.approx([2.0, 2.0])


def test_power_iteration_vectors_are_copied() -> None:
    torch.manual_seed(0)
    network = spectral_norm(nn.Linear(4, 3))
    ema = EMA(network, half_life=1000, ramp_up=0)
    with torch.no_grad():
        network.parametrizations.weight.original.normal_()
    for _ in range(3):
        network(torch.randn(2, 4))
    before = ema.average.parametrizations.weight.original.clone()
    ema.update(500, 500)
    own, copied = dict(network.named_buffers()), dict(ema.average.named_buffers())
    assert len(own) == 2
    assert all(torch.equal(own[name], copied[name]) for name in own)
    after, raw = ema.average.parametrizations.weight.original, network.parametrizations.weight.original
    torch.testing.assert_close(after, before + (1 - 0.5**0.5) * (raw - before))


def test_the_average_is_for_inference_only_and_the_network_is_untouched() -> None:
    network = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    state = {k: v.clone() for k, v in network.state_dict().items()}
    ema = EMA(network, half_life=10)
    ema.update(5, 5)
    assert not any(m.training for m in ema.average.modules())
    assert not any(p.requires_grad for p in ema.average.parameters())
    assert all(m.training for m in network.modules())
    assert all(p.requires_grad for p in network.parameters())
    assert all(torch.equal(v, state[k]) for k, v in network.state_dict().items())
