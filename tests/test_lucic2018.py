"""Lucic et al. 2018, "Are GANs Created Equal?": networks and defaults of google/compare_gan v1.0, and the sweeps over them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_module
from torch import nn

from gan_cli.networks import infogan

from .test_config_files import composed, nested  # type: ignore[import-not-found]

# params.py: losses, what they are there, learning rate, beta1, disc_iters, batch norm in D
DEFAULTS = {
    "minimax": (5e-5, 0.0, 1, "batch"),
    "non_saturating": (5e-5, 0.0, 1, "batch"),
    "lsgan": (2e-4, 0.5, 1, "batch"),
    "wgan": (5e-5, 0.5, 5, "batch"),
    "wgan_gp": (1e-4, 0.5, 5, "none"),
}
TINY = ["threads=1", "batch_size=4", "total_steps=2", "save_every=1", "dataset.image_size=8"]
TINY += [f"model.{player}.{size}" for player in ("generator", "discriminator") for size in ("width=4", "hidden=8")]


def size(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def test_generator() -> None:
    g = infogan.Generator(latent_dim=64, image_size=28, channels=1)
    linear = 64 * 1024 + 1024 + 1024 * (128 * 7 * 7) + 128 * 7 * 7
    assert size(g) == linear + 2 * (1024 + 128 * 7 * 7 + 64) + (128 * 64 * 16 + 64) + (64 * 1 * 16 + 1)
    images = g(torch.rand(3, 64) * 2 - 1)
    assert images.shape == (3, 1, 28, 28) and images.abs().max() <= 1


@pytest.mark.parametrize("norm", ["batch", "layer", "none"])
def test_discriminator(norm: Any) -> None:
    d = infogan.Discriminator(image_size=28, channels=1, norm=norm)
    convolutions = (1 * 64 * 16 + 64) + (64 * 128 * 16 + 128)
    norms = 0 if norm == "none" else 2 * (128 + 1024)
    assert size(d) == convolutions + (128 * 7 * 7 * 1024 + 1024) + norms + (1024 + 1)
    assert d(torch.rand(3, 1, 28, 28)).shape == (3,)
    epsilons = [m.eps for m in d.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)]
    assert epsilons == ([1e-3, 1e-3] if norm == "batch" else [])


def test_weights_at_first() -> None:
    """ops.py: N(0, 0.02), those of convolutions cut off at two deviations; biases 0."""
    torch.manual_seed(0)
    for network in (infogan.Generator(64, 28, 1), infogan.Discriminator(28, 1)):
        for m in network.modules():
            if isinstance(m, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
                assert m.bias is not None and (m.bias == 0).all()
                assert m.weight.std().item() == pytest.approx(0.0176 if isinstance(m, nn.Conv2d) else 0.02, rel=0.1)
                assert not isinstance(m, nn.Conv2d) or m.weight.abs().max() <= 0.04


@pytest.mark.parametrize("loss", DEFAULTS)
def test_defaults(loss: str) -> None:
    lr, beta1, n_critic, norm = DEFAULTS[loss]
    config = composed(f"experiment=lucic2018_{loss}")
    for player in ("optimizer", "optimizer.discriminator"):
        assert (nested(config, f"{player}.lr"), nested(config, f"{player}.betas")) == (lr, [beta1, 0.999])
    assert (config.loss["n_critic"], config.model["discriminator"]["norm"], config.batch_size) == (n_critic, norm, 64)
    assert config.total_steps == 20 * 60_000 // 64 // n_critic and config.ema["half_life"] == 0
    assert (config.model["task"]["latent_dim"], config.model["task"]["prior"], config.dataset["image_size"]) == (
        64,
        "uniform",
        28,
    )
    assert config.model["task"]["same_noise"] == (loss != "wgan_gp")
    assert composed(f"experiment=lucic2018_{loss}", "dataset=fashion_mnist").dataset["_target_"].endswith("fashion_mnist")


def params(sweep: str) -> dict[str, str]:
    with initialize_config_module("gan_cli.conf", version_base="1.3"):
        cfg = compose("train", [f"sweep={sweep}"], return_hydra_config=True)
    return {key: str(value) for key, value in cfg.hydra.sweeper.params.items()}


def test_the_sweep_is_over_all_of_them() -> None:
    swept = params("lucic2018")
    assert set(swept["experiment"].split(",")) == {f"lucic2018_{loss}" for loss in DEFAULTS}
    assert swept["dataset"] == "mnist,fashion_mnist"
    for experiment in swept["experiment"].split(","):
        config = composed("sweep=lucic2018", f"experiment={experiment}", "dataset=fashion_mnist", "seed=3")
        assert config.eval_every == config.save_every and config.total_steps // config.save_every == 4


def test_the_search_is_over_their_ranges() -> None:
    """GetDefaultWideRange: learning rates 1e-5 to 1e-2 by their logarithm, beta1 0 to 1, batch norm or none."""
    swept = params("lucic2018_search")
    assert swept["optimizer.lr"] == "tag(log, interval(1e-5, 1e-2))" and swept["optimizer.betas.0"].startswith(
        "interval(0.0, 0.99"
    )
    drawn = ["optimizer.lr=0.003", "optimizer.betas.0=0.7", "model.discriminator.norm=none"]
    config = composed("sweep=lucic2018_search", "experiment=lucic2018_wgan", *drawn)
    assert config.optimizer["discriminator"] == {"lr": 0.003, "betas": [0.7, 0.999]}
    assert (config.optimized_metric, config.eval_every) == ("metric/fid", 937)


@pytest.mark.slow
def test_a_job_of_each_loss(gan: Any, data_root: Path, read: Any, tmp_path: Path) -> None:
    losses = ",".join(f"lucic2018_{loss}" for loss in DEFAULTS)
    args = [f"experiment={losses}", "dataset=fashion_mnist", f"dataset.root={data_root}", "seed=0", *TINY, "eval_every=null"]
    result = gan("gan-train", "-m", "sweep=lucic2018", *args, "hydra.sweep.dir=sweep")
    assert result.code == 0, result.err
    runs = [path.parent for path in (tmp_path / "sweep").glob("*/config.yaml")]
    assert len(runs) == len(DEFAULTS) and all(read.rows(run)[-1]["step"] == 2 for run in runs)
