"""gan-eval as a command: the files it writes, its numbers against the definitions, and its refusals."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from gan_cli import load_run
from gan_cli.data.digits import digits
from gan_cli.data.idx import mnist
from gan_cli.evaluation import perceptual
from gan_cli.images import to_uint8
from gan_cli.metrics import inception
from gan_cli.metrics.features import build_extractor
from gan_cli.metrics.inception_score import inception_score
from gan_cli.metrics.kid import kernel_distance
from gan_cli.metrics.lpips import NETS
from gan_cli.metrics.weights import WeightFile

from .conftest import CACHE, Result, every, quick, train_tiny  # type: ignore[import-not-found]

FAST = ["features=classifier", "features.epochs=4", "num_samples=60", "threads=1"]
PIXELS = """
import torch
from torch import nn


class Pixels(nn.Module):
    def __init__(self, side: int = 2):
        super().__init__()
        self.side = side

    def forward(self, images):
        return nn.functional.adaptive_avg_pool2d(images.float() / 255, self.side).flatten(1)
"""


@dataclass(frozen=True)
class Evaluated:
    """The output of a command, and the file that it wrote."""

    said: Result
    path: Path

    @property
    def content(self) -> dict[str, Any]:
        content: dict[str, Any] = json.loads(self.path.read_text())
        return content

    @property
    def metrics(self) -> dict[str, float]:
        return self.content["metrics"]

    @property
    def protocol(self) -> dict[str, Any]:
        return self.content["protocol"]

    @property
    def notes(self) -> list[str]:
        return [line for line in self.said.out.splitlines() if line.startswith("note: ")]


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise urllib.error.URLError("there is no network")

    monkeypatch.setattr(urllib.request, "urlopen", fail)


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    shutil.copytree(trained, tmp_path / "run", ignore=shutil.ignore_patterns("generated", "evaluations"))
    return tmp_path / "run"


@pytest.fixture
def evaluate(gan: Any, tmp_path: Path) -> Callable[..., Evaluated]:
    def evaluate(*args: object, fast: bool = True) -> Evaluated:
        given = [str(arg) for arg in args]
        flags = given[:2] if given and given[0] == "--config-dir" else []
        keys = {arg.partition("=")[0] for arg in given if not arg.startswith("metrics")}
        added = [arg for arg in FAST if arg.partition("=")[0] not in keys] if fast else []
        if "features" in keys:
            added.remove("features.epochs=4")
        result = gan("gan-eval", *flags, *added, *given[len(flags) :])
        assert result.code == 0, result.err
        assert "Traceback" not in result.err
        path = re.search(r"^result: (\S+)", result.out, re.M)
        assert path is not None
        return Evaluated(result, tmp_path / path[1])

    return evaluate


@pytest.fixture(scope="module")
def paired(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pix2pix run of 2 steps. Read only."""
    home = tmp_path_factory.mktemp("paired")
    train_tiny(home, "model=pix2pix", "dataset=digits_paired", "total_steps=2", "run_dir=run", tiny="pix2pix")
    return home / "run"


