"""``gan-sample``: draw images from a trained generator."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn

from omegaconf import DictConfig

from gan_cli import cli, schema
from gan_cli.config import to_plain
from gan_cli.errors import ConfigError, OutputError
from gan_cli.ranges import PositiveInt, Seed

if TYPE_CHECKING:
    from torch import Tensor

    from gan_cli.runs import Run

log = logging.getLogger("gan_cli")
GRID_LIMIT = 100  # images that a grid shows at most
GIF_CORNERS, GIF_FRAMES = 6, 12


@dataclass(frozen=True)
class SampleConfig:
    """Everything ``gan-sample`` reads; conf/sample.yaml says what each key means."""

    run_dir: str
    num_samples: PositiveInt
    seed: Seed
    formats: list[Literal["grid", "npz", "png", "gif"]]
    output: str | None
    step: str
    ema: bool
    batch_size: PositiveInt
    device: Literal["auto", "cpu", "cuda", "mps"]
    threads: PositiveInt | None
    trust: bool


def app(cfg: DictConfig) -> None:
    """Load the run, draw, write."""
    plain = to_plain(cfg)
    if isinstance(plain.get("formats"), str):  # formats=npz
        plain["formats"] = [plain["formats"]]
    config = SampleConfig(**schema.check_fields(plain, SampleConfig))
    if not config.formats:
        raise ConfigError("there is nothing to write", "formats", f"Set formats to any of: {', '.join(WRITERS)}")
    import torch

    from gan_cli.game import default_threads
    from gan_cli.runs import load_run

    torch.set_num_threads(config.threads or default_threads())
    run = load_run(config.run_dir, step=config.step, ema=config.ema, device=config.device, trust=config.trust)
    default = run.run_dir / "generated" / f"step-{run.step:08d}-seed{config.seed}"
    output = Path(config.output).expanduser() if config.output is not None else default
    images = draw(run, config)
    try:
        output.mkdir(parents=True, exist_ok=True)
        for kind in dict.fromkeys(config.formats):
            log.info("%s", WRITERS[kind](output, images, run, config))
    except OSError as error:
        raise OutputError(
            f"cannot write: {error.strerror or error}", str(output), "Set output= to a folder you can write"
        ) from error


def draw(run: Run, config: SampleConfig) -> Tensor:
    """uint8 (num_samples, C, H, W) on the CPU, a row of 8 per class where the model has classes."""
    import torch

    from gan_cli.images import to_uint8
    from gan_cli.runs import PER_ROW

    images = torch.empty(0, dtype=torch.uint8)
    for start in range(0, config.num_samples, config.batch_size):
        stop = min(start + config.batch_size, config.num_samples)
        latents, labels = run.task.latents(config.seed, start, stop), run.task.labels(start, stop, PER_ROW)
        (batch,) = map(to_uint8, run.generate(latents, labels, config.batch_size))
        if start == 0:
            images = allocate(config.num_samples, batch.shape[1:])
        images[start:stop] = batch
    return images


def allocate(n: int, shape: tuple[int, ...]) -> Tensor:
    """Room for ``n`` images.

    Raises:
        ConfigError: more than half of the machine's memory.
    """
    import math
    import os

    import torch

    gigabytes = n * math.prod(shape) / 2**30
    limit = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**31
    if gigabytes > limit:
        todo = "Draw fewer at a time, with another seed each"
        raise ConfigError(f"{n} images need {gigabytes:.0f} GB, half of the memory is {limit:.0f}", "num_samples", todo)
    return torch.empty(n, *shape, dtype=torch.uint8)


def write_grid(output: Path, images: Tensor, run: Run, config: SampleConfig) -> Path:
    """``grid.png``: at most the first 100 images."""
    from gan_cli.images import enlarge, make_grid, write_png
    from gan_cli.runs import PER_ROW

    per_row = PER_ROW if run.task.num_classes is not None else None
    write_png(output / "grid.png", enlarge(make_grid(images[:GRID_LIMIT], per_row)))
    return output / "grid.png"


def write_npz(output: Path, images: Tensor, run: Run, config: SampleConfig) -> Path:
    """``samples.npz``: ``arr_0`` uint8 (N, H, W, C), and ``labels`` int64 (N,) for class-conditional models."""
    import os

    import numpy as np

    from gan_cli.runs import PER_ROW

    labels = run.task.labels(0, config.num_samples, PER_ROW)
    arrays = {"arr_0": images.permute(0, 2, 3, 1).contiguous().numpy()}
    if labels is not None:
        arrays["labels"] = labels.numpy()
    temporary = output / ".samples.npz.tmp"
    with open(temporary, "wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]
    os.replace(temporary, output / "samples.npz")
    return output / "samples.npz"


def write_pngs(output: Path, images: Tensor, run: Run, config: SampleConfig) -> Path:
    """``00000.png``, ``00001.png``, ..., one image each at its own size."""
    from gan_cli.images import write_png

    for k, image in enumerate(images):
        write_png(output / f"{k:05d}.png", image)
    return output / f"00000.png to {len(images) - 1:05d}.png"


def write_gif_walk(output: Path, images: Tensor, run: Run, config: SampleConfig) -> Path:
    """``interpolation.gif``: 16 samples walking through 6 latents each and back to the first."""
    import torch

    from gan_cli.images import enlarge, make_grid, to_uint8, write_gif

    cells = 16
    walks = torch.stack([run.task.interpolate((config.seed, cell), GIF_CORNERS, GIF_FRAMES) for cell in range(cells)])
    frames = walks.transpose(0, 1)  # (frames, cells, latent_dim)
    labels = run.task.labels(0, cells, per_row=1)
    pictures = [torch.cat([to_uint8(x) for x in run.generate(z, labels, config.batch_size)]) for z in frames]
    write_gif(output / "interpolation.gif", [enlarge(make_grid(p), 256) for p in pictures])
    return output / "interpolation.gif"


WRITERS: dict[str, Any] = {"grid": write_grid, "npz": write_npz, "png": write_pngs, "gif": write_gif_walk}


def main() -> NoReturn:
    """Console script."""
    cli.run(app, "sample", "gan-sample")


if __name__ == "__main__":
    main()
