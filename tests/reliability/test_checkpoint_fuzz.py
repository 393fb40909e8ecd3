"""Checkpoints changed at random with hashes that fit: a picture, or one of our errors, soon and without much memory."""

from __future__ import annotations

import copy
import json
import os
import random
import shutil
import struct
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from gan_cli import load_run
from gan_cli.images import to_uint8, write_png
from gan_cli.system.errors import GanError

from ..conftest import train_tiny  # type: ignore[import-not-found]
from .strangers import MEGABYTES, SECONDS, Watch, newest, sign  # type: ignore[import-not-found]

SOAK = "GAN_CLI_SOAK" in os.environ
TRIALS = 2000 if SOAK else 60
MODELS = {  # conftest.TINY's name: overrides
    "dcgan": [],
    "cyclegan": ["model=cyclegan"],
    "cgan": ["model=cgan"],
    "points": ["model=points", "dataset=ring"],
    "pix2pix": ["model=pix2pix", "dataset=digits_paired"],
}
USED = list(MODELS) if SOAK else ["dcgan", "cgan", "pix2pix"]
ODD: list[Any] = [
    *[None, True, False, -1, 0, 1, 2, 3, 64, 65536, 10**6, 2**31, 2**63, 10**30, 0.5, 1e308, -1e308, 5e-324],
    *[float("nan"), float("inf"), "", "x", "???", "${oc.env:HOME}", "\x1b[31m\n\u2028", "a" * 10_000, "os.system", "last"],
    *[[], {}, [1], [1] * 2000, [[]], {"a": 1}, {"": ""}, {"_target_": "os.system", "command": "touch pwned"}],
    *[{"_target_": "gan_cli.networks.mlp.Generator"}, {"_target_": "gan_cli.data.densities.Grid", "side": 4}],
]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A run of one step of each model, with what gan-sample reads of it."""
    home: Path = tmp_path_factory.mktemp("fuzz")
    for name in USED:
        train_tiny(home, *MODELS[name], "total_steps=1", f"run_dir={name}", tiny=name)
        manifest = newest(home / name) / "manifest.json"
        content = json.loads(manifest.read_text())
        content["files"] = {key: content["files"][key] for key in ("state.json", "generator_ema.safetensors")}
        manifest.write_text(json.dumps(content))
    return {name: home / name for name in USED}


def places(node: Any) -> list[tuple[Any, Any]]:
    """Every container and key in nested plain data."""
    found, pending = [], [node]
    while pending:
        container = pending.pop()
        keys = list(container) if isinstance(container, dict) else range(len(container))
        found += [(container, key) for key in keys]
        pending += [container[key] for key in keys if isinstance(container[key], dict | list)]
    return found


def odd(rng: random.Random) -> Any:
    return copy.deepcopy(rng.choice(ODD))


def change(root: Any, rng: random.Random) -> Any:
    """Drop, rename, retype, nest, enlarge or swap something."""
    container, key = rng.choice(places(root) or [([root], 0)])
    value = container[key]
    kind = rng.choice(["drop", "rename", "odd", "odd", "odd", "nest", "more", "swap", "scale"])
    if kind == "drop":
        del container[key]
    elif kind == "rename" and isinstance(container, dict):
        container[rng.choice(["_target_", "_args_", "x", "", f"{key} "])] = container.pop(key)
    elif kind == "nest":
        for _ in range(rng.choice([1, 20, 150])):
            value = [value] if rng.random() < 0.5 else {"a": value}
        container[key] = value
    elif kind == "more" and isinstance(container, dict):
        container[rng.choice(["hidden", "width", "_partial_", "more"])] = odd(rng)
    elif kind == "swap":
        other, place = rng.choice(places(root) or [([root], 0)])
        container[key] = json.loads(json.dumps(other[place]))
    elif kind == "scale" and isinstance(value, int | float):
        container[key] = value * rng.choice([-1, 0, 2, 0.5, 1000, 10**9])
    else:
        container[key] = odd(rng)
    return root


def change_state(run: Path, rng: random.Random) -> None:
    content = json.loads((newest(run) / "state.json").read_text())
    config = content["config"]
    nodes = [config["model"]["task"], config["model"]["generator"], config["model"], config["dataset"], config, content]
    for _ in range(rng.choice([1, 1, 1, 2, 5])):
        change(rng.choice(nodes), rng)
    text = json.dumps(content)
    if rng.random() < 0.1:  # no plain JSON
        at = rng.randrange(len(text))
        text = text[:at] + rng.choice(["", "[" * 5000, '"', "NaN", "\udc00", '"config": 1,', "9" * 5000, "\0"]) + text[at:]
    sign(run, state__json=text.encode("utf-8", "surrogatepass"))


def change_manifest(run: Path, rng: random.Random) -> None:
    path = newest(run) / "manifest.json"
    path.write_text(json.dumps(change(json.loads(path.read_text()), rng)))


def change_header(run: Path, rng: random.Random) -> None:
    data = (newest(run) / "generator_ema.safetensors").read_bytes()
    size = struct.unpack("<Q", data[:8])[0]
    head = json.dumps(change(json.loads(data[8 : 8 + size]), rng)).encode()
    size = rng.choice([0, 1, len(head) - 1, len(head) + 8, 2**31, 2**62, 2**64 - 1]) if rng.random() < 0.2 else len(head)
    sign(run, generator_ema__safetensors=struct.pack("<Q", size) + head + data[8 + struct.unpack("<Q", data[:8])[0] :])


def change_tensors(run: Path, rng: random.Random) -> None:
    tensors = load_tensors((newest(run) / "generator_ema.safetensors").read_bytes())
    name = rng.choice(list(tensors))
    value = tensors.pop(name)
    dtype = rng.choice([torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.bool, torch.uint8])
    changed = {
        "renamed": {f"{name}x": value},
        "another type": {name: value.to(dtype)},
        "flat": {name: value.flatten()},
        "longer": {name: torch.cat([value.flatten(), torch.zeros(3)])},
        "turned": {name: value.t().contiguous() if value.dim() == 2 else value[None]},
        "empty": {name: torch.empty(0)},
        "huge": {name: torch.full_like(value, 3e38) if value.is_floating_point() else torch.full_like(value, 2**62)},
        "no numbers": {name: torch.full(value.shape, float("nan"))},
        "one more": {name: value, "more": torch.zeros(2)},
        "dropped": {},
    }
    sign(run, generator_ema__safetensors=save_tensors({**tensors, **rng.choice(list(changed.values()))}))


def change_bytes(run: Path, rng: random.Random) -> None:
    data = bytearray((newest(run) / "generator_ema.safetensors").read_bytes())
    for _ in range(rng.choice([1, 10, 100])):
        data[rng.randrange(len(data))] = rng.randrange(256)
    sign(run, generator_ema__safetensors=bytes(data[: rng.choice([len(data), rng.randrange(len(data))])]))


CHANGES = [change_state, change_state, change_state, change_manifest, change_header, change_tensors, change_bytes]


def draw(run_dir: Path) -> None:
    """A picture of two samples."""
    run = load_run(run_dir, device="cpu")
    made = run.translate(torch.zeros(2, 1, 32, 32)) if run.translates else run.sample(2)
    picture = run.task.draw_points(made) if made.dim() == 2 else to_uint8(made)[0]
    write_png(run_dir / "picture.png", picture)


def test_a_changed_checkpoint_makes_a_picture_or_an_error(
    runs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in runs:
        draw(runs[name])  # what is unchanged works, and matplotlib is loaded
    outcomes: Counter[int] = Counter()
    wrong, slowest, largest = [], 0.0, 0.0
    for trial in range(TRIALS):
        rng = random.Random(trial)
        shutil.copytree(runs[USED[trial % len(USED)]], tmp_path / "run")
        rng.choice(CHANGES)(tmp_path / "run", rng)
        with Watch() as watch:
            try:
                draw(tmp_path / "run")
                outcomes[0] += 1
            except GanError as error:
                outcomes[error.exit_code] += 1
                wrong += [] if str(error).isprintable() and len(str(error)) < 2000 else [(trial, str(error))]
            except Exception as error:
                wrong.append((trial, f"{type(error).__name__}: {error}"[:300]))
        slowest, largest = max(slowest, watch.seconds), max(largest, watch.megabytes)
        shutil.rmtree(tmp_path / "run")
    print(f"{TRIALS} changed checkpoints: {dict(outcomes)}, {len(wrong)} wrong, {slowest:.2f} s, {largest:.0f} MB at most")
    assert wrong == []
    assert slowest < SECONDS and largest < MEGABYTES
    assert outcomes[0] and outcomes[76] and outcomes[77]
    assert list(tmp_path.iterdir()) == []
