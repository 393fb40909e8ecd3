"""Metrics of damaged images: test images with known damage against the training images, for docs/evaluation.md.

    python benchmarks/damage.py [--dataset fashion_mnist] [--root data] [--run_dir DIR ...]

Each row has up to 10,000 images, measured as gan-eval does with the classifier of the data set. Rows of runs are those of
gan-eval run_dir=DIR. Takes a few minutes per data set on 2 CPU cores.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from gan_cli.config.build import build
from gan_cli.evaluation.image_sets import Images, Sampler, of_dataset
from gan_cli.evaluation.rule import Comparison, Rule, prepare
from gan_cli.rundir.reload import load_run
from gan_cli.system.text import number

METRICS = ["fid", "kid", "is", "prdc", "classes", "memorisation"]
COLUMNS = ["fid", "kid", "is", "precision", "recall", "density", "coverage", "classes", "memorisation"]
TARGETS = {"mnist": "idx.mnist", "fashion_mnist": "idx.fashion_mnist", "kmnist": "idx.kmnist", "digits": "digits.digits"}


def main() -> None:
    """Measure all rows and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="fashion_mnist", choices=TARGETS)
    parser.add_argument("--root", default="data", help="directory of the data set, or of its download")
    parser.add_argument("--run_dir", default=[], nargs="*", type=Path, help="runs on this data set, for more rows")
    arguments = parser.parse_args()
    node = {"_target_": f"gan_cli.data.{TARGETS[arguments.dataset]}", "image_size": 32}
    if arguments.dataset != "digits":
        node["root"] = arguments.root
    train, test = (build({**node, "split": split}, "dataset") for split in ("train", "test"))
    real = of_dataset(train, "reference")
    images = test.batch(torch.arange(len(test)))
    rule = Rule(METRICS, {"_target_": "gan_cli.metrics.classifier.Classifier"}, {})
    clean = Comparison(of_tensor(images), real, {**node, "split": "train"}, "train", training=lambda: train)
    evaluation = prepare(clean, rule, torch.device("cpu"))

    print(f"| {arguments.dataset} | {' | '.join(COLUMNS)} |\n|---|{'---|' * len(COLUMNS)}")
    copies = train.batch(torch.randperm(len(train), generator=torch.Generator().manual_seed(0))[: len(images)])
    rows = {name: of_tensor(spoiled) for name, spoiled in damaged(images, test.labels, copies)}
    for run_dir in arguments.run_dir:
        run = load_run(run_dir, device="cpu")
        rows[f"{run_dir.name}, {run.images:,} images"] = Sampler(run.task, run.generator, run.device).from_noise(10_000)
    for name, fake in rows.items():
        values = evaluation.measure(fake)
        print(f"| {name} | {' | '.join(number(values[key]) for key in COLUMNS)} |", flush=True)


def damaged(images: Tensor, labels: Tensor, trained_on: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Damaged versions of uint8 images (N, 1, H, W) with labels (N,), each with its name."""
    generator = torch.Generator().manual_seed(0)
    n = len(images)
    yield "test images", images
    yield "train images (copies)", trained_on
    for sigma in (0.5, 1.0, 2.0):
        yield f"blur, sigma {sigma:g}", blur(images, sigma)
    for sigma in (10, 30, 100):
        noise = torch.randn(images.shape, generator=generator) * sigma
        yield f"noise, sigma {sigma} of 255", (images + noise).round().clamp(0, 255).to(torch.uint8)
    for count in (1, 3, 5):
        kept = torch.nonzero(labels >= count).flatten()
        yield f"{count} of 10 classes dropped", images[kept[torch.randint(len(kept), (n,), generator=generator)]]
    for count in (n // 10, n // 100):
        yield f"{count:,} images repeated", images[torch.arange(n) % count]
    yield "uniform noise", torch.randint(256, images.shape, generator=generator).to(torch.uint8)


def blur(images: Tensor, sigma: float) -> Tensor:
    """Gaussian blur of uint8 images (N, 1, H, W)."""
    x = torch.arange(-6, 7).float()
    line = torch.exp(-(x**2) / (2 * sigma**2))
    line = line / line.sum()
    smooth = F.conv2d(F.conv2d(images.float(), line.view(1, 1, 1, -1), padding=(0, 6)), line.view(1, 1, -1, 1), padding=(6, 0))
    return smooth.round().to(torch.uint8)


def of_tensor(images: Tensor) -> Images:
    """A tensor as a set of generated images."""
    return Images("generated", len(images), tuple(images.shape[1:]), lambda: iter(torch.split(images, 64)))


if __name__ == "__main__":
    main()
