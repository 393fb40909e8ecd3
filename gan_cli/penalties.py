"""Penalties on the critic: ``(critic, real, fake) -> scalar`` to be added to the discriminator's loss.

``critic`` maps images in [-1, 1], (N, C, H, W) to logits, the condition already bound; a penalty never sees labels.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from gan_cli.compute import processes
from gan_cli.ranges import NonNegative, Positive

Critic = Callable[[Tensor], Tensor]


class GradientPenalty:
    """WGAN-GP: weight * E[(||grad D(x_hat)||_2 - target)^2] (Gulrajani et al. 2017, equation 3).

    x_hat lies on a straight line between a real and a generated image, at a place drawn uniformly for each sample. The
    norm is over all axes but the batch's. Runs in float32 whatever the precision of the rest.
    """

    per_sample = True  # undefined where the critic mixes samples, as batch norm does

    def __init__(self, weight: Positive = 10.0, target: NonNegative = 1.0) -> None:
        self.weight, self.target = weight, target

    def __call__(self, critic: Critic, real: Tensor, fake: Tensor) -> Tensor:
        """``real``, ``fake``: images in [-1, 1], (N, C, H, W), not part of a graph. Returns a scalar."""
        with torch.autocast(real.device.type, enabled=False):
            alpha = processes.own(lambda n: torch.rand(n, *[1] * (real.dim() - 1), device=real.device), real.shape[0])
            x_hat = torch.lerp(fake.float(), real.float(), alpha).requires_grad_(True)
            logits = critic(x_hat)
            (gradient,) = torch.autograd.grad(logits.sum(), x_hat, create_graph=True)
            norm = gradient.flatten(1).norm(dim=1)
            penalty: Tensor = self.weight * (norm - self.target).square().mean()
            return penalty
