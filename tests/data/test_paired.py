"""Pairs of image files in each layout, good and bad."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from gan_cli.data.batches import Batches
from gan_cli.data.dataset import ArrayDataset, TranslationDataset
from gan_cli.data.image_files import StreamedImages
from gan_cli.data.paired import paired
from gan_cli.system.errors import ConfigError, DataError, NotFoundError

RED, BLUE = (200, 10, 10), (10, 10, 200)


def save(path: Path, colour: tuple[int, int, int] = RED, size: tuple[int, int] = (8, 8), mode: str = "RGB") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).convert(mode).save(path)
    return path


def save_aligned(path: Path, a: tuple[int, int, int] = RED, b: tuple[int, int, int] = BLUE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new("RGB", (16, 8), a)
    image.paste(b, (8, 0, 16, 8))
    image.save(path)
    return path


def folders(root: Path, layout: str, split: str = "train") -> tuple[Path, Path]:
    return (root / f"{split}A", root / f"{split}B") if layout == "trainA" else (root / "A" / split, root / "B" / split)


def make(root: Path, layout: str, split: str = "train", count: int = 3) -> None:
    """Pairs of red (A) and blue (B), the first of them the darkest."""
    for index in range(count):
        a, b = (200 - 10 * index, 0, 0), (0, 0, 200 - 10 * index)
        if layout == "aligned":
            save_aligned(root / split / f"{index}.png", a, b)
        else:
            for folder, colour, suffix in zip(folders(root, layout, split), (a, b), ("png", "bmp"), strict=True):
                save(folder / "sub" / f"{index}.{suffix}", colour)


def open_plain(root: Path, **keywords: object) -> TranslationDataset:
    return paired(root=str(root), image_size=8, **{"load_size": None, "flip": False, **keywords})  # type: ignore[arg-type]


def all_pairs(dataset: TranslationDataset) -> torch.Tensor:
    return dataset.streams[0][1].batch(torch.arange(len(dataset)))


@pytest.mark.parametrize("layout", ["aligned", "trainA", "A/train"])
@pytest.mark.parametrize("direction", ["a2b", "b2a"])
def test_layouts_and_directions(tmp_path: Path, layout: str, direction: str) -> None:
    make(tmp_path, layout)
    dataset = open_plain(tmp_path, direction=direction)
    assert dataset.paired and len(dataset) == 3 and dataset.jitter is None
    assert (dataset.channels, dataset.image_size, dataset.labels, dataset.class_names) == (3, 8, None, [])
    images = all_pairs(dataset)
    a, b = (images[:, :3], images[:, 3:]) if direction == "a2b" else (images[:, 3:], images[:, :3])
    assert a[:, 0, 4, 4].tolist() == b[:, 2, 4, 4].tolist() == [200, 190, 180]
    assert a[:, 1:].max() == b[:, :2].max() == 0
    assert dataset.held_out() is None


@pytest.mark.parametrize("layout", ["aligned", "trainA", "A/train"])
def test_memory_decides_where_pairs_live_and_nothing_else(tmp_path: Path, layout: str) -> None:
    make(tmp_path, layout)
    memory, streamed = (open_plain(tmp_path, memory_gb=gb, load_size=10, flip=True) for gb in (4, 0))
    assert isinstance(memory.streams[0][1], ArrayDataset) and isinstance(streamed.streams[0][1], StreamedImages)
    assert memory.fingerprint == streamed.fingerprint
    assert memory.streams[0][1].shape == streamed.streams[0][1].shape == (6, 10, 10)
    for workers in (0, 2):
        one, other = (
            Batches(d, batch_size=2, seed=0, device=torch.device("cpu"), workers=w)
            for d, w in ((memory, 0), (streamed, workers))
        )
        for _ in range(4):
            expected, batch = next(one), next(other)
            assert all(torch.equal(expected[key], batch[key]) for key in ("source", "target"))
        other.close()


def test_the_fingerprint_tells_what_is_shown_apart(tmp_path: Path) -> None:
    make(tmp_path, "trainA")
    prints = {
        open_plain(tmp_path, **changes).fingerprint
        for changes in ({}, {"direction": "b2a"}, {"flip": True}, {"load_size": 9}, {"fit": "crop"}, {"channels": 1})
    }
    assert len(prints) == 6 and open_plain(tmp_path).fingerprint in prints  # fmt: skip


def test_held_out_is_the_first_split_that_is_there(tmp_path: Path) -> None:
    make(tmp_path, "aligned")
    make(tmp_path, "aligned", "test", 2)
    held_out = open_plain(tmp_path, load_size=10, flip=True).held_out()
    assert held_out is not None and len(held_out) == 2 and held_out.jitter is None
    assert held_out.streams[0][1].shape == (6, 8, 8) and held_out.held_out() is None
    make(tmp_path, "trainA", "val", 1)  # of another layout even
    assert len(open_plain(tmp_path).held_out() or []) == 1
    assert len(open_plain(tmp_path, split="val").held_out() or []) == 2
    assert open_plain(tmp_path, held_out=None).held_out() is None
    with pytest.raises(NotFoundError, match="'vall'"):
        open_plain(tmp_path, held_out="vall")
    # Nothing of it is read before it is asked for.
    (tmp_path / "test" / "0.png").write_text("<html>")
    dataset = open_plain(tmp_path, held_out="test")
    with pytest.raises(DataError, match="0.png"):
        dataset.held_out()


@pytest.mark.parametrize("size", [(17, 8), (8, 8), (24, 8)])
@pytest.mark.parametrize("memory_gb", [4, 0])
def test_a_file_that_is_not_two_images_is_named(tmp_path: Path, size: tuple[int, int], memory_gb: float) -> None:
    save(tmp_path / "train" / "x.png", size=size)
    with pytest.raises(DataError, match=r"x\.png.*\d+x8.*trainA"):
        open_plain(tmp_path, memory_gb=memory_gb)
    make(tmp_path, "aligned")
    with pytest.raises(DataError, match=r"1.*4.*x\.png.*on_bad_image=skip"):
        open_plain(tmp_path, memory_gb=memory_gb)
    assert len(open_plain(tmp_path, memory_gb=memory_gb, on_bad_image="skip")) == 3


@pytest.mark.parametrize("memory_gb", [4, 0])
def test_halves_are_those_of_the_turned_image(tmp_path: Path, memory_gb: float) -> None:
    image = Image.new("RGB", (8, 16), RED)  # as it lies in the file: the upper half becomes the right one
    image.paste(BLUE, (0, 0, 8, 8))
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "train").mkdir()
    image.save(tmp_path / "train" / "a.jpg", exif=exif, quality=100)
    pair = all_pairs(open_plain(tmp_path, memory_gb=memory_gb))[0]
    assert pair[0, 4, 4] > 180 and pair[2, 4, 4] < 40 and pair[3, 4, 4] < 40 and pair[5, 4, 4] > 180


def test_halves_are_cut_before_they_are_fitted(tmp_path: Path) -> None:
    save_aligned(tmp_path / "train" / "a.png")
    pair = all_pairs(paired(root=str(tmp_path), image_size=5, load_size=None, flip=False))[0]
    assert (pair[:3] == torch.tensor(RED).view(3, 1, 1)).all() and (pair[3:] == torch.tensor(BLUE).view(3, 1, 1)).all()


def test_folders_that_are_not_pairs(tmp_path: Path) -> None:
    for index in range(3):
        save(tmp_path / "trainA" / f"horse{index}.png")
        save(tmp_path / "trainB" / f"zebra{index}.png")
    with pytest.raises(DataError, match="3.*3.*trainA/horse0.png.*model=cyclegan"):
        open_plain(tmp_path)
    shutil.rmtree(tmp_path / "trainA")
    make(tmp_path, "A/train")
    save(tmp_path / "B" / "train" / "sub" / "3.png")
    with pytest.raises(DataError, match="A/train.*3.*B/train.*4.*B/train/sub/3.png"):
        open_plain(tmp_path)
    save(tmp_path / "B" / "train" / "sub" / "2.png")
    with pytest.raises(DataError, match="B/train/sub/2.png.*B/train/sub/2.bmp"):
        open_plain(tmp_path)


def test_places_without_pairs(tmp_path: Path) -> None:
    for root in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(NotFoundError, match="train/.*trainA/.*trainB/.*A/train/.*B/train/") as error:
            open_plain(root)
        assert "\n" not in str(error.value)
    save(tmp_path / "trainA" / "a.png")
    with pytest.raises(NotFoundError, match="no pairs"):
        open_plain(tmp_path)
    (tmp_path / "trainB").mkdir()
    with pytest.raises(DataError, match=r"no images in it .*trainB"):
        open_plain(tmp_path)
    make(tmp_path, "aligned")
    with pytest.raises(ConfigError, match="load_size=4.*image_size=8"):
        open_plain(tmp_path, load_size=4)


def test_a_bad_file_is_named_and_takes_its_partner_along(tmp_path: Path) -> None:
    make(tmp_path, "trainA")
    (tmp_path / "trainB" / "sub" / "1.bmp").write_text("<html>")
    with pytest.raises(DataError, match="1.*3.*trainB/sub/1.bmp"):
        open_plain(tmp_path)
    assert all_pairs(open_plain(tmp_path, on_bad_image="skip"))[:, 0, 0, 0].tolist() == [200, 180]


@pytest.mark.parametrize("memory_gb", [4, 0])
def test_grey_files_are_used_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture, memory_gb: float) -> None:
    make(tmp_path, "trainA")
    save(tmp_path / "trainB" / "sub" / "1.bmp", (90, 90, 90), mode="L")
    with caplog.at_level(logging.INFO):
        pair = all_pairs(open_plain(tmp_path, memory_gb=memory_gb))[1]
    assert (pair[3:] == 90).all()
    assert [r.getMessage() for r in caplog.records] == ["1 of 6 images are grey, used as RGB: trainB/sub/1.bmp"]
    caplog.clear()
    with caplog.at_level(logging.INFO):
        assert all_pairs(open_plain(tmp_path, memory_gb=memory_gb, channels=1)).shape == (3, 2, 8, 8)
    assert not caplog.records


def test_wide_and_transparent_files_are_read_as_anywhere(tmp_path: Path) -> None:
    for folder in ("trainA", "trainB"):
        (tmp_path / folder).mkdir()
    Image.fromarray(np.full((8, 8), 257 * 77, dtype=np.uint16)).save(tmp_path / "trainA" / "a.png")
    Image.new("RGBA", (8, 8), (0, 100, 200, 0)).save(tmp_path / "trainB" / "a.png")
    pair = all_pairs(open_plain(tmp_path))[0]
    assert (pair[:3] == 77).all() and (pair[3:] == 255).all()
