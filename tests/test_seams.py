"""The seams for what comes: each is used by a small class outside the package, one Python file and one YAML."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gan_cli.compute import layers
from gan_cli.losses import NonSaturating
from gan_cli.objective import Critic, DiscriminatorPass, GeneratorPass, Objective, Regulariser, Turn
from gan_cli.penalties import R1, GradientPenalty
from gan_cli.schedules import Constant, Ramp
from gan_cli.tasks.noise import NoiseToImage
from gan_cli.training.ema import EMA
from gan_cli.training.loop import Player, Progress, train

N, DIM = 4, 3


class Generator(nn.Module):
    """Latents, and labels if there are any, to images of 4 x 4."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.classes = nn.Linear(DIM, 16), nn.Embedding(5, 16)

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        return torch.tanh(self.layer(z) + (0 if label is None else self.classes(label))).view(-1, 1, 4, 4)


class Discriminator(nn.Module):
    """Keeps what it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.layers, self.given = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.Tanh(), nn.Linear(8, 1)), list[Any]()

    def forward(self, images: Tensor, label: Tensor | None = None) -> Tensor:
        self.given.append((images.detach().clone(), label))
        return self.layers(images)[:, 0]


class Images:
    """The same batch of images and labels again and again."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(1)
        self.batch = {"image": torch.rand(N, 1, 4, 4, generator=generator) * 2 - 1, "label": torch.tensor([0, 0, 1, 1])}
        self.position = 0

    def __next__(self) -> dict[str, Tensor]:
        self.position += N
        return self.batch


def make_game(objective: Objective, discriminator: nn.Module | None = None, **options: Any) -> SimpleNamespace:
    torch.manual_seed(0)
    settings = options.pop("settings", {})
    half_life = options.pop("half_life", 0.0)
    networks = {"generator": options.pop("generator", None) or Generator(), "discriminator": discriminator or Discriminator()}
    task = NoiseToImage(**networks, objective=objective, latent_dim=DIM, **options)
    players = {
        name: Player(name, task, network, torch.optim.Adam(network.parameters(), lr=0.01), Constant(), settings)  # type: ignore[arg-type]
        for name, network in networks.items()
    }
    return SimpleNamespace(task=task, **players, ema=EMA(task.generator, half_life), batches=Images(), progress=Progress())


def run(game: SimpleNamespace, steps: int) -> list[dict[str, float]]:
    """The logs of each step."""
    rows = []

    def keep(logs: dict[str, Tensor]) -> bool:
        rows.append({key: float(value) for key, value in logs.items()})
        return True

    train(game, total_steps=game.progress.step + steps, seed=3, after_step=keep)
    return rows


def gradient(loss: Tensor, network: nn.Module) -> Tensor:
    return torch.cat(
        [g.flatten() for g in torch.autograd.grad(loss, list(network.parameters()), allow_unused=True) if g is not None]
    )


# Regularisers


class Drift(Regulariser):
    """The square of D's logits on real images (Karras et al. 2018, appendix A.1)."""

    def forward(self, seen: DiscriminatorPass) -> Tensor:
        return seen.real.logits.square().mean()


class Spread(Regulariser):
    """How much images of neighbouring latents are alike: a term of G."""

    player = "generator"

    def forward(self, seen: GeneratorPass) -> Tensor:
        (z,) = seen.inputs
        again = seen.generator(z)
        assert torch.equal(again, seen.images) and seen.fake.logits.shape == (len(z),)
        return -(again - again.flip(0)).abs().mean()


def test_several_regularisers_on_both_players_are_logged_by_name() -> None:
    terms = {"drift": Drift(0.5), "r1": R1(2.0, every=3), "spread": Spread(0.1, every=2)}
    rows = run(make_game(Objective(NonSaturating(), GradientPenalty(), regularisers=terms)), 6)
    names = [{key for key in row if key.split("/")[1] in ("penalty", "drift", "r1", "spread")} for row in rows]
    always = {"d/penalty", "d/drift"}
    assert names == [
        always | {"d/r1", "g/spread"},
        always,
        always | {"g/spread"},
        always | {"d/r1"},
        always | {"g/spread"},
        always,
    ]


