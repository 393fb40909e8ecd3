"""Images and labels in one NumPy archive."""

from __future__ import annotations

import logging
import zipfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from gan_cli.data.dataset import ArrayDataset, fingerprint
from gan_cli.data.fitting import CHUNK, fit_images
from gan_cli.ranges import Fit, GreyOrRGB, ImageSize, PositiveInt
from gan_cli.system.errors import DataError, NotFoundError

log = logging.getLogger(__name__)

IMAGE_NAMES = ("images", "x_train", "arr_0", "x", "data")
LABEL_NAMES = ("labels", "y_train", "arr_1", "y")


def npz(
    *,
    path: str,
    image_size: ImageSize = 32,
    channels: GreyOrRGB = 3,
    num_classes: PositiveInt | None = None,
    images: str | None = None,
    labels: str | None = None,
    fit: Fit = "resize",
) -> ArrayDataset:
    """The images of an ``.npz`` file, as ``numpy.savez`` writes it. Nothing in it is unpickled.

    * Images: (N, H, W), (N, H, W, C) or (N, C, H, W) with 1, 3 or 4 channels; where both could be, the last axis is the
      channels. uint8, or float in [0, 1], or float in [-1, 1]: the latter if the smallest value is negative.
    * Labels: integers (N,), or (N, 1), from 0 on.
    * ``class_names``: strings, used if there is one for each class.

    Args:
        path: the file.
        image_size: side in pixels.
        channels: 1 or 3.
        num_classes: number of classes, or None for the largest label plus 1.
        images: name of the array of images, or None for the first of images, x_train, arr_0, x, data, or for the only one.
        labels: name of the array of labels, or None for the first of labels, y_train, arr_1, y, or unlabelled if there is none.
        fit: see :func:`gan_cli.data.fitting.fit_images`.

    Raises:
        NotFoundError: there is no such file.
        DataError: it cannot be read, or an array is missing or unusable.
    """
    arrays = _read(Path(path).expanduser(), images, labels)
    pixels, classes, names = arrays["images"], arrays.get("labels"), arrays.get("class_names")
    planes = _to_planes(pixels, path)
    if classes is not None:
        classes = _check_labels(classes, len(pixels), num_classes, path)
        num_classes = num_classes or int(classes.max()) + 1
    elif num_classes is not None:
        raise DataError(f"num_classes={num_classes}, but there are no labels", path, "Set dataset.num_classes=null")
    class_names = [str(label) for label in range(num_classes or 0)]
    if names is not None and names.dtype.kind == "U" and names.shape == (len(class_names),):
        class_names = names.tolist()
    return ArrayDataset(
        fit_images(planes, image_size=image_size, channels=channels, fit=fit).contiguous(),
        labels=None if classes is None else torch.from_numpy(classes),
        class_names=class_names,
        fingerprint=fingerprint(pixels, classes, image_size, channels, fit),
    )


def shape_in(path: str) -> tuple[int, int, int]:
    """(C, H, W) of the images that :func:`npz` finds in a file.

    Raises:
        NotFoundError, DataError: as :func:`npz`.
    """
    _, channels, height, width = _to_planes(_read(Path(path).expanduser(), None, None)["images"], path).shape
    return channels, height, width


