"""The classifier that a data set is judged by: trained once, the same everywhere, and of some use."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from gan_cli.data.dataset import ArrayDataset
from gan_cli.data.dataset import fingerprint as hash_of
from gan_cli.data.digits import digits
from gan_cli.data.fitting import fit_images
from gan_cli.metrics import classifier
from gan_cli.metrics.classifier import Classifier, canonical
from gan_cli.metrics.features import CLASSIFIER, build_extractor, extract
from gan_cli.system.errors import ConfigError

CPU = torch.device("cpu")


def bars(n: int = 60, side: int = 28, channels: int = 1, seed: int = 0, classes: int = 3) -> ArrayDataset:
    """Noise, with a bright bar whose height is the class."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 100, (n, channels, side, side), generator=generator, dtype=torch.uint8)
    labels = torch.arange(n) % classes
    for image, label in zip(images, labels.tolist(), strict=True):
        image[:, 4 + 8 * label : 8 + 8 * label] += 150
    return dataset(images, labels)


def dataset(images: Tensor, labels: Tensor | None) -> ArrayDataset:
    names = [] if labels is None else [str(k) for k in range(int(labels.max()) + 1)]
    return ArrayDataset(images, labels=labels, class_names=names, fingerprint=hash_of(images.numpy(), str(labels)))


def make(folder: Path, train: ArrayDataset | None = None, test: ArrayDataset | None = None, **options: Any) -> Classifier:
    parts = {"train": train or bars(), "test": test}
    return Classifier(labelled=parts.__getitem__, folder=folder, **{"epochs": 4, "width": 2, **options})