def test_a_lazy_regulariser_is_as_much_stronger_as_it_is_rarer() -> None:
    game = make_game(Objective(NonSaturating(), regularisers={"drift": Drift(0.5, every=4)}))
    task, batch = game.task, game.batches.batch
    made = task.prepare(batch, "discriminator", None)
    without, _ = task.discriminator_loss(batch, made, task.objective.turn(1, N, torch.device("cpu")))
    due, logs = task.discriminator_loss(batch, made, task.objective.turn(4, 4 * N, torch.device("cpu")))
    torch.testing.assert_close(due - without, 4 * logs["d/drift"])
    torch.testing.assert_close(logs["d/drift"], 0.5 * task.discriminator(batch["image"]).square().mean())


def test_a_weight_follows_the_images_seen() -> None:
    objective = Objective(NonSaturating(), regularisers={"drift": Drift(Ramp(2.0, 0.0, images=4 * N, shape="linear"))})
    weights = [float(objective.turn(step, step * N, torch.device("cpu")).weights["drift"]) for step in range(6)]
    assert weights == [2.0, 1.5, 1.0, 0.5, 0.0, 0.0]
    rows = run(make_game(objective), 6)
    assert rows[0]["d/drift"] > 0 and rows[4]["d/drift"] == rows[5]["d/drift"] == 0


@pytest.mark.parametrize("every", [1, 16])
def test_r1_on_the_logits_of_the_loss_is_r1_with_a_pass_of_its_own(every: int) -> None:
    game = make_game(Objective(NonSaturating(), regularisers={"r1": R1(10.0, every)}))
    task, image = game.task, game.batches.batch["image"]
    critic, fake, turn = Critic(task.discriminator), torch.rand(N, 1, 4, 4), task.objective.turn(0, 0, image.device)
    task.discriminator.given.clear()
    loss, logs = task.objective.discriminator_loss(critic, image, fake, turn)
    assert [len(images) for images, _ in task.discriminator.given] == [N, N], "no further pass of D"
    x = image.clone().requires_grad_(True)
    (slope,) = torch.autograd.grad(task.discriminator(x).sum(), x, create_graph=True)
    r1 = 10.0 / 2 * slope.square().sum((1, 2, 3)).mean()
    plain = NonSaturating().discriminator(task.discriminator(image), task.discriminator(fake))
    torch.testing.assert_close(logs["d/r1"], r1)
    torch.testing.assert_close(gradient(loss, task.discriminator), gradient(plain + every * r1, task.discriminator))
    assert not image.requires_grad


class Mean(Regulariser):
    """A term with a state: the distance of the mean logit from its running mean."""

    def __init__(self) -> None:
        super().__init__(1.0)
        self.register_buffer("running", torch.zeros(()))

    def forward(self, seen: DiscriminatorPass) -> Tensor:
        mean = seen.real.logits.mean()
        self.running.lerp_(mean.detach(), 0.5)
        return (mean - self.running).square()


def test_the_state_of_a_regulariser_is_state_of_the_run() -> None:
    game = make_game(Objective(NonSaturating(), regularisers={"mean": Mean()}))
    run(game, 2)
    assert float(game.task.state_dict()["objective.regularisers.mean.running"]) != 0


# Augmentation

AUGMENT = '''
"""An augmentation of the user's own."""
import torch
from torch import nn


class Scale(nn.Module):
    """Multiply images, each by a factor of its own, with a strength that follows D."""

    def __init__(self, step: float = 0.25):
        super().__init__()
        self.step = step
        self.register_buffer("strength", torch.zeros(()))

    def forward(self, images):
        factor = 1 - self.strength * torch.rand(len(images[0]), 1, 1, 1)
        return [each * factor for each in images]

    def after_discriminator(self, logs):
        self.strength.add_(self.step)
        return {"d/augment_strength": self.strength.clone()}
'''


@pytest.fixture
def scale(tmp_path: Path) -> list[str]:
    """Flags that train with the augmentation above."""
    (tmp_path / "own_augment.py").write_text(AUGMENT)
    (tmp_path / "my" / "augment").mkdir(parents=True)
    (tmp_path / "my" / "augment" / "scale.yaml").write_text("_target_: own_augment.Scale\nstep: 0.125\n")
    return ["--config-dir", "my", "augment=scale"]


