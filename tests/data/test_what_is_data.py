"""What counts as data in a folder, and what is said of the rest: one line for each decision."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from gan_cli.data.image_folder import image_folder
from gan_cli.images import write_gif, write_png
from gan_cli.system.errors import ConfigError, DataError

SMALL = {"image_size": 16, "memory_gb": 1.0}


def save(path: Path, level: int = 100, mode: str = "RGB", size: int = 16, **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(level)
    bands = {"RGB": 3, "RGBA": 4, "L": 1}[mode]
    pixels = rng.integers(0, 2 * level, (size, size, bands), dtype=np.uint8)
    Image.fromarray(pixels[..., 0] if bands == 1 else pixels).save(path, **options)


def read(folder: Path, caplog: pytest.LogCaptureFixture, **options: Any) -> tuple[Any, str]:
    caplog.clear()
    with caplog.at_level("INFO"):
        dataset = image_folder(root=str(folder), **(SMALL | options))
    return dataset, "\n".join(record.getMessage() for record in caplog.records)


@pytest.fixture(autouse=True)
def heard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.getLogger("gan_cli"), "propagate", True)


@pytest.mark.parametrize("memory_gb", [0.0, 1.0])
def test_what_gan_cli_wrote_is_no_training_image(tmp_path: Path, caplog: pytest.LogCaptureFixture, memory_gb: float) -> None:
    save(tmp_path / "a" / "photo.png")
    before, _ = read(tmp_path, caplog, memory_gb=memory_gb)
    picture = torch.full((3, 16, 16), 90, dtype=torch.uint8)
    for name in ("outputs/run/samples/step-00000001.png", "outputs/run/generated/x/00000.png", "grid.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        write_png(tmp_path / name, picture)
    write_gif(tmp_path / "outputs" / "walk.gif", [picture, 255 - picture])
    dataset, said = read(tmp_path, caplog, memory_gb=memory_gb)
    assert len(dataset) == 1
    assert dataset.class_names == ["a"]
    assert dataset.fingerprint == before.fingerprint
    assert re.search(r"\b4\b.*gan_cli", said)


def test_samples_are_measured_and_pictures_of_them_are_not(tmp_path: Path) -> None:
    picture = torch.full((3, 16, 16), 90, dtype=torch.uint8)
    for name in ("00000.png", "translated photo.png", "grid.png", "sheets/000.png", "step-00000500.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        write_png(tmp_path / name, picture)
    assert len(image_folder(root=str(tmp_path), own_files=True, **SMALL)) == 2
    with pytest.raises(DataError, match="gan_cli"):
        image_folder(root=str(tmp_path), **SMALL)


def test_other_files_are_counted_by_suffix(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("a.png", "b.PNG", "c.jpeg"):
        save(tmp_path / name)
    save(tmp_path / "d.jfif", format="JPEG")
    for name in ("e.txt", "f.txt", "README", ".hidden.txt"):
        (tmp_path / name).write_text("x")
    dataset, said = read(tmp_path, caplog)
    assert len(dataset) == 4
    assert "2 .txt" in said
    assert "1 README" in said
    assert "1 .jfif" in said and "1 .jpeg" in said


def test_folders_of_parts_are_no_classes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for part in ("train", "test"):
        for name in ("cat", "dog"):
            save(tmp_path / part / name / "0.png")
    dataset, said = read(tmp_path, caplog)
    assert dataset.class_names == ["cat", "dog"]
    assert len(dataset) == 2
    assert str(tmp_path / "test") in said


def test_an_image_beside_class_folders_has_one_answer(tmp_path: Path) -> None:
    for name in ("a/0.png", "b/0.png", "stray.png"):
        save(tmp_path / name)
    with pytest.raises(DataError, match=r"stray\.png"):
        image_folder(root=str(tmp_path), num_classes=2, **SMALL)
    (tmp_path / "stray.png").rename(tmp_path / "a" / "stray.png")
    assert image_folder(root=str(tmp_path), num_classes=2, **SMALL).class_names == ["a", "b"]


def test_decisions_about_pixels_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    save(tmp_path / "transparent.png", mode="RGBA")
    frames = [Image.new("RGB", (16, 16), (60 * k, 0, 0)) for k in range(3)]
    frames[0].save(tmp_path / "animation.gif", save_all=True, append_images=frames[1:])
    save(tmp_path / "tiny.png", size=4)
    save(tmp_path / "grey.png", mode="L")
    _, said = read(tmp_path, caplog)
    for name in ("transparent.png", "animation.gif", "tiny.png", "grey.png"):
        assert name in said
    assert "dataset.background" in said


def test_the_background_of_transparent_pixels(tmp_path: Path) -> None:
    Image.new("RGBA", (16, 16), (0, 0, 0, 0)).save(tmp_path / "a.png")
    indices = torch.tensor([0])
    for colour, level in (("white", 255), ("black", 0), ("#ff8000", 255)):
        assert int(image_folder(root=str(tmp_path), background=colour, **SMALL).batch(indices)[0, 0, 0, 0]) == level
    with pytest.raises(ConfigError) as raised:
        image_folder(root=str(tmp_path), background="blackish", **SMALL)
    assert raised.value.where == "dataset.background"


@pytest.mark.parametrize(("factor", "word"), [(16, "black"), (257, "")])
def test_values_that_use_a_part_of_the_range_of_their_format(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, factor: int, word: str
) -> None:
    levels = (np.mgrid[:16, :16][0] * 16 * factor).astype(np.uint16)
    Image.fromarray(levels).save(tmp_path / "wide.png")
    _, said = read(tmp_path, caplog)
    assert ("nearly black" in said) == bool(word)


def test_a_run_names_its_classes_and_keeps_the_lines_in_its_log(tmp_path: Path, gan: Callable[..., Any]) -> None:
    for name in ("cat/0.png", "cat/1.png", "dog/0.png", "notes.txt"):
        (save(tmp_path / "d" / name) if name.endswith("png") else (tmp_path / "d" / name).write_text("x"))
    tiny = ["model.generator.width=8", "model.discriminator.width=8", "total_steps=1", "batch_size=2", "threads=1"]
    data = ["dataset=image_folder", "dataset.root=d", "dataset.image_size=16", "dataset.num_classes=2", "model=cdcgan"]
    result = gan("gan-train", *data, *tiny, "run_dir=r")
    assert result.code == 0, result.err
    for text in (result.err, (tmp_path / "r" / "train.log").read_text()):
        assert "cat (2), dog (1)" in text
        assert "1 .txt" in text


def test_a_batch_of_one_is_refused_where_batch_norm_needs_two(gan: Callable[..., Any]) -> None:
    result = gan("gan-train", "model=infogan", "batch_size=1", "total_steps=1", "threads=1")
    assert result.code == 2
    assert "batch_size" in result.error.where
