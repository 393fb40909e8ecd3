"""gan-sample: the files it writes. A sample depends on the run, the seed and its number only."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gan_cli import load_run
from gan_cli.sampling.noise import Source

from .conftest import quick  # type: ignore[import-not-found]

CONDITIONAL = """
from torch import nn, cat


class Generator(nn.Module):
    def __init__(self, latent_dim: int, num_classes: int):
        super().__init__()
        self.embed = nn.Embedding(num_classes, 8)
        self.layer = nn.Linear(latent_dim + 8, 32 * 32)

    def forward(self, z, label=None):
        return self.layer(cat([z, 9 * self.embed(label)], 1)).tanh().view(-1, 1, 32, 32)


class Discriminator(nn.Module):
    def __init__(self, num_classes: int):
        super().__init__()
        self.embed = nn.Embedding(num_classes, 32 * 32)

    def forward(self, images, label=None):
        return (images.flatten(1) * self.embed(label)).mean(1)
"""
CONDITIONAL_YAML = """
# @package _global_
model:
  task:
    _target_: gan_cli.tasks.noise.NoiseToImage
    latent_dim: 4
    num_classes: ${dataset.num_classes}
  generator: {_target_: my_conditional.Generator, latent_dim: 4, num_classes: "${dataset.num_classes}"}
  discriminator: {_target_: my_conditional.Discriminator, num_classes: "${dataset.num_classes}"}
