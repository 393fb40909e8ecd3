"""Archives and files made to do harm: no code is run, nothing lands outside the folder, and a refusal leaves nothing."""

from __future__ import annotations

import gzip
import io
import os
import pickle
import shutil
import stat
import struct
import sys
import tarfile
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gan_cli.data.cifar10 import read_batch
from gan_cli.data.download import ensure, unpack
from gan_cli.data.idx import read_idx
from gan_cli.data.npz import npz
from gan_cli.system.errors import DataError, NotFoundError

from .strangers import fresh_peak, peak  # type: ignore[import-not-found]

SOAK = "GAN_CLI_SOAK" in os.environ
ZEROS = bytes(2**24)
SECONDS, GROWTH = 5, 300 * 2**10  # KiB

Members = list[tuple[tarfile.TarInfo, bytes]]


def member(name: str, content: bytes = b"x", **fields: Any) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for key, value in fields.items():
        setattr(info, key, value)
    return info, content


def tar(*members: tuple[tarfile.TarInfo, bytes], format: int = tarfile.GNU_FORMAT) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz", format=format, compresslevel=1) as archive:
        for info, content in members:
            archive.addfile(info, io.BytesIO(content) if info.isreg() else None)
    return file.getvalue()


def zipped(*names: str, content: bytes = b"x", mode: int = 0, compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name in names:
            info = zipfile.ZipInfo(name)
            info.external_attr, info.compress_type = mode << 16, compression
            archive.writestr(info, content)
    return file.getvalue()


def negative_tar() -> bytes:
    header = bytearray(tarfile.TarInfo("set/a.png").tobuf())
    header[124:136] = b"\xff" * 10 + b"\xfe\x00"  # -512
    header[148:156] = b" " * 8
    header[148:156] = f"{sum(header):06o}\0 ".encode()
    return gzip.compress(bytes(header) + bytes(1024))


GOOD = member("set/a.png")
LINK, HARD, FIFO, DEVICE, BLOCK = tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE
TARS: dict[str, Callable[[], bytes]] = {
    "climbs": lambda: tar(GOOD, member("../canary/new")),
    "climbs far": lambda: tar(GOOD, member("set/../../../../canary/new")),
    "climbs and returns": lambda: tar(GOOD, member("set/../set/b.png")),
    "absolute": lambda: tar(GOOD, member("/tmp/gan-cli-canary")),
    "a link out": lambda: tar(GOOD, member("set/link", b"", type=LINK, linkname="../../../canary")),
    "an absolute link": lambda: tar(GOOD, member("set/link", b"", type=LINK, linkname="/etc/passwd")),
    "a link within": lambda: tar(GOOD, member("set/b.png", b"", type=LINK, linkname="a.png")),
    "a file through a link": lambda: tar(member("set/l", b"", type=LINK, linkname="../../../canary"), member("set/l/new")),
    "a folder that is a link": lambda: tar(member("set", b"", type=LINK, linkname="../../canary"), member("set/new")),
    "a chain of links": lambda: tar(
        member("set/x", b"", type=LINK, linkname="."),
        member("set/x/y", b"", type=LINK, linkname="../../.."),
        member("set/y/new"),
    ),
    "a hard link out": lambda: tar(GOOD, member("set/b.png", b"", type=HARD, linkname="../../../canary/file")),
    "a hard link": lambda: tar(GOOD, member("set/b.png", b"", type=HARD, linkname="set/a.png")),
    "a device": lambda: tar(GOOD, member("set/null", b"", type=DEVICE, devmajor=1, devminor=3)),
    "a block device": lambda: tar(GOOD, member("set/disk", b"", type=BLOCK, devmajor=8)),
    "a pipe": lambda: tar(GOOD, member("set/b.png", b"", type=FIFO)),
    "an unknown kind": lambda: tar(GOOD, (lambda m: (m[0], b""))(member("set/b.png", b"", type=b"V"))),
    "twice": lambda: tar(GOOD, GOOD),
    "twice in other words": lambda: tar(GOOD, member("./set//a.png")),
    "a file that is a folder": lambda: tar(member("set"), member("set/a.png")),
    "a long name": lambda: tar(GOOD, member("set/" + "n" * 5000)),
    "a path in a pax header": lambda: tar(
        GOOD, member("x", pax_headers={"path": "../../canary/new"}), format=tarfile.PAX_FORMAT
    ),
    "a negative size": negative_tar,
    "cut off": lambda: tar(*(member(f"set/{k}", os.urandom(5000)) for k in range(9)))[:-9000],
    "a bit off": lambda: (lambda c: c[:2000] + bytes([c[2000] ^ 4]) + c[2001:])(tar(member("set/a.png", os.urandom(9000)))),
    "a page": lambda: b"<html>moved</html>",
    "nothing": lambda: b"",
    "a pickle": lambda: pickle.dumps(Hostile()),
}
ZIPS: dict[str, Callable[[], bytes]] = {
    "climbs": lambda: zipped("set/a.png", "../canary/new"),
    "climbs far": lambda: zipped("set/a.png", "set/../../../../canary/new"),
    "climbs and returns": lambda: zipped("set/a.png", "set/../set/b.png"),
    "climbs backwards": lambda: zipped("set/a.png", "..\\..\\canary\\new"),
    "absolute": lambda: zipped("set/a.png", "/tmp/gan-cli-canary"),
    "a link": lambda: zipped("set/link", content=b"../../../canary", mode=stat.S_IFLNK | 0o777),
    "a folder that is a link": lambda: zipped("set/link/", content=b"../../../canary", mode=stat.S_IFLNK | 0o777),
    "a pipe": lambda: zipped("set/a.png", mode=stat.S_IFIFO | 0o666),
    "a device": lambda: zipped("set/a.png", mode=stat.S_IFCHR | 0o666),
    "twice": lambda: zipped("set/a.png", "set/a.png"),
    "twice in other words": lambda: zipped("set/a.png", "./set//a.png"),
    "a file that is a folder": lambda: zipped("set", "set/a.png"),
    "a long name": lambda: zipped("set/a.png", "set/" + "n" * 5000),
    "a size that lies": lambda: zipped("set/a.png", content=ZEROS).replace(struct.pack("<I", 2**24), struct.pack("<I", 9)),
    "encrypted": lambda: (lambda c: c.replace(b"PK\1\2\24\3\24\0\0", b"PK\1\2\24\3\24\0\1"))(zipped("set/a.png")),
    "a bit off": lambda: zipped("set/a.png", content=b"picture", compression=0).replace(b"picture", b"Picture"),
    "cut off": lambda: zipped("set/a.png", content=os.urandom(9000))[:-3000],
    "a page": lambda: b"<html>moved</html>",
    "nothing": lambda: b"",
    "a tar": lambda: tar(GOOD),
    "a pickle": lambda: pickle.dumps(Hostile()),
}  # fmt: skip


class Hostile:
    def __reduce__(self) -> Any:
        return os.system, ("touch /tmp/gan-cli-canary",)


executed: list[str] = []
EVENTS = {"os.system", "os.exec", "os.fork", "os.posix_spawn", "subprocess.Popen"}


@pytest.fixture(scope="module", autouse=True)
def _audit() -> Iterator[None]:
    watching = True
    sys.addaudithook(lambda event, args: executed.append(event) if watching and event in EVENTS else None)
    yield
    watching = False


def tree(home: Path) -> list[tuple[str, int, int, bytes]]:
    found = [(path, path.lstat()) for path in sorted(home.rglob("*"))]
    return [(str(p), s.st_mode, s.st_mtime_ns, p.read_bytes() if stat.S_ISREG(s.st_mode) else b"") for p, s in found]


def refused(kind: type[Exception], attempt: Callable[[], Any]) -> None:
    """In time, in little memory, in one line, without running anything."""
    executed.clear()
    started, before = time.process_time(), fresh_peak()
    with pytest.raises(kind) as error:
        attempt()
    assert time.process_time() - started < SECONDS * (5 if SOAK else 1)
    assert peak() - before < GROWTH * (5 if SOAK else 1)
    assert "\n" not in str(error.value) and len(str(error.value)) < 700
    assert executed == [] and not Path("/tmp/gan-cli-canary").exists()


def test_there_are_enough() -> None:
    print(f"hostile files: {len(TARS)} tar.gz, {len(ZIPS)} zip, {len(NPZS)} npz, {len(IDXS)} idx, {len(PICKLES)} CIFAR batches")
    assert len(TARS) >= 25 and len(ZIPS) >= 20


HARMLESS = {  # are unpacked: what is bad about the names is dropped, or nothing is bad about them
    ".tar.gz": {
        *("climbs and returns", "absolute", "a link within", "a hard link", "twice", "twice in other words"),
        "a bit off",  # tarfile ends before the checksum; only a known hash shows it
    },
    ".zip": {
        *("climbs", "climbs far", "climbs and returns", "climbs backwards", "absolute", "a link", "a folder that is a link"),
        *("a pipe", "a device", "twice", "twice in other words"),
    },
}


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    ("suffix", "name"), [(".tar.gz", name) for name in TARS] + [(".zip", name) for name in ZIPS], ids=lambda part: part
)
def test_hostile(suffix: str, name: str, tmp_path: Path) -> None:
    (tmp_path / "canary").mkdir()
    (tmp_path / "canary" / "file").write_text("as it was")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "mine.txt").write_text("mine")
    archive = tmp_path / f"served{suffix}"
    archive.write_bytes((TARS if suffix == ".tar.gz" else ZIPS)[name]())
    before = tree(tmp_path)

    def attempt() -> None:
        ensure(
            "set",
            lambda: ["set"],
            lambda staging: [unpack(archive, staging) / "set"],
            folder=tmp_path / "data",
            download=True,
            instead="digits",
        )

    if name in HARMLESS[suffix]:
        executed.clear()
        attempt()
        assert executed == [] and not Path("/tmp/gan-cli-canary").exists()
        made = tmp_path / "data" / "set"
        assert all(path.resolve().is_relative_to(made) and (path.is_file() or path.is_dir()) for path in made.rglob("*"))
        shutil.rmtree(made)
    else:
        refused(NotFoundError, attempt)
    assert tree(tmp_path) == [(*entry[:2], new[2], *entry[3:]) for entry, new in zip(before, tree(tmp_path), strict=True)]


