"""A classifier trained on the data set, for MNIST-like sets: FID, IS, precision and recall in seconds, without a download."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gan_cli.data.dataset import ImageDataset
from gan_cli.data.fitting import to_channels
from gan_cli.metrics.cache import cached, digest
from gan_cli.randomness import derive
from gan_cli.ranges import PositiveInt, Width
from gan_cli.system.errors import ConfigError

RECIPE_VERSION = 1  # part of the cache key; raise it when the training changes
SIDE = 32  # pixels, side of the input images
THREADS = 1  # threads of the training, so that its result does not depend on the number of cores
BATCH = 128  # images per training step
LEARNING_RATE = 5e-3  # the maximum, reached after a fifth of the steps
WEIGHT_DECAY = 1e-2  # weight decay of AdamW
MAX_SHIFT = 1  # pixels by which training batches are moved at random
BUDGET = 240_000  # images shown in all if epochs is null
MAX_EPOCHS = 30  # times that an image is shown at most if epochs is null
HELD_OUT = 10  # every tenth image of each class is held out if there is no test part
CHUNK = 1024  # images read at a time
CPU_BATCH = 64  # images per forward pass on a CPU: their activations fit in its cache
log = logging.getLogger("gan_cli")


class Network(nn.Module):
    """Four 3x3 convolutions with batch normalisation and ReLU; the average over the last map is the feature vector.

    Max pooling comes before the normalisation, which then has a quarter of the work.

    Args:
        channels: 1 or 3, of the images.
        num_classes: number of logits.
        width: channels of the first convolution; each further one doubles them.
    """

    def __init__(self, channels: int, num_classes: int, width: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after in pairwise([channels, width, 2 * width, 4 * width, 8 * width]):
            layers += [nn.Conv2d(before, after, 3, padding=1, bias=False), nn.MaxPool2d(2), nn.BatchNorm2d(after), nn.ReLU()]
        del layers[-3]  # no pooling before the average
        self.body = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head = nn.Linear(8 * width, num_classes)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """float32 (N, channels, 32, 32) in [-1, 1] to features (N, 8 * width), at least 0, and logits."""
        features = self.body(images)
        return features, self.head(features)


class Classifier:
    """Features of a small convolutional network, trained once on the labelled images of the data set and cached.

    Its FID and IS are computed as with Inception (Heusel et al. 2017; Salimans et al. 2016), but from the features of this
    network. They rank models of one data set and cannot be compared with numbers of any other network.

    The training is a function of the images and these arguments: seeded, on one thread of the CPU. Other processors may
    round differently, which ``features_hash`` in the protocol shows.

    Args:
        epochs: times that each training image is shown. null: 240,000 images in all, none more than 30 times.
        width: channels of the first convolution; there are 8 times as many features.
        labelled: returns the images of ``"train"``, and of ``"test"`` for the accuracy; None: a tenth of the training
            images are held out for it.
        folder: the cache folder.

    Raises:
        ConfigError: the images have no labels, or fewer than two classes.
    """

    name = "classifier"

    def __init__(
        self,
        *,
        epochs: PositiveInt | None = None,
        width: Width = 16,
        labelled: Callable[[str], ImageDataset | None],
        folder: Path,
    ) -> None:
        train, test = labelled("train"), labelled("test")
        if train is None or train.labels is None or (test is not None and test.labels is None):
            todo = "Set features=inception, or choose a labelled data set"
            raise ConfigError("the data set has no labels to train a classifier on", "features", todo)
        num_classes = int(train.labels.max()) + 1
        if num_classes < 2:
            raise ConfigError("the data set has one class only, nothing to classify", "features", "Set features=inception")
        channels = 1 if train.channels == 1 else 3
        epochs = epochs or max(1, min(MAX_EPOCHS, round(BUDGET / len(train))))
        key = {
            "recipe": RECIPE_VERSION,
            "train": train.fingerprint,
            "test": None if test is None else test.fingerprint,
            "channels": channels,
            "num_classes": num_classes,
            "epochs": epochs,
            "width": width,
        }

        def compute() -> tuple[dict[str, Tensor], dict[str, Any]]:
            return _train(train, test, channels, num_classes, epochs, width)

        weights, info = cached("classifier", key, compute, folder)
        self.dim = 8 * width
        self.num_classes: int | None = num_classes
        self._channels = channels
        with torch.device("meta"):
            network = Network(channels, num_classes, width)
        network.load_state_dict(weights, assign=True)
        self._network = network.eval().requires_grad_(False).to(memory_format=torch.channels_last)
        self.facts: dict[str, Any] = {
            "features": self.name,
            "features_hash": digest(weights),
            "classifier_accuracy": info["accuracy"],
            "classifier_images": info["images"],
            "classifier_epochs": epochs,
            "classifier_threads": THREADS,
            "resize": f"pad or area to {SIDE}x{SIDE}",
            "value_range": [-1.0, 1.0],
            "comparable": "only with results of the same classifier; never with Inception numbers",
        }

    def to(self, device: torch.device) -> Self:
        """Move the network, and return self."""
        self._network.to(device)
        return self

    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """uint8 (N, 1 | 3 | 4, H, W) to float32 (N, 8 * width) and (N, num_classes)."""
        parts = torch.split(images, CPU_BATCH if images.device.type == "cpu" else len(images))
        outputs = [self._network(_floats(canonical(part, self._channels))) for part in parts]
        values, logits = zip(*outputs, strict=True)
        return torch.cat(values), torch.cat(logits)


def canonical(images: Tensor, channels: int) -> Tensor:
    """uint8 (N, C, H, W) to uint8 (N, channels, 32, 32), on the same device.

    Smaller images are centred on black (28 becomes 32 as with ``dataset.fit=pad``), but those of 16 pixels and less are
    enlarged by a whole factor first. Larger ones are reduced to 32 pixels by area averaging.
    """
    images = to_channels(images, channels)
    factor = SIDE // max(images.shape[-2:])
    if factor > 1:
        images = images.repeat_interleave(factor, -2).repeat_interleave(factor, -1)
    if max(images.shape[-2:]) > SIDE:
        images = F.adaptive_avg_pool2d(images.float(), SIDE).round().to(torch.uint8)
    height, width = images.shape[-2:]
    top, left = (SIDE - height) // 2, (SIDE - width) // 2
    return F.pad(images, (left, SIDE - width - left, top, SIDE - height - top)) if (height, width) != (SIDE, SIDE) else images


def _floats(images: Tensor) -> Tensor:
    """uint8 to float32 in [-1, 1], channels last in memory."""
    return (images.float() / 127.5 - 1).contiguous(memory_format=torch.channels_last)


def _train(
    train: ImageDataset, test: ImageDataset | None, channels: int, num_classes: int, epochs: int, width: int
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Train; return the weights, and their accuracy on held-out images."""
    assert train.labels is not None
    images, labels = _read(train, channels), train.labels
    if test is None:
        held_out = torch.zeros(len(labels), dtype=torch.bool)
        for label in range(num_classes):
            held_out[torch.nonzero(labels == label)[HELD_OUT - 1 :: HELD_OUT]] = True
        test_images, test_labels = images[held_out], labels[held_out]
        images, labels = images[~held_out], labels[~held_out]
    else:
        assert test.labels is not None
        test_images, test_labels = _read(test, channels), test.labels
    total = epochs * len(images)
    minutes = "about a minute" if total > BUDGET / 3 else "some seconds"
    log.info("training the classifier of %d images in %d classes once, %s", len(images), num_classes, minutes)
    with _reproducible(), torch.inference_mode(False), torch.enable_grad():
        network = _fit(Network(channels, num_classes, width), images, labels, total).eval()
        with torch.no_grad():
            chunks = zip(torch.split(test_images, CHUNK), torch.split(test_labels, CHUNK), strict=True)
            right = sum(int((network(_floats(x))[1].argmax(1) == y).sum()) for x, y in chunks)
    accuracy = right / len(test_labels) if len(test_labels) else None
    words = "not measured" if accuracy is None else f"{100 * accuracy:.2f} % of {len(test_labels)} held-out images"
    log.info("the classifier is trained: accuracy %s", words)
    return dict(network.state_dict()), {"accuracy": accuracy, "images": len(images), "test_images": len(test_labels)}


