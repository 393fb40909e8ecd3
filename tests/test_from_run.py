"""``from_run=DIR``: the same run, bit for bit, from what DIR records; what is refused, and which differences are logged."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra import compose, initialize_config_module
from omegaconf import DictConfig

from gan_cli.config.training import TrainConfig
from gan_cli.rundir.from_run import MAX_THREADS, Original
from gan_cli.system.errors import CheckpointError, ConfigError, DataError, GanError, NotFoundError, UntrustedError

from .conftest import quick  # type: ignore[import-not-found]

EVERY = ["total_steps=4", "log_every=2", "sample_every=2", "save_every=2"]
KINDS = {
    "dcgan": ("dcgan", ["loss=hinge", "ema.half_life=100", "precision=bf16", "schedule=linear"]),
    "wgan_gp": ("dcgan", ["loss=wgan_gp", "optimizer=adam_wgan_gp", "loss.n_critic=2", "optimizer.discriminator.lr=1e-3"]),
    "mlp": ("mlp", ["model=mlp", "loss=wgan", "optimizer=rmsprop", "compile=false"]),
    "cgan": ("cgan", ["model=cgan", "dataset.image_size=16", "loss=lsgan"]),
    "pix2pix": ("pix2pix", ["model=pix2pix", "dataset=digits_paired", "dataset.image_size=16", "dataset.load_size=18"]),
    "cyclegan": ("cyclegan", ["model=cyclegan", "dataset=digits_unpaired", "dataset.image_size=16", "dataset.load_size=18"]),
    "points": ("points", ["model=points", "dataset=ring", "dataset.n=200"]),
}


@pytest.mark.parametrize("kind", quick(list(KINDS), "dcgan"))
def test_bit_for_bit(kind: str, train: Any, gan: Any, read: Any, tmp_path: Path) -> None:
    tiny, args = KINDS[kind]
    train(*args, *EVERY, "seed=5", "run_dir=a", tiny=tiny)
    result = gan("gan-train", "from_run=a", "run_dir=b")
    assert result.code == 0, result.err
    read.assert_same(tmp_path / "a", tmp_path / "b")
    assert "reproduced: the weights of step 4" in result.err and "note: " not in result.err
    assert json.loads((tmp_path / "b" / "status.json").read_text())["command"] == "gan-train from_run=a"


@pytest.fixture
def original(trained: Path, tmp_path: Path) -> Path:
    """A copy of a run of 4 steps, to be changed."""
    shutil.copytree(trained, tmp_path / "a")
    return tmp_path / "a"


@pytest.fixture
def composed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., DictConfig]:
    """The config that gan-train composes of these arguments, in a folder with the run ``a``."""
    monkeypatch.chdir(tmp_path)

    def composed(*overrides: str) -> DictConfig:
        with initialize_config_module("gan_cli.conf", version_base="1.3"):
            return compose("train", ["from_run=a", *overrides])

    return composed


@pytest.fixture
def copied(composed: Callable[..., DictConfig]) -> Callable[..., TrainConfig]:
    """The config of the copy that these arguments, beside ``from_run=a``, ask for."""

    def copied(*overrides: str) -> TrainConfig:
        typed = [override.removeprefix("++") for override in overrides]
        return Original.read(cfg := composed(*overrides)).changed(cfg, typed)

    return copied


def change(run: Path, edit: Callable[[dict[str, Any]], None]) -> None:
    """Edit the plain data of every checkpoint, and its config.yaml."""
    import hashlib

    for state in run.glob("checkpoints/*/state.json"):
        info = json.loads(state.read_text())
        edit(info)
        state.write_text(json.dumps(info))
        manifest = json.loads((state.parent / "manifest.json").read_text())
        content = state.read_bytes()
        manifest["files"]["state.json"] = [len(content), hashlib.sha256(content).hexdigest()]
        (state.parent / "manifest.json").write_text(json.dumps(manifest))
        (run / "config.yaml").write_text(yaml.safe_dump(info["config"]))


@pytest.mark.slow
def test_machine_is_as_it_was(train: Any, gan: Any, read: Any, tmp_path: Path) -> None:
    """What was left to the machine then is not left to it now."""
    args = ["threads=2", "batch_size=8", "model.generator.width=4", "model.discriminator.width=4", "total_steps=2"]
    assert gan("gan-train", *args[1:], *args[:1], "run_dir=a").code == 0
    change(tmp_path / "a", lambda info: info["config"].update(threads=None, precision="auto", compile="auto", device="auto"))
    result = gan("gan-train", "from_run=a", "run_dir=b")
    assert result.code == 0 and "reproduced" in result.err, result.err
    config, machine = read.info(tmp_path / "b")["config"], read.info(tmp_path / "a")["machine"]
    assert (config["threads"], config["precision"], config["compile"], config["device"]) == (
        2, machine["precision"], machine["compiled"], "cpu",
    )  # fmt: skip


def test_the_same_command_continues_and_finds_it_finished(gan: Any, original: Path, stop_at: Any, monkeypatch: Any) -> None:
    import signal

    command = ["gan-train", "from_run=a", "run_dir=b", "save_every=1"]
    stop_at(3, signal.SIGTERM)
    stopped = gan(*command)
    assert stopped.code == 75 and stopped.continue_command == ["gan-train", "from_run=a", "save_every=1", "run_dir=b"]
    monkeypatch.undo()
    went_on = gan(*stopped.continue_command)
    assert went_on.code == 0 and "step 3" in went_on.err and "reproduced: the weights of step 4" in went_on.err
    again = gan(*command)
    assert again.code == 0 and "is finished" in again.err and "reproduced" in again.err


def test_a_new_directory_by_default(gan: Any, original: Path, tmp_path: Path) -> None:
    assert gan("gan-train", "from_run=a").code == 0
    (found,) = (tmp_path / "outputs").iterdir()
    assert found.name.startswith("from-a-2")


@pytest.mark.slow
def test_other_seeds_and_a_shorter_run(gan: Any, read: Any, original: Path, tmp_path: Path) -> None:
    result = gan("gan-train", "-m", "from_run=a", "seed=range(0,2)", "total_steps=2", "hydra.sweep.dir=sweep")
    assert result.code == 0, result.err
    assert result.err.count("reproduced: the weights of step 2") == 1
    assert "seed: 0 -> 1" in result.err
    zero, one = sorted(path.parent for path in (tmp_path / "sweep").glob("*/config.yaml"))
    assert read.rows(zero) == read.rows(original)[:1] != read.rows(one)


@pytest.mark.slow
def test_a_schedule_does_not_get_longer(train: Any, gan: Any, tmp_path: Path) -> None:
    """What came after its end would be trained with a learning rate of 0."""
    train("total_steps=2", "schedule=linear", "run_dir=a")
    result = gan("gan-train", "from_run=a", "total_steps=4", "run_dir=b")
    assert result.code == 2 and result.error.where == "total_steps=4" and result.error.names("step 2")
    assert not (tmp_path / "b").exists()
    assert gan("gan-train", "from_run=a", "total_steps=1", "run_dir=b").code == 0
    train("total_steps=3", "schedule=linear", "schedule.total_steps=2", "run_dir=a")  # but the run itself may have
    assert "reproduced: " in gan("gan-train", "from_run=a", "run_dir=c").err


@pytest.mark.slow
def test_a_time_limit_is_not_part_of_the_run(train: Any, gan: Any, tmp_path: Path) -> None:
    train("total_steps=3", "max_hours=1e-9", "run_dir=a", code=75)
    result = gan("gan-train", "from_run=a", "run_dir=b")
    assert result.code == 0 and "max_hours: null" in (tmp_path / "b" / "config.yaml").read_text(), result.err


@pytest.mark.slow
def test_several_runs_at_once(train: Any, gan: Any, original: Path, tmp_path: Path) -> None:
    train("model=mlp", "total_steps=1", "run_dir=other", tiny="mlp")
    result = gan("gan-train", "-m", "from_run=a,other", "hydra.sweep.dir=sweep")
    assert result.code == 0 and result.err.count("reproduced: ") == 2, result.err
    files = {path: path.stat().st_mtime_ns for job in (tmp_path / "sweep").glob("from_run=*") for path in job.rglob("*")}
    result = gan("gan-train", "-m", "from_run=a,other", "hydra.sweep.dir=sweep")
    assert result.code == 0 and "2 of 2" in result.err, result.err
    assert files and files == {path: path.stat().st_mtime_ns for path in files}


@pytest.mark.slow
def test_a_job_of_a_sweep_may_be_named_as_it_is_called(train: Any, gan: Any, tmp_path: Path) -> None:
    train("total_steps=1", "run_dir='sweep/loss=hinge,seed=0'")
    result = gan("gan-train", "from_run=sweep/loss=hinge,seed=0", "run_dir=b")
    assert result.code == 0 and "reproduced" in result.err, result.err
    assert gan(*result.continue_command).code == 0


def test_where_the_data_is_may_be_said(gan: Any, train: Any, read: Any, data_root: Path, tmp_path: Path) -> None:
    """Of a data set that the default one has no such key of."""
    train("dataset=mnist", f"dataset.root={data_root}", "total_steps=1", "run_dir=a")
    change(tmp_path / "a", lambda info: info["config"]["dataset"].update(root="elsewhere"))
    lost = gan("gan-train", "from_run=a", "run_dir=b")
    assert lost.code == 66 and "dataset.root" in lost.error.todo and not (tmp_path / "elsewhere").exists()
    result = gan("gan-train", "from_run=a", "run_dir=b", f"dataset.root={data_root}")
    assert result.code == 0 and "reproduced" in result.err, result.err
    assert gan(*result.continue_command).code == 0


@pytest.mark.parametrize("given", ["loss=hinge", "optimizer.lr=1", "++model.generator.blocks=3", "batch_size=8"])
def test_what_makes_another_run_is_refused(given: str, original: Path, copied: Callable[..., TrainConfig]) -> None:
    with pytest.raises(ConfigError) as raised:
        copied(given)
    assert given.removeprefix("++") in raised.value.where and "gan-train threads=1 batch_size=8" in raised.value.todo


def test_a_command_that_makes_another_run(gan: Any, original: Path, tmp_path: Path) -> None:
    result = gan("gan-train", "from_run=a", "run_dir=b", "optimizer.lr=1")
    assert result.code == 2 and result.error.where == "optimizer.lr=1" and not (tmp_path / "b").exists()


def test_wrong_values_of_the_command_are_its_own(original: Path, copied: Callable[..., TrainConfig]) -> None:
    with pytest.raises(ConfigError, match=r"\(total_steps\)"):
        copied("total_steps=0")


@pytest.mark.parametrize(
    ("where", "kind", "name"),
    [("nowhere", NotFoundError, "nowhere"), ("empty", NotFoundError, "empty")],
)
def test_what_is_no_run(
    where: str, kind: type[GanError], name: str, original: Path, tmp_path: Path, composed: Callable[..., DictConfig]
) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(kind) as raised:
        Original.read(composed(f"from_run={where}", "run_dir=a"))
    assert raised.value.where == name


CONTENTS = ["", "[]", "a: ${", "a: &x [1]\nb: *x", "model: 3", "model: {}", "\0", "? [a]"]


@pytest.mark.parametrize("content", quick([*CONTENTS, "[" * 50_000], *CONTENTS))
def test_a_config_that_is_none(content: str, tmp_path: Path, composed: Callable[..., DictConfig]) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "config.yaml").write_text(content)
    with pytest.raises(CheckpointError, match=r"\(a(/config.yaml)?\)"):
        Original.read(composed())


def test_a_run_without_a_checkpoint(gan: Any, read: Any, original: Path, tmp_path: Path) -> None:
    shutil.rmtree(original / "checkpoints")
    result = gan("gan-train", "from_run=a", "run_dir=b")
    assert result.code == 0 and "not compared" in result.err
    assert read.rows(tmp_path / "b") == read.rows(original)


def test_a_damaged_run(original: Path, copied: Callable[..., TrainConfig], caplog: pytest.LogCaptureFixture) -> None:
    whole = copied()
    for state in original.glob("checkpoints/*/state.json"):
        state.write_text("{")
    assert replace(copied(), device=whole.device, compile=whole.compile) == whole and "config.yaml" in caplog.text


def notes(found: Original, caplog: pytest.LogCaptureFixture, seed: int = 0) -> list[str]:
    """What a copy on the same machine logs of differences."""
    caplog.clear()
    caplog.set_level("INFO", "gan_cli")
    found.announce(seed, {"threads": 1, "torch": "2"}, found.info.get("data", ""))
    return [record.getMessage() for record in caplog.records if "note: " in record.getMessage()]


def test_a_run_of_an_older_version(original: Path, composed: Any, copied: Any, caplog: pytest.LogCaptureFixture) -> None:
    whole = copied()

    def older(info: dict[str, Any]) -> None:
        for key in ("gif", "max_skipped_updates"):
            del info["config"][key]
        del info["machine"]["processes"]
        del info["versions"]

    change(original, older)
    caplog.set_level("INFO", "gan_cli")
    assert copied() == whole
    assert [key for key in ("gif", "max_skipped_updates") if f"without {key};" in caplog.text] == ["gif", "max_skipped_updates"]
    assert any("gan_cli: None -> " in note for note in notes(Original.read(composed()), caplog))


def test_a_key_that_this_version_does_not_know(original: Path, copied: Callable[..., TrainConfig]) -> None:
    change(original, lambda info: info["config"].update(magic=3))
    with pytest.raises(CheckpointError, match=r"'magic'.*/a, magic\)"):
        copied()


def test_what_differs_is_logged(original: Path, composed: Any, caplog: pytest.LogCaptureFixture) -> None:
    def other(info: dict[str, Any]) -> None:
        info["changes"] = ["from step 2 on optimizer.lr: 0.1 -> 0.2"]
        info["machine"] = {"threads": 1, "torch": "1.0"}

    assert notes(Original.read(composed()), caplog, seed=1)[0].endswith("seed: 0 -> 1")
    change(original, other)
    changed, torch = sorted(notes(Original.read(composed()), caplog))
    assert changed.endswith("from step 2 on optimizer.lr: 0.1 -> 0.2") and torch.endswith("torch: 1.0 -> 2")


@pytest.mark.parametrize(("recorded", "taken"), [(3, 3), (MAX_THREADS, MAX_THREADS), (10**9, None)])
def test_recorded_threads(recorded: int, taken: int | None, original: Path, copied: Callable[..., TrainConfig]) -> None:
    change(original, lambda info: info["machine"].update(threads=recorded))
    assert copied().threads == taken and copied("threads=2").threads == 2


@pytest.mark.slow
def test_text_of_an_untrusted_run_is_printable(gan: Any, original: Path) -> None:
    change(original, lambda info: info["config"].update(deviations=["\x1b]0;x\x07"]))
    result = gan("gan-train", "from_run=a", "run_dir=b", "total_steps=1")
    assert result.code == 0 and "\x1b" not in result.err and "\\x1b" in result.err


def test_other_data_is_refused_unless_allowed(original: Path, composed: Any) -> None:
    change(original, lambda info: info.update(data="0" * 64))
    found = Original.read(composed())
    with pytest.raises(DataError, match=r"\(000000000000 -> aaaaaaaaaaaa\).*allow_change=data"):
        found.refuse_other_data("a" * 64, [])
    found.refuse_other_data("a" * 64, ["data"])
    found.refuse_other_data("0" * 64, [])


@pytest.mark.slow
def test_a_command_with_other_data(gan: Any, original: Path, tmp_path: Path) -> None:
    change(original, lambda info: info.update(data="0" * 64))
    result = gan("gan-train", "from_run=a", "run_dir=b")
    assert result.code == 65 and not (tmp_path / "b").exists()
    result = gan("gan-train", "from_run=a", "run_dir=b", "allow_change=[data]")
    assert result.code == 0 and "data: 0000" in result.err


def test_a_copy_that_differs(gan: Any, original: Path) -> None:
    change(original, lambda info: info["config"]["optimizer"].update(lr=0.01))
    rows = [json.loads(line) for line in (original / "metrics.jsonl").read_text().splitlines()]
    result = gan("gan-train", "from_run=a", "run_dir=b")
    (line,) = (line for line in result.err.splitlines() if "not reproduced" in line)
    assert result.code == 0 and "step 4" in line and str(original) in line and line.endswith(f"step {rows[0]['step']}")


EVIL = {
    "model.task": "os.system",
    "model.generator": "gan_cli.networks.dcgan.torch.load",
    "model.discriminator": "gan_cli.data.download.download",
    "loss": "gan_cli.losses.torch.hub.load",
    "loss.adversarial": "gan_cli.train.main",
    "optimizer": "torch.optim.adam.os.system",
    "optimizer.discriminator": "torch.hub.load",
    "schedule": "builtins.exec",
    "dataset": "gan_cli.data.download.fetch",
    "features": "gan_cli.metrics.weights.find",
}


@pytest.mark.parametrize("part", EVIL)
@pytest.mark.parametrize("checkpoints", [True, False])
def test_an_untrusted_run_names_no_code(
    part: str, checkpoints: bool, original: Path, composed: Callable[..., DictConfig]
) -> None:
    def plant(info: dict[str, Any]) -> None:
        node = info["config"]
        for name in part.split("."):
            node = node[name]
        node["_target_"] = EVIL[part]

    change(original, plant)
    if not checkpoints:
        shutil.rmtree(original / "checkpoints")
    with pytest.raises(UntrustedError) as raised:
        Original.read(composed())
    assert EVIL[part] in raised.value.what and raised.value.where == part and "trust=true" in raised.value.todo


def test_interpolations_and_links_of_an_untrusted_run(gan: Any, original: Path, composed: Any, tmp_path: Path) -> None:
    config = (original / "config.yaml").read_text()
    shutil.rmtree(original / "checkpoints")
    (original / "config.yaml").write_text(config.replace("latent_dim: 100", "latent_dim: ${oc.env:HOME}"))
    assert gan("gan-train", "from_run=a", "run_dir=b").code == 77 and not (tmp_path / "b").exists()
    (original / "config.yaml").unlink()
    os.symlink("/etc/hostname", original / "config.yaml")
    with pytest.raises(UntrustedError, match="config.yaml"):
        Original.read(composed())


@pytest.mark.parametrize(
    ("command", "shown"), [("gan-train x=1; rm -rf ~", "'x=1;' rm"), ("rm -rf ~", "another value"), ("'", "another value")]
)
def test_the_command_of_an_untrusted_run_is_quoted(command: str, shown: str, original: Path, copied: Any) -> None:
    (original / "status.json").write_text(json.dumps({"state": "complete", "command": command}))
    with pytest.raises(ConfigError) as raised:
        copied("batch_size=3")
    assert shown in raised.value.todo and ("rm" in raised.value.todo) == shown.startswith("'x=1;'")


def test_own_classes_need_trust(train: Any, gan: Any, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text("from gan_cli.losses import Hinge\n\n\nclass Mine(Hinge):\n    pass\n")
    train("loss=hinge", "loss.adversarial._target_=own.Mine", "total_steps=2", "run_dir=a")
    assert gan("gan-train", "from_run=a", "run_dir=b").code == 77
    result = gan("gan-train", "from_run=a", "run_dir=b", "trust=true")
    assert result.code == 0 and "reproduced" in result.err, result.err


def test_optimizers_of_torch_are_trusted() -> None:
    from gan_cli.rundir.trust import check_trusted

    own = {"_target_": "torch.optim.RAdam", "discriminator": {"_target_": "torch.optim.Adagrad"}}
    check_trusted({"optimizer": own}, "optimizer")
