"""Facts about layers that other code must respect. Those of PyTorch's layers are listed here; other layers declare them.

A class declares a fact as an attribute, no import needed::

    mixes_samples = True       # the output for a sample depends on the other samples of the batch
    random_in_eval = True      # draws random numbers in evaluation mode too
    convolves = True           # spends its time in 2-d convolutions
    synchronised = ("w_avg",)  # buffers to average over the processes of a training
"""

from __future__ import annotations

from torch import Tensor, nn


def mixing(network: nn.Module) -> list[str]:
    """Names of the layers whose output for a sample depends on the other samples, as that of batch norm."""
    return [name for name, m in network.named_modules() if is_batch_norm(m) or getattr(m, "mixes_samples", False)]


def batch_norms(network: nn.Module) -> list[nn.modules.batchnorm._BatchNorm]:
    """The batch norm layers."""
    return [m for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]


def is_batch_norm(layer: nn.Module) -> bool:
    """Whether a layer is batch norm of any dimension."""
    return isinstance(layer, nn.modules.batchnorm._BatchNorm)


def running_statistics(network: nn.Module) -> list[str]:
    """Names of the buffers that are running means and variances of batch norm."""
    names = (f"{prefix}.{name}".lstrip(".") for prefix, m in network.named_modules() if is_batch_norm(m)
             for name in ("running_mean", "running_var"))  # fmt: skip
    there = dict(network.named_buffers())
    return [name for name in names if name in there]


def dropouts(network: nn.Module) -> list[nn.modules.dropout._DropoutNd]:
    """The dropout layers that drop something."""
    return [m for m in network.modules() if isinstance(m, nn.modules.dropout._DropoutNd) and m.p > 0]


def random_in_eval(network: nn.Module) -> bool:
    """Whether a layer declares that it draws random numbers in evaluation mode."""
    return any(getattr(m, "random_in_eval", False) for m in network.modules())


def has_convolutions(network: nn.Module) -> bool:
    """Whether there is a 2-d convolution in it."""
    return any(isinstance(m, nn.Conv2d | nn.ConvTranspose2d) or getattr(m, "convolves", False) for m in network.modules())


def keeps_channels_last(network: nn.Module, device_type: str) -> bool:
    """Whether all layers return channels-last images for such images. Instance norm on a CPU does not."""
    return device_type != "cpu" or not any(isinstance(m, nn.InstanceNorm2d) for m in network.modules())


def synchronised(network: nn.Module) -> list[Tensor]:
    """List the buffers to average over processes: running statistics of batch norm, and those declared ``synchronised``."""
    declared = [m.get_buffer(name) for m in network.modules() for name in getattr(m, "synchronised", ())]
    return [*(network.get_buffer(name) for name in running_statistics(network)), *declared]
