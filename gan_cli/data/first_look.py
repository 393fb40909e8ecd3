"""The first look at every image file of a data set: what can be read, and its pixels if they are kept in memory."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import torch
from torch import Tensor

from gan_cli.data.image_files import SKIP_HINT, BadFile, ImageFiles, OwnFile, Trait, quiet
from gan_cli.ranges import OnBadImage
from gan_cli.system import console
from gan_cli.system.errors import DataError

log = logging.getLogger(__name__)

MIN_FOR_PROGRESS = 2000  # samples above which a progress bar is drawn

MAX_EXAMPLES = 64  # images whose mean level is looked at
DARK, BRIGHT = 6, 249  # mean levels of 0 to 255 beyond which a set is nearly black or nearly white
DARKEST = 32  # level that no image of a nearly black set reaches
TRAITS: dict[Trait, str] = {
    "grey": "are grey, used as RGB",
    "transparent": "have an alpha channel, laid over {background} (dataset.background)",
    "animated": "are animations: only their first frames are used",
    "enlarged": "are enlarged more than twice, to {image_size} pixels",
}

Result = tuple[Tensor | None, list[tuple[Trait, str]]]  # a sample, or None if it was only checked; traits of its files


def read_images(
    files: ImageFiles, *, in_memory: bool, on_bad_image: OnBadImage, hint: str = "Choose a folder with images"
) -> tuple[ImageFiles, Tensor | None]:
    """Look at every file once.

    Args:
        files: the samples.
        in_memory: whether to keep the decoded images.
        on_bad_image: whether a sample that cannot be read is an error, or is left out with a warning. Of a set that is
            not kept, ``error`` checks only the headers; ``skip`` decodes every file.
        hint: what to do if no sample can be read.

    Returns:
        The samples that can be read, and their images, uint8 (N, C, H, W), if they are kept.

    Raises:
        DataError: a file cannot be read, and that is an error; or no file can be read.
    """
    examine = files.load if in_memory or on_bad_image == "skip" else files.check
    images = torch.empty(len(files.samples) if in_memory else 0, *files.shape, dtype=torch.uint8)
    good: list[tuple[str, ...]] = []
    bad: list[str] = []
    own: list[str] = []
    traits: dict[Trait, list[str]] = {trait: [] for trait in TRAITS}
    for sample, result in zip(files.samples, _for_all(examine, files.samples), strict=True):
        if isinstance(result, OwnFile):
            own.append(result.name)
            continue
        if isinstance(result, BadFile):
            bad.append(f"{result.name} ({result.reason})")
            continue
        image, its_traits = result
        if image is not None and in_memory:
            images[len(good)] = image
        good.append(sample)
        for trait, name in its_traits:
            traits[trait].append(name)
    if own:
        log.info("%d files were made by gan_cli and are left out: %s", len(own), _first(own))
        if not good and not bad:
            raise DataError("no images in it but those that gan_cli made", str(files.where), hint, "dataset.root")
    if bad:
        count = len(files.samples)
        what = f"{len(bad)} of {count} images cannot be read: {_first(bad)}"
        if on_bad_image == "error" or not good:
            raise DataError(what, str(files.where), SKIP_HINT if good else hint, "dataset.on_bad_image")
        log.warning("%s. They are left out.", what)
    for trait, names in traits.items():
        if names and (trait != "grey" or files.channels == 3):
            text = TRAITS[trait].format(background=files.background, image_size=files.image_size)
            log.info("%d of %d images %s: %s", len(names), sum(map(len, good)), text, _first(names))
    files = replace(files, samples=good)
    _warn_of_extremes(files, images[: len(good)] if in_memory else None)
    return files, images[: len(good)] if in_memory else None


def _warn_of_extremes(files: ImageFiles, images: Tensor | None) -> None:
    """Warn of a set that is nearly black or nearly white: its values may not use the range of its file format."""
    step = -(-len(files.samples) // MAX_EXAMPLES)
    try:
        examples = images[::step] if images is not None else torch.stack([files.load(s)[0] for s in files.samples[::step]])
    except BadFile:  # found when it is used
        return
    mean = examples.float().mean()
    is_dark, is_bright = mean < DARK or examples.max() < DARKEST, mean > BRIGHT or examples.min() > 255 - DARKEST
    if is_dark or is_bright:
        text = "the images are nearly %s: levels %d to %d of 0 to 255. If they use a part of their format's range, scale them"
        log.warning(text, "black" if is_dark else "white", examples.min(), examples.max())


def one_line(text: str) -> str:
    """Spell out what would break a line or is no valid UTF-8: file names may hold anything."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def _first(names: list[str]) -> str:
    return one_line(f"{', '.join(names[:3])}{', ...' if len(names) > 3 else ''}")


def _for_all(examine: Callable[[tuple[str, ...]], Result], samples: list[tuple[str, ...]]) -> Iterator[Result | BadFile]:
    """Run ``examine`` in threads; yield its results, or the :class:`BadFile` it raised, in the order of ``samples``."""

    def attempt(sample: tuple[str, ...]) -> Result | BadFile:
        try:
            return examine(sample)
        except BadFile as bad:
            return bad

    pool = ThreadPoolExecutor(min(16, os.cpu_count() or 1))
    try:
        with quiet():
            results = pool.map(attempt, samples)
            if len(samples) > MIN_FOR_PROGRESS and console.may_draw() and log.isEnabledFor(logging.ERROR):
                from tqdm import tqdm

                results = tqdm(results, total=len(samples), desc="Reading images", unit="file", leave=False)
            yield from results
    finally:
        pool.shutdown(cancel_futures=True)
