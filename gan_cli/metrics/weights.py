"""Weight files of networks that others trained: found or downloaded, and used only if they are the right ones."""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import tempfile
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from gan_cli.data.download import get
from gan_cli.system.errors import DataError, NotFoundError

log = logging.getLogger("gan_cli")


@dataclass(frozen=True)
class WeightFile:
    """A file on the web. ``sha256``: in hex, or how it begins."""

    name: str
    url: str
    sha256: str


def find_weights(file: WeightFile, *, path: str | None, folder: Path, key: str, instead: str | None = None) -> tuple[Path, str]:
    """The file that the user names, or the one in ``folder``, or that of torch.hub, or downloaded to ``folder``.

    Args:
        file: what is wanted.
        path: the user's own copy, or None.
        folder: where downloads are kept, made if it does not exist.
        key: that sets ``path``, for messages.
        instead: what the user can do without the file, such as ``or use features=classifier``.

    Returns:
        Where it is, and its SHA-256 in hex.

    Raises:
        NotFoundError: ``path`` does not exist, or the file cannot be downloaded. DataError: ``path`` is another file.
    """
    if path is not None:
        given = Path(path).expanduser()
        if not given.is_file():
            raise NotFoundError("there is no such file", f"{key}={path}", f"It can be had from {file.url}")
        found = sha256(given)
        if not found.startswith(file.sha256):
            what = f"{given.name} is not the file that {key} expects: sha256 begins with {found[: len(file.sha256)]}"
            raise DataError(f"{what}, not {file.sha256}", str(given), f"Get it from {file.url}")
        return given, found
    for place in (folder / file.name, Path(torch.hub.get_dir()) / "checkpoints" / file.name):
        if place.is_file():
            found = sha256(place)
            if found.startswith(file.sha256):
                return place, found
            log.warning("warning: %s is not used: its sha256 does not begin with %s", place, file.sha256)
    return _download(file, folder, key, instead)


def sha256(path: Path) -> str:
    """Of a file's content, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _download(file: WeightFile, folder: Path, key: str, instead: str | None) -> tuple[Path, str]:
    temporary: Path | None = None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=".download-", dir=folder))
        log.info("Downloading %s to %s", file.url, folder)
        get(file.url, temporary / file.name)
        found = sha256(temporary / file.name)
        if not found.startswith(file.sha256):
            raise ValueError(f"what came has a sha256 that begins with {found[: len(file.sha256)]}, not {file.sha256}")
        os.replace(temporary / file.name, folder / file.name)
    except Exception as error:  # whatever a network or a disk can do
        reason = f"{type(error).__name__}: {textwrap.shorten(str(error), 160, placeholder=' ...')}"
        todo = f"Get it from {file.url} elsewhere and set {key}=PATH" + (f", {instead}" if instead else "")
        raise NotFoundError(f"{file.name} cannot be downloaded: {reason}", str(folder), todo) from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)
    return folder / file.name, found


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Reads a state dict on the CPU without running any code that is in the file.

    Raises:
        DataError: it is damaged, or holds anything but tensors by name.
    """
    todo = "Use the file as it was published"
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a damaged file makes a parser raise
        reason = textwrap.shorten(str(error).split(". ")[0] or type(error).__name__, 160, placeholder=" ...")
        raise DataError(f"this is no file of plain weights: {reason}", str(path), todo) from error
    if not isinstance(content, Mapping) or not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in content.items()):
        raise DataError("this is no file of plain weights: it holds other things than named tensors", str(path), todo)
    return dict(content)
