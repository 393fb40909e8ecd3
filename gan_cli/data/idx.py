"""MNIST, Fashion-MNIST and KMNIST, read from their IDX files, packed or not, where they lie."""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from gan_cli.data.archives import MAX_ARRAY_RATIO, refuse_bomb
from gan_cli.data.dataset import ArrayDataset, fingerprint
from gan_cli.data.download import ensure_files
from gan_cli.data.fitting import fit_images
from gan_cli.ranges import Fit, GreyOrRGB, ImageSize
from gan_cli.system.errors import DataError

DIGITS = [str(digit) for digit in range(10)]
CLOTHES = ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"]
KUZUSHIJI = ["o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"]


def mnist(
    *,
    root: str = "data",
    image_size: ImageSize = 32,
    channels: GreyOrRGB = 1,
    num_classes: Literal[10] = 10,
    split: Literal["train", "test"] = "train",
    fit: Fit = "pad",
    download: bool = True,
) -> ArrayDataset:
    """MNIST (LeCun, Cortes and Burges): handwritten digits, 60,000 train and 10,000 test images of 28x28.

    Args:
        root: the folder that holds ``MNIST/raw``, as torchvision has it. Never written to if the files are there.
        image_size: side in pixels.
        channels: 1, or 3 for the same grey three times.
        num_classes: always 10; models read it from here.
        split: which part.
        fit: see :func:`gan_cli.data.fitting.fit_images`.
        download: whether missing files may be downloaded.

    Raises:
        DataError: a file is damaged.
        NotFoundError: a file is missing.
    """
    return _load("MNIST", DIGITS, root, image_size, channels, split, fit, download)


def fashion_mnist(
    *,
    root: str = "data",
    image_size: ImageSize = 32,
    channels: GreyOrRGB = 1,
    num_classes: Literal[10] = 10,
    split: Literal["train", "test"] = "train",
    fit: Fit = "pad",
    download: bool = True,
) -> ArrayDataset:
    """Fashion-MNIST (Xiao, Rasul and Vollgraf): photos of clothes, 60,000 train and 10,000 test images of 28x28.

    Arguments and errors as :func:`mnist`, the files in ``FashionMNIST/raw``.
    """
    return _load("FashionMNIST", CLOTHES, root, image_size, channels, split, fit, download)


def kmnist(
    *,
    root: str = "data",
    image_size: ImageSize = 32,
    channels: GreyOrRGB = 1,
    num_classes: Literal[10] = 10,
    split: Literal["train", "test"] = "train",
    fit: Fit = "pad",
    download: bool = True,
) -> ArrayDataset:
    """KMNIST (Clanuwat et al.): cursive Japanese characters, 60,000 train and 10,000 test images of 28x28.

    Arguments and errors as :func:`mnist`, the files in ``KMNIST/raw``.
    """
    return _load("KMNIST", KUZUSHIJI, root, image_size, channels, split, fit, download)


def _load(
    name: str,
    class_names: list[str],
    root: str,
    image_size: int,
    channels: int,
    split: str,
    fit: Fit,
    download: bool,
) -> ArrayDataset:
    home = Path(root).expanduser()
    folder = home / name / "raw"
    prefix = "train" if split == "train" else "t10k"
    image_file, label_file = folder / f"{prefix}-images-idx3-ubyte", folder / f"{prefix}-labels-idx1-ubyte"

    def find_missing() -> list[str]:
        return [f"{path.name}.gz" for path in (image_file, label_file) if _find(path) is None]

    ensure_files(find_missing, torchvision_name=name, root=home, folder=folder, download=download)
    pixels, labels = read_idx(image_file, dims=3), read_idx(label_file, dims=1)
    if len(pixels) != len(labels):
        raise DataError(
            f"{len(labels)} labels for {len(pixels)} images",
            str(_find(label_file)),
            "Replace both files by a matching pair",
        )
    if labels.max() >= len(class_names):
        raise DataError(f"label {labels.max()} is not below {len(class_names)}", str(_find(label_file)), "Replace the file")
    images = fit_images(torch.from_numpy(pixels).unsqueeze(1), image_size=image_size, channels=channels, fit=fit)
    return ArrayDataset(
        images,
        labels=torch.from_numpy(labels),
        class_names=class_names,
        fingerprint=fingerprint(pixels, labels, image_size, channels, fit),
    )


def read_idx(path: Path, *, dims: int) -> np.ndarray:
    """Reads an IDX file of bytes, or the same with ``.gz`` behind its name; the unpacked one if both are there.

    Args:
        path: without ``.gz``. One of the two exists.
        dims: number of dimensions it must have.

    Returns:
        uint8, ``dims`` dimensions, none of them 0.

    Raises:
        DataError: it cannot be read or is not such a file.
    """
    found = _find(path)
    assert found is not None, path

    def damaged(what: str) -> DataError:
        return DataError(what, str(found), "Delete the file and get it again")

    try:
        with gzip.open(found) if found.suffix == ".gz" else found.open("rb") as file:
            header = file.read(4 + 4 * dims)
            if len(header) < 4 + 4 * dims or header[:4] != bytes([0, 0, 8, dims]):
                raise damaged(f"not an IDX file of bytes with {dims} dimensions")
            shape = [int(size) for size in np.frombuffer(header, dtype=">u4", offset=4)]
            count = math.prod(shape)
            refuse_bomb(count, found.stat().st_size, MAX_ARRAY_RATIO)
            content = bytearray(file.read(count + 1))
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise damaged(f"the file cannot be read: {error}") from error
    if count == 0 or len(content) != count:
        there = f"{len(content)} bytes" if len(content) <= count else "more"
        raise damaged(f"its header {shape} asks for {count} bytes, and there are {there}")
    return np.frombuffer(content, dtype=np.uint8).reshape(shape)


def _find(path: Path) -> Path | None:
    packed = path.with_name(f"{path.name}.gz")
    return next((candidate for candidate in (path, packed) if candidate.is_file()), None)
