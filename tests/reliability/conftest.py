"""Games of every kind, tiny, and for each a run that was never stopped."""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from ..conftest import TINY, Reader  # type: ignore[import-not-found]

SOAK = "GAN_CLI_SOAK" in os.environ
STEPS = 43 if SOAK else 7  # of a run
OFTEN = ["save_every=1", "keep_checkpoints=100", "log_every=3", "sample_every=5", "device=cpu", "workers=0"]
PHOTOS = ["dataset=image_folder", "dataset.root=photos", "dataset.image_size=32", "dataset.memory_gb=1e-9"]
ARRAY = ["dataset=npz", "dataset.path=images.npz"]
SMALL = ["dataset.image_size=32", "dataset.load_size=36"]
WARM_UP = ["loss=wgan_warm_up", "loss.warm_up.n_critic=3", "loss.warm_up.steps=9", "loss.warm_up.every=5"]
BEST = ["eval_every=4", "metrics=[psnr]", "num_samples=4"]
KINDS = {  # name: (of TINY, overrides)
    "mlp": ("mlp", ["model=mlp", "model.task.same_noise=true", "loss.first=generator", *ARRAY]),
    "dcgan, ema, ttur, cosine": ("dcgan", ["optimizer=ttur", "schedule=cosine", "ema.half_life=200"]),
    "dcgan, bf16": ("dcgan", ["precision=bf16"]),
    "spectral norm": ("own", ["loss=hinge"]),
    "cgan, dropout": ("cgan", ["model=cgan", "model.generator.hidden_y=8", "model.discriminator.hidden_x=8"]),
    "cdcgan, labelled npz": ("dcgan", ["model=cdcgan", *ARRAY, "dataset.num_classes=10"]),
    "pix2pix, best": ("pix2pix", ["model=pix2pix", "dataset=paired", "dataset.root=facades", *SMALL, *BEST]),
    "cyclegan": (
        "cyclegan",
        ["model=cyclegan", "dataset=unpaired", "dataset.root=horse2zebra", *SMALL, "model.task.pool_size=6"],
    ),
    "wgan, warm-up": ("mlp", ["model=wgan_mlp", *WARM_UP]),
    "wgan-gp": ("dcgan", ["loss=wgan_gp", "optimizer=adam_wgan_gp", "loss.n_critic=2"]),
    "sgd with momentum": ("mlp", ["model=mlp", "optimizer=sgd", "optimizer.lr=0.01", "optimizer.momentum=0.5"]),
    "points": ("points", ["model=points", "dataset=mixture_1d"]),
    "photos": ("dcgan", PHOTOS),
    "photos, 2 workers": ("dcgan", [*PHOTOS, "workers=2"]),
}
OWN = """
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm


class Generator(nn.Module):
    def __init__(self, latent_dim: int = 8):
        super().__init__()
        self.first = spectral_norm(nn.Linear(latent_dim, 4 * 8 * 8))
        self.norm = nn.BatchNorm2d(4)
        self.last = spectral_norm(nn.ConvTranspose2d(4, 1, 6, 4, 1))

    def forward(self, z, label=None):
        return self.last(self.norm(self.first(z).view(-1, 4, 8, 8)).relu()).tanh()


class Discriminator(nn.Module):
    def __init__(self, width: int = 4):
        super().__init__()
        self.layers = nn.Sequential(
            spectral_norm(nn.Conv2d(1, width, 4, 4)), nn.LeakyReLU(0.2), nn.Flatten(), spectral_norm(nn.Linear(width * 64, 3))
        )

    def forward(self, images, label=None):
        return self.layers(images).mean(1)
"""


def compose(overrides: list[str], own: bool) -> Any:
    """The config of ``gan-train overrides``; with ``own`` networks that have spectral norm."""
    from hydra import compose, initialize_config_module

    from gan_cli.config.plain import to_plain
    from gan_cli.config.training import check_plain

    with initialize_config_module("gan_cli.conf", version_base="1.3"):
        plain = to_plain(compose("train", overrides))
    if own:
        plain["model"] |= {side: {"_target_": f"own_spectral.{side.title()}"} for side in ("generator", "discriminator")}
        plain["model"]["task"]["latent_dim"] = 8
    return check_plain(plain)


