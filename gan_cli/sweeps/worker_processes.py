"""Jobs that a launcher runs in other processes: they end when the sweep does, each on a GPU of its own where there are several.

torch is imported only where there is a GPU.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from gan_cli.system import signals
from gan_cli.system.errors import OutputError, PreemptedError
from gan_cli.system.locks import locked

STOP = ".stop"  # in the directory of a sweep: its jobs, wherever they run, save and end
PAUSE = 0.3  # seconds between looks
watched: list[Path] = []  # by this process
before = signal.getsignal(signal.SIGTERM)  # a launcher's own handler, if it has one


def own_mark() -> str:
    """What :data:`gan_cli.system.signals.SWEEP` holds of this process: ``HOST:PID``."""
    return f"{socket.gethostname()}:{os.getpid()}"


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
    if is_orphaned():  # nobody reads the pipe into which an exception would be written
        os._exit(PreemptedError.exit_code)
    if (directory / STOP).exists():
        raise PreemptedError("the sweep is stopping, the job was not begun", str(directory), "Repeat the command of the sweep")
    if directory not in watched:
        watched.append(directory)
        threading.Thread(target=_watch, args=(directory,), daemon=True).start()


def is_orphaned() -> bool:
    """Whether the process that sweeps is gone, as far as this machine can tell."""
    host, _, number = os.environ[signals.SWEEP].rpartition(":")
    if host != socket.gethostname():
        return False
    try:
        os.kill(int(number), 0)
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] == "Z"  # killed, and nobody has asked
    except ProcessLookupError:
        return True
    except (OSError, ValueError, IndexError):  # another user's process; a system without /proc
        return False


def _watch(directory: Path) -> None:
    while True:
        time.sleep(PAUSE)
        orphaned = is_orphaned()
        training = callable(signal.getsignal(signal.SIGTERM)) and signal.getsignal(signal.SIGTERM) is not before
        if ((directory / STOP).exists() or orphaned) and training and not signals.received:
            os.kill(os.getpid(), signal.SIGTERM)
        elif orphaned and not training:  # there is nobody to tell, and nothing to save
            os._exit(PreemptedError.exit_code)


def gpus() -> int:
    """How many GPUs of this machine a job can use."""
    if shutil.which("nvidia-smi") is None and shutil.which("rocm-smi") is None:
        return 0
    import torch

    return torch.cuda.device_count()


@contextmanager
def own_gpu(directory: Path, device: str, number: int) -> Iterator[None]:
    """Let ``cuda`` mean a GPU on which no other job of the sweep trains; if there is none, job ``number`` shares one.

    ``device``: of the config.
    """
    count = gpus() if device in ("auto", "cuda") and signals.is_elsewhere() else 0
    with ExitStack() as held:
        if count > 1:
            import torch

            for k in range(count):
                place = directory / f".gpu-{socket.gethostname()}-{k}"
                with suppress(OutputError):
                    place.mkdir(exist_ok=True)
                    held.enter_context(locked(place))
                    break
            else:
                k = number % count
            torch.cuda.set_device(k)
        yield
