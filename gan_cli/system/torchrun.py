"""What torchrun says of this process, from the environment."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys

NEEDED = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
PR_SET_PDEATHSIG = 1  # prctl(2)


def _number(name: str, default: int) -> int:
    there = all(key in os.environ for key in NEEDED)
    value = os.environ.get(name, "")
    return int(value) if there and value.isdecimal() else default


def world() -> int:
    """Processes that were started together; 1 without torchrun."""
    return max(1, _number("WORLD_SIZE", 1))


def rank() -> int:
    """Which of them this is, from 0."""
    return _number("RANK", 0)


def local_world() -> int:
    """How many of them are on this machine."""
    return max(1, _number("LOCAL_WORLD_SIZE", 1))


def local_rank() -> int:
    """Which of those on this machine this is, from 0."""
    return _number("LOCAL_RANK", 0)


def end_with_parent() -> None:
    """From now on this process gets SIGTERM when torchrun dies, even by kill -9. On Linux only."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
