"""Jobs that a launcher runs in other processes: they end when the sweep does. Must not import torch."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

from gan_cli import signals
from gan_cli.errors import PreemptedError

STOP = ".stop"  # in the directory of a sweep: its jobs, wherever they run, save and end
PAUSE = 0.3  # seconds between looks
watched: list[Path] = []  # by this process


def obey(directory: Path) -> None:
    """End the job as a signal would when the sweep stops or, on the same machine, is killed.

    Ctrl-C goes to all processes of a terminal; the one that sweeps answers it for all.

    Raises:
        PreemptedError: it is stopping already.
    """
    if not signals.is_elsewhere():
        return
    signals.received.clear()  # of the job before
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if (directory / STOP).exists():
        raise PreemptedError("the sweep is stopping, the job was not begun", str(directory), "Repeat the command of the sweep")
    if directory not in watched:
        watched.append(directory)
        threading.Thread(target=_watch, args=(directory, os.getppid()), daemon=True).start()


def _watch(directory: Path, parent: int) -> None:
    own = os.environ[signals.SWEEP] == str(parent)  # not so on another machine
    while True:
        time.sleep(PAUSE)
        orphaned = own and os.getppid() != parent
        training = callable(signal.getsignal(signal.SIGTERM))  # and listens
        if ((directory / STOP).exists() or orphaned) and training and not signals.received:
            os.kill(os.getpid(), signal.SIGTERM)
        elif orphaned and not training:  # there is nobody to tell, and nothing to save
            os._exit(PreemptedError.exit_code)
