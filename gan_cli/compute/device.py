"""The device, its threads and the memory layout of networks."""

from __future__ import annotations

import os

import torch
from torch import nn

from gan_cli.compute.layers import has_convolutions, keeps_channels_last
from gan_cli.system import torchrun
from gan_cli.system.errors import DeviceError


def default_threads() -> int:
    """OMP_NUM_THREADS, or the cores this process may use, shared with the others that torchrun started on this machine.

    Not torch's present count, which an earlier job may have set.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    return int(wanted) if wanted.isdigit() and int(wanted) > 0 else max(1, cores // torchrun.local_world())


def choose_device(device: str) -> torch.device:
    """``auto``: CUDA, else MPS, else CPU.

    Raises:
        DeviceError: the requested device does not exist.
    """
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if device == "auto":
        device = next(name for name in ("cuda", "mps", "cpu") if available[name])
    if not available[device]:
        others = ", ".join(name for name, there in available.items() if there)
        raise DeviceError(f"device {device} is not available here", "device", f"Set device=auto or one of: {others}")
    return torch.device(device)


def to_device(module: nn.Module, device: torch.device) -> nn.Module:
    """Move a network; convolutions get channels-last memory, in which they run faster.

    Networks with instance norm on a CPU keep the default format, because that layer always returns it.
    """
    module = module.to(device)
    faster = has_convolutions(module) and keeps_channels_last(module, device.type)
    return module.to(memory_format=torch.channels_last) if faster else module
