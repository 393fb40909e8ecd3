"""CIFAR-10 from its archive or its folder, without running what a pickle asks for."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gan_cli.data import cifar10 as cifar10_module
from gan_cli.data.cifar10 import ARCHIVE, FILES, FOLDER, cifar10
from gan_cli.system.errors import DataError, NotFoundError

PIXELS = np.random.default_rng(0).integers(0, 256, (50, 3072), dtype=np.uint8)
LABELS = [index % 10 for index in range(50)]


def contents() -> dict[str, bytes]:
    batches = {}
    for index, name in enumerate(FILES["train"] + FILES["test"]):
        part = slice(index * 10, index * 10 + 10) if name != "test_batch" else slice(0, 10)
        batches[name] = pickle.dumps({b"data": PIXELS[part], b"labels": LABELS[part]}, protocol=4)
    return batches


def write_archive(root: Path, files: dict[str, bytes]) -> None:
    with tarfile.open(root / ARCHIVE, "w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(f"{FOLDER}/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


def write_folder(root: Path, files: dict[str, bytes]) -> None:
    (root / FOLDER).mkdir()
    for name, content in files.items():
        (root / FOLDER / name).write_bytes(content)


@pytest.mark.parametrize("write", [write_archive, write_folder])
def test_both_forms_are_read_in_place(tmp_path: Path, write: Any) -> None:
    write(tmp_path, contents())
    before = sorted(tmp_path.rglob("*"))
    dataset = cifar10(root=str(tmp_path), download=False)
    assert sorted(tmp_path.rglob("*")) == before
    assert torch.equal(dataset.images, torch.from_numpy(PIXELS).reshape(50, 3, 32, 32))
    assert dataset.labels is not None and dataset.labels.tolist() == LABELS
    assert dataset.class_names[6] == "frog"
    assert len(cifar10(root=str(tmp_path), split="test")) == 10


def test_a_python_2_pickle_of_an_array_is_read(tmp_path: Path) -> None:
    files = contents()
    # Protocol 2 with byte strings, and the old name of NumPy's function, as in the original files.
    files["test_batch"] = (
        b"\x80\x02}q\x00(U\x04dataq\x01cnumpy.core.multiarray\n_reconstruct\nq\x02cnumpy\nndarray\nq\x03K\x00\x85U\x01b\x87R"
        b"(K\x01K\x01M\x00\x0c\x86cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        b"\x89T\x00\x0c\x00\x00" + bytes(3072) + b"tbU\x06labels]K\x07au."
    )
    write_folder(tmp_path, files)
    dataset = cifar10(root=str(tmp_path), split="test")
    assert dataset.labels is not None and dataset.labels.tolist() == [7] and dataset.images.sum() == 0


class Hostile:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("write", [write_archive, write_folder])
def test_a_hostile_pickle_is_refused(tmp_path: Path, write: Any) -> None:
    target = tmp_path / "owned"
    files = contents() | {"data_batch_3": pickle.dumps({b"data": Hostile(target), b"labels": []})}
    write(tmp_path, files)
    with pytest.raises(DataError, match="mkdir.*data_batch_3"):
        cifar10(root=str(tmp_path))
    assert not target.exists()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"<html>",
        pickle.dumps([1, 2]),
        pickle.dumps({b"data": PIXELS}),
        pickle.dumps({b"data": PIXELS[:, :100], b"labels": LABELS}, protocol=4),
        pickle.dumps({b"data": PIXELS, b"labels": LABELS[:-1]}, protocol=4),
        pickle.dumps({b"data": PIXELS, b"labels": [10] * 50}, protocol=4),
        pickle.dumps({b"data": PIXELS.astype(np.float32), b"labels": LABELS}, protocol=4),
    ],
)
def test_a_damaged_batch_is_named(tmp_path: Path, content: bytes) -> None:
    write_folder(tmp_path, contents() | {"data_batch_2": content})
    with pytest.raises(DataError, match="data_batch_2"):
        cifar10(root=str(tmp_path))


def test_a_damaged_archive_is_named(tmp_path: Path) -> None:
    write_archive(tmp_path, {name: content for name, content in contents().items() if name != "data_batch_5"})
    with pytest.raises(DataError, match=f"{ARCHIVE}: data_batch_5"):
        cifar10(root=str(tmp_path))
    whole = (tmp_path / ARCHIVE).read_bytes()
    for content in (whole[: len(whole) // 2], b"<html>", b""):
        (tmp_path / ARCHIVE).write_bytes(content)
        with pytest.raises(DataError, match=ARCHIVE):
            cifar10(root=str(tmp_path))


def test_download(tmp_path: Path, web: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    write_archive(web.folder, contents())
    archive = (web.folder / ARCHIVE).read_bytes()
    monkeypatch.setattr(cifar10_module, "SERVER", web.url)
    with pytest.raises(NotFoundError) as error:
        cifar10(root=str(tmp_path / "data"))
    found = hashlib.md5(archive).hexdigest()
    assert all(part in str(error.value) for part in ("data_batch_1", ARCHIVE, cifar10_module.HASH, found, "dataset=digits"))
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(cifar10_module, "HASH", f"md5:{found}")
    assert len(cifar10(root=str(tmp_path / "data"))) == 50
    assert os.listdir(tmp_path / "data") == [ARCHIVE]


@pytest.mark.slow
def test_the_known_hash_is_that_of_torchvision() -> None:
    from torchvision.datasets import CIFAR10

    assert (f"{cifar10_module.SERVER}/{ARCHIVE}", cifar10_module.HASH) == (CIFAR10.url, f"md5:{CIFAR10.tgz_md5}")
