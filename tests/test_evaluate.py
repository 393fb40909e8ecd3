"""gan_cli.evaluation.measure and gan_cli.rundir.evaluations as functions: what the commands cannot show."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from gan_cli.config.metrics import VALUES, is_better
from gan_cli.data.dataset import ArrayDataset
from gan_cli.evaluation import measure
from gan_cli.evaluation.image_sets import Images, centre, cropped, of_dataset
from gan_cli.evaluation.measure import Evaluation, advice, effective_classes, some, some_pairs
from gan_cli.evaluation.perceptual import MAX_PAIRS
from gan_cli.evaluation.rule import Comparison, Network, refuse_misfits
from gan_cli.rundir import evaluations
from gan_cli.system.errors import ConfigError, DiskError, OutputError, of_system
from gan_cli.system.text import number


def dataset(n: int, labels: Tensor | None = None, side: int = 8) -> ArrayDataset:
    """Image k is k everywhere."""
    images = torch.arange(n, dtype=torch.uint8).view(n, 1, 1, 1).expand(n, 1, side, side).contiguous()
    return ArrayDataset(images, labels=labels, class_names=["a", "b"] if labels is not None else [], fingerprint="f")


def firsts(images: Images) -> list[int]:
    return [int(value) for batch in images.batches() for value in batch[:, 0, 0, 0]]


# Images


def test_some_images_of_a_data_set() -> None:
    labels = torch.arange(150) % 2
    whole, part = of_dataset(dataset(150, labels), "x"), of_dataset(dataset(150, labels), "x", 30)
    assert firsts(whole) == list(range(150)) and whole.n == 150 and [len(b) for b in whole.batches()] == [64, 64, 22]
    assert len(set(firsts(part))) == 30 == part.n and firsts(part) == firsts(of_dataset(dataset(150, labels), "x", 30))
    assert part.labels is not None and part.labels.tolist() == [k % 2 for k in firsts(part)]
    assert part.key != whole.key and of_dataset(dataset(150), "x", 1000).n == 150
    assert firsts(part) != sorted(firsts(part)), "not the first ones"


@pytest.mark.parametrize(("side", "rows"), [(8, slice(0, 8)), (6, slice(1, 7)), (5, slice(1, 6)), (1, slice(3, 4))])
def test_the_centre(side: int, rows: slice) -> None:
    pixels = torch.arange(2 * 3 * 64, dtype=torch.int64).view(2, 3, 8, 8)
    assert torch.equal(centre(pixels, side), pixels[:, :, rows, rows])
    images = cropped(of_dataset(dataset(10), "x"), side)
    assert images.shape == (1, side, side) == tuple(next(images.batches()).shape[1:])
    assert (images.key == of_dataset(dataset(10), "x").key) == (side == 8)
    again = replace(of_dataset(dataset(10), "x"), again=of_dataset(dataset(10), "x").batches)
    assert next(cropped(again, side).again()).shape[-1] == side  # type: ignore[misc]


def test_nothing_can_be_cut_from_less() -> None:
    with pytest.raises(ConfigError, match=r"9 .*8 x 8 \(crop\)"):
        cropped(of_dataset(dataset(3), "x"), 9)


def test_some_rows_are_the_same_every_time() -> None:
    values = torch.randn(50, 3)
    rows = some(values, 20)
    assert torch.equal(rows, some(values, 20)) and len(rows.unique(dim=0)) == 20
    assert torch.equal(some(values, 50), values)


# Pairs


@pytest.mark.parametrize("n", [2, 3, 21, 2 * MAX_PAIRS, 5001])
def test_pairs_do_not_depend_on_the_batches(n: int) -> None:
    values = torch.arange(n)
    labels = values * 3 // n
    one, other = some_pairs(values, labels, 0, n // 2)
    assert torch.equal(other, one + 1) and (one % 2 == 0).all()
    assert (labels[one] == labels[other]).all()
    assert min(n // 2, MAX_PAIRS) - 2 <= len(one) <= MAX_PAIRS
    for size in (2, 14, 64):
        parts = [some_pairs(values[k : k + size], labels[k : k + size], k // 2, n // 2) for k in range(0, n, size)]
        assert torch.equal(torch.cat([part[0] for part in parts]), one)
    per_class = torch.bincount(labels[one], minlength=3)
    assert n < 20 or per_class.min() > 0.7 * per_class.max(), "of all classes"


def test_no_pair() -> None:
    one, other = some_pairs(torch.arange(1), None, 0, 0)
    assert len(one) == len(other) == 0


# Values


@pytest.mark.parametrize(("counts", "share"), [([5, 5, 5, 5], 1), ([20, 0, 0, 0], 0.25), ([10, 10, 0, 0], 0.5)])
def test_effective_classes(counts: list[int], share: float) -> None:
    predicted = torch.arange(4).repeat_interleave(torch.tensor(counts))
    assert effective_classes(predicted, 4) == pytest.approx(share)


def test_advice() -> None:
    real = of_dataset(dataset(200), "x")

    def notes(n: int, dim: int, *metrics: str) -> list[str]:
        fake = replace(real, n=n)
        return advice(metrics, fake, replace(real, n=100_000), dim)

    assert "49" in notes(50, 128, "fid")[0] and "128" in notes(50, 128, "fid")[0]
    assert "500" in notes(500, 128, "fid")[0]
    assert notes(1000, 128, "fid") == [] and len(notes(1000, 2048, "fid")) == 1 and notes(2049, 2048, "fid") == []
    assert notes(50, 128, "kid", "prdc") == []


@pytest.mark.parametrize(
    ("key", "better", "worse"),
    [("fid", 1, 2), ("is", 2, 1), ("fid/3", 1, 2), ("memorisation", 0.45, 0.6), ("memorisation", 0.55, 0.4), ("lpips", 1, 2)],
)
def test_what_is_better(key: str, better: float, worse: float) -> None:
    assert is_better(key, better, worse) and not is_better(key, worse, better) and not is_better(key, better, better)
    assert is_better(key, worse, None)


def test_diversity_is_better_if_higher() -> None:
    assert is_better("lpips", 2, 1, translates=False)
    assert not is_better("lpips", 2, 1, translates=True)


class Distance:
    """Stands for LPIPS: the mean absolute difference of two images."""

    facts: dict[str, Any] = {}

    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        return (a.float() - b.float()).abs().mean((1, 2, 3))


def measured(real: Images, fake: Images, *metrics: str, paired: bool = False) -> dict[str, float]:
    distance: Any = Distance() if "lpips" in metrics else None
    rule = Evaluation(metrics, real, None, torch.device("cpu"), Path(), paired=paired, perceptual=distance)
    return rule.measure(fake)


def in_batches(images: Images, size: int) -> Images:
    whole = torch.cat(list(images.batches()))
    return replace(images, batches=lambda: iter(whole.split(size)))


@pytest.mark.parametrize("size", [1, 5, 6, 64])
def test_diversity_does_not_depend_on_the_batches(size: int) -> None:
    """Image k is k everywhere, so neighbours differ by 1."""
    fake = in_batches(of_dataset(dataset(13), "x"), size)
    assert measured(fake, fake, "lpips") == {"lpips": 1.0}
    labelled = replace(fake, labels=torch.arange(13) // 2)
    assert measured(fake, labelled, "lpips") == {"lpips": 1.0}
    with pytest.raises(ConfigError, match=r"\(lpips\).*num_samples="):
        measured(fake, replace(fake, labels=torch.arange(13)), "lpips")


def test_pairs_are_compared_with_their_targets() -> None:
    real = of_dataset(dataset(40, side=16), "x")
    shifted = torch.cat(list(real.batches())) + 3
    fake = replace(real, batches=lambda: iter(shifted.split(7)), again=lambda: iter((shifted + 2).split(7)))
    values = measured(in_batches(real, 7), fake, "lpips", "psnr", "ssim", paired=True)
    assert values["lpips"] == 3 and values["lpips_diversity"] == 2 and -1 <= values["ssim"] <= 1
    assert values["psnr"] == pytest.approx(20 * torch.log10(torch.tensor(255 / 3)).item())
    assert set(measured(in_batches(real, 7), replace(fake, again=None), "lpips", paired=True)) == {"lpips"}


@pytest.mark.parametrize(
    ("metric", "kind", "changes"),
    [
        ("psnr", "single", {}),
        ("psnr", "domains", {}),
        ("ssim", "pairs", {}),
        ("lpips", "domains", {}),
        ("memorisation", "pairs", {}),
        ("classes", "single", {"labels": None}),
        ("accuracy", "single", {}),
        ("prdc", "single", {"n": 6}),
    ],
)
def test_a_metric_that_does_not_fit(metric: str, kind: Any, changes: dict[str, Any]) -> None:
    real = of_dataset(dataset(40, torch.arange(40) % 2, side=4), "reference")
    images = Comparison(replace(real, labels=None), replace(real, **changes), {}, "train", kind=kind)
    with pytest.raises(ConfigError, match=rf"^{metric} .*\((metrics|num_samples or the reference)\).*{metric}"):
        refuse_misfits([metric], images)


def test_a_network_that_does_not_fit() -> None:
    real = of_dataset(dataset(40, torch.arange(40) % 2), "reference")
    images = Comparison(real, real, {}, "train")
    refuse_misfits(["is", "accuracy"], images, Network(has_logits=True, knows_classes=True))
    refuse_misfits(["fid_per_class"], images, Network(has_logits=False, knows_classes=False))
    for metric, key in (("is", "metrics"), ("accuracy", "features")):
        with pytest.raises(ConfigError, match=rf"^{metric} .*\({key}\)"):
            refuse_misfits([metric], images, Network(has_logits=False, knows_classes=False))


# Files and tables


PROTOCOL: dict[str, Any] = {
    "protocol": "default", "seed": 0, "num_samples": 10, "kid_subset_size": 10, "features_hash": "a" * 64, "step": 4,
    "checkpoint_hash": "x", "device": "cpu", "threads": 1, "versions": {"torch": "2"},
}  # fmt: skip


def test_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "deep" / "a.json"
    assert evaluations.write(path, {"fid": 1.0}, PROTOCOL) == {"fid": 1}
    assert evaluations.write(path, {"kid": 2.0}, PROTOCOL) == {"fid": 1, "kid": 2}
    assert evaluations.write(path, {"fid": 3.0}, PROTOCOL) == {"fid": 3, "kid": 2}
    assert json.loads(path.read_text()) == {
        "metrics": {"fid": 3, "kid": 2},
        "protocol": {**PROTOCOL, "rule": evaluations.rule_id(PROTOCOL)},
    }
    assert evaluations.write(path, {"is": 3.0}, {**PROTOCOL, "checkpoint_hash": "y"}) == {"is": 3}
    before = path.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OutputError) as refused:
        evaluations.write(path, {"fid": 5.0}, PROTOCOL)
    assert isinstance(of_system(refused.value, ""), DiskError)  # exit code 74
    assert path.read_bytes() == before and [p.name for p in path.parent.iterdir()] == ["a.json"]


def test_protocol_id_is_of_how_and_not_of_what() -> None:
    same = {**PROTOCOL, "step": 8, "checkpoint_hash": "y", "threads": 3, "device": "cuda", "versions": {}, "images": 5}
    assert (
        evaluations.protocol_id(PROTOCOL)
        == evaluations.protocol_id(same)
        == evaluations.protocol_id(dict(reversed(same.items())))
    )
    assert evaluations.protocol_id(PROTOCOL) != evaluations.protocol_id({**PROTOCOL, "seed": 1})
    assert len(evaluations.protocol_id(PROTOCOL)) == 8


def test_the_rule_is_what_is_left_without_how_samples_were_made() -> None:
    rule = evaluations.rule_id(PROTOCOL)
    for key, value in {"seed": 1, "weights": "raw", "samples_native": "8 x 8, 1 channels", "step": 7, "rule": "x"}.items():
        assert evaluations.rule_id({**PROTOCOL, key: value}) == rule
    for key, value in {"num_samples": 11, "features_hash": "b", "kid_subset_size": 5, "crop": 28}.items():
        assert evaluations.rule_id({**PROTOCOL, key: value}) != rule


def test_others_are_named_once(tmp_path: Path) -> None:
    other = {**PROTOCOL, "num_samples": 20, "kid_subset_size": 20, "features_hash": "b" * 64}
    for step in (1, 2, 3):
        evaluations.write(tmp_path / f"step-0000000{step}-b.json", {"fid": 1.0}, {**other, "step": step})
    evaluations.write(tmp_path / "step-00000009-a.json", {"fid": 1.0}, {**PROTOCOL, "step": 9, "threads": 2})
    evaluations.write(tmp_path / "step-00000000-a.json", {"fid": 1.0}, PROTOCOL)
    evaluations.write(tmp_path / "of-others-abc.json", {"fid": 1.0}, other)
    (tmp_path / "notes.json").write_text("[1]")
    (line,) = evaluations.others(PROTOCOL, tmp_path / "step-00000000-a.json")
    assert line == (
        "not to be compared with step-00000001-b.json and 2 more: "
        "features_hash is bbbbbbbbbbbbbbbb... there, aaaaaaaaaaaaaaaa... here; num_samples is 20 there, 10 here"
    )


def test_results_of_strangers_are_text_of_one_line(tmp_path: Path) -> None:
    theirs = {**PROTOCOL, "features_hash": "\x1b[31mred\nresult: x"}
    evaluations.write(tmp_path / "step-00000001-abc.json", {"fid": 1.0}, theirs)
    (line,) = evaluations.others(PROTOCOL, tmp_path / "step-00000002-def.json")
    assert line.isprintable() and "\\x1b[31mred" in line


@pytest.mark.parametrize(
    "content", ['{"metrics": {"fid": NaN}, "protocol": {}}', "[" * 100_000, '{"metrics": [], "protocol": {}}']
)
def test_what_is_no_result_is_none(content: str, tmp_path: Path) -> None:
    (tmp_path / "step-1.json").write_text(content)
    assert evaluations.read(tmp_path / "step-1.json") is None


def test_odd_names_are_names(tmp_path: Path) -> None:
    mine = {**PROTOCOL, "samples_hash": "a"}
    evaluations.write(tmp_path / "samples [1]-0a-abc.json", {"fid": 1.0}, {**mine, "num_samples": 20})
    (line,) = evaluations.others(mine, tmp_path / "samples [1]-0a-def.json")
    assert line.startswith("not to be compared with samples [1]-0a-abc.json: num_samples")
    assert evaluations.others(mine, tmp_path / "a**-0a-def.json") == []


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (12345.6, "12346"), (12.3456, "12.35"), (0.05, "0.05"), (0.00012345, "0.000123"), (-0.0004, "-0.000400")],
)
def test_numbers(value: float, text: str) -> None:
    assert number(value) == text


def test_a_table_of_everything() -> None:
    values = {**dict.fromkeys(VALUES, 0.5), "kid_std": 0.1, "fid/a long class": 3.0}
    lines = evaluations.metric_lines(values, translates=True)
    assert len(lines) == 1 + len(VALUES) + 1 and len({line.rindex("  ") for line in lines}) <= 2
    rows = {line.split("  ")[0]: line for line in lines}
    assert (
        "0.5 ± 0.1" in rows["kid"] and rows["memorisation"].endswith("near 0.5") and rows["fid/a long class"].endswith("lower")
    )
    assert rows["lpips"].endswith("lower") and evaluations.metric_lines({"lpips": 1.0}, translates=False)[1].endswith("higher")


def test_hashes_of_plain_data() -> None:
    assert measure.short_hash({"a": 1, "b": None}) == measure.short_hash({"b": None, "a": 1})
    assert re.fullmatch("[0-9a-f]{16}", measure.short_hash({})) and measure.short_hash({}) != measure.short_hash({"a": 1})
