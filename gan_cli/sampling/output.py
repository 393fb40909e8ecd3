"""Files that ``gan-sample`` writes."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from gan_cli import images
from gan_cli.system.errors import ConfigError


def refuse_taken(output: Path, names: Sequence[str]) -> None:
    """Refuse to replace a file that gan_cli did not write.

    Raises:
        ConfigError: naming the file.
    """
    existing = {path.name for path in output.iterdir()} if output.is_dir() else set()
    for name in names:
        if name.split("/")[0] in existing and (output / name).exists() and not images.is_ours(output / name):
            raise ConfigError(f"a result would take the place of {name}", "output", "Set output= to another folder")


def numbered(output: Path, digits: int = 5) -> dict[int, Path]:
    """Files ``00000.png``, ``00001.png``, ... that exist in a folder, by their number."""
    name = re.compile(f"[0-9]{{{digits}}}|[1-9][0-9]{{{digits},17}}")
    return {int(path.stem): path for path in output.glob("*.png") if name.fullmatch(path.stem)}


def remove_numbered(output: Path, start: int, digits: int = 5) -> None:
    """Remove numbered images of an earlier command, from ``start`` on, which would be taken for some of these."""
    for number, path in numbered(output, digits).items():
        if number >= start and images.is_ours(path):
            path.unlink()


def allocate(n: int, like: Tensor) -> Tensor:
    """An empty tensor for ``n`` rows such as those of ``like``.

    Raises:
        ConfigError: it would take more than half of the machine's memory.
    """
    gigabytes = n * math.prod(like.shape[1:]) * like.element_size() / 2**30
    limit = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**31
    if gigabytes > limit:
        todo = "Draw fewer at a time, with another seed each"
        raise ConfigError(f"{n} images need {gigabytes:.0f} GB, half of the memory is {limit:.0f}", "num_samples", todo)
    return torch.empty(n, *like.shape[1:], dtype=like.dtype)


def write_npz(output: Path, values: Tensor, labels: Tensor | None = None) -> Path:
    """``samples.npz``: ``arr_0`` uint8 (N, H, W, C), or float32 (N, dim) points; ``labels`` int64 (N,) if there are any."""
    arrays = {"arr_0": values.permute(0, 2, 3, 1).contiguous().numpy() if values.dim() == 4 else values.numpy()}
    if labels is not None:
        arrays["labels"] = labels.numpy()
    images.write_npz(output / "samples.npz", arrays)
    return output / "samples.npz"
