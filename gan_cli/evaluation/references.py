"""Data sets that images are compared with."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from gan_cli.config.build import build
from gan_cli.config.plain import Node
from gan_cli.data.dataset import ArrayDataset, ImageDataset, fingerprint
from gan_cli.data.digit_styles import draw_outlines
from gan_cli.data.digits import digits
from gan_cli.data.find import find_images
from gan_cli.data.image_files import FORMATS
from gan_cli.data.npz import shape_in
from gan_cli.evaluation.image_sets import Images
from gan_cli.metrics.features import Labelled
from gan_cli.rundir.trust import fitting, own_dataset
from gan_cli.system.errors import ConfigError, DataError, GanError, NotFoundError
from gan_cli.system.text import short

CLASSIFIER_SIZE = 32  # side in pixels of the images that a classifier is trained on
DIGIT_STYLES = ("gan_cli.data.digit_styles.digits_paired", "gan_cli.data.digit_styles.digits_unpaired")


@dataclass(frozen=True)
class Reference:
    """The reference that a user chose: see the keys of the same names in conf/eval.yaml."""

    real: str | None = None
    dataset: Node | None = None
    root: str | None = None
    split: str | None = None
    num_real: int | None = None

    @property
    def is_own(self) -> bool:
        """Whether it is the run's own data set."""
        return self.real is None and self.dataset is None

    @property
    def key(self) -> str:
        """The key that sets the data set."""
        return "dataset" if self.real is None else "real"

    @property
    def path_key(self) -> str | None:
        """The key that sets its path; None if ``dataset`` does, whose own keys say so."""
        return None if self.dataset is not None else "root" if self.real is None else "real"


def same_classes(ours: Sequence[str], theirs: Sequence[str]) -> bool:
    """Whether labels mean the same: the names are equal, or ours are numbers only, as gan-sample writes them."""
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
    """Filled digits and their outlines, labelled: the images of the embedded translation sets."""
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


def node_of_run(config: dict[str, Any], reference: Reference, trust: bool) -> Node:
    """The data set that a run is compared with: its own, or another one at the size of its images.

    Raises:
        UntrustedError: the run's ``config`` names code that is not part of gan_cli.
    """
    if reference.real is not None:
        own = fitting(config)
        node = node_of_path(reference.real, "real", own.get("image_size"), own.get("channels"))[0]
        return {**node, "fit": own.get("fit", "resize")}
    if reference.dataset is not None:
        own = fitting(config)
        return {**reference.dataset, **{k: v for k, v in own.items() if k != "fit" and k in reference.dataset}}
    own = own_dataset(config, trust)
    if reference.root is None:
        return own
    key = "path" if "path" in own else "root"
    if key not in own:
        raise ConfigError("the data set of the run needs no files", "root", "Leave root out")
    return {**own, key: reference.root}


def with_split(node: Node, split: str | None) -> tuple[Node, str]:
    """The node of a part of a data set, of the present one for None, and the name of the part.

    Raises:
        ConfigError: the data set has no parts.
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
    """Refuse images that differ in size or channels.

    Raises:
        DataError: naming both shapes.
    """
    if fake.shape == real.shape:
        return
    (c, h, w), (channels, height, width) = fake.shape, real.shape
    todo = "Set image_size= to scale both to one size" if c == channels else "Set dataset.channels, or convert them"
    what = f"the samples are {h} x {w} with {c} channel{'s' if c > 1 else ''}, the reference {height} x {width} with {channels}"
    raise DataError(what, "fake and the reference", todo)


@contextmanager
def given_by(key: str | None) -> Iterator[None]:
    """Within this block an error whose advice names a key of gan-train names ``key`` instead, which gives the path here."""
    try:
        yield
    except GanError as error:
        if key is None or not error.key:
            raise
        raise type(error)(error.what, error.where, f"Correct what is there, or set {key}= to another path") from error


def node_of_path(given: str, key: str, image_size: int | None, channels: int | None = None) -> tuple[Node, str]:
    """The data set node of a folder or an npz file, at the size of its images by default, and that size in words.

    Raises:
        NotFoundError, DataError: nothing usable is there, or the images are of several sizes.
    """
    path = Path(given).expanduser()
    if not path.exists():
        raise NotFoundError("there is no such file or folder", str(path.absolute()), f"Set {key}= to a folder or an npz file")
    if not path.is_dir() and path.suffix.lower() != ".npz":
        raise DataError("neither a folder nor an .npz file", str(path), f"Set {key}= to one of them")
    with given_by(key):
        shape = folder_shape(path, image_size) if path.is_dir() else shape_in(str(path))
    if image_size is None and shape[1] != shape[2]:
        raise DataError(f"the images are {shape[1]} x {shape[2]}, not square", str(path), "Set image_size= to scale them")
    where = {"_target_": "gan_cli.data.image_folder.image_folder", "root": str(path), "own_files": True}
    if not path.is_dir():
        where = {"_target_": "gan_cli.data.npz.npz", "path": str(path)}
    node = {**where, "image_size": image_size or shape[1], "channels": channels or min(3, shape[0]), "fit": "resize"}
    return node, f"{shape[1]} x {shape[2]}, {shape[0]} channels" if shape[1] else "of several sizes"


def folder_shape(folder: Path, image_size: int | None) -> tuple[int, int, int]:
    """(C, H, W) of the images in a folder: C is 1 only if all are grey, H and W are 0 if there are several sizes.

    Files that cannot be read are left to the data set.

    Raises:
        DataError: there are no images, or they are of several sizes and ``image_size`` is None.
    """
    sizes: dict[tuple[int, int], str] = {}
    grey = True
    for name in find_images(folder):
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
