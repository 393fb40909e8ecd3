"""CIFAR-10, read from its python batches: in the archive as downloaded, or in the folder unpacked from it."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from gan_cli.data.dataset import ArrayDataset, fingerprint
from gan_cli.data.download import ensure, fetch, read_tar
from gan_cli.data.fitting import fit_images
from gan_cli.ranges import Fit, GreyOrRGB, ImageSize
from gan_cli.system.errors import DataError

FOLDER, ARCHIVE = "cifar-10-batches-py", "cifar-10-python.tar.gz"
SERVER = "https://www.cs.toronto.edu/~kriz"
HASH = "md5:c58f30108f718f92721af3b95e74349a"  # published by torchvision
FILES = {"train": [f"data_batch_{number}" for number in range(1, 6)], "test": ["test_batch"]}
CLASS_NAMES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


def cifar10(
    *,
    root: str = "data",
    image_size: ImageSize = 32,
    channels: GreyOrRGB = 3,
    num_classes: Literal[10] = 10,
    split: Literal["train", "test"] = "train",
    fit: Fit = "resize",
    download: bool = True,
) -> ArrayDataset:
    """CIFAR-10: photos of 32x32, 50,000 for training and 10,000 for testing.

    A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009.

    Args:
        root: holds ``cifar-10-batches-py/`` or ``cifar-10-python.tar.gz``. Never written to if one is there.
        image_size: side in pixels.
        channels: 3, or 1 for the luma.
        num_classes: always 10; models read it from here.
        split: the part to read.
        fit: see :func:`gan_cli.data.fitting.fit_images`.
        download: whether missing files may be downloaded.

    Raises:
        DataError: a file is damaged, or asks for code that an array does not need.
        NotFoundError: the files are missing.
    """
    home, names = Path(root).expanduser(), FILES[split]
    folder, archive = home / FOLDER, home / ARCHIVE
    ensure(
        "CIFAR10",
        lambda: [] if archive.is_file() else [name for name in names if not (folder / name).is_file()],
        lambda staging: [fetch(ARCHIVE, [f"{SERVER}/{ARCHIVE}"], HASH, staging)],
        folder=home,
        download=download,
        instead="digits",
    )
    if all((folder / name).is_file() for name in names):
        parts = [read_batch((folder / name).read_bytes(), where=str(folder / name)) for name in names]
    else:
        contents = read_tar(archive, lambda member: member in {f"{FOLDER}/{name}" for name in names})
        parts = [read_batch(contents.get(f"{FOLDER}/{name}", b""), where=f"{archive}: {name}") for name in names]
    pixels, labels = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    return ArrayDataset(
        fit_images(torch.from_numpy(pixels), image_size=image_size, channels=channels, fit=fit),
        labels=torch.from_numpy(labels),
        class_names=CLASS_NAMES,
        fingerprint=fingerprint(pixels, labels, image_size, channels, fit),
    )


def read_batch(content: bytes, *, where: str) -> tuple[np.ndarray, np.ndarray]:
    """Decode one pickled batch. Only arrays, lists, dicts, numbers and strings can come out of it.

    Args:
        content: the bytes of the file.
        where: its name, for errors.

    Returns:
        Images, uint8 (N, 3, 32, 32), and labels, int64 (N,) in 0..9.

    Raises:
        DataError: the bytes are no CIFAR-10 batch.
    """
    try:
        batch = _ArrayUnpickler(io.BytesIO(content), encoding="bytes").load()
        if not all(isinstance(label, int | np.integer) for label in batch[b"labels"]):
            raise ValueError("its labels are not numbers")  # nested lists could become any amount of memory
        pixels, labels = np.asarray(batch[b"data"]), np.asarray(batch[b"labels"])
        if pixels.dtype != np.uint8 or pixels.shape != (len(labels), 3 * 32 * 32):
            raise ValueError(f"{len(labels)} labels for {pixels.dtype} data of shape {pixels.shape}")
        if not 0 <= labels.min() <= labels.max() < 10:
            raise ValueError("its labels are not in 0..9")
    except Exception as error:  # a damaged pickle can fail in any way
        raise DataError(f"the batch cannot be read: {error}", where, "Delete the file and get it again") from error
    return pixels.reshape(-1, 3, 32, 32), labels.astype(np.int64)


class _ArrayUnpickler(pickle.Unpickler):
    """Unpickler of NumPy arrays: resolves what rebuilds one, under the names of NumPy 1 and 2, and no other global."""

    allowed: dict[str, Any] = {
        "numpy.core.multiarray._reconstruct": np.empty(0).__reduce__()[0],
        "numpy._core.multiarray._reconstruct": np.empty(0).__reduce__()[0],
        "numpy.ndarray": np.ndarray,
        "numpy.dtype": np.dtype,
    }

    def find_class(self, module: str, name: str) -> Any:
        if f"{module}.{name}" not in self.allowed:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which an array does not need")
        return self.allowed[f"{module}.{name}"]
