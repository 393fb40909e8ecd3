"""Makes sure that the files of a known data set are there: found, downloaded whole, or one clear error."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import shutil
import tempfile
import textwrap
import urllib.request
from collections.abc import Callable
from pathlib import Path

from gan_cli.data.archives import unpack
from gan_cli.system import console
from gan_cli.system.errors import NotFoundError

log = logging.getLogger(__name__)

TIMEOUT = 30  # seconds without an answer
CHUNK = 2**20  # bytes

Moves = list[tuple[Path, Path]]  # what was downloaded, and where it belongs below the root


def ensure_files(
    find_missing: Callable[[], list[str]], *, torchvision_name: str, root: Path, folder: Path, download: bool
) -> None:
    """Downloads a data set if some of its files are missing. Writes nothing where they are all there.

    Args:
        find_missing: returns the names of the files that are not there.
        torchvision_name: the class in ``torchvision.datasets`` that can download the set.
        root: that class's ``root``.
        folder: the one below ``root`` where the files belong.
        download: whether it is allowed.

    Raises:
        NotFoundError: files are missing still. Nothing new is left on the disk.
    """

    def fetch(temporary: Path) -> Moves:
        # Here, since it takes two seconds to import.
        from torchvision import datasets

        with contextlib.redirect_stdout(io.StringIO()):
            getattr(datasets, torchvision_name)(str(temporary), download=True)
        return [(path, path.relative_to(temporary)) for path in sorted(temporary.rglob("*")) if path.is_file()]

    _ensure(find_missing, fetch, name=torchvision_name, root=root, folder=folder, download=download, instead="digits")


def ensure_archive(
    find_missing: Callable[[], list[str]],
    *,
    url: str,
    check: Callable[[Path], list[Path]],
    root: Path,
    folder: Path,
    download: bool,
    instead: str,
) -> None:
    """Downloads and unpacks an archive if some folders of a data set are missing. Writes nothing where they are all there.

    Args:
        find_missing: returns the names of the folders that are not there.
        url: of a ``.tar.gz`` or ``.zip`` file.
        check: is given the folder where it was unpacked. Returns the folders in it to be moved to ``root``, each in one
            piece, or raises ValueError if it is not the archive that it should be.
        root: where ``folder`` belongs.
        folder: the data set's own, for messages.
        download: whether it is allowed.
        instead: a data set that needs no files.

    Raises:
        NotFoundError: folders are missing still. Nothing new is left on the disk.
    """

    def fetch(temporary: Path) -> Moves:
        archive = temporary / url.rsplit("/", 1)[-1]
        unpacked = temporary / "unpacked"
        get(url, archive)
        unpack(archive, unpacked)
        return [(path, path.relative_to(unpacked)) for path in check(unpacked)]

    _ensure(find_missing, fetch, name=folder.name, root=root, folder=folder, download=download, instead=instead)


def _ensure(
    find_missing: Callable[[], list[str]],
    fetch: Callable[[Path], Moves],
    *,
    name: str,
    root: Path,
    folder: Path,
    download: bool,
    instead: str,
) -> None:
    missing = find_missing()
    if not missing:
        return
    reason = "and dataset.download is off"
    if download:
        reason = f"and the download failed: {_download(fetch, name, root, folder)}"
        missing = find_missing()
    if missing:
        raise NotFoundError(
            f"{name} is missing {', '.join(missing)} {reason}",
            str(folder.absolute()),
            f"Put them there, or set dataset.root to where they are, or use dataset={instead}, which needs no files",
            "dataset.root",
        )


def _download(fetch: Callable[[Path], Moves], name: str, root: Path, folder: Path) -> str:
    """Lets ``fetch`` write into a temporary folder in ``root``, then moves what it returns up. Returns what failed.

    Each goes to its place at once, a folder in one piece; where something is already, it stays.
    """
    new_folders = [parent for parent in (folder, *folder.parents) if not parent.exists()]
    temporary: Path | None = None
    try:
        root.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=".download-", dir=root))
        log.log(console.NOTICE, "Downloading %s to %s", name, root.absolute())
        for source, place in fetch(temporary):
            target = root / place
            target.parent.mkdir(parents=True, exist_ok=True)
            if not target.exists() or (target.is_dir() and not any(target.iterdir())):
                os.replace(source, target)
    except Exception as error:  # whatever a network, a disk or torchvision can do
        return f"{type(error).__name__}: {textwrap.shorten(str(error), 160, placeholder=' ...')}"
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)
        for parent in new_folders:  # innermost first; those that hold something now stay
            with contextlib.suppress(OSError):
                parent.rmdir()
    return "it did not bring them"


def get(url: str, target: Path) -> None:
    """Downloads one file.

    Raises:
        OSError: the server does not answer, has no such file, or sends less than it says.
    """
    with urllib.request.urlopen(url, timeout=TIMEOUT) as answer, target.open("wb") as file:
        total = int(answer.headers.get("Content-Length") or 0)
        bar = None
        if console.may_draw():
            from tqdm import tqdm

            bar = tqdm(total=total or None, desc=f"Downloading {target.name}", unit="B", unit_scale=True, leave=False)
        try:
            while chunk := answer.read(CHUNK):
                file.write(chunk)
                if bar is not None:
                    bar.update(len(chunk))
        finally:
            if bar is not None:
                bar.close()
        if total and file.tell() != total:
            raise OSError(f"{url} ended after {file.tell()} of {total} bytes")
