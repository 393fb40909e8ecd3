"""SIGINT, SIGTERM, SIGUSR1, SIGUSR2: end at once while there is nothing to save, else after the step. No torch here."""

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
# The last two are what Slurm can be told to send before a time limit; submitit asks for SIGUSR2.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
SWEEP = "GAN_CLI_SWEEP"  # environment: HOST:PID of the process that sweeps
received: list[str] = []  # names of those that came so far


class Interrupted(KeyboardInterrupt):
    """A signal came. Like its parent no ``Exception``, so that no library takes it for a failure of its own."""


def note(number: int, frame: FrameType | None) -> None:
    """Handler of the first signal: remember it. The second acts at once, but not under torchrun.

    There a signal for all comes twice, and torchrun itself ends what does not end in time.
    """
    received.append(signal.Signals(number).name)
    for each in SIGNALS:
        signal.signal(each, signal.SIG_IGN if torchrun.world() > 1 else signal.SIG_DFL)


@contextmanager
def interrupting(leave: Callable[[str], int]) -> Iterator[None]:
    """Within this block the first signal raises :class:`Interrupted`; after it none disturbs the end of the process.

    ``leave``: is told the signal's name, says so and returns an exit code. Called by a signal during an import, which ends
    the process there: torch's C++ code is not made for exceptions then.
    """
    process = os.getpid()
    received.clear()

    def interrupt(number: int, frame: FrameType | None) -> None:
        if os.getpid() == process:  # and not a forked worker
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
        ignore()  # the interpreter would set handlers of Python back to the default on its way out
        received.clear()


def ignore() -> None:
    """Ignore the signals from now on: the process is about to end."""
    _handle(signal.SIG_IGN)


@contextmanager
def stop_on_signal() -> Iterator[list[str]]:
    """A list that gets the name of the first signal and disturbs nothing else. The second acts at once."""
    stop = list(received)  # one whose exception got lost, as in a destructor

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
    """Set it for all of them; returns what was there before. Python handles signals in the main thread only."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    return {each: signal.signal(each, handler) for each in SIGNALS if each != signal.SIGINT or not is_elsewhere()}


def is_elsewhere() -> bool:
    """Whether this process runs jobs for one that sweeps, and is not that one, which answers Ctrl-C for all."""
    mark = os.environ.get(SWEEP)
    return mark is not None and mark != f"{socket.gethostname()}:{os.getpid()}"
