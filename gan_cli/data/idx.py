"""MNIST, Fashion-MNIST and KMNIST: IDX files, packed or not, read where they lie."""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path
from typing import Literal, NamedTuple, TypedDict, Unpack

import numpy as np
import torch

from gan_cli.data.dataset import ArrayDataset, fingerprint
from gan_cli.data.download import ensure, fetch
from gan_cli.data.fitting import fit_images
from gan_cli.ranges import Fit, GreyOrRGB, ImageSize
from gan_cli.system.errors import DataError

FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


MAX_BYTES = 2**31  # bytes of the largest array that is read, 45 times MNIST


class Published(NamedTuple):
    """A published set: its servers, the MD5 of each of :data:`FILES` with ``.gz`` (from torchvision), its class names."""

    servers: tuple[str, ...]
    md5: list[str]
    class_names: list[str]


SETS = {
    "MNIST": Published(
        ("https://ossci-datasets.s3.amazonaws.com/mnist",),
        [
            "f68b3c2dcbeaaa9fbdd348bbdeb94873",
            "d53e105ee54ea40749a09fcbcd1e9432",
            "9fb629c4189551a2d022fa330f9573f3",
            "ec29112dd5afa0611ce80d1b7f02629c",
        ],
        [str(digit) for digit in range(10)],
    ),
    "FashionMNIST": Published(
        (
            "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion",
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com",
        ),
        [
            "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
            "25c81989df183df01b3e8a0aad5dffbe",
            "bef4ecab320f06d8554ea6380940ec79",
            "bb300cfdad3c16e7a12a480ee83cd310",
        ],
        ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"],
    ),
    "KMNIST": Published(
        ("https://codh.rois.ac.jp/kmnist/dataset/kmnist", "http://codh.rois.ac.jp/kmnist/dataset/kmnist"),
        [
            "bdb82020997e1d708af4cf47b453dcf7",
            "e144d726b3acfaa3e44228e80efcd344",
            "5c965bf0a639b31b8f53240b1b52f4d7",
            "7320c461ea6c1c855c0b718fb2a4b134",
        ],
        ["o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"],
    ),
}


class IdxOptions(TypedDict, total=False):
    """The options of :func:`mnist`, :func:`fashion_mnist` and :func:`kmnist`.

    * ``root``, "data": the folder that holds ``MNIST/raw``, as torchvision has it. Never written to if the files are there.
    * ``image_size``, 32: side in pixels.
    * ``channels``, 1: 1, or 3 for the same grey three times.
    * ``num_classes``, 10: always 10; models read it from here.
    * ``split``, "train": "train" or "test".
    * ``fit``, "pad": see :func:`gan_cli.data.fitting.fit_images`.
    * ``download``, true: whether missing files may be downloaded.
    """

    root: str
    image_size: ImageSize
    channels: GreyOrRGB
    num_classes: Literal[10]
    split: Literal["train", "test"]
    fit: Fit
    download: bool


def mnist(**options: Unpack[IdxOptions]) -> ArrayDataset:
    """MNIST (LeCun, Cortes and Burges): handwritten digits, 60,000 train and 10,000 test images of 28x28.

    Args:
        options: see :class:`IdxOptions`.

    Raises:
        DataError: a file is damaged.
        NotFoundError: a file is missing.
    """
    return _load("MNIST", **options)


def fashion_mnist(**options: Unpack[IdxOptions]) -> ArrayDataset:
    """Fashion-MNIST (Xiao, Rasul and Vollgraf): photos of clothes in ``FashionMNIST/raw``; the rest as :func:`mnist`."""
    return _load("FashionMNIST", **options)


def kmnist(**options: Unpack[IdxOptions]) -> ArrayDataset:
    """KMNIST (Clanuwat et al.): cursive Japanese characters in ``KMNIST/raw``; the rest as :func:`mnist`."""
    return _load("KMNIST", **options)


def _load(
    name: str,
    *,
    root: str = "data",
    image_size: int = 32,
    channels: int = 1,
    num_classes: int = 10,
    split: str = "train",
    fit: Fit = "pad",
    download: bool = True,
) -> ArrayDataset:
    servers, md5, class_names = SETS[name]
    folder = Path(root).expanduser() / name / "raw"
    image_file, label_file = (folder / file for file in (FILES[:2] if split == "train" else FILES[2:]))

    def fetch_into(staging: Path) -> list[Path]:
        return [
            fetch(f"{file}.gz", [f"{server}/{file}.gz" for server in servers], f"md5:{hash_}", staging)
            for file, hash_ in zip(FILES, md5, strict=True)
        ]

    ensure(
        name,
        lambda: [f"{path.name}.gz" for path in (image_file, label_file) if _find(path) is None],
        fetch_into,
        folder=folder,
        download=download,
        instead="digits",
    )
    pixels, labels = read_idx(image_file, dims=3), read_idx(label_file, dims=1)
    if len(pixels) != len(labels):
        what = f"{len(labels)} labels for {len(pixels)} images"
        raise DataError(what, str(_find(label_file)), "Replace both files by a matching pair")
    if labels.max() >= num_classes:
        raise DataError(f"label {labels.max()} is not below {num_classes}", str(_find(label_file)), "Replace the file")
    return ArrayDataset(
        fit_images(torch.from_numpy(pixels).unsqueeze(1), image_size=image_size, channels=channels, fit=fit),
        labels=torch.from_numpy(labels),
        class_names=class_names,
        fingerprint=fingerprint(pixels, labels, image_size, channels, fit),
    )


def read_idx(path: Path, *, dims: int) -> np.ndarray:
    """Read an IDX file of bytes, or the file of that name with ``.gz``. The unpacked one is preferred.

    Args:
        path: the name without ``.gz``. One of the two files exists.
        dims: the number of dimensions that it must have.

    Returns:
        uint8 with ``dims`` dimensions, none of them 0.

    Raises:
        DataError: the file cannot be read or is not an IDX file.
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
            shape = [int(size) for size in np.frombuffer(header, ">u4", offset=4)]
            count = math.prod(shape)
            content = bytearray(file.read(count + 1)) if 0 < count <= MAX_BYTES else b""
    except (OSError, EOFError, zlib.error) as error:
        raise damaged(f"the file cannot be read: {error}") from error
    if len(content) != count or count == 0:
        raise damaged(f"the header {shape} asks for {count} bytes, which do not follow it")
    return np.frombuffer(content, np.uint8).reshape(shape)


def _find(path: Path) -> Path | None:
    packed = path.with_name(f"{path.name}.gz")
    return next((candidate for candidate in (path, packed) if candidate.is_file()), None)
