"""The commands, run inside this process: a fresh start of torch costs two seconds."""

from __future__ import annotations

import gc
import gzip
import importlib
import io
import json
import logging
import os
import pickle
import re
import shlex
import signal
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hydra._internal.hydra import Hydra
from hydra._internal.sources_registry import SourcesRegistry
from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigResult, ConfigSource
from hydra.types import RunMode

SESSION = tempfile.TemporaryDirectory(prefix="gan-cli-tests-")
CACHE = os.environ.setdefault("GAN_CLI_TESTS_CACHE", SESSION.name)  # of this session and its workers, not the user's
os.environ["TMPDIR"] = SESSION.name  # for processes that tests start, some of which are killed
FSYNC = os.fsync
UNPICKLED = pickle.loads  # as it is before a test forbids it

TINY = {
    "dcgan": ["threads=1", "batch_size=8", "precision=fp32", "model.generator.width=4", "model.discriminator.width=4"],
    "mlp": ["threads=1", "batch_size=8", "precision=fp32", "model.generator.hidden=[8]", "model.discriminator.hidden=[8]"],
    "cgan": ["threads=1", "batch_size=8", "model.generator.hidden=8", "model.discriminator.hidden=8"],
    "pix2pix": [
        *["threads=1", "batch_size=2", "precision=fp32", "model.discriminator.layers=1"],
        *["model.generator.width=4", "model.discriminator.width=4"],
    ],
    "cyclegan": [
        *["threads=1", "batch_size=2", "precision=fp32", "model.discriminator.a.layers=1", "model.generator.a2b.blocks=1"],
        *["model.generator.a2b.width=4", "model.discriminator.a.width=4"],
    ],
    "points": ["threads=1", "batch_size=8", "model.generator.hidden=[8]", "model.discriminator.hidden=[8]"],
    "own": ["threads=1", "batch_size=8", "precision=fp32"],
}


def read_configs_once() -> None:
    """Parse each file of ``gan_cli.conf`` once in this process, which is a quarter of what composing a config takes."""
    Plugins.instance()
    source = SourcesRegistry.instance().resolve("pkg")
    load, parsed = source.load_config, dict[tuple[str, str], bytes]()

    def load_config(self: ConfigSource, config_path: str) -> ConfigResult:
        key = (self.path, config_path)
        if key not in parsed:
            parsed[key] = pickle.dumps(load(self, config_path))
        result: ConfigResult = UNPICKLED(parsed[key])  # three times as fast as a deep copy
        return result

    source.load_config = load_config  # type: ignore[method-assign]


def compose_once() -> None:
    """Skip Hydra's first composition, which only looks for ``hydra.mode``: no file of ``gan_cli.conf`` sets that.

    It is a quarter of a short command. A command line that names ``hydra.mode`` is composed twice, as Hydra does.
    """
    get_mode = Hydra.get_mode

    def mode(self: Hydra, config_name: str | None, overrides: list[str]) -> RunMode | None:
        named = any("hydra.mode" in override for override in overrides)
        return get_mode(self, config_name, overrides) if named else None

    Hydra.get_mode = mode  # type: ignore[method-assign]


def pytest_collection_finish() -> None:
    """Exclude what is imported by now from garbage collection, which is half of a short command.

    Torch and the tests hold some 600,000 objects that are never freed.
    """
    gc.collect()
    gc.freeze()


read_configs_once()
compose_once()


@dataclass(frozen=True)
class ErrorLine:
    """``gan-train: error: <what> (<where>). <what to do>.`` taken apart. Its words may change, its keys and values not."""

    line: str
    what: str
    where: str
    todo: str

    @classmethod
    def read(cls, line: str) -> ErrorLine:
        form = re.fullmatch(r"gan-\w+: error: (.+?) \(([^()]*(?:\([^()]*\)[^()]*)*)\)\. (.+[.?])", line)
        assert form is not None, line
        return cls(line, *form.groups())

    def names(self, *values: object) -> bool:
        """Whether all of these keys, values, files and options are in the line."""
        return all(str(value) in self.line for value in values)


@dataclass(frozen=True)
class Result:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def errors(self) -> list[str]:
        return [line for line in self.err.splitlines() if ": error: " in line]

    @property
    def error(self) -> ErrorLine:
        """The only one."""
        (line,) = self.errors
        return ErrorLine.read(line)

    @property
    def continue_command(self) -> list[str]:
        """The one that it printed first, as a list of arguments."""
        line = next(line for line in self.err.splitlines() if "To continue it: " in line)
        return shlex.split(line[line.index("To continue it: ") + 16 :])


