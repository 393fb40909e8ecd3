"""Checkpoints: directories that are written atomically, with a hash of every file and without pickle.

``step-00000120/`` holds one safetensors file per group of tensors, ``state.json`` with all other data, and
``manifest.json`` with the size and SHA-256 of each file. Other programs can use ``generator_ema.safetensors``.
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
from gan_cli.system.files import MAX_TEXT_BYTES, TEMPORARY_PREFIX, opened, read_file, write_file
from gan_cli.system.text import word

FORMAT = 1
SUFFIX = ".safetensors"
# Errors of reading that do not mean that the file is damaged.
NOT_DAMAGE_ERRNOS = (errno.EACCES, errno.EPERM, errno.EMFILE, errno.ENFILE, errno.ENOMEM)
MAX_ATTEMPTS = 20  # attempts to read while a running training deletes old checkpoints
log = logging.getLogger("gan_cli")
TensorGroups = dict[str, dict[str, Tensor]]
Wanted = Callable[[dict[str, Any]], dict[str, int | None]]


@dataclass(frozen=True)
class Checkpoint:
    """The content of a checkpoint: groups of CPU tensors, plain data, and the SHA-256 of each file."""

    step: int
    tensors: TensorGroups
    info: dict[str, Any]
    hashes: dict[str, str] = field(default_factory=dict)


def name(step: int) -> str:
    """Directory name of a checkpoint, such as ``step-00000120``."""
    return f"step-{step:08d}"


def steps(run_dir: Path) -> list[int]:
    """The steps that have a checkpoint, ascending."""
    paths = (run_dir / "checkpoints").glob("step-" + "[0-9]" * 8)
    return sorted(int(path.name.removeprefix("step-")) for path in paths)


def save(run_dir: Path, step: int, tensors: TensorGroups, info: dict[str, Any]) -> Path:
    """Write the checkpoint of a step that has none, atomically: a kill at any moment leaves no partial checkpoint.

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
        os.rename(temporary, final)  # fails if this step has a checkpoint
        _sync_directory(final.parent)
    except OSError as error:
        clean(run_dir)
        raise DiskError(
            f"the checkpoint of step {step} could not be written: {error.strerror}", str(run_dir),
            "Free some space and repeat the command, which resumes the run; earlier checkpoints are intact",
        ) from error  # fmt: skip
    clean(run_dir)
    return final


def as_bytes(tensors: dict[str, Tensor], step: int) -> bytes:
    """The content of the safetensors file of a group of tensors."""
    return save_tensors({key: _plain(tensor) for key, tensor in tensors.items()}, metadata={"step": str(step)})


def _plain(tensor: Tensor) -> Tensor:
    """A contiguous copy on the CPU in the default memory format."""
    return tensor.detach().to("cpu", copy=True).contiguous()


def rotate(run_dir: Path, saved: int, keep: int, superseded: Collection[int] = (), spared: Collection[int] = ()) -> None:
    """Delete all checkpoints but ``spared`` and the newest ``keep`` that verify. Damaged ones are set aside.

    Args:
        saved: step of the newest checkpoint, which was just written.
        keep: number of checkpoints to keep, ``saved`` included.
        superseded: checkpoints made because the run stopped or was at its best there. They do not count towards ``keep``
            and are deleted when there is a newer checkpoint.
        spared: checkpoints to keep in addition.

    Raises:
        DiskError: ``saved`` does not verify; nothing is deleted.
    """
    older = [step for step in steps(run_dir) if step < saved and step not in superseded]
    others = {step for step in steps(run_dir) if step != saved} - set(spared)
    kept: list[int] = []
    if not others - set(older[-(keep - 1) :] if keep > 1 else []):
        return
    if not verify(run_dir, saved):
        raise DiskError(f"the checkpoint of step {saved} does not have its hash", str(run_dir), "Check the disk and the memory")
    while older and len(kept) < keep - 1:
        step = older.pop()
        if verify(run_dir, step):
            kept.append(step)
        else:
            log.warning("warning: the checkpoint of step %d is damaged: moved to damaged-%s-...", step, name(step))
            set_aside(run_dir, [step])
    for step in others - set(kept):
        with contextlib.suppress(FileNotFoundError):  # was set aside above
            os.rename(run_dir / "checkpoints" / name(step), run_dir / f".deleting-{step}-{secrets.token_hex(4)}")
    clean(run_dir)