def npy(shape: tuple[int, ...], content: bytes = b"", kind: str = "|u1") -> bytes:
    header = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}".ljust(117).encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + content


def objects() -> bytes:
    file = io.BytesIO()
    np.savez(file, images=np.array([Hostile()], dtype=object))
    return file.getvalue()


NPZS: dict[str, Callable[[], bytes]] = {
    "objects": objects,
    "a pickle": lambda: pickle.dumps(Hostile()),
    "a pickle for an array": lambda: zipped("images.npy", content=pickle.dumps(Hostile())),
    "a header that lies": lambda: zipped("images.npy", content=npy((2**31, 32, 32, 3), b"few")),
    "a header that overflows": lambda: zipped("images.npy", content=npy((2**62, 2**62), b"few")),
    "a negative shape": lambda: zipped("images.npy", content=npy((-1, 32, 32, 3), b"few")),
    "a header that is code": lambda: zipped("images.npy", content=npy((1, 2, 2), b"1234", "|u1'+__import__('os').name+'")),
    "bytes for objects": lambda: zipped("images.npy", content=npy((4,), bytes(32), "|O")),
    "a link": lambda: zipped("images.npy", content=b"/etc/passwd", mode=stat.S_IFLNK | 0o777),
    "one array, no archive": lambda: npy((2**40, 32, 32)),
}


