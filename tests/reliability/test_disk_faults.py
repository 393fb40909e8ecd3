"""A disk that is full, failing or read-only at any moment of a run: one line, no loss, and the run can be resumed."""

from __future__ import annotations

import ctypes
import errno
import os
import random
import re
import resource
import shutil
import signal
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from .processes import TINY, Command, failing, half_written, newest, watching

SOAK = "GAN_CLI_SOAK" in os.environ
pytestmark = pytest.mark.usefixtures("no_process_left")
ERRNOS = (errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EROFS)
TRIALS = [100] if SOAK else [2, pytest.param(6, marks=pytest.mark.slow)]
RUN = [*TINY["dcgan"], "total_steps=6", "save_every=2", "log_every=1", "sample_every=3", "gif=true"]
CLONE_NEWNS, MS_RDONLY, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 0x20000, 1, 32, 4096, 16384, 1 << 18


def assert_one_line(command: Command, *codes: int) -> str:
    """Check the end of a command that met a full disk: no traceback, one line with what to do."""
    text = command.text
    assert command.process.returncode in codes, text
    assert "Traceback" not in text and "Logging error" not in text, text
    errors = [line for line in text.splitlines() if line.startswith("gan-train: error: ")]
    assert len(errors) == 1 and re.fullmatch(r"gan-train: error: .+ \(.+\)\. [A-Z].+[.?]", errors[0]), text
    assert text.rstrip().endswith(errors[0])
    return errors[0]


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("begun")
    command = Command(home, *RUN, "run_dir=begun", within=lambda: _stop_after(2))
    assert command.end() == 75, command.text
    return home / "begun"


@pytest.fixture
def started(begun: Path, tmp_path: Path) -> Path:
    """A run with a checkpoint, stopped at step 2."""
    return Path(shutil.copytree(begun, tmp_path / "started"))


def _stop_after(step: int) -> None:
    from gan_cli.training.writer import Writer

    add = Writer.add

    def stop(self: Any, *args: Any, **keywords: Any) -> Any:
        result = add(self, *args, **keywords)
        if self.progress.step == step:
            os.kill(os.getpid(), signal.SIGTERM)
        return result

    Writer.add = stop  # type: ignore[method-assign]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run without faults."""
    home = tmp_path_factory.mktemp("whole")
    command = Command(home, *RUN, "run_dir=whole")
    assert command.end() == 0, command.text
    return home / "whole"


def operations(cwd: Path) -> list[str]:
    """The file operations of a whole run."""

    def note(operation: str, when: str) -> None:
        if when == "before":
            os.write(1, f"+{operation}\n".encode())

    command = Command(cwd, *RUN, "run_dir=counted", within=lambda: watching(cwd / "counted", note))
    assert command.end() == 0, command.text
    seen = re.findall(r"^\+(\w+)$", command.text, re.MULTILINE)
    assert {"open", "write", "flush", "fsync", "close", "rename", "mkdir"} <= set(seen)
    return seen


