"""Weight files of networks that others trained: found or downloaded, and used only if they are the right ones."""

from __future__ import annotations

import hashlib
import logging
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from gan_cli.data.download import fetch, reason_of
from gan_cli.system.errors import DataError, NotFoundError

log = logging.getLogger("gan_cli")


@dataclass(frozen=True)
class WeightFile:
    """A file on the web and its SHA-256 in hex."""

    name: str
    url: str
    sha256: str


def find_weights(file: WeightFile, *, path: str | None, folder: Path, key: str, instead: str | None = None) -> tuple[Path, str]:
    """Find the file that the user names, or the one in ``folder`` or in the folder of torch.hub, or download it to ``folder``.

    Args:
        file: the wanted file.
        path: a copy of the user's, or None.
        folder: the place of downloads, made if it does not exist.
        key: the config key that sets ``path``, for messages.
        instead: what the user can do without the file, such as ``or use features=classifier``.

    Returns:
        Its path, and its SHA-256 in hex.

    Raises:
        NotFoundError: ``path`` does not exist, or the file cannot be downloaded. DataError: ``path`` is another file.
    """
    if path is not None:
        given = Path(path).expanduser()
        if not given.is_file():
            raise NotFoundError("there is no such file", f"{key}={path}", f"It can be had from {file.url}")
        if (found := sha256(given)) != file.sha256:
            what = f"{given.name} is not the file that {key} expects: its sha256 is {found}, not {file.sha256}"
            raise DataError(what, str(given), f"Get it from {file.url}")
        return given, found
    for place in (folder / file.name, Path(torch.hub.get_dir()) / "checkpoints" / file.name):
        if place.is_file():
            if sha256(place) == file.sha256:
                return place, file.sha256
            log.warning("warning: %s is not used: its sha256 is not %s", place, file.sha256)
    log.info("Downloading %s to %s", file.url, folder)
    try:
        return fetch(file.name, [file.url], file.sha256, folder), file.sha256
    except OSError as error:
        todo = f"Get it from {file.url} elsewhere and set {key}=PATH" + (f", {instead}" if instead else "")
        raise NotFoundError(f"{file.name} cannot be downloaded: {reason_of(error)}", str(folder), todo) from error


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Read a state dict on the CPU without running any code that is in the file.

    Raises:
        DataError: the file is damaged, or holds anything but tensors by name.
    """
    todo = "Use the file as it was published"
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file can make the parser fail in any way
        reason = textwrap.shorten(str(error).split(". ")[0] or type(error).__name__, 160, placeholder=" ...")
        raise DataError(f"not a file of plain weights: {reason}", str(path), todo) from error
    if not isinstance(content, Mapping) or not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in content.items()):
        raise DataError("not a file of plain weights: it holds other things than named tensors", str(path), todo)
    return dict(content)
