"""DCGAN and the MLPs layer by layer, and requirements of all networks. The other papers' tables: test_papers.py."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf
from torch import Tensor, nn

import gan_cli.networks
from gan_cli.config.build import build
from gan_cli.config.schema import Built, check, parameters
from gan_cli.networks import cgan, dcgan, mlp, pair, patchgan, resnet, resnet_translator, takes_label, unet
from gan_cli.networks.layers import make_norm
from gan_cli.system.errors import ConfigError

CONV = nn.Conv2d | nn.ConvTranspose2d


def leaves(network: nn.Module) -> list[nn.Module]:
    """The layers without containers and identities, in order."""
    return [m for m in network.modules() if not list(m.children()) and not isinstance(m, nn.Identity | nn.Flatten)]


def convolutions(network: nn.Module) -> list[tuple[Any, ...]]:
    """(in, out, kernel, stride, padding) of each convolution."""
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
    """The parameter counts of the PyTorch DCGAN tutorial, which has the same networks."""
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
    """The players of a command line."""
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


# Small networks with inputs: at least 1 sample, images 3 x 16 x 16, latents of 5 dimensions, 4 classes.
GENERATORS: dict[str, Callable[[], nn.Module]] = {
    "mlp": lambda: mlp.Generator(5, 16, 3, hidden=[8]),
    "cgan": lambda: cgan.Generator(5, 16, 3, 4, hidden_z=4, hidden_y=4, hidden=8),
    "dcgan": lambda: dcgan.Generator(5, 16, 3, width=4),
    "cdcgan": lambda: dcgan.ConditionalGenerator(5, 16, 3, 4, width=4),
    "resnet": lambda: resnet.Generator(5, 16, 3, width=8),
}
TRANSLATORS: dict[str, Callable[[], nn.Module]] = {
    **{f"unet {norm}": lambda norm=norm: unet.Generator(16, 3, width=4, norm=norm) for norm in ("batch", "instance", "none")},
    **{
        f"resnet {norm}": lambda norm=norm: resnet_translator.Generator(16, 3, width=4, blocks=2, norm=norm)
        for norm in ("batch", "instance", "none")
    },
}
NORMS = ("batch", "layer", "instance", "none")
DISCRIMINATORS: dict[str, Callable[[], nn.Module]] = {
    "mlp": lambda: mlp.Discriminator(16, 3, hidden=[8]),
    "cgan": lambda: cgan.Discriminator(16, 3, 4, hidden_x=4, hidden_y=4, hidden=8, dropout=0.0),
    **{f"dcgan {norm}": lambda norm=norm: dcgan.Discriminator(16, 3, width=4, norm=norm) for norm in NORMS},
    **{f"cdcgan {norm}": lambda norm=norm: dcgan.ConditionalDiscriminator(16, 3, 4, width=4, norm=norm) for norm in NORMS},
    **{f"resnet {norm}": lambda norm=norm: resnet.Discriminator(16, 3, width=8, norm=norm) for norm in NORMS},
    **{f"patch {norm}": lambda norm=norm: patchgan.Discriminator(3, layers=1, width=4, norm=norm) for norm in NORMS},
    "pixel": lambda: patchgan.Discriminator(3, layers=0, width=4, norm="none"),
}


def run(network: nn.Module, x: Tensor) -> Tensor:
    label = torch.arange(len(x)) % 4
    output: Tensor = network(x, label) if takes_label(network) else network(x)
    return output


def trains_every_parameter(network: nn.Module, loss: Tensor) -> None:
    """All parameters get a gradient, except biases before a norm."""
    gradients = torch.autograd.grad(loss, list(network.parameters()))
    assert all(g.isfinite().all() for g in gradients)
    missing = [name for (name, p), g in zip(network.named_parameters(), gradients, strict=True) if p.ndim > 1 and not g.any()]
    assert not missing


@pytest.mark.parametrize("name", GENERATORS)
@pytest.mark.parametrize("n", [1, 3])
def test_generators_give_images(name: str, n: int) -> None:
    torch.manual_seed(0)
    network = GENERATORS[name]()
    images = run(network, torch.randn(n, 5))
    assert images.shape == (n, 3, 16, 16) and images.dtype == torch.float32
    assert images.abs().max() <= 1
    if n > 1:
        trains_every_parameter(network, (images * torch.randn_like(images)).sum())


@pytest.mark.parametrize("name", GENERATORS)
def test_generators_reach_the_ends_of_the_range(name: str) -> None:
    torch.manual_seed(0)
    network = GENERATORS[name]()
    for p in network.parameters():
        p.data *= 10
    images = run(network, 10 * torch.randn(8, 5))
    assert -1 <= images.min() < -0.9 and 0.9 < images.max() <= 1


@pytest.mark.parametrize("name", TRANSLATORS)
@pytest.mark.parametrize("n", [1, 3])
def test_translators_give_images_and_leave_theirs_alone(name: str, n: int) -> None:
    torch.manual_seed(0)
    network = TRANSLATORS[name]()
    source = torch.rand(n, 3, 16, 16) * 2 - 1
    before = source.clone()
    images = network(source)
    assert images.shape == source.shape and images.dtype == torch.float32
    assert images.abs().max() <= 1 and torch.equal(source, before)
    trains_every_parameter(network, (images * torch.randn_like(images)).sum())


@pytest.mark.parametrize("name", DISCRIMINATORS)
def test_discriminators_judge_and_can_be_differentiated_twice(name: str) -> None:
    torch.manual_seed(0)
    network = DISCRIMINATORS[name]()
    images = torch.randn(3, 3, 16, 16, requires_grad=True)
    before = images.detach().clone()
    logits = run(network, images)
    map_side = {"patch": (1, 6, 6), "pixel": (1, 16, 16)}.get(name.split()[0], ())
    assert logits.shape == (3, *map_side) and logits.dtype == torch.float32
    assert torch.equal(images, before)
    (gradient,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
    assert gradient.shape == images.shape
    penalty = torch.autograd.grad(gradient.square().sum(), list(network.parameters()), allow_unused=True)
    assert any(g is not None and g.any() for g in penalty)
    trains_every_parameter(network, run(network, images).square().sum())


@pytest.mark.parametrize("name", [n for n in DISCRIMINATORS if not n.endswith("batch")])
def test_discriminators_without_batch_norm_look_at_each_sample_alone(name: str) -> None:
    torch.manual_seed(0)
    network = DISCRIMINATORS[name]()
    images = torch.randn(3, 3, 16, 16)
    others = torch.cat([images[:1], 5 * torch.randn(2, 3, 16, 16)])
    torch.testing.assert_close(run(network, images)[:1], run(network, others)[:1], atol=1e-5, rtol=1e-4)


def test_unet_skips_carry_each_encoder_layer_to_its_mirror() -> None:
    """The input of each decoder layer but the first ends with the encoder's output of the same size."""
    torch.manual_seed(0)
    network = unet.Generator(16, 3, width=4, norm="none", dropout=0.0)
    inputs: list[Tensor] = []
    outputs: list[Tensor] = []
    for encode in network.encoder:
        encode.register_forward_hook(lambda _m, _i, output: outputs.append(output.detach().clone()))
    for decode in network.decoder:
        decode.register_forward_pre_hook(lambda _m, args: inputs.append(args[0].detach().clone()))
    network(torch.randn(2, 3, 16, 16))
    torch.testing.assert_close(inputs[0], outputs[-1])
    for given, skip in zip(inputs[1:], outputs[-2::-1], strict=True):
        torch.testing.assert_close(given[:, -skip.shape[1] :], skip)


