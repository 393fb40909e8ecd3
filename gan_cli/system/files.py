"""Files of a run directory, which may be untrusted: reading is bounded, writing is atomic, links are not followed."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedRandom, BufferedReader
from pathlib import Path

from gan_cli.system.errors import UntrustedError

TEMPORARY_PREFIX = ".writing-"  # prefix of the name of a file that is being written
MAX_TEXT_BYTES = 16 * 2**20  # a larger JSON file in a run directory is refused
# Names in a run directory that gan_cli reads or writes.
MAKER = "gan_cli"  # stored in every picture and npz file; only files with it may be overwritten
OWN_NAMES = frozenset(["checkpoints", "evaluations", "generated", "samples", "tensorboard"]) | frozenset(
    ["best.json", "config.yaml", "metrics.jsonl", "status.json", "train.log", ".lock"]
)


@contextmanager
def opened(path: Path, limit: int | None = None) -> Iterator[BufferedReader]:
    """Open a regular file of at most ``limit`` bytes for reading. Links, pipes and devices are refused.

    Raises:
        OSError: the file does not exist, cannot be read, is not a regular file, or is larger.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        if limit is not None and status.st_size > limit:
            raise OSError(errno.EFBIG, f"{status.st_size} bytes, more than the limit of {limit}", str(path))
        yield file


def read_file(path: Path, limit: int = MAX_TEXT_BYTES) -> bytes:
    """Read a regular file of at most ``limit`` bytes; see :func:`opened`.

    Raises:
        OSError: the file does not exist, cannot be read, is not a regular file, or is larger.
    """
    with opened(path, limit) as file:
        return file.read(os.fstat(file.fileno()).st_size)


@contextmanager
def atomic_file(path: Path) -> Iterator[BufferedRandom]:
    """Open a temporary binary file (read and write) that replaces ``path`` atomically at the end of the block.

    If the block fails, the temporary file is removed and ``path`` is unchanged. A link at ``path`` is replaced.

    Raises:
        OSError: the file cannot be written.
    """
    temporary = path.with_name(f"{TEMPORARY_PREFIX}{secrets.token_hex(8)}")
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        with open(os.open(temporary, flags, 0o664), "w+b") as file:
            yield file
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def write_file(path: Path, content: str | bytes) -> None:
    """Write text (UTF-8) or bytes atomically; see :func:`atomic_file`.

    Raises:
        OSError: the file cannot be written.
    """
    with atomic_file(path) as file:
        file.write(content if isinstance(content, bytes) else content.encode("utf-8"))


def write_output(path: Path, content: str | bytes) -> None:
    """Like :func:`write_file`, for paths given by the user: refuses to replace a device, pipe or link.

    Raises:
        OSError: the path is one of these, or the file cannot be written.
    """
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISREG(os.lstat(path).st_mode):
            raise OSError(errno.EEXIST, "the path exists and is not a regular file", str(path))
    write_file(path, content)


def refuse_links(run_dir: Path, todo: str = "Remove it or, if you put it there, add trust=true") -> None:
    """Refuse a run directory if a file that gan_cli reads or writes there is a link, pipe or device.

    Raises:
        UntrustedError: with the path of that file.
    """
    folders = [run_dir]
    while folders:
        folder = folders.pop()
        with contextlib.suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder) as entries:  # deleted meanwhile
            for entry in entries:
                if folder == run_dir and entry.name not in OWN_NAMES:
                    continue
                if entry.is_dir(follow_symlinks=False):
                    folders.append(Path(entry.path))
                elif not entry.is_file(follow_symlinks=False):
                    kind = "a link" if entry.is_symlink() else "neither a file nor a folder"
                    raise UntrustedError(f"{kind} in a run directory may lead anywhere", entry.path, todo)
