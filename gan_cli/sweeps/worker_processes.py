"""Jobs that a launcher runs in other processes: they end when the sweep does, and take a GPU each if there are several."""

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

STOP = ".stop"  # file in the directory of a sweep: its jobs, on any machine, save and end
POLL_S = 0.3  # seconds between two looks for it
watched: set[Path] = set()  # directories of sweeps that this process watches
working = threading.Event()  # set while a job runs, until its state is saved
launcher_handler = signal.getsignal(signal.SIGTERM)  # the handler of SIGTERM while no job trains


def own_mark() -> str:
    """``HOST:PID`` of this process, the value of :data:`gan_cli.system.signals.SWEEP`."""
    return f"{socket.gethostname()}:{os.getpid()}"


def obey(directory: Path) -> None:
    """From now on end this job, as a signal would, when the sweep stops or its process on this machine is gone.

    Ctrl-C, which all processes of a terminal get, is left to the process that sweeps.

    Raises:
        PreemptedError: the sweep is stopping already.
    """
    if not signals.is_elsewhere():
        return
    signals.received.clear()  # those of the job before
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if is_orphaned():  # an exception would be written into a pipe without a reader
        os._exit(PreemptedError.exit_code)
    if (directory / STOP).exists():
        raise PreemptedError("the sweep is stopping, the job was not begun", str(directory), "Repeat the command of the sweep")
    if directory not in watched:
        watched.add(directory)
        threading.Thread(target=_watch, args=(directory,), daemon=True).start()


def is_orphaned() -> bool:
    """Whether the process that sweeps is gone, as far as this machine can tell."""
    host, _, number = os.environ[signals.SWEEP].rpartition(":")
    if host != socket.gethostname():
        return False
    try:
        os.kill(int(number), 0)
        # "Z": killed, but its parent has not collected the exit code, as in many containers.
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except ProcessLookupError:
        return True
    except (OSError, ValueError, IndexError):  # another user's process, or a system without /proc
        return False


def _watch(directory: Path) -> None:
    while True:
        time.sleep(POLL_S)
        orphaned, handler = is_orphaned(), signal.getsignal(signal.SIGTERM)
        training = callable(handler) and handler is not launcher_handler
        if ((directory / STOP).exists() or orphaned) and training and not signals.received:
            os.kill(os.getpid(), signal.SIGTERM)
        elif orphaned and not working.is_set():  # nothing to save
            os._exit(PreemptedError.exit_code)


def gpus() -> int:
    """The number of GPUs of this machine. torch is imported only if there may be one."""
    if shutil.which("nvidia-smi") is None and shutil.which("rocm-smi") is None:
        return 0
    import torch

    return torch.cuda.device_count()


@contextmanager
def own_gpu(directory: Path, device: str, number: int) -> Iterator[None]:
    """Run a job within this block, with ``cuda`` a GPU on which no other job of the sweep trains.

    If all are taken, job ``number`` shares one. ``device``: of the config.
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
        working.set()
        held.callback(working.clear)
        yield
