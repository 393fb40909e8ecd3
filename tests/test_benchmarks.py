"""The plain loops of benchmarks/ compute what gan_cli computes, so that their times can be compared; and the benchmark runs."""

from __future__ import annotations

import argparse
import json
import multiprocessing.forkserver
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.utils.flop_counter

FOLDER = Path(__file__).parents[1] / "benchmarks"
sys.path.insert(0, str(FOLDER))

import cases  # type: ignore[import-not-found]  # noqa: E402
import measure  # type: ignore[import-not-found]  # noqa: E402
import plain  # type: ignore[import-not-found]  # noqa: E402
import speed  # type: ignore[import-not-found]  # noqa: E402

from gan_cli.randomness import seed_everything  # noqa: E402
from gan_cli.training.build import build_game  # noqa: E402
from gan_cli.training.loop import train  # noqa: E402

from .conftest import every  # type: ignore[import-not-found]  # noqa: E402

STEPS = 3
NARROW = ["model.generator.width=4", "model.discriminator.width=4"]
SMALL = ["model.generator.hidden=[16]", "model.discriminator.hidden=[16]"]
AS_TUTORIALS = ["model.task.prior=normal", "model.task.same_noise=true"]  # one noise for both turns
# Settings that make a case small and give it the noise of the plain loop.
TINY = {
    "mlp": SMALL,
    "wgan": [*SMALL, *AS_TUTORIALS, "loss.n_critic=1"],
    "wgan_gp": [*NARROW, "model.task.prior=normal", "loss.n_critic=2", "dataset.image_size=16"],
    "dcgan64": [*NARROW, *AS_TUTORIALS, "dataset.image_size=16"],
    "cdcgan": [*NARROW, *AS_TUTORIALS, "dataset.image_size=16"],
    "pix2pix256": [
        *[*NARROW, "model.generator.dropout=0", "model.discriminator.layers=1"],  # dropout masks depend on the memory format
        *["dataset.image_size=16", "dataset.load_size=18"],
    ],
    "cyclegan128": [
        *["model.generator.a2b.width=4", "model.generator.a2b.blocks=1", "model.discriminator.a.width=4"],
        *["model.discriminator.a.layers=1", "dataset.image_size=16", "dataset.load_size=18"],
    ],
}
ALWAYS = ["device=cpu", "threads=1", "precision=fp32", "batch_size=4", "compile=false"]


