"""Weight files: the right one, from wherever it is, or one clear error."""

from __future__ import annotations

import hashlib
import os
import pickle
import threading
from collections import OrderedDict
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch

from gan_cli.metrics.weights import WeightFile, find_weights, load_tensors
from gan_cli.system.errors import DataError, NotFoundError

CONTENT = b"the weights"
FULL = hashlib.sha256(CONTENT).hexdigest()


class Handler(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[WeightFile]:
    """A file on a server, with torch.hub's folder elsewhere."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    (tmp_path / "server").mkdir()
    (tmp_path / "server" / "net.pth").write_bytes(CONTENT)
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(tmp_path / "server"))) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield WeightFile("net.pth", f"http://127.0.0.1:{server.server_port}/net.pth", FULL)
        server.shutdown()


def find(file: WeightFile, tmp_path: Path, **options: Any) -> tuple[Path, str]:
    return find_weights(file, folder=tmp_path / "cache", key="features.weights", **{"path": None, **options})


def test_downloaded_once(published: WeightFile, tmp_path: Path) -> None:
    assert find(published, tmp_path) == (tmp_path / "cache" / "net.pth", FULL)
    assert [p.name for p in (tmp_path / "cache").iterdir()] == ["net.pth"]
    (tmp_path / "server" / "net.pth").unlink()
    assert find(published, tmp_path) == (tmp_path / "cache" / "net.pth", FULL)


def test_that_of_torch_hub_is_used_where_it_lies(published: WeightFile, tmp_path: Path) -> None:
    hub = tmp_path / "torch" / "hub" / "checkpoints"
    hub.mkdir(parents=True)
    (hub / "net.pth").write_bytes(CONTENT)
    assert find(published, tmp_path) == (hub / "net.pth", FULL)
    assert not (tmp_path / "cache").exists()


def test_the_users_own_copy(published: WeightFile, tmp_path: Path) -> None:
    own = tmp_path / "own.pth"
    own.write_bytes(CONTENT)
    assert find(published, tmp_path, path=str(own)) == (own, FULL)
    with pytest.raises(NotFoundError, match=r"features\.weights=.*gone"):
        find(published, tmp_path, path=str(tmp_path / "gone"))
    own.write_bytes(b"others")
    other = hashlib.sha256(b"others").hexdigest()
    with pytest.raises(DataError, match=f"own.pth.*features.weights.*{other}.*{FULL}"):
        find(published, tmp_path, path=str(own))
    assert not (tmp_path / "cache").exists()


def test_a_damaged_download_is_replaced(published: WeightFile, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path, _ = find(published, tmp_path)
    path.write_bytes(CONTENT[:-1])
    assert find(published, tmp_path) == (path, FULL)
    assert path.read_bytes() == CONTENT and str(path) in caplog.text


def test_no_network(published: WeightFile, tmp_path: Path) -> None:
    (tmp_path / "server" / "net.pth").unlink()
    with pytest.raises(NotFoundError) as caught:
        find(published, tmp_path, instead="or use features=classifier")
    text = str(caught.value)
    assert "net.pth cannot be downloaded" in text and text.endswith("or use features=classifier.") and "\n" not in text
    assert f"{published.url} elsewhere and set features.weights=PATH" in text
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_wrong_download_is_refused_and_not_kept(published: WeightFile, tmp_path: Path) -> None:
    (tmp_path / "server" / "net.pth").write_bytes(b"a page that says: log in first")
    other = hashlib.sha256(b"a page that says: log in first").hexdigest()
    with pytest.raises(NotFoundError, match=f"net.pth.*{FULL}.*{other}"):
        find(published, tmp_path)
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_folder_that_cannot_be_written(published: WeightFile, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(NotFoundError, match="cannot be downloaded"):
        find(published, tmp_path)


def test_load_tensors(tmp_path: Path) -> None:
    path = tmp_path / "net.pth"
    torch.save(OrderedDict(a=torch.ones(2), b=torch.zeros(1, 3)), path)
    tensors = load_tensors(path)
    assert list(tensors) == ["a", "b"] and torch.equal(tensors["a"], torch.ones(2))


class Evil:
    """Makes a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("content", ["evil", "evil_legacy", "nested", "list", "number", "cut", "text", "empty"])
def test_anything_else_is_refused_and_nothing_is_run(content: str, tmp_path: Path) -> None:
    path, made = tmp_path / "net.pth", tmp_path / "made"
    good = {"a": torch.ones(2)}
    if content == "evil_legacy":
        path.write_bytes(pickle.dumps(Evil(made), protocol=2))
    elif content in ("text", "empty"):
        path.write_text("text" if content == "text" else "")
    else:
        things = {"evil": {"a": Evil(made)}, "nested": {"state_dict": good}, "list": [good], "number": {"a": 1}, "cut": good}
        torch.save(things[content], path)
        if content == "cut":
            path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match=r"weights.*net\.pth") as caught:
        load_tensors(path)
    assert "\n" not in str(caught.value)
    assert not made.exists()
