"""Any folder of image files; its subfolders are the classes."""

from __future__ import annotations

import logging
from pathlib import Path

import torch
from torch import Tensor

from gan_cli.data.dataset import ImageDataset, fingerprint
from gan_cli.data.find import find_images
from gan_cli.data.first_look import one_line, read_images
from gan_cli.data.image_files import ImageFiles, as_dataset
from gan_cli.ranges import Fit, GreyOrRGB, ImageSize, NonNegative, OnBadImage, PositiveInt
from gan_cli.system.errors import DataError

log = logging.getLogger(__name__)
SPLITS = {"train", "test", "val", "valid", "validation"}  # names of folders that are parts of a set, not classes


def image_folder(
    *,
    root: str,
    image_size: ImageSize = 64,
    channels: GreyOrRGB = 3,
    num_classes: PositiveInt | None = None,
    fit: Fit = "crop",
    memory_gb: NonNegative = 4.0,
    on_bad_image: OnBadImage = "error",
    background: str = "white",
    own_files: bool = False,
) -> ImageDataset:
    """The images below ``root``, in the order of their relative paths.

    If all of them lie in subfolders of ``root``, these are the classes, sorted by name. If some lie in ``root`` itself,
    the set is unlabelled. If the subfolders are ``train`` and other parts, ``train`` alone is read. Hidden files and
    folders are left out, as are folders without images; links are followed.

    Args:
        root: the folder.
        image_size: side in pixels.
        channels: 1 or 3.
        num_classes: the number of classes that there must be, or None for any.
        fit: see :func:`gan_cli.data.fitting.fit_images`.
        memory_gb: a limit in units of 2^30 bytes. If the fitted images need no more, they are decoded once and kept in
            memory; otherwise they are decoded whenever they are used.
        on_bad_image: whether a file that cannot be read is an error, or is left out with a warning. If the images are
            not kept in memory, ``error`` checks only the headers at the start; ``skip`` decodes each file once.
        background: colour under transparent pixels, a name or ``#rrggbb``.
        own_files: whether samples that gan_cli wrote are used. Its grids, sheets and animations never are.

    Raises:
        NotFoundError: there is no such folder.
        DataError: no usable images, unreadable ones, or another number of classes.
    """
    folder = Path(root).expanduser()
    folder, found_names = _training_part(folder, find_images(folder))
    samples: list[tuple[str, ...]] = [(name,) for name in found_names]
    found = ImageFiles(
        folder, folder, samples, image_size, channels, fit, background=background, own_files=own_files
    )  # fmt: skip
    files, images = read_images(found, in_memory=found.nbytes <= memory_gb * 2**30, on_bad_image=on_bad_image)
    names = [name for (name,) in files.samples]
    labels, class_names = _label(names)
    beside = [name for name in names if "/" not in name]
    if num_classes is not None and 0 < len(beside) < len(names):
        what = f"{len(beside)} of {len(names)} images lie beside the class folders: {one_line(beside[0])}"
        raise DataError(what, str(folder), "Move them into a class folder, or out of dataset.root")
    if num_classes is not None and num_classes != len(class_names):
        raise DataError(
            f"num_classes={num_classes}, but the images lie in {len(class_names)} class folders",
            str(folder),
            f"Set dataset.num_classes={len(class_names) or 'null'}",
        )
    seen = [] if background == "white" else [background]
    identity = fingerprint(*names, files.digest(), image_size, channels, fit, *seen)
    return as_dataset(files, images, labels=labels, class_names=class_names, fingerprint=identity)


def _training_part(folder: Path, names: list[str]) -> tuple[Path, list[str]]:
    """The folder ``train`` of a set that is split into folders, and the names in it; else what is given."""
    parts = {name.partition("/")[0] for name in names}
    if "train" not in parts or not parts <= SPLITS or len(parts) == 1 or any("/" not in name for name in names):
        return folder, names
    others = sorted(parts - {"train"})
    log.info("the folder is split: train is used, not %s (dataset.root=%s)", ", ".join(others), folder / others[0])
    return folder / "train", [name.removeprefix("train/") for name in names if name.startswith("train/")]


def _label(names: list[str]) -> tuple[Tensor | None, list[str]]:
    """Labels and class names: the class of a file is its first folder. No classes if a file lies in no folder."""
    if any("/" not in name for name in names):
        if any("/" in name for name in names):
            log.info("Images lie both in the folder itself and in its subfolders: the set is taken as unlabelled")
        return None, []
    folders = [name.split("/", 1)[0] for name in names]
    class_names = sorted(set(folders))
    label_of = {name: label for label, name in enumerate(class_names)}
    return torch.tensor([label_of[name] for name in folders]), class_names
