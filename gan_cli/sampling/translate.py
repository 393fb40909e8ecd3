"""``gan-sample`` for runs that translate images: a user's own, or held-out ones of the run's data set."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from gan_cli.config.build import build
from gan_cli.data.find import find_images
from gan_cli.data.image_files import PICTURES, BadFile, ImageFiles
from gan_cli.images import enlarge, is_ours, to_uint8, write_png
from gan_cli.ranges import OnBadImage
from gan_cli.rundir.reload import Run
from gan_cli.rundir.trust import fitting, own_dataset
from gan_cli.sampling.output import allocate, refuse_taken, remove_numbered, write_npz
from gan_cli.system.errors import ConfigError, DataError, GanError, NotFoundError
from gan_cli.tasks.translation import held_out, sheet

log = logging.getLogger("gan_cli")
SHEET_ROWS = 8  # images


@dataclass(frozen=True)
class Sources:
    """Images to translate.

    Attributes:
        names: of the results. load: gives examples ``start`` to ``stop`` by batch key.
        numbered: the names are numbers, so results of an earlier command may have higher ones.
    """

    names: list[str]
    load: Callable[[int, int], dict[str, Tensor]]
    numbered: bool = False


def translate(run: Run, sources: Sources, formats: Sequence[str], output: Path, *, direction: str | None, seed: int) -> None:
    """Write a result for each image, under its own name, and sheets that show source, result and what else is known.

    Raises:
        GanError: a source cannot be read, or a result would replace a file that is not ours.
    """
    n = len(sources.names)
    files = {"png": [f"{name}.png" for name in sources.names], "npz": ["samples.npz"]}
    files["grid"] = [f"sheets/{number:03d}.png" for number in range(-(-n // SHEET_ROWS))]
    refuse_taken(output, [name for kind in formats for name in files[kind]])
    output.mkdir(parents=True, exist_ok=True)
    if "grid" in formats:
        remove_numbered(output / "sheets", len(files["grid"]), digits=3)
    if "png" in formats and sources.numbered:
        remove_numbered(output, n)
    kept = torch.empty(0)
    for start in range(0, n, SHEET_ROWS):
        examples = {k: images.to(run.device) for k, images in sources.load(start, min(start + SHEET_ROWS, n)).items()}
        with torch.no_grad():
            columns = run.task.columns(run.generator, examples, direction, seed, start)
        results = to_uint8(columns[1])
        pictures = {f"{name}.png": result for name, result in zip(sources.names[start:], results, strict=False)}
        if "png" not in formats:
            pictures = {}
        if "grid" in formats:
            pictures[files["grid"][start // SHEET_ROWS]] = enlarge(sheet(columns))
        for name, picture in pictures.items():
            (output / name).parent.mkdir(parents=True, exist_ok=True)
            write_png(output / name, picture)
        if "npz" in formats:
            kept = allocate(n, results) if start == 0 else kept
            kept[start : start + len(results)] = results
    if "npz" in formats:
        write_npz(output, kept)
    log.info("%d %s translated%s: %s", n, "image" if n == 1 else "images", f" {direction}" if direction else "", output)


def batch_key(run: Run, direction: str | None) -> str:
    """The key of the images to translate in a batch of the run."""
    key: str = run.task.batch_keys[0] if direction is None else direction[0]
    return key


def own_images(run: Run, given: str, key: str, output: Path, on_bad_image: OnBadImage = "error") -> Sources:
    """The user's images, fitted as those of the training were. Pictures of gan_cli and its results in ``output`` are left out.

    Raises:
        NotFoundError, DataError: nothing is there, or a file cannot be read.
        ConfigError: the run's data set does not tell how images are fitted.
    """
    path = Path(given).expanduser()
    todo = "Set input= to an image file or a folder of images"
    if not path.exists():
        raise NotFoundError("the input does not exist", str(path.absolute()), todo)
    folder = path.parent if path.is_file() else path
    try:
        names = [path.name] if path.is_file() else find_images(path)
    except GanError as error:
        raise type(error)(error.what, error.where, todo) from error
    within = output.resolve()
    names = [
        n for n in names
        if not (PICTURES.fullmatch(n) or (folder / n).resolve().is_relative_to(within)) or not is_ours(folder / n)
    ]  # fmt: skip
    if not names:
        raise DataError("no images in it but results of gan-sample", str(folder.absolute()), todo)
    data = fitting(run.config)
    if not {"image_size", "channels"} <= data.keys():
        todo = "Use load_run(...).translate from Python"
        raise ConfigError("the run's data set does not tell how images are fitted", "dataset.image_size", todo)
    files = ImageFiles(
        where=folder,
        source=folder,
        samples=[(name,) for name in names],
        image_size=data["image_size"],
        channels=data["channels"],
        fit=data.get("fit", "resize"),
        background=data.get("background", "white"),
        own_files=True,
    )

    def read(name: str) -> Tensor:
        try:
            return files.load((name,))[0]
        except BadFile as bad:
            todo = "Repair or remove it, or set on_bad_image=skip"
            raise DataError(f"the image cannot be read: {bad.reason}", str(folder / name), todo) from bad

    wide, bad = 0, list[DataError]()
    for name in list(names):  # finds a damaged file before anything is written
        try:
            read(name)
        except DataError as error:
            if on_bad_image == "error":
                raise
            bad.append(error)
            names.remove(name)
            continue
        wide += is_two_to_one(folder / name)
    if bad:
        log.warning("%d images cannot be read and are left out: %s", len(bad), bad[0].where)
        if not names:
            raise bad[0]
    if wide:
        log.warning("%d images are twice as wide as high. Two side by side are not cut apart: give the sources alone", wide)
    return Sources(
        unique_stems(names),
        lambda start, stop: {key: torch.stack([read(name) for name in names[start:stop]]) / 127.5 - 1},
    )


def is_two_to_one(path: Path) -> bool:
    """Whether an image is as wide as two squares, as pairs are kept side by side."""
    with Image.open(path) as image:
        return image.width == 2 * image.height


def unique_stems(names: list[str]) -> list[str]:
    """File names without suffix; with it where two would be the same, or be the name of a sheet."""
    stems = [str(Path(name).with_suffix("")) for name in names]
    count, taken = Counter(stems), set(names)
    return [
        stem if count[stem] == 1 and stem not in taken and not stem.startswith("sheets/") else name
        for stem, name in zip(stems, names, strict=True)
    ]


def held_out_images(run: Run, n: int, key: str, *, trust: bool) -> Sources:
    """The first ``n`` images of the run's own data set that training did not see.

    Raises:
        GanError: the data set is missing.
    """
    node = own_dataset(run.config, trust)
    cheap = {"download": False, "memory_gb": 0.0}  # reads only headers of the training part
    try:
        dataset = build(node | {k: v for k, v in cheap.items() if k in node}, "dataset")
    except GanError as error:
        todo = "Set input= to images of your own, or start gan-sample where gan-train was started"
        raise type(error)(f"the run's own data set: {error.what}", error.where, todo) from error
    examples = held_out(dataset, n)
    count = len(examples[key])
    if count < n:
        log.info("the data set has %d images to show", count)
    shown = {k: v[:count] for k, v in examples.items() if k in (key, "target")}
    names = [f"{k:05d}" for k in range(count)]
    return Sources(names, lambda start, stop: {k: v[start:stop] for k, v in shown.items()}, numbered=True)
