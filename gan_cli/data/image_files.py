"""Samples made of image files: decoded, cut apart, fitted, and served from memory or as they are used."""

from __future__ import annotations

import errno
import hashlib
import io
import logging
import os
import re
import stat
import threading
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image, ImageColor, ImageFile, ImageOps, UnidentifiedImageError
from torch import Tensor

from gan_cli.data.dataset import ArrayDataset, ImageDataset
from gan_cli.data.fitting import fit_images
from gan_cli.ranges import Fit
from gan_cli.system.errors import ConfigError, DataError, MemoryFullError
from gan_cli.system.files import MAKER

log = logging.getLogger(__name__)
FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "GIF", "TIFF", "PPM")  # allowed formats, found by the content, not by the suffix
MAX_PIXELS = 100_000_000  # pixels of the largest allowed image
MAX_FILE_BYTES = 2**30  # bytes of the largest allowed file, more than MAX_PIXELS need uncompressed
MAX_DENSITY = 1000  # pixels per byte of an allowed file with DENSE_PIXELS or more: flat colour reaches it, photos never
DENSE_PIXELS = 8_000_000  # pixels from which on MAX_DENSITY holds
LARGE_PIXELS = 32_000_000  # pixels from which on images are decoded one at a time
LARGE = threading.Lock()
HASHED_BYTES = 2**28  # bytes of a set that are hashed at most, about: a second's work
HALVES_RATIO = (1.8, 2.2)  # width by height of two images side by side, least and largest
SKIP_HINT = "Repair or remove what cannot be read, or set dataset.on_bad_image=skip to leave it out"

Part = Literal["whole", "left", "right"]
Trait = Literal["grey", "transparent", "animated", "enlarged"]  # what is worth a line about a file
# Names of grids, sheets and animations among the files that gan_cli writes; its other images are single samples.
PICTURES = re.compile(r"(.*/)?(sheets/.*|grid\.png|step-\d{8}(-[0-9a-f]{8})?\.png|.*\.gif)")