def test_an_augmentation_is_one_file_and_one_yaml(scale: list[str], train: Any, read: Any, gan: Any, tmp_path: Path) -> None:
    every = ["save_every=2", "log_every=1", "sample_every=4"]
    train(*scale, *every, "total_steps=4", "run_dir=whole")
    assert [row["d/augment_strength"] for row in read.rows(tmp_path / "whole")] == [0.125, 0.25, 0.375, 0.5]
    assert all(-1 <= row["d/real_sign"] <= 1 for row in read.rows(tmp_path / "whole"))
    assert read.tensors(tmp_path / "whole", 2)["task.objective.augment.strength"] == 0.25
    train(*scale, *every, "total_steps=2", "run_dir=hops")
    train(*scale, *every, "total_steps=4", "run_dir=hops")
    read.assert_same_weights(tmp_path / "whole", tmp_path / "hops")
    train(*every, "total_steps=4", "run_dir=plain")
    with pytest.raises(AssertionError):
        read.assert_same_weights(tmp_path / "whole", tmp_path / "plain")
    assert gan("gan-sample", "run_dir=whole", "num_samples=4").code == 0, "sampling needs no augmentation of the user's own"


class Shift(nn.Module):
    """Add to images, and remember by how much: for what D sees."""

    def __init__(self) -> None:
        super().__init__()
        self.shifts: list[Tensor] = []

    def forward(self, images: Sequence[Tensor]) -> list[Tensor]:
        self.shifts.append(torch.rand(len(images[0]), 1, 1, 1) + 1)
        return [each + self.shifts[-1] for each in images]


def test_real_and_generated_images_are_augmented_by_draws_of_their_own_and_g_learns_through_it() -> None:
    shift = Shift()
    game = make_game(Objective(NonSaturating(), augment=shift))
    task, batch = game.task, game.batches.batch
    made = task.prepare(batch, "generator", None)
    task.discriminator_loss(batch, made, Turn())
    ((seen, _),) = task.discriminator.given
    torch.testing.assert_close(seen, torch.cat([batch["image"], made["fake"].detach()]) + torch.cat(shift.shifts))
    assert not torch.equal(*shift.shifts)
    loss, _ = task.generator_loss(batch, made, Turn())
    assert gradient(loss, task.generator).abs().sum() > 0
    before = len(shift.shifts)
    task.draw(task.generator, made["z"], None)
    assert len(shift.shifts) == before, "samples are never augmented"


def test_a_source_moves_with_its_target() -> None:
    shift, seen = Shift(), []

    def pairs(images: Tensor, source: Tensor) -> Tensor:
        seen.append((images, source))
        return images.flatten(1).sum(1)

    source, target, fake = torch.zeros(N, 3, 4, 4), torch.zeros(N, 1, 4, 4), torch.zeros(N, 1, 4, 4)
    critic = Critic(pairs, (source,), (source,), shift)
    real, generated = critic.both(target, fake)
    ((images, sources),) = seen
    for k in range(N * 2):
        assert images[k].unique().tolist() == sources[k].unique().tolist()
    assert real.images is target and not torch.equal(real.seen, generated.seen)
    torch.testing.assert_close(critic(target), torch.zeros(N)), "interpolates are not augmented again"


def test_r1_goes_through_the_augmentation() -> None:
    class Halve(nn.Module):
        def forward(self, images: Sequence[Tensor]) -> list[Tensor]:
            return [each * 0.5 for each in images]

    game = make_game(Objective(NonSaturating(), regularisers={"r1": R1(2.0)}, augment=Halve()))
    task, image = game.task, game.batches.batch["image"]
    critic = Critic(task.discriminator, augment=task.objective.augment)
    _, logs = task.objective.discriminator_loss(critic, image, image.flip(0), Turn(("r1",)))
    x = image.clone().requires_grad_(True)
    (slope,) = torch.autograd.grad(task.discriminator(x * 0.5).sum(), x)
    torch.testing.assert_close(logs["d/r1"], slope.square().sum((1, 2, 3)).mean())


# A critic with labels of both kinds, and more than logits


def test_real_and_generated_images_have_labels_of_their_own() -> None:
    game = make_game(Objective(NonSaturating()), num_classes=5, fake_labels="uniform")
    task, batch = game.task, game.batches.batch
    torch.manual_seed(5)
    made = task.prepare(batch, "discriminator", None)
    assert not torch.equal(made["label"], batch["label"])
    task.discriminator_loss(batch, made, Turn())
    ((_, labels),) = task.discriminator.given
    assert torch.equal(labels, torch.cat([batch["label"], made["label"]]))
    alike = make_game(Objective(NonSaturating()), num_classes=5).task
    assert torch.equal(alike.prepare(batch, "discriminator", None)["label"], batch["label"])


