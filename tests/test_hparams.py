"""TensorBoard's HParams tab, asked of the real server: one session for each run, its values right, its metrics filled."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gan_cli.rundir import hparams

from .conftest import quick  # type: ignore[import-not-found]
from .test_config_files import EXPERIMENTS, OPTIONS, composed, composed_preset  # type: ignore[import-not-found]

Ask = Callable[[Path], tuple[dict[str, Any], list[dict[str, Any]]]]


@pytest.fixture
def ask() -> Iterator[Ask]:
    """The experiment and the session groups that a TensorBoard shows of a directory."""
    servers = []

    def start(logdir: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(logdir), "--port", str(port)]
        servers.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))

        def get(route: str, request: dict[str, Any]) -> dict[str, Any]:
            url = f"http://127.0.0.1:{port}/data/plugin/hparams/{route}"
            data = json.dumps({"experimentName": "", **request}).encode()
            with urllib.request.urlopen(urllib.request.Request(url, data, {"Content-Type": "application/json"})) as answer:
                found: dict[str, Any] = json.load(answer)
                return found

        metrics = {"colParams": [], "startIndex": 0, "sliceSize": 100, "includeMetrics": True}
        statuses = [f"STATUS_{name}" for name in ("UNKNOWN", "SUCCESS", "FAILURE", "RUNNING")]
        before: Any = None
        for _ in range(240):  # until it has come up and read all
            time.sleep(0.25)
            try:
                experiment = get("experiment", {"hparamsLimit": 0, "includeMetrics": True})
                groups = get("session_groups", {**metrics, "allowedStatuses": statuses}).get("sessionGroups", [])
            except OSError:
                continue
            if groups and before == groups and all(session.get("metricValues") for g in groups for session in g["sessions"]):
                break
            before = groups
        return experiment, groups

    yield start
    for server in servers:
        server.kill()
        server.wait()


def session(group: dict[str, Any]) -> dict[str, Any]:
    (only,) = group["sessions"]
    return dict(only)


def metrics(group: dict[str, Any]) -> dict[str, float]:
    return {value["name"]["tag"]: value["value"] for value in session(group)["metricValues"]}


@pytest.mark.slow
def test_a_sweep(train: Any, read: Any, ask: Ask, tmp_path: Path, stop_at: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    args = ["save_every=1", "log_every=1", "sample_every=2", "ema.half_life=100"]
    for loss, seed in (("hinge", 0), ("hinge", 1), ("wgan_gp", 0)):
        name = f"run_dir='sweep/loss={loss},seed={seed}'"
        command = [*args, "total_steps=3", f"loss={loss}", f"seed={seed}", "optimizer.discriminator.lr=1e-3", name]
        if (loss, seed) == ("hinge", 1):
            stop_at(2, signal.SIGTERM)
            train(*command, code=75)
            monkeypatch.undo()
        train(*command)
    experiment, groups = ask(tmp_path / "sweep")
    assert [info["name"]["tag"] for info in experiment["metricInfos"]][:2] == ["d/loss", "g/loss"]
    listed = [info["name"] for info in experiment["hparamInfos"]]
    assert listed[:2] == ["loss", "seed"] and len(listed) == len(set(listed)), "what differs comes first"
    assert not {"log_every", "save_every"} & set(listed), "they decide nothing"
    assert len(groups) == 3
    for group in groups:
        run = tmp_path / "sweep" / session(group)["name"].removesuffix("/tensorboard")
        config, last, told = read.info(run)["config"], read.rows(run)[-1], group["hparams"]
        assert told["loss"] == ("hinge" if "hinge" in run.name else "wgan_gp")
        assert (told["model"], told["dataset"], told["optimizer"]) == ("dcgan", "digits", "adam")
        assert (told["seed"], told["total_steps"], told["batch_size"]) == (config["seed"], 3, 8)
        assert (told["optimizer.lr"], told["optimizer.discriminator.lr"]) == (2e-4, 1e-3)
        assert (told["optimizer.beta1"], told["optimizer.discriminator.beta2"]) == (0.5, 0.999)
        assert (told["loss.n_critic"], told["ema.half_life"]) == (config["loss"]["n_critic"], 100)
        assert told["model.generator.width"] == 4, "set on the command line"
        assert "run_dir" not in told
        assert metrics(group)["g/loss"] == pytest.approx(last["g/loss"])
        assert session(group)["status"] == "STATUS_SUCCESS"


@pytest.mark.slow
def test_how_runs_ended(train: Any, ask: Ask, tmp_path: Path, trained: Path, stop_at: Any, monkeypatch: Any) -> None:
    """One that failed and was continued has not failed; one that is stopped has not ended."""
    common = ["log_every=1", "save_every=1", "total_steps=3"]
    with monkeypatch.context() as patch:
        patch.setattr("gan_cli.rundir.checkpoint.rotate", lambda *_, **__: (_ for _ in ()).throw(OSError(28, "No space left")))
        train(*common, "run_dir=all/failed", code=74)
        train(*common, "run_dir=all/continued", code=74)
    train(*common, "run_dir=all/continued")
    stop_at(2, signal.SIGTERM)
    train(*common, "run_dir=all/stopped", code=75)
    monkeypatch.undo()
    shutil.copytree(trained, tmp_path / "all" / "done")
    _, groups = ask(tmp_path / "all")
    found = {session(group)["name"].partition("/")[0]: session(group)["status"] for group in groups}
    assert found == {
        "failed": "STATUS_FAILURE", "continued": "STATUS_SUCCESS", "stopped": "STATUS_UNKNOWN", "done": "STATUS_SUCCESS",
    }  # fmt: skip


def test_evaluated_metrics_come_first() -> None:
    row = ["step", "images", "d/loss", "d/real", "d/skipped", "g/loss", "time/elapsed", "metric/fid"]
    assert hparams.columns([], ["fid", "kid"]) == ["metric/fid", "metric/kid", "d/loss", "g/loss"]
    assert hparams.columns(row, ["fid", "kid"]) == ["metric/fid", "metric/kid", "d/loss", "g/loss"]
    assert hparams.columns(row) == ["d/loss", "g/loss", "d/real", "metric/fid"]


def told(run: Path) -> tuple[dict[str, Any], list[str]]:
    """Hyper-parameters and metrics that TensorBoard reads of a run, without its server."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams import metadata

    found = EventAccumulator(str(run / "tensorboard")).Reload()
    content = {tag: found.SummaryMetadata(tag).plugin_data.content for tag in found.PluginTagToContent("hparams")}
    start = metadata.parse_session_start_info_plugin_data(content[metadata.SESSION_START_INFO_TAG])
    experiment = metadata.parse_experiment_plugin_data(content[metadata.EXPERIMENT_TAG])
    values = {key: value.number_value or value.string_value for key, value in start.hparams.items()}
    return values, [metric.name.tag for metric in experiment.metric_infos]