@contextmanager
def isolated(cwd: Path) -> Iterator[None]:
    """Leaves nothing of a command behind in this process.

    It does not wait for the disk, a tenth of a short training: only a power cut would show that.
    """
    from hydra.core.global_hydra import GlobalHydra

    from gan_cli.config import schema

    loggers = [logging.getLogger(), logging.getLogger("gan_cli")]
    before = [(x.handlers[:], x.level, x.propagate) for x in loggers]
    argv, path, environ, here, modules = sys.argv, sys.path[:], dict(os.environ), os.getcwd(), set(sys.modules)
    answers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)}
    os.chdir(cwd)
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # an activated environment
    os.environ["XDG_CACHE_HOME"] = CACHE
    importlib.invalidate_caches()
    if waits := os.fsync is FSYNC:  # and not what a test made of it
        os.fsync = lambda fd: None
    try:
        yield
    finally:
        if waits:
            os.fsync = FSYNC
        os.chdir(here)
        for number, answer in answers.items():
            signal.signal(number, answer)
        sys.argv, sys.path[:] = argv, path
        os.environ.clear()
        os.environ.update(environ)
        for logger, (handlers, level, propagate) in zip(loggers, before, strict=True):
            logger.handlers[:], logger.propagate = handlers, propagate
            logger.setLevel(level)
        for name in set(sys.modules) - modules:  # a user's own
            if str(getattr(sys.modules[name], "__file__", None)).startswith(str(cwd)):
                del sys.modules[name]
        schema.parameters.cache_clear()
        GlobalHydra.instance().clear()


def call(cwd: Path, program: str, *args: object) -> Result:
    """``program args`` in ``cwd``."""
    out, err = io.StringIO(), io.StringIO()
    with isolated(cwd), redirect_stdout(out), redirect_stderr(err):
        sys.argv = [program, *map(str, args)]
        main = importlib.import_module(f"gan_cli.{program.removeprefix('gan-')}").main
        with pytest.raises(SystemExit) as ended:
            main()
    return Result(int(ended.value.code or 0), out.getvalue(), err.getvalue())


@pytest.fixture
def gan(tmp_path: Path) -> Callable[..., Result]:
    """``gan("gan-train", "total_steps=3")`` in ``tmp_path``."""
    return lambda program, *args: call(tmp_path, program, *args)


def train_tiny(cwd: Path, *args: object, tiny: str = "dcgan", code: int = 0) -> Result:
    """gan-train with networks of a few weights, which must end with ``code``."""
    flags = args[:2] if args and args[0] == "--config-dir" else ()
    result = call(cwd, "gan-train", *flags, *TINY[tiny], *args[len(flags) :])
    assert result.code == code, result.err
    return result


@pytest.fixture
def train(tmp_path: Path) -> Callable[..., Result]:
    """See :func:`train_tiny`."""
    return lambda *args, **keywords: train_tiny(tmp_path, *args, **keywords)


def quick(values: Iterable[Any], *kept: Any) -> list[Any]:
    """Parameters of a test of which ``make test`` has only ``kept``. Those of a mapping are called by their keys."""
    assert set(kept) <= set(values), "a parameter that is not there"
    named = values.items() if isinstance(values, Mapping) else [(None, value) for value in values]
    return [
        pytest.param(
            *(value if isinstance(value, tuple) else (value,)),
            id=name,
            marks=() if (value if name is None else name) in kept else pytest.mark.slow,
        )
        for name, value in named
    ]


def every(step: int, values: Iterable[Any]) -> list[Any]:
    """Parameters of a test of which ``make test`` has every ``step``-th."""
    return [
        pytest.param(*(value if isinstance(value, tuple) else (value,)), marks=pytest.mark.slow if k % step else ())
        for k, value in enumerate(values)
    ]


class Reader:
    """What a run wrote."""

    @staticmethod
    def steps(run_dir: Path) -> list[int]:
        return sorted(int(path.name.removeprefix("step-")) for path in (run_dir / "checkpoints").iterdir())

    @classmethod
    def tensors(cls, run_dir: Path, step: int | None = None) -> dict[str, Any]:
        from safetensors.numpy import load_file

        folder = run_dir / "checkpoints" / f"step-{cls.steps(run_dir)[-1] if step is None else step:08d}"
        return {f"{f.stem}.{k}": v for f in folder.glob("*.safetensors") for k, v in load_file(f).items()}

    @classmethod
    def info(cls, run_dir: Path) -> dict[str, Any]:
        return json.loads((run_dir / "checkpoints" / f"step-{cls.steps(run_dir)[-1]:08d}" / "state.json").read_text())

    @staticmethod
    def rows(run_dir: Path, clock: bool = False) -> list[dict[str, Any]]:
        lines = (run_dir / "metrics.jsonl").read_text().splitlines()
        return [{k: v for k, v in json.loads(line).items() if clock or not k.startswith("time/")} for line in lines]

    @staticmethod
    def pictures(run_dir: Path) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in (run_dir / "samples").iterdir()}

    @staticmethod
    def events(run_dir: Path) -> Any:
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        events = EventAccumulator(str(run_dir / "tensorboard"), size_guidance={"scalars": 0, "images": 0, "tensors": 0})
        return events.Reload()

    @classmethod
    def images(cls, run_dir: Path) -> list[int]:
        return [event.step for event in cls.events(run_dir).Images("samples")]

    @classmethod
    def scalars(cls, run_dir: Path) -> dict[str, list[tuple[int, float]]]:
        events = cls.events(run_dir)
        return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}

    @classmethod
    def assert_same_weights(cls, a: Path, b: Path) -> None:
        first, second = cls.tensors(a), cls.tensors(b)
        for values in (first, second):
            for key in [k for k in values if k.startswith("log_sums.")]:
                del values[key]
        assert first.keys() == second.keys() and len(first) > 5
        assert [k for k in first if first[k].dtype != second[k].dtype or first[k].tobytes() != second[k].tobytes()] == []

    @classmethod
    def assert_same(cls, a: Path, b: Path) -> None:
        """Bit for bit, whatever does not depend on the clock."""
        assert cls.steps(a) == cls.steps(b)
        cls.assert_same_weights(a, b)
        one, two = ({k: v for k, v in cls.info(run).items() if k != "config"} for run in (a, b))
        assert one == two
        assert cls.rows(a) == cls.rows(b)
        assert cls.pictures(a) == cls.pictures(b)


