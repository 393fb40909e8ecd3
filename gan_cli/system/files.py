"""Files of a run directory, which may be a stranger's: read up to a size, written whole, links never followed."""

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

TEMPORARY = ".writing-"  # begins the name of a file that is not whole yet, beside the one it will be
TEXT_LIMIT = 16 * 2**20  # bytes of a JSON file of ours, far beyond any
# What gan_cli reads or writes in a run directory.
OWN_NAMES = frozenset(["checkpoints", "evaluations", "generated", "samples", "tensorboard"]) | frozenset(
    ["best.json", "config.yaml", "metrics.jsonl", "status.json", "train.log", ".lock"]
)


@contextmanager
def opened(path: Path, limit: int | None = None) -> Iterator[BufferedReader]:
    """A regular file of at most ``limit`` bytes, to be read. A link is not followed, a pipe or device not waited for.

    Raises:
        OSError: there is none, it cannot be read, or is a link, something else or larger.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        if limit is not None and found.st_size > limit:
            raise OSError(errno.EFBIG, f"it has {found.st_size} bytes, {limit} are the most", str(path))
        yield file


def read_file(path: Path, limit: int = TEXT_LIMIT) -> bytes:
    """All of a regular file of at most ``limit`` bytes; see :func:`opened`.

    Raises:
        OSError: there is none, it cannot be read, or is a link, something else or larger.
    """
    with opened(path, limit) as file:
        return file.read(os.fstat(file.fileno()).st_size)


@contextmanager
def written(path: Path) -> Iterator[BufferedRandom]:
    """A new binary file (read and write) that takes the place of ``path`` when the block ends, and goes if it fails.

    A link at ``path`` is replaced, not followed.

    Raises:
        OSError: it cannot be written.
    """
    temporary = path.with_name(f"{TEMPORARY}{secrets.token_hex(8)}")
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
    """Write text (UTF-8) or bytes, whole or not at all; see :func:`written`.

    Raises:
        OSError: it cannot be written.
    """
    with written(path) as file:
        file.write(content if isinstance(content, bytes) else content.encode("utf-8"))


def write_output(path: Path, content: str | bytes) -> None:
    """As :func:`write_file`, to where a user says: a device, pipe or link that lies there is not replaced.

    Raises:
        OSError: there is one, or it cannot be written.
    """
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISREG(os.lstat(path).st_mode):
            raise OSError(errno.EEXIST, "what is there is no regular file", str(path))
    write_file(path, content)


def refuse_links(run_dir: Path, todo: str = "Remove it or, if you put it there, add trust=true") -> None:
    """Refuse a run directory with a link, pipe or device among what gan_cli reads or writes in it.

    Raises:
        UntrustedError: naming it.
    """
    folders = [run_dir]
    while folders:
        folder = folders.pop()
        with contextlib.suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder) as entries:  # rotated away, no run
            for entry in entries:
                if folder == run_dir and entry.name not in OWN_NAMES:
                    continue
                if entry.is_dir(follow_symlinks=False):
                    folders.append(Path(entry.path))
                elif not entry.is_file(follow_symlinks=False):
                    kind = "a link" if entry.is_symlink() else "neither a file nor a folder"
                    raise UntrustedError(f"{kind} in a run directory may lead anywhere", entry.path, todo)
