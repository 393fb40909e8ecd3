"""What tests of strangers' run directories share."""

from __future__ import annotations

import hashlib
import json
import signal
import time
from pathlib import Path

SECONDS, MEGABYTES = 5, 300  # a refusal may take at most


def newest(run: Path) -> Path:
    return sorted((run / "checkpoints").iterdir())[-1]


def sign(run: Path, **files: bytes) -> None:
    """Write files of the newest checkpoint and a manifest that fits; ``a__b`` stands for ``a.b``."""
    folder = newest(run)
    for name, content in files.items():
        (folder / name.replace("__", ".")).write_bytes(content)
    manifest = json.loads((folder / "manifest.json").read_text())
    for name in manifest["files"]:
        data = (folder / name).read_bytes()
        manifest["files"][name] = [len(data), hashlib.sha256(data).hexdigest()]
    (folder / "manifest.json").write_text(json.dumps(manifest))


def kilobytes(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(key)).split()[1])


def fresh_peak() -> int:
    """The memory of this process now, in kB; its peak begins here."""
    Path("/proc/self/clear_refs").write_text("5")
    return kilobytes("VmRSS")


def peak() -> int:
    """The largest since :func:`fresh_peak`, in kB."""
    return kilobytes("VmHWM")


class Watch:
    """How much time of the processor something takes, and how much more memory than before; what hangs is ended."""

    def __enter__(self) -> Watch:
        signal.alarm(120)
        self.began, self.before = time.process_time(), fresh_peak()
        return self

    def __exit__(self, *_: object) -> None:
        signal.alarm(0)
        self.seconds = time.process_time() - self.began
        self.megabytes = (peak() - self.before) / 1024
