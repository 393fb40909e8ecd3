"""Foreseeable errors, each with its exit code.

Each is printed as one line: ``gan-train: error: <what> (<where>). <what to do>.``
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EFBIG)
SCARCE = (errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.EAGAIN)
TENSOR_TOO_LARGE = "DefaultCPUAllocator|(CUDA|MPS backend) out of memory"  # a tensor of the networks or of a batch
NO_RESOURCES = "CUDA error: out of memory|Cannot allocate memory|failed to map segment|can't start new thread"


class GanError(Exception):
    """A foreseeable failure.

    Args:
        what: what is wrong, without a full stop: ``'abc' is not a whole number``.
        where: key, file or value at fault.
        todo: what the user can do, without a full stop.
        key: the key of gan-train's config that ``todo`` names, where another command has another key for it.
    """

    exit_code = 1
    stop = "."  # after the advice
    is_first_failure = False  # whether this rank prints it, in a training by several processes

    def __init__(self, what: str, where: str, todo: str, key: str = "") -> None:
        self.what, self.where, self.todo, self.key = what, where, todo, key
        # A file name or a value may contain line breaks.
        text = f"{what} ({where}). {todo}{self.stop if todo[-1:] not in '?.' else ''}"
        super().__init__("".join(c if c.isprintable() else repr(c)[1:-1] for c in text))

    def __reduce__(self) -> tuple[type[GanError], tuple[str, str, str, str]]:
        """Arguments for pickle: the launchers of sweeps send errors between processes."""
        return type(self), (self.what, self.where, self.todo, self.key)


class ConfigError(GanError):
    """A key, a value or a combination in the configuration is wrong."""

    exit_code = 2


class ClashError(ConfigError):
    """The directory holds a run with another config."""


class DataError(GanError):
    """Data that exists but cannot be used."""

    exit_code = 65


class NotFoundError(GanError):
    """A required file, folder or download is missing."""

    exit_code = 66


class DeviceError(GanError):
    """The requested device is not available."""

    exit_code = 69


class OutputError(GanError):
    """The run directory or an output cannot be created, written or locked."""

    exit_code = 73


class PeerError(GanError):
    """Another process of a distributed training ended."""

    exit_code = 70


class MemoryFullError(GanError):
    """No more memory, open files or processes are available."""

    exit_code = 71


class TooLargeError(MemoryFullError):
    """A tensor of the networks or of a batch does not fit in memory."""


class DiskError(GanError):
    """Writing failed during a run, most often on a full disk."""

    exit_code = 74


class PreemptedError(GanError):
    """The run stopped early with its state saved; the same command continues it."""

    exit_code = 75
    stop = ""  # the advice is a command to copy


class CheckpointError(GanError):
    """A checkpoint is missing, damaged or does not match the networks."""

    exit_code = 76


class NewerError(CheckpointError):
    """An intact checkpoint of a newer version of gan_cli."""


class UntrustedError(GanError):
    """An untrusted run names code outside gan_cli and torch."""

    exit_code = 77


class DivergedError(GanError):
    """Training produced a non-finite value."""

    exit_code = 79


class PrunedError(GanError):
    """A search pruned the run; its state is saved."""

    exit_code = 80
    stop = ""  # the advice is a command to copy


class SweepError(Exception):
    """Jobs of a sweep failed; each failure has been printed.

    Attributes:
        exit_code: of the first failed job.
    """

    def __init__(self, failed: dict[str, BaseException]) -> None:
        super().__init__(f"{len(failed)} failed: {'; '.join(failed)}")
        self.exit_code: int = getattr(next(iter(failed.values())), "exit_code", 1)


def file_of(error: OSError) -> str:
    """The file name of an error, or an empty text."""
    return os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else ""


def of_system(error: BaseException, where: str) -> GanError | None:
    """The error for a full disk, or for a lack of memory, files or processes; None for any other error.

    The cause of a :class:`GanError` decides, so that code may explain an OSError without asking for its kind. A read-only
    disk is no such cause: another place is what helps.

    Args:
        where: the place for a message about the disk, if the error has no file name.
    """
    while isinstance(error, GanError):
        if isinstance(error, DiskError | MemoryFullError):
            return error
        if error.__cause__ is None:
            return None
        error = error.__cause__
        if isinstance(error, OSError) and error.errno == errno.EROFS:
            return None
    if isinstance(error, OSError) and error.errno in UNWRITABLE:
        todo = "Free some space and repeat the command; checkpoints are as they were"
        verb = "read or write" if error.errno == errno.EIO else "write"
        return DiskError(f"cannot {verb}: {error.strerror}", file_of(error) or where, todo)
    if isinstance(error, OSError) and error.errno in SCARCE:
        what, todo = (
            f"a limit of the system is reached: {error.strerror}",
            "Raise the limits: ulimit -a",
        )
        return MemoryFullError(what, file_of(error) or "memory, files, processes", todo)
    too_large = isinstance(error, RuntimeError) and re.search(TENSOR_TOO_LARGE, str(error))
    lacking = isinstance(error, ImportError | OSError | RuntimeError) and re.search(NO_RESOURCES, str(error))
    if isinstance(error, MemoryError) or too_large or lacking:
        reason = (str(error).strip() or "no more available").splitlines()[0][:200]
        todo = "Lower batch_size, num_samples or the width of the networks; ulimit -a shows limits"
        kind = TooLargeError if too_large else MemoryFullError
        return kind(f"out of memory: {reason}", "memory", todo)
    return None


@contextmanager
def failures_in(run_dir: Path) -> Iterator[None]:
    """Turn a lack of disk space or memory, and a file of the run that cannot be used, into a :class:`GanError`."""
    try:
        yield
    except (GanError, OSError, RuntimeError, MemoryError) as error:
        known = of_system(error, str(run_dir))
        if known is None and isinstance(error, OSError) and file_of(error).startswith(f"{run_dir}{os.sep}"):
            what = f"the run directory cannot be used: {error.strerror}"
            known = DiskError(what, file_of(error), "If it is still there, the same command continues")
        if known is None:
            raise
        raise known from error


@contextmanager
def failing_as(kind: type[GanError], what: str, where: str, todo: str) -> Iterator[None]:
    """Turn an OSError into an error of this kind. A broken pipe passes.

    ``where``: the file, if the error does not name it or names a part of it; "" for the one that it names.
    """
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise kind(f"{what}: {error.strerror or error}", where or file_of(error), todo) from error


@contextmanager
def blaming(blame: Callable[[Exception], GanError], kind: type[Exception] = Exception) -> Iterator[None]:
    """Turn an error of this kind into what ``blame`` makes of it."""
    try:
        yield
    except kind as error:
        raise blame(error) from error
