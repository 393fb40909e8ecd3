"""Extraction of features from images. All metrics of a set of images are computed from features."""

from __future__ import annotations

import hashlib
import inspect
import logging
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self

import torch
from torch import Tensor, nn

from gan_cli.config.build import build
from gan_cli.data.dataset import ImageDataset
from gan_cli.metrics.cache import digest
from gan_cli.system import console
from gan_cli.system.errors import ConfigError, DataError

log = logging.getLogger("gan_cli")
REPORT_INTERVAL_S = 10  # interval of the progress lines if there is no terminal
CLASSIFIER, INCEPTION = "gan_cli.metrics.classifier.Classifier", "gan_cli.metrics.inception.Inception"
# What a data set is judged by where features=auto; all others by INCEPTION.
DEFAULTS = {
    f"gan_cli.data.{name}": CLASSIFIER
    for name in (
        "digits.digits",
        "idx.mnist",
        "idx.fashion_mnist",
        "idx.kmnist",
        "digit_styles.digits_paired",
        "digit_styles.digits_unpaired",
    )
}
Labelled = Callable[[str], ImageDataset | None]  # the labelled images of a split, "train" or "test"


class Extractor(Protocol):
    """A frozen network that maps images to features.

    Attributes:
        name: name for messages. The classifier of the data set is called ``classifier``.
        dim: features per image; 0 if unknown, as for a user's network before its first batch.
        num_classes: logits per image, or None if the network has none.
        facts: plain data for the protocol: ``features``, ``features_hash``, ``resize``, ``value_range``, ``comparable``.
    """

    name: str
    dim: int
    num_classes: int | None
    facts: dict[str, Any]

    def to(self, device: torch.device) -> Self:
        """Move the network to ``device`` and return it."""
        ...

    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Map uint8 images (N, C, H, W) on the device to float32 features (N, dim) and logits (N, num_classes) or None."""
        ...


@dataclass
class Features:
    """Features and logits of n images: float32 (n, dim) and (n, num_classes), on the CPU."""

    values: Tensor
    logits: Tensor | None


class Custom:
    """A user's network as an :class:`Extractor`.

    The network gets uint8 images (N, C, H, W), or floats if it declares ``value_range = (-1, 1)`` or ``(0, 1)``. It
    returns features (N, d), or features and logits (N, k).

    Raises:
        ConfigError: the network fails or returns something else, here or when it is called.
    """

    def __init__(self, network: object, node: dict[str, Any]) -> None:
        self.name = target = str(node["_target_"])
        self.dim = 0
        self.num_classes: int | None = None
        if not isinstance(network, nn.Module):
            raise self._wrong(f"is a {type(network).__name__}, not a torch.nn.Module")
        self._network = network.eval().requires_grad_(False)
        self._range = getattr(network, "value_range", None)
        if self._range is not None and (
            not isinstance(self._range, tuple | list) or tuple(self._range) not in ((-1, 1), (0, 1))
        ):
            raise self._wrong(f"has value_range {self._range!r}, which is not (-1, 1) or (0, 1)")
        weights = digest({k: v.cpu() for k, v in network.state_dict().items() if isinstance(v, Tensor)})
        identity = repr((sorted(node.items()), self._range, _source(type(network)), weights))
        self.facts: dict[str, Any] = {
            "features": target,
            "features_hash": hashlib.sha256(identity.encode()).hexdigest(),
            "resize": "none before the network",
            "value_range": [0, 255] if self._range is None else [float(bound) for bound in self._range],
            "comparable": "only with results of the same network",
        }

    def _wrong(self, what: str) -> ConfigError:
        todo = "It should map images (N, C, H, W) to features (N, d), or to features and logits (N, k)"
        return ConfigError(f"{self.name} {what}", "features._target_", todo)

    def to(self, device: torch.device) -> Self:
        """Move the network to ``device`` and return it."""
        self._network.to(device)
        return self

    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Extract features and logits; see :class:`Extractor`."""
        inputs = images
        if self._range is not None:
            low, high = self._range
            inputs = images.float() * ((high - low) / 255) + low
        try:
            output = self._network(inputs)
        except Exception as error:  # a user's network may raise anything
            reason = (str(error) or type(error).__name__).split("\n")[0].rstrip(".")
            raise self._wrong(f"fails on images of shape {tuple(images.shape)}: {reason}") from error
        values, logits = output if isinstance(output, tuple | list) and len(output) == 2 else (output, None)
        dim = self._columns(values, "features", len(images))
        num_classes = None if logits is None else self._columns(logits, "logits", len(images))
        if self.dim and (dim, num_classes) != (self.dim, self.num_classes):
            before = f"{self.dim} features and {self.num_classes or 'no'} logits"
            raise self._wrong(f"returned {dim} features and {num_classes or 'no'} logits, but for an earlier batch {before}")
        self.dim, self.num_classes = dim, num_classes
        return values.float(), None if logits is None else logits.float()

    def _columns(self, values: object, what: str, count: int) -> int:
        shape = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
        if len(shape) != 2 or not isinstance(values, Tensor) or len(values) != count or not shape[1]:
            raise self._wrong(f"returned {what} of shape {shape} for {count} images, instead of ({count}, d)")
        if values.is_complex():
            raise self._wrong(f"returned complex {what}")
        return values.shape[1]