def set_aside(run_dir: Path, damaged: Collection[int]) -> None:
    """Move damaged checkpoints out of ``checkpoints/`` to ``damaged-step-...`` in the run directory."""
    for step in damaged:
        os.rename(run_dir / "checkpoints" / name(step), run_dir / f"damaged-{name(step)}-{secrets.token_hex(4)}")


def clean(run_dir: Path) -> None:
    """Remove the temporary files of saves and deletions that were interrupted."""
    for pattern in (".saving-*", ".deleting-*"):
        for path in run_dir.glob(pattern):
            shutil.rmtree(path, ignore_errors=True)
    for folder in (run_dir, run_dir / "samples"):
        for path in folder.glob(f"{TEMPORARY_PREFIX}*"):
            path.unlink(missing_ok=True)


def load(run_dir: Path, step: int, wanted: Wanted | None = None) -> Checkpoint:
    """Read and verify a checkpoint.

    Args:
        wanted: function of the plain data that returns the groups of tensors to read, each with the maximum size of its
            file in bytes (None: unlimited). It may raise to refuse the checkpoint. By default all groups are read.

    Raises:
        CheckpointError: a file is missing or does not have its hash.
        NotFoundError: the step has no checkpoint, or a running training deleted it meanwhile.
    """
    path = run_dir / "checkpoints" / name(step)
    before = _identity(path)
    try:
        files = _manifest(path)
        info = json.loads(_content(path, "state.json", files, MAX_TEXT_BYTES))
        if not isinstance(info, dict) or info.get("step") != step:
            raise ValueError(f"state.json belongs to another step than {step}")
        groups = [file.removesuffix(SUFFIX) for file in files if file.endswith(SUFFIX)]
        limits = dict.fromkeys(groups) if wanted is None else wanted(info)
        tensors = {group: _tensors(_content(path, group + SUFFIX, files, most), step) for group, most in limits.items()}
    except Exception as error:  # parsers raise anything on a damaged file
        if before is None or _identity(path) != before:
            raise NotFoundError(f"the checkpoint of step {step} was deleted", str(run_dir), "Use another step=") from error
        if isinstance(error, GanError | MemoryError) or (isinstance(error, OSError) and error.errno in NOT_DAMAGE_ERRNOS):
            raise
        raise CheckpointError(f"the checkpoint is damaged: {_reason(error)}", str(path), "Use another step=") from error
    return Checkpoint(step, tensors, info, {file: digest for file, (_, digest) in files.items()})


def verify(run_dir: Path, step: int) -> bool:
    """Return whether this step has a checkpoint and every file in it has its hash."""
    path = run_dir / "checkpoints" / name(step)
    try:
        for file, (size, digest) in _manifest(path).items():
            with opened(path / file, size) as content:
                whole = os.fstat(content.fileno()).st_size == size
                if not whole or hashlib.file_digest(content, "sha256").hexdigest() != digest:
                    return False
    except (OSError, ValueError, NewerError) as error:
        if isinstance(error, OSError) and error.errno in NOT_DAMAGE_ERRNOS:
            raise
        return False
    return True


def _manifest(path: Path) -> dict[str, tuple[int, str]]:
    """The size in bytes and the SHA-256 of each file of a checkpoint, from its manifest.

    Raises:
        OSError, ValueError: the manifest cannot be read or is invalid.
        NewerError: a newer gan_cli wrote the checkpoint.
    """
    try:
        manifest = json.loads(read_file(path / "manifest.json"))
        version, files = manifest["format"], {str(file): (size, digest) for file, (size, digest) in manifest["files"].items()}
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError("manifest.json is invalid") from error
    if version != FORMAT:
        if isinstance(version, int) and version > FORMAT:
            raise NewerError("a newer gan_cli made the checkpoint", str(path), "Use that version")
        raise ValueError(f"manifest.json is not of format {FORMAT}")
    for file, (size, digest) in files.items():
        valid_name = Path(file).name == file and (file == "state.json" or file.endswith(SUFFIX))
        if not valid_name or not isinstance(size, int) or size < 0 or not isinstance(digest, str):
            raise ValueError(f"manifest.json has an invalid entry for {file!r}")
    if "state.json" not in files:
        raise ValueError("manifest.json does not list state.json")
    return files


def _content(path: Path, file: str, files: dict[str, tuple[int, str]], most: int | None) -> bytes:
    """Read a file of at most ``most`` bytes and check its size and hash against the manifest."""
    if file not in files:
        raise ValueError(f"manifest.json does not list {file}")
    size, digest = files[file]
    if most is not None and size > most:
        raise ValueError(f"{file} has {size} bytes, more than the limit of {most}")
    data = read_file(path / file, size)
    if len(data) != size or hashlib.sha256(data).hexdigest() != digest:
        raise ValueError(f"{file} does not have its hash")
    return data


