"""A comparison in TensorBoard: a run for each group, bands, pictures side by side, one HParams session for each run."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gan_cli.comparing import board, charts
from gan_cli.comparing.records import Column, Comparison, EvaluationRecord, Group, RunRecord, Summary
from gan_cli.system import signals
from gan_cli.system.errors import OutputError

from .test_hparams import ask, metrics  # type: ignore[import-not-found]  # noqa: F401


def run(home: Path, loss: str, seed: int, scale: float) -> RunRecord:
    path = home / f"loss={loss},seed={seed}"
    (path / "samples").mkdir(parents=True)
    pictures = {}
    for step in (10, 20):
        pictures[step] = path / "samples" / f"step-{step:08d}.png"
        Image.fromarray(np.full((32, 48), step * 10, np.uint8)).save(pictures[step])
    rows = [{"step": s, "images": 8 * s, "d/loss": scale * s + seed, "g/loss": 1.0, "time/elapsed": 1.0} for s in (10, 20)]
    evaluations = [EvaluationRecord(20, 160, {"fid": 10 * scale + seed}, "abc", {})]
    config = {"seed": seed, "loss": loss}
    return RunRecord(path, config, "complete", "", 20, 20, 160, rows, evaluations, pictures, 1.0)


@pytest.fixture
def comparison(tmp_path: Path) -> Comparison:
    groups = []
    for loss, scale in (("hinge", 1.0), ("wgan_gp", 2.0)):
        runs = [run(tmp_path / "sweep", loss, seed, scale) for seed in (0, 1)]
        values = {str(r.path): r.evaluations[0].metrics["fid"] for r in runs}
        group = Group(f"loss={loss}", {"loss": loss}, runs, {"fid": Summary(values, 10 * scale + 0.5, 0.7, 2)})
        groups.append(group)
    return Comparison("digits", groups, [Column("fid", "lower", "abc")], "fid", "last", ["loss"], ["a note"])


def events(path: Path) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    return EventAccumulator(str(path), size_guidance={"scalars": 0, "images": 0, "tensors": 0}).Reload()


def test_groups_are_runs_with_means_and_bands(comparison: Comparison, tmp_path: Path) -> None:
    board.write([comparison], tmp_path / "board")
    assert sorted(p.name for p in (tmp_path / "board").iterdir()) == [
        ".gan-compare.json", "loss=hinge", "loss=wgan_gp", "overview", "runs",
    ]  # fmt: skip
    found = events(tmp_path / "board" / "loss=hinge")
    assert [(e.step, e.value) for e in found.Scalars("d/loss")] == [(80, 10.5), (160, 20.5)]
    lower, upper = (found.Scalars(f"band/d/loss/{side}")[0].value for side in ("lower", "upper"))
    assert (lower, upper) == (10, 11), "both values"
    assert [(e.step, e.value) for e in found.Scalars("metric/fid")] == [(160, 10.5)]
    assert not any(tag.startswith("time/") for tag in found.Tags()["scalars"])
    overview = events(tmp_path / "board" / "overview")
    assert [e.step for e in overview.Images("samples")] == [80, 160]
    assert "custom_scalars__config__" in overview.Tags()["tensors"]
    text = overview.Tensors("comparison/text_summary")[0].tensor_proto.string_val[0].decode()
    assert "| loss=hinge | 10.5 +- 0.7 (n=2) |" in text and "a note" in text


def test_hparams_of_every_run(comparison: Comparison, tmp_path: Path, ask: Any) -> None:  # noqa: F811
    board.write([comparison], tmp_path / "board")
    experiment, groups = ask(tmp_path / "board")
    assert [info["name"]["tag"] for info in experiment["metricInfos"]] == ["final/fid"]
    found = {(g["hparams"]["loss"], g["hparams"]["seed"]): metrics(g)["final/fid"] for g in groups}
    assert found == {("hinge", 0): 10, ("hinge", 1): 11, ("wgan_gp", 0): 20, ("wgan_gp", 1): 21}


def test_its_own_output_is_replaced_and_nothing_else(comparison: Comparison, tmp_path: Path) -> None:
    target = tmp_path / "board"
    target.mkdir()
    board.write([comparison], target)
    comparison.groups.pop()
    board.write([comparison], target)
    assert not (target / "loss=wgan_gp").exists()
    (target / "mine.txt").write_text("keep")
    with pytest.raises(OutputError, match=r"holds other things \(mine.txt\)"):
        board.write([comparison], target)
    assert (target / "mine.txt").read_text() == "keep" and (target / "loss=hinge").is_dir()
    with pytest.raises(OutputError, match="holds other things"):
        board.write([comparison], tmp_path / "sweep")
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_several_comparisons_and_odd_names(comparison: Comparison, tmp_path: Path) -> None:
    other = Comparison("mnist/28", [Group("a/b, c", {}, comparison.groups[0].runs)], [], "", "last", [], [])
    next(iter(comparison.groups[0].runs[0].pictures.values())).write_bytes(b"no picture")
    board.write([comparison, other], tmp_path / "board")
    assert (tmp_path / "board" / "digits" / "loss=hinge").is_dir() and (tmp_path / "board" / "mnist_28" / "a_b,c").is_dir()


def test_curves_are_of_what_the_table_counts(comparison: Comparison) -> None:
    """No run that does not count, no evaluation by another protocol, no row of an evaluated metric, whatever measured it."""
    group = comparison.groups[0]
    other = EvaluationRecord(20, 160, {"fid": 900.0}, "other", {})
    first = replace(group.runs[0], evaluations=[*group.runs[0].evaluations, other])
    first.rows[-1]["metric/fid"] = 800.0
    lost = replace(group.runs[1], path=Path("elsewhere") / group.runs[1].path.name, state="diverged")
    group.runs = [first, group.runs[1], lost]
    lost.rows.append({"step": 30, "images": 240, "d/loss": 1e9})
    group.runs[1] = replace(group.runs[1], rows=group.runs[1].rows[:2])
    found = board.curves(group, ["abc"])
    assert [(p.x, p.y, p.n) for p in found["metric/fid"]] == [(160, 10.5, 2)]
    assert [(p.x, p.y, p.n) for p in found["d/loss"]] == [(80, 10.5, 2), (160, 20.5, 2)]
    assert board.curves(Group("none", {}, group.runs), ["abc"]) == {}


def test_one_seed_has_no_band_and_long_runs_are_thinned(comparison: Comparison, tmp_path: Path) -> None:
    group = comparison.groups[0]
    rows = [{"step": step, "images": 8 * step, "d/loss": float(step)} for step in range(1, 2001)]
    group.runs = [replace(group.runs[0], rows=rows)]
    board.write([comparison], tmp_path / "board")
    found = events(tmp_path / "board" / "loss=hinge")
    assert len(found.Scalars("d/loss")) <= charts.MOST_POINTS
    assert not [tag for tag in found.Tags()["scalars"] if tag.startswith("band/")]
    assert "band/d/loss/lower" in events(tmp_path / "board" / "loss=wgan_gp").Tags()["scalars"]


def test_runs_and_groups_of_the_same_name_have_directories_of_their_own(comparison: Comparison, tmp_path: Path) -> None:
    first, second = comparison.groups
    path = tmp_path / "again" / first.runs[0].path.name
    second.runs[0] = replace(second.runs[0], path=path)
    second.summaries["fid"].values[str(path)] = 20.0
    first.name, second.name = "overview", "x" * 200 + "1"
    third = Group("x" * 200 + "2", {}, [replace(first.runs[1], path=tmp_path / "other")])
    comparison.groups.append(third)
    board.write([comparison], tmp_path / "board")
    there = {p.name for p in (tmp_path / "board").iterdir()}
    assert there == {".gan-compare.json", "overview", "overview-2", "runs", "x" * 150, "x" * 150 + "-2"}
    names = [f"loss=hinge,seed=0{end}" for end in ("", "-2")]
    finals = [events(tmp_path / "board" / "runs" / name).Scalars("final/fid")[0].value for name in names]
    assert finals == [10, 20]


def test_here_is_refused(comparison: Comparison, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "empty" / "below").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "empty" / "below")
    for place in (".", "../below"):
        with pytest.raises(OutputError, match="this is the current directory"):
            board.write([comparison], Path(place))
    with pytest.raises(OutputError, match=r"holds other things \(below\)"):
        board.write([comparison], Path(".."))
    board.write([comparison], Path("../board"))
    assert (tmp_path / "empty" / "board" / "overview").is_dir()


def test_a_signal_leaves_nothing(comparison: Comparison, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "boards").mkdir()
    monkeypatch.setattr(board, "markdown_table", lambda _: os.kill(os.getpid(), signal.SIGTERM) or "")
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(signals.Interrupted):
        board.write([comparison], tmp_path / "boards" / "a")
    assert list((tmp_path / "boards").iterdir()) == [] and signal.getsignal(signal.SIGTERM) == before
    signals.received.clear()
