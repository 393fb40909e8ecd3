"""gan-train from start to finish, and from every kind of interruption to the same finish."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from .conftest import quick  # type: ignore[import-not-found]

OFTEN = ["log_every=3", "sample_every=4", "save_every=2"]
KINDS = {
    "dcgan, wgan_gp": ("dcgan", ["loss=wgan_gp"]),
    "dcgan, bf16": ("dcgan", ["precision=bf16"]),
    "dcgan, hinge, ttur, cosine": ("dcgan", ["loss=hinge", "optimizer=ttur", "schedule=cosine"]),
    "wgan_mlp": ("mlp", ["model=wgan_mlp", "optimizer.momentum=0.5"]),
    "mlp, same noise, generator first": ("mlp", ["model=mlp", "model.task.same_noise=true", "loss.first=generator"]),
}
each_kind = pytest.mark.parametrize(("tiny", "args"), quick(KINDS, "mlp, same noise, generator first"))


def start(cwd: Path, *args: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "gan_cli.train", *args]
    return subprocess.Popen(command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(path: Path, process: subprocess.Popen[str], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not path.exists():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < end, f"no {path}"
        time.sleep(0.002)


def snapshot(folder: Path) -> dict[str, tuple[int, int]]:
    files = [p for p in folder.rglob("*") if p.name != ".lock" and p.is_file()]
    return {str(p.relative_to(folder)): (p.stat().st_mtime_ns, p.stat().st_size) for p in files}


# What a run writes


def test_a_run_directory_holds_what_it_should(trained: Path, read: Any) -> None:
    names = sorted(p.name for p in trained.iterdir() if not p.name.startswith("."))
    assert [n for n in names if n != "generated"] == [
        "checkpoints", "config.yaml", "metrics.jsonl", "samples", "status.json", "tensorboard", "train.log",
    ]  # fmt: skip
    assert [p.name for p in sorted((trained / "checkpoints").iterdir())] == ["step-00000002", "step-00000004"]
    assert sorted(read.pictures(trained)) == ["step-00000002.png", "step-00000004.png"]
    assert "step 4/4" in (trained / "train.log").read_text()
    assert [p.name for p in trained.iterdir() if p.name.startswith(".")] in ([], [".lock"])


def test_metrics(trained: Path, read: Any) -> None:
    rows = read.rows(trained, clock=True)
    assert [row["step"] for row in rows] == [2, 4]
    assert [row["images"] for row in rows] == [16, 32]
    assert {key for key in rows[0] if "/" not in key} == {"step", "images", "epoch"}
    assert {"d/loss", "d/real", "d/fake", "g/loss"} <= rows[0].keys()
    assert {"d/accuracy", "d/grad_norm", "g/grad_norm", "metric/diversity"} <= rows[0].keys()
    assert {key.split("/")[0] for key in rows[0]} == {"step", "images", "epoch", "d", "g", "metric", "time"}


def test_tensorboard_shows_the_same(trained: Path, read: Any) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(trained / "tensorboard"))
    events.Reload()
    rows = read.rows(trained, clock=True)
    assert set(events.Tags()["scalars"]) == rows[0].keys() - {"step"}
    for tag in events.Tags()["scalars"]:
        assert [e.step for e in events.Scalars(tag)] == [2, 4]
        assert [e.value for e in events.Scalars(tag)] == pytest.approx([row[tag] for row in rows], rel=1e-5)
    (images,) = events.Tags()["images"]
    assert [e.step for e in events.Images(images)] == [2, 4]
    (config,) = [tag for tag in events.Tags()["tensors"] if tag.startswith("config")]
    assert b"width: 4" in events.Tensors(config)[0].tensor_proto.string_val[0]


def test_config_yaml_is_resolved(trained: Path) -> None:
    from omegaconf import OmegaConf

    text = (trained / "config.yaml").read_text()
    assert "${" not in text
    config = OmegaConf.create(text)
    assert (config.total_steps, config.model.generator.width, config.model.generator.image_size) == (4, 4, 32)


def test_pictures_are_grids_of_64(trained: Path) -> None:
    from PIL import Image

    with Image.open(trained / "samples" / "step-00000004.png") as picture:
        assert picture.mode == "L"
        assert picture.width == picture.height and picture.width % (8 * 34 + 2) == 0


def test_without_run_dir_it_gets_a_name_that_can_be_read(train: Any, tmp_path: Path) -> None:
    result = train("total_steps=1")
    (run_dir,) = (tmp_path / "outputs").iterdir()
    assert run_dir.name.startswith("dcgan_small-digits-non_saturating-2")
    assert f"run directory: outputs/{run_dir.name}" in result.err
    assert f"gan-sample run_dir=outputs/{run_dir.name}" in result.err


@pytest.mark.parametrize("keep", quick([1, 2], 2))
def test_keep_checkpoints(keep: int, train: Any, read: Any, tmp_path: Path) -> None:
    train("total_steps=5", "save_every=1", f"keep_checkpoints={keep}", "run_dir=r")
    assert read.steps(tmp_path / "r") == [4, 5][-keep:]


@pytest.mark.slow
def test_how_often_it_logs_does_not_change_the_weights(train: Any, read: Any, tmp_path: Path) -> None:
    train("total_steps=6", "run_dir=a", "log_every=1", "sample_every=1", "save_every=1")
    train("total_steps=6", "run_dir=b", "log_every=4", "sample_every=100", "save_every=100")
    read.assert_same_weights(tmp_path / "a", tmp_path / "b")


@pytest.mark.slow
def test_the_seed_does(train: Any, read: Any, tmp_path: Path) -> None:
    for seed in (0, 1):
        train("total_steps=1", f"run_dir={seed}", f"seed={seed}")
    first, second = read.tensors(tmp_path / "0"), read.tensors(tmp_path / "1")
    assert (first["generator.layers.0.weight"] != second["generator.layers.0.weight"]).all()


def test_wgan_keeps_every_weight_in_its_interval(train: Any, read: Any, tmp_path: Path) -> None:
    train("model=wgan_mlp", "total_steps=3", "optimizer.lr=0.1", "save_every=1", "run_dir=r", tiny="mlp")
    for step in (1, 2, 3):
        critic = [v for k, v in read.tensors(tmp_path / "r", step).items() if k.startswith("discriminator.")]
        assert len(critic) == 4
        assert max(abs(v).max() for v in critic) == np.float32(0.01)


# Resume


@each_kind
def test_stopped_after_every_step(tiny: str, args: list[str], train: Any, read: Any, tmp_path: Path) -> None:
    command = ["total_steps=4", *OFTEN, *args]
    train(*command, "run_dir=whole", tiny=tiny)
    for step in range(1, 4):
        result = train(*command, "run_dir=hops", "max_hours=1e-9", tiny=tiny, code=75)
        assert read.steps(tmp_path / "hops")[-1] == step
        assert f"gan-train: stopped at step {step} of 4 by max_hours=1e-09, state saved (hops)" in result.err
        assert result.errors == []
    train(*command, "run_dir=hops", tiny=tiny)
    read.assert_same(tmp_path / "whole", tmp_path / "hops")


@pytest.mark.parametrize(
    ("number", "step"), quick([(signal.SIGTERM, 3), (signal.SIGINT, 4), (signal.SIGTERM, 7)], (signal.SIGINT, 4))
)
def test_signal_then_the_printed_command(
    number: int, step: int, gan: Any, train: Any, read: Any, stop_at: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    command = ["total_steps=8", *OFTEN]
    train(*command, "run_dir=whole")
    stop_at(step, number)
    result = train(*command, "run_dir='a b'", code=75)
    monkeypatch.undo()
    last = result.err.splitlines()[-1]
    assert last.startswith(f"gan-train: stopped at step {step} of 8 by {signal.Signals(number).name}, state saved (a b). ")
    assert shlex.split(last.partition("Continue with: ")[2]) == result.continue_command
    assert gan(*result.continue_command).code == 0
    read.assert_same(tmp_path / "whole", tmp_path / "a b")


def test_the_second_signal_acts_at_once() -> None:
    from gan_cli.training.session import stop_on_signal

    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with stop_on_signal() as received:
        assert received == []
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.001)
        assert received == ["SIGTERM"]
        assert {signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)} == {signal.SIG_DFL}
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


@pytest.mark.parametrize("number", quick({"kill -9": signal.SIGKILL, "SIGTERM": signal.SIGTERM}, "kill -9"))
@pytest.mark.slow
def test_process_killed_when_its_first_checkpoint_appears(number: int, train: Any, read: Any, tmp_path: Path) -> None:
    from .conftest import TINY  # type: ignore[import-not-found]

    command = ["total_steps=40", "log_every=7", "sample_every=25", "save_every=5"]
    process = start(tmp_path, *TINY["dcgan"], *command, "run_dir=r")
    try:
        wait_for(tmp_path / "r" / "checkpoints" / "step-00000005", process)
        process.send_signal(signal.SIGSTOP)  # a process that holds the directory
        result = train(*command, "run_dir=r", code=73)
        assert len(result.errors) == 1 and f"process {process.pid} " in result.errors[0]
        process.send_signal(number)
        process.send_signal(signal.SIGCONT)
        _, err = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == (-signal.SIGKILL if number == signal.SIGKILL else 75)
    assert "Traceback" not in err
    assert read.steps(tmp_path / "r")[-1] < 40
    train(*command, "run_dir=r")
    train(*command, "run_dir=whole")
    read.assert_same(tmp_path / "whole", tmp_path / "r")


def test_what_a_kill_in_a_save_leaves_is_swept_up(train: Any, read: Any, trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained, tmp_path / "r")
    checkpoints = tmp_path / "r" / "checkpoints"
    (checkpoints / "step-00000004").rename(tmp_path / "r" / ".saving-4-1-abcd")
    (tmp_path / "r" / ".saving-4-1-abcd" / "manifest.json").unlink()
    with open(tmp_path / "r" / "metrics.jsonl", "a") as file:
        file.write('{"step": 6, "ima')
    (tmp_path / "r" / "samples" / "step-00000099.png").write_bytes(b"from beyond")
    train("total_steps=4", "save_every=2", "log_every=2", "sample_every=2", "run_dir=r")
    read.assert_same(trained, tmp_path / "r")
    assert [p.name for p in (tmp_path / "r").glob(".*ing-*")] == []


def test_a_damaged_checkpoint_is_passed_over(train: Any, read: Any, trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained, tmp_path / "r")
    weights = tmp_path / "r" / "checkpoints" / "step-00000004" / "generator.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    result = train("total_steps=4", "save_every=2", "log_every=2", "sample_every=2", "run_dir=r")
    assert "warning: " in result.err and "step-00000004" in result.err and "from step 2" in result.err
    read.assert_same(trained, tmp_path / "r")


@pytest.mark.slow
def test_what_is_saved_after_a_damaged_checkpoint_stays(train: Any, read: Any, trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained, tmp_path / "r")
    (tmp_path / "r" / "checkpoints" / "step-00000004" / "state.json").write_text("{}")
    command = ["total_steps=6", "save_every=2", "log_every=2", "sample_every=2", "keep_checkpoints=1", "run_dir=r"]
    train(*command, "max_hours=1e-9", code=75)
    assert read.steps(tmp_path / "r") == [3]
    assert [p.name[:21] for p in (tmp_path / "r").glob("damaged-*")] == ["damaged-step-00000004"]
    train(*command)
    assert read.steps(tmp_path / "r") == [6]


@pytest.mark.slow
def test_killed_before_the_first_checkpoint(train: Any, read: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from gan_cli.rundir import checkpoint

    command = ["total_steps=4", "log_every=1", "sample_every=1", "save_every=3"]
    train(*command, "run_dir=whole")

    def die(*args: object) -> None:
        raise SystemExit(137)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save", die)
        train(*command, "run_dir=r", code=137)
    assert len(read.rows(tmp_path / "r")) == 3
    train(*command, "run_dir=r")
    read.assert_same(tmp_path / "whole", tmp_path / "r")
    assert [step for step, _ in read.scalars(tmp_path / "r")["d/loss"]] == [1, 2, 3, 4]


@pytest.mark.parametrize("old", quick([5, 6], 5))
@pytest.mark.slow
def test_more_steps_end_as_if_started_so(old: int, train: Any, read: Any, tmp_path: Path) -> None:
    for total, run_dir in ((11, "whole"), (old, "r"), (11, "r")):
        train(f"total_steps={total}", *OFTEN, f"run_dir={run_dir}")
    read.assert_same(tmp_path / "whole", tmp_path / "r")
    whole, resumed = read.scalars(tmp_path / "whole"), read.scalars(tmp_path / "r")
    assert [step for step, _ in resumed["d/loss"]] == [3, 6, 9, 11]
    assert {k: v for k, v in whole.items() if k[:2] != "ti"} == {k: v for k, v in resumed.items() if k[:2] != "ti"}
    assert read.images(tmp_path / "whole") == read.images(tmp_path / "r") == [4, 8, 11]


def test_finished_does_nothing(train: Any, trained: Path) -> None:
    before = snapshot(trained)
    result = train("total_steps=4", "save_every=2", "log_every=2", "sample_every=2", f"run_dir={trained}")
    assert "is finished: 4 of 4 steps" in result.err
    assert snapshot(trained) == before


def test_fewer_steps_are_finished_too(train: Any, trained: Path) -> None:
    before = snapshot(trained)
    assert "is finished" in train("total_steps=3", f"run_dir={trained}").err
    assert snapshot(trained) == before


@pytest.mark.parametrize(
    ("overrides", "shown"),
    [
        (["optimizer.lr=0.001"], ["optimizer.lr: 0.0002 -> 0.001"]),
        (["seed=1", "batch_size=16"], ["seed: 0 -> 1", "batch_size: 8 -> 16"]),
        (["loss=hinge"], ["loss.adversarial._target_: gan_cli.losses.NonSaturating -> gan_cli.losses.Hinge"]),
        (["model.generator.width=8"], ["model.generator.width: 4 -> 8"]),
        (["total_steps=9", "schedule=linear"], ["schedule._target_: gan_cli.schedules.Constant -> gan_cli.schedules.Linear"]),
    ],
)
def test_another_config_is_refused(overrides: list[str], shown: list[str], train: Any, trained: Path) -> None:
    before = snapshot(trained)
    result = train("total_steps=4", f"run_dir={trained}", *overrides, code=2)
    assert len(result.err.splitlines()) == 1
    assert all(text in result.err for text in [*shown, str(trained)])
    assert snapshot(trained) == before


@pytest.mark.slow
def test_a_schedule_needs_the_same_total(train: Any, tmp_path: Path) -> None:
    train("total_steps=2", "schedule=linear", "run_dir=r")
    result = train("total_steps=4", "schedule=linear", "run_dir=r", code=2)
    assert "schedule.total_steps: 2 -> 4" in result.err


def test_what_may_change(train: Any, read: Any, tmp_path: Path) -> None:
    train("total_steps=2", "run_dir=r")
    train(
        "total_steps=4", "run_dir=r", "log_every=1", "sample_every=3", "save_every=3", "keep_checkpoints=1", "max_hours=1",
        "optimized_metric=d/loss", "workers=0", "device=cpu",
    )  # fmt: skip
    assert read.steps(tmp_path / "r") == [4]


@pytest.mark.slow
def test_other_intervals_leave_the_history_alone(train: Any, read: Any, tmp_path: Path) -> None:
    train("total_steps=6", "log_every=2", "sample_every=2", "save_every=6", "run_dir=r")
    train("total_steps=9", "log_every=4", "sample_every=4", "save_every=6", "run_dir=r")
    assert [row["step"] for row in read.rows(tmp_path / "r")] == [2, 4, 6, 8, 9]
    assert [name[5:13] for name in sorted(read.pictures(tmp_path / "r"))] == [f"{k:08d}" for k in (2, 4, 6, 8, 9)]
    assert read.images(tmp_path / "r") == [2, 4, 6, 8, 9]
    assert [step for step, _ in read.scalars(tmp_path / "r")["d/loss"]] == [2, 4, 6, 8, 9]


def test_changed_data_is_refused(train: Any, tmp_path: Path, data_root: Path) -> None:
    with np.load(data_root / "images.npz") as file:
        arrays = dict(file)
    command = ["dataset=npz", "dataset.path=images.npz", "run_dir=r"]
    np.savez(tmp_path / "images.npz", **arrays)
    train(*command, "total_steps=1")
    arrays["images"][0, 0, 0, 0] ^= 1
    np.savez(tmp_path / "images.npz", **arrays)
    result = train(*command, "total_steps=2", code=65)
    assert " -> " in result.error.line


@pytest.mark.slow
def test_moved_data_is_not(train: Any, tmp_path: Path, data_root: Path) -> None:
    train("dataset=npz", f"dataset.path={data_root}/images.npz", "run_dir=r", "total_steps=1")
    shutil.copy(data_root / "images.npz", tmp_path / "elsewhere.npz")
    train("dataset=npz", "dataset.path=elsewhere.npz", "run_dir=r", "total_steps=2")


@pytest.mark.slow
def test_threads_stay_as_they_were(train: Any, read: Any, tmp_path: Path) -> None:
    train("total_steps=2", "run_dir=r", "threads=2", "max_hours=1e-9", code=75)
    result = train("total_steps=2", "run_dir=r", "threads=null")
    assert read.info(tmp_path / "r")["machine"]["threads"] == 2
    assert "2 threads" in result.err


# Run directories


def test_twenty_starts_in_one_second_get_twenty_directories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from gan_cli.rundir import directory

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(time, "strftime", lambda _: "20250101-000000")
    with ThreadPoolExecutor(20) as pool:
        made = list(pool.map(lambda _: directory.create("a"), range(20)))
    assert len(set(made)) == 20 and all(path.is_dir() for path in made)


@pytest.mark.parametrize("kind", quick(["folder", "file", "folder with a config.yaml"], "folder"))
def test_what_is_not_a_run_stays_untouched(kind: str, train: Any, tmp_path: Path) -> None:
    name = "config.yaml" if "config" in kind else "thesis.txt"
    thesis = tmp_path / "mine" / name if kind.startswith("folder") else tmp_path / "mine"
    thesis.parent.mkdir(exist_ok=True)
    thesis.write_text("years of work")
    before = snapshot(tmp_path)
    result = train("total_steps=1", "run_dir=mine", code=73)
    assert len(result.err.splitlines()) == 1 and "mine" in result.err
    assert snapshot(tmp_path) == before
    assert not (tmp_path / "mine" / ".lock").exists()


def test_an_empty_folder_may_become_a_run(train: Any, read: Any, tmp_path: Path) -> None:
    (tmp_path / "r").mkdir()
    train("total_steps=1", "run_dir=r")
    assert read.steps(tmp_path / "r") == [1]


# Ends


@pytest.mark.parametrize("save_every", quick([1, 1000], 1))
def test_divergence(save_every: int, train: Any, read: Any, tmp_path: Path) -> None:
    args = ["optimizer=sgd", "optimizer.lr=1e20", "total_steps=12", "log_every=5", f"save_every={save_every}", "run_dir=r"]
    result = train(*args, code=79)
    assert len(result.errors) == 1 and result.errors[0].startswith("gan-train: error: training diverged: ")
    assert "Traceback" not in result.err
    if (tmp_path / "r" / "checkpoints").exists():
        for step in read.steps(tmp_path / "r"):
            assert all(np.isfinite(v).all() for v in read.tensors(tmp_path / "r", step).values())
    assert all(np.isfinite(list(row.values())).all() for row in read.rows(tmp_path / "r"))


def test_optimized_metric(train: Any, read: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from gan_cli import train as program

    app, returned = program.app, []
    monkeypatch.setattr(program, "app", lambda cfg: returned.append(app(cfg)))
    for _ in range(2):  # trained, and finished before
        train("total_steps=2", "run_dir=r", "optimized_metric=d/loss")
    assert returned == [read.rows(tmp_path / "r")[-1]["d/loss"]] * 2


@pytest.mark.slow
def test_optimized_metric_that_is_not_logged(train: Any) -> None:
    result = train("total_steps=1", "sample_every=1", "run_dir=r", "optimized_metric=metric/nothing", code=2)
    assert len(result.errors) == 1
    assert "metric/nothing" in result.errors[0] and "d/loss" in result.errors[0]


@pytest.mark.parametrize(
    "line", quick([b"5\n", b'{"a": 1}\n', b"\xff\n", b'{"step": 2, "im', b"[" * 100_000], b'{"step": 2, "im')
)
def test_a_line_that_is_no_row_is_left_out(line: bytes, train: Any, read: Any, trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained, tmp_path / "r")
    with open(tmp_path / "r" / "metrics.jsonl", "ab") as file:
        file.write(line)
    train("total_steps=6", "save_every=2", "log_every=2", "sample_every=2", "run_dir=r", "optimized_metric=d/loss")
    assert [row["step"] for row in read.rows(tmp_path / "r")] == [2, 4, 6]


def test_processes_that_decode_do_not_hold_the_lock(tmp_path: Path) -> None:
    import fcntl

    from gan_cli.system.locks import locked

    begun, ready = os.pipe()
    with locked(tmp_path):
        child = os.fork()
        if child == 0:
            os.write(ready, b"x")
            signal.pause()
        os.read(begun, 1)
    try:
        with open(tmp_path / ".lock") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


@pytest.mark.parametrize("during", quick(["picture", "sync"], "sync"))
def test_a_signal_at_any_moment_of_a_step_ends_in_a_checkpoint_of_it(
    during: str, train: Any, read: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from gan_cli.training.writer import Writer

    original = getattr(Writer, during)

    def noisy(self: Any, *args: Any) -> None:
        original(self, *args)
        if self.progress.step == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Writer, during, noisy)
    train("total_steps=6", "sample_every=2", "log_every=5", "save_every=2", "run_dir=r", code=75)
    said = json.loads((tmp_path / "r" / "status.json").read_text())
    assert said["step"] == read.steps(tmp_path / "r")[-1] == {"picture": 2, "sync": 3}[during]


@pytest.mark.slow
def test_a_signal_while_a_picture_is_drawn_off_the_schedule(
    train: Any, read: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from gan_cli.training.writer import Writer

    original = Writer.picture

    def noisy(self: Any, picture: Any) -> None:
        original(self, picture)
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Writer, "picture", noisy)
    train("total_steps=6", "sample_every=3", "log_every=5", "save_every=100", "run_dir=r", code=75)
    assert read.steps(tmp_path / "r") == [3]


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ([], "in memory (2.1e-06 GB)"),
        (
            ["dataset.memory_gb=1e-6"],
            "read as they are used, workers=1 (in memory they would need 2.1e-06 GB, dataset.memory_gb=1e-06)",
        ),
    ],
)
def test_it_says_where_the_images_are_kept(args: list[str], said: str, train: Any, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    for k in range(9):
        Image.new("L", (16, 16), k).save(tmp_path / "mine" / f"{k}.png")
    folder = ["dataset=image_folder", "dataset.root=mine", "dataset.channels=1", "dataset.image_size=16", "batch_size=4"]
    train(*folder, *args, "total_steps=1", "run_dir=r")
    (line,) = [line for line in (tmp_path / "r" / "train.log").read_text().splitlines() if " data: " in line]
    assert line.endswith(f"image_folder.image_folder, {said}")