@pytest.fixture(scope="module")
def unpaired(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CycleGAN run of 1 step. Read only."""
    home = tmp_path_factory.mktemp("unpaired")
    train_tiny(home, "model=cyclegan", "dataset=digits_unpaired", "total_steps=1", "run_dir=run", tiny="cyclegan")
    return home / "run"


@pytest.fixture
def pixels(tmp_path: Path) -> list[str]:
    """Features of the user's own, which need no training."""
    (tmp_path / "my_pixels.py").write_text(PIXELS)
    (tmp_path / "my" / "features").mkdir(parents=True)
    (tmp_path / "my" / "features" / "pixels.yaml").write_text("_target_: my_pixels.Pixels\nside: 4\n")
    return ["--config-dir", "my", "features=pixels"]


def save_npz(path: Path, split: Any, keep: slice = slice(None), **arrays: np.ndarray) -> None:
    part = digits(split=split)
    assert part.labels is not None
    images = part.images[keep].permute(0, 2, 3, 1).numpy()
    np.savez(path, images=images, labels=part.labels[keep].numpy(), **arrays)


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


# What it writes


def test_a_run(run: Path, evaluate: Any, read: Any) -> None:
    before = files(run)
    found = evaluate("run_dir=run")
    assert re.fullmatch(r"step-00000004-[0-9a-f]{8}\.json", found.path.name) and found.path.parent == run / "evaluations"
    spread = {"kid_std", "is_std"}
    values = {"fid", "kid", "is", "precision", "recall", "density", "coverage", "classes"}
    assert set(found.metrics) == values | spread
    assert all(isinstance(value, float) and np.isfinite(value) for value in found.metrics.values())
    expected = {
        "protocol": "default", "seed": 0, "num_samples": 60, "weights": "EMA", "image_size": 32, "channels": 1,
        "reference": "digits", "reference_split": "train", "reference_size": 1442, "crop": None, "features": "classifier",
        "resize": "pad or area to 32x32", "value_range": [-1, 1], "is_splits": 10, "precision_k": 3, "density_k": 5,
        "step": 4, "images": 32, "device": "cpu", "threads": 1,
    }  # fmt: skip
    assert {key: found.protocol[key] for key in expected} == expected
    weights = (run / "checkpoints" / "step-00000004" / "generator_ema.safetensors").read_bytes()
    assert found.protocol["checkpoint_hash"] == hashlib.sha256(weights).hexdigest()
    assert len(found.protocol["features_hash"]) == 64 and found.protocol["reference_hash"]
    assert set(found.protocol["versions"]) >= {"gan_cli", "torch", "numpy", "torch_fidelity"}

    after = files(run)
    new = set(after) - set(before)
    assert all(name.startswith("tensorboard/") for name in new - {f"evaluations/{found.path.name}"})
    assert {name: after[name] for name in before} == before, "nothing else was touched"
    tag = f"eval_{found.path.stem.rpartition('-')[2]}"
    scalars = {key.removeprefix(tag + "/"): value for key, value in read.scalars(run).items() if key.startswith(tag)}
    assert scalars.keys() == found.metrics.keys()
    assert all(scalars[key] == [(4, pytest.approx(value, rel=1e-6))] for key, value in found.metrics.items())


def test_the_table(run: Path, evaluate: Any) -> None:
    found = evaluate("run_dir=run")
    lines = found.said.out.splitlines()
    assert lines[0].startswith("run, step 4 ")
    rows = {line.split()[0]: line.split() for line in lines if re.search(r"(lower|higher)$", line) and "note" not in line}
    assert {key: row[-1] for key, row in rows.items()} == {
        **dict.fromkeys(["fid", "kid"], "lower"),
        **dict.fromkeys(["is", "precision", "recall", "density", "coverage", "classes"], "higher"),
    }
    assert next(iter(rows)) == "kid", "the FID of 60 images is not reliable"
    assert float(rows["fid"][1]) == pytest.approx(found.metrics["fid"], rel=1e-3)
    assert rows["kid"][2] == "+-" and float(rows["kid"][3]) == pytest.approx(found.metrics["kid_std"], rel=1e-3)
    assert any(line.startswith("features: classifier") and "9" in line for line in lines)
    assert any(line.startswith("samples: 60") and "digits train" in line and "1,442" in line for line in lines)
    assert any("FID" in note and "60" in note for note in found.notes)


def test_other_metrics_are_added(run: Path, evaluate: Any, pixels: list[str]) -> None:
    first = evaluate(*pixels, "run_dir=run", "metrics=[fid]")
    assert set(first.metrics) == {"fid"}
    fid = first.metrics["fid"]
    second = evaluate(*pixels, "run_dir=run", "metrics=kid")
    assert second.path == first.path and second.metrics["fid"] == fid and set(second.metrics) == {"fid", "kid", "kid_std"}
    assert [p.name for p in (run / "evaluations").iterdir()] == [first.path.name]
    assert other_rules(second) == []


def other_rules(found: Evaluated) -> list[str]:
    """Notes of results by another rule, which name their files."""
    return [note for note in found.notes if ".json" in note]


@pytest.mark.slow
def test_values_from_another_number_of_threads_are_kept(run: Path, evaluate: Any) -> None:
    first = evaluate("run_dir=run", "metrics=[fid]")
    content = json.loads(first.path.read_text())
    content["protocol"]["threads"] = 5
    first.path.write_text(json.dumps(content))
    assert set(evaluate("run_dir=run", "metrics=[kid]").metrics) == {"fid", "kid", "kid_std"}
    content["protocol"]["versions"]["torch"] = "1.0"
    first.path.write_text(json.dumps(content))
    assert set(evaluate("run_dir=run", "metrics=[kid]").metrics) == {"kid", "kid_std"}


@pytest.mark.parametrize(
    ("arg", "key"),
    quick(
        [
            ("num_samples=61", "num_samples is 60 there, 61 here"),
            ("seed=1", "seed is 0 there, 1 here"),
            ("split=test", "reference_split is train there, test here"),
            ("ema=false", "weights is EMA there, raw here"),
            ("crop=28", "crop is None there, 28 here"),
            ("num_real=500", "reference_size is 1442 there, 500 here"),
            ("features.epochs=1", "features_hash is "),
        ],
        *[("num_samples=61", "num_samples is 60 there, 61 here"), ("ema=false", "weights is EMA there, raw here")],
    ),
)
@pytest.mark.slow
def test_another_protocol_is_another_file(arg: str, key: str, run: Path, evaluate: Any) -> None:
    first = evaluate("run_dir=run", "metrics=[fid]")
    content = first.path.read_bytes()
    other = evaluate("run_dir=run", "metrics=[fid]", arg)
    assert other.path != first.path and first.path.read_bytes() == content
    assert other.metrics != first.metrics
    (note,) = other_rules(other)
    assert first.path.name in note and key in note


def test_another_step_is_measured_by_the_same_rule(run: Path, evaluate: Any, pixels: list[str]) -> None:
    last, second = (evaluate(*pixels, "run_dir=run", "metrics=[fid]", f"step={step}") for step in (4, 2))
    assert second.path.name == last.path.name.replace("4-", "2-", 1)
    assert second.protocol["checkpoint_hash"] != last.protocol["checkpoint_hash"]
    assert other_rules(second) == []


@pytest.mark.slow
def test_another_checkpoint_of_the_same_step_replaces_its_values(run: Path, train: Any, evaluate: Any) -> None:
    first = evaluate("run_dir=run", "metrics=[kid]")
    assert first.metrics
    train("total_steps=4", "seed=1", "run_dir=other")
    shutil.rmtree(run / "checkpoints")
    shutil.copytree(run.parent / "other" / "checkpoints", run / "checkpoints")
    assert set(evaluate("run_dir=run", "metrics=[fid]").metrics) == {"fid"}


def test_into_another_folder(run: Path, evaluate: Any, pixels: list[str]) -> None:
    before = sorted(run.rglob("*"))
    found = evaluate(*pixels, "run_dir=run", "metrics=[fid]", "output=deep/er")
    assert found.path.parent == run.parent / "deep" / "er"
    assert re.fullmatch(r"run-[0-9a-f]{8}-step-00000004-[0-9a-f]{8}.json", found.path.name)
    assert sorted(run.rglob("*")) == before, "the run may be read-only"
    shutil.rmtree(run / "tensorboard")
    (run / "tensorboard").write_text("cannot be written")
    assert "TensorBoard" in evaluate(*pixels, "run_dir=run", "metrics=[fid]").said.err


@pytest.mark.slow
def test_a_file_that_is_none_of_its_own_is_replaced(run: Path, evaluate: Any) -> None:
    first = evaluate("run_dir=run", "metrics=[fid]")
    good = first.path.read_text()
    for bad in ("", "[]", "{}", '{"metrics": 3, "protocol": {}}', good[:50]):
        first.path.write_text(bad)
        (run / "evaluations" / "notes.json").write_text(bad)
        assert evaluate("run_dir=run", "metrics=[fid]").path.read_text() == good


# The numbers


@pytest.mark.slow
def test_the_same_numbers_again(run: Path, evaluate: Any) -> None:
    args = ["run_dir=run", "metrics=[fid,kid,is]"]
    first = evaluate(*args).metrics
    assert evaluate(*args).metrics == first
    for size in (1, 7, 1000):
        assert evaluate(*args, f"batch_size={size}").metrics == pytest.approx(first, rel=1e-6, abs=1e-9)
    before = torch.get_num_threads()
    try:
        assert evaluate(*args, "metrics=[fid]", "threads=2").metrics["fid"] == pytest.approx(first["fid"], rel=1e-4)
    finally:
        torch.set_num_threads(before)


def frechet(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a.astype(np.float64), b.astype(np.float64)
    one, two = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    roots = np.sqrt(np.linalg.eigvals(one @ two).real.clip(0))
    return float(((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(one) + np.trace(two) - 2 * roots.sum())


@pytest.mark.parametrize(("seed", "ema"), quick([(0, True), (3, False)], (3, False)))
def test_the_numbers_are_those_of_the_definitions(seed: int, ema: bool, run: Path, evaluate: Any) -> None:
    found = evaluate("run_dir=run", f"seed={seed}", f"ema={str(ema).lower()}").metrics
    node = {"_target_": "gan_cli.metrics.classifier.Classifier", "epochs": 4}
    extractor = build_extractor(
        node,
        labelled=lambda split: digits(split=split),  # type: ignore[arg-type]
        folder=Path(CACHE) / "gan_cli",
        device=torch.device("cpu"),
    )
    samples = to_uint8(load_run(run, device="cpu", ema=ema).sample(60, seed))
    with torch.no_grad():
        fake, logits = extractor(samples)
        real, _ = extractor(digits().images)
    assert logits is not None
    assert found["fid"] == pytest.approx(frechet(real.numpy(), fake.numpy()), rel=1e-3, abs=1e-3)
    assert (found["kid"], found["kid_std"]) == pytest.approx(
        kernel_distance(real, fake, subset_size=min(1000, len(fake) // 2)), rel=1e-5
    )
    assert (found["is"], found["is_std"]) == pytest.approx(inception_score(logits), rel=1e-5, abs=1e-7)
    share = np.bincount(logits.argmax(1).numpy(), minlength=10) / 60
    assert found["classes"] == pytest.approx(np.exp(-(share[share > 0] * np.log(share[share > 0])).sum()) / 10)


def test_a_run_and_its_samples_are_worth_the_same(run: Path, gan: Any, evaluate: Any, tmp_path: Path) -> None:
    """As drawn by gan-eval, in an npz file that gan-sample wrote, and in a folder of its pictures."""
    sampled = gan("gan-sample", "run_dir=run", "num_samples=60", "formats=[npz,png]", "output=drawn", "threads=1", "seed=2")
    assert sampled.code == 0
    of_run = evaluate("run_dir=run", "seed=2")
    of_npz = evaluate("fake=drawn/samples.npz", "dataset=digits")
    of_folder = evaluate("fake=drawn", "dataset=digits")
    assert of_npz.metrics == of_folder.metrics == pytest.approx(of_run.metrics, rel=1e-6, abs=1e-9)
    assert of_npz.path.parent == of_folder.path.parent == tmp_path / "outputs" / "evaluations"
    assert of_npz.path.name.startswith("samples-") and of_folder.path.name.startswith("drawn-")
    same = ("reference_hash", "features_hash", "num_samples", "reference_split", "image_size", "rule")
    assert {key: of_npz.protocol[key] for key in same} == {key: of_run.protocol[key] for key in same}
    assert of_npz.protocol["samples_hash"] and "seed" not in of_npz.protocol


def test_two_files_of_one_name_have_a_result_each(evaluate: Any, pixels: list[str], tmp_path: Path) -> None:
    for name, keep in (("a", slice(0, 40)), ("b", slice(40, 80))):
        (tmp_path / name).mkdir()
        save_npz(tmp_path / name / "samples.npz", "test", keep)
    one, two = (evaluate(*pixels, f"fake={name}/samples.npz", "dataset=digits", "metrics=[fid]") for name in "ab")
    assert one.path != two.path and one.metrics != two.metrics
    assert other_rules(two) == []


def save_folder(folder: Path, n: int) -> None:
    """The first training digits as pictures in a folder per class."""
    part = digits()
    assert part.labels is not None
    for k in range(n):
        (folder / str(int(part.labels[k]))).mkdir(parents=True, exist_ok=True)
        Image.fromarray(part.images[k, 0].numpy()).save(folder / str(int(part.labels[k])) / f"{k}.png")


def test_a_reference_is_a_data_set_a_file_or_a_folder(evaluate: Any, pixels: list[str], tmp_path: Path) -> None:
    save_npz(tmp_path / "fake.npz", "test")
    save_npz(tmp_path / "real.npz", "train", slice(0, 300))
    save_folder(tmp_path / "real", 300)
    args = [*pixels, "fake=fake.npz", "num_samples=300"]
    of_npz, of_folder = (evaluate(*args, "metrics=[fid,prdc]", f"real={real}") for real in ("real.npz", "real"))
    assert of_npz.metrics == pytest.approx(of_folder.metrics, rel=1e-6)
    assert (of_folder.protocol["reference"], of_folder.protocol["reference_size"]) == ("image_folder", 300)
    assert of_folder.protocol["reference_split"] == "all"
    assert evaluate(*args, "metrics=[fid]", "dataset=digits").metrics["fid"] != of_npz.metrics["fid"]


@pytest.mark.slow
def test_folders_of_a_reference_are_classes(evaluate: Any, pixels: list[str], tmp_path: Path) -> None:
    save_npz(tmp_path / "fake.npz", "test")
    save_folder(tmp_path / "real", 300)
    part, ours = digits(), digits(split="test")
    assert part.labels is not None and ours.labels is not None
    classes = evaluate("fake=fake.npz", "real=real", "num_samples=300", "features.epochs=24")
    assert classes.metrics["accuracy"] > 0.8 and classes.metrics["classes"] > 0.9
    assert classes.protocol["classifier_images"] == 300 - sum(int((part.labels[:300] == k).sum()) // 10 for k in range(10))
    found = evaluate(*pixels, "fake=fake.npz", "real=real", "num_samples=1000", "metrics=[fid_per_class]").metrics

    def features(images: torch.Tensor) -> np.ndarray:
        return torch.nn.functional.adaptive_avg_pool2d(images.float() / 255, 4).flatten(1).numpy()

    assert len(found) == 11 and found["fid_per_class"] == pytest.approx(np.mean([found[f"fid/{k}"] for k in range(10)]))
    assert found["fid/3"] == pytest.approx(
        frechet(features(part.images[:300][part.labels[:300] == 3]), features(ours.images[ours.labels == 3])), rel=1e-3
    )


def test_images_of_a_few_classes_only(evaluate: Any, tmp_path: Path) -> None:
    part = digits(split="test")
    assert part.labels is not None
    images = part.images[part.labels < 2].permute(0, 2, 3, 1).numpy()
    np.savez(tmp_path / "some.npz", images=images, labels=part.labels[part.labels < 2].numpy())
    found = evaluate("fake=some.npz", "dataset=digits", "metrics=[accuracy,classes,fid_per_class]")
    assert found.metrics["accuracy"] > 0.9 and found.metrics["classes"] == pytest.approx(0.2, abs=0.02)
    assert {key for key in found.metrics if key.startswith("fid/")} == {"fid/0", "fid/1"}
    assert "2, 3, 4, 5, 6, 7, 8, 9" in found.said.err, "classes without two samples"


@pytest.mark.slow
def test_a_reference_of_a_run_may_be_another(run: Path, evaluate: Any, pixels: list[str], tmp_path: Path) -> None:
    save_npz(tmp_path / "real.npz", "train")
    args = [*pixels, "run_dir=run", "metrics=[fid]"]
    own = evaluate(*args).metrics
    assert evaluate(*args, "real=real.npz").metrics == own
    assert evaluate(*args, "dataset=digits", "dataset.image_size=64").metrics == own, "at the size of the run's images"


def test_images_of_another_size_are_scaled_if_that_is_said(evaluate: Any, gan: Any, pixels: list[str], tmp_path: Path) -> None:
    colours = np.random.default_rng(0).integers(0, 256, (20, 24, 24, 3), dtype=np.uint8)
    np.savez(tmp_path / "small.npz", images=colours)
    np.savez(tmp_path / "large.npz", images=colours.repeat(2, 1).repeat(2, 2))
    args = ["fake=small.npz", "real=large.npz", "metrics=[fid]", "threads=1"]
    result = gan("gan-eval", *pixels, *args)
    assert result.code == 65 and result.error.names("24 x 24", 3, "48 x 48") and "image_size=" in result.error.todo
    found = evaluate(*pixels, *args, "image_size=24")
    assert found.protocol["image_size"] == 24 and found.metrics["fid"] < 0.01


@pytest.mark.slow
def test_grey_and_colour(evaluate: Any, gan: Any, pixels: list[str], tmp_path: Path) -> None:
    save_npz(tmp_path / "grey.npz", "test")
    with np.load(tmp_path / "grey.npz") as file:
        np.savez(tmp_path / "colour.npz", images=file["images"].repeat(3, 3))
    assert evaluate(*pixels, "fake=grey.npz", "real=colour.npz", "num_samples=1000", "metrics=[fid]").metrics["fid"] < 1e-6
    result = gan("gan-eval", *pixels, "fake=colour.npz", "dataset=digits", "metrics=[fid]")
    assert result.code == 65 and result.error.names("32 x 32", 3, 1) and "dataset.channels" in result.error.todo
    evaluate(*pixels, "fake=colour.npz", "dataset=digits", "dataset.channels=3", "metrics=[fid]")


# Metrics of their own kind


def test_memorisation(evaluate: Any, pixels: list[str], tmp_path: Path) -> None:
    save_npz(tmp_path / "copies.npz", "train", slice(0, 100))
    found = evaluate(*pixels, "fake=copies.npz", "dataset=digits", "metrics=[memorisation]", "num_samples=100")
    assert found.metrics["memorisation"] == 1
    picture = found.path.with_suffix(".png")
    assert re.search(r"^neighbours: (\S+)", found.said.out, re.M)[1] == str(picture.relative_to(tmp_path))  # type: ignore[index]
    with Image.open(picture) as image:
        assert image.width * 8 == pytest.approx(image.height * 6, rel=0.03), "eight samples, each with five neighbours"


@pytest.mark.slow
def test_memorisation_of_new_images(run: Path, evaluate: Any, tmp_path: Path) -> None:
    save_npz(tmp_path / "new.npz", "test", slice(0, 200))
    args = ["fake=new.npz", "dataset=digits", "metrics=[memorisation]", "num_samples=200"]
    found = evaluate(*args)
    assert found.metrics["memorisation"] == pytest.approx(0.5, abs=0.06)
    assert evaluate(*args, "split=test").metrics == found.metrics, "it does not depend on the reference"
    assert evaluate("run_dir=run", "metrics=[memorisation]").path.with_suffix(".png").exists()


@pytest.mark.slow
def test_memorisation_of_a_set_without_parts(evaluate: Any, tmp_path: Path) -> None:
    save_npz(tmp_path / "data.npz", "train", slice(0, 400))
    save_npz(tmp_path / "copies.npz", "train", slice(0, 100))
    save_npz(tmp_path / "new.npz", "test", slice(0, 100))
    args = ["real=data.npz", "metrics=[memorisation]", "num_samples=100", "features.epochs=12"]
    copies, new = evaluate("fake=copies.npz", *args), evaluate("fake=new.npz", *args)
    assert copies.metrics["memorisation"] > 0.85 and new.metrics["memorisation"] == pytest.approx(0.5, abs=0.2)
    assert copies.path.with_suffix(".png").exists()


@pytest.mark.slow
def test_memorisation_of_cropped_images(run: Path, evaluate: Any, tmp_path: Path) -> None:
    save_npz(tmp_path / "copies.npz", "train", slice(0, 50))
    found = evaluate("fake=copies.npz", "dataset=digits", "metrics=[memorisation]", "crop=20")
    assert found.metrics["memorisation"] == 1 and found.path.with_suffix(".png").exists()


@pytest.mark.slow
def test_classes_that_were_asked_for(train: Any, gan: Any, evaluate: Any) -> None:
    train("model=cgan", "total_steps=2", "run_dir=run", tiny="cgan")
    found = evaluate("run_dir=run", "metrics=[accuracy,classes,fid_per_class]")
    assert {"accuracy", "classes", "fid_per_class"} < set(found.metrics)
    assert [key for key in found.metrics if key.startswith("fid/")] == [f"fid/{k}" for k in range(10)]
    assert gan("gan-sample", "run_dir=run", "num_samples=60", "formats=[npz]", "output=drawn").code == 0
    assert evaluate("fake=drawn/samples.npz", "dataset=digits", "metrics=[accuracy,classes,fid_per_class]").metrics == (
        pytest.approx(found.metrics, rel=1e-6)
    )
    assert {"accuracy", "classes"} < set(evaluate("run_dir=run").metrics)


def test_a_classifier_knows_the_digits(evaluate: Any, tmp_path: Path) -> None:
    save_npz(tmp_path / "real.npz", "test")
    right = evaluate("fake=real.npz", "dataset=digits", "metrics=[accuracy,classes]", "num_samples=1000")
    assert right.metrics["accuracy"] == pytest.approx(right.protocol["classifier_accuracy"]) and right.metrics["accuracy"] > 0.9
    with np.load(tmp_path / "real.npz") as file:
        np.savez(tmp_path / "wrong.npz", images=file["images"], labels=(file["labels"] + 1) % 10)
    assert evaluate("fake=wrong.npz", "dataset=digits", "metrics=[accuracy]", "num_samples=1000").metrics["accuracy"] < 0.1


@pytest.mark.slow
def test_pairs(paired: Path, evaluate: Any) -> None:
    found = evaluate(f"run_dir={paired}", "output=out", "metrics=[psnr,ssim]", "num_samples=40")
    assert found.protocol["num_samples"] == 40 and "features" not in found.protocol
    run = load_run(paired, device="cpu")
    from gan_cli.data.digit_styles import digits_paired

    part = digits_paired(split="test")
    ((_, stream),) = part.streams
    source, target = stream.batch(torch.arange(40)).chunk(2, 1)
    made = to_uint8(run.translate(source.float() / 127.5 - 1)).int()
    mse = (made - target.int()).double().square().mean((1, 2, 3))
    assert found.metrics["psnr"] == pytest.approx(float((10 * torch.log10(255**2 / mse)).mean()))
    assert -1 < found.metrics["ssim"] < 1
    assert evaluate(f"run_dir={paired}", "output=out", "metrics=[psnr,ssim]", "num_samples=40", "batch_size=7").metrics == (
        pytest.approx(found.metrics)
    )
    other = evaluate(f"run_dir={paired}", "output=out", "metrics=[psnr]", "num_samples=40", "mode=eval")
    assert other.path != found.path and other.protocol["dropout"] == "off" and found.protocol["dropout"] == "on"


@pytest.mark.slow
def test_two_directions(unpaired: Path, evaluate: Any, pixels: list[str]) -> None:
    args = [*pixels, f"run_dir={unpaired}", "output=out", "metrics=[kid]", "num_samples=20"]
    ways = [evaluate(*args), evaluate(*args, "direction=a2b"), evaluate(*args, "direction=b2a")]
    assert [way.protocol["direction"] for way in ways] == ["a2b", "a2b", "b2a"]
    assert ways[0].metrics == ways[1].metrics != ways[2].metrics
    assert ways[0].protocol["reference_hash"] != ways[2].protocol["reference_hash"]


# Networks of others


@pytest.fixture
def lpips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Files of random weights, taken for those of the authors."""
    import torchvision

    channels = NETS["squeeze"].channels
    with torch.random.fork_rng():
        torch.manual_seed(0)
        trunk = torchvision.models.squeezenet1_1(weights=None).state_dict()
        linear = {f"lin{k}.model.1.weight": torch.rand(1, c, 1, 1) for k, c in enumerate(channels)}
    for name, weights, table in (("trunk", trunk, perceptual.TRUNKS), ("linear", linear, perceptual.LINEAR)):
        torch.save(weights, tmp_path / f"{name}.pth")
        found = hashlib.sha256((tmp_path / f"{name}.pth").read_bytes()).hexdigest()
        monkeypatch.setitem(table, "squeeze", WeightFile(f"{name}.pth", "https://example.org/x", found))
    return ["lpips.net=squeeze", "lpips.weights=trunk.pth", "lpips.linear=linear.pth"]


def test_lpips_of_samples_is_their_diversity(run: Path, evaluate: Any, lpips: list[str]) -> None:
    found = evaluate("run_dir=run", "metrics=[lpips]", *lpips, "num_samples=13")
    assert set(found.metrics) == {"lpips"} and found.metrics["lpips"] > 0
    assert re.search(r"^lpips +\S+ +higher$", found.said.out, re.M)
    assert found.protocol["lpips_net"] == "squeeze, v0.1" and "diversity" in found.protocol["lpips"]
    assert len(found.protocol["lpips_trunk_hash"]) == len(found.protocol["lpips_linear_hash"]) == 64


@pytest.mark.slow
def test_lpips_of_pairs_is_a_distance(paired: Path, evaluate: Any, lpips: list[str]) -> None:
    args = [f"run_dir={paired}", "output=out", "metrics=[lpips]", *lpips, "num_samples=6"]
    found = evaluate(*args)
    assert set(found.metrics) == {"lpips", "lpips_diversity"} and "distance to the target" in found.protocol["lpips"]
    assert re.search(r"^lpips +\S+ +lower$", found.said.out, re.M)
    assert re.search(r"^lpips_diversity +\S+ +higher$", found.said.out, re.M)
    assert 0 < found.metrics["lpips_diversity"] < found.metrics["lpips"]
    assert set(evaluate(*args, "mode=eval").metrics) == {"lpips"}, "without dropout there is one result per image"


@pytest.mark.slow
def test_lpips_within_classes_only(train: Any, gan: Any, evaluate: Any, lpips: list[str]) -> None:
    train("model=cgan", "total_steps=1", "run_dir=run", tiny="cgan")
    assert evaluate("run_dir=run", "metrics=[lpips]", *lpips, "num_samples=20").metrics["lpips"] >= 0
    result = gan("gan-eval", "run_dir=run", "metrics=[lpips]", *lpips, "num_samples=10")
    assert result.code == 2 and result.error.where == "lpips" and "num_samples=" in result.error.todo


def test_protocol_of_lucic(evaluate: Any, data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Inception replaced by what looks at the images that it would be given."""
    seen: list[tuple[int, ...]] = []

    class Network(nn.Module):
        def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            seen.append(tuple(images.shape[1:]))
            assert (images == images[:, :1]).all()
            values = images.float().flatten(1)[:, :2048]
            return values, values[:, :1008]

    def __init__(self: Any, *, weights: str | None = None, folder: Path) -> None:
        self._network = Network()
        self.facts = {"features": "inception", "features_hash": "0" * 64, "resize": "none", "value_range": [0, 255]}
        self.facts["comparable"] = "with published FIDs"

    monkeypatch.setattr(inception.Inception, "__init__", __init__)
    images = np.random.default_rng(0).integers(0, 256, (12, 32, 32), dtype=np.uint8)
    np.savez(tmp_path / "padded.npz", images=images)
    found = evaluate("fake=padded.npz", "dataset=mnist", f"dataset.root={data_root}", "protocol=lucic2018", fast=False)
    assert set(seen) == {(3, 28, 28)} and set(found.metrics) == {"fid"}
    expected = {"protocol": "lucic2018", "reference_split": "test", "crop": 28, "image_size": 28, "features": "inception"}
    assert {key: found.protocol[key] for key in expected} == expected
    assert found.protocol["comparable"] == "with published FIDs"
    np.savez(tmp_path / "fake.npz", images=np.random.default_rng(0).integers(0, 256, (12, 28, 28), dtype=np.uint8))
    args = ["fake=fake.npz", "dataset=mnist", f"dataset.root={data_root}", "image_size=28", "dataset.fit=resize"]
    other = evaluate(*args, "protocol=lucic2018", fast=False)
    assert {key: other.protocol[key] for key in expected} == expected


@pytest.mark.parametrize("arg", quick(["num_samples=12", "features=classifier", "split=train", "crop=30"], "crop=30"))
def test_a_named_protocol_is_kept_or_not_named(arg: str, gan: Any, trained: Path, tmp_path: Path) -> None:
    result = gan("gan-eval", f"run_dir={trained}", "protocol=lucic2018", arg)
    assert result.code == 2 and result.error.names("protocol=lucic2018") and result.error.where == arg.split("=")[0]


@pytest.mark.parametrize("size", quick([28, 32], 28))
def test_images_are_fitted_as_the_reference_is(
    size: int, evaluate: Any, pixels: list[str], data_root: Path, tmp_path: Path
) -> None:
    images = mnist(root=str(data_root), image_size=28, fit="resize", download=False).images[:, 0].numpy()
    np.savez(tmp_path / "fake.npz", images=images)
    args = ["fake=fake.npz", "dataset=mnist", f"dataset.root={data_root}", f"image_size={size}", "metrics=[fid]"]
    found = evaluate(*pixels, *args)
    assert found.metrics["fid"] == pytest.approx(0, abs=1e-9)
    assert (found.protocol["samples_fit"], found.protocol["samples_native"]) == ("pad", "28 x 28, 1 channels")


# Features of the user's own


def test_own_features(run: Path, evaluate: Any, pixels: list[str]) -> None:
    found = evaluate(*pixels, "run_dir=run")
    assert set(found.metrics) == {"fid", "kid", "kid_std", "precision", "recall", "density", "coverage"}, "no logits, no IS"
    assert found.protocol["features"] == "my_pixels.Pixels" and found.protocol["reference_hash"]
    samples = to_uint8(load_run(run, device="cpu").sample(60))
    fake, real = (torch.nn.functional.adaptive_avg_pool2d(x.float() / 255, 4).flatten(1) for x in (samples, digits().images))
    assert found.metrics["fid"] == pytest.approx(frechet(real.numpy(), fake.numpy()), rel=1e-4, abs=1e-6)


@pytest.mark.parametrize(
    ("body", "value"),
    every(
        2,
        [
            ("raise ValueError('too dark')", "too dark"),
            ("return images.float().mean((2, 3)).flatten()", "for 2 images"),
            ("return None", "NoneType"),
            ("return self.nothing", "nothing"),
            ("return images.float().flatten(1) / 0", "features"),
        ],
    ),
)
def test_own_features_that_are_wrong(body: str, value: str, run: Path, gan: Any, pixels: list[str], tmp_path: Path) -> None:
    (tmp_path / "my_pixels.py").write_text(PIXELS.partition("        return nn")[0] + f"        {body}\n")
    result = gan("gan-eval", *pixels, "run_dir=run", "num_samples=20", "num_real=20", "metrics=[fid]", "threads=1")
    assert result.code in (2, 65) and result.error.names(value), result.err
    assert not (run / "evaluations").exists()


def test_own_features_depend_on_the_size_of_what_they_get(run: Path, evaluate: Any, pixels: list[str], tmp_path: Path) -> None:
    (tmp_path / "my_pixels.py").write_text(
        PIXELS.partition("        return nn")[0] + "        return images.float().flatten(1)\n"
    )
    assert evaluate(*pixels, "run_dir=run", "metrics=[fid]", "crop=8").protocol["image_size"] == 8


@pytest.mark.parametrize(
    ("arg", "names"),
    every(
        2,
        [
            ("features.sied=1", ["features.sied", "features.side?"]),
            ("features.side=two", ["features.side", "two"]),
            ("features._target_=my_pixels.Pixel", ["my_pixels.Pixel", "(features._target_)"]),
            ("features=pixel", ["features", "'pixel'", "pixels?"]),
        ],
    ),
)
def test_own_features_that_are_not_there(arg: str, names: list[str], run: Path, gan: Any, pixels: list[str]) -> None:
    result = gan("gan-eval", *pixels, "run_dir=run", "num_samples=20", "metrics=[fid]", "threads=1", arg)
    assert result.code == 2 and result.error.names(*names), result


@pytest.mark.slow
def test_own_features_with_other_arguments_are_others(run: Path, evaluate: Any, pixels: list[str]) -> None:
    args = [*pixels, "run_dir=run", "metrics=[fid]"]
    four = evaluate(*args, "cache=one")
    two = evaluate(*args, "cache=one", "features.side=2")
    assert two.path != four.path and two.metrics == evaluate(*args, "cache=two", "features.side=2").metrics


def test_own_features_that_are_edited_are_others(run: Path, evaluate: Any, pixels: list[str], tmp_path: Path) -> None:
    args = [*pixels, "run_dir=run", "metrics=[fid]", "cache=one"]
    before = evaluate(*args)
    (tmp_path / "my_pixels.py").write_text(PIXELS.replace("float() / 255", "float() / 51"))
    after = evaluate(*args)
    assert after.path != before.path and after.metrics["fid"] == pytest.approx(25 * before.metrics["fid"], rel=1e-3)


@pytest.mark.slow
def test_folders_of_files_of_the_same_names_and_sizes(evaluate: Any, pixels: list[str], tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
        for k in range(8):
            image = np.random.default_rng([k, ord(name)]).integers(0, 256, (16, 16), dtype=np.uint8)
            Image.fromarray(image).save(tmp_path / name / f"{k}.bmp")
    args = [*pixels, "fake=a", "metrics=[fid]", "cache=one"]
    assert evaluate(*args, "real=b").metrics["fid"] > 1e-6
    assert evaluate(*args, "real=a").metrics["fid"] == pytest.approx(0, abs=1e-9)


# Runs that are not as they should be


def test_a_run_that_is_not_finished(train: Any, evaluate: Any, pixels: list[str]) -> None:
    train("total_steps=40", "max_hours=1e-9", "run_dir=run", code=75)
    assert "1 of 40" in evaluate(*pixels, "run_dir=run", "metrics=[fid]").said.err
    assert "1 of 40" not in evaluate(*pixels, "run_dir=run", "metrics=[fid]", "step=1").said.err


@pytest.mark.slow
def test_data_that_lies_elsewhere_now(train: Any, evaluate: Any, gan: Any, data_root: Path, tmp_path: Path) -> None:
    shutil.copytree(data_root / "MNIST", tmp_path / "here" / "MNIST")
    train("dataset=mnist", "dataset.root=here", "dataset.download=false", "total_steps=1", "run_dir=run")
    args = ["run_dir=run", "metrics=[fid]", "num_samples=20", "features.epochs=1"]
    first = evaluate(*args)
    numbers = first.metrics
    (tmp_path / "here").rename(tmp_path / "there")
    result = gan("gan-eval", *FAST, *args)
    assert result.code == 66 and result.error.names("MNIST") and "root=" in result.error.todo
    again = evaluate(*args, "root=there")
    assert again.path == first.path and again.metrics == numbers
    shutil.copy(data_root / "images.npz", tmp_path / "a.npz")
    train("dataset=npz", "dataset.path=a.npz", "dataset.image_size=16", "total_steps=1", "run_dir=other")
    (tmp_path / "a.npz").rename(tmp_path / "b.npz")
    evaluate("run_dir=other", "metrics=[fid]", "num_samples=20", "features.epochs=1", "root=b.npz")


def rewrite(run: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change the state of an untrusted run; the hashes are right."""
    for folder in (run / "checkpoints").iterdir():
        state = json.loads((folder / "state.json").read_text())
        change(state)
        data = json.dumps(state).encode()
        (folder / "state.json").write_bytes(data)
        manifest = json.loads((folder / "manifest.json").read_text())
        manifest["files"]["state.json"] = [len(data), hashlib.sha256(data).hexdigest()]
        (folder / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    "node",
    every(
        5,
        [
            {"_target_": "os.system", "command": "touch owned"},
            {"_target_": "gan_cli.data.npz.np.load", "file": "x"},
            {"_target_": "gan_cli.data.digits.digits", "image_size": {"_target_": "os.system", "command": "touch owned"}},
            {"_target_": "gan_cli.data.digits.digits", "_partial_": True},
            {"_target_": "gan_cli.data.digits.digits", "split": "${oc.env:HOME}"},
        ],
    ),
)
def test_an_untrusted_run(node: dict[str, Any], run: Path, gan: Any, tmp_path: Path) -> None:
    rewrite(run, lambda state: state["config"].update(dataset=node))
    result = gan("gan-eval", "run_dir=run", *FAST)
    assert result.code == 77 and result.error.where.startswith("dataset")
    assert not (tmp_path / "owned").exists() and not (run / "evaluations").exists()
    assert gan("gan-eval", "run_dir=run", *FAST, "metrics=[fid]", "dataset=digits").code == 0, "its data set is not used"


def test_weights_that_make_no_numbers(run: Path, gan: Any) -> None:
    from safetensors.torch import load, save

    for folder in (run / "checkpoints").iterdir():
        weights = load((folder / "generator_ema.safetensors").read_bytes())
        weights = {key: value * float("nan") if value.is_floating_point() else value for key, value in weights.items()}
        data = save(weights)
        (folder / "generator_ema.safetensors").write_bytes(data)
        manifest = json.loads((folder / "manifest.json").read_text())
        manifest["files"]["generator_ema.safetensors"] = [len(data), hashlib.sha256(data).hexdigest()]
        (folder / "manifest.json").write_text(json.dumps(manifest))
    result = gan("gan-eval", "run_dir=run", *FAST)
    assert result.code == 76 and result.error.where == "run"
    assert not (run / "evaluations").exists()


# Refusals: (arguments, exit code, the key, value or file that it is about, what else the line names)

SEVERAL = ["fake=fake.npz", "real=unlabelled.npz"]
REFUSED: dict[str, tuple[list[str], int, str, list[object]]] = {
    "nothing": ([], 2, "run_dir and fake", []),
    "two things": (["run_dir=run", "fake=fake.npz"], 2, "run_dir and fake", []),
    "no reference": (["fake=fake.npz"], 2, "real", ["real=", "dataset="]),
    "two references": (["fake=fake.npz", "real=fake.npz", "dataset=digits"], 2, "real and dataset", []),
    "no metrics": (["run_dir=run", "metrics=[]"], 2, "metrics", []),
    "unknown metric": (["run_dir=run", "metrics=[fdi]"], 2, "metrics[0]", ["'fdi'", "fid"]),
    "unknown key": (["run_dir=run", "metric=fid"], 2, "metric", ["metrics?"]),
    "psnr of noise": (["run_dir=run", "metrics=[psnr]"], 2, "metrics", ["psnr"]),
    "accuracy without classes": (["run_dir=run", "metrics=[accuracy]"], 2, "metrics", ["accuracy"]),
    "unlabelled": ([*SEVERAL, "metrics=[classes]"], 2, "metrics", ["classes"]),
    "classifier of unlabelled": (SEVERAL, 2, "features", []),
    "classes by inception": (["run_dir=run", "features=inception", "metrics=[classes]"], 66, "", ["weights-inception"]),
    "no inception": (["run_dir=run", "features=inception"], 66, "", ["features.weights=PATH"]),
    "no inception there": (
        ["run_dir=run", "features=inception", "features.weights=no.pth"], 66, "features.weights=no.pth", [],
    ),
    "wrong inception": (
        ["run_dir=run", "features=inception", "features.weights=fake.npz"], 65, "", ["fake.npz", "6726825d"],
    ),
    "no lpips": (["run_dir=run", "metrics=[lpips]"], 66, "", ["alexnet", "lpips.weights=PATH"]),
    "wrong lpips": (["run_dir=run", "metrics=[lpips]", "lpips.weights=fake.npz"], 65, "", ["lpips.weights", "fake.npz"]),
    "one sample": (["run_dir=run", "num_samples=1"], 2, "num_samples or the reference", ["fid", 2, 1]),
    "few for prdc": (["run_dir=run", "num_samples=6", "metrics=[prdc]"], 2, "num_samples or the reference", ["prdc", 7, 6]),
    "few real": (["run_dir=run", "num_real=1"], 2, "num_samples or the reference", ["fid", "1 reference"]),
    "few in a folder": (
        ["fake=three", "dataset=digits", "metrics=[prdc]"], 2, "num_samples or the reference", ["prdc", "3 generated"],
    ),
    "more than memory": (["run_dir=run", "num_samples=4000000000000"], 71, "memory", ["num_samples"]),
    "nan": (["fake=nan.npz", "dataset=digits"], 65, "nan.npz", ["image 7"]),
    "not npz": (["fake=run/config.yaml", "dataset=digits"], 65, "run/config.yaml", ["fake="]),
    "no such file": (["fake=no.npz", "dataset=digits"], 66, "no.npz", ["fake="]),
    "empty folder": (["fake=empty", "dataset=digits"], 65, "empty", ["fake="]),
    "damaged": (["fake=damaged", "dataset=digits", "metrics=[fid]"], 65, "damaged", ["1.png", "fake="]),
    "several sizes": (
        ["fake=sizes", "dataset=digits"], 65, "sizes", ["0.png (32 x 32)", "1.png (16 x 16)", "image_size="],
    ),
    "oblong": (["fake=oblong", "dataset=digits"], 65, "oblong", ["32 x 16", "image_size="]),
    "another size": (["fake=small", "dataset=digits"], 65, "fake and the reference", ["16 x 16", "32 x 32", "image_size="]),
    "points": (["fake=fake.npz", "dataset=ring"], 2, "dataset", []),
    "pairs": (["fake=fake.npz", "dataset=digits_paired"], 2, "dataset", []),
    "crop": (["run_dir=run", "crop=64", "metrics=[fid]"], 2, "crop", [64, "32 x 32"]),
    "size of a run": (["run_dir=run", "image_size=16"], 2, "image_size", ["fake="]),
    "root of files": (["fake=fake.npz", "dataset=digits", "root=x"], 2, "root", []),
    "root of another set": (["run_dir=run", "dataset=digits", "root=x"], 2, "root", []),
    "root of a set without files": (["run_dir=run", "root=x"], 2, "root", []),
    "mode": (["run_dir=run", "mode=eval"], 2, "mode", []),
    "direction": (["run_dir=run", "direction=a2b"], 2, "direction", []),
    "pairs for noise": (["run_dir=run", "dataset=digits_paired"], 2, "dataset", []),
    "split": (["run_dir=run", "real=fake.npz", "split=test"], 2, "split", ["test"]),
    "other memories": (["run_dir=run", "real=fake.npz", "metrics=[memorisation]"], 2, "metrics", ["memorisation"]),
    "no run": (["run_dir=no"], 66, "no", []),
    "not a run": (["run_dir=empty"], 66, "empty", []),
    "no step": (["run_dir=run", "step=3"], 66, "run", [3, "2, 4"]),
    "no best": (["run_dir=run", "step=best"], 66, "run", ["eval_every"]),
    "output is a file": (["run_dir=run", "metrics=[fid]", "output=run/train.log"], 73, ".json", ["run/train.log", "output="]),
}  # fmt: skip


@pytest.fixture
def bad(tmp_path: Path) -> None:
    """Images that are not as they should be."""
    save_npz(tmp_path / "fake.npz", "test", slice(0, 40))
    np.savez(tmp_path / "unlabelled.npz", images=np.zeros((40, 32, 32, 1), dtype=np.uint8))
    images = np.zeros((40, 32, 32), dtype=np.float32)
    images[7, 3, 3] = np.nan
    np.savez(tmp_path / "nan.npz", images=images)
    for name, sizes in {"three": [32] * 3, "damaged": [32] * 12, "sizes": [32, 16], "small": [16] * 12, "empty": []}.items():
        (tmp_path / name).mkdir()
        for k, size in enumerate(sizes):
            Image.fromarray(np.full((size, size), 20 * k, dtype=np.uint8)).save(tmp_path / name / f"{k}.png")
    content = (tmp_path / "damaged" / "1.png").read_bytes()
    (tmp_path / "damaged" / "1.png").write_bytes(content[: len(content) // 2])
    (tmp_path / "oblong").mkdir()
    Image.fromarray(np.zeros((32, 16), dtype=np.uint8)).save(tmp_path / "oblong" / "0.png")


@pytest.mark.usefixtures("bad", "run")
@pytest.mark.parametrize(("args", "code", "where", "names"), quick(REFUSED, *list(REFUSED)[::4]))
def test_refused(args: list[str], code: int, where: str, names: list[object], gan: Any, tmp_path: Path) -> None:
    keys = {arg.partition("=")[0] for arg in args}
    fast = [arg for arg in FAST if arg.partition("=")[0] not in keys]
    if "features" in keys:
        fast.remove("features.epochs=4")
    before = sorted(tmp_path.rglob("*"))
    result = gan("gan-eval", *fast, *args)
    assert result.code == code, result
    assert result.error.names(*names) and result.error.where.endswith(where), result.err
    assert "Traceback" not in result.err and (result.out == "" or "output=run/train.log" in args), "the table is not lost"
    assert sorted(tmp_path.rglob("*")) == before, "nothing was written"


@pytest.mark.parametrize(
    ("kind", "args", "where", "value"),
    [
        ("paired", ["metrics=[memorisation]"], "metrics", "memorisation"),
        ("paired", ["metrics=[accuracy]"], "metrics", "accuracy"),
        ("paired", ["dataset=digits"], "dataset", "dataset"),
        ("paired", ["real=."], ".", "real="),
        ("paired", ["num_real=3"], "num_real", "num_real"),
        ("paired", ["split=test"], "split", "split"),
        ("paired", ["direction=a2b"], "direction", "direction"),
        ("unpaired", ["metrics=[psnr]"], "metrics", "psnr"),
        ("unpaired", ["metrics=[lpips]"], "metrics", "lpips"),
        ("unpaired", ["metrics=[memorisation]"], "metrics", "memorisation"),
        ("unpaired", ["mode=eval"], "mode", "mode"),
        ("unpaired", ["direction=c2d"], "direction", "'c2d'"),
    ],
)
@pytest.mark.slow
def test_refused_for_translations(
    kind: str, args: list[str], where: str, value: str, gan: Any, request: pytest.FixtureRequest
) -> None:
    run = request.getfixturevalue(kind)
    result = gan("gan-eval", f"run_dir={run}", *FAST, *args)
    assert result.code in (2, 65) and result.error.where == where and result.error.names(value), result
    assert not (run / "evaluations").exists()


@pytest.mark.slow
def test_points_are_not_images(train: Any, gan: Any) -> None:
    train("model=points", "dataset=mixture_1d", "dataset.n=50", "total_steps=1", "run_dir=run", tiny="points")
    result = gan("gan-eval", "run_dir=run")
    assert result.code == 2 and result.error.where == "run" and "metrics.jsonl" in result.error.todo


def test_help_lists_the_keys(gan: Any) -> None:
    result = gan("gan-eval", "--help")
    assert result.code == 0
    for text in ("run_dir=DIR", "fake=DIR real=DIR", "num_samples=10000", "protocol=lucic2018", "memorisation"):
        assert text in result.out