def test_unet_dropout_is_the_only_noise() -> None:
    torch.manual_seed(0)
    source = torch.rand(1, 3, 16, 16)
    noisy, plain = unet.Generator(16, 3, width=8), unet.Generator(16, 3, width=8, dropout=0.0)
    assert not torch.equal(noisy(source), noisy(source))
    assert torch.equal(plain(source), plain(source))


def test_unet_bottleneck_is_not_zero_for_a_batch_of_one() -> None:
    """The errata of pix2pix."""
    torch.manual_seed(0)
    network = unet.Generator(16, 3, width=4)
    seen: list[Tensor] = []
    network.encoder[-1].register_forward_hook(lambda _m, _i, output: seen.append(output))
    network(torch.randn(1, 3, 16, 16))
    assert seen[0].shape == (1, 32, 1, 1) and seen[0].abs().max() > 1e-4


def test_pairs_hold_two_networks_in_one() -> None:
    parts = [nn.Linear(2, 3), nn.Linear(3, 2)]
    for both, names in ((pair.Translators(*parts), ("a2b", "b2a")), (pair.Judges(*parts), ("a", "b"))):
        assert [getattr(both, name) for name in names] == parts
        assert [name for name, _ in both.named_children()] == list(names)
        assert not takes_label(both)


FOLDER = Path(gan_cli.networks.__file__).parent
PLAYERS = [
    f"gan_cli.networks.{module}.{name}"
    for module in sorted(file.stem for file in FOLDER.glob("[a-z]*.py") if file.stem not in ("layers", "pair"))
    for name, _ in inspect.getmembers(import_module(f"gan_cli.networks.{module}"), inspect.isclass)
    if name.endswith(("Generator", "Discriminator"))
]


