"""Downloads: the right file, or one clear error and nothing left."""

from __future__ import annotations

import hashlib
import io
import logging
import os
import tarfile
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from gan_cli.data.download import ensure, fetch, read_tar, unpack
from gan_cli.system.errors import DataError, NotFoundError

CONTENT = b"the right file"
SHA256, MD5 = hashlib.sha256(CONTENT).hexdigest(), f"md5:{hashlib.md5(CONTENT).hexdigest()}"
REFUSED = "http://127.0.0.1:9"  # a port that nothing listens on


@pytest.mark.parametrize("known_hash", [SHA256, MD5])
def test_the_right_file_is_kept(web: Any, tmp_path: Path, known_hash: str, capfd: pytest.CaptureFixture[str]) -> None:
    (web.folder / "a.bin").write_bytes(CONTENT)
    path = fetch("b.bin", [f"{web.url}/a.bin"], known_hash, tmp_path)
    assert path == tmp_path / "b.bin" and path.read_bytes() == CONTENT and os.listdir(tmp_path) == ["b.bin"]
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("known_hash", [SHA256, MD5])
def test_another_file_is_refused(web: Any, tmp_path: Path, known_hash: str) -> None:
    (web.folder / "a.bin").write_bytes(b"another file")
    found = hashlib.new("md5" if known_hash == MD5 else "sha256", b"another file").hexdigest()
    with pytest.raises(OSError, match=f"a\\.bin.*{known_hash}.*{found}") as error:
        fetch("a.bin", [f"{web.url}/a.bin"], known_hash, tmp_path)
    assert "\n" not in str(error.value) and os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("path", "reason"), [("/missing.bin", "404"), ("/short/a.bin", r"IncompleteRead.*\d+"), (None, "Connection refused")]
)
def test_a_server_that_fails(web: Any, tmp_path: Path, path: str | None, reason: str) -> None:
    (web.folder / "a.bin").write_bytes(CONTENT)
    with pytest.raises(OSError, match=reason) as error:
        fetch("a.bin", [REFUSED if path is None else web.url + path], SHA256, tmp_path)
    assert "\n" not in str(error.value) and os.listdir(tmp_path) == []


def test_the_next_server_is_tried(web: Any, tmp_path: Path) -> None:
    (web.folder / "a.bin").write_bytes(CONTENT)
    (web.folder / "wrong.bin").write_bytes(b"another file")
    urls = [f"{REFUSED}/a.bin", f"{web.url}/wrong.bin", f"{web.url}/a.bin"]
    assert fetch("a.bin", urls, SHA256, tmp_path).read_bytes() == CONTENT
    with pytest.raises(OSError, match=f"{REFUSED}.*wrong.bin"):
        fetch("b.bin", urls[:2], SHA256, tmp_path)


def test_a_file_without_a_published_hash_is_named(web: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (web.folder / "a.bin").write_bytes(CONTENT)
    fetch("a.bin", [f"{web.url}/a.bin"], None, tmp_path)
    (record,) = [r for r in caplog.records if r.name.startswith("gan_cli")]
    assert record.levelno > logging.INFO and "a.bin is not verified" in record.getMessage() and SHA256 in record.getMessage()


def test_ctrl_c_during_a_download_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Slow(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "100000")
            self.end_headers()
            self.wfile.write(bytes(50000))
            self.wfile.flush()
            os.kill(os.getpid(), 2)  # reaches the main thread, which reads
            done.wait(20)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    done = threading.Event()
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with ThreadingHTTPServer(("127.0.0.1", 0), Slow) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/a.bin"
        try:
            with pytest.raises(KeyboardInterrupt):
                ensure(
                    "set",
                    lambda: ["a.bin"],
                    lambda staging: [fetch("a.bin", [url], SHA256, staging)],
                    folder=tmp_path / "new" / "set",
                    download=True,
                    instead="digits",
                )
        finally:
            done.set()
            server.shutdown()
    assert list(tmp_path.iterdir()) == []


def test_without_permission_nothing_is_fetched(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"set is missing a\.bin.*dataset\.download.*dataset=digits"):
        ensure(
            "set",
            lambda: ["a.bin"],
            lambda _: [],
            folder=tmp_path / "new",
            download=False,
            instead="digits",
        )
    assert list(tmp_path.iterdir()) == []


def tar(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as archive:
        for info, content in members:
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return file.getvalue()


def test_unpacking(tmp_path: Path) -> None:
    info = tarfile.TarInfo("set/a.png")
    info.mode, info.uid = 0o4777, 12345
    (tmp_path / "a.tar.gz").write_bytes(tar((info, b"tar")))
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("set/a.png", b"zip")
    for name in ("tar.gz", "zip"):
        path = unpack(tmp_path / f"a.{name}", tmp_path / name) / "set" / "a.png"
        assert path.read_bytes().decode() in name and path.stat().st_mode & 0o7022 == 0 and path.stat().st_uid == os.getuid()


def test_reading_a_tar_in_place(tmp_path: Path) -> None:
    (tmp_path / "a.tar.gz").write_bytes(
        tar(*((tarfile.TarInfo(name), name.encode()) for name in ("./set/a.png", "set/b.png", "set/c.txt")))
    )
    assert read_tar(tmp_path / "a.tar.gz", lambda name: name.endswith("png")) == {
        "set/a.png": b"./set/a.png",
        "set/b.png": b"set/b.png",
    }
    with pytest.raises(DataError, match=r"a\.tar\.gz"):
        read_tar(tmp_path / "a.tar.gz", lambda name: name == "other")
