"""Errors a user can cause or meet, each with its exit code.

Every one of them is printed as one line: ``gan-train: error: <what> (<where>). <what to do>.``
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EFBIG)
SCARCE = (errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.EAGAIN)
TOO_LARGE = "DefaultCPUAllocator|(CUDA|MPS backend) out of memory"  # a tensor of the networks or of a batch
LACKING = "CUDA error: out of memory|Cannot allocate memory|failed to map segment|can't start new thread"


class GanError(Exception):
    """A foreseeable failure.

    Args:
        what: what is wrong, without a full stop: ``'abc' is not a whole number``.
        where: the key, file or value it is about.
        todo: what the user can do, without a full stop.
        key: the key of gan-train's config that ``todo`` names, where another command has another key for it.
    """

    exit_code = 1
    stop = "."  # after the advice
    heard = False  # said by other processes of a training than the first

    def __init__(self, what: str, where: str, todo: str, key: str = "") -> None:
        self.what, self.where, self.todo, self.key = what, where, todo, key
        # One line always, whatever a file name or a value holds.
        text = f"{what} ({where}). {todo}{self.stop if todo[-1:] not in '?.' else ''}"
        super().__init__("".join(c if c.isprintable() else repr(c)[1:-1] for c in text))

    def __reduce__(self) -> tuple[type[GanError], tuple[str, str, str, str]]:
        """To another process, as the launchers of sweeps send it."""
        return type(self), (self.what, self.where, self.todo, self.key)


class ConfigError(GanError):
    """A key, a value or a combination in the configuration is wrong."""

    exit_code = 2


class ClashError(ConfigError):
    """The directory holds a run of another config: either may be right."""


class DataError(GanError):
    """The data is there but cannot be used."""

    exit_code = 65


class NotFoundError(GanError):
    """A file, folder or download that is needed is not there."""

    exit_code = 66


class DeviceError(GanError):
    """The device asked for is not available."""

    exit_code = 69


class OutputError(GanError):
    """The run directory or an output cannot be created, written or locked."""

    exit_code = 73


class PeerError(GanError):
    """Another process of a training by several ended."""

    exit_code = 70


class MemoryFullError(GanError):
    """The system grants no more memory, files or processes."""

    exit_code = 71


class TooLargeError(MemoryFullError):
    """A tensor does not fit in memory: the networks or a batch are too large for what is left of it."""


class DiskError(GanError):
    """Writing failed in the middle of a run: a full disk, most often."""

    exit_code = 74


class PreemptedError(GanError):
    """The run stopped before its end, with its state saved: the same command continues it."""

    exit_code = 75
    stop = ""  # the advice is a command to copy


class CheckpointError(GanError):
    """A checkpoint is missing, damaged or of another shape."""

    exit_code = 76


class NewerError(CheckpointError):
    """A checkpoint is whole, and of a version to come."""


class UntrustedError(GanError):
    """A run directory asks for code that is not part of gan_cli or torch."""

    exit_code = 77


class DivergedError(GanError):
    """Training produced a value that is not finite."""

    exit_code = 79


class PrunedError(GanError):
    """A search gave the run up as hopeless, with its state saved."""

    exit_code = 80
    stop = ""  # the advice is a command to copy


class SweepError(Exception):
    """Jobs of a sweep failed, which was said job by job.

    Attributes:
        exit_code: that of the first one.
    """

    def __init__(self, failed: dict[str, BaseException]) -> None:
        super().__init__(f"{len(failed)} failed: {'; '.join(failed)}")
        self.exit_code: int = getattr(next(iter(failed.values())), "exit_code", 1)


def file_of(error: OSError) -> str:
    """The file an error is about, or an empty text."""
    return os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else ""


def of_system(error: BaseException, where: str) -> GanError | None:
    """A disk that cannot be written, or a lack of memory, files or processes, as an error of ours; None if it is neither.

    ``where``: for a message about the disk, if the error does not say it.
    """
    if isinstance(error, OSError) and error.errno in FULL:
        todo = "Free some space and repeat the command; checkpoints are as they were"
        return DiskError(f"cannot write: {error.strerror}", file_of(error) or where, todo)
    if isinstance(error, OSError) and error.errno in SCARCE:
        what, todo = f"the system grants no more: {error.strerror}", "Free some, or raise the limits of this shell: ulimit -a"
        return MemoryFullError(what, file_of(error) or "memory, files, processes", todo)
    too_large = isinstance(error, RuntimeError) and re.search(TOO_LARGE, str(error))
    lacking = isinstance(error, ImportError | OSError | RuntimeError) and re.search(LACKING, str(error))
    if isinstance(error, MemoryError) or too_large or lacking:
        reason = (str(error).strip() or "no more to be had").splitlines()[0][:200]
        todo = "Lower batch_size or the width of the networks; ulimit -a shows limits"
        kind = TooLargeError if too_large else MemoryFullError
        return kind(f"out of memory: {reason}", "memory", todo)
    return None


@contextmanager
def failures_in(run_dir: Path) -> Iterator[None]:
    """Within this block a lack of disk or memory, and a file of the run that cannot be used, are errors of ours."""
    try:
        yield
    except (OSError, RuntimeError, MemoryError) as error:
        known = of_system(error, str(run_dir))
        if known is None and isinstance(error, OSError) and file_of(error).startswith(f"{run_dir}{os.sep}"):
            what = f"the run directory cannot be used: {error.strerror}"
            known = DiskError(what, file_of(error), "If it is still there, the same command continues")
        if known is None:
            raise
        raise known from error


@contextmanager
def failing_as(kind: type[GanError], what: str, where: str, todo: str) -> Iterator[None]:
    """Within this block a file that cannot be used is an error of this kind, unless the disk or the memory is full.

    ``where``: the file, if the error does not name it or names a part of it; "" for the one that it names.
    A pipe that nobody reads any more is no error of a file, and passes.
    """
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        other = kind(f"{what}: {error.strerror or error}", where or file_of(error), todo)
        raise of_system(error, where or "output") or other from error


@contextmanager
def blaming(blame: Callable[[Exception], GanError], kind: type[Exception] = Exception) -> Iterator[None]:
    """Within this block an error of this kind is what ``blame`` makes of it; a lack of disk or memory passes."""
    try:
        yield
    except kind as error:
        if of_system(error, "") is not None:
            raise
        raise blame(error) from error
