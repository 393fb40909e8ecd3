"""CMP facades in the form of pix2pix: photos of facades and, in the same files, maps of their parts.

R. Tylecek and R. Sara, "Spatial Pattern Templates for Recognition of Objects with Regular Structure", GCPR 2013; cut and
split by Isola et al., "Image-to-Image Translation with Conditional Adversarial Networks", 2017.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Unpack

from gan_cli.data.dataset import TranslationDataset
from gan_cli.data.download import ensure, fetch, read_tar, unpack
from gan_cli.data.find import SUFFIXES, find_images
from gan_cli.data.image_files import Part
from gan_cli.data.paired import PARTS
from gan_cli.data.translation import FileStream, TranslationOptions, check_load_size, translation_files

ARCHIVE = "facades.tar.gz"
SERVERS = ("https://efrosgans.eecs.berkeley.edu/pix2pix/datasets", "http://efrosgans.eecs.berkeley.edu/pix2pix/datasets")
HASH = None  # no hash is published
COUNTS = {"train": 400, "val": 100, "test": 106}  # images of each part
HELD_OUT = {"train": "val", "val": "test", "test": "val"}

Streams = list[tuple[tuple[str, ...], tuple[Part, ...]]]  # keys of a batch, and the halves of a file that they name


def facades(
    *,
    root: str = "data",
    direction: Literal["a2b", "b2a"] = "b2a",
    split: Literal["train", "val", "test"] = "train",
    download: bool = True,
    **options: Unpack[TranslationOptions],
) -> TranslationDataset:
    """Pairs of a photo (A) and a map of its parts (B), 256x256 each: 400 to train, 100 for validation, 106 to test.

    Args:
        root: holds ``facades/`` with train, val and test, or is that folder, or holds ``facades.tar.gz``, which is read
            without unpacking it. Never written to if the images are there.
        direction: ``b2a`` makes photos from maps, ``a2b`` maps from photos.
        split: the part to read. Held out is val, or test where val is trained on.
        download: whether missing files may be downloaded. The download is not verified: no hash of it is published.
        options: see :class:`TranslationOptions`.

    Raises:
        NotFoundError: the files are missing.
        DataError: a file is damaged.
        ConfigError: ``load_size`` is smaller than ``image_size``.
    """
    return _facades([(("source", "target"), PARTS[direction])], "digits_paired", root, split, download, options)


def facades_unpaired(
    *,
    root: str = "data",
    split: Literal["train", "val", "test"] = "train",
    download: bool = True,
    **options: Unpack[TranslationOptions],
) -> TranslationDataset:
    """The same files as two domains, each in its own order: a, the photos, and b, the maps.

    Arguments and errors as :func:`facades`.
    """
    return _facades([(("a",), ("left",)), (("b",), ("right",))], "digits_unpaired", root, split, download, options)


def _facades(
    streams: Streams, instead: str, root: str, split: str, download: bool, options: TranslationOptions
) -> TranslationDataset:
    home = Path(root).expanduser()
    folder = home / "facades"
    if not folder.exists() and any((home / part).is_dir() for part in COUNTS):  # root is the folder itself
        folder = home
    archive = next((path for path in (folder / ARCHIVE, home / ARCHIVE) if path.is_file()), None)

    def is_unpacked(split: str) -> bool:
        return any((folder / split).glob("*"))

    def fetch_into(staging: Path) -> list[Path]:
        unpacked = unpack(fetch(ARCHIVE, [f"{server}/{ARCHIVE}" for server in SERVERS], HASH, staging), staging) / "facades"
        for part, count in COUNTS.items():
            images = len(find_images(unpacked / part)) if (unpacked / part).is_dir() else 0
            if images != count:
                raise ValueError(f"{images} images in facades/{part} of the archive, not {count}")
        return [unpacked / part for part in COUNTS]

    def find(split: str) -> list[FileStream]:
        if is_unpacked(split) or archive is None:
            names = [f"{split}/{name}" for name in find_images(folder / split)]
            return [FileStream(keys, folder, folder, [(name,) for name in names], parts) for keys, parts in streams]
        start = f"facades/{split}/"
        images = read_tar(archive, lambda name: name.startswith(start) and name.lower().endswith(SUFFIXES))
        contents = {name.removeprefix("facades/"): content for name, content in images.items()}
        return [FileStream(keys, archive, contents, [(name,) for name in sorted(contents)], parts) for keys, parts in streams]

    check_load_size(**options)  # refuses wrong sizes before a download
    ensure(
        "facades",
        lambda: [] if is_unpacked(split) or archive else [split],
        fetch_into,
        folder=folder,
        download=download,
        instead=instead,
    )
    held_out = HELD_OUT[split] if archive or is_unpacked(HELD_OUT[split]) else None
    return translation_files(find, split=split, held_out=held_out, hint="Delete the files and get them again", **options)
