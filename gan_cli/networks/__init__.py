"""Generators and discriminators: plain modules without losses, optimizers, devices or files.

A generator maps latents (N, latent_dim) to images in [-1, 1], (N, C, H, W); a translator maps images to images. A
discriminator maps images to logits of any shape. Class-conditional networks take ``label``, int64 (N,), as a second
argument.
"""

from __future__ import annotations

import inspect
from typing import Any

from torch import Tensor, nn


def apply(network: nn.Module, inputs: Tensor, label: Tensor | None, **options: Any) -> Any:
    """Call ``network(inputs, label)``, or ``network(inputs)`` without a label, with ``options`` as keywords."""
    return network(inputs, **options) if label is None else network(inputs, label, **options)


def takes_label(network: nn.Module) -> bool:
    """Return whether a network is class-conditional: its ``forward`` has an argument ``label``."""
    return "label" in inspect.signature(network.forward).parameters


def keywords(network: nn.Module) -> tuple[str, ...]:
    """Names of the keyword-only arguments of a generator's ``forward``, such as ``truncation``."""
    parameters = inspect.signature(network.forward).parameters.values()
    return tuple(p.name for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY)