def _tensors(data: bytes, step: int) -> dict[str, Tensor]:
    """The tensors of a safetensors file; the inverse of :func:`as_bytes`."""
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    if header.get("__metadata__", {}).get("step", str(step)) != str(step):
        raise ValueError(f"it has weights of step {header['__metadata__']['step']}, not of step {step}")
    return load_tensors(data)


def _identity(path: Path) -> tuple[int, int] | None:
    """Device and inode of a directory, which differ if another one takes its place."""
    try:
        status = path.lstat()
        return status.st_dev, status.st_ino
    except OSError:
        return None


def _reason(error: Exception) -> str:
    if isinstance(error, OSError):
        file = Path(str(error.filename)).name
        return f"{file} is missing" if isinstance(error, FileNotFoundError) else f"{file}: {error.strerror}"
    return (str(error) or type(error).__name__)[:200]


def load_newest(run_dir: Path, wanted: Wanted | None = None) -> Checkpoint | None:
    """Read the newest checkpoint that verifies; None if the run has no checkpoints. ``wanted``: see :func:`load`.

    Raises:
        CheckpointError: the run has checkpoints, but none verifies. Such a run does not start over.
    """
    for _ in range(MAX_ATTEMPTS):
        present, reason = steps(run_dir), ""
        try:
            for step in reversed(present):
                try:
                    return load(run_dir, step, wanted)
                except NewerError:
                    raise
                except CheckpointError as error:
                    log.warning("warning: %s", CheckpointError(error.what, error.where, "Trying the previous one"))
                    reason = reason or error.what
        except NotFoundError:  # deleted by a running training, so there is a newer one
            continue
        if not present:
            return None
        what = f"all checkpoints are damaged; the newest: {reason}"
        raise CheckpointError(what, str(run_dir), "Restore a copy, or start over with another run_dir=")
    raise CheckpointError("a training deletes the checkpoints before they are read", str(run_dir), "Try again")


def find(run_dir: Path, step: str, wanted: Wanted | None = None) -> Checkpoint:
    """Read the checkpoint of a step: ``last``, ``best`` or a number. ``wanted``: see :func:`load`.

    Raises:
        NotFoundError: the run or step does not exist. CheckpointError: the checkpoint is damaged.
    """
    if not run_dir.is_dir():
        raise NotFoundError("there is no such run directory", str(run_dir), "Give the directory that gan-train printed")
    present = steps(run_dir)
    if not present:
        todo = "Train it up to a multiple of save_every"
        if run_dir.parent.name == "checkpoints":
            number = run_dir.name.removeprefix("step-").lstrip("0")
            todo = f"A checkpoint is chosen by its step: {word('run_dir', run_dir.parent.parent)} step={number}"
        raise NotFoundError("the run has no checkpoint", str(run_dir), todo)
    if step == "last":
        newest = load_newest(run_dir, wanted)
        assert newest is not None
        return newest
    if step == "best":
        best = read_best(run_dir)
        if best is None or best["step"] not in present:
            todo = "Set step=last or a number; the best one is known with gan-train eval_every=N"
            raise NotFoundError("the run has no best checkpoint", str(run_dir), todo)
        return load(run_dir, best["step"], wanted)
    if not step.isdecimal() or len(step) > 8 or int(step) not in present:
        todo = f"There are: {', '.join(map(str, present))}"
        raise NotFoundError(f"there is no checkpoint of step {step}", str(run_dir), todo)
    return load(run_dir, int(step), wanted)


def mark_best(run_dir: Path, best: dict[str, Any] | None) -> None:
    """Write ``best.json`` atomically, or remove it if ``best`` is None.

    Every checkpoint has the same data under ``best`` in ``state.json``. The file is a copy for other programs.
    """
    if best is None:
        (run_dir / "best.json").unlink(missing_ok=True)
    elif best != read_best(run_dir):
        write_file(run_dir / "best.json", json.dumps(best, indent=1) + "\n")


def best_of(saved: Checkpoint | None, run_dir: Path) -> dict[str, Any] | None:
    """The best checkpoint at the time of ``saved``, or None if it does not exist any more."""
    best = as_best(saved.info.get("best")) if saved is not None else None
    return best if best is not None and best["step"] in steps(run_dir) else None


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