@pytest.fixture(scope="module")
def data(data_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder like that of the benchmark."""
    folder = tmp_path_factory.mktemp("bench")
    for name, source in (("pairs", "facades"), ("domains", "horse2zebra"), ("photos", "photos")):
        (folder / name).symlink_to(data_root / source)
    for name in ("MNIST", "FashionMNIST"):
        (folder / name).symlink_to(data_root / name)
    return folder


def ours(config: Any) -> list[tuple[float, float]]:
    """Losses of D and G in each step of gan_cli."""
    game, found = build_game(config, None), []

    def after_step(logs: dict[str, torch.Tensor]) -> bool:
        found.append((float(logs["d/loss"]), float(logs["g/loss"])))
        return True

    train(
        game, total_steps=STEPS, seed=config.seed, after_step=after_step,
    )  # fmt: skip
    return found


def theirs(case: Any, config: Any) -> list[tuple[float, float]]:
    """Losses of the plain loop, with the same weights, batches and noise."""
    game = build_game(config, None)

    def as_loaded() -> Any:
        for batch in game.batches:
            if "label" in batch:
                yield (batch["image"], batch["label"])
            elif "image" in batch:
                yield (batch["image"], None)
            else:
                first, second = list(batch.values())
                yield {"A": first, "B": second}

    batches = as_loaded()
    if case.loop is plain.wgan_gp:
        batches = (image.numpy() for image, _ in batches)
    more = {"n_critic": config.loss["n_critic"]} if case.loop in (plain.wgan, plain.wgan_gp) else {}
    steps, found = case.loop(cases.plain_players(config), batches, **more), []
    for step in range(STEPS):
        seed_everything(config.seed, "step", step)
        losses = next(steps)
        found.append((float(losses["d"]), float(losses["g"])))
    return found


@pytest.mark.parametrize("name", every(3, speed.MODELS))
def test_a_plain_loop_has_the_losses_of_ours(name: str, data: Path) -> None:
    case = cases.CASES[name]
    schedule = ["schedule=constant"]
    config = cases.composed(case, data, *TINY[name], *ALWAYS, *schedule)
    mine, other = ours(config), theirs(case, config)
    assert len(set(mine)) == STEPS
    for step, (a, b) in enumerate(zip(mine, other, strict=True)):
        assert a == pytest.approx(b, rel=2e-4, abs=2e-5), step


def test_every_case_is_tested() -> None:
    assert list(TINY) == speed.MODELS and set(cases.CASES) == {*speed.MODELS, "mlp_mnist", "dcgan_mnist"}


def count(config: Any) -> int:
    """FLOPs of the second step of gan_cli, as the benchmark counts them."""
    game = build_game(config, None)
    products = measure.Products()

    def after_step(logs: dict[str, torch.Tensor]) -> bool:
        if game.progress.step == 1:
            products.__enter__()
        return game.progress.step < 2

    train(
        game, total_steps=3, seed=0, after_step=after_step,
    )  # fmt: skip
    products.__exit__(None, None, None)
    return int(products.flops)


def test_flops_of_the_mlp_gan_by_hand(data: Path) -> None:
    batch = 40
    config = cases.composed(cases.CASES["mlp"], data, *ALWAYS, f"batch_size={batch}")
    g_first, g = 64 * 256, 64 * 256 + 256 * 256 + 256 * 784  # multiplications for a sample
    d_first, d = 784 * 256, 784 * 256 + 256 * 256 + 256
    d_turn = g + 2 * (d + d + d - d_first)  # G; D forward, its weights, its inputs but the first, for real and generated
    g_turn = d + d + g + (g - g_first)  # D forward, its inputs, G's weights, its inputs but the first: G(z) is that of D's turn
    assert count(config) == 2 * batch * (d_turn + g_turn)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("aten::mm", "products"),
        ("aten::convolution_backward", "products"),
        ("aten::clamp_min_", "elementwise and norms"),
        ("aten::clamp_", "optimizer, average, clipping"),
        ("aten::index_select", "data and copies"),
        ("autograd::engine", None),
    ],
)
def test_kinds_of_operations(name: str, kind: str | None) -> None:
    assert measure.kind_of(SimpleNamespace(name=name, cpu_parent=None)) == kind


def test_flops_of_a_gradient_penalty_are_counted(data: Path) -> None:
    critic = ["loss.n_critic=1", *TINY["wgan_gp"][:3], "dataset.image_size=16", "batch_size=4"]
    with_penalty = count(cases.composed(cases.CASES["wgan_gp"], data, *ALWAYS, *critic))
    without = count(cases.composed(cases.CASES["wgan_gp"], data, *ALWAYS, *critic, "loss.penalty=null"))
    game = build_game(cases.composed(cases.CASES["wgan_gp"], data, *ALWAYS, *critic), None)
    image = torch.zeros(4, 1, 16, 16)
    with measure.Products() as forward, torch.no_grad():
        game.task.discriminator(image)
    with measure.Products() as backward:
        game.task.discriminator(image.requires_grad_()).sum().backward()
    once, twice = forward.flops, backward.flops
    assert with_penalty - without >= twice + once  # forward, gradient for the images, and backward through both


def test_products_are_noted_and_done_again() -> None:
    images = torch.randn(2, 3, 8, 8).to(memory_format=torch.channels_last)
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(144, 1))
    with torch.utils.flop_counter.FlopCounterMode(display=False) as counter, measure.Products() as products:
        network(images).mean().backward()
    assert products.flops == counter.get_total_flops() > 0
    names = sorted(str(func.overloadpacket) for func, *_ in products.calls)
    assert names == ["aten.addmm", "aten.convolution", "aten.convolution_backward", "aten.mm", "aten.mm"]
    assert products.calls[0][1][0].stride == images.stride()
    assert 0 < products.again(2) < 1


def test_profile_takes_every_operation_for_one_kind() -> None:
    weight = torch.nn.Parameter(torch.randn(64, 64))
    optimizer = torch.optim.RMSprop([weight])
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
        loss = (torch.randn(64, 64) @ weight).relu().sum()
        loss.backward()
        optimizer.step()
    found = measure.profiled(profiler.events(), 1.0, cuda=False)
    assert set(found["kinds"]) == set(measure.KINDS) and sum(found["kinds"].values()) == pytest.approx(1.0)
    assert all(found["kinds"][kind] > 0 for kind in ("products", "elementwise and norms", "optimizer, average, clipping"))


@pytest.mark.slow
def test_bench_writes_the_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    markers = "".join(f"<!-- {name} -->\nold\n<!-- /{name} -->\n" for name in ("machine", "models", "use"))
    (tmp_path / "speed.md").write_text(f"# Speed\n{markers}end\n")
    command = ["speed.py", "--models", "mlp", "--quick", "--device", "cpu", "--threads", "1"]
    command += ["--data", str(tmp_path), "--write-docs", "--docs", str(tmp_path), "--save", str(tmp_path / "all.json")]
    monkeypatch.setattr(sys, "argv", command)
    try:
        speed.main()
    finally:
        multiprocessing.forkserver._forkserver._stop()  # type: ignore[attr-defined]
    page, found = (tmp_path / "speed.md").read_text(), json.loads((tmp_path / "all.json").read_text())
    assert "old" not in page and page.endswith("end\n") and "| MLP GAN, Fashion-MNIST (made images) | plain |" in page
    ways = found["models"]["mlp"]["ways"]
    assert {"plain", speed.FP32, speed.DEFAULT} <= set(ways)
    assert all(way["memory"] > 1e8 and min(way["seconds"]) > 0 for way in ways.values())
    assert all(way["bare"] > 0 and way["flops"] > 1e8 for name, way in ways.items() if name != "plain")
    assert (tmp_path / "speed.png").stat().st_size > 10_000


def test_tables_and_curves_of_all_kinds(tmp_path: Path) -> None:
    way = {"seconds": [0.1, 0.2], "cpu": [0.1, 0.2], "waited": [0.01, 0.02], "memory": 10**9, "precision": "fp32"}
    fast = {**way, "seconds": [0.05, 0.05], "flops": 10**9, "bare": 0.04, "beside": 0.1}
    model = {"title": "A, B", "data": "made", "images": 64, "every": 1000, "ways": {"plain": way, speed.DEFAULT: fast}}
    points = [{"value": n, "images": n, "ways": model["ways"]} for n in (16, 64)]
    results = {"models": {"a": model}, "growth": {"a batch": {"title": "A", "what": "batch", "points": points}}}
    texts = speed.tables(results, {"fp32": 4e10, "bf16": 8e10}, "a machine")
    assert "| A | batch | 16 | 107 | 320 | 3.00 (2.00-4.00) |" in texts["growth"]
    assert (
        "| A, B | plain" not in texts["models"]
        and "| A, B (made images) | plain | 427 | 150 | 1 | 10.0% | 1,000 |" in texts["models"]
    )
    assert "1 | 50% | 80% | 62% | 0.2% |" in texts["use"]
    speed.draw(results, tmp_path / "speed.png")
    (tmp_path / "page.md").write_text("nothing")
    with pytest.raises(SystemExit, match="models"):
        speed.write_between(tmp_path / "page.md", texts | {"machine": ""} and {"models": "x"})


def test_a_set_smaller_than_a_batch_is_an_error() -> None:
    with pytest.raises(ValueError, match="smaller than a batch"):
        next(measure.Watch(None, False).loader([]))


def test_no_such_model() -> None:
    assert speed.models("mlp,dcgan64") == ["mlp", "dcgan64"]
    with pytest.raises(argparse.ArgumentTypeError, match="nope"):
        speed.models("mlp,nope")
