"""Samples made of image files: decoded, cut apart, fitted, and served from memory or as they are used."""

from __future__ import annotations

import errno
import hashlib
import io
import logging
import os
import stat
import threading
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NoReturn

import numpy as np
import torch
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError
from torch import Tensor

from gan_cli.data.dataset import ArrayDataset, ImageDataset
from gan_cli.data.fitting import fit_images
from gan_cli.ranges import Fit, OnBadImage
from gan_cli.system import console
from gan_cli.system.errors import DataError, MemoryFullError, NotFoundError

log = logging.getLogger(__name__)

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif", ".tif", ".tiff")
FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "GIF", "TIFF")  # by content; no others, whatever the suffix says
MAX_PIXELS = 100_000_000
MAX_BYTES = 2**30  # of a file, more than MAX_PIXELS need unpacked
MAX_DENSITY = 1000  # pixels per byte of a file, from DENSE_PIXELS on: flat colour reaches it, pictures never
DENSE_PIXELS = 8_000_000
LARGE_PIXELS = 32_000_000
LARGE = threading.Lock()
HASHED_BYTES = 2**28  # of a set of files, about, to tell it from others: a second's work
PROGRESS_FROM = 2000  # samples
HALVES_RATIO = (1.8, 2.2)  # width by height of two images side by side
SKIP_HINT = "Repair or remove what cannot be read, or set dataset.on_bad_image=skip to leave it out"

Part = Literal["whole", "left", "right"]


