"""Classes outside the package: one Python file and one YAML are enough, and a run's config is not trusted to name them."""

from __future__ import annotations

import hashlib
import json
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest

from .conftest import quick  # type: ignore[import-not-found]

LOSS = '''
"""A loss of the user's own."""
from torch import Tensor

from gan_cli.losses import Score


class Relativistic(Score):
    uses_real = True

    def __init__(self, margin: float = 1.0):
        self.margin = margin

    def discriminator(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        return (fake_logits - real_logits + self.margin).relu().mean()

    def generator(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        return (real_logits - fake_logits + self.margin).relu().mean()
'''
LOSS_YAML = "defaults: [minimax]\nadversarial:\n  _target_: own_loss.Relativistic\n  margin: 0.5\n"
MODEL = """
from torch import nn


class Generator(nn.Module):
    def __init__(self, latent_dim: int, image_size: int):
        super().__init__()
        self.size = image_size
        self.layer = nn.Linear(latent_dim, image_size**2)

    def forward(self, z, label=None):
        return self.layer(z).tanh().view(-1, 1, self.size, self.size)


class Discriminator(nn.Module):
    def __init__(self, image_size: int):
        super().__init__()
        self.layer = nn.Linear(image_size**2, 1)

    def forward(self, images, label=None):
        return self.layer(images.flatten(1))[:, 0]
"""
MODEL_YAML = """
# @package _global_
model:
  task: {_target_: gan_cli.tasks.noise.NoiseToImage, latent_dim: 4}
  generator: {_target_: own_model.Generator, latent_dim: "${model.task.latent_dim}", image_size: "${dataset.image_size}"}
  discriminator: {_target_: own_model.Discriminator, image_size: "${dataset.image_size}"}
"""
RADAM_YAML = "_target_: torch.optim.RAdam\nlr: 1.0e-3\nbetas: [0.5, 0.9]\n"


@pytest.fixture
def own(tmp_path: Path) -> Path:
    (tmp_path / "own_loss.py").write_text(LOSS)
    (tmp_path / "own_model.py").write_text(MODEL)
    for group, name, text in (
        ("loss", "relativistic", LOSS_YAML),
        ("model", "linear", MODEL_YAML),
        ("optimizer", "radam", RADAM_YAML),
    ):
        (tmp_path / "my" / group).mkdir(parents=True)
        (tmp_path / "my" / group / f"{name}.yaml").write_text(text)
    return tmp_path


def npz(folder: Path) -> bytes:
    import numpy as np

    with np.load(folder / "samples.npz") as file:
        return file["arr_0"].tobytes()


def test_loss(own: Path, train: Any, gan: Any, read: Any) -> None:
    command = ["--config-dir", "my", "loss=relativistic", "total_steps=3", "log_every=1"]
    train(*command, "run_dir=whole")
    train(*command, "run_dir=r", "max_hours=1e-9", code=75)
    result = train(*command, "run_dir=r")
    read.assert_same(own / "whole", own / "r")
    assert {"d/loss", "d/real", "d/fake", "g/loss"} <= read.rows(own / "r")[-1].keys()
    assert "trust" not in result.err, "only the generator's code is needed to sample"
    (own / "own_loss.py").unlink()
    assert gan("gan-sample", "run_dir=r").code == 0


def test_model(own: Path, train: Any, gan: Any, read: Any) -> None:
    command = ["--config-dir", "my", "model=linear", "total_steps=3"]
    train(*command, "run_dir=whole", tiny="own")
    train(*command, "run_dir=r", "max_hours=1e-9", tiny="own", code=75)
    result = train(*command, "run_dir=r", tiny="own")
    read.assert_same(own / "whole", own / "r")

    refused = gan("gan-sample", "run_dir=r", "output=out")
    assert refused.code == 77
    (line,) = refused.err.splitlines()
    assert line.startswith("gan-sample: error: ") and "own_model.Generator" in line and "trust=true" in line
    assert not (own / "out").exists()

    (next_command,) = (x.split("next:", 1)[1] for x in result.err.splitlines() if x.startswith("next:"))
    assert "trust=true" in next_command
    assert gan(*shlex.split(next_command)).code == 0
    assert (own / "r" / "generated" / "step-00000003-seed0" / "grid.png").exists()


