"""The image files below a folder."""

from __future__ import annotations

import logging
import os
import stat
from collections import Counter
from pathlib import Path
from typing import NoReturn

from gan_cli.system.errors import DataError, NotFoundError
from gan_cli.system.text import short

log = logging.getLogger(__name__)
SUFFIXES = (
    ".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".dib", ".webp", ".gif", ".tif", ".tiff",
    ".pbm", ".pgm", ".ppm", ".pnm",
)  # fmt: skip


def find_images(folder: Path) -> list[str]:
    """List the image files below ``folder``, by suffix, as sorted relative paths with ``/``, without hidden ones.

    Raises:
        NotFoundError: no such folder.
        DataError: it is not a folder, not readable, or without images.
    """

    def refuse(error: OSError) -> NoReturn:
        raise DataError(f"the folder cannot be read: {error.strerror}", str(error.filename), "Check its path and permissions")

    todo = "Set dataset.root to a folder of images"
    try:
        if not stat.S_ISDIR(folder.stat().st_mode):
            raise DataError("not a folder", str(folder), todo, "dataset.root")
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NotFoundError("the folder does not exist", str(folder.absolute()), todo, "dataset.root") from error
    except OSError as error:
        refuse(error)

    names: list[str] = []
    others: Counter[str] = Counter()  # files that are not used, by suffix
    seen: set[str] = set()  # links may lead in a circle
    for parent, subfolders, files in os.walk(folder, onerror=refuse, followlinks=True):
        seen.add(os.path.realpath(parent))
        subfolders[:] = sorted(
            name for name in subfolders if not name.startswith(".") and os.path.realpath(os.path.join(parent, name)) not in seen
        )
        relative = Path(parent).relative_to(folder)
        shown = [name for name in files if not name.startswith(".")]
        names += [(relative / name).as_posix() for name in shown if name.lower().endswith(SUFFIXES)]
        others.update(Path(name).suffix.lower() or name for name in shown if not name.lower().endswith(SUFFIXES))
    if not names:
        todo = f"Set dataset.root to a folder with files in {' '.join(SUFFIXES)}"
        raise DataError("no images in it", str(folder), todo, "dataset.root")
    kinds = Counter(Path(name).suffix.lower() for name in names)
    if others or (len(kinds) > 1 and kinds.keys() - {".png", ".jpg", ".jpeg"}):
        unused = f"; not used, with no suffix of an image: {_counts(others)}" if others else ""
        log.info("found: %s%s (%s)", _counts(kinds), unused, short(folder, 200))
    return sorted(names)


def _counts(kinds: Counter[str]) -> str:
    return ", ".join(f"{n} {short(suffix)}" for suffix, n in kinds.most_common(8)) + (", ..." if len(kinds) > 8 else "")