class BadFile(Exception):
    """A file that cannot be used: its name and the reason, one short line."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(name, reason)
        self.name, self.reason = name, reason


class OwnFile(BadFile):
    """A file that gan_cli wrote, which is no data."""


@dataclass(frozen=True)
class ImageFiles:
    """The files of samples and how they become images.

    Args:
        where: the folder or archive, for messages.
        source: the folder, or the contents of its files by name.
        samples: the files of each sample, relative to the folder.
        image_size: side in pixels of the images.
        channels: 1 or 3, of each image.
        fit: see :func:`gan_cli.data.fitting.fit_images`.
        parts: the images to take from each file, in this order.
        background: colour under transparent pixels, as Pillow writes colours.
        own_files: whether samples that gan_cli wrote are used. Its grids, sheets and animations never are.
    """

    where: Path
    source: Path | dict[str, bytes]
    samples: list[tuple[str, ...]]
    image_size: int
    channels: int
    fit: Fit
    parts: tuple[Part, ...] = ("whole",)
    background: str = "white"
    own_files: bool = False

    def __post_init__(self) -> None:
        try:
            ImageColor.getrgb(self.background)
        except (ValueError, AttributeError) as error:
            what = f"{self.background!r} is not a colour"
            raise ConfigError(what, "dataset.background", "Write a name such as black, or #rrggbb") from error

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of a sample: its images are concatenated along the channels."""
        return self.channels * len(self.parts) * len(self.samples[0]), self.image_size, self.image_size

    @property
    def nbytes(self) -> int:
        """Size of all samples in memory, decoded and fitted."""
        channels, height, width = self.shape
        return len(self.samples) * channels * height * width

    def digest(self) -> str:
        """Hash the sizes of all files and their contents; of a large set the contents of every second, third, ... file.

        Returns:
            32 hex digits.

        Raises:
            DataError: a file was removed meanwhile.
        """
        try:
            return self._digest()
        except OSError as error:
            what = f"an image was removed, or cannot be read any more: {error.strerror}"
            raise DataError(what, str(error.filename), "Do not change the files while they are used") from error

    def _digest(self) -> str:
        names = [name for sample in self.samples for name in sample]
        sizes = [self._size(name) for name in names]
        digest = hashlib.blake2b(repr(sizes).encode(), digest_size=16)
        for name in names[:: sum(sizes) // HASHED_BYTES + 1]:
            digest.update(self._content(name))
        return digest.hexdigest()

    def load(self, sample: tuple[str, ...]) -> tuple[Tensor, list[tuple[Trait, str]]]:
        """Decode one sample.

        Returns:
            uint8 of :attr:`shape`, and traits of its files, each with the name of the file.

        Raises:
            BadFile: a file is damaged, of another format, or not of the right shape. OwnFile: gan_cli wrote it.
            MemoryError, MemoryFullError: there is not enough memory, or too many files are open.
        """
        images: list[Tensor] = []
        traits: list[tuple[Trait, str]] = []
        for name in sample:
            try:
                with open_image(self._open(name)) as opened:
                    traits += self._traits(opened, name)
                    pixels = decode(opened, self.background)
                if self.parts != ("whole",):
                    _check_halves(pixels.shape[2], pixels.shape[1])
            except Exception as error:  # a damaged file can make a decoder fail in any way
                raise _blame(name, error) from error
            half = pixels.shape[2] // 2
            cuts = {"whole": pixels, "left": pixels[..., :half], "right": pixels[..., half:]}
            images += [
                fit_images(cuts[part][None], image_size=self.image_size, channels=self.channels, fit=self.fit)[0]
                for part in self.parts
            ]
        return torch.cat(images), traits

    def check(self, sample: tuple[str, ...]) -> tuple[None, list[tuple[Trait, str]]]:
        """Like :meth:`load`, but reads the headers only and returns no image."""
        traits: list[tuple[Trait, str]] = []
        for name in sample:
            try:
                with open_image(self._open(name)) as image:
                    traits += self._traits(image, name)
                    if self.parts != ("whole",):
                        width, height = image.size
                        turned = image.getexif().get(0x0112, 1) >= 5
                        _check_halves(*((height, width) if turned else (width, height)))
            except Exception as error:
                raise _blame(name, error) from error
        return None, traits

    def _traits(self, image: ImageFile.ImageFile, name: str) -> list[tuple[Trait, str]]:
        """What is worth a line about an open file.

        Raises:
            OwnFile: gan_cli wrote it.
        """
        is_own = image.info.get("Software") == MAKER or image.info.get("comment") == MAKER.encode()
        if is_own and not (self.own_files and PICTURES.fullmatch(name) is None):
            raise OwnFile(name, "made by gan_cli")
        found: dict[Trait, bool] = {
            "grey": image.mode in ("1", "L", "LA") or image.mode.startswith("I"),
            "transparent": image.has_transparency_data,
            "animated": getattr(image, "n_frames", 1) > 1,
            "enlarged": self.fit != "pad" and 2 * min(image.size) < self.image_size,
        }
        return [(trait, name) for trait, is_so in found.items() if is_so]

    def _open(self, name: str) -> Path | io.BytesIO:
        if not isinstance(self.source, Path):
            return io.BytesIO(self.source[name])
        status = (self.source / name).stat()
        if not stat.S_ISREG(status.st_mode):
            raise ValueError("not a file")  # reading a pipe could wait forever
        if status.st_size > MAX_FILE_BYTES:
            raise ValueError(f"{status.st_size} bytes are more than {MAX_FILE_BYTES >> 20} MiB")
        return self.source / name

    def _content(self, name: str) -> bytes:
        return (self.source / name).read_bytes() if isinstance(self.source, Path) else self.source[name]

    def _size(self, name: str) -> int:
        return (self.source / name).stat().st_size if isinstance(self.source, Path) else len(self.source[name])


def as_dataset(
    files: ImageFiles, images: Tensor | None, *, labels: Tensor | None, class_names: list[str], fingerprint: str
) -> ImageDataset:
    """A data set of the result of :func:`gan_cli.data.first_look.read_images`."""
    if images is None:
        return StreamedImages(files, labels=labels, class_names=class_names, fingerprint=fingerprint)
    return ArrayDataset(images, labels=labels, class_names=class_names, fingerprint=fingerprint)


class StreamedImages:
    """An :class:`ImageDataset` of files that are decoded whenever they are used.

    Args:
        files: N samples.
        labels: int64 (N,), or None.
        class_names: one name per class.
        fingerprint: hex digest.

    Attributes:
        nbytes: size of all samples in memory, decoded.
    """

    def __init__(self, files: ImageFiles, *, labels: Tensor | None, class_names: list[str], fingerprint: str) -> None:
        self.shape: tuple[int, ...] = files.shape
        self.channels, self.image_size = files.shape[:2]
        self.labels, self.class_names = labels, class_names
        self.fingerprint = fingerprint
        self.nbytes = files.nbytes
        self._files = files

    def __len__(self) -> int:
        return len(self._files.samples)

    def batch(self, indices: Tensor) -> Tensor:
        """Decode some samples.

        Args:
            indices: int64 (B,).

        Returns:
            uint8 (B, C, H, W).

        Raises:
            DataError: a file cannot be read.
        """
        try:
            with quiet():
                return torch.stack([self._files.load(self._files.samples[index])[0] for index in indices.tolist()])
        except BadFile as bad:
            raise DataError(
                f"the image cannot be read: {bad.reason}", str(self._files.where / bad.name), SKIP_HINT, "dataset.on_bad_image"
            ) from bad


@contextmanager
def quiet() -> Iterator[None]:
    """Silence Pillow's warnings of odd metadata and large images, in all threads. Sizes are checked here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def open_image(file: Path | io.BytesIO) -> Iterator[ImageFile.ImageFile]:
    """Open one file, without decoding it.

    Raises:
        Exception: of many kinds, if the file is damaged, of another format or larger than ``MAX_PIXELS``.
    """
    with Image.open(file, formats=FORMATS) as opened:
        _check_pixels(opened)
        yield opened


def decode(opened: ImageFile.ImageFile, background: str = "white") -> Tensor:
    """Decode an open file; of an animation, the first frame.

    EXIF orientation is applied, transparency is composited over ``background``, 16-bit grey is scaled by 1/257.

    Returns:
        uint8 (C, H, W) with 1 or 3 channels.

    Raises:
        Exception: of many kinds, if the file is damaged.
    """
    with _one_large_image(opened):
        image = ImageOps.exif_transpose(opened)
        if image.mode.startswith("I"):
            wide = np.asarray(image)
            if wide.min() < 0 or wide.max() > 65535:
                raise ValueError("its values are outside 0..65535")
            wide = wide.astype(np.uint32)
            wide += 128
            wide //= 257
            pixels = wide.astype(np.uint8)
        elif image.mode == "F":
            raise ValueError("floating-point pixels have no defined range")
        elif image.has_transparency_data:
            under = Image.new("RGBA", image.size, background)
            pixels = np.array(Image.alpha_composite(under, image.convert("RGBA")).convert("RGB"))
        else:
            pixels = np.array(image.convert("L" if image.mode in ("1", "L") else "RGB"))
        return torch.from_numpy(pixels).reshape(*pixels.shape[:2], -1).permute(2, 0, 1)


def decode_image(file: Path | io.BytesIO) -> tuple[Tensor, bool]:
    """Decode one file as :func:`decode` does; return the pixels and whether the file is grey."""
    with open_image(file) as opened:
        return decode(opened), opened.mode in ("1", "L", "LA") or opened.mode.startswith("I")


def _one_large_image(image: ImageFile.ImageFile) -> AbstractContextManager[Any]:
    """A lock for large images, which need up to a few GB while they are decoded; small ones are decoded in parallel."""
    return LARGE if image.width * image.height > LARGE_PIXELS else nullcontext()


def _check_pixels(image: ImageFile.ImageFile) -> None:
    if image.width * image.height > MAX_PIXELS:
        raise ValueError(f"{image.width}x{image.height} pixels are more than {MAX_PIXELS // 10**6} million")
    if image.width * image.height > DENSE_PIXELS and image.fp is not None:
        position = image.fp.tell()
        size = image.fp.seek(0, os.SEEK_END)
        image.fp.seek(position)
        if image.width * image.height > MAX_DENSITY * size:
            raise ValueError(f"implausible image: {image.width}x{image.height} pixels in a file of {size} bytes")


def _check_halves(width: int, height: int) -> None:
    if width % 2 or not HALVES_RATIO[0] <= width / height <= HALVES_RATIO[1]:
        raise ValueError(f"{width}x{height} pixels are not two images side by side")


def _blame(name: str, error: Exception) -> BadFile:
    """The error of a decoder as a :class:`BadFile`, unless memory or file handles ran out."""
    if isinstance(error, OwnFile):
        return error
    if isinstance(error, MemoryError):
        raise error
    if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
        raise MemoryFullError(f"a file cannot be opened: {error.strerror}", name, "Set workers=0 or fewer, or raise ulimit -n")
    return BadFile(name, _reason(error))


def _reason(error: Exception) -> str:
    """One short line, without the path that Pillow's text repeats."""
    if isinstance(error, UnidentifiedImageError):
        return "not an image of a known format"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split())[:100] or type(error).__name__
