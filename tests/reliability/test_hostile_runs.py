"""Run directories from strangers: nothing in them is executed, nothing outside them is touched, nothing is let grow."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import shutil
import struct
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

import gan_cli.data.cifar10  # noqa: F401  # derives from what no_pickle takes away
from gan_cli import load_run
from gan_cli.rundir.trust import own_dataset
from gan_cli.system.errors import GanError
from gan_cli.system.files import atomic_file, read_file, write_file

from ..conftest import quick  # type: ignore[import-not-found]
from .strangers import MEGABYTES, SECONDS, Watch, newest, sign  # type: ignore[import-not-found]

SOAK = "GAN_CLI_SOAK" in os.environ
Harm = Callable[[Path], Any]


class Bomb:
    """Unpickled, it makes a file."""

    def __reduce__(self) -> Any:
        return os.system, ("touch pwned",)


PICKLE, TORCH_FILE, NPZ = pickle.dumps(Bomb()), io.BytesIO(), io.BytesIO()
torch.save({"weights": Bomb()}, TORCH_FILE)
np.savez(NPZ, images=np.array([Bomb()]))


def state(change: Callable[[dict[str, Any]], Any]) -> Harm:
    """Change what the run says of itself."""

    def harm(run: Path) -> None:
        content = json.loads((newest(run) / "state.json").read_text())
        change(content)
        sign(run, state__json=json.dumps(content).encode())

    return harm


def config(path: str, value: Any) -> Harm:
    """Put a value into the config."""

    def change(content: dict[str, Any]) -> None:
        node = content["config"]
        *parents, last = path.split(".")
        for parent in parents:
            node = node[parent]
        node[last] = value

    return state(change)


def text(change: Callable[[str], str]) -> Harm:
    """Change the text of state.json."""
    return lambda run: sign(run, state__json=change((newest(run) / "state.json").read_text()).encode("utf-8", "surrogatepass"))


def header(change: Callable[[dict[str, Any]], Any]) -> Harm:
    """Change the header of the file of weights."""

    def harm(run: Path) -> None:
        data = (newest(run) / "generator_ema.safetensors").read_bytes()
        size = struct.unpack("<Q", data[:8])[0]
        content = json.loads(data[8 : 8 + size])
        change(content)
        head = json.dumps(content).encode()
        head += b" " * (-len(head) % 8)
        sign(run, generator_ema__safetensors=struct.pack("<Q", len(head)) + head + data[8 + size :])

    return harm


def weights(change: Callable[[dict[str, torch.Tensor]], Any]) -> Harm:
    """Change the tensors."""

    def harm(run: Path) -> None:
        tensors = load_tensors((newest(run) / "generator_ema.safetensors").read_bytes())
        change(tensors)
        sign(run, generator_ema__safetensors=save_tensors(tensors))

    return harm


def manifest(change: Callable[[dict[str, Any]], Any]) -> Harm:
    """Change the manifest."""

    def harm(run: Path) -> None:
        content = json.loads((newest(run) / "manifest.json").read_text())
        change(content)
        (newest(run) / "manifest.json").write_text(json.dumps(content))

    return harm


def linked(name: str) -> Harm:
    """What has this name lies outside, where a link leads."""

    def harm(run: Path) -> None:
        path, outside = run / name, run.parent / "outside" / "planted"
        if path.exists():
            path.rename(outside)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(outside)

    return harm


def instead(name: str, make: Callable[[Path], Any]) -> Harm:
    """Something else in the place of a file."""

    def harm(run: Path) -> None:
        (run / name).unlink()
        make(run / name)

    return harm


def sparse(name: str, size: int) -> Harm:
    """A file of zeros that takes no room on the disk, and a manifest that admits it."""

    def harm(run: Path) -> None:
        os.truncate(newest(run) / name, size)
        content = json.loads((newest(run) / "manifest.json").read_text())
        content["files"][name] = [size, "0" * 64]
        (newest(run) / "manifest.json").write_text(json.dumps(content))

    return harm


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


def modules(count: int) -> Any:
    value: Any = {"_target_": "gan_cli.networks.points.Generator", "latent_dim": 1, "dim": 1, "hidden": [1] * 64}
    return {"_target_": "gan_cli.networks.pair.Translators", "a2b": [value] * count, "b2a": value}


@cache
def many_tensors() -> bytes:
    entries = {f"t{k}": {"dtype": "F32", "shape": [1], "data_offsets": [4 * k, 4 * k + 4]} for k in range(100_000)}
    head = json.dumps(entries).encode()
    return struct.pack("<Q", len(head)) + head + bytes(400_000)


EMA, STATE = "checkpoints/step-00000004/generator_ema.safetensors", "checkpoints/step-00000004/state.json"
MLP, DIGITS = "gan_cli.networks.mlp.Generator", "gan_cli.data.digits.digits"
TOUCH = {"_target_": "os.system", "command": "touch pwned"}
GENERATOR, TASK = "model.generator", "model.task"
# What is done to the run, and the exit code. The data set is only looked at by gan-eval: those are in DATA.
HARMS: dict[str, tuple[Harm, int]] = {
    # pickles
    "pickle as weights": (lambda run: sign(run, generator_ema__safetensors=PICKLE), 76),
    "torch file as weights": (lambda run: sign(run, generator_ema__safetensors=TORCH_FILE.getvalue()), 76),
    "pickle as state": (lambda run: sign(run, state__json=PICKLE), 76),
    "pickle as manifest": (lambda run: (newest(run) / "manifest.json").write_bytes(PICKLE), 76),
    "pickle as best.json": (lambda run: (run / "best.json").write_bytes(PICKLE), 0),
    # targets
    "os.system": (config(GENERATOR, TOUCH), 77),
    "posix.system": (config(GENERATOR, {**TOUCH, "_target_": "posix.system"}), 77),
    "open": (config(GENERATOR, {"_target_": "builtins.open", "file": "pwned", "mode": "w"}), 77),
    "os.mkdir": (config(TASK, {"_target_": "os.mkdir", "path": "pwned"}), 77),
    "through gan_cli": (config(GENERATOR, {**TOUCH, "_target_": "gan_cli.rundir.reload.os.system"}), 77),
    "through the networks": (config(GENERATOR, {**TOUCH, "_target_": "gan_cli.networks.inspect.os.system"}), 77),
    "through the tasks": (config(TASK, {"_target_": "gan_cli.tasks.theory.np.fromfile", "file": "x"}), 77),
    "a network of torch": (config(GENERATOR, {"_target_": "gan_cli.networks.mlp.nn.Linear", "in_features": 1}), 77),
    "partial": (config(GENERATOR, {"_target_": "functools.partial", "_args_": [TOUCH]}), 77),
    "nested": (config(f"{GENERATOR}.width", TOUCH), 77),
    "in lists": (config(f"{GENERATOR}.width", [[{"a": [TOUCH]}]]), 77),
    "in the task": (config(f"{TASK}.latent_dim", TOUCH), 77),
    "positional": (config(f"{GENERATOR}._args_", [TOUCH]), 77),
    "partial of ours": (config(f"{GENERATOR}._partial_", True), 77),
    "recursive": (config(f"{GENERATOR}._recursive_", False), 77),
    "an import": (config(GENERATOR, {"_target_": "hostile.act"}), 77),
    "an import by a number": (config(f"{GENERATOR}.width", {"_target_": "hostile.act"}), 77),
    "a function of ours": (config(TASK, {"_target_": "gan_cli.rundir.directory.make", "run_dir": "pwned"}), 77),
    "a data set as a network": (config(GENERATOR, {"_target_": "gan_cli.data.cifar10.cifar10", "root": "pwned"}), 77),
    "a data set within": (config(f"{GENERATOR}.width", {"_target_": "gan_cli.data.cifar10.cifar10", "root": "pwned"}), 77),
    "a network within the task": (
        config(f"{TASK}.latent_dim", {"_target_": MLP, "latent_dim": 9, "image_size": 2048, "channels": 3, "hidden": [65536]}),
        77,
    ),
    "an environment variable": (config(f"{GENERATOR}.width", "${oc.env:HOME}"), 77),
    "created by a resolver": (config(f"{TASK}.prior", "${oc.create:'{_target_: hostile.act}'}"), 77),
    "an interpolated target": (config(f"{GENERATOR}._target_", "${oc.decode:os.system}"), 77),
    "a missing value": (config(f"{TASK}.prior", "???"), 77),
    # links and special files
    "linked weights": (linked(EMA), 77),
    "linked state": (linked(STATE), 77),
    "linked checkpoint": (linked("checkpoints/step-00000004"), 77),
    "linked checkpoints": (linked("checkpoints"), 77),
    "linked evaluations": (linked("evaluations"), 77),
    "linked samples": (linked("generated/step-00000004-seed0"), 77),
    "a linked grid": (linked("generated/step-00000004-seed0/grid.png"), 77),
    "linked TensorBoard": (linked("tensorboard"), 77),
    "linked best.json": (linked("best.json"), 77),
    "a pipe": (instead(STATE, os.mkfifo), 77),
    "a pipe as weights": (instead(EMA, os.mkfifo), 77),
    "a pipe as best.json": (lambda run: os.mkfifo(run / "best.json"), 77),
    "/dev/zero": (instead(EMA, lambda path: path.symlink_to("/dev/zero")), 77),
    "/dev/zero as manifest": (
        instead("checkpoints/step-00000004/manifest.json", lambda path: path.symlink_to("/dev/zero")),
        77,
    ),
    # sizes
    "a width": (config(f"{GENERATOR}.width", 65536), 76),
    "a width out of range": (config(f"{GENERATOR}.width", 2**62), 76),
    "a latent": (config(f"{TASK}.latent_dim", 65536), 76),
    "a latent beyond": (config(f"{TASK}.latent_dim", 10**18), 76),
    "an image size": (
        config(GENERATOR, {"_target_": MLP, "latent_dim": 100, "image_size": 2048, "channels": 3, "hidden": [65536] * 64}),
        76,
    ),
    "many layers": (
        config(GENERATOR, {"_target_": MLP, "latent_dim": 1, "image_size": 4, "channels": 1, "hidden": [1] * 100_000}),
        76,
    ),
    "layers out of range": (
        config(GENERATOR, {"_target_": MLP, "latent_dim": 1, "image_size": 4, "channels": 1, "hidden": [1] * 1000}),
        76,
    ),
    "many blocks": (
        config(
            GENERATOR,
            {"_target_": "gan_cli.networks.resnet_translator.Generator", "image_size": 8, "channels": 1, "blocks": 10**9},
        ),
        76,
    ),
    "many classes": (config(f"{TASK}.num_classes", 10**12), 76),
    "many modes": (
        config(
            TASK,
            {
                "_target_": "gan_cli.tasks.theory.Theory",
                "latent_dim": 100,
                "density": {"_target_": "gan_cli.data.densities.Grid", "side": 10**6},
            },
        ),
        76,
    ),
    "a pool": (
        config(
            TASK,
            {
                "_target_": "gan_cli.tasks.unpaired.UnpairedTranslation",
                "channels": 4,
                "image_size": 2048,
                "pool_size": 10_000,
            },
        ),
        76,
    ),
    "many modules": (config(GENERATOR, modules(5000)), 76),
    "deep": (config(GENERATOR, {"_target_": MLP, "hidden": nested(400)}), 76),
    "deeper": (text(lambda x: x.replace('"config": {', '"config": {"x": ' + "[" * 200_000 + "]" * 200_000 + ",", 1)), 76),
    "long": (sparse("state.json", 200_000_000), 76),
    "a long number": (text(lambda x: x.replace('"images": ', '"images": 1' + "0" * 10_000, 1)), 76),
    "a number of images": (state(lambda x: x.update(images=float("inf"))), 76),
    "not a number": (config(f"{GENERATOR}.width", float("nan")), 76),
    "many names of classes": (state(lambda x: x.update(class_names=["x"] * 5, config=x["config"])), 0),
    "names that are none": (state(lambda x: x.update(class_names=[{"_target_": "os.system"}])), 76),
    "no config": (state(lambda x: x.update(config=[])), 76),
    "a state of another step": (state(lambda x: x.update(step=5)), 76),
    "a state that is a list": (lambda run: sign(run, state__json=b"[]"), 76),
    "lone surrogates": (text(lambda x: x.replace('"images"', '"\udcff"', 1)), 76),
    "a manifest that climbs": (manifest(lambda x: x["files"].update({"../../../outside/canary": [6, "0" * 64]})), 76),
    "an absolute name": (manifest(lambda x: x["files"].update({"/etc/passwd": [6, "0" * 64]})), 76),
    "a size that lies": (manifest(lambda x: x["files"]["generator_ema.safetensors"].__setitem__(0, 2**62)), 76),
    "a size below 0": (manifest(lambda x: x["files"]["state.json"].__setitem__(0, -1)), 76),
    "a manifest of lists": (manifest(lambda x: x.update(files=[[]])), 76),
    "an exabyte of zeros": (sparse("generator_ema.safetensors", 2**42), 76),
    "a terabyte of state": (sparse("state.json", 2**40), 76),
    # weights
    "a header of 2^62 bytes": (
        lambda run: sign(run, generator_ema__safetensors=struct.pack("<Q", 2**62) + bytes(100)),
        76,
    ),
    "no header": (lambda run: sign(run, generator_ema__safetensors=b""), 76),
    "tensors that overlap": (
        header(lambda x: [v.update(data_offsets=[0, 8]) for k, v in x.items() if k != "__metadata__"]),
        76,
    ),
    "a shape that lies": (header(lambda x: x["layers.0.weight"].update(shape=[2**31, 2**31])), 76),
    "a shape of 68 GB": (header(lambda x: x["layers.0.weight"].update(shape=[2**17, 2**17])), 76),
    "an unknown type": (header(lambda x: x["layers.0.weight"].update(dtype="PICKLE")), 76),
    "100,000 tensors": (lambda run: sign(run, generator_ema__safetensors=many_tensors()), 76),
    "a tensor more": (weights(lambda x: x.update(more=torch.zeros(1))), 76),
    "a tensor less": (weights(lambda x: x.pop("layers.0.weight")), 76),
    "another type": (weights(lambda x: x.update({"layers.0.weight": x["layers.0.weight"].double()})), 76),
    "another shape": (weights(lambda x: x.update({"layers.0.weight": x["layers.0.weight"][1:].clone()})), 76),
    "a weight that is no number": (weights(lambda x: x["layers.0.weight"].view(-1)[:1].fill_(float("nan"))), 76),
    "an infinite weight": (weights(lambda x: x["layers.0.weight"].view(-1)[:1].fill_(float("inf"))), 76),
    # parts that do not fit together
    "a discriminator as generator": (
        config(f"{GENERATOR}._target_", "gan_cli.networks.dcgan.Discriminator"),
        76,
    ),
    "a network as task": (config(f"{TASK}._target_", "gan_cli.networks.mlp.Generator"), 77),
    "a task that translates": (config(TASK, {"_target_": "gan_cli.tasks.paired.PairedTranslation"}), 76),
}
DATA: dict[str, tuple[Harm, int]] = {
    "os.system": (config("dataset", TOUCH), 77),
    "within": (config("dataset", {"_target_": DIGITS, "image_size": TOUCH}), 77),
    "another's function": (config("dataset", {"_target_": "gan_cli.data.npz.np.load", "file": "x"}), 77),
    "a helper of ours": (config("dataset", {"_target_": "gan_cli.data.download.ensure", "root": "pwned"}), 77),
    "an environment variable": (config("dataset", {"_target_": DIGITS, "split": "${oc.env:HOME}"}), 77),
    "a size": (config("dataset", {"_target_": DIGITS, "image_size": 10**6}), 76),
    "a pipe": (config("dataset", {"_target_": "gan_cli.data.npz.npz", "path": "outside/pipe"}), 66),
    "a device": (config("dataset", {"_target_": "gan_cli.data.npz.npz", "path": "/dev/zero"}), 66),
    "pickled arrays": (config("dataset", {"_target_": "gan_cli.data.npz.npz", "path": "outside/pickled.npz"}), 65),
    "a download": (config("dataset", {"_target_": "gan_cli.data.cifar10.cifar10", "root": "pwned", "download": True}), 66),
    "an escape": (config("dataset", {"_target_": "gan_cli.data.image_folder.image_folder", "root": "\x1b[31m\n"}), 66),
}


def test_there_are_enough_of_them() -> None:
    assert len(HARMS) + len(DATA) >= 60


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    shutil.copytree(trained, tmp_path / "run", ignore=shutil.ignore_patterns("generated", "evaluations", "step-00000002*"))
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "canary").write_text("canary")
    (tmp_path / "hostile.py").write_text("open('pwned', 'w')\n\ndef act(**_): pass\n")
    return tmp_path / "run"


def tree(folder: Path) -> dict[str, Any]:
    """Everything in it, links not followed."""

    def content(path: Path) -> Any:
        if path.is_symlink():
            return os.readlink(path)
        if not path.is_file() or path.stat().st_size > 2**25:
            return path.lstat().st_mode, path.lstat().st_size
        return hashlib.sha256(path.read_bytes()).hexdigest()

    return {str(path.relative_to(folder)): content(path) for path in sorted(folder.rglob("*"))}


@pytest.fixture
def no_pickle(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("something is unpickled")

    for owner, name in ((pickle, "load"), (pickle, "loads"), (pickle, "Unpickler"), (torch, "load")):
        monkeypatch.setattr(owner, name, refuse)
    monkeypatch.setattr(os, "system", refuse)


def assert_harmless(harm: Harm, code: int, ask: Callable[[], tuple[int, list[str]]], run: Path) -> None:
    harm(run)
    before, modules = tree(run.parent), set(sys.modules)
    with Watch() as watch:
        result, lines = ask()
    assert result == code, lines
    assert watch.seconds < SECONDS and watch.megabytes < MEGABYTES, (watch.seconds, watch.megabytes)
    assert not any(name.startswith("hostile") for name in set(sys.modules) - modules)
    assert all(line.isprintable() and len(line) < 1000 for line in lines), lines
    if code:
        assert len([line for line in lines if not line.startswith("warning: ")]) == 1, lines
        assert tree(run.parent) == before
    else:
        after = tree(run.parent)
        assert {name: after[name] for name in before} == before and all(
            name.startswith("run/") for name in after.keys() - before
        )


@pytest.mark.parametrize(("harm", "code"), list(HARMS.values()), ids=list(HARMS))
def test_loading_it(harm: Harm, code: int, run: Path, no_pickle: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(run.parent)
    monkeypatch.syspath_prepend(run.parent)

    def ask() -> tuple[int, list[str]]:
        try:
            load_run("run", device="cpu").sample(2)
        except GanError as error:
            return error.exit_code, str(error).splitlines()
        return 0, []

    assert_harmless(harm, code, ask, run)


PROGRAMS = {
    "gan-sample": ["num_samples=2", "formats=[grid,npz]"],
    "gan-eval": ["dataset=digits", "features=classifier", "features.epochs=1", "num_samples=20", "metrics=[fid]"],
}
SHOWN = list(HARMS) if SOAK else list(HARMS)[::9]


@pytest.mark.parametrize("name", quick(SHOWN, *SHOWN[::3]))
@pytest.mark.parametrize("program", list(PROGRAMS))
def test_by_command(program: str, name: str, run: Path, gan: Any, no_pickle: None) -> None:
    harm, code = HARMS[name]

    def ask() -> tuple[int, list[str]]:
        result = gan(program, "run_dir=run", "threads=1", *PROGRAMS[program])
        lines: list[str] = result.err.splitlines()
        return result.code, [line for line in lines if code or line.startswith("warning")]

    assert_harmless(harm, code, ask, run)


@pytest.mark.parametrize(("harm", "code"), list(DATA.values()), ids=list(DATA))
def test_its_data(harm: Harm, code: int, run: Path, gan: Any, no_pickle: None) -> None:
    os.mkfifo(run.parent / "outside/pipe")
    (run.parent / "outside/pickled.npz").write_bytes(NPZ.getvalue())

    def ask() -> tuple[int, list[str]]:
        result = gan("gan-eval", "run_dir=run", "threads=1", "metrics=[fid]", "num_samples=20")
        return result.code, result.err.splitlines()

    assert_harmless(harm, code, ask, run)


def test_classes_of_the_users_own_need_a_word(run: Path) -> None:
    for name in ("os.system", "my_models.Generator", "an import"):
        harm = HARMS[name][0] if name in HARMS else config(GENERATOR, {"_target_": name})
        harm(run)
        with pytest.raises(GanError, match="gan_cli.*trust=true"):
            load_run(run)


def test_nothing_is_downloaded(run: Path) -> None:
    config("dataset", {"_target_": "gan_cli.data.cifar10.cifar10", "root": "x", "memory_gb": 1e9})(run)
    with pytest.raises(GanError, match="memory_gb"):
        own_dataset(load_run(run, device="cpu").config, trust=False)
    config("dataset", {"_target_": "gan_cli.data.cifar10.cifar10", "root": "x"})(run)
    assert own_dataset(load_run(run, device="cpu").config, trust=False)["download"] is False
    node = {"_target_": "gan_cli.data.image_folder.image_folder", "root": "x", "memory_gb": 1e9}
    config("dataset", node)(run)
    assert "memory_gb" not in own_dataset(load_run(run, device="cpu").config, trust=False)


def test_nothing_is_written_through_what_lies_there(run: Path, gan: Any) -> None:
    assert gan("gan-sample", "run_dir=run", "threads=1", "num_samples=2").code == 0
    grid, outside = run / "generated/step-00000004-seed0/grid.png", run.parent / "outside"
    shutil.copy(grid, outside / "mine.png")
    grid.unlink()
    os.link(outside / "mine.png", grid)  # one file with two names
    for name in (".grid.png.tmp", ".samples.npz.tmp"):
        (grid.parent / name).write_text("planted")
    before = tree(outside)
    assert gan("gan-sample", "run_dir=run", "threads=1", "num_samples=9", "formats=[grid,npz]").code == 0
    assert tree(outside) == before and grid.read_bytes() != (outside / "mine.png").read_bytes()
    grid.unlink()
    grid.symlink_to(outside / "mine.png")
    result = gan("gan-sample", "run_dir=run", "threads=1", "num_samples=3", "trust=true")
    assert result.code == 2 and "would take the place" in result.err
    assert tree(outside) == before


def test_files_are_read_and_written_without_following_anything(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    canary.write_bytes(b"canary")
    (tmp_path / "link").symlink_to(canary)
    (tmp_path / "zero").symlink_to("/dev/zero")
    os.mkfifo(tmp_path / "pipe")
    for name in ("link", "zero", "pipe", "", "none"):
        with pytest.raises(OSError):  # noqa: PT011
            read_file(tmp_path / name)
    with pytest.raises(OSError, match="6.*5"):
        read_file(canary, 5)
    assert read_file(canary, 6) == b"canary"
    for name in ("link", "pipe", "new"):
        write_file(tmp_path / name, "ä")
        assert read_file(tmp_path / name) == b"\xc3\xa4"
    with pytest.raises(TypeError), atomic_file(tmp_path / "new") as file:
        file.writelines([b"half", "text"])  # type: ignore[list-item]
    assert read_file(tmp_path / "new") == b"\xc3\xa4" and canary.read_bytes() == b"canary"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["canary", "link", "new", "pipe", "zero"]
    assert (tmp_path / "new").stat().st_mode & 0o002 == 0


def test_a_link_of_the_users_own(run: Path, gan: Any) -> None:
    linked("checkpoints")(run)
    assert gan("gan-sample", "run_dir=run", "threads=1", "num_samples=2").code == 77
    assert gan("gan-sample", "run_dir=run", "threads=1", "num_samples=2", "trust=true").code == 0


def test_names_of_classes_are_shown_as_text(train: Any, gan: Any, tmp_path: Path) -> None:
    train("model=cgan", "total_steps=4", "run_dir=run", tiny="cgan")
    state(lambda x: x.update(class_names=["\x1b[31mred\n"] * 10))(tmp_path / "run")
    result = gan("gan-sample", "run_dir=run", "threads=1", "label=no")
    assert result.code == 2 and r"\x1b[31mred\n" in result.err
    assert all(line.isprintable() for line in result.err.splitlines())
    state(lambda x: x.update(class_names=["x"] * 11))(tmp_path / "run")
    assert gan("gan-sample", "run_dir=run", "threads=1").code == 76


@pytest.mark.parametrize("key", ["image_size", "channels"])
def test_translating_own_images_at_a_size_of_theirs(key: str, train: Any, gan: Any, tmp_path: Path) -> None:
    from PIL import Image

    train("model=pix2pix", "dataset=digits_paired", "total_steps=4", "run_dir=run", tiny="pix2pix")
    own = {"_target_": "hostile.data", "image_size": 32, "channels": 1}
    state(lambda x: x["config"].update(dataset={**own, key: 10**6}))(tmp_path / "run")
    Image.new("L", (32, 32)).save(tmp_path / "a.png")
    with Watch() as watch:
        result = gan("gan-sample", "run_dir=run", "threads=1", "input=a.png")
    assert result.code == 76 and watch.megabytes < MEGABYTES
