"""Exponential moving average of a network's weights (Karras et al. 2018), with a half-life in images."""

from __future__ import annotations

import copy

import torch
from torch import nn

from gan_cli.compute.layers import running_statistics
from gan_cli.objective import Schedule
from gan_cli.ranges import Fraction, NonNegative


class EMA:
    """The running average ``average`` of a network's weights.

    After ``half_life`` images an old weight counts half. At first the half-life is limited to the fraction ``ramp_up`` of the
    images seen, so that the initial weights lose their influence soon. Running statistics of batch norm are averaged with the
    weights. Other buffers are copied, because an average of, for example, power-iteration vectors is not one.

    Args:
        network: network to average. half_life: images, a number or a schedule over the images seen.
        ramp_up: upper limit of the half-life as a fraction of the images seen; 0 for no limit.
    """

    def __init__(self, network: nn.Module, half_life: NonNegative | Schedule, ramp_up: Fraction = 0.1) -> None:
        self.network, self.half_life, self.ramp_up = network, half_life, ramp_up
        self.average = copy.deepcopy(network).eval().requires_grad_(False)
        buffers, copies = dict(network.named_buffers()), dict(self.average.named_buffers())
        self._averaged = running_statistics(network)
        self._copied = [name for name in buffers if name not in self._averaged]
        self._source = [*network.parameters(), *(buffers[name] for name in self._averaged)]
        self._target = [*self.average.parameters(), *(copies[name] for name in self._averaged)]

    @torch.no_grad()
    def update(self, shown: int, images: int) -> None:
        """Update the average after a step in which D saw ``shown`` real images, ``images`` in all."""
        half_life = float(self.half_life(images)) if callable(self.half_life) else self.half_life
        half_life = min(half_life, images * self.ramp_up) if self.ramp_up > 0 else half_life
        weight = 1.0 - 0.5 ** (shown / half_life) if half_life > 0 else 1.0
        torch._foreach_lerp_(self._target, self._source, weight)
        for name in self._copied:
            self.average.get_buffer(name).copy_(self.network.get_buffer(name))
