"""CIFAR-10, read from its python batches: the archive as it was downloaded, or the folder unpacked from it."""

from __future__ import annotations

import io
import pickle
import tarfile
import zlib
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from gan_cli.data.archives import tar_files
from gan_cli.data.dataset import ArrayDataset, fingerprint
from gan_cli.data.download import ensure_files
from gan_cli.data.fitting import fit_images
from gan_cli.ranges import Fit, GreyOrRGB, ImageSize
from gan_cli.system.errors import DataError

FOLDER, ARCHIVE = "cifar-10-batches-py", "cifar-10-python.tar.gz"
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
        split: which part.
        fit: see :func:`gan_cli.data.fitting.fit_images`.
        download: whether missing files may be downloaded.

    Raises:
        DataError: a file is damaged, or asks for code that an array does not need.
        NotFoundError: the files are missing.
    """
    home = Path(root).expanduser()
    folder, archive = home / FOLDER, home / ARCHIVE

    def find_missing() -> list[str]:
        return [] if archive.is_file() else [name for name in FILES[split] if not (folder / name).is_file()]

    ensure_files(find_missing, torchvision_name="CIFAR10", root=home, folder=folder, download=download)
    unpacked = all((folder / name).is_file() for name in FILES[split])
    batches = _read_folder(folder, FILES[split]) if unpacked else _read_archive(archive, FILES[split])
    parts = [read_batch(content, where=where) for where, content in batches]
    pixels, labels = np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])
    return ArrayDataset(
        fit_images(torch.from_numpy(pixels), image_size=image_size, channels=channels, fit=fit),
        labels=torch.from_numpy(labels),
        class_names=CLASS_NAMES,
        fingerprint=fingerprint(pixels, labels, image_size, channels, fit),
    )


def read_batch(content: bytes, *, where: str) -> tuple[np.ndarray, np.ndarray]:
    """Decodes one pickled batch. Only arrays, lists, dicts, numbers and strings can come out of it.

    Args:
        content: the file.
        where: its name, for errors.

    Returns:
        Images, uint8 (N, 3, 32, 32), and labels, int64 (N,) in 0..9.

    Raises:
        DataError: it is not a CIFAR-10 batch.
    """
    try:
        batch = _ArrayUnpickler(io.BytesIO(content), encoding="bytes").load()
        if not all(isinstance(label, int | np.integer) for label in batch[b"labels"]):
            raise ValueError("its labels are not numbers")  # lists in lists could become any amount
        pixels, labels = np.asarray(batch[b"data"]), np.asarray(batch[b"labels"])
    except Exception as error:  # a damaged pickle can fail in any way
        raise DataError(f"the batch cannot be read: {error}", where, "Delete the file and get it again") from error
    if not (
        pixels.dtype == np.uint8
        and pixels.ndim == 2
        and pixels.shape[1] == 3 * 32 * 32
        and len(pixels) > 0
        and labels.shape == pixels.shape[:1]
        and labels.dtype.kind in "iu"
        and 0 <= labels.min() <= labels.max() < 10
    ):
        raise DataError(
            f"not a CIFAR-10 batch: data {pixels.dtype} {pixels.shape}, labels {labels.dtype} {labels.shape}",
            where,
            "Delete the file and get it again",
        )
    return pixels.reshape(-1, 3, 32, 32), labels.astype(np.int64)


class _ArrayUnpickler(pickle.Unpickler):
    """Resolves what rebuilds a NumPy array, under the names of NumPy 1 and 2, and no other global."""

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


def _read_folder(folder: Path, names: list[str]) -> list[tuple[str, bytes]]:
    try:
        return [(str(folder / name), (folder / name).read_bytes()) for name in names]
    except OSError as error:
        raise DataError(f"a file cannot be read: {error.strerror}", str(error.filename), "Check the file") from error


def _read_archive(archive: Path, names: list[str]) -> list[tuple[str, bytes]]:
    wanted = {f"{FOLDER}/{name}": name for name in names}
    contents: dict[str, bytes] = {}
    try:
        for path, file in tar_files(archive):
            if path in wanted:
                contents[wanted[path]] = file.read()
    except (OSError, EOFError, ValueError, tarfile.TarError, zlib.error) as error:
        todo = "Delete the file and get it again"
        raise DataError(f"the archive cannot be read: {error}", str(archive), todo) from error
    missing = [name for name in names if name not in contents]
    if missing:
        raise DataError(f"{', '.join(missing)} missing from it", str(archive), "Delete the file and get it again")
    return [(f"{archive}: {name}", contents[name]) for name in names]
