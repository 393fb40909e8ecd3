"""compile=true: the same numbers, a stop and a resume bit for bit, and eager steps where compiling does not work."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from gan_cli.objective import Turn
from gan_cli.training import compiling
from gan_cli.training.compiling import choose_compile, disagreement

from .conftest import quick  # type: ignore[import-not-found]
from .test_presets import PRESETS, run_twice, tiny  # type: ignore[import-not-found]

SOAK = "GAN_CLI_SOAK" in os.environ  # every preset with the real backend: a C++ compiler needs up to a minute for each
KINDS = [
    "gan_fashion_mnist",
    "wgan_cifar10",
    "wgan_gp_mnist",
    "cgan_mnist",
    "cdcgan_mnist",
    "pix2pix_facades",
    "cyclegan_facades",
]
STEPS = 4
CLOSE = 1e-4  # relative, of all weights of a network together


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The functions are traced and differentiated as always, but run by PyTorch's own kernels: seconds instead of a minute.

    Gives for each game that was compiled how many functions there were after the trial, and after all those how many now.
    """
    from torch._dynamo.backends.debugging import aot_eager

    counts = [0]
    compile_game = compiling.compile_game

    def counting(*args: Any, **keywords: Any) -> Any:
        counts[-1] += 1
        return aot_eager(*args, **keywords)

    def watched(*args: Any, **keywords: Any) -> Any:
        result = compile_game(*args, **keywords)
        counts.append(counts[-1])
        return result

    if not SOAK:
        monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=counting))
        monkeypatch.setattr(torch.nn.Module, "compile", functools.partialmethod(torch.nn.Module.compile, backend=counting))
        monkeypatch.setattr("gan_cli.training.build.compile_game", watched)
    yield counts
    torch._dynamo.reset()


def distance(a: dict[str, Any], b: dict[str, Any], group: str) -> float:
    first, second = (
        np.concatenate([v.ravel().astype(np.float64) for k, v in sorted(x.items()) if k.startswith(f"{group}.")])
        for x in (a, b)
    )
    return float(np.linalg.norm(first - second) / np.linalg.norm(first))


@pytest.mark.parametrize("name", PRESETS if SOAK else quick(KINDS, "wgan_gp_mnist"))
def test_the_same_training(name: str, data_root: Path, train: Any, read: Any, tmp_path: Path, traced: list[int]) -> None:
    """Nothing is compiled after the trial, or a step would wait for a minute, for a function that was not checked."""
    if SOAK and name.startswith("cyclegan"):
        pytest.xfail("the C++ compiler's gradient of G differs, which the check before the first step finds; why is not known")
    args = [f"experiment={name}", *tiny(name, data_root), f"total_steps={STEPS}", f"log_every={STEPS}"]
    assert "compile: no (as set)" in train(*args, "compile=false", "run_dir=plain", tiny="own").err
    assert "compile: yes (as set)" in train(*args, "compile=true", "run_dir=compiled", tiny="own").err
    assert SOAK or traced == ([3, 3] if name == "pix2pix_facades" else [2, 2])
    plain, compiled = read.tensors(tmp_path / "plain"), read.tensors(tmp_path / "compiled")
    assert plain.keys() == compiled.keys()
    for group in ("generator", "discriminator", "generator_ema"):
        assert distance(plain, compiled, group) < CLOSE
    (row,), (other,) = read.rows(tmp_path / "plain"), read.rows(tmp_path / "compiled")
    assert row.keys() == other.keys()
    assert other["d/loss"] == pytest.approx(row["d/loss"], rel=1e-3) and other["g/loss"] == pytest.approx(
        row["g/loss"], rel=1e-3
    )


@pytest.mark.slow
@pytest.mark.usefixtures("traced")
@pytest.mark.parametrize("name", ["gan_fashion_mnist", *(["cyclegan_facades"] if SOAK else [])])
def test_goes_on_as_if_never_stopped(
    name: str, data_root: Path, stop_at: Any, monkeypatch: pytest.MonkeyPatch, read: Any, tmp_path: Path
) -> None:
    patched = torch.compile, torch.nn.Module.compile
    args = [f"experiment={name}", *tiny(name, data_root), "compile=true", "total_steps=6", "save_every=3", "log_every=4"]

    def undo() -> None:
        monkeypatch.undo()
        monkeypatch.setattr(torch, "compile", patched[0])
        monkeypatch.setattr(torch.nn.Module, "compile", patched[1])

    runs = run_twice(tmp_path, stop_at, undo, *args, stop=3)
    read.assert_same(runs.whole, runs.hops)


@pytest.mark.skipif(not SOAK, reason="a minute of C++; GAN_CLI_SOAK=1 runs it")
def test_goes_on_compiled_by_inductor(data_root: Path, stop_at: Any, monkeypatch: Any, read: Any, tmp_path: Path) -> None:
    args = [
        "experiment=gan_fashion_mnist",
        *tiny("gan_fashion_mnist", data_root),
        "compile=true",
        "total_steps=6",
        "save_every=3",
    ]
    runs = run_twice(tmp_path, stop_at, monkeypatch.undo, *args, stop=3)
    read.assert_same(runs.whole, runs.hops)


