"""Folders of image files, good and bad."""

from __future__ import annotations

import io
import logging
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from gan_cli.data.dataset import ArrayDataset
from gan_cli.data.image_files import StreamedImages
from gan_cli.data.image_folder import image_folder
from gan_cli.errors import DataError, NotFoundError


def save(path: Path, value: int = 100, size: tuple[int, int] = (8, 8), mode: str = "RGB") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, (value,) * len(mode) if len(mode) > 1 else value).save(path)
    return path


def load_one(folder: Path, channels: int = 3, image_size: int = 8) -> torch.Tensor:
    dataset = image_folder(root=str(folder), channels=channels, image_size=image_size)
    assert len(dataset) == 1
    return dataset.batch(torch.tensor([0]))[0]


def truncated_png(path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    content = io.BytesIO()
    Image.fromarray(noise).save(content, "PNG")
    path.write_bytes(content.getvalue()[:-4000])


def huge_png(path: Path, side: int) -> None:
    """A valid header, and next to no pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"0")))


def test_subfolders_are_classes(tmp_path: Path) -> None:
    for index, name in enumerate(["dog/b.PNG", "cat/x/y.jpeg", "cat/a.tif", "dog/z.webp", "Emu/a.gif", "Emu/b.bmp"]):
        save(tmp_path / name, index * 40)
    save(tmp_path / ".hidden" / "a.png")
    save(tmp_path / "dog" / ".a.png")
    (tmp_path / "notes.txt").write_text("")
    (tmp_path / "empty").mkdir()
    dataset = image_folder(root=str(tmp_path), image_size=8, num_classes=3)
    assert dataset.class_names == ["Emu", "cat", "dog"]
    assert dataset.labels is not None and dataset.labels.tolist() == [0, 0, 1, 1, 2, 2]
    values = dataset.batch(torch.arange(6))[:, 0, 4, 4].tolist()
    assert np.abs(np.array(values) - [160, 200, 80, 40, 0, 120]).max() <= 2  # the order of Emu/a, Emu/b, cat/a, ...
    with pytest.raises(DataError, match="num_classes=4, but the images lie in 3 class folders"):
        image_folder(root=str(tmp_path), num_classes=4)


def test_files_in_the_folder_itself_make_it_unlabelled(tmp_path: Path) -> None:
    save(tmp_path / "a.png")
    assert image_folder(root=str(tmp_path)).labels is None
    save(tmp_path / "more" / "b.png")
    dataset = image_folder(root=str(tmp_path))
    assert len(dataset) == 2 and dataset.labels is None and dataset.class_names == []
    with pytest.raises(DataError, match="num_classes=2, but the images lie in 0 class folders .*num_classes=null"):
        image_folder(root=str(tmp_path), num_classes=2)


def test_memory_decides_where_images_live_and_nothing_else(tmp_path: Path) -> None:
    for index in range(3):
        save(tmp_path / f"{index}.png", index * 50, (20, 10))
    memory, streamed = image_folder(root=str(tmp_path)), image_folder(root=str(tmp_path), memory_gb=0)
    assert isinstance(memory, ArrayDataset) and isinstance(streamed, StreamedImages)
    assert memory.fingerprint == streamed.fingerprint
    assert memory.channels == streamed.channels == 3 and memory.image_size == streamed.image_size == 64
    order = torch.tensor([2, 0, 1, 1])
    assert torch.equal(memory.batch(order), streamed.batch(order))
    save(tmp_path / "3.png")
    assert image_folder(root=str(tmp_path)).fingerprint != memory.fingerprint


def test_links_in_a_circle_end(tmp_path: Path) -> None:
    save(tmp_path / "real" / "a.png")
    os.symlink(tmp_path, tmp_path / "real" / "again")
    assert len(image_folder(root=str(tmp_path))) == 1


def test_16_bit_grey_is_scaled(tmp_path: Path) -> None:
    values = np.array([0, 128, 129, 257, 32768, 65535, 65406, 40000] * 8, dtype=np.uint16).reshape(8, 8)
    for suffix in ("png", "tif"):
        path = tmp_path / f"a.{suffix}"
        Image.fromarray(values).save(path)
        assert (load_one(tmp_path, channels=1)[0].numpy() == np.rint(values / 257)).all()
        path.unlink()


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "RGB", "YCbCr"])
def test_modes(tmp_path: Path, mode: str) -> None:
    image = Image.new("L", (8, 8), 0)
    image.paste(255, (0, 0, 4, 8))
    image = image.convert("RGB").convert(mode) if mode != "1" else image.convert("1")
    image.save(tmp_path / ("a.png" if mode in ("1", "L", "P", "RGB") else "a.tif"))
    for channels in (1, 3):
        loaded = load_one(tmp_path, channels=channels)
        assert loaded.shape == (channels, 8, 8)
        assert loaded[..., :4].min() >= 254 and loaded[..., 4:].max() <= 1


def test_grey_files_among_others_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    save(tmp_path / "a.png")
    save(tmp_path / "b.png", mode="L")
    with caplog.at_level(logging.INFO):
        for memory_gb in (4.0, 0.0):
            image_folder(root=str(tmp_path), memory_gb=memory_gb)
    assert [record.getMessage() for record in caplog.records] == ["1 of 2 images are grey, used as RGB: b.png"] * 2
    caplog.clear()
    with caplog.at_level(logging.INFO):
        image_folder(root=str(tmp_path), channels=1)
    assert not caplog.records


def test_a_phone_photo_with_two_pictures_is_the_first(tmp_path: Path) -> None:
    first, second = Image.new("RGB", (8, 8), (200, 0, 0)), Image.new("RGB", (8, 8), (0, 200, 0))
    first.save(tmp_path / "a.jpg", format="MPO", save_all=True, append_images=[second], quality=95)
    red, green, _ = load_one(tmp_path)[:, 4, 4].tolist()
    assert red > 190 and green < 10


def test_a_cmyk_jpeg_is_not_inverted(tmp_path: Path) -> None:
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "red.jpg", quality=95)
    red, green, blue = load_one(tmp_path)[:, 4, 4].tolist()
    assert red > 240 and green < 30 and blue < 30


def test_transparency_is_composited_over_white(tmp_path: Path) -> None:
    palette = Image.new("P", (8, 8), 0)
    palette.putpalette([10, 20, 30])
    for image, kwargs, expected in (
        (Image.new("RGBA", (8, 8), (0, 100, 200, 0)), {}, [255, 255, 255]),
        (Image.new("RGBA", (8, 8), (0, 100, 200, 255)), {}, [0, 100, 200]),
        (Image.new("LA", (8, 8), (0, 0)), {}, [255, 255, 255]),
        (palette, {"transparency": 0}, [255, 255, 255]),
        (palette, {}, [10, 20, 30]),
    ):
        image.save(tmp_path / "a.png", **kwargs)
        assert load_one(tmp_path)[:, 4, 4].tolist() == expected


def test_exif_orientation_is_applied(tmp_path: Path) -> None:
    image = Image.new("L", (16, 8), 0)
    image.paste(255, (0, 0, 8, 8))  # the left half
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise: left becomes top
    image.save(tmp_path / "a.jpg", exif=exif, quality=100)
    dataset = image_folder(root=str(tmp_path), channels=1, image_size=16, fit="pad")
    picture = dataset.batch(torch.tensor([0]))[0, 0]
    assert (picture[:8, 4:12] > 200).all() and (picture[8:, 4:12] < 50).all() and picture[:, :3].max() == 0


def test_bad_images_are_named_or_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    good = save(tmp_path / "m.png")
    save(tmp_path / "z.jpg", 200)
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "page.jpg").write_text("<html>")
    truncated_png(tmp_path / "short.png")
    huge_png(tmp_path / "bomb.png", 60_000)
    huge_png(tmp_path / "large.png", 10_001)
    os.symlink(tmp_path / "nowhere", tmp_path / "link.png")
    with pytest.raises(DataError, match=r"6 of 8 images cannot be read: .*bomb.png.*, \.\.\. .*on_bad_image=skip"):
        image_folder(root=str(tmp_path))

    for memory_gb in (4.0, 0.0):
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            dataset = image_folder(root=str(tmp_path), on_bad_image="skip", memory_gb=memory_gb)
        assert len(dataset) == 2 and "6 of 8 images" in caplog.text
        assert np.abs(dataset.batch(torch.tensor([0, 1]))[:, 0, 0, 0].numpy().astype(int) - [100, 200]).max() <= 2

    # Headers only, if decoded later: the truncated one is not seen yet.
    with pytest.raises(DataError, match="5 of 8 images"):
        image_folder(root=str(tmp_path), memory_gb=0)

    good.unlink()
    (tmp_path / "z.jpg").unlink()
    with pytest.raises(DataError, match="6 of 6 images"):
        image_folder(root=str(tmp_path), on_bad_image="skip")


def test_other_formats_are_refused_whatever_their_suffix(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n")
    with pytest.raises(DataError, match="a.png .not an image"):
        image_folder(root=str(tmp_path))
    (tmp_path / "a.png").unlink()
    Image.new("F", (8, 8), 0.5).save(tmp_path / "a.tif")
    with pytest.raises(DataError, match="floating-point"):
        image_folder(root=str(tmp_path))


def test_places_without_images(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="does not exist"):
        image_folder(root=str(tmp_path / "nothing"))
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(DataError, match=r"no images in it .*\.png \.jpg .*\.tiff"):
        image_folder(root=str(tmp_path))
    with pytest.raises(DataError, match="not a folder"):
        image_folder(root=str(tmp_path / "notes.txt"))
