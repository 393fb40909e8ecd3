"""CMP facades in the form of pix2pix: photos of facades beside maps of their parts.

R. Tylecek and R. Sara, "Spatial Pattern Templates for Recognition of Objects with Regular Structure", GCPR 2013; cut and
split by Isola et al., "Image-to-Image Translation with Conditional Adversarial Networks", 2017.
"""

from __future__ import annotations

import tarfile
import zlib
from pathlib import Path
from typing import Literal

from gan_cli.data.archives import tar_files
from gan_cli.data.dataset import TranslationDataset
from gan_cli.data.download import ensure_archive
from gan_cli.data.image_files import SUFFIXES, ImageFiles, Part, find_images
from gan_cli.data.paired import PARTS
from gan_cli.data.translation import FileStreams, check_load_size, translation_files
from gan_cli.ranges import GreyOrRGB, ImageSize
from gan_cli.system.errors import DataError

BASE_URL = "http://efrosgans.eecs.berkeley.edu/pix2pix/datasets"  # the server has no https that can be relied on
COUNTS = {"train": 400, "val": 100, "test": 106}
HELD_OUT = {"train": "val", "val": "test", "test": "val"}
MEMORY_GB = 4.0


def facades(
    *,
    root: str = "data",
    direction: Literal["a2b", "b2a"] = "b2a",
    image_size: ImageSize = 256,
    load_size: ImageSize | None = 286,
    flip: bool = True,
    channels: GreyOrRGB = 3,
    split: Literal["train", "val", "test"] = "train",
    download: bool = True,
) -> TranslationDataset:
    """Pairs of a photo (A) and a map of its parts (B), 256x256 each: 400 to train, 100 for validation, 106 to test.

    Args:
        root: holds ``facades/`` with train, val and test, or ``facades.tar.gz`` there or in ``root`` itself, which is read
            as it is. Never written to if one is there.
        direction: ``b2a`` makes photos from maps, ``a2b`` maps from photos.
        image_size: side in pixels.
        load_size: side in pixels that the pairs are scaled to before a random square is cut from them, or None.
        flip: whether pairs are mirrored left to right at random.
        channels: 1 or 3, of each image.
        split: which part. Held out is val, or test where val is trained on.
        download: whether missing files may be downloaded.

    Raises:
        NotFoundError: the files are missing.
        DataError: a file is damaged.
        ConfigError: ``load_size`` is smaller than ``image_size``.
    """
    streams: list[tuple[tuple[str, ...], tuple[Part, ...]]] = [(("source", "target"), PARTS[direction])]
    return _facades(streams, root, image_size, load_size, flip, channels, split, download, instead="digits_paired")


def facades_unpaired(
    *,
    root: str = "data",
    image_size: ImageSize = 256,
    load_size: ImageSize | None = 286,
    flip: bool = True,
    channels: GreyOrRGB = 3,
    split: Literal["train", "val", "test"] = "train",
    download: bool = True,
) -> TranslationDataset:
    """The same files as two domains, each in an order of its own: a, the photos, and b, the maps.

    Arguments and errors as :func:`facades`.
    """
    streams: list[tuple[tuple[str, ...], tuple[Part, ...]]] = [(("a",), ("left",)), (("b",), ("right",))]
    return _facades(streams, root, image_size, load_size, flip, channels, split, download, instead="digits_unpaired")


def _facades(
    streams: list[tuple[tuple[str, ...], tuple[Part, ...]]],
    root: str,
    image_size: int,
    load_size: int | None,
    flip: bool,
    channels: int,
    split: str,
    download: bool,
    instead: str,
) -> TranslationDataset:
    home = Path(root).expanduser()
    folder = home / "facades"
    archives = [path for path in (folder / "facades.tar.gz", home / "facades.tar.gz") if path.is_file()]

    def is_unpacked(split: str) -> bool:
        return (folder / split).is_dir() and any((folder / split).iterdir())

    def find(split: str, size: int) -> FileStreams:
        where = folder
        source: Path | dict[str, bytes] = folder
        if is_unpacked(split):
            names = [f"{split}/{name}" for name in find_images(folder / split)]
        else:
            where = archives[0]
            source = contents = _read_archive(where, split)
            names = sorted(contents)
        samples: list[tuple[str, ...]] = [(name,) for name in names]
        return [(keys, ImageFiles(where, source, samples, size, channels, "resize", parts)) for keys, parts in streams]

    check_load_size(load_size, image_size)  # before a download
    ensure_archive(
        lambda: [] if is_unpacked(split) or archives else [split],
        url=f"{BASE_URL}/facades.tar.gz",
        check=_check,
        root=home,
        folder=folder,
        download=download,
        instead=instead,
    )
    return translation_files(
        find,
        split=split,
        held_out=HELD_OUT[split] if archives or is_unpacked(HELD_OUT[split]) else None,
        image_size=image_size,
        load_size=load_size,
        flip=flip,
        memory_gb=MEMORY_GB,
        on_bad_image="error",
        hint="Delete the files and get them again",
    )


def _check(unpacked: Path) -> list[Path]:
    for split, count in COUNTS.items():
        there = len(find_images(unpacked / "facades" / split)) if (unpacked / "facades" / split).is_dir() else 0
        if there != count:
            raise ValueError(f"there are {there} images in facades/{split} of the archive, not {count}")
    return [unpacked / "facades" / split for split in COUNTS]


def _read_archive(archive: Path, split: str) -> dict[str, bytes]:
    """The files of one split, under the names that they have in the folder: ``train/1.jpg``."""
    start = f"facades/{split}/"
    contents: dict[str, bytes] = {}
    todo = "Delete the file and get it again"
    try:
        for path, file in tar_files(archive):
            name = path.removeprefix("./")
            if name.startswith(start) and name.lower().endswith(SUFFIXES):
                contents[name.removeprefix("facades/")] = file.read()
    except (OSError, EOFError, ValueError, tarfile.TarError, zlib.error) as error:
        raise DataError(f"the archive cannot be read: {error}", str(archive), todo) from error
    if not contents:
        raise DataError(f"no images of {start} in it", str(archive), todo)
    return contents
