"""From image files to a data set for image-to-image translation."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from torch import Tensor

from gan_cli.data.dataset import ArrayDataset, ImageDataset, Jitter, TranslationDataset, fingerprint
from gan_cli.data.image_files import ImageFiles, as_dataset, read_images
from gan_cli.ranges import OnBadImage
from gan_cli.system.errors import ConfigError, NotFoundError

log = logging.getLogger(__name__)

FileStreams = list[tuple[tuple[str, ...], ImageFiles]]


def check_load_size(load_size: int | None, image_size: int) -> None:
    """Refuses a ``load_size`` from which ``image_size`` cannot be cut.

    Raises:
        ConfigError: it is smaller.
    """
    if load_size is not None and load_size < image_size:
        raise ConfigError(
            f"load_size={load_size} is smaller than image_size={image_size}, which is cut from it",
            "dataset.load_size",
            f"Set dataset.load_size to {paper_load_size(image_size)}, say, or to null for no cutting",
        )


def paper_load_size(image_size: int) -> int:
    """What stands to ``image_size`` as 286 to 256, the sizes of pix2pix and CycleGAN."""
    return round(image_size * 286 / 256)


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


def translation_files(
    find: Callable[[str, int], FileStreams],
    *,
    split: str,
    held_out: str | None,
    image_size: int,
    load_size: int | None,
    flip: bool,
    memory_gb: float,
    on_bad_image: OnBadImage,
    hint: str,
) -> TranslationDataset:
    """Reads the files of one split.

    Args:
        find: given a split and a side in pixels, the streams of :class:`TranslationDataset`, as files to be fitted to it.
        split: which part.
        held_out: the split that is held out, or None.
        image_size: side in pixels of the images as they are served.
        load_size: side in pixels that they are cut from, or None.
        flip: whether they are mirrored at random.
        memory_gb: see :func:`gan_cli.data.image_folder.image_folder`; of all streams together.
        on_bad_image: see there.
        hint: what to do if nothing can be read.

    Raises:
        ConfigError: ``load_size`` is smaller than ``image_size``.
        DataError: files cannot be read.
    """
    jitter = make_jitter(load_size, image_size, flip)
    found = find(split, load_size or image_size)
    in_memory = sum(files.nbytes for _, files in found) <= memory_gb * 2**30
    streams: list[tuple[tuple[str, ...], ImageDataset]] = []
    identities = []
    for names, all_files in found:
        files, images = read_images(all_files, in_memory=in_memory, on_bad_image=on_bad_image, hint=hint)
        identities.append(fingerprint(repr(files.samples), files.digest(), *files.shape, files.fit, repr(files.parts)))
        streams.append((names, as_dataset(files, images, labels=None, class_names=[], fingerprint=identities[-1])))

    def make_held_out() -> TranslationDataset:
        assert held_out is not None
        return translation_files(
            find,
            split=held_out,
            held_out=None,
            image_size=image_size,
            load_size=None,
            flip=False,
            memory_gb=0.0,  # a few of them are looked at, so they are decoded when asked for
            on_bad_image=on_bad_image,
            hint=hint,
        )

    return TranslationDataset(
        streams,
        image_size=image_size,
        channels=found[0][1].channels,
        jitter=jitter,
        fingerprint=fingerprint(*identities, image_size, flip),
        held_out=None if held_out is None else make_held_out,
    )


def translation_arrays(
    domains: Sequence[tuple[tuple[str, ...], Tensor]],
    *,
    image_size: int,
    channels: int,
    jitter: Jitter | None,
    held_out: Callable[[], TranslationDataset] | None,
) -> TranslationDataset:
    """A set of images in memory: uint8 (N, C, H, W) for each stream, see :class:`TranslationDataset`."""
    identities = [fingerprint(images.numpy()) for _, images in domains]
    streams: list[tuple[tuple[str, ...], ImageDataset]] = [
        (names, ArrayDataset(images, labels=None, class_names=[], fingerprint=identity))
        for (names, images), identity in zip(domains, identities, strict=True)
    ]
    return TranslationDataset(
        streams,
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
        auto: in order of preference.
        where: the data set's folder.

    Raises:
        NotFoundError: ``held_out`` names a split that is not there.
    """
    if held_out == "auto":
        return next((name for name in auto if name != split and has(name)), None)
    if held_out is not None and not has(held_out):
        todo = "Set dataset.held_out to a split that is there, or to auto, or to null for none"
        raise NotFoundError(f"there is no split {held_out!r} to hold out", str(where.absolute()), todo)
    return held_out
