"""CMP facades and the sets of CycleGAN: found where they are, or downloaded whole from a server of our own."""

from __future__ import annotations

import hashlib
import io
import logging
import os
import tarfile
import zipfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from gan_cli.data import facades as facades_module
from gan_cli.data import unpaired as unpaired_module
from gan_cli.data.dataset import TranslationDataset
from gan_cli.data.facades import facades, facades_unpaired
from gan_cli.data.unpaired import cyclegan_set
from gan_cli.system.errors import ConfigError, DataError, NotFoundError

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
COUNTS = {"train": 4, "val": 2, "test": 3}
PLAIN: dict[str, Any] = {"image_size": 16, "load_size": None, "flip": False}


def picture(index: int) -> bytes:
    """A red photo beside a blue map."""
    image = Image.new("RGB", (32, 16), (200 - 10 * index, 0, 0))
    image.paste((0, 0, 200), (16, 0, 32, 16))
    content = io.BytesIO()
    image.save(content, "PNG")
    return content.getvalue()


def members(counts: dict[str, int] = COUNTS) -> dict[str, bytes]:
    return {f"facades/{split}/{index}.png": picture(index) for split, count in counts.items() for index in range(count)}


def tar(contents: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as archive:
        for name, content in contents.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return file.getvalue()


def packed(contents: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    return file.getvalue()


def write(root: Path, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)


def listing(root: Path) -> list[tuple[str, int, int]]:
    return sorted((str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in root.rglob("*"))


def stream(dataset: TranslationDataset, k: int = 0) -> torch.Tensor:
    part = dataset.streams[k][1]
    return part.batch(torch.arange(len(part)))


@pytest.fixture
def served(web: Any, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose files are what the servers of both papers have."""
    for module in (facades_module, unpaired_module):
        monkeypatch.setattr(module, "SERVERS", (web.url,))
    monkeypatch.setattr(facades_module, "COUNTS", COUNTS)
    return web.folder


def publish(served: Path, name: str, content: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a zip file on the server and its hash among the known ones."""
    write(served, {f"{name}.zip": content})
    monkeypatch.setitem(unpaired_module.SHA256, name, hashlib.sha256(content).hexdigest())


@pytest.mark.parametrize("form", ["folder", "facades/facades.tar.gz", "facades.tar.gz"])
def test_facades_are_read_where_they_are(tmp_path: Path, form: str) -> None:
    write(tmp_path, members() if form == "folder" else {form: tar(members())})
    before = listing(tmp_path)
    dataset = facades(root=str(tmp_path), **PLAIN)
    images = stream(dataset)
    assert images[:, 2, 8, 8].tolist() == [200] * 4 and images[:, 3, 8, 8].tolist() == [200, 190, 180, 170]
    held_out = dataset.held_out()
    assert held_out is not None and len(held_out) == 2
    photos = facades_unpaired(root=str(tmp_path), **PLAIN)
    assert stream(photos, 0)[:, 0, 8, 8].tolist() == [200, 190, 180, 170] and (stream(photos, 1)[:, 2] == 200).all()
    assert len(facades_unpaired(root=str(tmp_path), split="val", **PLAIN).held_out() or []) == 3
    assert torch.equal(stream(facades(root=str(tmp_path), direction="a2b", **PLAIN))[:, :3], images[:, 3:])
    assert listing(tmp_path) == before


def test_both_forms_are_the_same_data(tmp_path: Path) -> None:
    write(tmp_path / "a", members())
    write(tmp_path / "b", {"facades.tar.gz": tar(members())})
    assert len({facades(root=str(tmp_path / name), **PLAIN).fingerprint for name in "ab"}) == 1


def test_facades_without_a_held_out_part(tmp_path: Path) -> None:
    write(tmp_path, members({"train": 2}))
    assert facades(root=str(tmp_path), **PLAIN).held_out() is None


@pytest.mark.parametrize("content", [b"", b"<html>", tar(members())[:200], tar({"other/train/1.png": picture(0)})])
def test_a_damaged_archive_is_named(tmp_path: Path, content: bytes) -> None:
    write(tmp_path, {"facades.tar.gz": content})
    with pytest.raises(DataError, match=r"facades\.tar\.gz"):
        facades(root=str(tmp_path), **PLAIN)


def test_facades_are_downloaded(
    tmp_path: Path, served: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    content = tar(members())
    write(served, {"facades.tar.gz": content})
    root = tmp_path / "new" / "data"
    dataset = facades(root=str(root), **PLAIN)
    assert len(dataset) == 4 and len(dataset.held_out() or []) == 2
    assert os.listdir(root) == ["facades"] and sorted(os.listdir(root / "facades")) == ["test", "train", "val"]
    assert len(list((root / "facades").rglob("*.png"))) == 9
    (served / "facades.tar.gz").unlink()
    assert facades(root=str(root), **PLAIN).fingerprint == dataset.fingerprint
    (warning,) = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert "facades.tar.gz is not verified" in warning and hashlib.sha256(content).hexdigest() in warning
    assert capsys.readouterr() == ("", "")


def test_a_download_leaves_what_is_there(tmp_path: Path, served: Path) -> None:
    write(served, {"facades.tar.gz": tar(members())})
    write(tmp_path, {"facades/val/mine.png": picture(9), "facades/notes.txt": b"mine"})
    (tmp_path / "facades" / "train").mkdir()
    dataset = facades(root=str(tmp_path), **PLAIN)
    assert len(dataset) == 4 and len(dataset.held_out() or []) == 1
    assert sorted(os.listdir(tmp_path / "facades")) == ["notes.txt", "test", "train", "val"]


def climbing_tar() -> bytes:
    return tar(members() | {"../../climbed.png": picture(0)})


BAD = {
    "not there": (None, "404"),
    "a page": (b"<html>moved</html>", "Not a gzipped file"),
    "cut off in the file": (tar(members())[:-300], "failed: "),
    "too few": (tar(members(COUNTS | {"val": 1})), "1 images in facades/val of the archive, not 2"),
    "another set": (tar({"maps/train/1.png": picture(0)}), "0 images in facades/train"),
    "climbing out": (climbing_tar(), "climbed.png"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_failed_download_of_facades_leaves_nothing(tmp_path: Path, served: Path, kind: str) -> None:
    content, reason = BAD[kind]
    if content is not None:
        write(served, {"facades.tar.gz": content})
    with pytest.raises(NotFoundError) as error:
        facades(root=str(tmp_path / "new" / "data"), **PLAIN)
    text = str(error.value)
    for part in ("facades is missing train and the download failed", reason, str(tmp_path), "dataset=digits_paired"):
        assert part in text
    assert "\n" not in text
    assert list(tmp_path.iterdir()) == []


def test_a_connection_that_breaks_leaves_nothing(tmp_path: Path, served: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(served, {"facades.tar.gz": tar(members())})
    monkeypatch.setattr(facades_module, "SERVERS", [f"{facades_module.SERVERS[0]}/short"])
    with pytest.raises(NotFoundError, match=r"IncompleteRead.*\d+.*\d+"):
        facades(root=str(tmp_path / "data"), **PLAIN)
    monkeypatch.setattr(facades_module, "SERVERS", ["http://127.0.0.1:9"])
    with pytest.raises(NotFoundError, match="Connection refused"):
        facades_unpaired(root=str(tmp_path / "data"), **PLAIN)
    with pytest.raises(NotFoundError, match="dataset.download.*dataset=digits_unpaired"):
        facades_unpaired(root=str(tmp_path / "data"), download=False, **PLAIN)
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_size_is_refused_before_the_download(tmp_path: Path, served: Path) -> None:
    for make in (facades, facades_unpaired, partial(cyclegan_set, name="maps")):
        with pytest.raises(ConfigError, match="load_size=15 is smaller"):
            make(root=str(tmp_path), image_size=16, load_size=15)
    assert list(tmp_path.iterdir()) == []


def domains(name: str = "horse2zebra", parts: str = "trainA trainB testA testB") -> dict[str, bytes]:
    return {f"{name}/{part}/{index}.png": picture(index) for part in parts.split() for index in range(2)}


def test_sets_of_cyclegan_are_found_or_downloaded(tmp_path: Path, served: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(served, "maps", packed(domains("maps")), monkeypatch)
    write(tmp_path, domains())
    before = listing(tmp_path)
    assert len(cyclegan_set(name="horse2zebra", root=str(tmp_path), **PLAIN)) == 2
    assert listing(tmp_path) == before
    dataset = cyclegan_set(name="maps", root=str(tmp_path), **PLAIN)
    assert [len(part) for _, part in dataset.streams] == [2, 2] and len(dataset.held_out() or []) == 2
    assert sorted(os.listdir(tmp_path)) == ["horse2zebra", "maps"]
    assert sorted(os.listdir(tmp_path / "maps")) == ["testA", "testB", "trainA", "trainB"]


BAD_ZIPS = {"not there": None, "a page": b"<html>moved</html>", "another set": packed(domains("maps", "trainA"))}


@pytest.mark.parametrize("kind", BAD_ZIPS)
def test_a_failed_download_of_a_set_leaves_nothing(tmp_path: Path, served: Path, kind: str) -> None:
    content = BAD_ZIPS[kind]
    if content is not None:
        write(served, {"maps.zip": content})
    with pytest.raises(NotFoundError) as error:
        cyclegan_set(name="maps", root=str(tmp_path / "data"), **PLAIN)
    reasons = ["404"] if content is None else ["maps.zip", unpaired_module.SHA256["maps"], hashlib.sha256(content).hexdigest()]
    for part in ("maps is missing trainA, trainB and the download failed", *reasons, "dataset=digits_unpaired"):
        assert part in str(error.value)
    assert "\n" not in str(error.value) and list(tmp_path.iterdir()) == []


def test_cityscapes_is_not_downloaded(tmp_path: Path, served: Path) -> None:
    with pytest.raises(NotFoundError, match="cityscapes is missing trainA.*licence"):
        cyclegan_set(name="cityscapes", root=str(tmp_path / "data"), **PLAIN)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not (SHARED / "facades").is_dir(), reason="the real files are not here")
def test_real_facades() -> None:
    dataset = facades(root=str(SHARED), image_size=64, load_size=None, download=False, split="val")
    assert len(dataset) == 100 and len(dataset.held_out() or []) == 106
    images = stream(dataset).numpy()
    # A map has few colours, so it has more of saturated blue than a photo.
    blue = [(np.abs(images[:, k : k + 3] - np.array([0, 60, 255]).reshape(3, 1, 1)).sum(1) < 120).mean() for k in (0, 3)]
    assert blue[0] > 0.3 > 0.02 > blue[1]