class Auxiliary(nn.Module):
    """D of AC-GAN (Odena et al. 2017): logits, and scores of classes beside them."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(16, 6))

    def forward(self, images: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        made = self.layers(images)
        return made[:, 0], made[:, 1:]


class Classes(Regulariser):
    """Cross entropy of the classes that D gives: of real and generated images in D's turn, of generated ones in G's."""

    def __init__(self, weight: float = 1.0, player: str = "discriminator") -> None:
        super().__init__(weight)
        self.player = player

    def forward(self, seen: DiscriminatorPass | GeneratorPass) -> Tensor:
        kinds = [seen.fake] if isinstance(seen, GeneratorPass) else [seen.real, seen.fake]
        return sum(nn.functional.cross_entropy(kind.extra[0], kind.condition[0]) for kind in kinds)


def test_a_discriminator_may_return_more_than_logits() -> None:
    terms = {"classes": Classes(), "fake_classes": Classes(player="generator")}
    game = make_game(Objective(NonSaturating(), regularisers=terms), Auxiliary(), num_classes=5)
    rows = run(game, 60)
    assert rows[-1]["d/classes"] < rows[0]["d/classes"] - 0.5 and rows[-1]["g/fake_classes"] < rows[0]["g/fake_classes"]
    real, fake = game.task.score(game.batches.batch)
    assert real.shape == fake.shape == (N,)


# Schedules


def test_learning_rate_betas_and_half_life_follow_the_images_seen() -> None:
    settings = {"lr": Ramp(0.4, 0.0, 4 * N, "linear"), "betas": Ramp([0.0, 0.9], [0.5, 0.99], 2 * N, "linear")}
    game = make_game(Objective(NonSaturating()), settings=settings, half_life=Ramp(0.0, 100.0, 4 * N, "linear"))
    seen = []
    follow = game.generator.follow_schedules

    def watched(step: int, images: int) -> None:
        follow(step, images)
        (group,) = game.generator.optimizer.param_groups
        seen.append((group["lr"], [round(beta, 4) for beta in group["betas"]]))

    game.generator.follow_schedules = watched
    run(game, 5)
    assert [round(lr, 6) for lr, _ in seen] == [0.4, 0.3, 0.2, 0.1, 0.0]
    assert [betas for _, betas in seen[:3]] == [[0.0, 0.9], [0.25, 0.945], [0.5, 0.99]]
    assert not torch.equal(game.ema.average.layer.weight, game.generator.network.layer.weight), "half-life is above 0 by now"


@pytest.mark.parametrize(("shape", "middle"), [("linear", 0.5), ("cosine", 0.5)])
def test_a_ramp_begins_ends_and_stays(shape: Any, middle: float) -> None:
    ramp = Ramp(1.0, 0.0, 100, shape)
    assert [ramp(0), pytest.approx(ramp(50)), ramp(100), ramp(1000)] == [1.0, middle, 0.0, 0.0]
    assert (ramp(25) > 0.76) == (shape == "cosine")


def test_schedules_are_nodes_of_the_config(train: Any, read: Any, tmp_path: Path) -> None:
    ramp = "{_target_: gan_cli.schedules.Ramp, start: 10, end: 0, images: 16, shape: linear}"
    half_life = ramp.replace("10", "0").replace("end: 0", "end: 64")
    args = ["loss=r1", f"loss.regularisers.r1.gamma={ramp}", f"ema.half_life={half_life}", "log_every=1", "run_dir=r"]
    train(*args, f"optimizer.lr={ramp.replace('10', '0.001')}", "total_steps=4")
    rows = read.rows(tmp_path / "r")
    assert rows[0]["d/r1"] > 0 and rows[3]["d/r1"] == 0
    weights = [read.tensors(tmp_path / "r", 4)]
    assert any(
        (weights[0][f"generator.{k.partition('.')[2]}"] != v).any()
        for k, v in weights[0].items()
        if k.startswith("generator_ema.")
    )


@pytest.mark.parametrize(
    ("argument", "key"),
    [
        ("loss.regularisers.r1.gamma=-1", "loss.regularisers.r1.gamma"),
        ("loss.regularisers.r1.gama=1", "loss.regularisers.r1.gama"),
        ("loss.regularisers.r1.every=0", "loss.regularisers.r1.every"),
        ("loss.critic_norm=batch", "loss.regularisers.r1"),
        ("+loss.regularisers.r3={_target_: gan_cli.penalties.R3}", "loss.regularisers.r3"),
        ("loss.regularisers.r1.gamma={_target_: gan_cli.schedules.Ramp, start: 1}", "loss.regularisers.r1.gamma"),
        ("augment=rotate", "augment=rotate"),
    ],
)
def test_mistakes_name_the_key(train: Any, argument: str, key: str, tmp_path: Path) -> None:
    (line,) = train("loss=r1", argument, "total_steps=1", "run_dir=r", code=2).errors
    assert key in line and not (tmp_path / "r").exists()


# A generator with a mapping network

STYLE = '''
"""A style-based generator of the user's own."""
import torch
from torch import nn


