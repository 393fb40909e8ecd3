"""The MNIST family: files read in place, downloaded whole, or one clear error."""

from __future__ import annotations

import gzip
import hashlib
import os
import shutil
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gan_cli.data.idx import FILES, SETS, fashion_mnist, kmnist, mnist
from gan_cli.system.errors import DataError, NotFoundError

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
IMAGES = np.random.default_rng(0).integers(0, 256, (30, 28, 28), dtype=np.uint8)
LABELS = np.arange(30, dtype=np.uint8) % 10


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">4B{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def write(root: Path, name: str = "MNIST", *, packed: bool = True) -> Path:
    """Both files of the train part. Returns their folder."""
    folder = root / name / "raw"
    folder.mkdir(parents=True, exist_ok=True)
    for stem, array in (("train-images-idx3-ubyte", IMAGES), ("train-labels-idx1-ubyte", LABELS)):
        if packed:
            (folder / f"{stem}.gz").write_bytes(gzip.compress(idx(array)))
        else:
            (folder / stem).write_bytes(idx(array))
    return folder


def listing(root: Path) -> list[tuple[str, int, int]]:
    return sorted((str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in root.rglob("*"))


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize(("factory", "name"), [(mnist, "MNIST"), (fashion_mnist, "FashionMNIST"), (kmnist, "KMNIST")])
def test_files_are_read_in_place(tmp_path: Path, packed: bool, factory: Any, name: str) -> None:
    folder = write(tmp_path, name, packed=packed)
    before = listing(tmp_path)
    folder.chmod(0o555)
    try:
        dataset = factory(root=str(tmp_path), image_size=28)
    finally:
        folder.chmod(0o755)
    assert listing(tmp_path) == before
    assert torch.equal(dataset.images[:, 0], torch.from_numpy(IMAGES))
    assert dataset.labels.tolist() == LABELS.tolist()
    assert len(dataset.class_names) == 10
    assert dataset.fingerprint == factory(root=str(tmp_path), image_size=28).fingerprint
    padded = factory(root=str(tmp_path))
    assert torch.equal(padded.images[:, 0, 2:30, 2:30], torch.from_numpy(IMAGES))
    assert padded.fingerprint != dataset.fingerprint


def test_the_unpacked_file_is_preferred(tmp_path: Path) -> None:
    folder = write(tmp_path, packed=False)
    (folder / "train-images-idx3-ubyte.gz").write_bytes(b"not read")
    assert len(mnist(root=str(tmp_path))) == 30


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda content: content[:-1], "the header .* asks for"),
        (lambda content: content + b"x", "the header .* asks for"),
        (lambda content: b"\0\0\x0d\x03" + content[4:], "not an IDX file"),
        (lambda content: idx(LABELS), "not an IDX file"),
        (lambda content: b"", "not an IDX file"),
        (lambda content: idx(IMAGES[:0]), "asks for"),
        (lambda content: idx(IMAGES[:20]), "30 labels for 20 images"),
        (lambda content: struct.pack(">4B3I", 0, 0, 8, 3, *[2**32 - 1] * 3), "the header .* asks for"),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, damage: Any, message: str) -> None:
    path = write(tmp_path, packed=False) / "train-images-idx3-ubyte"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError, match=f"{message}.*-ubyte"):
        mnist(root=str(tmp_path))


@pytest.mark.parametrize("content", [b"<html>", b"", gzip.compress(idx(IMAGES))[:-2000], gzip.compress(b"")[:-3]], ids=range(4))
def test_a_damaged_archive_is_named(tmp_path: Path, content: bytes) -> None:
    path = write(tmp_path) / "train-images-idx3-ubyte.gz"
    path.write_bytes(content)
    with pytest.raises(DataError, match="train-images-idx3-ubyte.gz"):
        mnist(root=str(tmp_path))


def test_labels_beyond_the_classes_are_refused(tmp_path: Path) -> None:
    (write(tmp_path, packed=False) / "train-labels-idx1-ubyte").write_bytes(idx(LABELS + 1))
    with pytest.raises(DataError, match="label 10"):
        mnist(root=str(tmp_path))