def test_a_run_that_goes_on_with_other_settings(train: Any, tmp_path: Path) -> None:
    """Also one of an earlier version, which has told nothing."""
    common = ["run_dir=run", "log_every=1", "save_every=1"]
    train(*common, "total_steps=1")
    assert told(tmp_path / "run")[0]["total_steps"] == 1
    train(*common, "total_steps=2", "optimizer.lr=1e-3", "allow_change=[optimizer.lr]")
    values, columns = told(tmp_path / "run")
    assert (values["total_steps"], values["optimizer.lr"]) == (2, 1e-3) and "d/real" in columns
    for path in (tmp_path / "run" / "tensorboard").glob("*session*"):
        path.unlink()
    train(*common, "total_steps=3", "optimizer.lr=1e-3")
    assert told(tmp_path / "run") == ({**values, "total_steps": 3}, columns)
    assert len(list((tmp_path / "run" / "tensorboard").glob("*session*"))) == 1


def test_metrics_that_come_late(train: Any, tmp_path: Path) -> None:
    train("run_dir=run", "model=points", "dataset=ring", "log_every=1", "total_steps=3", "sample_every=3", tiny="points")
    columns = told(tmp_path / "run")[1]
    assert {"metric/modes", "metric/good_share"} <= set(columns) and columns[:2] == ["d/loss", "g/loss"]


@pytest.mark.slow
def test_a_run_that_begins_again(train: Any, tmp_path: Path, ask: Ask) -> None:
    """It tells TensorBoard to forget what came from step 0 on, which is not what it is."""
    train("run_dir=all/run", "log_every=1", "total_steps=2")
    shutil.rmtree(tmp_path / "all" / "run" / "checkpoints")
    train("run_dir=all/run", "log_every=1", "total_steps=1")
    _, (group,) = ask(tmp_path / "all")
    assert group["hparams"]["total_steps"] == 1 and session(group)["status"] == "STATUS_SUCCESS"


@pytest.mark.parametrize("name", quick(EXPERIMENTS, *EXPERIMENTS[::7]))
def test_every_preset_has_names(name: str) -> None:
    told = hparams.values(
        composed_preset(name).as_dict(), f"gan-train experiment={name} seed=3 run_dir=x optimizer.betas=[0,1] --x=y"
    )
    assert told["experiment"] == name and "run_dir" not in told and "--x" not in told
    assert {"model", "dataset", "loss", "optimizer", "optimizer.lr", "optimizer.discriminator.lr", "seed"} <= told.keys()
    assert told["optimizer.betas"] == str(composed_preset(name).optimizer.get("betas", "[0,1]"))


@pytest.mark.parametrize("name", [name for group, name in OPTIONS if group == "loss"])
def test_losses_are_called_as_they_are_chosen(name: str) -> None:
    alike = {"wgan_warm_up": "wgan", "pix2pix": "non_saturating", "cyclegan": "lsgan"}
    assert hparams.values(composed(f"loss={name}").as_dict())["loss"] == alike.get(name, name)
