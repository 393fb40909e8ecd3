"""Commands in processes of their own, and what happens to their files in between: to kill them, or to make the disk fail."""

from __future__ import annotations

import builtins
import io
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from importlib import import_module
from itertools import count
from pathlib import Path
from typing import Any
from unittest import mock

from gan_cli import train
from gan_cli.rundir import checkpoint

from ..conftest import TINY as SMALL  # type: ignore[import-not-found]

SCRIPTS = Path(sys.executable).parent
LEFTOVERS = (".saving-*", ".deleting-*", ".writing-*", "samples/.*", "checkpoints/.*")
DCGAN = SMALL["dcgan"]
TINY = {
    "dcgan": DCGAN,
    "wgan_gp": [*DCGAN, "loss=wgan_gp", "optimizer=adam_wgan_gp", "schedule=linear", "ema.half_life=100"],
    "cyclegan": ["model=cyclegan", *SMALL["cyclegan"], "dataset.image_size=16", "model.task.pool_size=4"],
    "pix2pix": ["model=pix2pix", *SMALL["pix2pix"]],
    "folder": [*DCGAN, "dataset=image_folder", "dataset.image_size=32", "dataset.memory_gb=0", "workers=2"],
}


class Forked:
    """A function in a child process that leads a session of its own; as much of Popen as is needed here."""

    returncode: int | None = None

    def __init__(self, function: Callable[[], object], output: Path) -> None:
        self.pid = os.fork()
        if self.pid == 0:
            code = 1
            try:
                os.setsid()
                descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
                for stream in (1, 2):
                    os.dup2(descriptor, stream)
                sys.stdout, sys.stderr = (open(stream, "w", buffering=1, closefd=False) for stream in (1, 2))
                function()
                code = 0
            except SystemExit as ended:
                code = int(ended.code or 0)
            except BaseException:
                sys.excepthook(*sys.exc_info())
            finally:
                os._exit(code)

    def poll(self) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def wait(self, timeout: float) -> int:
        end = time.monotonic() + timeout
        while self.poll() is None:
            if time.monotonic() > end:
                raise subprocess.TimeoutExpired(f"forked {self.pid}", timeout)
            time.sleep(0.001)
        assert self.returncode is not None
        return self.returncode


@cache
def prepare_to_fork() -> None:
    """Import what a training imports: a forked one has it then."""
    for name in (
        "gan_cli.training.session",
        "gan_cli.training.build",
        "torch.utils.tensorboard",
        "torch._dynamo",
        "torch.distributed.tensor",
    ):
        import_module(name)
    import_module("hydra.main")
    import_module("PIL.GifImagePlugin")


class Command:
    """``gan-train args`` in ``cwd`` and a session of its own: the installed script, or its main() in a fork of this process.

    The latter spares the two seconds in which torch starts.
    """

    started: list[Command] = []
    numbers = count(1)

    def __init__(self, cwd: Path, *args: str, real: bool = False, within: Callable[[], object] = int) -> None:
        self.output = cwd / f"output-{next(Command.numbers)}.txt"
        self.output.touch()
        self.process: Forked | subprocess.Popen[bytes]
        if real:
            with open(self.output, "wb") as output:
                self.process = subprocess.Popen(
                    [SCRIPTS / "gan-train", *args], cwd=cwd, stdout=output, stderr=output, start_new_session=True,
                    env=os.environ | {"OMP_NUM_THREADS": "1"},
                )  # fmt: skip
        else:
            prepare_to_fork()
            self.process = Forked(lambda: _main(cwd, args, within), self.output)
        self.pid = self.process.pid
        Command.started.append(self)

    @property
    def text(self) -> str:
        return self.output.read_text(errors="replace")

    @property
    def ended(self) -> bool:
        return self.process.poll() is not None

    def end(self, seconds: float = 300) -> int:
        """The exit code; a hang is an error."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            os.killpg(self.pid, signal.SIGKILL)
            self.process.wait(10)
            raise AssertionError(f"it hangs: {self.text}") from None

    def send(self, number: int) -> None:
        """To the process only, not to its workers."""
        if not self.ended:
            os.kill(self.pid, number)

    def until(self, condition: Callable[[], object], seconds: float = 300) -> bool:
        """Wait; whether it came to be before the process ended."""
        give_up = time.monotonic() + seconds
        while not condition():
            if self.ended:
                return False
            assert time.monotonic() < give_up, self.text
            time.sleep(0.0003)
        return True

    def live(self, seconds: float) -> None:
        """Let it run for a while."""
        end = time.monotonic() + seconds
        self.until(lambda: time.monotonic() > end)

    def assert_nobody_left(self, seconds: float = 60) -> None:
        """No process of its session lives."""
        give_up = time.monotonic() + seconds
        while left := members(self.pid):
            if time.monotonic() > give_up:
                os.killpg(self.pid, signal.SIGKILL)
                raise AssertionError(f"still there: {left}")
            time.sleep(0.01)


def _main(cwd: Path, args: tuple[str, ...], within: Callable[[], object]) -> None:
    from hydra.core.global_hydra import GlobalHydra

    GlobalHydra.instance().clear()
    logging.getLogger("gan_cli").handlers.clear()
    os.chdir(cwd)
    sys.argv = ["gan-train", *args]
    kept = within()  # undone when it is collected
    train.main()
    del kept


def members(session: int) -> list[int]:
    """Living processes of a session."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, sid = stat.read_text().rpartition(")")[2].split()[:4]
        except (OSError, ValueError):
            continue
        if int(sid) == session and state not in "ZX":
            found.append(int(stat.parent.name))
    return found


