"""Exclusive use of a directory by one process."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gan_cli.system.errors import OutputError

LOCK_ATTEMPTS = 5  # is_locked() of another process holds the lock for a moment
RETRY_DELAY_S = 0.05


@contextmanager
def locked(directory: Path, what: str = "run directory", todo: str = "Wait for it, or set run_dir=") -> Iterator[None]:
    """Lock a directory within the block. The kernel releases the lock when the process ends, even by kill -9.

    Raises:
        OutputError: another process has the lock, or the directory cannot be written.
    """
    try:
        handle = open(directory / ".lock", "a+")
    except OSError as error:
        other = todo.rpartition(" ")[2].rstrip("=")
        advice = f"Choose a {other}= that can be written"
        raise OutputError(f"the {what} cannot be written: {error.strerror}", str(directory), advice) from error
    with handle:
        for left in reversed(range(LOCK_ATTEMPTS)):
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError:
                if left:
                    time.sleep(RETRY_DELAY_S)
                    continue
                handle.seek(0)
                owner = handle.read().strip() or "another process"
                raise OutputError(f"the {what} is in use by {owner}", str(directory), todo) from None
        os.register_at_fork(after_in_child=handle.close)  # forked decoders must not keep the lock
        handle.truncate(0)
        handle.write(f"process {os.getpid()} since {time.strftime('%Y-%m-%d %H:%M:%S')}")
        handle.flush()
        yield


def is_locked(directory: Path) -> bool:
    """Return whether a process has locked the directory."""
    try:
        with open(directory / ".lock") as handle:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False
