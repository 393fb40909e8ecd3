"""Files that ``gan-sample`` writes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gan_cli.sampling.config import SampleConfig
from gan_cli.system.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

    from gan_cli.rundir.reload import Run


@dataclass(frozen=True)
class Samples:
    """What was drawn from noise.

    Attributes:
        values: uint8 (N, C, H, W) images, or float32 (N, dim) points.
        labels: int64 (N,), or None. classes: how many are drawn in turn; 1 if there are none.
    """

    values: Tensor
    labels: Tensor | None
    classes: int


def written(config: SampleConfig, output: Path) -> list[str]:
    """The files that will be written for a run that draws from noise; of single samples those that are there already."""
    there = [path.name for path in output.glob("*.png") if re.fullmatch("[0-9]{5}|[1-9][0-9]{5,17}", path.stem)]
    names = {"grid": ["grid.png"], "npz": ["samples.npz"], "gif": ["interpolation.gif"]}
    names["png"] = [name for name in there if int(name.removesuffix(".png")) < config.num_samples]
    return [name for kind in config.formats or ["grid"] for name in names[kind]]


def refuse_taken(output: Path, names: list[str]) -> None:
    """Nothing is written over but what gan_cli wrote."""
    from gan_cli.images import is_ours

    there = {path.name for path in output.iterdir()} if output.is_dir() else set()
    for name in names:
        if name.split("/")[0] in there and (output / name).exists() and not is_ours(output / name):
            raise ConfigError(f"a result would take the place of {name}", "output", "Set output= to another folder")


def remove_numbered(output: Path, start: int, digits: int = 5) -> None:
    """Single samples of an earlier, longer time, from number ``start`` on, would be taken for some of these."""
    from gan_cli.images import is_ours

    for path in output.glob("[0-9]" * digits + ".png"):
        if int(path.stem) >= start and is_ours(path):
            path.unlink()


def allocate(n: int, like: Tensor) -> Tensor:
    """Room for ``n`` of what ``like`` holds along its first axis.

    Raises:
        ConfigError: more than half of the machine's memory.
    """
    import math
    import os

    import torch

    gigabytes = n * math.prod(like.shape[1:]) * like.element_size() / 2**30
    limit = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**31
    if gigabytes > limit:
        todo = "Draw fewer at a time, with another seed each"
        raise ConfigError(f"{n} images need {gigabytes:.0f} GB, half of the memory is {limit:.0f}", "num_samples", todo)
    return torch.empty(n, *like.shape[1:], dtype=like.dtype)


def write_npz(output: Path, samples: Samples, run: Run, config: SampleConfig) -> Path:
    """``samples.npz``: ``arr_0`` uint8 (N, H, W, C), or float32 (N, dim) points; ``labels`` int64 (N,) if there are any."""
    from gan_cli import images

    values = samples.values
    arrays = {"arr_0": values.permute(0, 2, 3, 1).contiguous().numpy() if values.dim() == 4 else values.numpy()}
    if samples.labels is not None:
        arrays["labels"] = samples.labels.numpy()
    images.write_npz(output / "samples.npz", arrays)
    return output / "samples.npz"
