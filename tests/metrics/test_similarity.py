"""PSNR and SSIM compared with their definitions and torchmetrics."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from gan_cli.metrics import similarity
from gan_cli.metrics.similarity import SMALLEST_IMAGE, psnr, ssim


def images(seed: int, *shape: int) -> Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def pair(*shape: int) -> tuple[Tensor, Tensor]:
    """Smooth images and similar ones, with less difference towards the end of the batch."""
    grid = torch.linspace(0, 9, shape[2])[:, None] + torch.linspace(0, 6, shape[3]) ** 1.5
    a = 127 + 90 * torch.sin(grid + torch.arange(shape[0])[:, None, None, None] + torch.arange(shape[1])[:, None, None])
    noise = images(1, *shape).float() - 127
    b = a + noise * torch.linspace(1, 0.02, shape[0])[:, None, None, None]
    return a.to(torch.uint8), b.clamp(0, 255).to(torch.uint8)


def plain_ssim(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """SSIM of one channel, pixel by pixel, with the 11 x 11 window mirrored at the borders."""
    a, b = (np.pad(x.astype(float), 5, mode="reflect") for x in (a, b))
    distance = np.arange(-5, 6)
    weights = np.exp(-(distance[:, None] ** 2 + distance[None] ** 2) / (2 * 1.5**2))
    weights /= weights.sum()
    result = np.empty((a.shape[0] - 10, a.shape[1] - 10))
    for i, j in np.ndindex(result.shape):
        x, y = a[i : i + 11, j : j + 11], b[i : i + 11, j : j + 11]
        mx, my = (weights * x).sum(), (weights * y).sum()
        vx, vy = (weights * (x - mx) ** 2).sum(), (weights * (y - my) ** 2).sum()
        cov = (weights * (x - mx) * (y - my)).sum()
        c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
        result[i, j] = (2 * mx * my + c1) * (2 * cov + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))
    return result


def test_psnr_is_its_definition() -> None:
    a, b = pair(6, 3, 20, 15)
    found = psnr(a, b)
    assert found.dtype == torch.float64 and found.shape == (6,)
    errors = np.square(a.numpy().astype(float) - b.numpy()).mean((1, 2, 3))
    np.testing.assert_allclose(found.numpy(), 10 * np.log10(255**2 / errors), rtol=1e-12)


def test_psnr_of_black_and_white_is_zero() -> None:
    black, white = torch.zeros(2, 1, 300, 300, dtype=torch.uint8), torch.full((2, 1, 300, 300), 255, dtype=torch.uint8)
    assert psnr(black, white).tolist() == psnr(white, black).tolist() == [0, 0]


def test_psnr_of_equal_images_is_finite_and_that_of_one_grey_level_in_one_place() -> None:
    a = images(0, 3, 3, 16, 16)
    b = a.clone()
    b[0, 1, 2, 3] += 1 if b[0, 1, 2, 3] < 255 else -1
    b[1, 1, 2, 3:5] ^= 1
    one, two, none = psnr(a, b).tolist()
    assert one == none == pytest.approx(10 * math.log10(255**2 * 3 * 16 * 16))
    assert two < one


def test_psnr_agrees_with_torchmetrics() -> None:
    metric = pytest.importorskip("torchmetrics.image").PeakSignalNoiseRatio(255.0, reduction="none", dim=(1, 2, 3))
    a, b = pair(6, 3, 20, 15)
    torch.testing.assert_close(psnr(a, b), metric(b.double(), a.double()), rtol=1e-6, atol=0)


@pytest.mark.parametrize("shape", [(3, 1, 16, 16), (2, 3, 6, 20), (2, 1, 8, 8)])
def test_ssim_is_its_definition(shape: tuple[int, ...]) -> None:
    a, b = pair(*shape)
    found = ssim(a, b)
    assert found.dtype == torch.float64 and found.shape == (shape[0],)
    expected = [
        np.mean([plain_ssim(x, y) for x, y in zip(p, q, strict=True)]) for p, q in zip(a.numpy(), b.numpy(), strict=True)
    ]
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-10)


@pytest.mark.parametrize("shape", [(4, 3, 32, 32), (4, 1, 28, 28), (3, 3, 40, 65), (3, 1, 6, 6)])
def test_ssim_agrees_with_torchmetrics(shape: tuple[int, ...]) -> None:
    reference = pytest.importorskip("torchmetrics.image").StructuralSimilarityIndexMeasure(data_range=255.0, reduction="none")
    for a, b in (pair(*shape), (images(1, *shape), images(2, *shape))):
        torch.testing.assert_close(ssim(a, b), reference(b.double(), a.double()), rtol=0, atol=1e-6)


def test_ssim_of_equal_images_is_exactly_one() -> None:
    flat = torch.full((4, 3, 20, 20), 200, dtype=torch.uint8)
    for a in (images(0, 4, 3, 20, 20), pair(4, 3, 20, 20)[0], flat):
        assert ssim(a, a).tolist() == [1, 1, 1, 1]


def test_ssim_of_an_image_and_its_negative_is_below_zero() -> None:
    a = images(0, 1, 1, 32, 32)
    assert -1 <= float(ssim(a, 255 - a)) < -0.5


def test_ssim_of_flat_images_compares_their_brightness() -> None:
    a, b = (torch.full((1, 1, 12, 12), level, dtype=torch.uint8) for level in (50, 100))
    c1 = 2.55**2
    assert float(ssim(a, b)) == pytest.approx((2 * 50 * 100 + c1) / (50**2 + 100**2 + c1), rel=1e-9)


def test_both_are_symmetric_and_a_batch_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = pair(7, 3, 24, 17)
    for metric in (psnr, ssim):
        whole = metric(a, b)
        torch.testing.assert_close(metric(b, a), whole, rtol=1e-13, atol=0)
        monkeypatch.setattr(similarity, "CHUNK_VALUES", 3 * 24 * 17 * 3)
        torch.testing.assert_close(metric(a, b), whole, rtol=1e-13, atol=0)
        torch.testing.assert_close(torch.cat([metric(x[None], y[None]) for x, y in zip(a, b, strict=True)]), whole)


def test_the_smallest_image() -> None:
    side = SMALLEST_IMAGE
    assert torch.isfinite(ssim(images(0, 2, 3, side, side), images(1, 2, 3, side, side))).all()
    with pytest.raises(AssertionError):
        ssim(images(0, 2, 3, side, side - 1), images(1, 2, 3, side, side - 1))
