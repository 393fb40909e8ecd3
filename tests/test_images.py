"""Conversion of images in [-1, 1] to pixels and files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from gan_cli.images import enlarge, make_grid, to_uint8, write_gif, write_png

LEVELS = torch.arange(256).reshape(1, 1, 16, 16)


def picture(channels: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(256, (channels, 6, 9), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


@pytest.mark.parametrize("offset", [-0.45, 0.0, 0.45])
def test_every_level_is_the_nearest(offset: float) -> None:
    images = (LEVELS + offset) / 127.5 - 1
    before = images.clone()
    result = to_uint8(images)
    assert result.dtype == torch.uint8 and torch.equal(result, LEVELS.to(torch.uint8))
    assert torch.equal(images, before)


@pytest.mark.parametrize(("value", "level"), [(-1.0, 0), (1.0, 255), (-7.0, 0), (7.0, 255), (1.01, 255), (0.003, 128)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_range(value: float, level: int, dtype: torch.dtype) -> None:
    assert to_uint8(torch.full((2, 1, 1, 1), value, dtype=dtype)).flatten().tolist() == [level] * 2


def test_it_undoes_what_the_data_pipeline_does() -> None:
    assert torch.equal(to_uint8(LEVELS.float().div(127.5).sub(1)), LEVELS.to(torch.uint8))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("n", "per_row", "columns", "rows"), [(5, 3, 3, 2), (6, 3, 3, 2), (1, 8, 8, 1), (9, None, 3, 3), (10, None, 4, 3)]
)
def test_grid_geometry(channels: int, n: int, per_row: int | None, columns: int, rows: int) -> None:
    height, width, pad = 2, 3, 1
    images = torch.randint(100, 256, (n, channels, height, width), dtype=torch.uint8)
    grid = make_grid(images, per_row, pad)
    assert grid.shape == (channels, rows * (height + pad) + pad, columns * (width + pad) + pad) and grid.dtype == torch.uint8
    ground = grid.clone()
    for k in range(n):
        top, left = pad + k // columns * (height + pad), pad + k % columns * (width + pad)
        assert torch.equal(grid[:, top : top + height, left : left + width], images[k])
        ground[:, top : top + height, left : left + width] = grid[0, 0, 0]
    assert ground.unique().numel() == 1 and ground[0, 0, 0] < 64


def test_enlarge_repeats_pixels() -> None:
    small = picture(3)
    large = enlarge(small, 20)
    assert large.shape == (3, 18, 27)
    assert torch.equal(large[:, ::3, ::3], small) and torch.equal(large[:, 2::3, 1::3], small)
    assert torch.equal(enlarge(small, 9), small) and torch.equal(enlarge(small, 1), small)


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB")])
def test_png_round_trip(tmp_path: Path, channels: int, mode: str) -> None:
    write_png(tmp_path / "a.png", picture(channels, 1))
    write_png(tmp_path / "a.png", picture(channels))  # replaces the file
    with Image.open(tmp_path / "a.png") as image:
        assert (image.format, image.mode) == ("PNG", mode)
        pixels = torch.from_numpy(np.array(image)).reshape(6, 9, channels).permute(2, 0, 1)
    assert torch.equal(pixels, picture(channels))
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


def test_gif_round_trip(tmp_path: Path) -> None:
    frames = [picture(1, seed) for seed in range(4)]
    write_gif(tmp_path / "a.gif", frames, milliseconds=60)
    with Image.open(tmp_path / "a.gif") as image:
        assert (image.format, image.n_frames, image.info["loop"], image.info["duration"]) == ("GIF", 4, 0, 60)
        for k, frame in enumerate(frames):
            image.seek(k)
            assert np.array_equal(np.array(image.convert("L")), frame[0].numpy())
    assert [p.name for p in tmp_path.iterdir()] == ["a.gif"]


@pytest.mark.parametrize("name", ["a.png", "a.gif"])
def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(seed: int) -> None:
        if name == "a.png":
            write_png(tmp_path / name, picture(1, seed))
        else:
            write_gif(tmp_path / name, [picture(1, seed), picture(1, seed + 1)])

    write(0)
    before = (tmp_path / name).read_bytes()

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("PIL.ImageFile._save", full)
        patch.setattr("PIL.GifImagePlugin._write_single_frame", full)
        patch.setattr("PIL.GifImagePlugin._write_multiple_frames", full)
        with pytest.raises(OSError, match="No space"):
            write(5)
    assert (tmp_path / name).read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == [name]
