"""Optimizers with the arguments that a config may set.

Each function returns a torch optimizer. A config may also name a class of torch.optim.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from gan_cli.ranges import Betas, Momentum, NonNegative, Positive

Parameters = Iterable[nn.Parameter]


def adam(
    params: Parameters,
    *,
    lr: Positive = 2e-4,
    betas: Betas = (0.5, 0.999),
    eps: Positive = 1e-8,
    weight_decay: NonNegative = 0.0,
) -> torch.optim.Optimizer:
    """Adam (Kingma and Ba 2015), in PyTorch's fused kernel."""
    return torch.optim.Adam(params, lr=lr, betas=(betas[0], betas[1]), eps=eps, weight_decay=weight_decay, fused=True)


def adamw(
    params: Parameters,
    *,
    lr: Positive = 2e-4,
    betas: Betas = (0.5, 0.999),
    eps: Positive = 1e-8,
    weight_decay: NonNegative = 0.01,
) -> torch.optim.Optimizer:
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019), in PyTorch's fused kernel."""
    return torch.optim.AdamW(params, lr=lr, betas=(betas[0], betas[1]), eps=eps, weight_decay=weight_decay, fused=True)


def rmsprop(
    params: Parameters,
    *,
    lr: Positive = 5e-5,
    alpha: Momentum = 0.99,
    eps: Positive = 1e-8,
    momentum: Momentum = 0.0,
    weight_decay: NonNegative = 0.0,
) -> torch.optim.Optimizer:
    """RMSProp (Tieleman and Hinton 2012)."""
    return torch.optim.RMSprop(params, lr=lr, alpha=alpha, eps=eps, momentum=momentum, weight_decay=weight_decay)


def sgd(
    params: Parameters, *, lr: Positive = 0.1, momentum: Momentum = 0.0, weight_decay: NonNegative = 0.0
) -> torch.optim.Optimizer:
    """Stochastic gradient descent with momentum."""
    return torch.optim.SGD(params, lr=lr, momentum=momentum, weight_decay=weight_decay)
