"""Conversion of images in [-1, 1] to uint8 pictures and grids, and PNG, GIF and npz files of them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gan_cli.system import files
from gan_cli.system.files import MAKER


def to_uint8(images: Tensor) -> Tensor:
    """Convert images in [-1, 1], float (N, C, H, W), to uint8 of the same shape on the CPU, rounded to the nearest level."""
    return images.float().add(1.0).mul_(127.5).round_().clamp_(0, 255).to("cpu", torch.uint8)


def make_grid(images: Tensor, per_row: int | None = None, pad: int = 2) -> Tensor:
    """Arrange images, uint8 (N, C, H, W), in one uint8 picture (C, rows * (H + pad) + pad, ...), row by row.

    ``per_row``: images in a row; by default the grid is square. ``pad``: width in pixels of the dark border.
    """
    n, channels, height, width = images.shape
    per_row = per_row or math.ceil(math.sqrt(n))
    rows = math.ceil(n / per_row)
    grid = torch.full((channels, rows * (height + pad) + pad, per_row * (width + pad) + pad), 32, dtype=torch.uint8)
    for k, image in enumerate(images):
        y, x = pad + k // per_row * (height + pad), pad + k % per_row * (width + pad)
        grid[:, y : y + height, x : x + width] = image
    return grid


def enlarge(picture: Tensor, smallest: int = 512) -> Tensor:
    """Repeat pixels of a (C, H, W) picture until its longer side has at least ``smallest`` pixels."""
    factor = -(-smallest // max(picture.shape[1:]))
    return picture.repeat_interleave(factor, 1).repeat_interleave(factor, 2)


def _pil(picture: Tensor):  # type: ignore[no-untyped-def]
    from PIL import Image

    array = picture.permute(1, 2, 0).contiguous().numpy()
    return Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array)


def write_png(path: Path, picture: Tensor) -> None:
    """Write a uint8 (C, H, W) picture, C 1 or 3, atomically and marked as made by gan_cli."""
    from PIL.PngImagePlugin import PngInfo

    text = PngInfo()
    text.add_text("Software", MAKER)
    with files.atomic_file(path) as file:
        _pil(picture).save(file, format="PNG", pnginfo=text)


def is_ours(path: Path) -> bool:
    """Return whether gan_cli made this PNG, GIF or npz file, so that it may be overwritten."""
    import zipfile

    from PIL import Image

    try:
        with files.opened(path) as file:
            if path.suffix == ".npz":
                with zipfile.ZipFile(file) as archive:
                    return archive.comment == MAKER.encode()
            with Image.open(file, formats=["PNG", "GIF"]) as picture:
                return picture.info.get("Software") == MAKER or picture.info.get("comment") == MAKER.encode()
    except (OSError, ValueError, SyntaxError, zipfile.BadZipFile, Image.DecompressionBombError):
        return False


def write_npz(path: Path, arrays: dict[str, Any]) -> None:
    """Write arrays as ``numpy.savez`` does, atomically and marked as made by gan_cli."""
    import zipfile

    import numpy as np

    with files.atomic_file(path) as file:
        np.savez(file, **arrays)
        with zipfile.ZipFile(file, "a") as archive:
            archive.comment = MAKER.encode()


def write_gif(path: Path, pictures: Sequence[Tensor], milliseconds: int = 60) -> None:
    """Write uint8 (C, H, W) pictures as an endless animation, atomically."""
    _write_gif(path, map(_pil, pictures), milliseconds)


def write_film(path: Path, pictures: Sequence[Path], milliseconds: int = 100) -> None:
    """Write picture files of one size as an endless animation, which shows the last one for two seconds."""
    from PIL import Image

    def load(file: Path) -> Image.Image:
        with Image.open(file) as picture:
            return picture.copy()

    _write_gif(path, map(load, pictures), [milliseconds] * (len(pictures) - 1) + [2000])


def _write_gif(path: Path, frames: Iterator[Any], milliseconds: int | list[int]) -> None:
    """``frames``: Pillow images, made one by one to save memory."""
    with files.atomic_file(path) as file:
        next(frames).save(
            file, format="GIF", save_all=True, append_images=frames, duration=milliseconds, loop=0, comment=MAKER.encode()
        )