def publish(web: Any, monkeypatch: pytest.MonkeyPatch, **damaged: bytes) -> None:
    """Put four files on the server and their hashes among the known ones; ``damaged``: contents other than these."""
    contents = [gzip.compress(idx(array)) for array in (IMAGES, LABELS, IMAGES[:9], LABELS[:9])]
    for name, content in zip(FILES, contents, strict=True):
        (web.folder / f"{name}.gz").write_bytes(damaged.get(name.replace("-", "_"), content))
    md5 = [hashlib.md5(content).hexdigest() for content in contents]
    monkeypatch.setitem(SETS, "MNIST", SETS["MNIST"]._replace(servers=(web.url,), md5=md5))


def test_a_download_is_read(tmp_path: Path, web: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    publish(web, monkeypatch)
    root = tmp_path / "new" / "data"
    folder = root / "MNIST" / "raw"
    folder.mkdir(parents=True)
    (folder / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(LABELS[::-1])))
    dataset = mnist(root=str(root))
    assert dataset.labels is not None and dataset.labels.tolist() == LABELS[::-1].tolist()  # the file that was there
    assert sorted(os.listdir(folder)) == sorted(f"{name}.gz" for name in FILES) and os.listdir(root) == ["MNIST"]
    assert len(mnist(root=str(root), split="test", download=False)) == 9
    assert capsys.readouterr().out == ""


def test_another_file_is_refused_and_nothing_is_left(tmp_path: Path, web: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(web, monkeypatch, t10k_labels_idx1_ubyte=b"<html>moved</html>")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(NotFoundError) as error:
        mnist(root="new/data")
    found = hashlib.md5(b"<html>moved</html>").hexdigest()
    for part in ("train-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz", SETS["MNIST"].md5[3], found, "dataset=digits"):
        assert part in str(error.value)
    assert str(tmp_path / "new" / "data" / "MNIST" / "raw") in str(error.value) and "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "mine").mkdir()
    with pytest.raises(NotFoundError):
        mnist(root="mine")
    assert list((tmp_path / "mine").iterdir()) == []


def test_a_download_without_permission_is_refused(tmp_path: Path, web: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(web, monkeypatch)
    with pytest.raises(NotFoundError, match=r"dataset\.download"):
        mnist(root=str(tmp_path / "data"), download=False)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(NotFoundError, match="the download failed"):
        mnist(root=str(tmp_path / "file"))


@pytest.mark.parametrize("name", ["MNIST", "FashionMNIST"])
@pytest.mark.skipif(not (SHARED / "MNIST").is_dir(), reason="the real files are not here")
def test_the_known_hashes_are_those_of_the_real_files(name: str) -> None:
    contents = [(SHARED / name / "raw" / f"{file}.gz").read_bytes() for file in FILES]
    assert [hashlib.md5(content).hexdigest() for content in contents] == list(SETS[name].md5)


@pytest.mark.slow
def test_the_known_hashes_are_those_of_torchvision() -> None:
    from torchvision.datasets import KMNIST, MNIST, FashionMNIST

    for source in (MNIST, FashionMNIST, KMNIST):
        assert dict(source.resources) == dict(zip([f"{name}.gz" for name in FILES], SETS[source.__name__].md5, strict=True))


@pytest.mark.skipif(not (SHARED / "FashionMNIST").is_dir(), reason="the real files are not here")
def test_real_fashion_mnist(tmp_path: Path) -> None:
    shutil.copytree(SHARED / "FashionMNIST", tmp_path / "FashionMNIST")
    before = listing(tmp_path)
    dataset = fashion_mnist(root=str(tmp_path), image_size=28, split="test", download=False)
    assert listing(tmp_path) == before
    assert len(dataset) == 10_000 and torch.bincount(dataset.labels).tolist() == [1000] * 10
    assert dataset.class_names[9] == "Ankle boot" == dataset.class_names[dataset.labels[0]]
