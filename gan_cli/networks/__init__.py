"""Generators and discriminators: plain modules, no loss, optimizer, device or file handling.

A generator maps latents (N, latent_dim), a translator images (N, C, H, W), to images in [-1, 1], (N, C, H, W); a
discriminator maps images to logits of any shape. Class-conditional ones take ``label``, int64 (N,), as a second argument.
"""

from __future__ import annotations

import inspect
from typing import Any

from torch import Tensor, nn


def apply(network: nn.Module, inputs: Tensor, label: Tensor | None, **options: Any) -> Any:
    """``network(inputs)``, or ``network(inputs, label)`` where there is a label, with ``options`` as keywords."""
    return network(inputs, **options) if label is None else network(inputs, label, **options)


def takes_label(network: nn.Module) -> bool:
    """Whether a network is class-conditional: its ``forward`` has a ``label``."""
    return "label" in inspect.signature(network.forward).parameters


def keywords(network: nn.Module) -> tuple[str, ...]:
    """The keyword-only arguments of a generator's ``forward``, such as ``truncation``: what a draw may set."""
    parameters = inspect.signature(network.forward).parameters.values()
    return tuple(p.name for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY)
