"""LPIPS: perceptual distance of two images, from the features of a classifier."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn


class _Net(NamedTuple):
    model: str  # name in torchvision.models
    layers: tuple[int, ...]  # indices in its ``features`` of the layers whose outputs are compared
    channels: tuple[int, ...]  # channels of these outputs
    smallest_image: int  # pixels


NETS = {
    "alex": _Net("alexnet", (1, 4, 7, 9, 11), (64, 192, 384, 256, 256), 31),
    "vgg": _Net("vgg16", (3, 8, 15, 22, 29), (64, 128, 256, 512, 512), 16),
    "squeeze": _Net("squeezenet1_1", (1, 4, 7, 9, 10, 11, 12), (64, 128, 256, 384, 384, 512, 512), 17),
}


class LPIPS(nn.Module):
    """Learned Perceptual Image Patch Similarity, version 0.1, "lin" (Zhang et al. 2018, equation 1).

    Args:
        trunk_weights: state dict of torchvision's alexnet, vgg16 or squeezenet1_1, trained on ImageNet. Weights of the
            classifier are ignored.
        linear_weights: state dict of the authors, ``linK.model.1.weight`` of shape (1, C, 1, 1) for every compared layer K.
        net: the trunk.

    Attributes:
        smallest_image: minimum height and width in pixels.

    Raises:
        ValueError: weights are missing or have the wrong shape for ``net``.
    """

    shift: Tensor
    scale: Tensor

    def __init__(
        self,
        trunk_weights: dict[str, Tensor],
        linear_weights: dict[str, Tensor],
        net: Literal["alex", "vgg", "squeeze"] = "alex",
    ) -> None:
        super().__init__()
        import torchvision

        model, self.layers, channels, self.smallest_image = NETS[net]
        with torch.device("meta"):  # shapes only; the caller gives the weights
            self.trunk = getattr(torchvision.models, model)(weights=None).features[: self.layers[-1] + 1]
        shapes = {f"features.{name}": weight.shape for name, weight in self.trunk.state_dict().items()}
        _check(trunk_weights, shapes, f"{model}'s weights")
        weights = {name.removeprefix("features."): trunk_weights[name].detach().float() for name in shapes}
        self.trunk.load_state_dict(weights, assign=True)

        shapes = {f"lin{k}.model.1.weight": torch.Size((1, c, 1, 1)) for k, c in enumerate(channels)}
        _check(linear_weights, shapes, f"LPIPS's weights for {net}")
        self.linear = nn.ParameterList(linear_weights[name].detach().float() for name in shapes)

        # ImageNet's mean and standard deviation, for images in [-1, 1].
        self.register_buffer("shift", torch.tensor([-0.030, -0.088, -0.188]).view(3, 1, 1))
        self.register_buffer("scale", torch.tensor([0.458, 0.448, 0.450]).view(3, 1, 1))
        self.eval().requires_grad_(False)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Compute the distance of each pair of images.

        Args:
            a, b: RGB images in [-1, 1], float (N, 3, H, W), H and W at least ``smallest_image``.

        Returns:
            float (N,), at least 0, exactly 0 for equal images.
        """
        assert a.shape == b.shape and min(a.shape[2:]) >= self.smallest_image
        distance = torch.zeros(len(a), device=a.device)
        for weight, x, y in zip(self.linear, self._features(a), self._features(b), strict=True):
            distance = distance + (weight * (x - y).square()).sum(1).mean((1, 2))
        return distance

    def _features(self, images: Tensor) -> list[Tensor]:
        """The outputs of the compared layers, normalised so that the channels of each pixel are a unit vector."""
        x = (images - self.shift) / self.scale
        features = []
        for index, layer in enumerate(self.trunk):
            x = layer(x)
            if index in self.layers:
                features.append(x / (x.norm(dim=1, keepdim=True) + 1e-10))
        return features


def _check(weights: dict[str, Tensor], shapes: dict[str, torch.Size], what: str) -> None:
    if missing := [name for name in shapes if name not in weights]:
        raise ValueError(f"{what}: missing are {', '.join(missing)}")
    for name, shape in shapes.items():
        if weights[name].shape != shape:
            raise ValueError(f"{what}: {name} has shape {tuple(weights[name].shape)} instead of {tuple(shape)}")
