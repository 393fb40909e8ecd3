"""gan-sample with runs that translate images or draw chosen classes, and data that does not fit a translation model."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from gan_cli import load_run
from gan_cli.sampling.noise import Source, chosen_classes
from gan_cli.system.errors import ConfigError

from .conftest import quick, save_photos, train_tiny  # type: ignore[import-not-found]

SIZE = 16
ONE = ["threads=1", "precision=fp32", f"dataset.image_size={SIZE}", "total_steps=4", "save_every=2", "batch_size=2"]
PIX2PIX = ["model=pix2pix", "model.generator.width=4", "model.discriminator.width=4", "model.discriminator.layers=2"]
CYCLEGAN = [
    "model=cyclegan", "model.generator.a2b.width=4", "model.generator.a2b.blocks=1", "model.discriminator.a.width=4",
    "model.discriminator.a.layers=2", "model.task.pool_size=4",
]  # fmt: skip
CGAN = ["model=cgan", "batch_size=8", "++model.generator.hidden_y=8", "++model.generator.hidden=16"]
CDCGAN = ["model=cdcgan", "batch_size=8", "model.generator.width=4", "model.discriminator.width=4"]


def fill(root: Path) -> None:
    """``pairs`` side by side with a held-out part, ``two`` with pairs in two folders, ``domains`` of two counts."""
    save_photos(root / "pairs" / "train", [f"{k}.png" for k in range(6)], (32, 64))
    save_photos(root / "pairs" / "test", [f"{k}.png" for k in range(5)], (32, 64), seed=1)
    for k, (side, count) in enumerate((("A", 6), ("B", 5))):
        save_photos(root / "domains" / f"train{side}", [f"{side}{n}.jpg" for n in range(count)], (24, 40), seed=k)
        save_photos(root / "domains" / f"test{side}", [f"{side}{n}.jpg" for n in range(count - 2)], (24, 40), seed=k + 2)


RUNS = {
    "pix": [*PIX2PIX, "dataset=digits_paired"],
    "pix_rgb": [*PIX2PIX, "dataset=paired", "dataset.root=pairs", "dataset.load_size=18", "ema.half_life=1000"],
    "pix_eval": [*PIX2PIX, "dataset=paired", "dataset.root=pairs", "dataset.load_size=18", "model.task.sample_mode=eval"],
    "cyc": [*CYCLEGAN, "dataset=digits_unpaired"],
    "cyc_rgb": [
        *CYCLEGAN,
        "dataset=unpaired",
        "dataset.root=domains",
        "dataset.load_size=null",
        "model.generator.a2b.blocks=1",
    ],
    "cgan": [*CGAN, "dataset=digits"],
    "cdcgan": [*CDCGAN, "dataset=digits"],
    "noise": ["batch_size=8", "model.generator.width=4", "model.discriminator.width=4"],
}


@pytest.fixture(scope="module")
def trained_run(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Gives the folder with one of ``RUNS`` and the data that runs read. A run is trained when it is first asked for."""
    home = tmp_path_factory.mktemp("translators")
    fill(home)

    @cache
    def trained_run(name: str) -> Path:
        train_tiny(home, *ONE, *RUNS[name], f"run_dir={name}", tiny="own")
        return home

    return trained_run


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """The folder to work in, with the data of the runs that read files."""
    fill(tmp_path)
    return tmp_path


@pytest.fixture
def copy_run(here: Path, trained_run: Callable[[str], Path]) -> Callable[[str], None]:
    """Brings a run into the folder: its files may be added and removed, not changed."""
    unused = shutil.ignore_patterns("tensorboard", "samples")

    def copy_run(name: str) -> None:
        if name in RUNS and not (here / name).exists():
            shutil.copytree(trained_run(name) / name, here / name, copy_function=os.link, ignore=unused)

    return copy_run


@pytest.fixture
def sample(gan: Any, copy_run: Any) -> Any:
    def sample(run: str, *args: object, code: int = 0) -> Any:
        copy_run(run)
        result = gan("gan-sample", f"run_dir={run}", "threads=1", *args)
        assert result.code == code, result.err
        assert "Traceback" not in result.err + result.out
        return result

    return sample