def _source(kind: type) -> str:
    """The text of the file that defines a class, part of the hash of the features. Empty if there is no file."""
    try:
        return Path(inspect.getfile(kind)).read_text(encoding="utf-8")
    except (OSError, TypeError, ValueError):
        return ""


@torch.inference_mode()
def extract(extractor: Extractor, batches: Iterable[Tensor], n: int, *, device: torch.device, what: str) -> Features:
    """Extract the features of the first ``n`` images and show the progress. Does not change torch's random state.

    Args:
        extractor: an extractor on ``device``.
        batches: uint8 images (b, C, H, W) on any device, at least ``n`` in all. No more batches than needed are taken.
        n: number of images, at least 1.
        device: device of the computation.
        what: the images in words, for messages, such as ``generated images``.

    Raises:
        DataError: a feature is not finite. ConfigError: a user's network fails.
    """
    result = Features(torch.empty(0), None)
    done = 0
    no_tf32 = torch.backends.cudnn.flags(enabled=True, allow_tf32=False)  # full float32 on a GPU too
    with no_tf32, torch.random.fork_rng([device] if device.type == "cuda" else []), ProgressLine(n, what) as progress:
        for batch in batches:
            values, logits = extractor(batch[: n - done].to(device, non_blocking=True))
            if done == 0:
                result.values = torch.empty(n, values.shape[1])
                result.logits = None if logits is None else torch.empty(n, logits.shape[1])
            for kept, new in ((result.values, values), (result.logits, logits)):
                if kept is not None and new is not None:
                    rows = kept[done : done + len(new)].copy_(new)
                    finite = rows.isfinite().all(1)
                    if not finite.all():
                        first = done + int((~finite).int().argmax())
                        todo = "Check that image and the weights of the network"
                        raise DataError(f"{extractor.name} gives features that are not finite", f"{what}, image {first}", todo)
            done += len(values)
            progress(done)
            if done == n:
                break
    assert done == n, f"{what}: {done} images of {n}"
    return result


class ProgressLine:
    """Progress over ``n`` images: a bar on a terminal, otherwise a log line at intervals. ``what``: the images in words."""

    def __init__(self, n: int, what: str) -> None:
        self.n, self.what = n, what
        self.bar: Any = None

    def __enter__(self) -> Self:
        if console.may_draw():
            from tqdm import tqdm

            self.bar = tqdm(total=self.n, desc=self.what, unit="images", leave=False)
        self.start = self.last = time.monotonic()
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.close()

    def __call__(self, done: int) -> None:
        """Show that ``done`` images are done."""
        now = time.monotonic()
        if self.bar is not None:
            self.bar.update(done - self.bar.n)
        elif now - self.last >= REPORT_INTERVAL_S:
            self.last = now
            rate = done / (now - self.start)
            left = math.ceil((self.n - done) / rate)
            log.info("%s: %d of %d, %.0f images/s, %d s left", self.what, done, self.n, rate, left)


def default_node(dataset_target: str) -> dict[str, Any]:
    """The features node of ``features=auto``. It depends on the data set's ``_target_`` only, not on downloaded files."""
    return {"_target_": DEFAULTS.get(dataset_target, INCEPTION)}


def build_extractor(node: dict[str, Any], *, labelled: Labelled | None, folder: Path, device: torch.device) -> Extractor:
    """Build the extractor of a features node on ``device``.

    Args:
        node: a checked ``_target_`` with its arguments, without ``labelled`` and ``folder``.
        labelled: function that gives the labelled images of a split, to train a classifier on; None without labels. For
            ``"test"`` it may give None.
        folder: directory of downloaded or trained weights.
        device: device of the network.

    Raises:
        ConfigError: the extractor cannot be built. NotFoundError, DataError: its weights are missing or wrong.
    """
    extractor: Extractor
    if node["_target_"] == INCEPTION:
        extractor = build(node, "features", folder=folder)
    elif node["_target_"] == CLASSIFIER:
        if labelled is None:
            todo = "Set features=inception, or choose a labelled data set"
            raise ConfigError("the data set has no labels to train a classifier on", "features", todo)
        extractor = build(node, "features", labelled=labelled, folder=folder)
    else:
        try:
            network = build(node, "features")
        except (RuntimeError, OSError, LookupError, AttributeError) as error:  # GanError is none of these
            reason = (str(error) or type(error).__name__).split("\n")[0].rstrip(".")
            raise ConfigError(f"{node['_target_']} cannot be built: {reason}", "features", "Correct the class") from error
        extractor = Custom(network, node)
    return extractor.to(device)