def end_all() -> None:
    """Of what was started, nothing lives on."""
    for command in Command.started:
        for process in members(command.pid):
            os.kill(process, signal.SIGKILL)
        command.end()
    Command.started.clear()


def half_written(run_dir: Path) -> list[str]:
    """What should not be there when no process is."""
    return sorted(str(path.relative_to(run_dir)) for pattern in LEFTOVERS for path in run_dir.glob(pattern))


def newest(run_dir: Path) -> int:
    """Step of the newest checkpoint, 0 if there is none. Every one that is there verifies."""
    steps = checkpoint.steps(run_dir) if run_dir.exists() else []
    if run_dir.exists() and (run_dir / "checkpoints").exists():
        assert sorted(p.name for p in (run_dir / "checkpoints").iterdir()) == [checkpoint.name(step) for step in steps]
    for step in steps:
        assert checkpoint.load(run_dir, step).step == step
    return max(steps, default=0)


def reached(run_dir: Path) -> int:
    """Step of the newest checkpoint, verified or not: while a training may take it away."""
    return max(checkpoint.steps(run_dir), default=0) if run_dir.exists() else 0


Hook = Callable[[str, str], None]  # called with the operation and "before", "middle" or "after"


class _File:
    """An open file whose operations are told to a hook."""

    def __init__(self, file: Any, hook: Hook) -> None:
        self._file, self._hook = file, hook

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __iter__(self) -> Any:
        return iter(self._file)

    def __enter__(self) -> _File:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def write(self, data: Any) -> int:
        self._hook("write", "before")
        half = len(data) // 2
        self._file.write(data[:half])
        if half:
            self._file.flush()
            self._hook("write", "middle")
        self._file.write(data[half:])
        self._hook("write", "after")
        return len(data)

    def flush(self) -> None:
        self._hook("flush", "before")
        self._file.flush()
        self._hook("flush", "after")

    def close(self) -> None:
        if not self._file.closed:
            try:
                self._hook("close", "before")
            finally:
                self._file.close()
            self._hook("close", "after")


@contextmanager
def watched(folder: Path, hook: Hook) -> Iterator[None]:
    """Tell ``hook`` of every operation on files in ``folder`` that changes something."""
    process, opened, os_open, descriptors = os.getpid(), builtins.open, os.open, set[int]()

    def concerns(path: object) -> bool:
        name = os.fspath(path) if isinstance(path, str | os.PathLike) else ""
        return os.getpid() == process and os.path.abspath(str(name)).startswith(str(folder))

    def open_(file: Any, mode: str = "r", *args: Any, **keywords: Any) -> Any:
        if file in descriptors and os.getpid() == process:
            descriptors.remove(file)
            return _File(opened(file, mode, *args, **keywords), hook)
        if not set(mode) & set("wax+") or not concerns(file):
            return opened(file, mode, *args, **keywords)
        hook("open", "before")
        result = opened(file, mode, *args, **keywords)
        hook("open", "after")
        return _File(result, hook)

    def open_descriptor(path: Any, flags: int, *args: Any, **keywords: Any) -> int:
        if not flags & (os.O_WRONLY | os.O_RDWR) or not concerns(path):
            return os_open(path, flags, *args, **keywords)
        hook("open", "before")
        descriptors.add(descriptor := os_open(path, flags, *args, **keywords))
        hook("open", "after")
        return descriptor

    def wrapped(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **keywords: Any) -> Any:
            if name != "fsync" and "dir_fd" not in keywords and not concerns(args[0]):
                return function(*args, **keywords)
            hook(name, "before")
            result = function(*args, **keywords)
            hook(name, "after")
            return result

        return call

    with ExitStack() as stack:
        for owner, replacement in ((builtins, open_), (io, open_), (os, open_descriptor)):
            stack.enter_context(mock.patch.object(owner, "open", replacement))
        for name in ("mkdir", "rename", "replace", "unlink", "rmdir", "fsync"):
            stack.enter_context(mock.patch.object(os, name, wrapped(name, getattr(os, name))))
        yield


def watching(folder: Path, hook: Hook) -> ExitStack:
    """:func:`watched` for as long as the result is there, for ``within`` of a command."""
    stack = ExitStack()
    stack.enter_context(watched(folder, hook))
    return stack


def failing(number: int, at: int, times: int = 1) -> Hook:
    """The operations number ``at``, ``at`` + 1, ... fail with an errno."""
    calls = count()

    def hook(operation: str, when: str) -> None:
        if when == "before" and at <= next(calls) < at + times:
            raise OSError(number, os.strerror(number))

    return hook
