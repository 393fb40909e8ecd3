"""``gan-sample`` for runs that draw from noise."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gan_cli.config.names import nearest
from gan_cli.images import enlarge, make_grid, to_uint8, write_gif, write_png
from gan_cli.metrics.features import ProgressLine
from gan_cli.protocols import DrawsPoints
from gan_cli.rundir.reload import Run
from gan_cli.sampling.output import allocate, numbered, refuse_taken, remove_numbered, write_npz
from gan_cli.system.errors import ConfigError

log = logging.getLogger("gan_cli")
MAX_GRID = 100  # images
GIF_CELLS, GIF_CORNERS, GIF_FRAMES = 16, 6, 12  # walks, latents of a walk, frames from one to the next


@dataclass(frozen=True)
class Source:
    """Samples of a run. Sample k depends on ``seed``, k and its class only.

    Attributes:
        classes: numbers of the classes to draw; None for all of them, or for a run without classes.
        options: keywords of the generator, such as ``truncation``.
    """

    run: Run
    seed: int
    batch_size: int
    classes: Sequence[int] | None
    options: Mapping[str, Any]

    @property
    def num_classes(self) -> int:
        """Number of classes, which are drawn in turn; 1 for a run without classes."""
        return len(self.classes) if self.classes else self.run.task.num_classes or 1

    def draw(self, n: int) -> tuple[Tensor, Tensor | None]:
        """``n`` samples on the CPU, uint8 (n, C, H, W) or float32 (n, dim), and their labels, int64 (n,)."""
        labels = self.run.task.labels(n, self.classes)

        def part(start: int, stop: int) -> Tensor:
            latents = self.run.task.latents(self.seed, start, stop)
            label = None if labels is None else labels[start:stop]
            return self.generate(latents, label, start)

        values = allocate(n, part(0, 1))
        with ProgressLine(n, "images") as progress:
            for start in range(0, n, self.batch_size):
                stop = min(start + self.batch_size, n)
                values[start:stop] = part(start, stop)
                progress(stop)
        return values, labels

    def walks(self) -> list[Tensor]:
        """Frames of a film, uint8 (GIF_CELLS, C, H, W) each: walks through latents that end where they begin."""
        walks = [self.run.task.interpolate((self.seed, cell), GIF_CORNERS, GIF_FRAMES) for cell in range(GIF_CELLS)]
        classes = self.classes or range(self.run.task.num_classes or 0)
        labels = torch.tensor([classes[cell % len(classes)] for cell in range(GIF_CELLS)]) if classes else None
        return [self.generate(z, labels) for z in torch.stack(walks, dim=1)]

    def generate(self, latents: Tensor, labels: Tensor | None, start: int = 0) -> Tensor:
        """Samples of these latents, on the CPU."""
        batches = self.run.generate(latents, labels, self.batch_size, self.seed, start, **self.options)
        return torch.cat([to_uint8(batch) if batch.dim() == 4 else batch.cpu() for batch in batches])


def sample(source: Source, n: int, formats: Sequence[str], output: Path) -> None:
    """Draw ``n`` samples and write them in each format.

    Raises:
        ConfigError: a format is not for points, or a result would replace a file that is not ours.
    """
    if isinstance(source.run.task, DrawsPoints) and {"png", "gif"} & set(formats):
        raise ConfigError("png and gif are for images, this run draws points", "formats", "Choose from grid and npz")
    single = [path.name for number, path in numbered(output).items() if number < n]
    names = {"grid": ["grid.png"], "npz": ["samples.npz"], "gif": ["interpolation.gif"], "png": single}
    refuse_taken(output, [name for kind in formats for name in names[kind]])
    values, labels = source.draw(n)
    output.mkdir(parents=True, exist_ok=True)
    for kind in dict.fromkeys(formats):
        if kind == "grid":
            path = write_grid(output, values, source)
        elif kind == "npz":
            path = write_npz(output, values, labels)
        elif kind == "png":
            path = write_pngs(output, values)
        else:
            path = output / "interpolation.gif"
            write_gif(path, [enlarge(make_grid(frame), 256) for frame in source.walks()])
        log.info("%s", path)


def write_grid(output: Path, values: Tensor, source: Source) -> Path:
    """``grid.png``: a row per class, or the first 100 images; points as the task draws them."""
    path, classes = output / "grid.png", source.num_classes
    each = len(values) // classes
    if values.dim() == 2:
        picture = source.run.task.draw_points(values)
    elif classes == 1 or each == 0:
        picture = enlarge(make_grid(values[:MAX_GRID]))
    else:
        shown = min(each, max(1, MAX_GRID // classes))
        first = torch.arange(min(classes, MAX_GRID))[:, None] * each
        picture = enlarge(make_grid(values[(first + torch.arange(shown)).flatten()], shown))
    write_png(path, picture)
    return path


def write_pngs(output: Path, values: Tensor) -> Path:
    """``00000.png``, ``00001.png``, ..., one image each at its own size."""
    for k, image in enumerate(values):
        write_png(output / f"{k:05d}.png", image)
    remove_numbered(output, len(values))
    return output / f"00000.png to {len(values) - 1:05d}.png"


def chosen_classes(label: Any, num_classes: int | None, names: Sequence[str]) -> list[int] | None:
    """The classes that ``label`` gives, by number or by name; None for all of them.

    Raises:
        ConfigError: there is no such class, or the model has none.
    """
    if label is None:
        return None
    if num_classes is None:
        todo = "Leave label out, or train a class-conditional model: model=cgan or model=cdcgan"
        raise ConfigError(f"label={label}, but the run was trained without labels", "label", todo)
    exact = {name: k for k, name in enumerate(names)}
    loose = {name.lower(): k for k, name in enumerate(names)}
    chosen = []
    for item in label if isinstance(label, list) else [label]:
        number = exact.get(str(item), loose.get(str(item).lower(), item))  # names first: they may be numbers too
        if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < num_classes:
            words = [name for name in names if not name.isdigit()]
            near = nearest(str(item), words)
            todo = f"Choose from 0 to {num_classes - 1}" + (f", or by name: {', '.join(words[:20])}" if words else "")
            raise ConfigError(f"{item!r} is not a class of this run", "label", f"{todo}.{near}" if near else todo)
        chosen.append(number)
    if not chosen:
        raise ConfigError("no class is named", "label", "Leave label out to draw all classes")
    return chosen
