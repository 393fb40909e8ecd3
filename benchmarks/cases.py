"""The benchmark cases: models, their data, and the two training loops of each."""

from __future__ import annotations

import gzip
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import plain
import torch
from hydra import compose, initialize_config_module
from PIL import Image
from torchvision import datasets

from gan_cli.compute.device import choose_device, default_threads
from gan_cli.config.build import build
from gan_cli.config.training import TrainConfig, check
from gan_cli.randomness import seed_everything

IDX = {"FashionMNIST": datasets.FashionMNIST, "MNIST": datasets.MNIST}
PHOTO = (178, 218)  # width and height of an aligned CelebA image, which the DCGAN tutorial uses
SYNTHETIC_FILES = {"photos": 2000, "pairs": 400, "domains": 400}  # number of files in the training part


@dataclass(frozen=True)
class Case:
    """A model on its data.

    Attributes:
        title: name in tables. settings: arguments of ``gan-train``.
        data: folder of its data: ``FashionMNIST``, ``MNIST``, ``photos``, ``pairs`` or ``domains``.
        loop: the plain loop. load: its loader, ``(config, folder) -> batches``.
    """

    title: str
    settings: tuple[str, ...]
    data: str
    loop: plain.Loop
    load: Callable[[TrainConfig, Path], Iterable[Any]]


def _idx(config: TrainConfig, folder: Path, workers: int = 0) -> Iterable[Any]:
    kind = IDX["FashionMNIST" if config.dataset["_target_"].endswith("fashion_mnist") else "MNIST"]
    return plain.idx_loader(kind, folder, config.batch_size, config.dataset["image_size"], workers=workers)


def _array(config: TrainConfig, folder: Path) -> Iterable[Any]:
    return plain.array_loader(build(config.dataset, "dataset").images, config.batch_size)


def _photos(config: TrainConfig, folder: Path) -> Iterable[Any]:
    return plain.folder_loader(folder / "photos", config.batch_size, config.dataset["image_size"])


def _pairs(config: TrainConfig, folder: Path) -> Iterable[Any]:
    sizes = config.dataset["load_size"], config.dataset["image_size"]
    return plain.translation_loader(plain.Pairs(folder / "pairs" / "train", *sizes), config.batch_size)


def _domains(config: TrainConfig, folder: Path) -> Iterable[Any]:
    sizes = config.dataset["load_size"], config.dataset["image_size"]
    return plain.translation_loader(plain.Domains(folder / "domains", *sizes), config.batch_size)


def _workers(config: TrainConfig, folder: Path) -> Iterable[Any]:
    return _idx(config, folder, workers=2)


CASES = {
    "mlp": Case("MLP GAN, Fashion-MNIST", ("experiment=gan_fashion_mnist",), "FashionMNIST", plain.mlp_gan, _idx),
    "wgan": Case("WGAN MLP, MNIST", ("experiment=wgan_mnist",), "MNIST", plain.wgan, _idx),
    "wgan_gp": Case(
        "WGAN-GP, MNIST 32", ("experiment=wgan_gp_mnist", "optimizer=adam_wgan_gp"), "MNIST", plain.wgan_gp, _array
    ),
    "dcgan64": Case(
        "DCGAN-64, photos",
        ("model=dcgan", "dataset=image_folder", "dataset.root={data}/photos", "dataset.image_size=64"),
        "photos",
        plain.dcgan,
        _photos,
    ),
    "cdcgan": Case("conditional DCGAN, MNIST 32", ("experiment=cdcgan_mnist",), "MNIST", plain.cdcgan, _idx),
    "pix2pix256": Case(
        "pix2pix-256", ("model=pix2pix", "dataset=paired", "dataset.root={data}/pairs"), "pairs", plain.pix2pix, _pairs
    ),
    "cyclegan128": Case(
        "CycleGAN-128",
        (
            "model=cyclegan",
            "dataset=unpaired",
            "dataset.root={data}/domains",
            "dataset.image_size=128",
            "dataset.load_size=143",
        ),
        "domains",
        plain.cyclegan,
        _domains,
    ),
    # For the growth curves: one data set, with any number and size of images.
    "mlp_mnist": Case("MLP GAN", ("model=mlp", "dataset=mnist"), "MNIST", plain.mlp_gan, _idx),
    "dcgan_mnist": Case("DCGAN", ("model=dcgan", "dataset=mnist"), "MNIST", plain.dcgan, _workers),
}


