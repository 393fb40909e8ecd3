"""Archives of strangers: nothing lands outside of a folder, and little that is packed does not become much."""

from __future__ import annotations

import gzip
import shutil
import stat
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO

MAX_ENTRIES = 20_000  # of an archive; the largest of the known sets has 9,300
MAX_RATIO = 20  # unpacked to packed bytes of images, which are compressed already
MAX_ARRAY_RATIO = 250  # of arrays: 115 for dSprites. Deflate reaches 1032
FREE_BYTES = 64 * 2**20  # whatever the ratio
CHUNK = 2**20  # bytes


def refuse_bomb(size: int, packed: int, ratio: int = MAX_RATIO) -> None:
    """Checks, before anything is unpacked, what it claims to become.

    Args:
        size: unpacked, in bytes. packed: in bytes.
        ratio: of the two, at most; 64 MiB are always allowed.

    Raises:
        ValueError: it is too much.
    """
    if not 0 <= size <= ratio * packed + FREE_BYTES:
        raise ValueError(f"{packed} bytes that become {size} when unpacked are not a data set")


class _BoundedGzip(gzip.GzipFile):
    """Unpacks no more than ``limit`` bytes, whatever a header asks for."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, "rb")
        self.packed = path.stat().st_size

    def read(self, size: int | None = -1) -> bytes:
        refuse_bomb(-1 if size is None or size < 0 else self.tell() + size, self.packed)
        return super().read(size)


def tar_files(archive: Path) -> Iterator[tuple[str, IO[bytes]]]:
    """The files of a ``.tar.gz`` archive, one after the other: the name, and what it holds until the next is asked for.

    Raises:
        ValueError, OSError, EOFError, tarfile.TarError, zlib.error: it is damaged, a member is neither a file nor a folder,
            two have one name, a name leads out of the archive, or there is too much of it.
    """
    packed = archive.stat().st_size
    total, names = 0, set[str]()
    with _BoundedGzip(archive) as unpacked, tarfile.open(fileobj=unpacked, mode="r:") as tar:
        for count, member in enumerate(tar, 1):
            total += max(member.size, 0)
            refuse_bomb(total if member.size >= 0 else -1, packed)
            _check(member.name, names, count, is_file=member.isreg(), is_folder=member.isdir())
            file = tar.extractfile(member) if member.isreg() else None
            if file is not None:
                yield member.name, file
        while unpacked.read(CHUNK):  # tar stops before the checksum
            pass


def zip_files(archive: Path) -> Iterator[tuple[str, IO[bytes]]]:
    """As :func:`tar_files`, of a ``.zip`` archive. All of it is checked before the first file.

    Raises:
        ValueError, OSError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error: likewise.
    """
    with zipfile.ZipFile(archive) as file:
        names = set[str]()
        members = file.infolist()
        for count, member in enumerate(members, 1):
            kind = stat.S_IFMT(member.external_attr >> 16)
            plain = kind in (0, stat.S_IFREG) and not member.is_dir()
            _check(member.filename, names, count, is_file=plain, is_folder=member.is_dir() and kind in (0, stat.S_IFDIR))
        refuse_bomb(sum(member.file_size for member in members), archive.stat().st_size)
        for member in members:
            if not member.is_dir():
                with file.open(member) as content:
                    yield member.filename, content


def unpack(archive: Path, target: Path) -> None:
    """Unpacks a ``.zip`` or a ``.tar.gz`` file into the new folder ``target``.

    Only names and contents are taken from it: no links, owners, modes or dates.

    Raises:
        Exception: of many kinds, see :func:`tar_files`.
    """
    target.mkdir()
    files = zip_files if archive.suffix == ".zip" else tar_files
    for _ in files(archive):  # all of it is checked before anything is written
        pass
    for name, content in files(archive):
        path = target / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("xb") as file:
            shutil.copyfileobj(content, file)


def _check(name: str, names: set[str], count: int, *, is_file: bool, is_folder: bool) -> None:
    if count > MAX_ENTRIES:
        raise ValueError(f"there are more than {MAX_ENTRIES} entries in it")
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name:
        raise ValueError(f"{name!r} would lie outside of the folder")
    if not (is_file or is_folder):
        raise ValueError(f"{name!r} is neither a file nor a folder")
    if is_file and str(path) in names:
        raise ValueError(f"{name!r} is there twice")
    names.add(str(path))
