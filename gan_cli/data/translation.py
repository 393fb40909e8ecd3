"""From image files to a data set for image-to-image translation."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypedDict

from torch import Tensor

from gan_cli.data.dataset import ArrayDataset, ImageDataset, Jitter, TranslationDataset, fingerprint
from gan_cli.data.first_look import read_images
from gan_cli.data.image_files import ImageFiles, Part, as_dataset
from gan_cli.ranges import Fit, GreyOrRGB, ImageSize, NonNegative, OnBadImage
from gan_cli.system.errors import ConfigError, NotFoundError

log = logging.getLogger(__name__)

PAPER_SIZE, PAPER_LOAD_SIZE = 256, 286  # pixels, of pix2pix and CycleGAN


class TranslationOptions(TypedDict, total=False):
    """The options that all loaders of image files for translation share.

    * ``image_size``, 256: side in pixels of the images as they are served.
    * ``load_size``, 286: side in pixels to which they are scaled before a random square is cut from them. None: not cut.
    * ``flip``, true: whether they are mirrored left to right at random; the two images of a pair alike.
    * ``channels``, 3: 1 or 3, of each image.
    * ``fit``, "resize": see :func:`gan_cli.data.fitting.fit_images`.
    * ``memory_gb``, 4: see :func:`gan_cli.data.image_folder.image_folder`; of all domains together.
    * ``on_bad_image``, "error": whether a file that cannot be read is an error, or is left out with a warning; of a pair,
      both images are left out.
    * ``background``, "white": colour under transparent pixels, a name or ``#rrggbb``.
    """

    image_size: ImageSize
    load_size: ImageSize | None
    flip: bool
    channels: GreyOrRGB
    fit: Fit
    memory_gb: NonNegative
    on_bad_image: OnBadImage
    background: str


class FileStream(NamedTuple):
    """A stream of :class:`TranslationDataset` as files; the other fields are those of :class:`ImageFiles`."""

    keys: tuple[str, ...]
    where: Path
    source: Path | dict[str, bytes]
    samples: list[tuple[str, ...]]
    parts: tuple[Part, ...] = ("whole",)


def check_load_size(load_size: int | None = PAPER_LOAD_SIZE, image_size: int = PAPER_SIZE, **_: object) -> None:
    """Refuse a ``load_size`` from which ``image_size`` cannot be cut. Further options are ignored.

    Raises:
        ConfigError: ``load_size`` is smaller than ``image_size``.
    """
    if load_size is not None and load_size < image_size:
        raise ConfigError(
            f"load_size={load_size} is smaller than image_size={image_size}, which is cut from it",
            "dataset.load_size",
            f"Set dataset.load_size to {paper_load_size(image_size)}, say, or to null for no cutting",
        )


def make_jitter(load_size: int | None, image_size: int, flip: bool) -> Jitter | None:
    """The jitter that a config asks for, or None if it would change nothing.

    Raises:
        ConfigError: ``load_size`` is smaller than ``image_size``.
    """
    check_load_size(load_size, image_size)
    if not flip and load_size in (None, image_size):
        return None
    if load_size is not None and image_size**2 < load_size**2 / 2:
        log.warning(
            "dataset.load_size=%d: only %d%% of an image is seen at a time. The jitter of the papers would be load_size=%d",
            load_size,
            100 * image_size**2 / load_size**2,
            paper_load_size(image_size),
        )
    return Jitter(load_size, image_size, flip=flip)


def paper_load_size(image_size: int) -> int:
    """The load size that is to ``image_size`` as 286 to 256."""
    return round(image_size * PAPER_LOAD_SIZE / PAPER_SIZE)


def translation_files(
    find: Callable[[str], list[FileStream]],
    *,
    split: str,
    held_out: str | None,
    hint: str,
    image_size: int = PAPER_SIZE,
    load_size: int | None = PAPER_LOAD_SIZE,
    flip: bool = True,
    channels: int = 3,
    fit: Fit = "resize",
    memory_gb: float = 4.0,
    on_bad_image: OnBadImage = "error",
    background: str = "white",
) -> TranslationDataset:
    """Read the files of one split.

    Args:
        find: returns the streams of a split as files.
        split: the split to read.
        held_out: the split that is held out, or None.
        hint: what to do if nothing can be read.
        image_size, load_size, flip, channels, fit, memory_gb, on_bad_image, background: see :class:`TranslationOptions`.

    Raises:
        ConfigError, DataError: ``load_size`` is smaller than ``image_size``; files cannot be read.
    """
    jitter = make_jitter(load_size, image_size, flip)
    found = [
        (keys, ImageFiles(where, source, samples, load_size or image_size, channels, fit, parts, background))
        for keys, where, source, samples, parts in find(split)
    ]
    in_memory = sum(files.nbytes for _, files in found) <= memory_gb * 2**30
    streams: list[tuple[tuple[str, ...], ImageDataset]] = []
    identities = []
    seen = [] if background == "white" else [background]
    for keys, all_files in found:
        files, images = read_images(all_files, in_memory=in_memory, on_bad_image=on_bad_image, hint=hint)
        identities.append(fingerprint(repr(files.samples), files.digest(), *files.shape, files.fit, repr(files.parts), *seen))
        streams.append((keys, as_dataset(files, images, labels=None, class_names=[], fingerprint=identities[-1])))

    make_held_out = partial(
        translation_files,
        find,
        held_out=None,
        hint=hint,
        image_size=image_size,
        load_size=None,
        flip=False,
        channels=channels,
        fit=fit,
        memory_gb=0.0,  # decoded when asked for, since only a few are shown
        on_bad_image=on_bad_image,
        background=background,
    )
    return TranslationDataset(
        streams,
        image_size=image_size,
        channels=channels,
        jitter=jitter,
        fingerprint=fingerprint(*identities, image_size, flip),
        held_out=None if held_out is None else partial(make_held_out, split=held_out),
    )


def translation_arrays(
    streams: Sequence[tuple[tuple[str, ...], Tensor]],
    *,
    image_size: int,
    channels: int,
    jitter: Jitter | None,
    held_out: Callable[[], TranslationDataset] | None,
) -> TranslationDataset:
    """A data set of images in memory: uint8 (N, C, H, W) for each stream, see :class:`TranslationDataset`."""
    identities = [fingerprint(images.numpy()) for _, images in streams]
    datasets: list[tuple[tuple[str, ...], ImageDataset]] = [
        (keys, ArrayDataset(images, labels=None, class_names=[], fingerprint=identity))
        for (keys, images), identity in zip(streams, identities, strict=True)
    ]
    return TranslationDataset(
        datasets,
        image_size=image_size,
        channels=channels,
        jitter=jitter,
        fingerprint=fingerprint(*identities, image_size, jitter is not None and jitter.flip),
        held_out=held_out,
    )


def choose_held_out(
    has: Callable[[str], bool], *, split: str, held_out: str | None, auto: list[str], where: Path
) -> str | None:
    """The split to hold out.

    Args:
        has: whether a split is there.
        split: the one that is trained on.
        held_out: a split, None for none, or ``auto`` for the first of ``auto`` that is there and is not ``split``.
        auto: splits in order of preference.
        where: the folder of the data set.

    Raises:
        NotFoundError: ``held_out`` names a missing split.
    """
    if held_out == "auto":
        return next((name for name in auto if name != split and has(name)), None)
    if held_out is not None and not has(held_out):
        todo = "Set dataset.held_out to a split that is there, or to auto, or to null for none"
        raise NotFoundError(f"there is no split {held_out!r} to hold out", str(where.absolute()), todo)
    return held_out
