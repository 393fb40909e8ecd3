"""Checkpoints: a directory that appears whole or not at all, with a hash of every file and no pickle in it.

``step-00000120/`` holds one safetensors file per group of tensors (``generator_ema.safetensors`` is the one to hand to
another program), ``state.json`` with everything else, and ``manifest.json`` with the size and SHA-256 of each.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import secrets
import shutil
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from gan_cli.errors import CheckpointError, DiskError, NotFoundError

FORMAT = 1
log = logging.getLogger("gan_cli")
TensorGroups = dict[str, dict[str, Tensor]]


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
    """Write a checkpoint. A kill at any moment leaves this one or the ones before, never a part of one.

    Raises:
        DiskError: the disk is full or cannot be written.
    """
    final = run_dir / "checkpoints" / name(step)
    temporary = run_dir / f".saving-{step}-{os.getpid()}-{secrets.token_hex(4)}"
    replaced = run_dir / f".deleting-{step}-{secrets.token_hex(4)}"
    files = {f"{group}.safetensors": as_bytes(ts) for group, ts in tensors.items()}
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
        if final.exists():  # the same step again: after a resume from an older one
            os.rename(final, replaced)
        os.rename(temporary, final)
        _sync_directory(final.parent)
    except OSError as error:
        if replaced.exists() and not final.exists():
            os.rename(replaced, final)
        clean(run_dir)
        raise DiskError(
            f"the checkpoint of step {step} could not be written: {error.strerror}", str(run_dir),
            "Free some space; the checkpoints before it are untouched and the same command continues",
        ) from error  # fmt: skip
    clean(run_dir)
    return final


def as_bytes(tensors: dict[str, Tensor]) -> bytes:
    """A group of tensors as a checkpoint has it in a file."""
    return save_tensors({key: _plain(tensor) for key, tensor in tensors.items()})


def _plain(tensor: Tensor) -> Tensor:
    """Contiguous in the usual memory order, on the CPU, sharing memory with nothing."""
    return tensor.detach().to("cpu", copy=True).contiguous()


def rotate(run_dir: Path, saved: int, keep: int, superseded: Collection[int] = (), best: int | None = None) -> None:
    """Delete all but the newest ``keep``, of which ``saved`` is the last, and ``best``.

    ``superseded``: checkpoints made only because the run stopped there, or did best there; they go as soon as there is a
    newer one, and do not count among the newest.
    """
    present = steps(run_dir)
    older = [step for step in present if step < saved and step not in superseded]
    for step in set(present) - {saved, best} - set(older[-(keep - 1) :] if keep > 1 else []):
        os.rename(run_dir / "checkpoints" / name(step), run_dir / f".deleting-{step}-{secrets.token_hex(4)}")
    clean(run_dir)


def set_aside(run_dir: Path, after: int) -> None:
    """Move checkpoints of steps beyond ``after``, which are damaged, out of ``checkpoints/``."""
    for step in steps(run_dir):
        if step > after:
            os.rename(run_dir / "checkpoints" / name(step), run_dir / f"damaged-{name(step)}-{secrets.token_hex(4)}")


def clean(run_dir: Path) -> None:
    """Remove what a kill in the middle of a save or a deletion left."""
    for pattern in (".saving-*", ".deleting-*"):
        for path in run_dir.glob(pattern):
            shutil.rmtree(path, ignore_errors=True)


def load(run_dir: Path, step: int) -> Checkpoint:
    """Read and verify a checkpoint.

    Raises:
        CheckpointError: a file is missing or its content is not what was written.
    """
    path = run_dir / "checkpoints" / name(step)
    try:
        manifest = json.loads((path / "manifest.json").read_bytes())
        if set(manifest) != {"format", "files"} or manifest["format"] != FORMAT:
            raise ValueError(f"its manifest is not one of format {FORMAT}, which this version reads")
        tensors: TensorGroups = {}
        info: dict[str, Any] = {}
        for file, (size, digest) in manifest["files"].items():
            if Path(file).name != file:
                raise ValueError(f"{file!r} is not a plain file name")
            data = (path / file).read_bytes()
            if len(data) != size or hashlib.sha256(data).hexdigest() != digest:
                raise ValueError(f"{file} is not what was written")
            if file.endswith(".safetensors"):
                tensors[file.removesuffix(".safetensors")] = load_tensors(data)
            else:
                info = json.loads(data)
    except Exception as error:  # whatever a damaged file makes a parser raise
        reason = f"{error.filename} is missing" if isinstance(error, FileNotFoundError) else str(error)
        raise CheckpointError(f"checkpoint is damaged: {reason}", str(path), "Use another step=") from error
    return Checkpoint(step, tensors, info, {file: digest for file, (_, digest) in manifest["files"].items()})


def load_newest(run_dir: Path) -> Checkpoint | None:
    """The newest checkpoint that verifies; None when there is none at all.

    Raises:
        CheckpointError: there are some, but none verifies. A run never starts over by itself.
    """
    present = steps(run_dir)
    for step in reversed(present):
        try:
            return load(run_dir, step)
        except CheckpointError as error:
            log.warning("warning: %s (%s); trying the one before", error.what, error.where)
    if present:
        raise CheckpointError("no checkpoint can be read", str(run_dir), "Delete the run directory to start over")
    return None


def find(run_dir: Path, step: str) -> Checkpoint:
    """The checkpoint for ``last``, ``best`` or a number.

    Raises:
        NotFoundError: no such run or step. CheckpointError: it is damaged.
    """
    if not run_dir.is_dir():
        raise NotFoundError("there is no such run directory", str(run_dir), "Give the directory gan-train printed")
    present = steps(run_dir)
    if not present:
        raise NotFoundError("there is no checkpoint in this run", str(run_dir), "Train it first, or longer (save_every)")
    if step == "last":
        newest = load_newest(run_dir)
        assert newest is not None
        return newest
    if step == "best":
        best = read_best(run_dir)
        if best is None or best["step"] not in present:
            todo = "Set step=last or a number; gan-train eval_every=N keeps the best"
            raise NotFoundError("no checkpoint of this run is marked best", str(run_dir), todo)
        return load(run_dir, best["step"])
    if not step.isdecimal() or int(step) not in present:
        todo = f"There are: {', '.join(map(str, present))}"
        raise NotFoundError(f"there is no checkpoint of step {step}", str(run_dir), todo)
    return load(run_dir, int(step))


def mark_best(run_dir: Path, best: dict[str, Any] | None) -> None:
    """Write ``best.json``, whole or not at all; remove it if no checkpoint is the best one.

    What is best is part of every checkpoint's plain data, under ``best``; the file says it to those who do not read these.
    """
    if best is None:
        (run_dir / "best.json").unlink(missing_ok=True)
    elif best != read_best(run_dir):
        temporary = run_dir / ".best.json.tmp"
        temporary.write_text(json.dumps(best, indent=1) + "\n", encoding="utf-8")
        os.replace(temporary, run_dir / "best.json")


def best_of(saved: Checkpoint | None, run_dir: Path) -> dict[str, Any] | None:
    """What was the best checkpoint when ``saved`` was, if it is still there."""
    best: dict[str, Any] | None = saved.info.get("best") if saved is not None else None
    return best if best is not None and best["step"] in steps(run_dir) else None


def read_best(run_dir: Path) -> dict[str, Any] | None:
    """``step``, ``metric``, ``value`` and ``protocol_id`` of the best checkpoint, or None."""
    try:
        best = json.loads((run_dir / "best.json").read_text(encoding="utf-8"))
        kinds = {"step": int, "metric": str, "value": float, "protocol_id": str}
        return best if all(isinstance(best[key], kind) for key, kind in kinds.items()) else None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