def _read(dataset: ImageDataset, channels: int) -> Tensor:
    """All images of a data set, made :func:`canonical`."""
    images = torch.empty(len(dataset), channels, SIDE, SIDE, dtype=torch.uint8)
    for indices in torch.split(torch.arange(len(dataset)), CHUNK):
        images[indices[0] : indices[-1] + 1] = canonical(dataset.batch(indices), channels)
    return images


@contextmanager
def _reproducible() -> Iterator[None]:
    """Fix the seed and the number of threads within the block."""
    threads = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(derive("classifier", RECIPE_VERSION))
            yield
    finally:
        torch.set_num_threads(threads)


def _fit(network: Network, images: Tensor, labels: Tensor, total: int) -> Network:
    """Train with AdamW and one cycle of the learning rate until ``total`` images were shown."""
    network = network.to(memory_format=torch.channels_last)
    batch = min(BATCH, len(images))
    steps = max(total // batch, 10)  # the cycle needs a few
    optimizer = torch.optim.AdamW(network.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps, pct_start=0.2)
    order = torch.empty(0, dtype=torch.int64)
    for _ in range(steps):
        if len(order) < batch:
            order = torch.cat([order, torch.randperm(len(images))])
        chosen, order = order[:batch], order[batch:]
        down, right = torch.randint(-MAX_SHIFT, MAX_SHIFT + 1, (2,)).tolist()
        moved = images[chosen].roll((down, right), (2, 3))
        loss = F.cross_entropy(network(_floats(moved))[1], labels[chosen])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
    return network
