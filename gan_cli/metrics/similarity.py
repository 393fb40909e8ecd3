"""PSNR and SSIM: similarity of two images, pixel by pixel."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from gan_cli.metrics.frechet import float64

CHUNK_VALUES = 2**16  # pixel values at a time, at least one image
WINDOW_RADIUS = 5  # pixels; the window of SSIM is 11 pixels wide
SMALLEST_IMAGE = WINDOW_RADIUS + 1  # pixels; mirroring a border by the radius needs one pixel more


def psnr(a: Tensor, b: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB, ``10 log10(255^2 / MSE)``.

    The ratio of equal images is infinite, which would make every mean infinite. They get that of the smallest possible
    difference, 1 in one channel of one pixel: 10 log10(255^2 C H W), for example 101 dB at 3 x 256 x 256.

    Args:
        a, b: uint8 images (N, C, H, W).

    Returns:
        float64 (N,).
    """
    assert a.shape == b.shape and a.dtype == b.dtype == torch.uint8
    errors = [(x.int() - y.int()).square().sum((1, 2, 3)) for x, y in _chunks(a, b)]
    return 10 * torch.log10(255**2 * a.shape[1:].numel() / float64(torch.cat(errors).clamp(min=1)))


def ssim(a: Tensor, b: Tensor) -> Tensor:
    """Structural similarity, the mean over pixels and channels (Wang et al. 2004, equation 13).

    Local means, variances and covariances are weighted by a Gaussian with a standard deviation of 1.5 pixels in a window of
    11 x 11; K1 = 0.01, K2 = 0.03, L = 255. Images are mirrored at their borders, so that every pixel is the centre of a
    window. torchmetrics does the same; the authors' code omits the 5 pixels along the border.

    Args:
        a, b: uint8 images (N, C, H, W), H and W at least ``SMALLEST_IMAGE``.

    Returns:
        float64 (N,) in [-1, 1], exactly 1 for equal images.
    """
    assert a.shape == b.shape and a.dtype == b.dtype == torch.uint8 and min(a.shape[2:]) >= SMALLEST_IMAGE
    return torch.cat([_ssim(float64(x), float64(y)) for x, y in _chunks(a, b)])


def _chunks(a: Tensor, b: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    images = max(1, CHUNK_VALUES // a.shape[1:].numel())
    return zip(torch.split(a, images), torch.split(b, images), strict=True)


def _windows(side: int) -> Tensor:
    """The matrix of the weighted means around each pixel of a column: float64 (side, side), row i for pixel i."""
    offsets = torch.arange(-WINDOW_RADIUS, WINDOW_RADIUS + 1)
    weights = (-offsets.double().square() / (2 * 1.5**2)).softmax(0)
    pixels = (torch.arange(side)[:, None] + offsets).abs()  # mirrored at the border without repeating its pixel
    pixels = side - 1 - (side - 1 - pixels).abs()
    return torch.zeros(side, side, dtype=torch.float64).scatter_add_(1, pixels, weights.expand(side, -1))


def _ssim(a: Tensor, b: Tensor) -> Tensor:
    rows, columns = (_windows(side).to(a.device) for side in a.shape[2:])

    def mean(x: Tensor) -> Tensor:
        return rows @ x @ columns.T

    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    mean_a, mean_b = mean(a), mean(b)
    squares = mean_a * mean_a + mean_b * mean_b
    variances = mean(a * a) + mean(b * b) - squares
    products = mean_a * mean_b
    covariance = mean(a * b) - products
    similarity = (2 * products + c1) * (2 * covariance + c2) / ((squares + c1) * (variances + c2))
    return similarity.mean((1, 2, 3))