"""


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    shutil.copytree(trained, tmp_path / "run", ignore=shutil.ignore_patterns("generated"))
    return tmp_path / "run"


@pytest.fixture
def sample(gan: Any, tmp_path: Path) -> Any:
    def sample(*args: object, run_dir: str = "run", output: str = "out") -> np.ndarray:
        result = gan("gan-sample", f"run_dir={run_dir}", "threads=1", "formats=[npz]", f"output={output}", *args)
        assert result.code == 0, result.err
        with np.load(tmp_path / output / "samples.npz") as file:
            return file["arr_0"]

    return sample


def test_without_arguments_it_draws_a_grid_of_64(run: Path, gan: Any) -> None:
    result = gan("gan-sample", "run_dir=run")
    assert result.code == 0
    grid = run / "generated" / "step-00000004-seed0" / "grid.png"
    assert [p for p in (run / "generated").rglob("*") if p.is_file()] == [grid]
    assert "run/generated/step-00000004-seed0/grid.png" in result.err + result.out
    with Image.open(grid) as picture:
        assert picture.mode == "L" and picture.width == picture.height and picture.width % (8 * 34 + 2) == 0


def test_all_formats(run: Path, gan: Any, tmp_path: Path) -> None:
    assert (
        gan(
            "gan-sample", "threads=1", "run_dir=run", "formats=[grid,npz,png,gif]", "num_samples=10", "seed=3", "output=a/b"
        ).code
        == 0
    )
    files = sorted(p.name for p in (tmp_path / "a" / "b").iterdir())
    assert files == [*[f"{k:05d}.png" for k in range(10)], "grid.png", "interpolation.gif", "samples.npz"]
    assert not (run / "generated").exists()
    with np.load(tmp_path / "a" / "b" / "samples.npz") as file:
        assert file.files == ["arr_0"]
        images = file["arr_0"]
    assert (images.shape, images.dtype) == ((10, 32, 32, 1), np.uint8)
    for k in range(10):
        assert (np.asarray(Image.open(tmp_path / "a" / "b" / f"{k:05d}.png")) == images[k, :, :, 0]).all()
    with Image.open(tmp_path / "a" / "b" / "interpolation.gif") as film:
        assert film.n_frames > 20 and film.info["loop"] == 0


def test_colour(train: Any, sample: Any, data_root: Path, tmp_path: Path) -> None:
    train("dataset=npz", f"dataset.path={data_root}/images.npz", "dataset.image_size=16", "total_steps=1", "run_dir=run")
    assert sample("formats=[npz,png,grid]", "num_samples=3").shape == (3, 16, 16, 3)
    assert Image.open(tmp_path / "out" / "00002.png").mode == "RGB"


def drawn(run: Path, n: int = 64, batch_size: int = 64, seed: int = 0, **options: Any) -> bytes:
    source = Source(load_run(run, device="cpu", **options), seed, batch_size, None, {})
    return source.draw(n)[0].numpy().tobytes()


def test_a_sample_depends_on_its_number_only(run: Path) -> None:
    images = drawn(run, 150)
    for size, n in ((1, 20), (7, 70), (1000, 150)):
        some = drawn(run, n, size)
        assert len(some) == n * 32 * 32 and some == images[: len(some)]
    assert len({images[k : k + 1024] for k in range(0, len(images), 1024)}) == 150


def test_what_changes_the_samples(run: Path) -> None:
    assert drawn(run) == drawn(run, step=4) == drawn(run, step="last")
    assert len({drawn(run), drawn(run, seed=1), drawn(run, ema=False), drawn(run, step=2)}) == 4


@pytest.mark.parametrize(("seed", "ema"), quick([(0, True), (5, False)], (5, False)))
def test_the_same_from_python(seed: int, ema: bool, run: Path, sample: Any) -> None:
    loaded = load_run(run, ema=ema, device="cpu")
    images = loaded.sample(9, seed)
    assert (images.shape, images.dtype.is_floating_point, loaded.step, loaded.images) == ((9, 1, 32, 32), True, 4, 32)
    assert float(images.min()) >= -1 and float(images.max()) <= 1
    expected = ((images.permute(0, 2, 3, 1).numpy() + 1) * 127.5).round().astype(np.uint8)
    assert (sample("num_samples=9", f"seed={seed}", f"ema={str(ema).lower()}") == expected).all()


def test_grid_shows_at_most_100(run: Path, sample: Any, tmp_path: Path) -> None:
    assert len(sample("formats=[npz,grid]", "num_samples=150")) == 150
    with Image.open(tmp_path / "out" / "grid.png") as picture:
        assert picture.width == picture.height and picture.width % (10 * 34 + 2) == 0


def test_a_run_may_be_moved(run: Path, sample: Any, gan: Any, tmp_path: Path) -> None:
    images = sample()
    (tmp_path / "other place").mkdir()
    run.rename(tmp_path / "other place" / "my run")
    assert sample(run_dir="'other place/my run'").tobytes() == images.tobytes()
    assert gan("gan-sample", "run_dir='other place/my run'").code == 0
    assert (tmp_path / "other place" / "my run" / "generated" / "step-00000004-seed0" / "grid.png").exists()


def test_a_row_per_class(train: Any, sample: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_conditional.py").write_text(CONDITIONAL)
    (tmp_path / "my" / "model").mkdir(parents=True)
    (tmp_path / "my" / "model" / "conditional.yaml").write_text(CONDITIONAL_YAML)
    train("--config-dir", "my", "model=conditional", "total_steps=2", "run_dir=run", tiny="own")
    images = sample("trust=true", "num_samples=80", "formats=[npz,grid,gif]")
    with np.load(tmp_path / "out" / "samples.npz") as file:
        assert file["labels"].tolist() == [k // 8 for k in range(80)]
    with Image.open(tmp_path / "out" / "grid.png") as picture:
        assert picture.width * 10 == pytest.approx(picture.height * 8, rel=0.02)
    flat = images.reshape(10, 8, -1).astype(float)
    within, between = flat.std(1).mean(), flat.mean(1).std(0).mean()
    assert between > within / 2, "the label makes a difference"
    monkeypatch.syspath_prepend(tmp_path)
    loaded = load_run(tmp_path / "run", device="cpu", trust=True)
    assert loaded.class_names == [str(k) for k in range(10)]


# Refusals: (what is done to the run, arguments, exit code, key or file, what else the line names)


def flip(run: Path, file: str) -> None:
    for path in (run / "checkpoints").glob(f"*/{file}"):
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)


def nothing(run: Path) -> None:
    pass


Harm = Callable[[Path], Any]
REFUSED: dict[str, tuple[Harm, list[str], int, str, list[object]]] = {
    "no such run": (shutil.rmtree, [], 66, "run", []),
    "empty run": (lambda run: shutil.rmtree(run / "checkpoints"), [], 66, "run", []),
    "no such step": (nothing, ["step=3"], 66, "run", [3, "2, 4"]),
    "best": (nothing, ["step=best"], 66, "run", ["best", "step=last"]),
    "a step that is none": (nothing, ["step=lsat"], 66, "run", ["lsat"]),
    "damaged weights": (lambda run: flip(run, "generator_ema.safetensors"), ["step=4"], 76, "", ["generator_ema"]),
    "damaged manifest": (lambda run: flip(run, "manifest.json"), ["step=4"], 76, "", ["step-00000004"]),
    "lost file": (lambda run: (run / "checkpoints/step-00000004/state.json").unlink(), ["step=4"], 76, "", ["state.json"]),
    "all damaged": (lambda run: flip(run, "state.json"), [], 76, "run", []),
    "a link": (lambda run: (run / "evaluations").symlink_to("/"), [], 77, "run/evaluations", ["trust=true"]),
    "formats": (nothing, ["formats=[grib]"], 2, "formats[0]", ["'grib'", "npz", "grid?"]),
    "no formats": (nothing, ["formats=[]"], 2, "formats", ["grid", "gif"]),
    "more than memory": (nothing, ["num_samples=4000000000"], 2, "num_samples", [4000000000, "GB"]),
    "samples": (nothing, ["num_samples=0"], 2, "num_samples", ["0 ", ">= 1"]),
    "unknown key": (nothing, ["num_sample=5"], 2, "num_sample", ["num_samples?"]),
    "output is a file": (nothing, ["output=run/train.log"], 73, "run/train.log", ["output="]),
}


@pytest.mark.parametrize(("harm", "args", "code", "where", "names"), quick(REFUSED, *list(REFUSED)[::3]))
def test_refused(
    harm: Harm, args: list[str], code: int, where: str, names: list[object], run: Path, gan: Any, tmp_path: Path
) -> None:
    harm(run)
    before = sorted(tmp_path.rglob("*"))
    result = gan("gan-sample", "run_dir=run", "threads=1", *args)
    assert result.code == code, result
    assert result.error.where.endswith(where) and result.error.names(*names), result.err
    assert [line for line in result.err.splitlines() if not line.startswith("warning: ")] == result.errors
    assert sorted(tmp_path.rglob("*")) == before


def test_run_dir_is_needed(gan: Any) -> None:
    result = gan("gan-sample")
    assert result.code == 2
    assert result.error.where == "run_dir" and "run_dir=" in result.error.todo


def test_a_checkpoint_holds_no_pickle(run: Path) -> None:
    files = list((run / "checkpoints" / "step-00000004").iterdir())
    assert {p.suffix for p in files} == {".safetensors", ".json"}
    manifest = json.loads((run / "checkpoints" / "step-00000004" / "manifest.json").read_text())
    assert {p.name for p in files} == {*manifest["files"], "manifest.json"}
