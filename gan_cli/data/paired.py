"""Pairs of images, for pix2pix: side by side in one file, or under the same names in two folders."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Unpack

from gan_cli.data.dataset import TranslationDataset
from gan_cli.data.find import find_images
from gan_cli.data.image_files import Part
from gan_cli.data.translation import FileStream, TranslationOptions, choose_held_out, translation_files
from gan_cli.system.errors import DataError, NotFoundError

PARTS: dict[str, tuple[Part, ...]] = {"a2b": ("left", "right"), "b2a": ("right", "left")}
HALVES_HINT = "Make files that hold A and B side by side, or keep them in two folders, trainA and trainB"


def paired(
    *,
    root: str,
    direction: Literal["a2b", "b2a"] = "a2b",
    split: str = "train",
    held_out: str | None = "auto",
    **options: Unpack[TranslationOptions],
) -> TranslationDataset:
    """Pairs below ``root``, in the first of these layouts that is there, for example with ``train`` for SPLIT:

    * ``SPLIT/``: files with A in their left half and B in their right half.
    * ``SPLITA/`` and ``SPLITB/``: the two images of a pair have the same path up to the suffix.
    * ``A/SPLIT/`` and ``B/SPLIT/``: likewise.

    Args:
        root: the folder.
        direction: whether A is the source and B the target, or the other way round.
        split: the part to read.
        held_out: the part that training does not see, None, or ``auto`` for the first of val and test that is there.
        options: see :class:`TranslationOptions`.

    Raises:
        NotFoundError: none of these folders is there.
        DataError: no images, no pairs, or files that cannot be read.
        ConfigError: ``load_size`` is smaller than ``image_size``.
    """
    home = Path(root).expanduser()

    def find(split: str) -> list[FileStream]:
        keys, folders = ("source", "target"), find_two(home, split)
        if (home / split).is_dir():
            files: list[tuple[str, ...]] = [(f"{split}/{name}",) for name in find_images(home / split)]
            return [FileStream(keys, home, home, files, PARTS[direction])]
        if folders is not None:
            pairs = match(home, *folders)
            return [FileStream(keys, home, home, pairs if direction == "a2b" else [(b, a) for a, b in pairs])]
        raise NotFoundError(
            f"no pairs for the split {split!r}",
            str(home.absolute()),
            f"It takes {split}/ with A and B side by side in each file, or files of the same names in two folders, "
            f"{split}A/ and {split}B/ or A/{split}/ and B/{split}/",
        )

    def has(split: str) -> bool:
        return (home / split).is_dir() or find_two(home, split) is not None

    held_out = choose_held_out(has, split=split, held_out=held_out, auto=["val", "test"], where=home)
    hint = HALVES_HINT if (home / split).is_dir() else "Choose folders with images"
    return translation_files(find, split=split, held_out=held_out, hint=hint, **options)


def match(home: Path, a: str, b: str) -> list[tuple[str, ...]]:
    """Pair the files of two folders by their paths without suffix.

    Args:
        home: the folder of both.
        a, b: the two folders, relative to ``home``.

    Returns:
        The two files of each pair, relative to ``home``, in the order of their paths.

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
    """The folders of A and B, relative to ``home``, or None if one is missing."""
    for pair in ((f"{split}A", f"{split}B"), (f"A/{split}", f"B/{split}")):
        if all((home / folder).is_dir() for folder in pair):
            return pair
    return None
