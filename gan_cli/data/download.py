"""The files of known data sets: found, or downloaded by pooch, verified and moved into place as a whole."""

from __future__ import annotations

import contextlib
import logging
import os
import tarfile
import tempfile
import textwrap
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from gan_cli.system import console
from gan_cli.system.errors import DataError, NotFoundError

log = logging.getLogger(__name__)

TIMEOUT_S = 30  # seconds that a server may stay silent
MAX_REASON = 400  # characters of a message, enough for two SHA-256


def ensure(
    name: str,
    find_missing: Callable[[], list[str]],
    fetch_into: Callable[[Path], Sequence[Path]],
    *,
    folder: Path,
    download: bool,
    instead: str,
) -> None:
    """Download a data set if some of its files are missing. Otherwise nothing is written.

    Args:
        name: the name of the data set, for messages.
        find_missing: returns the names of the files or folders that are missing.
        fetch_into: downloads into an empty folder and returns the files or folders in it that belong to the data set. They
            are moved to ``folder``; what is there already stays.
        folder: the place of the files.
        download: whether a download is allowed.
        instead: a data set that needs no files.

    Raises:
        NotFoundError: files are missing and cannot be downloaded. Nothing new is left on the disk.
    """
    missing = find_missing()
    if not missing:
        return
    reason = "dataset.download is off"
    if download:
        log.log(console.NOTICE, "Downloading %s to %s", name, folder.absolute())
        try:
            with _staging(folder) as staging:
                for source in fetch_into(staging):
                    target = folder / source.name
                    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
                        os.replace(source, target)
            return
        except Exception as error:  # a network or a disk can fail in any way
            reason = f"the download failed: {reason_of(error)}"
    raise NotFoundError(
        f"{name} is missing {', '.join(missing)} and {reason}",
        str(folder.absolute()),
        f"Put them there, or set dataset.root to where they are, or use dataset={instead}, which needs no files",
        "dataset.root",
    )


@contextlib.contextmanager
def _staging(folder: Path) -> Iterator[Path]:
    """A temporary folder in ``folder``. If nothing was moved out of it, folders made for it are removed too."""
    new_folders = [parent for parent in (folder, *folder.parents) if not parent.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".download-", dir=folder) as staging:
            yield Path(staging)
    finally:
        for parent in new_folders:  # innermost first; rmdir leaves a folder that is not empty
            with contextlib.suppress(OSError):
                parent.rmdir()


def fetch(name: str, urls: Sequence[str], known_hash: str | None, folder: Path) -> Path:
    """Download a file as ``folder/name`` from the first of ``urls`` that has the right one.

    Args:
        name: the file name.
        urls: the same file on several servers, in order of preference.
        known_hash: SHA-256 in hex, or ``md5:`` and MD5 in hex. None: the file is not verified, which is logged.
        folder: the target folder.

    Raises:
        OSError: no server has the file, or all have another one. ``folder`` holds no part of it.
    """
    import pooch  # takes 0.3 s to import

    pooch.get_logger().setLevel(logging.WARNING)
    failures = []
    for url in urls:
        downloader = pooch.HTTPDownloader(progressbar=console.may_draw(), timeout=TIMEOUT_S)
        try:
            path = Path(pooch.retrieve(url, known_hash, fname=name, path=folder, downloader=downloader))
        except Exception as error:  # requests, urllib3, http.client or the disk
            failures.append(f"{url}: {reason_of(error)}")
            continue
        if known_hash is None:
            log.warning("warning: %s is not verified: no hash is published. Its sha256 is %s", name, pooch.file_hash(str(path)))
        return path
    raise OSError("; ".join(failures))


def reason_of(error: BaseException) -> str:
    """One line for an error. Of a chain, the first cause: requests wraps ``Connection refused`` three times."""
    while error.__context__ is not None:
        error = error.__context__
    text = (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__
    return textwrap.shorten(text.split(". Deleted download")[0], MAX_REASON, placeholder=" ...")  # pooch's advice is cut off


def unpack(archive: Path, folder: Path) -> Path:
    """Unpack a ``.zip`` or ``.tar.gz`` file into ``folder``. No member lands outside it.

    Raises:
        OSError, EOFError, tarfile.TarError, zipfile.BadZipFile, zlib.error: the archive is damaged or hostile.
    """
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive) as file:
            file.extractall(folder)
    else:
        with tarfile.open(archive, "r:gz") as tar:
            tar.extractall(folder, filter="data")
    return folder


def read_tar(archive: Path, wanted: Callable[[str], bool]) -> dict[str, bytes]:
    """Read files of a ``.tar.gz`` archive into memory, without unpacking it.

    Args:
        archive: the file.
        wanted: whether to read the member of this name.

    Returns:
        The contents by name, not empty.

    Raises:
        DataError: the archive is damaged, or no wanted file is in it.
    """
    todo = "Delete the file and get it again"
    try:
        contents = {}
        with tarfile.open(archive, "r:gz") as tar:
            for member in tar:
                name = member.name.removeprefix("./")
                file = tar.extractfile(member) if member.isreg() and wanted(name) else None
                if file is not None:
                    contents[name] = file.read()
    except (OSError, EOFError, tarfile.TarError, zlib.error) as error:
        raise DataError(f"the archive cannot be read: {error}", str(archive), todo) from error
    if not contents:
        raise DataError("the archive does not hold the files of this data set", str(archive), todo)
    return contents
