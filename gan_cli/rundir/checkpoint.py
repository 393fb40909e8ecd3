"""Checkpoints: a directory that appears whole or not at all, with a hash of every file and no pickle in it.

``step-00000120/`` holds one safetensors file per group of tensors (``generator_ema.safetensors`` is the one to hand to
another program), ``state.json`` with everything else, and ``manifest.json`` with the size and SHA-256 of each.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import logging
import os
import secrets
import shutil
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from gan_cli.rundir.best import as_best, read_best
from gan_cli.system.errors import CheckpointError, DiskError, GanError, NewerError, NotFoundError
from gan_cli.system.files import TEMPORARY, TEXT_LIMIT, opened, read_file, write_file

FORMAT = 1
SUFFIX = ".safetensors"
NOT_DAMAGE = (errno.EACCES, errno.EPERM, errno.EMFILE, errno.ENFILE, errno.ENOMEM)
RETRIES = 20  # of a reader while a training writes and rotates
log = logging.getLogger("gan_cli")
TensorGroups = dict[str, dict[str, Tensor]]
Wanted = Callable[[dict[str, Any]], dict[str, int | None]]


@dataclass(frozen=True)
class Checkpoint:
    """What was saved at ``step``: groups of CPU tensors, plain data, and the SHA-256 of each file."""

    step: int
    tensors: TensorGroups
    info: dict[str, Any]
    hashes: dict[str, str] = field(default_factory=dict)


def name(step: int) -> str:
    """``step-00000120``."""
    return f"step-{step:08d}"


def steps(run_dir: Path) -> list[int]:
    """The steps of which there is a checkpoint, ascending."""
    found = (run_dir / "checkpoints").glob("step-" + "[0-9]" * 8)
    return sorted(int(path.name.removeprefix("step-")) for path in found)


def save(run_dir: Path, step: int, tensors: TensorGroups, info: dict[str, Any]) -> Path:
    """Write a checkpoint of a step that has none. A kill at any moment leaves this one or the ones before, never a part of one.

    Raises:
        DiskError: the disk is full or cannot be written.
    """
    final = run_dir / "checkpoints" / name(step)
    temporary = run_dir / f".saving-{step}-{os.getpid()}-{secrets.token_hex(4)}"
    files = {f"{group}.safetensors": as_bytes(ts, step) for group, ts in tensors.items()}
    files["state.json"] = json.dumps({"step": step, **info}, indent=1).encode()
    hashes = {file: [len(data), hashlib.sha256(data).hexdigest()] for file, data in files.items()}
    files["manifest.json"] = json.dumps({"format": FORMAT, "files": hashes}, indent=1).encode()
    try:
        final.parent.mkdir(exist_ok=True)
        _sync_directory(run_dir)
        temporary.mkdir()
        for file, data in files.items():
            with open(temporary / file, "xb") as out:
                out.write(data)
                out.flush()
                os.fsync(out.fileno())
        _sync_directory(temporary)
        os.rename(temporary, final)  # fails if there is one of this step
        _sync_directory(final.parent)
    except OSError as error:
        clean(run_dir)
        raise DiskError(
            f"the checkpoint of step {step} could not be written: {error.strerror}", str(run_dir),
            "Free some space; the checkpoints before it are untouched and the same command continues",
        ) from error  # fmt: skip
    clean(run_dir)
    return final


def as_bytes(tensors: dict[str, Tensor], step: int) -> bytes:
    """A group of tensors as the checkpoint of a step has it in a file."""
    return save_tensors({key: _plain(tensor) for key, tensor in tensors.items()}, metadata={"step": str(step)})


def _plain(tensor: Tensor) -> Tensor:
    """Contiguous in the usual memory order, on the CPU, sharing memory with nothing."""
    return tensor.detach().to("cpu", copy=True).contiguous()


def rotate(run_dir: Path, saved: int, keep: int, superseded: Collection[int] = (), spared: Collection[int] = ()) -> None:
    """Delete all but the newest ``keep`` that verify, of which ``saved`` is the last, and ``spared``.

    ``superseded``: checkpoints made only because the run stopped there, or did best there; they go as soon as there is a
    newer one, and do not count among the newest. One that is found damaged is set aside.

    Raises:
        DiskError: what was just saved cannot be read back; nothing is deleted.
    """
    older = [step for step in steps(run_dir) if step < saved and step not in superseded]
    others = {step for step in steps(run_dir) if step != saved} - set(spared)
    kept: list[int] = []
    if not others - set(older[-(keep - 1) :] if keep > 1 else []):
        return
    if not verify(run_dir, saved):
        raise DiskError(
            f"the checkpoint of step {saved} is not what was written", str(run_dir), "Check the disk and the memory"
        )
    while older and len(kept) < keep - 1:
        step = older.pop()
        if verify(run_dir, step):
            kept.append(step)
        else:
            log.warning("warning: the checkpoint of step %d is damaged; it is set aside", step)
            set_aside(run_dir, [step])
    for step in others - set(kept):
        with contextlib.suppress(FileNotFoundError):  # set aside
            os.rename(run_dir / "checkpoints" / name(step), run_dir / f".deleting-{step}-{secrets.token_hex(4)}")
    clean(run_dir)


def set_aside(run_dir: Path, damaged: Collection[int]) -> None:
    """Move damaged checkpoints out of ``checkpoints/``, where they would be read or counted."""
    for step in damaged:
        os.rename(run_dir / "checkpoints" / name(step), run_dir / f"damaged-{name(step)}-{secrets.token_hex(4)}")


def clean(run_dir: Path) -> None:
    """Remove what a kill in the middle of a save or a deletion left."""
    for pattern in (".saving-*", ".deleting-*"):
        for path in run_dir.glob(pattern):
            shutil.rmtree(path, ignore_errors=True)
    for folder in (run_dir, run_dir / "samples"):
        for path in folder.glob(f"{TEMPORARY}*"):
            path.unlink(missing_ok=True)


def load(run_dir: Path, step: int, wanted: Wanted | None = None) -> Checkpoint:
    """Read and verify a checkpoint.

    Args:
        wanted: gets the plain data, may refuse it, and says which groups of tensors to read, each with the most bytes that
            its file may have (None: as many as it has). The default reads them all.

    Raises:
        CheckpointError: a file is missing or its content is not what was written.
        NotFoundError: there is none of this step, or not any more: a training rotated it away meanwhile.
    """
    path = run_dir / "checkpoints" / name(step)
    before = _identity(path)
    try:
        files = _manifest(path)
        info = json.loads(_content(path, "state.json", files, TEXT_LIMIT))
        if not isinstance(info, dict) or info.get("step") != step:
            raise ValueError(f"state.json is not that of step {step}")
        groups = [file.removesuffix(SUFFIX) for file in files if file.endswith(SUFFIX)]
        limits = dict.fromkeys(groups) if wanted is None else wanted(info)
        tensors = {group: _tensors(_content(path, group + SUFFIX, files, most), step) for group, most in limits.items()}
    except Exception as error:  # whatever a damaged file makes a parser raise
        if before is None or _identity(path) != before:
            raise NotFoundError(f"there is no checkpoint of step {step} any more", str(run_dir), "Use another step=") from error
        if isinstance(error, GanError | MemoryError) or (isinstance(error, OSError) and error.errno in NOT_DAMAGE):
            raise
        raise CheckpointError(f"checkpoint is damaged: {_reason(error)}", str(path), "Use another step=") from error
    return Checkpoint(step, tensors, info, {file: digest for file, (_, digest) in files.items()})


def verify(run_dir: Path, step: int) -> bool:
    """Whether there is a checkpoint of this step and every file of it has the content that was written."""
    path = run_dir / "checkpoints" / name(step)
    try:
        for file, (size, digest) in _manifest(path).items():
            with opened(path / file, size) as content:
                whole = os.fstat(content.fileno()).st_size == size
                if not whole or hashlib.file_digest(content, "sha256").hexdigest() != digest:
                    return False
    except (OSError, ValueError, NewerError) as error:
        if isinstance(error, OSError) and error.errno in NOT_DAMAGE:
            raise
        return False
    return True


def _manifest(path: Path) -> dict[str, tuple[int, str]]:
    """The size in bytes and the SHA-256 of each file of a checkpoint.

    Raises:
        OSError, ValueError: it cannot be read, or is not one that this version reads.
    """
    try:
        manifest = json.loads(read_file(path / "manifest.json"))
        version, files = manifest["format"], {str(file): (size, digest) for file, (size, digest) in manifest["files"].items()}
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError("its manifest is not one") from error
    if version != FORMAT:
        if isinstance(version, int) and version > FORMAT:
            raise NewerError("the checkpoint was made by a newer gan_cli", str(path), "Use that version")
        raise ValueError(f"its manifest is not one of format {FORMAT}")
    for file, (size, digest) in files.items():
        known = Path(file).name == file and (file == "state.json" or file.endswith(SUFFIX))
        if not known or not isinstance(size, int) or size < 0 or not isinstance(digest, str):
            raise ValueError(f"{file!r} of its manifest is not a file of a checkpoint with its size and hash")
    if "state.json" not in files:
        raise ValueError("its manifest has no state.json")
    return files


def _content(path: Path, file: str, files: dict[str, tuple[int, str]], most: int | None) -> bytes:
    """A file that is as large as the manifest says, at most ``most`` bytes, and has its hash."""
    if file not in files:
        raise ValueError(f"there is no {file} in its manifest")
    size, digest = files[file]
    if most is not None and size > most:
        raise ValueError(f"{file} has {size} bytes, {most} are the most")
    data = read_file(path / file, size)
    if len(data) != size or hashlib.sha256(data).hexdigest() != digest:
        raise ValueError(f"{file} is not what was written")
    return data


def _tensors(data: bytes, step: int) -> dict[str, Tensor]:
    """Undo :func:`as_bytes`."""
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    if header.get("__metadata__", {}).get("step", str(step)) != str(step):
        raise ValueError(f"weights of step {header['__metadata__']['step']} among those of step {step}")
    return load_tensors(data)


def _identity(path: Path) -> tuple[int, int] | None:
    """Tells a directory from another that takes its place."""
    try:
        found = path.lstat()
        return found.st_dev, found.st_ino
    except OSError:
        return None


def _reason(error: Exception) -> str:
    if isinstance(error, OSError):
        file = Path(str(error.filename)).name
        return f"{file} is missing" if isinstance(error, FileNotFoundError) else f"{file}: {error.strerror}"
    return (str(error) or type(error).__name__)[:200]


def load_newest(run_dir: Path, wanted: Wanted | None = None) -> Checkpoint | None:
    """The newest checkpoint that verifies; None when there is none at all. ``wanted``: see :func:`load`.

    Raises:
        CheckpointError: there are some, but none verifies. A run never starts over by itself.
    """
    for _ in range(RETRIES):
        present, reason = steps(run_dir), ""
        try:
            for step in reversed(present):
                try:
                    return load(run_dir, step, wanted)
                except NewerError:
                    raise
                except CheckpointError as error:
                    log.warning("warning: %s", CheckpointError(error.what, error.where, "Trying the one before"))
                    reason = reason or error.what
        except NotFoundError:  # a training rotated it away: there is a newer one
            continue
        if not present:
            return None
        what = f"no checkpoint can be read; the newest: {reason}"
        raise CheckpointError(what, str(run_dir), "Bring a copy back; another run_dir= starts over")
    raise CheckpointError("the checkpoints change faster than they can be read", str(run_dir), "Try again")


def find(run_dir: Path, step: str, wanted: Wanted | None = None) -> Checkpoint:
    """The checkpoint for ``last``, ``best`` or a number. ``wanted``: see :func:`load`.

    Raises:
        NotFoundError: no such run or step. CheckpointError: it is damaged.
    """
    if not run_dir.is_dir():
        raise NotFoundError("there is no such run directory", str(run_dir), "Give the directory gan-train printed")
    present = steps(run_dir)
    if not present:
        raise NotFoundError("there is no checkpoint in this run", str(run_dir), "Train it first, or longer (save_every)")
    if step == "last":
        newest = load_newest(run_dir, wanted)
        assert newest is not None
        return newest
    if step == "best":
        best = read_best(run_dir)
        if best is None or best["step"] not in present:
            todo = "Set step=last or a number; gan-train eval_every=N keeps the best"
            raise NotFoundError("no checkpoint of this run is marked best", str(run_dir), todo)
        return load(run_dir, best["step"], wanted)
    if not step.isdecimal() or len(step) > 8 or int(step) not in present:
        todo = f"There are: {', '.join(map(str, present))}"
        raise NotFoundError(f"there is no checkpoint of step {step}", str(run_dir), todo)
    return load(run_dir, int(step), wanted)


def mark_best(run_dir: Path, best: dict[str, Any] | None) -> None:
    """Write ``best.json``, whole or not at all; remove it if no checkpoint is the best one.

    What is best is part of every checkpoint's plain data, under ``best``; the file says it to those who do not read these.
    """
    if best is None:
        (run_dir / "best.json").unlink(missing_ok=True)
    elif best != read_best(run_dir):
        write_file(run_dir / "best.json", json.dumps(best, indent=1) + "\n")


def best_of(saved: Checkpoint | None, run_dir: Path) -> dict[str, Any] | None:
    """What was the best checkpoint when ``saved`` was, if it is still there."""
    best = as_best(saved.info.get("best")) if saved is not None else None
    return best if best is not None and best["step"] in steps(run_dir) else None


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
