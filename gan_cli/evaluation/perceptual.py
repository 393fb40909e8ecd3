"""LPIPS with the published weights, on images of any size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gan_cli.metrics.lpips import LPIPS
from gan_cli.metrics.weights import WeightFile, find_weights, load_tensors
from gan_cli.system.errors import DataError

MAX_PAIRS = 1000  # pairs of samples whose distance is measured
MIN_SIZE = 64  # pixels; smaller images are enlarged to this
INSTEAD = "or leave lpips out of metrics="
TORCHVISION = "https://download.pytorch.org/models/"
TRUNKS = {
    net: WeightFile(name, TORCHVISION + name, sha256)
    for net, name, sha256 in [
        ("alex", "alexnet-owt-7be5be79.pth", "7be5be791159472b1fbf3c69796f7cb30dca7ad8466c2df70058c37116cdee02"),
        ("vgg", "vgg16-397923af.pth", "397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0"),
        ("squeeze", "squeezenet1_1-b8a52dc0.pth", "b8a52dc049b60e4b6ab68ad0df457362afab8b6304b2febdc1650a5dab4d7e7b"),
    ]
}
# The authors' repository at a fixed commit.
ZHANG = "https://raw.githubusercontent.com/richzhang/PerceptualSimilarity/082bb24f84c091ea94de2867d34c4544f68e0963/lpips/weights/v0.1/"
LINEAR = {
    net: WeightFile(f"lpips_v0.1_{net}.pth", f"{ZHANG}{net}.pth", sha256)
    for net, sha256 in {
        "alex": "df73285e35b22355a2df87cdb6b70b343713b667eddbda73e1977e0c860835c0",
        "vgg": "a78928a0af1e5f0fcb1f3b9e8f8c3a2a5a3de244d830ad5c1feddc79b8432868",
        "squeeze": "4a5350f23600cb79923ce65bb07cbf57dca461329894153e05a1346bd531cf76",
    }.items()
}


class Perceptual:
    """LPIPS between uint8 images.

    Args:
        config: ``net``, ``weights`` and ``linear`` of conf/eval.yaml. folder: where downloads are kept.
        paired: the distance to a target is measured, not the diversity of samples.

    Attributes:
        facts: the part of a protocol that describes LPIPS.

    Raises:
        NotFoundError, DataError: weights are missing, or are others.
    """

    def __init__(self, config: dict[str, Any], folder: Path, device: torch.device, *, paired: bool) -> None:
        net: Any = config["net"]
        trunk, trunk_hash = find_weights(
            TRUNKS[net], path=config["weights"], folder=folder, key="lpips.weights", instead=INSTEAD
        )
        linear, linear_hash = find_weights(
            LINEAR[net], path=config["linear"], folder=folder, key="lpips.linear", instead=INSTEAD
        )
        try:
            network = LPIPS(load_tensors(trunk), load_tensors(linear), net)
        except ValueError as error:
            todo = "Give the files that torchvision and the authors of LPIPS publish"
            raise DataError(f"the weights do not fit: {error}", f"lpips.net={net}", todo) from error
        self.network, self.device = network.eval().requires_grad_(False).to(device), device
        self.facts = {
            "lpips": "distance to the target" if paired else "diversity: distance within pairs of samples",
            "lpips_net": f"{net}, v0.1",
            "lpips_trunk_hash": trunk_hash,
            "lpips_linear_hash": linear_hash,
            "lpips_resize": f"bilinear up to {MIN_SIZE} where smaller",
            "lpips_pairs": None if paired else MAX_PAIRS,
        }

    @torch.no_grad()
    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        """Distances between images (N, C, H, W), C 1 or 3: float32 (N,) on the CPU."""
        distances: Tensor = self.network(self._prepared(a), self._prepared(b))
        return distances.cpu()

    def _prepared(self, images: Tensor) -> Tensor:
        images = images.to(self.device).float().div(127.5).sub(1).expand(-1, 3, -1, -1)
        if min(images.shape[-2:]) < MIN_SIZE:
            images = torch.nn.functional.interpolate(images, size=(MIN_SIZE, MIN_SIZE), mode="bilinear")
        return images
