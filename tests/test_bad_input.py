"""Every mistake is answered by one line that says what is wrong, where, and what to do, before anything is made."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from .conftest import quick  # type: ignore[import-not-found]

MISTAKES: list[tuple[list[str], str]] = [
    # unknown keys and options
    (["lrr=1"], r"'lrr'.*optimizer\.lr"),
    (["model.generator.widht=4"], r"model\.generator\.widht.*model\.generator\.width"),
    (["+batchsize=3"], r"batchsize.*batch_size"),
    (["+model.generator.widht=4"], r"'widht' \(model\.generator\.widht\).*width"),
    (["+model.critic=4"], r"'critic' \(model\.critic\)"),
    (["+ema.halflife=4"], r"ema\.halflife.*half_life"),
    (["~optimizer.lr"], r"'lr'.*optimizer\.discriminator\.lr"),
    (["~seed"], r"\(seed\)"),
    (["model=dcgn"], r"'dcgn' \(model=dcgn\).*dcgan,.*, mlp,.*dcgan"),
    (["loss=wgan-gp"], r"loss=wgan-gp.*hinge.*wgan_gp"),
    (["dataset=mnst"], r"'mnst'.*mnist"),
    (["experiment=wgan"], r"'wgan'.*wgan_mnist"),
    (["modle=dcgan"], r"modle.*model"),
    # types and ranges
    (["batch_size=eight"], r"'eight'.*>= 1 \(batch_size\)"),
    (["batch_size=0"], r"0.*>= 1 \(batch_size\)"),
    (["batch_size=null"], r"None .*>= 1 \(batch_size\)"),
    (["total_steps=[1,2]"], r"\[1, 2\].*>= 1 \(total_steps\)"),
    (["total_steps=nan"], r"nan .*>= 1 \(total_steps\)"),
    (["log_every=0"], r"0.*>= 1 \(log_every\)"),
    (["threads=0"], r"0.*>= 1.*\(threads\)"),
    (["max_hours=0"], r"0.*> 0.*\(max_hours\)"),
    (["optimizer.lr=nan"], r"nan .*> 0 \(optimizer\.lr\)"),
    (["optimizer.lr=-1"], r"-1.*> 0 \(optimizer\.lr\)"),
    (["optimizer.discriminator.lr=inf"], r"inf .*> 0 \(optimizer\.discriminator\.lr\)"),
    (["optimizer.betas=[0.5,1]"], r"1.*>= 0 and < 1 \(optimizer\.betas\[1\]\)"),
    (["optimizer.betas=[0.5]"], r"a list of 2.* \(optimizer\.betas\)"),
    (["ema.ramp_up=2"], r"2.*>= 0 and <= 1 \(ema\.ramp_up\)"),
    (["model=mlp", "model.generator.hidden=[8,0]"], r"0.*\(model\.generator\.hidden(\[1\])?\)"),
    (["dataset.image_size=3"], r"3.*dataset\.image_size"),
    (["schedule=linear", "schedule.start=1.5"], r"1\.5.*>= 0 and <= 1 \(schedule\.start\)"),
    # choices
    (["device=gpu"], r"'gpu'.*\(device\).*auto,"),
    (["precision=bf61"], r"'bf61'.*\(precision\).*auto, fp32, bf16.*bf16"),
    (["loss.first=nobody"], r"'nobody'.*\(loss\.first\).*discriminator, generator"),
    (["dataset.split=trian"], r"'trian'.*\(dataset\.split\).*train.*train"),
    (["dataset=mnist", "download=1"], r"'download'.*dataset\.download"),
    (["model=cyclegan", "pool=3"], r"'pool'.*model\.task\.pool_size"),
    (["zzzzzzzz=1"], r"The keys there are: (?!.*\bseed\b.*\bseed\b).*seed"),
    # what does not go together
    (["dataset.image_size=28"], r"28.*16 to 256 \(model\.\w+\.image_size, from dataset\.image_size"),
    (["loss=wgan_gp", "model.discriminator.norm=batch"], r"penalty.*batch.*Set model\.discriminator\.norm=layer"),
    (["loss=wgan_gp", "loss.critic_norm=batch"], r"loss\.penalty"),
    (["model.task.num_classes=7"], r"7 classes.*10.*model\.task\.num_classes"),
    (["batch_size=100000"], r"batch_size=100000.*1442 images"),
    # nodes
    (["loss.adversarial._target_=gan_cli.losses.Hing"], r"gan_cli\.losses\.Hing.*loss\.adversarial\._target_.*Hinge"),
    (["loss.adversarial._target_=nowhere.Loss"], r"'nowhere\.Loss'.*loss\.adversarial\._target_"),
    (["loss.adversarial=hinge"], r"loss\.adversarial"),
    (["model.generator=null"], r"model\.generator"),
    (["model.generator.latent_dim=${model.task.latent}"], r"'model\.task\.latent'.*\(model\.generator\.latent_dim\)"),
    (["seed=${seed}"], r"\(seed\)"),
    (["ema.half_life=${ema.ramp_up}", "ema.ramp_up=${ema.half_life}"], r"\(ema\.half_life\)"),
    (["seed=???"], r"\(seed\)\..*seed=VALUE"),
    (["seed=${oc.env:HOME}"], r"\(seed\)"),
    (["batch_size=${model}"], r"characters\).*>= 1 \(batch_size, from model\)"),
    (["optimizer.discriminator=3"], r"3.*\(optimizer\.discriminator\)"),
    (["model.generator._target_=gan_cli"], r"'gan_cli'.*\(model\.generator\._target_\)"),
    (["model.generator._target_=a..b"], r"'a\.\.b'"),
    # Hydra's own
    (["hydra.run.dir=null"], r"hydra\.run\.dir"),
    (["hydra.searchpath=[nowhere]"], r"nowhere is not available"),
    (["hydra.mode=other"], r"'other'.*\(hydra\.mode\)"),
    (["--resolve"], r"--resolve flag can only be used"),
    (["--run", "-m"], r"--run, --multirun"),
    (["--experimental-rerun", "no"], r"command line args are ignored|does not exist"),
    (["-m", "seed=range(1,1e9)"], r"10,000 jobs"),
    (["-m", "seed=" + "0,1," * 50 + "2", "threads=" + "1,2," * 50 + "3"], r"10,000 jobs"),
    # syntax
    (["seed=" + "9" * 5000], r"4300 digits"),
    (["+a=" + "[" * 3000 + "]" * 3000], r"nested too deep"),
    (["@@@"], r"'@@@'"),
    (["optimizer.betas=[0.5"], r"'optimizer\.betas=\[0\.5'"),
    (["total_steps"], r"'total_steps'.*key=value"),
    (["--epochs", "3"], r"--epochs|unrecognized"),
    (["-m", "seed=range(0"], r"'seed=range\(0'"),
    (["--config-dir", "no/such/folder"], r"no/such/folder"),
    (["--config-name", "other"], r"other"),
    # data
    (["dataset=image_folder"], r"\(dataset\.root\)\..*dataset\.root=VALUE"),
    (["dataset=npz"], r"\(dataset\.path\)"),
    (["device=cuda"], r"\(device\).*cpu"),
    (["dataset=npz", "dataset.path=no.npz"], r"no\.npz"),
    (["dataset=image_folder", "dataset.root=no"], r"dataset\.root"),
    (["dataset=mnist", "dataset.root=no", "dataset.download=false"], r"train-images-idx3-ubyte.*dataset=digits"),
]  # fmt: skip
AS_ANOTHER = {  # what make test leaves out: another key or value is wrong in the same way
    *["+batchsize=3", "+ema.halflife=4", "~optimizer.lr", "loss=wgan-gp", "dataset=mnst", "experiment=wgan"],
    *["batch_size=eight", "batch_size=null", "total_steps=nan", "log_every=0", "threads=0", "max_hours=0", "optimizer.lr=-1"],
    *["optimizer.discriminator.lr=inf", "optimizer.betas=[0.5]", "model=mlp model.generator.hidden=[8,0]"],
    *["dataset.image_size=3", "schedule=linear schedule.start=1.5", "device=gpu", "loss.first=nobody", "dataset.split=trian"],
    *["model=cyclegan pool=3", "loss=wgan_gp loss.critic_norm=batch", "model.generator=null", "loss.adversarial=hinge"],
    *["ema.half_life=${ema.ramp_up} ema.ramp_up=${ema.half_life}", "seed=${oc.env:HOME}", "batch_size=${model}"],
    *["model.generator._target_=a..b", "--resolve", "--experimental-rerun no", "hydra.mode=other", "optimizer.betas=[0.5"],
    *["--config-name other", "dataset=npz", "dataset=npz dataset.path=no.npz"],
}
CODES = {"device=cuda": 69, "dataset.path=no.npz": 66, "dataset.root=no": 66}


def answer(result: Any, pattern: str, code: int = 2) -> None:
    assert result.code == code, result
    (line,) = result.err.splitlines()
    assert line.startswith("gan-train: error: ")
    assert re.search(pattern, line), line
    assert line.endswith((".", "?")) and not line.endswith(("..", "?."))
    assert "Traceback" not in result.out


NAMED = {" ".join(args)[:60]: (args, pattern) for args, pattern in MISTAKES}


@pytest.mark.parametrize(("args", "pattern"), quick(NAMED, *[name for name in NAMED if name not in AS_ANOTHER][::2]))
def test_one_line(args: list[str], pattern: str, gan: Any, tmp_path: Path) -> None:
    import torch

    if args == ["device=cuda"] and torch.cuda.is_available():
        pytest.skip("it is available here")
    (code,) = {CODES[a] for a in args if a in CODES} or {2}
    answer(gan("gan-train", "threads=1", "total_steps=1", *args), pattern, code)
    assert list(tmp_path.iterdir()) == []


OWN_FILES = {
    "unknown key": (
        "# @package _global_\nmodel:\n  generator:\n    widht: 4\n", "model=dcgan",
        r"'widht' \(model\.generator\.widht\).*width",
    ),
    "unknown top-level key": ("# @package _global_\nbatchsize: 3\n", "seed=0", r"'batchsize'.*mean: batch_size\?"),
    "unknown option in it": (
        "# @package _global_\ndefaults:\n  - override /loss: hing\n", "seed=0", r"'hing'.*mean: hinge\?",
    ),
    "wrong type": ("# @package _global_\noptimizer:\n  lr: quick\n", "seed=0", r"'quick'.*\(optimizer\.lr\)"),
    "a number YAML takes for text": ("# @package _global_\noptimizer:\n  lr: 2e-4x\n", "seed=0", r"'2e-4x'.*optimizer\.lr"),
    "syntax": ("# @package _global_\nmodel: [1,\nseed: 3\n", "seed=0", r"mine\.yaml.*line \d"),
    "a tab": ("# @package _global_\nmodel:\n\tseed: 3\n", "seed=0", r"mine\.yaml.*line \d"),
    "a list": ("- 1\n- 2\n", "seed=0", r"experiment"),
    "not UTF-8": ("# @package _global_\nrun_dir: \udce9\n", "seed=0", r"'utf-8' codec"),
    "a NUL": ("seed: 3\0\n", "seed=0", r"YAML"),
    "only a number": ("3", "seed=0", r"Invalid loaded object type: int"),
    "code": ("seed: !!python/object/apply:os.system [touch canary]\n", "seed=0", r"mine\.yaml, line 1"),
    "brackets": ("seed: " + "[" * 3000 + "]" * 3000, "seed=0", r"nested too deep"),
    "indents": ("".join(" " * k + "a:\n" for k in range(400)), "seed=0", r"nested too deep"),
    "within itself": ("a: &a\n  b: *a\n", "seed=0", r"nested|itself|configuration"),
    "defaults": ("defaults: [3]\n", "seed=0", r"Unsupported type in defaults"),
    "itself among its defaults": ("defaults: [mine]\n", "seed=0", r"\(configuration\)"),
    "a package of two": ("# @package a b\nseed: 3\n", "seed=0", r"Too many components"),
    "a key of Hydra's": ("# @package _global_\nhydra: {run: 3}\n", "seed=0", r"error.*hydra|experiment/mine"),
    "two keys alike": ("# @package _global_\nseed: 3\nseed: 4\n", "batch_size=8", r"mine\.yaml.*seed|seed.*mine\.yaml"),
}  # fmt: skip


@pytest.mark.parametrize(
    ("text", "arg", "pattern"),
    quick(
        OWN_FILES,
        "unknown key",
        "unknown option in it",
        "wrong type",
        "syntax",
        "not UTF-8",
        "code",
        "indents",
        "within itself",
    ),
)
def test_in_a_file_of_the_users(text: str, arg: str, pattern: str, gan: Any, tmp_path: Path) -> None:
    (tmp_path / "my" / "experiment").mkdir(parents=True)
    (tmp_path / "my" / "experiment" / "mine.yaml").write_text(text, errors="surrogateescape")
    answer(gan("gan-train", "--config-dir", "my", "experiment=mine", arg), pattern)
    assert [p.name for p in tmp_path.iterdir()] == ["my"]


@pytest.mark.parametrize(
    ("body", "pattern"),
    [
        ("raise ValueError('depth must be even')", r"bad_mine\.Loss cannot be built: depth must be even \(loss\.adversarial"),
        ("raise TypeError('depth')", r"bad_mine\.Loss cannot be built: depth \(loss\.adversarial"),
        ("raise RuntimeError('first\\nsecond')", r"bad_mine\.Loss cannot be built: first \(loss\.adversarial"),
    ],
)
def test_constructor_that_refuses(body: str, pattern: str, gan: Any, tmp_path: Path) -> None:
    (tmp_path / "bad_mine.py").write_text(f"class Loss:\n    def __init__(self, depth: int = 3):\n        {body}\n")
    answer(gan("gan-train", "threads=1", "loss.adversarial._target_=bad_mine.Loss"), pattern)
    assert {p.name for p in tmp_path.iterdir()} <= {"bad_mine.py", "__pycache__"}


def test_module_with_an_error_in_it(gan: Any, tmp_path: Path) -> None:
    (tmp_path / "broken_mine.py").write_text("class Loss(\n")
    answer(gan("gan-train", "loss.adversarial._target_=broken_mine.Loss"), r"broken_mine.*loss\.adversarial\._target_")


def test_labels_that_are_not_there(gan: Any, tmp_path: Path, data_root: Path) -> None:
    data = [f"dataset.path={data_root}/unlabelled.npz", "dataset=npz", "batch_size=8", "threads=1"]
    answer(gan("gan-train", *data, "model.task.num_classes=10"), r"the networks take no label")
    assert list(tmp_path.iterdir()) == []


def test_files_that_are_damaged(gan: Any, tmp_path: Path) -> None:
    (tmp_path / "a.npz").write_bytes(b"PK\3\4 nothing of use")
    answer(gan("gan-train", "dataset=npz", "dataset.path=a.npz"), r"not a readable \.npz file", 65)
    np.savez(tmp_path / "b.npz", other=np.zeros(3), more=np.zeros(3))
    answer(gan("gan-train", "dataset=npz", "dataset.path=b.npz"), r"dataset\.images to one of: other", 65)


@pytest.mark.parametrize("run_dir", ["file/run", "/proc/run"])
def test_run_dir_that_cannot_be_made(run_dir: str, gan: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    answer(gan("gan-train", "threads=1", "batch_size=8", f"run_dir={run_dir}"), re.escape(run_dir), 73)