def files(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def picture(seed: int = 0, shape: tuple[int, ...] = (24, 40, 3)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


# Held-out images


@pytest.mark.parametrize(
    ("run", "count", "columns", "mode"),
    quick(
        [("pix", 64, 3, "L"), ("pix_rgb", 5, 3, "RGB"), ("cyc", 64, 3, "L"), ("cyc_rgb", 4, 3, "RGB")],
        *[("pix_rgb", 5, 3, "RGB"), ("cyc_rgb", 4, 3, "RGB")],
    ),
)
def test_by_default_the_runs_own_held_out_images(
    run: str, count: int, columns: int, mode: str, sample: Any, here: Path
) -> None:
    result = sample(run)
    output = here / run / "generated" / "step-00000004-seed0"
    assert files(output) == [*[f"{k:05d}.png" for k in range(count)], *[f"sheets/{k:03d}.png" for k in range(-(-count // 8))]]
    assert f"{count} images" in result.err and str(output.relative_to(here)) in result.err
    for k in range(count):
        with Image.open(output / f"{k:05d}.png") as image:
            assert (image.size, image.mode) == ((SIZE, SIZE), mode)
    with Image.open(output / "sheets" / "000.png") as sheet:
        factor = sheet.width // (columns * (SIZE + 2) + 2)
        assert sheet.size == (factor * (columns * (SIZE + 2) + 2), factor * (min(count, 8) * (SIZE + 2) + 2))


def cell(path: Path, row: int, column: int, columns: int = 3) -> np.ndarray:
    """One image of a sheet, at its own size."""
    sheet = pixels(path)
    factor = sheet.shape[1] // (columns * (SIZE + 2) + 2)
    y, x = 2 + row * (SIZE + 2), 2 + column * (SIZE + 2)
    return sheet[::factor, ::factor][y : y + SIZE, x : x + SIZE]


def test_sheets_of_pix2pix_show_source_result_target(sample: Any, here: Path) -> None:
    sample("pix_rgb", "output=out", "num_samples=3")
    pair = pixels(here / "pairs" / "test" / "1.png")
    for column, half in ((0, pair[:, :32]), (2, pair[:, 32:])):
        from gan_cli.data.fitting import fit_images

        wanted = fit_images(torch.from_numpy(half.copy()).permute(2, 0, 1)[None], image_size=SIZE, channels=3, fit="resize")
        assert (cell(here / "out" / "sheets" / "000.png", 1, column) == wanted[0].permute(1, 2, 0).numpy()).all()
    assert (cell(here / "out" / "sheets" / "000.png", 1, 1) == pixels(here / "out" / "00001.png")).all()
    assert files(here / "out") == ["00000.png", "00001.png", "00002.png", "sheets/000.png"]


def test_sheets_of_cyclegan_show_source_result_reconstruction(sample: Any, here: Path) -> None:
    sample("cyc_rgb", "output=there", "direction=a2b")
    sample("cyc_rgb", "output=back", "direction=b2a", "input=there/00000.png")
    sheet = here / "there" / "sheets" / "000.png"
    assert (cell(sheet, 0, 1) == pixels(here / "there" / "00000.png")).all()
    back = pixels(here / "back" / "00000.png").astype(int)
    assert abs(cell(sheet, 0, 2) - back).max() <= 3, "up to the rounding of the file between"


def test_directions(sample: Any, here: Path) -> None:
    save_photos(here / "mine", ["x.png"], (16, 16))
    results = {}
    for direction in ("a2b", "b2a", None):
        extra = [f"direction={direction}"] if direction else []
        sample("cyc_rgb", "input=mine", f"output={direction}", *extra)
        results[direction] = pixels(here / str(direction) / "x.png").tobytes()
    assert results["a2b"] == results[None] != results["b2a"]
    sample("cyc_rgb", "direction=b2a", "output=held", "num_samples=64")
    assert len(files(here / "held")) == 3 + 1, "test images of domain b"


@pytest.mark.slow
def test_num_samples_and_formats(sample: Any, here: Path) -> None:
    sample("pix", "num_samples=11", "formats=[npz]", "output=a")
    assert files(here / "a") == ["samples.npz"]
    with np.load(here / "a" / "samples.npz") as arrays:
        images = arrays["arr_0"]
    assert (images.shape, images.dtype) == ((11, SIZE, SIZE, 1), np.uint8)
    sample("pix", "num_samples=11", "formats=[png,npz]", "output=b")
    assert files(here / "b") == [*[f"{k:05d}.png" for k in range(11)], "samples.npz"]
    for k in range(11):
        assert (pixels(here / "b" / f"{k:05d}.png") == images[k, :, :, 0]).all()
    sample("pix", "num_samples=11", "formats=grid", "output=c")
    assert files(here / "c") == ["sheets/000.png", "sheets/001.png"]


@pytest.mark.slow
def test_a_moved_run_finds_its_data(sample: Any, here: Path) -> None:
    for run in ("pix", "pix_rgb"):
        sample(run, "output=before", "num_samples=4")
        (here / "other place").mkdir(exist_ok=True)
        (here / run).rename(here / "other place" / run)
        sample(f"'other place/{run}'", "output=after", "num_samples=4")
        assert files(here / "before") == files(here / "after")
        assert pixels(here / "before" / "00003.png").tobytes() == pixels(here / "after" / "00003.png").tobytes()


# A user's own images


@pytest.mark.slow
def test_a_folder_of_all_kinds(sample: Any, here: Path) -> None:
    mine = here / "mine"
    (mine / "trip" / "day 2").mkdir(parents=True)
    colour, grey = picture(), picture(1, (30, 20))
    Image.fromarray(colour).save(mine / "cat.jpg")
    Image.fromarray(colour).save(mine / "a.jpg")
    Image.fromarray(colour).save(mine / "a.png")
    Image.fromarray(picture(2, (7, 90, 3))).save(mine / "wide.v2.webp")
    Image.fromarray(np.dstack([colour, np.full((24, 40), 255, np.uint8)])).save(mine / "rgba.png")
    Image.fromarray(colour).quantize(16).save(mine / "palette.png")
    Image.fromarray(grey.astype(np.uint16) * 257).save(mine / "deep.png")
    Image.fromarray(grey).save(mine / "trip" / "grey.PNG")
    Image.fromarray(picture(3, (1, 1, 3))).save(mine / "trip" / "day 2" / "dot.bmp")
    Image.fromarray(picture(4, (200, 300, 3))).save(mine / "trip" / "day 2" / "large.tif")
    (mine / "notes.txt").write_text("not an image")
    (mine / ".hidden.png").write_bytes(b"not an image")
    results = [
        "a.jpg.png", "a.png.png", "cat.png", "deep.png", "palette.png", "rgba.png", "trip/day 2/dot.png",
        "trip/day 2/large.png", "trip/grey.png", "wide.v2.png",
    ]  # fmt: skip
    for run, mode in (("pix_rgb", "RGB"), ("cyc_rgb", "RGB"), ("pix", "L"), ("cyc", "L")):
        result = sample(run, "input=mine", f"output=out/{run}")
        assert f"{len(results)} images" in result.err
        assert files(here / "out" / run) == sorted([*results, "sheets/000.png", "sheets/001.png"])
        for name in results:
            with Image.open(here / "out" / run / name) as image:
                assert (image.size, image.mode) == ((SIZE, SIZE), mode)
    assert pixels(here / "out/cyc_rgb/a.png.png").tobytes() == pixels(here / "out/cyc_rgb/rgba.png").tobytes()
    assert pixels(here / "out/cyc/deep.png").tobytes() == pixels(here / "out/cyc/trip/grey.png").tobytes()


@pytest.mark.slow
def test_names_that_would_meet(sample: Any, here: Path) -> None:
    save_photos(here / "mine", ["a.jpg", "a.png", "a.jpg.png", "b.png"], (16, 16))
    save_photos(here / "mine" / "sheets", ["000.png"], (16, 16))
    sample("cyc_rgb", "input=mine", "output=out", "formats=[png]")
    assert len(files(here / "out")) == 5
    sample("cyc_rgb", "input=mine", "output=both")
    assert len(files(here / "both")) == 6, "the sheet did not take the place of a result"


@pytest.mark.parametrize("orientation", quick(range(1, 9), 6))
@pytest.mark.slow
def test_exif_orientation(orientation: int, sample: Any, here: Path) -> None:
    upright = Image.fromarray(picture(5, (24, 40, 3)))
    turns = {
        2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }  # fmt: skip
    stored = upright.transpose(turns[orientation]) if orientation in turns else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    (here / "mine").mkdir()
    upright.save(here / "mine" / "0.png")
    stored.save(here / "mine" / "1.png", exif=exif)
    sample("cyc_rgb", "input=mine", "output=out", "formats=[png]")
    assert pixels(here / "out" / "0.png").tobytes() == pixels(here / "out" / "1.png").tobytes()


@pytest.mark.parametrize("run", quick(["pix_rgb", "pix_eval", "cyc_rgb"], "pix_rgb"))
def test_a_result_does_not_depend_on_its_neighbours(run: str, sample: Any, here: Path) -> None:
    names = [f"{k:02d}.png" for k in range(10)]
    save_photos(here / "mine", names, (20, 20))
    sample(run, "input=mine", "output=all", "formats=[png]")
    sample(run, "input=mine/00.png", "output=alone", "formats=[png]")
    for name in names:
        (here / "mine" / name).unlink() if name > "01.png" else None
    save_photos(here / "mine", ["05.png"], (50, 30), seed=9)
    sample(run, "input=mine", "output=few", "formats=[png]")
    assert files(here / "alone") == ["00.png"]
    for other, name in (("alone", "00.png"), ("few", "00.png"), ("few", "01.png")):
        assert pixels(here / "all" / name).tobytes() == pixels(here / other / name).tobytes()


@pytest.mark.slow
def test_sample_mode(sample: Any, here: Path) -> None:
    """``paper`` draws dropout from the seed, ``eval`` draws nothing."""
    save_photos(here / "mine", ["x.png"], (20, 20))

    def result(run: str, *args: str) -> bytes:
        sample(run, "input=mine/x.png", "output=out", "formats=[png]", *args)
        return pixels(here / "out" / "x.png").tobytes()

    assert result("pix_rgb", "ema=false") != result("pix_eval")
    assert result("pix_rgb") != result("pix_rgb", "seed=1")
    assert result("pix_eval") == result("pix_eval", "seed=1")
    assert result("pix_rgb") == result("pix_rgb")
    assert result("pix_rgb") != result("pix_rgb", "ema=false"), "its average is another network"
    assert result("pix_eval") == result("pix_eval", "ema=false"), "it has no average, as in the paper"
    assert result("pix_rgb") != result("pix_rgb", "step=2")


def test_the_same_from_python(sample: Any, here: Path) -> None:
    save_photos(here / "mine", ["0.png", "1.png"], (SIZE, SIZE))
    images = torch.stack([torch.from_numpy(pixels(here / "mine" / f"{k}.png").copy()).permute(2, 0, 1) for k in range(2)])
    for run, direction in (("pix_rgb", None), ("cyc_rgb", "a2b"), ("cyc_rgb", "b2a")):
        sample(run, "input=mine", "output=out", "seed=3", *([f"direction={direction}"] if direction else []))
        loaded = load_run(here / run, device="cpu")
        assert loaded.translates
        result = loaded.translate(images / 127.5 - 1, direction, seed=3)
        assert (result.shape, result.dtype) == ((2, 3, SIZE, SIZE), torch.float32)
        expected = ((result.permute(0, 2, 3, 1).numpy() + 1) * 127.5).round().astype(np.uint8)
        for k in range(2):
            assert (pixels(here / "out" / f"{k}.png") == expected[k]).all()


def test_home_is_understood(sample: Any, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(here))
    save_photos(here / "mine", ["x.png"], (20, 20))
    sample("cyc_rgb", "input='~/mine'", "output='~/out'")
    assert files(here / "out") == ["sheets/000.png", "x.png"]


def test_a_result_may_lie_beside_its_source(sample: Any, here: Path) -> None:
    save_photos(here / "mine", ["x.jpg"], (20, 20))
    sample("cyc_rgb", "input=mine/x.jpg", "output=mine", "formats=[png]")
    assert files(here / "mine") == ["x.jpg", "x.png"]


def test_what_gan_sample_did_not_write_it_does_not_write_over(sample: Any, here: Path) -> None:
    save_photos(here / "mine", ["cat.jpg", "cat.png", "dog.png"], (20, 20))
    save_photos(here / "mine" / "sub", ["dog.jpg"], (20, 20))
    before = {name: (here / "mine" / name).read_bytes() for name in ("cat.png", "dog.png")}
    for given, name in (("mine/cat.jpg", "cat.png"), ("mine/sub", "dog.png")):
        result = sample("cyc_rgb", f"input={given}", "output=mine", code=2)
        assert result.error.where == "output" and result.error.names(name)
    assert {name: (here / "mine" / name).read_bytes() for name in before} == before


@pytest.mark.slow
def test_no_file_of_another_is_written_over(sample: Any, here: Path) -> None:
    (here / "mine" / "sheets").mkdir(parents=True)
    taken = {"cgan": ["00000.png", "grid.png", "samples.npz", "interpolation.gif"], "pix": ["samples.npz", "sheets/000.png"]}
    for run, names in taken.items():
        for name in names:
            (here / "mine" / name).write_bytes(b"mine")
            kind = {"png": "png", "npz": "npz", "gif": "gif"}[name[-3:]]
            kind = "grid" if name in ("grid.png", "sheets/000.png") else kind
            result = sample(run, "output=mine", f"formats={kind}", "num_samples=2", code=2)
            assert result.error.where == "output" and result.error.names(name)
            assert (here / "mine" / name).read_bytes() == b"mine"


@pytest.mark.slow
def test_fewer_samples_leave_none_of_an_earlier_time(sample: Any, here: Path) -> None:
    for run in ("cgan", "pix"):
        for n in (9, 3):
            sample(run, f"num_samples={n}", f"output={run}_out", "formats=[png,grid,npz]")
        numbered = [name for name in files(here / f"{run}_out") if name.startswith("0")]
        assert numbered == ["00000.png", "00001.png", "00002.png"]
    assert len(list((here / "pix_out" / "sheets").iterdir())) == 1


@pytest.mark.slow
def test_mode_of_a_pix2pix_run(sample: Any, here: Path) -> None:
    """It may be chosen when samples are drawn, and is refused where there is none."""
    for mode in ("paper", "eval", "null"):
        sample("pix", f"mode={mode}", "num_samples=3", f"output=mode_{mode}", "formats=npz")
    paper, evaluated, own = (np.load(here / f"mode_{m}" / "samples.npz")["arr_0"] for m in ("paper", "eval", "null"))
    assert (paper == own).all() and (paper != evaluated).any()
    for run in ("cyc", "cgan"):
        assert sample(run, "mode=eval", code=2).error.where == "mode"


@pytest.mark.slow
def test_again_does_not_translate_its_own_results(sample: Any, here: Path) -> None:
    save_photos(here / "mine", ["x.jpg"], (20, 20))
    for _ in range(2):
        sample("cyc_rgb", "input=mine", "output=mine/out")
    assert files(here / "mine") == ["out/sheets/000.png", "out/x.png", "x.jpg"]


@pytest.mark.slow
def test_different_requests_have_different_folders(sample: Any, here: Path) -> None:
    requests = [[], ["label=1"], ["label=2"], ["label=[1,2]"], ["ema=false"]]
    for request in requests:
        sample("cgan", "num_samples=4", *request)
    assert len(list((here / "cgan" / "generated").iterdir())) == len(requests)


@pytest.mark.slow
def test_classes_that_are_called_by_other_numbers(gan: Any, tmp_path: Path) -> None:
    for k in (1, 2, 3):
        save_photos(tmp_path / "shots" / str(k), ["a.png", "b.png", "c.png"], (16, 16))
    data = ["dataset=image_folder", "dataset.root=shots", "dataset.num_classes=3", "dataset.image_size=16"]
    assert gan("gan-train", *CDCGAN, *data, "threads=1", "total_steps=1", "run_dir=r").code == 0
    for label, number in ((3, 2), ("'1'", 0)):
        assert gan("gan-sample", "run_dir=r", f"label={label}", "num_samples=2", "formats=npz", "output=o").code == 0
        with np.load(tmp_path / "o" / "samples.npz") as file:
            assert file["labels"].tolist() == [number, number]


# Bad input to gan-sample: (what is done to the folder, run, arguments, exit code, key or file, what else the line names)


def corrupt(here: Path) -> None:
    save_photos(here / "mine", [f"{k:02d}.png" for k in range(12)], (20, 20))
    (here / "mine" / "sub").mkdir()
    good = (here / "mine" / "00.png").read_bytes()
    (here / "mine" / "sub" / "torn.png").write_bytes(good[: len(good) // 2])


def photos(here: Path) -> None:
    save_photos(here / "mine", ["00.png", "01.jpg"], (20, 20))


def text(here: Path) -> None:
    (here / "notes.txt").write_text("hello")
    (here / "notes.png").write_text("hello")
    (here / "empty").mkdir()
    (here / "texts").mkdir()
    (here / "texts" / "notes.txt").write_text("hello")


def nothing(here: Path) -> None:
    pass


def without(name: str) -> Callable[[Path], None]:
    return lambda here: shutil.rmtree(here / name)


Harm = Callable[[Path], None]
REFUSED: dict[str, tuple[Harm, str, list[str], int, str, list[object]]] = {
    "no such input": (nothing, "pix_rgb", ["input=no/such"], 66, "no/such", ["input="]),
    "input, noise": (corrupt, "noise", ["input=mine"], 2, "input", ["pix2pix"]),
    "empty folder": (text, "pix", ["input=empty"], 65, "empty", ["input="]),
    "label, too large": (nothing, "cgan", ["label=10"], 2, "label", ["10 ", "0 to 9"]),
    "folder of texts": (text, "cyc", ["input=texts"], 65, "texts", ["input="]),
    "text file": (text, "pix", ["input=notes.txt"], 65, "notes.txt", []),
    "data is gone": (without("pairs"), "pix_rgb", [], 66, "pairs", ["input="]),
    "text called png": (text, "cyc", ["input=notes.png"], 65, "notes.png", []),
    "corrupt file": (corrupt, "pix_rgb", ["input=mine"], 65, "mine/sub/torn.png", []),
    "one way": (nothing, "pix_rgb", ["direction=a2b"], 2, "direction", []),
    "label, negative": (nothing, "cgan", ["label=[3,-1]"], 2, "label", ["-1 "]),
    "sideways": (nothing, "cyc", ["direction=sideways"], 2, "direction", ["'sideways'", "a2b, b2a"]),
    "label, pix2pix": (nothing, "pix", ["label=7"], 2, "label", []),
    "label, cyclegan": (nothing, "cyc", ["label=[1]"], 2, "label", []),
    "direction, noise": (nothing, "noise", ["direction=a2b"], 2, "direction", []),
    "label, noise": (nothing, "noise", ["label=7"], 2, "label", ["label=7", "model=cgan"]),
    "label, broken": (nothing, "cgan", ["label=1.5"], 2, "label", ["1.5 "]),
    "label, truth": (nothing, "cgan", ["label=true"], 2, "label", ["True "]),
    "label, unknown name": (nothing, "cdcgan", ["label=seven"], 2, "label", ["'seven'", "0 to 9"]),
    "label, none": (nothing, "cdcgan", ["label=[]"], 2, "label", []),
    "label, nested": (nothing, "cdcgan", ["label=[[1]]"], 2, "label", ["[1]"]),
    "gif, pix2pix": (nothing, "pix_rgb", ["formats=[gif]"], 2, "formats", ["gif"]),
    "gif, cyclegan": (nothing, "cyc", ["formats=[png,gif]"], 2, "formats", ["gif"]),
    "mode, cyclegan": (nothing, "cyc", ["mode=eval"], 2, "mode", []),
    "truncation": (nothing, "pix", ["truncation=0.5"], 2, "truncation=0.5", []),
    "a domain is gone": (without("domains/trainB"), "cyc_rgb", [], 66, "domains", ["input="]),
    "output is a file": (text, "pix_rgb", ["output=notes.txt", "num_samples=3"], 73, "notes.txt", []),
    "output is the input": (corrupt, "cyc", ["input=mine/00.png", "output=mine"], 2, "output", ["00.png"]),
    "output is the input folder": (photos, "cyc_rgb", ["input=mine", "output=mine/../mine"], 2, "output", ["00.png"]),
}  # fmt: skip
QUICK_REFUSED = ["no such input", "label, too large", "data is gone", "corrupt file", "one way", "gif, pix2pix"]
QUICK_REFUSED += ["output is a file", "output is the input folder"]


@pytest.mark.parametrize(("harm", "run", "args", "code", "where", "names"), quick(REFUSED, *QUICK_REFUSED))
def test_refused(
    harm: Harm, run: str, args: list[str], code: int, where: str, names: list[object], gan: Any, here: Path, copy_run: Any
) -> None:
    copy_run(run)
    harm(here)
    before = {path: path.stat().st_mtime_ns for path in here.rglob("*") if path.is_file()}
    result = gan("gan-sample", f"run_dir={run}", "threads=1", *args)
    assert result.code == code, result
    assert result.error.where.endswith(where) and result.error.names(*names), result.err
    assert result.err.splitlines() == result.errors and result.out == ""
    assert {path: path.stat().st_mtime_ns for path in here.rglob("*") if path.is_file()} == before
    assert not (here / run / "generated").exists()


# Data that does not fit the model


def data_for_training(root: Path) -> None:
    fill(root)
    save_photos(root / "names" / "trainA", ["1.png", "2.png"], (16, 16))
    save_photos(root / "names" / "trainB", ["1.png", "3.png"], (16, 16))
    save_photos(root / "counts" / "trainA", ["1.png", "2.png", "3.png"], (16, 16))
    save_photos(root / "counts" / "trainB", ["1.png", "2.png"], (16, 16))
    shutil.copytree(root / "pairs", root / "torn")
    content = (root / "torn" / "train" / "3.png").read_bytes()
    (root / "torn" / "train" / "3.png").write_bytes(content[: len(content) // 2])
    shutil.copytree(root / "names" / "trainA", root / "lonely" / "trainA")
    save_photos(root / "squares" / "train", ["1.png", "2.png"], (16, 16))
    (root / "void" / "train").mkdir(parents=True)


# (arguments, exit code, key or file, what else the line names)
PAIRS, DOMAINS = [*PIX2PIX, "dataset=paired"], [*CYCLEGAN, "dataset=unpaired"]
MISFITS: dict[str, tuple[list[str], int, str, list[object]]] = {
    "unpaired folders": (
        [*PAIRS, "dataset.root=domains"], 65, "domains", ["trainA", 6, "trainB", 5, "model=cyclegan"],
    ),
    "names that differ": ([*PAIRS, "dataset.root=names"], 65, "names", ["trainA/2.png", 2]),
    "counts that differ": ([*PAIRS, "dataset.root=counts"], 65, "counts", ["trainA", 3, "trainB", 2, "trainA/3.png"]),
    "squares": ([*PAIRS, "dataset.root=squares"], 65, "squares", ["2 of 2", "train/1.png", "16x16"]),
    "no folder": ([*PAIRS, "dataset.root=no"], 66, "no", ["'train'"]),
    "no images": ([*PAIRS, "dataset.root=void"], 65, "void/train", []),
    "corrupt": ([*PAIRS, "dataset.root=torn"], 65, "torn", ["1 of 6", "train/3.png"]),
    "load_size": (
        [*PAIRS, "dataset.root=pairs", "dataset.image_size=32", "dataset.load_size=30"], 2, "dataset.load_size",
        ["load_size=30", "image_size=32"],
    ),
    "pix2pix on single images": ([*PIX2PIX, "dataset=digits"], 2, "", ["digits_paired"]),
    "pix2pix on two domains": ([*PIX2PIX, "dataset=digits_unpaired"], 2, "", ["digits_paired"]),
    "dcgan on pairs": ([*RUNS["noise"][1:], "dataset=digits_paired"], 2, "model and dataset", ["digits, image_folder"]),
    "cyclegan on pairs": ([*CYCLEGAN, "dataset=digits_paired"], 2, "", ["digits_unpaired"]),
    "cyclegan on single images": ([*CYCLEGAN, "dataset=digits"], 2, "", ["digits_unpaired"]),
    "cgan on pairs": ([*CGAN, "dataset=digits_paired"], 2, "dataset.num_classes", []),
    "cdcgan without labels": (
        [*CDCGAN, "dataset=image_folder", "dataset.root=pairs/train"], 2, "dataset.num_classes", [],
    ),
    "one domain": ([*DOMAINS, "dataset.root=lonely"], 66, "lonely", ["'train'", "trainB/"]),
    "held out": ([*DOMAINS, "dataset.root=domains", "dataset.held_out=val"], 66, "domains", ["'val'", "dataset.held_out"]),
    "direction": (
        [*PAIRS, "dataset.root=pairs", "dataset.direction=a2c"], 2, "dataset.direction", ["'a2c'", "a2b, b2a"],
    ),
    "U-Net size": ([*PIX2PIX, "dataset.image_size=48"], 2, "dataset.image_size", [48]),
    "ResNet size": ([*CYCLEGAN, "dataset.image_size=30"], 2, "dataset.image_size", [30, 4]),
    "batch": ([*DOMAINS, "dataset.root=domains", "batch_size=6"], 2, "", ["batch_size=6", "'b'", 5]),
}  # fmt: skip


QUICK_MISFITS = [
    "unpaired folders",
    "squares",
    "corrupt",
    "one domain",
    "pix2pix on two domains",
    "cgan on pairs",
    "U-Net size",
]


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    shelf = tmp_path_factory.mktemp("shelf")
    data_for_training(shelf)
    return shelf


@pytest.mark.parametrize(("args", "code", "where", "names"), quick(MISFITS, *QUICK_MISFITS))
def test_data_that_does_not_fit(
    args: list[str], code: int, where: str, names: list[object], gan: Any, shelf: Path, tmp_path: Path
) -> None:
    args = [arg.replace("dataset.root=", f"dataset.root={shelf}/") for arg in args]
    result = gan("gan-train", "threads=1", "total_steps=1", *args)
    assert result.code == code, result
    assert result.error.where.endswith(where) and result.error.names(*names), result.err
    assert len(result.errors) == 1 and result.out == "" and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["pairs", "domains"])
@pytest.mark.slow
def test_grey_images_among_colours_are_used_and_logged(kind: str, train: Any, tmp_path: Path) -> None:
    fill(tmp_path)
    grey = {"pairs": ["train/2.png"], "domains": ["trainA/A1.jpg", "trainA/A3.jpg"]}[kind]
    for name in grey:
        with Image.open(tmp_path / kind / name) as image:
            image.convert("L").save(tmp_path / kind / name)
    model, dataset = (PIX2PIX, "paired") if kind == "pairs" else (CYCLEGAN, "unpaired")
    args = [*ONE, *model, f"dataset={dataset}", f"dataset.root={kind}", "dataset.load_size=18"]
    result = train(*args, "run_dir=r", tiny="own")
    (line,) = (line for line in result.err.splitlines() if "grey" in line)
    assert f"{len(grey)} of 6" in line and ", ".join(grey) in line


# Classes


def labels_of(folder: Path) -> list[int]:
    with np.load(folder / "samples.npz") as arrays:
        assert len(arrays["arr_0"]) == len(arrays["labels"])
        assert arrays["labels"].dtype == np.int64
        return list(arrays["labels"].tolist())


@pytest.mark.parametrize("run", ["cgan", "cdcgan"])
@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["label=[2,0]", "num_samples=5"], [2, 2, 0, 0, 2]),
        (["label='7'", "num_samples=1"], [7]),
        (["num_samples=13"], [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1, 2]),
    ],
)
@pytest.mark.slow
def test_chosen_classes(run: str, args: list[str], expected: list[int], sample: Any, here: Path) -> None:
    sample(run, *args, "formats=[npz]", "output=out")
    assert labels_of(here / "out") == expected


@pytest.mark.parametrize(
    ("label", "n", "expected"),
    [
        (7, 5, [7] * 5),
        ([0, 1, 2], 6, [0, 0, 1, 1, 2, 2]),
        ([2, 0], 5, [2, 2, 0, 0, 2]),
        ([5, 6, 7], 2, [5, 6]),
        ("7", 1, [7]),
        (None, 20, [k // 2 for k in range(20)]),
        (None, 4, [0, 1, 2, 3]),
        (None, 13, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1, 2]),
    ],
)
def test_labels_of_chosen_classes(label: Any, n: int, expected: list[int], trained_run: Callable[[str], Path]) -> None:
    run = load_run(trained_run("cgan") / "cgan", device="cpu")
    source = Source(run, 0, 64, chosen_classes(label, run.task.num_classes, run.class_names), {})
    samples, labels = source.draw(n)
    assert labels is not None and labels.tolist() == expected and len(samples) == n


@pytest.mark.parametrize("run", quick(["cgan", "cdcgan"], "cgan"))
def test_a_row_per_class_by_default(run: str, sample: Any, here: Path) -> None:
    sample(run, "output=out", "formats=[grid,npz]")
    assert labels_of(here / "out")[:13] == [0] * 6 + [1] * 6 + [2]
    grid = pixels(here / "out" / "grid.png")
    factor = grid.shape[1] // (6 * (SIZE + 2) + 2)
    assert grid.shape[:2] == (factor * (10 * (SIZE + 2) + 2), factor * (6 * (SIZE + 2) + 2))
    with np.load(here / "out" / "samples.npz") as arrays:
        images = arrays["arr_0"]
    small = grid[::factor, ::factor]
    for row in range(10):
        y, x = 2 + row * (SIZE + 2), 2 + 5 * (SIZE + 2)
        assert (small[y : y + SIZE, x : x + SIZE] == images[6 * row + 5, :, :, 0]).all()
    sample(run, "output=three", "label=[3,1,4]", "num_samples=12")
    shape = pixels(here / "three" / "grid.png").shape
    assert shape[0] * (4 * (SIZE + 2) + 2) == shape[1] * (3 * (SIZE + 2) + 2), "three rows of four"
    sample(run, "output=single", "label=3", "num_samples=9")
    assert len(set(pixels(here / "single" / "grid.png").shape)) == 1, "one class: a square"


@pytest.mark.slow
def test_the_label_reaches_the_generator(sample: Any, here: Path) -> None:
    for run in ("cgan", "cdcgan"):
        results = []
        for label in (3, 8):
            sample(run, f"label={label}", "num_samples=2", "formats=[npz,png,gif]", "output=out")
            with np.load(here / "out" / "samples.npz") as arrays:
                results.append(arrays["arr_0"])
            assert files(here / "out") == ["00000.png", "00001.png", "interpolation.gif", "samples.npz"]
        assert (results[0] != results[1]).any(), "the same noise under another label"


CLOTHES = ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"]


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        ("Sneaker", [7]),
        ("sneaker", [7]),
        ("Ankle boot", [9]),
        ("ankle boot", [9]),
        (["Bag", "ankle BOOT", 0], [8, 9, 0]),
        ("T-shirt/top", [0]),
    ],
)
def test_classes_by_name(label: Any, expected: list[int]) -> None:
    assert chosen_classes(label, 10, CLOTHES) == expected


@pytest.mark.parametrize("label", ["Sneeker", 10, -1, 1.5, True, [], [[1]]])
def test_a_class_that_is_not_there(label: Any) -> None:
    with pytest.raises(ConfigError) as raised:
        chosen_classes(label, 10, CLOTHES)
    assert raised.value.where == "label" and (label == [] or "Ankle boot" in raised.value.todo)
    assert ("Sneaker?" in raised.value.todo) == (label == "Sneeker")


@pytest.mark.slow
def test_classes_of_a_data_set_have_its_names(gan: Any, data_root: Path, tmp_path: Path) -> None:
    train_tiny(tmp_path, *ONE, *CDCGAN, "dataset=fashion_mnist", f"dataset.root={data_root}", "run_dir=run", tiny="own")
    args = ["label=[Bag,'ankle BOOT',0]", "num_samples=3", "formats=[npz]", "output=out", "threads=1"]
    result = gan("gan-sample", "run_dir=run", *args)
    assert result.code == 0, result.err
    assert labels_of(tmp_path / "out") == [8, 9, 0]
    result = gan("gan-sample", "run_dir=run", "label=Sneeker")
    assert result.code == 2 and result.error.where == "label" and result.error.names("'Sneeker'", "Sneaker?", "Ankle boot")