def test_trained_once_and_the_same_from_the_cache(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    first = make(tmp_path, test=bars(seed=1))
    assert [r.getMessage().split(":")[0] for r in caplog.records] == [
        "training the classifier of 60 images in 3 classes once, some seconds",
        "the classifier is trained",
    ]
    again = make(tmp_path, test=bars(seed=1))
    assert len(caplog.records) == 2 and first.facts == again.facts
    for a, b in zip(first(bars(seed=2).images), again(bars(seed=2).images), strict=True):
        assert torch.equal(a, b)  # type: ignore[arg-type]


def test_training_is_a_function_of_its_arguments_alone(tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    hashes = []
    try:
        for k in (1, 2):
            torch.set_num_threads(k)
            torch.manual_seed(k)
            before = torch.get_rng_state()
            with torch.inference_mode(k == 2):
                hashes.append(make(tmp_path / str(k)).facts["features_hash"])
            assert torch.equal(torch.get_rng_state(), before) and torch.get_num_threads() == k
    finally:
        torch.set_num_threads(threads)
    assert hashes[0] == hashes[1]


@pytest.mark.parametrize("other", [{"epochs": 3}, {"width": 3}, {"train": bars(seed=5)}, {"test": bars(seed=6)}])
def test_anything_else_is_another_classifier(other: dict[str, Any], tmp_path: Path) -> None:
    make(tmp_path)
    make(tmp_path, **other)
    assert len(list(tmp_path.glob("classifier-*.safetensors"))) == 2


@pytest.mark.parametrize("channels", [1, 3])
def test_shapes_and_facts(channels: int, tmp_path: Path) -> None:
    made = make(tmp_path, bars(channels=channels), bars(channels=channels, seed=1), width=3)
    assert (made.dim, made.num_classes) == (24, 3)
    for c in (1, 3, 4):
        values, logits = made(torch.randint(0, 256, (70, c, 40, 40), dtype=torch.uint8))
        assert values.shape == (70, 24) and logits is not None and logits.shape == (70, 3)
        assert values.dtype == logits.dtype == torch.float32 and values.min() >= 0
    facts = made.facts
    assert 0 <= facts["classifier_accuracy"] <= 1 and len(facts["features_hash"]) == 64
    assert (facts["features"], facts["resize"]) == ("classifier", "pad or area to 32x32")
    assert facts["comparable"] == "only with results of the same classifier; never with Inception numbers"


def test_28_pixels_and_32_are_the_same_images(tmp_path: Path) -> None:
    small = bars()
    assert small.labels is not None
    large = dataset(fit_images(small.images, image_size=32, channels=1, fit="pad"), small.labels)
    a, b = make(tmp_path, small), make(tmp_path, large)
    assert a.facts == b.facts
    assert torch.equal(a(small.images)[0], b(large.images)[0])


def test_canonical_geometry() -> None:
    x = bars(4).images
    assert torch.equal(canonical(x, 1), fit_images(x, image_size=32, channels=1, fit="pad"))
    assert torch.equal(canonical(x, 3), canonical(x, 1).repeat(1, 3, 1, 1))
    square = canonical(x, 1)
    assert torch.equal(canonical(square, 1), square)
    enlarged = square.repeat_interleave(3, -1).repeat_interleave(3, -2)
    assert torch.equal(canonical(enlarged, 1), square), "the average of equal pixels"
    blocks = torch.randint(0, 256, (1, 1, 64, 64), dtype=torch.uint8)
    means = blocks.view(32, 2, 32, 2).float().mean((1, 3)).round().to(torch.uint8)
    assert torch.equal(canonical(blocks, 1)[0, 0], means)
    tiny = torch.full((1, 1, 10, 10), 7, dtype=torch.uint8)
    assert canonical(tiny, 1).shape == (1, 1, 32, 32) and (canonical(tiny, 1) == 7).sum() == 900


def test_without_a_test_part_every_tenth_of_each_class_is_held_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    shown: list[Tensor] = []

    def fit(network: Any, images: Tensor, labels: Tensor, total: int) -> Any:
        shown.extend([images, labels])
        return network

    monkeypatch.setattr(classifier, "_fit", fit)
    train = bars(63)
    make(tmp_path, train)
    kept = [k for k in range(63) if k // 3 % 10 != 9]  # classes take turns
    assert torch.equal(shown[0], canonical(train.images[kept], 1))
    assert train.labels is not None and torch.equal(shown[1], train.labels[kept])
    assert "6 held-out images" in caplog.text


def test_unlabelled_images_are_refused(tmp_path: Path) -> None:
    images = bars().images
    for train in (dataset(images, None), dataset(images, torch.zeros(60, dtype=torch.int64))):
        with pytest.raises(ConfigError, match="features=inception"):
            make(tmp_path, train)
    assert list(tmp_path.iterdir()) == []


def test_a_handful_of_images(tmp_path: Path) -> None:
    made = make(tmp_path, bars(3))
    assert made.facts["classifier_accuracy"] is None
    assert made(bars(2).images)[0].isfinite().all()


def frechet(a: Tensor, b: Tensor) -> float:
    """FID, with its square root by eigenvalues, in float64."""
    a, b = a.double(), b.double()
    root = torch.linalg.eigvals(a.T.cov() @ b.T.cov()).real.clamp(min=0).sqrt().sum()
    return float((a.mean(0) - b.mean(0)).square().sum() + a.T.cov().trace() + b.T.cov().trace() - 2 * root)


def test_it_learns_digits_and_worse_images_are_farther(tmp_path: Path) -> None:
    node = {"_target_": CLASSIFIER, "epochs": 5, "width": 6}
    made = build_extractor(node, labelled=lambda split: digits(split=split), folder=tmp_path, device=CPU)  # type: ignore[arg-type]
    assert made.facts["classifier_accuracy"] > 0.9
    train, test = digits(), digits(split="test")
    pixels = test.images
    blurred = torch.nn.functional.avg_pool2d(pixels.float(), 5, 1, 2).to(torch.uint8)
    noise = torch.randint(0, 256, pixels.shape, generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    assert test.labels is not None
    sets = {"test": pixels, "blurred": blurred, "noise": noise, "few": pixels[test.labels > 1], "one": pixels[test.labels > 8]}
    found = {k: extract(made, [x], len(x), device=CPU, what=k).values for k, x in sets.items()}
    real = extract(made, train.images.split(256), len(train), device=CPU, what="real").values
    distance = {k: frechet(x, real) for k, x in found.items()}
    assert distance["test"] < distance["blurred"] < distance["noise"]
    assert distance["test"] < distance["few"] < distance["one"]