def _read(path: Path, images: str | None, labels: str | None) -> dict[str, np.ndarray]:
    """Read the needed arrays under the keys ``images``, ``labels`` and ``class_names``."""
    if not path.is_file():
        raise NotFoundError("no such file", str(path.absolute()), "Set dataset.path to an .npz file", "dataset.path")
    try:
        with np.load(path, allow_pickle=False) as file:
            there = file.files
            only = there[0] if len(there) == 1 else "images"
            image_name = images or next((name for name in IMAGE_NAMES if name in there), only)
            label_name = labels or next((name for name in LABEL_NAMES if name in there), None)
            chosen = {"images": image_name, "labels": label_name, "class_names": "class_names"}
            arrays = {key: file[name] for key, name in chosen.items() if name in there}
            for key, array in arrays.items():
                if not isinstance(array, np.ndarray):  # other members of the archive are given as their bytes
                    raise ValueError(f"{chosen[key]!r} is not an array")
    except Exception as error:  # a damaged archive can fail in any way; np.load gives an array for an .npy file
        reason = " ".join(str(error).split())[:200] if zipfile.is_zipfile(path) else "it is no zip archive"
        raise DataError(
            f"not a readable .npz file of plain arrays: {reason}", str(path), "Write it with numpy.savez"
        ) from error
    for key, name in (("images", image_name), ("labels", labels)):
        if name is not None and key not in arrays:
            todo = f"Set dataset.{key} to one of: {', '.join(there)}" if there else "Write it again: it is empty"
            raise DataError(f"no array {name!r} in it", str(path), todo, f"dataset.{key}")
    return arrays


def _to_planes(pixels: np.ndarray, path: str) -> Tensor:
    """Convert any accepted array of images to uint8 (N, C, H, W)."""
    shape = pixels.shape
    if pixels.ndim == 4 and shape[-1] in (1, 3, 4):
        pixels = pixels.transpose(0, 3, 1, 2)
    elif pixels.ndim == 3:
        pixels = pixels[:, np.newaxis]
    elif pixels.ndim != 4 or shape[1] not in (1, 3, 4):
        what = f"images of shape {shape} are not (N, H, W), (N, H, W, C) or (N, C, H, W) with 1, 3 or 4 channels"
        raise DataError(what, path, "Write them in one of these shapes")
    if 0 in shape:
        raise DataError(f"images of shape {shape} hold nothing", path, "Write at least one image")
    if pixels.dtype == np.uint8:
        return torch.from_numpy(pixels)
    if pixels.dtype.kind != "f":
        raise DataError(f"images of type {pixels.dtype}", path, "Write them as uint8, or as float in [0, 1] or [-1, 1]")

    low, high = float(pixels.min()), float(pixels.max())
    if np.isnan(low):
        first = int(np.isnan(pixels).reshape(len(pixels), -1).any(1).argmax())
        raise DataError(f"image {first} has values that are not numbers (NaN)", path, "Leave such images out")
    if not (low >= -1 and high <= 1):
        what = f"float images from {low:g} to {high:g} are not in [0, 1] or [-1, 1]"
        raise DataError(what, path, "Scale them, or write them as uint8")
    offset, scale = (1, 127.5) if low < 0 else (0, 255)
    log.info("Float images from %g to %g are taken as being in [%d, 1]", low, high, -offset)
    result = np.empty(pixels.shape, dtype=np.uint8)
    for start in range(0, len(pixels), CHUNK):
        chunk = pixels[start : start + CHUNK].astype(np.float32)
        result[start : start + CHUNK] = np.rint((chunk + offset) * scale)
    return torch.from_numpy(result)


def _check_labels(labels: np.ndarray, images: int, num_classes: int | None, path: str) -> np.ndarray:
    """Check labels and return them as int64 (N,)."""
    if labels.shape not in ((images,), (images, 1)):
        what = f"labels of shape {labels.shape} for {images} images"
        raise DataError(what, path, "Write one label for each image, or choose another array with dataset.labels")
    if labels.dtype.kind not in "iu":
        raise DataError(f"labels of type {labels.dtype}", path, "Write them as integers from 0 on")
    low, high = int(labels.min(initial=0)), int(labels.max(initial=0))
    if low < 0 or (num_classes is not None and high >= num_classes):
        wanted = "from 0 on" if num_classes is None else f"below num_classes={num_classes}"
        raise DataError(f"labels from {low} to {high} are not {wanted}", path, "Correct them, or dataset.num_classes")
    return labels.reshape(-1).astype(np.int64)
