"""Folders of image files, good and bad."""

from __future__ import annotations

import io
import logging
import os
import resource
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from gan_cli.data.dataset import ArrayDataset
from gan_cli.data.image_files import ImageFiles, StreamedImages
from gan_cli.data.image_folder import image_folder
from gan_cli.system.errors import DataError, NotFoundError


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
    path.write_bytes(png((side, side), 8, 2, b""))


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
    with pytest.raises(DataError, match="num_classes=4.*3"):
        image_folder(root=str(tmp_path), num_classes=4)


def test_files_in_the_folder_itself_make_it_unlabelled(tmp_path: Path) -> None:
    save(tmp_path / "a.png")
    assert image_folder(root=str(tmp_path)).labels is None
    save(tmp_path / "more" / "b.png")
    dataset = image_folder(root=str(tmp_path))
    assert len(dataset) == 2 and dataset.labels is None and dataset.class_names == []
    with pytest.raises(DataError, match=r"1 of 2 images lie beside.*a\.png"):
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
            image_folder(root=str(tmp_path), image_size=16, memory_gb=memory_gb)
    assert [record.getMessage() for record in caplog.records] == ["1 of 2 images are grey, used as RGB: b.png"] * 2
    caplog.clear()
    with caplog.at_level(logging.INFO):
        image_folder(root=str(tmp_path), image_size=16, channels=1)
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
    with pytest.raises(DataError, match="6.*8.*bomb.png.*on_bad_image=skip"):
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
    with pytest.raises(DataError, match="a.png"):
        image_folder(root=str(tmp_path))
    (tmp_path / "a.png").unlink()
    Image.new("F", (8, 8), 0.5).save(tmp_path / "a.tif")
    with pytest.raises(DataError, match="floating-point"):
        image_folder(root=str(tmp_path))


def test_places_without_images(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="does not exist"):
        image_folder(root=str(tmp_path / "nothing"))
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(DataError, match=r"\.png.*\.jpg.*\.tiff"):
        image_folder(root=str(tmp_path))
    with pytest.raises(DataError, match="not a folder"):
        image_folder(root=str(tmp_path / "notes.txt"))


