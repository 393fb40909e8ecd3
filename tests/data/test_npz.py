"""Images and labels from one NumPy archive."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gan_cli.data.npz import npz
from gan_cli.system.errors import DataError, NotFoundError

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
RGB = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), dtype=np.uint8)
LABELS = np.array([0, 1, 2, 0, 1, 2])
PLANES = torch.from_numpy(RGB).permute(0, 3, 1, 2)


@pytest.fixture
def save(tmp_path: Path) -> Any:
    def write(*arrays: np.ndarray, **named: np.ndarray) -> str:
        np.savez(tmp_path / "set.npz", *arrays, **named)
        return str(tmp_path / "set.npz")

    return write


@pytest.mark.parametrize("names", [("images", "labels"), ("x_train", "y_train"), ("x", "y"), ("data", "labels"), None])
def test_names_are_found(save: Any, names: Any) -> None:
    path = save(RGB, LABELS) if names is None else save(**{names[0]: RGB, names[1]: LABELS})
    dataset = npz(path=path, image_size=8)
    assert torch.equal(dataset.images, PLANES)
    assert dataset.labels is not None and dataset.labels.tolist() == LABELS.tolist()
    assert dataset.class_names == ["0", "1", "2"]


def test_names_can_be_given(save: Any) -> None:
    path = save(images=RGB[:1], other=RGB, labels=LABELS[:1], classes=LABELS[:, np.newaxis], class_names=list("abc"))
    dataset = npz(path=path, images="other", labels="classes", image_size=8, num_classes=3)
    assert len(dataset) == 6 and dataset.class_names == ["a", "b", "c"]
    assert npz(path=save(images=RGB), image_size=8).labels is None


@pytest.mark.parametrize(
    "images",
    [
        RGB,
        RGB.transpose(0, 3, 1, 2),
        RGB / np.float64(255),
        (RGB / 127.5 - 1).astype(np.float32),
        np.concatenate([RGB, np.full((6, 8, 8, 1), 255, np.uint8)], axis=-1),
    ],
)
def test_layouts_and_ranges(save: Any, images: np.ndarray) -> None:
    assert torch.equal(npz(path=save(images=images), image_size=8).images, PLANES)


def test_grey_and_ambiguous_shapes(save: Any) -> None:
    grey = npz(path=save(images=RGB[..., 0]), image_size=8, channels=1)
    assert torch.equal(grey.images[:, 0], torch.from_numpy(RGB[..., 0]))
    assert torch.equal(npz(path=save(images=RGB[..., :1]), image_size=8).images, grey.images.expand(-1, 3, -1, -1))
    both = RGB[:, :3]  # (6, 3, 8, 3): the last axis is the channels
    assert npz(path=save(images=both), image_size=8, fit="crop").images.shape == (6, 3, 8, 8)
    whole = npz(path=save(images=both), image_size=8, fit="pad").images
    assert torch.equal(whole[:, :, 2:5], torch.from_numpy(both).permute(0, 3, 1, 2))


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"images": RGB / 1.0}, "not in"),
        ({"images": np.full((2, 8, 8), np.nan)}, "image 0 has values that are not numbers"),
        ({"images": RGB.astype(np.int64)}, "type int64"),
        ({"images": RGB[0, 0]}, r"shape \(8, 3\)"),
        ({"images": np.uint8(3)}, r"shape \(\)"),
        ({"images": np.zeros((2, 8, 8, 2), np.uint8)}, r"\(2, 8, 8, 2\)"),
        ({"images": RGB[:0]}, "hold nothing"),
        ({"images": np.array([{}], dtype=object)}, "not a readable"),
        ({"pictures": RGB, "others": RGB}, "no array 'images' .* one of: pictures, others"),
        ({"images": RGB, "labels": LABELS[:5]}, r"labels of shape \(5,\) for 6 images"),
        ({"images": RGB, "labels": LABELS - 1}, "from -1 to 1"),
        ({"images": RGB, "labels": LABELS / 2}, "type float64"),
    ],
)
def test_what_cannot_be_used_is_named(save: Any, arrays: Any, message: str) -> None:
    with pytest.raises(DataError, match=f"{message}.*set.npz|set.npz.*{message}|{message}"):
        npz(path=save(**arrays), image_size=8)


def test_settings_that_do_not_match_are_refused(save: Any) -> None:
    path = save(images=RGB, labels=LABELS)
    with pytest.raises(DataError, match="0.*2.*num_classes=2"):
        npz(path=path, num_classes=2)
    with pytest.raises(DataError, match="'x'.*dataset.images"):
        npz(path=path, images="x")
    with pytest.raises(DataError, match="'x'.*dataset.labels"):
        npz(path=path, labels="x")
    with pytest.raises(DataError, match="there are no labels"):
        npz(path=save(images=RGB), num_classes=2)


def test_files_that_are_no_archives(tmp_path: Path, save: Any) -> None:
    with pytest.raises(NotFoundError, match="no such file"):
        npz(path=str(tmp_path / "nothing.npz"))
    whole = Path(save(images=RGB)).read_bytes()
    np.save(tmp_path / "array.npy", RGB)
    for content in (
        b"",
        b"<html>",
        whole[:-30],
        whole[:300] + b"x" + whole[301:],
        (tmp_path / "array.npy").read_bytes(),
    ):
        (tmp_path / "bad.npz").write_bytes(content)
        with pytest.raises(DataError, match=".npz"):
            npz(path=str(tmp_path / "bad.npz"))


@pytest.mark.skipif(not (SHARED / "cifar10").is_dir(), reason="the real file is not here")
def test_real_cifar10_subset() -> None:
    path = SHARED / "cifar10" / "cifar10_12k_train_2k_test.npz"
    dataset = npz(path=str(path), images="x_test", labels="y_test", num_classes=10)
    assert len(dataset) == 2000 and dataset.class_names[6] == "frog"
