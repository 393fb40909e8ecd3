"""Two folders of images that are no pairs."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch
from PIL import Image

from gan_cli.data.batches import Batches
from gan_cli.data.image_files import StreamedImages
from gan_cli.data.unpaired import unpaired
from gan_cli.system.errors import DataError, NotFoundError


def fill(folder: Path, count: int, value: int, mode: str = "RGB") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        Image.new("RGB", (10, 8), (value + index,) * 3).convert(mode).save(folder / f"{value}_{index}.png")


def values(dataset: object, stream: int) -> list[int]:
    part = dataset.streams[stream][1]  # type: ignore[attr-defined]
    return part.batch(torch.arange(len(part)))[:, 0, 0, 0].tolist()


@pytest.mark.parametrize("layout", ["{split}{domain}", "{domain}/{split}"])
def test_two_domains(tmp_path: Path, layout: str) -> None:
    for split, counts in (("train", (2, 5)), ("test", (1, 2))):
        for domain, count, value in zip("AB", counts, (10, 100), strict=True):
            fill(tmp_path / layout.format(split=split, domain=domain), count, value)
    dataset = unpaired(root=str(tmp_path), image_size=8, load_size=9)
    assert not dataset.paired and len(dataset) == 5 and [keys for keys, _ in dataset.streams] == [("a",), ("b",)]
    assert values(dataset, 0) == [10, 11] and values(dataset, 1) == [100, 101, 102, 103, 104]
    assert [part.shape for _, part in dataset.streams] == [(3, 9, 9)] * 2
    held_out = dataset.held_out()
    assert held_out is not None and values(held_out, 0) == [10] and values(held_out, 1) == [100, 101]
    assert [part.shape for _, part in held_out.streams] == [(3, 8, 8)] * 2
    assert unpaired(root=str(tmp_path), image_size=8, load_size=9, held_out=None).held_out() is None


def test_large_domains_are_decoded_as_they_are_used(tmp_path: Path) -> None:
    fill(tmp_path / "trainA", 3, 10)
    fill(tmp_path / "trainB", 5, 100)
    memory, streamed = (unpaired(root=str(tmp_path), image_size=8, load_size=9, memory_gb=gb) for gb in (4, 0))
    assert all(isinstance(part, StreamedImages) for _, part in streamed.streams) and memory.fingerprint == streamed.fingerprint
    one = Batches(memory, batch_size=2, seed=0, device=torch.device("cpu"), position=4)
    other = Batches(streamed, batch_size=2, seed=0, device=torch.device("cpu"), position=4, workers=2)
    for _ in range(5):
        expected, batch = next(one), next(other)
        assert all(torch.equal(expected[key], batch[key]) for key in ("a", "b"))
    other.close()


def test_places_without_domains(tmp_path: Path) -> None:
    fill(tmp_path / "trainA", 1, 0)
    with pytest.raises(NotFoundError, match="'train'.*trainA/.*trainB/.*A/train/.*B/train/"):
        unpaired(root=str(tmp_path))
    (tmp_path / "trainB").mkdir()
    with pytest.raises(DataError, match="no images in it .*trainB"):
        unpaired(root=str(tmp_path))
    fill(tmp_path / "trainB", 2, 0)
    (tmp_path / "trainB" / "0_1.png").write_text("<html>")
    with pytest.raises(DataError, match="1.*2.*trainB/0_1.png.*on_bad_image=skip"):
        unpaired(root=str(tmp_path))
    assert len(unpaired(root=str(tmp_path), on_bad_image="skip").streams[1][1]) == 1
    with pytest.raises(NotFoundError, match="'val'"):
        unpaired(root=str(tmp_path), held_out="val")


def test_grey_files_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    fill(tmp_path / "trainA", 4, 0, "L")
    fill(tmp_path / "trainB", 2, 0)
    with caplog.at_level(logging.INFO):
        unpaired(root=str(tmp_path), image_size=8, load_size=None)
    expected = "4 of 4 images are grey, used as RGB: trainA/0_0.png, trainA/0_1.png, trainA/0_2.png, ..."
    assert [record.getMessage() for record in caplog.records if record.levelname == "INFO"] == [expected]
