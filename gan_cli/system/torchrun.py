"""The environment variables with which torchrun starts a process."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys

NEEDED = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
PR_SET_PDEATHSIG = 1  # prctl(2)


def _number(name: str, default: int) -> int:
    is_started_by_torchrun = all(key in os.environ for key in NEEDED)
    value = os.environ.get(name, "")
    return int(value) if is_started_by_torchrun and value.isdecimal() else default


def world() -> int:
    """Return the number of processes that were started together; 1 without torchrun."""
    return max(1, _number("WORLD_SIZE", 1))


def rank() -> int:
    """Return the rank of this process among all, from 0."""
    return _number("RANK", 0)


def local_world() -> int:
    """Return the number of these processes on this machine."""
    return max(1, _number("LOCAL_WORLD_SIZE", 1))


def local_rank() -> int:
    """Return the rank of this process among those on this machine, from 0."""
    return _number("LOCAL_RANK", 0)


def end_with_parent() -> None:
    """Have Linux send SIGTERM to this process when torchrun ends, even by kill -9."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
