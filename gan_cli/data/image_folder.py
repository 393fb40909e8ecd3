"""Any folder of image files; its subfolders are the classes."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from gan_cli.data.dataset import ArrayDataset, ImageDataset, fingerprint
from gan_cli.data.fitting import fit_images
from gan_cli.errors import DataError, NotFoundError
from gan_cli.ranges import ImageSize, NonNegative, PositiveInt

log = logging.getLogger(__name__)

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif", ".tif", ".tiff")
FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "GIF", "TIFF")  # by content; no others, whatever the suffix says
MAX_PIXELS = 100_000_000
PROGRESS_FROM = 2000  # files
SKIP_HINT = "Repair or remove what cannot be read, or set dataset.on_bad_image=skip to leave it out"


def image_folder(
    *,
    root: str,
    image_size: ImageSize = 64,
    channels: Literal[1, 3] = 3,
    num_classes: PositiveInt | None = None,
    fit: Literal["pad", "resize", "crop"] = "crop",
    memory_gb: NonNegative = 4.0,
    on_bad_image: Literal["error", "skip"] = "error",
) -> ImageDataset:
    """The images below ``root``, in the order of their relative paths.

    If all of them lie in subfolders of ``root``, these are the classes, sorted by name. If some lie in ``root`` itself,
    the set is unlabelled. Hidden files and folders are left out, links are followed.

    Args:
        root: the folder.
        image_size: side in pixels.
        channels: 1 or 3.
        num_classes: how many classes there must be, or None for whatever is found.
        fit: see :func:`gan_cli.data.fitting.fit_images`.
        memory_gb: a set whose fitted images need no more than this (in units of 2^30 bytes) is decoded once and kept in
            memory; a larger one is decoded as it is used.
        on_bad_image: whether a file that cannot be read is an error, or is left out with a warning. Of a set too large
            for memory, ``error`` checks only the headers at the start; ``skip`` decodes each file once.

    Raises:
        NotFoundError: no such folder.
        DataError: no usable images, unreadable ones, or another number of classes.
    """
    folder = Path(root).expanduser()
    names = find_images(folder)
    in_memory = len(names) * channels * image_size**2 <= memory_gb * 2**30

    def load(path: Path) -> Tensor:
        return load_image(path, image_size=image_size, channels=channels, fit=fit)

    examine = load if in_memory or on_bad_image == "skip" else check_header
    images = torch.empty(len(names) if in_memory else 0, channels, image_size, image_size, dtype=torch.uint8)
    good: list[str] = []
    bad: list[str] = []
    for name, result in zip(names, _for_all(examine, [folder / name for name in names]), strict=True):
        if isinstance(result, Exception):
            bad.append(f"{name} ({_reason(result)})")
            continue
        if result is not None and in_memory:
            images[len(good)] = result
        good.append(name)
    if bad:
        what = f"{len(bad)} of {len(names)} images cannot be read: {', '.join(bad[:3])}{', ...' if len(bad) > 3 else ''}"
        if on_bad_image == "error" or not good:
            raise DataError(what, str(folder), SKIP_HINT if good else "Choose a folder with images")
        log.warning("%s. They are left out.", what)

    labels, class_names = _label(good)
    if num_classes is not None and num_classes != len(class_names):
        raise DataError(
            f"num_classes={num_classes}, but the images lie in {len(class_names)} class folders",
            str(folder),
            f"Set dataset.num_classes={len(class_names) or 'null'}",
        )
    sizes = [(folder / name).stat().st_size for name in good]
    identity = fingerprint(*good, repr(sizes), image_size, channels, fit)
    if in_memory:
        return ArrayDataset(images[: len(good)], labels=labels, class_names=class_names, fingerprint=identity)
    return StreamedFolder(
        folder,
        good,
        image_size=image_size,
        channels=channels,
        fit=fit,
        labels=labels,
        class_names=class_names,
        fingerprint=identity,
    )


class StreamedFolder:
    """An :class:`ImageDataset` of files that are decoded each time they are asked for.

    Args:
        folder: what ``names`` are relative to.
        names: the files, N of them.
        image_size: side in pixels.
        channels: 1 or 3.
        fit: see :func:`gan_cli.data.fitting.fit_images`.
        labels: int64 (N,), or None.
        class_names: one name per class.
        fingerprint: hex digest.
    """

    def __init__(
        self,
        folder: Path,
        names: list[str],
        *,
        image_size: int,
        channels: int,
        fit: Literal["pad", "resize", "crop"],
        labels: Tensor | None,
        class_names: list[str],
        fingerprint: str,
    ) -> None:
        self.image_size, self.channels = image_size, channels
        self.labels, self.class_names = labels, class_names
        self.fingerprint = fingerprint
        self._folder, self._names, self._fit = folder, names, fit

    def __len__(self) -> int:
        return len(self._names)

    def batch(self, indices: Tensor) -> Tensor:
        """Decodes some images.

        Args:
            indices: int64 (B,).

        Returns:
            uint8 (B, C, H, W).

        Raises:
            DataError: a file cannot be read.
        """
        return torch.stack([self._load(self._folder / self._names[index]) for index in indices.tolist()])

    def _load(self, path: Path) -> Tensor:
        try:
            return load_image(path, image_size=self.image_size, channels=self.channels, fit=self._fit)
        except Exception as error:
            raise DataError(f"the image cannot be read: {_reason(error)}", str(path), SKIP_HINT) from error


def find_images(folder: Path) -> list[str]:
    """The image files below ``folder``, by suffix, as sorted relative paths with ``/``. Hidden ones are left out.

    Raises:
        NotFoundError: no such folder.
        DataError: not a folder, not readable, or without images.
    """
    if not folder.exists():
        raise NotFoundError("the folder does not exist", str(folder.absolute()), "Set dataset.root to a folder of images")
    if not folder.is_dir():
        raise DataError("not a folder", str(folder), "Set dataset.root to a folder of images")

    def refuse(error: OSError) -> None:
        raise DataError(f"the folder cannot be read: {error.strerror}", str(error.filename), "Check its permissions")

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
        raise DataError("no images in it", str(folder), f"Set dataset.root to a folder with files in {' '.join(SUFFIXES)}")
    return sorted(names)


def load_image(path: Path, *, image_size: int, channels: int, fit: Literal["pad", "resize", "crop"]) -> Tensor:
    """Decodes one file, the first frame of an animation. Returns uint8 (channels, image_size, image_size).

    EXIF orientation is applied, transparency is composited over white, 16-bit grey is scaled by 1/257.

    Raises:
        Exception: of many kinds, if the file is damaged, of another format or larger than ``MAX_PIXELS``.
    """
    with Image.open(path, formats=FORMATS) as opened:
        _check_pixels(opened)
        image = ImageOps.exif_transpose(opened)
        if image.mode.startswith("I"):
            wide = np.asarray(image).astype(np.int64)
            if wide.min() < 0 or wide.max() > 65535:
                raise ValueError("its values are outside 0..65535")
            pixels = np.rint(wide / 257).astype(np.uint8)
        elif image.mode == "F":
            raise ValueError("floating-point pixels have no defined range")
        elif image.has_transparency_data:
            white = Image.new("RGBA", image.size, "white")
            pixels = np.array(Image.alpha_composite(white, image.convert("RGBA")).convert("RGB"))
        else:
            pixels = np.array(image.convert("L" if image.mode in ("1", "L") else "RGB"))
    planes = torch.from_numpy(pixels).reshape(1, *pixels.shape[:2], -1).permute(0, 3, 1, 2)
    return fit_images(planes, image_size=image_size, channels=channels, fit=fit)[0]


def check_header(path: Path) -> None:
    """Raises what :func:`load_image` would, as far as the beginning of the file shows it."""
    with Image.open(path, formats=FORMATS) as image:
        _check_pixels(image)


def _check_pixels(image: Image.Image) -> None:
    if image.width * image.height > MAX_PIXELS:
        raise ValueError(f"{image.width}x{image.height} pixels are more than {MAX_PIXELS // 10**6} million")


def _reason(error: Exception) -> str:
    """One short line. Pillow's own says the path again."""
    if isinstance(error, UnidentifiedImageError):
        return "not an image of a known format"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split())[:100] or type(error).__name__