@pytest.mark.parametrize("trials", TRIALS)
def test_any_operation_fails(trials: int, tmp_path: Path, whole: Path, started: Path, read: Any) -> None:
    seen, rng, ended, last = operations(tmp_path), random.Random(0), Counter[int](), range(trials // 2, trials)
    places = sorted(rng.sample(range(len(seen)), trials // 2)) * 2
    for k, at in enumerate(places):
        run_dir, number, times = tmp_path / f"r{k}", ERRNOS[k % len(ERRNOS)], 1 + 2 * (k % 2)
        if k in last:  # a resumed run, which has a checkpoint to lose
            shutil.copytree(started, run_dir)
        before = newest(run_dir)
        hook = failing(number, at, times)
        command = Command(tmp_path, *RUN, f"run_dir={run_dir.name}", within=partial(watching, run_dir, hook))
        ended[code := command.end()] += 1
        where = f"{os.strerror(number)}, {seen[at]} ({at} of {len(seen)}), from step {before}: {command.text}"
        assert "Traceback" not in command.text, where
        if code != 0:
            assert_one_line(command, 73, 74)
        assert newest(run_dir) >= before, where
        assert times > 1 or not run_dir.exists() or half_written(run_dir) == [], where  # one fault: removing worked
        again = Command(tmp_path, *RUN, f"run_dir={run_dir.name}")
        assert again.end() == 0, f"{where}\n{again.text}"
        assert half_written(run_dir) == [], where
        read.assert_same(whole, run_dir)
        shutil.rmtree(run_dir)
    print(f"{trials} injected disk errors, exit codes {dict(ended)}: no checkpoint lost, all ended identical when repeated")
    assert sum(ended.values()) == trials and ended[74] > 0


def mount(kind: str, target: Path, flags: int, options: str = "") -> None:
    """Run the test in a new mount namespace."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(kind.encode(), str(target).encode(), kind.encode(), ctypes.c_ulong(flags), options.encode()):
        raise OSError(ctypes.get_errno(), "mount")


def alone() -> None:
    """Enter a mount namespace, whose mounts other processes do not see."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNS):
        raise OSError(ctypes.get_errno(), "unshare")
    mount("none", Path("/"), MS_REC | MS_PRIVATE)


@pytest.fixture
def may_mount(tmp_path: Path) -> None:
    from .processes import Forked

    if Forked(alone, tmp_path / "output").wait(10):
        pytest.skip("a mount namespace is not permitted here")


@pytest.mark.parametrize("kilobytes", [250, 700, 1100, 1500] if SOAK else [1100])
def test_a_small_disk_really_fills(kilobytes: int, may_mount: None, tmp_path: Path, whole: Path, read: Any) -> None:
    small, rescued = tmp_path / "small", tmp_path / "r"
    small.mkdir()
    filler = [*RUN, "keep_checkpoints=100", "run_dir=small/r"]

    def within() -> None:
        alone()
        mount("tmpfs", small, 0, f"size={kilobytes}k")
        os._exit = _copy_first(os._exit, small / "r", rescued)  # the mount ends with this process

    command = Command(tmp_path, *filler, within=within)
    command.end()
    line = assert_one_line(command, 74)
    assert "No space left on device" in line and "Free some space" in line
    assert half_written(rescued) == [] and (newest(rescued) > 0) == (kilobytes > 600)
    again = Command(tmp_path, *RUN, "keep_checkpoints=3", "run_dir=r")
    assert again.end() == 0, again.text
    read.assert_same(whole, rescued)


def _copy_first(leave: Callable[[int], Any], source: Path, target: Path) -> Any:
    def copy_and_leave(code: int) -> None:
        if source.exists():
            shutil.copytree(source, target)
        leave(code)

    return copy_and_leave


@pytest.mark.parametrize("kilobytes", [2, 20, 100, 200] if SOAK else [100])
def test_a_limit_on_the_size_of_files(kilobytes: int, tmp_path: Path, whole: Path, read: Any) -> None:
    def within() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (kilobytes * 1024, kilobytes * 1024))

    command = Command(tmp_path, *RUN, "run_dir=r", within=within)
    command.end()
    assert "File too large" in assert_one_line(command, 74)
    assert newest(tmp_path / "r") == 0 and half_written(tmp_path / "r") == []
    assert Command(tmp_path, *RUN, "run_dir=r").end() == 0
    read.assert_same(whole, tmp_path / "r")


@pytest.mark.parametrize("place", ["started", "new/r"])
def test_a_read_only_disk(place: str, may_mount: None, started: Path, tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    folder = tmp_path / place.split("/")[0]

    def within() -> None:
        alone()
        mount(str(folder), folder, MS_BIND)
        mount(str(folder), folder, MS_REMOUNT | MS_BIND | MS_RDONLY)

    command = Command(tmp_path, *RUN, f"run_dir={place}", within=within)
    command.end()
    assert "Read-only file system" in assert_one_line(command, 73)
    assert newest(started) == 2


@pytest.mark.parametrize(
    ("run_dir", "reason"),
    [
        ("a_file", "this is a file"),
        ("a_file/r", "Not a directory"),
        ("n" * 300, "File name too long"),
        ("/".join(["n" * 200] * 25), "File name too long"),
        ("others", "this directory holds other files"),
    ],
    ids=["a file", "in a file", "name too long", "path too long", "not a run"],
)
def test_a_run_directory_that_cannot_be(run_dir: str, reason: str, gan: Any, tmp_path: Path) -> None:
    (tmp_path / "a_file").write_text("mine")
    (tmp_path / "others").mkdir()
    (tmp_path / "others" / "letter.txt").write_text("mine")
    result = gan("gan-train", *RUN, f"run_dir={run_dir}")
    assert result.code == 73 and len(result.errors) == 1 and reason in result.err and "Traceback" not in result.err
    assert (tmp_path / "a_file").read_text() == (tmp_path / "others" / "letter.txt").read_text() == "mine"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a_file", "others"]
