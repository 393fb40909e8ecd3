"""``gan-sample``: draw images from a trained generator."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from omegaconf import DictConfig

from gan_cli.app import entry
from gan_cli.config import schema
from gan_cli.config.plain import to_plain
from gan_cli.sampling.config import SampleConfig
from gan_cli.sampling.output import Samples, allocate, refuse_taken, remove_numbered, write_npz, written
from gan_cli.system.errors import ConfigError, OutputError, failing_as

if TYPE_CHECKING:
    from torch import Tensor

    from gan_cli.rundir.reload import Run

log = logging.getLogger("gan_cli")
GRID_LIMIT = 100  # images that a grid shows at most
GIF_CORNERS, GIF_FRAMES = 6, 12


def app(cfg: DictConfig) -> None:
    """Load the run, draw or translate, write."""
    plain = to_plain(cfg)
    if isinstance(plain.get("formats"), str):  # formats=npz
        plain["formats"] = [plain["formats"]]
    config = SampleConfig(**schema.check_fields(plain, SampleConfig))
    if config.formats == []:
        raise ConfigError("there is nothing to write", "formats", f"Set formats to any of: {', '.join(WRITERS)}")
    import torch

    from gan_cli.compute.device import default_threads
    from gan_cli.protocols import DrawsPoints
    from gan_cli.rundir.reload import load_run

    torch.set_num_threads(config.threads or default_threads())
    run = load_run(config.run_dir, step=config.step, ema=config.ema, device=config.device, trust=config.trust)
    output = Path(config.output).expanduser() if config.output is not None else default_output(run, config)
    with failing_as(OutputError, "cannot write", str(output), "Set output= to a folder you can write"):
        if run.translates:
            from gan_cli.sampling.translate import translate

            translate(run, config, output)
            return
        if isinstance(run.task, DrawsPoints) and {"png", "gif"} & set(config.formats or []):
            raise ConfigError("png and gif are for images, this run draws points", "formats", "Choose from grid and npz")
        refuse_taken(output, written(config, output))
        samples = draw(run, config)
        output.mkdir(parents=True, exist_ok=True)
        for kind in dict.fromkeys(config.formats or ["grid"]):
            log.info("%s", WRITERS[kind](output, samples, run, config))


def default_output(run: Run, config: SampleConfig) -> Path:
    """``<run_dir>/generated/step-<8 digits>-seed<k>``, and what else was asked for behind it."""
    import hashlib

    def digest(text: str) -> str:
        return hashlib.sha256(text.encode()).hexdigest()[:6]

    parts = [f"step-{run.step:08d}", f"seed{config.seed}"]
    parts += [] if config.ema else ["raw"]
    parts += [f"truncation{config.truncation:g}"] if config.truncation is not None else []
    parts += [value for value in (config.mode, config.direction) if value is not None]
    if config.input is not None:
        path = Path(config.input).expanduser().absolute()
        parts.append(f"{path.stem[:60]}-{digest(str(path))}")
    if config.label is not None:
        labels = [str(label) for label in (config.label if isinstance(config.label, list) else [config.label])]
        plain = "-".join(labels)
        parts.append(f"label-{plain if re.fullmatch('[0-9A-Za-z-]{1,60}', plain) else digest(repr(labels))}")
    return run.run_dir / "generated" / "-".join(parts)


def chosen_classes(label: Any, run: Run) -> list[int] | None:
    """The classes that ``label`` names, by number or by name; None for all of them.

    Raises:
        ConfigError: there is no such class, or the model has none.
    """
    if label is None:
        return None
    classes = run.task.num_classes
    if classes is None:
        todo = "Leave label out, or train a class-conditional model: model=cgan or model=cdcgan"
        raise ConfigError(f"label={label}, but the run was trained without labels", "label", todo)
    exact = {name: k for k, name in enumerate(run.class_names)}
    loose = {name.lower(): k for k, name in enumerate(run.class_names)}
    chosen = []
    for item in label if isinstance(label, list) else [label]:
        number = exact.get(str(item), loose.get(str(item).lower(), item))  # names first: they may be numbers too
        if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < classes:
            names = [name for name in run.class_names if not name.isdigit()]
            near = schema.nearest(str(item), names)
            todo = f"Choose from 0 to {classes - 1}" + (f", or by name: {', '.join(names[:20])}" if names else "")
            raise ConfigError(f"{item!r} is not a class of this run", "label", f"{todo}.{near}" if near else todo)
        chosen.append(number)
    if not chosen:
        raise ConfigError("no class is named", "label", "Leave label out to draw all classes")
    return chosen


def draw(run: Run, config: SampleConfig) -> Samples:
    """``num_samples`` of them, on the CPU. Says how far it is, as :class:`gan_cli.metrics.features.Progress` does."""
    from gan_cli.images import to_uint8
    from gan_cli.metrics.features import Progress
    from gan_cli.rundir.reload import draw_options

    for key in ("input", "direction", "mode"):
        if getattr(config, key) is not None:
            todo = f"Leave {key} out; models that translate images are model=pix2pix and model=cyclegan"
            raise ConfigError("the run makes images from noise", key, todo)
    classes = chosen_classes(config.label, run)
    options = draw_options(run.generator, truncation=config.truncation)

    def drawn(start: int, stop: int, labels: Tensor | None) -> Tensor:
        latents = run.task.latents(config.seed, start, stop)
        (batch,) = run.generate(latents, labels, config.batch_size, config.seed, start, **options)
        return to_uint8(batch) if batch.dim() == 4 else batch.cpu()

    values = allocate(config.num_samples, drawn(0, 1, run.task.labels(1, classes)))
    labels = run.task.labels(config.num_samples, classes)
    with Progress(config.num_samples, "images") as progress:
        for start in range(0, config.num_samples, config.batch_size):
            stop = min(start + config.batch_size, config.num_samples)
            values[start:stop] = drawn(start, stop, None if labels is None else labels[start:stop])
            progress(stop)
    return Samples(values, labels, len(classes) if classes else run.task.num_classes or 1)


def write_grid(output: Path, samples: Samples, run: Run, config: SampleConfig) -> Path:
    """``grid.png``: a row per class, or the first 100 images; points as the task draws them."""
    import torch

    from gan_cli.images import enlarge, make_grid, write_png

    path = output / "grid.png"
    if samples.values.dim() == 2:
        write_png(path, run.task.draw_points(samples.values))
        return path
    n, classes = len(samples.values), samples.classes
    each = n // classes
    if classes == 1 or each == 0:
        write_png(path, enlarge(make_grid(samples.values[:GRID_LIMIT])))
        return path
    shown = min(each, max(1, GRID_LIMIT // classes))
    first = torch.arange(min(classes, GRID_LIMIT))[:, None] * each
    write_png(path, enlarge(make_grid(samples.values[(first + torch.arange(shown)).flatten()], shown)))
    return path


def write_pngs(output: Path, samples: Samples, run: Run, config: SampleConfig) -> Path:
    """``00000.png``, ``00001.png``, ..., one image each at its own size."""
    from gan_cli.images import write_png

    for k, image in enumerate(samples.values):
        write_png(output / f"{k:05d}.png", image)
    remove_numbered(output, len(samples.values))
    return output / f"00000.png to {len(samples.values) - 1:05d}.png"


def write_gif_walk(output: Path, samples: Samples, run: Run, config: SampleConfig) -> Path:
    """``interpolation.gif``: 16 samples walking through 6 latents each and back to the first."""
    import torch

    from gan_cli.images import enlarge, make_grid, to_uint8, write_gif
    from gan_cli.rundir.reload import draw_options

    cells = 16
    walks = torch.stack([run.task.interpolate((config.seed, cell), GIF_CORNERS, GIF_FRAMES) for cell in range(cells)])
    frames = walks.transpose(0, 1)  # (frames, cells, latent_dim)
    classes = chosen_classes(config.label, run) or range(run.task.num_classes or 0)
    labels = torch.tensor([classes[cell % len(classes)] for cell in range(cells)]) if classes else None
    options = draw_options(run.generator, truncation=config.truncation)
    pictures = [
        torch.cat([to_uint8(x) for x in run.generate(z, labels, config.batch_size, config.seed, **options)]) for z in frames
    ]
    write_gif(output / "interpolation.gif", [enlarge(make_grid(p), 256) for p in pictures])
    return output / "interpolation.gif"


WRITERS: dict[str, Any] = {"grid": write_grid, "npz": write_npz, "png": write_pngs, "gif": write_gif_walk}


def main() -> NoReturn:
    """Console script."""
    entry.run(app, "sample", "gan-sample")


if __name__ == "__main__":
    main()