class Generator(nn.Module):
    """z -> w -> image, two layers that may have different w in training, and the running mean of w."""

    synchronised = ("w_avg",)

    def __init__(self, latent_dim: int, image_size: int):
        super().__init__()
        self.mapping, self.size = nn.Linear(latent_dim, 8), image_size
        self.first, self.second = nn.Linear(8, 16), nn.Linear(8 + 16, image_size**2)
        self.register_buffer("w_avg", torch.zeros(8))

    def forward(self, z, *, truncation: float = 1.0):
        w = self.mapping(z)
        other = w
        if self.training:
            other = torch.where(torch.rand(len(z), 1) < 0.9, self.mapping(torch.randn_like(z)), w)
            if not torch.is_grad_enabled():  # in the turn of D
                self.w_avg.lerp_(w.detach().mean(0), 0.5)
        w, other = (self.w_avg.lerp(each, truncation) for each in (w, other))
        h = torch.tanh(self.first(w))
        return torch.tanh(self.second(torch.cat([h, other], 1))).view(-1, 1, self.size, self.size)
'''
STYLE_YAML = """
# @package _global_
model:
  task: {_target_: gan_cli.tasks.noise.NoiseToImage, latent_dim: 4}
  generator: {_target_: own_style.Generator, latent_dim: 4, image_size: "${dataset.image_size}"}
  discriminator:
    _target_: gan_cli.networks.mlp.Discriminator
    image_size: ${dataset.image_size}
    channels: ${dataset.channels}
    hidden: [8]
"""


PIXELS = """
from torch import nn


class Pixels(nn.Module):
    value_range = (0, 1)

    def forward(self, images):
        return images.flatten(1)[:, ::16]
"""


@pytest.fixture
def style(tmp_path: Path, train: Any) -> Path:
    """A run of a style-based generator."""
    (tmp_path / "own_style.py").write_text(STYLE)
    (tmp_path / "my" / "model").mkdir(parents=True)
    (tmp_path / "my" / "model" / "style.yaml").write_text(STYLE_YAML)
    train("--config-dir", "my", "model=style", "total_steps=4", "save_every=2", "run_dir=r", tiny="own")
    return tmp_path / "r"


def test_a_mapping_network_is_one_file_and_one_yaml(style: Path, read: Any) -> None:
    early, late = (read.tensors(style, step) for step in (2, 4))
    assert (late["generator.w_avg"] != 0).all() and (late["generator.w_avg"] != early["generator.w_avg"]).any()
    assert (late["generator_ema.w_avg"] == late["generator.w_avg"]).all()


def test_truncation_reaches_the_generator_and_the_protocol(style: Path, gan: Any, tmp_path: Path) -> None:
    images = {}
    for psi in ("null", "1", "0.5", "0"):
        args = ["run_dir=r", "num_samples=8", "formats=[npz]", "trust=true", f"truncation={psi}", f"output=psi{psi}"]
        assert gan("gan-sample", *args).code == 0
        images[psi] = np.load(tmp_path / f"psi{psi}" / "samples.npz")["arr_0"].astype(float)
    assert (images["null"] == images["1"]).all() and (images["1"] != images["0.5"]).any()
    assert images["0"].std(0).max() == 0 < images["0.5"].std(0).mean() < images["1"].std(0).mean(), "0 gives the mean image"
    (tmp_path / "own_pixels.py").write_text(PIXELS)
    features = "features={_target_: own_pixels.Pixels}"
    args = ["run_dir=r", "metrics=[kid]", "num_samples=16", "num_real=16", "trust=true", features]
    assert gan("gan-eval", *args).code == gan("gan-eval", *args, "truncation=0.5").code == 0
    results = [json.loads(path.read_text())["protocol"] for path in (style / "evaluations").glob("*.json")]
    assert sorted(str(result.get("truncation")) for result in results) == ["0.5", "None"]
    assert gan("gan-sample", "run_dir=r", "trust=true", "truncation=0.7").code == 0
    assert any("truncation0.7" in path.name for path in (style / "generated").iterdir())


@pytest.mark.parametrize("program", ["gan-sample", "gan-eval"])
def test_a_generator_without_truncation_says_so(program: str, trained: Path, gan: Any) -> None:
    result = gan(program, f"run_dir={trained}", "truncation=0.5")
    assert result.code == 2 and "truncation=0.5" in result.errors[0]


# Facts that layers declare


class Deviation(nn.Module):
    """Minibatch standard deviation (Karras et al. 2018, section 3), as a layer of one's own."""

    mixes_samples = True

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, x.std(0).mean().expand(len(x), 1)], 1)


def test_a_minibatch_statistic_never_mixes_real_and_generated_images() -> None:
    critic = Discriminator()
    critic.layers = nn.Sequential(nn.Flatten(), Deviation(), nn.Linear(17, 1))
    game = make_game(Objective(NonSaturating()), critic)
    run(game, 1)
    game.task.score(game.batches.batch)
    assert [len(images) for images, _ in critic.given] == [N, N, N, N, N]
    assert layers.mixing(critic) == ["layers.1"]


def test_a_penalty_per_sample_is_refused_beside_a_layer_that_mixes(train: Any, tmp_path: Path) -> None:
    (tmp_path / "own_critic.py").write_text(
        "import torch\nfrom torch import nn\n\n\nclass Discriminator(nn.Module):\n    mixes_samples = True\n\n"
        "    def __init__(self):\n        super().__init__()\n        self.layer = nn.LazyLinear(1)\n\n"
        "    def forward(self, x):\n        return self.layer(x.flatten(1) - x.flatten(1).mean(0))\n"
    )
    (tmp_path / "my" / "model").mkdir(parents=True)
    text = "# @package _global_\nmodel:\n  task: {_target_: gan_cli.tasks.noise.NoiseToImage, latent_dim: 4}\n"
    text += "  generator: {_target_: gan_cli.networks.mlp.Generator, latent_dim: 4, image_size: 32, channels: 1, hidden: [8]}\n"
    text += "  discriminator: {_target_: own_critic.Discriminator}\n"
    (tmp_path / "my" / "model" / "mean.yaml").write_text(text)
    (line,) = train("--config-dir", "my", "model=mean", "loss=r1", "total_steps=1", tiny="own", code=2).errors
    assert "loss.regularisers.r1" in line and "model.discriminator" in line


class Noisy(nn.Module):
    """A generator with noise inputs that stay on when it is used."""

    random_in_eval = True

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(DIM, 16)

    def forward(self, z: Tensor, *, strength: float = 1.0) -> Tensor:
        return torch.tanh(self.layer(z) + strength * torch.randn(len(z), 16)).view(-1, 1, 4, 4)


def test_sample_k_does_not_depend_on_the_batch_whatever_is_random_in_a_layer() -> None:
    task = make_game(Objective(NonSaturating()), generator=Noisy()).task
    assert not task.repeats
    task.eval()
    z = task.latents(0, 0, 6)
    with torch.no_grad():
        whole = task.draw(task.generator, z, None, seed=1)
        parts = [task.draw(task.generator, z[k : k + 2], None, seed=1, start=k) for k in (0, 2, 4)]
        quiet = task.draw(task.generator, z, None, seed=1, strength=0.0)
    assert torch.equal(whole, torch.cat(parts)) and not torch.equal(whole, quiet)
    torch.testing.assert_close(quiet, torch.tanh(task.generator.layer(z)).view(-1, 1, 4, 4))


def test_facts_of_layers() -> None:
    class Modulated(nn.Module):
        convolves = True
        synchronised = ("mean",)

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("mean", torch.ones(2))

    network = nn.Sequential(nn.Linear(2, 2), Modulated(), nn.BatchNorm1d(2), nn.Dropout(0.5), nn.Dropout(0.0))
    assert layers.has_convolutions(network) and not layers.has_convolutions(nn.Linear(1, 1))
    assert layers.mixing(network) == ["2"] and not layers.random_in_eval(network)
    assert layers.running_statistics(network) == ["2.running_mean", "2.running_var"]
    assert layers.dropouts(network) == [network[3]]
    assert [buffer.tolist() for buffer in layers.synchronised(network)] == [[0.0, 0.0], [1.0, 1.0], [1.0, 1.0]]