@dataclass
class Kind:
    """A game and its run that was never stopped.

    Attributes:
        whole: that run, with a checkpoint of every step. moments: by step, its other files when that was about to be saved.
    """

    name: str
    config: Any
    whole: Path
    moments: Path

    def train(self, run_dir: Path, **changes: Any) -> str:
        """Start or continue it; how it was stopped, or an empty string if it came to its end."""
        from gan_cli.app.commands import Command
        from gan_cli.system import signals
        from gan_cli.system.errors import PreemptedError
        from gan_cli.training.session import run

        try:
            run(replace(self.config, **changes), run_dir, "", Command(("gan-train",)))
        except PreemptedError as error:
            return error.what
        finally:
            signals.received.clear()  # the next one is as in a new process
        return ""

    def killed(self, run_dir: Path, step: int, before: int | None = None) -> Path:
        """``run_dir`` as kill -9 leaves it: checkpoints up to ``step``, the rest as it was just before saving ``before``."""
        shutil.copytree(self.moments / str(before or step), run_dir)
        (run_dir / "checkpoints").mkdir()
        for k in range(1, step + 1):
            source = self.whole / "checkpoints" / f"step-{k:08d}"
            shutil.copytree(source, run_dir / "checkpoints" / source.name, copy_function=os.link)  # never written in place
        return run_dir

    def lost(self, run_dir: Path, step: int) -> list[str]:
        """What a run that stopped at ``step`` has otherwise than this one had then, bit for bit; nothing, that is."""
        folders = [run / "checkpoints" / f"step-{step:08d}" for run in (self.whole, run_dir)]
        names = {path.name for folder in folders for path in folder.glob("*.safetensors")}
        contents = [{n: (folder / n).read_bytes() for n in names if (folder / n).exists()} for folder in folders]
        infos = [json.loads((folder / "state.json").read_text()) for folder in folders]
        rows = [[row for row in Reader.rows(run) if row["step"] <= step] for run in (self.whole, run_dir)]
        pictures = [Reader.pictures(run) for run in (self.whole, run_dir)]
        last = f"step-{step:08d}.png"
        found = [name for name in sorted(names) if contents[0].get(name) != contents[1].get(name)]
        found += [k for k in sorted(infos[0].keys() | infos[1].keys()) if k != "config" and infos[0].get(k) != infos[1].get(k)]
        found += ["rows"] if rows[0] != rows[1] else []
        found += ["pictures"] if {k: v for k, v in pictures[0].items() if k <= last} != pictures[1] else []
        assert len(names) >= 5 and len(infos[0]) >= 7
        return found


@pytest.fixture(scope="module")
def kinds(tmp_path_factory: pytest.TempPathFactory, data_root: Path) -> Iterator[Callable[[str], Kind]]:
    """``kinds("cyclegan")``: made when it is first asked for."""
    made: dict[str, Kind] = {}
    home: Path = tmp_path_factory.mktemp("kinds")
    (home / "own_spectral.py").write_text(OWN)
    sys.path.insert(0, str(home))
    environ, level = os.environ.get("XDG_CACHE_HOME"), logging.getLogger("gan_cli").level
    os.environ["XDG_CACHE_HOME"] = str(home / "cache")
    logging.getLogger("gan_cli").setLevel(logging.INFO)

    def kind(name: str) -> Kind:
        if name not in made:
            made[name] = uninterrupted(name, tmp_path_factory.mktemp("kind"), data_root)
        return made[name]

    yield kind
    logging.getLogger("gan_cli").setLevel(level)
    sys.path.remove(str(home))
    sys.modules.pop("own_spectral", None)
    os.environ.pop("XDG_CACHE_HOME")
    if environ is not None:
        os.environ["XDG_CACHE_HOME"] = environ


def uninterrupted(name: str, home: Path, data_root: Path) -> Kind:
    """The run that was never stopped."""
    from gan_cli.rundir import checkpoint

    tiny, overrides = KINDS[name]
    placed = [re.sub(r"^(dataset\.(?:root|path)=)", rf"\1{data_root}/", text) for text in overrides]
    config = compose([*TINY[tiny], *OFTEN, *placed, f"total_steps={STEPS}"], own=tiny == "own")
    kind = Kind(name, config, home / "whole", home / "moments")

    def save(run_dir: Path, step: int, *args: Any) -> Path:
        shutil.copytree(run_dir, kind.moments / str(step), ignore=shutil.ignore_patterns("checkpoints"))
        return genuine(run_dir, step, *args)

    with pytest.MonkeyPatch.context() as patch:
        genuine = checkpoint.save
        patch.setattr(checkpoint, "save", save)
        patch.setattr(os, "fsync", lambda descriptor: None)
        assert kind.train(kind.whole) == ""
    return kind


@pytest.fixture
def no_process_left() -> Iterator[None]:
    """Commands in processes of their own end with the test, even one that fails."""
    from .processes import end_all

    yield
    end_all()


@pytest.fixture
def unsynced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Saves do not wait for the disk."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture
def forge(unsynced: None) -> Callable[[Kind, Path, int, Callable[[Any, Any], None]], Path]:
    """``forge(kind, run_dir, step, change)``: killed at ``step``, its state ``change(tensors, info)``-d, all hashes right."""
    from gan_cli.rundir import checkpoint

    def forge(kind: Kind, run_dir: Path, step: int, change: Callable[[Any, Any], None]) -> Path:
        run = kind.killed(run_dir, step)
        saved = checkpoint.load(run, step)
        shutil.rmtree(run / "checkpoints" / checkpoint.name(step))
        change(saved.tensors, saved.info)
        checkpoint.save(run, step, saved.tensors, saved.info)
        return run

    return forge
