"""Jitter, and batches of pairs and of two domains."""

from __future__ import annotations

from itertools import islice

import pytest
import torch

from gan_cli.data.batches import Batches, permutation
from gan_cli.data.dataset import ArrayDataset, Jitter, TranslationDataset
from gan_cli.data.translation import make_jitter
from gan_cli.system.errors import ConfigError

CPU = torch.device("cpu")


def numbered(n: int, channels: int = 1, side: int = 4) -> ArrayDataset:
    """Channel c of image i has the value i + 100 c everywhere."""
    values = torch.arange(n).view(n, 1, 1, 1) + 100 * torch.arange(channels).view(1, channels, 1, 1)
    return ArrayDataset(values.to(torch.uint8).expand(n, channels, side, side).contiguous(), labels=None, class_names=[],
                        fingerprint="")  # fmt: skip


def noise(n: int, channels: int, side: int) -> ArrayDataset:
    images = torch.randint(0, 256, (n, channels, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(n))
    return ArrayDataset(images, labels=None, class_names=[], fingerprint="")


def domains(a: ArrayDataset, b: ArrayDataset, jitter: Jitter | None = None) -> TranslationDataset:
    size = jitter.image_size if jitter else 4
    return TranslationDataset([(("a",), a), (("b",), b)], image_size=size, channels=1, jitter=jitter, fingerprint="",
                              held_out=None)  # fmt: skip


def pairs(dataset: ArrayDataset, jitter: Jitter | None = None) -> TranslationDataset:
    size = jitter.image_size if jitter else 4
    return TranslationDataset([(("source", "target"), dataset)], image_size=size, channels=dataset.channels // 2, jitter=jitter,
                              fingerprint="", held_out=None)  # fmt: skip


def numbers(values: torch.Tensor) -> list[int]:
    return ((values[:, 0, 0, 0] + 1) * 127.5).round().long().tolist()


def test_jitter_cuts_a_square_and_mirrors_it() -> None:
    images = noise(64, 3, 9).images
    result = Jitter(9, 6, flip=True)(images, torch.Generator().manual_seed(0))
    assert result.shape == (64, 3, 6, 6) and result.dtype == torch.uint8
    found = set()
    for image, cut in zip(images, result, strict=True):
        places = [
            (y, x, flip)
            for y in range(4)
            for x in range(4)
            for flip in (False, True)
            if torch.equal(cut, (image.flip(-1) if flip else image)[:, y : y + 6, x : x + 6])
        ]
        assert len(places) == 1
        found.add(places[0])
    assert {y for y, _, _ in found} == {x for _, x, _ in found} == {0, 1, 2, 3} and {flip for _, _, flip in found} == {
        False,
        True,
    }


def test_jitter_without_cutting_or_without_mirroring() -> None:
    images = noise(32, 1, 5).images
    flipped = Jitter(None, 5, flip=True)(images, torch.Generator().manual_seed(0))
    mirrored = [torch.equal(after, before.flip(-1)) for before, after in zip(images, flipped, strict=True)]
    assert 5 < sum(mirrored) < 27
    assert all(torch.equal(a, b.flip(-1) if m else b) for a, b, m in zip(flipped, images, mirrored, strict=True))
    assert torch.equal(Jitter(5, 5, flip=False)(images, torch.Generator()), images)
    assert torch.equal(Jitter(5, 5, flip=False)(images.float(), torch.Generator()), images.float())


def test_a_config_asks_for_jitter() -> None:
    assert make_jitter(None, 8, False) is None and make_jitter(8, 8, False) is None
    jitter = make_jitter(9, 8, False)
    assert jitter is not None and (jitter.load_size, jitter.image_size, jitter.flip) == (9, 8, False)
    with pytest.raises(ConfigError, match="load_size=7.*image_size=8.*dataset.load_size.*null"):
        make_jitter(7, 8, True)


def test_a_small_cut_is_pointed_out(caplog: pytest.LogCaptureFixture) -> None:
    make_jitter(286, 256, True)
    assert not caplog.records
    make_jitter(286, 64, True)
    assert "only 5% of an image is seen at a time" in caplog.text and "load_size=72" in caplog.text


def test_pairs_stay_together_and_are_jittered_alike() -> None:
    images = noise(10, 3, 9).images
    dataset = pairs(ArrayDataset(torch.cat([images, 255 - images], 1), labels=None, class_names=[], fingerprint=""),
                    Jitter(9, 6, flip=True))  # fmt: skip
    assert dataset.paired and len(dataset) == 10 and dataset.channels == 3
    seen = set()
    for batch in islice(Batches(dataset, batch_size=4, seed=0, device=CPU), 10):
        assert list(batch) == ["source", "target"]
        assert all(v.shape == (4, 3, 6, 6) and v.dtype == torch.float32 and v.is_contiguous() for v in batch.values())
        assert torch.allclose(batch["source"], -batch["target"], atol=1e-6)
        seen |= {image.numpy().tobytes() for image in batch["source"]}
    assert len(seen) > 25  # not only 10


def test_pairs_come_in_the_order_of_single_images() -> None:
    batch = next(Batches(pairs(numbered(9, 2)), batch_size=9, seed=3, device=CPU))
    assert numbers(batch["source"]) == permutation(9, seed=3, epoch=0).tolist()
    assert [n - 100 for n in numbers(batch["target"])] == numbers(batch["source"])


def test_domains_have_lengths_and_orders_of_their_own() -> None:
    dataset = domains(numbered(12), numbered(5))
    assert not dataset.paired and len(dataset) == 12
    batches = list(islice(Batches(dataset, batch_size=4, seed=3, device=CPU), 15))
    a, b = ([n for batch in batches for n in numbers(batch[key])] for key in ("a", "b"))
    assert all(sorted(a[start : start + 12]) == list(range(12)) for start in range(0, 60, 12))
    assert all(sorted(b[start : start + 5]) == list(range(5)) for start in range(0, 60, 5))
    same = next(Batches(domains(numbered(12), numbered(12)), batch_size=12, seed=3, device=CPU))
    assert numbers(same["a"]) != numbers(same["b"])


@pytest.mark.parametrize("paired", [True, False])
def test_resuming_gives_the_same_jitter(paired: bool) -> None:
    jitter = Jitter(6, 4, flip=True)
    dataset = pairs(noise(7, 2, 6), jitter) if paired else domains(noise(7, 1, 6), noise(5, 1, 6), jitter)
    whole = list(islice(Batches(dataset, batch_size=3, seed=1, device=CPU), 8))
    for done in range(8):
        rest = Batches(dataset, batch_size=3, seed=1, device=CPU, position=3 * done)
        for expected, batch in zip(whole[done:], rest, strict=False):
            assert all(torch.equal(batch[key], expected[key]) for key in expected)
    other = next(Batches(dataset, batch_size=3, seed=2, device=CPU))
    assert not any(torch.equal(other[key], whole[0][key]) for key in other)


def test_the_same_image_in_both_domains_is_jittered_apart() -> None:
    one = noise(1, 1, 30)
    batches = list(islice(Batches(domains(one, one, Jitter(30, 4, flip=True)), batch_size=1, seed=0, device=CPU), 5))
    assert not any(torch.equal(batch["a"], batch["b"]) for batch in batches)


def test_the_global_generator_is_left_alone() -> None:
    torch.manual_seed(1)
    state = torch.get_rng_state()
    next(Batches(pairs(noise(7, 2, 6), Jitter(6, 4, flip=True)), batch_size=3, seed=1, device=CPU))
    assert torch.equal(torch.get_rng_state(), state)


def test_a_batch_larger_than_a_domain_names_it() -> None:
    with pytest.raises(ConfigError, match="batch_size=6.*'b'.*5.*batch_size=5"):
        Batches(domains(numbered(12), numbered(5)), batch_size=6, seed=0, device=CPU)
    with pytest.raises(ConfigError, match="batch_size=6.*5"):
        Batches(pairs(numbered(5, 2)), batch_size=6, seed=0, device=CPU)


def test_floats_of_any_shape_are_served_as_they_are() -> None:
    points = torch.randn(20, 2, generator=torch.Generator().manual_seed(0)) * 100
    dataset = ArrayDataset(points, labels=None, class_names=[], fingerprint="")
    assert dataset.shape == (2,) and not hasattr(dataset, "image_size")
    batch = next(Batches(dataset, batch_size=20, seed=4, device=CPU))
    assert list(batch) == ["image"] and torch.equal(batch["image"], points[permutation(20, seed=4, epoch=0)])
    assert numbered(3).shape == (1, 4, 4)
    with pytest.raises(AssertionError):
        ArrayDataset(points.long(), labels=None, class_names=[], fingerprint="")