@pytest.mark.slow
def test_the_printed_command_keeps_the_config_dir(own: Path, train: Any, gan: Any, read: Any) -> None:
    result = train(
        "--config-dir", "my", "model=linear", "loss=relativistic", "total_steps=2", "max_hours=1e-9", tiny="own", code=75
    )
    assert "--config-dir" in result.continue_command
    (run_dir,) = (own / "outputs").iterdir()
    assert gan(*result.continue_command).code == 0
    assert read.steps(run_dir)[-1] == 2


@pytest.mark.slow
def test_optimizer_of_torch(own: Path, train: Any, gan: Any, read: Any) -> None:
    command = ["--config-dir", "my", "optimizer=radam", "total_steps=3"]
    train(*command, "run_dir=whole")
    for code in (75, 75):
        train(*command, "run_dir=r", "max_hours=1e-9", code=code)
    train(*command, "run_dir=r")
    read.assert_same(own / "whole", own / "r")
    assert gan("gan-sample", "run_dir=r").code == 0


@pytest.mark.parametrize(
    ("args", "pattern"),
    [
        (["model=linear", "model.generator.latent_dim=x"], "model.generator.latent_dim"),
        (["loss=relativistic", "loss.adversarial.margin=wide"], "'wide' is not a number (loss.adversarial.margin)"),
        (["loss=relativistic", "+loss.adversarial.margn=1"], "Did you mean: margin?"),
        (["loss=relativistc"], "Did you mean: relativistic?"),
    ],
)
def test_mistakes_in_own_classes_are_answered_alike(own: Path, args: list[str], pattern: str, gan: Any) -> None:
    result = gan("gan-train", "--config-dir", "my", *args)
    assert result.code == 2
    (line,) = result.err.splitlines()
    assert pattern in line


# A run directory from somebody else


def put(run: Path, path: str, value: Any) -> None:
    """Change the config in every checkpoint, and the manifests so that they verify."""
    for folder in (run / "checkpoints").iterdir():
        state = json.loads((folder / "state.json").read_text())
        *parents, last = path.split(".")
        node = state["config"]
        for part in parents:
            node = node[part]
        node[last] = value
        content = json.dumps(state).encode()
        (folder / "state.json").write_bytes(content)
        manifest = json.loads((folder / "manifest.json").read_text())
        manifest["files"]["state.json"] = [len(content), hashlib.sha256(content).hexdigest()]
        (folder / "manifest.json").write_text(json.dumps(manifest))


CREATE = "${oc.create:'{_target_: hostile.act}'}"
HOSTILE: dict[str, tuple[str, Any]] = {
    "os.system": ("model.generator", {"_target_": "os.system", "command": "touch pwned"}),
    "through gan_cli": ("model.generator", {"_target_": "gan_cli.rundir.reload.os.system", "command": "touch pwned"}),
    "exec": ("model.task", {"_target_": "builtins.exec", "_args_": ["open('pwned', 'w')"]}),
    "through torch.optim": ("model.generator", {"_target_": "torch.optim.lr_scheduler.types.FunctionType"}),
    "nested": ("model.generator.width", {"_target_": "hostile.act"}),
    "in a list": ("model.generator.width", [{"_target_": "hostile.act"}]),
    "positional": (
        "model.generator",
        {"_target_": "gan_cli.networks.dcgan.Generator", "_args_": [{"_target_": "hostile.act"}]},
    ),
    "own file": ("model.generator", {"_target_": "hostile.act"}),
    "an eval of ours": ("model.generator", {"_target_": "gan_cli.config.schema._type", "annotation": "open('pwned', 'w')"}),
    "an import of ours": ("model.generator", {"_target_": "gan_cli.config.schema.parameters", "target": "hostile.act"}),
    "a helper of ours": ("model.generator", {"_target_": "gan_cli.rundir.directory.make", "run_dir": "pwned"}),
    "interpolation": ("model.generator.width", CREATE),
    "interpolation in the task": ("model.task.latent_dim", CREATE),
    "interpolated target": ("model.generator._target_", "${oc.decode:hostile.act}"),
    "a target that is no text": ("model.generator._target_", ["hostile.act"]),
}


