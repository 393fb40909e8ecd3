"""Cache of computed tensors: one verified file for each cache key, without pickle."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from gan_cli.system.files import write_file

FORMAT = 1  # version of the files, part of the cache key
log = logging.getLogger("gan_cli")
Result = tuple[dict[str, Tensor], dict[str, Any]]


def cache_dir(given: str | None) -> Path:
    """``given``, else ``$XDG_CACHE_HOME/gan_cli``, else ``~/.cache/gan_cli``. It need not exist."""
    if given is not None:
        return Path(given).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "gan_cli"


def digest(tensors: dict[str, Tensor]) -> str:
    """SHA-256, in hex, of the names, types, shapes and bytes of CPU tensors. Their order does not matter."""
    total = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        total.update(repr((name, str(tensor.dtype), tuple(tensor.shape))).encode())
        total.update(tensor.detach().contiguous().flatten().view(torch.uint8).numpy().data)
    return total.hexdigest()


def cached(kind: str, key: dict[str, Any], compute: Callable[[], Result], folder: Path) -> Result:
    """Return the result of ``compute``, from the file of an earlier call if there is one.

    A file counts only if it holds the whole key and its hash verifies; otherwise the result is computed and the file
    replaced. Two processes that want the same at once both compute it. If the folder cannot be written, nothing is kept.

    Args:
        kind: a word for the result, used in the file name and in messages.
        key: plain data on which the result depends, and nothing else does.
        compute: returns tensors on any device, and plain data.
        folder: the place of the files, made if it does not exist.

    Returns:
        The tensors on the CPU, contiguous, and the data as JSON has it, the same whether computed or read.
    """
    text = _canonical({"format": FORMAT, "kind": kind, "key": key})
    path = folder / f"{kind}-{hashlib.sha256(text.encode()).hexdigest()[:16]}.safetensors"
    if path.exists():
        try:
            return _read(path, text)
        except Exception as error:  # a damaged file can make the parser fail in any way
            log.warning("warning: %s is not used and is computed again: %s", path, str(error) or type(error).__name__)
    tensors, info = compute()
    tensors = {name: value.detach().to("cpu", copy=True).contiguous() for name, value in tensors.items()}
    _write(path, text, tensors, info_text := _canonical(info))
    return tensors, json.loads(info_text)


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _read(path: Path, key: str) -> Result:
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata() or {}
        if metadata.get("key") != key:
            raise ValueError("its key is another one")
        tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    if metadata.get("sha256") != _sha256(tensors, metadata["info"]):
        raise ValueError("its content is not what was written")
    return tensors, json.loads(metadata["info"])


def _write(path: Path, key: str, tensors: dict[str, Tensor], info: str) -> None:
    """Write the file atomically; log a failure."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, save(tensors, metadata={"key": key, "info": info, "sha256": _sha256(tensors, info)}))
    except (OSError, SafetensorError) as error:
        log.warning("warning: %s cannot be kept for the next time: %s", path, error)


def _sha256(tensors: dict[str, Tensor], info: str) -> str:
    """One hash of the tensors and the data, so that neither can change unnoticed."""
    return hashlib.sha256((digest(tensors) + info).encode()).hexdigest()