@pytest.mark.parametrize("target", PLAYERS)
def test_every_argument_of_a_network_is_checked(target: str) -> None:
    known = parameters(target)
    assert known
    for name, parameter in known.items():
        assert Built not in (parameter.type, *getattr(parameter.type, "__args__", ())), name
    cls = getattr(import_module(target.rpartition(".")[0]), target.rpartition(".")[2])
    assert takes_label(cls) == ("num_classes" in known)


def test_there_are_players_to_check() -> None:
    assert len(PLAYERS) >= 13


@pytest.mark.parametrize(
    ("target", "arguments", "allowed"),
    [
        ("unet.Generator", {"image_size": 100, "channels": 3}, "a power of two from 16 to 1024"),
        ("unet.Generator", {"image_size": 64, "channels": 3, "norm": "layer"}, "Choose one of batch, instance, none"),
        ("unet.Generator", {"image_size": 64, "channels": 3, "dropout": 1.5}, "a number >= 0 and <= 1"),
        ("resnet_translator.Generator", {"image_size": 130, "channels": 3}, "a multiple of 4 from 8 to 2048"),
        (
            "resnet_translator.Generator",
            {"image_size": 128, "channels": 3, "blocks": 0},
            "a whole number >= 1 and <= 64 or null",
        ),
        ("patchgan.Discriminator", {"channels": 3, "layers": 7}, "a whole number >= 0 and <= 6"),
        ("resnet.Generator", {"latent_dim": 128, "image_size": 8, "channels": 3}, "a power of two from 16 to 256"),
        ("cgan.Generator", {"latent_dim": 9, "image_size": 28, "channels": 1, "num_classes": 0}, "a whole number >= 1"),
        ("pair.Judges", {"a": 1, "b": 2}, "an object given by a _target_"),
    ],
)
def test_arguments_out_of_range_are_refused(target: str, arguments: dict[str, Any], allowed: str) -> None:
    with pytest.raises(ConfigError) as error:
        check({"_target_": f"gan_cli.networks.{target}", **arguments}, "model.generator")
    assert allowed in str(error.value)


@pytest.mark.parametrize("block", [lambda: resnet.ResidualBlock(4, "none"), lambda: resnet_translator.ResidualBlock(4, "none")])
def test_residual_blocks_add_to_their_input(block: Callable[[], nn.Module]) -> None:
    network = block()
    last = [m for m in network.modules() if isinstance(m, nn.Conv2d)][-1]
    nn.init.zeros_(last.weight)
    nn.init.ones_(last.bias)
    x = torch.randn(2, 4, 8, 8)
    assert torch.equal(network(x.clone()), x + 1)
    nn.init.ones_(last.weight)
    assert not torch.allclose(network(x), x + 1)
