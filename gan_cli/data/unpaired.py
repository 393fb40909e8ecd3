"""Two folders of images that are no pairs, for CycleGAN."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from gan_cli.data.dataset import TranslationDataset
from gan_cli.data.download import ensure_archive
from gan_cli.data.image_files import ImageFiles, find_images
from gan_cli.data.paired import find_two
from gan_cli.data.translation import FileStreams, check_load_size, choose_held_out, translation_files
from gan_cli.ranges import Fit, GreyOrRGB, ImageSize, NonNegative, OnBadImage
from gan_cli.system.errors import DataError, NotFoundError

BASE_URL = "http://efrosgans.eecs.berkeley.edu/cyclegan/datasets"  # the server has no https that can be relied on


def unpaired(
    *,
    root: str,
    image_size: ImageSize = 256,
    load_size: ImageSize | None = 286,
    flip: bool = True,
    channels: GreyOrRGB = 3,
    fit: Fit = "resize",
    split: str = "train",
    held_out: str | None = "auto",
    memory_gb: NonNegative = 4.0,
    on_bad_image: OnBadImage = "error",
) -> TranslationDataset:
    """The images of two domains: ``SPLITA/`` and ``SPLITB/`` below ``root``, or ``A/SPLIT/`` and ``B/SPLIT/``.

    Args:
        root: the folder.
        image_size: side in pixels.
        load_size: side in pixels that images are scaled to before a random square is cut from them, or None.
        flip: whether images are mirrored left to right at random.
        channels: 1 or 3.
        fit: see :func:`gan_cli.data.fitting.fit_images`.
        split: which part.
        held_out: the part that training does not see, None, or ``auto`` for the first of test and val that is there.
        memory_gb: see :func:`gan_cli.data.image_folder.image_folder`; of both domains together.
        on_bad_image: whether a file that cannot be read is an error, or is left out with a warning.

    Raises:
        NotFoundError: the folders are not there.
        DataError: no images, or files that cannot be read.
        ConfigError: ``load_size`` is smaller than ``image_size``.
    """
    home = Path(root).expanduser()

    def find(split: str, size: int) -> FileStreams:
        folders = find_two(home, split)
        if folders is None:
            todo = f"It takes two folders of images, {split}A/ and {split}B/ or A/{split}/ and B/{split}/"
            raise NotFoundError(f"no two domains for the split {split!r}", str(home.absolute()), todo)
        streams: FileStreams = []
        for key, folder in zip("ab", folders, strict=True):
            names = [(f"{folder}/{name}",) for name in find_images(home / folder)]
            streams.append(((key,), ImageFiles(home, home, [*names], size, channels, fit)))
        return streams

    def has(split: str) -> bool:
        return find_two(home, split) is not None

    return translation_files(
        find,
        split=split,
        held_out=choose_held_out(has, split=split, held_out=held_out, auto=["test", "val"], where=home),
        image_size=image_size,
        load_size=load_size,
        flip=flip,
        memory_gb=memory_gb,
        on_bad_image=on_bad_image,
        hint="Choose folders with images",
    )


def cyclegan_set(
    *,
    name: Literal[
        "horse2zebra",
        "apple2orange",
        "summer2winter_yosemite",
        "monet2photo",
        "cezanne2photo",
        "ukiyoe2photo",
        "vangogh2photo",
        "maps",
        "cityscapes",
        "facades",
        "iphone2dslr_flower",
    ],
    root: str = "data",
    image_size: ImageSize = 256,
    load_size: ImageSize | None = 286,
    flip: bool = True,
    channels: GreyOrRGB = 3,
    fit: Fit = "resize",
    split: Literal["train", "test"] = "train",
    memory_gb: NonNegative = 4.0,
    download: bool = True,
) -> TranslationDataset:
    """A data set of Zhu et al., "Unpaired Image-to-Image Translation using Cycle-Consistent Adversarial Networks", 2017.

    Args:
        name: which one. The archive of cityscapes holds no images any more, for its licence: it has to be made.
        root: holds the folder ``name`` with trainA, trainB, testA and testB. Never written to if they are there.
        image_size: side in pixels.
        load_size: see :func:`unpaired`.
        flip: see :func:`unpaired`.
        channels: 1 or 3.
        fit: see :func:`gan_cli.data.fitting.fit_images`.
        split: which part. Of train, test is held out; of test, nothing.
        memory_gb: see :func:`unpaired`.
        download: whether missing files may be downloaded.

    Raises:
        NotFoundError: the files are missing.
        DataError: files cannot be read.
        ConfigError: ``load_size`` is smaller than ``image_size``.
    """
    home = Path(root).expanduser()
    folder = home / name

    def find_missing() -> list[str]:
        needed = [f"{split}A", f"{split}B"]
        return [part for part in needed if not (folder / part).is_dir() or not any((folder / part).iterdir())]

    check_load_size(load_size, image_size)  # before a download
    ensure_archive(
        find_missing,
        url=f"{BASE_URL}/{name}.zip",
        check=lambda unpacked: check_folders(unpacked / name, ["trainA", "trainB", "testA", "testB"]),
        root=home,
        folder=folder,
        download=download,
        instead="digits_unpaired",
    )
    return unpaired(
        root=str(folder),
        image_size=image_size,
        load_size=load_size,
        flip=flip,
        channels=channels,
        fit=fit,
        split=split,
        held_out="auto",
        memory_gb=memory_gb,
    )


def check_folders(home: Path, parts: list[str]) -> list[Path]:
    """The folders ``parts`` of ``home``, all of which hold images.

    Raises:
        ValueError: one does not.
    """
    for part in parts:
        try:
            find_images(home / part)
        except (DataError, NotFoundError) as error:
            raise ValueError(f"there are no images in {home.name}/{part} of the archive") from error
    return [home / part for part in parts]