class BadFile(Exception):
    """A file that cannot be used: its name and the reason, one short line."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(name, reason)
        self.name, self.reason = name, reason


@dataclass(frozen=True)
class ImageFiles:
    """Where samples come from and what is done to them.

    Args:
        where: the folder or archive, for messages.
        source: the folder, or the contents of its files by name.
        samples: the files of each sample, relative to the folder.
        image_size: side in pixels of the result.
        channels: 1 or 3, of each image.
        fit: see :func:`gan_cli.data.fitting.fit_images`.
        parts: the images to take of each file, in this order.
    """

    where: Path
    source: Path | dict[str, bytes]
    samples: list[tuple[str, ...]]
    image_size: int
    channels: int
    fit: Fit
    parts: tuple[Part, ...] = ("whole",)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of a sample: all its images, one after the other along the channels."""
        return self.channels * len(self.parts) * len(self.samples[0]), self.image_size, self.image_size

    @property
    def nbytes(self) -> int:
        """Of all samples, decoded and fitted."""
        channels, height, width = self.shape
        return len(self.samples) * channels * height * width

    def digest(self) -> str:
        """Hashes the sizes of all files and the content of them all, or of every second, third, ... of a large set.

        Returns:
            32 hex digits.

        Raises:
            DataError: a file has gone meanwhile.
        """
        try:
            return self._digest()
        except OSError as error:
            what = f"an image has gone, or cannot be read any more: {error.strerror}"
            raise DataError(what, str(error.filename), "Leave the files alone while they are used") from error

    def _digest(self) -> str:
        names = [name for sample in self.samples for name in sample]
        sizes = [self._size(name) for name in names]
        digest = hashlib.blake2b(repr(sizes).encode(), digest_size=16)
        for name in names[:: sum(sizes) // HASHED_BYTES + 1]:
            digest.update(self._content(name))
        return digest.hexdigest()

    def load(self, sample: tuple[str, ...]) -> tuple[Tensor, list[str]]:
        """Decodes one sample.

        Returns:
            uint8 of :attr:`shape`, and the files that are grey.

        Raises:
            BadFile: a file is damaged, of another format, or not of the right shape.
            MemoryError, MemoryFullError: there is not enough memory, or too many files are open.
        """
        images, grey = [], []
        for name in sample:
            try:
                pixels, is_grey = decode_image(self._open(name))
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
            grey += [name] if is_grey else []
        return torch.cat(images), grey

    def check(self, sample: tuple[str, ...]) -> tuple[None, list[str]]:
        """As :meth:`load`, as far as the beginning of the files shows it."""
        grey = []
        for name in sample:
            try:
                with Image.open(self._open(name), formats=FORMATS) as image:
                    _check_pixels(image)
                    if self.parts != ("whole",):
                        width, height = image.size
                        turned = image.getexif().get(0x0112, 1) >= 5
                        _check_halves(*((height, width) if turned else (width, height)))
                    grey += [name] if _is_grey(image) else []
            except Exception as error:
                raise _blame(name, error) from error
        return None, grey

    def _open(self, name: str) -> Path | io.BytesIO:
        if not isinstance(self.source, Path):
            return io.BytesIO(self.source[name])
        status = (self.source / name).stat()
        if not stat.S_ISREG(status.st_mode):
            raise ValueError("not a file")  # a pipe would be waited for
        if status.st_size > MAX_BYTES:
            raise ValueError(f"{status.st_size} bytes are more than {MAX_BYTES >> 20} MiB")
        return self.source / name

    def _content(self, name: str) -> bytes:
        return (self.source / name).read_bytes() if isinstance(self.source, Path) else self.source[name]

    def _size(self, name: str) -> int:
        return (self.source / name).stat().st_size if isinstance(self.source, Path) else len(self.source[name])


def read_images(
    files: ImageFiles, *, in_memory: bool, on_bad_image: OnBadImage, hint: str = "Choose a folder with images"
) -> tuple[ImageFiles, Tensor | None]:
    """Looks at every file once.

    Args:
        files: the samples.
        in_memory: whether to keep what is decoded.
        on_bad_image: whether a sample that cannot be read is an error, or is left out with a warning. Of a set that is
            not kept, ``error`` checks only the headers; ``skip`` decodes every file.
        hint: what to do if no sample can be read.

    Returns:
        The samples that can be read, and their images, uint8 (N, C, H, W), if they are kept.

    Raises:
        DataError: one cannot be read, and that is an error; or none can.
    """
    examine = files.load if in_memory or on_bad_image == "skip" else files.check
    images = torch.empty(len(files.samples) if in_memory else 0, *files.shape, dtype=torch.uint8)
    good: list[tuple[str, ...]] = []
    bad: list[str] = []
    grey: list[str] = []
    for sample, result in zip(files.samples, _for_all(examine, files.samples), strict=True):
        if isinstance(result, BadFile):
            bad.append(f"{result.name} ({result.reason})")
            continue
        image, its_grey = result
        if image is not None and in_memory:
            images[len(good)] = image
        good.append(sample)
        grey += its_grey
    if bad:
        count = len(files.samples)
        what = f"{len(bad)} of {count} images cannot be read: {_first(bad)}"
        if on_bad_image == "error" or not good:
            raise DataError(what, str(files.where), SKIP_HINT if good else hint, "dataset.on_bad_image")
        log.warning("%s. They are left out.", what)
    if grey and files.channels == 3:
        log.info("%d of %d images are grey, used as RGB: %s", len(grey), sum(map(len, good)), _first(grey))
    return replace(files, samples=good), images[: len(good)] if in_memory else None


def as_dataset(
    files: ImageFiles, images: Tensor | None, *, labels: Tensor | None, class_names: list[str], fingerprint: str
) -> ImageDataset:
    """The data set of what :func:`read_images` returns."""
    if images is None:
        return StreamedImages(files, labels=labels, class_names=class_names, fingerprint=fingerprint)
    return ArrayDataset(images, labels=labels, class_names=class_names, fingerprint=fingerprint)


class StreamedImages:
    """An :class:`ImageDataset` of files that are decoded each time they are asked for.

    Args:
        files: the samples, N of them.
        labels: int64 (N,), or None.
        class_names: one name per class.
        fingerprint: hex digest.

    Attributes:
        nbytes: what all samples would need in memory, decoded.
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
        """Decodes some samples.

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
    """Within this block nothing warns of odd metadata, nor of sizes, which are checked here. For all threads."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def find_images(folder: Path) -> list[str]:
    """The image files below ``folder``, by suffix, as sorted relative paths with ``/``. Hidden ones are left out.

    Raises:
        NotFoundError: no such folder.
        DataError: not a folder, not readable, or without images.
    """

    def refuse(error: OSError) -> NoReturn:
        raise DataError(f"the folder cannot be read: {error.strerror}", str(error.filename), "Check its path and permissions")

    todo = "Set dataset.root to a folder of images"
    try:
        if not stat.S_ISDIR(folder.stat().st_mode):
            raise DataError("not a folder", str(folder), todo, "dataset.root")
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NotFoundError("the folder does not exist", str(folder.absolute()), todo, "dataset.root") from error
    except OSError as error:
        refuse(error)

    names: list[str] = []
    seen: set[str] = set()  # links may lead in a circle
    for parent, subfolders, files in os.walk(folder, onerror=refuse, followlinks=True):
        seen.add(os.path.realpath(parent))
        subfolders[:] = sorted(
            name for name in subfolders if not name.startswith(".") and os.path.realpath(os.path.join(parent, name)) not in seen
        )
        relative = Path(parent).relative_to(folder)
        names += [
            (relative / name).as_posix() for name in files if not name.startswith(".") and name.lower().endswith(SUFFIXES)
        ]
    if not names:
        todo = f"Set dataset.root to a folder with files in {' '.join(SUFFIXES)}"
        raise DataError("no images in it", str(folder), todo, "dataset.root")
    return sorted(names)


def decode_image(file: Path | io.BytesIO) -> tuple[Tensor, bool]:
    """Decodes one file, the first frame of an animation.

    EXIF orientation is applied, transparency is composited over white, 16-bit grey is scaled by 1/257.

    Returns:
        uint8 (C, H, W) with 1 or 3 channels, and whether the file is grey.

    Raises:
        Exception: of many kinds, if the file is damaged, of another format or larger than ``MAX_PIXELS``.
    """
    with Image.open(file, formats=FORMATS) as opened, _one_large_image(opened):
        _check_pixels(opened)
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
            white = Image.new("RGBA", image.size, "white")
            pixels = np.array(Image.alpha_composite(white, image.convert("RGBA")).convert("RGB"))
        else:
            pixels = np.array(image.convert("L" if image.mode in ("1", "L") else "RGB"))
        return torch.from_numpy(pixels).reshape(*pixels.shape[:2], -1).permute(2, 0, 1), _is_grey(opened)


def _one_large_image(image: ImageFile.ImageFile) -> AbstractContextManager[Any]:
    """Threads decode small images side by side, large ones one at a time, since each takes up to a few GB on the way."""
    return LARGE if image.width * image.height > LARGE_PIXELS else nullcontext()


def _is_grey(image: Image.Image) -> bool:
    return image.mode in ("1", "L", "LA") or image.mode.startswith("I")


def _check_pixels(image: ImageFile.ImageFile) -> None:
    if image.width * image.height > MAX_PIXELS:
        raise ValueError(f"{image.width}x{image.height} pixels are more than {MAX_PIXELS // 10**6} million")
    if image.width * image.height > DENSE_PIXELS and image.fp is not None:
        position = image.fp.tell()
        size = image.fp.seek(0, os.SEEK_END)
        image.fp.seek(position)
        if image.width * image.height > MAX_DENSITY * size:
            raise ValueError(f"{image.width}x{image.height} pixels in {size} bytes are no picture")


def _check_halves(width: int, height: int) -> None:
    if width % 2 or not HALVES_RATIO[0] <= width / height <= HALVES_RATIO[1]:
        raise ValueError(f"{width}x{height} pixels are not two images side by side")


def _blame(name: str, error: Exception) -> BadFile:
    """What a decoder raised, as the file's fault, unless it is not."""
    if isinstance(error, MemoryError):
        raise error
    if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
        raise MemoryFullError(f"a file cannot be opened: {error.strerror}", name, "Set workers=0 or fewer, or raise ulimit -n")
    return BadFile(name, _reason(error))


def _reason(error: Exception) -> str:
    """One short line. Pillow's own says the path again."""
    if isinstance(error, UnidentifiedImageError):
        return "not an image of a known format"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split())[:100] or type(error).__name__


def one_line(text: str) -> str:
    """With what would break a line, or is no valid UTF-8, spelled out: file names may hold anything."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def _first(names: list[str]) -> str:
    return one_line(f"{', '.join(names[:3])}{', ...' if len(names) > 3 else ''}")


Result = tuple[Tensor | None, list[str]]


def _for_all(examine: Callable[[tuple[str, ...]], Result], samples: list[tuple[str, ...]]) -> Iterator[Result | BadFile]:
    """Runs ``examine`` in threads. Yields its results, or what it raised, in the order of ``samples``."""

    def attempt(sample: tuple[str, ...]) -> Result | BadFile:
        try:
            return examine(sample)
        except BadFile as bad:
            return bad

    pool = ThreadPoolExecutor(min(16, os.cpu_count() or 1))
    try:
        with quiet():
            results = pool.map(attempt, samples)
            if len(samples) > PROGRESS_FROM and console.may_draw() and log.isEnabledFor(logging.ERROR):
                from tqdm import tqdm

                results = tqdm(results, total=len(samples), desc="Reading images", unit="file", leave=False)
            yield from results
    finally:
        pool.shutdown(cancel_futures=True)
