"""The network of published Inception scores and FIDs."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from gan_cli.data.fitting import to_channels
from gan_cli.metrics.weights import WeightFile, find_weights, load_tensors
from gan_cli.system.errors import DataError

WEIGHTS = WeightFile(
    name="weights-inception-2015-12-05-6726825d.pth",
    url="https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth",
    sha256="6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
)
CPU_BATCH_SIZE = 8  # images per pass; 32 are a quarter slower on a CPU


class Inception:
    """Inception v3 of 2015-12-05, as TensorFlow's frozen graph computes it (Salimans et al. 2016; Heusel et al. 2017).

    Features: the 2048 averages of the last pooling layer. Logits: 1008, without bias, as for the Inception score. Images
    are resized to 299x299 as TensorFlow 1 does (bilinear, no antialiasing, corners not aligned). Grey images are repeated
    to three channels. The implementation is that of torch-fidelity.

    Args:
        weights: path of the weight file, for machines without a network. null: found in the caches or downloaded.
        folder: directory of a download.

    Raises:
        NotFoundError: the weights are missing and cannot be downloaded. DataError: the file has other weights.
    """

    name = "inception"
    dim = 2048
    num_classes: int | None = 1008

    def __init__(self, *, weights: str | None = None, folder: Path) -> None:
        path, weights_hash = find_weights(
            WEIGHTS,
            path=weights,
            folder=folder,
            key="features.weights",
            instead="or use features=classifier if the data is labelled",
        )
        load_tensors(path)  # refuses a file with code in it, because torch-fidelity unpickles the file
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

        try:
            with torch.random.fork_rng(devices=[]):  # the constructor draws weights before it reads them
                network = FeatureExtractorInceptionV3(self.name, ["2048", "logits_unbiased"], str(path))
        except RuntimeError as error:
            reason = str(error).split("\n")[0]
            todo = f"Get them from {WEIGHTS.url}"
            raise DataError(f"the weights do not fit the network: {reason}", str(path), todo) from error
        self._network = network.to(memory_format=torch.channels_last)
        self.facts: dict[str, Any] = {
            "features": self.name,
            "features_hash": weights_hash,
            "resize": "bilinear to 299x299 as in TensorFlow 1, no antialiasing",
            "value_range": [0, 255],
            "comparable": "with published FIDs (2015-12-05 network, TF1 resize)",
        }

    def to(self, device: torch.device) -> Self:
        """Move the network to ``device`` and return it."""
        self._network.to(device)
        return self

    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Map uint8 images (N, 1 | 3 | 4, H, W) to float32 features (N, 2048) and logits (N, 1008)."""
        parts = torch.split(images, CPU_BATCH_SIZE if images.device.type == "cpu" else len(images))
        values, logits = zip(*(self._network(to_channels(part, 3)) for part in parts), strict=True)
        return torch.cat(values), torch.cat(logits)