def composed(case: Case, folder: Path, *settings: str) -> TrainConfig:
    """The config of ``gan-train`` for a case. Later ``settings`` win."""
    root = f"dataset.root={folder}" if case.data in IDX else None
    overrides = [setting.format(data=folder) for setting in case.settings]
    with initialize_config_module("gan_cli.conf", version_base="1.3"):
        return check(compose("train", [*overrides, *([root] if root else []), *settings]))


def plain_players(config: TrainConfig) -> plain.Players:
    """The networks of a config with its initial weights, in the default memory format."""
    device = choose_device(config.device)
    torch.set_num_threads(config.threads or default_threads())
    networks = {}
    for side in ("generator", "discriminator"):
        seed_everything(config.seed, "init", side)
        networks[side] = build(config.model[side], side).to(device)
    return plain.Players(**networks, device=device, latent_dim=config.model["task"].get("latent_dim", 0))


def images_per_step(config: TrainConfig) -> int:
    """Real images that D sees in a step; of a translation, samples."""
    return int(config.batch_size * config.loss.get("n_critic", 1))


def make_data(folder: Path, kinds: Iterable[str], source: Path | None) -> dict[str, str]:
    """Puts what the cases need into ``folder``: MNIST-like sets from ``source`` where it has them, else noise.

    Returns:
        For each kind in words what it is.
    """
    return {kind: _make_idx(folder, kind, source) if kind in IDX else _make_photos(folder, kind) for kind in kinds}


def _make_idx(folder: Path, name: str, source: Path | None) -> str:
    raw = folder / name / "raw"
    raw.mkdir(parents=True, exist_ok=True)
    for kind, values in (("images-idx3", None), ("labels-idx1", 10)):
        for part, count in (("train", 60_000), ("t10k", 10_000)):
            target = raw / f"{part}-{kind}-ubyte"
            files = [] if source is None else list((source / name / "raw").glob(f"{target.name}*"))
            if files:
                opener = gzip.open if files[0].suffix == ".gz" else open
                with opener(files[0], "rb") as packed, open(target, "wb") as unpacked:
                    shutil.copyfileobj(packed, unpacked)
            else:
                shape = (count,) if values else (count, 28, 28)
                write_idx(target, np.random.default_rng(0).integers(0, values or 256, shape, dtype=np.uint8))
    return "real" if files else "synthetic"


def write_idx(path: Path, array: np.ndarray) -> None:
    """Write an array of bytes in MNIST's format."""
    header = bytes([0, 0, 8, array.ndim]) + b"".join(int(n).to_bytes(4, "big") for n in array.shape)
    path.write_bytes(header + array.tobytes())


def first_images(folder: Path, source: Path, count: int) -> None:
    """Copy the first ``count`` images of the MNIST in ``source`` to ``folder``, as a smaller data set."""
    (folder / "MNIST" / "raw").mkdir(parents=True, exist_ok=True)
    for kind, dims in (("images-idx3", 3), ("labels-idx1", 1)):
        for part in ("train", "t10k"):
            name = f"MNIST/raw/{part}-{kind}-ubyte"
            with open(source / name, "rb") as file:
                shape = np.frombuffer(file.read(4 + 4 * dims), ">u4", offset=4)
            array = np.memmap(source / name, np.uint8, "r", 4 + 4 * dims, tuple(int(n) for n in shape))
            write_idx(folder / name, np.array(array[:count]))


def _make_photos(folder: Path, kind: str) -> str:
    """Write JPEGs of smooth noise, which take as long to decode as photos."""
    random = np.random.default_rng(0)
    size = {"photos": PHOTO, "pairs": (512, 256), "domains": (256, 256)}[kind]
    parts = {"photos": ["one"], "pairs": ["train", "val"], "domains": ["trainA", "trainB", "testA", "testB"]}[kind]
    for part in parts:
        (folder / kind / part).mkdir(parents=True, exist_ok=True)
        for k in range(8 if part.startswith(("val", "test")) else SYNTHETIC_FILES[kind]):
            coarse = random.integers(0, 256, (size[1] // 8, size[0] // 8, 3), dtype=np.uint8)
            smooth = np.array(Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC), np.int16)
            grain = random.integers(-6, 7, smooth.shape, dtype=np.int16)
            Image.fromarray((smooth + grain).clip(0, 255).astype(np.uint8)).save(
                folder / kind / part / f"{k:05d}.jpg", quality=90
            )
    return "synthetic"


def plain_steps(
    case: Case, config: TrainConfig, folder: Path, watch: Callable[[Iterable[Any]], Iterable[Any]]
) -> Iterator[Any]:
    """Run the plain loop step by step. ``watch`` wraps its loader."""
    return case.loop(plain_players(config), watch(case.load(config, folder)))
