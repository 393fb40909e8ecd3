"""The digits that come with the package."""

from __future__ import annotations

import torch

from gan_cli.data.digits import digits


def test_digits_are_there_and_balanced() -> None:
    for split, count in (("train", 1442), ("test", 355), ("all", 1797)):
        dataset = digits(split=split)
        assert len(dataset) == count and dataset.images.shape == (count, 1, 32, 32)
        assert dataset.labels is not None and dataset.labels.dtype == torch.int64
        assert torch.bincount(dataset.labels).min() >= count * 0.09
        assert dataset.class_names == list("0123456789")
        assert dataset.images.min() == 0 and dataset.images.max() == 255


def test_splits_share_no_image() -> None:
    train, test, whole = (
        {image.numpy().tobytes() for image in digits(split=split).images} for split in ("train", "test", "all")
    )
    assert not train & test
    assert train | test == whole and len(whole) == 1797


def test_size_and_channels_are_as_asked() -> None:
    assert digits(image_size=16, channels=3).images.shape == (1442, 3, 16, 16)
    prints = {digits(split="train").fingerprint, digits(split="test").fingerprint, digits(image_size=16).fingerprint}
    assert len(prints) == 3 and digits().fingerprint in prints
