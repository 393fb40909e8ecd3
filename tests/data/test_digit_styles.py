"""The digits as pairs and as two domains."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import pytest
import torch
import torch.nn.functional as F

from gan_cli.data import digit_styles
from gan_cli.data.dataset import TranslationDataset
from gan_cli.data.digit_styles import digits_paired, digits_unpaired, draw_outlines
from gan_cli.data.digits import digits


@pytest.fixture(autouse=True, scope="module")
def _each_outline_is_drawn_once() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(digit_styles, "draw_outlines", cache(draw_outlines))
        yield


def images(dataset: TranslationDataset, stream: int = 0) -> torch.Tensor:
    part = dataset.streams[stream][1]
    return part.batch(torch.arange(len(part)))


def test_pairs_are_an_outline_and_its_digit() -> None:
    dataset = digits_paired()
    assert dataset.paired and len(dataset) == 1442 and dataset.channels == 1 and dataset.jitter is None
    outline, digit = images(dataset).float().split(1, dim=1)
    assert torch.equal(digit, digits().images.float())
    assert outline.max() == 255 and (outline.amax((1, 2, 3)) == 255).all()
    # Thin, where the digit begins, not inside of it, and closed: its box is that of the digit.
    assert 0.05 < (outline > 0).float().mean() < 0.35
    assert outline[F.avg_pool2d(digit, 3, 1, 1) > 250].mean() < 5
    near = F.max_pool2d(digit, 5, 1, 2) - -F.max_pool2d(-digit, 5, 1, 2)
    assert near[outline > 128].min() > 20


def test_held_out_digits_are_those_of_the_test_part() -> None:
    for make in (digits_paired, digits_unpaired):
        held_out = make(load_size=36, flip=True).held_out()
        assert held_out is not None and held_out.jitter is None and held_out.held_out() is None
        assert held_out.fingerprint == make(split="test").fingerprint
    assert torch.equal(images(digits_paired(split="test"))[:, 1:], digits(split="test").images)


@pytest.mark.slow
def test_domains_are_made_of_different_digits() -> None:
    for split, lengths in (("train", (723, 719)), ("test", (179, 176))):
        dataset = digits_unpaired(split=split)  # type: ignore[arg-type]
        assert not dataset.paired and len(dataset) == lengths[0]
        filled, outlines = (
            {image.numpy().tobytes() for image in domain}
            for domain in (digits(split=split).images, draw_outlines(split, 32))  # type: ignore[arg-type]
        )
        a, b = ([image.numpy().tobytes() for image in images(dataset, k)] for k in (0, 1))
        assert (len(a), len(b)) == lengths and set(a) <= filled and set(b) <= outlines
        place = {image.numpy().tobytes(): k for k, image in enumerate(digits(split=split).images)}  # type: ignore[arg-type]
        used = {place[image] for image in a}
        rest = [k for k in range(len(filled)) if k not in used]
        assert torch.equal(draw_outlines(split, 32)[rest], images(dataset, 1))  # type: ignore[arg-type]


def test_size_channels_and_jitter_are_as_asked() -> None:
    dataset = digits_paired(image_size=16, load_size=20, flip=True, channels=3)
    assert images(dataset).shape == (1442, 6, 20, 20) and dataset.channels == 3 and dataset.image_size == 16
    assert dataset.jitter is not None and dataset.jitter.load_size == 20
    assert images(digits_unpaired(image_size=16, channels=3), 1).shape == (719, 3, 16, 16)
    prints = {d.fingerprint for d in (digits_paired(), digits_paired(flip=True), digits_paired(load_size=36), digits_unpaired(),
                                      digits_paired(split="test"), digits_paired(image_size=16))}  # fmt: skip
    assert len(prints) == 6 and digits_paired().fingerprint in prints