def break_compile(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*args: object, **keywords: object) -> None:
        raise RuntimeError("No working C++ compiler\nand a long story")

    monkeypatch.setattr(torch, "compile", fails)


def test_no_compiler(train: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    break_compile(monkeypatch)
    error = train("compile=true", "total_steps=1", "run_dir=run", code=2).error
    assert error.where == "compile=true" and error.what.endswith("RuntimeError: No working C++ compiler")
    assert not (tmp_path / "run").exists()


def test_auto_goes_on_without_a_compiler(train: Any, read: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    train("total_steps=1", "run_dir=plain")
    break_compile(monkeypatch)
    monkeypatch.setattr(compiling, "choose_compile", lambda *_, **__: (True, "tried"))
    monkeypatch.setattr("gan_cli.training.build.choose_compile", compiling.choose_compile)
    result = train("total_steps=1", "run_dir=run")
    assert any("compile: no (" in line and "No working C++ compiler" in line for line in result.err.splitlines())
    read.assert_same_weights(tmp_path / "plain", tmp_path / "run")


def test_a_wrong_result_is_not_used(train: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As a compiler that loses a term would give."""

    def wrong(function: Any, **keywords: object) -> Any:
        def run(*args: Any) -> Any:
            found = function(*args)
            for parameter in function.__self__.network.parameters():
                parameter.grad.mul_(1.1)
            return found

        return run

    monkeypatch.setattr(torch, "compile", wrong)
    assert train("compile=true", "total_steps=1", "run_dir=run", code=2).error.names(" D ", "10.0%")


@pytest.mark.slow
def test_the_trial_leaves_no_trace(train: Any, read: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Batch norm and image pools change in a forward pass."""
    monkeypatch.setattr(torch, "compile", lambda function, **keywords: function)
    for chosen in ("true", "false"):
        train("total_steps=2", f"compile={chosen}", f"run_dir=compile-{chosen}")
    read.assert_same_weights(tmp_path / "compile-true", tmp_path / "compile-false")


@pytest.mark.parametrize(
    ("wanted", "device", "began", "chosen", "reason"),
    [
        (True, "cpu", None, True, "as set"),
        (False, "cuda", None, False, "as set"),
        ("auto", "cpu", None, False, "gains little on a cpu"),
        ("auto", "mps", None, False, "gains little on a mps"),
        ("auto", "cuda", None, True, "faster on a GPU"),
        ("auto", "cpu", True, True, "as the run began"),
        ("auto", "cuda", False, False, "as the run began"),
    ],
)
def test_auto(wanted: Any, device: str, began: Any, chosen: bool, reason: str) -> None:
    saved: Any = None if began is None else SimpleNamespace(info={"machine": {"device": device, "compiled": began}})
    found, why = choose_compile(wanted, torch.device(device), saved)
    assert found is chosen and why.startswith(reason)


def test_auto_does_not_compile_for_several_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiling.processes, "world", lambda: 2)
    saved: Any = SimpleNamespace(info={"machine": {"device": "cpu", "compiled": True}})
    assert choose_compile("auto", torch.device("cpu"), saved) == (False, "several processes; compile=true tries it")


def test_results_of_a_replayed_graph_are_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    loss, value, begun = torch.tensor(1.0), torch.tensor(2.0), []
    monkeypatch.setattr(torch.compiler, "cudagraph_mark_step_begin", lambda: begun.append(True))
    for first in (True, False):
        replayed = compiling._replayed(lambda *_: (loss, {"key": value}, {"fake": value}), first=first)
        kept, logs, made = replayed({}, None, Turn())
        assert made is not None
        loss.fill_(5)
        value.fill_(5)
        assert (float(kept), float(logs["key"]), float(made["fake"])) == (1, 2, 2)
        loss.fill_(1)
        value.fill_(2)
    assert begun == [True]


def test_disagreement() -> None:
    players: Any = [SimpleNamespace(name="d", precision=torch.float32), SimpleNamespace(name="g", precision=torch.bfloat16)]
    gradient = torch.tensor([3.0, 4.0])
    plain = [(torch.tensor(1.0), gradient)] * 2
    assert disagreement(plain, plain, players) is None
    assert disagreement(plain, [plain[0], (torch.tensor(1.05), gradient * 1.05)], players) is None, "bf16"
    for wrong in [
        (torch.tensor(1.05), gradient),
        (torch.tensor(1.0), gradient * 1.05),
        (torch.tensor(1.0), gradient * torch.nan),
    ]:
        assert "gradient of D differs" in str(disagreement(plain, [wrong, plain[1]], players))
