"""Data sets that images are compared with."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image

from gan_cli.config.build import build
from gan_cli.config.plain import Node
from gan_cli.data.dataset import ArrayDataset, ImageDataset, fingerprint
from gan_cli.data.digit_styles import draw_outlines
from gan_cli.data.digits import digits
from gan_cli.data.image_files import FORMATS, find_images
from gan_cli.data.npz import shape_in
from gan_cli.evaluation.image_sets import Images
from gan_cli.metrics.features import Labelled
from gan_cli.rundir.reload import Run
from gan_cli.rundir.trust import fitting, own_dataset
from gan_cli.system.errors import ConfigError, DataError, GanError, NotFoundError
from gan_cli.system.text import short

if TYPE_CHECKING:
    from gan_cli.evaluation.config import EvalConfig

CLASSIFIER_SIZE = 32  # side of the images that a classifier is trained on
DIGIT_STYLES = ("gan_cli.data.digit_styles.digits_paired", "gan_cli.data.digit_styles.digits_unpaired")


def same_classes(ours: Sequence[str], theirs: Sequence[str]) -> bool:
    """Whether labels mean the same: the names are the same ones, or there are only numbers, as gan-sample writes them."""
    numbers = [str(k) for k in range(len(theirs))]
    return list(ours) == list(theirs) or list(ours) == numbers[: len(ours)]


def labelled_sets(node: Node, real: Images) -> Labelled | None:
    """Gives the parts of the labelled data set that a classifier is trained on, at the size it takes; None if unlabelled."""
    if node["_target_"] in DIGIT_STYLES:
        return both_styles
    if real.labels is None:
        return None

    def part(split: str) -> ImageDataset | None:
        if split != "train" and "split" not in node:
            return None
        sized = {**node, "image_size": CLASSIFIER_SIZE} if "image_size" in node else node
        dataset: ImageDataset = build({**sized, "split": split} if "split" in node else sized, "dataset")
        return dataset

    return part


def both_styles(split: str) -> ImageDataset:
    """Filled digits and their outlines, labelled: what the embedded translation sets are made of."""
    part: Any = split
    filled = digits(image_size=CLASSIFIER_SIZE, split=part)
    assert filled.labels is not None
    images = torch.cat([filled.images, draw_outlines(part, CLASSIFIER_SIZE)])
    return ArrayDataset(
        images,
        labels=filled.labels.repeat(2),
        class_names=filled.class_names,
        fingerprint=fingerprint(filled.fingerprint, "and outlines"),
    )


def reference_node(run: Run, config: EvalConfig) -> Node:
    """The data set that a run is compared with: its own, or another one at the size of its images.

    Raises:
        UntrustedError: the run names code that is not part of gan_cli.
    """
    if config.real is None and config.dataset is None:
        own = own_dataset(run.config, config.trust)
        if config.root is None:
            return own
        key = "path" if "path" in own else "root"
        if key not in own:
            raise ConfigError("the data set of the run needs no files", "root", "Leave root out")
        return {**own, key: config.root}
    own = fitting(run.config)
    if config.real is not None:
        node = node_of_path(config.real, "real", own.get("image_size"), own.get("channels"))[0]
        return {**node, "fit": own.get("fit", "resize")}
    assert config.dataset is not None
    return {**config.dataset, **{k: v for k, v in own.items() if k != "fit" and k in config.dataset}}


def with_split(node: Node, split: str | None) -> tuple[Node, str]:
    """A part of the same data set, None for the one that it is, and what it is called.

    Raises:
        ConfigError: it has no parts.
    """
    if "split" in node:
        return {**node, "split": split or node["split"]}, split or node["split"]
    if split == "test":
        raise ConfigError(f"the data set has no {split} part", "split", "Leave split out, or set real= to a folder of images")
    return node, "all"


def describe(node: Node, split: str) -> str:
    """A data set in words."""
    place = node["root"] if node["_target_"].endswith(".image_folder") else node.get("path")
    return short(place or f"{node['_target_'].rsplit('.', 1)[-1]}{f' {split}' if 'split' in node else ''}", 200)


def refuse_other_shape(fake: Images, real: Images) -> None:
    """Images are compared as they are.

    Raises:
        DataError: they differ in size or channels.
    """
    if fake.shape == real.shape:
        return
    (c, h, w), (channels, height, width) = fake.shape, real.shape
    todo = "Set image_size= to scale both to one size" if c == channels else "Set dataset.channels, or convert them"
    what = f"the samples are {h} x {w} with {c} channel{'s' if c > 1 else ''}, the reference {height} x {width} with {channels}"
    raise DataError(what, "fake and the reference", todo)


def node_of_path(given: str, key: str, image_size: int | None, channels: int | None = None) -> tuple[Node, str]:
    """The data set node of a folder or an npz file, at the size of its images unless told otherwise, and that size in words.

    Raises:
        NotFoundError, DataError: nothing usable is there, or the images are of several sizes.
    """
    path = Path(given).expanduser()
    if not path.exists():
        raise NotFoundError("there is no such file or folder", str(path.absolute()), f"Set {key}= to a folder or an npz file")
    if not path.is_dir() and path.suffix != ".npz":
        raise DataError("neither a folder nor an .npz file", str(path), f"Set {key}= to one of them")
    with readdressed({"dataset.root": f"{key}=", "dataset.path": f"{key}="}):
        shape = folder_shape(path, image_size) if path.is_dir() else shape_in(str(path))
    if image_size is None and shape[1] != shape[2]:
        raise DataError(f"the images are {shape[1]} x {shape[2]}, not square", str(path), "Set image_size= to scale them")
    where = {"_target_": "gan_cli.data.image_folder.image_folder", "root": str(path)}
    if not path.is_dir():
        where = {"_target_": "gan_cli.data.npz.npz", "path": str(path)}
    node = {**where, "image_size": image_size or shape[1], "channels": channels or min(3, shape[0]), "fit": "resize"}
    return node, f"{shape[1]} x {shape[2]}, {shape[0]} channels" if shape[1] else "of several sizes"


@contextmanager
def readdressed(keys: dict[str, str]) -> Iterator[None]:
    """Within this block the advice of an error names the keys that gan-eval has.

    ``keys``: of gan-train, and what stands for each.
    """
    try:
        yield
    except GanError as error:
        todo = error.todo.replace(", or set dataset.on_bad_image=skip to leave it out", "")
        for theirs, ours in keys.items():
            todo = todo.replace(theirs, ours)
        if keys and "dataset." in todo:
            todo = "Correct the file"
        raise type(error)(error.what, error.where, todo) from error


def folder_shape(folder: Path, image_size: int | None) -> tuple[int, int, int]:
    """(C, H, W) of the images in a folder, C 1 only if all are grey, H and W 0 if they are of several sizes.

    Files that cannot be read are left to the data set.

    Raises:
        DataError: there are none, or they are of several sizes and ``image_size`` is None.
    """
    names = find_images(folder)
    sizes: dict[tuple[int, int], str] = {}
    grey = True
    for name in names:
        try:
            with Image.open(folder / name, formats=FORMATS) as image:
                sizes.setdefault((image.height, image.width), name)
                grey = grey and (image.mode in ("1", "L") or image.mode.startswith("I"))
        except (OSError, ValueError, SyntaxError):
            continue
    if len(sizes) > 1 and image_size is None:
        (a, first), (b, second) = list(sizes.items())[:2]
        what = f"the images are of {len(sizes)} sizes, as {first} ({a[0]} x {a[1]}) and {second} ({b[0]} x {b[1]})"
        raise DataError(what, str(folder), "Set image_size= to scale them")
    height, width = (0, 0) if len(sizes) > 1 else next(iter(sizes), (1, 1))
    return 1 if grey else 3, height, width