def png(size: tuple[int, int], depth: int, colour: int, pixels: bytes) -> bytes:
    """Written by hand: Pillow cannot write all kinds that it reads. ``pixels``: of one, or nothing of them all."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    rows = zlib.compress((b"\0" + pixels * size[0]) * size[1] if pixels else b"", 9)
    header = struct.pack(">IIBBBBB", *size, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("colour", "pixels", "expected"),
    [
        (0, bytes([127, 128]), [127, 127, 127]),
        (2, bytes([127, 0, 10, 0, 200, 0]), [127, 10, 200]),
        (4, bytes([127, 0, 255, 255]), [127, 127, 127]),
        (6, bytes([127, 0, 10, 0, 200, 0, 255, 255]), [127, 10, 200]),
        (6, bytes([127, 0, 10, 0, 200, 0, 0, 0]), [255, 255, 255]),
    ],
)
def test_16_bits_of_every_kind(tmp_path: Path, colour: int, pixels: bytes, expected: list[int]) -> None:
    (tmp_path / "a.png").write_bytes(png((8, 8), 16, colour, pixels))
    assert (load_one(tmp_path).float().mean((1, 2)) - torch.tensor(expected)).abs().max() <= 1


def test_the_first_frame_of_an_animation(tmp_path: Path) -> None:
    first, second = Image.new("RGB", (8, 8), (200, 0, 0)), Image.new("RGB", (8, 8), (0, 200, 0))
    first.save(tmp_path / "a.gif", save_all=True, append_images=[second])
    assert load_one(tmp_path)[:, 4, 4].tolist() == [200, 0, 0]


def test_bombs_are_refused_in_little_memory(tmp_path: Path) -> None:
    contents = {
        "30000x30000": png((30_000, 30_000), 1, 0, b""),
        "9999x9999 of nothing": png((9999, 9999), 8, 6, b""),
        "flat": png((5000, 5000), 8, 0, b"\0"),
        "0x10": png((0, 10), 8, 2, b""),
        "10x0": png((10, 0), 8, 2, b""),
    }
    for name, content in contents.items():
        (tmp_path / f"{name}.png").write_bytes(content)
    (tmp_path / "1x100000.png").write_bytes(png((1, 100_000), 8, 2, bytes([10, 20, 30])))
    with (tmp_path / "sparse.png").open("wb") as file:
        file.write(png((8, 8), 8, 2, bytes(3)))
        file.truncate(2**40)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for memory_gb in (4.0, 0.0):
        dataset = image_folder(root=str(tmp_path), on_bad_image="skip", memory_gb=memory_gb)
        assert len(dataset) == 1 and dataset.batch(torch.tensor([0]))[0, :, 0, 0].tolist() == [10, 20, 30]
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 * 2**10
    with pytest.raises(DataError, match="6 of 7 images"):
        image_folder(root=str(tmp_path))


ODD = [
    b"a\nb.png",
    b"q'u\"o`t.png",
    b"a=b,c {x}.png",
    b"n" * 251 + b".png",
    b"\xff\xfe.png",
    b"\x1b[31m.png",
    b" .x.png",
    b"-%s.png",
]


@pytest.mark.parametrize("memory_gb", [4.0, 0.0])
def test_odd_names_are_names(tmp_path: Path, memory_gb: float, caplog: pytest.LogCaptureFixture) -> None:
    for name in ODD:
        save(tmp_path / os.fsdecode(name), mode="L")
    with caplog.at_level(logging.INFO):
        dataset = image_folder(root=str(tmp_path), image_size=8, memory_gb=memory_gb)
        assert (dataset.batch(torch.arange(len(ODD))) == 100).all()
        for name in ODD[1:]:
            (tmp_path / os.fsdecode(name)).write_text("<html>")
        assert len(image_folder(root=str(tmp_path), image_size=8, memory_gb=memory_gb, on_bad_image="skip")) == 1
    assert len(caplog.records) == 3
    assert all(record.getMessage().isprintable() and record.getMessage().encode() for record in caplog.records)
    with pytest.raises(DataError) as error:
        image_folder(root=str(tmp_path), memory_gb=memory_gb)
    assert str(error.value).isprintable()


def test_classes_with_odd_names_and_without_images(tmp_path: Path) -> None:
    for name in (b"\xff", b"a\nb", b"c=d,e"):
        save(tmp_path / os.fsdecode(name) / "1.png")
    (tmp_path / "empty").mkdir()
    dataset = image_folder(root=str(tmp_path), num_classes=3)
    assert dataset.class_names == ["a\nb", "c=d,e", "\udcff"] and len(dataset.fingerprint) == 32


@pytest.mark.parametrize("memory_gb", [4.0, 0.0])
def test_what_is_no_file_is_not_waited_for(tmp_path: Path, memory_gb: float) -> None:
    save(tmp_path / "good.png")
    os.mkfifo(tmp_path / "pipe.png")
    os.symlink("/dev/zero", tmp_path / "zero.png")
    os.symlink("loop.png", tmp_path / "loop.png")
    os.symlink("nowhere", tmp_path / "dangling.png")
    assert len(image_folder(root=str(tmp_path), memory_gb=memory_gb, on_bad_image="skip")) == 1
    with pytest.raises(DataError, match="4.*5.*dangling.png.*loop.png.*pipe.png"):
        image_folder(root=str(tmp_path), memory_gb=memory_gb)


@pytest.mark.skipif(os.getuid() == 0, reason="root reads everything")
def test_an_unreadable_file_is_named(tmp_path: Path) -> None:
    save(tmp_path / "a.png").chmod(0)
    with pytest.raises(DataError, match="a.png .Permission denied"):
        image_folder(root=str(tmp_path))


def test_folders_that_cannot_be_one(tmp_path: Path) -> None:
    os.symlink("loop", tmp_path / "loop")
    for name, kind in (("loop", DataError), ("n" * 5000, DataError), ("a/b", NotFoundError)):
        with pytest.raises(kind):
            image_folder(root=str(tmp_path / name))


def test_a_file_that_goes_while_the_folder_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path / "a.png")
    digest = ImageFiles.digest

    def late(self: ImageFiles) -> str:
        path.unlink()
        return digest(self)

    monkeypatch.setattr(ImageFiles, "digest", late)
    with pytest.raises(DataError, match=r"removed.*a\.png"):
        image_folder(root=str(tmp_path))


def test_want_of_memory_is_not_the_fault_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path / "a.png")

    def fail(*args: Any, **keywords: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(Image, "open", fail)
    with pytest.raises(MemoryError):
        image_folder(root=str(tmp_path), on_bad_image="skip")