@pytest.mark.parametrize(("path", "value"), quick(HOSTILE, *list(HOSTILE)[::3]))
def test_hostile_config_is_not_executed(path: str, value: Any, trained: Path, tmp_path: Path, gan: Any) -> None:
    (tmp_path / "hostile.py").write_text("open('pwned', 'w')\n\ndef act(**_): pass\n")
    shutil.copytree(trained, tmp_path / "run", ignore=shutil.ignore_patterns("generated"))
    put(tmp_path / "run", path, value)
    result = gan("gan-sample", "run_dir=run", "threads=1")
    assert not (tmp_path / "pwned").exists()
    assert result.code == 77, result.err
    (line,) = result.err.splitlines()
    assert line.startswith("gan-sample: error: ")
    assert not (tmp_path / "run" / "generated").exists()


def test_hostile_config_is_not_executed_by_training(trained: Path, tmp_path: Path, train: Any) -> None:
    shutil.copytree(trained, tmp_path / "run")
    put(tmp_path / "run", "model.generator", {"_target_": "os.system", "command": "touch pwned"})
    result = train("total_steps=9", "run_dir=run", code=2)
    assert "model.generator._target_" in result.errors[0]
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("return z.tanh().view(-1, 1, 2, 2)", r"makes \(2, 1, 2, 2\), the data set has \(2, 1, 32, 32\)"),
        ("return z @ z", "fails on .2, 4.: RuntimeError"),
    ],
)
def test_a_generator_with_a_mistake_is_one_line(own: Path, gan: Any, body: str, message: str) -> None:
    head = "from torch import nn\nclass G(nn.Linear):\n    def __init__(self, **kwargs): super().__init__(4, 4)\n"
    (own / "wrong_model.py").write_text(f"{head}    def forward(self, z): {body}\n")
    wrong = ["model.task.latent_dim=4", "model.generator._target_=wrong_model.G"]
    result = gan("gan-train", *wrong, "total_steps=1", "threads=1")
    assert result.code == 2 and len(result.err.splitlines()) == 1, result
    assert re.search(message, result.err), result.err
    assert not (own / "outputs").exists()


COPIED = quick(["model=dcgan", "loss=wgan_gp", "optimizer=adam", "dataset=digits"], "model=dcgan", "dataset=digits")


@pytest.mark.parametrize("option", COPIED)
def test_a_copied_option_trains_as_it_is_and_is_never_overwritten(option: str, tmp_path: Path, gan: Any) -> None:
    assert gan("gan-train", "--copy", option, ".").code == 0
    group, _, name = option.partition("=")
    tiny = ["total_steps=1", "batch_size=4", "threads=1", "run_dir=r"]
    assert gan("gan-train", "--config-dir", "conf", f"{group}=my_{name}", *tiny).code == 0
    assert f"my_{name}" in (tmp_path / "r" / "config.yaml").read_text()
    (tmp_path / f"my_{name}.py").write_text("mine")
    refused = gan("gan-train", "--copy", option, ".")
    assert refused.code == 73
    assert refused.error.where == f"my_{name}.py"
    assert (tmp_path / f"my_{name}.py").read_text() == "mine"


@pytest.mark.parametrize("words", [[], ["model=dcgan"], ["model=dcgn", "."], ["modle=dcgan", "."], ["optimizer=ttur", "."]])
def test_what_cannot_be_copied(words: list[str], gan: Any) -> None:
    assert gan("gan-train", "--copy", *words).code == 2
