"""What is computed once and kept: tensors in one verified file each, made by one process at a time, no pickle in it."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

FORMAT = 1
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
    """What ``compute`` returns, from the file of an earlier call where there is one.

    A file counts only if it holds the whole key and its hash verifies; otherwise it is computed anew and replaced. A
    second process that wants the same waits for the first. If the folder cannot be written, it is computed each time.

    Args:
        kind: what it is, a word for the file name and for messages.
        key: plain data on which the result depends, and nothing else does.
        compute: returns tensors on any device, and plain data.
        folder: where the files are, made if it does not exist.

    Returns:
        The tensors on the CPU, contiguous, and the data as JSON has it, the same whether computed or read.
    """
    text = _canonical({"format": FORMAT, "kind": kind, "key": key})
    path = folder / f"{kind}-{hashlib.sha256(text.encode()).hexdigest()[:16]}.safetensors"
    result, why = _read(path, text)
    if result is not None:
        return result
    if why:
        log.warning("warning: %s is not used and is made anew: %s", path, why)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = open(path.with_name(path.name + ".lock"), "a+")
    except OSError as error:
        log.warning("warning: %s cannot be kept for the next time: %s (%s)", kind, error.strerror, folder)
        return _plain(*compute())
    with lock, _held(lock, kind):
        result, _ = _read(path, text)  # of the process that held the lock
        if result is None:
            result = _plain(*compute())
            _write(path, text, *result)
    return result


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _plain(tensors: dict[str, Tensor], info: dict[str, Any]) -> Result:
    """As they would be read: tensors that share no memory, data without tuples."""
    return {k: v.detach().to("cpu", copy=True).contiguous() for k, v in tensors.items()}, json.loads(_canonical(info))


@contextmanager
def _held(lock: Any, kind: str) -> Iterator[None]:
    """Holds the lock, waiting for it. It goes with the process, even by kill -9."""
    import fcntl

    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            log.info("waiting for process %s, which computes %s", lock.read().strip() or "?", kind)
            fcntl.flock(lock, fcntl.LOCK_EX)
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
    except OSError as error:  # a file system without locks, or a full one: at worst it is computed twice
        log.warning("warning: no lock for %s: %s", kind, error.strerror)
    yield


def _read(path: Path, key: str) -> tuple[Result | None, str]:
    """The content if it is whole and of this key, else why it is not. No reason: there is no file."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("key") != key:
                return None, "it is of something else"
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
        if metadata.get("sha256") != _sha256(tensors, metadata["info"]):
            return None, "its content is not what was written"
        return (tensors, json.loads(metadata["info"])), ""
    except FileNotFoundError:
        return None, ""
    except Exception as error:  # whatever a damaged file makes a parser raise
        return None, str(error) or type(error).__name__


def _write(path: Path, key: str, tensors: dict[str, Tensor], info: dict[str, Any]) -> None:
    """All or nothing. The caller holds the lock, so the temporary file is nobody else's."""
    temporary = path.with_name(f".{path.name}.writing")
    text = _canonical(info)
    try:
        save_file(tensors, temporary, metadata={"key": key, "info": text, "sha256": _sha256(tensors, text)})
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except (OSError, SafetensorError) as error:
        temporary.unlink(missing_ok=True)
        log.warning("warning: %s could not be kept for the next time: %s", path, error)


def _sha256(tensors: dict[str, Tensor], info: str) -> str:
    """Of the tensors and the data, so that neither can change unnoticed."""
    return hashlib.sha256((digest(tensors) + info).encode()).hexdigest()
