"""Makes sure that the files of a known data set are there: found, downloaded whole, or one clear error."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import shutil
import tempfile
import textwrap
from collections.abc import Callable
from pathlib import Path

from gan_cli.errors import NotFoundError

log = logging.getLogger(__name__)


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
    missing = find_missing()
    if not missing:
        return
    reason = "and dataset.download is off"
    if download:
        reason = f"and the download failed: {_download(torchvision_name, root)}"
        missing = find_missing()
    if missing:
        raise NotFoundError(
            f"{torchvision_name} is missing {', '.join(missing)} {reason}",
            str(folder.absolute()),
            "Put them there, or set dataset.root to where they are, or use dataset=digits, which needs no files",
        )


def _download(torchvision_name: str, root: Path) -> str:
    """Downloads into a temporary folder in ``root`` and moves the files up when all are there. Returns what failed."""
    new_folders = [folder for folder in (root, *root.parents) if not folder.exists()]
    temporary: Path | None = None
    try:
        root.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=".download-", dir=root))
        log.info("Downloading %s to %s", torchvision_name, root.absolute())
        # Here, since it takes two seconds to import.
        from torchvision import datasets

        with contextlib.redirect_stdout(io.StringIO()):
            getattr(datasets, torchvision_name)(str(temporary), download=True)
        for source in sorted(path for path in temporary.rglob("*") if path.is_file()):
            target = root / source.relative_to(temporary)
            target.parent.mkdir(parents=True, exist_ok=True)
            if not target.exists():
                os.replace(source, target)
    except Exception as error:  # whatever a network, a disk or torchvision can do
        return f"{type(error).__name__}: {textwrap.shorten(str(error), 160, placeholder=' ...')}"
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)
        for folder in new_folders:  # innermost first; those that hold something now stay
            with contextlib.suppress(OSError):
                folder.rmdir()
    return "it did not bring them"