@pytest.mark.parametrize("name", NPZS)
def test_hostile_npz(name: str, tmp_path: Path) -> None:
    (tmp_path / "a.npz").write_bytes(NPZS[name]())
    refused(DataError, lambda: npz(path=str(tmp_path / "a.npz")))


def idx(*shape: int, content: bytes = b"") -> bytes:
    return struct.pack(f">4B{len(shape)}I", 0, 0, 8, len(shape), *shape) + content


IDXS: dict[str, Callable[[], bytes]] = {
    "2^31 images": lambda: gzip.compress(idx(2**31, 28, 28)),
    "2^93 bytes": lambda: gzip.compress(idx(2**31, 2**31, 2**31)),
    "more than it says": lambda: gzip.compress(idx(1, 28, 28)) + gzip.compress(ZEROS) * 640,
    "no images": lambda: gzip.compress(idx(0, 28, 28)),
}


@pytest.mark.parametrize("name", IDXS)
def test_hostile_idx(name: str, tmp_path: Path) -> None:
    (tmp_path / "images.gz").write_bytes(IDXS[name]())
    refused(DataError, lambda: read_idx(tmp_path / "images", dims=3))


def batch(labels: bytes) -> bytes:
    return b"\x80\x02}(U\x04data" + pickle.dumps(np.zeros((1, 3072), np.uint8), 2)[2:-1] + b"U\x06labels" + labels + b"u."


PICKLES = {
    "code": pickle.dumps({b"data": Hostile(), b"labels": []}),
    "code of builtins": b"c__builtin__\neval\n(S'1'\ntR.",
    "an attribute of something allowed": b"cnumpy\ndtype.__base__\n.",
    "a string of 1 TB": b"\x80\x04\x8e" + struct.pack("<Q", 2**40) + b"few.",
    "lists in themselves": batch(b"]q\x00(" + b"h\x00" * 9 + b"e"),
    "ten billion labels": batch(
        b"(K\x01lq\x00" + b"".join(b"0(" + bytes([104, k]) * 10 + b"lq" + bytes([k + 1]) for k in range(10))
    ),
    "an array of 1 TB": b"\x80\x02cnumpy\nndarray\n(\x8a\x06\x00\x00\x00\x00\x00\x01tR.",
    "a page": b"<html>",
    "compressed": zlib.compress(b"x"),
}  # fmt: skip


@pytest.mark.parametrize("name", PICKLES)
def test_hostile_cifar_batch(name: str) -> None:
    refused(DataError, lambda: read_batch(PICKLES[name], where="data_batch_1"))