@pytest.fixture
def read() -> type[Reader]:
    """Functions that read a run directory."""
    return Reader


@pytest.fixture
def stop_at(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, int], None]:
    """``stop_at(step, signal)``: from now on this process gets a signal in that step."""
    from gan_cli.training.writer import Writer

    add = Writer.add

    def stop(step: int, number: int) -> None:
        def noisy(self: Any, logs: Any) -> None:
            add(self, logs)
            if self.progress.step == step:
                os.kill(os.getpid(), number)

        monkeypatch.setattr(Writer, "add", noisy)

    return stop


def write_idx(path: Path, array: np.ndarray) -> None:
    header = bytes([0, 0, 8, array.ndim]) + b"".join(int(n).to_bytes(4, "big") for n in array.shape)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(header + array.tobytes()))


@pytest.fixture(scope="session")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root with 40 random images for each data set that reads files."""
    return make_data(tmp_path_factory.mktemp("data"))


def make_data(root: Path) -> Path:
    """40 random images in ``root`` for each data set that reads files."""
    random = np.random.default_rng(0)
    labels = np.arange(40, dtype=np.uint8) % 10
    for name in ("MNIST", "FashionMNIST", "KMNIST"):
        pixels = random.integers(0, 256, (40, 28, 28), dtype=np.uint8)
        for part in ("train", "t10k"):
            write_idx(root / name / "raw" / f"{part}-images-idx3-ubyte.gz", pixels)
            write_idx(root / name / "raw" / f"{part}-labels-idx1-ubyte.gz", labels)
    with tarfile.open(root / "cifar-10-python.tar.gz", "w:gz") as tar:
        for name in [f"data_batch_{k}" for k in range(1, 6)] + ["test_batch"]:
            batch = {b"data": random.integers(0, 256, (8, 3072), dtype=np.uint8), b"labels": list(range(8))}
            content = pickle.dumps(batch)
            member = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    colours = random.integers(0, 256, (40, 20, 20, 3), dtype=np.uint8)
    np.savez(root / "images.npz", images=colours, labels=labels.astype(np.int64))
    np.savez(root / "unlabelled.npz", images=colours)
    from PIL import Image

    for k, colour in enumerate(colours):
        (root / "photos" / f"class{k % 2}").mkdir(parents=True, exist_ok=True)
        Image.fromarray(colour).save(root / "photos" / f"class{k % 2}" / f"{k}.png")
    for folder, count in (("train", 12), ("val", 4), ("test", 4)):  # side by side, as facades come
        save_photos(root / "facades" / folder, [f"{k}.jpg" for k in range(1, count + 1)], (32, 64))
    for folder, count in (("trainA", 10), ("trainB", 8), ("testA", 4), ("testB", 3)):
        save_photos(root / "horse2zebra" / folder, [f"n{folder[-1]}_{k}.jpg" for k in range(count)], (32, 32))
    return root


def save_photos(folder: Path, names: list[str], shape: tuple[int, int], seed: int = 0) -> None:
    """Blots of colour, ``shape`` = (height, width), different under every name."""
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng([seed, *str(folder.name).encode()])
    for name in names:
        coarse = random.integers(0, 256, (shape[0] // 8, shape[1] // 8, 3), dtype=np.uint8)
        Image.fromarray(coarse.repeat(8, 0).repeat(8, 1)).save(folder / name)


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of 4 steps with checkpoints at 2 and 4. Read only: copy it to change it."""
    home = tmp_path_factory.mktemp("trained")
    train_tiny(home, "total_steps=4", "save_every=2", "log_every=2", "sample_every=2", "run_dir=run")
    return home / "run"
