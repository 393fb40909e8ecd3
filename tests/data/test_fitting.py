"""From any image to a square of one size."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from gan_cli.data.fitting import CHUNK, fit_images

NOISE = torch.randint(0, 256, (5, 1, 28, 28), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_an_image_of_the_right_size_is_untouched() -> None:
    for fit in ("pad", "resize", "crop"):
        assert fit_images(NOISE, image_size=28, channels=1, fit=fit) is NOISE


def test_pad_28_to_32_is_exact() -> None:
    fitted = fit_images(NOISE, image_size=32, channels=1, fit="pad")
    assert torch.equal(fitted[..., 2:30, 2:30], NOISE)
    fitted[..., 2:30, 2:30] = 0
    assert fitted.max() == 0


def test_pad_goes_by_way_of_the_power_of_two_if_it_fits() -> None:
    padded = fit_images(NOISE, image_size=32, channels=1, fit="pad")
    enlarged = fit_images(padded, image_size=64, channels=1, fit="resize")
    assert torch.equal(fit_images(NOISE, image_size=64, channels=1, fit="pad"), enlarged)
    # 32 does not fit into 30: no border.
    assert torch.equal(
        fit_images(NOISE, image_size=30, channels=1, fit="pad"),
        fit_images(NOISE, image_size=30, channels=1, fit="resize"),
    )


def test_crop_takes_the_centre_and_pad_keeps_everything() -> None:
    image = torch.zeros(1, 3, 20, 40, dtype=torch.uint8)
    image[..., 10:30] = 200
    assert (fit_images(image, image_size=10, channels=3, fit="crop") == 200).all()
    padded = fit_images(image, image_size=40, channels=3, fit="pad")
    assert torch.equal(padded[..., 10:30, :], image) and padded.sum() == image.sum()
    assert 0 in fit_images(image, image_size=20, channels=3, fit="resize")


def test_resize_is_antialiased_and_close_to_pillow() -> None:
    fitted = fit_images(NOISE, image_size=16, channels=1, fit="resize")
    expected = np.array(Image.fromarray(NOISE[0, 0].numpy()).resize((16, 16), Image.Resampling.BILINEAR))
    assert np.abs(fitted[0, 0].numpy().astype(int) - expected).max() <= 1


def test_channels_are_converted_as_pillow_does() -> None:
    rgb = torch.randint(0, 256, (2, 3, 9, 9), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    grey = fit_images(rgb, image_size=9, channels=1, fit="resize")
    expected = np.array(Image.fromarray(rgb[0].permute(1, 2, 0).contiguous().numpy()).convert("L"))
    assert (grey[0, 0].numpy() == expected).all()
    tiled = fit_images(NOISE, image_size=28, channels=3, fit="resize")
    assert all(torch.equal(tiled[:, plane], NOISE[:, 0]) for plane in range(3))


@pytest.mark.parametrize(("alpha", "expected"), [(0, 255), (255, 100), (128, 177)])
def test_alpha_is_composited_over_white(alpha: int, expected: int) -> None:
    rgba = torch.full((1, 4, 4, 4), 100, dtype=torch.uint8)
    rgba[:, 3] = alpha
    assert (fit_images(rgba, image_size=4, channels=3, fit="resize") == expected).all()


def test_chunks_are_seamless() -> None:
    images = torch.randint(0, 256, (CHUNK + 3, 1, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    fitted = fit_images(images, image_size=6, channels=1, fit="resize")
    for index in (0, CHUNK - 1, CHUNK, CHUNK + 2):
        alone = fit_images(images[index : index + 1], image_size=6, channels=1, fit="resize")
        assert torch.equal(fitted[index], alone[0])
