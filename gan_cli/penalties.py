"""Penalties and regularisers of the discriminator.

A penalty is ``(critic, real, fake) -> scalar``, weight included. Its ``critic`` maps images in [-1, 1], (N, C, H, W), to
logits; the condition is already bound. A regulariser is a :class:`gan_cli.objective.Regulariser`. It reuses the logits of
the loss with their graph, so it needs no additional pass of D.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from gan_cli.objective import DiscriminatorPass, Outputs, Regulariser, Schedule
from gan_cli.ranges import NonNegative, Positive, PositiveInt


class GradientPenalty:
    """WGAN-GP: weight * E[(||grad D(x_hat)||_2 - target)^2] (Gulrajani et al. 2017, equation 3).

    x_hat is a uniformly drawn point on the straight line between a real and a generated image. The norm is over all axes
    but the first. The objective runs the penalty in float32 in every ``precision``.
    """

    per_sample = True  # undefined where the critic mixes samples, as batch norm does

    def __init__(self, weight: Positive = 10.0, target: NonNegative = 1.0) -> None:
        self.weight, self.target = weight, target

    def __call__(self, critic: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor) -> Tensor:
        """Compute the penalty, a scalar. ``real``, ``fake``: images in [-1, 1], (N, C, H, W), without a graph."""
        alpha = torch.rand(len(real), *[1] * (real.dim() - 1), device=real.device)
        x_hat = torch.lerp(fake.float(), real.float(), alpha).requires_grad_(True)
        logits = critic(x_hat)
        (gradient,) = torch.autograd.grad(logits.sum(), x_hat, create_graph=True)
        norm = gradient.flatten(1).norm(dim=1)
        penalty: Tensor = self.weight * (norm - self.target).square().mean()
        return penalty


def squared_gradient(outputs: Outputs) -> Tensor:
    """E[||grad_x D(x)||^2] over the images of ``outputs``, a scalar with a graph. The logits of patches are summed."""
    (gradient,) = torch.autograd.grad(outputs.logits.sum(), outputs.images, create_graph=True)
    return gradient.float().square().flatten(1).sum(1).mean()


class R1(Regulariser):
    """gamma / 2 * E[||grad D(x)||^2] on real images (Mescheder et al. 2018, equation 9).

    The gradient is that of the loss's own logits, through the augmentation if there is one.

    Args:
        gamma: a number, or a schedule of it over the images seen. every: see :class:`gan_cli.objective.Regulariser`.
    """

    differentiates = ("real",)
    per_sample = True

    def __init__(self, gamma: NonNegative | Schedule = 10.0, every: PositiveInt = 1) -> None:
        super().__init__(gamma, every)

    def forward(self, seen: DiscriminatorPass) -> Tensor:
        """Half the mean squared norm of the gradient, a scalar; gamma is the weight."""
        return 0.5 * squared_gradient(seen.real)
