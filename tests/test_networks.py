"""Networks against the tables of the paper and of the tutorials."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf
from torch import nn

from gan_cli.networks import dcgan, mlp
from gan_cli.networks.layers import make_norm
from gan_cli.runs import build

CONV = nn.Conv2d | nn.ConvTranspose2d


def leaves(network: nn.Module) -> list[nn.Module]:
    """The layers that do something, in order."""
    return [m for m in network.modules() if not list(m.children()) and not isinstance(m, nn.Identity | nn.Flatten)]


def convolutions(network: nn.Module) -> list[tuple[Any, ...]]:
    """(in, out, kernel, stride, padding) of each."""
    found = [m for m in network.modules() if isinstance(m, CONV)]
    assert all(m.bias is None for m in found)
    assert all(len({*m.kernel_size}) == len({*m.stride}) == len({*m.padding}) == 1 for m in found)
    return [(m.in_channels, m.out_channels, m.kernel_size[0], m.stride[0], m.padding[0]) for m in found]


def dcgan_pair(image_size: int = 64, channels: int = 3, width: int = 64, **d: Any) -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    generator = dcgan.Generator(latent_dim=100, image_size=image_size, channels=channels, width=width)
    return generator, dcgan.Discriminator(image_size=image_size, channels=channels, width=width, **d)


@pytest.fixture(scope="module")
def full_dcgan() -> tuple[nn.Module, nn.Module]:
    return dcgan_pair()


@pytest.mark.parametrize("image_size", [16, 32, 64, 128, 256])
@pytest.mark.parametrize("channels", [1, 3])
def test_dcgan_shapes(image_size: int, channels: int) -> None:
    generator, discriminator = dcgan_pair(image_size, channels, width=2)
    with torch.no_grad():
        images = generator(torch.randn(2, 100))
        logits = discriminator(images)
    assert images.shape == (2, channels, image_size, image_size) and images.abs().max() <= 1
    assert logits.shape == (2,) and logits.dtype == torch.float32


def test_dcgan_generator_is_the_papers_table(full_dcgan: tuple[nn.Module, nn.Module]) -> None:
    generator, _ = full_dcgan
    assert convolutions(generator) == [
        (100, 512, 4, 1, 0),
        (512, 256, 4, 2, 1),
        (256, 128, 4, 2, 1),
        (128, 64, 4, 2, 1),
        (64, 3, 4, 2, 1),
    ]
    block = [nn.ConvTranspose2d, nn.BatchNorm2d, nn.ReLU]
    assert [type(m) for m in leaves(generator)] == block * 4 + [nn.ConvTranspose2d, nn.Tanh]
    assert [m.num_features for m in leaves(generator) if isinstance(m, nn.BatchNorm2d)] == [512, 256, 128, 64]


def test_dcgan_discriminator_is_the_papers_table(full_dcgan: tuple[nn.Module, nn.Module]) -> None:
    _, discriminator = full_dcgan
    assert convolutions(discriminator) == [
        (3, 64, 4, 2, 1),
        (64, 128, 4, 2, 1),
        (128, 256, 4, 2, 1),
        (256, 512, 4, 2, 1),
        (512, 1, 4, 1, 0),
    ]
    block = [nn.Conv2d, nn.BatchNorm2d, nn.LeakyReLU]
    assert [type(m) for m in leaves(discriminator)] == [nn.Conv2d, nn.LeakyReLU, *block * 3, nn.Conv2d]
    assert [m.num_features for m in leaves(discriminator) if isinstance(m, nn.BatchNorm2d)] == [128, 256, 512]
    assert {m.negative_slope for m in leaves(discriminator) if isinstance(m, nn.LeakyReLU)} == {0.2}


def test_dcgan_parameter_counts(full_dcgan: tuple[nn.Module, nn.Module]) -> None:
    """Those of the PyTorch DCGAN tutorial, which has the same networks."""
    assert [sum(p.numel() for p in network.parameters()) for network in full_dcgan] == [3_576_704, 2_765_568]


@pytest.mark.parametrize("side", [0, 1])
def test_dcgan_initial_weights(full_dcgan: tuple[nn.Module, nn.Module], side: int) -> None:
    network = full_dcgan[side]
    for module in network.modules():
        if isinstance(module, CONV):
            error = 5 * 0.02 / module.weight.numel() ** 0.5  # five standard errors
            assert module.weight.mean().item() == pytest.approx(0, abs=error)
            assert module.weight.std().item() == pytest.approx(0.02, abs=error)
        elif isinstance(module, nn.BatchNorm2d):
            assert (module.bias == 0).all()
    scales = torch.cat([m.weight.detach() for m in network.modules() if isinstance(m, nn.BatchNorm2d)])
    assert scales.mean().item() == pytest.approx(1, abs=0.004)
    assert scales.std().item() == pytest.approx(0.02, rel=0.15)


@pytest.mark.parametrize(("norm", "kind"), [("layer", nn.GroupNorm), ("instance", nn.InstanceNorm2d), ("none", None)])
def test_a_critic_without_batch_norm_looks_at_each_sample_alone(norm: str, kind: type | None) -> None:
    _, critic = dcgan_pair(32, 1, width=4, norm=norm)
    assert not any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in critic.modules())
    assert sum(isinstance(m, kind) for m in critic.modules()) == 2 if kind else True
    torch.manual_seed(1)
    images = torch.randn(3, 1, 32, 32)
    others = torch.cat([images[:1], 5 * torch.randn(2, 1, 32, 32)])
    torch.testing.assert_close(critic(images)[0], critic(others)[0], atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(critic(images)[:1], critic(images[:1]), atol=1e-6, rtol=1e-5)


def test_a_critic_with_batch_norm_does_not() -> None:
    _, critic = dcgan_pair(32, 1, width=4, norm="batch")
    images = torch.randn(3, 1, 32, 32)
    others = torch.cat([images[:1], 5 * torch.randn(2, 1, 32, 32)])
    assert (critic(images)[0] - critic(others)[0]).abs() > 1e-5


@pytest.mark.parametrize(("kind", "axes"), [("batch", (0, 2, 3)), ("layer", (1, 2, 3)), ("instance", (2, 3))])
def test_norms_normalise_over_their_axes(kind: Any, axes: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    x = 3 * torch.randn(4, 5, 6, 6) * torch.rand(4, 5, 1, 1) + torch.randn(4, 5, 1, 1)
    y = make_norm(kind, 5)(x)
    torch.testing.assert_close(y.mean(axes), torch.zeros_like(y.mean(axes)), atol=1e-5, rtol=0)
    torch.testing.assert_close(y.std(axes, unbiased=False), torch.ones_like(y.mean(axes)), atol=1e-2, rtol=0)


def composed_networks(*overrides: str) -> tuple[nn.Module, nn.Module]:
    """The players that a command line gives."""
    GlobalHydra.instance().clear()
    with initialize_config_module("gan_cli.conf", version_base="1.3"):
        cfg = compose("train", overrides=list(overrides))
    nodes = OmegaConf.to_container(cfg.model, resolve=True)
    assert isinstance(nodes, dict)
    return build(nodes["generator"], "model.generator"), build(nodes["discriminator"], "model.discriminator")


@pytest.mark.parametrize(
    ("model", "generator_widths", "discriminator_widths", "counts"),
    [
        ("mlp", [64, 256, 256, 784], [784, 256, 256, 1], [283_920, 267_009]),
        ("wgan_mlp", [100, 256, 512, 1024, 784], [784, 512, 256, 1], [1_486_352, 533_505]),
    ],
)
def test_mlp_layers_are_the_tutorials(
    model: str, generator_widths: list[int], discriminator_widths: list[int], counts: list[int]
) -> None:
    networks = composed_networks(f"model={model}", "dataset=mnist", "dataset.image_size=28")
    for network, widths, between, end in zip(
        networks, (generator_widths, discriminator_widths), (nn.ReLU, nn.LeakyReLU), ([nn.Tanh], []), strict=True
    ):
        layers = leaves(network)
        linear = [m for m in layers if isinstance(m, nn.Linear)]
        assert [(m.in_features, m.out_features) for m in linear] == list(pairwise(widths))
        assert [type(m) for m in layers] == [nn.Linear, between] * (len(widths) - 2) + [nn.Linear, *end]
        assert all(m.negative_slope == 0.2 for m in layers if isinstance(m, nn.LeakyReLU))
    assert [sum(p.numel() for p in network.parameters()) for network in networks] == counts


@pytest.mark.parametrize("channels", [1, 3])
def test_mlp_shapes_and_range(channels: int) -> None:
    torch.manual_seed(0)
    generator = mlp.Generator(latent_dim=5, image_size=6, channels=channels, hidden=[8])
    images = generator(100 * torch.randn(4, 5))
    assert images.shape == (4, channels, 6, 6)
    assert images.abs().max() <= 1 and images.min() < -0.9 and images.max() > 0.9
    logits = mlp.Discriminator(image_size=6, channels=channels, hidden=[8])(images)
    assert logits.shape == (4,) and logits.dtype == torch.float32


def test_mlp_without_hidden_layers_is_linear() -> None:
    critic = mlp.Discriminator(image_size=4, channels=1, hidden=[])
    assert [type(m) for m in leaves(critic)] == [nn.Linear]
    assert critic(torch.zeros(2, 1, 4, 4)).shape == (2,)


def test_mlp_has_pytorchs_default_initialisation() -> None:
    torch.manual_seed(3)
    network = mlp.Generator(latent_dim=5, image_size=4, channels=1, hidden=[7, 8])
    torch.manual_seed(3)
    expected = [nn.Linear(5, 7), nn.Linear(7, 8), nn.Linear(8, 16)]
    parameters = [p for layer in expected for p in layer.parameters()]
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), parameters, strict=True))
