"""SIGINT, SIGTERM, SIGUSR1, SIGUSR2: before the first step they end the process at once, later after the current step."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from gan_cli.system import torchrun

Handler = Callable[[int, FrameType | None], None] | signal.Handlers
# Slurm can send SIGUSR1 or SIGUSR2 before a time limit; submitit asks for SIGUSR2.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
SWEEP = "GAN_CLI_SWEEP"  # environment variable with HOST:PID of the sweeping process
received: list[str] = []  # names of the signals received so far


class Interrupted(KeyboardInterrupt):
    """A signal was received. Not an ``Exception``, so that no library catches it."""


def note(number: int, frame: FrameType | None) -> None:
    """Handle the first signal: record it, and let the second one end the process at once.

    Under torchrun the second one is ignored: each process gets a signal twice there, and torchrun kills a process that
    does not end in time.
    """
    received.append(signal.Signals(number).name)
    for each in SIGNALS:
        signal.signal(each, signal.SIG_IGN if torchrun.world() > 1 else signal.SIG_DFL)


@contextmanager
def interrupting(leave: Callable[[str], int]) -> Iterator[None]:
    """Raise :class:`Interrupted` at the first signal within this block. After the block signals are ignored.

    ``leave``: gets the signal's name, prints it and returns an exit code. It is called for a signal during an import. The
    process then exits at once, because torch's C++ code is not safe against an exception there.
    """
    process = os.getpid()
    received.clear()

    def interrupt(number: int, frame: FrameType | None) -> None:
        if os.getpid() == process:  # not in a forked worker
            note(number, frame)
            while frame is not None:
                if frame.f_code.co_filename.startswith("<frozen importlib"):
                    os._exit(leave(received[-1]))
                frame = frame.f_back
            raise Interrupted(received[-1])

    _handle(interrupt)
    try:
        yield
    finally:
        ignore()  # at exit the interpreter resets Python handlers to the default, which kills
        received.clear()


def ignore() -> None:
    """Ignore the signals from now on: the process is about to end."""
    _handle(signal.SIG_IGN)


@contextmanager
def stop_on_signal() -> Iterator[list[str]]:
    """Give a list to which the name of the first signal is added. The second signal ends the process at once."""
    stop = list(received)  # a signal whose exception was lost, for example in a destructor

    def stop_later(number: int, frame: FrameType | None) -> None:
        note(number, frame)
        stop.append(received[-1])

    before = _handle(stop_later)
    try:
        yield stop
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def _handle(handler: Handler) -> dict[signal.Signals, Any]:
    """Set the handler of all signals; returns the previous ones. Python handles signals in the main thread only."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    return {each: signal.signal(each, handler) for each in SIGNALS if each != signal.SIGINT or not is_elsewhere()}


def is_elsewhere() -> bool:
    """Return whether this is a worker of a sweep. Ctrl-C is then handled by the sweeping process."""
    mark = os.environ.get(SWEEP)
    return mark is not None and mark != f"{socket.gethostname()}:{os.getpid()}"