def _for_all(examine: Callable[[Path], Tensor | None], paths: list[Path]) -> Iterator[Tensor | Exception | None]:
    """Runs ``examine`` in threads. Yields its results, or what it raised, in the order of ``paths``."""

    def attempt(path: Path) -> Tensor | Exception | None:
        try:
            return examine(path)
        except Exception as error:  # a damaged file can make a decoder fail in any way
            return error

    pool = ThreadPoolExecutor(min(16, os.cpu_count() or 1))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about odd metadata, and about sizes that are checked here
            results = pool.map(attempt, paths)
            if len(paths) > PROGRESS_FROM and sys.stderr.isatty():
                from tqdm import tqdm

                results = tqdm(results, total=len(paths), desc="Reading images", unit="file", leave=False)
            yield from results
    finally:
        pool.shutdown(cancel_futures=True)


def _label(names: list[str]) -> tuple[Tensor | None, list[str]]:
    """The class of each file is its first folder; there are none if a file has no folder."""
    if any("/" not in name for name in names):
        if any("/" in name for name in names):
            log.info("Images lie both in the folder itself and in its subfolders: the set is taken as unlabelled")
        return None, []
    folders = [name.split("/", 1)[0] for name in names]
    class_names = sorted(set(folders))
    label_of = {name: label for label, name in enumerate(class_names)}
    return torch.tensor([label_of[name] for name in folders]), class_names
