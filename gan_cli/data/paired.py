"""Pairs of images, for pix2pix: in one file side by side, or in two folders under the same names."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from gan_cli.data.dataset import TranslationDataset
from gan_cli.data.image_files import ImageFiles, Part, find_images
from gan_cli.data.translation import FileStreams, choose_held_out, translation_files
from gan_cli.ranges import Fit, GreyOrRGB, ImageSize, NonNegative, OnBadImage
from gan_cli.system.errors import DataError, NotFoundError

PARTS: dict[str, tuple[Part, ...]] = {"a2b": ("left", "right"), "b2a": ("right", "left")}
HALVES_HINT = "Make files that hold A and B side by side, or keep them in two folders, trainA and trainB"


def paired(
    *,
    root: str,
    direction: Literal["a2b", "b2a"] = "a2b",
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
    """Pairs below ``root``, in the first of these layouts that is there, SPLIT being ``train``, say:

    * ``SPLIT/``: files with A in their left half and B in their right half.
    * ``SPLITA/`` and ``SPLITB/``: the two images of a pair have the same path up to the suffix.
    * ``A/SPLIT/`` and ``B/SPLIT/``: likewise.

    Args:
        root: the folder.
        direction: whether A is the source and B the target, or the other way round.
        image_size: side in pixels.
        load_size: side in pixels that the pairs are scaled to before a random square is cut from them, or None.
        flip: whether pairs are mirrored left to right at random.
        channels: 1 or 3, of each image.
        fit: see :func:`gan_cli.data.fitting.fit_images`.
        split: which part.
        held_out: the part that training does not see, None, or ``auto`` for the first of val and test that is there.
        memory_gb: see :func:`gan_cli.data.image_folder.image_folder`.
        on_bad_image: whether a file that cannot be read is an error, or its pair is left out with a warning.

    Raises:
        NotFoundError: none of these folders is there.
        DataError: no images, no pairs, or files that cannot be read.
        ConfigError: ``load_size`` is smaller than ``image_size``.
    """
    home = Path(root).expanduser()

    def find(split: str, size: int) -> FileStreams:
        samples: list[tuple[str, ...]]
        parts: tuple[Part, ...] = ("whole",)
        folders = find_two(home, split)
        if (home / split).is_dir():
            samples = [(f"{split}/{name}",) for name in find_images(home / split)]
            parts = PARTS[direction]
        elif folders is not None:
            samples = match(home, *folders)
            samples = samples if direction == "a2b" else [(b, a) for a, b in samples]
        else:
            raise NotFoundError(
                f"no pairs for the split {split!r}",
                str(home.absolute()),
                f"It takes {split}/ with A and B side by side in each file, or files of the same names in two folders, "
                f"{split}A/ and {split}B/ or A/{split}/ and B/{split}/",
            )
        return [(("source", "target"), ImageFiles(home, home, samples, size, channels, fit, parts))]

    def has(split: str) -> bool:
        return (home / split).is_dir() or find_two(home, split) is not None

    return translation_files(
        find,
        split=split,
        held_out=choose_held_out(has, split=split, held_out=held_out, auto=["val", "test"], where=home),
        image_size=image_size,
        load_size=load_size,
        flip=flip,
        memory_gb=memory_gb,
        on_bad_image=on_bad_image,
        hint=HALVES_HINT if (home / split).is_dir() else "Choose folders with images",
    )


def match(home: Path, a: str, b: str) -> list[tuple[str, ...]]:
    """Pairs the files of two folders by their paths without suffix.

    Args:
        home: what the results are relative to.
        a: a folder in it.
        b: the other one.

    Returns:
        The two files of each pair, in the order of their paths.

    Raises:
        DataError: a folder is empty, a file has no partner, or two of one folder differ in their suffix only.
    """
    files = []
    for folder in (a, b):
        by_path: dict[str, str] = {}
        for name in find_images(home / folder):
            path = name.rpartition(".")[0]
            if path in by_path:
                what = f"{folder}/{name} and {by_path[path]} could both be in a pair"
                raise DataError(what, str(home), "Keep one file of each name")
            by_path[path] = f"{folder}/{name}"
        files.append(by_path)
    lonely = sorted(files[0].keys() ^ files[1].keys())
    if lonely:
        first = files[0].get(lonely[0]) or files[1][lonely[0]]
        what = f"these are not pairs: {a} has {len(files[0])} images, {b} has {len(files[1])}, and {first} has no partner"
        raise DataError(what, str(home), "Give both files of a pair the same name; unpaired folders need model=cyclegan")
    return [(files[0][path], files[1][path]) for path in sorted(files[0])]


def find_two(home: Path, split: str) -> tuple[str, str] | None:
    """The folders of A and B, relative to ``home``, or None if either is not there."""
    for pair in ((f"{split}A", f"{split}B"), (f"A/{split}", f"B/{split}")):
        if all((home / folder).is_dir() for folder in pair):
            return pair
    return None
